//! Where the way back puts the gradients of weights.

use std::ops::Range;

use super::linear::into_weight;
use crate::Layer;
use crate::device::{Device, Stretch};
use crate::weights::Layout;

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
pub(crate) trait Sink<D: Device> {
    /// The gradients `d_out`, `[rows, outputs]`, of what a linear layer of layer `index` made of `x`, `[rows, inputs]`.
    fn linear(
        &mut self,
        index: usize,
        which: Linear,
        d_out: &D::Slice,
        x: &D::Slice,
        rows: usize,
        scratch: &mut D::Scratch,
    );

    /// Room to which the gradient of a scale of `size` numbers is added.
    fn scale(&mut self, which: Norm, size: usize) -> &mut D::Slice;

    /// Room to which the gradient of the embedding is added, where it is wanted.
    fn embed(&mut self) -> Option<&mut D::Slice>;

    /// Room to which the gradient of the output head is added, where it is wanted.
    fn head(&mut self) -> Option<&mut D::Slice>;
}

/// The gradient of every weight.
pub(crate) struct Whole<'a, D: Device> {
    pub(crate) device: &'a D,
    pub(crate) layout: &'a Layout,
    /// As long as the weights, and in their order.
    pub(crate) data: &'a mut D::Slice,
}

impl<D: Device> Whole<'_, D> {
    fn at(&mut self, range: Range<usize>) -> &mut D::Slice {
        self.data.part_mut(range)
    }

    fn of_layer(&mut self, index: usize, part: fn(&Layer<Range<usize>>) -> &Range<usize>) -> &mut D::Slice {
        self.data.part_mut(part(&self.layout.layers[index]).clone())
    }
}

impl<D: Device> Sink<D> for Whole<'_, D> {
    fn linear(
        &mut self,
        index: usize,
        which: Linear,
        d_out: &D::Slice,
        x: &D::Slice,
        rows: usize,
        scratch: &mut D::Scratch,
    ) {
        let (device, layout) = (self.device, self.layout);
        let matrix = match which {
            Linear::Qkv => self.at(layout.qkv(index)),
            Linear::O => self.of_layer(index, |layer| &layer.o),
            Linear::GateUp => self.at(layout.gate_up(index)),
            Linear::Down => self.of_layer(index, |layer| &layer.down),
        };
        into_weight(device, matrix, d_out, x, rows);
        let bias = match which {
            Linear::Qkv => self.at(layout.qkv_bias(index)),
            Linear::O => self.of_layer(index, |layer| &layer.o_bias),
            Linear::GateUp => self.at(layout.gate_up_bias(index)),
            Linear::Down => self.of_layer(index, |layer| &layer.down_bias),
        };
        device.sum_rows(bias, d_out, scratch);
    }

    fn scale(&mut self, which: Norm, _: usize) -> &mut D::Slice {
        match which {
            Norm::Attention(index) => self.of_layer(index, |layer| &layer.attn_norm),
            Norm::FeedForward(index) => self.of_layer(index, |layer| &layer.mlp_norm),
            Norm::Queries(index) => self.of_layer(index, |layer| &layer.q_norm),
            Norm::Keys(index) => self.of_layer(index, |layer| &layer.k_norm),
            Norm::Last => self.at(self.layout.norm.clone()),
        }
    }

    fn embed(&mut self) -> Option<&mut D::Slice> {
        Some(self.at(self.layout.embed.clone()))
    }

    fn head(&mut self) -> Option<&mut D::Slice> {
        Some(self.at(self.layout.output().clone()))
    }
}
