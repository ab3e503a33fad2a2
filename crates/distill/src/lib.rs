//! Distilling: from a recipe over the terms, the capture, training and evaluation to a student in a folder.
//!
//! [`run`] does all of it, [`capture`] only asks the teacher, [`estimate`] only says what it would take. Finished stages
//! are kept in a store under the digest of everything that they depend on, so that what was done once is not done again.

pub mod ask;
pub mod capture;
mod convert;
mod cost;
mod course;
mod curate;
pub mod data;
mod effort;
mod error;
mod estimate;
pub mod evaluate;
mod export;
mod forecast;
mod own;
mod plot;
mod preflight;
mod progress;
mod quest;
pub mod recipe;
mod report;
mod spans;
mod store;
mod student;
pub mod terms;
#[cfg(test)]
mod tests;
mod told;
mod train;
mod work;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anbiq_domain::{Clock, Money, PriceClass, SystemClock, Usage};

pub use ask::{Asking, Endpoint, Signal, Tier};
pub use capture::{Row, Token};
pub use convert::{Conversion, Converted, Form, convert};
pub use cost::Cost;
pub use course::Stage;
pub use curate::{Curated, Effect, Effects, Example, Language, Script, Without, Worth, Worths};
pub use effort::Effort;
pub use error::DistillError;
pub use estimate::{Estimate, render_estimate, render_forecast};
pub use evaluate::{Agreement, Calibration, Column, Gap, Interval, Intervals, Speed, Tasks};
pub use export::{Format, export};
pub use forecast::{Band, Forecast};
pub use preflight::{Preflight, Shown, TeacherEnd, render_preflight};
pub use progress::{Progress, Quiet};
pub use recipe::Recipe;
pub use report::{Captured, Report, render_effects, render_text, render_worths};
pub use told::{Spot, Told};
pub use train::Mapping;

use capture::Capture;
use course::Workshop;
use evaluate::{Measuring, Price};
use quest::{papers, quest};
use store::{Store, write_json};
use student::Student;
use terms::{Clearance, Facts};
use work::{Worked, work};

/// What a run needs from outside.
#[derive(Clone)]
pub struct Surroundings {
    /// Tells whether a grant has expired.
    pub clock: Arc<dyn Clock>,
    /// Is told how far the work is.
    pub progress: Arc<dyn Progress>,
    /// The teacher to ask; `None` for the one that the recipe names.
    pub endpoint: Option<Endpoint>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), progress: Arc::new(Quiet), endpoint: None }
    }
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("clock", &self.clock)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Does all that `recipe` says and writes the student into its folder: a Hugging Face model with its card, and
/// `report.json`, and the course of training as a picture.
///
/// # Errors
///
/// See [`DistillError`]. What was captured and trained before is kept: the same call goes on from there.
pub async fn run(recipe: &Recipe, around: &Surroundings) -> Result<Report, DistillError> {
    let (wall, cpu) = (Instant::now(), cost::cpu_seconds());
    if !recipe.train.device.is_cpu() {
        // Before anything is paid for.
        recipe.train.device.find(&Student::begin(recipe)?.network.config)?;
    }
    let asking = capture(recipe, around).await?;
    let (owned, papers) = (recipe.clone(), papers(recipe)?);
    let (clock, progress) = (Arc::clone(&around.clock), Arc::clone(&around.progress));
    let worked = tokio::task::spawn_blocking(move || work(&owned, &papers, asking, &*clock, &*progress)).await;
    let Worked { mut report, measuring, folders } =
        worked.map_err(|error| DistillError::Interrupted(error.to_string()))??;
    let tasks = (measuring.tasks.len() * folders.len()) as u64;
    if tasks > 0 {
        around.progress.stage("answering tasks", Some(tasks));
    }
    for (model, folder) in folders {
        let Some(column) = report.evaluation.iter_mut().find(|column| column.model == model) else { continue };
        measuring.answer(&folder, column, price(recipe, model), &*around.progress).await?;
    }
    if let Some((column, cost)) = teachers_tasks(recipe, around, &measuring, &report).await? {
        report.evaluation.insert(0, column);
        report.cost.tasks = Some(cost);
    }
    let dollars = report.cost.price.map(|price| price.nanos() as f64 / 1e9);
    report.gaps =
        evaluate::gaps(&report.evaluation, recipe.seed, report::cpu_seconds_of_student(&report.stages), dollars);
    report.cost.wall_seconds = wall.elapsed().as_secs_f64();
    report.cost.cpu_seconds = cost::cpu_since(cpu);
    let base = recipe.student.init.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let readme = recipe.out.join("README.md");
    fs::write(&readme, report::card(&report, base.as_deref())).map_err(DistillError::write(&readme))?;
    write_json(&recipe.out.join("report.json"), &report)?;
    let course = recipe.out.join(plot::FILE);
    fs::write(&course, plot::losses(&report.stages)).map_err(DistillError::write(&course))?;
    for &format in &recipe.export.formats {
        let place = export::place(&recipe.out, &recipe.student.name, format);
        export(&recipe.out, format, &place)?;
        around.progress.note(&format!("also written as {}", place.display()));
    }
    Ok(report)
}

