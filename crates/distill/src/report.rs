//! What came of a recipe: as data, as a text for the terminal, and as the card of the student.

use std::fmt::Write as _;
use std::path::PathBuf;

use anbiq_domain::{Digest, Usage};
use serde::{Deserialize, Serialize};

use crate::ask::Asking;
use crate::cost::Cost;
use crate::course::Stage;
use crate::curate::{Curated, Effect, Effects, Example, Without, Worths};
use crate::evaluate::{Column, Gap, Interval};
use crate::preflight::Preflight;
use crate::terms::{Clearance, Right};
use crate::train::Mapping;

/// The report of a run; `report.json` in the student's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this form.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The student's name.
    pub student: String,
    /// Where it is.
    pub folder: PathBuf,
    /// Its size.
    pub parameters: u64,
    /// Longest prompt and answer together, in tokens.
    pub context: u64,
    /// [`crate::Recipe::digest`].
    pub recipe: Digest,
    /// Fixed every random choice.
    pub seed: u64,
    /// Whose answers it learnt from.
    pub teacher: Option<String>,
    /// By what right.
    pub clearance: Clearance,
    /// What it learnt from.
    pub capture: Option<Captured>,
    /// What was found before training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Preflight>,
    /// How it was trained.
    pub stages: Vec<Stage>,
    /// How near it came.
    pub evaluation: Vec<Column>,
    /// How much of the distance to the teacher it went, where the teacher is better beyond chance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// What it took.
    pub cost: Cost,
}

/// The answers that a student learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// The digest of the file of answers.
    pub file: Digest,
    /// Lines in it.
    pub rows: u64,
    /// Tokens of the teacher.
    pub usage: Usage,
    /// Lines whose tokens were counted with the student's tokenizer, since the teacher did not say.
    pub uncounted: u64,
    /// What asking for them came to, where they were asked for.
    pub asking: Option<Asking>,
    /// What was left out.
    pub curated: Curated,
    /// Answers that were kept from training to measure on.
    pub held_out: u64,
    /// What became of the log-probabilities.
    pub mapping: Mapping,
}

impl Report {
    /// What was measured of `model`: `student`, `scratch` or `teacher`.
    pub fn column(&self, model: &str) -> Option<&Column> {
        self.evaluation.iter().find(|column| column.model == model)
    }
}

/// Is it a stage of the student's own, and not of a model that it is compared with?
pub(crate) fn is_of_student(stage: &Stage) -> bool {
    !["scratch", "labels"].contains(&stage.name.as_str())
}

/// Seconds of processors of the student's own stages; `None` where the system did not say.
pub(crate) fn cpu_seconds_of_student(stages: &[Stage]) -> Option<f64> {
    stages.iter().filter(|stage| is_of_student(stage)).map(|stage| stage.cpu_seconds).sum()
}

/// The report as a text of a few lines.
pub fn render_text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_text(&mut text, report);
    text
}

