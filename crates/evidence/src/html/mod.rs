//! The dossier, and what `watch` found, each as a page: one file that opens offline, runs no script, and prints.
//!
//! Everything that came from outside passes through `Shown`: maud escapes markup, and what could lie to the eye
//! (control characters, marks that turn the direction of writing) is made visible instead of obeyed.

mod findings;
mod graph;
mod numbers;
mod other;
mod shown;
mod timeline;
mod twins;
mod verdicts;

use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use anbiq_domain::{Digest, Timestamp};

use crate::language::Label;
use crate::{Dossier, Language, OperatorRow, Provenance, Reason, Strength, Tone};
pub use findings::findings;
use numbers::{duration, grouped, p_value, percent};
use shown::Shown;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn page(dossier: &Dossier) -> String {
    let say = Say(dossier.language);
    let body = html! {
        (cover(dossier, say))
        main {
            (summary(dossier, say))
            (timeline_section(dossier, say))
            (operators(dossier, say))
            (verdicts::verdicts(dossier, say))
            (other::tests(dossier, say))
            (licence(dossier, say))
            (students(dossier, say))
            (provenance(&dossier.provenance, &dossier.how_to_verify, say))
        }
        footer { p { (say.the(Label::Footer)) } }
    };
    shell(dossier.language, &dossier.title, &body)
}

/// The page around `body`.
fn shell(language: Language, title: &str, body: &Markup) -> String {
    let hash = base64::engine::general_purpose::STANDARD.encode(Digest::of(STYLE.as_bytes()).as_bytes());
    // Nothing may be loaded and nothing may run; the one style sheet is named by its hash.
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'");
    let page = html! {
        (DOCTYPE)
        html lang=(language.tag()) dir=(language.direction()) {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (Shown(title)) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    in_lines(page.into_string())
}

/// A line for each row, paragraph and figure, so that a changed byte can be placed. A text that was shown holds no tags.
fn in_lines(page: String) -> String {
    ["tr", "li", "p", "dd", "dl", "h2", "h3", "h4", "g", "svg", "figure", "article", "section", "head", "style", "html"]
        .iter()
        .fold(page, |page, tag| page.replace(&format!("</{tag}>"), &format!("</{tag}>\n")))
}

/// Fixed words in the page's language.
#[derive(Clone, Copy)]
struct Say(Language);

impl Say {
    const fn the(self, label: Label) -> &'static str {
        label.in_language(self.0)
    }

    const fn strength(self, strength: Strength) -> &'static str {
        self.the(match strength {
            Strength::Contradicted => Label::Contradicted,
            Strength::NotShown => Label::NotShown,
            Strength::Moderate => Label::Moderate,
            Strength::Strong => Label::Strong,
            Strength::Established => Label::Established,
        })
    }
}

fn cover(dossier: &Dossier, say: Say) -> Markup {
    let mut chapters = vec![
        ("findings", Label::Summary),
        ("timeline", Label::Timeline),
        ("operators", Label::Operators),
        ("verdicts", Label::Verdicts),
        ("tests", Label::OtherTests),
        ("licence", Label::Licence),
        ("students", Label::Students),
        ("provenance", Label::Provenance),
    ];
    chapters.retain(|(anchor, _)| *anchor != "tests" || !dossier.tests.is_empty());
    html! {
        header.cover {
            (still())
            p.kind { (say.the(Label::Kind)) }
            h1 { (Shown(&dossier.title)) }
            p.subtitle { (say.the(Label::Subtitle)) }
            dl.facts {
                div { dt { (say.the(Label::MadeAt)) } dd { (moment(dossier.made_at)) } }
                div { dt { (say.the(Label::Journal)) } dd { code { (Shown(&dossier.provenance.journal)) } } }
                div { dt { (say.the(Label::Root)) } dd { code { (dossier.provenance.root.short()) "…" } } }
                div { dt { (say.the(Label::Software)) } dd { (Shown(&dossier.provenance.software)) } }
            }
            @if dossier.simulated { p.simulated { (say.the(Label::Simulated)) } }
            nav aria-label=(say.the(Label::Contents)) {
                ol { @for (anchor, label) in chapters { li { a href={ "#" (anchor) } { (say.the(label)) } } } }
            }
        }
    }
}

