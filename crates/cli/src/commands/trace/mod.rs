//! `anbiq trace`: a suspect, a teacher and the twins of a journal; or given answers and their style. At once, or by a signed
//! plan.

mod ask;
mod asked;
pub(crate) mod canary;
mod endpoint;
mod identity;
mod plan;
pub(crate) mod planned;
mod run;
mod watermark;
mod weights;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anbiq_domain::{AccountId, Digest, Entry, TwinMode};
use anbiq_evidence::attachment_name;
use anbiq_journal::{Reader, Record, TextKeys, TextsError};
use anbiq_model::Model;
use anbiq_trace::controls::{Part, roles};
use anbiq_trace::items::{self, Selection};
use anbiq_trace::overlap::{Overlap, Unasked};
use anbiq_trace::style::Answers;
use anbiq_trace::{Alternative, By, Collected, Config, OperatorAccounts, Protocol, Report, Statistic, Strength};
use anyhow::{Context, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use asked::{Asked, Named};

use super::Outcome;
use super::watch::{refuse_import, refuse_imported};
use crate::args::{Trace, TraceErrors, TraceMeans, TraceOverlap, TraceStyle, TraceTwins};
use crate::site::{json_lines, keep, read_digested, read_json, text_keys};
use crate::talk::{self, Talk};

/// One text, and who wrote it.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    model: String,
    prompt: String,
    output: String,
}

/// A right answer.
#[derive(Debug, Deserialize)]
struct Right {
    prompt: String,
    answer: String,
}

pub(crate) async fn run(args: &Trace, talk: Talk) -> anyhow::Result<Outcome> {
    match (&args.means, &args.twins) {
        (Some(TraceMeans::Plan(args)), _) => plan::write(args, talk),
        (Some(TraceMeans::Run(args)), _) => run::run(args, talk).await,
        (Some(TraceMeans::Power(args)), _) => plan::power(args),
        (Some(TraceMeans::Ask(args)), _) => ask::run(args, talk).await,
        (Some(TraceMeans::Endpoint(args)), _) => endpoint::run(args, talk).await,
        (Some(TraceMeans::Watermark(args)), _) => watermark::run(args, talk),
        (Some(TraceMeans::Style(args)), _) => style(args),
        (Some(TraceMeans::Weights(args)), _) => weights::run(args),
        (Some(TraceMeans::Overlap(args)), _) => overlap(args, talk).await,
        (Some(TraceMeans::Identity(args)), _) => identity::run(args),
        (Some(TraceMeans::Errors(args)), _) => errors(args),
        (Some(TraceMeans::Canary(args)), _) => canary::run(args, talk).await,
        (None, Some(args)) => twins(args, talk).await,
        (None, None) => bail!("there is nothing to trace\nhint: name a suspect, or see `anbiq trace --help`"),
    }
}

/// Compares given answers in style.
fn style(args: &TraceStyle) -> anyhow::Result<Outcome> {
    let parts = read_roles(&args.roles)?;
    let answers = read_answers(&args.answers)?;
    let report = anbiq_trace::style::compare(&answers, &parts, &args.teacher)?;
    talk::report(&report, args.output.json, args.output.out.as_deref(), anbiq_trace::style::render_style)?;
    Ok(Outcome::Fine)
}

/// Asks which rare answers suspects share with a teacher.
fn errors(args: &TraceErrors) -> anyhow::Result<Outcome> {
    let parts = read_roles(&args.roles)?;
    let mut answered = anbiq_trace::errors::Answered::default();
    for path in &args.answers {
        json_lines(path, "an object with `model`, `prompt` and `output`", |line: Written| {
            answered.add(&line.model, &line.prompt, &line.output);
            Ok(())
        })?;
    }
    if let Some(path) = &args.right {
        json_lines(path, "an object with `prompt` and `answer`", |line: Right| {
            answered.add_right(&line.prompt, &line.answer);
            Ok(())
        })?;
    }
    let report = anbiq_trace::errors::compare(&answered, &parts, &args.teacher)?;
    talk::report(&report, args.output.json, args.output.out.as_deref(), anbiq_trace::errors::render_errors)?;
    Ok(Outcome::Fine)
}

fn read_roles(path: &Path) -> anyhow::Result<Vec<Part>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(roles(&text)?)
}

fn read_answers(files: &[PathBuf]) -> anyhow::Result<Answers> {
    let mut answers = Answers::default();
    for path in files {
        let name = path.display().to_string();
        if path.as_os_str() == "-" {
            answers.read("standard input", std::io::stdin().lock())?;
            continue;
        }
        if path.extension().is_some_and(|end| end == "xz" || end == "gz") {
            bail!("`{name}` is compressed\nhint: unpack it and hand it over by standard input, as `-`");
        }
        let file = File::open(path).with_context(|| format!("cannot read `{name}`"))?;
        answers.read(&name, BufReader::new(file))?;
    }
    Ok(answers)
}

