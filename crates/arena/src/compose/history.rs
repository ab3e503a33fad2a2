//! Histories that are longer than memory.
//!
//! Customers are composed one after another, each over the whole time, while another thread sketches what they ask and puts their rows
//! by into files of six hours each. These are read in order of time, one at a time, by a thread that is some blocks ahead.

use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use anbiq_domain::{AccountId, Entry, Keyed, Message, Sketch};
use anbiq_lab::world::Arrivals;
use anbiq_statistics::sketch::Sketcher;

use super::phrases::Phrases;
use super::{Campaign, Class, Composer, HOUR, Party, Row, Stream, sketch};
use crate::ArenaError;

/// Hours whose rows lie in one file.
const STRETCH: f64 = 6.0;
/// The same in milliseconds.
const STRETCH_MS: i64 = (STRETCH * HOUR) as i64;
/// Bytes of a row in a file.
const WIDTH: usize = 8 + 4 + Sketch::BYTES + 8 + 8 + 4 + 4 + 4 + 1;
const GRANTED: u8 = 1;
const HARVESTED: u8 = 1 << 1;
const RENEWED: u8 = 1 << 2;
const REFUSED: u8 = 1 << 3;
/// Batches that wait for a clerk.
const WAITING: usize = 2;
/// Entries that change hands together, and blocks of them that wait.
const BLOCK: usize = 512;
const BLOCKS: usize = 8;

/// A history of honest customers of every kind, and of one campaign at most, that is read from files.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    stretches: usize,
    parties: Vec<Party>,
    filed: Filed,
}

/// How often a history is read at once, so that a volume costs no composing. What is said of whom is of no use then: copies of one
/// account are one customer's in all but name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// Accounts for each one: with names, cards and networks of their own, each a share of the whole time later than the one before,
    /// and what comes after the end at the beginning.
    pub copies: usize,
    /// Times that all of it comes, one after another, of the same accounts.
    pub rounds: usize,
}

impl Default for Replay {
    fn default() -> Self {
        Self { copies: 1, rounds: 1 }
    }
}

impl History {
    /// Composes a history of so many `days` into `folder`: `people` who chat, all other honest kinds in proportion.
    ///
    /// # Errors
    /// Real times or texts are there but cannot be read, or rows cannot be written.
    pub fn compose(
        seed: u64,
        people: usize,
        days: f64,
        campaign: Option<&Campaign>,
        data: Option<&Path>,
        folder: &Path,
    ) -> Result<Self, ArenaError> {
        let (arrivals, phrases) = (Arrivals::open(data)?, Phrases::open(data, seed)?);
        let stretches = (days * 24.0 / STRETCH).ceil().max(1.0) as usize;
        let shelf = Shelf::open(folder, stretches)?;
        let mut composer = Composer::new(seed, days, &phrases, &arrivals);
        composer.window = 0;
        let sketcher = composer.sketcher.clone();
        let (clerk, batches) = sync_channel(WAITING);
        composer.clerk = Some(Clerk(clerk));
        let filed = thread::scope(|scope| {
            let filing = scope.spawn(move || file(&sketcher, &batches, shelf, days));
            let composed = composer.all_of(people, campaign);
            // The clerk's work ends with what it was given.
            composer.clerk = None;
            let filed = filing.join().unwrap_or_else(|panic| resume_unwind(panic));
            composed.and(filed)
        })?;
        Ok(Self { folder: folder.to_owned(), stretches, parties: composer.parties, filed })
    }

