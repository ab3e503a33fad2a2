use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;

use anbiq_domain::Digest;
use serde::Deserialize;

use crate::controls::ControlsError;

/// Words of an answer that count. Longer answers would otherwise hold nearly every common word, and be like all others.
const WORDS: usize = 300;
/// Places that words are hashed to. Few hundred words are common; a rare one that falls on a common one changes a share by
/// its own small share.
const PLACES: usize = 1 << 18;
/// Most answers that are kept, at about 1 KiB each.
const MOST_ANSWERS: usize = 500_000;
/// Longest line, in bytes.
const LONGEST_LINE: u64 = 4 << 20;

/// The answers of many models to the same prompts, as sets of words. Texts are not kept.
#[derive(Debug, Default)]
pub struct Answers {
    models: Vec<String>,
    places: HashMap<String, usize>,
    prompts: HashMap<Digest, u32>,
    /// Of each model: the sorted, distinct words of its answer to each prompt.
    texts: Vec<BTreeMap<u32, Box<[u32]>>>,
    repeated: u64,
    kept: usize,
}

#[derive(Deserialize)]
struct Line {
    model: String,
    prompt: String,
    output: String,
}

impl Answers {
    /// Adds the answers of a file: JSON lines with `model`, `prompt` and `output`. Other fields are ignored.
    ///
    /// # Errors
    ///
    /// The file cannot be read, a line is longer than 4 MiB or not such an object, or there are too many answers.
    pub fn read(&mut self, file: &str, mut lines: impl BufRead) -> Result<(), ControlsError> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limited = &mut std::io::Read::take(&mut lines, LONGEST_LINE);
            let read = limited.read_until(b'\n', &mut line);
            let read = read.map_err(|source| ControlsError::Read { file: file.to_owned(), source })?;
            if read == 0 {
                return Ok(());
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let bad = |what: String| ControlsError::Line { file: file.to_owned(), number, what };
            if read as u64 == LONGEST_LINE {
                return Err(bad(format!("it is longer than {LONGEST_LINE} bytes")));
            }
            let parsed: Line = serde_json::from_slice(&line).map_err(|error| bad(error.to_string()))?;
            self.add(&parsed.model, &parsed.prompt, &parsed.output)?;
        }
        Ok(())
    }

    /// Adds one answer. Of several answers of a model to a prompt the first counts.
    ///
    /// # Errors
    ///
    /// There are too many answers.
    pub fn add(&mut self, model: &str, prompt: &str, output: &str) -> Result<(), ControlsError> {
        let model = self.place(model);
        let next = u32::try_from(self.prompts.len()).map_err(|_| ControlsError::TooMany { most: MOST_ANSWERS })?;
        let prompt = *self.prompts.entry(Digest::of_parts(&[prompt.as_bytes()])).or_insert(next);
        if self.texts[model].contains_key(&prompt) {
            self.repeated += 1;
            return Ok(());
        }
        if self.kept == MOST_ANSWERS {
            return Err(ControlsError::TooMany { most: MOST_ANSWERS });
        }
        self.kept += 1;
        self.texts[model].insert(prompt, words(output));
        Ok(())
    }

    /// Names of the models, in the order of their first answer.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// Answers that were left out, since the model had answered the prompt before.
    pub const fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Mean over the prompts that both answered of the share of common words among all words of the two answers (Jaccard).
    ///
    /// It is a baseline: prompt-paired likeness says more of ability and length than of a teacher.
    pub fn paired_likeness(&self, one: &str, other: &str) -> Option<f64> {
        let (one, other) = (&self.texts[*self.places.get(one)?], &self.texts[*self.places.get(other)?]);
        let pairs = one.iter().filter_map(|(prompt, words)| Some(jaccard(words, other.get(prompt)?)));
        let (count, sum) = pairs.fold((0_usize, 0.0), |(count, sum), value| (count + 1, sum + value));
        (count > 0).then(|| sum / count as f64)
    }

    pub(super) fn row(&self, model: &str) -> Option<usize> {
        self.places.get(model).copied()
    }

    /// The prompts that all of `rows` answered.
    pub(super) fn shared(&self, rows: &[usize]) -> Vec<u32> {
        let Some((first, others)) = rows.split_first() else { return Vec::new() };
        let by_all = |prompt: &&u32| others.iter().all(|row| self.texts[*row].contains_key(*prompt));
        self.texts[*first].keys().filter(by_all).copied().collect()
    }

    /// In how many of the answers to `prompts` each place occurs.
    pub(super) fn counts(&self, row: usize, prompts: &[u32]) -> Vec<u32> {
        let mut counts = vec![0; PLACES];
        for place in prompts.iter().filter_map(|prompt| self.texts[row].get(prompt)).flatten() {
            counts[*place as usize] += 1;
        }
        counts
    }

    fn place(&mut self, model: &str) -> usize {
        if let Some(place) = self.places.get(model) {
            return *place;
        }
        self.places.insert(model.to_owned(), self.models.len());
        self.models.push(model.to_owned());
        self.texts.push(BTreeMap::new());
        self.models.len() - 1
    }
}

fn jaccard(one: &[u32], other: &[u32]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0);
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        common += usize::from(a == b);
        i += usize::from(a <= b);
        j += usize::from(b <= a);
    }
    let all = one.len() + other.len() - common;
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

/// The distinct words among the first ones of `text`, hashed and sorted: runs of letters in lower case, runs of digits, runs of the same mark.
/// Marks and line ends belong to a style as much as words do.
fn words(text: &str) -> Box<[u32]> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    let mut word = String::new();
    while found.len() < WORDS {
        let Some(first) = rest.next() else { break };
        if first.is_whitespace() && first != '\n' {
            continue;
        }
        word.clear();
        word.extend(first.to_lowercase());
        while let Some(next) = rest.next_if(|next| goes_on(first, *next)) {
            // A very long run is cut short: it is no word.
            if word.len() < 64 {
                word.extend(next.to_lowercase());
            }
        }
        found.push(hashed(&word));
    }
    found.sort_unstable();
    found.dedup();
    found.into_boxed_slice()
}

fn goes_on(first: char, next: char) -> bool {
    match first {
        letter if letter.is_alphabetic() => next.is_alphabetic() || next == '\'' || next == '\u{2019}',
        digit if digit.is_numeric() => next.is_numeric(),
        mark => next == mark,
    }
}

/// FNV-1a, folded.
fn hashed(word: &str) -> u32 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    ((hash ^ (hash >> 32)) % PLACES as u64) as u32
}
