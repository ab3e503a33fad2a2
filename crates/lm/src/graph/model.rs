//! A network as a device has it.

use std::ops::Range;

use crate::device::{Cpu, Device, Stretch};
use crate::weights::Layout;
use crate::{Config, Layer, Network};

/// A network's numbers in the memory of a device, with what they mean.
pub(crate) struct Model<'a, D: Device> {
    pub(crate) config: &'a Config,
    layout: &'a Layout,
    data: &'a D::Slice,
}

impl<'a> Model<'a, Cpu> {
    /// The network as it is, on the processor.
    pub(crate) fn of(network: &'a Network) -> Self {
        Self::new(&network.config, network.weights.layout(), network.weights.data())
    }
}

impl<'a, D: Device> Model<'a, D> {
    /// `data` has all numbers, in the order of [`crate::Weights::data`].
    pub(crate) const fn new(config: &'a Config, layout: &'a Layout, data: &'a D::Slice) -> Self {
        Self { config, layout, data }
    }

    pub(crate) const fn layout(&self) -> &'a Layout {
        self.layout
    }

    fn at(&self, range: &Range<usize>) -> &'a D::Slice {
        self.data.part(range.clone())
    }

    pub(super) fn embed(&self) -> &'a D::Slice {
        self.at(&self.layout.embed)
    }

    pub(super) fn layer(&self, index: usize) -> Layer<&'a D::Slice> {
        self.layout.layers[index].map(|range| self.at(range))
    }

    pub(super) fn qkv(&self, index: usize) -> &'a D::Slice {
        self.at(&self.layout.qkv(index))
    }

    pub(super) fn gate_up(&self, index: usize) -> &'a D::Slice {
        self.at(&self.layout.gate_up(index))
    }

    pub(super) fn qkv_bias(&self, index: usize) -> &'a D::Slice {
        self.at(&self.layout.qkv_bias(index))
    }

    pub(super) fn gate_up_bias(&self, index: usize) -> &'a D::Slice {
        self.at(&self.layout.gate_up_bias(index))
    }

    pub(super) fn norm(&self) -> &'a D::Slice {
        self.at(&self.layout.norm)
    }

    pub(super) fn output(&self) -> &'a D::Slice {
        self.at(self.layout.output())
    }
}
