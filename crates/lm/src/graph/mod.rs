//! The network as a computation on many rows at once, forward and backward.
//!
//! A [`Pack`] lays several sequences end to end as rows of one matrix, so that the large products see many rows
//! however short the sequences are; attention and positions stay within a sequence. Everything a pass needs to
//! remember lies in a [`Tape`], which is used again and again: after the first pass nothing is allocated.
//!
//! What stands here is written once, for whatever [`Device`] computes it.

mod backward;
mod forward;
mod head;
mod linear;
mod model;
mod rotary;
mod sink;
mod states;

use std::ops::Range;

pub(crate) use backward::backward;
use forward::forward_seen;
pub(crate) use forward::{Keep, forward, pick};
pub(crate) use head::{logits, logits_of_two, logprobs, loss, top};
pub(crate) use model::Model;
pub(crate) use rotary::Rotary;
use rotary::Turns;
pub(crate) use sink::{Linear, Norm, Sink, Whole};
pub use states::Measure;
pub(crate) use states::{Guided, Pulls};

use crate::device::{Device, Stretch};
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
pub(crate) struct Tape<D: Device> {
    rotary: Turns<D>,
    laid: D::Laid,
    /// What the last pass kept.
    kept: Keep,
    /// The residual stream before each layer, `[rows, d]`.
    inputs: Vec<D::Buffer>,
    /// Of each layer where everything is kept, otherwise of the last one that was computed.
    layers: Vec<LayerTape<D::Buffer>>,
    /// The residual stream, `[rows, d]`; on the way back its gradient.
    stream: D::Buffer,
    /// The residual stream at the rows that predict targets, `[targets, d]`.
    picked: D::Buffer,
    /// The same after the last norm.
    normed: D::Buffer,
    normed_inverse: D::Buffer,
    /// Gradient of `normed`.
    d_normed: D::Buffer,
    /// A normalised stream, `[rows, d]`.
    hidden: D::Buffer,
    /// Gradient of `hidden`.
    d_hidden: D::Buffer,
    /// Output of the gated unit, `[rows, ffn]`; on the way back its gradient.
    gated: D::Buffer,
    /// Gradient of attention's output, `[rows, heads * head_dim]`.
    d_context: D::Buffer,
    /// Gradient of queries, keys and values.
    d_qkv: D::Buffer,
    /// Logits of some rows.
    logits: D::Buffer,
    /// What the device needs on the way, and the sums of the losses.
    pub(crate) scratch: D::Scratch,
}

/// What a layer remembers for the way back.
#[derive(Debug, Default)]
struct LayerTape<B> {
    before_inverse: B,
    /// The residual stream between attention and the feed-forward part, `[rows, d]`.
    middle: B,
    middle_inverse: B,
    /// Queries, keys and values, normed and rotated, `[rows, (heads + 2 kv_heads) * head_dim]`.
    qkv: B,
    /// Queries and keys before their norms, where they have some, `[rows, (heads + kv_heads) * head_dim]`.
    plain: B,
    plain_inverse: B,
    /// Attention's output before its projection, `[rows, heads * head_dim]`.
    context: B,
    /// Logarithms of the softmax sums, `[heads, rows]`.
    logsums: B,
    /// Gates and values, `[rows, 2 ffn]`; on the way back their gradients.
    gate_up: B,
}

impl<D: Device> Tape<D> {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            rotary: Turns::new(config),
            laid: D::Laid::default(),
            kept: Keep::default(),
            inputs: Vec::new(),
            layers: Vec::new(),
            stream: D::Buffer::default(),
            picked: D::Buffer::default(),
            normed: D::Buffer::default(),
            normed_inverse: D::Buffer::default(),
            d_normed: D::Buffer::default(),
            hidden: D::Buffer::default(),
            d_hidden: D::Buffer::default(),
            gated: D::Buffer::default(),
            d_context: D::Buffer::default(),
            d_qkv: D::Buffer::default(),
            logits: D::Buffer::default(),
            scratch: D::Scratch::default(),
        }
    }

    /// Begins a pass that keeps so much.
    fn begin(&mut self, config: &Config, keep: Keep) {
        self.kept = keep;
        let slots = keep.slot(config.layers.saturating_sub(1)) + 1;
        if self.layers.len() < slots {
            self.layers.resize_with(slots, LayerTape::default);
        }
        if keep != Keep::Nothing && self.inputs.len() < config.layers {
            self.inputs.resize_with(config.layers, D::Buffer::default);
        }
    }

    /// What came out of layer `layer`, counted from 1, for each of `rows` rows, before the way back begins.
    fn state(&self, config: &Config, layer: usize, rows: usize) -> &D::Slice {
        let from = if layer < config.layers { &self.inputs[layer] } else { &self.stream };
        from.part(0..rows * config.hidden_size)
    }
}
