//! The crash proof: a journal is played on a disk that loses what was not synced, stops anywhere, and must be whole.
//!
//! A point is one seed: some rounds of work, each stopped at some operation (in the work, in opening after the last
//! stop, or nowhere), after which the program or the whole machine is gone and something is left of what was loose. Then
//! all that was acknowledged must be there, nothing that was refused, nothing that nobody wrote, and everything must
//! verify. `cargo xtask prove journal --points N --seed S` plays many.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anbiq_domain::{Digest, JournalId, Seeded, Timestamp};

use crate::sim::{Broken, SimDisk, Trouble};
use crate::store::Store;
use crate::verify::verify_on;
use crate::{JournalError, Keep, Reader, SealedFile, SigningKey, tree};

const DIR: &str = "/journal";
const SEGMENT: u64 = 600;

/// What was done and found at one or many points.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    points: u64,
    crashes: u64,
    crashes_in_recovery: u64,
    acknowledged: u64,
    torn: u64,
    sealed: u64,
    pruned: u64,
    flips: u64,
}

/// What the journal has told its writer.
#[derive(Debug, Default)]
struct Told {
    created: bool,
    /// Leaves by index.
    acknowledged: BTreeMap<u64, Digest>,
    /// The largest checkpoint.
    signed: u64,
    /// Records before this one may be deleted: somebody asked for it.
    may_go: u64,
    /// Leaves that were handed in, whatever came of them.
    submitted: BTreeSet<Digest>,
    /// Leaves that were refused for good.
    refused: BTreeSet<Digest>,
}

/// One point; an error says what does not hold.
struct Point {
    random: Seeded,
    disk: SimDisk,
    told: Told,
    number: u64,
    tally: Tally,
}

fn key() -> SigningKey {
    SigningKey::from_bytes([9; 32])
}

impl Point {
    fn new(seed: u64, broken: Option<Broken>) -> Self {
        let random = Seeded::new(seed).fork("crash proof");
        let disk = SimDisk::new(random.fork("disk")).broken(broken);
        Self { random, disk, told: Told::default(), number: 0, tally: Tally::default() }
    }

    fn play(mut self) -> Result<Tally, String> {
        self.tally.points = 1;
        for round in 0..1 + self.random.below(4) {
            self.arrange(round);
            let opened = self.work()?;
            if self.disk.stopped() {
                self.tally.crashes += 1;
                self.tally.crashes_in_recovery += u64::from(!opened && round > 0);
            }
            let disk = self.disk.clone();
            self.disk = if self.random.chance(0.25) { disk.kill() } else { disk.cut_power() };
            self.check()?;
        }
        self.close()?;
        Ok(self.tally)
    }

    /// Where this round stops, and whether operations are refused meanwhile.
    fn arrange(&mut self, round: usize) {
        let span = if round > 0 && self.random.chance(0.4) { 12 } else { 120 };
        if self.random.chance(0.95) {
            self.disk.trouble_after(self.random.below(span), Trouble::Stop);
        }
        if self.random.chance(0.3) {
            self.disk.refuse_some(0.03);
        }
        if self.random.chance(0.3) {
            self.disk.trouble_after(self.random.below(60), Trouble::Short);
        }
    }

    /// Opens the journal and writes; true if it could be opened.
    fn work(&mut self) -> Result<bool, String> {
        let store = match self.open() {
            Ok(store) => store,
            Err(error) => return self.excuse("opening", &error).map(|()| false),
        };
        let Some(mut store) = store else { return Ok(false) };
        for _ in 0..4 + self.random.below(30) {
            match self.random.below(12) {
                0..8 => self.append(&mut store)?,
                8..10 => match store.checkpoint() {
                    Ok(checkpoint) => self.told.signed = self.told.signed.max(checkpoint.size),
                    Err(error) => self.excuse("signing", &error)?,
                },
                _ => self.seal(&mut store)?,
            }
        }
        Ok(true)
    }

