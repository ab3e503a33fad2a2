//! What a recipe would take.

use std::path::Path;

use anbiq_domain::Money;
use anbiq_lm::Codec;
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::ask::{Limits, most_usage};
use crate::capture::{Capture, Row};
use crate::course::Plans;
use crate::data::{Document, Lines};
use crate::effort::{Effort, Material, Trial};
use crate::evaluate::{self, Teacher};
use crate::forecast::{Band, Forecast};
use crate::preflight::{self, Preflight, render_preflight};
use crate::quest::Quest;
use crate::recipe::{AskPart, Recipe};
use crate::report::grouped;
use crate::student::Student;
use crate::terms::{Clearance, Papers};
use crate::told;
use crate::train::{self, CorpusReader, Loss, Set};
use crate::work::{Lesson, judge_for, load_teacher, matched};

/// What a recipe would take: tokens, money, bytes, hours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The student's size.
    pub parameters: u64,
    /// By what right it would be trained.
    pub clearance: Clearance,
    /// Answers still to be asked for.
    pub requests: u64,
    /// The most completion tokens that these can take.
    pub most_completion_tokens: u64,
    /// Tasks that the teacher's server would answer to be compared with.
    #[serde(default)]
    pub tasks: u64,
    /// The most money that all of these can take; the recipe's ceiling where that is lower.
    pub most_money: Money,
    /// What all answers will take, where those to a random sample of the prompts are there (see [`crate::pilot`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Completion tokens that the capture holds already.
    pub captured_tokens: u64,
    /// The stages of training that there would be, where there is anything to try them on.
    pub stages: Vec<Effort>,
    /// Tokens that would pass through the student in training, all stages and epochs together.
    pub training_tokens: Band,
    /// Bytes of the student and of the stages on disk.
    pub bytes: u64,
    /// Hours of training on this machine, by a few steps of each stage.
    pub hours: Band,
    /// Samples as the student will see them, and what was found of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Preflight>,
}

/// Bytes of a capture a token, where none is there to be measured.
const BYTES_A_TOKEN: u64 = 6;

/// Samples that are shown.
const SHOWN: usize = 4;

/// Prompts that are read to learn how long they are, where no answer is there yet.
const PROMPTS: usize = 1_000;

/// What `recipe` would take; tries a few steps of each stage to measure the speed.
pub(crate) fn estimate(recipe: &Recipe, papers: &Papers, clearance: Clearance) -> Result<Estimate, DistillError> {
    let student = Student::begin(recipe)?;
    let teacher = load_teacher(recipe, &student.codec)?;
    let (mut had, mut asked) = (Had::default(), Asked::default());
    if let Some(capture) = &recipe.capture {
        had = Had::read(recipe, &capture.source, &student, teacher.as_ref())?;
        if let Some(ask) = &capture.ask {
            asked = Asked::of(recipe, (&capture.source, ask), papers, &clearance, &had, &student.codec)?;
            if had.preflight.is_none() {
                had.preflight = Some(preflight::look_ahead(&student.codec, &ask.prompts)?);
            }
        }
    }
    let stages = stages(recipe, &student, teacher.as_ref(), &had, &asked)?;
    let sum = |part: fn(&Effort) -> Band| stages.iter().map(part).fold(Band::exactly(0.0), Band::plus);
    let parameters = student.network.parameters();
    let capture_bytes = asked.forecast.as_ref().map_or_else(
        || had.bytes.max(asked.most_tokens * BYTES_A_TOKEN),
        |forecast| forecast.bytes.expected.round() as u64,
    );
    Ok(Estimate {
        parameters,
        clearance,
        requests: asked.requests,
        most_completion_tokens: asked.most_tokens,
        tasks: asked.tasks,
        most_money: asked.most_money,
        forecast: asked.forecast,
        captured_tokens: had.completion_tokens,
        training_tokens: sum(|stage| stage.tokens),
        bytes: parameters * 4 * (stages.len() as u64 + 1) + capture_bytes,
        hours: sum(|stage| stage.seconds).times(1.0 / 3600.0),
        stages,
        preflight: had.preflight,
    })
}

/// What a capture holds already.
#[derive(Default)]
struct Had {
    rows: u64,
    answers: u64,
    completion_tokens: u64,
    bytes: u64,
    /// What would be learnt from.
    set: Set,
    preflight: Option<Preflight>,
}

