use std::fmt::Write;

use super::{Finding, StyleReport};
use crate::plan::in_words;
use crate::text::list;

/// Controls and candidates that the text shows; the JSON has all.
const SHOWN: usize = 5;

/// The report for a person at a terminal.
pub fn render_style(report: &StyleReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &StyleReport) -> std::fmt::Result {
    let models = report.parts.len();
    writeln!(text, "Style of answers against {}: {models} models, {} prompts", report.accused, report.prompts)?;
    writeln!(text, "{}", in_words(report.plan.as_ref()))?;
    if report.repeated > 0 {
        writeln!(text, "{} answers were left out: the model had answered the prompt before.", report.repeated)?;
    }
    for finding in &report.findings {
        writeln!(text)?;
        one(text, finding)?;
    }
    writeln!(text)?;
    writeln!(text, "This evidence rests on controls. It is at most moderate, and is never added to exact evidence.")?;
    writeln!(text, "Null hypothesis: {}", report.null_hypothesis)?;
    writeln!(text, "Error rate: {}", report.error_rate)?;
    writeln!(text, "What is random in it: {}", report.random)?;
    writeln!(text, "Score: {}", report.statistic_in_words)?;
    writeln!(text, "Tests: {}", report.tests)?;
    list(text, "What else could explain it", &report.rival_explanations)?;
    list(text, "What it does not show", &report.does_not_show)
}

fn one(text: &mut String, finding: &Finding) -> std::fmt::Result {
    writeln!(text, "{}: {}", finding.suspect, finding.verdict.strength.in_words().to_uppercase())?;
    writeln!(text, "  {}", finding.verdict.sentence)?;
    let row = |text: &mut String, over: &str, count: usize, p: f64, floor: f64| {
        writeln!(text, "  p over {count} {over}: {p:.3}, cannot be below {floor:.3}")
    };
    row(text, "controls", finding.among.controls.len(), finding.among.p_models, finding.among.floor_models)?;
    row(
        text,
        "families of controls",
        finding.among.by_family.families,
        finding.among.by_family.p,
        finding.among.by_family.floor,
    )?;
    if let Some(matched) = &finding.matched {
        row(text, &format!("controls of base {}", matched.base), matched.controls, matched.p, matched.floor)?;
    }
    writeln!(
        text,
        "  p of the larger one, adjusted (Holm): {:.3}; E_model {:.2}",
        finding.among.p_holm, finding.e_model
    )?;
    writeln!(text, "  nearest candidates:")?;
    for closeness in finding.closeness.iter().take(SHOWN) {
        writeln!(text, "    {:>6.3}  {} ({})", closeness.score, closeness.family, closeness.model)?;
    }
    writeln!(text, "  score {:.3}; highest of the controls:", finding.among.score)?;
    for control in finding.among.controls.iter().take(SHOWN) {
        writeln!(text, "    {:>6.3}  {} ({})", control.score, control.model, control.family)?;
    }
    Ok(())
}
