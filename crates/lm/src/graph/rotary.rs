use crate::Config;

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
    pub(crate) fn half(&self) -> usize {
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
