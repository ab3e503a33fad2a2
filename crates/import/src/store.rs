//! The folder that an import leaves: a manifest, and rows as compressed JSON lines.
//!
//! It is no journal. Nobody signed it, and a digest says only that the rows are those that were written. The manifest is
//! written last, so a folder that has one is complete.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anbiq_domain::{Digest, DigestBuilder, Imported, ImportedExchange, Keyed, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ImportError;
use crate::read::{BadRow, SourceReport};

/// The manifest's file in the folder.
pub const MANIFEST: &str = "import.json";
/// The file of the rows.
const ROWS: &str = "rows.jsonl.zst";
/// The level of compression: further ones cost more than they save.
const LEVEL: i32 = 3;

/// What an import holds and what it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this shape.
    pub format: u32,
    /// Which key its hashes are under, as a hash of that key.
    pub key: Keyed,
    /// The logs that were read.
    pub sources: Vec<SourceReport>,
    /// The first rows that could not be used.
    pub bad: Vec<BadRow>,
    /// Accounts.
    pub accounts: u64,
    /// Accounts whose names cannot be ids, so that a keyed hash stands for them.
    pub renamed: u64,
    /// Requests that reached a model.
    pub exchanges: u64,
    /// Exchanges whose prompts were there and are sketched.
    pub sketched: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Time of the first request.
    pub first: Timestamp,
    /// Time of the last request.
    pub last: Timestamp,
    /// The rows' file.
    pub rows: RowsFile,
}

impl Manifest {
    /// Version of the present shape.
    pub const FORMAT: u32 = 1;
}

/// The file of the rows, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsFile {
    /// Rows in it.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 of them.
    pub digest: Digest,
}

/// Writes the rows of a new import.
pub(crate) struct Writer {
    folder: PathBuf,
    rows: u64,
    line: Vec<u8>,
    file: Option<zstd::Encoder<'static, Hashing<File>>>,
}

impl Writer {
    pub(crate) fn create(folder: &Path) -> Result<Self, ImportError> {
        if folder.exists() {
            return Err(ImportError::Exists { path: folder.to_owned() });
        }
        fs::create_dir_all(folder).map_err(ImportError::io("make", folder))?;
        let path = folder.join(ROWS);
        let file = File::create_new(&path).map_err(ImportError::io("write", &path))?;
        let file = zstd::Encoder::new(Hashing::new(file), LEVEL).map_err(ImportError::io("write", &path))?;
        Ok(Self { folder: folder.to_owned(), rows: 0, line: Vec::new(), file: Some(file) })
    }

    pub(crate) fn row(&mut self, row: &Imported) -> Result<(), ImportError> {
        self.rows += 1;
        self.line.clear();
        let failed = |source: io::Error| ImportError::Io { what: "write", path: self.folder.join(ROWS), source };
        serde_json::to_writer(&mut self.line, row).map_err(|error| failed(error.into()))?;
        self.line.push(b'\n');
        match &mut self.file {
            Some(file) => file.write_all(&self.line).map_err(failed),
            None => Ok(()),
        }
    }

    /// Ends the rows' file; they are durable then.
    pub(crate) fn seal(&mut self) -> Result<RowsFile, ImportError> {
        let path = self.folder.join(ROWS);
        let failed = || ImportError::io("write", &path);
        let Some(file) = self.file.take() else {
            return Err(failed()(io::Error::other("it was ended before")));
        };
        let hashing = file.finish().map_err(failed())?;
        hashing.inner.sync_all().map_err(failed())?;
        Ok(RowsFile { rows: self.rows, bytes: hashing.bytes, digest: hashing.digest.finish() })
    }

    /// Writes the manifest, which makes the import whole.
    pub(crate) fn finish(self, manifest: &Manifest) -> Result<(), ImportError> {
        let (part, path) = (self.folder.join("import.json.part"), self.folder.join(MANIFEST));
        let written = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            serde_json::to_writer_pretty(&mut file, manifest)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        written().map_err(ImportError::io("write", &path))
    }

