//! What a capture will cost, from the answers to a random sample of its prompts.
//!
//! Prompts are drawn, with all of their answers. The estimator is the regression estimator of survey sampling (Cochran, *Sampling Techniques*, 1977, chapter 7): the
//! length of every prompt is known, what an answer takes is known of the sample, and a line through the sample carries
//! it over to the rest. The band holds the total with a probability of about 95 % over the choice of the sample, which
//! is fixed by the requests' digests before anything is asked; it says nothing about a teacher that changes.

use std::collections::HashMap;
use std::path::Path;

use anbiq_domain::{Money, Usage};
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::ask::{Head, Index, Limits, Maker, Wants, beside_rows, short};
use crate::data::Lines;
use crate::recipe::AskPart;
use crate::told;

/// The fewest answers from which anything is carried over.
const FEWEST: usize = 30;

/// How many answers a pilot asks for at least, so that its band is of use where there are few prompts.
const PILOT: f64 = 200.0;

/// To how many prompts at least.
const PILOT_PROMPTS: f64 = 60.0;

/// What all answers of a recipe take, those that are there included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Answers that are wanted in all.
    pub answers: u64,
    /// Answers that the forecast rests on.
    pub sample: u64,
    /// Dollars.
    pub money: Band,
    /// Tokens of prompts.
    pub prompt_tokens: Band,
    /// Tokens of answers.
    pub completion_tokens: Band,
    /// Bytes of the capture's files.
    pub bytes: Band,
}

/// A total that is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// What it most likely is.
    pub expected: f64,
    /// It is above this in about 39 of 40 cases.
    pub low: f64,
    /// It is below this in about 39 of 40 cases.
    pub high: f64,
}

impl Band {
    /// Of what is known.
    pub(crate) fn exactly(value: f64) -> Self {
        Self { expected: value, low: value, high: value }
    }

    pub(crate) fn times(self, factor: f64) -> Self {
        Self { expected: self.expected * factor, low: self.low * factor, high: self.high * factor }
    }

    /// Both at their ends at once: at least as wide as their product is.
    pub(crate) fn by(self, other: Self) -> Self {
        Self { expected: self.expected * other.expected, low: self.low * other.low, high: self.high * other.high }
    }

    /// Both at their ends at once: at least as wide as their sum is.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { expected: self.expected + other.expected, low: self.low + other.low, high: self.high + other.high }
    }
}

/// The band is narrow enough when it ends within this share of what is expected, on both sides.
const CLOSE: f64 = 0.05;

impl Forecast {
    /// The share of all answers whose forecast, after one from `share` of them, should be within 5 % of the bill: the width of a
    /// band goes with the square root of the sample (Cochran, chapter 4, sampling in two steps). `None` where this one is, or
    /// where no more can be asked for.
    pub(crate) fn larger(&self, share: f64) -> Option<f64> {
        let Band { expected, low, high } = self.money;
        let apart = (high - low) / 2.0 / expected.max(f64::MIN_POSITIVE);
        // A tenth more, as the second sample may vary more than the first.
        (apart > CLOSE && share < 1.0).then(|| (share * 1.1 * (apart / CLOSE).powi(2)).min(1.0))
    }

    /// The money as an amount, rounded to a nano-dollar.
    pub fn money(&self) -> Money {
        Money::from_nanos((self.money.expected * 1e9).round() as i64)
    }
}

/// The share of `answers`, so many `each` to a prompt, that a pilot asks for where it is told to ask for `share`.
pub(crate) fn pilot_share(share: f64, answers: u64, each: u32) -> f64 {
    let least = PILOT.max(PILOT_PROMPTS * f64::from(each));
    share.max(least / answers.max(1) as f64).min(1.0)
}

/// What was known before and what was seen of one answer of the sample.
#[derive(Debug, Clone, Copy)]
struct Seen {
    usage: Usage,
    batch: bool,
    /// Of its row, and places whose log-probabilities are shelved.
    bytes: u64,
    places: u64,
}

/// A prompt with what is there of its answers.
#[derive(Debug)]
struct Drawn {
    /// The place of its first answer.
    place: u32,
    drawn: f64,
    length: f64,
    /// All of its answers are there.
    whole: bool,
    answers: Vec<Seen>,
}