impl Had {
    fn read(
        recipe: &Recipe,
        source: &Path,
        student: &Student,
        teacher: Option<&Teacher>,
    ) -> Result<Self, DistillError> {
        if !source.exists() {
            return Ok(Self::default());
        }
        let read = Capture::read(source, &student.codec)?;
        let (rows, completion_tokens) = (read.rows, read.usage.completion_tokens);
        let bytes = std::fs::metadata(source).map_or(0, |file| file.len()) + told::bytes(source)?;
        let had = Self { rows, answers: read.samples.len() as u64, completion_tokens, bytes, ..Self::default() };
        if rows == 0 {
            return Ok(had);
        }
        let lesson = Lesson::of(recipe, &student.codec, read.samples)?;
        let looked = preflight::look(recipe, &student.codec, &lesson.samples, &lesson.set, teacher)?;
        Ok(Self { set: lesson.set, preflight: Some(looked), ..had })
    }
}

/// What would be asked.
#[derive(Default)]
struct Asked {
    /// Answers that are still to be asked for.
    requests: u64,
    /// All answers that are wanted.
    answers: u64,
    most_tokens: u64,
    most_money: Money,
    tasks: u64,
    forecast: Option<Forecast>,
    /// Where no answer is there yet: the first prompts, with answers as long as they may be.
    supposed: Set,
}

impl Asked {
    fn of(
        recipe: &Recipe,
        (source, ask): (&Path, &AskPart),
        papers: &Papers,
        clearance: &Clearance,
        had: &Had,
        codec: &Codec,
    ) -> Result<Self, DistillError> {
        let mut asked = Self::default();
        let prices = recipe.teacher.as_ref().and_then(|teacher| teacher.prices);
        let prices = prices.map(|list| clearance.prices(papers, list));
        for document in Lines::<Document>::open(&ask.prompts)? {
            let prompt = document?.prompt();
            let usage = most_usage(&prompt, ask.max_tokens);
            asked.answers += u64::from(ask.answers);
            asked.most_tokens += u64::from(ask.answers) * usage.completion_tokens;
            let price = prices.map(|(class, prices)| {
                let limits = Limits { prices, class, tokens: None, seed: recipe.seed };
                prices.cost(usage, limits.class_of(ask.batch.is_some()))
            });
            let price = price.unwrap_or_default();
            asked.most_money += (0..ask.answers).map(|_| price).sum();
            if had.set.is_empty() && asked.supposed.len() < PROMPTS {
                asked.supposed.suppose(codec, &prompt, ask.max_tokens as usize)?;
            }
        }
        if recipe.evaluate.teacher
            && ask.url.is_some()
            && recipe.teacher.as_ref().is_some_and(|own| own.folder.is_none())
            && let Some(path) = &recipe.evaluate.tasks
        {
            for task in evaluate::tasks(path, recipe.evaluate.most_tasks)? {
                asked.tasks += 1;
                let usage = most_usage(&task.prompt(), recipe.evaluate.max_tokens);
                asked.most_money += prices.map_or(Money::ZERO, |(class, prices)| prices.cost(usage, class));
            }
        }
        asked.requests = asked.answers - asked.answers.min(answered(source, had.rows)?);
        asked.most_money = asked.most_money.min(ask.ceiling);
        asked.forecast = Quest::new(recipe, papers, clearance).map(|quest| quest.forecast(None)).transpose()?.flatten();
        Ok(asked)
    }

    /// Tokens of all that will be learnt from, once.
    fn tokens(&self, had: &Had, codec: &Codec) -> Band {
        let there = had.set.tokens as f64;
        if let (Some(forecast), true) = (&self.forecast, had.completion_tokens > 0) {
            // Prompts, and what curation leaves, are taken to keep their proportion to the answers' tokens.
            return forecast.completion_tokens.times(there / had.completion_tokens as f64);
        }
        if had.answers > 0 {
            // A band of 95 % would need a random sample: at worst the rest is learnt from not at all, or is as long as it may be.
            let rest = self.requests as f64;
            let (mean, most) = (there / had.answers as f64, codec.context as f64);
            return Band { expected: there + rest * mean, low: there, high: there + rest * most };
        }
        let (mut prompts, mut most) = (0, 0);
        for example in self.supposed.members() {
            prompts += example.first_target;
            most += example.tokens.len();
        }
        let share = self.answers as f64 / self.supposed.len().max(1) as f64;
        let (low, high) = (prompts as f64 * share, most as f64 * share);
        Band { expected: (low + high) / 2.0, low, high }
    }
}

