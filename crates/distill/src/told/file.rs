//! Shards one after the other, as they are written and as they are read.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::map::map;
use super::shard::{Builder, Shard};
use crate::DistillError;
use crate::capture::{Row, Token};

/// Hexadecimal digits of a file's digest in its name.
const NAME: usize = 32;

/// Where the log-probabilities of a row's answers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The first half of the SHA-256 of the file of shards beside the capture, which bears it in its name.
    pub file: String,
    /// Of each answer where it is.
    pub answers: Vec<Spot>,
}

/// Where one answer is in a file of shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, u32)", into = "(u64, u32, u32)")]
pub struct Spot {
    /// Where its shard begins, in bytes.
    pub shard: u64,
    /// Its number in the shard.
    pub answer: u32,
    /// How many places it has; none where nothing was told of it.
    pub places: u32,
}

impl From<(u64, u32, u32)> for Spot {
    fn from((shard, answer, places): (u64, u32, u32)) -> Self {
        Self { shard, answer, places }
    }
}

impl From<Spot> for (u64, u32, u32) {
    fn from(Spot { shard, answer, places }: Spot) -> Self {
        (shard, answer, places)
    }
}

/// Writes shards; in memory is the one that is being filled.
#[derive(Debug)]
pub(super) struct Writer<W> {
    to: W,
    at: u64,
    builder: Builder,
    digest: Sha256,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, at: 0, builder: Builder::default(), digest: Sha256::new() }
    }

    /// Adds an answer; says where it will be.
    pub(super) fn add<B: AsRef<[u8]>>(&mut self, tokens: &[Token<B>]) -> io::Result<Spot> {
        if tokens.is_empty() {
            return Ok(Spot::default());
        }
        if self.builder.is_full_before(tokens.len()) {
            self.seal()?;
        }
        let (answer, places) = self.builder.add(tokens);
        Ok(Spot { shard: self.at, answer, places })
    }

    /// What was written to, and its name; none where there was nothing to write.
    pub(super) fn end(mut self) -> io::Result<(W, Option<String>)> {
        if !self.builder.is_empty() {
            self.seal()?;
        }
        let mut name: String = self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        name.truncate(NAME);
        Ok((self.to, (self.at > 0).then_some(name)))
    }

    fn seal(&mut self) -> io::Result<()> {
        let shard = self.builder.seal();
        self.digest.update(&shard);
        self.at += shard.len() as u64;
        self.to.write_all(&shard)
    }
}

/// Shards that are in memory, with where each begins.
#[derive(Debug, Default)]
struct Held(Vec<(u64, Vec<u8>)>);

impl Write for Held {
    fn write(&mut self, shard: &[u8]) -> io::Result<usize> {
        let begin = self.0.last().map_or(0, |(begin, shard)| begin + shard.len() as u64);
        self.0.push((begin, shard.to_vec()));
        Ok(shard.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
enum Shards {
    Mapped { path: PathBuf, name: String, bytes: Mmap },
    Held(Held),
}

impl Shards {
    /// What begins at the byte `at`, with the shard that begins there.
    fn from(&self, at: u64) -> Option<&[u8]> {
        match self {
            Self::Mapped { bytes, .. } => bytes.get(usize::try_from(at).ok()?..),
            Self::Held(Held(all)) => {
                let place = all.binary_search_by_key(&at, |(begin, _)| *begin).ok()?;
                Some(&all.get(place)?.1)
            }
        }
    }
}

/// Where the log-probabilities of one capture are: files of shards beside it; and what stands in its rows, packed as it is read.
#[derive(Debug)]
pub(crate) struct Shelf {
    source: PathBuf,
    files: Vec<Shards>,
    filling: Option<Writer<Held>>,
    /// The shard that was looked at last, and where it is.
    opened: Mutex<Option<(usize, u64, Arc<Shard>)>>,
}

/// An answer on a [`Shelf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    file: usize,
    spot: Spot,
}

/// An answer whose shard is open.
#[derive(Debug)]
pub(crate) struct Found<'shelf> {
    shelf: &'shelf Shelf,
    place: Place,
    shard: Arc<Shard>,
    bytes: &'shelf [u8],
}

impl Shelf {
    /// Of the capture `source`. Files are opened when a row names them.
    pub(crate) fn of(source: &Path) -> Self {
        Self { source: source.to_owned(), files: Vec::new(), filling: None, opened: Mutex::new(None) }
    }

    /// Takes the log-probabilities out of `row`; says of each of its answers where they are, where there are any.
    pub(crate) fn take(&mut self, row: &mut Row) -> Result<Vec<Option<Place>>, DistillError> {
        let inline = std::mem::take(&mut row.logprobs);
        let there = |spot: &Spot| spot.places > 0;
        if let Some(told) = row.told.take() {
            let file = self.file(&told.file)?;
            return Ok(told.answers.into_iter().map(|spot| there(&spot).then_some(Place { file, spot })).collect());
        }
        if inline.is_empty() {
            return Ok(Vec::new());
        }
        // What is packed now comes after all files: they may yet be opened, so it has a number of its own.
        let filling = self.filling.get_or_insert_with(|| Writer::new(Held::default()));
        let mut places = Vec::with_capacity(inline.len());
        for tokens in inline {
            let spot = filling.add(&tokens).map_err(DistillError::read(&self.source))?;
            places.push(there(&spot).then_some(Place { file: usize::MAX, spot }));
        }
        Ok(places)
    }

