//! A disk in memory that keeps only what was synced, and of the rest whatever it likes.
//!
//! A write that was not synced may be on the disk when the power is gone, or not, or in pieces, before or after any other;
//! so may a truncation, and a name that was made, changed or taken away. What was synced is there. A sync that failed
//! makes nothing durable that was written before it, also not by a later sync that succeeds: the kernel has forgotten.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anbiq_domain::Seeded;

use crate::disk::{Disk, DiskFile, Lock, ReadAt};

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk(Arc<Mutex<World>>);

/// A disk, or a program, that does not do what it must: to show that the proof can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Syncs of files whose names end so make nothing durable: as if entries were acknowledged before their fsync.
    FileSync(&'static str),
    /// Syncs of folders make nothing durable: as if they were left out.
    DirSync,
    /// Truncations do nothing.
    Truncate,
}

/// What happens at one operation that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It fails and does nothing; later ones work. A sync that fails has forgotten what it should have kept.
    Refused(io::ErrorKind),
    /// An append takes only a part; later ones work.
    Short,
    /// The program ends here: this operation may be done in part, and all later ones fail.
    Stop,
}

#[derive(Debug)]
struct World {
    random: Seeded,
    broken: Option<Broken>,
    files: Vec<File>,
    /// What programs see.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    loose_names: Vec<NameChange>,
    locked: bool,
    operations: usize,
    trouble: BTreeMap<usize, Trouble>,
    /// Chance of a refusal at any operation.
    refusals: f64,
    stopped: bool,
}

#[derive(Debug, Default, Clone)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    loose: Vec<Change>,
    /// Written before a sync that failed: never durable for sure.
    forgotten: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

/// How much of what is loose a power cut keeps.
#[derive(Debug, Clone, Copy)]
enum Fate {
    None,
    All,
    /// The first changes, the last of them perhaps in part.
    Prefix,
    /// Any changes, whole.
    Some,
    /// Any pieces of any changes.
    Pieces,
}

const FATES: [Fate; 5] = [Fate::None, Fate::All, Fate::Prefix, Fate::Some, Fate::Pieces];

enum Turn {
    Work,
    Part,
    Fail(io::ErrorKind),
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
    path: PathBuf,
}

#[derive(Debug)]
struct SimReader {
    disk: SimDisk,
    file: usize,
}

#[derive(Debug)]
struct SimLock(SimDisk);

impl SimDisk {
    pub(crate) fn new(random: Seeded) -> Self {
        Self(Arc::new(Mutex::new(World {
            random,
            broken: None,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            loose_names: Vec::new(),
            locked: false,
            operations: 0,
            trouble: BTreeMap::new(),
            refusals: 0.0,
            stopped: false,
        })))
    }

    pub(crate) fn broken(self, broken: Option<Broken>) -> Self {
        self.world().broken = broken;
        self
    }

    /// As the trait object that the journal takes.
    pub(crate) fn share(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Makes `trouble` at the operation that comes after `after` others.
    pub(crate) fn trouble_after(&self, after: usize, trouble: Trouble) {
        let mut world = self.world();
        let at = world.operations + after;
        world.trouble.insert(at, trouble);
    }

    /// Refuses operations by chance.
    pub(crate) fn refuse_some(&self, chance: f64) {
        self.world().refusals = chance;
    }

    /// Did a [`Trouble::Stop`] come?
    pub(crate) fn stopped(&self) -> bool {
        self.world().stopped
    }

    /// The program is gone, the power is not: everything is as it was, and what is loose stays loose.
    pub(crate) fn kill(self) -> Self {
        let mut world = self.world();
        world.revive();
        drop(world);
        self
    }

    /// The power is gone: of what was loose something is left.
    pub(crate) fn cut_power(self) -> Self {
        let mut world = self.world();
        let fate = FATES[world.random.below(FATES.len())];
        for file in 0..world.files.len() {
            let mut left = world.files[file].durable.clone();
            let forgotten = std::mem::take(&mut world.files[file].forgotten);
            let loose = std::mem::take(&mut world.files[file].loose);
            let changes: Vec<Change> = forgotten.into_iter().chain(loose).collect();
            world.settle(&mut left, changes, fate);
            world.files[file].now.clone_from(&left);
            world.files[file].durable = left;
        }
        let loose = std::mem::take(&mut world.loose_names);
        let kept = world.random.below(loose.len() + 1);
        for (place, change) in loose.into_iter().enumerate() {
            let keep = match fate {
                Fate::None => false,
                Fate::All => true,
                Fate::Prefix => place < kept,
                Fate::Some | Fate::Pieces => world.random.chance(0.5),
            };
            if keep {
                change.apply(&mut world.durable_names);
            }
        }
        world.names = world.durable_names.clone();
        world.revive();
        drop(world);
        self
    }

    /// The names and contents of all files: for looking at and for damaging.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.names.get(path).map_or_else(Vec::new, |file| world.files[*file].now.clone())
    }