    /// Seals what is closed, after closing the open segment now and then, and deletes the oldest files now and then.
    fn seal(&mut self, store: &mut Store) -> Result<(), String> {
        if self.random.chance(0.3) {
            store.roll();
        }
        let mut sealer = match store.sealer() {
            Ok(sealer) => sealer,
            Err(error) => return self.excuse("sealing", &error),
        };
        loop {
            match sealer.seal_next(store.open_segment(), &|| false) {
                Ok(Some(_)) => self.tally.sealed += 1,
                Ok(None) => break,
                Err(error) => return self.excuse("sealing", &error),
            }
        }
        if self.random.chance(0.25) {
            let keep = Keep { age_ms: None, bytes: Some(self.random.below(60_000) as u64) };
            let (signed, now) = (store.signed(), Timestamp::default());
            self.told.may_go = sealer.superfluous(&keep, signed, now).last().map_or(self.told.may_go, SealedFile::end);
            match sealer.prune(&keep, signed, now) {
                Ok(files) => self.tally.pruned += files.len() as u64,
                Err(error) => return self.excuse("deleting", &error),
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Option<Store>, JournalError> {
        match Store::open(Path::new(DIR), key(), SEGMENT, self.disk.share()) {
            Err(JournalError::NotAJournal { .. }) if !self.told.created => {
                let id = JournalId::new("j").unwrap();
                let created =
                    Store::create(Path::new(DIR), id, Timestamp::default(), key(), SEGMENT, self.disk.share());
                self.told.created = created.is_ok();
                created.map(Some)
            }
            Ok((store, recovery)) => {
                self.tally.torn += u64::from(recovery.truncated_bytes > 0);
                self.told.created = true;
                Ok(Some(store))
            }
            Err(error) => Err(error),
        }
    }

    fn append(&mut self, store: &mut Store) -> Result<(), String> {
        let payloads: Vec<_> = (0..1 + self.random.below(4)).map(|_| self.payload()).collect();
        let leaves = payloads.iter().map(|payload| tree::leaf_hash(payload));
        match store.append(&payloads) {
            Ok(positions) => {
                self.tally.acknowledged += positions.len() as u64;
                self.told.acknowledged.extend(positions.iter().map(|position| (position.index, position.leaf)));
                Ok(())
            }
            Err(error) => {
                if matches!(error, JournalError::Io { .. }) {
                    self.told.refused.extend(leaves);
                }
                self.excuse("appending", &error)
            }
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        self.number += 1;
        let text = "x".repeat(self.random.below(90));
        let payload =
            format!(r#"{{"entry":"refused","at":{},"account":"a","code":"{text}"}}"#, self.number).into_bytes();
        self.told.submitted.insert(tree::leaf_hash(&payload));
        payload
    }

    /// May this failure be? Only one of the disk, while it has trouble.
    fn excuse(&self, doing: &str, error: &JournalError) -> Result<(), String> {
        match error {
            JournalError::Io { .. } | JournalError::Poisoned(_) => Ok(()),
            // A header that could not be read because nothing is there yet.
            JournalError::NotAJournal { .. } if !self.told.created => Ok(()),
            other => Err(format!("{doing} failed: {other}")),
        }
    }

    /// What somebody finds who only reads, before anybody repairs anything.
    fn check(&self) -> Result<(), String> {
        let dir = Path::new(DIR);
        let reader = match Reader::open_on(self.disk.share(), dir) {
            Ok(reader) => reader,
            Err(_) if !self.told.created => return Ok(()),
            Err(error) => return Err(format!("the journal is gone: {error}")),
        };
        let mut found = BTreeMap::new();
        let entries = reader.entries().map_err(in_words)?;
        let from = entries.before().size();
        for record in entries {
            let record = record.map_err(|error| format!("reading after a crash: {error}"))?;
            found.insert(record.index, record.leaf);
        }
        self.hold(&found, from)?;
        let report = verify_on(&self.disk.share(), dir, Some(&key().public())).map_err(in_words)?;
        let signed = report.size - report.unsigned;
        if report.size != from + found.len() as u64 || signed < self.told.signed {
            return Err(format!("{signed} are signed, but {} were: {report:?}", self.told.signed));
        }
        Ok(())
    }

    fn hold(&self, found: &BTreeMap<u64, Digest>, from: u64) -> Result<(), String> {
        if from > self.told.may_go {
            return Err(format!("the records before {from} were deleted, and nobody asked for it"));
        }
        let mut left = self.told.acknowledged.range(from..);
        if let Some((index, _)) = left.find(|(index, leaf)| found.get(index) != Some(*leaf)) {
            return Err(format!("record {index} was acknowledged and is lost: {} are left", found.len()));
        }
        for (index, leaf) in found {
            if !self.told.submitted.contains(leaf) {
                return Err(format!("nobody wrote record {index}"));
            }
            if self.told.refused.contains(leaf) {
                return Err(format!("record {index} was refused and is there"));
            }
        }
        Ok(())
    }

    /// On a disk without trouble everything can go on, is whole at the end, and no changed byte is taken for good.
    fn close(&mut self) -> Result<(), String> {
        let Some(mut store) = self.open().map_err(in_words)? else { return Err("it did not open".to_owned()) };
        self.append(&mut store)?;
        if self.random.chance(0.5) {
            store.roll();
            self.seal(&mut store)?;
        }
        let checkpoint = store.checkpoint().map_err(in_words)?;
        self.told.signed = checkpoint.size;
        drop(store);
        self.check()?;
        let whole = |disk: &SimDisk| {
            verify_on(&disk.share(), Path::new(DIR), Some(&key().public()))
                .is_ok_and(|report| report.is_sealed() && report.size == checkpoint.size)
        };
        if !whole(&self.disk) {
            return Err("after a good end it is not whole".to_owned());
        }
        for path in self.disk.paths() {
            let bytes = self.disk.bytes(&path);
            if bytes.is_empty() {
                continue;
            }
            let mut flipped = bytes.clone();
            let place = self.random.below(bytes.len());
            flipped[place] ^= 1 << self.random.below(8);
            self.disk.put(&path, &flipped);
            self.tally.flips += 1;
            if whole(&self.disk) {
                return Err(format!("byte {place} of `{}` was changed and nobody saw", path.display()));
            }
            self.nothing_foreign()?;
            self.disk.put(&path, &bytes);
        }
        Ok(())
    }

    /// Whatever can be read of a damaged journal was written by somebody.
    fn nothing_foreign(&self) -> Result<(), String> {
        let Ok(reader) = Reader::open_on(self.disk.share(), Path::new(DIR)) else { return Ok(()) };
        let Ok(entries) = reader.entries() else { return Ok(()) };
        match entries.map_while(Result::ok).find(|record| !self.told.submitted.contains(&record.leaf)) {
            Some(record) => Err(format!("record {} is damaged and was taken", record.index)),
            None => Ok(()),
        }
    }
}

fn in_words<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

/// Plays `points` points from `seed` on; an error names the seed of the first that does not hold.
fn prove(seed: u64, points: u64, broken: Option<Broken>) -> Result<Tally, String> {
    let mut all = Tally::default();
    for number in 0..points {
        let seed = seed.wrapping_add(number);
        let one = Point::new(seed, broken).play().map_err(|what| format!("seed {seed}: {what}"))?;
        all.points += one.points;
        all.crashes += one.crashes;
        all.crashes_in_recovery += one.crashes_in_recovery;
        all.acknowledged += one.acknowledged;
        all.torn += one.torn;
        all.sealed += one.sealed;
        all.pruned += one.pruned;
        all.flips += one.flips;
    }
    Ok(all)
}

#[test]
fn a_crash_anywhere_loses_nothing() {
    let tally = prove(1, 300, None).unwrap();
    // The trouble does come.
    assert!(tally.crashes > 300 && tally.crashes_in_recovery > 20 && tally.torn > 20, "{tally:?}");
    assert!(tally.sealed > 300 && tally.pruned > 20, "{tally:?}");
}

#[test]
fn the_proof_fails_on_a_journal_that_does_not_sync() {
    for (broken, says) in [
        (Broken::FileSync(".seg"), ""),
        (Broken::FileSync(".json.new"), "is not a journal"),
        (Broken::FileSync("checkpoints.log"), "are signed, but"),
        (Broken::FileSync(".parquet.new"), "its bytes are not those that were signed"),
        (Broken::FileSync(".list.new"), "`sealed.list` does not hold"),
        (Broken::DirSync, ""),
        (Broken::Truncate, ""),
    ] {
        let found = prove(1, 300, Some(broken)).unwrap_err();
        assert!(found.contains(says), "{broken:?}: {found}");
    }
}

/// `cargo xtask prove journal` runs this one.
#[test]
#[ignore = "is long; `cargo xtask prove journal` says how many points and from which seed"]
fn long() {
    use std::io::Write as _;
    let number = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let (points, seed) = (number("ANBIQ_PROVE_POINTS", 10_000), number("ANBIQ_PROVE_SEED", 1));
    let tally = prove(seed, points, None).unwrap();
    writeln!(std::io::stdout(), "{tally:#?}").unwrap();
}
