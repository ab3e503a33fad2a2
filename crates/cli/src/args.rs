//! The command line as data: every command, flag and help text.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Make a small model of a big one, lawfully.
    #[command(subcommand)]
    Distill(Distill),
    /// Was this model trained on a teacher's served answers, and on whose?
    Trace(Trace),
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

#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Issue, list and revoke admin keys.
    #[command(subcommand)]
    Key(AdminKeys),
    /// Print the OpenAPI document of the admin API.
    Openapi,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminKeys {
    /// Issue an admin key; it is shown once.
    Issue {
        /// What its holder may do: `viewer`, `operator`, `steward` or `owner`.
        #[arg(long)]
        role: String,
        /// The only account that its holder sees.
        #[arg(long)]
        account: Option<String>,
        /// Whose it is, in words.
        #[arg(long)]
        note: Option<String>,
        /// Days until it expires.
        #[arg(long)]
        days: Option<u32>,
        #[command(flatten)]
        site: Site,
    },
    /// Show all admin keys, without their secrets.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Revoke an admin key.
    Revoke {
        /// Its public part.
        key: String,
        #[command(flatten)]
        site: Site,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Open an account.
    Open {
        /// Its name.
        account: String,
        /// The plan it is on.
        #[arg(long)]
        plan: String,
        /// How it pays, as your billing names it; only a keyed hash enters the journal.
        #[arg(long)]
        payment: Option<String>,
        /// All the money it may spend, in dollars.
        #[arg(long)]
        budget: Option<String>,
        /// The operator that it belongs to; a name that is new declares one.
        #[arg(long)]
        operator: Option<String>,
        #[command(flatten)]
        site: Site,
    },
    /// Put an account on another plan, or declare whose it is.
    Set {
        /// Which account.
        account: String,
        /// The plan it is on from now on.
        #[arg(long)]
        plan: Option<String>,
        /// The operator that it belongs to; a name that is new declares one.
        #[arg(long, conflicts_with = "no_operator")]
        operator: Option<String>,
        /// It belongs to no operator.
        #[arg(long)]
        no_operator: bool,
        #[command(flatten)]
        site: Site,
    },
    /// List accounts.
    List {
        /// Only those of this operator.
        #[arg(long)]
        operator: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Close an account: its keys no longer hold.
    Close {
        /// Which account.
        account: String,
        #[command(flatten)]
        site: Site,
    },
    /// Set an account's budget for all time and show what is spent; `anbiq budget` knows all others.
    Budget {
        /// Which account.
        account: String,
        /// The new limit, in dollars; without it the budget is only shown.
        #[arg(long)]
        limit: Option<String>,
        #[command(flatten)]
        site: Site,
    },
    /// Destroy the key of an account's sealed texts: nobody can read them again, and the journal stays whole.
    Forget {
        /// Which account.
        account: String,
        #[command(flatten)]
        site: Site,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Issue a key; it is shown once.
    Issue {
        /// For which account.
        account: String,
        /// Days until it expires.
        #[arg(long)]
        days: Option<u32>,
        /// What you call it.
        #[arg(long)]
        name: Option<String>,
        /// For which user of the account.
        #[arg(long)]
        user: Option<String>,
        /// Endpoints that it is good for, such as `chat,models`; without it for all.
        #[arg(long, value_enum, value_delimiter = ',', value_name = "ROUTES")]
        scope: Vec<Scope>,
        /// Models that it is good for; without it for all.
        #[arg(long, value_delimiter = ',', value_name = "MODELS")]
        model: Vec<String>,
        #[command(flatten)]
        site: Site,
    },
    /// Issue a key in the place of another, which holds for a while longer. Budgets go on.
    Rotate {
        /// The public part of the old one.
        key: String,
        /// How long the old one still holds, such as `24h`, `30m` or `0s`.
        #[arg(long, default_value = "24h")]
        grace: String,
        #[command(flatten)]
        site: Site,
    },
    /// List the keys of an account.
    List {
        /// Which account.
        account: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Revoke a key.
    Revoke {
        /// Its public part.
        key: String,
        #[command(flatten)]
        site: Site,
    },
}

/// An endpoint that a key may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/responses`
    Responses,
    /// `/v1/models`
    Models,
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add a user to an account.
    Add {
        /// Which account.
        account: String,
        /// The user, as you name them.
        user: String,
        /// Who that is.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        site: Site,
    },
    /// Remove a user and revoke the keys of that user.
    Remove {
        /// Which account.
        account: String,
        /// Which user.
        user: String,
        #[command(flatten)]
        site: Site,
    },
    /// List the users of an account.
    List {
        /// Which account.
        account: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
}

/// Whose budget.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Holder {
    /// Of this account.
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// Of this key, by its public part, and of those that follow it by rotation.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Of all accounts of this operator together.
    #[arg(long)]
    pub(crate) operator: Option<String>,
}

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unit {
    /// Money.
    Money,
    /// Tokens of prompts and answers together.
    Tokens,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Budget {
    /// Set a budget, or change its limit.
    Set {
        #[command(flatten)]
        holder: Holder,
        /// The time: `total`, `month`, `week`, `day`, or hours such as `6h`; of the calendar in UTC.
        #[arg(long, default_value = "total")]
        window: String,
        /// At most so many dollars.
        #[arg(long, required_unless_present = "tokens", conflicts_with = "tokens")]
        money: Option<String>,
        /// At most so many tokens, of prompts and answers together.
        #[arg(long)]
        tokens: Option<u64>,
        #[command(flatten)]
        site: Site,
    },
    /// Take a budget away.
    Remove {
        #[command(flatten)]
        holder: Holder,
        /// Its time.
        #[arg(long, default_value = "total")]
        window: String,
        /// What it limits.
        #[arg(long, value_enum)]
        unit: Unit,
        #[command(flatten)]
        site: Site,
    },
    /// List budgets and what is left of them.
    List {
        /// Only of this account.
        #[arg(long)]
        account: Option<String>,
        /// Only of this key.
        #[arg(long, conflicts_with = "account")]
        key: Option<String>,
        /// Only of this operator.
        #[arg(long, conflicts_with_all = ["account", "key"])]
        operator: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Terms {
    /// Print the terms of a teacher of this installation.
    Show {
        /// The teacher's name.
        model: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Say what terms say about a student: exit code 0 where they allow it, 1 where they do not or do not say.
    Check {
        /// The teacher's name.
        teacher: String,
        /// By the built-in registry, not by this installation.
        #[arg(long)]
        known: bool,
        /// By the grants of this account as well.
        #[arg(long, conflicts_with = "known")]
        account: Option<String>,
        #[command(flatten)]
        student: Described,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Record that an account accepted the present version of a teacher's terms.
    Accept {
        /// Who accepts.
        account: String,
        /// The teacher's name.
        model: String,
        #[command(flatten)]
        site: Site,
    },
    /// Print what the built-in registry knows of the terms of teachers. Facts, no legal advice.
    Known {
        /// Which of them; all without it.
        name: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A student, as far as it is known.
#[derive(Debug, Clone, Args)]
pub(crate) struct Described {
    /// Its size, in parameters.
    #[arg(long)]
    pub(crate) parameters: Option<u64>,
    /// Completion tokens of the teacher that it is to be trained on.
    #[arg(long)]
    pub(crate) tokens: Option<u64>,
    /// It will compete with the teacher.
    #[arg(long, conflicts_with = "not_competing")]
    pub(crate) competing: bool,
    /// It will not compete with the teacher.
    #[arg(long)]
    pub(crate) not_competing: bool,
    /// What it is for.
    #[arg(long, value_enum)]
    pub(crate) purpose: Option<Purpose>,
    /// What it is called.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// What a student is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// To find something out and publish it.
    Research,
    /// To teach.
    Education,
    /// To sort or label things, without writing anything.
    Classification,
    /// For the own use of whoever trains it.
    Internal,
    /// To be offered to others.
    Product,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Grant {
    /// Ask for permission to distill a teacher; it permits nothing until it is approved.
    Ask {
        /// Name of the grant.
        grant: String,
        /// For whom.
        #[arg(long)]
        account: String,
        /// Which teacher.
        #[arg(long)]
        model: String,
        /// What the student is for.
        #[arg(long)]
        purpose: String,
        #[command(flatten)]
        permits: Permits,
        #[command(flatten)]
        site: Site,
    },
    /// Approve a grant that was asked for, as it was asked for or otherwise.
    Approve {
        /// Which grant.
        grant: String,
        #[command(flatten)]
        permits: Permits,
        #[command(flatten)]
        site: Site,
    },
    /// Refuse a grant that was asked for.
    Refuse {
        /// Which grant.
        grant: String,
        /// Why; the journal keeps it.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        site: Site,
    },
    /// Permit an account to distill a teacher.
    Give {
        /// Name of the grant.
        grant: String,
        /// For whom.
        #[arg(long)]
        account: String,
        /// Which teacher.
        #[arg(long)]
        model: String,
        /// What the student is for.
        #[arg(long)]
        purpose: String,
        #[command(flatten)]
        permits: Permits,
        #[command(flatten)]
        site: Site,
    },
    /// Take a grant back.
    Revoke {
        /// Which grant.
        grant: String,
        #[command(flatten)]
        site: Site,
    },
    /// List grants.
    List {
        /// Only those of this account.
        #[arg(long)]
        account: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Print a grant and what became of it.
    Show {
        /// Which grant.
        grant: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
}

/// What a grant permits; what is not said is as the terms have it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Permits {
    /// Largest student, in parameters.
    #[arg(long)]
    pub(crate) max_student: Option<u64>,
    /// Largest number of completion tokens.
    #[arg(long)]
    pub(crate) max_tokens: Option<u64>,
    /// The student may compete with the teacher.
    #[arg(long)]
    pub(crate) competing: bool,
    /// Days until it expires.
    #[arg(long)]
    pub(crate) days: Option<u32>,
    /// Which of the teacher's prices applies.
    #[arg(long, value_enum)]
    pub(crate) price_class: Option<PriceClass>,
    /// A price of its own, in dollars a million completion tokens.
    #[arg(long, conflicts_with = "price_class")]
    pub(crate) price: Option<String>,
    /// Permits more than the terms do, for this reason; the journal keeps it.
    #[arg(long, value_name = "REASON")]
    pub(crate) beyond_terms: Option<String>,
}

/// Which of a teacher's prices applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriceClass {
    /// Of ordinary use.
    Standard,
    /// Of distillation.
    Distillation,
    /// Of what need not be answered at once.
    Batch,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Journal {
    /// Recompute the tree and check every signature.
    Verify {
        /// The journal's folder, or one of its sealed files, which then needs `--key`.
        dir: PathBuf,
        /// The public key that must have signed it.
        #[arg(long)]
        key: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the entries, one JSON object a line.
    Show {
        /// The journal's folder.
        dir: PathBuf,
        /// From this index on.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most this many.
        #[arg(long)]
        limit: Option<u64>,
        /// The gateway's folder of secrets: opens sealed texts. What is printed then is not what was hashed.
        #[arg(long, value_name = "DIR")]
        secrets: Option<PathBuf>,
    },
    /// Turn everything that is written so far into sealed Parquet files.
    Seal {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Delete the sealed files that `[journal] keep` does not keep; their signed roots stay.
    Prune {
        /// Only say which.
        #[arg(long)]
        dry_run: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Twins {
    /// Sum up the twins of a journal by day and model: how many, their tokens, and their cost at the teacher's price.
    Cost {
        /// The journal's folder.
        dir: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

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
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the JSON here.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Fixes the sampling of large accounts.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Distill {
    /// Run a recipe from the terms to the student.
    Run {
        /// The recipe.
        recipe: PathBuf,
        /// Only say what it would take: tokens, money, bytes, hours.
        #[arg(long)]
        dry_run: bool,
        /// The report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a student, or another model, in another form: as a file for llama.cpp or as a Hugging Face folder.
    Export {
        /// A Hugging Face folder, or a file *.gguf.
        model: PathBuf,
        /// gguf-f32, gguf-f16 or gguf-q8_0 for llama.cpp; hf-f32, hf-f16 or hf-bf16 for a Hugging Face folder.
        #[arg(long)]
        format: anbiq_distill::Format,
        /// The file or the folder to write.
        #[arg(short, long, value_name = "PATH")]
        out: PathBuf,
    },
    /// Ask the teacher only; the answers go to the recipe's capture file.
    Capture {
        /// The recipe.
        recipe: PathBuf,
        /// The report as JSON.
        #[arg(long)]
        json: bool,
    },
}

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
    /// Verdicts of `anbiq trace --out`; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Vec<PathBuf>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Train a teacher on the generated corpus.
    Teacher {
        /// Folder of the teacher.
        #[arg(short, long, default_value = "teacher")]
        out: PathBuf,
        /// Fixes corpus and weights.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Training tokens.
        #[arg(long, default_value_t = 12_000_000)]
        tokens: u64,
    },
    /// Write the generated corpus: documents, held-out documents and checkable tasks.
    Corpus {
        /// Folder of the files.
        #[arg(short, long, default_value = "corpus")]
        out: PathBuf,
        /// Fixes every document.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Documents.
        #[arg(long, default_value_t = 10_000)]
        documents: usize,
    },
    /// Write the embedded teacher as a Hugging Face folder.
    Unpack {
        /// Folder of the teacher.
        #[arg(short, long, default_value = "teacher")]
        out: PathBuf,
    },
}
