//! Where the way back puts the gradients of weights.

use super::linear::into_weight;
use crate::Weights;
use crate::kernel::sum_rows;

/// A linear layer of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linear {
    /// Queries, keys and values as one.
    Qkv,
    /// Attention's output.
    O,
    /// Gate and its other input as one.
    GateUp,
    /// Output of the feed-forward part.
    Down,
}

/// The scale of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norm {
    /// Before attention, of a layer.
    Attention(usize),
    /// Before the feed-forward part, of a layer.
    FeedForward(usize),
    /// Of the heads of the queries, of a layer.
    Queries(usize),
    /// Of the heads of the keys, of a layer.
    Keys(usize),
    /// Before the output head.
    Last,
}

/// Takes gradients of weights and adds them to what it has.
pub(crate) trait Sink {
    /// The gradients `d_out`, `[rows, outputs]`, of what a linear layer of layer `index` made of `x`, `[rows, inputs]`.
    fn linear(&mut self, index: usize, which: Linear, d_out: &[f32], x: &[f32], rows: usize);

    /// Room to which the gradient of a scale of `size` numbers is added.
    fn scale(&mut self, which: Norm, size: usize) -> &mut [f32];

    /// Room to which the gradient of the embedding is added, where it is wanted.
    fn embed(&mut self) -> Option<&mut [f32]>;

    /// Room to which the gradient of the output head is added, where it is wanted.
    fn head(&mut self) -> Option<&mut [f32]>;
}

/// The gradient of every weight.
impl Sink for Weights {
    fn linear(&mut self, index: usize, which: Linear, d_out: &[f32], x: &[f32], rows: usize) {
        let matrix = match which {
            Linear::Qkv => self.qkv_mut(index),
            Linear::O => self.slice_mut(index, |layer| &layer.o),
            Linear::GateUp => self.gate_up_mut(index),
            Linear::Down => self.slice_mut(index, |layer| &layer.down),
        };
        into_weight(matrix, d_out, x, rows);
        let bias = match which {
            Linear::Qkv => self.qkv_bias_mut(index),
            Linear::O => self.slice_mut(index, |layer| &layer.o_bias),
            Linear::GateUp => self.gate_up_bias_mut(index),
            Linear::Down => self.slice_mut(index, |layer| &layer.down_bias),
        };
        sum_rows(bias, d_out);
    }

    fn scale(&mut self, which: Norm, _: usize) -> &mut [f32] {
        match which {
            Norm::Attention(index) => self.slice_mut(index, |layer| &layer.attn_norm),
            Norm::FeedForward(index) => self.slice_mut(index, |layer| &layer.mlp_norm),
            Norm::Queries(index) => self.slice_mut(index, |layer| &layer.q_norm),
            Norm::Keys(index) => self.slice_mut(index, |layer| &layer.k_norm),
            Norm::Last => self.norm_mut(),
        }
    }

    fn embed(&mut self) -> Option<&mut [f32]> {
        Some(self.embed_mut())
    }

    fn head(&mut self) -> Option<&mut [f32]> {
        Some(self.output_mut())
    }
}
