//! The standings for a person at a terminal.

use std::fmt::Write as _;

use crate::baseline::Method;
use crate::contest::Standings;
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
    write!(text, "{:<34}{:>9}{:>21}{:>8}", "", "accounts", "review (95 %)", "act")?;
    heads.iter().try_for_each(|head| write!(text, "{head:>15}"))?;
    for row in &standings.classes {
        write!(text, "\n{:<34}{:>9}", row.class.name(), row.reviewed.of)?;
        write!(text, "{:>21}{:>8}", with_interval(&row.reviewed), percent(&row.accused))?;
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
    writeln!(text, "\n\nwhat was gone when a campaign was first found (median of those found)")?;
    writeln!(text, "{:<52}{:>8}{:>8}{:>12}{:>14}", "", "found", "hours", "exchanges", "tokens")?;
    for row in &standings.delays {
        let found = format!("{}/{}", row.found, row.of);
        match row.found {
            0 => writeln!(text, "{:<52}{found:>8}{:>8}{:>12}{:>14}", row.campaign.name(), "-", "-", "-")?,
            _ => writeln!(
                text,
                "{:<52}{found:>8}{:>8.0}{:>12}{:>14}",
                row.campaign.name(),
                row.hours,
                row.exchanges,
                row.tokens
            )?,
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
    writeln!(text, "\nwithout one kind of evidence")?;
    writeln!(
        text,
        "{:<16}{:>10}{:>10}{:>18}{:>16}{:>8}",
        "", "shared", "clean", "honest reviewed", "pair precision", "B3 F1"
    )?;
    for row in &standings.ablations {
        let name = row.without.map_or("with all", |channel| channel.name());
        writeln!(
            text,
            "{name:<16}{:>10}{:>10}{:>18}{:>16.4}{:>8.3}",
            percent(&row.shared),
            percent(&row.clean),
            percent(&row.reviewed),
            row.linking.pair_precision(),
            row.linking.b_cubed().2
        )?;
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
