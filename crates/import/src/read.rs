//! All logs, from bytes to what their rows say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use anbiq_domain::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ImportError;
use crate::fault::Fault;
use crate::field::{Field, Layout};
use crate::format::{Bucket, Format, Prepared};
use crate::found::{Found, Seen, read as read_row};
use crate::join::{Join, Joined, Place};
use crate::mapping::Mapping;
use crate::rows::{Row, Rows};
use crate::source::{Compression, Source, name_of};

/// Rows from which a format is told.
const TELLING: usize = 8;
/// Logs that are read side by side.
const SIDE_BY_SIDE: usize = 512;
/// Requests that may wait for their other rows, and the bytes of their rows.
const WAITING: (usize, usize) = (1 << 17, 256 << 20);
/// Accounts whose sums over time are kept apart.
const SUMMED: usize = 10_000;

/// How logs are read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Their format; told from their rows where it is absent.
    pub format: Option<Format>,
    /// Where their fields stand, where that is not as their format has it.
    pub mapping: Option<Mapping>,
    /// Where the account stands: the first that says something. As the format has it where there is none.
    pub account: Vec<String>,
    /// Longest row, in bytes.
    pub max_row: usize,
    /// Bad rows that are named.
    pub samples: usize,
    /// Takes what can be read of a log that is damaged or ends early.
    pub partial: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: None, mapping: None, account: Vec::new(), max_row: 16 << 20, samples: 20, partial: false }
    }
}

/// What was read of one log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Its file's name, without the folder.
    pub name: String,
    /// Its format; absent where it holds no rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How it is compressed.
    pub compression: Compression,
    /// Its length on disk, in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes on disk.
    pub digest: Digest,
    /// Its rows.
    pub rows: u64,
    /// Requests to language models that they tell of.
    pub requests: u64,
    /// Rows that tell of something else.
    pub other: u64,
    /// Rows that could not be used, by what is wrong with them.
    pub bad: BTreeMap<Fault, u64>,
    /// What was wrong with the file, where it could not be read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// Which fields were found, and where.
    pub fields: Vec<FieldReport>,
}

impl SourceReport {
    /// What was read of it, in one line.
    pub fn in_words(&self) -> String {
        let Self { name, rows, requests, other, .. } = self;
        let (format, bad) = (self.format.map_or("no rows", Format::name), self.bad.values().sum::<u64>());
        format!("{name}: {format}; {rows} rows, {requests} requests, {other} other, {bad} bad")
    }
}

/// How often a field was found, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldReport {
    /// Which field.
    pub field: Field,
    /// Requests that have it.
    pub requests: u64,
    /// The log's own names for it, each with how many requests have it there.
    pub from: BTreeMap<String, u64>,
}

/// A row that could not be used. Nothing of it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// In which file.
    pub source: String,
    /// As which of its rows, from 1.
    pub row: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What sums over time add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Sums that were read.
    pub buckets: u64,
    /// Accounts that they name, up to 10,000.
    pub accounts: u64,
    /// Requests.
    pub requests: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
}

/// What was read of all logs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) sources: Vec<SourceReport>,
    pub(crate) samples: Vec<BadRow>,
    pub(crate) sums: Sums,
    summed: BTreeSet<String>,
}

/// What becomes of a request that was read: false ends the reading.
pub(crate) type Each<'a> = dyn FnMut(Found) -> Result<bool, ImportError> + 'a;

/// Reads all of `files`, in their order; those of formats that are joined side by side, in the order of time.
pub(crate) fn read(files: &[PathBuf], options: &Options, each: &mut Each<'_>) -> Result<Tally, ImportError> {
    let mut reading = Reading { options, each, tally: Tally::default(), stopped: false };
    let mut joined: BTreeMap<Format, Vec<Log>> = BTreeMap::new();
    for path in files {
        if reading.stopped {
            break;
        }
        let place = reading.tally.sources.len();
        let mut log = Log::open(path, place, options)?;
        reading.tally.sources.push(log.report());
        match log.format {
            Some(format) if format.is_joined() => joined.entry(format).or_default().push(log),
            Some(format) => {
                while !reading.stopped
                    && let Some((number, row)) = reading.step(&mut log)?
                {
                    reading.row(format, &mut log, number, row, None)?;
                }
                reading.close(log)?;
            }
            None => reading.close(log)?,
        }
    }
    for (format, logs) in joined {
        reading.together(format, logs)?;
    }
    Ok(reading.tally)
}

