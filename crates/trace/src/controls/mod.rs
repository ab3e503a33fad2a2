//! A suspect among controls: what is said once for all tests that compare models with models.
//!
//! Who is who stands in [`Part`]s; a test gives the suspect and every control a score in the same way; [`Among`] is the suspect's
//! rank, over models and over families of models, and never below one in so many plus one. This evidence (*E_model*) rests on
//! exchangeable controls, is *moderate* at most, and is never added to what is exact.

mod error;
mod roles;

use std::collections::BTreeMap;

use anbiq_statistics::{conformal, evalue, holm};
use serde::{Deserialize, Serialize};

pub use error::ControlsError;
pub(crate) use roles::weights;
pub use roles::{Part, Role, roles};

/// Largest p-value that is *moderate*, the most that such evidence can be.
const LEVEL: f64 = 0.05;

/// One control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlScore {
    /// Which model.
    pub model: String,
    /// Its family.
    pub family: String,
    /// Its base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Its score: in style the cosine with the nearest teacher of the accused family.
    pub score: f64,
}

/// A suspect's score among those of controls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Among {
    /// The suspect's score: the higher, the more suspicious.
    pub score: f64,
    /// Controls, each looked at as the suspect was, the highest score first.
    pub controls: Vec<ControlScore>,
    /// Conformal p-value over models: exact if the suspect's score and those of the controls are exchangeable.
    pub p_models: f64,
    /// The least that `p_models` can be with so many controls.
    pub floor_models: f64,
    /// The same over families of controls, by the highest score of each: valid also if models of one family are alike.
    pub by_family: ByFamily,
    /// The larger p-value of models and families, after Holm's adjustment over the suspects.
    pub p_holm: f64,
}

/// The suspect among families of controls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ByFamily {
    /// How many.
    pub families: usize,
    /// Conformal p-value.
    pub p: f64,
    /// The least that it can be.
    pub floor: f64,
}

impl ControlScore {
    /// That of `part`.
    pub(crate) fn of(part: &Part, score: f64) -> Self {
        Self { model: part.model.clone(), family: part.family.clone(), base: part.base.clone(), score }
    }
}

impl Among {
    /// A suspect with this score among `controls`; [`adjust`] answers for several suspects.
    pub(crate) fn of(score: f64, mut controls: Vec<ControlScore>) -> Self {
        controls.sort_by(|one, other| other.score.total_cmp(&one.score));
        let scores: Vec<f64> = controls.iter().map(|control| control.score).collect();
        Self {
            score,
            p_models: conformal::p_value(score, &scores),
            floor_models: floor(scores.len()),
            by_family: ByFamily::of(score, &controls),
            controls,
            p_holm: 1.0,
        }
    }

    /// The same, of controls whose base is `base`: how many there are, the p-value and the least that it can be.
    pub(crate) fn of_base(&self, base: &str) -> (usize, f64, f64) {
        let same = self.controls.iter().filter(|control| control.base.as_deref() == Some(base));
        let scores: Vec<f64> = same.map(|control| control.score).collect();
        (scores.len(), conformal::p_value(self.score, &scores), floor(scores.len()))
    }

    /// Models of one family are not independent, and families may be few: the p-value that is kinder to the suspect decides.
    const fn p_decisive(&self) -> f64 {
        self.p_models.max(self.by_family.p)
    }

    /// Is the suspect's score moderate evidence?
    pub(crate) fn is_shown(&self) -> bool {
        self.p_holm <= LEVEL
    }

    /// E-value of the larger p-value, `1 / (2 sqrt p)`, at most the number of controls.
    pub(crate) fn e_model(&self) -> f64 {
        evalue::calibrate_with(self.p_decisive(), 0.5).min(self.controls.len() as f64)
    }

    /// Says so where no score of one of so many suspects could have been shown.
    pub(crate) fn too_few(&self, suspects: usize) -> Option<String> {
        let needed = needed(suspects);
        let (controls, families) = (self.controls.len(), self.by_family.families);
        let (what, count) = match () {
            () if controls < needed => (format!("{controls} controls are too few"), controls),
            () if families < needed => {
                (format!("the {controls} controls are of {families} families, which are too few"), families)
            }
            () => return None,
        };
        let among = if suspects > 1 { format!(" for {suspects} suspects") } else { String::new() };
        let least = count + 1;
        Some(format!(
            " No result could have shown it: {what}, since p cannot fall below 1/{least}; at least {needed}{among} are needed."
        ))
    }
}

impl ByFamily {
    /// The highest score of a family is at least that of a model drawn from it, so this p-value is at least one that is exact
    /// when families are exchangeable.
    fn of(score: f64, controls: &[ControlScore]) -> Self {
        let mut highest = BTreeMap::<&str, f64>::new();
        for control in controls {
            let highest = highest.entry(&control.family).or_insert(f64::NEG_INFINITY);
            *highest = highest.max(control.score);
        }
        let scores: Vec<f64> = highest.into_values().collect();
        Self { families: scores.len(), p: conformal::p_value(score, &scores), floor: floor(scores.len()) }
    }
}

/// Holm's adjustment over the suspects of a report.
pub(crate) fn adjust<'report>(suspects: impl Iterator<Item = &'report mut Among>) {
    let mut suspects: Vec<&mut Among> = suspects.collect();
    let p_values: Vec<f64> = suspects.iter().map(|among| among.p_decisive()).collect();
    for (among, p_holm) in suspects.iter_mut().zip(holm::adjust(&p_values)) {
        among.p_holm = p_holm;
    }
}

/// Fewest controls with which one of so many suspects can reach the level after Holm's adjustment.
const fn needed(suspects: usize) -> usize {
    // 1/0.05 = 20 for each.
    20 * suspects - 1
}

fn floor(controls: usize) -> f64 {
    1.0 / (controls + 1) as f64
}

/// To nine decimals: what is beyond depends on the order of additions, and could break a tie.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}