/// Compares what a suspect wrote with the twins of a journal.
async fn overlap(args: &TraceOverlap, talk: Talk) -> anyhow::Result<Outcome> {
    let mode = if args.deferred { TwinMode::Deferred } else { TwinMode::Together };
    let keys = args.secrets.as_deref().map(text_keys);
    refuse_import(&args.journal)?;
    let mut texts: Vec<(String, String)> = Vec::new();
    for path in &args.texts {
        json_lines(path, "an object with `model`, `prompt` and `output`", |line: Written| {
            if line.model == args.suspect {
                texts.push((line.prompt, line.output));
            }
            Ok(())
        })?;
    }
    ensure!(!texts.is_empty(), "the files hold no text of `{}`", args.suspect);
    let suspect = Overlap::new(&args.suspect, texts.iter().map(|(prompt, text)| (prompt.as_str(), text.as_str())));
    let operators = operators(args.operators.as_deref(), &args.journal, mode, keys.as_ref())?;
    let (collected, closed) = collect(&args.journal, operators, mode, keys.as_ref())?;
    say_closed(closed, keys.is_some(), talk);
    let (suspect, teacher): (Arc<dyn Model>, Arc<dyn Model>) =
        (Arc::new(suspect), Arc::new(Unasked(args.teacher.clone())));
    let config = Config { statistic: Statistic::Overlap, ..Config::default() };
    let report = trace(&collected, &suspect, &teacher, &[], &config, talk).await?;
    talk::report(&report, args.output.json, args.output.out.as_deref(), anbiq_trace::render_text)?;
    Ok(Outcome::found(report.verdict.strength == Strength::Established))
}

/// Asks suspect and teacher for the twins of a journal.
async fn twins(args: &TraceTwins, talk: Talk) -> anyhow::Result<Outcome> {
    let mode = if args.deferred { TwinMode::Deferred } else { TwinMode::Together };
    let keys = args.secrets.as_deref().map(text_keys);
    refuse_import(&args.journal)?;
    let asking = Asked::of(&args.asking());
    let operators = operators(args.operators.as_deref(), &args.journal, mode, keys.as_ref())?;
    let (collected, closed) = collect_by(&args.journal, operators, mode, &asking.by, keys.as_ref(), u64::MAX)?;
    say_closed(closed, keys.is_some(), talk);
    let named = |place: &str, name| Named::new(place, name, &args.remote());
    let (suspect, teacher) = (named(&args.suspect, args.name.as_deref()), named(&args.teacher, None));
    let controls: Vec<Named> = args.control.iter().map(|control| named(control, None)).collect();
    let models: Vec<&Named> = [&suspect, &teacher].into_iter().chain(&controls).collect();
    let mut config = asking.config(&models)?;
    let names: Vec<String> = controls.iter().map(|control| control.name.clone()).collect();
    config.alternative = alternative(&args.calibration, &collected, &suspect.name, &teacher.name, &names, &config)?;
    let suspect = suspect.open_suspect(asking.how, &teacher)?;
    let teacher = teacher.open(asking.how)?;
    let controls = controls.iter().map(|control| control.open(asking.how)).collect::<anyhow::Result<Vec<_>>>()?;
    let report = trace(&collected, &suspect, &teacher, &controls, &config, talk).await?;
    talk::report(&report, args.json, args.out.as_deref(), anbiq_trace::render_text)?;
    Ok(Outcome::found(report.verdict.strength == Strength::Established))
}

/// What the traces of calibration students say that the pairs may exclude.
fn alternative(
    files: &[PathBuf],
    collected: &Collected,
    suspect: &str,
    teacher: &str,
    controls: &[String],
    config: &Config,
) -> anyhow::Result<Option<Alternative>> {
    if files.is_empty() {
        return Ok(None);
    }
    let like = Protocol::fix(collected, suspect, teacher, controls.to_vec(), config)?;
    let reports = files.iter().map(|path| read_digested(path)).collect::<anyhow::Result<Vec<(Digest, Report)>>>()?;
    Ok(Some(Alternative::of(&reports, &like)?))
}

/// The operators of the file, or of none every account as its own.
fn operators(
    file: Option<&Path>,
    journal: &Path,
    mode: TwinMode,
    keys: Option<&TextKeys>,
) -> anyhow::Result<Vec<OperatorAccounts>> {
    let Some(path) = file else { return each_account(journal, mode, keys) };
    let findings = read_json(path)?;
    refuse_imported(&findings, path)?;
    Ok(grouped(&findings))
}

fn say_closed(closed: u64, keys: bool, talk: Talk) {
    if closed > 0 {
        let what = if keys { "their accounts' keys are not there" } else { "give their keys by `--secrets`" };
        talk.say(&format!("the texts of {closed} exchanges stay closed: {what}"));
    }
}

