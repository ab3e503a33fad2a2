//! Fails, shortens and crashes every operation on the disk in turn.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::disk::RealDisk;
use crate::{Reader, verify};

/// What happens to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It fails and does nothing; later ones work.
    Refused(io::ErrorKind),
    /// It and all later ones fail and do nothing.
    Dead,
    /// An append takes only a part; later ones work.
    Short,
    /// An append takes only a part, and the next operation fails.
    ShortThenRefused,
    /// The power goes before it is done.
    PowerCut(Rest),
}

/// What the disk keeps, at a power cut, of what was never synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Half,
    All,
    /// The length, but zeros in place of the bytes.
    Zeros,
}

#[derive(Debug, Default)]
struct Memory {
    operations: usize,
    trouble: Option<(usize, Trouble)>,
    /// How much of each file is synced; `None` for one whose name is not.
    synced: HashMap<PathBuf, (u64, bool)>,
}

/// The real disk with trouble at one operation. A sync only notes what a power cut would leave.
#[derive(Debug, Clone, Default)]
struct Faulty(Arc<Mutex<Memory>>);

#[derive(Debug)]
struct FaultyFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    disk: Faulty,
}

enum Turn {
    Work,
    Part,
    Fail(io::Error),
}

impl Faulty {
    fn with(operation: usize, trouble: Trouble) -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().trouble = Some((operation, trouble));
        disk
    }

    fn turn(&self) -> Turn {
        let mut memory = self.0.lock().unwrap();
        let now = memory.operations;
        memory.operations += 1;
        let Some((at, trouble)) = memory.trouble else { return Turn::Work };
        let fail = |kind: io::ErrorKind| Turn::Fail(kind.into());
        match trouble {
            _ if now < at => Turn::Work,
            Trouble::Refused(kind) if now == at => fail(kind),
            Trouble::Short | Trouble::ShortThenRefused if now == at => Turn::Part,
            Trouble::ShortThenRefused if now == at + 1 => fail(io::ErrorKind::StorageFull),
            Trouble::PowerCut(_) if now == at => Turn::Part,
            Trouble::Dead | Trouble::PowerCut(_) => Turn::Fail(io::Error::other("dead")),
            _ => Turn::Work,
        }
    }

    fn operations(&self) -> usize {
        self.0.lock().unwrap().operations
    }

    /// Leaves on the real disk what the power cut would.
    fn cut_power(&self, dir: &Path) {
        let memory = self.0.lock().unwrap();
        let Some((_, Trouble::PowerCut(rest))) = memory.trouble else { return };
        for (path, (synced, named)) in &memory.synced {
            let Ok(bytes) = std::fs::read(path) else { continue };
            if !named && rest != Rest::All {
                std::fs::remove_file(path).unwrap();
                continue;
            }
            let loose = bytes.len() - *synced as usize;
            let (keep, zeros) = match rest {
                Rest::Nothing => (0, 0),
                Rest::Half => (loose / 2, 0),
                Rest::All => (loose, 0),
                Rest::Zeros => (0, loose),
            };
            let mut left = bytes[..*synced as usize + keep].to_vec();
            left.resize(left.len() + zeros, 0);
            std::fs::write(path, left).unwrap();
        }
        assert!(dir.exists());
    }
}

