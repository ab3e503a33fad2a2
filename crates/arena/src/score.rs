//! How good a detector was: curves, links, shares.

use std::collections::HashMap;

use anbiq_statistics::proportion::{Interval, clopper_pearson};
use serde::{Deserialize, Serialize};

/// A share with its exact 95 % interval (Clopper and Pearson 1934); the trials are taken as independent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// How many were.
    pub hits: u64,
    /// Of how many.
    pub of: u64,
    /// The interval.
    pub interval: Interval,
}

impl Share {
    pub(crate) fn new(hits: u64, of: u64) -> Self {
        Self { hits, of, interval: clopper_pearson(hits, of, 0.95) }
    }

    /// The share itself; 0 of nothing.
    pub fn value(&self) -> f64 {
        if self.of == 0 { 0.0 } else { self.hits as f64 / self.of as f64 }
    }
}

/// True against false alarms as the threshold falls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// `(false alarms, true alarms)` as shares, ascending.
    pub points: Vec<(f64, f64)>,
    /// Honest ones behind it.
    pub honest: u64,
    /// Guilty ones behind it.
    pub guilty: u64,
}

impl Curve {
    /// Of scores and whether each is of a campaign. Equal scores fall together.
    pub(crate) fn of(mut scores: Vec<(f64, bool)>) -> Self {
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        let guilty = scores.iter().filter(|(_, guilty)| *guilty).count();
        let honest = scores.len() - guilty;
        let (mut hits, mut alarms) = (0, 0);
        let mut points = vec![(0.0, 0.0)];
        for (place, (score, is_guilty)) in scores.iter().enumerate() {
            if *is_guilty {
                hits += 1;
            } else {
                alarms += 1;
            }
            let last = scores.get(place + 1).is_none_or(|next| next.0 < *score);
            if last && *score > f64::NEG_INFINITY {
                points.push((alarms as f64 / honest.max(1) as f64, hits as f64 / guilty.max(1) as f64));
            }
        }
        Self { points: thinned(&points), honest: honest as u64, guilty: guilty as u64 }
    }

    /// The largest share of true alarms with at most `alarms` false ones.
    pub fn at(&self, alarms: f64) -> f64 {
        self.points.iter().filter(|point| point.0 <= alarms).map(|point| point.1).fold(0.0, f64::max)
    }
}

/// The corners of a curve: where it goes straight on, points between say nothing.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (place, point) in points.iter().enumerate() {
        let turns = match (kept.last(), points.get(place + 1)) {
            (Some(last), Some(next)) => {
                (last.0 != point.0 || next.0 != point.0) && (last.1 != point.1 || next.1 != point.1)
            }
            _ => true,
        };
        if turns {
            kept.push(*point);
        }
    }
    kept
}

/// How well accounts were joined.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Linking {
    /// Pairs that were joined.
    pub joined: u64,
    /// Pairs that were joined and are of one operator.
    pub right: u64,
    /// Pairs that are of one operator.
    pub pairs: u64,
    /// Sum over accounts of the share of its group that is its operator's.
    pub precision: f64,
    /// Sum over accounts of the share of its operator that is in its group.
    pub recall: f64,
    /// Accounts that share an operator or a group with another: those that the two sums run over.
    pub accounts: u64,
}

impl Linking {
    /// Compares groups with operators, over accounts that `counts`.
    pub(crate) fn of(groups: &[usize], operators: &[usize], counts: impl Fn(usize) -> bool) -> Self {
        let mut both: HashMap<(usize, usize), u64> = HashMap::new();
        let (mut by_group, mut by_operator) = (HashMap::<usize, u64>::new(), HashMap::<usize, u64>::new());
        let places: Vec<usize> = (0..groups.len()).filter(|place| counts(*place)).collect();
        for &place in &places {
            *both.entry((groups[place], operators[place])).or_default() += 1;
            *by_group.entry(groups[place]).or_default() += 1;
            *by_operator.entry(operators[place]).or_default() += 1;
        }
        let pairs = |counts: &HashMap<usize, u64>| counts.values().map(|count| count * (count - 1) / 2).sum();
        let mut this = Self { joined: pairs(&by_group), pairs: pairs(&by_operator), ..Self::default() };
        this.right = both.values().map(|count| count * (count - 1) / 2).sum();
        for &place in &places {
            let (group, operator) = (by_group[&groups[place]], by_operator[&operators[place]]);
            if group > 1 || operator > 1 {
                let common = both[&(groups[place], operators[place])] as f64;
                this.precision += common / group as f64;
                this.recall += common / operator as f64;
                this.accounts += 1;
            }
        }
        this
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.joined += other.joined;
        self.right += other.right;
        self.pairs += other.pairs;
        self.precision += other.precision;
        self.recall += other.recall;
        self.accounts += other.accounts;
    }

    /// Share of the joined pairs that are of one operator.
    pub fn pair_precision(&self) -> f64 {
        if self.joined == 0 { 1.0 } else { self.right as f64 / self.joined as f64 }
    }

    /// Share of the pairs of one operator that were joined.
    pub fn pair_recall(&self) -> f64 {
        if self.pairs == 0 { 1.0 } else { self.right as f64 / self.pairs as f64 }
    }

    /// B-cubed precision, recall and their harmonic mean (Bagga and Baldwin 1998), over accounts that share an operator or a
    /// group with another.
    pub fn b_cubed(&self) -> (f64, f64, f64) {
        let n = self.accounts.max(1) as f64;
        let (precision, recall) = (self.precision / n, self.recall / n);
        let sum = precision + recall;
        (precision, recall, if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_what_counting_gives() {
        let curve = Curve::of(vec![(3.0, true), (2.0, false), (2.0, true), (1.0, false), (f64::NEG_INFINITY, true)]);
        assert_eq!((curve.honest, curve.guilty), (2, 3));
        assert_eq!(curve.at(0.0), 1.0 / 3.0);
        assert_eq!(curve.at(0.5), 2.0 / 3.0);
        assert_eq!(curve.at(1.0), 2.0 / 3.0);
    }

    #[test]
    fn links_are_counted_as_by_hand() {
        // Operators {0,1,2} and {3,4}, a loner 5; groups {0,1}, {2,3}, {4}, {5}.
        let linking = Linking::of(&[0, 0, 1, 1, 2, 3], &[7, 7, 7, 8, 8, 9], |_| true);
        assert_eq!((linking.joined, linking.right, linking.pairs, linking.accounts), (2, 1, 4, 5));
        let (precision, recall, _) = linking.b_cubed();
        assert!((precision - (1.0 + 1.0 + 0.5 + 0.5 + 1.0) / 5.0).abs() < 1e-12);
        assert!((recall - (2.0 / 3.0 + 2.0 / 3.0 + 1.0 / 3.0 + 0.5 + 0.5) / 5.0).abs() < 1e-12);
    }
}
