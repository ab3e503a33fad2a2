//! Intervals for a share.

use serde::{Deserialize, Serialize};

use crate::special;

/// An interval that covers the true share with at least, or about, the confidence asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The exact interval of Clopper and Pearson (1934): covers with probability at least `confidence`.
///
/// Random are the trials: independent, with one probability of success. No trial gives 0 to 1.
pub fn clopper_pearson(successes: u64, trials: u64, confidence: f64) -> Interval {
    let tail = 0.5 * (1.0 - confidence);
    let low = if successes == 0 {
        0.0
    } else {
        bisect(|share| special::binomial_upper_tail(successes, trials, share) < tail)
    };
    let high = if successes >= trials {
        1.0
    } else {
        bisect(|share| special::binomial_upper_tail(successes + 1, trials, share) < 1.0 - tail)
    };
    Interval { low, high }
}

/// Wilson's interval (1927): covers with probability near `confidence`, shorter than the exact one. No trial gives 0 to 1.
pub fn wilson(successes: u64, trials: u64, confidence: f64) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, z) = (trials as f64, special::normal_quantile(0.5 + 0.5 * confidence));
    let share = successes as f64 / n;
    let scale = 1.0 + z * z / n;
    let middle = (share + z * z / (2.0 * n)) / scale;
    let half = z / scale * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Interval { low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
}

/// Where in 0..1 `below` turns from true to false.
fn bisect(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_intervals_come_out() {
        // As R's binom.test and binom.confint: 8 of 10, 0 of 29, 29 of 29.
        for (successes, trials, low, high) in
            [(8, 10, 0.443_904_5, 0.974_789_3), (0, 29, 0.0, 0.119_444_9), (29, 29, 0.880_555_1, 1.0), (0, 0, 0.0, 1.0)]
        {
            let interval = clopper_pearson(successes, trials, 0.95);
            assert!((interval.low - low).abs() < 1e-6 && (interval.high - high).abs() < 1e-6, "{interval:?}");
        }
        let interval = wilson(8, 10, 0.95);
        assert!((interval.low - 0.490_162_5).abs() < 1e-6 && (interval.high - 0.943_317_8).abs() < 1e-6);
    }
}
