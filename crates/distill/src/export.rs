//! A finished student, or any model that loads, in other forms.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anbiq_lm::gguf::{self, Storage};
use anbiq_lm::{Codec, Dtype, Network};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::DistillError;

/// A form in which a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Format {
    /// A Hugging Face folder, with numbers of this type.
    Folder(Dtype),
    /// One file for llama.cpp.
    Gguf(Storage),
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Folder(Dtype::F32),
        Self::Folder(Dtype::F16),
        Self::Folder(Dtype::Bf16),
        Self::Gguf(Storage::F32),
        Self::Gguf(Storage::F16),
        Self::Gguf(Storage::Q8_0),
    ];

    /// Its name in recipes and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Folder(Dtype::F32) => "hf-f32",
            Self::Folder(Dtype::F16) => "hf-f16",
            Self::Folder(Dtype::Bf16) => "hf-bf16",
            Self::Gguf(Storage::F32) => "gguf-f32",
            Self::Gguf(Storage::F16) => "gguf-f16",
            Self::Gguf(Storage::Q8_0) => "gguf-q8_0",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|format| format.word() == word);
        known.ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.into_iter().map(Self::word).collect();
            format!("`{word}` is not a form of a model; there are {}", words.join(", "))
        })
    }
}

impl TryFrom<String> for Format {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        word.parse()
    }
}

impl From<Format> for String {
    fn from(format: Format) -> Self {
        format.word().to_owned()
    }
}

/// Files that go with a student and say under which terms it may be used.
const PAPERS: [&str; 2] = ["README.md", "report.json"];

/// Writes the model `from`, a Hugging Face folder or a file `*.gguf`, as `to` in the form `format`.
///
/// What the terms ask of a student goes with it: a folder gets the card and the report of the one it is made from, a
/// file the student's name and its card as the texts `general.name` and `general.description`.
///
/// # Errors
///
/// The model cannot be read, cannot be said in that form (the error names what), or cannot be written.
pub fn export(from: &Path, format: Format, to: &Path) -> Result<(), DistillError> {
    let network = Network::load(from)?;
    let codec = Codec::load(from)?;
    match format {
        Format::Folder(dtype) => {
            network.save(to, dtype)?;
            codec.save(to)?;
            for paper in PAPERS {
                let (from, to) = (from.join(paper), to.join(paper));
                if from.exists() && from != to {
                    fs::copy(&from, &to).map_err(DistillError::write(&to))?;
                }
            }
        }
        Format::Gguf(storage) => {
            let card = fs::read_to_string(from.join(PAPERS[0])).ok();
            let name = name(from);
            let mut about = vec![("general.name", name.as_str())];
            about.extend(card.as_deref().map(|card| ("general.description", card)));
            gguf::write(to, &network, &codec, storage, &about)?;
        }
    }
    Ok(())
}

/// Where a student in the folder `out` is written in the form `format`.
pub(crate) fn place(out: &Path, name: &str, format: Format) -> PathBuf {
    match format {
        Format::Folder(_) => out.join(format.word()),
        Format::Gguf(storage) => {
            let word = Format::Gguf(storage).word();
            let plain: String =
                name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
            out.join(format!("{plain}.{}.gguf", word.trim_start_matches("gguf-")))
        }
    }
}

/// The name of a model: what its report says, or else that of its file or folder.
fn name(from: &Path) -> String {
    let report = fs::read(from.join(PAPERS[1])).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let said = report.and_then(|report| report["student"].as_str().map(str::to_owned));
    said.unwrap_or_else(|| from.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default())
}
