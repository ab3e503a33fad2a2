use anbiq_journal::{JournalError, SpoolError, TextsError};
use anbiq_ledger::LedgerError;

/// A change that was not made, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The ledger refused; nothing was changed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The key of an account's sealed texts cannot be destroyed.
    #[error(transparent)]
    Texts(#[from] TextsError),
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

impl DeskError {
    /// A stable name of what happened.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ledger(error) => error.code(),
            Self::Texts(error) => error.code(),
            Self::Unjournalled { .. } => "not_journalled",
        }
    }

    /// May another try succeed without anybody acting?
    pub fn retryable(&self) -> bool {
        match self {
            Self::Ledger(error) => error.retryable(),
            Self::Texts(_) | Self::Unjournalled { .. } => false,
        }
    }
}
