//! The student, what it learns its language from, and in which forms it is written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Format;

/// Documents to learn the language from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusPart {
    /// The file, one [`crate::data::Document`] a line.
    pub path: PathBuf,
    /// Use only so many tokens of it.
    pub tokens: Option<u64>,
}

/// The student: its shape, or the folder of a model to start from, as it is or cut in depth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentPart {
    /// Its name.
    pub name: String,
    /// A Hugging Face folder to start from; its shape and tokenizer are taken too.
    pub init: Option<PathBuf>,
    /// The folder of the tokenizer, for a student that starts from nothing.
    pub tokenizer: Option<PathBuf>,
    /// Width of the residual stream.
    pub hidden_size: Option<usize>,
    /// Layers. With `init` only so many of its layers are kept: the first and the last, and others evenly between.
    pub layers: Option<usize>,
    /// Query heads a layer.
    pub heads: Option<usize>,
    /// Key and value heads a layer; as many as query heads where absent.
    pub kv_heads: Option<usize>,
    /// Width of the feed-forward layers.
    pub intermediate_size: Option<usize>,
    /// Longest prompt and answer together, in tokens.
    #[serde(default = "default_context")]
    pub context: usize,
}

/// In which forms to write the student beside its Hugging Face folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportPart {
    /// `gguf-f16` and its like are files in the folder `out`, `hf-bf16` and its like folders in it.
    pub formats: Vec<Format>,
}

impl StudentPart {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let wide = [self.hidden_size, self.heads, self.intermediate_size];
        let is_some = |number: Option<usize>| number.is_some_and(|number| number > 0);
        match (&self.init, &self.tokenizer) {
            (Some(_), None)
                if wide.iter().all(Option::is_none) && self.kv_heads.is_none() && self.layers != Some(0) => {}
            (None, Some(_)) if wide.into_iter().chain([self.layers]).all(is_some) => {}
            (Some(_), _) => {
                return Err("`[student]`: give `init` alone, or with the number of `layers` to keep");
            }
            _ => {
                return Err("`[student]`: give either `init`, or `tokenizer`, `hidden_size`, `layers`, `heads` and \
                     `intermediate_size`");
            }
        }
        if let (Some(hidden), Some(heads)) = (self.hidden_size, self.heads)
            && hidden % heads != 0
        {
            return Err("`[student]`: `hidden_size` must be a multiple of `heads`");
        }
        if self.context < 8 {
            return Err("`[student]`: `context` must be at least 8 tokens");
        }
        Ok(())
    }
}

const fn default_context() -> usize {
    256
}