    /// Hands all entries to `take`, in order, each with the first hour of its stretch since the beginning.
    ///
    /// # Errors
    /// What was written cannot be read.
    pub fn read(&self, replay: Replay, take: &mut dyn FnMut(f64, Entry)) -> Result<(), ArenaError> {
        thread::scope(|scope| {
            let (sender, blocks) = sync_channel::<Block>(BLOCKS);
            let reading = scope.spawn(move || self.tell(replay, &sender));
            for (hour, block) in blocks {
                block.into_iter().for_each(|entry| take(hour, entry));
            }
            reading.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn tell(&self, replay: Replay, blocks: &SyncSender<Block>) -> Result<(), ArenaError> {
        let copies = replay.copies.max(1);
        let parties = (0..copies).flat_map(|copy| self.parties.iter().map(move |party| copied(party, copy)));
        let parties = parties.collect::<Result<Vec<Party>, ArenaError>>()?;
        let mut stream = Stream { parties, rows: Vec::new(), refused: Vec::new(), campaigns: Vec::new() };
        // Papers come first and accounts when they are opened.
        let mut papers: Vec<(i64, Entry)> = stream.papers(i64::MAX).collect();
        papers.sort_by_key(|paper| paper.0);
        let mut papers = papers.into_iter().peekable();
        for stretch in 0..self.stretches * replay.rounds.max(1) {
            (stream.rows, stream.refused) = self.load(stretch, copies)?;
            let end = (stretch as i64 + 1) * STRETCH_MS;
            let papers = std::iter::from_fn(|| papers.next_if(|paper| paper.0 < end));
            let mut entries = papers.chain(stream.events(i64::MAX)).map(|entry| entry.1);
            loop {
                let block: Vec<Entry> = entries.by_ref().take(BLOCK).collect();
                // Where nobody takes any more there is nothing left to tell.
                if block.is_empty() || blocks.send((stretch as f64 * STRETCH, block)).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The rows and the refusals of a stretch of time, in order.
    fn load(&self, stretch: usize, copies: usize) -> Result<Loaded, ArenaError> {
        let (mut rows, mut refused) = (Vec::new(), Vec::new());
        for copy in 0..copies {
            let from = (stretch + self.stretches - copy * self.stretches / copies) % self.stretches;
            let later = (stretch as i64 - from as i64) * STRETCH_MS;
            let first = (copy * self.parties.len()) as u32;
            let mut more = load(&place(&self.folder, from))?;
            for row in &mut more.0 {
                (row.at, row.account) = (row.at + later, row.account + first);
                row.network = other(row.network, copy);
            }
            more.1.iter_mut().for_each(|(at, account)| (*at, *account) = (*at + later, *account + first));
            rows.append(&mut more.0);
            refused.append(&mut more.1);
        }
        rows.sort_by_key(|row| row.at);
        refused.sort_unstable();
        Ok((rows, refused))
    }

    /// What each account is, by its name.
    pub fn classes(&self) -> impl Iterator<Item = (&str, Class)> {
        self.parties.iter().map(|party| (party.id.as_str(), party.class))
    }

    /// Exchanges in it.
    pub fn exchanges(&self) -> u64 {
        self.filed.exchanges
    }

    /// Share of the honest exchanges that are of hard negatives.
    pub fn hard(&self) -> f64 {
        self.filed.hard as f64 / self.filed.honest.max(1) as f64
    }
}

/// Entries of one stretch, with its first hour.
type Block = (f64, Vec<Entry>);

/// The account that stands for `party` in a copy.
fn copied(party: &Party, copy: usize) -> Result<Party, ArenaError> {
    if copy == 0 {
        return Ok(party.clone());
    }
    let id = AccountId::new(format!("{}-{copy}", party.id))?;
    // It was opened before it does anything, and not on the day of the others.
    let opened = party.opened.min(0) - (24.0 * HOUR) as i64 * copy as i64;
    Ok(Party { id, opened, payment: other(party.payment, copy), ..party.clone() })
}

/// What a copy has instead of something.
fn other(thing: Keyed, copy: usize) -> Keyed {
    Keyed(thing.0 ^ (copy as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl Composer<'_> {
    fn all_of(&mut self, people: usize, campaign: Option<&Campaign>) -> Result<(), ArenaError> {
        self.everybody(people)?;
        if let Some(campaign) = campaign {
            let operator = self.operator();
            self.campaign(campaign, operator)?;
        }
        self.hand_over(true);
        Ok(())
    }
}

/// Rows whose prompts may still have to be sketched.
#[derive(Debug)]
pub(super) struct Batch {
    /// The conversations of the rows, in their order; none where they are sketched.
    pub(super) asked: Vec<Vec<Message>>,
    pub(super) rows: Vec<Row>,
    /// What the account of each row is.
    pub(super) classes: Vec<Class>,
    pub(super) refused: Vec<(i64, u32)>,
}

/// Somebody who sketches and files what is composed.
#[derive(Debug)]
pub(super) struct Clerk(SyncSender<Batch>);

impl Clerk {
    /// Leaves `batch` to the clerk; sketches it here where enough of them wait already. Whether it was taken.
    pub(super) fn give(&self, sketcher: &Sketcher, batch: Batch) -> bool {
        match self.0.try_send(batch) {
            Ok(()) => true,
            Err(TrySendError::Disconnected(_)) => false,
            Err(TrySendError::Full(mut batch)) => {
                batch.sketch(sketcher);
                self.0.send(batch).is_ok()
            }
        }
    }
}

impl Batch {
    fn sketch(&mut self, sketcher: &Sketcher) {
        let asked = std::mem::take(&mut self.asked);
        if !asked.is_empty() {
            sketch(sketcher, &asked, &mut self.rows);
        }
    }
}

/// What was put by.
#[derive(Debug, Default)]
struct Filed {
    exchanges: u64,
    hard: u64,
    honest: u64,
}

/// Puts all `batches` by, in their order: what falls into so many `days`.
fn file(sketcher: &Sketcher, batches: &Receiver<Batch>, mut shelf: Shelf, days: f64) -> Result<Filed, ArenaError> {
    let mut filed = Filed::default();
    for mut batch in batches {
        batch.sketch(sketcher);
        let rows = batch.rows.iter().zip(&batch.classes);
        for (row, class) in rows.filter(|(row, _)| (row.at as f64) < days * 24.0 * HOUR) {
            filed.exchanges += 1;
            filed.honest += u64::from(class.is_honest());
            filed.hard += u64::from(class.is_hard());
            shelf.put(row.at, &packed(row))?;
        }
        for (at, account) in batch.refused {
            if (0.0..days * 24.0 * HOUR).contains(&(at as f64)) {
                shelf.put(at, &refusal(at, account))?;
            }
        }
    }
    shelf.close()?;
    Ok(filed)
}

/// The files that are written.
struct Shelf {
    files: Vec<(PathBuf, BufWriter<File>)>,
}

impl Shelf {
    fn open(folder: &Path, stretches: usize) -> Result<Self, ArenaError> {
        create_dir_all(folder).map_err(|source| ArenaError::Keep { path: folder.to_owned(), source })?;
        let open = |stretch: usize| {
            let path = place(folder, stretch);
            let file = File::create(&path).map_err(|source| ArenaError::Keep { path: path.clone(), source })?;
            Ok((path, BufWriter::with_capacity(64 * WIDTH, file)))
        };
        Ok(Self { files: (0..stretches).map(open).collect::<Result<_, ArenaError>>()? })
    }

    fn put(&mut self, at: i64, bytes: &[u8; WIDTH]) -> Result<(), ArenaError> {
        let stretch = (at as f64 / (STRETCH * HOUR)).max(0.0) as usize;
        let last = self.files.len().saturating_sub(1);
        let Some((path, file)) = self.files.get_mut(stretch.min(last)) else { return Ok(()) };
        file.write_all(bytes).map_err(|source| ArenaError::Keep { path: path.clone(), source })
    }

    fn close(self) -> Result<(), ArenaError> {
        for (path, mut file) in self.files {
            file.flush().map_err(|source| ArenaError::Keep { path, source })?;
        }
        Ok(())
    }
}

fn place(folder: &Path, stretch: usize) -> PathBuf {
    folder.join(format!("rows-{stretch:05}"))
}

fn packed(row: &Row) -> [u8; WIDTH] {
    let flags = [(row.granted, GRANTED), (row.harvested, HARVESTED), (row.renewed, RENEWED)];
    let flags = flags.into_iter().filter(|flag| flag.0).fold(0, |all, flag| all | flag.1);
    let parts = [
        &row.at.to_be_bytes()[..],
        &row.account.to_be_bytes(),
        &row.sketch.to_bytes(),
        &row.network.0.to_be_bytes(),
        &row.agent.0.to_be_bytes(),
        &row.max_tokens.to_be_bytes(),
        &row.prompt_tokens.to_be_bytes(),
        &row.output_tokens.to_be_bytes(),
        &[flags],
    ];
    filled(&parts)
}

fn refusal(at: i64, account: u32) -> [u8; WIDTH] {
    let mut bytes = filled(&[&at.to_be_bytes()[..], &account.to_be_bytes()]);
    bytes[WIDTH - 1] = REFUSED;
    bytes
}

fn filled(parts: &[&[u8]]) -> [u8; WIDTH] {
    let mut bytes = [0; WIDTH];
    bytes.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
    bytes
}

type Loaded = (Vec<Row>, Vec<(i64, u32)>);

/// The rows and the refusals of one file.
fn load(path: &Path) -> Result<Loaded, ArenaError> {
    let file = std::fs::read(path).map_err(|source| ArenaError::Read { path: path.to_owned(), source })?;
    let (mut rows, mut refused) = (Vec::with_capacity(file.len() / WIDTH), Vec::new());
    for bytes in file.chunks_exact(WIDTH) {
        let mut rest = bytes;
        let at = i64::from_be_bytes(next(&mut rest));
        let account = u32::from_be_bytes(next(&mut rest));
        let flags = bytes[WIDTH - 1];
        if flags & REFUSED != 0 {
            refused.push((at, account));
            continue;
        }
        let sketch = Sketch::from_bytes(&next(&mut rest));
        let (network, agent) = (u64::from_be_bytes(next(&mut rest)), u64::from_be_bytes(next(&mut rest)));
        let mut number = || u32::from_be_bytes(next(&mut rest));
        let (max_tokens, prompt_tokens, output_tokens) = (number(), number(), number());
        let is = |flag: u8| flags & flag != 0;
        let (granted, harvested, renewed) = (is(GRANTED), is(HARVESTED), is(RENEWED));
        let (network, agent) = (Keyed(network), Keyed(agent));
        rows.push(Row {
            at,
            account,
            sketch,
            network,
            agent,
            max_tokens,
            prompt_tokens,
            output_tokens,
            granted,
            harvested,
            renewed,
        });
    }
    Ok((rows, refused))
}

/// The next bytes of a row.
fn next<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_at(N.min(rest.len()));
    *rest = tail;
    let mut bytes = [0; N];
    bytes.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::{Cast, Stream};
    use super::*;

    #[test]
    fn what_lies_in_files_is_what_is_composed_in_memory() {
        let folder = std::env::temp_dir().join(format!("anbiq-history-{}", std::process::id()));
        let campaign = Campaign::new(10, 0.5, true, 0);
        let history = History::compose(5, 30, 2.0, Some(&campaign), None, &folder).unwrap();
        let (arrivals, phrases) = (Arrivals::open(None).unwrap(), Phrases::open(None, 5).unwrap());
        let cast = Cast { people: 30, days: 2.0, campaigns: vec![campaign] };
        let stream = Stream::compose(5, &cast, &phrases, &arrivals).unwrap();
        let told = |entry: &Entry| match entry {
            Entry::Exchange(exchange) => Some((exchange.at, exchange.account.clone(), exchange.sketch.exact)),
            Entry::Refused(refusal) => Some((refusal.at, refusal.account.clone(), Keyed(0))),
            _ => None,
        };
        let mut read: Vec<_> = Vec::new();
        history.read(Replay::default(), &mut |_, entry| read.extend(told(&entry))).unwrap();
        let mut held: Vec<_> = stream.timed_entries().filter_map(|(_, entry)| told(&entry)).collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(history.exchanges(), stream.rows.len() as u64);
        read.sort();
        held.sort();
        assert!(read == held && read.len() > 1_000);
    }
}
