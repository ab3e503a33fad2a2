//! What a recipe would take.

use std::path::Path;

use anbiq_domain::Money;
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::ask::{Limits, most_usage};
use crate::capture::{Capture, Row};
use crate::course::{self, Plans};
use crate::data::{Document, Lines};
use crate::evaluate;
use crate::forecast::Forecast;
use crate::preflight::{self, Preflight, render_preflight};
use crate::quest::Quest;
use crate::recipe::Recipe;
use crate::report::grouped;
use crate::student::Student;
use crate::terms::{Clearance, Papers};
use crate::told;
use crate::train::{CorpusReader, Loss};
use crate::work::{Lesson, load_teacher, matched};

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
    /// Tokens that would pass through the student in training, all stages and epochs together.
    pub training_tokens: u64,
    /// Bytes of the student and of the stages on disk.
    pub bytes: u64,
    /// Training tokens a second, measured on two steps.
    pub tokens_a_second: Option<f64>,
    /// Hours of training.
    pub hours: Option<f64>,
    /// Samples as the student will see them, and what was found of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Preflight>,
}

/// Bytes of a capture a token, where none is there to be measured.
const BYTES_A_TOKEN: u64 = 6;

/// Samples that are shown.
const SHOWN: usize = 4;

/// What `recipe` would take; trains two steps to measure the speed.
pub(crate) fn estimate(recipe: &Recipe, papers: &Papers, clearance: Clearance) -> Result<Estimate, DistillError> {
    let student = Student::begin(recipe)?;
    let plans = Plans::of(recipe);
    let (mut requests, mut most_tokens, mut most_money, mut captured, mut tasks) = (0, 0, Money::ZERO, 0, 0);
    let (mut answer_tokens, mut capture_bytes, mut forecast, mut preflight) = (0, 0, None, None);
    if let Some(capture) = &recipe.capture {
        let mut rows = 0;
        if capture.source.exists() {
            let read = Capture::read(&capture.source, &student.codec)?;
            (rows, captured) = (read.rows, read.usage.completion_tokens);
            capture_bytes =
                std::fs::metadata(&capture.source).map_or(0, |file| file.len()) + told::bytes(&capture.source)?;
            if rows > 0 {
                let lesson = Lesson::of(recipe, &student.codec, read.samples)?;
                answer_tokens = lesson.set.tokens;
                let teacher = load_teacher(recipe, &student.codec)?;
                matched(recipe, &student.network, &lesson.set, teacher.as_ref())?;
                let looked = preflight::look(recipe, &student.codec, &lesson.samples, &lesson.set, teacher.as_ref())?;
                preflight = Some(looked);
            }
        }
        if let (None, Some(ask)) = (&preflight, &capture.ask) {
            preflight = Some(preflight::look_ahead(&student.codec, &ask.prompts)?);
        }
        if let Some(ask) = &capture.ask {
            let prices = recipe.teacher.as_ref().and_then(|teacher| teacher.prices);
            let prices = prices.map(|list| clearance.prices(papers, list));
            for document in Lines::<Document>::open(&ask.prompts)? {
                let usage = most_usage(&document?.prompt(), ask.max_tokens);
                requests += u64::from(ask.answers);
                most_tokens += u64::from(ask.answers) * usage.completion_tokens;
                let price = prices.map(|(class, prices)| {
                    let limits = Limits { prices, class, tokens: None, seed: recipe.seed };
                    prices.cost(usage, limits.class_of(ask.batch.is_some()))
                });
                let price = price.unwrap_or_default();
                most_money += (0..ask.answers).map(|_| price).sum();
            }
            if recipe.evaluate.teacher
                && ask.url.is_some()
                && recipe.teacher.as_ref().is_some_and(|own| own.folder.is_none())
                && let Some(path) = &recipe.evaluate.tasks
            {
                for task in evaluate::tasks(path, recipe.evaluate.most_tasks)? {
                    tasks += 1;
                    let usage = most_usage(&task.prompt(), recipe.evaluate.max_tokens);
                    most_money += prices.map_or(Money::ZERO, |(class, prices)| prices.cost(usage, class));
                }
            }
            requests -= requests.min(answered(&capture.source, rows)?);
            most_money = most_money.min(ask.ceiling);
            forecast = Quest::new(recipe, papers, &clearance).map(|quest| quest.forecast(None)).transpose()?.flatten();
            if let Some(forecast) = &forecast {
                answer_tokens = forecast.completion_tokens.expected.round() as u64;
                capture_bytes = forecast.bytes.expected.round() as u64;
            } else {
                answer_tokens = answer_tokens.max(most_tokens);
                capture_bytes = capture_bytes.max(most_tokens * BYTES_A_TOKEN);
            }
        }
    }
    let mut training_tokens = answer_tokens * u64::from(plans.train.epochs);
    let mut measured = None;
    let mut stages = u64::from(answer_tokens > 0);
    if let Some((plan, ..)) = plans.prefer.as_ref().filter(|_| answer_tokens > 0) {
        // Beside each answer of the teacher the student has one of its own, of about its length.
        training_tokens += 2 * answer_tokens * u64::from(plan.epochs);
        stages += 1;
    }
    if let Some(corpus) = &recipe.corpus {
        let mut reader = CorpusReader::open(&corpus.path)?;
        let set = reader.take(&student.codec, corpus.tokens, Loss::Everywhere, false)?;
        training_tokens += set.tokens * u64::from(plans.pretrain.epochs);
        stages += 1;
        if recipe.evaluate.scratch && answer_tokens > 0 {
            training_tokens += answer_tokens * u64::from(plans.train.epochs);
            stages += 1;
        }
        measured = course::seconds_a_token(student.network.clone(), &set, &plans.pretrain)?;
    }
    let parameters = student.network.parameters();
    Ok(Estimate {
        parameters,
        clearance,
        requests,
        most_completion_tokens: most_tokens,
        tasks,
        most_money,
        forecast,
        captured_tokens: captured,
        training_tokens,
        bytes: parameters * 4 * (stages + 1) + capture_bytes,
        tokens_a_second: measured.map(|seconds| 1.0 / seconds),
        hours: measured.map(|seconds| seconds * training_tokens as f64 / 3600.0),
        preflight,
    })
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
    let speed = estimate.tokens_a_second.map_or("not measured: no corpus".to_owned(), |speed| {
        format!("{:.2} hours at {} tokens a second", estimate.hours.unwrap_or(0.0), grouped(speed as u64))
    });
    let forecast = estimate
        .forecast
        .as_ref()
        .map_or_else(String::new, |forecast| format!("forecast   {}\n", render_forecast(forecast)));
    let tasks = match estimate.tasks {
        0 => String::new(),
        tasks => format!(", {} tasks", grouped(tasks)),
    };
    let preflight =
        estimate.preflight.as_ref().map_or_else(String::new, |found| format!("\n{}", render_preflight(found, SHOWN)));
    format!(
        "student    {} parameters\nasking     {} answers, at most {} completion tokens{tasks} and ${}\n{forecast}capture    {} completion \
         tokens are there\ntraining   {} tokens, {speed}\ndisk       {} bytes\n{preflight}",
        grouped(estimate.parameters),
        grouped(estimate.requests),
        grouped(estimate.most_completion_tokens),
        estimate.most_money,
        grouped(estimate.captured_tokens),
        grouped(estimate.training_tokens),
        grouped(estimate.bytes),
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
