use std::fs::TryLockError;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anbiq_domain::{Clock as _, JournalId, SystemClock, Timestamp};

use crate::disk::{Disk, DiskFile, Lock, Stretch, append_all};
use crate::format::{Header, MAGIC, checkpoints_path, end_of_segments, lock_path, segment_name, write_frame};
use crate::read::{End, Part};
use crate::sealed::Sealer;
use crate::tree::Tree;
use crate::verify::scan;
use crate::{Checkpoint, JournalError, Position, Recovery, SigningKey, State, tree};

/// The writing half of a journal, without its thread: one group at a time, durable or not at all.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    id: JournalId,
    signer: SigningKey,
    segment_bytes: u64,
    tree: Tree,
    /// The segment that is appended to; none before the first entry.
    segment: Option<Log>,
    next_segment: u32,
    /// When the first entry of the open segment happened or was written.
    began: Timestamp,
    checkpoints: Log,
    last_checkpoint: Option<Checkpoint>,
    poisoned: Option<String>,
    /// Held as long as the store lives.
    _lock: Box<dyn Lock>,
}

/// A file that grows by whole durable pieces.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// Everything up to here is durable.
    length: u64,
}

/// How an append to a [`Log`] failed.
enum Failure {
    /// The file is as it was before.
    Undone(JournalError),
    /// Nobody knows what is on the disk.
    Unknown(JournalError),
}

impl Store {
    /// Lays out an empty journal in `dir`.
    pub(crate) fn create(
        dir: &Path,
        id: JournalId,
        created: Timestamp,
        signer: SigningKey,
        segment_bytes: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, JournalError> {
        disk.make_dir(dir).map_err(|error| JournalError::io("create", dir, error))?;
        let lock = lock(&*disk, dir)?;
        let has_header = disk.read(&Header::path(dir)).is_ok();
        if has_header || end_of_segments(&*disk, dir, 0)? > 0 {
            return Err(JournalError::Exists(dir.to_owned()));
        }
        let path = checkpoints_path(dir);
        let file = disk.create(&path).map_err(|error| JournalError::io("create", &path, error))?;
        // The header comes last, when all other names are durable: a folder with a header is a whole journal.
        sync_dir(&*disk, dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(&*disk, parent)?;
        }
        Header::sign(id.clone(), created, &signer).write(&*disk, dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            disk,
            id,
            signer,
            segment_bytes,
            tree: Tree::new(),
            segment: None,
            next_segment: 0,
            began: created,
            checkpoints: Log { path, file, length: 0 },
            last_checkpoint: None,
            poisoned: None,
            _lock: lock,
        })
    }

    /// Reads and checks the whole journal in `dir`, cuts torn tails off, and is ready to go on.
    pub(crate) fn open(
        dir: &Path,
        signer: SigningKey,
        segment_bytes: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Recovery), JournalError> {
        let header = Header::read(&*disk, dir)?;
        if header.public_key != signer.public() {
            return Err(JournalError::WrongKey {
                expected: header.public_key.to_string(),
                found: signer.public().to_string(),
            });
        }
        let lock = lock(&*disk, dir)?;
        let mut began = SystemClock.now();
        // The signed list vouches for what is sealed, so opening takes no longer the more of it there is.
        let scan = scan(&disk, dir, &header, Part::Unsealed, |frame| {
            if frame.offset == MAGIC.len() as u64 {
                began = frame.entry()?.at();
            }
            Ok(())
        })?;
        let recovery = Recovery {
            entries: scan.tree.size(),
            root: scan.tree.root(),
            truncated_bytes: scan.torn.as_ref().map_or(0, |torn| torn.bytes),
            truncated_checkpoint_bytes: scan.torn_checkpoint.as_ref().map_or(0, |torn| torn.bytes),
            last_checkpoint: scan.last_checkpoint.clone(),
        };
        let checkpoints = Whole { length: scan.checkpoints_end, sure: scan.checkpoints_last };
        let checkpoints = Log::cut(&*disk, checkpoints_path(dir), checkpoints, scan.torn_checkpoint.is_some())?;
        let mut next_segment = scan.segments;
        let segment = match scan.end {
            Some(End { segment, length: 0, .. }) => {
                // Not even its first bytes were finished: it will be made anew.
                let path = dir.join(segment_name(segment));
                disk.remove(&path).map_err(|error| JournalError::io("remove", &path, error))?;
                next_segment = segment;
                None
            }
            Some(End { segment, length, group }) => {
                let whole = Whole { length, sure: group };
                Some(Log::cut(&*disk, dir.join(segment_name(segment)), whole, scan.torn.is_some())?)
            }
            None => None,
        };
        for path in scan.list.leftovers(&*disk, dir)? {
            disk.remove(&path).map_err(|error| JournalError::io("remove", &path, error))?;
        }
        // A killed process may have made files whose names no power cut would spare: from here on we vouch for them.
        sync_dir(&*disk, dir)?;
        let store = Self {
            dir: dir.to_owned(),
            disk,
            id: header.id,
            signer,
            segment_bytes,
            tree: scan.tree,
            segment,
            next_segment,
            began,
            checkpoints,
            last_checkpoint: scan.last_checkpoint,
            poisoned: None,
            _lock: lock,
        };
        Ok((store, recovery))
    }

