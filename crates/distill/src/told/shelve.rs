//! Taking the log-probabilities out of a capture's rows, into its file of shards.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anbiq_domain::{Answer, Digest, Usage};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::file::{self, Shelf, Spot, Told, Writer, find};
use crate::DistillError;
use crate::ask::replace;
use crate::capture::Row;
use crate::data::{Asked, Lines};

/// A row without what is told of its answers.
#[derive(Debug, Deserialize)]
struct Plain {
    #[serde(default)]
    id: Option<Digest>,
    #[serde(default)]
    exchange: Option<String>,
    prompt: Asked,
    answers: Vec<Answer>,
    #[serde(default)]
    usage: Usage,
    #[serde(default)]
    batch: bool,
}

/// What of a row says whether there is anything to do.
#[derive(Debug, Deserialize)]
struct Look {
    #[serde(default)]
    logprobs: Vec<IgnoredAny>,
    #[serde(default)]
    told: Option<Told>,
}

/// Moves all log-probabilities of the capture `source` to its file of shards, in the order of the rows: equal answers in an equal order give
/// equal bytes of both files, whatever was shelved before. Whoever calls keeps other programs from the capture.
///
/// What is on the disk at any moment is whole: the new shards are there before the first row names them, and the old ones until no
/// row does. A kill leaves a file that no row names at most, which [`sweep`] removes.
pub(crate) fn shelve(source: &Path) -> Result<(), DistillError> {
    if is_shelved(source)? {
        return sweep(source);
    }
    let new = source.with_added_extension("told.new");
    let write = || File::create(&new).map(|file| BufWriter::with_capacity(1 << 18, file));
    let mut writer = Writer::new(write().map_err(DistillError::write(&new))?);
    let (mut shelf, mut spots, mut counts) = (Shelf::of(source), Vec::new(), Vec::new());
    for row in Lines::<Row>::open(source)? {
        let mut row = row?;
        shelf.fill(&mut row)?;
        let before = spots.len();
        for tokens in &row.logprobs {
            spots.push(writer.add(tokens).map_err(DistillError::write(&new))?);
        }
        if spots[before..].iter().all(|spot: &Spot| spot.places == 0) {
            spots.truncate(before);
        }
        counts.push((spots.len() - before) as u32);
    }
    let (file, name) = writer.end().map_err(DistillError::write(&new))?;
    if let Some(name) = &name {
        let kept = || -> std::io::Result<()> {
            file.into_inner()?.sync_all()?;
            std::fs::rename(&new, file::path(source, name))?;
            File::open(file::folder(source))?.sync_all()
        };
        kept().map_err(DistillError::write(&new))?;
    }
    let mut rows = Lines::<Plain>::open(source)?;
    let (mut spots, mut failed) = (spots.into_iter(), None);
    let replaced = replace(source, |to| {
        for count in counts {
            let row = match rows.next() {
                Some(Ok(row)) => row,
                Some(Err(error)) => {
                    failed = Some(error);
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            };
            match &name {
                Some(name) if count > 0 => {
                    let answers = spots.by_ref().take(count as usize).collect();
                    serde_json::to_writer(&mut *to, &row.naming(Told { file: name.clone(), answers }))?;
                }
                // A row of which nothing was told stays as it stands.
                _ => to.write_all(rows.text().trim_ascii_end())?,
            }
            to.write_all(b"\n")?;
        }
        Ok(())
    });
    failed.map_or(replaced, Err)?;
    sweep(source)
}

impl Plain {
    fn naming(self, told: Told) -> Row {
        let Self { id, exchange, prompt, answers, usage, batch } = self;
        Row { id, exchange, prompt, answers, logprobs: Vec::new(), told: Some(told), usage, batch }
    }
}

/// Are all log-probabilities of the capture in one file of its own, in the order of its rows?
fn is_shelved(source: &Path) -> Result<bool, DistillError> {
    let (mut name, mut last) = (None, None);
    for row in Lines::<Look>::open(source)? {
        let Look { logprobs, told } = row?;
        if !logprobs.is_empty() {
            return Ok(false);
        }
        let Some(told) = told else { continue };
        if *name.get_or_insert_with(|| told.file.clone()) != told.file {
            return Ok(false);
        }
        for spot in told.answers.iter().filter(|spot| spot.places > 0) {
            let place = Some((spot.shard, spot.answer));
            if last >= place {
                return Ok(false);
            }
            last = place;
        }
    }
    Ok(name.is_none_or(|name| file::path(source, &name).exists()))
}

/// Removes what kills left of files of shards: those that are the capture's own and that no row names.
pub(crate) fn sweep(source: &Path) -> Result<(), DistillError> {
    sweep_all_but(source, &named(source)?)
}

/// The files of shards that the rows of `source` name.
fn named(source: &Path) -> Result<BTreeSet<String>, DistillError> {
    let mut named = BTreeSet::new();
    for row in Lines::<Look>::open_appended(source)? {
        named.extend(row?.told.map(|told| told.file));
    }
    Ok(named)
}

/// The same where it is known which files are `named`.
///
/// # Errors
///
/// One of them is not there: what would be asked for now would not make the capture whole.
pub(crate) fn sweep_all_but(source: &Path, named: &BTreeSet<String>) -> Result<(), DistillError> {
    for name in named {
        find(source, name)?;
    }
    let folder = file::folder(source);
    let own = source.file_name().unwrap_or_default().to_string_lossy();
    for entry in std::fs::read_dir(folder).map_err(DistillError::read(folder))? {
        let entry = entry.map_err(DistillError::read(folder))?;
        let other = entry.file_name();
        let other = other.to_string_lossy();
        let Some(rest) = other.strip_prefix(&*own).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let stale = rest.strip_suffix(".told").is_some_and(|name| file::is_name(name) && !named.contains(name));
        if stale || rest == "told.new" {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(DistillError::write(&path))?;
        }
    }
    Ok(())
}

/// Bytes of the files of shards that the rows of `source` name.
pub(crate) fn bytes(source: &Path) -> Result<u64, DistillError> {
    let length = |name: &String| Ok(std::fs::metadata(find(source, name)?).map_or(0, |file| file.len()));
    named(source)?.iter().map(length).sum()
}
