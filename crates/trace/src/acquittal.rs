//! The other side of the scale: which training do the pairs *exclude*?
//!
//! That nothing is shown does not say that nothing was there: a trace may have had no power. To acquit takes an alternative
//! that is stated beforehand. Here it is a number of *calibration students*, which the investigator trained on the served
//! answers of the same journal in the way that is in question, and traced over the same pairs. A suspect of whom the pairs
//! exclude a preference as weak as the weakest of theirs was not trained like them.

use anbiq_domain::{Digest, OperatorId};
use anbiq_statistics::proportion::clopper_pearson;
use anbiq_statistics::{conformal, special};
use serde::{Deserialize, Serialize};

use crate::gaps::rounded;
use crate::report::{Hypotheses, recheck};
use crate::{OperatorResult, Protocol, Report, Row, SliceResult, TraceError, twin};

/// Largest p-value by which a preference is excluded, and one less the confidence of the bounds.
const EXCLUDED: f64 = 1e-3;
/// Largest chance that a student of the alternative has a weaker preference than all calibration students: takes 19 of them.
const STUDENTS: f64 = 0.05;

/// What a suspect may be shown not to be: a student like these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// Students that are known to be trained on the served answers.
    pub students: Vec<Calibration>,
}

/// One calibration student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file with its trace.
    pub report: Digest,
    /// Its preference, see [`preference`].
    pub win_rate: f64,
}

/// What the pairs exclude.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acquittal {
    /// What was to be excluded, in words.
    pub alternative: String,
    /// The weakest preference of a calibration student.
    pub win_rate: f64,
    /// The bound on the suspect's preference over all traffic, and over the pairs of each operator, version and period that was tested.
    pub bounds: Vec<Bound>,
    /// Operators with too few pairs to be tested: of their answers nothing is excluded.
    pub not_covered: Vec<OperatorId>,
    /// The largest p-value of the bounds: that of the union of all these hypotheses.
    pub p_pairs: f64,
    /// The rank of the suspect's preference among those of the students, over one more than they are; small where it is weaker.
    pub p_students: f64,
    /// Are both small enough?
    pub excluded: bool,
    /// What this rests on.
    pub rests_on: Vec<String>,
}

/// How often the suspect can prefer what was served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Of this operator's pairs; of all traffic where both are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorId>,
    /// Of the pairs of this version or period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// Pairs.
    pub pairs: u64,
    /// Those in which it does not prefer the twin: cancelled exchanges and draws that it finds equally likely count as
    /// preferred, which errs towards the suspicion.
    pub preferred: u64,
    /// Upper end of the exact one-sided 99.9 % interval of the share (Clopper and Pearson).
    pub upper: f64,
    /// P(so few, or fewer, if it preferred the served draw as often as the weakest calibration student).
    pub p_value: f64,
    /// Is such a preference excluded?
    pub excluded: bool,
}

impl Alternative {
    /// The alternative of these traces of calibration students, each with the digest of its file.
    ///
    /// # Errors
    ///
    /// A report does not follow from its rows, two are of one student, or one was not made as a trace by `like` is.
    pub fn of(reports: &[(Digest, Report)], like: &Protocol) -> Result<Self, TraceError> {
        let mut students: Vec<Calibration> = Vec::new();
        for (digest, report) in reports {
            let name = report.protocol.suspect.clone();
            let wrong = |what: &str| TraceError::Calibration { student: name.clone(), what: what.to_owned() };
            recheck(report).map_err(|mismatch| wrong(&mismatch.to_string()))?;
            let theirs = &report.protocol;
            let same = (&theirs.teacher, theirs.mode, theirs.statistic, &theirs.controls, theirs.minimum_items)
                == (&like.teacher, like.mode, like.statistic, &like.controls, like.minimum_items);
            if !same {
                return Err(wrong("it was traced against another teacher, with another statistic or other controls"));
            }
            if (theirs.pairs_digest, &theirs.operators, &theirs.slices)
                != (like.pairs_digest, &like.operators, &like.slices)
            {
                return Err(wrong("it was traced over other pairs, or pairs of other operators or periods"));
            }
            if students.iter().any(|student| student.report == *digest || student.name == name) {
                return Err(wrong("it is given twice"));
            }
            let win_rate = preference(Hypotheses::of(report));
            students.push(Calibration { name, report: *digest, win_rate });
        }
        Ok(Self { students })
    }

