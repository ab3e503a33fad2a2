//! Was a model trained on given answers?

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Output, Remote};
use crate::config::{MarkName, default_bias, default_share, default_window};

#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Trace {
    #[command(subcommand)]
    pub(crate) means: Option<TraceMeans>,
    #[command(flatten)]
    pub(crate) twins: Option<TraceTwins>,
}

/// What is done where it is not a trace at once by the twins of a journal.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TraceMeans {
    /// Fix a trace before any model is asked: write what will be tested and how, and sign it.
    Plan(Box<TracePlan>),
    /// Make all tests of a plan, and nothing else, and report them all.
    Run(TraceRun),
    /// How many pairs show an effect of which size?
    Power(TracePower),
    /// Was a model trained on answers that carry the teacher's watermark?
    Watermark(TraceWatermark),
    /// Collect what a model answers, as the file of answers that other commands read.
    Ask(TraceAsk),
    /// Is a server the model that it is said to be? Before anything that it answers counts.
    Endpoint(TraceEndpoint),
    /// Whose answers do given answers look like, and is any model that is known to be independent as much like them?
    Style(TraceStyle),
    /// Are the suspect's weights derived from the teacher's? Distillation leaves them independent.
    Weights(TraceWeights),
    /// Has what a suspect wrote more words in a row in common with what was served than with its twins? Needs texts alone.
    Overlap(TraceOverlap),
    /// Whom does a suspect take itself for, more often than models that are known to be independent?
    #[command(subcommand)]
    Identity(TraceIdentity),
    /// Ask which rare and wrong answers a suspect shares with a teacher, beside controls.
    Errors(TraceErrors),
    /// Answers with a secret that is drawn before they are served, and whether a suspect remembers them.
    #[command(subcommand)]
    Canary(TraceCanary),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceAsk {
    /// The model: a Hugging Face folder, or the base URL of an OpenAI-compatible server.
    pub(crate) model_at: String,
    /// What to ask, as JSON lines with `prompt`, such as `anbiq trace identity questions` prints; may be given several times.
    #[arg(long, value_name = "FILE", required_unless_present = "journal")]
    pub(crate) prompts: Vec<PathBuf>,
    /// Ask what was asked in the twinned exchanges of this journal, for `anbiq trace overlap`.
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,
    /// The gateway's folder of secrets, where the journal's texts are sealed.
    #[arg(long, value_name = "DIR", requires = "journal")]
    pub(crate) secrets: Option<PathBuf>,
    /// Longest answer, in tokens.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) max_tokens: u32,
    /// Divides the logits; 0 takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Name of the model in the file.
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// The file of answers. What is in it already is not asked again.
    #[arg(short, long, value_name = "FILE", default_value = "answers.jsonl")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceErrors {
    /// Short answers as JSON lines with `model`, `prompt` and `output`; those of more than twelve words do not count.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) answers: Vec<PathBuf>,
    /// Who is who: lines of model, role (suspect, teacher, control), family and, where known, base, with tabulators in between.
    #[arg(long, value_name = "FILE")]
    pub(crate) roles: PathBuf,
    /// The family of the teachers whose answers are in question.
    #[arg(long, value_name = "FAMILY")]
    pub(crate) teacher: String,
    /// Right answers as JSON lines with `prompt` and `answer`: where one is known only wrong answers count.
    #[arg(long, value_name = "FILE")]
    pub(crate) right: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Before and after canaries are served.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TraceCanary {
    /// Draw the secrets, sign what they are drawn from, and write what is to be served.
    Draw(CanaryDraw),
    /// Have a suspect rank the served version of each among all.
    Test(CanaryTest),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CanaryDraw {
    /// The canaries as JSON lines with `operator`, `prompt` and `answer`, which has `{}` where the secret goes.
    #[arg(value_name = "FILE")]
    pub(crate) wanted: PathBuf,
    /// Versions of each: a power of two. One canary shows at most one in so many.
    #[arg(long, default_value_t = 256)]
    pub(crate) candidates: u32,
    /// The secret key that draws; made if it is not there.
    #[arg(long, value_name = "FILE", default_value = "canary.key")]
    pub(crate) key: PathBuf,
    /// The key that signs the draw; made if it is not there.
    #[arg(long, value_name = "FILE", default_value = "trace.key")]
    pub(crate) signer: PathBuf,
    /// Folder for the signed draw and what is to be served; must be absent.
    #[arg(short, long, value_name = "DIR", default_value = "canaries")]
    pub(crate) out: PathBuf,
    /// The gateway's configuration: its journal is told of the draw before anything can be served.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CanaryTest {
    /// The signed draw, or its folder.
    pub(crate) draw: PathBuf,
    /// The key that drew.
    #[arg(long, value_name = "FILE", default_value = "canary.key")]
    pub(crate) key: PathBuf,
    /// The suspect: a folder, or the base URL of a server that scores given text.
    #[arg(long)]
    pub(crate) suspect: String,
    /// Name of the suspect in the report.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The public key that must have signed the draw.
    #[arg(long, value_name = "KEY")]
    pub(crate) signer: Option<String>,
    /// The journal that was told of the draw: only canaries count that left after that, through whatever account.
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,
    /// The gateway's folder of secrets, where the journal's texts are sealed.
    #[arg(long, value_name = "DIR", requires = "journal")]
    pub(crate) secrets: Option<PathBuf>,
    /// Operators as `anbiq watch --out` wrote them; without it every account stands for itself.
    #[arg(long, value_name = "FILE", requires = "journal")]
    pub(crate) operators: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TracePlan {
    /// The suspect: a Hugging Face folder, or the base URL of an OpenAI-compatible server. Nothing is asked of it now.
    #[arg(required_unless_present = "answers", requires_all = ["teacher", "journal"])]
    pub(crate) suspect: Option<String>,
    /// The teacher, likewise.
    #[arg(long, requires = "suspect")]
    pub(crate) teacher: Option<String>,
    /// The journal of the gateway that served the teacher.
    #[arg(long, requires = "suspect")]
    pub(crate) journal: Option<PathBuf>,
    /// The gateway's folder of secrets, where the journal's texts are sealed.
    #[arg(long, value_name = "DIR")]
    pub(crate) secrets: Option<PathBuf>,
    /// Operators as `anbiq watch --out` wrote them; without it every account stands for itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) operators: Option<PathBuf>,
    /// Which pairs to test, by when their twins were drawn; with `both` in two tests, whose p-values answer for each other.
    #[arg(long, value_enum, default_value_t = Modes::Together)]
    pub(crate) mode: Modes,
    /// A model known to be independent; may be given several times.
    #[arg(long, value_name = "MODEL", requires = "suspect")]
    pub(crate) control: Vec<String>,
    /// The trace of a calibration student, which is known to be trained on the served answers; may be given several times. Says
    /// what the pairs may exclude.
    #[arg(long, value_name = "FILE", requires = "suspect")]
    pub(crate) calibration: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) asking: Asking,
    /// Name of the suspect in the report.
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// The effect that is looked for, as the share of pairs in which the suspect prefers what was served; says how many pairs
    /// that needs.
    #[arg(long, value_name = "SHARE")]
    pub(crate) effect: Option<f64>,
    /// Answers whose style to compare as well, as JSON lines; may be given several times.
    #[arg(long, value_name = "FILE", requires_all = ["roles", "family"])]
    pub(crate) answers: Vec<PathBuf>,
    /// Who is who among them, as for `anbiq trace style`.
    #[arg(long, value_name = "FILE", requires = "answers")]
    pub(crate) roles: Option<PathBuf>,
    /// The family of the teacher in question.
    #[arg(long, requires = "answers")]
    pub(crate) family: Option<String>,
    /// The key that signs the plan; made if it is not there.
    #[arg(long, value_name = "FILE", default_value = "trace.key")]
    pub(crate) key: PathBuf,
    /// The plan; must be absent.
    #[arg(short, long, value_name = "FILE", default_value = "plan.json")]
    pub(crate) out: PathBuf,
}

/// In which way models are asked for the twins of a journal, and what is tested besides all traffic and operators.
#[derive(Debug, Clone, Args)]
pub(crate) struct Asking {
    /// Test by how near the suspect comes to the teacher's distributions, as `anbiq trace --nearness` does.
    #[arg(long)]
    pub(crate) nearness: bool,
    /// Test by how the models go on, as `anbiq trace --probe` does.
    #[arg(long, conflicts_with = "nearness")]
    pub(crate) probe: bool,
    /// At how many places of a draw a model behind a URL is probed: so many requests each.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) places: u16,
    /// Test versions of the teacher or periods by themselves too; may be given several times.
    #[arg(long, value_enum, value_name = "PARTS")]
    pub(crate) by: Vec<Parts>,
    /// What `anbiq trace endpoint` said of the server of a model; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) endpoint: Vec<PathBuf>,
}

/// By what pairs are parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Parts {
    /// By the teacher's name and, where its server says it, its build.
    Model,
    /// By the day, in UTC.
    Day,
    /// By the month.
    Month,
}

/// Which pairs are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Modes {
    /// Those whose draws began together: rests on the coins alone.
    Together,
    /// Those whose twins were drawn later: rests on the teacher giving the same distribution of answers then.
    Deferred,
    /// Both, each in a test of its own.
    Both,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceRun {
    /// The plan.
    pub(crate) plan: PathBuf,
    /// The public key that must have signed it.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Where the suspect's files are now, if elsewhere; they must be the planned ones.
    #[arg(long, value_name = "PATH")]
    pub(crate) suspect: Option<PathBuf>,
    /// Where the teacher's files are now.
    #[arg(long, value_name = "PATH")]
    pub(crate) teacher: Option<PathBuf>,
    /// Where the controls' files are now, in the plan's order.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Vec<PathBuf>,
    /// Where the journal is now.
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,
    /// The gateway's folder of secrets, where the journal's texts are sealed.
    #[arg(long, value_name = "DIR")]
    pub(crate) secrets: Option<PathBuf>,
    /// All reports as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder for a report of each test, as JSON; must be absent.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TracePower {
    /// The share of pairs in which the suspect prefers what was served, 0.5 for one that saw nothing; without it a table.
    #[arg(long, value_name = "SHARE")]
    pub(crate) effect: Option<f64>,
    /// The p-value that is aimed at; that of *established* without it.
    #[arg(long, default_value_t = 1e-6)]
    pub(crate) level: f64,
    /// Hypotheses that answer for each other: all traffic, and every operator that is tested.
    #[arg(long, default_value_t = 1)]
    pub(crate) hypotheses: usize,
    /// Pairs at hand: says what they can show.
    #[arg(long)]
    pub(crate) pairs: Option<usize>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceWatermark {
    /// Texts as JSON lines with `model`, `prompt` and `output`: what the models in question wrote, or with `--suspect` what it
    /// is to read.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) texts: Vec<PathBuf>,
    /// The teacher's folder: its tokenizer says what a token is.
    #[arg(long, value_name = "DIR")]
    pub(crate) teacher: PathBuf,
    /// The watermark's key: 64 hexadecimal digits.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The commitment to the key that was handed out before; the journal has it with every marked answer.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) commitment: Option<String>,
    /// How tokens were nudged.
    #[arg(long, value_enum, default_value_t = MarkName::Gumbel)]
    pub(crate) scheme: MarkName,
    /// How many tokens before a token its nudge depends on.
    #[arg(long, default_value_t = default_window())]
    pub(crate) window: usize,
    /// Of `green`: the share of green tokens.
    #[arg(long, default_value_t = default_share())]
    pub(crate) share: f64,
    /// Of `green`: what was added to their logits, in nats.
    #[arg(long, default_value_t = default_bias())]
    pub(crate) bias: f64,
    /// A suspect's folder: it reads the texts, and what it finds likely is looked at.
    #[arg(long, value_name = "DIR")]
    pub(crate) suspect: Option<PathBuf>,
    /// The texts that it reads are marked, in the order in which they were served. Without it they must not be: answers of the
    /// unmarked teacher to the same prompts, which show more.
    #[arg(long, requires = "suspect")]
    pub(crate) marked: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceEndpoint {
    /// The endpoint: the base URL of an OpenAI-compatible server, or a folder.
    pub(crate) endpoint: String,
    /// What it is said to be, likewise.
    #[arg(long)]
    pub(crate) reference: String,
    /// Prompts whose answers to compare, as JSON lines with `prompt`.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// Answers of either to each prompt.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub(crate) answers: u32,
    /// Permutations of the labels.
    #[arg(long, default_value_t = 9_999)]
    pub(crate) permutations: usize,
    /// Most short answers of either, to prompts of the program's own; it ends earlier where they suffice.
    #[arg(long, default_value_t = 400)]
    pub(crate) steps: u32,
    /// Fixes permutations, and draws of models that follow it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Name of the endpoint in the report.
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Before and after models are asked who they are.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TraceIdentity {
    /// Print the questions, as JSON lines with `cluster`, `language` and `prompt`.
    Questions,
    /// Compare what models answered to them.
    Compare(IdentityCompare),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct IdentityCompare {
    /// Answers as JSON lines with `model`, `prompt` and `output`; other prompts are passed over.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) answers: Vec<PathBuf>,
    /// Who is who, as for `anbiq trace style`.
    #[arg(long, value_name = "FILE")]
    pub(crate) roles: PathBuf,
    /// A word that is looked for, such as the name of the teacher or its vendor; may be given several times.
    #[arg(long = "called", value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceOverlap {
    /// What the suspect wrote, as JSON lines with `model`, `prompt` and `output`; lines of other models are passed over.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) texts: Vec<PathBuf>,
    /// The suspect's name in these files.
    #[arg(long, value_name = "NAME")]
    pub(crate) suspect: String,
    /// The journal of the gateway that served the teacher.
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: PathBuf,
    /// The gateway's folder of secrets, where the journal's texts are sealed.
    #[arg(long, value_name = "DIR")]
    pub(crate) secrets: Option<PathBuf>,
    /// Operators as `anbiq watch --out` wrote them; without it every account stands for itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) operators: Option<PathBuf>,
    /// The teacher's name in the report.
    #[arg(long, value_name = "NAME", default_value = "teacher")]
    pub(crate) teacher: String,
    /// Test the pairs whose twins were drawn later, as for `anbiq trace`.
    #[arg(long)]
    pub(crate) deferred: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceWeights {
    /// The suspect's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) suspect: PathBuf,
    /// The teacher's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) teacher: PathBuf,
    /// Name of the suspect in the report.
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
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
    #[command(flatten)]
    pub(crate) output: Output,
}

/// It may be absent as a whole, which clap tells only of arguments that are its own: so `Output`, `Remote` and `Asking` are written out.
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
    /// The trace of a calibration student, which is known to be trained on the served answers; may be given several times. A
    /// suspect that the pairs show to be no such student is acquitted of that.
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Vec<PathBuf>,
    /// Test by how near the suspect comes to the teacher's distributions along either draw, instead of how likely it finds it:
    /// for students that learnt from log-probabilities. Both are folders, with the same tokens.
    #[arg(long)]
    pub(crate) nearness: bool,
    /// Test by how the models go on from the beginning of either draw, at temperature 0: for a suspect that gives no log-probabilities.
    #[arg(long, conflicts_with = "nearness")]
    pub(crate) probe: bool,
    /// At how many places of a draw a model behind a URL is probed: so many requests each.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) places: u16,
    /// Test versions of the teacher or periods by themselves too; may be given several times.
    #[arg(long, value_enum, value_name = "PARTS")]
    pub(crate) by: Vec<Parts>,
    /// What `anbiq trace endpoint` said of the server of a model; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) endpoint: Vec<PathBuf>,
    /// Name of the suspect in the report.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Name of an API key's environment variable, for models behind a URL.
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key_env: Option<String>,
    /// Name that models behind a URL are asked for; `URL#NAME` says it of one.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Folder with the chat template of models behind a URL (`tokenizer_config.json`), or `NAME=DIR` with that of one: where their
    /// server scores and continues texts alone, conversations are put in form by it. May be given several times.
    #[arg(long, value_name = "[NAME=]DIR")]
    pub(crate) template: Vec<String>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the JSON here.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

impl TraceTwins {
    /// How models behind a URL are asked.
    pub(crate) fn remote(&self) -> Remote {
        let (key_env, model, template) = (self.key_env.clone(), self.model.clone(), self.template.clone());
        Remote { key_env, model, template }
    }

    /// In which way models are asked.
    pub(crate) fn asking(&self) -> Asking {
        let (by, endpoint) = (self.by.clone(), self.endpoint.clone());
        Asking { nearness: self.nearness, probe: self.probe, places: self.places, by, endpoint }
    }
}
