//! The network as a computation on many rows at once, forward and backward.
//!
//! A [`Pack`] lays several sequences end to end as rows of one matrix, so that the large products see many rows
//! however short the sequences are; attention and positions stay within a sequence. Everything a pass needs to
//! remember lies in a [`Tape`], which is used again and again: after the first pass nothing is allocated.

mod attention;
mod backward;
mod divergence;
mod forward;
mod head;
mod heads;
mod linear;
mod rotary;
mod sink;

use std::ops::Range;

pub(crate) use backward::backward;
pub(crate) use divergence::{Aim, Classes};
pub(crate) use forward::{forward, pick};
pub(crate) use head::{Loss, logits, logits_of_two, loss};
pub(crate) use heads::norm as norm_heads;
pub(crate) use rotary::Rotary;
pub(crate) use sink::{Linear, Norm, Sink};

use crate::{Config, LmError};

/// Several sequences laid end to end.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    /// The input token of each row.
    pub(crate) tokens: Vec<u32>,
    /// The position of each row within its sequence.
    pub(crate) positions: Vec<u32>,
    /// The rows of each sequence.
    pub(crate) spans: Vec<Range<usize>>,
    /// What is to be predicted, in the order of the rows.
    pub(crate) targets: Vec<Target>,
}

/// A token that is to be predicted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// From the output of which row.
    pub(crate) row: usize,
    /// Which token.
    pub(crate) token: u32,
    /// The sequence it is part of, as its maker counts.
    pub(crate) sequence: usize,
    /// Counted from the first target of its sequence.
    pub(crate) place: usize,
}

impl Pack {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.spans.clear();
        self.targets.clear();
    }

    /// Adds a sequence that passed [`check`]; its tokens from `first_target` on are targets. The last token is never an
    /// input, since nothing follows it.
    pub(crate) fn push(&mut self, sequence: usize, tokens: &[u32], first_target: usize) {
        let start = self.tokens.len();
        let inputs = tokens.len() - 1;
        self.tokens.extend_from_slice(&tokens[..inputs]);
        self.positions.extend(0..inputs as u32);
        self.spans.push(start..start + inputs);
        let targets = tokens.iter().enumerate().skip(first_target);
        self.targets.extend(targets.map(|(at, &token)| Target {
            row: start + at - 1,
            token,
            sequence,
            place: at - first_target,
        }));
    }

    pub(crate) fn rows(&self) -> usize {
        self.tokens.len()
    }
}

/// Says why a network of this shape cannot compute a sequence, if it cannot.
pub(crate) fn check(config: &Config, index: usize, tokens: &[u32], first_target: usize) -> Result<(), LmError> {
    let wrong = |problem: String| Err(LmError::Sequence { index, problem });
    if first_target == 0 || first_target >= tokens.len() {
        return wrong(format!(
            "its first target {first_target} must be at least 1 and below its length {}",
            tokens.len()
        ));
    }
    // The last token is only predicted, so it takes no position.
    if tokens.len() - 1 > config.max_positions {
        return wrong(format!("{} tokens are more than the model's {}", tokens.len(), config.max_positions));
    }
    match tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
        Some(token) => wrong(format!("token {token} is not among the {} of the vocabulary", config.vocab_size)),
        None => Ok(()),
    }
}

/// Everything that passes over packs remember, for one thread.
#[derive(Debug)]
pub(crate) struct Tape {
    rotary: Rotary,
    layers: Vec<LayerTape>,
    /// The residual stream, `[rows, d]`; on the way back its gradient.
    stream: Vec<f32>,
    /// The residual stream at the rows that predict targets, `[targets, d]`.
    picked: Vec<f32>,
    /// The same after the last norm.
    normed: Vec<f32>,
    normed_inverse: Vec<f32>,
    /// Gradient of `normed`.
    d_normed: Vec<f32>,
    /// A normalised stream, `[rows, d]`.
    hidden: Vec<f32>,
    /// Gradient of `hidden`.
    d_hidden: Vec<f32>,
    /// Output of the gated unit, `[rows, ffn]`; on the way back its gradient.
    gated: Vec<f32>,
    /// Gradient of attention's output, `[rows, heads * head_dim]`.
    d_context: Vec<f32>,
    /// Gradient of queries, keys and values.
    d_qkv: Vec<f32>,
    /// Attention scores of one tile.
    scores: Vec<f32>,
    /// Gradient of `scores`.
    d_scores: Vec<f32>,
    /// Inner products of attention's output and its gradient.
    shared: Vec<f32>,
    /// Gradient of the heads of one row.
    spare: Vec<f32>,
    /// Logits of some rows.
    logits: Vec<f32>,
    /// Logits and exponentials of a teacher's tokens.
    taken: Vec<f32>,
    classes: Classes,
}

/// What a layer remembers for the way back.
#[derive(Debug, Default)]
struct LayerTape {
    /// The residual stream before attention, `[rows, d]`.
    before: Vec<f32>,
    before_inverse: Vec<f32>,
    /// The residual stream between attention and the feed-forward part, `[rows, d]`.
    middle: Vec<f32>,
    middle_inverse: Vec<f32>,
    /// Queries, keys and values, normed and rotated, `[rows, (heads + 2 kv_heads) * head_dim]`.
    qkv: Vec<f32>,
    /// Queries and keys before their norms, where they have some, `[rows, (heads + kv_heads) * head_dim]`.
    plain: Vec<f32>,
    plain_inverse: Vec<f32>,
    /// Attention's output before its projection, `[rows, heads * head_dim]`.
    context: Vec<f32>,
    /// Logarithms of the softmax sums, `[heads, rows]`.
    logsums: Vec<f32>,
    /// Gates and values, `[rows, 2 ffn]`; on the way back their gradients.
    gate_up: Vec<f32>,
}

impl Tape {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            rotary: Rotary::new(config),
            layers: Vec::new(),
            stream: Vec::new(),
            picked: Vec::new(),
            normed: Vec::new(),
            normed_inverse: Vec::new(),
            d_normed: Vec::new(),
            hidden: Vec::new(),
            d_hidden: Vec::new(),
            gated: Vec::new(),
            d_context: Vec::new(),
            d_qkv: Vec::new(),
            scores: Vec::new(),
            d_scores: Vec::new(),
            shared: Vec::new(),
            spare: Vec::new(),
            logits: Vec::new(),
            taken: Vec::new(),
            classes: Classes::default(),
        }
    }
}

/// The first `length` numbers of a buffer that only ever grows; what stands in them is left over from before.
fn room(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}
