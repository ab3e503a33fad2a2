//! Wilcoxon's signed-rank test (1945), exact also with ties.

use serde::{Deserialize, Serialize};

use crate::SMALLEST_P;

/// Most additions that the exact distribution may cost: one or two seconds, enough for 3,000 differences
/// without ties, for 2,000 with any, and for more where the p-value is small.
const MOST_ADDITIONS: f64 = 4.1e9;

/// Largest table of the exact distribution, in entries of 8 bytes.
const MOST_ENTRIES: usize = 8_000_000;

/// What the signed-rank test found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SignedRank {
    /// Differences that are neither zero nor NaN.
    pub n: usize,
    /// Positive ones.
    pub positives: usize,
    /// Do some of them have equal magnitude?
    pub ties: bool,
    /// The sum of the positive differences' ranks by magnitude; equal ones share their mean rank.
    pub statistic: f64,
    /// One-sided: small where positive differences prevail, the large ones above all.
    pub p_value: f64,
    /// How the p-value was made.
    pub method: Method,
}

/// How a p-value was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// From the exact distribution of the statistic given the magnitudes.
    Exact,
    /// An upper bound of the exact one (Chernoff 1952): the table would be too large. Never too small.
    Bound,
}

/// Tests whether positive differences prevail. Zeros and NaN are dropped.
///
/// H0: given the magnitudes, the signs are independent and each is positive with probability 1/2. Random are the signs
/// alone; the magnitudes may have any distribution and may depend on each other. For twins the sign is the coin that
/// chose which one is served.
///
/// Given the magnitudes, the statistic is a sum of the ranks, each taken or not by a fair coin. Its distribution is
/// counted rank by rank on the scale of half ranks; all terms are positive, so no digits cancel.
pub fn test(differences: &[f64]) -> SignedRank {
    let signs = Ranked::new(differences);
    let (p_value, method) = signs.upper_tail();
    SignedRank {
        n: signs.doubled_ranks.len(),
        positives: signs.positives,
        ties: signs.ties,
        statistic: signs.positive_sum as f64 / 2.0,
        p_value: p_value.clamp(SMALLEST_P, 1.0),
        method,
    }
}

/// Twice the rank by magnitude of each difference, in their order: a whole number also where equal magnitudes share
/// their mean rank. Zeros and NaN have rank 0 and are not counted.
pub fn doubled_ranks(differences: &[f64]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..differences.len()).filter(|&index| differences[index].abs() > 0.0).collect();
    order.sort_by(|&a, &b| differences[a].abs().total_cmp(&differences[b].abs()));
    let mut ranks = vec![0; differences.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| differences[a].abs() == differences[b].abs()) {
        // The mean of the ranks before + 1 to before + len, doubled.
        let doubled = (2 * before + tied.len() + 1) as u64;
        for &index in tied {
            ranks[index] = doubled;
        }
        before += tied.len();
    }
    ranks
}

struct Ranked {
    /// In ascending order.
    doubled_ranks: Vec<u64>,
    positives: usize,
    positive_sum: u64,
    ties: bool,
}

impl Ranked {
    fn new(differences: &[f64]) -> Self {
        let ranks = doubled_ranks(differences);
        let positive = || ranks.iter().zip(differences).filter(|(_, difference)| **difference > 0.0);
        let (positives, positive_sum) = (positive().count(), positive().map(|(rank, _)| rank).sum());
        let mut doubled_ranks: Vec<u64> = ranks.iter().copied().filter(|rank| *rank > 0).collect();
        doubled_ranks.sort_unstable();
        let ties = doubled_ranks.windows(2).any(|pair| pair[0] == pair[1]);
        Self { doubled_ranks, positives, positive_sum, ties }
    }

    /// P(sum of the ranks that a fair coin takes >= what was observed).
    fn upper_tail(&self) -> (f64, Method) {
        let total: u64 = self.doubled_ranks.iter().sum();
        // The distribution is symmetric: at least w are taken as often as at most total - w.
        let rest = total - self.positive_sum;
        let exact = if rest <= self.positive_sum {
            self.lower_tail(rest)
        } else if self.positive_sum == 0 {
            Some(1.0)
        } else {
            self.lower_tail(self.positive_sum - 1).map(|below| 1.0 - below)
        };
        match exact {
            Some(p_value) => (p_value, Method::Exact),
            None => (self.chernoff(), Method::Bound),
        }
    }

