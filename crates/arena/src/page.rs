//! The standings as a page: one file that opens offline and runs no script.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::baseline::Method;
use crate::contest::Standings;
use crate::delay::{DelayRow, Gone, Spread};
use crate::plot;
use crate::score::Share;
use crate::table::{decimals, percent};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn page(standings: &Standings) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "anbiq lab watch" }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { "Who finds the operator, and whom else do they accuse?" }
                p.soft {
                    (standings.accounts) " accounts, " (standings.exchanges) " exchanges; seeds " (standings.seed) " to "
                    (standings.seed + standings.seeds - 1) "; " (format!("{:.0}", 100.0 * standings.hard))
                    " % of the honest volume is of hard negatives. Intervals are exact ones of 95 % (Clopper and Pearson), as if accounts and campaigns were independent."
                }
                p.soft { "Composed traffic: " (standings.composed_from) ". No figure says what happened anywhere." }
                (honest(standings))
                (campaigns(standings))
                (curves(standings))
                (delays(standings))
                (linking(standings))
                (ablations(standings))
            } }
        }
    };
    page.into_string().replace("</tr>", "</tr>\n").replace("</g>", "</g>\n").replace("</figure>", "</figure>\n")
}

fn cell(share: Option<&Share>, ours: bool) -> Markup {
    let Some(share) = share else { return html! { td { "-" } } };
    let interval = format!("{} to {}", decimals(100.0 * share.interval.low), decimals(100.0 * share.interval.high));
    html! {
        td.ours[ours] title={ (share.hits) " of " (share.of) } { (percent(share)) @if ours { " " small { (interval) } } }
    }
}

fn heads() -> Markup {
    html! { @for method in Method::BASELINES { th { (method.name()) } } }
}

fn honest(standings: &Standings) -> Markup {
    html! {
        h2 { "Honest customers that are flagged" }
        p.soft { "Percent of accounts. `Review` counts what is put before a person, accusations included; `act` counts accusations." }
        div.scroll { table {
            tr { th {} th { "accounts" } th { "exchanges" } th { "review" } th { "worst world" } th { "act" } (heads()) }
            @for row in &standings.classes { tr {
                td { (row.class.name()) }
                td { (row.reviewed.of) }
                td { (row.exchanges) }
                (cell(Some(&row.reviewed), true))
                td { (decimals(100.0 * row.worst)) }
                (cell(Some(&row.accused), true))
                @for method in Method::BASELINES { (cell(row.flagged.get(&method), false)) }
            } }
        } }
    }
}

fn campaigns(standings: &Standings) -> Markup {
    let shares: Vec<(String, Share)> = standings.campaigns.iter().map(|row| (row.campaign.name(), row.found)).collect();
    html! {
        h2 { "Campaigns that are found" }
        p.soft { "Percent of campaigns of which half the accounts are flagged. With nothing shared no campaign can be accused, since nothing is done on one kind of evidence: the most is a review." }
        div.scroll { table {
            tr { th {} th { "campaigns" } th { "found" } th { "accused" } (heads()) }
            @for row in &standings.campaigns { tr {
                td { (row.campaign.name()) }
                td { (row.found.of) }
                (cell(Some(&row.found), true))
                (cell(Some(&row.accused), true))
                @for method in Method::BASELINES { (cell(row.flagged.get(&method), false)) }
            } }
        } }
        (plot::shares(&shares, "Campaigns found by Anbiq, with intervals"))
    }
}

fn curves(standings: &Standings) -> Markup {
    let of = |accounts: bool| standings.curves.iter().filter(move |row| row.accounts == accounts);
    html! {
        h2 { "True against false alarms" }
        div.pair {
            (plot::curves(of(true), "Accounts"))
            (plot::curves(of(false), "Operators: one is flagged where half of its accounts are"))
        }
    }
}

fn delays(standings: &Standings) -> Markup {
    html! {
        @if !standings.delays.is_empty() {
            h2 { "What was gone" }
            p.soft { "The stream is followed, and reported whenever a look is due, every six hours. Harvested exchanges until half of a campaign's accounts were first to be reviewed, and until half were at the stage act: the median over those that came to it, with its interval over seeds (95 % from six on, of fewer the range)." }
            (gone(standings, "First alarm", |row| row.review))
            (gone(standings, "Stage act", |row| row.act))
            (plot::delays(&standings.delays, "Exchanges gone at the first alarm, by size; red: some shared, blue: nothing shared"))
        }
    }
}

fn gone(standings: &Standings, stage: &str, of: fn(&DelayRow) -> Gone) -> Markup {
    let shown = |spread: Spread, times: f64| {
        let whole = |value: f64| format!("{:.0}", times * value);
        html! { td.ours { (whole(spread.median)) " " small { (whole(spread.low)) " to " (whole(spread.high)) } } }
    };
    html! {
        h3 { (stage) }
        div.scroll { table {
            tr { th {} th { "found" } th { "hours" } th { "exchanges" } th { "tokens" } th { "% of the campaign" } }
            @for row in &standings.delays {
                @let gone = of(row);
                tr {
                    td { (row.campaign.name()) }
                    td { (gone.found) " of " (row.of) }
                    @if gone.found > 0 {
                        (shown(gone.hours, 1.0)) (shown(gone.exchanges, 1.0)) (shown(gone.tokens, 1.0)) (shown(gone.share, 100.0))
                    } @else { td { "-" } td { "-" } td { "-" } td { "-" } }
                }
            }
        } }
    }
}

fn linking(standings: &Standings) -> Markup {
    html! {
        h2 { "Linking" }
        div.scroll { table {
            tr { th {} th { "worlds" } th { "pair precision" } th { "pair recall" } th { "B-cubed precision" } th { "recall" } th { "F1" } }
            @for row in &standings.linking {
                @let (precision, recall, f1) = row.linking.b_cubed();
                tr {
                    td { (row.method.name()) }
                    td { (row.worlds) }
                    td.ours[row.method == Method::Anbiq] { (format!("{:.4}", row.linking.pair_precision())) }
                    td { (format!("{:.3}", row.linking.pair_recall())) }
                    td { (format!("{precision:.3}")) }
                    td { (format!("{recall:.3}")) }
                    td.ours[row.method == Method::Anbiq] { (format!("{f1:.3}")) }
                }
            }
        } }
    }
}

fn ablations(standings: &Standings) -> Markup {
    if standings.ablations.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Without one kind of evidence" }
        div.scroll { table {
            tr { th {} th { "found, some shared" } th { "found, nothing shared" } th { "accused" } th { "honest reviewed" } th { "pair precision" } th { "B-cubed F1" } }
            @for row in &standings.ablations { tr {
                td { (row.without.map_or("with all", |channel| channel.name())) }
                (cell(Some(&row.shared), true))
                (cell(Some(&row.clean), true))
                (cell(Some(&row.accused), true))
                (cell(Some(&row.reviewed), true))
                td { (format!("{:.4}", row.linking.pair_precision())) }
                td { (format!("{:.3}", row.linking.b_cubed().2)) }
            } }
        } }
    }
}
