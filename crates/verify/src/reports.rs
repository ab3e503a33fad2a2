//! The reports of a dossier: what of each is computed again, and what is taken on trust.

use std::collections::BTreeMap;
use std::path::Path;

use anbiq_domain::Digest;
use anbiq_evidence::{Broken, Verified};
use anbiq_trace::plan::same;
use anbiq_trace::{Alternative, AnyReport, Kind, Report};
use serde::Serialize;

use crate::{draws, plans};

/// What was done with one report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rechecked {
    /// Its file.
    pub file: String,
    /// What was computed again, and is as it says.
    pub recomputed: String,
    /// What was not, since the report alone is not enough.
    pub on_trust: String,
}

/// The name of the file of a calibration student's trace.
pub fn calibration_name(digest: &Digest) -> String {
    format!("calibration-{}.json", digest.short())
}

/// Checks every report in `dossier`, whose `folder` was found to hold.
///
/// # Errors
///
/// The first report that is not as it should be.
pub(crate) fn check(dossier: &Path, folder: &Verified) -> Result<Vec<Rechecked>, Broken> {
    let served: BTreeMap<u64, u8> = folder.twins.iter().map(|twin| (twin.index, twin.served)).collect();
    names(dossier).iter().map(|name| report(dossier, name, folder, &served)).collect()
}

fn report(dossier: &Path, name: &str, folder: &Verified, served: &BTreeMap<u64, u8>) -> Result<Rechecked, Broken> {
    let broken = |what: String| Broken { file: name.to_owned(), row: None, what };
    let text = std::fs::read_to_string(dossier.join(name)).map_err(|error| broken(error.to_string()))?;
    let report = AnyReport::read(&text).map_err(|error| broken(error.to_string()))?;
    report.recheck().map_err(|mismatch| broken(mismatch.to_string()))?;
    plans::check(dossier, &report).map_err(|error| broken(error.to_string()))?;
    let kind = report.kind();
    let (mut recomputed, mut on_trust) = (kind.recomputed().to_owned(), kind.on_trust().to_owned());
    if let AnyReport::Twins(trace) = &report {
        for row in &trace.rows {
            // Of more than two draws a row is of the pair that has the served one: see `anbiq_trace::items`.
            if served.get(&row.index).is_some_and(|&served| served & 1 != row.served) {
                return Err(broken(format!("of exchange {} the coin chose another draw", row.exchange)));
            }
        }
        match calibration(dossier, trace, &report.calibrations())? {
            Calibration::None => {}
            Calibration::Checked => recomputed += "; what the calibration students prefer, from their traces",
            Calibration::Absent => on_trust += "; what the calibration students prefer: it needs their traces",
        }
    }
    if let AnyReport::Canaries(canaries) = &report {
        match draws::check(dossier, canaries).map_err(&broken)? {
            true => recomputed += "; that its canaries are those of the signed draw",
            false => on_trust += "; which canaries were drawn, among how many and for whom: it needs the signed draw",
        }
        match &canaries.journal {
            Some(witness) => {
                let drawn = folder.canaries.get(&witness.committed_at);
                if drawn.is_none_or(|drawn| drawn.draw != canaries.draw || drawn.candidates != canaries.candidates) {
                    let what = format!("record {} of the journal does not commit to its draw", witness.committed_at);
                    return Err(broken(what));
                }
                if witness.left.iter().any(|left| left.index <= witness.committed_at) {
                    return Err(broken("it counts what left before its draw".to_owned()));
                }
                recomputed += "; that the journal committed to the draw before what is counted";
                on_trust += "; what left through whom: it needs the journal with its texts";
            }
            None => on_trust += "; that the draw came before what was served: no journal was asked",
        }
    }
    Ok(Rechecked { file: name.to_owned(), recomputed, on_trust })
}

enum Calibration {
    /// The trace names no such students.
    None,
    /// Their traces are there and say what the trace says.
    Checked,
    /// Not all of them are there.
    Absent,
}

fn calibration(dossier: &Path, trace: &Report, digests: &[Digest]) -> Result<Calibration, Broken> {
    let Some(alternative) = &trace.protocol.alternative else { return Ok(Calibration::None) };
    let mut reports = Vec::new();
    for digest in digests {
        let name = calibration_name(digest);
        let path = dossier.join(&name);
        if !path.exists() {
            return Ok(Calibration::Absent);
        }
        let broken = |what: String| Broken { file: name.clone(), row: None, what };
        let bytes = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
        let report = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        if Digest::of(&bytes) != *digest {
            return Err(broken("it is not the trace that was named by its digest".to_owned()));
        }
        reports.push((*digest, report));
    }
    let broken = |what: String| Broken { file: "calibration".to_owned(), row: None, what };
    let again = Alternative::of(&reports, &trace.protocol).map_err(|error| broken(error.to_string()))?;
    same("protocol.alternative", alternative, &again).map_err(|error| broken(error.to_string()))?;
    Ok(Calibration::Checked)
}

/// Files with the name of a report.
fn names(dossier: &Path) -> Vec<String> {
    let is_report = |name: &String| {
        name.ends_with(".json") && Kind::ALL.iter().any(|kind| name.starts_with(&format!("{}-", kind.name())))
    };
    let listing = std::fs::read_dir(dossier).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        listing.filter_map(|item| item.file_name().into_string().ok()).filter(is_report).collect();
    names.sort();
    names
}