/// Carries over what the answers in `source` took to all that are wanted: from those to the random `share` of the prompts,
/// or where none is given from the largest random share whose answers are all there. `None` where these are too few.
pub(crate) fn forecast(
    source: &Path,
    teacher: &str,
    part: &AskPart,
    limits: Limits,
    share: Option<f64>,
) -> Result<Option<Forecast>, DistillError> {
    if !source.exists() {
        return Ok(None);
    }
    let maker = Maker::new(teacher, part, limits, None);
    let index = Index::new(&maker)?;
    // By request: what it took. Without a share that may be all that was ever asked.
    let mut seen = HashMap::new();
    let mut lines = Lines::<Head>::open(source)?;
    let (shelved, mut places) = (told::bytes(source)?, 0);
    loop {
        let begin = lines.offset();
        let Some(head) = lines.next().transpose()? else { break };
        if let Some(id) = head.id.filter(|id| index.place(id).is_some()) {
            let of = head.shelved();
            places += of;
            let bytes = lines.offset() - begin;
            seen.insert(short(&id), Seen { usage: head.usage, batch: head.batch, bytes, places: of });
        }
    }
    let a_place = shelved as f64 / places.max(1) as f64;
    let shares_prompts = !beside_rows(source)?.1.is_zero();
    let (mut wants, mut prompts) = (Wants::new(&maker)?, Vec::<Drawn>::new());
    let (mut answers, mut end) = (0_u64, share.unwrap_or(1.0));
    while let Some(want) = wants.next(&index)? {
        answers += 1;
        let first = want.place - want.sample;
        if prompts.last().is_none_or(|prompt| prompt.place != first) {
            let length = want.usage.prompt_tokens as f64;
            prompts.push(Drawn { place: first, drawn: want.drawn, length, whole: true, answers: Vec::new() });
        }
        let Some(prompt) = prompts.last_mut() else { continue };
        match seen.get(&short(&want.id)) {
            Some(seen) => prompt.answers.push(*seen),
            None => prompt.whole = false,
        }
        if share.is_none() && !prompt.whole {
            end = end.min(prompt.drawn);
        }
    }
    let sample: Vec<&Drawn> = prompts.iter().filter(|prompt| prompt.whole && prompt.drawn < end).collect();
    if sample.len() < FEWEST.min(prompts.len()).max(1) {
        return Ok(None);
    }
    let (count, lengths) = (prompts.len() as f64, prompts.iter().map(|prompt| prompt.length).sum());
    let total = |of: &dyn Fn(&Seen) -> f64| {
        let pairs: Vec<(f64, f64)> =
            sample.iter().map(|prompt| (prompt.length, prompt.answers.iter().map(of).sum())).collect();
        carry_over(&pairs, count, lengths)
    };
    // What is asked for together pays for its prompt once.
    let price = |seen: &Seen| {
        let cost = |usage| limits.prices.cost(usage, limits.class_of(seen.batch)).nanos() as f64 / 1e9;
        let shared = if shares_prompts { 1.0 - 1.0 / f64::from(part.answers) } else { 0.0 };
        cost(seen.usage) - shared * cost(Usage { completion_tokens: 0, ..seen.usage })
    };
    Ok(Some(Forecast {
        answers,
        sample: sample.iter().map(|prompt| prompt.answers.len() as u64).sum(),
        money: total(&price),
        prompt_tokens: total(&|seen| seen.usage.prompt_tokens as f64),
        completion_tokens: total(&|seen| seen.usage.completion_tokens as f64),
        bytes: total(&|seen| seen.bytes as f64 + a_place * seen.places as f64),
    }))
}

