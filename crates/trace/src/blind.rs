use anbiq_statistics::signed_rank;
use serde::{Deserialize, Serialize};

use crate::{Protocol, Row, State};

/// All baselines together may fail by chance in one trace of a thousand.
const LEVEL: f64 = 1e-3;

/// The same test with what cannot have seen the answers: it must find nothing. If it finds something, the coins were not
/// fair or the pairs were chosen by what was served, and no verdict is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlindBaseline {
    /// What was tried.
    pub baselines: Vec<Baseline>,
    /// The smallest two-sided p-value that passes: 0.001 over the number of baselines.
    pub level: f64,
    /// Do all of them pass?
    pub passed: bool,
}

/// One blind test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What takes the place of the suspect's statistic.
    pub name: String,
    /// Share of pairs in which it is larger for the served draw; one half under the null hypothesis.
    pub win_rate: f64,
    /// Two-sided p-value of the signed-rank test, exact or an upper bound.
    pub p_value: f64,
}

pub(crate) fn test(protocol: &Protocol, rows: &[Row]) -> BlindBaseline {
    let mut baselines = vec![
        baseline("which of the two draws was served".to_owned(), rows, |_| Some(1.0)),
        baseline("length".to_owned(), rows, |row| row.gaps.as_ref().map(|gaps| gaps.length)),
        baseline(format!("teacher {} alone", protocol.teacher), rows, |row| row.gaps.as_ref().map(|gaps| gaps.teacher)),
    ];
    for (place, control) in protocol.controls.iter().enumerate() {
        let gap = |row: &Row| row.gaps.as_ref().and_then(|gaps| gaps.controls.get(place).copied());
        baselines.push(baseline(format!("control {control} alone"), rows, gap));
    }
    let level = LEVEL / baselines.len() as f64;
    let passed = baselines.iter().all(|baseline| baseline.p_value > level);
    BlindBaseline { baselines, level, passed }
}

fn baseline(name: String, rows: &[Row], value: impl Fn(&Row) -> Option<f64>) -> Baseline {
    let complete = rows.iter().filter(|row| row.state == State::Complete);
    let mut differences: Vec<f64> =
        complete.filter_map(|row| value(row).map(|value| if row.served == 0 { value } else { -value })).collect();
    let ranks: Vec<f64> = signed_rank::doubled_ranks(&differences)
        .iter()
        .zip(&differences)
        .map(|(rank, d)| *rank as f64 * d.signum())
        .collect();
    let (wins, losses) = ranks
        .iter()
        .fold((0, 0), |(wins, losses), rank| (wins + usize::from(*rank > 0.0), losses + usize::from(*rank < 0.0)));
    // By symmetry the smaller of the two one-sided p-values is the one towards the larger sum of ranks.
    if ranks.iter().sum::<f64>() < 0.0 {
        differences.iter_mut().for_each(|difference| *difference = -*difference);
    }
    let win_rate = if wins + losses == 0 { 0.5 } else { wins as f64 / (wins + losses) as f64 };
    Baseline { name, win_rate, p_value: (2.0 * signed_rank::test(&differences).p_value).min(1.0) }
}