fn done(turn: Turn) -> io::Result<()> {
    match turn {
        Turn::Work => Ok(()),
        Turn::Part => Err(io::Error::other("cut")),
        Turn::Fail(error) => Err(error),
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        done(self.turn())?;
        let file = RealDisk.create(path)?;
        self.0.lock().unwrap().synced.insert(path.to_owned(), (0, false));
        Ok(Box::new(FaultyFile { path: path.to_owned(), file, disk: self.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        done(self.turn())?;
        let length = std::fs::metadata(path)?.len();
        self.0.lock().unwrap().synced.insert(path.to_owned(), (length, true));
        Ok(Box::new(FaultyFile { path: path.to_owned(), file: RealDisk.open(path)?, disk: self.clone() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        done(self.turn())?;
        RealDisk.remove(path)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        done(self.turn())?;
        self.0.lock().unwrap().synced.values_mut().for_each(|(_, named)| *named = true);
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.disk.turn() {
            Turn::Work => self.file.append(bytes),
            Turn::Part => self.file.append(&bytes[..bytes.len() / 2 + 1]),
            Turn::Fail(error) => Err(error),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        done(self.disk.turn())?;
        let length = std::fs::metadata(&self.path)?.len();
        self.disk.0.lock().unwrap().synced.entry(self.path.clone()).and_modify(|(synced, _)| *synced = length);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        done(self.disk.turn())?;
        self.file.truncate(length)
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes([9; 32])
}

fn payload(number: usize) -> Vec<u8> {
    let text = "x".repeat(number * 7 % 50);
    format!(r#"{{"entry":"refused","at":{number},"account":"a","code":"{text}"}}"#).into_bytes()
}

const SEGMENT: u64 = 400;

fn create(dir: &Path) {
    let id = JournalId::new("j").unwrap();
    Store::create(dir, id, Timestamp::default(), key(), SEGMENT, Arc::new(Faulty::default())).unwrap();
}

/// Writes groups of several sizes, with checkpoints between, and returns what was acknowledged.
fn work(dir: &Path, disk: &Faulty) -> Vec<Position> {
    let mut acknowledged = Vec::new();
    let Ok((mut store, _)) = Store::open(dir, key(), SEGMENT, Arc::new(disk.clone())) else { return acknowledged };
    let mut number = 0;
    for group in [1, 3, 2, 1, 4, 2, 1, 1] {
        let payloads: Vec<_> = (number..number + group).map(payload).collect();
        number += group;
        match store.append(&payloads) {
            Ok(positions) => acknowledged.extend(positions),
            Err(error) => assert!(["journal_io", "journal_disk_full", "journal_poisoned"].contains(&error.code())),
        }
        if group == 2 {
            let _ = store.checkpoint();
        }
    }
    acknowledged
}

fn check(dir: &Path, acknowledged: &[Position], what: &str) {
    // A reader at once, before anybody repairs anything.
    let before: Vec<_> = Reader::open(dir).unwrap().entries().unwrap().map(|record| record.unwrap().leaf).collect();
    for position in acknowledged {
        assert_eq!(before.get(position.index as usize), Some(&position.leaf), "{what}: {} is lost", position.index);
    }
    let (mut store, recovery) =
        Store::open(dir, key(), SEGMENT, Arc::new(Faulty::default())).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(recovery.entries as usize, before.len(), "{what}");
    store.append(&[payload(99)]).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let report = verify(dir, Some(&key().public())).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(report.is_sealed() && report.size == recovery.entries + 1, "{what}: {report:?}");
}

#[test]
fn nothing_acknowledged_is_lost_whatever_fails() {
    let kept = tempfile::tempdir().unwrap();
    let whole = Faulty::default();
    create(&kept.path().join("whole"));
    assert_eq!(work(&kept.path().join("whole"), &whole).len(), 15);
    create(&kept.path().join("empty"));
    let operations = whole.operations();
    assert!(operations > 30, "{operations}");
    let mut lost_some = 0;
    for trouble in [
        Trouble::Refused(io::ErrorKind::StorageFull),
        Trouble::Refused(io::ErrorKind::Other),
        Trouble::Refused(io::ErrorKind::Interrupted),
        Trouble::Dead,
        Trouble::Short,
        Trouble::ShortThenRefused,
        Trouble::PowerCut(Rest::Nothing),
        Trouble::PowerCut(Rest::Half),
        Trouble::PowerCut(Rest::All),
        Trouble::PowerCut(Rest::Zeros),
    ] {
        for operation in 0..operations {
            let what = format!("{trouble:?} at {operation}");
            let dir = kept.path().join(&what);
            // Copied, not created: a real fsync for each would take longer than the test.
            std::fs::create_dir(&dir).unwrap();
            for name in ["journal.json", "checkpoints.log"] {
                std::fs::copy(kept.path().join("empty").join(name), dir.join(name)).unwrap();
            }
            let disk = Faulty::with(operation, trouble);
            let acknowledged = work(&dir, &disk);
            disk.cut_power(&dir);
            lost_some += usize::from(acknowledged.len() < 15);
            check(&dir, &acknowledged, &what);
        }
    }
    // The trouble does reach the writer.
    assert!(lost_some > 4 * operations, "{lost_some} of {operations}");
}

#[test]
fn a_failed_fsync_poisons_and_a_full_disk_does_not() {
    for (trouble, code, next) in [
        (Trouble::Refused(io::ErrorKind::StorageFull), "journal_disk_full", None),
        (Trouble::ShortThenRefused, "journal_disk_full", None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path());
        let disk = Faulty::default();
        let (mut store, _) = Store::open(dir.path(), key(), SEGMENT, Arc::new(disk.clone())).unwrap();
        store.append(&[payload(1)]).unwrap();
        let at = disk.operations();
        disk.0.lock().unwrap().trouble = Some((at, trouble));
        assert_eq!(store.append(&[payload(2)]).unwrap_err().code(), code);
        assert_eq!(store.append(&[payload(3)]).err().map(|error| error.code()), next);
    }
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let disk = Faulty::default();
    let (mut store, _) = Store::open(dir.path(), key(), SEGMENT, Arc::new(disk.clone())).unwrap();
    store.append(&[payload(1)]).unwrap();
    let sync = disk.operations() + 1;
    disk.0.lock().unwrap().trouble = Some((sync, Trouble::Refused(io::ErrorKind::Other)));
    for _ in 0..3 {
        assert_eq!(store.append(&[payload(2)]).unwrap_err().code(), "journal_poisoned");
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off() {
    let origin = tempfile::tempdir().unwrap();
    create(origin.path());
    let (mut store, _) = Store::open(origin.path(), key(), u64::MAX, Arc::new(Faulty::default())).unwrap();
    store.append(&[payload(1), payload(2)]).unwrap();
    store.checkpoint().unwrap();
    let whole = std::fs::read(origin.path().join("00000000.seg")).unwrap().len();
    store.append(&[payload(30), payload(31)]).unwrap();
    drop(store);
    let bytes = std::fs::read(origin.path().join("00000000.seg")).unwrap();
    for length in whole..bytes.len() {
        for fill in [None, Some(0), Some(b'x')] {
            let mut torn = bytes[..length].to_vec();
            torn.resize(fill.map_or(length, |_| bytes.len()), fill.unwrap_or(0));
            if torn == bytes {
                continue;
            }
            std::fs::write(origin.path().join("00000000.seg"), &torn).unwrap();
            let report = verify(origin.path(), None).unwrap();
            let (store, recovery) = Store::open(origin.path(), key(), u64::MAX, Arc::new(Faulty::default())).unwrap();
            drop(store);
            assert_eq!(recovery.entries, report.size);
            assert!((2..4).contains(&recovery.entries));
            assert_eq!(report.torn.map_or(0, |torn| torn.bytes), recovery.truncated_bytes, "{length} {fill:?}");
            let left = std::fs::read(origin.path().join("00000000.seg")).unwrap();
            assert_eq!(left.len() as u64 + recovery.truncated_bytes, torn.len() as u64);
            assert!(bytes.starts_with(&left));
        }
    }
    // But never below what was signed.
    std::fs::write(origin.path().join("00000000.seg"), &bytes[..whole - 1]).unwrap();
    let error = Store::open(origin.path(), key(), u64::MAX, Arc::new(Faulty::default())).unwrap_err();
    assert_eq!(error.code(), "journal_bad_checkpoint");
    assert_eq!(std::fs::read(origin.path().join("00000000.seg")).unwrap().len(), whole - 1, "nothing was changed");
}

#[test]
fn damage_in_the_middle_is_not_guessed_at() {
    let origin = tempfile::tempdir().unwrap();
    create(origin.path());
    let (mut store, _) = Store::open(origin.path(), key(), u64::MAX, Arc::new(Faulty::default())).unwrap();
    let first = store.append(&[payload(1)]).and_then(|_| store.append(&[payload(2)]));
    assert_eq!(first.unwrap()[0].index, 1);
    drop(store);
    let path = origin.path().join("00000000.seg");
    let bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - payload(2).len() - 8;
    for position in 0..last {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let error = Store::open(origin.path(), key(), u64::MAX, Arc::new(Faulty::default())).unwrap_err();
        assert_eq!(error.code(), "journal_damaged", "byte {position}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
}
