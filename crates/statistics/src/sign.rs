//! The sign test (Arbuthnot 1710).

use serde::{Deserialize, Serialize};

use crate::{SMALLEST_P, special};

/// What the sign test found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    /// Positive differences.
    pub positives: u64,
    /// Negative differences.
    pub negatives: u64,
    /// Exact, one-sided: small where positives prevail.
    pub p_value: f64,
}

/// Tests whether positive differences prevail. Zeros and NaN are dropped.
///
/// H0: every difference is as likely positive as negative, independently of the others. Random are the signs.
/// The p-value is the upper tail of Binomial(n, 1/2).
pub fn test(differences: &[f64]) -> Sign {
    let positives = differences.iter().filter(|difference| **difference > 0.0).count() as u64;
    let negatives = differences.iter().filter(|difference| **difference < 0.0).count() as u64;
    let p_value = special::binomial_upper_tail(positives, positives + negatives, 0.5).clamp(SMALLEST_P, 1.0);
    Sign { positives, negatives, p_value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cases_are_exact() {
        for (differences, expected) in [
            (&[][..], 1.0),
            (&[0.0, f64::NAN], 1.0),
            (&[1.0], 0.5),
            (&[-1.0], 1.0),
            (&[1.0, 2.0, 3.0, -1.0], 5.0 / 16.0),
            (&[9.0, 2.0, 3.0, 0.0], 0.125),
        ] {
            assert!((test(differences).p_value - expected).abs() < 1e-14, "{differences:?}");
        }
    }
}
