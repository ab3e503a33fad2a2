use std::fmt;

use anbiq_domain::{Digest, KeyedHasher};
use anbiq_statistics::siphash::SipHash;
use serde::{Deserialize, Serialize};

use crate::MarkError;

/// Longest window.
const LONGEST: usize = 8;

/// How tokens are nudged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    /// Of all tokens the one that wins an exponential race is taken, whose times are keyed: token `a` of probability `p`
    /// needs `-ln(r_a) / p`, `r_a` uniform in 0..1 (the Gumbel trick; Aaronson 2022). Over the keys the winner has exactly the
    /// model's distribution. With one key the same prompt would always be answered alike; so there are two, and a fair coin
    /// of each token, which is not keyed, says which one counts. It is tossed before anything is looked at, and so every
    /// answer has the model's distribution, and two answers differ.
    Gumbel,
    /// Before a token is drawn, the logits of *green* tokens are raised. Each token is green after each window with
    /// probability `share`, by the key (Kirchenbauer et al. 2023, with a coin for each token instead of a fixed number).
    Green {
        /// Probability of a token to be green, above 0 and below 1.
        share: f64,
        /// How much is added to the logits of green tokens, in nats.
        bias: f64,
    },
}

/// A watermark: a scheme under a key.
#[derive(Clone)]
pub struct Mark {
    scheme: Scheme,
    window: usize,
    /// Two halves of the key of a window.
    halves: [SipHash; 2],
    commitment: Digest,
}

/// The pseudo-random function after one window.
#[derive(Debug, Clone)]
pub struct Window<'mark> {
    mark: &'mark Mark,
    hash: SipHash,
    /// Names the window among all others, for counting it once.
    pub(crate) id: u64,
}

/// What the key says of a token after a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// The two uniform numbers, of either key, in [0, 1).
    Gumbel([f64; 2]),
    /// Is it green?
    Green(bool),
}

impl Value {
    /// What it adds to the statistic: of two uniform numbers the sum of `-ln(1 - r)`, which has the distribution Gamma(2, 1)
    /// under H0; of a green token 1.
    pub fn counts(self) -> f64 {
        match self {
            Self::Gumbel(uniform) => -uniform.iter().map(|r| (-r).ln_1p()).sum::<f64>(),
            Self::Green(green) => f64::from(u8::from(green)),
        }
    }
}

impl Mark {
    /// The watermark of this scheme, window (in tokens) and key.
    ///
    /// # Errors
    ///
    /// A number makes no sense.
    pub fn new(scheme: Scheme, window: usize, key: &[u8; 32]) -> Result<Self, MarkError> {
        if !(1..=LONGEST).contains(&window) {
            return Err(MarkError::Window(window));
        }
        let mut words = format!("gumbel {window}");
        if let Scheme::Green { share, bias } = scheme {
            if !(share > 0.0 && share < 1.0) {
                return Err(MarkError::Share(share));
            }
            if !(bias > 0.0 && bias <= 20.0) {
                return Err(MarkError::Bias(bias));
            }
            words = format!("green {window} {share} {bias}");
        }
        let keyed = KeyedHasher::new(key);
        let halves = ["first half", "second half"].map(|label| {
            let bytes = keyed.bytes(label, b"anbiq watermark v1");
            let number =
                |from: usize| bytes[from..from + 8].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            SipHash::new(number(0), number(8))
        });
        let secret = keyed.bytes("commitment", words.as_bytes());
        let commitment = Digest::of_parts(&[b"anbiq watermark v1\0", words.as_bytes(), b"\0", &secret]);
        Ok(Self { scheme, window, halves, commitment })
    }

    /// How tokens are nudged.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// How many tokens before a token its value depends on.
    pub const fn window(&self) -> usize {
        self.window
    }

    /// A digest that says nothing of the key, and that fits this scheme, window and key alone: to be handed out before any
    /// text is marked.
    pub const fn commitment(&self) -> Digest {
        self.commitment
    }

    /// The function after the last tokens of `before`; `None` where they are fewer than the window.
    pub fn after(&self, before: &[u32]) -> Option<Window<'_>> {
        let window = &before[before.len().checked_sub(self.window)?..];
        let mut bytes = [0; 4 * LONGEST];
        for (place, token) in bytes.chunks_exact_mut(4).zip(window) {
            place.copy_from_slice(&token.to_le_bytes());
        }
        let [one, two] = self.halves.each_ref().map(|half| half.hash(&bytes[..4 * self.window]));
        Some(Window { mark: self, hash: SipHash::new(one, two), id: one })
    }
}

impl Window<'_> {
    /// What the key says of `token` here.
    pub fn value(&self, token: u32) -> Value {
        match self.mark.scheme {
            Scheme::Gumbel => Value::Gumbel([0, 1].map(|key| self.uniform(token, key))),
            Scheme::Green { share, .. } => Value::Green(self.uniform(token, 0) < share),
        }
    }

    /// Uniform in [0, 1) under the first or the second key.
    pub(crate) fn uniform(&self, token: u32, key: u64) -> f64 {
        (self.hash.hash_number(u64::from(token) | key << 32) >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Names the pair of this window and `token` among all others.
    pub(crate) fn pair(&self, token: u32) -> u64 {
        self.id ^ (u64::from(token) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({:?}, window {}, commitment {})", self.scheme, self.window, self.commitment.short())
    }
}
