//! Evidence by betting: e-processes, e-values and how they are joined.
//!
//! Somebody who does not believe the null hypothesis bets against it at fair odds, item after item. Under the null
//! hypothesis the expected fortune stays at 1 whenever one stops (Ville 1939; Shafer 2021; Ramdas et al. 2023), so
//! P(the fortune ever reaches 1/a) <= a, and looking early costs nothing.

/// The shares of a fortune that are staked, each by a bettor of its own; together they start with a fortune of 1. No
/// share has to be tuned, and the best one is missed by at most ln 8 = 2.1 nats.
const STAKES: [f64; 8] = [0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.98];

/// A fortune that grows where positive differences prevail.
///
/// H0: given the magnitudes and everything before, each difference is positive with probability 1/2. Random are the
/// signs alone. Differences arrive in an order that was fixed without looking at their signs.
///
/// On difference t each bettor stakes its share times w on a positive sign, where w is the rank of the magnitude among
/// those so far, divided by t: large differences tell more. Both are known before the sign is, so every bettor's fortune
/// is a martingale that never reaches 0, and so is their mean.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SignBets {
    /// Magnitudes so far, in ascending order.
    magnitudes: Vec<f64>,
    ln_fortunes: [f64; STAKES.len()],
    ln_largest: f64,
}

impl SignBets {
    /// Fortune 1, nothing seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next difference; returns the natural logarithm of the fortune now. Zeros and NaN change nothing.
    pub fn push(&mut self, difference: f64) -> f64 {
        let magnitude = difference.abs();
        if magnitude > 0.0 {
            let rank = self.magnitudes.partition_point(|before| *before <= magnitude);
            self.magnitudes.insert(rank, magnitude);
            let weight = (rank + 1) as f64 / self.magnitudes.len() as f64;
            for (fortune, stake) in self.ln_fortunes.iter_mut().zip(STAKES) {
                *fortune += (stake * weight * difference.signum()).ln_1p();
            }
            self.ln_largest = self.ln_largest.max(self.ln_fortune());
        }
        self.ln_fortune()
    }

    /// The natural logarithm of the fortune: an e-value at every moment, also one chosen by looking.
    pub fn ln_fortune(&self) -> f64 {
        ln_mean_exp(&self.ln_fortunes)
    }

    /// The natural logarithm of the largest fortune so far. One that reaches ln(1/a) rejects at level `a` for good.
    pub const fn ln_largest(&self) -> f64 {
        self.ln_largest
    }
}

/// The natural logarithm of the fortune of [`SignBets`] after each of `differences`.
pub fn sign_path(differences: &[f64]) -> Vec<f64> {
    let mut bets = SignBets::new();
    differences.iter().map(|difference| bets.push(*difference)).collect()
}

/// The e-value of a p-value: the mixture of `k p^(k-1)` over k in 0..1, `(1 - p + p ln p) / (p ln(p)^2)`
/// (Vovk and Wang 2021, section 2). Needs no choice of k; 1/2 at p = 1.
pub fn calibrate(p_value: f64) -> f64 {
    let p = p_value.clamp(crate::SMALLEST_P, 1.0);
    let ln = p.ln();
    if ln > -1e-3 {
        // Taylor's series, where the formula's digits cancel.
        return 0.5 - ln / 6.0;
    }
    (1.0 - p + p * ln) / (p * ln * ln)
}

/// The e-value `k p^(k-1)` of a p-value for a `k` in 0..1 that was chosen beforehand (Vovk and Wang 2021);
/// k = 1/2 gives `1 / (2 sqrt p)`.
pub fn calibrate_with(p_value: f64, k: f64) -> f64 {
    k * p_value.clamp(crate::SMALLEST_P, 1.0).powf(k - 1.0)
}

/// The p-value of an e-value: 1/e, at most 1 (Markov's inequality).
pub fn to_p_value(ln_e: f64) -> f64 {
    (-ln_e).exp().clamp(crate::SMALLEST_P, 1.0)
}

