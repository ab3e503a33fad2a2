//! The signed draws of a dossier's canaries.

use std::path::Path;

use anbiq_domain::Digest;
use anbiq_evidence::signed::Signed;
use anbiq_trace::TraceError;
use anbiq_trace::canary::{CanaryReport, Draw, KIND};
use anbiq_trace::plan::{differs, same};

/// The name of the file of a draw.
pub fn file_name(draw: &Digest) -> String {
    format!("draw-{}.json", draw.short())
}

/// Is the draw that `report` names in `dossier`, signed, and does the report rank its canaries? `false` where it is not there.
///
/// # Errors
///
/// It is another one, is not as it was signed, or the report ranks other canaries.
pub(crate) fn check(dossier: &Path, report: &CanaryReport) -> Result<bool, String> {
    let path = dossier.join(file_name(&report.draw));
    if !path.exists() {
        return Ok(false);
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let signed: Signed = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let draw: Draw = signed.open(KIND, None).map_err(|error| error.to_string())?;
    fits(report, &draw, &signed).map_err(|error| error.to_string())?;
    Ok(true)
}

/// Is `report` on the canaries of `draw`?
///
/// # Errors
///
/// The first thing that is not.
pub fn fits(report: &CanaryReport, draw: &Draw, signed: &Signed) -> Result<(), TraceError> {
    same("draw", &signed.digest(), &report.draw)?;
    same("signer", &signed.signer(), &report.signer)?;
    same("candidates", &draw.candidates, &report.candidates)?;
    for rank in &report.ranks {
        let of = format!("canary {}", rank.canary);
        let Some(wanted) = draw.canaries.get(rank.canary as usize) else {
            return Err(differs(of, &"not drawn", &"ranked"));
        };
        same(&of, &wanted.operator, &rank.operator)?;
    }
    Ok(())
}