/// What the teacher behind `[capture.ask]` makes of the tasks, and what that cost, where its weights are not at hand; within the
/// capture's ceiling.
async fn teachers_tasks(
    recipe: &Recipe,
    around: &Surroundings,
    measuring: &Measuring,
    report: &Report,
) -> Result<Option<(Column, Money)>, DistillError> {
    let there = report.column("teacher").is_some() || report.capture.is_none();
    if there || !recipe.evaluate.teacher || measuring.tasks.is_empty() {
        return Ok(None);
    }
    let Some(quest) = quest(recipe, around)? else { return Ok(None) };
    let (asking, answers) = quest.answer_tasks(recipe, around, &measuring.tasks).await?;
    let Some(answers) = answers else {
        around.progress.note("not all tasks were answered by the teacher: it has no column");
        return Ok(None);
    };
    let right: Vec<bool> = measuring
        .tasks
        .iter()
        .zip(&answers)
        .map(|(task, (answer, _))| task.is_right(&answer.text).unwrap_or(false))
        .collect();
    let usage = answers.iter().fold(Usage::default(), |sum, (_, usage)| Usage {
        prompt_tokens: sum.prompt_tokens + usage.prompt_tokens,
        completion_tokens: sum.completion_tokens + usage.completion_tokens,
        ..sum
    });
    let price = quest.limits.prices.cost(usage, quest.limits.class_of(false));
    let mut column = Column { model: "teacher".to_owned(), ..Column::default() };
    measuring.mark(&mut column, &right);
    column.speed = Some(Speed {
        together: quest.part.concurrency.min(answers.len()) as u64,
        median_ms: asking.median_ms,
        usage,
        price_a_thousand: Some(Money::from_nanos(price.nanos() * 1000 / answers.len().max(1) as i64)),
        ..Speed::default()
    });
    Ok(Some((column, asking.cost)))
}

/// What an answer of `model` costs whoever asks it: the teacher's by its list, any other the time of processors.
fn price(recipe: &Recipe, model: &str) -> Price {
    if model == "teacher" {
        let list = recipe.teacher.as_ref().and_then(|teacher| teacher.prices);
        return list.map_or(Price::Unknown, |list| Price::List(list, PriceClass::default()));
    }
    recipe.evaluate.cpu_hour.map_or(Price::Unknown, Price::Hour)
}

/// Asks the teacher for the answers that the recipe wants and its capture does not hold; `None` where it asks for none.
///
/// # Errors
///
/// The terms do not permit the student, whatever it would learn from; a file cannot be read or written; or the teacher
/// fails for good. Answers that came are kept.
pub async fn capture(recipe: &Recipe, around: &Surroundings) -> Result<Option<Asking>, DistillError> {
    let Some(quest) = quest(recipe, around)? else { return Ok(None) };
    quest.ask(recipe, around, None).await.map(Some)
}

