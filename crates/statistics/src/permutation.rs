//! Tests by drawing again what was random.

use anbiq_domain::Seeded;

/// The p-value of a Monte Carlo test (Phipson and Smyth 2010): one more than the draws that are at least as large as
/// `observed`, over one more than all. Valid for any number of draws, never 0.
///
/// H0: `observed` and the draws are exchangeable. Random is what `draw` draws anew.
pub fn p_value(observed: f64, draws: usize, random: &mut Seeded, mut draw: impl FnMut(&mut Seeded) -> f64) -> f64 {
    // A value that is not a number is counted as large: never in favour of the alternative.
    let at_least =
        (0..draws).filter(|_| !matches!(draw(random).partial_cmp(&observed), Some(std::cmp::Ordering::Less)));
    (1 + at_least.count()) as f64 / (1 + draws) as f64
}

/// Tests any statistic of differences by flipping their signs with fair coins (Fisher 1935).
///
/// H0: given the magnitudes, the signs are independent and fair. Random are the signs alone.
pub fn sign_flip(differences: &[f64], draws: usize, random: &mut Seeded, statistic: impl Fn(&[f64]) -> f64) -> f64 {
    let mut flipped = differences.to_vec();
    p_value(statistic(differences), draws, random, |random| {
        for (flipped, difference) in flipped.iter_mut().zip(differences) {
            *flipped = if random.chance(0.5) { -difference } else { *difference };
        }
        statistic(&flipped)
    })
}

/// Tests whether a statistic of labelled values is larger than under shuffled labels.
///
/// H0: the labels are exchangeable. Random is which value has which label.
pub fn shuffle<L: Clone>(labels: &[L], draws: usize, random: &mut Seeded, statistic: impl Fn(&[L]) -> f64) -> f64 {
    let mut shuffled = labels.to_vec();
    p_value(statistic(labels), draws, random, |random| {
        random.shuffle(&mut shuffled);
        statistic(&shuffled)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_null_is_never_anti_conservative() {
        let mut random = Seeded::new(4);
        let p_values: Vec<f64> = (0..2000)
            .map(|_| {
                let differences: Vec<f64> = (0..15).map(|_| random.normal() / random.normal()).collect();
                sign_flip(&differences, 99, &mut random, |values| values.iter().sum())
            })
            .collect();
        for level in [0.01, 0.05, 0.2, 0.5] {
            let share = p_values.iter().filter(|p| **p <= level).count() as f64 / 2000.0;
            assert!(share <= level + 4.0 * (level * (1.0 - level) / 2000.0_f64).sqrt(), "P(p <= {level}) = {share}");
        }
    }

    #[test]
    fn real_effects_are_found() {
        let mut random = Seeded::new(4);
        let differences: Vec<f64> = (0..50).map(|_| random.normal() + 1.0).collect();
        assert_eq!(sign_flip(&differences, 199, &mut random, |values| values.iter().sum()), 1.0 / 200.0);
        let labels: Vec<u32> = (0..50).collect();
        let sorted = |labels: &[u32]| labels.windows(2).filter(|pair| pair[0] < pair[1]).count() as f64;
        assert_eq!(shuffle(&labels, 199, &mut random, sorted), 1.0 / 200.0);
        assert_eq!(p_value(f64::NAN, 9, &mut random, |_| 0.0), 1.0);
    }
}
