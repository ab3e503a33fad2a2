//! What each filter is worth to a small student.
//!
//! A filter sounds right and may do harm: what it takes can be worth more than what it keeps clean. So it is measured. Small students begin
//! alike and learn from what all filters leave, from what all but one of them leave, and from as many tokens of that as there are with
//! the filter; what differs between them on text that was held out is what the filter is worth to such a student. What is held out is left
//! by all filters, or is the recipe's own, and no student learns from an answer to one of its prompts.

use std::path::Path;

use anbiq_domain::{Digest, Seeded};
use anbiq_lm::score::score;
use anbiq_lm::train::Hardware;
use anbiq_lm::{Codec, Config, Network};
use serde::{Deserialize, Serialize};

use super::effect::{each, without};
use super::{Filter, curate, hold_out, judge};
use crate::DistillError;
use crate::capture::Sample;
use crate::course::{Plan, Plans, Workshop};
use crate::evaluate::{Interval, Unit, interval, mean, mean_of_all};
use crate::recipe::{Recipe, StudentPart};
use crate::student::shape;
use crate::train::{self, How, Long, Set};

/// Share of the prompts that is held out where the recipe holds out nothing.
const HELD_OUT: f64 = 0.1;
/// Longest text of a small student, in tokens.
pub(crate) const CONTEXT: usize = 512;
/// Most tokens that one learns from, each once; more are thinned.
const TOKENS: u64 = 1_000_000;
/// How often it reads them.
const EPOCHS: u32 = 3;

/// What the filters of a recipe are worth to a small student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worths {
    /// Parameters of a student.
    pub parameters: u64,
    /// Students of each kind.
    pub seeds: u64,
    /// Tokens that those learn from that have all filters.
    pub tokens: u64,
    /// Texts that were held out.
    pub held_out: u64,
    /// Mean loss of those students on them, in nats a token.
    pub loss: f64,
    /// The filters that take something which no other takes.
    pub filters: Vec<Worth>,
}

/// What one filter is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// Its name in the recipe.
    pub filter: String,
    /// Answers that stay where it is off.
    pub takes: u64,
    /// Without it, with as many tokens as with it.
    pub equal: Without,
    /// Without it, with all that stays.
    pub all: Without,
}

/// Students without a filter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Without {
    /// Tokens that they learn from.
    pub tokens: u64,
    /// Their mean loss.
    pub loss: f64,
    /// That less the loss of the students with all filters: above 0 where the filter helps.
    pub gain: f64,
    /// Its interval over texts (bootstrap, 95 %), paired; other seeds of training would widen it. Absent where there are few texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Seeds with which it helps.
    pub better: u64,
}

/// What each filter of `recipe` is worth, by `seeds` students of each kind.
///
/// # Errors
/// As [`super::curate`]; also where nothing is left to learn from, or nothing is held out.
pub(crate) fn worths(
    recipe: &Recipe,
    samples: &[Sample],
    workshop: &Workshop<'_>,
    seeds: u64,
) -> Result<Worths, DistillError> {
    let (part, measured) = (&recipe.curate, &recipe.evaluate);
    let bench = Bench::new(recipe, samples, workshop, seeds)?;
    let kept = bench.set(&judge(samples, part, measured)?, samples)?;
    let tokens = kept.tokens.min(TOKENS);
    let with = bench.students(&kept, tokens)?;
    let mut filters = Vec::new();
    // An answer that says nothing is left out whatever the recipe says.
    for (filter, name, _) in each(part).into_iter().filter(|(filter, ..)| *filter != Filter::Empty) {
        let off = without(part, filter);
        let left = bench.set(&judge(samples, &off, measured)?, samples)?;
        let takes = left.len().saturating_sub(kept.len()) as u64;
        if takes > 0 {
            let name = name.to_owned();
            let equal = bench.compare(&name, &with, &left, tokens)?;
            let all = bench.compare(&name, &with, &left, left.tokens.min(TOKENS))?;
            filters.push(Worth { filter: name, takes, equal, all });
        }
    }
    let loss = mean_of_all(&over_seeds(&with)).unwrap_or(f64::NAN);
    let held_out = bench.held_out.len() as u64;
    Ok(Worths { parameters: bench.shape_size()?, seeds, tokens, held_out, loss, filters })
}

/// Where small students are trained and measured.
struct Bench<'a> {
    workshop: &'a Workshop<'a>,
    shape: Config,
    /// How a student of texts alone learns.
    plan: Plan,
    seeds: u64,
    held_out: Set,
    store: &'a Path,
    /// Prompts that no student may learn from.
    share: f64,
}

