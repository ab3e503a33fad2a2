//! Intervals by the bootstrap: what is measured is drawn again, with replacement, a thousand times.
//!
//! The unit that is drawn is the document, the answer or the task, never the token: tokens of one text depend on each
//! other. Percentile intervals (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13). Random is the
//! choice of the units alone, as if they were drawn from many like them; another training of the same student would differ
//! by more. All models are measured on the same units, and the same units are drawn for each of them, so that differences
//! between models are paired.

use anbiq_domain::Seeded;
use serde::{Deserialize, Serialize};

/// How often the units are drawn.
const DRAWS: usize = 1000;

/// The fewest units of which an interval is worth something.
const FEWEST: usize = 10;

/// It holds the value in about 19 of 20 cases.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// The interval of what `of` makes of `units` units, given how often each of them was drawn. `None` where there are too few
/// units, or where `of` has no value for more than one in forty draws.
pub(crate) fn interval(seed: u64, label: &str, units: usize, of: impl Fn(&[u32]) -> Option<f64>) -> Option<Interval> {
    if units < FEWEST {
        return None;
    }
    let mut random = Seeded::new(seed).fork("bootstrap").fork(label);
    let mut values = Vec::with_capacity(DRAWS);
    let mut times = vec![0_u32; units];
    for _ in 0..DRAWS {
        times.fill(0);
        for _ in 0..units {
            times[random.below(units)] += 1;
        }
        values.extend(of(&times).filter(|value| value.is_finite()));
    }
    if values.len() < DRAWS - DRAWS / 40 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Some(Interval { low: at(0.025), high: at(0.975) })
}

/// Sums of some units: what is measured, and how many places it is measured at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Unit {
    pub(crate) sum: f64,
    pub(crate) places: f64,
}

/// The mean over all places of the units, each as often as it was drawn.
pub(crate) fn mean(units: &[Unit], times: &[u32]) -> Option<f64> {
    let (mut sum, mut places) = (0.0, 0.0);
    for (unit, &times) in units.iter().zip(times) {
        sum += unit.sum * f64::from(times);
        places += unit.places * f64::from(times);
    }
    (places > 0.0).then(|| sum / places)
}

/// The mean with each unit once.
pub(crate) fn mean_of_all(units: &[Unit]) -> Option<f64> {
    mean(units, &vec![1; units.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_truth_as_often_as_it_says() {
        let (mut random, mut held) = (Seeded::new(3), 0);
        for trial in 0..300 {
            // Texts of different lengths whose tokens share a part of what is measured.
            let units: Vec<Unit> = (0..60)
                .map(|_| {
                    let (own, places) = (random.normal(), 5 + random.below(20));
                    let sum = (0..places).map(|_| 2.0 + own + random.normal()).sum();
                    Unit { sum, places: places as f64 }
                })
                .collect();
            let found = interval(trial, "x", units.len(), |times| mean(&units, times)).unwrap();
            held += usize::from((found.low..=found.high).contains(&2.0));
        }
        // 95 % of 300 is 285, with a standard deviation of 3.8; percentiles of 60 units hold a little less.
        assert!((270..=297).contains(&held), "{held}");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_few_units_none() {
        let units: Vec<Unit> = (0..20).map(|number| Unit { sum: f64::from(number), places: 2.0 }).collect();
        let of = |seed| interval(seed, "x", units.len(), |times| mean(&units, times)).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(interval(1, "x", 9, |_| Some(1.0)), None);
        assert_eq!(interval(1, "x", 20, |times| (times[0] > 0).then_some(1.0)), None);
    }
}
