//! Learning from a teacher that gives nothing but texts: what it answered is preferred to what the student answered itself.

use super::work::{At, Job, Worker};
use super::{Moved, Trainer};
use crate::LmError;
use crate::device::{Aim, Device};
use crate::graph::{self, Pack, Target};
use crate::train::{Divergence, Example};
use crate::{Network, score};

/// Two answers to one prompt. What their teachers say of single tokens is not looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The one that is preferred.
    pub chosen: Example,
    /// The other one.
    pub rejected: Example,
    /// By how much the reference prefers it already: the logarithm of the chosen answer's probability less that of the
    /// rejected one's.
    pub reference: f64,
}

/// How to learn from pairs: direct preference optimisation (Rafailov et al. 2023).
///
/// The loss of a pair is `-ln sigma(beta (m - r))`, with `m` the logarithm of the chosen answer's probability less that of the
/// rejected one's and `r` the same under a reference, here the student before this training. With the teacher's answer as the
/// chosen one and one answer of the student's own as the rejected one it is the recipe of SODA: one snapshot of the student's
/// answers, drawn once, tells where it differs from a teacher that is seen by its texts alone.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preference {
    /// How soon a pair counts as learnt: the larger, the nearer the student stays to its reference.
    pub beta: f64,
    /// How much of the cross-entropy of the chosen answers, in nats a token, is added to the loss. It keeps their own
    /// probability from falling along with that of the rejected ones.
    pub likelihood: f64,
}

impl Default for Preference {
    fn default() -> Self {
        Self { beta: 0.1, likelihood: 0.2 }
    }
}

/// What a step on pairs did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct PreferenceReport {
    /// Counted from 1.
    pub step: u64,
    /// What was minimised, a pair.
    pub loss: f64,
    /// Mean of `m - r`, in nats a pair.
    pub margin: f64,
    /// Pairs whose chosen answer has gained on the other one since the reference.
    pub won: u64,
    /// Pairs.
    pub pairs: u64,
    /// Cross-entropy of the chosen answers, in nats a token.
    pub cross_entropy: f64,
    /// Tokens that passed through the network.
    pub rows: u64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// False where the gradient was not finite; the network was then left as it was.
    pub applied: bool,
}

/// Sums over pairs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    loss: f64,
    margin: f64,
    won: u64,
    cross_entropy: f64,
}

impl Sums {
    pub(super) fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.margin += other.margin;
        self.won += other.won;
        self.cross_entropy += other.cross_entropy;
    }
}

impl Preference {
    fn check(&self) -> Result<(), LmError> {
        for (name, number, good) in [
            ("beta", self.beta, self.beta.is_finite() && self.beta > 0.0),
            ("likelihood", self.likelihood, self.likelihood.is_finite() && self.likelihood >= 0.0),
        ] {
            if !good {
                let problem = format!("{number} is not {}", if name == "beta" { "positive" } else { "0 or more" });
                return Err(LmError::Setting { name, problem });
            }
        }
        Ok(())
    }
}

impl Pair {
    /// Pairs of `chosen` and `rejected` answers, the reference being `network`.
    ///
    /// # Errors
    ///
    /// As [`score::score`].
    pub fn under(network: &Network, pairs: Vec<(Example, Example)>, threads: usize) -> Result<Vec<Self>, LmError> {
        let mut sequences: Vec<(&[u32], usize)> = Vec::with_capacity(2 * pairs.len());
        for (chosen, rejected) in &pairs {
            sequences.extend([chosen, rejected].map(|example| (example.tokens.as_slice(), example.first_target)));
        }
        let scores = score::score(network, &sequences, threads)?;
        let pair = |((chosen, rejected), scores): ((Example, Example), &[score::SequenceScore])| {
            let reference = scores.iter().map(score::SequenceScore::total).reduce(|first, second| first - second);
            Self { chosen, rejected, reference: reference.unwrap_or_default() }
        };
        Ok(pairs.into_iter().zip(scores.chunks_exact(2)).map(pair).collect())
    }

    fn rows(&self) -> usize {
        self.chosen.rows() + self.rejected.rows()
    }
}