    /// Removes what was written, as far as that is possible.
    pub(crate) fn abandon(self) {
        let _ = fs::remove_file(self.folder.join(ROWS));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Counts and hashes what passes.
struct Hashing<I> {
    inner: I,
    bytes: u64,
    digest: DigestBuilder,
}

impl<I> Hashing<I> {
    fn new(inner: I) -> Self {
        Self { inner, bytes: 0, digest: DigestBuilder::default() }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.note(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.note(&buffer[..read]);
        Ok(read)
    }
}

/// A finished import.
#[derive(Debug)]
pub struct Import {
    folder: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
}

impl Import {
    /// Does `folder` hold an import rather than a journal?
    pub fn is_at(folder: &Path) -> bool {
        folder.join(MANIFEST).is_file()
    }

    /// Opens finished imports, all under one key.
    ///
    /// # Errors
    /// One of them is no finished import, or was made under another key than the first.
    pub fn open_all(folders: &[PathBuf]) -> Result<Vec<Self>, ImportError> {
        let imports = folders.iter().map(|folder| Self::open(folder)).collect::<Result<Vec<_>, _>>()?;
        let differs = |import: &&Self| import.manifest.key != imports[0].manifest.key;
        match imports.iter().find(differs) {
            Some(other) => Err(ImportError::KeysDiffer { path: other.folder.clone() }),
            None => Ok(imports),
        }
    }

    fn open(folder: &Path) -> Result<Self, ImportError> {
        let none = |reason: String| ImportError::NotImported { path: folder.to_owned(), reason };
        let text = fs::read(folder.join(MANIFEST)).map_err(|error| none(format!("`{MANIFEST}`: {error}")))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| none(format!("`{MANIFEST}`: {error}")))?;
        if manifest.format != Manifest::FORMAT {
            return Err(none(format!("its format is {}, known is {}", manifest.format, Manifest::FORMAT)));
        }
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Its rows. After the last one they are compared with the manifest, so whoever reads to the end has read what was
    /// written, or an error.
    ///
    /// # Errors
    /// The rows cannot be opened.
    pub fn rows(&self) -> Result<ImportedRows, ImportError> {
        let path = self.folder.join(ROWS);
        let failed = || ImportError::io("read", &path);
        let file = BufReader::with_capacity(1 << 16, Hashing::new(File::open(&path).map_err(failed())?));
        let lines = BufReader::with_capacity(1 << 16, zstd::Decoder::with_buffer(file).map_err(failed())?);
        let (folder, expected) = (self.folder.clone(), self.manifest.rows);
        Ok(ImportedRows { folder, expected, lines: Some(lines), line: Vec::new(), rows: 0 })
    }
}

/// The rows of an import, in the order in which they were written.
pub struct ImportedRows {
    folder: PathBuf,
    expected: RowsFile,
    lines: Option<BufReader<zstd::Decoder<'static, BufReader<Hashing<File>>>>>,
    line: Vec<u8>,
    rows: u64,
}

impl std::fmt::Debug for ImportedRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportedRows").field("folder", &self.folder).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl ImportedRows {
    fn read(&mut self) -> Result<Option<Imported>, ImportError> {
        let changed = |reason: String| ImportError::Changed { path: self.folder.clone(), reason };
        let Some(lines) = &mut self.lines else { return Ok(None) };
        self.line.clear();
        let read = lines.read_until(b'\n', &mut self.line).map_err(|error| changed(error.to_string()))?;
        if read > 0 {
            self.rows += 1;
            return parse(&self.line).map(Some).map_err(|error| changed(error.to_string()));
        }
        let Some(lines) = self.lines.take() else { return Ok(None) };
        let mut file = lines.into_inner().finish();
        // What stands behind the end of the compressed rows belongs to the file as well.
        io::copy(&mut file, &mut io::sink()).map_err(|error| changed(error.to_string()))?;
        let hashing = file.into_inner();
        let found = RowsFile { rows: self.rows, bytes: hashing.bytes, digest: hashing.digest.finish() };
        if found == self.expected { Ok(None) } else { Err(changed("they are others than the manifest says".into())) }
    }
}

/// A row. Nearly all are exchanges, which say so at their beginning: these are read as what they are, which takes half as long as to
/// find out first what a row is.
fn parse(line: &[u8]) -> serde_json::Result<Imported> {
    if line.starts_with(br#"{"row":"exchange","#) {
        return serde_json::from_slice::<Box<ImportedExchange>>(line).map(Imported::Exchange);
    }
    serde_json::from_slice(line)
}

impl Iterator for ImportedRows {
    type Item = Result<Imported, ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            self.lines = None;
        }
        read.transpose()
    }
}

#[cfg(test)]
mod tests {
    use anbiq_domain::{AccountId, Money, RequestFacts, Sketch, Usage};

    use super::*;

    #[test]
    fn a_row_is_read_alike_whatever_it_is_taken_for() {
        let account = || AccountId::new("a-1").unwrap();
        let sketch = Sketch { exact: Keyed(1), opening: Keyed(2), minhash: [3; 32], words: 4, flags: 5 };
        let bare = ImportedExchange {
            at: Timestamp::from_milliseconds(1_772_409_600_123),
            account: account(),
            model: None,
            request: None,
            address: None,
            network: None,
            agent: None,
            sketch: None,
            usage: None,
            cost: None,
            failed: false,
        };
        let full = ImportedExchange {
            model: Some("m \"1\" \u{e9}".into()),
            request: Some(RequestFacts { temperature: 0.7, max_tokens: 9, n: 1, ..RequestFacts::default() }),
            address: Some(Keyed(u64::MAX)),
            network: Some(Keyed(0)),
            agent: Some(Keyed(7)),
            sketch: Some(sketch),
            usage: Some(Usage { prompt_tokens: 1, completion_tokens: u64::MAX, ..Usage::default() }),
            cost: Some(Money::from_nanos(-5)),
            failed: true,
            ..bare.clone()
        };
        let rows = [
            Imported::Exchange(Box::new(bare)),
            Imported::Exchange(Box::new(full)),
            Imported::Refused { at: Timestamp::from_milliseconds(5), account: account() },
            Imported::Account { account: account(), opened: None, payment: Some(Keyed(3)) },
        ];
        for row in rows {
            let line = serde_json::to_vec(&row).unwrap();
            assert_eq!(parse(&line).unwrap(), row);
            assert_eq!(serde_json::from_slice::<Imported>(&line).unwrap(), row);
            assert!(parse(&line[..line.len() - 1]).is_err());
        }
        assert!(parse(br#"{"row":"exchange","at":"now"}"#).is_err());
    }
}
