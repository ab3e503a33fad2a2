//! Was a model trained on given answers?

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Trace {
    #[command(subcommand)]
    pub(crate) means: Option<TraceMeans>,
    #[command(flatten)]
    pub(crate) twins: Option<TraceTwins>,
}

/// What is looked at where it is not the twins of a journal.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TraceMeans {
    /// Whose answers do given answers look like, and is any model that is known to be independent as much like them?
    Style(TraceStyle),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceStyle {
    /// Answers as JSON lines with `model`, `prompt` and `output`; `-` for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) answers: Vec<PathBuf>,
    /// Who is who: lines of model, `suspect`, `teacher` or `control`, family and, where known, base, with tabulators in
    /// between.
    #[arg(long, value_name = "FILE")]
    pub(crate) roles: PathBuf,
    /// The family of the teacher in question.
    #[arg(long, value_name = "FAMILY")]
    pub(crate) teacher: String,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the JSON here.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceTwins {
    /// The suspect: a Hugging Face folder, or the base URL of an OpenAI-compatible server.
    pub(crate) suspect: String,
    /// The teacher, likewise.
    #[arg(long)]
    pub(crate) teacher: String,
    /// The journal of the gateway that served the teacher.
    #[arg(long)]
    pub(crate) journal: PathBuf,
    /// The gateway's folder of secrets, where the journal's texts are sealed.
    #[arg(long, value_name = "DIR")]
    pub(crate) secrets: Option<PathBuf>,
    /// Operators as `anbiq watch --out` wrote them; without it every account stands for itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) operators: Option<PathBuf>,
    /// Test the pairs whose twins were drawn later, which rests on the teacher giving the same distribution of answers then;
    /// without it those whose draws began together, which rests on the coins alone.
    #[arg(long)]
    pub(crate) deferred: bool,
    /// A model known to be independent; may be given several times.
    #[arg(long, value_name = "MODEL")]
    pub(crate) control: Vec<String>,
    /// Name of the suspect in the report.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Name of an API key's environment variable, for models behind a URL.
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key_env: Option<String>,
    /// Name that a model behind a URL is asked for.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the JSON here.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
