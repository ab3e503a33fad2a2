//! What the writer does when the disk refuses, and what it makes of a torn or damaged journal. That it survives a crash
//! anywhere is shown by the proof.

use std::io;

use anbiq_domain::Seeded;

use super::*;
use crate::sim::{SimDisk, Trouble};
use crate::verify::verify_on;

const DIR: &str = "/journal";
const SEGMENT: &str = "/journal/00000000.seg";

fn key() -> SigningKey {
    SigningKey::from_bytes([9; 32])
}

fn payload(number: usize) -> Vec<u8> {
    let text = "x".repeat(number * 7 % 50);
    format!(r#"{{"entry":"refused","at":{number},"account":"a","code":"{text}"}}"#).into_bytes()
}

fn create(segment_bytes: u64) -> (SimDisk, Store) {
    let disk = SimDisk::new(Seeded::new(1));
    let id = JournalId::new("j").unwrap();
    let store = Store::create(Path::new(DIR), id, Timestamp::default(), key(), segment_bytes, disk.share()).unwrap();
    (disk, store)
}

fn open(disk: &SimDisk) -> Result<(Store, Recovery), JournalError> {
    Store::open(Path::new(DIR), key(), u64::MAX, disk.share())
}

#[test]
fn a_failed_fsync_poisons_and_a_full_disk_does_not() {
    let full = Trouble::Refused(io::ErrorKind::StorageFull);
    for troubles in [vec![(0, full)], vec![(0, Trouble::Short), (1, full)]] {
        let (disk, mut store) = create(400);
        store.append(&[payload(1)]).unwrap();
        for (after, trouble) in troubles {
            disk.trouble_after(after, trouble);
        }
        assert_eq!(store.append(&[payload(2)]).unwrap_err().code(), "journal_disk_full");
        assert_eq!(store.append(&[payload(3)]).unwrap()[0].index, 1);
    }
    let (disk, mut store) = create(400);
    store.append(&[payload(1)]).unwrap();
    disk.trouble_after(1, Trouble::Refused(io::ErrorKind::Other));
    for _ in 0..3 {
        assert_eq!(store.append(&[payload(2)]).unwrap_err().code(), "journal_poisoned");
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off() {
    let (disk, mut store) = create(u64::MAX);
    let segment = Path::new(SEGMENT);
    store.append(&[payload(1), payload(2)]).unwrap();
    store.checkpoint().unwrap();
    let whole = disk.bytes(segment).len();
    store.append(&[payload(30), payload(31)]).unwrap();
    drop(store);
    let bytes = disk.bytes(segment);
    for length in whole..bytes.len() {
        for fill in [None, Some(0), Some(b'x')] {
            let mut torn = bytes[..length].to_vec();
            torn.resize(fill.map_or(length, |_| bytes.len()), fill.unwrap_or(0));
            if torn == bytes {
                continue;
            }
            disk.put(segment, &torn);
            let report = verify_on(&disk.share(), Path::new(DIR), None).unwrap();
            let (store, recovery) = open(&disk).unwrap();
            drop(store);
            assert_eq!(recovery.entries, report.size);
            assert!((2..4).contains(&recovery.entries));
            assert_eq!(report.torn.map_or(0, |torn| torn.bytes), recovery.truncated_bytes, "{length} {fill:?}");
            let left = disk.bytes(segment);
            assert_eq!(left.len() as u64 + recovery.truncated_bytes, torn.len() as u64);
            assert!(bytes.starts_with(&left));
        }
    }
    // But never below what was signed.
    disk.put(segment, &bytes[..whole - 1]);
    assert_eq!(open(&disk).unwrap_err().code(), "journal_bad_checkpoint");
    assert_eq!(disk.bytes(segment).len(), whole - 1, "nothing was changed");
}

#[test]
fn a_group_may_reach_the_disk_in_any_order() {
    let (disk, mut store) = create(u64::MAX);
    let segment = Path::new(SEGMENT);
    store.append(&[payload(1)]).unwrap();
    let before = disk.bytes(segment).len();
    store.append(&[payload(2), payload(3), payload(4)]).unwrap();
    drop(store);
    let bytes = disk.bytes(segment);
    for position in before..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 0x10;
        disk.put(segment, &changed);
        let (store, recovery) = open(&disk).unwrap();
        drop(store);
        assert!((1..4).contains(&recovery.entries) && recovery.truncated_bytes > 0, "byte {position}: {recovery:?}");
    }
}

#[test]
fn damage_in_the_middle_is_not_guessed_at() {
    let (disk, mut store) = create(u64::MAX);
    let segment = Path::new(SEGMENT);
    store.append(&[payload(1)]).unwrap();
    assert_eq!(store.append(&[payload(2)]).unwrap()[0].index, 1);
    drop(store);
    let bytes = disk.bytes(segment);
    let last = bytes.len() - payload(2).len() - 8;
    for position in 0..last {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        disk.put(segment, &damaged);
        assert_eq!(open(&disk).unwrap_err().code(), "journal_damaged", "byte {position}");
        assert_eq!(disk.bytes(segment), damaged);
    }
}