impl Trainer {
    /// One step of AdamW on the mean loss over `pairs`.
    ///
    /// # Errors
    ///
    /// There are none, or an answer is too long, empty or holds an unknown token, or a setting makes no sense; nothing is
    /// changed then.
    pub fn prefer(&mut self, pairs: &[&Pair], how: &Preference) -> Result<PreferenceReport, LmError> {
        how.check()?;
        for (index, pair) in pairs.iter().enumerate() {
            for example in [&pair.chosen, &pair.rejected] {
                graph::check(&self.network.config, index, &example.tokens, example.first_target)?;
            }
        }
        if pairs.is_empty() {
            return Err(LmError::Sequence { index: 0, problem: "the batch is empty".into() });
        }
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.rows()).collect();
        let targets: usize = pairs.iter().map(|pair| pair.chosen.targets()).sum();
        let shares = Shares { pair: how.beta / pairs.len() as f64, token: how.likelihood / targets as f64 };
        let prefer = Prefer { pairs, beta: how.beta, shares };
        let sums = self.engine.compute(&self.network, self.adapting.as_ref(), None, &lengths, &prefer)?.sums;
        let count = pairs.len() as f64;
        let cross_entropy = sums.cross_entropy / targets as f64;
        let Moved { grad_norm, rate } = self.move_weights()?;
        Ok(PreferenceReport {
            step: self.steps,
            loss: sums.loss / count + how.likelihood * cross_entropy,
            margin: sums.margin / count,
            won: sums.won,
            pairs: pairs.len() as u64,
            cross_entropy,
            rows: lengths.iter().sum::<usize>() as u64,
            grad_norm,
            learning_rate: rate,
            applied: grad_norm.is_finite(),
        })
    }
}

/// What the gradient of a logarithm weighs.
#[derive(Debug, Clone, Copy)]
struct Shares {
    /// Of a pair's answers, times how wrong the pair is.
    pair: f64,
    /// Of a token of a chosen answer.
    token: f64,
}

/// Learning from pairs.
struct Prefer<'a> {
    pairs: &'a [&'a Pair],
    beta: f64,
    shares: Shares,
}

impl Job for Prefer<'_> {
    fn run<D: Device>(&self, at: &At<'_, D>, worker: &mut Worker<D>, members: &[usize]) {
        let Self { pairs, beta, shares } = *self;
        let Worker { tape, keep, pack, gradient, room, sums, .. } = worker;
        fill(pack, pairs, members);
        graph::forward(at.device, &at.model, pack, tape, *keep);
        graph::pick(at.device, &at.model, pack, tape);
        // The logarithms of both answers must be known before the gradient of either is.
        let mut totals = vec![[0.0; 2]; pairs.len()];
        graph::logprobs(at.device, &at.model, pack, tape, |target, logprob, _| {
            totals[target.sequence / 2][target.sequence % 2] += f64::from(logprob);
        });
        let mut wrong = vec![0.0; pairs.len()];
        for &index in members {
            let [chosen, rejected] = totals[index];
            let margin = chosen - rejected - pairs[index].reference;
            // -ln sigma(x) = ln(1 + e^-x), and its slope is -sigma(-x).
            let x = beta * margin;
            sums.loss += if x > 0.0 { (-x).exp().ln_1p() } else { x.exp().ln_1p() - x };
            sums.margin += margin;
            sums.won += u64::from(margin > 0.0);
            sums.cross_entropy -= chosen;
            wrong[index] = 1.0 / (1.0 + x.exp());
        }
        let weight = |target: &Target| {
            let pull = shares.pair * wrong[target.sequence / 2];
            let weight = if target.sequence.is_multiple_of(2) { pull + shares.token } else { -pull };
            weight as f32
        };
        // Without a teacher at its place a target counts by its cross-entropy alone.
        let aim = Aim { share: 0.0, divergence: Divergence::ForwardKl, temperature: 1.0 };
        at.into(gradient, room, |sink| {
            graph::loss(at.device, &at.model, pack, tape, |_| None, &aim, weight, sink);
            graph::backward(at.device, &at.model, pack, tape, sink, |_, _| ());
        });
    }
}

/// Lays the answers of some pairs end to end: those of pair `i` are the sequences `2 i` and `2 i + 1`.
fn fill(pack: &mut Pack, pairs: &[&Pair], members: &[usize]) {
    pack.clear();
    for &index in members {
        let Pair { chosen, rejected, .. } = pairs[index];
        pack.push(2 * index, &chosen.tokens, chosen.first_target);
        pack.push(2 * index + 1, &rejected.tokens, rejected.first_target);
    }
}
