use anbiq_domain::OperatorId;
use serde::{Deserialize, Serialize};

use crate::report::Hypotheses;
use crate::{Acquittal, BlindBaseline, Protocol};

/// Largest adjusted p-value that is *established*.
pub(crate) const ESTABLISHED: f64 = 1e-6;
const STRONG: f64 = 1e-3;
const MODERATE: f64 = 0.05;

/// How strong exact evidence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// The pairs exclude what the protocol states beforehand; see [`Acquittal`].
    Contradicted,
    /// Nothing is shown; that is not innocence.
    NotShown,
    /// p at most 1/20, or an e-value of 20.
    Moderate,
    /// p at most 10^-3, or an e-value of 10^3.
    Strong,
    /// p at most 10^-6, or an e-value of 10^6.
    Established,
}

impl Strength {
    /// Of a p-value that is adjusted for the number of hypotheses.
    pub fn of_p_value(p_value: f64) -> Self {
        match p_value {
            p if p <= ESTABLISHED => Self::Established,
            p if p <= STRONG => Self::Strong,
            p if p <= MODERATE => Self::Moderate,
            _ => Self::NotShown,
        }
    }

    /// Of the decimal logarithm of an e-value.
    pub fn of_log10_e(log10_e: f64) -> Self {
        // An e-value of 1/a has at most the probability a.
        Self::of_p_value(10_f64.powf(-log10_e))
    }

    /// Its name in reports.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Contradicted => "contradicted",
            Self::NotShown => "not shown",
            Self::Moderate => "moderate",
            Self::Strong => "strong",
            Self::Established => "established",
        }
    }
}

/// What the trace shows, from exact evidence alone: no style, no likeness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// By the smallest adjusted p-value of all hypotheses. The probability that a suspect which saw none of the answers is
    /// called *established* is at most 10^-6, over all hypotheses together. *Not shown* where the blind baseline fails.
    pub strength: Strength,
    /// The same by the largest e-value on the way, divided by the number of hypotheses: for whoever looked before the end.
    pub anytime: Strength,
    /// The operators through whose accounts the answers left: those whose own test is as strong as `strength`.
    pub points_at: Vec<OperatorId>,
    /// One sentence.
    pub sentence: String,
}

impl Verdict {
    pub(crate) fn of(
        protocol: &Protocol,
        tested: Hypotheses<'_>,
        blind: &BlindBaseline,
        acquittal: Option<&Acquittal>,
    ) -> Self {
        let (suspect, teacher) = (protocol.suspect.as_str(), protocol.teacher.as_str());
        let hypotheses = (tested.all().count() * protocol.tests_side_by_side.max(1)) as f64;
        let smallest = tested.all().map(|test| test.p_holm).fold(1.0, f64::min);
        let largest = tested.all().map(|test| test.log10_e_largest).fold(0.0, f64::max) - hypotheses.log10();
        if !blind.passed {
            let sentence = format!(
                "No verdict on {suspect}: a blind baseline that cannot have seen the answers is not at one half, so the \
                 coins or the choice of pairs are in doubt."
            );
            return Self { strength: Strength::NotShown, anytime: Strength::NotShown, points_at: Vec::new(), sentence };
        }
        let strength = match (Strength::of_p_value(smallest), acquittal) {
            (Strength::NotShown, Some(acquittal)) if acquittal.excluded => Strength::Contradicted,
            (strength, _) => strength,
        };
        let points_at: Vec<OperatorId> = tested
            .per_operator
            .iter()
            .filter(|operator| {
                strength > Strength::NotShown && Strength::of_p_value(operator.result.p_holm) == strength
            })
            .map(|operator| operator.operator.clone())
            .collect();
        let sentence = sentence(suspect, teacher, strength, &points_at);
        Self { strength, anytime: Strength::of_log10_e(largest), points_at, sentence }
    }
}

fn sentence(suspect: &str, teacher: &str, strength: Strength, points_at: &[OperatorId]) -> String {
    let whose = match points_at {
        [] => String::new(),
        [one] => format!(", on those that left through the accounts of operator {one}"),
        several => {
            let names: Vec<&str> = several.iter().map(OperatorId::as_str).collect();
            format!(", on those that left through the accounts of operators {}", names.join(", "))
        }
    };
    match strength {
        Strength::Contradicted => {
            format!(
                "That {suspect} was trained on answers that {teacher} served, as the calibration students were, is contradicted: \
                 it prefers them less often than any of those. Weaker training is not excluded."
            )
        }
        Strength::NotShown => {
            format!(
                "It is not shown that {suspect} was trained on answers that {teacher} served. That does not show the contrary."
            )
        }
        Strength::Moderate => {
            format!("There is moderate evidence that {suspect} was trained on answers that {teacher} served{whose}.")
        }
        Strength::Strong => {
            format!("There is strong evidence that {suspect} was trained on answers that {teacher} served{whose}.")
        }
        Strength::Established => {
            format!("It is established that {suspect} was trained on answers that {teacher} served{whose}.")
        }
    }
}
