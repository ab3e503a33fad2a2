//! The signed draws that reports on canaries name, and that come with a dossier.

use std::path::PathBuf;

use anbiq_evidence::signed::Signed;
use anbiq_trace::AnyReport;
use anbiq_trace::canary::{Draw, KIND};
use anbiq_verify::draws::{file_name, fits};
use anyhow::{Context, bail};

use crate::commands::trace::canary::DRAW;
use crate::site::read_json;

/// Reads the draws that `reports` name, each with the name of its file in the dossier.
pub(super) fn read(files: &[PathBuf], reports: &[AnyReport]) -> anyhow::Result<Vec<(String, Signed)>> {
    let mut draws = Vec::new();
    for path in files {
        let file = if path.is_dir() { path.join(DRAW) } else { path.clone() };
        let signed: Signed = read_json(&file)?;
        let draw: Draw =
            signed.open(KIND, None).with_context(|| format!("the draw `{}` is not taken", file.display()))?;
        let mut named = false;
        for report in reports {
            let AnyReport::Canaries(report) = report else { continue };
            if report.draw == signed.digest() {
                let of = || format!("the test of `{}` is not on that draw", report.suspect);
                fits(report, &draw, &signed).with_context(of)?;
                named = true;
            }
        }
        if !named {
            bail!(
                "no report names the draw `{}`\nhint: give the reports of `anbiq trace canary test` by `--trace`",
                file.display()
            );
        }
        draws.push((file_name(&signed.digest()), signed));
    }
    Ok(draws)
}
