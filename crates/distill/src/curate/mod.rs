//! Which answers are worth learning from.
//!
//! Each filter is applied to what those before it left, in the order of [`Curated`], and its count says how many it took.

mod check;
mod effect;
mod language;
mod near;
mod worth;

pub use effect::{Effect, Effects, Example};
pub use language::{Language, Script};
pub use worth::{Without, Worth, Worths};

pub(crate) use effect::effects;
pub(crate) use worth::{CONTEXT as SMALL_CONTEXT, worths};

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anbiq_domain::{Digest, Finish, Prompt};
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::capture::Sample;
use crate::data::{Document, Lines};
use crate::recipe::{CuratePart, EvaluatePart};
use language::{LEAST_SHARE, declines};

/// What was left out, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Curated {
    /// Answers before.
    pub answers: u64,
    /// Left out because they say nothing.
    pub empty: u64,
    /// Left out because they were cut off at their largest length.
    pub truncated: u64,
    /// Left out because they have fewer or more words than they should.
    pub lengths: u64,
    /// Left out because too few of their letters are of the script that they should be in.
    pub scripts: u64,
    /// Left out because they are in another language.
    pub languages: u64,
    /// Left out because they decline to answer.
    pub refusals: u64,
    /// Left out because they lack what they should match, or match what they should lack.
    pub patterns: u64,
    /// Left out because they are not of the form that they should have.
    pub malformed: u64,
    /// Left out because the teacher answers their prompts wrong too rarely or too often.
    pub difficulty: u64,
    /// Left out because they are not the right answer.
    pub wrong: u64,
    /// Left out because they have words in a row in common with what the student is measured on.
    pub contaminated: u64,
    /// Left out because the same prompt had the same answer before.
    pub duplicates: u64,
    /// Left out because an earlier answer is nearly the same.
    pub near: u64,
    /// Answers after.
    pub kept: u64,
}

