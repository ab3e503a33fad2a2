//! The plans that the reports of a dossier name, and that come with it.

use std::path::PathBuf;

use anbiq_evidence::signed::Signed;
use anbiq_trace::AnyReport;
use anbiq_verify::plans::{file_name, follows};
use anyhow::{Context, bail};

use crate::commands::trace::planned;

/// Reads the plans that `reports` name, each with the name of its file in the dossier.
pub(super) fn read(files: &[PathBuf], reports: &[AnyReport]) -> anyhow::Result<Vec<(String, Signed)>> {
    let mut plans: Vec<(String, Signed)> = Vec::new();
    for path in files {
        let (plan, signed) = planned::read(path, None)?;
        let mut name = None;
        for report in reports {
            let Some(fixed) = report.plan().filter(|fixed| fixed.plan == signed.digest()) else { continue };
            let of = || format!("the trace of `{}` is not by its plan", report.subjects().join("`, `"));
            follows(report, &plan, &signed).with_context(of)?;
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
    for fixed in reports.iter().filter_map(AnyReport::plan) {
        if plans.iter().all(|(_, plan)| plan.digest() != fixed.plan) {
            bail!("a trace names the plan {}, which is not there\nhint: give it by `--plan`", fixed.plan);
        }
    }
    Ok(plans)
}
