//! `anbiq watch`: from a journal, or from imported logs, to operators and campaigns.

use std::path::{Path, PathBuf};

use anbiq_domain::{Entry, Terms};
use anbiq_import::{Import, ImportError, ImportedRows};
use anbiq_journal::Reader;
use anbiq_watch::{Config, Report, Seen};
use anyhow::{Context, bail, ensure};

use super::Outcome;
use crate::args::Watch;
use crate::site::read_json;
use crate::talk;

pub(crate) fn run(args: &Watch) -> anyhow::Result<Outcome> {
    let report = match &args.journal {
        Some(journal) => watch(journal, args.seed)?,
        None => watch_imported(&args.imported, &args.terms, args.seed)?,
    };
    talk::report(&report, args.output.json, args.output.out.as_deref(), anbiq_watch::render_text)?;
    Ok(Outcome::found(report.campaigns().next().is_some()))
}

/// Reads all rows of imported logs, and the terms that they are judged by.
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
pub(crate) fn watch(journal: &Path, seed: u64) -> anyhow::Result<Report> {
    refuse_import(journal)?;
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
pub(crate) fn keep<T, E>(read: Result<T, E>, damage: &mut Option<E>) -> Option<T> {
    read.map_err(|error| *damage = Some(error)).ok()
}
