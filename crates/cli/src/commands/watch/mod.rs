//! `anbiq watch`: from a journal, or from imported logs, to operators and campaigns.

mod ahead;
mod enforce;
mod follow;
mod imported;
mod page;

use std::path::Path;

use anbiq_import::Import;
use anbiq_journal::{JournalError, Reader};
use anbiq_watch::{Alarms, Config, Report, State};
use anyhow::{Context, bail, ensure};

use super::Outcome;
use crate::args::{Method, Watch};
use crate::talk::{self, Talk};

pub(crate) async fn run(args: &Watch, talk: Talk) -> anyhow::Result<Outcome> {
    if let Some(measure) = &args.measure {
        return enforce::run(measure, talk).await;
    }
    let config = config(&args.method);
    let report = match &args.journal {
        Some(journal) if args.follow.follow => follow::run(journal, args, config, talk).await?,
        Some(journal) => watch(journal, &config)?,
        None => imported::watch(&args.imported, &args.terms, args.method.seed)?,
    };
    if let Some(path) = &args.stix {
        let bundle = serde_json::to_vec_pretty(&anbiq_watch::indicators(&report))?;
        std::fs::write(path, bundle).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if let Some(path) = &args.html {
        let page = anbiq_evidence::html::findings(&page::findings(&report));
        std::fs::write(path, page).with_context(|| format!("cannot write `{}`", path.display()))?;
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
            "`{0}` holds imported logs, which are no journal: no twins, no commitments, no signature\nhint: only `anbiq watch` and `anbiq lake` read them, with `--imported {0}`",
            folder.display()
        );
    }
    Ok(())
}

/// Reads the whole journal; damage in it is an error, never a shorter report.
pub(crate) fn watch(journal: &Path, config: &Config) -> anyhow::Result<Report> {
    refuse_import(journal)?;
    let reader = Reader::open(journal).with_context(|| format!("cannot open the journal `{}`", journal.display()))?;
    let mut state = State::new(config.clone());
    ahead::each(reader.entries()?, |record| {
        state.take(record.entry);
        Ok::<(), JournalError>(())
    })
    .with_context(|| format!("cannot read the journal `{}`", journal.display()))?;
    Ok(state.report())
}
