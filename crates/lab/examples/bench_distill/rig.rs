//! A folder with prompts, a student and recipes, and the program that works in it.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anbiq_domain::{Money, PriceList, Seeded};
use anbiq_lab::vendor::Vendor;
use serde_json::Value;

/// What everything costs.
pub(crate) fn prices() -> PriceList {
    PriceList { input: Money::from_nanos(500_000_000), output: Money::from_dollars(2), ..PriceList::default() }
}

/// How the program asks.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) ceiling: &'a str,
    pub(crate) concurrency: usize,
}

/// What the program says of a capture; dollars.
pub(crate) struct Asking {
    pub(crate) cost: f64,
    pub(crate) lost: f64,
}

/// What it says of a pilot; dollars.
pub(crate) struct Forecast {
    pub(crate) sample: u64,
    pub(crate) expected: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

pub(crate) struct Rig {
    program: PathBuf,
    folder: tempfile::TempDir,
    count: usize,
}

impl Rig {
    pub(crate) fn new(program: &Path, count: usize) -> Result<Self, Box<dyn Error>> {
        Self::with_seed(program, count, 1)
    }

    /// With `count` prompts of 20 to some 400 bytes, all different.
    pub(crate) fn with_seed(program: &Path, count: usize, seed: u64) -> Result<Self, Box<dyn Error>> {
        let rig = Self { program: fs::canonicalize(program)?, folder: tempfile::tempdir()?, count };
        rig.done(&rig.command(&["lab", "unpack", "--out", "teacher"]).output()?)?;
        let mut random = Seeded::new(seed).fork("prompts");
        let mut prompts = BufWriter::new(File::create(rig.path("prompts.jsonl"))?);
        for number in 0..count {
            let more = "and more of it ".repeat(random.below(26));
            writeln!(prompts, "{{\"prompt\": \"Set {seed}: tell me of number {number} {more}\"}}")?;
        }
        prompts.into_inner()?;
        Ok(rig)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn done(&self, output: &std::process::Output) -> Result<Value, Box<dyn Error>> {
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn recipe(&self, name: &str, vendor: &Vendor, ask: Ask<'_>) -> Result<String, Box<dyn Error>> {
        let (file, Ask { ceiling, concurrency }) = (format!("{name}.toml"), ask);
        let text = format!(
            "out = \"student\"\n[teacher]\nname = \"vendor\"\nbasis = \"a benchmark\"\n\
             prices = {{ input = \"0.50\", output = \"2.00\" }}\n[capture]\nsource = \"{name}.jsonl\"\n[capture.ask]\n\
             url = \"{}\"\nprompts = \"prompts.jsonl\"\nmax_tokens = 100\nceiling = \"{ceiling}\"\n\
             concurrency = {concurrency}\n[student]\nname = \"student\"\ninit = \"teacher\"\n",
            vendor.base_url
        );
        fs::write(self.path(&file), text)?;
        Ok(file)
    }

    /// Starts a capture and leaves it to itself.
    pub(crate) fn start(&self, name: &str, vendor: &Vendor, ask: Ask<'_>) -> Result<Child, Box<dyn Error>> {
        let recipe = self.recipe(name, vendor, ask)?;
        let mut command = self.command(&["distill", "capture", &recipe, "--json"]);
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// A capture to its end.
    pub(crate) async fn capture(&self, name: &str, vendor: &Vendor, ask: Ask<'_>) -> Result<Asking, Box<dyn Error>> {
        let asking = self.say(name, vendor, ask, &[]).await?;
        Ok(Asking { cost: dollars(&asking["cost"])?, lost: dollars(&asking["lost"])? })
    }

    pub(crate) async fn pilot(&self, name: &str, vendor: &Vendor, ask: Ask<'_>) -> Result<Forecast, Box<dyn Error>> {
        let said = self.say(name, vendor, ask, &["--pilot", "0.01"]).await?;
        let number = |field: &str| said["forecast"]["money"][field].as_f64().ok_or("the pilot says nothing");
        let sample = said["forecast"]["sample"].as_u64().unwrap_or_default();
        Ok(Forecast { sample, expected: number("expected")?, low: number("low")?, high: number("high")? })
    }

    async fn say(&self, name: &str, vendor: &Vendor, ask: Ask<'_>, more: &[&str]) -> Result<Value, Box<dyn Error>> {
        let recipe = self.recipe(name, vendor, ask)?;
        let mut command = self.command(&["distill", "capture", &recipe, "--json"]);
        command.args(more);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        self.done(&output)
    }

    /// A capture that is killed once the vendor has charged for so many answers.
    pub(crate) async fn killed(
        &self,
        name: &str,
        vendor: &Vendor,
        ask: Ask<'_>,
        charged: u64,
    ) -> Result<(), Box<dyn Error>> {
        let mut program = self.start(name, vendor, ask)?;
        while vendor.books().charged < charged {
            if program.try_wait()?.is_some() {
                return Err("the capture ended before it was killed".into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // On Unix this is SIGKILL.
        program.kill()?;
        program.wait()?;
        Ok(())
    }

    pub(crate) fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        fs::read(self.path(&format!("{name}.jsonl")))
    }

    pub(crate) fn bytes(&self, name: &str) -> std::io::Result<u64> {
        Ok(fs::metadata(self.path(&format!("{name}.jsonl")))?.len())
    }

    /// Different rows of a capture, none more than prompts.
    pub(crate) fn rows(&self, name: &str) -> Result<u64, Box<dyn Error>> {
        let mut rows = 0;
        for line in BufReader::new(File::open(self.path(&format!("{name}.jsonl")))?).lines() {
            rows += u64::from(!line?.is_empty());
        }
        if rows > self.count as u64 { Err("there are more rows than prompts".into()) } else { Ok(rows) }
    }
}

fn dollars(amount: &Value) -> Result<f64, Box<dyn Error>> {
    Ok(amount.as_str().ok_or("an amount is missing")?.parse()?)
}

/// Waits for the end of `program`, and looks at it every so often.
pub(crate) async fn watched(
    mut program: Child,
    every: Duration,
    mut look: impl FnMut(u32),
) -> std::io::Result<ExitStatus> {
    loop {
        look(program.id());
        if let Some(status) = program.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(every).await;
    }
}

/// The most memory that a process had so far, in KiB; 0 where the system does not say.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:")
}

/// What the system says of a process, in KiB; 0 where it does not.
pub(crate) fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix(field));
    peak.and_then(|peak| peak.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}
