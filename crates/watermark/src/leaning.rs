use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mark::{Mark, Scheme, Value};

/// Weights below this say nothing and are left out.
const SMALLEST: f64 = 1e-4;
/// Steps of the search for the best stake; each leaves a part of 0.618 of where it may be.
const STEPS: usize = 30;

/// Asks whether a model *leans* towards the tokens that a key favours: over all windows, the sum of weight times value, where
/// a weight says how much more probable a token is to the model than to others.
///
/// H0: the weights are independent of the key: the model was not trained on marked text, and the text that it was shown is
/// unmarked. Random is the key alone. Under it the values are independent, each with its known distribution, so for every
/// stake `s > 0` the probability of a sum of `t` is at most `E exp(s sum) / exp(s t)` (Chernoff 1952), and so at most the
/// least of them. That is an upper bound for any number of pairs and any weights: it errs towards the model that is asked.
#[derive(Debug, Clone)]
pub struct Leaning<'mark> {
    mark: &'mark Mark,
    /// By window and token. The order makes the sum the same in every run.
    weights: BTreeMap<(Box<[u32]>, u32), f64>,
}

/// How a model leans.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lean {
    /// Different pairs of window and token with a weight.
    pub pairs: u64,
    /// Sum of weight times value less its mean.
    pub sum: f64,
    /// Its standard deviation by chance.
    pub deviation: f64,
    /// An upper bound of P(a sum as large by chance).
    pub p_bound: f64,
    /// Its decimal logarithm.
    pub log10_p_bound: f64,
}

impl<'mark> Leaning<'mark> {
    /// Nothing weighed so far.
    pub fn new(mark: &'mark Mark) -> Self {
        Self { mark, weights: BTreeMap::new() }
    }

    /// Weighs what a model finds likely after `before`, as tokens with the logarithms of their probabilities, beside what a
    /// `reference` that never saw marked text finds likely there.
    pub fn place(&mut self, before: &[u32], model: &[(u32, f32)], reference: &[(u32, f32)]) {
        for (found, sign) in [(model, 1.0), (reference, -1.0)] {
            found.iter().for_each(|(token, ln)| self.weigh(before, *token, sign * f64::from(ln.exp())));
        }
    }

    /// Weighs `token` after `before`; weights of the same pair add up.
    pub fn weigh(&mut self, before: &[u32], token: u32, weight: f64) {
        let Some(start) = before.len().checked_sub(self.mark.window()) else { return };
        if weight.is_finite() && weight.abs() >= SMALLEST {
            *self.weights.entry((before[start..].into(), token)).or_default() += weight;
        }
    }

    /// The sum of all that was weighed.
    pub fn lean(&self) -> Lean {
        let (mut sum, mut square, mut largest) = (0.0, 0.0, 0.0_f64);
        for ((window, token), &weight) in &self.weights {
            let Some(window) = self.mark.after(window) else { continue };
            let value = window.value(*token);
            sum += weight * (value.counts() - self.mean(value));
            square += weight * weight;
            largest = largest.max(weight.abs());
        }
        let deviation = (square * self.variance()).sqrt();
        let log10_p_bound = self.ln_bound(sum, largest) / std::f64::consts::LN_10;
        let p_bound = 10_f64.powf(log10_p_bound).max(anbiq_statistics::SMALLEST_P);
        Lean { pairs: self.weights.len() as u64, sum, deviation, p_bound, log10_p_bound }
    }

    /// About the least logarithm of the bound over the stakes, at most 0. Every stake gives a bound that holds; the logarithm is
    /// convex in the stake, so a golden-section search comes near the best one.
    fn ln_bound(&self, sum: f64, largest: f64) -> f64 {
        if sum <= 0.0 || largest <= 0.0 {
            return 0.0;
        }
        let exponent = |stake: f64| {
            let terms = self.weights.values().map(|&weight| self.ln_moment(stake * weight));
            terms.sum::<f64>() - stake * sum
        };
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        // A stake of 1 over the largest weight would make the expectation of an exponential variable infinite.
        let (mut low, mut high) = (0.0, (1.0 - 1e-9) / largest);
        let (mut one, mut two) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
        let (mut at_one, mut at_two) = (exponent(one), exponent(two));
        for _ in 0..STEPS {
            if at_one <= at_two {
                (high, two, at_two) = (two, one, at_one);
                one = high - GOLDEN * (high - low);
                at_one = exponent(one);
            } else {
                (low, one, at_one) = (one, two, at_two);
                two = low + GOLDEN * (high - low);
                at_two = exponent(two);
            }
        }
        at_one.min(at_two).min(0.0)
    }

    /// ln E exp(`x` (value less its mean)).
    fn ln_moment(&self, x: f64) -> f64 {
        match self.mark.scheme() {
            Scheme::Gumbel => -2.0 * ((-x).ln_1p() + x),
            Scheme::Green { share, .. } => (share * x.exp_m1()).ln_1p() - share * x,
        }
    }

    const fn mean(&self, value: Value) -> f64 {
        match (value, self.mark.scheme()) {
            (Value::Green(_), Scheme::Green { share, .. }) => share,
            _ => 2.0,
        }
    }

    const fn variance(&self) -> f64 {
        match self.mark.scheme() {
            Scheme::Gumbel => 2.0,
            Scheme::Green { share, .. } => share * (1.0 - share),
        }
    }
}
