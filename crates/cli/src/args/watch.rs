//! Logs, and who is behind accounts.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Output, Site};

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
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
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
    /// Also write an indicator bundle (STIX 2.1) here, to be shared with other providers: it names no account and no person.
    #[arg(long, value_name = "FILE")]
    pub(crate) stix: Option<PathBuf>,
    /// Also write a page here, with the graph of accounts, the course of time and every reason; it opens offline and runs no script.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) method: Method,
    #[command(flatten)]
    pub(crate) follow: Follow,
    #[command(subcommand)]
    pub(crate) measure: Option<Measure>,
}

/// How it is watched.
#[derive(Debug, Clone, Args)]
pub(crate) struct Method {
    /// Fixes the sampling of large accounts.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Fewest hours, in the journal's own time, between two looks: moments at which accounts are grouped and alarms given.
    #[arg(long, value_name = "HOURS", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=8_760))]
    pub(crate) look_hours: u32,
    /// Bound on the probability of any false alarm, over all accounts, within the horizon; the expected share of false ones among
    /// alarms is not above it either.
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.01, value_parser = probability)]
    pub(crate) false_alarms: f64,
    /// Days for which that bound holds.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub(crate) horizon_days: u32,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value < 1.0 => Ok(value),
        _ => Err("it is a number above 0 and below 1".to_owned()),
    }
}

/// How a journal is followed that is being written.
#[derive(Debug, Clone, Args)]
pub(crate) struct Follow {
    /// Go on as the journal grows, until the program is told to stop; what changes is said, and `--out` is kept up to date.
    #[arg(long, requires = "journal", requires = "state")]
    pub(crate) follow: bool,
    /// Where what is remembered is kept: goes on from there when it is started again.
    #[arg(long, value_name = "FILE", requires = "follow")]
    pub(crate) state: Option<PathBuf>,
    /// Milliseconds between two glances at the journal.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub(crate) poll_ms: u64,
    /// Fewest seconds between two reports, and between two times that the state is written down.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) report_seconds: u64,
}

/// What is done about an operator. Each of them can be taken back, and is journalled.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Measure {
    /// Slow an operator down, hold it for review or refuse it: only a campaign at the stage *act*, of which several independent
    /// kinds of evidence speak. Nothing is ever done without this command.
    Enforce {
        /// The operator, as `anbiq watch` names it.
        operator: String,
        /// What is done.
        #[arg(value_enum)]
        how: How,
        /// Tokens a day that all its accounts together may still use, where it is slowed down.
        #[arg(long, value_name = "TOKENS", required_if_eq("how", "slow"))]
        tokens: Option<u64>,
        /// Why, for the journal.
        #[arg(long, value_name = "WORDS")]
        reason: String,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        method: Method,
        #[command(flatten)]
        site: Site,
    },
    /// Take back what was done about an operator.
    Release {
        /// The operator.
        operator: String,
        /// Why, for the journal.
        #[arg(long, value_name = "WORDS")]
        reason: String,
        #[command(flatten)]
        site: Site,
    },
}

/// What is done about an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// So many tokens a day, all accounts together.
    Slow,
    /// Nothing until a person has looked, or until the week is over.
    Hold,
    /// Nothing until it is released.
    Refuse,
}
