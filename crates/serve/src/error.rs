use anbiq_domain::Digest;
use anbiq_journal::{JournalError, SpoolError};
use anbiq_ledger::LedgerError;

/// A gateway that cannot start or go on.
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
    /// Entries that wait in the spool cannot be taken into the journal.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Canaries that the journal knows nothing of.
    #[error(
        "the journal does not commit to the draw {0} of canaries, so nothing would show that it was made before it was served\n\
         hint: `anbiq trace canary draw --config FILE` draws and tells the journal"
    )]
    Canaries(Digest),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Listener(#[from] std::io::Error),
}

impl ServeError {
    /// A stable name of what happened.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config_invalid",
            Self::DuplicateModel(_) => "duplicate_model",
            Self::Ledger(error) => error.code(),
            Self::Journal(error) => error.code(),
            Self::Spool(_) => "spool_failed",
            Self::Canaries(_) => "canaries_not_committed",
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
