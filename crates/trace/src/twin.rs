use anbiq_statistics::evalue::SignBets;
use anbiq_statistics::proportion::{Interval, clopper_pearson};
use anbiq_statistics::signed_rank::{self, Method};
use serde::{Deserialize, Serialize};

use crate::gaps::rounded;
use crate::{Row, State};

/// Most points of an e-process that a report shows.
const PATH_POINTS: usize = 200;

/// The twin test on some of the pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// Pairs that were ranked: `wins`, `losses` and `against`.
    pub n: usize,
    /// Pairs in which the suspect prefers the served draw.
    pub wins: usize,
    /// Pairs in which it prefers the twin.
    pub losses: usize,
    /// Cancelled exchanges, each counted as the largest difference against the suspicion.
    pub against: usize,
    /// Share of wins among wins and losses; one half under the null hypothesis.
    pub win_rate: f64,
    /// 95 % interval of the share (Clopper and Pearson), if pairs are taken as independent.
    pub win_rate_interval: Interval,
    /// Median of the differences, in nats.
    pub median_nats: f64,
    /// Sum of the ranks of the wins.
    pub statistic: f64,
    /// One-sided p-value of the signed-rank test.
    pub p_exact: f64,
    /// Exact, or an upper bound.
    pub method: Method,
    /// The p-value after Holm's adjustment over all hypotheses of the report.
    pub p_holm: f64,
    /// Decimal logarithm of the e-value after the last pair.
    pub log10_e: f64,
    /// The largest one on the way.
    pub log10_e_largest: f64,
    /// The e-process in the journal's order, thinned.
    pub path: Vec<PathPoint>,
}

/// One point of an e-process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PathPoint {
    /// The pair's place in the journal.
    pub index: u64,
    /// Decimal logarithm of the e-value after it.
    pub log10_e: f64,
}

/// Tests `rows`, which are in the journal's order. The adjustment for several hypotheses is made later.
pub(crate) fn test<'row>(rows: impl Iterator<Item = &'row Row>) -> TestResult {
    let counted: Vec<(u64, f64)> = rows.filter_map(|row| Some((row.index, difference(row)?))).collect();
    let differences: Vec<f64> = counted.iter().map(|(_, difference)| *difference).collect();
    let ranks = signed_rank::test(&differences);
    let mut bets = SignBets::new();
    let path: Vec<PathPoint> = counted
        .iter()
        .map(|(index, difference)| PathPoint { index: *index, log10_e: log10(bets.push(*difference)) })
        .collect();
    let mut finite: Vec<f64> = differences.iter().copied().filter(|difference| difference.is_finite()).collect();
    let wins = finite.iter().filter(|difference| **difference > 0.0).count();
    let losses = finite.iter().filter(|difference| **difference < 0.0).count();
    let decided = wins + losses;
    TestResult {
        n: ranks.n,
        wins,
        losses,
        against: differences.len() - finite.len(),
        win_rate: if decided == 0 { 0.5 } else { wins as f64 / decided as f64 },
        win_rate_interval: clopper_pearson(wins as u64, decided as u64, 0.95),
        median_nats: rounded(median(&mut finite)),
        statistic: ranks.statistic,
        p_exact: ranks.p_value,
        method: ranks.method,
        p_holm: ranks.p_value,
        log10_e: log10(bets.ln_fortune()),
        log10_e_largest: log10(bets.ln_largest()),
        path: thinned(&path),
    }
}

/// The statistic with the coin's sign; minus infinity for a cancelled exchange, `None` for one that is not counted.
pub(crate) fn difference(row: &Row) -> Option<f64> {
    match (row.state, row.value) {
        (State::Cancelled, _) => Some(f64::NEG_INFINITY),
        (State::Complete, Some(value)) => Some(if row.served == 0 { value } else { -value }),
        (State::Complete, None) => None,
    }
}

fn log10(ln: f64) -> f64 {
    rounded(ln / std::f64::consts::LN_10)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => 0.5 * (values[even / 2 - 1] + values[even / 2]),
    }
}

/// Evenly spaced points, the last one among them.
fn thinned(path: &[PathPoint]) -> Vec<PathPoint> {
    let step = path.len().div_ceil(PATH_POINTS).max(1);
    let mut points: Vec<PathPoint> = path.iter().rev().step_by(step).copied().collect();
    points.reverse();
    points
}
