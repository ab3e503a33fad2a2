//! Checks a dossier: the folder by itself, and then of every report in it that what can be computed from the report follows from
//! it, the rows of traces from the coins, and the protocol from the plan that it names. What a report takes on trust is said.
//!
//! `anbiq verify` and the binary `anbiq-verify` are both [`run`], so they say the same.

pub mod draws;
pub mod plans;
mod reports;

use std::path::{Path, PathBuf};

use anbiq_evidence::{Broken, Verified};
use anbiq_journal::{PublicKey, PublicKeyError};
use serde::Serialize;

pub use reports::{Rechecked, calibration_name};

/// A check that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing to check.
    #[error("there is no folder `{}`", .0.display())]
    NoFolder(PathBuf),
    /// The expected key is none.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// What was found has no JSON form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl VerifyError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoFolder(_) => "no_dossier",
            Self::Key(_) => "public_key_invalid",
            Self::Json(_) => "not_json",
        }
    }
}

/// What is said of a dossier, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// In words or as JSON.
    pub text: String,
    /// Is it as it was signed?
    pub holds: bool,
}

/// Checks `dossier` and says what came of it. `key` is the public key that must have signed it.
///
/// # Errors
///
/// There is no such folder, or the key is none.
pub fn run(dossier: &Path, key: Option<&str>, as_json: bool) -> Result<Said, VerifyError> {
    let key = key.map(str::parse::<PublicKey>).transpose()?;
    if !dossier.is_dir() {
        return Err(VerifyError::NoFolder(dossier.to_owned()));
    }
    let checked = check(dossier, key.as_ref());
    let text = match (&checked, as_json) {
        (Ok(verified), true) => serde_json::to_string_pretty(verified)?,
        (Err(broken), true) => serde_json::to_string_pretty(broken)?,
        (Ok(verified), false) => describe(verified, key.is_some()),
        (Err(broken), false) => format!("broken: {broken}"),
    };
    Ok(Said { text, holds: checked.is_ok() })
}

/// A dossier that holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// What its folder was found to be.
    #[serde(flatten)]
    pub folder: Verified,
    /// Its reports.
    pub reports: Vec<Rechecked>,
}

/// Checks the folder, and then its reports.
///
/// # Errors
///
/// The first thing that is not as it should be.
pub fn check(dossier: &Path, key: Option<&PublicKey>) -> Result<Checked, Broken> {
    let folder = anbiq_evidence::verify(dossier, key)?;
    let reports = reports::check(dossier, &folder)?;
    Ok(Checked { folder, reports })
}

fn describe(checked: &Checked, trusted: bool) -> String {
    let verified = &checked.folder;
    let mut text = format!(
        "the dossier holds\n  journal          {}, {} entries, root {}\n  signed by        {}\n  files            {}\n  \
         records proved   {}\n  coins checked    {}, with their texts {}\n  texts opened     {} that were under seal\n",
        verified.journal,
        verified.size,
        verified.root,
        verified.signer,
        verified.files,
        verified.records,
        verified.twins_checked,
        verified.texts_checked,
        verified.texts_opened,
    );
    for report in &checked.reports {
        text.push_str(&format!(
            "  {}\n    computed again: {}\n    taken on trust: {}\n",
            report.file, report.recomputed, report.on_trust
        ));
    }
    if !trusted {
        text.push_str("hint: compare the key with one from a source that you trust, or give it with `--key`\n");
    }
    text
}