/// The stages that there would be, each tried by a few steps.
fn stages(
    recipe: &Recipe,
    student: &Student,
    teacher: Option<&Teacher>,
    had: &Had,
    asked: &Asked,
) -> Result<Vec<Effort>, DistillError> {
    let (Student { network, codec, .. }, mut plans) = (student, Plans::of(recipe));
    let mut stages = Vec::new();
    let alone = Trial { network, codec, judge: None };
    let tokens = asked.tokens(had, codec);
    let set = if had.set.is_empty() { &asked.supposed } else { &had.set };
    if let Some(corpus) = &recipe.corpus {
        let mut reader = CorpusReader::open(&corpus.path)?;
        let read = reader.take(codec, corpus.tokens, Loss::Everywhere, false)?;
        let material = Material { set: &read, tokens: Band::exactly(read.tokens as f64) };
        if plans.pretrain.epochs > 0 {
            stages.extend(alone.learning(&plans.pretrain, &material)?);
        }
        if recipe.evaluate.scratch && !set.is_empty() {
            let plan = plans.other("scratch", plans.train.epochs);
            stages.extend(alone.learning(&plan, &Material { tokens, ..material })?);
        }
    }
    if let (Some(path), false) = (&recipe.evaluate.labels, set.is_empty()) {
        let labels = train::documents(path, codec, usize::MAX)?;
        let material = Material { set: &labels, tokens: Band::exactly(labels.tokens as f64) };
        let plan = plans.other("labels", recipe.evaluate.label_epochs.unwrap_or(plans.train.epochs));
        stages.extend(alone.learning(&plan, &material)?);
    }
    if !set.is_empty() {
        let material = Material { set, tokens };
        plans.train.hidden = matched(recipe, network, set, teacher)?;
        let judge = judge_for(&plans.train, teacher)?;
        stages.extend(Trial { judge: judge.as_ref(), ..alone }.learning(&plans.train, &material)?);
        stages.extend(alone.preferring(&plans, &material)?);
    }
    Ok(stages)
}

/// Answers that were asked for and are there.
fn answered(source: &Path, rows: u64) -> Result<u64, DistillError> {
    if rows == 0 {
        return Ok(0);
    }
    let mut count = 0;
    for row in Lines::<Row>::open(source)? {
        count += u64::from(row?.id.is_some());
    }
    Ok(count)
}

/// The estimate as a text of a few lines.
pub fn render_estimate(estimate: &Estimate) -> String {
    let forecast = estimate
        .forecast
        .as_ref()
        .map_or_else(String::new, |forecast| format!("forecast   {}\n", render_forecast(forecast)));
    let tasks = match estimate.tasks {
        0 => String::new(),
        tasks => format!(", {} tasks", grouped(tasks)),
    };
    let training = match estimate.stages.as_slice() {
        [] => "training   nothing to learn from\n".to_owned(),
        stages => {
            let whole = ("all", estimate.training_tokens, estimate.hours);
            let each =
                stages.iter().map(|stage| (stage.stage.as_str(), stage.tokens, stage.seconds.times(1.0 / 3600.0)));
            let (first, rest): (_, Vec<_>) = (render_effort("training", whole), each.collect());
            let rest = if rest.len() > 1 { rest } else { Vec::new() };
            rest.into_iter().fold(first, |all, effort| all + &render_effort("", effort))
        }
    };
    let preflight =
        estimate.preflight.as_ref().map_or_else(String::new, |found| format!("\n{}", render_preflight(found, SHOWN)));
    format!(
        "student    {} parameters\nasking     {} answers, at most {} completion tokens{tasks} and ${}\n{forecast}capture    {} completion \
         tokens are there\n{training}disk       {} bytes\n{preflight}",
        grouped(estimate.parameters),
        grouped(estimate.requests),
        grouped(estimate.most_completion_tokens),
        estimate.most_money,
        grouped(estimate.captured_tokens),
        grouped(estimate.bytes),
    )
}

fn render_effort(head: &str, (name, tokens, hours): (&str, Band, Band)) -> String {
    let whole = |value: f64| grouped(value.round() as u64);
    let between = |low: String, high: String| if low == high { String::new() } else { format!(" ({low} to {high})") };
    format!(
        "{head:<10} {name}: {} tokens{}, {:.3} hours ({:.3} to {:.3})\n",
        whole(tokens.expected),
        between(whole(tokens.low), whole(tokens.high)),
        hours.expected,
        hours.low,
        hours.high,
    )
}

/// The forecast in one line.
pub fn render_forecast(forecast: &Forecast) -> String {
    let Forecast { answers, sample, money, completion_tokens, .. } = forecast;
    format!(
        "all {} answers: ${:.6} (${:.6} to ${:.6}), {} completion tokens, from a random sample of {}",
        grouped(*answers),
        money.expected,
        money.low,
        money.high,
        grouped(completion_tokens.expected.round() as u64),
        grouped(*sample),
    )
}
