//! `anbiq watch`: from a journal to operators and campaigns.

use std::path::Path;

use anbiq_journal::{JournalError, Reader};
use anbiq_watch::{Config, Report};
use anyhow::Context;

use super::Outcome;
use crate::args::Watch;
use crate::talk;

pub(crate) fn run(args: &Watch) -> anyhow::Result<Outcome> {
    let report = watch(&args.journal, args.seed)?;
    talk::report(&report, args.json, args.out.as_deref(), anbiq_watch::render_text)?;
    Ok(Outcome::found(report.campaigns().next().is_some()))
}

/// Reads the whole journal; damage in it is an error, never a shorter report.
pub(crate) fn watch(journal: &Path, seed: u64) -> anyhow::Result<Report> {
    let reader = Reader::open(journal).with_context(|| format!("cannot open the journal `{}`", journal.display()))?;
    let mut damage = None;
    let entries = reader.entries()?.map_while(|record| keep(record.map(|record| record.entry), &mut damage));
    let report = anbiq_watch::analyze(entries, &Config { seed, ..Config::default() });
    match damage {
        Some(error) => Err(error).with_context(|| format!("cannot read the journal `{}`", journal.display())),
        None => Ok(report),
    }
}

/// `Some` of what was read; after an error `None`, with the error put aside.
pub(crate) fn keep<T>(read: Result<T, JournalError>, damage: &mut Option<JournalError>) -> Option<T> {
    read.map_err(|error| *damage = Some(error)).ok()
}
