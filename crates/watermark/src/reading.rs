use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use anbiq_statistics::SMALLEST_P;
use serde::{Deserialize, Serialize};

use crate::mark::{Mark, Scheme, Value};
use crate::tally::Ready;

/// How a bettor favours large values: with `k` for `k - 1` more heads than a fair coin would have. Each starts with an equal
/// part of a fortune of 1.
const BETTORS: [f64; 8] = [1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 4.0];

/// A model that reads *marked* text and says at each place how it would go on.
///
/// What it says is then not independent of the key, though it was never trained on marked text: it can repeat what it has
/// just read. So a place counts only where its window was never met before, neither in this text nor in any text so far,
/// prompts included: of the function after that window nothing was ever seen, so its value at whatever the model says is
/// uniform given all before. How many places count depends on the text and so on the key; hence no sum over a number that was
/// fixed beforehand, but a bet on each place (Ville 1939): P(the fortune ever reaches 1/a) <= a under H0, whenever one
/// stops.
///
/// H0: the model's training is independent of the key. Random is the key alone. Texts come in the order in which they were
/// served, so that whatever a customer took from one of them into a later prompt was met before.
#[derive(Debug, Clone)]
pub struct Reading<'mark> {
    mark: &'mark Mark,
    met: HashSet<u64, BuildHasherDefault<Ready>>,
    ln_fortunes: [f64; BETTORS.len()],
    ln_largest: f64,
    places: u64,
    sum: f64,
}

/// How what a model said while reading fits a key.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// Places that counted.
    pub places: u64,
    /// The sum of their values less the mean, in standard deviations: for the eye alone.
    pub deviations: f64,
    /// Decimal logarithm of the fortune at the end: an e-value.
    pub log10_e: f64,
    /// One over the largest fortune on the way: a p-value.
    pub p_value: f64,
}

impl<'mark> Reading<'mark> {
    /// Nothing read so far.
    pub fn new(mark: &'mark Mark) -> Self {
        Self { mark, met: HashSet::default(), ln_fortunes: [0.0; BETTORS.len()], ln_largest: 0.0, places: 0, sum: 0.0 }
    }

    /// A text of `tokens`, whose part before `first` is the prompt; `says[i]` is what the model finds likeliest at the place
    /// `first + i`, before it reads what stands there.
    pub fn text(&mut self, tokens: &[u32], first: usize, says: &[u32]) {
        for place in 0..tokens.len() {
            let Some(window) = self.mark.after(&tokens[..place]) else { continue };
            let fresh = self.met.insert(window.id);
            if let Some(&said) = place.checked_sub(first).and_then(|place| says.get(place)).filter(|_| fresh) {
                self.bet(window.value(said));
            }
        }
    }

    fn bet(&mut self, value: Value) {
        self.places += 1;
        self.sum += value.counts();
        for (fortune, k) in self.ln_fortunes.iter_mut().zip(BETTORS) {
            *fortune += match (value, self.mark.scheme()) {
                // The density k r^(k-1) against that of a uniform number, the stake divided between the keys.
                (Value::Gumbel(uniform), _) => {
                    uniform.iter().map(|r| 0.5 * k * r.powf(k - 1.0)).sum::<f64>().max(f64::MIN_POSITIVE).ln()
                }
                (Value::Green(green), Scheme::Green { share, .. }) => {
                    // The share of green tokens that this bettor expects: the odds times k.
                    let expects = k * share / (1.0 + (k - 1.0) * share);
                    if green { (expects / share).ln() } else { ((1.0 - expects) / (1.0 - share)).ln() }
                }
                (Value::Green(_), Scheme::Gumbel) => 0.0,
            };
        }
        self.ln_largest = self.ln_largest.max(self.ln_fortune());
    }

    /// Logarithm of the mean of the bettors' fortunes.
    fn ln_fortune(&self) -> f64 {
        let largest = self.ln_fortunes.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self.ln_fortunes.iter().map(|fortune| (fortune - largest).exp()).sum();
        largest + (sum / BETTORS.len() as f64).ln()
    }

    /// What was found.
    pub fn read(&self) -> Read {
        let places = self.places as f64;
        let (mean, variance) = match self.mark.scheme() {
            Scheme::Gumbel => (2.0, 2.0),
            Scheme::Green { share, .. } => (share, share * (1.0 - share)),
        };
        let deviations = if self.places == 0 { 0.0 } else { (self.sum - mean * places) / (variance * places).sqrt() };
        Read {
            places: self.places,
            deviations,
            log10_e: self.ln_fortune() / std::f64::consts::LN_10,
            p_value: (-self.ln_largest).exp().clamp(SMALLEST_P, 1.0),
        }
    }
}
