use anbiq_journal::{JournalError, TextsError};
use anbiq_ledger::LedgerError;

use crate::SpoolError;

/// A gateway that cannot start, or an administrator's change that was not made.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration makes no sense.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    /// Two models have the same name.
    #[error("two models are called `{0}`")]
    DuplicateModel(String),
    /// The ledger refused; nothing was changed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The journal did not take an entry that nothing else depends on.
    #[error("the journal cannot be written: {0}")]
    Journal(#[from] JournalError),
    /// The ledger has the change and the journal has not, so whoever reads the journal does not know of it.
    #[error("{change} is in the ledger but could not be journalled: {source}\nhint: {hint}")]
    Unjournalled {
        /// What was changed.
        change: String,
        /// What to do about it.
        hint: &'static str,
        /// Why it was not written down.
        source: Unwritten,
    },
    /// Entries that wait in the spool cannot be taken into the journal.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The key of an account's sealed texts cannot be destroyed.
    #[error(transparent)]
    Texts(#[from] TextsError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Listener(#[from] std::io::Error),
}

/// Why a change was not written down.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    /// The journal did not take it.
    #[error(transparent)]
    Journal(JournalError),
    /// The spool did not take it.
    #[error(transparent)]
    Spool(SpoolError),
}

impl ServeError {
    /// A stable name of what happened.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config_invalid",
            Self::DuplicateModel(_) => "duplicate_model",
            Self::Ledger(error) => error.code(),
            Self::Journal(error) => error.code(),
            Self::Texts(error) => error.code(),
            Self::Unjournalled { .. } => "not_journalled",
            Self::Spool(_) => "spool_failed",
            Self::Random => "no_random_bytes",
            Self::Listener(_) => "listener_failed",
        }
    }

    /// May another try succeed without anybody acting?
    pub fn retryable(&self) -> bool {
        match self {
            Self::Ledger(error) => error.retryable(),
            Self::Journal(error) => error.retryable(),
            _ => false,
        }
    }
}