    /// Nothing more is taken: what was is there to be looked at.
    pub(crate) fn end(&mut self) -> Result<(), DistillError> {
        if let Some(filling) = self.filling.take() {
            let (held, _) = filling.end().map_err(DistillError::read(&self.source))?;
            self.files.push(Shards::Held(held));
        }
        Ok(())
    }

    /// Puts the log-probabilities of `row` into it, where a file holds them.
    pub(crate) fn fill(&mut self, row: &mut Row) -> Result<(), DistillError> {
        let Some(told) = row.told.take() else { return Ok(()) };
        let file = self.file(&told.file)?;
        row.logprobs = Vec::with_capacity(told.answers.len());
        for spot in told.answers.into_iter().map(|spot| Place { file, spot }) {
            let tokens = if spot.spot.places == 0 { Vec::new() } else { owned(&self.find(spot)?.tokens()?) };
            row.logprobs.push(tokens);
        }
        Ok(())
    }

    /// The answer at `place`.
    pub(crate) fn find(&self, place: Place) -> Result<Found<'_>, DistillError> {
        let Place { file, spot } = place;
        let file = file.min(self.files.len().saturating_sub(1));
        let bytes = self.files.get(file).and_then(|file| file.from(spot.shard));
        let bytes = bytes.ok_or_else(|| self.damaged(file, spot))?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = match &*opened {
            Some((own, at, shard)) if (*own, *at) == (file, spot.shard) => Arc::clone(shard),
            _ => {
                let shard = Arc::new(Shard::open(bytes).ok_or_else(|| self.damaged(file, spot))?);
                *opened = Some((file, spot.shard, Arc::clone(&shard)));
                shard
            }
        };
        if shard.places(spot.answer) != Some(spot.places) {
            return Err(self.damaged(file, spot));
        }
        Ok(Found { shelf: self, place, shard, bytes })
    }

    /// Opens the file of shards that is named by `name`.
    fn file(&mut self, name: &str) -> Result<usize, DistillError> {
        let same = |file: &Shards| matches!(file, Shards::Mapped { name: own, .. } if own == name);
        if let Some(place) = self.files.iter().position(same) {
            return Ok(place);
        }
        let path = find(&self.source, name)?;
        let bytes = File::open(&path).and_then(|file| map(&file)).map_err(DistillError::read(&path))?;
        self.files.push(Shards::Mapped { path, name: name.to_owned(), bytes });
        Ok(self.files.len() - 1)
    }

    fn damaged(&self, file: usize, spot: Spot) -> DistillError {
        let path = match self.files.get(file) {
            Some(Shards::Mapped { path, .. }) => path.clone(),
            _ => self.source.clone(),
        };
        DistillError::Told {
            code: "told_damaged",
            path,
            problem: format!("the shard at byte {} is damaged, or is not the one that the capture means", spot.shard),
            hint: "copy the file anew from where it was made; without `told` in its rows the capture is one of texts alone"
                .to_owned(),
        }
    }
}

impl Found<'_> {
    pub(crate) fn tokens(&self) -> Result<Vec<Token<&[u8]>>, DistillError> {
        let damaged = || self.shelf.damaged(self.place.file, self.place.spot);
        self.shard.answer(self.bytes, self.place.spot.answer).ok_or_else(damaged)
    }
}

fn owned(tokens: &[Token<&[u8]>]) -> Vec<Token> {
    let token = |token: &Token<&[u8]>| Token {
        bytes: token.bytes.to_vec().into(),
        logprob: token.logprob,
        top: token.top.iter().map(|(bytes, logprob)| (bytes.to_vec().into(), *logprob)).collect(),
    };
    tokens.iter().map(token).collect()
}

/// The file of shards that the rows of `source` name: the capture's own, or one of the same bytes beside it, since captures are renamed.
pub(super) fn find(source: &Path, name: &str) -> Result<PathBuf, DistillError> {
    let missing = |path: PathBuf| DistillError::Told {
        code: "told_missing",
        path,
        problem: format!("`{name}` names the log-probabilities of `{}`, and is not there", source.display()),
        hint: "the log-probabilities of a capture are in a file beside it: copy both".to_owned(),
    };
    if !is_name(name) {
        return Err(missing(source.to_owned()));
    }
    let own = path(source, name);
    if own.exists() {
        return Ok(own);
    }
    let ending = format!(".{name}.told");
    let mut files = std::fs::read_dir(folder(source)).into_iter().flatten().flatten();
    let other = files.find(|file| file.file_name().to_string_lossy().ends_with(&ending));
    other.map(|file| file.path()).ok_or_else(|| missing(own))
}

pub(super) fn folder(source: &Path) -> &Path {
    source.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where the file of shards is that `source` calls its own.
pub(super) fn path(source: &Path, name: &str) -> PathBuf {
    source.with_added_extension(format!("{name}.told"))
}

/// Is it a name that this crate gives? Nothing else is looked for.
pub(super) fn is_name(name: &str) -> bool {
    name.len() == NAME && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
