//! Entries that wait for the journal.
//!
//! A journal has one writer. While a gateway runs, another program that opens an account or gives a grant cannot
//! append; it leaves the entry in the spool, a folder of small files, and the gateway takes it in within a second.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anbiq_domain::Entry;

use crate::{Journal, JournalError};

/// Most entries that may wait; more of them mean that no gateway takes them in.
const MOST: usize = 10_000;

/// A folder of entries that wait for the journal.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
}

/// Why the spool did not take or give an entry.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder cannot be read or written.
    #[error("cannot use the spool `{path}`")]
    Folder {
        /// The file or folder.
        path: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// Too many entries wait.
    #[error("more than {MOST} entries wait in the spool `{0}`: no gateway takes them in")]
    Full(String),
    /// A file is no entry.
    #[error("`{path}` in the spool is no journal entry")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The journal did not take an entry; it waits on.
    #[error("the journal did not take an entry from the spool")]
    Journal(#[from] JournalError),
}

impl Spool {
    /// The spool in `folder`, which is made when it is first needed.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Leaves `entry` for the gateway; it is on disk when this returns.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or [`SpoolError::Full`].
    pub fn leave(&self, entry: &Entry) -> Result<(), SpoolError> {
        fs::create_dir_all(&self.folder).map_err(|source| failed(&self.folder, source))?;
        let waiting = self.waiting()?.len();
        if waiting >= MOST {
            return Err(SpoolError::Full(self.folder.display().to_string()));
        }
        // Names sort by time, then by number, so that entries are taken in the order in which they were left.
        let stem = format!("{:016}-{waiting:06}-{}", entry.at().milliseconds(), std::process::id());
        let (draft, last) = (self.folder.join(format!("{stem}.draft")), self.folder.join(format!("{stem}.json")));
        let write = || {
            let mut file = File::create_new(&draft)?;
            file.write_all(serde_json::to_string(entry)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &last)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| failed(&last, source))
    }

    /// Appends all waiting entries to `journal`, oldest first, and says how many.
    ///
    /// An entry leaves the spool only after the journal has it; after a crash in between it is journalled twice,
    /// which changes nothing that it says.
    ///
    /// # Errors
    ///
    /// The folder cannot be read, a file is damaged, or the journal refuses; entries before it were taken.
    pub async fn drain(&self, journal: &Journal) -> Result<u64, SpoolError> {
        let mut taken = 0;
        for path in self.waiting()? {
            let text = fs::read_to_string(&path).map_err(|source| failed(&path, source))?;
            let entry: Entry = serde_json::from_str(&text)
                .map_err(|source| SpoolError::Damaged { path: path.display().to_string(), source })?;
            journal.append(&entry).await?;
            fs::remove_file(&path).map_err(|source| failed(&path, source))?;
            taken += 1;
        }
        Ok(taken)
    }

    fn waiting(&self) -> Result<Vec<PathBuf>, SpoolError> {
        let listing = match fs::read_dir(&self.folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(&self.folder, source)),
        };
        let mut paths = Vec::new();
        for item in listing {
            let path = item.map_err(|source| failed(&self.folder, source))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

fn failed(path: &Path, source: io::Error) -> SpoolError {
    SpoolError::Folder { path: path.display().to_string(), source }
}