impl<'a> Bench<'a> {
    fn new(
        recipe: &'a Recipe,
        samples: &[Sample],
        workshop: &'a Workshop<'a>,
        seeds: u64,
    ) -> Result<Self, DistillError> {
        let codec = workshop.codec;
        let (held_out, share) = match &recipe.evaluate.held_out {
            Some(path) => (train::documents(path, codec, recipe.evaluate.most_held_out)?, 0.0),
            None => {
                let share = if recipe.evaluate.capture_share > 0.0 { recipe.evaluate.capture_share } else { HELD_OUT };
                let (kept, _) = curate(samples.to_vec(), &recipe.curate, &recipe.evaluate)?;
                let (_, held_out) = hold_out(kept, share);
                (
                    train::answers(&held_out, codec, How { long: Long::LeaveOut, spans: false, store: &recipe.store })?
                        .0,
                    share,
                )
            }
        };
        if held_out.is_empty() {
            return Err(DistillError::Nothing("nothing is held out to measure on".to_owned()));
        }
        let plan = Plan { device: Hardware::default(), ..Plans::of(recipe).pretrain };
        Ok(Self { workshop, shape: small(codec), plan, seeds, held_out, store: &recipe.store, share })
    }

    /// The answers that are kept for no reason to leave them out, as examples of their texts alone.
    fn set(&self, reasons: &[Option<Filter>], samples: &[Sample]) -> Result<Set, DistillError> {
        let kept = samples.iter().zip(reasons).filter(|(_, reason)| reason.is_none());
        let texts = kept.map(|(sample, _)| Sample { told: None, ..sample.clone() });
        let (learnt, _) = hold_out(texts.collect(), self.share);
        let (set, _) =
            train::answers(&learnt, self.workshop.codec, How { long: Long::Cut, spans: false, store: self.store })?;
        if set.is_empty() {
            return Err(DistillError::Nothing("the filters leave no answer to learn from".to_owned()));
        }
        Ok(set)
    }

    /// For each seed what a student of `tokens` of `set` loses on each text that was held out.
    fn students(&self, set: &Set, tokens: u64) -> Result<Vec<Vec<Unit>>, DistillError> {
        (1..=self.seeds).map(|seed| self.student(&thinned(set, tokens, seed), seed)).collect()
    }

    fn student(&self, set: &Set, seed: u64) -> Result<Vec<Unit>, DistillError> {
        let network = Network::random(self.shape.clone(), seed)?;
        let (learning_rate, batch_tokens) = (4e-3, 2048);
        let plan = Plan { name: "curate", epochs: EPOCHS, learning_rate, batch_tokens, seed, ..self.plan.clone() };
        let shape = self.shape.to_json("float32");
        let origin = Digest::of_parts(&[b"small\0", &seed.to_le_bytes(), shape.as_bytes()]);
        let (learnt, _) = self.workshop.learn(&origin, network, set, &plan, None)?;
        let scores = score(&learnt, &self.held_out.sequences(), self.plan.threads)?;
        let unit = |logprobs: &[f32]| Unit {
            sum: -logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>(),
            places: logprobs.len() as f64,
        };
        Ok(scores.iter().map(|scored| unit(&scored.logprobs)).collect())
    }

    fn compare(&self, name: &str, with: &[Vec<Unit>], left: &Set, tokens: u64) -> Result<Without, DistillError> {
        let without = self.students(left, tokens)?;
        let (one, other) = (over_seeds(with), over_seeds(&without));
        let loss = mean_of_all(&other).unwrap_or(f64::NAN);
        let gain = |times: &[u32]| Some(mean(&other, times)? - mean(&one, times)?);
        let of_seed = |(with, without): (&Vec<Unit>, &Vec<Unit>)| mean_of_all(without) > mean_of_all(with);
        Ok(Without {
            tokens,
            loss,
            gain: loss - mean_of_all(&one).unwrap_or(f64::NAN),
            interval: interval(1, name, one.len(), gain),
            better: with.iter().zip(&without).filter(|pair| of_seed(*pair)).count() as u64,
        })
    }

    fn shape_size(&self) -> Result<u64, DistillError> {
        Ok(Network::random(self.shape.clone(), 1)?.parameters())
    }
}

/// Of each text the mean over all seeds.
fn over_seeds(seeds: &[Vec<Unit>]) -> Vec<Unit> {
    let texts = seeds.first().map_or(0, Vec::len);
    let of = |text: usize| Unit {
        sum: seeds.iter().map(|units| units[text].sum).sum::<f64>() / seeds.len().max(1) as f64,
        places: seeds.first().map_or(0.0, |units| units[text].places),
    };
    (0..texts).map(of).collect()
}

/// About `tokens` of a set, drawn anew for each seed, in their order.
fn thinned(set: &Set, tokens: u64, seed: u64) -> Set {
    let mut order: Vec<usize> = (0..set.len()).collect();
    Seeded::new(seed).fork("thinned").shuffle(&mut order);
    let mut taken = 0;
    let size = |place: &usize| set.members()[*place].tokens.len() as u64;
    order.retain(|place| {
        let fits = taken + size(place) <= tokens;
        taken += if fits { size(place) } else { 0 };
        fits
    });
    order.sort_unstable();
    set.of_texts(&order)
}

/// A student that learns in seconds and still tells texts apart.
fn small(codec: &Codec) -> Config {
    let part = StudentPart {
        name: "small".to_owned(),
        init: None,
        tokenizer: None,
        hidden_size: Some(64),
        layers: Some(3),
        heads: Some(4),
        kv_heads: None,
        intermediate_size: Some(176),
        context: codec.context,
    };
    shape(&part, codec)
}