/// Joins e-values of *dependent* experiments: their mean is an e-value whatever the dependence. Logarithms in and out.
pub fn ln_mean(ln_e: &[f64]) -> f64 {
    if ln_e.is_empty() { 0.0 } else { ln_mean_exp(ln_e) }
}

/// Joins e-values of experiments with *independent* randomness: their product. Logarithms in and out.
pub fn ln_product(ln_e: &[f64]) -> f64 {
    ln_e.iter().sum()
}

/// The logarithm of the mean of the exponentials, without overflow.
fn ln_mean_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + (values.iter().map(|value| (value - largest).exp()).sum::<f64>() / values.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    #[test]
    fn the_fortune_seldom_ever_reaches_one_over_alpha() {
        let mut random = Seeded::new(21);
        let magnitude: [fn(&mut Seeded) -> f64; 2] =
            [|random| random.normal(), |random| (random.normal() / random.normal()).powi(3)];
        for magnitude in magnitude {
            let largest: Vec<f64> = (0..10_000)
                .map(|_| {
                    let mut bets = SignBets::new();
                    for _ in 0..200 {
                        let magnitude = magnitude(&mut random).abs();
                        bets.push(if random.chance(0.5) { magnitude } else { -magnitude });
                    }
                    bets.ln_largest()
                })
                .collect();
            for alpha in [0.5, 0.2, 0.1, 0.05, 0.01, 0.001] {
                let share = largest.iter().filter(|ln| **ln >= -f64::ln(alpha)).count() as f64 / 1e4;
                let error = (alpha * (1.0 - alpha) / 1e4_f64).sqrt();
                assert!(share <= alpha + 4.0 * error, "P(sup E >= 1/{alpha}) = {share}");
            }
        }
    }

    #[test]
    fn the_expected_fortune_is_one_over_all_signs() {
        let magnitudes = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 0.0, 8.0];
        let total: f64 = (0_u32..1 << magnitudes.len())
            .map(|signs| {
                let differences: Vec<f64> = (0..)
                    .zip(magnitudes)
                    .map(|(place, magnitude)| if signs >> place & 1 == 1 { magnitude } else { -magnitude })
                    .collect();
                sign_path(&differences).last().unwrap().exp()
            })
            .sum();
        assert!((total / f64::from(1_u32 << magnitudes.len()) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn evidence_grows_where_positives_prevail() {
        let mut random = Seeded::new(2);
        let differences: Vec<f64> = (0..1000).map(|_| random.normal() + 0.3).collect();
        let path = sign_path(&differences);
        assert_eq!(path.len(), 1000);
        assert!(path[999] > f64::ln(1e6), "{}", path[999]);
        let all: Vec<f64> = (1..=40).map(f64::from).collect();
        assert!(*sign_path(&all).last().unwrap() > f64::ln(1e6));
    }

    #[test]
    fn calibrated_p_values_are_e_values() {
        for calibrate in [calibrate, |p| calibrate_with(p, 0.5), |p| calibrate_with(p, 0.1)] {
            // The integral over 0..1 in ln p, where the integrand is smooth; at most 1.
            let (from, steps) = (-600.0, 600_000);
            let width = -from / f64::from(steps);
            let mean: f64 = (0..steps)
                .map(|step| {
                    let p = (from + (f64::from(step) + 0.5) * width).exp();
                    calibrate(p) * p * width
                })
                .sum();
            assert!(mean <= 1.0 + 1e-6 && mean > 0.99, "{mean}");
        }
        assert!((calibrate(0.9991) - calibrate(0.9989)).abs() < 1e-3);
        assert_eq!(calibrate(1.0), 0.5);
        assert!((to_p_value(f64::ln(20.0)) - 0.05).abs() < 1e-15);
    }

    #[test]
    fn joining_is_mean_or_product() {
        let (a, b) = (f64::ln(4.0), f64::ln(16.0));
        assert!((ln_mean(&[a, b]) - f64::ln(10.0)).abs() < 1e-15);
        assert!((ln_product(&[a, b]) - f64::ln(64.0)).abs() < 1e-15);
        assert_eq!(ln_mean(&[]), 0.0);
    }
}