fn write_text(out: &mut String, report: &Report) -> std::fmt::Result {
    let teacher = report.teacher.as_deref().unwrap_or("no teacher");
    writeln!(out, "student    {} ({} parameters) of {teacher}", report.student, grouped(report.parameters))?;
    writeln!(out, "right      {}", right(&report.clearance))?;
    for breach in &report.clearance.breaches {
        writeln!(out, "           breach: {breach}")?;
    }
    if let Some(capture) = &report.capture {
        let Captured { curated, mapping, usage, .. } = capture;
        writeln!(
            out,
            "capture    {} answers, {} completion tokens; {} kept ({} empty, {} cut off, {} repeated{}), {} held out",
            grouped(curated.answers),
            grouped(usage.completion_tokens),
            grouped(curated.kept),
            curated.empty,
            curated.truncated,
            curated.duplicates,
            curated.reasons(),
            capture.held_out,
        )?;
        if mapping.mapped + mapping.spans + mapping.differing > 0 {
            writeln!(
                out,
                "           log-probabilities of {} answers{} ({:.2} % of the mass), {} cut into other tokens, {} without",
                grouped(mapping.mapped),
                match mapping.spans {
                    0 => String::new(),
                    spans => format!(" and by spans of bytes of {}", grouped(spans)),
                },
                100.0 * mapping.mass,
                mapping.differing,
                mapping.without,
            )?;
        }
    }
    for stage in &report.stages {
        let reused = if stage.reused { ", taken from the store" } else { "" };
        let own = match stage.own_steps {
            0 => String::new(),
            steps => format!(" ({} on its own answers)", grouped(steps)),
        };
        writeln!(
            out,
            "{:<10} {} tokens in {} steps{own}, loss {:.3} to {:.3}, {:.1} s{reused}",
            stage.name,
            grouped(stage.tokens),
            grouped(stage.steps),
            stage.first_loss,
            stage.last_loss,
            stage.wall_seconds,
        )?;
    }
    let cost = &report.cost;
    let price = cost.price.map_or("no price list".to_owned(), |price| format!("${price}"));
    let cpu = cost.cpu_seconds.map_or("unknown".to_owned(), |seconds| format!("{seconds:.1} s"));
    writeln!(
        out,
        "cost       teacher {price}{}; training {} tokens; processors {cpu}, wall {:.1} s",
        cost.tasks.map_or_else(String::new, |tasks| format!(" and ${tasks} for tasks")),
        grouped(cost.training_tokens),
        cost.wall_seconds,
    )?;
    if report.evaluation.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", measured(report))?;
    writeln!(out, "saved in {}", report.folder.display())
}

fn right(clearance: &Clearance) -> String {
    match clearance.right {
        Right::NoTeacher => clearance.basis.clone(),
        Right::Permitted => format!("permitted: {}", clearance.basis),
        Right::Stated => format!("stated by the user: {}", clearance.basis),
        Right::NotPermitted => format!("NOT PERMITTED BY THE TERMS ({})", clearance.basis),
    }
}

/// All that was measured: the figures, their intervals, what answers take, and the gaps.
fn measured(report: &Report) -> String {
    let columns = &report.evaluation;
    let head = ["model", "parameters", "held-out loss", "teacher loss", "KL", "top-1", "ECE", "tasks"];
    let mut text = table(&head, columns.iter().map(figures));
    let head = ["95 % of", "held-out loss", "teacher loss", "KL", "top-1", "ECE", "tasks"];
    text.push_str(&format!("\n\n{}", table(&head, columns.iter().map(intervals))));
    if columns.iter().any(|column| column.speed.is_some()) {
        let head = ["1,000 answers", "tokens", "median", "wall", "processors", "price"];
        text.push_str(&format!("\n\n{}", table(&head, columns.iter().filter_map(speed))));
    }
    for gap in &report.gaps {
        text.push_str(&format!("\n{}", closed(gap)));
    }
    text
}

/// A head and its rows; the first column is of words, all others of numbers.
fn table<const N: usize>(head: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| pad(column, cell, width)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<String>>().join("\n")
}

fn pad(column: usize, cell: &str, width: usize) -> String {
    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
}

/// A figure, or a dash where there is none.
fn or_dash<T>(value: Option<T>, write: impl Fn(T) -> String) -> String {
    value.map_or("-".to_owned(), write)
}

fn figures(column: &Column) -> [String; 8] {
    let number = |value: Option<f64>| or_dash(value, |value| format!("{value:.3}"));
    [
        column.model.clone(),
        or_dash((column.parameters > 0).then_some(column.parameters), grouped),
        number(column.held_out_loss),
        number(column.teacher_loss),
        number(column.agreement.map(|agreement| agreement.kl)),
        or_dash(column.agreement, |agreement| format!("{:.1} %", 100.0 * agreement.top1)),
        number(column.calibration.map(|calibration| calibration.ece)),
        or_dash(column.tasks, |tasks| format!("{}/{}", tasks.right, tasks.asked)),
    ]
}

