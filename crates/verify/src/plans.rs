//! The plans of a dossier's traces: each trace that names one comes with it, and must be as it says.

use std::path::Path;

use anbiq_evidence::signed::{Signed, SignedError};
use anbiq_trace::plan::{KIND, Plan, differs, same};
use anbiq_trace::{AnyReport, Fixed, TraceError};

/// A plan that is not there, not whole, or not that of its trace.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Its file cannot be read.
    #[error("`{name}`: {source}")]
    File {
        /// Its name.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Its file is something else.
    #[error("`{name}` is not what it should be: {source}")]
    Form {
        /// Its name.
        name: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// It is not as it was signed.
    #[error("the plan `{name}` is not taken: {source}")]
    Signed {
        /// Its name.
        name: String,
        /// Why not.
        source: SignedError,
    },
    /// The trace is not as it says.
    #[error("it is not by `{name}`: {source}")]
    Other {
        /// Its name.
        name: String,
        /// In what.
        source: TraceError,
    },
}

/// The name of the file of the plan that a trace names.
pub fn file_name(fixed: &Fixed) -> String {
    format!("plan-{}.json", fixed.plan.short())
}

/// Is `report` what the plan in `dossier` says that it names? One that names none passes.
///
/// # Errors
///
/// It is not, or the plan is not there as it was signed.
pub fn check(dossier: &Path, report: &AnyReport) -> Result<(), PlanError> {
    let Some(fixed) = report.plan() else { return Ok(()) };
    let name = file_name(fixed);
    let text = std::fs::read_to_string(dossier.join(&name))
        .map_err(|source| PlanError::File { name: name.clone(), source })?;
    let signed: Signed =
        serde_json::from_str(&text).map_err(|source| PlanError::Form { name: name.clone(), source })?;
    let plan: Plan = signed.open(KIND, None).map_err(|source| PlanError::Signed { name: name.clone(), source })?;
    follows(report, &plan, &signed).map_err(|source| PlanError::Other { name, source })
}

/// Is `report` what `plan` says? One that names no plan passes.
///
/// # Errors
///
/// The first thing that is not.
pub fn follows(report: &AnyReport, plan: &Plan, signed: &Signed) -> Result<(), TraceError> {
    let Some(fixed) = report.plan() else { return Ok(()) };
    same("plan", &signed.digest(), &fixed.plan)?;
    same("signer", &signed.signer(), &fixed.signer)?;
    same("made_at", &plan.made_at, &fixed.made_at)?;
    match report {
        AnyReport::Twins(trace) => {
            let mode = trace.protocol.mode;
            let Some(test) = plan.twins.iter().find(|test| test.protocol.mode == mode) else {
                return Err(differs("twins", &"without a test of such pairs", &"a report of one"));
            };
            same("protocol", &test.protocol, &trace.protocol)?;
            same("left_out", &test.left_out, &trace.left_out)
        }
        AnyReport::Style(report) => {
            let Some(style) = &plan.style else {
                return Err(differs("style", &"without a comparison of styles", &"a report of one"));
            };
            same("style.accused", &style.accused, &report.accused)?;
            same("style.parts", &style.parts, &report.parts)?;
            same("style.statistic_in_words", &style.statistic_in_words, &report.statistic_in_words)?;
            same("style.tests", &style.tests, &report.tests)
        }
        _ => Err(differs("tests", &"without such a test", &"a report of one")),
    }
}
