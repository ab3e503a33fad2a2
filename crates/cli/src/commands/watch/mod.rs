//! `anbiq watch`: from a journal, or from imported logs, to operators and campaigns.

mod enforce;
mod follow;

use std::path::{Path, PathBuf};

use anbiq_domain::{Entry, Terms};
use anbiq_import::{Import, ImportError, ImportedRows};
use anbiq_journal::Reader;
use anbiq_watch::{Alarms, Config, Report, Seen};
use anyhow::{Context, bail, ensure};

use super::Outcome;
use crate::args::{Method, Watch};
use crate::site::read_json;
use crate::talk::{self, Talk};

pub(crate) async fn run(args: &Watch, talk: Talk) -> anyhow::Result<Outcome> {
    if let Some(measure) = &args.measure {
        return enforce::run(measure, talk).await;
    }
    let config = config(&args.method);
    let report = match &args.journal {
        Some(journal) if args.follow.follow => follow::run(journal, args, config, talk).await?,
        Some(journal) => watch(journal, &config)?,
        None => watch_imported(&args.imported, &args.terms, args.method.seed)?,
    };
    if let Some(path) = &args.stix {
        let bundle = serde_json::to_vec_pretty(&anbiq_watch::indicators(&report))?;
        std::fs::write(path, bundle).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    talk::report(&report, args.output.json, args.output.out.as_deref(), anbiq_watch::render_text)?;
    Ok(Outcome::found(report.campaigns().next().is_some()))
}

/// What the detector is to assume.
fn config(method: &Method) -> Config {
    let Method { seed, look_hours, false_alarms, horizon_days } = *method;
    let alarms = Alarms { look_hours, false_alarms, horizon_days, ..Alarms::default() };
    Config { alarms: Some(alarms), ..standard(seed) }
}

/// What the detector assumes where nobody says otherwise.
pub(crate) fn standard(seed: u64) -> Config {
    Config { seed, alarms: Some(Alarms::default()), ..Config::default() }
}

/// Reads all rows of imported logs, and the terms that they are judged by. Rows of several files come one file after the other
/// and not in the order of time, so no looks are taken.
fn watch_imported(folders: &[PathBuf], terms: &[PathBuf], seed: u64) -> anyhow::Result<Report> {
    let imports = Import::open_all(folders)?;
    let mut seen = Vec::new();
    for path in terms {
        let terms: Terms = read_json(path)?;
        seen.push(Seen::Entry(Entry::TermsIssued { at: imports[0].manifest.first, terms }));
    }
    let rows = imports.iter().map(Import::rows).collect::<Result<Vec<ImportedRows>, ImportError>>()?;
    let mut damage = None;
    let rows = rows.into_iter().flatten().map_while(|row| keep(row, &mut damage).map(Seen::Imported));
    let report = anbiq_watch::analyze(seen.into_iter().chain(rows), &Config { seed, ..Config::default() });
    match damage {
        Some(error) => Err(error.into()),
        None => Ok(report),
    }
}

/// Imported logs hold no twins, and nothing that anybody signed or committed to: they are no evidence for a trace or a case.
pub(crate) fn refuse_imported(report: &Report, file: &Path) -> anyhow::Result<()> {
    ensure!(
        report.imported == 0,
        "`{}` rests on imported logs, which hold no twins and are no evidence\nhint: give the findings of `anbiq watch` on a journal",
        file.display()
    );
    Ok(())
}

/// A journal, rather than the folder of an import.
pub(crate) fn refuse_import(folder: &Path) -> anyhow::Result<()> {
    if Import::is_at(folder) {
        bail!(
            "`{0}` holds imported logs, which are no journal: no twins, no commitments, no signature\nhint: only `anbiq watch --imported {0}` reads them",
            folder.display()
        );
    }
    Ok(())
}

/// Reads the whole journal; damage in it is an error, never a shorter report.
pub(crate) fn watch(journal: &Path, config: &Config) -> anyhow::Result<Report> {
    refuse_import(journal)?;
    let reader = Reader::open(journal).with_context(|| format!("cannot open the journal `{}`", journal.display()))?;
    let mut damage = None;
    let entries = reader.entries()?.map_while(|record| keep(record.map(|record| record.entry), &mut damage));
    let report = anbiq_watch::analyze(entries, config);
    match damage {
        Some(error) => Err(error).with_context(|| format!("cannot read the journal `{}`", journal.display())),
        None => Ok(report),
    }
}

/// `Some` of what was read; after an error `None`, with the error put aside.
pub(crate) fn keep<T, E>(read: Result<T, E>, damage: &mut Option<E>) -> Option<T> {
    read.map_err(|error| *damage = Some(error)).ok()
}
