//! What `watch` found, as a page.

use maud::{Markup, html};

use super::numbers::{grouped, percent};
use super::shown::Shown;
use super::{Say, figure, graph, meter, moment, operator_row, reasons, shell, still, timeline, tone};
use crate::{Findings, FoundAccount, FoundOperator, GraphEdge, Language, OperatorRow};

/// The whole page.
pub fn findings(findings: &Findings) -> String {
    let rows: Vec<OperatorRow> = findings.operators.iter().map(|operator| operator.row.clone()).collect();
    let body = html! {
        (cover(findings))
        main {
            section #findings {
                h2 { "What was found" }
                ul.findings { @for sentence in &findings.summary { li { (Shown(sentence)) } } }
                p.note { (Shown(&findings.others)) }
                @if !findings.notes.is_empty() {
                    h4 { "To be kept in mind" }
                    ul { @for note in &findings.notes { li { (Shown(note)) } } }
                }
            }
            @if !rows.is_empty() {
                section #operators {
                    h2 { "Operators" }
                    (overview(findings, &rows))
                }
            }
            @for (number, operator) in (1_usize..).zip(&findings.operators) { (told(number, operator)) }
        }
        footer { p { "A finding of a model, to be judged by a person. Linked is not guilty, and what is not shown is not excluded." } }
    };
    shell(Language::English, &findings.title, &body)
}

fn cover(findings: &Findings) -> Markup {
    html! {
        header.cover {
            (still())
            p.kind { "Findings of watch" }
            h1 { (Shown(&findings.title)) }
            p.subtitle { "Who is behind the accounts, and what they are used for" }
            dl.facts {
                @for (name, value) in &findings.facts { div { dt { (Shown(name)) } dd { (Shown(value)) } } }
            }
            @if findings.simulated { p.simulated { "The times in this journal are simulated." } }
            @if !findings.operators.is_empty() {
                nav aria-label="Contents" {
                    ol {
                        li { a href="#operators" { "Operators" } }
                        @for (number, operator) in (1_usize..).zip(&findings.operators) {
                            li { a href={ "#operator-" (number) } { (Shown(&operator.row.name)) } }
                        }
                    }
                }
            }
        }
    }
}

fn overview(findings: &Findings, rows: &[OperatorRow]) -> Markup {
    html! {
        @if !findings.graph.nodes.is_empty() {
            figure {
                div.scroll { (graph::draw(&findings.graph, rows, "Accounts and the links between them")) }
                figcaption { "Each dot is an account, as large as its use; accounts of one operator lie together. A line is a link, darker the more nats speak for it; point at it to read why." }
            }
        }
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Operator" } th { "Standing" }
                        @for head in ["Accounts", "Exchanges", "Tokens", "Cost", "Certainty"] { th.number { (head) } }
                    }
                }
                tbody { @for row in rows { (operator_row(row, Say(Language::English))) } }
            }
        }
    }
}

fn told(number: usize, operator: &FoundOperator) -> Markup {
    let row = &operator.row;
    let say = Say(Language::English);
    html! {
        section id={ "operator-" (number) } {
            article.detail.(tone(row.tone)) {
                h2 { (Shown(&row.name)) " " span.badge.(tone(row.tone)) { (Shown(&row.standing)) } }
                dl.figures {
                    div { dt { "Accounts" } dd { (grouped(row.accounts)) } }
                    div { dt { "Exchanges" } dd { (grouped(row.exchanges)) } }
                    div { dt { "Tokens served" } dd { (grouped(row.output_tokens)) } }
                    div { dt { "Charged" } dd { (figure(format!("${}", row.cost))) } }
                    div { dt { "Use" } dd { (Shown(&row.purpose)) } }
                }
                p.small { "From " (moment(row.first)) " to " (moment(row.last)) " (UTC)" }
                @for sentence in &operator.why { p.words { (Shown(sentence)) } }
                (stages(operator))
                @if !operator.timeline.buckets.is_empty() {
                    h3 { "Over time" }
                    figure {
                        (timeline::draw(&operator.timeline, std::slice::from_ref(row), "all others"))
                        @if !operator.timeline.marks.is_empty() {
                            figcaption { ol.marks { @for mark in &operator.timeline.marks { li { (moment(mark.at)) " " (Shown(&mark.label)) } } } }
                        }
                    }
                }
                @if !row.reasons.is_empty() {
                    h3 { "What speaks for it" }
                    (reasons(&row.reasons, say))
                }
                @if !row.counter.is_empty() {
                    h3 { "What speaks against it" }
                    ul { @for sentence in &row.counter { li { (Shown(sentence)) } } }
                }
                (survival(&operator.survival))
                (fits(&operator.fits))
                (accounts(operator))
                (edges(&operator.edges, operator.more_edges))
            }
        }
    }
}

