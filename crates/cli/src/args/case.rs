//! Dossiers and their check.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Site;

/// The language of a dossier's fixed words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// English.
    En,
    /// Arabic, right to left.
    Ar,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Case {
    /// Findings of `anbiq watch --out`.
    #[arg(long, value_name = "FILE")]
    pub(crate) watch: PathBuf,
    /// Reports of `anbiq trace --out`, of whatever test; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Vec<PathBuf>,
    /// The traces of calibration students that the reports name; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Vec<PathBuf>,
    /// The plans that the reports name; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Vec<PathBuf>,
    /// The signed draws that reports on canaries name, or their folders; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) draw: Vec<PathBuf>,
    /// Reports of `anbiq distill run --json`; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) student: Vec<PathBuf>,
    /// Folder of the dossier; must be absent.
    #[arg(short, long, value_name = "DIR", default_value = "dossier")]
    pub(crate) out: PathBuf,
    /// Language of the fixed words.
    #[arg(long, value_enum, default_value_t = Language::En)]
    pub(crate) language: Language,
    #[command(flatten)]
    pub(crate) site: Site,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// The dossier's folder.
    pub(crate) dossier: PathBuf,
    /// The public key that must have signed it, from a source you trust.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
