use std::path::PathBuf;

/// Something that kept the contest from taking place.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// A file of real texts cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Rows cannot be put by.
    #[error("cannot write `{}`: {source}", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of a file of real texts is not what it should be.
    #[error("line {line} of `{}` is no prompt: {source}", path.display())]
    Prompt {
        /// Of which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A name cannot be an id.
    #[error(transparent)]
    Id(#[from] anbiq_domain::IdError),
    /// Arrival times cannot be read.
    #[error(transparent)]
    Arrivals(#[from] anbiq_lab::LabError),
}

impl ArenaError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "file_unreadable",
            Self::Keep { .. } => "file_unwritable",
            Self::Prompt { .. } => "prompt_malformed",
            Self::Id(_) => "id_invalid",
            Self::Arrivals(error) => error.code(),
        }
    }
}
