//! The command line as data: every command, flag and help text.

mod case;
mod customers;
mod distill;
mod journal;
mod lab;
mod lake;
mod terms;
mod trace;
mod watch;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use case::{Case, Language, Verify};
pub(crate) use customers::{Account, Admin, AdminKeys, Budget, Holder, Key, Scope, Unit, User};
pub(crate) use distill::Distill;
pub(crate) use journal::{Journal, Twins};
pub(crate) use lab::Lab;
pub(crate) use lake::{Asked, Lake};
pub(crate) use terms::{Described, Grant, Permits, PriceClass, Purpose, Terms};
pub(crate) use trace::{
    Asking, CanaryDraw, CanaryTest, IdentityCompare, Modes, Parts, Trace, TraceAsk, TraceCanary, TraceEndpoint,
    TraceErrors, TraceIdentity, TraceMeans, TraceOverlap, TracePlan, TracePower, TraceRun, TraceStyle, TraceTwins,
    TraceWatermark, TraceWeights,
};
pub(crate) use watch::{How, Import, Measure, Method, Watch};

/// Distillation of language models, seen from both sides of the API.
#[derive(Debug, Parser)]
#[command(name = "anbiq", version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// More talk on standard error; twice for everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// No talk and no progress bars.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// How logs and talk are written: for people, or one JSON object a line.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", env = "ANBIQ_LOG_FORMAT", global = true)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How logs and talk are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play one whole case on this machine: teacher, traffic, watch, students, trace, dossier.
    Demo(Demo),
    /// Write a configuration and the keys of a new gateway.
    Init(Init),
    /// Put terms, prices, budgets and a journal in front of a teacher.
    Serve(Site),
    /// Issue the keys of the admin API.
    #[command(subcommand)]
    Admin(Admin),
    /// Look at a configuration before it is used.
    #[command(subcommand)]
    Config(Config),
    /// Open, list and close accounts.
    #[command(subcommand)]
    Account(Account),
    /// Issue, rotate, list and revoke API keys.
    #[command(subcommand)]
    Key(Key),
    /// Name the people who use an account.
    #[command(subcommand)]
    User(User),
    /// Limit what a key, an account or an operator may spend, in money and in tokens, over a time.
    #[command(subcommand)]
    Budget(Budget),
    /// Show, check and accept the terms of a teacher.
    #[command(subcommand)]
    Terms(Terms),
    /// Ask for, approve, give, show and revoke permissions to distill.
    #[command(subcommand)]
    Grant(Grant),
    /// Read, check and seal a journal.
    #[command(subcommand)]
    Journal(Journal),
    /// What twins cost.
    #[command(subcommand)]
    Twins(Twins),
    /// Make the logs of other systems readable for `anbiq watch`.
    Import(Import),
    /// Find the operator behind many accounts.
    Watch(Watch),
    /// Ask questions in SQL about journals and imported logs.
    #[command(subcommand)]
    Lake(Box<Lake>),
    /// Make a small model of a big one, lawfully.
    #[command(subcommand)]
    Distill(Distill),
    /// Was this model trained on a teacher's served answers, and on whose?
    Trace(Box<Trace>),
    /// Join findings and verdicts into a signed dossier.
    Case(Case),
    /// Check a dossier from its folder alone.
    Verify(Verify),
    /// Make corpora, teachers and traffic for tests and demonstrations.
    #[command(subcommand)]
    Lab(Lab),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Where the gateway's configuration stands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Site {
    /// The gateway's configuration.
    #[arg(short, long, value_name = "FILE", default_value = "anbiq.toml", env = "ANBIQ_CONFIG")]
    pub(crate) config: PathBuf,
}

/// Where a report goes besides to whoever reads it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Output {
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the JSON here.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// How models behind a URL are asked.
#[derive(Debug, Clone, Args)]
pub(crate) struct Remote {
    /// Name of an API key's environment variable, for models behind a URL.
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key_env: Option<String>,
    /// Name that models behind a URL are asked for; `URL#NAME` says it of one.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Folder with the chat template of models behind a URL (`tokenizer_config.json`), or `NAME=DIR` with that of one: where their server
    /// scores and continues texts alone, conversations are put in form by it. May be given several times.
    #[arg(long, value_name = "[NAME=]DIR")]
    pub(crate) template: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say all that is wrong with a configuration and with what it refers to.
    Check {
        /// The configuration; otherwise that of `--config`.
        file: Option<PathBuf>,
        #[command(flatten)]
        site: Site,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a configuration, by which an editor completes and checks one as it is written.
    Schema,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// Folder for the journal, the models and the dossier; must be empty or absent.
    #[arg(short, long, value_name = "DIR", default_value = "anbiq-demo")]
    pub(crate) out: PathBuf,
    /// Fixes every random choice but the secrets.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// A smaller run of the same case, with the same assertions.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Real traces for arrival times, if there are any (see the README).
    #[arg(long, value_name = "DIR", env = "ANBIQ_DATA")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Init {
    /// Folder of the new gateway.
    pub(crate) dir: PathBuf,
    /// Name of the journal, and the origin of its signed checkpoints.
    #[arg(long, default_value = "anbiq")]
    pub(crate) journal: String,
}
