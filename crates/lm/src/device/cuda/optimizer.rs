//! AdamW on a card.

use super::{Cuda, Memory, Numbers, float};
use crate::device::{Device, Stretch};
use crate::kernel::AdamStep;
use crate::optimizer::Optimizer;
use crate::{LmError, optimizer::Settings};

/// Blocks that sum squares; fixed, so that the sum is.
const BLOCKS: usize = 1024;
/// Blocks for a stretch of numbers that are moved alike.
const BLOCKS_A_STRETCH: usize = 8;

/// Both moments of what is trained, and which of it decays.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    first: Memory,
    second: Memory,
    /// Begin, end and whether it decays, in words of 64 bits.
    stretches: Memory,
    count: usize,
    squares: Memory,
    moves: i32,
    size: usize,
}

impl Moments {
    /// All zeros, for what `like` would move.
    pub(crate) fn new(device: &Cuda, like: &Optimizer) -> Self {
        let mut moments = Self { size: like.size(), count: like.stretches().len(), ..Self::default() };
        for moment in [&mut moments.first, &mut moments.second] {
            device.clear(device.room(moment, moments.size));
        }
        let words = |stretch: &crate::optimizer::Stretch| {
            [stretch.range.start as u64, stretch.range.end as u64, u64::from(stretch.decays)]
        };
        let table: Vec<u64> = like.stretches().iter().flat_map(words).collect();
        device.upload(&table, device.room(&mut moments.stretches, 2 * table.len()));
        device.room(&mut moments.squares, 2 * BLOCKS);
        moments
    }

    /// Moves `weights` against `gradient`. Gives the gradient's norm before clipping; where it is not finite nothing is
    /// moved.
    pub(crate) fn step(
        &mut self,
        device: &Cuda,
        weights: &mut Numbers,
        gradient: &Numbers,
        settings: &Settings,
    ) -> Result<f64, LmError> {
        let mut arguments = [gradient.address(), self.size as u64, self.squares.address()];
        device.launch("the norm of the gradient", device.kernels.squares, (BLOCKS, 1), 0, &mut arguments);
        let norm = device.download::<f64>(&self.squares, BLOCKS).into_iter().sum::<f64>().sqrt();
        device.fault()?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        self.moves = self.moves.saturating_add(1);
        let AdamStep { scale, rate, decay, beta1, beta2, unbias1, unbias2, epsilon } = settings.at(self.moves, norm);
        let mut arguments = [
            self.stretches.address(),
            float(scale),
            float(rate),
            float(decay),
            float(beta1),
            float(beta2),
            float(unbias1),
            float(unbias2),
            float(epsilon),
            gradient.address(),
            weights.address(),
            self.first.address(),
            self.second.address(),
        ];
        device.launch("AdamW", device.kernels.adam, (self.count, BLOCKS_A_STRETCH), 0, &mut arguments);
        Ok(norm)
    }

    /// How often weights were moved, and both moments.
    pub(crate) fn state(&self, device: &Cuda) -> Result<(i32, Vec<f32>, Vec<f32>), LmError> {
        let (mut first, mut second) = (vec![0.0; self.size], vec![0.0; self.size]);
        device.fetch(&self.first, &mut first)?;
        device.fetch(&self.second, &mut second)?;
        Ok((self.moves, first, second))
    }

    /// Goes on from a [`Moments::state`] of the same size.
    pub(crate) fn set_state(&mut self, device: &Cuda, moves: i32, first: &[f32], second: &[f32]) {
        self.moves = moves;
        device.put(first, self.first.part_mut(0..self.size));
        device.put(second, self.second.part_mut(0..self.size));
    }
}
