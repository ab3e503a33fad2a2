//! The two files of a capture under way, and the thread that writes them: `source`, with a [`Row`](crate::Row) a line, and
//! its ledger. Requests wait for the disk together: one sync serves all that came while the last one lasted.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anbiq_domain::{Digest, Money, Usage};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::ledger::{End, Entry, Head, Ledger, Past, Try, ledger_path, line, rewrite};
use super::want::{Index, short};
use crate::DistillError;
use crate::data::Lines;
use crate::told;

/// Writes that wait for the disk before whoever gives more is made to wait.
const QUEUE: usize = 1024;

/// How long rows may wait for their sync, so that the disk does not sync each of them.
const ROWS_SYNCED: Duration = Duration::from_millis(250);

/// How long another program may keep the capture before this one gives up.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Lines of a ledger above which it is written anew at the start, without what has ended.
const LONG_LEDGER: u64 = 100_000;

/// Writes to both files, in order. Dropping it ends the thread once it has written what it was given.
#[derive(Debug)]
pub(crate) struct Disk {
    jobs: mpsc::Sender<Job>,
    worker: JoinHandle<Result<Lock, DistillError>>,
}

/// Holds a capture against other programs that would pay for it a second time.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

#[derive(Debug)]
enum Job {
    /// These are about to be sent; told when they may.
    Hold(Vec<u8>, oneshot::Sender<()>),
    /// The rows of a request and the lines that end it.
    Row(Vec<u8>, Vec<u8>),
    /// A line that nothing waits for.
    Note(Vec<u8>),
    /// Told when all before it is on disk.
    Sync(oneshot::Sender<()>),
}

impl Disk {
    /// Opens the files of the capture `source`, strikes what they hold from `index`, and shows each row's usage to `count`, with
    /// whether it came in a batch and whether it is wanted.
    pub(crate) fn open(
        source: &Path,
        index: &mut Index,
        mut count: impl FnMut(Usage, bool, bool),
    ) -> Result<(Self, Past), DistillError> {
        if let Some(folder) = source.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(DistillError::write(folder))?;
        }
        let path = ledger_path(source);
        let lock = Lock::take(source)?;
        let mut ledger = append(&path)?;
        cut_torn(&mut ledger, &path)?;
        let mut past = Ledger::default();
        for entry in Lines::<Entry>::open(&path)? {
            past.take(&entry?);
        }
        let mut rows = append(source)?;
        cut_torn(&mut rows, source)?;
        let mut named = BTreeSet::new();
        for head in Lines::<Head>::open(source)? {
            let Head { id, usage, batch, told } = head?;
            named.extend(told.map(|told| told.file));
            let Some(id) = id else { continue };
            past.answered(&id);
            count(usage, batch, index.answered(&id));
        }
        // Before anything is paid for: what is there can be read when it is shelved with what will come.
        told::sweep_all_but(source, &named)?;
        let lines = past.lines;
        let past = past.end();
        if lines > LONG_LEDGER {
            ledger = rewrite(&path, &past)?;
        }
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (source, ends, synced) = (source.to_owned(), Vec::new(), Instant::now());
        let files = Files { source, path, rows, ledger, ends, synced, lock };
        let worker = tokio::task::spawn_blocking(move || files.work(queue));
        Ok((Self { jobs, worker }, past))
    }

    /// Says that these answers are about to be asked for, each with the most that it can cost and how many its request asks
    /// for. They may be when the answer comes; where the disk fails it never does.
    pub(crate) async fn hold(
        &mut self,
        wants: impl Iterator<Item = (Digest, Money, u32)>,
    ) -> Result<oneshot::Receiver<()>, DistillError> {
        let mut lines = Vec::new();
        for (id, most, of) in wants {
            line(&mut lines, &Entry::held(short(&id), Try { most, of }));
        }
        let (sender, receiver) = oneshot::channel();
        self.give(Job::Hold(lines, sender)).await?;
        Ok(receiver)
    }

    /// Keeps the answers to a request for `of` of them, which was charged so much less than they count.
    pub(crate) async fn keep(
        &mut self,
        answers: impl Iterator<Item = (Digest, Vec<u8>)>,
        replayed: bool,
        of: u32,
        saved: Money,
    ) -> Result<(), DistillError> {
        let end = if replayed { End::Once } else { End::Paid };
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        for (id, row) in answers {
            rows.extend(row);
            line(&mut lines, &Entry::ended(&id, end, of));
        }
        if !saved.is_zero() {
            line(&mut lines, &Entry::saved(saved, of));
        }
        self.give(Job::Row(rows, lines)).await
    }

    /// A request for `of` answers did not bring this one, which costs nothing.
    pub(crate) async fn free(&mut self, id: &Digest, of: u32) -> Result<(), DistillError> {
        let mut lines = Vec::new();
        line(&mut lines, &Entry::ended(id, End::Free, of));
        self.give(Job::Note(lines)).await
    }

    /// Something other than a row was paid for.
    pub(crate) async fn paid(&mut self, id: &Digest, cost: Money) -> Result<(), DistillError> {
        let mut lines = Vec::new();
        line(&mut lines, &Entry { cost: Some(cost), ..Entry::ended(id, End::Paid, 1) });
        self.give(Job::Note(lines)).await
    }

    /// Waits until all that was given so far is on disk.
    pub(crate) async fn sync(&mut self) -> Result<(), DistillError> {
        let (sender, receiver) = oneshot::channel();
        self.give(Job::Sync(sender)).await?;
        if receiver.await.is_err() {
            self.failure().await?;
        }
        Ok(())
    }

    /// Waits until all is on disk, and ends.
    pub(crate) async fn close(self) -> Result<Lock, DistillError> {
        drop(self.jobs);
        joined(self.worker.await)
    }

    async fn give(&mut self, job: Job) -> Result<(), DistillError> {
        if self.jobs.send(job).await.is_ok() {
            return Ok(());
        }
        self.failure().await
    }

    /// Why the thread ended.
    pub(crate) async fn failure(&mut self) -> Result<(), DistillError> {
        joined((&mut self.worker).await)?;
        Err(DistillError::Interrupted("the files of the capture are no longer written".to_owned()))
    }
}

