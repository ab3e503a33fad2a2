//! `anbiq twins`: what twins cost.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anbiq_domain::{Entry, Money, Timestamp, TwinMode};
use anbiq_journal::Reader;
use anyhow::Context;
use serde::Serialize;

use super::Outcome;
use crate::args::Twins;
use crate::site::keep;
use crate::talk;

const DAY: i64 = 24 * 3_600_000;

pub(crate) fn run(args: Twins) -> anyhow::Result<Outcome> {
    match args {
        Twins::Cost { dir, json } => {
            let costs = costs(&dir)?;
            if json { talk::json(&costs)? } else { talk::data(&table(&costs))? }
        }
    }
    Ok(Outcome::Fine)
}

/// The twins of one day (UTC), model and mode.
#[derive(Debug, Default, Serialize)]
struct Cost {
    /// Such as `2026-04-22`.
    day: String,
    model: String,
    mode: TwinMode,
    /// Exchanges whose lot it was to be twinned.
    exchanges: u64,
    /// Draws that ended in good order and were not served.
    twins: u64,
    tokens: u64,
    cost: Money,
    /// What the same accounts paid for these exchanges.
    charged: Money,
    /// Was the day's money spent?
    stopped: bool,
}

fn costs(dir: &Path) -> anyhow::Result<Vec<Cost>> {
    let reader = Reader::open(dir).with_context(|| format!("cannot open the journal `{}`", dir.display()))?;
    let mut damage = None;
    let mut rows: BTreeMap<(i64, String, &str), Cost> = BTreeMap::new();
    let mut stops: Vec<(i64, TwinMode)> = Vec::new();
    for entry in reader.entries()?.map_while(|record| keep(record.map(|record| record.entry), &mut damage)) {
        match entry {
            Entry::Exchange(exchange) => {
                let Some(twinning) = exchange.draws.twinning else { continue };
                let row = row(&mut rows, exchange.at, &exchange.model, twinning.mode);
                row.exchanges += 1;
                row.twins += (exchange.draws.texts.len() as u64)
                    .saturating_sub(1 + open_twins(&exchange.draws, twinning.served));
                row.tokens += exchange.usage.twin_tokens;
                row.cost += twinning.cost;
                row.charged += exchange.cost;
            }
            Entry::TwinsDrawn(twins) => {
                let row = row(&mut rows, twins.at, &twins.model, twins.twinning.mode);
                row.twins += twins.draws.len() as u64;
                row.tokens += twins.tokens;
                row.cost += twins.twinning.cost;
            }
            Entry::TwinsStopped { at, mode, .. } => stops.push((day(at), mode)),
            _ => {}
        }
    }
    if let Some(error) = damage {
        return Err(error).with_context(|| format!("cannot read the journal `{}`", dir.display()));
    }
    for ((day, _, _), row) in &mut rows {
        row.stopped = stops.contains(&(*day, row.mode));
    }
    Ok(rows.into_values().collect())
}

/// Twins that had not ended when the answer did.
fn open_twins(draws: &anbiq_domain::Draws, served: u8) -> u64 {
    draws.open.iter().filter(|index| **index != served).count() as u64
}

fn row<'a>(
    rows: &'a mut BTreeMap<(i64, String, &'static str), Cost>,
    at: Timestamp,
    model: &str,
    mode: TwinMode,
) -> &'a mut Cost {
    let date = Timestamp::from_milliseconds(day(at) * DAY).to_string();
    let new = || Cost { day: date.chars().take(10).collect(), model: model.to_owned(), mode, ..Cost::default() };
    rows.entry((day(at), model.to_owned(), mode.as_str())).or_insert_with(new)
}

const fn day(at: Timestamp) -> i64 {
    at.milliseconds().div_euclid(DAY)
}

fn table(costs: &[Cost]) -> String {
    let mut text = format!(
        "{:<10}  {:<24} {:<9} {:>9} {:>9} {:>12} {:>14} {:>14}\n",
        "day", "model", "mode", "exchanges", "twins", "tokens", "cost", "charged"
    );
    for cost in costs {
        let Cost { day, model, mode, exchanges, twins, tokens, cost, charged, stopped } = cost;
        let model: String = model.chars().take(24).collect();
        let stopped = if *stopped { "  the day's money was spent" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{day:<10}  {model:<24} {:<9} {exchanges:>9} {twins:>9} {tokens:>12} {:>14} {:>14}{stopped}",
            mode.as_str(),
            cost.to_string(),
            charged.to_string(),
        );
    }
    text
}
