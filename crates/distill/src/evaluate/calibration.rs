//! Calibration: is a model right as often as it is sure?

use serde::{Deserialize, Serialize};

use super::interval::Interval;

/// Bins of equal width between 0 and 1.
pub(super) const BINS: usize = 15;

/// The expected calibration error of the likeliest token (Naeini et al. 2015; Guo et al. 2017): places are put into 15 bins of
/// equal width by the probability that the model gives its likeliest token, and the difference between that probability and
/// the share of places at which it is the one that stands there is averaged over the bins, weighted by their places. It is
/// above zero by chance alone where places are few.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The error, 0 to 1.
    pub ece: f64,
    /// Bins of equal width.
    pub bins: u32,
    /// Places.
    pub places: u64,
    /// By the bootstrap over texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

/// The places of one text by bin.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sure {
    bins: [Bin; BINS],
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Bin {
    places: f64,
    confidence: f64,
    right: f64,
}

impl Sure {
    /// One place more.
    pub(super) fn add(&mut self, confidence: f64, right: bool) {
        let bin = &mut self.bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.places += 1.0;
        bin.confidence += confidence;
        bin.right += f64::from(u8::from(right));
    }

    pub(super) fn places(&self) -> f64 {
        self.bins.iter().map(|bin| bin.places).sum()
    }
}

/// The error over texts, each as often as it was drawn.
pub(super) fn ece(texts: &[Sure], times: &[u32]) -> Option<f64> {
    let mut all = [Bin::default(); BINS];
    for (text, &times) in texts.iter().zip(times).filter(|(_, times)| **times > 0) {
        let times = f64::from(times);
        for (sum, bin) in all.iter_mut().zip(&text.bins) {
            sum.places += bin.places * times;
            sum.confidence += bin.confidence * times;
            sum.right += bin.right * times;
        }
    }
    let places: f64 = all.iter().map(|bin| bin.places).sum();
    (places > 0.0).then(|| all.iter().map(|bin| (bin.confidence - bin.right).abs()).sum::<f64>() / places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_how_far_confidence_is_from_being_right() {
        let mut text = Sure::default();
        // Four places at 0.9, half of them right; two at 0.5, one right; one at 1.0, right.
        for (confidence, right) in
            [(0.9, true), (0.9, false), (0.9, true), (0.9, false), (0.5, true), (0.5, false), (1.0, true)]
        {
            text.add(confidence, right);
        }
        let found = ece(&[text.clone()], &[1]).unwrap();
        assert!((found - (4.0 * 0.4) / 7.0).abs() < 1e-12, "{found}");
        assert_eq!(ece(&[text.clone(), Sure::default()], &[3, 1]), ece(&[text], &[1]));
        assert_eq!(ece(&[], &[]), None);
    }
}
