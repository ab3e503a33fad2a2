//! The plans that the traces of a dossier name, and that come with it.

use std::path::PathBuf;

use anbiq_evidence::signed::Signed;
use anbiq_trace::Report as Trace;
use anbiq_verify::plans::{file_name, follows};
use anyhow::{Context, bail};

use crate::commands::trace::planned;

/// Reads the plans that `traces` name, each with the name of its file in the dossier.
pub(super) fn read(files: &[PathBuf], traces: &[Trace]) -> anyhow::Result<Vec<(String, Signed)>> {
    let mut plans: Vec<(String, Signed)> = Vec::new();
    for path in files {
        let (plan, signed) = planned::read(path, None)?;
        let mut name = None;
        for trace in traces {
            let Some(fixed) = trace.plan.as_ref().filter(|fixed| fixed.plan == signed.digest()) else { continue };
            let suspect = &trace.protocol.suspect;
            follows(trace, &plan, &signed).with_context(|| format!("the trace of `{suspect}` is not by its plan"))?;
            name = Some(file_name(fixed));
        }
        let Some(name) = name else {
            bail!(
                "no trace names the plan `{}`\nhint: give the reports of `anbiq trace run` by `--trace`",
                path.display()
            );
        };
        if plans.iter().all(|(other, _)| *other != name) {
            plans.push((name, signed));
        }
    }
    for fixed in traces.iter().filter_map(|trace| trace.plan.as_ref()) {
        if plans.iter().all(|(_, plan)| plan.digest() != fixed.plan) {
            bail!("a trace names the plan {}, which is not there\nhint: give it by `--plan`", fixed.plan);
        }
    }
    Ok(plans)
}
