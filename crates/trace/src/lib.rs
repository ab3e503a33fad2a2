//! Verb 4, `trace`: was this suspect trained on that teacher's served answers, and on whose?
//!
//! The evidence is the journal's twins. Of each pair of draws a secret coin chose the one that was served. [`items`]
//! takes the pairs out of a journal, [`run`] has the suspect, the teacher and the controls score both draws without
//! telling any of them which was served, and only then the coins are looked at. What comes out is a [`Report`] that holds
//! every number it rests on; [`recheck`] computes it again from those.
//!
//! Where there are no twins, [`style`] compares given answers with those of candidate teachers and of controls. That is
//! weaker evidence of another kind, in a report of its own. [`AnyReport`] is a report of any kind, which checks itself.

mod acquittal;
mod any;
mod blind;
pub mod canary;
pub mod controls;
pub mod endpoint;
mod error;
pub mod errors;
mod gaps;
pub mod identity;
pub mod items;
pub mod overlap;
pub mod plan;
pub mod power;
pub mod probe;
mod protocol;
pub mod radioactivity;
mod report;
mod score;
mod slices;
pub mod style;
mod text;
mod twin;
mod verdict;
pub mod weights;

use anbiq_model::Model;

pub use acquittal::{Acquittal, Alternative, Bound, Calibration};
pub use any::{AnyReport, Basis, Kind, ReadError};
pub use blind::{Baseline, BlindBaseline};
pub use error::TraceError;
pub use gaps::Statistic;
pub use items::{Collected, LeftOut, Selection, State, TwinItem};
pub use plan::{Fixed, Plan, TwinsPlan};
pub use power::Power;
pub use protocol::{AtServer, Compared, Config, OperatorAccounts, Protocol};
pub use report::{Dropped, Gaps, Mismatch, OperatorResult, Report, Row, SliceResult, recheck};
pub use slices::By;
pub use text::render_text;
pub use twin::{PathPoint, TestResult};
pub use verdict::{Strength, Verdict};

/// Scores the pairs of `collected` under all models and reports what they show.
///
/// The protocol, with the statistic, the hypotheses and the pairs, is fixed before the first score is asked for.
/// `progress` hears how many of all pair scores are done. Models are asked one after the other, in batches.
///
/// # Errors
///
/// There are too few pairs, or the journal does not keep their texts; a model cannot score given text, or keeps
/// failing after `config.attempts`.
pub async fn run(
    collected: &Collected,
    suspect: &dyn Model,
    teacher: &dyn Model,
    controls: &[&dyn Model],
    config: &Config,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Report, TraceError> {
    collected.check_enough(config.minimum_items)?;
    let names = controls.iter().map(|control| control.name().to_owned()).collect();
    let protocol = Protocol::fix(collected, suspect.name(), teacher.name(), names, config)?;
    scored(protocol, collected, suspect, teacher, controls, config, progress).await
}

/// As [`run`], but only as `plan` says, which `fixed` names in the report.
///
/// # Errors
///
/// As [`run`]; also where the pairs, the models' names or anything else is not as planned, before any model is asked.
pub async fn run_planned(
    collected: &Collected,
    suspect: &dyn Model,
    teacher: &dyn Model,
    controls: &[&dyn Model],
    plan: &TwinsPlan,
    fixed: Fixed,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Report, TraceError> {
    let names: Vec<String> = controls.iter().map(|control| control.name().to_owned()).collect();
    plan.check(collected, suspect.name(), teacher.name(), &names)?;
    let protocol = plan.protocol.clone();
    let report = scored(protocol, collected, suspect, teacher, controls, &plan.settings, progress).await?;
    Ok(Report { plan: Some(fixed), ..report })
}

async fn scored(
    protocol: Protocol,
    collected: &Collected,
    suspect: &dyn Model,
    teacher: &dyn Model,
    controls: &[&dyn Model],
    config: &Config,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Report, TraceError> {
    let mut models = vec![suspect, teacher];
    models.extend(controls);
    let scores = score::all(&collected.items, &models, config, progress).await?;
    let rows = report::rows(&collected.items, &scores);
    let scored = rows.iter().filter(|row| row.gaps.is_some()).count();
    if scored < config.minimum_items {
        return Err(TraceError::TooFew { found: scored, needed: config.minimum_items });
    }
    Ok(report::assess(protocol, collected.left_out, rows))
}
