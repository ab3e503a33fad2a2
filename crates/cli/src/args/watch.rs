//! Logs, and who is behind accounts.

use std::path::PathBuf;

use clap::Args;

use super::Output;

#[derive(Debug, Clone, Args)]
pub(crate) struct Import {
    /// Logs, or folders of logs; compressed with gzip or Zstandard or not at all.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Folder of the result; must be absent.
    #[arg(short, long, value_name = "DIR", default_value = "imported")]
    pub(crate) out: PathBuf,
    /// Write nothing: only say which fields there are, and what watch can find with them.
    #[arg(long)]
    pub(crate) check: bool,
    /// Format of the logs: otel, litellm, langfuse, helicone, apim, bedrock, openai-usage, kong, cloudflare or plain; told from
    /// their rows without it.
    #[arg(long)]
    pub(crate) format: Option<anbiq_import::Format>,
    /// Where the fields stand, as TOML (see the README).
    #[arg(long, value_name = "FILE")]
    pub(crate) mapping: Option<PathBuf>,
    /// Where the account stands: the first of these fields that says something.
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    pub(crate) account: Vec<String>,
    /// The key of all hashes and sketches: 64 hexadecimal digits. Made where it is not there; `import.key` beside the result
    /// without it. A gateway's `sketch.key` gives the hashes of its journal.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Write here, for you alone, which account is meant by the hash of a name that cannot be an id.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub(crate) names: Option<PathBuf>,
    /// Take what can be read of a log that is damaged or ends early.
    #[arg(long)]
    pub(crate) partial: bool,
    /// Longest row, in MiB; longer ones are counted and passed over.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) max_row: u32,
    /// Requests that `--check` looks at.
    #[arg(long, value_name = "REQUESTS", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) look_at: u64,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Watch {
    /// The journal's folder.
    #[arg(required_unless_present = "imported", conflicts_with = "imported")]
    pub(crate) journal: Option<PathBuf>,
    /// Instead of a journal, a folder that `anbiq import` wrote; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) imported: Vec<PathBuf>,
    /// Terms of a teacher that imported logs tell of, as JSON; may be given several times. Without them nobody breaches any.
    #[arg(long, value_name = "FILE", requires = "imported")]
    pub(crate) terms: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Fixes the sampling of large accounts.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}