    /// Puts other bytes in place of a file's, durably.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.world();
        let file = world.names[path];
        world.files[file] = File { now: bytes.to_vec(), durable: bytes.to_vec(), ..File::default() };
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    fn revive(&mut self) {
        (self.stopped, self.locked, self.refusals) = (false, false, 0.0);
        self.trouble.clear();
    }

    fn turn(&mut self) -> Turn {
        let now = self.operations;
        self.operations += 1;
        if self.stopped {
            return Turn::Fail(io::ErrorKind::Other);
        }
        match self.trouble.get(&now) {
            None if self.random.chance(self.refusals) => {
                let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::Other, io::ErrorKind::Interrupted];
                Turn::Fail(kinds[self.random.below(kinds.len())])
            }
            None => Turn::Work,
            Some(Trouble::Refused(kind)) => Turn::Fail(*kind),
            Some(Trouble::Short) => Turn::Part,
            Some(Trouble::Stop) => {
                self.stopped = true;
                Turn::Part
            }
        }
    }

    /// Does the operation take effect, and what is the program told?
    fn act(&mut self) -> (bool, io::Result<()>) {
        match self.turn() {
            Turn::Work => (true, Ok(())),
            Turn::Part if self.stopped => (self.random.chance(0.5), Err(io::ErrorKind::Other.into())),
            Turn::Part => (true, Ok(())),
            Turn::Fail(kind) => (false, Err(kind.into())),
        }
    }

    fn rename(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.loose_names.push(change);
    }

    fn settle(&mut self, left: &mut Vec<u8>, changes: Vec<Change>, fate: Fate) {
        let kept = self.random.below(changes.len() + 1);
        // Of what was written, and not of what was cut off, the length may be there without the bytes.
        let longest = changes.iter().map(Change::end).max().unwrap_or_default();
        for (place, change) in changes.into_iter().enumerate() {
            match (fate, change) {
                (Fate::None, _) => {}
                (Fate::All, change) => change.apply(left),
                (Fate::Prefix, change) if place < kept => change.apply(left),
                (Fate::Prefix, Change::Write { at, bytes }) if place == kept => {
                    let some = self.random.below(bytes.len() + 1);
                    Change::Write { at, bytes: bytes[..some].to_vec() }.apply(left);
                }
                (Fate::Prefix, _) => {}
                (Fate::Pieces, Change::Write { at, bytes }) => {
                    let piece = [1, 8, 64, 512, 4096][self.random.below(5)];
                    for (number, bytes) in bytes.chunks(piece).enumerate() {
                        if self.random.chance(0.5) {
                            Change::Write { at: at + number * piece, bytes: bytes.to_vec() }.apply(left);
                        }
                    }
                }
                (Fate::Some | Fate::Pieces, change) => {
                    if self.random.chance(0.5) {
                        change.apply(left);
                    }
                }
            }
        }
        if left.len() < longest && self.random.chance(0.25) {
            left.resize(longest, 0);
        }
    }
}

impl Change {
    fn apply(self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            Self::Cut(length) => content.truncate(length),
        }
    }

    fn end(&self) -> usize {
        match self {
            Self::Write { at, bytes } => at + bytes.len(),
            Self::Cut(_) => 0,
        }
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, file) => drop(names.insert(path, file)),
            Self::Unlink(path) => drop(names.remove(&path)),
            Self::Rename(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _) => path.parent() == Some(dir),
        }
    }
}