fn intervals(column: &Column) -> [String; 7] {
    let number = |value: Option<Interval>| or_dash(value, |value| format!("{:.3} to {:.3}", value.low, value.high));
    let share = |value: Option<Interval>| {
        or_dash(value, |value| format!("{:.1} to {:.1} %", 100.0 * value.low, 100.0 * value.high))
    };
    let of = &column.intervals;
    [
        column.model.clone(),
        number(of.held_out_loss),
        number(of.teacher_loss),
        number(of.kl),
        share(of.top1),
        number(column.calibration.and_then(|calibration| calibration.interval)),
        share(of.tasks),
    ]
}

fn speed(column: &Column) -> Option<[String; 6]> {
    let (speed, tasks) = (column.speed?, column.tasks?);
    let tokens = speed.usage.total() as f64 * 1000.0 / tasks.asked.max(1) as f64;
    let seconds = |value: f64| format!("{value:.1} s");
    Some([
        column.model.clone(),
        grouped(tokens.round() as u64),
        or_dash(speed.median_ms, |median| format!("{median:.0} ms")),
        or_dash(speed.seconds_a_thousand, seconds),
        or_dash(speed.cpu_seconds_a_thousand, seconds),
        or_dash(speed.price_a_thousand, |price| format!("${price}")),
    ])
}

fn closed(gap: &Gap) -> String {
    let of = match gap.measure.as_str() {
        "tasks" => "tasks",
        _ => "held-out loss",
    };
    let band = gap.interval.map_or_else(String::new, |interval| {
        format!(" ({:.0} to {:.0} %)", 100.0 * interval.low, 100.0 * interval.high)
    });
    let mut text = format!("gap in {of} from `{}` to the teacher: {:.0} % closed{band}", gap.from, 100.0 * gap.closed);
    if let Some(seconds) = gap.cpu_seconds_a_point {
        text.push_str(&format!("; {seconds:.2} s of processors a point"));
    }
    if let Some(dollars) = gap.dollars_a_point {
        text.push_str(&format!(", ${dollars:.6} of answers"));
    }
    text
}

/// What each filter takes, one a line.
pub fn render_effects(effects: &Effects) -> String {
    let Effects { curated, filters } = effects;
    let rows = filters.iter().map(|effect| [effect.filter.clone(), grouped(effect.in_turn), grouped(effect.alone)]);
    let mut text = format!(
        "{} answers, {} kept\n\n{}\n",
        grouped(curated.answers),
        grouped(curated.kept),
        table(&["filter", "in turn", "alone"], rows)
    );
    for Effect { filter, example, .. } in filters {
        if let Some(Example { prompt, answer }) = example {
            text.push_str(&format!("\n{filter} takes {} to {}", quoted(answer), quoted(prompt)));
        }
    }
    text
}

/// What the filters are worth, for a person at a terminal.
pub fn render_worths(worths: &Worths) -> String {
    let Worths { parameters, seeds, tokens, held_out, loss, filters } = worths;
    let mut text = format!(
        "{} students of {} parameters with all filters learnt from {} tokens: {loss:.4} nats a token on {} texts\n",
        grouped(*seeds),
        grouped(*parameters),
        grouped(*tokens),
        grouped(*held_out)
    );
    if filters.is_empty() {
        text.push_str("No filter takes anything that no other takes.\n");
        return text;
    }
    let row = |filter: &str, takes: u64, without: &Without| {
        let interval = without.interval.map_or_else(String::new, |at| format!("{:+.4} to {:+.4}", at.low, at.high));
        let better = format!("{} of {}", without.better, worths.seeds);
        let (tokens, loss) = (grouped(without.tokens), format!("{:.4}", without.loss));
        [filter.to_owned(), grouped(takes), tokens, loss, format!("{:+.4}", without.gain), interval, better]
    };
    let rows = filters.iter().flat_map(|worth| {
        let all = (worth.all.tokens != worth.equal.tokens).then_some(&worth.all);
        std::iter::once(&worth.equal).chain(all).map(|without| row(&worth.filter, worth.takes, without))
    });
    let head = ["without", "takes", "tokens", "loss", "gain by it", "95 %", "helps"];
    text.push_str(&format!("\n{}\n", table(&head, rows)));
    text
}