/// The house's mark: a still and its receiver.
fn still() -> Markup {
    html! {
        svg.still viewBox="0 0 64 40" aria-hidden="true" {
            path d="M14 38a11 11 0 1 1 8-18.6V10c0-4 3-6 7-6h6c9 0 14 9 19 19" {}
            circle cx="54" cy="31" r="7" {}
            path d="M6 27h16" {}
        }
    }
}

fn summary(dossier: &Dossier, say: Say) -> Markup {
    html! {
        section #findings {
            h2 { (say.the(Label::Summary)) }
            ul.findings { @for sentence in &dossier.summary { li { (Shown(sentence)) } } }
            @if !dossier.suspects.is_empty() {
                div.cards {
                    @for (number, suspect) in (1..).zip(&dossier.suspects) {
                        a.card.(tone_of(suspect.verdict)) href={ "#suspect-" (number) } {
                            p.name { (Shown(&suspect.name)) }
                            p.strength { (say.strength(suspect.verdict)) }
                            (scale(suspect.verdict))
                            p.small { (figure(html! { "p = " (p_value(suspect.p_value)) })) }
                            @if let Some(operator) = &suspect.points_at {
                                p.small { (say.the(Label::PointsAt)) " " strong { (Shown(operator)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Four steps, of which as many are filled as the verdict is strong.
fn scale(strength: Strength) -> Markup {
    let filled = match strength {
        Strength::Contradicted | Strength::NotShown => 0,
        Strength::Moderate => 1,
        Strength::Strong => 2,
        Strength::Established => 3,
    };
    html! {
        svg.scale viewBox="0 0 96 8" aria-hidden="true" {
            @for step in 0..3 {
                rect.on[step < filled] x=(step * 33) y="0" width="30" height="8" rx="2" {}
            }
        }
    }
}

const fn tone_of(strength: Strength) -> &'static str {
    match strength {
        Strength::Contradicted => "good",
        Strength::NotShown => "plain",
        Strength::Moderate | Strength::Strong => "warning",
        Strength::Established => "finding",
    }
}

fn timeline_section(dossier: &Dossier, say: Say) -> Markup {
    let timeline = &dossier.timeline;
    html! {
        section #timeline {
            h2 { (say.the(Label::Timeline)) }
            figure {
                (timeline::draw(timeline, &dossier.operators, say.the(Label::Others)))
                figcaption { (say.the(Label::TimelineNote)) }
            }
            @if !timeline.marks.is_empty() {
                h3 { (say.the(Label::Marks)) }
                ol.marks {
                    @for mark in &timeline.marks { li { (moment(mark.at)) " " (Shown(&mark.label)) } }
                }
            }
        }
    }
}

fn operators(dossier: &Dossier, say: Say) -> Markup {
    html! {
        section #operators {
            h2 { (say.the(Label::Operators)) }
            @if dossier.operators.is_empty() { p.note { (say.the(Label::NoOperators)) } }
            @if !dossier.graph.nodes.is_empty() {
                figure {
                    div.scroll { (graph::draw(&dossier.graph, &dossier.operators, say.the(Label::Operators))) }
                    figcaption { (say.the(Label::GraphNote)) }
                }
            }
            @if !dossier.operators.is_empty() {
                div.scroll {
                    table {
                        thead {
                            tr {
                                th { (say.the(Label::Operator)) }
                                th { (say.the(Label::Standing)) }
                                th.number { (say.the(Label::Accounts)) }
                                th.number { (say.the(Label::Exchanges)) }
                                th.number { (say.the(Label::OutputTokens)) }
                                th.number { (say.the(Label::Cost)) }
                                th.number { (say.the(Label::Certainty)) }
                            }
                        }
                        tbody { @for operator in &dossier.operators { (operator_row(operator, say)) } }
                    }
                }
            }
            @for operator in dossier.operators.iter().filter(|operator| has_more(operator)) {
                (operator_detail(operator, say))
            }
        }
    }
}

fn operator_row(operator: &OperatorRow, say: Say) -> Markup {
    html! {
        tr {
            th scope="row" { (Shown(&operator.name)) }
            td { span.badge.(tone(operator.tone)) { (Shown(&operator.standing)) } }
            td.number { (grouped(operator.accounts)) }
            td.number { (grouped(operator.exchanges)) }
            td.number { (grouped(operator.output_tokens)) }
            td.number { (figure(format!("${}", operator.cost))) }
            td.number { @match operator.certainty {
                Some(certainty) => (figure(percent(certainty))),
                None => span.none title=(say.the(Label::Unknown)) { "–" },
            } }
        }
    }
}

/// Plain rows say it all in the table.
fn has_more(operator: &OperatorRow) -> bool {
    operator.tone != Tone::Plain
}

fn operator_detail(operator: &OperatorRow, say: Say) -> Markup {
    html! {
        article.detail.(tone(operator.tone)) {
            h3 { (Shown(&operator.name)) " " span.badge.(tone(operator.tone)) { (Shown(&operator.standing)) } }
            p { (Shown(&operator.purpose)) }
            p.small {
                (say.the(Label::From)) " " (moment(operator.first)) " " (say.the(Label::To)) " " (moment(operator.last))
            }
            @if !operator.reasons.is_empty() {
                h4 { (say.the(Label::Why)) }
                (reasons(&operator.reasons, say))
            }
            (sentences(Label::Against, &operator.counter, say))
        }
    }
}

/// Reasons, each with a bar as long as it is heavy.
fn reasons(reasons: &[Reason], say: Say) -> Markup {
    let heaviest = reasons.iter().filter_map(|reason| reason.weight).fold(0.0_f64, f64::max);
    html! {
        table.reasons {
            @for reason in reasons {
                tr {
                    td { (Shown(&reason.words)) }
                    td.weight {
                        @if let Some(weight) = reason.weight {
                            (meter(weight / heaviest)) " " (figure(format!("{weight:+.1}"))) " " (say.the(Label::Nats))
                        }
                    }
                }
            }
        }
    }
}

fn meter(share: f64) -> Markup {
    // A share that is not a number is drawn as nothing.
    let width = (share.clamp(0.0, 1.0) * 60.0).max(0.0);
    html! {
        svg.meter viewBox="0 0 60 8" aria-hidden="true" {
            rect.rail x="0" y="0" width="60" height="8" rx="2" {}
            rect.bar x="0" y="0" width=(format!("{width:.1}")) height="8" rx="2" {}
        }
    }
}

const fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Good => "good",
        Tone::Warning => "warning",
        Tone::Finding => "finding",
    }
}

fn share(part: u64, whole: u64) -> Markup {
    // Counts of pairs are far below what a double holds exactly.
    figure(html! { (grouped(part)) @if whole > 0 { span.of { " (" (percent(part as f64 / whole as f64)) ")" } } })
}

fn sentences(label: Label, sentences: &[String], say: Say) -> Markup {
    html! {
        @if !sentences.is_empty() {
            h4 { (say.the(label)) }
            ul { @for sentence in sentences { li { (Shown(sentence)) } } }
        }
    }
}

fn licence(dossier: &Dossier, say: Say) -> Markup {
    let licence = &dossier.licence;
    html! {
        section #licence {
            h2 { (say.the(Label::Licence)) }
            @for terms in &licence.terms {
                article.detail.plain {
                    h3 { (say.the(Label::Terms)) " " (Shown(&terms.name)) }
                    dl.protocol {
                        dt { (say.the(Label::Teacher)) } dd { (Shown(&terms.teacher)) }
                        dt { (say.the(Label::Permission)) } dd { (Shown(&terms.permission)) }
                    }
                    (sentences(Label::Conditions, &terms.conditions, say))
                    details open {
                        summary { (say.the(Label::Words)) }
                        blockquote { (Shown(&terms.text)) }
                    }
                }
            }
            @if !licence.grants.is_empty() {
                h3 { (say.the(Label::Grants)) }
                div.scroll {
                    table {
                        thead {
                            tr {
                                @for label in [Label::Grant, Label::Account, Label::For, Label::Conditions, Label::Given, Label::Expires, Label::State] {
                                    th { (say.the(label)) }
                                }
                            }
                        }
                        tbody {
                            @for grant in &licence.grants {
                                tr {
                                    th scope="row" { (Shown(&grant.grant)) }
                                    td { (Shown(&grant.account)) }
                                    td { (Shown(&grant.purpose)) }
                                    td { @for (place, condition) in grant.conditions.iter().enumerate() {
                                        @if place > 0 { br; } (Shown(condition))
                                    } }
                                    td { (moment(grant.given)) }
                                    td { @match grant.expires { Some(end) => (moment(end)), None => span.none { "–" } } }
                                    td { (Shown(&grant.state)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn students(dossier: &Dossier, say: Say) -> Markup {
    let maybe = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    html! {
        @if !dossier.students.is_empty() {
            section #students {
                h2 { (say.the(Label::Students)) }
                div.scroll {
                    table {
                        thead {
                            tr {
                                th { (say.the(Label::Student)) }
                                th { (say.the(Label::TrainedOn)) }
                                @for label in [Label::Parameters, Label::TrainingTokens, Label::Cost, Label::CpuTime, Label::HeldOutLoss, Label::Agreement, Label::Accuracy] {
                                    th.number { (say.the(label)) }
                                }
                                th { (say.the(Label::Beside)) }
                            }
                        }
                        tbody {
                            @for student in &dossier.students {
                                tr {
                                    th scope="row" { (Shown(&student.name)) }
                                    td { (Shown(&student.trained_on)) }
                                    td.number { (grouped(student.parameters)) }
                                    td.number { (grouped(student.tokens)) }
                                    td.number { (figure(format!("${}", student.cost))) }
                                    td.number { (figure(duration(student.cpu_seconds))) }
                                    td.number { (maybe(student.held_out_loss.map(|loss| format!("{loss:.3}")))) }
                                    td.number { (figure(maybe(student.agreement.map(percent)))) }
                                    td.number { (figure(maybe(student.accuracy.map(percent)))) }
                                    td { (Shown(&student.beside)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn provenance(provenance: &Provenance, how_to_verify: &[String], say: Say) -> Markup {
    html! {
        section #provenance {
            h2 { (say.the(Label::Provenance)) }
            dl.protocol {
                dt { (say.the(Label::Journal)) } dd { code { (Shown(&provenance.journal)) } }
                dt { (say.the(Label::Root)) } dd { code { (provenance.root) } }
                dt { (say.the(Label::Records)) } dd { (grouped(provenance.size)) }
                dt { (say.the(Label::Disclosed)) } dd { (grouped(provenance.disclosed)) }
                dt { (say.the(Label::Signer)) } dd { code { (Shown(&provenance.signer)) } }
                dt { (say.the(Label::Software)) } dd { (Shown(&provenance.software)) }
                @for (name, value) in &provenance.facts { dt { (Shown(name)) } dd { (Shown(value)) } }
            }
            h3 { (say.the(Label::HowToVerify)) }
            ol.steps { @for step in how_to_verify { li { (Shown(step)) } } }
        }
    }
}

/// A number with what belongs to it, from left to right whatever stands around it.
fn figure(text: impl maud::Render) -> Markup {
    html! { span.n dir="ltr" { (text) } }
}

/// A moment to the minute, in UTC; exactly in its tooltip and for machines.
fn moment(at: Timestamp) -> Markup {
    let exact = at.to_string();
    let shown = if exact.len() >= 16 && exact.is_ascii() { exact[..16].replace('T', " ") } else { exact.clone() };
    html! { time datetime=(exact) title=(exact) dir="ltr" { (shown) } }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
