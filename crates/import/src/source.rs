//! The bytes of a log: opened, hashed, decompressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anbiq_domain::{Digest, DigestBuilder};
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::ImportError;
use crate::table::MAGIC;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 16;

/// How a log is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all, or inside: a Parquet file.
    None,
    /// gzip, one member or several.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A log on disk, being read.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) compression: Compression,
    /// Where it is, if it is a Parquet file, which is not read from its beginning to its end.
    pub(crate) table: Option<PathBuf>,
    reader: BufReader<Box<dyn Read + Send>>,
    counted: Arc<Mutex<Counted>>,
}

#[derive(Default)]
struct Counted {
    bytes: u64,
    digest: DigestBuilder,
}

impl Source {
    /// Opens `path`; how it is compressed is told from its first bytes.
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let file = File::open(path).map_err(ImportError::io("read", path))?;
        let mut raw = BufReader::with_capacity(BUFFER, file);
        let magic = raw.fill_buf().map_err(ImportError::io("read", path))?;
        let table = magic.starts_with(MAGIC).then(|| path.to_owned());
        let compression = match magic {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ => Compression::None,
        };
        let counted = Arc::new(Mutex::new(Counted::default()));
        let raw = Counting { inner: raw, counted: Arc::clone(&counted) };
        let plain: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => Box::new(MultiGzDecoder::new(raw)),
            Compression::Zstd => Box::new(zstd::Decoder::new(raw).map_err(ImportError::io("read", path))?),
        };
        Ok(Self { name: name_of(path), compression, table, reader: BufReader::with_capacity(BUFFER, plain), counted })
    }

    /// Bytes of the file that were read, and their digest: of all of it once the end was reached.
    pub(crate) fn counted(&self) -> (u64, Digest) {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        (counted.bytes, counted.digest.clone().finish())
    }

    /// Why the log cannot be read further, in words that are the same whatever library decompresses it.
    pub(crate) fn reason(&self, error: &io::Error) -> String {
        match self.compression {
            Compression::None => error.to_string(),
            Compression::Gzip => "its gzip data cannot be read further".to_owned(),
            Compression::Zstd => "its Zstandard data cannot be read further".to_owned(),
        }
    }

    /// Reads whatever is left of the file, so that its digest is of all of it.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.reader, &mut io::sink()).map(|_| ())
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

struct Counting {
    inner: BufReader<File>,
    counted: Arc<Mutex<Counted>>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.bytes += read as u64;
        counted.digest.update(&buffer[..read]);
        Ok(read)
    }
}

/// The last part of a path: where a log lies says nothing about it.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The files that `paths` name: each itself, or all files in it, by name.
///
/// # Errors
/// A folder cannot be read.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ImportError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in path.read_dir().map_err(ImportError::io("read", path))? {
            inside.push(entry.map_err(ImportError::io("read", path))?.path());
        }
        inside.sort();
        let hidden = |path: &PathBuf| name_of(path).starts_with('.');
        inside.retain(|path| !hidden(path));
        files.extend(self::files(&inside)?);
    }
    Ok(files)
}