/// Scores every pair and reports what the scores show.
pub(crate) async fn trace(
    collected: &Collected,
    suspect: &Arc<dyn Model>,
    teacher: &Arc<dyn Model>,
    controls: &[Arc<dyn Model>],
    config: &Config,
    talk: Talk,
) -> anyhow::Result<Report> {
    let controls: Vec<&dyn Model> = controls.iter().map(AsRef::as_ref).collect();
    let mut step = talk.step(&format!("tracing `{}`", suspect.name()), 0);
    let mut progress = |done, total| step.reach_of(done, total);
    let traced =
        anbiq_trace::run(collected, suspect.as_ref(), teacher.as_ref(), &controls, config, &mut progress).await;
    let report = traced.map_err(|error| match error.code() {
        "scoring_unsupported" => anyhow!(
            "{error}\nhint: `--template` says how the model of a server writes a conversation; without log-probabilities there is `--probe`"
        ),
        _ => error.into(),
    })?;
    step.finish(report.verdict.strength.in_words());
    Ok(report)
}

/// The pairs of a journal that were twinned in `mode`, by operator, and of how many exchanges the sealed texts could not be opened with `keys`.
pub(crate) fn collect(
    journal: &Path,
    operators: Vec<OperatorAccounts>,
    mode: TwinMode,
    keys: Option<&TextKeys>,
) -> anyhow::Result<(Collected, u64)> {
    collect_by(journal, operators, mode, &[], keys, u64::MAX)
}

/// As [`collect`], parted in some ways, from the first `size` entries that the journal ever had.
fn collect_by(
    journal: &Path,
    operators: Vec<OperatorAccounts>,
    mode: TwinMode,
    by: &[By],
    keys: Option<&TextKeys>,
    size: u64,
) -> anyhow::Result<(Collected, u64)> {
    let reader = Reader::open(journal).with_context(|| format!("cannot open the journal `{}`", journal.display()))?;
    let (mut damage, mut opening) = (None, Opening::new(keys));
    let records = reader.entries()?;
    let first_index = records.before().size();
    let selection = Selection { operators, mode, by: by.to_vec(), first_index, ..Selection::default() };
    let within = usize::try_from(size.saturating_sub(first_index)).unwrap_or(usize::MAX);
    let entries =
        records.take(within).map_while(|record| keep(record.map(|record| opening.entry(record)), &mut damage));
    let collected = items::from_journal(entries, &selection);
    match damage {
        Some(error) => Err(error).with_context(|| format!("cannot read the journal `{}`", journal.display())),
        None => Ok((collected?, opening.closed)),
    }
}

/// Opens sealed texts as entries pass, as far as the keys are there.
pub(crate) struct Opening<'keys> {
    keys: Option<&'keys TextKeys>,
    /// Exchanges whose texts stayed closed.
    closed: u64,
}

impl<'keys> Opening<'keys> {
    const fn new(keys: Option<&'keys TextKeys>) -> Self {
        Self { keys, closed: 0 }
    }

    fn entry(&mut self, mut record: Record) -> Entry {
        if let Entry::Exchange(exchange) = &mut record.entry
            && exchange.sealed.is_some()
            && let Err(error) = self.keys.map_or(Err(TextsError::Absent), |keys| keys.open(exchange))
        {
            self.closed += 1;
            if !error.is_absent() {
                tracing::warn!(exchange = %exchange.id, code = error.code(), %error, "sealed texts could not be opened");
            }
        }
        record.entry
    }
}

/// The operators that `watch` found.
pub(crate) fn grouped(report: &anbiq_watch::Report) -> Vec<OperatorAccounts> {
    report.groups().into_iter().map(|(operator, accounts)| OperatorAccounts { operator, accounts }).collect()
}

/// Every account as its own operator.
fn each_account(journal: &Path, mode: TwinMode, keys: Option<&TextKeys>) -> anyhow::Result<Vec<OperatorAccounts>> {
    let (collected, _) = collect(journal, Vec::new(), mode, keys)?;
    let mut accounts: Vec<AccountId> = collected.items.iter().map(|item| item.account.clone()).collect();
    accounts.sort();
    accounts.dedup();
    let alone =
        |account: AccountId| Ok(OperatorAccounts { operator: account.as_str().parse()?, accounts: vec![account] });
    accounts.into_iter().map(alone).collect()
}

/// The name of a report's file, by what was traced and by which pairs.
pub(crate) fn file_name(report: &Report) -> String {
    let when = if report.protocol.mode == TwinMode::Deferred { "-deferred" } else { "" };
    attachment_name(&format!("{}{when}", report.kind().name()), &report.protocol.suspect)
}
