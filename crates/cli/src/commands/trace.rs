//! `anbiq trace`: a suspect, a teacher and the twins of a journal.

use std::path::Path;
use std::sync::Arc;

use anbiq_domain::{AccountId, TwinMode};
use anbiq_journal::Reader;
use anbiq_model::Model;
use anbiq_trace::items::{self, Selection};
use anbiq_trace::{Collected, Config, OperatorAccounts, Report, Strength};
use anyhow::Context;

use super::Outcome;
use super::watch::keep;
use crate::args::Trace;
use crate::site::{open_local, open_upstream, read_json};
use crate::talk::{self, Talk};

pub(crate) async fn run(args: &Trace, talk: Talk) -> anyhow::Result<Outcome> {
    let mode = if args.deferred { TwinMode::Deferred } else { TwinMode::Together };
    let operators = match &args.operators {
        Some(path) => grouped(&read_json(path)?),
        None => each_account(&args.journal, mode)?,
    };
    let collected = collect(&args.journal, operators, mode)?;
    let suspect = open(args, &args.suspect, args.name.as_deref())?;
    let teacher = open(args, &args.teacher, None)?;
    let controls = args.control.iter().map(|control| open(args, control, None)).collect::<anyhow::Result<Vec<_>>>()?;
    let report = trace(&collected, &suspect, &teacher, &controls, talk).await?;
    if let Some(path) = &args.out {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if args.json {
        talk::json(&report)?;
    } else {
        talk::data(&anbiq_trace::render_text(&report))?;
    }
    Ok(Outcome::found(report.verdict.strength == Strength::Established))
}

/// Scores every pair and reports what the scores show.
pub(crate) async fn trace(
    collected: &Collected,
    suspect: &Arc<dyn Model>,
    teacher: &Arc<dyn Model>,
    controls: &[Arc<dyn Model>],
    talk: Talk,
) -> anyhow::Result<Report> {
    let controls: Vec<&dyn Model> = controls.iter().map(AsRef::as_ref).collect();
    let mut step = talk.step(&format!("tracing `{}`", suspect.name()), 0);
    let mut progress = |done, total| step.reach_of(done, total);
    let config = Config::default();
    let report =
        anbiq_trace::run(collected, suspect.as_ref(), teacher.as_ref(), &controls, &config, &mut progress).await?;
    step.finish(report.verdict.strength.in_words());
    Ok(report)
}

/// The pairs of a journal that were twinned in `mode`, by operator.
pub(crate) fn collect(journal: &Path, operators: Vec<OperatorAccounts>, mode: TwinMode) -> anyhow::Result<Collected> {
    let reader = Reader::open(journal).with_context(|| format!("cannot open the journal `{}`", journal.display()))?;
    let mut damage = None;
    let entries = reader.entries()?.map_while(|record| keep(record.map(|record| record.entry), &mut damage));
    let collected = items::from_journal(entries, &Selection { operators, mode, ..Selection::default() });
    match damage {
        Some(error) => Err(error).with_context(|| format!("cannot read the journal `{}`", journal.display())),
        None => Ok(collected?),
    }
}

/// The operators that `watch` found.
pub(crate) fn grouped(report: &anbiq_watch::Report) -> Vec<OperatorAccounts> {
    report.groups().into_iter().map(|(operator, accounts)| OperatorAccounts { operator, accounts }).collect()
}

/// Every account as its own operator.
fn each_account(journal: &Path, mode: TwinMode) -> anyhow::Result<Vec<OperatorAccounts>> {
    let collected = collect(journal, Vec::new(), mode)?;
    let mut accounts: Vec<AccountId> = collected.items.iter().map(|item| item.account.clone()).collect();
    accounts.sort();
    accounts.dedup();
    let alone =
        |account: AccountId| Ok(OperatorAccounts { operator: account.as_str().parse()?, accounts: vec![account] });
    accounts.into_iter().map(alone).collect()
}

/// A folder or a base URL.
fn open(args: &Trace, place: &str, name: Option<&str>) -> anyhow::Result<Arc<dyn Model>> {
    if place.starts_with("http://") || place.starts_with("https://") {
        let model = args.model.as_deref().or(name).unwrap_or("default");
        return open_upstream(place, name.unwrap_or(model), model, args.key_env.as_deref());
    }
    let folder = Path::new(place);
    let own_name = folder.file_name().map_or_else(|| place.to_owned(), |name| name.to_string_lossy().into_owned());
    open_local(folder, name.unwrap_or(&own_name))
}
