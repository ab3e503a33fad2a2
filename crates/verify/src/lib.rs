//! Checks a dossier: the folder by itself, and then that every number of every trace in it follows from its rows, its rows
//! from the coins, and its protocol from the plan that it names.
//!
//! `anbiq verify` and the binary `anbiq-verify` are both [`run`], so they say the same.

pub mod plans;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anbiq_evidence::{Broken, Verified};
use anbiq_journal::{PublicKey, PublicKeyError};
use anbiq_trace::Report;

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

/// Checks the folder, and then its traces.
///
/// # Errors
///
/// The first thing that is not as it should be.
pub fn check(dossier: &Path, key: Option<&PublicKey>) -> Result<Verified, Broken> {
    let verified = anbiq_evidence::verify(dossier, key)?;
    let served: BTreeMap<u64, u8> = verified.twins.iter().map(|twin| (twin.index, twin.served)).collect();
    for name in traces_of(dossier) {
        let broken = |what: String| Broken { file: name.clone(), row: None, what };
        let text = std::fs::read_to_string(dossier.join(&name)).map_err(|error| broken(error.to_string()))?;
        let trace: Report = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        anbiq_trace::recheck(&trace).map_err(|mismatch| broken(mismatch.to_string()))?;
        plans::check(dossier, &trace).map_err(|error| broken(error.to_string()))?;
        for row in &trace.rows {
            // Of more than two draws a row is of the pair that has the served one: see `anbiq_trace::items`.
            if served.get(&row.index).is_some_and(|&served| served & 1 != row.served) {
                return Err(broken(format!("of exchange {} the coin chose another draw", row.exchange)));
            }
        }
    }
    Ok(verified)
}

fn traces_of(dossier: &Path) -> Vec<String> {
    let listing = std::fs::read_dir(dossier).into_iter().flatten().flatten();
    let names = listing.filter_map(|item| item.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("trace-") && name.ends_with(".json")).collect();
    names.sort();
    names
}

fn describe(verified: &Verified, trusted: bool) -> String {
    let mut text = format!(
        "the dossier holds\n  journal          {}, {} entries, root {}\n  signed by        {}\n  files            {}\n  \
         records proved   {}\n  coins checked    {}, with their texts {}\n",
        verified.journal,
        verified.size,
        verified.root,
        verified.signer,
        verified.files,
        verified.records,
        verified.twins_checked,
        verified.texts_checked,
    );
    if !trusted {
        text.push_str("hint: compare the key with one from a source that you trust, or give it with `--key`\n");
    }
    text
}
