//! Tests with reports of their own, the two columns of evidence, and the plot of a suspect among controls.

use maud::{Markup, html};

use super::numbers::{grouped, p_value, percent, power_of_ten, tick};
use super::shown::Shown;
use super::timeline::short;
use super::{Say, figure, scale, sentences, tone_of};
use crate::language::Label;
use crate::{Among, Basis, Dossier, Measure, OtherTest, Question, Strength, Table, Value};

const WIDTH: f64 = 440.0;
const LEFT: f64 = 14.0;
const RIGHT: f64 = 14.0;
/// Diameter of a control's dot, and how far one stands above another.
const DOT: f64 = 8.0;
/// Most dots above each other that are drawn at full distance.
const HIGH: usize = 14;

/// What was shown, in two columns that are never added up.
pub(super) fn columns(dossier: &Dossier, say: Say) -> Markup {
    let twins = (1..).zip(&dossier.suspects).flat_map(|(number, suspect): (usize, _)| {
        let said = suspect.verdicts().into_iter();
        said.map(move |(basis, question, strength)| {
            (basis, question, strength, suspect.name.as_str(), format!("suspect-{number}"))
        })
    });
    let others = (1..).zip(&dossier.tests).map(|(number, test): (usize, _)| {
        (test.basis, test.question, test.verdict, test.subject.as_str(), format!("test-{number}"))
    });
    let all: Vec<_> = twins.chain(others).collect();
    let column = |wanted: Basis, name: Label, note: Label| {
        html! {
            div.column {
                h3 { (say.the(name)) }
                p.note { (say.the(note)) }
                @if !all.iter().any(|(basis, ..)| *basis == wanted) { p.note { (say.the(Label::NoTest)) } }
                ul {
                    @for (_, question, strength, subject, anchor) in all.iter().filter(|(basis, ..)| *basis == wanted) {
                        li {
                            a href={ "#" (anchor) } { strong { (Shown(subject)) } }
                            ": " (say.the(ask(*question))) " "
                            span.badge.(tone_of(*strength)) { (say.strength(*strength)) }
                        }
                    }
                }
            }
        }
    };
    html! {
        @if !all.is_empty() {
            div.columns {
                (column(Basis::Exact, Label::Exact, Label::ExactNote))
                (column(Basis::Controls, Label::Controls, Label::ControlsNote))
            }
            p.note { (say.the(Label::NeverAdded)) }
        }
    }
}

/// All tests with reports of their own.
pub(super) fn tests(dossier: &Dossier, say: Say) -> Markup {
    html! {
        @if !dossier.tests.is_empty() {
            section #tests {
                h2 { (say.the(Label::OtherTests)) }
                @for (number, test) in (1_usize..).zip(&dossier.tests) { (article(number, test, say)) }
            }
        }
    }
}

fn article(number: usize, test: &OtherTest, say: Say) -> Markup {
    let basis = match test.basis {
        Basis::Exact => Label::Exact,
        Basis::Controls => Label::Controls,
    };
    html! {
        article.suspect.(tone_of(test.verdict)) id={ "test-" (number) } {
            header {
                p.kind { (say.the(ask(test.question))) }
                h3 { (Shown(&test.subject)) }
                p.strength { (say.strength(test.verdict)) }
                (scale(test.verdict))
                p.note { (say.the(basis)) }
                @for words in &test.words { p.words { (Shown(words)) } }
                @if test.verdict == Strength::NotShown { p.note { (say.the(Label::NotShownNote)) } }
            }
            @if !test.facts.is_empty() {
                dl.protocol { @for fact in &test.facts { dt { (say.the(name(fact.measure))) } dd { (shown(&fact.value, say)) } } }
            }
            @for table in &test.tables { (rows(table, say)) }
            @if !test.among.is_empty() {
                div.plots {
                    @for among in &test.among {
                        figure {
                            h4 { (say.the(Label::AmongPlot)) ": " (Shown(&among.suspect)) }
                            (plot(among, say))
                            figcaption { (say.the(Label::AmongNote)) }
                        }
                    }
                }
            }
            dl.protocol {
                dt { (say.the(Label::NullHypothesis)) } dd { (Shown(&test.null_hypothesis)) }
                dt { (say.the(Label::Randomness)) } dd { (Shown(&test.randomness)) }
                dt { (say.the(Label::Statistic)) } dd { (Shown(&test.statistic)) }
                @if !test.error_rate.is_empty() {
                    dt { (say.the(Label::ErrorRate)) } dd { (Shown(&test.error_rate)) }
                }
                dt { (say.the(Label::Report)) } dd { code { (Shown(&test.file)) } }
                dt { (say.the(Label::Recomputed)) } dd { (Shown(&test.recomputed)) }
                dt { (say.the(Label::OnTrust)) } dd { (Shown(&test.on_trust)) }
            }
            (sentences(Label::RivalExplanations, &test.rival_explanations, say))
            (sentences(Label::DoesNotShow, &test.does_not_show, say))
        }
    }
}

