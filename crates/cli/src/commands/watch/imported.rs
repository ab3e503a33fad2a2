//! `anbiq watch --imported`: the logs of other systems, in the order of time.
//!
//! What is found may not depend on the order in which files were named or rows were written, and a stream is judged as it comes. Rows
//! that are in order are read once. Others are read several times, each time another stretch of time is kept and sorted: so memory is
//! bounded.

use std::path::PathBuf;

use anbiq_domain::{AccountId, Entry, Imported, ImportedExchange, Keyed, Terms, Timestamp};
use anbiq_import::{Import, ImportError};
use anbiq_watch::{Config, Report, State};

use super::ahead;
use crate::site::read_json;

/// Rows that are held and sorted at a time: some hundred bytes each.
const HELD: usize = 2_000_000;

/// Reads all rows of imported logs, and the terms that they are judged by. No looks are taken: logs tell nothing of grants, which
/// alarms are to respect.
pub(super) fn watch(folders: &[PathBuf], terms: &[PathBuf], seed: u64) -> anyhow::Result<Report> {
    let imports = Import::open_all(folders)?;
    let terms = terms.iter().map(|path| read_json(path)).collect::<anyhow::Result<Vec<Terms>>>()?;
    let fresh = || {
        let mut state = State::new(Config { seed, ..Config::default() });
        let at = imports[0].manifest.first;
        terms.iter().for_each(|terms| state.take(Entry::TermsIssued { at, terms: terms.clone() }));
        state
    };
    let (mut state, mut last) = (fresh(), None);
    let in_order = ahead::each(rows(&imports), |row| {
        if let Imported::Exchange(exchange) = &row {
            let place = Some(place(exchange));
            if last > place {
                return Err(Stop::Disorder);
            }
            last = place;
        }
        state.take(row);
        Ok(())
    });
    match in_order {
        Ok(()) => {}
        Err(Stop::Disorder) => {
            state = fresh();
            sorted(&imports, &mut state)?;
        }
        Err(Stop::Failed(error)) => return Err(error.into()),
    }
    Ok(state.report())
}

/// Why a reading ended early.
enum Stop {
    /// A row stands after one that it belongs before.
    Disorder,
    Failed(ImportError),
}

impl From<ImportError> for Stop {
    fn from(error: ImportError) -> Self {
        Self::Failed(error)
    }
}

/// Takes rows that are in no order.
fn sorted(imports: &[Import], state: &mut State) -> Result<(), ImportError> {
    let mut times = Vec::new();
    ahead::each(rows(imports), |row| {
        match row {
            Imported::Exchange(exchange) => times.push(exchange.at),
            other => state.take(other),
        }
        Ok::<(), ImportError>(())
    })?;
    times.sort_unstable();
    let mut starts: Vec<Timestamp> = times.chunks(HELD).map(|chunk| chunk[0]).collect();
    starts.dedup();
    drop(times);
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1);
        let here = |at: Timestamp| at >= *start && end.is_none_or(|end| at < *end);
        let mut held = Vec::new();
        ahead::each(exchanges(imports), |exchange| {
            held.extend(Some(exchange).filter(|exchange| here(exchange.at)));
            Ok::<(), ImportError>(())
        })?;
        held.sort_by_cached_key(|exchange| place(exchange));
        held.into_iter().for_each(|exchange| state.take(Imported::Exchange(exchange)));
    }
    Ok(())
}

/// The place of a row among all others; those that share it are as good as equal.
fn place(exchange: &ImportedExchange) -> (Timestamp, AccountId, Option<Keyed>) {
    (exchange.at, exchange.account.clone(), exchange.sketch.as_ref().map(|sketch| sketch.exact))
}

fn exchanges(imports: &[Import]) -> impl Iterator<Item = Result<Box<ImportedExchange>, ImportError>> + Send {
    rows(imports).filter_map(|row| match row {
        Ok(Imported::Exchange(exchange)) => Some(Ok(exchange)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

fn rows(imports: &[Import]) -> impl Iterator<Item = Result<Imported, ImportError>> + Send {
    imports.iter().flat_map(|import| match import.rows() {
        Ok(rows) => Box::new(rows) as Box<dyn Iterator<Item = Result<Imported, ImportError>> + Send>,
        Err(error) => Box::new(std::iter::once(Err(error))),
    })
}