impl Curated {
    /// Why answers were left out and how many, as far as any were.
    pub fn reasons(&self) -> String {
        let counts = [
            (self.lengths, "too short or too long"),
            (self.scripts, "in another script"),
            (self.languages, "in another language"),
            (self.refusals, "refusals"),
            (self.patterns, "against a pattern"),
            (self.malformed, "of another form"),
            (self.difficulty, "too easy or too hard"),
            (self.wrong, "wrong"),
            (self.contaminated, "known from the evaluation"),
            (self.near, "nearly repeated"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        counts.map(|(count, reason)| format!(", {count} {reason}")).collect()
    }
}

/// A reason to leave an answer out, in the order in which they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    Empty,
    Truncated,
    Lengths,
    Scripts,
    Languages,
    Refusals,
    Patterns,
    Malformed,
    Difficulty,
    Wrong,
    Contaminated,
    Duplicates,
    Near,
}

impl Filter {
    fn count(self, counts: &mut Curated) -> &mut u64 {
        match self {
            Self::Empty => &mut counts.empty,
            Self::Truncated => &mut counts.truncated,
            Self::Lengths => &mut counts.lengths,
            Self::Scripts => &mut counts.scripts,
            Self::Languages => &mut counts.languages,
            Self::Refusals => &mut counts.refusals,
            Self::Patterns => &mut counts.patterns,
            Self::Malformed => &mut counts.malformed,
            Self::Difficulty => &mut counts.difficulty,
            Self::Wrong => &mut counts.wrong,
            Self::Contaminated => &mut counts.contaminated,
            Self::Duplicates => &mut counts.duplicates,
            Self::Near => &mut counts.near,
        }
    }
}

/// Leaves out what `part` says, in order. What the student is measured on is said by `measured`.
///
/// # Errors
/// A file that a filter needs cannot be read, or is not what it should be.
pub(crate) fn curate(
    samples: Vec<Sample>,
    part: &CuratePart,
    measured: &EvaluatePart,
) -> Result<(Vec<Sample>, Curated), DistillError> {
    let mut counts = Curated { answers: samples.len() as u64, ..Curated::default() };
    let reasons = judge(&samples, part, measured)?;
    let mut kept = Vec::with_capacity(samples.len());
    for (sample, reason) in samples.into_iter().zip(reasons) {
        match reason {
            Some(filter) => *filter.count(&mut counts) += 1,
            None => kept.push(sample),
        }
    }
    counts.kept = kept.len() as u64;
    Ok((kept, counts))
}

/// Why each sample is left out, if it is.
fn judge(samples: &[Sample], part: &CuratePart, measured: &EvaluatePart) -> Result<Vec<Option<Filter>>, DistillError> {
    let schema = part.json_schema.as_deref().map(check::Schema::load).transpose()?;
    let right = part.expected.as_deref().map(right_answers).transpose()?;
    let shares = part.difficulty.and(right.as_ref()).map(|right| wrong_shares(samples, right));
    let known = part.contamination.map(|words| Known::read(words, measured)).transpose()?;
    let (has, lacks) =
        (part.matches.as_deref().map(pattern).transpose()?, part.lacks.as_deref().map(pattern).transpose()?);
    let mut seen = HashSet::new();
    let mut near = part.near_duplicates.map(near::Near::new);
    let mut reason = |sample: &Sample| {
        let text = sample.answer.text.as_str();
        let length = text.split_whitespace().count();
        let found = if length == 0 {
            Filter::Empty
        } else if sample.answer.finish == Finish::Length && !part.keep_truncated {
            Filter::Truncated
        } else if part.least_words.is_some_and(|least| length < least)
            || part.most_words.is_some_and(|most| length > most)
        {
            Filter::Lengths
        } else if part.script.is_some_and(|script| script.share(text) < LEAST_SHARE) {
            Filter::Scripts
        } else if part.language.is_some_and(|language| language.is_missed_by(text)) {
            Filter::Languages
        } else if part.drop_refusals && declines(text) {
            Filter::Refusals
        } else if has.as_ref().is_some_and(|pattern| !pattern.is_match(text))
            || lacks.as_ref().is_some_and(|pattern| pattern.is_match(text))
        {
            Filter::Patterns
        } else if schema.as_ref().is_some_and(|schema| !schema.holds(text)) {
            Filter::Malformed
        } else if let (Some([least, most]), Some(shares)) = (part.difficulty, &shares)
            && shares.get(&key(&sample.prompt)).is_some_and(|share| *share < least || *share > most)
        {
            Filter::Difficulty
        } else if right
            .as_ref()
            .is_some_and(|right| right.get(&key(&sample.prompt)).is_some_and(|task| !task.accepts(text)))
        {
            Filter::Wrong
        } else if known.as_ref().is_some_and(|known| known.meets(sample.prompt.last_text()) || known.meets(text)) {
            Filter::Contaminated
        } else if !seen.insert(Digest::of_parts(&[key(&sample.prompt).as_bytes(), text.as_bytes()]))
            && !part.keep_duplicates
        {
            Filter::Duplicates
        } else if near.as_mut().is_some_and(|near| near.repeats(text)) {
            Filter::Near
        } else {
            return None;
        };
        Some(found)
    };
    Ok(samples.iter().map(&mut reason).collect())
}

/// A regular expression of the recipe, which was compiled once when that was read.
fn pattern(text: &str) -> Result<regex::Regex, DistillError> {
    regex::Regex::new(text).map_err(|error| DistillError::Nothing(error.to_string()))
}

/// The tasks of `path` that have one right answer, by their prompts.
fn right_answers(path: &Path) -> Result<HashMap<String, Document>, DistillError> {
    let mut right = HashMap::new();
    for document in Lines::<Document>::open(path)? {
        let document = document?;
        if document.expected.is_some() {
            right.insert(key(&document.prompt()), document);
        }
    }
    Ok(right)
}

/// Of each prompt with a right answer the share of its answers that are wrong.
fn wrong_shares(samples: &[Sample], right: &HashMap<String, Document>) -> HashMap<String, f64> {
    let mut counts: HashMap<String, (u64, u64)> = HashMap::new();
    for sample in samples {
        let key = key(&sample.prompt);
        if let Some(task) = right.get(&key) {
            let (wrong, all) = counts.entry(key).or_default();
            *wrong += u64::from(!task.accepts(&sample.answer.text));
            *all += 1;
        }
    }
    counts.into_iter().map(|(key, (wrong, all))| (key, wrong as f64 / all as f64)).collect()
}

fn key(prompt: &Prompt) -> String {
    let mut key = prompt.canonical();
    key.push('\0');
    key
}

/// What the student is measured on, as hashes of so many words in a row.
struct Known {
    words: usize,
    rows: HashSet<u64>,
}

impl Known {
    fn read(words: usize, measured: &EvaluatePart) -> Result<Self, DistillError> {
        let mut known = Self { words, rows: HashSet::new() };
        for path in [&measured.held_out, &measured.tasks].into_iter().flatten() {
            for document in Lines::<Document>::open(path)? {
                let document = document?;
                for text in [Some(document.prompt().last_text()), document.answer.as_deref()].into_iter().flatten() {
                    known.rows.extend(rows(text, words));
                }
            }
        }
        Ok(known)
    }

