use std::io;
use std::path::{Path, PathBuf};

use anbiq_model::{Fault, ModelError};

/// What goes wrong with a model folder or with what is asked of a network.
///
/// None of these is cured by trying again: a file has to be mended or a request changed.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// A file cannot be read or written.
    #[error("cannot {action} `{path}`: {source}\nhint: {hint}")]
    File {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A file is not what it should be.
    #[error("`{path}` is not usable: {problem}\nhint: {hint}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// The folder holds a model that this engine would compute wrongly.
    #[error("`{path}` asks for {feature}, which this engine does not compute\nhint: {hint}")]
    Unsupported {
        /// Which file.
        path: PathBuf,
        /// What is not supported, with its value.
        feature: String,
        /// What to do.
        hint: &'static str,
    },
    /// A tensor is missing or of the wrong kind.
    #[error("tensor `{tensor}` in `{path}` {problem}\nhint: {hint}")]
    Tensor {
        /// Which tensor.
        tensor: String,
        /// In which file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// The model has something that a GGUF file cannot say, or that llama.cpp would compute otherwise.
    #[error("{feature} cannot be written as GGUF\nhint: {hint}")]
    Inexpressible {
        /// What.
        feature: String,
        /// What to do.
        hint: &'static str,
    },
    /// A sequence cannot be computed: it is empty, too long or holds an unknown token.
    #[error("sequence {index}: {problem}")]
    Sequence {
        /// Its place in the batch, from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A card is not there, has too little memory, or failed.
    #[error("device `{device}`: {problem}\nhint: {hint}")]
    Device {
        /// Its word in a recipe.
        device: &'static str,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// A setting makes no sense.
    #[error("setting `{name}`: {problem}")]
    Setting {
        /// Which.
        name: &'static str,
        /// Why not.
        problem: String,
    },
}

impl LmError {
    /// The stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "model_file_unreadable",
            Self::Malformed { .. } => "model_file_malformed",
            Self::Unsupported { .. } => "model_unsupported",
            Self::Tensor { .. } => "model_tensor_wrong",
            Self::Inexpressible { .. } => "gguf_inexpressible",
            Self::Sequence { .. } => "sequence_invalid",
            Self::Device { .. } => "device_unavailable",
            Self::Setting { .. } => "setting_invalid",
        }
    }

    #[cfg(not(feature = "cuda"))]
    pub(crate) fn not_built_in(device: &'static str) -> Self {
        let problem = "this program was built without it".to_owned();
        Self::Device { device, problem, hint: "build it with `--features cuda`, or train with device = \"cpu\"" }
    }

    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => {
                "a model folder holds config.json, tokenizer.json and model.safetensors (or its shards and index)"
            }
            io::ErrorKind::UnexpectedEof => "the file is shorter than it says: fetch or save it again",
            _ => "check the path and its permissions",
        };
        Self::File { action: "read", path: path.to_owned(), source, hint }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        let hint = "check that the folder exists, may be written to and has space left";
        Self::File { action: "write", path: path.to_owned(), source, hint }
    }

    pub(crate) fn malformed(path: &Path, problem: impl Into<String>, hint: &'static str) -> Self {
        Self::Malformed { path: path.to_owned(), problem: problem.into(), hint }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, problem: impl Into<String>, hint: &'static str) -> Self {
        Self::Tensor { tensor: tensor.to_owned(), path: path.to_owned(), problem: problem.into(), hint }
    }
}

impl From<LmError> for ModelError {
    fn from(error: LmError) -> Self {
        let fault = match error {
            LmError::Sequence { .. } => Fault::Request,
            _ => Fault::Setup,
        };
        Self::new(fault, error.code(), error.to_string())
    }
}
