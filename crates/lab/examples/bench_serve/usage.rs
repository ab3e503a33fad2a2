//! What a process has used, as Linux tells it in `/proc`.

use std::error::Error;
use std::fs;
use std::path::Path;

/// `/proc` counts time in these, on every machine that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used up to a moment, and what it holds at that moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// Caused to be written to a disk; what is written to memory is not counted.
    pub(crate) disk_bytes: u64,
    /// Size of the journal's files.
    pub(crate) journal_bytes: u64,
    /// Size of the ledger's files, its write-ahead log among them.
    pub(crate) ledger_bytes: u64,
    pub(crate) resident_kib: u64,
    /// The most so far.
    pub(crate) peak_kib: u64,
}

impl Usage {
    /// What the process `pid` has used.
    pub(crate) fn of(pid: u32) -> Result<Self, Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            cpu_seconds: cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?)? as f64 / TICKS_PER_SECOND,
            disk_bytes: number(&fs::read_to_string(format!("/proc/{pid}/io"))?, "write_bytes:")?,
            resident_kib: number(&status, "VmRSS:")?,
            peak_kib: number(&status, "VmHWM:")?,
            ..Self::default()
        })
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            disk_bytes: self.disk_bytes.saturating_sub(before.disk_bytes),
            journal_bytes: self.journal_bytes.saturating_sub(before.journal_bytes),
            ledger_bytes: self.ledger_bytes.saturating_sub(before.ledger_bytes),
            ..self
        }
    }

    /// What was used in two spans of time, of which `other` is the later.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            disk_bytes: self.disk_bytes + other.disk_bytes,
            journal_bytes: self.journal_bytes + other.journal_bytes,
            ledger_bytes: self.ledger_bytes + other.ledger_bytes,
            ..other
        }
    }
}

/// The size of all files in `dir` whose names begin with `prefix`.
pub(crate) fn size(dir: &Path, prefix: &str) -> Result<u64, Box<dyn Error>> {
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            total += entry.metadata()?.len();
        }
    }
    Ok(total)
}

/// Most files that this process, and those that it starts, may have open.
pub(crate) fn file_limit() -> Result<usize, Box<dyn Error>> {
    Ok(number(&fs::read_to_string("/proc/self/limits")?, "Max open files")? as usize)
}

/// The number that follows `name` in a text of lines.
fn number(text: &str, name: &str) -> Result<u64, Box<dyn Error>> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let word = rest.and_then(|rest| rest.split_whitespace().next());
    Ok(word.ok_or_else(|| format!("there is no `{name}` in `/proc`"))?.parse()?)
}

/// Time in the program and in the kernel for it.
fn cpu_ticks(stat: &str) -> Result<u64, Box<dyn Error>> {
    // The second field is the name, in brackets, and may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next().ok_or("`/proc` gives no times");
    Ok(next()?.parse::<u64>()? + next()?.parse::<u64>()?)
}
