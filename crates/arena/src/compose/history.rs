//! Histories that are longer than memory.
//!
//! Customers are composed one after another, each over the whole time, and their rows are put by into files of six hours each. These are
//! read in order of time, one at a time.

use std::fs::{File, create_dir_all};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anbiq_domain::{Entry, Keyed, Sketch};
use anbiq_lab::world::Arrivals;

use super::phrases::Phrases;
use super::{Campaign, Class, Composer, HOUR, Party, Row, Stream};
use crate::ArenaError;

/// Hours whose rows lie in one file.
const STRETCH: f64 = 6.0;
/// Bytes of a row in a file.
const WIDTH: usize = 8 + 4 + Sketch::BYTES + 8 + 8 + 4 + 4 + 4 + 1;
const GRANTED: u8 = 1;
const HARVESTED: u8 = 1 << 1;
const RENEWED: u8 = 1 << 2;
const REFUSED: u8 = 1 << 3;

/// A history of honest customers of every kind, and of one campaign at most, that is read from files.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    stretches: usize,
    parties: Vec<Party>,
    exchanges: u64,
    hard: u64,
    honest: u64,
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
        let mut shelf = Shelf::open(folder, stretches)?;
        let mut this =
            Self { folder: folder.to_owned(), stretches, parties: Vec::new(), exchanges: 0, hard: 0, honest: 0 };
        let mut composer = Composer::new(seed, days, &phrases, &arrivals);
        composer.window = 0;
        composer.everybody(people, &mut |composer| this.put_by(composer, &mut shelf))?;
        if let Some(campaign) = campaign {
            let operator = composer.operator();
            composer.campaign(campaign, operator)?;
            this.put_by(&mut composer, &mut shelf)?;
        }
        this.parties = composer.parties;
        shelf.close()?;
        Ok(this)
    }

    fn put_by(&mut self, composer: &mut Composer<'_>, shelf: &mut Shelf) -> Result<(), ArenaError> {
        for row in std::mem::take(&mut composer.rows) {
            if (row.at as f64) < composer.days * 24.0 * HOUR {
                let class = composer.parties[row.account as usize].class;
                self.exchanges += 1;
                self.honest += u64::from(class.is_honest());
                self.hard += u64::from(class.is_hard());
                shelf.put(row.at, &packed(&row))?;
            }
        }
        for (at, account) in std::mem::take(&mut composer.refused) {
            if (0.0..composer.days * 24.0 * HOUR).contains(&(at as f64)) {
                shelf.put(at, &refusal(at, account))?;
            }
        }
        Ok(())
    }

    /// Hands all entries to `take`, in order, each stretch of time with its first hour since the beginning.
    ///
    /// # Errors
    /// What was written cannot be read.
    pub fn read(&mut self, take: &mut dyn FnMut(f64, Entry)) -> Result<(), ArenaError> {
        let parties = std::mem::take(&mut self.parties);
        let mut stream = Stream { parties, rows: Vec::new(), refused: Vec::new(), campaigns: Vec::new() };
        // Papers come first and accounts when they are opened.
        let mut papers: Vec<(i64, Entry)> = stream.papers(i64::MAX).collect();
        papers.sort_by_key(|paper| paper.0);
        let mut papers = papers.into_iter().peekable();
        let mut done = Ok(());
        for stretch in 0..self.stretches {
            let (hour, end) = (stretch as f64 * STRETCH, (stretch + 1) as f64 * STRETCH * HOUR);
            while let Some((_, paper)) = papers.next_if(|paper| (paper.0 as f64) < end) {
                take(hour, paper);
            }
            match load(&place(&self.folder, stretch)) {
                Ok((rows, refused)) => (stream.rows, stream.refused) = (rows, refused),
                Err(error) => {
                    done = Err(error);
                    break;
                }
            }
            stream.events(i64::MAX).for_each(|event| take(hour, event.1));
        }
        self.parties = stream.parties;
        done
    }

    /// What each account is, by its name.
    pub fn classes(&self) -> impl Iterator<Item = (&str, Class)> {
        self.parties.iter().map(|party| (party.id.as_str(), party.class))
    }

    /// Exchanges in it.
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// Share of the honest exchanges that are of hard negatives.
    pub fn hard(&self) -> f64 {
        self.hard as f64 / self.honest.max(1) as f64
    }
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

/// The rows and the refusals of one file, in order of time.
fn load(path: &Path) -> Result<Loaded, ArenaError> {
    let failed = |source| ArenaError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    let mut bytes = [0; WIDTH];
    for _ in 0..length / WIDTH as u64 {
        file.read_exact(&mut bytes).map_err(failed)?;
        let mut rest = &bytes[..];
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
    rows.sort_by_key(|row| row.at);
    refused.sort_unstable();
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
        let mut history = History::compose(5, 30, 2.0, Some(&campaign), None, &folder).unwrap();
        let (arrivals, phrases) = (Arrivals::open(None).unwrap(), Phrases::open(None, 5).unwrap());
        let cast = Cast { people: 30, days: 2.0, campaigns: vec![campaign] };
        let stream = Stream::compose(5, &cast, &phrases, &arrivals).unwrap();
        let told = |entry: &Entry| match entry {
            Entry::Exchange(exchange) => Some((exchange.at, exchange.account.clone(), exchange.sketch.exact)),
            Entry::Refused(refusal) => Some((refusal.at, refusal.account.clone(), Keyed(0))),
            _ => None,
        };
        let mut read: Vec<_> = Vec::new();
        history.read(&mut |_, entry| read.extend(told(&entry))).unwrap();
        let mut held: Vec<_> = stream.timed_entries().filter_map(|(_, entry)| told(&entry)).collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(history.exchanges(), stream.rows.len() as u64);
        read.sort();
        held.sort();
        assert!(read == held && read.len() > 1_000);
    }
}