fn stages(operator: &FoundOperator) -> Markup {
    html! {
        @if operator.stage.is_some() || !operator.stages.is_empty() {
            h3 { "Stages" }
            @if let Some(stage) = &operator.stage { p { (Shown(stage)) } }
            @if !operator.stages.is_empty() {
                div.scroll { table {
                    thead { tr {
                        th { "Stage" } th { "Since" }
                        @for head in ["Accounts then", "Exchanges gone", "Tokens gone", "Charged", "Share of its use"] { th.number { (head) } }
                    } }
                    tbody { @for stage in &operator.stages { tr {
                        th scope="row" { span.badge.(tone(stage.tone)) { (Shown(&stage.name)) } }
                        td { (moment(stage.since)) }
                        td.number { (grouped(stage.accounts)) }
                        td.number { (grouped(stage.exchanges)) }
                        td.number { (grouped(stage.output_tokens)) }
                        td.number { (figure(format!("${}", stage.cost))) }
                        td.number { (figure(percent(stage.share))) }
                    } } }
                } }
            }
        }
    }
}

fn survival(survival: &[(String, f64, f64)]) -> Markup {
    html! {
        @if !survival.is_empty() {
            h3 { "Without one kind of evidence" }
            p.note { "Nobody is accused on one signal: a campaign's accounts must stay linked whatever is left out." }
            div.scroll { table {
                thead { tr { th { "Without" } th { "Accounts still linked" } th { "In the largest piece" } } }
                tbody { @for (without, linked, largest) in survival { tr {
                    th scope="row" { (Shown(without)) }
                    td { (meter(*linked)) " " (figure(percent(*linked))) }
                    td { (meter(*largest)) " " (figure(percent(*largest))) }
                } } }
            } }
        }
    }
}

fn fits(fits: &[(String, f64)]) -> Markup {
    html! {
        @if !fits.is_empty() {
            details {
                summary { "How well each kind of use fits" }
                table.reasons { @for (name, nats) in fits { tr {
                    td { (Shown(name)) }
                    td.weight { (figure(format!("{nats:+.1}"))) " nats" }
                } } }
            }
        }
    }
}

fn accounts(operator: &FoundOperator) -> Markup {
    let left = operator.row.accounts.saturating_sub(operator.accounts.len() as u64);
    html! {
        @if !operator.accounts.is_empty() {
            h3 { "Accounts" }
            div.accounts { @for account in &operator.accounts { (member(account)) } }
            @if left > 0 { p.note { (grouped(left)) " more accounts are in the JSON report." } }
        }
    }
}

fn member(account: &FoundAccount) -> Markup {
    html! {
        details {
            summary {
                code { (Shown(&account.name)) } " "
                span.of {
                    (grouped(account.exchanges)) " exchanges, " (grouped(account.output_tokens)) " tokens, "
                    (figure(format!("{:.1}", account.per_hour))) " an hour, certainty " (figure(format!("{:.3}", account.certainty)))
                }
            }
            @if let Some(opened) = account.opened { p.small { "Opened " (moment(opened)) } }
            @if !account.reasons.is_empty() { (reasons(&account.reasons, Say(Language::English))) }
        }
    }
}

fn edges(edges: &[GraphEdge], more: u64) -> Markup {
    let heaviest = edges.iter().map(|edge| edge.weight).fold(0.0_f64, f64::max);
    html! {
        @if !edges.is_empty() {
            h3 { "Links" }
            details {
                summary { "The " (grouped(edges.len() as u64)) " heaviest of " (grouped(edges.len() as u64 + more)) }
                div.scroll { table {
                    thead { tr { th { "Account" } th { "Account" } th { "Why" } th.number { "Nats" } } }
                    tbody { @for edge in edges { tr {
                        td { code { (Shown(&edge.a)) } }
                        td { code { (Shown(&edge.b)) } }
                        td { (Shown(&edge.why)) }
                        td.number { (meter(edge.weight / heaviest)) " " (figure(format!("{:+.1}", edge.weight))) }
                    } } }
                } }
            }
        }
    }
}