/// A whole number with commas between the thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The card of the student: what Hugging Face shows of a model, with the duties towards the teacher.
pub(crate) fn card(report: &Report, base: Option<&str>) -> String {
    let mut text = String::new();
    let _ = write_card(&mut text, report, base);
    text
}

fn write_card(out: &mut String, report: &Report, base: Option<&str>) -> std::fmt::Result {
    let taught = report.capture.is_some();
    writeln!(out, "---\nlibrary_name: transformers\npipeline_tag: text-generation")?;
    if let Some(base) = base {
        writeln!(out, "base_model: {}\nbase_model_relation: finetune", quoted(base))?;
    }
    writeln!(out, "tags:\n- anbiq{}\n---\n", if taught { "\n- distillation" } else { "" })?;
    writeln!(out, "# {}\n", report.student)?;
    for attribution in &report.clearance.attribution {
        writeln!(out, "**{attribution}**\n")?;
    }
    match &report.teacher {
        Some(teacher) if taught => {
            writeln!(
                out,
                "A student with {} parameters, trained on answers of `{teacher}`.\n",
                grouped(report.parameters)
            )?;
        }
        _ => writeln!(
            out,
            "A model with {} parameters, trained on a corpus and on no teacher's answers.\n",
            grouped(report.parameters)
        )?,
    }
    writeln!(out, "## By what right\n")?;
    let clearance = &report.clearance;
    if clearance.right == Right::NotPermitted {
        writeln!(
            out,
            "**This training is not permitted by the terms of the teacher.** Do not publish or serve this model.\n"
        )?;
    }
    writeln!(out, "- {}", right(clearance))?;
    for breach in &clearance.breaches {
        writeln!(out, "- breach: {breach}")?;
    }
    if let (Some(terms), Some(digest)) = (&clearance.terms, &clearance.terms_digest) {
        writeln!(out, "- terms: `{}`, version {}, SHA-256 of the words `{digest}`", terms.id, terms.version)?;
    }
    if let Some(permission) = &clearance.permission {
        writeln!(out, "- written permission: SHA-256 `{permission}`")?;
    }
    if let Some(capture) = &report.capture {
        writeln!(out, "\n## What it learnt from\n")?;
        writeln!(out, "- capture: SHA-256 `{}`", capture.file)?;
        writeln!(
            out,
            "- {} answers with {} completion tokens, of which {} were learnt from",
            grouped(capture.curated.answers),
            grouped(capture.usage.completion_tokens),
            grouped(capture.curated.kept - capture.held_out.min(capture.curated.kept)),
        )?;
    }
    writeln!(out, "\n## How it was trained\n\n- recipe: SHA-256 `{}`, seed {}", report.recipe, report.seed)?;
    for stage in &report.stages {
        if is_of_student(stage) {
            writeln!(out, "- {}: {} tokens in {} steps", stage.name, grouped(stage.tokens), grouped(stage.steps))?;
        }
    }
    if let Some(price) = report.cost.price {
        writeln!(out, "- the teacher's answers cost ${price} by its price list")?;
    }
    writeln!(out, "- software: {}", report.software)?;
    if !report.evaluation.is_empty() {
        writeln!(out, "\n## How near it came\n\n```\n{}\n```\n", measured(report))?;
        writeln!(
            out,
            "Losses are in nats a token of the answer. KL and top-1 compare with the teacher's own distribution. \
             ECE is the expected calibration error of the likeliest token in {} bins of equal width. \
             `base` is the student before it saw an answer, `scratch` one of equal size that saw the corpus instead of the \
             teacher's answers, for equally many tokens, `labels` one that learnt from labels alone. \
             Intervals are percentiles of a bootstrap over documents, answers and tasks (1,000 draws, seed {}); another \
             training would differ by more. Times are of the machine that trained it, with several answers under way.",
            report.evaluation.iter().find_map(|column| column.calibration).map_or(0, |found| found.bins),
            report.seed,
        )?;
    }
    Ok(())
}

/// A YAML string.
fn quoted(text: &str) -> String {
    // A JSON string is a YAML string.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
