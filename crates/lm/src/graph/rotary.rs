use crate::Config;
use crate::device::{Angles, Device};

/// Cosines and sines of the rotary positions, up to the largest position met so far, times what YaRN multiplies them by.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    frequencies: Vec<f32>,
    scale: f32,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Rotary {
    pub(crate) fn new(config: &Config) -> Self {
        let (frequencies, scale) = (config.inverse_frequencies(), config.rotary_scale());
        Self { frequencies, scale, cosines: Vec::new(), sines: Vec::new() }
    }

    /// Half the width of a head: the number of angles a position.
    fn half(&self) -> usize {
        self.frequencies.len()
    }

    /// Cosines and sines, each `[positions, half]`, for at least `positions` positions.
    pub(crate) fn tables(&mut self, positions: usize) -> (&[f32], &[f32]) {
        let known = self.cosines.len() / self.half();
        for position in known..positions {
            for &frequency in &self.frequencies {
                let angle = position as f64 * f64::from(frequency);
                self.cosines.push(angle.cos() as f32 * self.scale);
                self.sines.push(angle.sin() as f32 * self.scale);
            }
        }
        (&self.cosines, &self.sines)
    }
}

/// The same in the memory of a device.
#[derive(Debug)]
pub(crate) struct Turns<D: Device> {
    rotary: Rotary,
    cosines: D::Buffer,
    sines: D::Buffer,
    /// How many numbers of each the device has.
    known: usize,
}

impl<D: Device> Turns<D> {
    pub(crate) fn new(config: &Config) -> Self {
        Self { rotary: Rotary::new(config), cosines: D::Buffer::default(), sines: D::Buffer::default(), known: 0 }
    }

    /// For at least `positions` positions.
    pub(super) fn angles(&mut self, device: &D, positions: usize) -> Angles<'_, D::Slice> {
        let half = self.rotary.half();
        let (cosines, sines) = self.rotary.tables(positions);
        if cosines.len() > self.known {
            self.known = cosines.len();
            device.put(cosines, device.room(&mut self.cosines, self.known));
            device.put(sines, device.room(&mut self.sines, self.known));
        }
        Angles { cosines: &self.cosines, sines: &self.sines, half }
    }
}
