use std::io;
use std::path::{Path, PathBuf};

use anbiq_lm::LmError;
use anbiq_model::ModelError;

use crate::terms::Refusal;

/// Why no student came of it.
#[derive(Debug, thiserror::Error)]
pub enum DistillError {
    /// The recipe is not one.
    #[error("`{path}` is not a usable recipe: {problem}")]
    Recipe {
        /// Which file.
        path: PathBuf,
        /// What is wrong; for bad TOML with line and column.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} `{path}`: {source}")]
    File {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line of a data file, or the whole of another file, is not what it should be.
    #[error("`{path}`, line {line}: {problem}")]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Another program writes the same capture: both would pay for every answer.
    #[error("another program is asking for the answers of `{0}`")]
    Taken(PathBuf),
    /// The teacher's terms do not permit this student.
    #[error(transparent)]
    Terms(#[from] Refusal),
    /// There is nothing to train on.
    #[error("{0}")]
    Nothing(String),
    /// What would be trained on would not make a student that stops, or cannot be had of this teacher.
    #[error("{problem}\nhint: {hint}")]
    Unready {
        /// `stop_token_missing`, `stop_token_differs`, `end_token_unlikely` or `hidden_states_unmatched`.
        code: &'static str,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A file of log-probabilities is not what the capture beside it says.
    #[error("`{path}`: {problem}\nhint: {hint}")]
    Told {
        /// `told_missing` or `told_damaged`.
        code: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// The teacher does not answer.
    #[error("the teacher failed: {0}")]
    Teacher(#[from] ModelError),
    /// A model folder cannot be used, or training was set up wrongly.
    #[error(transparent)]
    Model(#[from] LmError),
    /// A part of the work ended in a way that it should not.
    #[error("the work was interrupted: {0}")]
    Interrupted(String),
}

impl DistillError {
    /// A stable name of what happened, such as `terms_refused`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Recipe { .. } => "recipe_invalid",
            Self::File { .. } => "file_failed",
            Self::Row { .. } => "row_invalid",
            Self::Taken(_) => "capture_taken",
            Self::Terms(refusal) => refusal.code(),
            Self::Nothing(_) => "nothing_to_train_on",
            Self::Unready { code, .. } | Self::Told { code, .. } => code,
            Self::Teacher(error) => error.code,
            Self::Model(error) => error.code(),
            Self::Interrupted(_) => "interrupted",
        }
    }

    /// May the same recipe succeed later as it is? What was captured and trained so far is kept either way.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Teacher(error) => error.retryable(),
            Self::Interrupted(_) | Self::Taken(_) => true,
            _ => false,
        }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { action: "read", path, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { action: "write", path, source }
    }
}