/// Asks the teacher for a random `share` of the answers, or for 200 of them where that is more, and says what all of them
/// would take; `None` where the recipe asks for none. Where the band is wider than 5 % on either side it asks for as many more
/// as should make it narrower. The answers are kept: [`capture`] goes on from there.
///
/// # Errors
///
/// As [`capture`].
pub async fn pilot(
    recipe: &Recipe,
    around: &Surroundings,
    share: f64,
) -> Result<Option<(Asking, Option<Forecast>)>, DistillError> {
    let Some(quest) = quest(recipe, around)? else { return Ok(None) };
    let mut share = quest.pilot_share(share)?;
    let mut asking = quest.ask(recipe, around, Some(share)).await?;
    loop {
        let forecast = quest.forecast(Some(share))?;
        let larger = forecast.as_ref().and_then(|forecast| forecast.larger(share));
        let Some(larger) = larger.filter(|_| asking.stopped.is_none()) else { return Ok(Some((asking, forecast))) };
        around.progress.note("the band is wider than 5 %: a larger sample is asked for");
        share = larger;
        asking = quest.ask(recipe, around, Some(share)).await?.after(&asking);
    }
}

/// Finds by asking what the recipe's teacher can tell, and what of it a capture would use; `None` where the recipe asks
/// for nothing. It takes some twenty requests of a few tokens, which count against the recipe's ceiling.
///
/// # Errors
///
/// As [`capture`].
pub async fn probe(recipe: &Recipe, around: &Surroundings) -> Result<Option<Signal>, DistillError> {
    let Some(quest) = quest(recipe, around)? else { return Ok(None) };
    quest.probe(recipe, around).await.map(Some)
}

/// What each filter of the recipe takes of its capture; `None` where it has none.
///
/// # Errors
///
/// The capture, or a file that a filter needs, cannot be read or is not what it should be.
pub fn effects(recipe: &Recipe) -> Result<Option<Effects>, DistillError> {
    let Some(part) = &recipe.capture else { return Ok(None) };
    let captured = Capture::read(&part.source, &Student::begin(recipe)?.codec)?;
    curate::effects(&captured.samples, &recipe.curate, &recipe.evaluate).map(Some)
}

/// What each filter of `recipe` is worth to small students, `seeds` of each kind: they are trained and kept in the recipe's store. `None` where it
/// has no capture.
///
/// # Errors
///
/// As [`run`]; also where the filters leave nothing to learn from, or nothing to measure on.
pub fn worths(recipe: &Recipe, seeds: u64, progress: &dyn Progress) -> Result<Option<Worths>, DistillError> {
    let Some(part) = &recipe.capture else { return Ok(None) };
    let mut codec = Student::begin(recipe)?.codec;
    codec.context = codec.context.min(curate::SMALL_CONTEXT);
    let captured = Capture::read(&part.source, &codec)?;
    let (store, each) = (Store::new(&recipe.store), Duration::from_secs(recipe.checkpoint_seconds));
    let workshop = Workshop { store: &store, codec: &codec, each, progress };
    curate::worths(recipe, &captured.samples, &workshop, seeds).map(Some)
}

/// What the recipe would take. Asks nobody; trains two steps to measure the speed.
///
/// # Errors
///
/// As [`run`].
pub fn estimate(recipe: &Recipe, around: &Surroundings) -> Result<Estimate, DistillError> {
    let papers = papers(recipe)?;
    let clearance = match &recipe.teacher {
        Some(teacher) => {
            let parameters = Student::begin(recipe)?.network.parameters();
            terms::judge(
                &teacher.name,
                &papers,
                Facts { name: &recipe.student.name, parameters, tokens: 0, now: around.clock.now() },
            )?
        }
        None => Clearance::no_teacher(),
    };
    estimate::estimate(recipe, &papers, clearance)
}