    /// The weakest preference; 1 where there is no student, which excludes nothing that matters.
    fn weakest(&self) -> f64 {
        self.students.iter().map(|student| student.win_rate).fold(1.0, f64::min)
    }
}

/// How often a model prefers what was served, in the pairs in which that shows most: of all traffic or of one operator,
/// version or period, whichever has the smallest p-value. The same for suspects and calibration students, which are compared by it.
pub(crate) fn preference(tested: Hypotheses<'_>) -> f64 {
    let most = tested.all().min_by(|one, other| one.p_exact.total_cmp(&other.p_exact));
    rounded(most.map_or(0.5, |test| test.win_rate))
}

pub(crate) fn assess(
    protocol: &Protocol,
    tested: Hypotheses<'_>,
    not_covered: Vec<OperatorId>,
    rows: &[Row],
) -> Option<Acquittal> {
    let alternative = protocol.alternative.as_ref()?;
    let win_rate = alternative.weakest();
    let all = bound(rows.iter().filter_map(twin::difference), win_rate);
    let operators = tested.per_operator.iter().map(|OperatorResult { operator, .. }| {
        let own = rows.iter().filter(|row| row.operator.as_ref() == Some(operator));
        Bound { operator: Some(operator.clone()), ..bound(own.filter_map(twin::difference), win_rate) }
    });
    let slices = tested.per_slice.iter().map(|SliceResult { slice, .. }| {
        let own = rows.iter().filter(|row| row.slices.contains(slice));
        Bound { slice: Some(slice.clone()), ..bound(own.filter_map(twin::difference), win_rate) }
    });
    let bounds: Vec<Bound> = std::iter::once(all).chain(operators).chain(slices).collect();
    let p_pairs = bounds.iter().map(|bound| bound.p_value).fold(0.0, f64::max);
    // The conformal p-value is small for large scores; a weak preference is the large one here.
    let own = -preference(tested);
    let theirs: Vec<f64> = alternative.students.iter().map(|student| -student.win_rate).collect();
    let p_students = conformal::p_value(own, &theirs);
    let students = alternative.students.len();
    Some(Acquittal {
        alternative: format!(
            "It was trained on the served answers as {students} calibration students were, of whom the weakest prefers them in \
             {win_rate:.3} of the pairs."
        ),
        win_rate,
        bounds,
        not_covered,
        p_pairs,
        p_students,
        excluded: p_pairs <= EXCLUDED && p_students <= STUDENTS,
        rests_on: RESTS_ON.map(str::to_owned).to_vec(),
    })
}

fn bound(differences: impl Iterator<Item = f64>, win_rate: f64) -> Bound {
    let (mut pairs, mut preferred) = (0, 0);
    for difference in differences {
        pairs += 1;
        preferred += u64::from(difference >= 0.0 || difference == f64::NEG_INFINITY);
    }
    // P(Binomial(pairs, w) <= preferred), as the upper tail of those that are not preferred.
    let p_value = special::binomial_upper_tail(pairs - preferred, pairs, 1.0 - win_rate).min(1.0);
    Bound {
        operator: None,
        slice: None,
        pairs,
        preferred,
        upper: clopper_pearson(preferred, pairs, 1.0 - 2.0 * EXCLUDED).high,
        p_value,
        excluded: p_value <= EXCLUDED,
    }
}

const RESTS_ON: [&str; 4] = [
    "Exact: the bound on how often the suspect prefers what was served, and the p-value that it does so as often as the weakest \
     calibration student. Random is whether it does in each pair, independently of the other pairs given the suspect; where \
     the chance differs from pair to pair, both hold for the mean of the chances (Hoeffding 1956).",
    "On calibration: that a student of the alternative is exchangeable with the calibration students, so that the chance of one \
     with a weaker preference than all n of them is 1/(n + 1). Fewer than 19 exclude nothing.",
    "Every hypothesis must be excluded by itself, all traffic and each operator's pairs, so no adjustment for several is due.",
    "What is excluded is training as the calibration students had it, and stronger. Fewer epochs, a smaller share, rewritten \
     answers, or answers of operators with too few pairs are not.",
];