    pub(crate) const fn id(&self) -> &JournalId {
        &self.id
    }

    pub(crate) fn state(&self) -> State {
        let Self { tree, last_checkpoint, .. } = self;
        State { entries: tree.size(), root: tree.root(), last_checkpoint: last_checkpoint.clone() }
    }

    /// How many records no checkpoint covers yet.
    pub(crate) fn unsigned(&self) -> u64 {
        self.tree.size() - self.signed()
    }

    /// Appends all of `payloads` or none, in one write and one fsync, and says where they are.
    ///
    /// A failed write is undone by truncation and may be tried again. A failed fsync may not: the kernel may have
    /// dropped the pages and forgotten the failure (Rebello and others, "Can applications recover from fsync failures?",
    /// 2020). Then the store is poisoned and only opening it again, which reads what is really there, helps.
    pub(crate) fn append(&mut self, payloads: &[impl AsRef<[u8]>]) -> Result<Vec<Position>, JournalError> {
        self.healthy()?;
        if self.segment.as_ref().is_none_or(|segment| segment.length >= self.segment_bytes) {
            self.begin_segment()?;
        }
        let mut bytes = Vec::with_capacity(payloads.iter().map(|payload| payload.as_ref().len() + 8).sum());
        for (place, payload) in payloads.iter().enumerate() {
            write_frame(payload.as_ref(), place == 0, &mut bytes);
        }
        let Some(segment) = &mut self.segment else { return Err(JournalError::Closed) };
        segment.append(&bytes).map_err(|failure| poison(&mut self.poisoned, failure))?;
        let place = |payload: &[u8]| {
            let position = Position { index: self.tree.size(), leaf: tree::leaf_hash(payload) };
            self.tree.push(position.leaf);
            position
        };
        Ok(payloads.iter().map(AsRef::as_ref).map(place).collect())
    }

    /// Signs the root of everything that is durable, and makes the signature durable too.
    pub(crate) fn checkpoint(&mut self) -> Result<Checkpoint, JournalError> {
        if let Some(last) = self.last_checkpoint.as_ref().filter(|last| last.size == self.tree.size()) {
            return Ok(last.clone());
        }
        self.healthy()?;
        let checkpoint = Checkpoint::sign(self.id.clone(), self.tree.size(), self.tree.root(), &self.signer);
        let block = checkpoint.to_note() + "\n";
        self.checkpoints.append(block.as_bytes()).map_err(|failure| poison(&mut self.poisoned, failure))?;
        self.last_checkpoint = Some(checkpoint.clone());
        Ok(checkpoint)
    }

    /// Closes the open segment, if it holds any entry; the next entry begins another.
    pub(crate) fn roll(&mut self) {
        self.segment.take_if(|segment| segment.length > MAGIC.len() as u64);
    }

    /// [`Store::roll`], if the segment began before `moment`.
    pub(crate) fn roll_if_before(&mut self, moment: Timestamp) {
        if self.began < moment {
            self.roll();
        }
    }

    /// Number of the segment that is or will be written: all below it are closed.
    pub(crate) fn open_segment(&self) -> u32 {
        self.next_segment - u32::from(self.segment.is_some())
    }