    /// P(sum <= `limit`), or `None` where it costs too much. Only sums up to `limit` are kept.
    fn lower_tail(&self, limit: u64) -> Option<f64> {
        // Without ties every doubled rank is even, and the table is half as long; where all are tied it is a binomial.
        let unit = self.doubled_ranks.iter().copied().fold(0, greatest_common_divisor).max(1);
        let limit = usize::try_from(limit / unit).ok().filter(|limit| *limit < MOST_ENTRIES)?;
        let mut additions = 0.0;
        let mut reach = 0_u64;
        for rank in &self.doubled_ranks {
            reach += rank / unit;
            additions += (limit as f64).min(reach as f64);
        }
        if additions > MOST_ADDITIONS {
            return None;
        }
        let mut now = vec![0.0; limit + 1];
        let mut next = now.clone();
        now[0] = 1.0;
        let mut reach = 0;
        for rank in &self.doubled_ranks {
            // Within the table's length wherever it is used as an index.
            let rank = (rank / unit) as usize;
            reach = (reach + rank).min(limit);
            let kept = rank.min(reach + 1);
            for (next, now) in next[..kept].iter_mut().zip(&now) {
                *next = 0.5 * now;
            }
            for (next, (stay, moved)) in next[kept..=reach].iter_mut().zip(now[kept..=reach].iter().zip(&now)) {
                *next = 0.5 * (stay + moved);
            }
            std::mem::swap(&mut now, &mut next);
        }
        Some(now.iter().sum())
    }

