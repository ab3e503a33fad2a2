//! How many pairs a trace needs, and what the pairs at hand could show.

use anbiq_statistics::special::{normal_cdf, normal_quantile};
use serde::{Deserialize, Serialize};

/// Win rates that the table is made for.
const WIN_RATES: [f64; 8] = [0.52, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9];

/// What so many pairs could show, if the differences are about normal. Differences have heavier tails in practice, which
/// costs up to half as many pairs again; the p-values do not rest on this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// The p-value that is aimed at: *established*, shared among the hypotheses.
    pub level: f64,
    /// Pairs at hand.
    pub n: usize,
    /// The win rate that is found with 50 % probability; `None` where these pairs are too few for any.
    pub win_rate_at_50: Option<f64>,
    /// The win rate that is found with 90 % probability.
    pub win_rate_at_90: Option<f64>,
    /// Pairs needed, by win rate.
    pub needed: Vec<Needed>,
}

/// Pairs needed for one win rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Needed {
    /// P(the suspect prefers the served draw).
    pub win_rate: f64,
    /// For 50 % power.
    pub at_50: u64,
    /// For 90 % power.
    pub at_90: u64,
}

/// The power of a trace over `n` pairs that answers for `hypotheses` hypotheses at `level`.
pub fn of(n: usize, level: f64, hypotheses: usize) -> Power {
    let level = level / hypotheses.max(1) as f64;
    Power {
        level,
        n,
        win_rate_at_50: detectable(n, level, 0.5),
        win_rate_at_90: detectable(n, level, 0.9),
        needed: WIN_RATES.map(|win_rate| needed(win_rate, level)).to_vec(),
    }
}

/// Pairs needed for one win rate at `level`.
pub fn needed(win_rate: f64, level: f64) -> Needed {
    Needed { win_rate, at_50: pairs_needed(win_rate, level, 0.5), at_90: pairs_needed(win_rate, level, 0.9) }
}

/// Pairs that the signed-rank test needs for a p-value below `level` with probability `power`, when the differences are
/// normal and positive with probability `win_rate`; `u64::MAX` for a win rate of one half or less.
///
/// Noether (1987): `(z_level + z_power)^2 / (3 (P(D1 + D2 > 0) - 1/2)^2)`. Never fewer than `log2(1 / level)`, the number at
/// which a perfect result is enough.
pub fn pairs_needed(win_rate: f64, level: f64, power: f64) -> u64 {
    if win_rate.is_nan() || win_rate <= 0.5 {
        return u64::MAX;
    }
    // The mean of a normal difference with this win rate, in standard deviations; of a sum of two, sqrt 2 times as much.
    let mean = normal_quantile(win_rate.min(1.0 - 1e-9));
    let both = normal_cdf(std::f64::consts::SQRT_2 * mean);
    let z = normal_quantile(1.0 - level) + normal_quantile(power);
    let noether = z * z / (3.0 * (both - 0.5).powi(2));
    // Positive and far below 2^64.
    noether.max(-level.log2()).ceil() as u64
}

fn detectable(n: usize, level: f64, power: f64) -> Option<f64> {
    let enough = |win_rate| pairs_needed(win_rate, level, power) <= n as u64;
    if !enough(1.0) {
        return None;
    }
    let (mut low, mut high) = (0.5, 1.0);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some((high * 1e4).ceil() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_what_was_measured() {
        // Measured on small students: win rate, signed-rank pairs for p < 1e-6 at 50 % power. Tails were heavier than normal.
        for (win_rate, measured) in [(0.567, 1159.0), (0.637, 268.0), (0.754, 72.0), (0.804, 50.0)] {
            let needed = pairs_needed(win_rate, 1e-6, 0.5) as f64;
            assert!(needed < 1.1 * measured && needed > 0.6 * measured, "{win_rate}: {needed} for {measured}");
        }
        assert_eq!(pairs_needed(0.5, 1e-6, 0.5), u64::MAX);
        assert_eq!(pairs_needed(1.0, 1e-6, 0.5), 31);
    }

    #[test]
    fn more_pairs_show_smaller_effects() {
        let few = of(100, 1e-6, 1);
        let many = of(2000, 1e-6, 1);
        assert!(few.win_rate_at_50 > many.win_rate_at_50 && many.win_rate_at_90 > many.win_rate_at_50);
        assert_eq!(of(10, 1e-6, 1).win_rate_at_50, None);
    }
}