/// One log under way.
struct Log {
    path: PathBuf,
    place: usize,
    rows: Rows,
    /// Rows that were read to tell the format.
    ahead: VecDeque<Row>,
    /// What ended the reading ahead.
    failed: Option<io::Error>,
    given: u64,
    format: Option<Format>,
    layout: Layout,
    seen: Seen,
    moment: Timestamp,
}

impl Log {
    fn open(path: &Path, place: usize, options: &Options) -> Result<Self, ImportError> {
        let source = Source::open(path)?;
        let damaged = |error: io::Error| ImportError::Damaged { name: name_of(path), reason: error.to_string() };
        let mut rows = Rows::new(source, options.max_row).map_err(damaged)?;
        let (mut ahead, mut failed) = (VecDeque::new(), None);
        while ahead.iter().filter(|row: &&Row| row.is_ok()).count() < TELLING && ahead.len() < 1000 {
            match rows.next() {
                Ok(Some(row)) => ahead.push_back(row),
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let asked = options.format.or(options.mapping.as_ref().map(|mapping| mapping.format.unwrap_or(Format::Plain)));
        let told = asked.or_else(|| ahead.iter().filter_map(|row| Format::of(row.as_ref().ok()?)).next());
        if told.is_none() && !ahead.is_empty() {
            return Err(ImportError::FormatUnknown { name: name_of(path), known: Format::known() });
        }
        let mut layout = told.unwrap_or(Format::Plain).layout();
        if let Some(mapping) = &options.mapping {
            mapping.apply(&mut layout)?;
        }
        if !options.account.is_empty() {
            layout.put(Field::Account, options.account.clone());
        }
        let seen = Seen::of(&layout);
        let moment = Timestamp::default();
        Ok(Self { path: path.to_owned(), place, rows, ahead, failed, given: 0, format: told, layout, seen, moment })
    }

    /// The next row and its number.
    fn next(&mut self) -> io::Result<Option<(u64, Row)>> {
        let row = match self.ahead.pop_front() {
            Some(row) => Some(row),
            None => match self.failed.take() {
                Some(error) => return Err(error),
                None => self.rows.next()?,
            },
        };
        self.given += u64::from(row.is_some());
        Ok(row.map(|row| (self.given, row)))
    }

    /// An empty report about it.
    fn report(&mut self) -> SourceReport {
        let source = self.rows.source();
        SourceReport {
            name: source.name.clone(),
            format: self.format,
            compression: source.compression,
            bytes: 0,
            digest: Digest::of(&[]),
            rows: 0,
            requests: 0,
            other: 0,
            bad: BTreeMap::new(),
            damaged: None,
            fields: Vec::new(),
        }
    }
}

struct Reading<'a, 'b> {
    options: &'a Options,
    each: &'a mut Each<'b>,
    tally: Tally,
    stopped: bool,
}

impl Reading<'_, '_> {
    /// The next row of `log`; `None` at its end, or where it is damaged and that is allowed.
    fn step(&mut self, log: &mut Log) -> Result<Option<(u64, Row)>, ImportError> {
        match log.next() {
            Ok(row) => {
                self.tally.sources[log.place].rows = log.given;
                Ok(row)
            }
            Err(error) => {
                let reason = log.rows.source().reason(&error);
                if !self.options.partial {
                    return Err(ImportError::Damaged { name: name_of(&log.path), reason });
                }
                self.tally.sources[log.place].damaged = Some(reason);
                Ok(None)
            }
        }
    }

    fn bad(&mut self, (log, row): Place, fault: Fault) {
        let source = &mut self.tally.sources[log];
        *source.bad.entry(fault).or_default() += 1;
        if self.tally.samples.len() < self.options.samples {
            self.tally.samples.push(BadRow { source: source.name.clone(), row, fault });
        }
    }

    /// Takes one row of `log`.
    fn row(
        &mut self,
        format: Format,
        log: &mut Log,
        number: u64,
        row: Row,
        join: Option<&mut Join>,
    ) -> Result<Vec<Joined>, ImportError> {
        let place = (log.place, number);
        let row = match row {
            Ok(row) => row,
            Err(fault) => {
                self.bad(place, fault);
                return Ok(Vec::new());
            }
        };
        let mut prepared = Vec::new();
        format.prepare(row, &mut prepared);
        let (mut complete, mut join) = (Vec::new(), join);
        for prepared in prepared {
            match prepared {
                Prepared::Request(row) => self.request(&row, log, place)?,
                Prepared::Other => self.tally.sources[log.place].other += 1,
                Prepared::Bucket(bucket) => self.sum(&bucket),
                Prepared::Part { key, side, row } => {
                    complete.extend(join.as_mut().map(|join| join.take(key, side, row, place)).into_iter().flatten());
                }
            }
        }
        Ok(complete)
    }

    fn request(&mut self, row: &Map<String, Value>, log: &mut Log, place: Place) -> Result<(), ImportError> {
        if self.stopped {
            return Ok(());
        }
        match read_row(row, &log.layout, &mut log.seen) {
            Ok(Some(found)) => {
                self.tally.sources[log.place].requests += 1;
                self.stopped = !(self.each)(found)?;
            }
            Ok(None) => self.tally.sources[log.place].other += 1,
            Err(fault) => self.bad(place, fault),
        }
        Ok(())
    }

    fn sum(&mut self, bucket: &Bucket) {
        let sums = &mut self.tally.sums;
        sums.buckets += 1;
        sums.requests += bucket.requests;
        sums.prompt_tokens += bucket.prompt_tokens;
        sums.completion_tokens += bucket.completion_tokens;
        if let Some(account) = &bucket.account
            && self.tally.summed.len() < SUMMED
            && self.tally.summed.insert(account.clone())
        {
            sums.accounts += 1;
        }
    }

    /// Reads `logs` of one format side by side, so that rows of one request meet.
    fn together(&mut self, format: Format, mut logs: Vec<Log>) -> Result<(), ImportError> {
        if logs.len() > SIDE_BY_SIDE {
            return Err(ImportError::TooManyFiles { files: logs.len(), most: SIDE_BY_SIDE });
        }
        let mut join = Join::new(WAITING.0, WAITING.1, format == Format::Langfuse);
        let mut next: Vec<Option<(u64, Row)>> = Vec::new();
        for log in &mut logs {
            next.push(self.ahead(log)?);
        }
        while !self.stopped {
            // The earliest row; of equal ones that of the first log.
            let waiting = (0..logs.len()).filter(|place| next[*place].is_some());
            let Some(earliest) = waiting.min_by_key(|place| (logs[*place].moment, *place)) else { break };
            if let Some((number, row)) = next[earliest].take() {
                let complete = self.row(format, &mut logs[earliest], number, row, Some(&mut join))?;
                self.complete(format, complete, &mut logs)?;
            }
            next[earliest] = self.ahead(&mut logs[earliest])?;
        }
        while let Some(joined) = join.first() {
            self.complete(format, vec![joined], &mut logs)?;
        }
        logs.into_iter().try_for_each(|log| self.close(log))
    }

    /// The next row of `log`, whose time is then known.
    fn ahead(&mut self, log: &mut Log) -> Result<Option<(u64, Row)>, ImportError> {
        let next = self.step(log)?;
        let moment = next.as_ref().and_then(|(_, row)| Format::moment(row.as_ref().ok()?));
        log.moment = moment.unwrap_or(log.moment);
        Ok(next)
    }

    fn complete(&mut self, format: Format, complete: Vec<Joined>, logs: &mut [Log]) -> Result<(), ImportError> {
        for Joined { caller, calls, place, .. } in complete {
            let Some(log) = logs.iter_mut().find(|log| log.place == place.0) else { continue };
            if calls.is_empty() {
                continue;
            }
            for row in format.join(caller, calls) {
                self.request(&row, log, place)?;
            }
        }
        Ok(())
    }

    /// Closes a log; its digest is of all of it, whatever was read.
    fn close(&mut self, mut log: Log) -> Result<(), ImportError> {
        if !self.stopped && self.tally.sources[log.place].damaged.is_none() {
            log.rows.source().drain().map_err(ImportError::io("read", &log.path))?;
        }
        let (bytes, digest) = log.rows.source().counted();
        let report = &mut self.tally.sources[log.place];
        (report.bytes, report.digest) = (bytes, digest);
        report.fields = log.fields();
        Ok(())
    }
}

impl Log {
    fn fields(&self) -> Vec<FieldReport> {
        let one = |field: &Field| {
            let counts = &self.seen.0[*field as usize];
            let names = self.layout.places(*field).iter().map(String::as_str).chain(["(set by the mapping)"]);
            let from: BTreeMap<String, u64> = names
                .zip(counts)
                .filter(|(_, count)| **count > 0)
                .map(|(name, count)| (name.to_owned(), *count))
                .collect();
            FieldReport { field: *field, requests: from.values().sum(), from }
        };
        Field::ALL.iter().map(one).filter(|report| report.requests > 0).collect()
    }
}
