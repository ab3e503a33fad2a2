use std::fmt::Write;

use anbiq_domain::{OperatorId, TwinMode};

use crate::plan::in_words;
use crate::{Report, TestResult};

/// The report for a person at a terminal.
pub fn render_text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    let protocol = &report.protocol;
    writeln!(text, "Trace of {} against teacher {}", protocol.suspect, protocol.teacher)?;
    if protocol.mode == TwinMode::Deferred {
        writeln!(text, "Twins were drawn later: this rests on the teacher's distribution being the same then.")?;
    }
    writeln!(text, "{}", in_words(report.plan.as_ref()))?;
    if protocol.tests_side_by_side > 1 {
        writeln!(
            text,
            "One of {} exact tests of that plan; p-values answer for all of them.",
            protocol.tests_side_by_side
        )?;
    }
    writeln!(text)?;
    writeln!(text, "Verdict: {}", report.verdict.strength.in_words().to_uppercase())?;
    writeln!(text, "  {}", report.verdict.sentence)?;
    writeln!(text, "  For whoever looked before the end: {}.", report.verdict.anytime.in_words())?;
    writeln!(text)?;
    tests(text, report)?;
    writeln!(text)?;
    blind(text, report)?;
    writeln!(text)?;
    power(text, report)?;
    writeln!(text)?;
    acquittal(text, report)?;
    writeln!(text, "Null hypothesis: {}", protocol.null_hypothesis)?;
    writeln!(text, "What is random in it: {}", protocol.random)?;
    writeln!(text, "Statistic: {}", protocol.statistic_in_words)?;
    writeln!(text, "Error rate: {}", report.error_rate)?;
    list(text, "What else could explain it", &report.rival_explanations)?;
    list(text, "What it does not show", &report.does_not_show)
}

fn tests(text: &mut String, report: &Report) -> std::fmt::Result {
    let name = |name: &str| name.chars().take(28).collect::<String>();
    writeln!(
        text,
        "{:<28} {:>6} {:>6} {:>15} {:>9} {:>10} {:>8}",
        "pairs of", "pairs", "wins", "95 % interval", "p", "p (Holm)", "log10 e"
    )?;
    row(text, "all traffic", &report.all_traffic)?;
    for operator in &report.per_operator {
        row(text, &name(operator.operator.as_str()), &operator.result)?;
    }
    for (operator, pairs) in &report.too_few {
        writeln!(text, "{:<28} {pairs:>6} too few to test", name(operator.as_str()))?;
    }
    for slice in &report.per_slice {
        row(text, &name(&slice.slice), &slice.result)?;
    }
    for (slice, pairs) in &report.too_few_of_slices {
        writeln!(text, "{:<28} {pairs:>6} too few to test", name(slice))?;
    }
    let against = report.all_traffic.against;
    if against > 0 {
        writeln!(text, "{against} cancelled exchanges count as the largest differences against.")?;
    }
    if report.dropped.not_scored > 0 {
        writeln!(text, "{} pairs were dropped: a model could not score both draws.", report.dropped.not_scored)?;
    }
    let left_out = &report.left_out;
    for (count, why) in [
        (left_out.without_texts, "the journal keeps no texts"),
        (left_out.equal_draws, "both draws are the same text"),
        (left_out.with_tools, "a draw calls a tool"),
        (left_out.not_two_draws, "not two draws"),
        (left_out.failed, "the model failed"),
        (left_out.coin_not_committed, "the coin was not committed to beforehand"),
        (left_out.over_limit, "beyond the largest number of pairs"),
        (left_out.twin_missing, "the twin failed or was not drawn"),
        (left_out.model_changed, "the draws are of different builds of the model"),
        (left_out.other_mode, "twinned in the other mode"),
    ] {
        if count > 0 {
            writeln!(text, "{count} twinned exchanges were left out: {why}.")?;
        }
    }
    Ok(())
}

fn row(text: &mut String, name: &str, test: &TestResult) -> std::fmt::Result {
    let interval = format!("{:.3} - {:.3}", test.win_rate_interval.low, test.win_rate_interval.high);
    writeln!(
        text,
        "{name:<28} {:>6} {:>6.3} {interval:>15} {:>9} {:>10} {:>8.2}",
        test.n,
        test.win_rate,
        p_value(test.p_exact),
        p_value(test.p_holm),
        test.log10_e,
    )
}

fn blind(text: &mut String, report: &Report) -> std::fmt::Result {
    let blind = &report.blind_baseline;
    let passed = if blind.passed { "passed" } else { "FAILED: no verdict" };
    writeln!(text, "Blind baselines, which cannot have seen the answers and must be at one half: {passed}")?;
    for baseline in &blind.baselines {
        writeln!(text, "  {:<40} wins {:.3}, p {}", baseline.name, baseline.win_rate, p_value(baseline.p_value))?;
    }
    Ok(())
}

/// What the pairs exclude, with what it rests on.
fn acquittal(text: &mut String, report: &Report) -> std::fmt::Result {
    let Some(acquittal) = &report.acquittal else { return Ok(()) };
    writeln!(text, "To be excluded: {}", acquittal.alternative)?;
    for bound in &acquittal.bounds {
        let of = bound.operator.as_ref().map(OperatorId::as_str).or(bound.slice.as_deref()).unwrap_or("all traffic");
        let excluded = if bound.excluded { "excluded" } else { "NOT excluded" };
        let (upper, p) = (bound.upper, p_value(bound.p_value));
        writeln!(text, "  {of:<28} prefers the served at most in {upper:.3} (99.9 %), p {p}: {excluded}")?;
    }
    for operator in &acquittal.not_covered {
        writeln!(text, "  {:<28} too few pairs: NOT excluded", operator.as_str())?;
    }
    writeln!(text, "  weaker than the calibration students: p {}", p_value(acquittal.p_students))?;
    list(text, "That rests on", &acquittal.rests_on)?;
    writeln!(text)
}

fn power(text: &mut String, report: &Report) -> std::fmt::Result {
    let power = &report.power;
    match (power.win_rate_at_50, power.win_rate_at_90) {
        (Some(half), Some(most)) => writeln!(
            text,
            "Power: {} pairs establish a win rate of about {half:.3} with 50 % probability, of {most:.3} with 90 %.",
            power.n
        ),
        _ => writeln!(text, "Power: {} pairs are too few to establish anything.", power.n),
    }
}

/// A title and its lines.
pub(crate) fn list(text: &mut String, title: &str, lines: &[String]) -> std::fmt::Result {
    writeln!(text, "{title}:")?;
    lines.iter().try_for_each(|line| writeln!(text, "  - {line}"))
}

pub(crate) fn p_value(p_value: f64) -> String {
    if p_value >= 0.001 { format!("{p_value:.3}") } else { format!("{p_value:.1e}") }
}