fn joined(worked: Result<Result<Lock, DistillError>, tokio::task::JoinError>) -> Result<Lock, DistillError> {
    worked.map_err(|error| DistillError::Interrupted(error.to_string()))?
}

/// Puts the rows of `source` in the order of `index`; rows of other requests keep their order after them. Rows are
/// copied as they stand, one at a time.
pub(crate) fn put_in_order(source: &Path, index: &Index) -> Result<(), DistillError> {
    let mut lines = Lines::<Head>::open(source)?;
    let mut rows: Vec<(u32, u64)> = Vec::new();
    loop {
        let begin = lines.offset();
        let Some(head) = lines.next().transpose()? else { break };
        let place = head.id.and_then(|id| index.place(&id)).unwrap_or(u32::MAX);
        rows.push((place, begin));
    }
    if rows.is_sorted() {
        return Ok(());
    }
    rows.sort_unstable();
    replace(source, |to| {
        let mut from = std::io::BufReader::new(File::open(source)?);
        let mut text = Vec::new();
        for (_, begin) in &rows {
            from.seek(SeekFrom::Start(*begin))?;
            loop {
                text.clear();
                std::io::BufRead::read_until(&mut from, b'\n', &mut text)?;
                // Blank lines count as none.
                if text.is_empty() || !text.trim_ascii().is_empty() {
                    break;
                }
            }
            to.write_all(&text)?;
        }
        Ok(())
    })
}

/// Puts at `path` what `write` writes, as a whole or not at all; durable when it returns.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), DistillError> {
    let new = path.with_added_extension("new");
    let written = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 18, File::create(&new)?);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    written().map_err(DistillError::write(path))
}