    fn meets(&self, text: &str) -> bool {
        rows(text, self.words).iter().any(|row| self.rows.contains(row))
    }
}

fn rows(text: &str, length: usize) -> Vec<u64> {
    let words = words(text);
    words.windows(length.max(1)).map(|row| hash(&row.iter().collect::<Vec<_>>())).collect()
}

/// The words of a text in lower case, without what stands between them.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// A hash of words that is the same everywhere.
fn hash(words: &[&String]) -> u64 {
    let mut digest = anbiq_domain::DigestBuilder::default();
    for word in words {
        digest.update(word.as_bytes());
        digest.update(b"\0");
    }
    let digest = digest.finish();
    digest.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Parts samples into those to train on and a `share` to measure on: by the digest of the prompt, so that all answers to
/// one prompt fall on one side, whatever else the capture holds.
pub(crate) fn hold_out(samples: Vec<Sample>, share: f64) -> (Vec<Sample>, Vec<Sample>) {
    let limit = (share * 65_536.0) as u32;
    samples.into_iter().partition(|sample| {
        let digest = Digest::of_parts(&[b"anbiq held out v1\0", sample.prompt.canonical().as_bytes()]);
        let bytes = digest.as_bytes();
        u32::from(bytes[0]) << 8 | u32::from(bytes[1]) >= limit
    })
}

#[cfg(test)]
mod tests {
    use anbiq_domain::{Answer, Prompt};

    use super::*;

    #[test]
    fn what_teaches_nothing_is_left_out() {
        let sample = |prompt: &str, text: &str, finish| Sample {
            prompt: Prompt::user(prompt),
            answer: Answer::new(text, finish),
            told: None,
        };
        let samples = vec![
            sample("a", "one", Finish::Stop),
            sample("a", " \n", Finish::Stop),
            sample("a", "one", Finish::Stop),
            sample("b", "one", Finish::Stop),
            sample("a", "on", Finish::Length),
        ];
        let none = EvaluatePart::default();
        let (kept, counts) = curate(samples.clone(), &CuratePart::default(), &none).unwrap();
        assert_eq!(kept, [samples[0].clone(), samples[3].clone()]);
        assert_eq!(
            counts,
            Curated { answers: 5, empty: 1, truncated: 1, duplicates: 1, kept: 2, ..Curated::default() }
        );
        let all = CuratePart { keep_truncated: true, keep_duplicates: true, ..CuratePart::default() };
        assert_eq!(curate(samples, &all, &none).unwrap().1.kept, 4);
    }

    #[test]
    fn each_filter_takes_what_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let sample = |prompt: &str, text: &str| Sample {
            prompt: Prompt::user(prompt),
            answer: Answer::new(text, Finish::Stop),
            told: None,
        };
        let long = "the old miller took seven sacks of barley over the bridge before it was dark";
        let samples = vec![
            sample("sum", "It is seven."),
            sample("sum", "It is nine."),
            sample("a", "I\u{2019}m sorry, but I can't help with that request."),
            sample("b", "Не знаю, что сказать об этом."),
            sample("c", "no"),
            sample("d", long),
            sample("e", &long.replace("seven", "eight")),
            sample("f", "A tale of one small grey fox that lived under the hill for years"),
            sample("tell me a tale of one small grey fox that lived", "There was once a fox."),
        ];
        let measured = EvaluatePart {
            held_out: write(
                "held.jsonl",
                "{\"prompt\": \"x\", \"answer\": \"A tale of one small grey fox that lived alone\"}\n",
            ),
            ..EvaluatePart::default()
        };
        let part = CuratePart {
            drop_refusals: true,
            script: Some(Script::Latin),
            least_words: Some(2),
            near_duplicates: Some(0.7),
            contamination: Some(8),
            expected: write("tasks.jsonl", "{\"prompt\": \"sum\", \"expected\": \"seven\"}\n"),
            ..CuratePart::default()
        };
        let (kept, counts) = curate(samples.clone(), &part, &measured).unwrap();
        let expected = Curated {
            answers: 9,
            lengths: 1,
            scripts: 1,
            refusals: 1,
            wrong: 1,
            contaminated: 2,
            near: 1,
            kept: 2,
            ..Curated::default()
        };
        assert_eq!(counts, expected);
        assert_eq!(kept, [samples[0].clone(), samples[5].clone()]);
        assert_eq!(
            counts.reasons(),
            ", 1 too short or too long, 1 in another script, 1 refusals, 1 wrong, 2 known from the evaluation, 1 nearly repeated"
        );
        let patterns = CuratePart {
            matches: Some(r"(?i)\byes\b".to_owned()),
            lacks: Some("maybe".to_owned()),
            ..CuratePart::default()
        };
        let samples_of_yes = vec![sample("a", "Yes."), sample("b", "yesterday"), sample("c", "yes, maybe")];
        let (kept, counts) = curate(samples_of_yes.clone(), &patterns, &measured).unwrap();
        assert_eq!((kept, counts.patterns), (samples_of_yes[..1].to_vec(), 2));
        let forms = CuratePart { json_schema: write("schema.json", "{\"type\": \"string\"}"), ..CuratePart::default() };
        let (kept, counts) = curate(vec![sample("a", "\"yes\""), sample("b", "yes")], &forms, &measured).unwrap();
        assert_eq!((kept.len(), counts.malformed), (1, 1));
        // A prompt that is answered wrong half of the time is kept, one that never is goes; of another nobody knows.
        let hard =
            CuratePart { difficulty: Some([0.1, 0.9]), expected: part.expected.clone(), ..CuratePart::default() };
        let answers = [("sum", "seven"), ("sum", "It is nine."), ("other", "nine")].map(|(a, b)| sample(a, b));
        let (kept, counts) = curate(answers.to_vec(), &hard, &measured).unwrap();
        assert_eq!((kept, counts.wrong, counts.difficulty), (vec![answers[0].clone(), answers[2].clone()], 1, 0));
        let easy = [answers[0].clone(), sample("sum", "seven, I say: seven"), answers[2].clone()];
        let (kept, counts) = curate(easy.to_vec(), &hard, &measured).unwrap();
        assert_eq!((kept, counts.difficulty), (easy[2..].to_vec(), 2));
        let none = CuratePart { expected: Some(dir.path().join("absent")), ..CuratePart::default() };
        assert_eq!(curate(samples, &none, &measured).unwrap_err().code(), "file_failed");
    }

    #[test]
    fn a_prompt_is_held_out_with_all_its_answers() {
        let sample = |number: usize| Sample {
            prompt: Prompt::user((number / 2).to_string()),
            answer: Answer::new(number.to_string(), Finish::Stop),
            told: None,
        };
        let (train, out) = hold_out((0..2_000).map(sample).collect(), 0.1);
        assert!((100..300).contains(&out.len()), "{}", out.len());
        assert!(train.iter().all(|one| out.iter().all(|other| other.prompt != one.prompt)));
        assert_eq!(hold_out((0..50).map(sample).collect(), 0.0).1.len(), 0);
    }
}
