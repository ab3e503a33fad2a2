//! The standings for a person at a terminal.

use std::fmt::Write as _;

use crate::baseline::Method;
use crate::contest::Standings;
use crate::delay::{DelayRow, Gone};
use crate::score::Share;

/// The standings as text: plain, aligned. Intervals and curves are in the JSON and on the page.
pub fn render_text(standings: &Standings) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut text, standings);
    text
}

/// A share in percent; `-` of nothing.
pub(crate) fn percent(share: &Share) -> String {
    if share.of == 0 { "-".into() } else { decimals(100.0 * share.value()) }
}

/// The same with its interval.
fn with_interval(share: &Share) -> String {
    let bound = |bound: f64| decimals(100.0 * bound);
    format!("{} ({} to {})", percent(share), bound(share.interval.low), bound(share.interval.high))
}

pub(crate) fn decimals(percent: f64) -> String {
    match percent {
        0.0 => "0".into(),
        percent if percent < 10.0 => format!("{percent:.2}"),
        percent => format!("{percent:.0}"),
    }
}

fn write_all(text: &mut String, standings: &Standings) -> std::fmt::Result {
    writeln!(
        text,
        "{} accounts, {} exchanges, seeds {} to {}; {:.0} % of the honest volume is of hard negatives",
        standings.accounts,
        standings.exchanges,
        standings.seed,
        standings.seed + standings.seeds - 1,
        100.0 * standings.hard
    )?;
    writeln!(text, "composed traffic: {}", standings.composed_from)?;
    writeln!(text, "watch took {:.0} exchanges a second on {} cores", standings.rate, standings.cores)?;

    let heads: Vec<&str> = Method::BASELINES.iter().map(|method| method.name()).collect();
    writeln!(text, "\nhonest accounts that are flagged, %")?;
    write!(text, "{:<34}{:>9}{:>21}{:>13}{:>8}", "", "accounts", "review (95 %)", "worst world", "act")?;
    heads.iter().try_for_each(|head| write!(text, "{head:>15}"))?;
    for row in &standings.classes {
        write!(text, "\n{:<34}{:>9}", row.class.name(), row.reviewed.of)?;
        let worst = decimals(100.0 * row.worst);
        write!(text, "{:>21}{worst:>13}{:>8}", with_interval(&row.reviewed), percent(&row.accused))?;
        Method::BASELINES.iter().try_for_each(|method| {
            write!(text, "{:>15}", row.flagged.get(method).map_or_else(|| "-".into(), percent))
        })?;
    }
    writeln!(text, "\n\ncampaigns that are found, %")?;
    write!(text, "{:<52}{:>6}{:>21}{:>8}", "", "of", "found (95 %)", "acted")?;
    heads.iter().try_for_each(|head| write!(text, "{head:>15}"))?;
    for row in &standings.campaigns {
        write!(text, "\n{:<52}{:>6}", row.campaign.name(), row.found.of)?;
        write!(text, "{:>21}{:>8}", with_interval(&row.found), percent(&row.accused))?;
        Method::BASELINES.iter().try_for_each(|method| {
            write!(text, "{:>15}", row.flagged.get(method).map_or_else(|| "-".into(), percent))
        })?;
    }
    writeln!(text)?;
    for (stage, of) in [("first alarm", (|row| row.review) as fn(&DelayRow) -> Gone), ("stage act", |row| row.act)] {
        if !standings.delays.is_empty() {
            write_gone(text, standings, stage, of)?;
        }
    }
    writeln!(text, "\nlinking")?;
    writeln!(
        text,
        "{:<40}{:>16}{:>13}{:>12}{:>9}{:>7}",
        "", "pair precision", "pair recall", "B3 precis.", "recall", "F1"
    )?;
    for row in &standings.linking {
        let (precision, recall, f1) = row.linking.b_cubed();
        writeln!(
            text,
            "{:<40}{:>16.4}{:>13.3}{precision:>12.3}{recall:>9.3}{f1:>7.3}",
            format!("{}, {}", row.method.name(), row.worlds),
            row.linking.pair_precision(),
            row.linking.pair_recall()
        )?;
    }
    if !standings.ablations.is_empty() {
        write_ablations(text, standings)?;
    }
    writeln!(text, "\ntrue alarms at a share of false ones, %")?;
    writeln!(text, "{:<32}{:>8}{:>8}{:>8}{:>8}", "", "0", "0.1 %", "1 %", "10 %")?;
    for row in &standings.curves {
        let name = format!("{}, {}", row.method.name(), if row.accounts { "accounts" } else { "operators" });
        write!(text, "{name:<32}")?;
        for alarms in [0.0, 0.001, 0.01, 0.1] {
            write!(text, "{:>8}", decimals(100.0 * row.curve.at(alarms)))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn write_gone(text: &mut String, standings: &Standings, stage: &str, of: fn(&DelayRow) -> Gone) -> std::fmt::Result {
    writeln!(text, "\nwhat was gone of a campaign at the {stage} (median of those that came to it, and its interval)")?;
    let heads = ["hours", "exchanges", "tokens", "% of it"];
    write!(text, "{:<52}{:>8}", "", "found")?;
    heads.iter().try_for_each(|head| write!(text, "{head:>28}"))?;
    writeln!(text)?;
    for row in &standings.delays {
        let gone = of(row);
        write!(text, "{:<52}{:>8}", row.campaign.name(), format!("{}/{}", gone.found, row.of))?;
        let spreads = [(gone.hours, 1.0), (gone.exchanges, 1.0), (gone.tokens, 1.0), (gone.share, 100.0)];
        for (spread, times) in spreads {
            let shown = |value: f64| format!("{:.0}", times * value);
            let all = format!("{} ({} to {})", shown(spread.median), shown(spread.low), shown(spread.high));
            write!(text, "{:>28}", if gone.found == 0 { "-" } else { &all })?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn write_ablations(text: &mut String, standings: &Standings) -> std::fmt::Result {
    writeln!(text, "\nwithout one kind of evidence")?;
    let heads = ["found, shared", "found, clean", "accused", "honest reviewed"];
    write!(text, "{:<16}", "")?;
    heads.iter().try_for_each(|head| write!(text, "{head:>22}"))?;
    writeln!(text, "{:>16}{:>8}", "pair precision", "B3 F1")?;
    for row in &standings.ablations {
        write!(text, "{:<16}", row.without.map_or("with all", |channel| channel.name()))?;
        for share in [&row.shared, &row.clean, &row.accused, &row.reviewed] {
            write!(text, "{:>22}", with_interval(share))?;
        }
        writeln!(text, "{:>16.4}{:>8.3}", row.linking.pair_precision(), row.linking.b_cubed().2)?;
    }
    Ok(())
}
