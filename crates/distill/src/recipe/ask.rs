//! Whose answers are learnt from, and how they are asked for.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use anbiq_domain::{AccountId, Money, PriceList};
use anbiq_lm::Precision;
use serde::{Deserialize, Serialize};

/// Whose answers are learnt from, and by what right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherPart {
    /// Its name.
    pub name: String,
    /// Its terms, as a JSON file. Absent: not known.
    pub terms: Option<PathBuf>,
    /// The account that holds the grant.
    pub account: Option<AccountId>,
    /// A grant, as a JSON file.
    pub grant: Option<PathBuf>,
    /// A written permission; its hash goes into the student's card.
    pub permission: Option<PathBuf>,
    /// By what right, in words, where the terms do not say. `none: <why>` trains against the terms, and says so in the
    /// card and in the report.
    pub basis: Option<String>,
    /// What it costs, per million tokens.
    pub prices: Option<PriceList>,
    /// Its weights, where they are at hand: a Hugging Face folder to compare the student with.
    pub folder: Option<PathBuf>,
    /// How its weights are held while it answers from them.
    #[serde(default)]
    pub weights: Precision,
}

/// The answers of the teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturePart {
    /// The file of answers, one [`crate::capture::Row`] a line.
    pub source: PathBuf,
    /// How to ask for those that are not in it yet.
    pub ask: Option<AskPart>,
}

/// How to ask a teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskPart {
    /// Base URL of an OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`. Absent: the teacher's folder.
    pub url: Option<String>,
    /// The name that the server knows the teacher by, if it is another.
    pub model: Option<String>,
    /// The environment variable that holds the server's key.
    pub key_env: Option<String>,
    /// The prompts, one a line.
    pub prompts: PathBuf,
    /// Answers a prompt.
    #[serde(default = "one_u32")]
    pub answers: u32,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature.
    #[serde(default = "one_f32")]
    pub temperature: f32,
    /// Log-probabilities of this many alternatives a token, or of as many as there are to be had (`"best"`).
    pub logprobs: Option<Logprobs>,
    /// The most money to spend, over all runs that write this file.
    pub ceiling: Money,
    /// Most requests under way. How many really are is found by trying: more while all goes well, half after a refusal.
    #[serde(default = "sixty_four")]
    pub concurrency: usize,
    /// Most requests in any minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Most tokens in any minute, of prompts and answers together; a request counts with the most that it can take until
    /// its answer tells how many it took.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Ask in batches, which servers answer within a day and for less; `{}` for the usual ones.
    pub batch: Option<BatchPart>,
    /// Longest wait for one answer, in seconds.
    #[serde(default = "two_minutes")]
    pub timeout_seconds: u64,
}

/// How many alternatives a token are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of alternatives, or \"best\"")]
pub enum Logprobs {
    /// So many.
    Top(u8),
    /// As many as the teacher gives, up to 20.
    Best(Best),
}

/// The word for as many as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Best {
    /// `best`
    Best,
}

impl Logprobs {
    /// So many; `None` for as many as there are.
    pub fn most(self) -> Option<u8> {
        match self {
            Self::Top(most) => Some(most),
            Self::Best(_) => None,
        }
    }
}

/// How to ask in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchPart {
    /// Most requests in one batch.
    pub size: usize,
    /// Longest pause between two questions after a batch, in milliseconds.
    pub poll_ms: u64,
    /// How long to wait for one batch, in hours.
    pub hours: u64,
}

impl Default for BatchPart {
    fn default() -> Self {
        Self { size: 5_000, poll_ms: 60_000, hours: 25 }
    }
}

impl AskPart {
    pub(super) fn check(&self, teacher: &TeacherPart) -> Result<(), &'static str> {
        if teacher.prices.is_none() {
            return Err("`[capture.ask]`: a ceiling needs the teacher's `prices` to count against");
        }
        if self.url.is_none() && teacher.folder.is_none() {
            return Err("`[capture.ask]`: give `url`, or the teacher's `folder`");
        }
        if self.batch.is_some() && self.url.is_none() {
            return Err("`[capture.ask]`: `batch` needs `url`: a model in the process has no batches");
        }
        if self.batch.is_some_and(|batch| batch.size == 0 || batch.size > 50_000 || batch.poll_ms == 0) {
            return Err("`[capture.ask.batch]`: `size` lies between 1 and 50,000, and `poll_ms` is at least 1");
        }
        if self.answers == 0 || self.max_tokens == 0 || self.concurrency == 0 || self.timeout_seconds == 0 {
            return Err("`[capture.ask]`: `answers`, `max_tokens`, `concurrency` and the time-out are at least 1");
        }
        Ok(())
    }
}

const fn one_u32() -> u32 {
    1
}
const fn one_f32() -> f32 {
    1.0
}
const fn sixty_four() -> usize {
    64
}
const fn two_minutes() -> u64 {
    120
}
