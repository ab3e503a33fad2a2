use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who is to blame when the journal does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The entry cannot be journalled as it is.
    Request,
    /// Too much is asked of the disk now; a later try may succeed.
    Busy,
    /// The disk failed or is full.
    Disk,
    /// What lies on the disk is not what was written.
    Damage,
    /// This program is set up wrongly: a missing folder, a wrong key, another process at work.
    Setup,
}

/// Where in a journal something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the file.
    pub file: String,
    /// Byte in that file.
    pub offset: u64,
    /// Number of the record in the journal.
    pub index: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} at byte {} of `{}`", self.index, self.offset, self.file)
    }
}

/// What a journal cannot do, and why.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system says.
        source: Arc<std::io::Error>,
    },
    /// Another process writes this journal.
    #[error("another process is writing the journal `{}`\nhint: stop it first; reading needs no lock", .0.display())]
    Locked(PathBuf),
    /// There is a journal already.
    #[error("`{}` already holds a journal\nhint: open it instead, or choose another folder", .0.display())]
    Exists(PathBuf),
    /// There is no journal here.
    #[error("`{}` is not a journal: it has no readable `journal.json`: {why}", dir.display())]
    NotAJournal {
        /// Where.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A journal of another version.
    #[error(
        "`{}` is a journal of format {found}; this program reads and writes format {}\nhint: read it with the version of anbiq that wrote it",
        dir.display(),
        crate::FORMAT
    )]
    OtherFormat {
        /// Where.
        dir: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The signing key is not the journal's.
    #[error(
        "the journal is signed by {expected}, not by {found}\nhint: use the key file that the journal was created with"
    )]
    WrongKey {
        /// The public key in the journal, or the one asked for.
        expected: String,
        /// The one at hand.
        found: String,
    },
    /// A key file cannot be used.
    #[error("the key file `{}` cannot be used: {why}", path.display())]
    BadKey {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A record is damaged, or missing from the middle.
    #[error("the journal is damaged: {place}: {what}\nhint: restore it from a copy; nothing was changed")]
    Damaged {
        /// Where.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// A checkpoint is damaged, wrongly signed or does not match the records.
    #[error("checkpoint {number} does not hold: {what}")]
    BadCheckpoint {
        /// Which, counted from 0 in `checkpoints.log`.
        number: u64,
        /// What is wrong.
        what: String,
    },
    /// The list of sealed files is damaged or wrongly signed.
    #[error("`sealed.list` does not hold: {0}\nhint: restore it from a copy; nothing was changed")]
    BadList(&'static str),
    /// A signed note that cannot be read or that nobody known has signed.
    #[error("the signed note does not hold: {0}")]
    BadNote(&'static str),
    /// The entry is larger than a record may be.
    #[error("an entry of {size} bytes is too large for the journal: the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The entry's JSON could not be read back.
    #[error("an entry could not be read back from its JSON: {0}")]
    Unreadable(String),
    /// The queue is full and did not empty in time. Nothing was written.
    #[error("the journal's queue stayed full for {0} ms")]
    Busy(u64),
    /// The disk did not answer in time. The entry may or may not be in the journal.
    #[error("the journal did not answer within {0} ms; whether the entry was written is not known")]
    TimedOut(u64),
    /// After a failed fsync or a failed truncation nobody knows what is on the disk: nothing more is written.
    #[error("the journal accepts no more entries: {0}\nhint: repair the disk and open the journal again")]
    Poisoned(String),
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source: Arc::new(source) }
    }

    /// A stable name of what happened.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if is_full(source) => "journal_disk_full",
            Self::Io { .. } => "journal_io",
            Self::Locked(_) => "journal_locked",
            Self::Exists(_) => "journal_exists",
            Self::NotAJournal { .. } => "journal_missing",
            Self::OtherFormat { .. } => "journal_other_format",
            Self::WrongKey { .. } => "journal_wrong_key",
            Self::BadKey { .. } => "journal_bad_key",
            Self::Damaged { .. } => "journal_damaged",
            Self::BadCheckpoint { .. } | Self::BadNote(_) => "journal_bad_checkpoint",
            Self::BadList(_) => "journal_bad_list",
            Self::TooLarge { .. } => "entry_too_large",
            Self::Unreadable(_) => "entry_unreadable",
            Self::Busy(_) => "journal_busy",
            Self::TimedOut(_) => "journal_timed_out",
            Self::Poisoned(_) => "journal_poisoned",
            Self::Closed => "journal_closed",
        }
    }

    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } | Self::TimedOut(_) | Self::Poisoned(_) => Fault::Disk,
            Self::Busy(_) => Fault::Busy,
            Self::Damaged { .. } | Self::BadCheckpoint { .. } | Self::BadNote(_) | Self::BadList(_) => Fault::Damage,
            Self::TooLarge { .. } | Self::Unreadable(_) => Fault::Request,
            _ => Fault::Setup,
        }
    }

    /// Is another try of use? A full disk may be emptied and a full queue empties itself. A timed-out entry must not
    /// be sent again: it may be in the journal already.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Busy(_))
    }
}

/// Is there no room for more, on the disk or for this user or in this file?
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
