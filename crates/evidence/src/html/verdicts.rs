//! What was found of each suspect, with the test behind it.

use maud::{Markup, html};

use super::numbers::{grouped, p_value, power_of_ten};
use super::shown::Shown;
use super::{Say, other, scale, sentences, share, tone_of, twins};
use crate::language::Label;
use crate::{Dossier, OperatorTest, PartTest, Strength, SuspectPage};

pub(super) fn verdicts(dossier: &Dossier, say: Say) -> Markup {
    html! {
        section #verdicts {
            h2 { (say.the(Label::Verdicts)) }
            (other::columns(dossier, say))
            @for (number, suspect) in (1_usize..).zip(&dossier.suspects) { (verdict(number, suspect, say)) }
        }
    }
}

fn verdict(number: usize, suspect: &SuspectPage, say: Say) -> Markup {
    html! {
        article.suspect.(tone_of(suspect.verdict)) id={ "suspect-" (number) } {
            header {
                p.kind { (say.the(other::ask(suspect.question))) }
                h3 { (Shown(&suspect.name)) }
                p.strength { (say.strength(suspect.verdict)) }
                (scale(suspect.verdict))
                p.words { (Shown(&suspect.words)) }
                @if suspect.verdict == Strength::NotShown { p.note { (say.the(Label::NotShownNote)) } }
                @if suspect.verdict == Strength::Contradicted { p.note { (say.the(Label::ContradictedNote)) } }
            }
            dl.figures {
                div { dt { (say.the(Label::PValue)) } dd { (p_value(suspect.p_value)) } }
                div { dt { (say.the(Label::EValue)) } dd { (power_of_ten(suspect.log10_e)) } }
                div { dt { (say.the(Label::Pairs)) } dd { (grouped(suspect.n)) } }
                div { dt { (say.the(Label::ServedFirst)) } dd { (share(suspect.wins, suspect.n)) } }
                div { dt { (say.the(Label::Teacher)) } dd { (Shown(&suspect.teacher)) } }
                @if let Some(operator) = &suspect.points_at {
                    div { dt { (say.the(Label::PointsAt)) } dd { (Shown(operator)) } }
                }
            }
            div.plots {
                figure {
                    h4 { (say.the(Label::DifferencesPlot)) }
                    (twins::differences(&suspect.plot.differences, say))
                    figcaption { (say.the(Label::DifferencesNote)) }
                }
                figure {
                    h4 { (say.the(Label::PathPlot)) }
                    (twins::path(&suspect.plot.log10_e, say))
                    figcaption { (say.the(Label::PathNote)) }
                }
            }
            (operator_tests(suspect, say))
            (part_tests(suspect, say))
            dl.protocol {
                dt { (say.the(Label::NullHypothesis)) } dd { (Shown(&suspect.null_hypothesis)) }
                dt { (say.the(Label::Randomness)) } dd { (Shown(&suspect.randomness)) }
                dt { (say.the(Label::Statistic)) } dd { (Shown(&suspect.statistic)) }
                @if !suspect.error_rate.is_empty() {
                    dt { (say.the(Label::ErrorRate)) } dd { (Shown(&suspect.error_rate)) }
                }
            }
            (sentences(Label::Power, &suspect.power, say))
            (sentences(Label::Excluded, &suspect.excluded, say))
            (sentences(Label::Against, &suspect.counter_evidence, say))
            (sentences(Label::RivalExplanations, &suspect.rival_explanations, say))
            (sentences(Label::DoesNotShow, &suspect.does_not_show, say))
        }
    }
}

/// A test of a part of the pairs, as a line.
struct Line<'page> {
    of: &'page str,
    accounts: Option<u64>,
    result: [f64; 3],
    counts: [u64; 2],
}

/// The same test for parts of the pairs; with their accounts where these are known.
fn tests_of_parts(title: Label, of: Label, lines: &[Line<'_>], pointed: Option<&str>, say: Say) -> Markup {
    let accounts = lines.iter().any(|line| line.accounts.is_some());
    html! {
        @if !lines.is_empty() {
            h4 { (say.the(title)) }
            div.scroll {
                table {
                    thead {
                        tr {
                            th { (say.the(of)) }
                            @if accounts { th.number { (say.the(Label::Accounts)) } }
                            th.number { (say.the(Label::Pairs)) }
                            th.number { (say.the(Label::ServedFirst)) }
                            th.number { "p" }
                            th.number { (say.the(Label::AdjustedP)) }
                            th.number { (say.the(Label::EValue)) }
                        }
                    }
                    tbody {
                        @for Line { of, accounts, result: [p, p_holm, log10_e], counts: [n, wins] } in lines {
                            tr.pointed[pointed == Some(of)] {
                                th scope="row" { (Shown(of)) }
                                @if let Some(accounts) = accounts { td.number { (grouped(*accounts)) } }
                                td.number { (grouped(*n)) }
                                td.number { (share(*wins, *n)) }
                                td.number { (p_value(*p)) }
                                td.number { (p_value(*p_holm)) }
                                td.number { (power_of_ten(*log10_e)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl<'page> From<&'page OperatorTest> for Line<'page> {
    fn from(test: &'page OperatorTest) -> Self {
        Self {
            of: &test.operator,
            accounts: Some(test.accounts),
            result: [test.p, test.p_holm, test.log10_e],
            counts: [test.n, test.wins],
        }
    }
}

impl<'page> From<&'page PartTest> for Line<'page> {
    fn from(test: &'page PartTest) -> Self {
        let (result, counts) = ([test.p, test.p_holm, test.log10_e], [test.n, test.wins]);
        Self { of: &test.part, accounts: None, result, counts }
    }
}

fn operator_tests(suspect: &SuspectPage, say: Say) -> Markup {
    let lines: Vec<Line<'_>> = suspect.per_operator.iter().map(Line::from).collect();
    tests_of_parts(Label::PerOperator, Label::Operator, &lines, suspect.points_at.as_deref(), say)
}

fn part_tests(suspect: &SuspectPage, say: Say) -> Markup {
    let lines: Vec<Line<'_>> = suspect.per_part.iter().map(Line::from).collect();
    tests_of_parts(Label::PerPart, Label::Part, &lines, None, say)
}
