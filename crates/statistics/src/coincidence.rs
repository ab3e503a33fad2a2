//! How many things stand where they belong by chance alone?

use crate::SMALLEST_P;
use crate::special::ln_gamma;

/// An upper bound of the natural logarithm of P(at least `hits` coincidences), where things were put into places by
/// permutations that are uniform and independent of where each of them belongs, and `groups` is the number of permutations.
///
/// H0: in each group the order is exchangeable. Random are the orders alone. A thing may belong to any place, several to the
/// same one, and only some of the places may have been looked at. Of a group of `n`, `k` given things with different places
/// all hit with probability `(n - k)! / n!`, so the expectation of `C(hits, k)` is at most `1 / k!`, and over independent groups
/// at most `groups^k / k!`. Markov's inequality for `C(hits, j)` with the best `j` up to `hits` is the bound
/// `min_j groups^j (hits - j)! / hits!`.
pub fn ln_bound(hits: u64, groups: u64) -> f64 {
    let ln_factorial = |count: u64| ln_gamma(count as f64 + 1.0);
    let ln_groups = (groups.max(1) as f64).ln();
    let of = |j: u64| j as f64 * ln_groups + ln_factorial(hits - j) - ln_factorial(hits);
    // From one j to the next the bound changes by the factor groups / (hits - j): it falls while that is below 1.
    of(hits.saturating_sub(groups.max(1))).min(0.0)
}

/// The bound as a p-value.
pub fn p_value(hits: u64, groups: u64) -> f64 {
    ln_bound(hits, groups).exp().max(SMALLEST_P)
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    /// Every order of `n` things.
    fn orders(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![Vec::new()];
        }
        let shorter = orders(n - 1);
        let with = |place: usize| {
            shorter.iter().map(move |order| {
                let mut order = order.clone();
                order.insert(place, n - 1);
                order
            })
        };
        (0..n).flat_map(with).collect()
    }

    #[test]
    fn no_assignment_of_places_hits_more_often_than_the_bound() {
        for n in 1..=4_usize {
            let orders = orders(n);
            for assignment in 0..n.pow(n as u32) {
                let belongs = |thing: usize| assignment / n.pow(thing as u32) % n;
                for hits in 1..=n {
                    let right = |order: &&Vec<usize>| {
                        order.iter().enumerate().filter(|(place, thing)| belongs(**thing) == *place).count() >= hits
                    };
                    let exact = orders.iter().filter(right).count() as f64 / orders.len() as f64;
                    assert!(exact <= p_value(hits as u64, 1) * (1.0 + 1e-12), "{n} {assignment} {hits}");
                }
            }
        }
    }

    #[test]
    fn several_groups_hit_no_more_often_than_the_bound() {
        let mut random = Seeded::new(4);
        const TRIALS: usize = 20_000;
        let mut counts = [0_usize; 64];
        for _ in 0..TRIALS {
            let mut hits = 0;
            for _ in 0..3 {
                let mut order: Vec<usize> = (0..10).collect();
                random.shuffle(&mut order);
                hits += order.iter().enumerate().filter(|(place, thing)| place == *thing).count();
            }
            counts[hits] += 1;
        }
        for hits in 1..12 {
            let share = counts[hits..].iter().sum::<usize>() as f64 / TRIALS as f64;
            let bound = p_value(hits as u64, 3);
            assert!(share <= bound + 4.0 * (bound.min(1.0) / TRIALS as f64).sqrt(), "{hits}: {share} > {bound}");
        }
        // The bound is the least over all j.
        for hits in 0..30_u64 {
            let factorial = |n: u64| (1..=n).map(|k| k as f64).product::<f64>();
            let all = (0..=hits).map(|j| 3_f64.powf(j as f64) * factorial(hits - j) / factorial(hits));
            let least = all.fold(1.0, f64::min);
            assert!((p_value(hits, 3) / least - 1.0).abs() < 1e-9, "{hits}");
        }
        assert!((p_value(5, 1) - 1.0 / 120.0).abs() < 1e-12 && p_value(0, 1) == 1.0);
    }
}