    /// The smallest of `E exp(t S) / exp(t w)` over `t >= 0`, which bounds P(S >= w) for every such `t`.
    fn chernoff(&self) -> f64 {
        // Ranks on the scale of 1, so that t stays of order 1.
        let largest = self.doubled_ranks.last().map_or(1.0, |rank| *rank as f64);
        let ranks = || self.doubled_ranks.iter().map(|rank| *rank as f64 / largest);
        let observed = self.positive_sum as f64 / largest;
        let slope = |t: f64| ranks().map(|rank| rank / (1.0 + (-t * rank).exp())).sum::<f64>() - observed;
        // ln((1 + e^x) / 2) for x >= 0.
        let exponent =
            |t: f64| ranks().map(|rank| t * rank + (0.5 * (1.0 + (-t * rank).exp())).ln()).sum::<f64>() - t * observed;
        if slope(0.0) >= 0.0 {
            return 1.0;
        }
        let (mut low, mut high) = (0.0, 1.0);
        while slope(high) < 0.0 && high < 1e6 {
            high *= 2.0;
        }
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if slope(middle) < 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        exponent(low).min(0.0).exp()
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;
    use proptest::prelude::*;

    use super::*;

    /// The definition: all sign vectors, counted.
    fn brute_force(differences: &[f64]) -> f64 {
        let ranks: Vec<u64> = doubled_ranks(differences).into_iter().filter(|rank| *rank > 0).collect();
        let observed: u64 =
            doubled_ranks(differences).iter().zip(differences).filter(|(_, d)| **d > 0.0).map(|(rank, _)| rank).sum();
        let at_least = (0_u32..1 << ranks.len())
            .filter(|signs| {
                let sum: u64 =
                    ranks.iter().enumerate().filter(|(place, _)| signs >> place & 1 == 1).map(|(_, rank)| rank).sum();
                sum >= observed
            })
            .count();
        at_least as f64 / f64::from(1_u32 << ranks.len())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn the_p_value_is_the_share_of_all_sign_vectors(
            whole in proptest::collection::vec(-4_i8..=4, 0..=12),
            jitter in any::<bool>(),
        ) {
            // Whole numbers tie and vanish often; with jitter none tie.
            let differences: Vec<f64> = (0_u8..).zip(&whole)
                .map(|(place, value)| f64::from(*value) + if jitter { f64::from(place) * 1e-3 + 1e-4 } else { 0.0 })
                .collect();
            let found = test(&differences);
            prop_assert_eq!(found.method, Method::Exact);
            prop_assert!((found.p_value - brute_force(&differences)).abs() < 1e-13);
        }

        #[test]
        fn flipping_all_signs_mirrors_the_test(values in proptest::collection::vec(-9.0..9.0_f64, 1..40)) {
            let negated: Vec<f64> = values.iter().map(|value| -value).collect();
            let (one, other) = (test(&values), test(&negated));
            let total = (one.n * (one.n + 1)) as f64 / 2.0;
            prop_assert_eq!(one.statistic + other.statistic, total);
            // Together they cover everything, and what is observed twice.
            prop_assert!(one.p_value + other.p_value >= 1.0 - 1e-12);
        }
    }

    #[test]
    fn published_values_come_out() {
        // Hollander, Wolfe and Chicken (2014), table A.4: P(T+ >= 44) = 0.053 for n = 10; and all positive.
        let mut differences: Vec<f64> = (1..=10).map(f64::from).collect();
        assert!((test(&differences).p_value - 1.0 / 1024.0).abs() < 1e-15);
        differences[9] = -10.0;
        differences[0] = -1.0;
        let found = test(&differences);
        assert_eq!(found.statistic, 44.0);
        assert!((found.p_value - 0.052_734_375).abs() < 1e-15);
    }

    #[test]
    fn the_null_is_uniform_and_never_anti_conservative() {
        let mut random = Seeded::new(11);
        // Normal, heavy-tailed (Cauchy-like), tied, and magnitudes that depend on each other.
        let magnitude: [fn(&mut Seeded, f64) -> f64; 4] = [
            |random, _| random.normal(),
            |random, _| random.normal() / random.normal(),
            |random, _| (3.0 * random.normal()).round(),
            |random, before| before * (0.5 * random.normal()).exp(),
        ];
        for magnitude in magnitude {
            let mut p_values: Vec<f64> = (0..10_000)
                .map(|_| {
                    let mut last = 1.0;
                    let differences: Vec<f64> = (0..40)
                        .map(|_| {
                            last = magnitude(&mut random, last).abs();
                            if random.chance(0.5) { last } else { -last }
                        })
                        .collect();
                    test(&differences).p_value
                })
                .collect();
            p_values.sort_by(f64::total_cmp);
            for level in [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9] {
                let share = p_values.partition_point(|p| *p <= level) as f64 / 1e4;
                let error = (level * (1.0 - level) / 1e4_f64).sqrt();
                assert!(share <= level + 4.0 * error, "P(p <= {level}) = {share}");
                assert!(share >= level - 4.0 * error - 0.01, "too conservative: P(p <= {level}) = {share}");
            }
        }
    }

    #[test]
    fn the_bound_is_above_the_exact_value_and_near_it() {
        let mut random = Seeded::new(5);
        for shift in [0.0, 0.2, 0.5, 1.0, 3.0] {
            let differences: Vec<f64> = (0..300).map(|_| random.normal() + shift).collect();
            let ranked = Ranked::new(&differences);
            let (exact, method) = ranked.upper_tail();
            assert_eq!(method, Method::Exact);
            let bound = ranked.chernoff();
            assert!(bound >= exact, "{bound:e} < {exact:e}");
            assert!(bound <= 30.0 * exact, "{bound:e} for {exact:e}");
        }
    }

    #[test]
    fn many_differences_are_bounded_and_a_p_value_is_never_zero() {
        let all_positive: Vec<f64> = (1..=1500).map(f64::from).collect();
        assert_eq!(test(&all_positive).p_value, SMALLEST_P);
        let mut random = Seeded::new(8);
        let many: Vec<f64> = (0..100_000).map(|_| random.normal() + 0.02).collect();
        let found = test(&many);
        assert_eq!(found.method, Method::Bound);
        assert!(found.p_value < 1e-4 && found.p_value > 1e-20, "{:e}", found.p_value);
    }

    /// `cargo test -p anbiq-statistics -- --ignored --nocapture speed` prints the time.
    #[test]
    #[ignore = "prints a time"]
    fn speed() {
        let mut random = Seeded::new(8);
        for (n, tied) in [(500, false), (1000, false), (2000, false), (2000, true)] {
            let values: Vec<f64> =
                (0..n).map(|_| if tied { (100.0 * random.normal()).round() } else { random.normal() }).collect();
            let start = std::time::Instant::now();
            let found = test(&values);
            println!("{n} differences, ties {}: {:?} {:?}", found.ties, found.method, start.elapsed());
        }
    }
}