impl Disk for SimDisk {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        // The folder is there; what is played is what happens in it.
        self.world().act().1
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let names = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        let file = *self.world().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimReader { disk: self.clone(), file }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        let (done, told) = world.act();
        let known = world.names.get(path).copied();
        if done {
            match known {
                Some(file) => {
                    world.files[file].now.clear();
                    world.files[file].loose.push(Change::Cut(0));
                }
                None => {
                    let file = world.files.len();
                    world.files.push(File::default());
                    world.rename(NameChange::Link(path.to_owned(), file));
                }
            }
        }
        told?;
        let file = world.names[path];
        drop(world);
        Ok(Box::new(SimFile { disk: self.clone(), file, path: path.to_owned() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        world.act().1?;
        let file = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        drop(world);
        Ok(Box::new(SimFile { disk: self.clone(), file, path: path.to_owned() }))
    }

    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        let (done, told) = world.act();
        let file = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if done {
            let change = Change::Write { at: offset as usize, bytes: bytes.to_vec() };
            change.clone().apply(&mut world.files[file].now);
            world.files[file].loose.push(change);
        }
        told
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let (done, told) = world.act();
        let file = *world.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if done {
            world.rename(NameChange::Rename(from.to_owned(), to.to_owned(), file));
        }
        told
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let (done, told) = world.act();
        world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if done {
            world.rename(NameChange::Unlink(path.to_owned()));
        }
        told
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        let (done, told) = world.act();
        if done && world.broken != Some(Broken::DirSync) {
            let loose = std::mem::take(&mut world.loose_names);
            for change in loose {
                if change.is_in(dir) {
                    change.apply(&mut world.durable_names);
                } else {
                    world.loose_names.push(change);
                }
            }
        }
        told
    }

    fn lock(&self, _path: &Path) -> Result<Box<dyn Lock>, TryLockError> {
        let mut world = self.world();
        if std::mem::replace(&mut world.locked, true) {
            return Err(TryLockError::WouldBlock);
        }
        drop(world);
        Ok(Box::new(SimLock(self.clone())))
    }
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world().locked = false;
    }
}

impl ReadAt for SimReader {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let world = self.disk.world();
        let rest = world.files[self.file].now.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.world().files[self.file].now.len() as u64)
    }
}

impl DiskFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut world = self.disk.world();
        let (taken, told) = match world.turn() {
            Turn::Work => (bytes.len(), Ok(())),
            Turn::Part if world.stopped => (world.random.below(bytes.len() + 1), Err(io::ErrorKind::Other)),
            Turn::Part => (bytes.len().div_ceil(2), Ok(())),
            Turn::Fail(kind) => (0, Err(kind)),
        };
        let file = &mut world.files[self.file];
        let change = Change::Write { at: file.now.len(), bytes: bytes[..taken].to_vec() };
        change.clone().apply(&mut file.now);
        file.loose.push(change);
        told.map(|()| taken).map_err(Into::into)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.disk.world();
        let broken = matches!(world.broken, Some(Broken::FileSync(end)) if self.path.to_string_lossy().ends_with(end));
        let (done, told) = world.act();
        let refused = told.is_err() && !world.stopped;
        let loose = std::mem::take(&mut world.files[self.file].loose);
        if refused {
            world.files[self.file].forgotten.extend(loose);
        } else if done && !broken {
            // What was forgotten is not written again, but it may have been on its way.
            let forgotten = std::mem::take(&mut world.files[self.file].forgotten);
            let mut durable = std::mem::take(&mut world.files[self.file].durable);
            world.settle(&mut durable, forgotten, Fate::Pieces);
            loose.into_iter().for_each(|change| change.apply(&mut durable));
            world.files[self.file].durable = durable;
        } else {
            world.files[self.file].loose = loose;
        }
        told
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let (done, told) = world.act();
        if done && world.broken != Some(Broken::Truncate) {
            let file = &mut world.files[self.file];
            file.now.truncate(length as usize);
            file.loose.push(Change::Cut(length as usize));
        }
        told
    }
}