struct Files {
    source: PathBuf,
    path: PathBuf,
    rows: File,
    ledger: File,
    /// Ends of requests whose rows are written and not yet on disk.
    ends: Vec<u8>,
    synced: Instant,
    lock: Lock,
}

impl Files {
    fn work(mut self, mut queue: mpsc::Receiver<Job>) -> Result<Lock, DistillError> {
        let (mut rows, mut ledger, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(first) = queue.blocking_recv() {
            let (mut next, mut now) = (Some(first), false);
            while let Some(job) = next {
                match job {
                    Job::Hold(lines, told) => {
                        ledger.extend_from_slice(&lines);
                        waiting.push(told);
                    }
                    Job::Row(row, end) => {
                        rows.extend_from_slice(&row);
                        self.ends.extend_from_slice(&end);
                    }
                    Job::Note(lines) => ledger.extend_from_slice(&lines),
                    Job::Sync(told) => {
                        now = true;
                        waiting.push(told);
                    }
                }
                next = queue.try_recv().ok();
            }
            self.rows.write_all(&rows).map_err(DistillError::write(&self.source))?;
            if now || self.synced.elapsed() >= ROWS_SYNCED {
                self.sync_rows(&mut ledger)?;
            }
            self.ledger.write_all(&ledger).map_err(DistillError::write(&self.path))?;
            if !waiting.is_empty() {
                self.ledger.sync_data().map_err(DistillError::write(&self.path))?;
            }
            for told in waiting.drain(..) {
                // Who no longer waits will not send it.
                let _ = told.send(());
            }
            rows.clear();
            ledger.clear();
        }
        self.sync_rows(&mut ledger)?;
        self.ledger.write_all(&ledger).map_err(DistillError::write(&self.path))?;
        self.ledger.sync_data().map_err(DistillError::write(&self.path))?;
        Ok(self.lock)
    }

    /// Only once a row is on disk may the ledger say that its request has ended.
    fn sync_rows(&mut self, ledger: &mut Vec<u8>) -> Result<(), DistillError> {
        if !self.ends.is_empty() {
            self.rows.sync_data().map_err(DistillError::write(&self.source))?;
            ledger.append(&mut self.ends);
        }
        self.synced = Instant::now();
        Ok(())
    }
}

pub(crate) fn append(path: &Path) -> Result<File, DistillError> {
    OpenOptions::new().read(true).append(true).create(true).open(path).map_err(DistillError::write(path))
}

impl Lock {
    /// Takes a file of its own, since the others are replaced by new ones.
    fn take(source: &Path) -> Result<Self, DistillError> {
        let path = source.with_added_extension("lock");
        let file = append(&path)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Err(DistillError::Taken(source.to_owned())),
                Err(TryLockError::Error(error)) => return Err(DistillError::write(&path)(error)),
            }
        }
    }
}

/// Removes a last line without its end: a crash cut it off before anybody relied on it.
fn cut_torn(file: &mut File, path: &Path) -> Result<(), DistillError> {
    let length = file.metadata().map_err(DistillError::read(path))?.len();
    let mut end = length;
    let mut block = vec![0; 1 << 16];
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin)).map_err(DistillError::read(path))?;
        file.read_exact(part).map_err(DistillError::read(path))?;
        if let Some(last) = part.iter().rposition(|byte| *byte == b'\n') {
            end = begin + last as u64 + 1;
            break;
        }
        end = begin;
    }
    if end < length {
        file.set_len(end).map_err(DistillError::write(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_cut_off_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let long = "x".repeat(200_000);
        for (text, left) in [
            (String::new(), String::new()),
            ("torn".to_owned(), String::new()),
            ("whole\n".to_owned(), "whole\n".to_owned()),
            (format!("whole\n{long}"), "whole\n".to_owned()),
            (format!("{long}\n{long}\nt"), format!("{long}\n{long}\n")),
        ] {
            std::fs::write(&path, text).unwrap();
            cut_torn(&mut append(&path).unwrap(), &path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left);
        }
    }
}
