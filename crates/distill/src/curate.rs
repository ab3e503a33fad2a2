//! Which answers are worth learning from.

use std::collections::HashSet;

use anbiq_domain::{Digest, Finish};
use serde::{Deserialize, Serialize};

use crate::capture::Sample;
use crate::recipe::CuratePart;

/// What was left out, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Curated {
    /// Answers before.
    pub answers: u64,
    /// Left out because they say nothing.
    pub empty: u64,
    /// Left out because they were cut off at their largest length.
    pub truncated: u64,
    /// Left out because the same prompt had the same answer before.
    pub duplicates: u64,
    /// Answers after.
    pub kept: u64,
}

/// Leaves out what `part` says, in order.
pub(crate) fn curate(samples: Vec<Sample>, part: &CuratePart) -> (Vec<Sample>, Curated) {
    let mut counts = Curated { answers: samples.len() as u64, ..Curated::default() };
    let mut seen = HashSet::new();
    let mut keep = |sample: &Sample| {
        if sample.answer.text.trim().is_empty() {
            counts.empty += 1;
            return false;
        }
        if sample.answer.finish == Finish::Length && !part.keep_truncated {
            counts.truncated += 1;
            return false;
        }
        let pair = Digest::of_parts(&[sample.prompt.canonical().as_bytes(), b"\0", sample.answer.text.as_bytes()]);
        let fresh = seen.insert(pair) || part.keep_duplicates;
        counts.duplicates += u64::from(!fresh);
        fresh
    };
    let kept: Vec<Sample> = samples.into_iter().filter(|sample| keep(sample)).collect();
    counts.kept = kept.len() as u64;
    (kept, counts)
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
            logprobs: None,
        };
        let samples = vec![
            sample("a", "one", Finish::Stop),
            sample("a", " \n", Finish::Stop),
            sample("a", "one", Finish::Stop),
            sample("b", "one", Finish::Stop),
            sample("a", "on", Finish::Length),
        ];
        let (kept, counts) = curate(samples.clone(), &CuratePart::default());
        assert_eq!(kept, [samples[0].clone(), samples[3].clone()]);
        assert_eq!(counts, Curated { answers: 5, empty: 1, truncated: 1, duplicates: 1, kept: 2 });
        let all = CuratePart { keep_truncated: true, keep_duplicates: true };
        assert_eq!(curate(samples, &all).1.kept, 4);
    }

    #[test]
    fn a_prompt_is_held_out_with_all_its_answers() {
        let sample = |number: usize| Sample {
            prompt: Prompt::user((number / 2).to_string()),
            answer: Answer::new(number.to_string(), Finish::Stop),
            logprobs: None,
        };
        let (train, out) = hold_out((0..2_000).map(sample).collect(), 0.1);
        assert!((100..300).contains(&out.len()), "{}", out.len());
        assert!(train.iter().all(|one| out.iter().all(|other| other.prompt != one.prompt)));
        assert_eq!(hold_out((0..50).map(sample).collect(), 0.0).1.len(), 0);
    }
}
