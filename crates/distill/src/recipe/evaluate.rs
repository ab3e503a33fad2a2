//! What is measured at the end.

use std::path::PathBuf;

use anbiq_domain::Money;
use serde::{Deserialize, Serialize};

/// What to measure at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluatePart {
    /// Documents that nobody was trained on.
    pub held_out: Option<PathBuf>,
    /// Use only so many of them.
    pub most_held_out: usize,
    /// Tasks with one right answer.
    pub tasks: Option<PathBuf>,
    /// Use only so many of them.
    pub most_tasks: usize,
    /// Longest answer to a task, in tokens.
    pub max_tokens: u32,
    /// Let a teacher behind `[capture.ask]` answer the tasks too, where its weights are not at hand. That counts against the
    /// capture's ceiling.
    pub teacher: bool,
    /// Share of the capture's prompts that is kept from training to measure on.
    pub capture_share: f64,
    /// Compare with a student that saw the corpus instead of the answers, for equally many tokens.
    pub scratch: bool,
    /// Compare with the student as it was before it saw an answer, where it was trained before.
    pub base: bool,
    /// Compare with a student that learnt from these labels alone: documents with their answers, from no teacher.
    pub labels: Option<PathBuf>,
    /// How often the labels are read; as often as the answers are where absent.
    pub label_epochs: Option<u32>,
    /// What an hour of a processor of this machine costs, to price the students' answers.
    pub cpu_hour: Option<Money>,
}

impl Default for EvaluatePart {
    fn default() -> Self {
        Self {
            held_out: None,
            most_held_out: 200,
            tasks: None,
            most_tasks: 200,
            max_tokens: 64,
            teacher: true,
            capture_share: 0.05,
            scratch: true,
            base: true,
            labels: None,
            label_epochs: None,
            cpu_hour: None,
        }
    }
}

impl EvaluatePart {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if !(0.0..=0.5).contains(&self.capture_share) {
            return Err("`[evaluate]`: `capture_share` must lie between 0 and 0.5");
        }
        Ok(())
    }
}
