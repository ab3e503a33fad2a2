//! What logs say, hashed, sketched and written.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anbiq_domain::{AccountId, Client, Imported, ImportedExchange, Keyed, KeyedHasher, Sketch, Timestamp};
use anbiq_statistics::sketch::Sketcher;

use crate::ImportError;
use crate::found::{End, Found};
use crate::pipeline;
use crate::read::{Options, Sums, Tally};
use crate::store::{Manifest, Writer};

/// Where an import's result goes, and under which key.
#[derive(Debug, Clone)]
pub struct Target {
    /// The folder; must be absent.
    pub out: PathBuf,
    /// The key of all hashes and sketches.
    pub key: [u8; 32],
    /// A file for the names of accounts that cannot be ids; readable by its owner alone.
    pub names: Option<PathBuf>,
}

/// Reads `files` and writes what they say to the folder of `target`, without any text of them.
///
/// `progress` hears now and then of how many requests were read. The same files under the same key give the same bytes.
///
/// # Errors
/// A log cannot be read, its format cannot be told, no row tells of a request, or the folder cannot be written.
pub fn import(
    files: &[PathBuf],
    options: &Options,
    target: &Target,
    progress: &mut dyn FnMut(u64),
) -> Result<Manifest, ImportError> {
    let mut writer = Writer::create(&target.out)?;
    match write_all(files, options, target, &mut writer, progress) {
        Ok(manifest) => {
            writer.finish(&manifest)?;
            Ok(manifest)
        }
        Err(error) => {
            writer.abandon();
            Err(error)
        }
    }
}

fn write_all(
    files: &[PathBuf],
    options: &Options,
    target: &Target,
    writer: &mut Writer,
    progress: &mut dyn FnMut(u64),
) -> Result<Manifest, ImportError> {
    let names = target.names.as_deref().map(Names::create).transpose()?;
    let mut hand = Hand::new(&target.key, names);
    let tally = pipeline::run(files, options, &Sketcher::new(&target.key), |found, sketch| {
        hand.take(found, sketch, writer)?;
        if hand.requests.is_multiple_of(4096) {
            progress(hand.requests);
        }
        Ok(())
    })?;
    if let Some(names) = hand.names.take() {
        names.close()?;
    }
    usable(&tally, hand.requests)?;
    let rows = writer.seal()?;
    Ok(Manifest {
        format: Manifest::FORMAT,
        key: hand.key,
        sources: tally.sources,
        bad: tally.samples,
        accounts: hand.accounts.len() as u64,
        renamed: hand.renamed,
        exchanges: hand.exchanges,
        sketched: hand.sketched,
        refused: hand.requests - hand.exchanges,
        first: hand.first.unwrap_or_default(),
        last: hand.last.unwrap_or_default(),
        rows,
    })
}

/// Is there anything that `watch` can read?
fn usable(tally: &Tally, requests: u64) -> Result<(), ImportError> {
    let name = || tally.sources.first().map(|source| source.name.clone()).unwrap_or_default();
    if tally.sums != Sums::default() {
        let summed = tally.sources.iter().find(|source| source.format == Some(crate::Format::OpenaiUsage));
        return Err(ImportError::Aggregates { name: summed.map_or_else(name, |source| source.name.clone()) });
    }
    if requests > 0 {
        return Ok(());
    }
    let faults = tally.sources.iter().flat_map(|source| &source.bad);
    let why = faults.max_by_key(|(_, count)| **count).map(|(fault, count)| {
        let rows = if *count == 1 { "row" } else { "rows" };
        format!(": of {count} {rows} each {}", fault.in_words())
    });
    Err(ImportError::NoRows { name: name(), why: why.unwrap_or_default() })
}

/// Everything that is remembered between rows: about 16 bytes an account.
struct Hand {
    key: Keyed,
    hasher: KeyedHasher,
    /// Of each account a hash of what was last said of it.
    accounts: HashMap<Keyed, Keyed>,
    names: Option<Names>,
    renamed: u64,
    requests: u64,
    exchanges: u64,
    sketched: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Hand {
    fn new(key: &[u8; 32], names: Option<Names>) -> Self {
        let hasher = KeyedHasher::new(key);
        Self {
            key: hasher.hash("anbiq import key", &[]),
            hasher,
            accounts: HashMap::new(),
            names,
            renamed: 0,
            requests: 0,
            exchanges: 0,
            sketched: 0,
            first: None,
            last: None,
        }
    }

    fn take(&mut self, found: Found, sketch: Option<Sketch>, writer: &mut Writer) -> Result<(), ImportError> {
        self.requests += 1;
        self.first = Some(self.first.map_or(found.at, |first| first.min(found.at)));
        self.last = Some(self.last.map_or(found.at, |last| last.max(found.at)));
        let account = self.account(&found, writer)?;
        if found.end == End::Refused {
            return writer.row(&Imported::Refused { at: found.at, account });
        }
        self.exchanges += 1;
        self.sketched += u64::from(sketch.is_some());
        let place = found.address.map(|address| Client::place(&self.hasher, address));
        writer.row(&Imported::Exchange(Box::new(ImportedExchange {
            at: found.at,
            account,
            model: found.model,
            request: found.request,
            address: place.map(|(address, _)| address),
            network: place.map(|(_, network)| network),
            agent: found.agent.map(|agent| Client::software(&self.hasher, agent.as_bytes())),
            sketch,
            usage: found.usage,
            cost: found.cost,
            failed: found.end == End::Failed,
        })))
    }

    /// The account's id: its name where that can be one, or else a keyed hash of it. What is new about it is written.
    fn account(&mut self, found: &Found, writer: &mut Writer) -> Result<AccountId, ImportError> {
        let name = &found.account;
        let hash = self.hasher.hash("account", name.as_bytes());
        let (id, renamed) = match AccountId::new(name.clone()) {
            Ok(id) => (id, false),
            Err(_) => (hashed(hash), true),
        };
        let payment = found.payment.as_ref().map(|payment| self.hasher.hash("payment", payment.as_bytes()));
        let said = format!("{payment:?} {:?}", found.opened);
        let said = self.hasher.hash("account said", said.as_bytes());
        let before = self.accounts.insert(hash, said);
        if before.is_none() && renamed {
            self.renamed += 1;
            if let Some(names) = &mut self.names {
                names.put(&id, name)?;
            }
        }
        if (payment.is_some() || found.opened.is_some()) && before != Some(said) {
            writer.row(&Imported::Account { account: id.clone(), opened: found.opened, payment })?;
        }
        Ok(id)
    }
}

fn hashed(hash: Keyed) -> AccountId {
    // Letters, digits and a hyphen: always an id.
    AccountId::new(format!("id-{:016x}", hash.0)).unwrap_or_else(|_| unreachable!("hexadecimal digits are an id"))
}

/// Ids and the names they stand for, as CSV.
struct Names {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Names {
    fn create(path: &Path) -> Result<Self, ImportError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = BufWriter::new(file.map_err(ImportError::io("write", path))?);
        writeln!(file, "account,name").map_err(ImportError::io("write", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn put(&mut self, id: &AccountId, name: &str) -> Result<(), ImportError> {
        writeln!(self.file, "{id},\"{}\"", name.replace('"', "\"\"")).map_err(ImportError::io("write", &self.path))
    }

    fn close(self) -> Result<(), ImportError> {
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).map_err(ImportError::io("write", self.path))
    }
}