fn rows(table: &Table, say: Say) -> Markup {
    // A column is of numbers if the first row has one in it.
    let is_number = |column: usize| {
        let first = table.rows.first().and_then(|row| row.get(column));
        first.is_some_and(|value| !matches!(value, Value::Text(_) | Value::Code(_) | Value::Verdict(_)))
    };
    html! {
        div.scroll {
            table {
                thead { tr { @for (column, measure) in table.measures.iter().enumerate() {
                    th.number[is_number(column)] { (say.the(name(*measure))) }
                } } }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (column, value) in row.iter().enumerate() {
                                @if column == 0 { th scope="row" { (shown(value, say)) } }
                                @else { td.number[is_number(column)] { (shown(value, say)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn shown(value: &Value, say: Say) -> Markup {
    match value {
        Value::Text(text) => html! { (Shown(text)) },
        Value::Code(text) => html! { code { (Shown(text)) } },
        Value::Count(count) => figure(grouped(*count)),
        Value::Of(part, whole) => figure(format!("{} / {}", grouped(*part), grouped(*whole))),
        Value::Number(number) => figure(number_text(*number)),
        Value::Share(share) => figure(percent(*share)),
        Value::Interval(low, high) => figure(format!("{} – {}", percent(*low), percent(*high))),
        Value::Probability(p) => p_value(*p),
        Value::Power(exponent) => power_of_ten(*exponent),
        Value::Verdict(strength) => {
            html! { span.badge.(tone_of(*strength)) { (say.strength(*strength)) } }
        }
    }
}

/// Whole numbers as such, others to four digits.
fn number_text(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    if number.fract() == 0.0 || number.abs() >= 1e4 {
        return tick(number.round());
    }
    let decimals = if number.abs() >= 100.0 { 1 } else { 4 };
    format!("{number:.decimals$}").replace('-', "\u{2212}")
}

/// The controls as dots at their scores, those of about equal scores above each other, and the suspect as a line.
fn plot(among: &Among, say: Say) -> Markup {
    let finite = || among.controls.iter().filter(|(_, score)| score.is_finite());
    let all = || finite().map(|(_, score)| *score).chain([among.score]);
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let span = if high > low { high - low } else { 1.0 };
    // What is no number stands at the left end.
    let share = |score: f64| ((score - low) / span).clamp(0.0, 1.0).max(0.0);
    let x = |score: f64| LEFT + DOT + share(score) * (WIDTH - LEFT - RIGHT - 2.0 * DOT);
    let bins = ((WIDTH - LEFT - RIGHT) / DOT) as usize;
    let mut heights = vec![0_usize; bins + 1];
    let mut dots = Vec::new();
    for (name, score) in finite() {
        // Between 0 and the number of bins, as x is within the plot.
        let bin = (((x(*score) - LEFT) / DOT) as usize).min(bins);
        dots.push((name, *score, heights[bin]));
        heights[bin] += 1;
    }
    let highest = heights.iter().copied().max().unwrap_or(0).max(4);
    let step = DOT * (HIGH as f64 / highest.max(HIGH) as f64);
    let floor = 16.0 + highest as f64 * step;
    let height = floor + 34.0;
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (short(height)) } role="img" aria-label=(say.the(Label::AmongPlot)) {
            line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(floor)) y2=(short(floor)) {}
            @for (name, score, above) in &dots {
                circle.control cx=(short(x(*score))) cy=(short(floor - step * (*above as f64 + 0.5))) r=(short(DOT / 2.0 - 0.6)) {
                    title { (super::shown::escaped(name)) " " (number_text(*score)) }
                }
            }
            @if among.score.is_finite() {
                line.suspected x1=(short(x(among.score))) x2=(short(x(among.score))) y1="6" y2=(short(floor)) {
                    title { (super::shown::escaped(&among.suspect)) " " (number_text(among.score)) }
                }
            }
            text.tick.start x=(LEFT) y=(short(floor + 14.0)) { (number_text(low)) }
            text.tick.end x=(WIDTH - RIGHT) y=(short(floor + 14.0)) { (number_text(high)) }
            text.axis.middle x=(short(WIDTH / 2.0)) y=(short(floor + 28.0)) { (say.the(Label::Score)) }
        }
    }
}

pub(super) const fn ask(question: Question) -> Label {
    match question {
        Question::Twins => Label::AskTwins,
        Question::Nearness => Label::AskNearness,
        Question::Overlap => Label::AskOverlap,
        Question::Probe => Label::AskProbe,
        Question::Canaries => Label::AskCanaries,
        Question::Weights => Label::AskWeights,
        Question::Watermark => Label::AskWatermark,
        Question::Endpoint => Label::AskEndpoint,
        Question::Style => Label::AskStyle,
        Question::Identity => Label::AskIdentity,
        Question::Errors => Label::AskErrors,
        Question::Exclusion => Label::AskExclusion,
    }
}

const fn name(measure: Measure) -> Label {
    match measure {
        Measure::Suspect => Label::Suspect,
        Measure::Model => Label::Model,
        Measure::Teacher => Label::Teacher,
        Measure::Operator => Label::Operator,
        Measure::What => Label::What,
        Measure::Texts => Label::Texts,
        Measure::Pairs => Label::Pairs,
        Measure::Statistic => Label::Value,
        Measure::ByChance => Label::ByChance,
        Measure::Places => Label::Places,
        Measure::Hits => Label::Hits,
        Measure::Canaries => Label::Canaries,
        Measure::Bits => Label::Bits,
        Measure::Versions => Label::Versions,
        Measure::Agreement => Label::AgreementOfUnits,
        Measure::SharedTokens => Label::SharedTokens,
        Measure::Score => Label::Score,
        Measure::NameShare => Label::NameShare,
        Measure::RareShare => Label::RareShare,
        Measure::Rare => Label::Rare,
        Measure::Interval => Label::Interval,
        Measure::Names => Label::Names,
        Measure::Accused => Label::Accused,
        Measure::Nearest => Label::Nearest,
        Measure::Prompts => Label::Prompts,
        Measure::Controls => Label::ControlModels,
        Measure::Families => Label::Families,
        Measure::Discrepancy => Label::Discrepancy,
        Measure::ShortAnswers => Label::ShortAnswers,
        Measure::P => Label::P,
        Measure::PModels => Label::PModels,
        Measure::PFamilies => Label::PFamilies,
        Measure::Floor => Label::Floor,
        Measure::PHolm => Label::AdjustedP,
        Measure::E => Label::EValue,
        Measure::Verdict => Label::Verdict,
        Measure::Commitment => Label::Commitment,
        Measure::Signer => Label::Signer,
    }
}
