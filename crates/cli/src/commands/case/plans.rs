//! The plans of a dossier's traces: each trace that names one comes with it, and must be as it says.

use std::path::{Path, PathBuf};

use anbiq_domain::Digest;
use anbiq_evidence::signed::Signed;
use anbiq_trace::Report as Trace;
use anbiq_trace::plan::{Plan, same};
use anyhow::{Context, bail};

use crate::commands::trace::planned;

/// The name of a plan's file in a dossier.
pub(super) fn file_name(plan: &Digest) -> String {
    format!("plan-{}.json", plan.short())
}

/// Reads the plans that `traces` name.
pub(super) fn read(files: &[PathBuf], traces: &[Trace]) -> anyhow::Result<Vec<Signed>> {
    let mut plans: Vec<Signed> = Vec::new();
    for path in files {
        let (plan, signed) = planned::read(path, None)?;
        let of_it = |trace: &&Trace| trace.plan.as_ref().is_some_and(|fixed| fixed.plan == signed.digest());
        let of_it: Vec<&Trace> = traces.iter().filter(of_it).collect();
        for trace in &of_it {
            let name = &trace.protocol.suspect;
            follows(trace, &plan, &signed).with_context(|| format!("the trace of `{name}` is not by its plan"))?;
        }
        if of_it.is_empty() {
            bail!(
                "no trace names the plan `{}`\nhint: give the reports of `anbiq trace run` by `--trace`",
                path.display()
            );
        }
        if plans.iter().all(|other| other.digest() != signed.digest()) {
            plans.push(signed);
        }
    }
    for fixed in traces.iter().filter_map(|trace| trace.plan.as_ref()) {
        if plans.iter().all(|plan| plan.digest() != fixed.plan) {
            bail!("a trace names the plan {}, which is not there\nhint: give it by `--plan`", fixed.plan);
        }
    }
    Ok(plans)
}

/// Is `trace` what the plan that it names says? One that names none passes.
pub(super) fn check(dossier: &Path, trace: &Trace) -> anyhow::Result<()> {
    let Some(fixed) = &trace.plan else { return Ok(()) };
    let name = file_name(&fixed.plan);
    let (plan, signed) = planned::read(&dossier.join(&name), None)?;
    follows(trace, &plan, &signed).with_context(|| format!("it is not by `{name}`"))
}

fn follows(trace: &Trace, plan: &Plan, signed: &Signed) -> anyhow::Result<()> {
    let Some(fixed) = &trace.plan else { return Ok(()) };
    same("plan", &signed.digest(), &fixed.plan)?;
    same("signer", &signed.signer(), &fixed.signer)?;
    same("made_at", &plan.made_at, &fixed.made_at)?;
    let mode = trace.protocol.mode;
    let test = plan.twins.iter().find(|test| test.protocol.mode == mode);
    let test = test.context("it plans no such test")?;
    same("protocol", &test.protocol, &trace.protocol)?;
    Ok(same("left_out", &test.left_out, &trace.left_out)?)
}