    /// How many records are signed for.
    pub(crate) fn signed(&self) -> u64 {
        self.last_checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size)
    }

    /// Who seals the closed segments of this journal.
    pub(crate) fn sealer(&self) -> Result<Sealer, JournalError> {
        Sealer::open(Arc::clone(&self.disk), &self.dir, self.id.clone(), self.signer.clone())
    }

    fn healthy(&self) -> Result<(), JournalError> {
        self.poisoned.as_ref().map_or(Ok(()), |why| Err(JournalError::Poisoned(why.clone())))
    }

    fn begin_segment(&mut self) -> Result<(), JournalError> {
        let path = self.dir.join(segment_name(self.next_segment));
        let file = self.disk.create(&path).map_err(|error| JournalError::io("create", &path, error))?;
        let mut log = Log { path, file, length: 0 };
        log.append(MAGIC).map_err(|failure| poison(&mut self.poisoned, failure))?;
        // Its name must be durable before anything in it is acknowledged.
        sync_dir(&*self.disk, &self.dir).map_err(|error| poison(&mut self.poisoned, Failure::Unknown(error)))?;
        self.segment = Some(log);
        self.began = SystemClock.now();
        self.next_segment += 1;
        Ok(())
    }
}

impl Log {
    /// Opens the file at `path`, of which a part is whole.
    fn cut(disk: &dyn Disk, path: PathBuf, whole: Whole, torn: bool) -> Result<Self, JournalError> {
        let mut file = disk.open(&path).map_err(|error| JournalError::io("open", &path, error))?;
        if torn {
            file.truncate(whole.length).map_err(|error| JournalError::io("truncate", &path, error))?;
        }
        rewrite(disk, &path, whole).map_err(|error| JournalError::io("write", &path, error))?;
        // What was read may still be in the page cache of a killed process's writes only: from here on we vouch for it.
        file.sync().map_err(|error| JournalError::io("sync", &path, error))?;
        Ok(Self { path, file, length: whole.length })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        append_all(&mut *self.file, bytes).map_err(|error| self.undo(error))?;
        self.file.sync().map_err(|error| Failure::Unknown(JournalError::io("sync", &self.path, error)))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes a half-written piece away again, for good: it must not come back by a crash after it was refused.
    fn undo(&mut self, error: std::io::Error) -> Failure {
        let failed = JournalError::io("write", &self.path, error);
        match self.file.truncate(self.length).and_then(|()| self.file.sync()) {
            Ok(()) => Failure::Undone(failed),
            Err(_) => Failure::Unknown(failed),
        }
    }
}

/// What of a file is whole.
#[derive(Debug, Clone, Copy)]
struct Whole {
    length: u64,
    /// Up to here it was certainly synced, since more was written after.
    sure: u64,
}

/// Writes what may not be on the disk once more, the same bytes in the same place.
///
/// After an fsync that failed, the page cache shows what the disk may lack and the kernel will never write again, since
/// it holds it to be written. Whoever opens the journal without a restart of the machine would build on it.
fn rewrite(disk: &dyn Disk, path: &Path, whole: Whole) -> std::io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let file = disk.read(path)?;
    let mut bytes = Vec::new();
    for start in (whole.sure..whole.length).step_by(PIECE as usize) {
        bytes.clear();
        let end = whole.length.min(start + PIECE);
        Stretch::new(Arc::clone(&file), start, end).read_to_end(&mut bytes)?;
        disk.overwrite(path, start, &bytes)?;
    }
    Ok(())
}

/// Remembers a failure after which nobody knows what is on the disk.
fn poison(poisoned: &mut Option<String>, failure: Failure) -> JournalError {
    match failure {
        Failure::Undone(error) => error,
        Failure::Unknown(error) => {
            let why = poisoned.insert(error.to_string());
            tracing::error!(why, "the journal is poisoned");
            JournalError::Poisoned(why.clone())
        }
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Lock>, JournalError> {
    let path = lock_path(dir);
    disk.lock(&path).map_err(|error| match error {
        TryLockError::WouldBlock => JournalError::Locked(dir.to_owned()),
        TryLockError::Error(error) => JournalError::io("lock", &path, error),
    })
}

fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    disk.sync_dir(dir).map_err(|error| JournalError::io("sync", dir, error))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
