use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use anbiq_statistics::SMALLEST_P;
use anbiq_statistics::special::{ln_binomial_upper_tail, ln_gammaincc};
use serde::{Deserialize, Serialize};

use crate::mark::{Mark, Scheme, Value};

/// Counts how a corpus of tokens fits a key, each pair of window and token once.
///
/// H0: the corpus is independent of the key. Random is the key alone. Under it the values of different pairs are independent
/// and uniform, so the p-value is exact, whatever the corpus, its length, language or style.
///
/// What breaks H0 without any training: a text that was written by somebody who had *marked* text before him may quote it.
/// See [`Reading`](crate::Reading).
#[derive(Debug, Clone)]
pub struct Tally<'mark> {
    mark: &'mark Mark,
    seen: HashSet<u64, BuildHasherDefault<Ready>>,
    pairs: u64,
    repeated: u64,
    sum: f64,
}

/// How a corpus fits a key.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Different pairs of window and token.
    pub pairs: u64,
    /// Pairs that were there before, and were not counted again.
    pub repeated: u64,
    /// The statistic: green pairs, or the sum of `-ln(1 - r)` over both keys.
    pub statistic: f64,
    /// What it is by chance, on average.
    pub expected: f64,
    /// P(a statistic as large by chance), exact.
    pub p_value: f64,
    /// Its decimal logarithm, which goes on where the p-value stops.
    pub log10_p: f64,
}

impl<'mark> Tally<'mark> {
    /// Nothing counted so far.
    pub fn new(mark: &'mark Mark) -> Self {
        Self { mark, seen: HashSet::default(), pairs: 0, repeated: 0, sum: 0.0 }
    }

    /// Counts the tokens of one text, of which the first ones only make windows.
    pub fn text(&mut self, tokens: &[u32]) {
        for place in self.mark.window()..tokens.len() {
            self.pair(&tokens[..place], tokens[place]);
        }
    }

    /// Counts `token` after `before`, of which the last ones are the window: what a model says, for example, goes on like.
    pub fn pair(&mut self, before: &[u32], token: u32) {
        let Some(window) = self.mark.after(before) else { return };
        if !self.seen.insert(window.pair(token)) {
            self.repeated += 1;
            return;
        }
        self.add(window.value(token));
    }

    fn add(&mut self, value: Value) {
        self.pairs += 1;
        self.sum += value.counts();
    }

    /// How all of it fits the key.
    pub fn detect(&self) -> Detection {
        Detection::of(self.mark.scheme(), self.pairs, self.repeated, self.sum)
    }
}

impl Detection {
    /// Of a `statistic` over so many `pairs` under `scheme`: whoever has these alone computes the same tail.
    pub fn of(scheme: Scheme, pairs: u64, repeated: u64, statistic: f64) -> Self {
        let count = pairs as f64;
        let (expected, ln_p) = match (scheme, pairs) {
            (_, 0) => (0.0, 0.0),
            // A sum of 2n exponential variables.
            (Scheme::Gumbel, _) => (2.0 * count, ln_gammaincc(2.0 * count, statistic)),
            (Scheme::Green { share, .. }, _) => (share * count, ln_binomial_upper_tail(statistic as u64, pairs, share)),
        };
        let ln_p = ln_p.min(0.0);
        Self {
            pairs,
            repeated,
            statistic,
            expected,
            p_value: ln_p.exp().max(SMALLEST_P),
            log10_p: ln_p / std::f64::consts::LN_10,
        }
    }
}

/// Numbers that are hashes already are not hashed again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
