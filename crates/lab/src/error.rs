use std::path::{Path, PathBuf};

/// Something that went wrong in the laboratory.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The local engine refused a model or a sequence.
    #[error(transparent)]
    Engine(#[from] anbiq_lm::LmError),
    /// A name cannot be an id.
    #[error(transparent)]
    Id(#[from] anbiq_domain::IdError),
    /// A server cannot be called at all.
    #[error(transparent)]
    Client(#[from] anbiq_upstream::client::ClientError),
    /// A load cannot be put on a server: its address or its key cannot stand in a request.
    #[error("`{0}` cannot stand in a request")]
    Address(String),
    /// An account of a world has no key to call with.
    #[error("there is no key for the account `{account}`")]
    NoKey {
        /// Which account.
        account: anbiq_domain::AccountId,
    },
    /// A model did not answer.
    #[error(transparent)]
    Model(#[from] anbiq_model::ModelError),
}

impl LabError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "file_unreadable",
            Self::Write { .. } => "file_unwritable",
            Self::Engine(_) => "engine_refused",
            Self::Id(_) => "id_invalid",
            Self::Client(_) => "server_unreachable",
            Self::Address(_) => "address_invalid",
            Self::NoKey { .. } => "no_key",
            Self::Model(error) => error.code,
        }
    }

    pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}