/// The total of `y` over `count` members whose `x` add up to `sum`, from the pairs `(x, y)` of a simple random sample.
fn carry_over(sample: &[(f64, f64)], count: f64, sum: f64) -> Band {
    let n = sample.len() as f64;
    let mean_x = sample.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = sample.iter().map(|(_, y)| y).sum::<f64>() / n;
    let spread = sample.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    let shared = sample.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
    // Prompts that are all alike say nothing about how length matters.
    let slope = if spread > 1e-9 * n * mean_x.abs().max(1.0) { shared / spread } else { 0.0 };
    let expected = count * (mean_y + slope * (sum / count - mean_x));
    let freedom = (n - 2.0).max(1.0);
    let residual = sample.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum::<f64>() / freedom;
    let error = count * ((1.0 - n / count).max(0.0) * residual / n).sqrt();
    // Student's quantile at 97.5 %, by the first term of its expansion about the normal one (Fisher and Cornish 1960).
    let quantile = 1.959_964 + 2.372_3 / freedom;
    Band { expected, low: (expected - quantile * error).max(0.0), high: expected + quantile * error }
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    #[test]
    fn the_band_holds_the_total_as_often_as_it_says() {
        let mut random = Seeded::new(11);
        // Skewed lengths of answers that depend a little on the prompt.
        let members: Vec<(f64, f64)> = (0..20_000)
            .map(|_| {
                let x = 20.0 + 200.0 * random.unit();
                (x, 0.25 * x + 40.0 * random.exponential() + 10.0)
            })
            .collect();
        let truth: f64 = members.iter().map(|(_, y)| y).sum();
        let sum: f64 = members.iter().map(|(x, _)| x).sum();
        let (mut held, mut off) = (0, 0.0_f64);
        for _ in 0..400 {
            let sample: Vec<_> = (0..200).map(|_| members[random.below(members.len())]).collect();
            let band = carry_over(&sample, members.len() as f64, sum);
            held += usize::from((band.low..=band.high).contains(&truth));
            off += (band.expected / truth - 1.0).abs();
        }
        // 95 % of 400 is 380, with a standard deviation of 4.4.
        assert!((362..=397).contains(&held), "{held}");
        assert!(off / 400.0 < 0.04, "{}", off / 400.0);
    }

    /// The estimator has no lean, and two steps bring it within 5 % about as often as its band says.
    #[test]
    fn a_second_step_brings_the_forecast_within_five_percent() {
        let mut random = Seeded::new(5);
        let (mut lean, mut within, trials) = (0.0, 0, 200);
        for _ in 0..trials {
            // Answers of any length between 5 and 100 words, as a benchmark's vendor gives them.
            let members: Vec<(f64, f64)> = (0..5_000)
                .map(|_| (20.0 + 380.0 * random.unit(), random.unit()))
                .map(|(x, drawn)| (x, 0.06 * x + 5.0 + 95.0 * drawn))
                .collect();
            let truth: f64 = members.iter().map(|(_, y)| y).sum();
            let sum: f64 = members.iter().map(|(x, _)| x).sum();
            let (mut share, mut steps) = (0.04, 0);
            let band = loop {
                // The order of the members is random, so that their beginning is a random sample.
                let sample = &members[..(share * 5_000.0) as usize];
                let band = carry_over(sample, 5_000.0, sum);
                let forecast = Forecast {
                    answers: 5_000,
                    sample: sample.len() as u64,
                    money: band,
                    prompt_tokens: band,
                    completion_tokens: band,
                    bytes: band,
                };
                steps += 1;
                match forecast.larger(share) {
                    Some(larger) => share = larger,
                    None => break band,
                }
            };
            assert!(steps <= 4, "{steps}");
            lean += band.expected / truth - 1.0;
            within += usize::from((band.expected / truth - 1.0).abs() <= CLOSE);
        }
        assert!((lean / f64::from(trials)).abs() < 0.006, "{lean}");
        // 95 % of 200 is 190, with a standard deviation of 3.1.
        assert!(within >= 180, "{within}");
    }

    #[test]
    fn what_is_known_of_all_is_no_estimate() {
        let all = [(1.0, 10.0), (2.0, 30.0), (7.0, 20.0)];
        let band = carry_over(&all, 3.0, 10.0);
        assert!((band.expected - 60.0).abs() < 1e-9 && band.high - band.low < 1e-9, "{band:?}");
        let alike = carry_over(&[(5.0, 1.0), (5.0, 3.0)], 10.0, 50.0);
        assert!((alike.expected - 20.0).abs() < 1e-9 && alike.low < 20.0 && alike.high > 20.0);
    }
}
