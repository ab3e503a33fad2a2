//! A capture: answers of a teacher, with log-probabilities where it gives them.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anbiq_domain::{Answer, Digest, Prompt, Usage};
use anbiq_lm::Codec;
use anbiq_lm::score::Likeliest;
use anbiq_model::TokenLogprob;
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::data::{Asked, Lines};
use crate::told::{Place, Shelf, Told};

/// One line of a capture: a request and its answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The digest of the request, where it was made by [`crate::ask`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Digest>,
    /// The exchange of a journal that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// What was asked.
    pub prompt: Asked,
    /// What was answered.
    pub answers: Vec<Answer>,
    /// The tokens of each answer with their log-probabilities; empty where there are none, or where they are shelved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<Vec<Token>>,
    /// Where they are on the disk once asking has ended (`told/mod.rs` says how).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
    /// Tokens, as the teacher counts them.
    #[serde(default)]
    pub usage: Usage,
    /// Was it asked for in a batch, at that price?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
}

/// One token of an answer, as the teacher's server tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token<B = Bytes> {
    /// Its bytes.
    pub bytes: B,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens at its place with theirs, likeliest first.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<(B, f32)>,
}

/// The bytes of a token: written as a text where they are one, else as a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bytes {
    /// Whole characters.
    Text(String),
    /// A part of a character.
    Raw(Vec<u8>),
}

impl Bytes {
    /// The bytes themselves.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Raw(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Raw(error.into_bytes()), Self::Text)
    }
}

impl From<&TokenLogprob> for Token {
    fn from(token: &TokenLogprob) -> Self {
        let top = token.top.iter().map(|other| (other.bytes.clone().into(), other.logprob));
        Self { bytes: token.bytes.clone().into(), logprob: token.logprob, top: top.collect() }
    }
}

impl Row {
    /// What was asked.
    pub fn prompt(&self) -> Prompt {
        match &self.prompt {
            Asked::Words(words) => Prompt::user(words.clone()),
            Asked::Prompt(prompt) => prompt.clone(),
        }
    }
}

/// One answer to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) prompt: Prompt,
    pub(crate) answer: Answer,
    pub(crate) told: Option<Kept>,
}

/// Where an answer's log-probabilities are until they are looked at.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) place: Place,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shelf, &other.shelf) && self.place == other.place
    }
}

/// All answers of a capture, and what they took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capture {
    pub(crate) samples: Vec<Sample>,
    pub(crate) usage: Usage,
    /// So much of it in batches.
    pub(crate) batched: Usage,
    pub(crate) rows: u64,
    /// Rows whose teacher did not say how many tokens it wrote; they are counted with the student's tokenizer.
    pub(crate) uncounted: u64,
}

impl Capture {
    /// Reads the capture `path`; tokens that the teacher did not count are counted with `codec`.
    ///
    /// Of log-probabilities only the places are in memory where they are shelved; where they stand in the rows they are, packed.
    pub(crate) fn read(path: &Path, codec: &Codec) -> Result<Self, DistillError> {
        let mut capture = Self::default();
        let (mut shelf, mut places) = (Shelf::of(path), Vec::new());
        for row in Lines::<Row>::open(path)? {
            let mut row = row?;
            let prompt = row.prompt();
            let mut usage = row.usage;
            if usage.completion_tokens == 0 {
                capture.uncounted += 1;
                for answer in &row.answers {
                    usage.completion_tokens += codec.encode_answer(answer)?.len() as u64;
                }
                usage.prompt_tokens = codec.encode_prompt(&prompt)?.len() as u64;
            }
            capture.rows += 1;
            capture.usage.prompt_tokens += usage.prompt_tokens;
            capture.usage.completion_tokens += usage.completion_tokens;
            if row.batch {
                capture.batched.prompt_tokens += usage.prompt_tokens;
                capture.batched.completion_tokens += usage.completion_tokens;
            }
            let mut told = shelf.take(&mut row)?.into_iter();
            for answer in row.answers {
                places.push(told.next().flatten());
                capture.samples.push(Sample { prompt: prompt.clone(), answer, told: None });
            }
        }
        shelf.end()?;
        let shelf = Arc::new(shelf);
        for (sample, place) in capture.samples.iter_mut().zip(places) {
            sample.told = place.map(|place| Kept { shelf: Arc::clone(&shelf), place });
        }
        Ok(capture)
    }
}

/// The teacher's log-probabilities in the student's tokens, proven by bytes.
#[derive(Debug)]
pub(crate) struct Alphabet {
    /// The token of some bytes; `None` where several tokens stand for them.
    tokens: HashMap<Vec<u8>, Option<u32>>,
}

/// The teacher's likeliest tokens at each target, and how much of their probability found a token of the student.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mapped {
    pub(crate) places: Vec<Likeliest>,
    pub(crate) told: f64,
    pub(crate) found: f64,
}

impl Alphabet {
    pub(crate) fn of(codec: &Codec) -> Self {
        let mut tokens = HashMap::new();
        for token in 0..codec.tokenizer.size() as u32 {
            let bytes = codec.tokenizer.bytes(token);
            if !bytes.is_empty() {
                tokens.entry(bytes.to_vec()).and_modify(|one| *one = None).or_insert(Some(token));
            }
        }
        Self { tokens }
    }

    /// Maps what the teacher told of an answer to the student's `targets`, the tokens of the same answer.
    ///
    /// `None` where the two do not cut the answer into the same tokens: the places would not be the same. The end token
    /// is mapped where the teacher tells of it, and has no alternatives where it does not.
    pub(crate) fn map<B: AsRef<[u8]>>(&self, codec: &Codec, told: &[Token<B>], targets: &[u32]) -> Option<Mapped> {
        let body = targets.strip_suffix(codec.eos.get(..1).unwrap_or_default()).unwrap_or(targets);
        let same = |(target, token): (&u32, &Token<B>)| codec.tokenizer.bytes(*target) == token.bytes.as_ref();
        if !(body.len()..=targets.len()).contains(&told.len()) || !body.iter().zip(told).all(same) {
            return None;
        }
        let mut mapped = Mapped { places: Vec::with_capacity(targets.len()), told: 0.0, found: 0.0 };
        for token in told {
            let mut place: Likeliest = Vec::with_capacity(token.top.len());
            for (bytes, logprob) in &token.top {
                let probability = f64::from(*logprob).exp();
                mapped.told += probability;
                if let Some(Some(id)) = self.tokens.get(bytes.as_ref())
                    && place.iter().all(|(other, _)| other != id)
                    && *logprob <= 0.0
                {
                    mapped.found += probability;
                    place.push((*id, *logprob));
                }
            }
            mapped.places.push(place);
        }
        mapped.places.resize(targets.len(), Vec::new());
        Some(mapped)
    }
}
