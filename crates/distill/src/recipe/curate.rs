//! What is left out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::curate::{Language, Script};

/// Which answers are left out. Empty ones always are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CuratePart {
    /// Keep answers that were cut off at their largest length.
    pub keep_truncated: bool,
    /// Keep an answer that was given to the same prompt before.
    pub keep_duplicates: bool,
    /// The fewest words of an answer.
    pub least_words: Option<usize>,
    /// The most words of an answer.
    pub most_words: Option<usize>,
    /// The script of which nine tenths of an answer's letters must be.
    pub script: Option<Script>,
    /// The language that answers are in (`eng`, `fra`, `arb`...); those that are surely in another are left out.
    pub language: Option<Language>,
    /// A regular expression that each answer must match somewhere.
    pub matches: Option<String>,
    /// A regular expression that no answer may match anywhere.
    pub lacks: Option<String>,
    /// Leave out answers that begin by declining, in English.
    pub drop_refusals: bool,
    /// A schema of JSON (a file) that each answer must fit.
    pub json_schema: Option<PathBuf>,
    /// Tasks with one right answer (a file of [`crate::data::Document`]s): other answers to their prompts are left out.
    pub expected: Option<PathBuf>,
    /// Keep prompts of whose answers a share from the first to the second of these numbers is wrong, by `expected`: what is never wrong is too easy,
    /// what always is too hard. Prompts without a right answer are kept.
    pub difficulty: Option<[f64; 2]>,
    /// Leave out prompts and answers that have so many words in a row in common with what `[evaluate]` measures on.
    pub contamination: Option<usize>,
    /// Leave out an answer of whose pairs of words this share (a Jaccard index) stands in an earlier one.
    pub near_duplicates: Option<f64>,
}

impl CuratePart {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.near_duplicates.is_some_and(|least| !(least > 0.0 && least <= 1.0)) {
            return Err("`[curate]`: `near_duplicates` must lie above 0 and be at most 1".to_owned());
        }
        for pattern in [&self.matches, &self.lacks].into_iter().flatten() {
            regex::Regex::new(pattern).map_err(|error| format!("`[curate]`: {error}"))?;
        }
        if let Some([least, most]) = self.difficulty {
            if !(0.0 <= least && least <= most && most <= 1.0) {
                return Err("`[curate]`: `difficulty` is two shares of wrong answers, the smaller one first".to_owned());
            }
            if self.expected.is_none() {
                return Err("`[curate]`: `difficulty` needs `expected`, the right answers".to_owned());
            }
        }
        if self.contamination == Some(0) {
            return Err("`[curate]`: `contamination` is at least 1 word".to_owned());
        }
        Ok(())
    }
}
