//! `anbiq watch --imported`: the logs of other systems, in the order of time.
//!
//! What is found may not depend on the order in which files were named or rows were written, and a stream is judged as it comes. Where
//! rows are in no order they are read several times, each time another stretch of time is kept and sorted: so memory is bounded.

use std::path::PathBuf;

use anbiq_domain::{AccountId, Entry, Imported, ImportedExchange, Keyed, Terms, Timestamp};
use anbiq_import::{Import, ImportError};
use anbiq_watch::{Config, Report, State};

use crate::site::read_json;

/// Rows that are held and sorted at a time: some hundred bytes each.
const HELD: usize = 2_000_000;

/// Reads all rows of imported logs, and the terms that they are judged by. No looks are taken: logs tell nothing of grants, which
/// alarms are to respect.
pub(super) fn watch(folders: &[PathBuf], terms: &[PathBuf], seed: u64) -> anyhow::Result<Report> {
    let imports = Import::open_all(folders)?;
    let mut state = State::new(Config { seed, ..Config::default() });
    for path in terms {
        let terms: Terms = read_json(path)?;
        state.take(Entry::TermsIssued { at: imports[0].manifest.first, terms });
    }
    let (mut times, mut last, mut in_order) = (Vec::new(), None, true);
    for row in rows(&imports) {
        match row? {
            Imported::Exchange(exchange) => {
                let place = Some(place(&exchange));
                in_order &= last <= place;
                last = place;
                times.push(exchange.at);
            }
            other => state.take(other),
        }
    }
    if in_order {
        for exchange in exchanges(&imports) {
            state.take(Imported::Exchange(exchange?));
        }
        return Ok(state.report());
    }
    times.sort_unstable();
    let mut starts: Vec<Timestamp> = times.chunks(HELD).map(|chunk| chunk[0]).collect();
    starts.dedup();
    drop(times);
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1);
        let here = |at: Timestamp| at >= *start && end.is_none_or(|end| at < *end);
        let mut held = Vec::new();
        for exchange in exchanges(&imports) {
            held.extend(Some(exchange?).filter(|exchange| here(exchange.at)));
        }
        held.sort_by_cached_key(|exchange| place(exchange));
        held.into_iter().for_each(|exchange| state.take(Imported::Exchange(exchange)));
    }
    Ok(state.report())
}

/// The place of a row among all others; those that share it are as good as equal.
fn place(exchange: &ImportedExchange) -> (Timestamp, AccountId, Option<Keyed>) {
    (exchange.at, exchange.account.clone(), exchange.sketch.as_ref().map(|sketch| sketch.exact))
}

fn exchanges(imports: &[Import]) -> impl Iterator<Item = Result<Box<ImportedExchange>, ImportError>> {
    rows(imports).filter_map(|row| match row {
        Ok(Imported::Exchange(exchange)) => Some(Ok(exchange)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

fn rows(imports: &[Import]) -> impl Iterator<Item = Result<Imported, ImportError>> {
    imports.iter().flat_map(|import| match import.rows() {
        Ok(rows) => Box::new(rows) as Box<dyn Iterator<Item = Result<Imported, ImportError>>>,
        Err(error) => Box::new(std::iter::once(Err(error))),
    })
}
