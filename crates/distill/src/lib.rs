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
mod error;
mod estimate;
pub mod evaluate;
mod export;
mod forecast;
mod own;
mod progress;
pub mod recipe;
mod report;
mod store;
mod student;
pub mod terms;
#[cfg(test)]
mod tests;
mod train;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anbiq_domain::{Clock, Digest, PriceClass, SystemClock, Usage};
use anbiq_lm::lora::Adapter;
use anbiq_lm::{Dtype, Local, LocalOptions, Network};
use anbiq_secret::Secret;
use anbiq_upstream::{Client, ClientConfig};

pub use ask::{Asking, Endpoint, Signal, Tier};
pub use capture::{Row, Token};
pub use convert::{Conversion, Converted, Form, convert};
pub use cost::Cost;
pub use course::Stage;
pub use curate::{Curated, Effect, Effects, Example, Language, Script};
pub use error::DistillError;
pub use estimate::{Estimate, render_estimate, render_forecast};
pub use evaluate::{Agreement, Calibration, Column, Gap, Interval, Intervals, Speed, Tasks};
pub use export::{Format, export};
pub use forecast::{Band, Forecast};
pub use progress::{Progress, Quiet};
pub use recipe::Recipe;
pub use report::{Captured, Report, render_effects, render_text};
pub use train::Mapping;

use capture::Capture;
use course::{Plan, Plans, Workshop};
use evaluate::{Measuring, Price, Teacher};
use own::Judge;
use recipe::{AskPart, TeacherPart};
use store::{Store, write_json};
use student::Student;
use terms::{Clearance, Facts, Papers};
use train::{CorpusReader, Loss, Set};

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
/// `report.json`.
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
    let dollars = report.cost.price.map(|price| price.nanos() as f64 / 1e9);
    report.gaps =
        evaluate::gaps(&report.evaluation, recipe.seed, report::cpu_seconds_of_student(&report.stages), dollars);
    report.cost.wall_seconds = wall.elapsed().as_secs_f64();
    report.cost.cpu_seconds = cost::cpu_since(cpu);
    let base = recipe.student.init.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let readme = recipe.out.join("README.md");
    fs::write(&readme, report::card(&report, base.as_deref())).map_err(DistillError::write(&readme))?;
    write_json(&recipe.out.join("report.json"), &report)?;
    for &format in &recipe.export.formats {
        let place = export::place(&recipe.out, &recipe.student.name, format);
        export(&recipe.out, format, &place)?;
        around.progress.note(&format!("also written as {}", place.display()));
    }
    Ok(report)
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
    let endpoint = quest.endpoint(recipe, around)?;
    ask::probe(quest.source, &quest.teacher.name, quest.part, quest.limits, &endpoint).await.map(Some)
}

/// What is asked of whom, within which limits.
struct Quest<'recipe> {
    teacher: &'recipe TeacherPart,
    source: &'recipe Path,
    part: &'recipe AskPart,
    limits: ask::Limits,
}

/// Looks at the terms first: nobody should pay for answers that may not be used.
fn quest<'recipe>(recipe: &'recipe Recipe, around: &Surroundings) -> Result<Option<Quest<'recipe>>, DistillError> {
    let Some(teacher) = &recipe.teacher else { return Ok(None) };
    let papers = papers(recipe)?;
    let parameters = Student::begin(recipe)?.network.parameters();
    let clearance = terms::judge(
        &teacher.name,
        &papers,
        Facts { name: &recipe.student.name, parameters, tokens: 0, now: around.clock.now() },
    )?;
    Ok(Quest::new(recipe, &papers, &clearance))
}

impl<'recipe> Quest<'recipe> {
    fn new(recipe: &'recipe Recipe, papers: &Papers, clearance: &Clearance) -> Option<Self> {
        let teacher = recipe.teacher.as_ref()?;
        let capture = recipe.capture.as_ref()?;
        let (class, prices) = clearance.prices(papers, teacher.prices?);
        // One who trains against the terms keeps to no volume either.
        let tokens = if clearance.breaches.is_empty() { volume(papers) } else { None };
        let limits = ask::Limits { prices, class, tokens, seed: recipe.seed };
        Some(Self { teacher, source: &capture.source, part: capture.ask.as_ref()?, limits })
    }

    async fn ask(&self, recipe: &Recipe, around: &Surroundings, share: Option<f64>) -> Result<Asking, DistillError> {
        let Self { teacher, source, part, limits } = self;
        let endpoint = self.endpoint(recipe, around)?;
        ask::ask(source, &teacher.name, part, *limits, &endpoint, share, &*around.progress).await
    }

    fn endpoint(&self, recipe: &Recipe, around: &Surroundings) -> Result<Endpoint, DistillError> {
        match &around.endpoint {
            Some(endpoint) => Ok(endpoint.clone()),
            None => endpoint(self.teacher, self.part, recipe.threads()),
        }
    }

    fn pilot_share(&self, share: f64) -> Result<f64, DistillError> {
        let answers = ask::Index::new(&ask::Maker::new(&self.teacher.name, self.part, self.limits, None))?.len();
        Ok(forecast::pilot_share(share, answers))
    }

    fn forecast(&self, share: Option<f64>) -> Result<Option<Forecast>, DistillError> {
        forecast::forecast(self.source, &self.teacher.name, self.part, self.limits, share)
    }
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

/// The student and what is still to be measured.
struct Worked {
    report: Report,
    measuring: Measuring,
    /// Models that are to answer tasks.
    folders: Vec<(&'static str, PathBuf)>,
}

/// Everything between the capture and the tasks; blocks for as long as it takes.
fn work(
    recipe: &Recipe,
    papers: &Papers,
    asking: Option<Asking>,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<Worked, DistillError> {
    let Student { network, codec, mut origin } = Student::begin(recipe)?;
    let parameters = network.parameters();
    let captured = recipe.capture.as_ref().map(|part| Capture::read(&part.source, &codec)).transpose()?;
    let clearance = match (&recipe.teacher, &captured) {
        (Some(teacher), Some(captured)) => {
            let facts = Facts {
                name: &recipe.student.name,
                parameters,
                tokens: captured.usage.completion_tokens,
                now: clock.now(),
            };
            terms::judge(&teacher.name, papers, facts)?
        }
        _ => Clearance::no_teacher(),
    };
    let plans = Plans::of(recipe);
    let store = Store::new(&recipe.store);
    let each = Duration::from_secs(recipe.checkpoint_seconds);
    let workshop = Workshop { store: &store, codec: &codec, each, progress };
    let (mut stages, mut network) = (Vec::new(), network);

    let mut corpus = recipe.corpus.as_ref().map(|part| CorpusReader::open(&part.path)).transpose()?;
    if let (Some(part), Some(reader)) = (&recipe.corpus, &mut corpus)
        && plans.pretrain.epochs > 0
    {
        let set = reader.take(&codec, part.tokens, Loss::Everywhere, false)?;
        need(&set, "the corpus holds no document with an answer that fits the student's context")?;
        let (learnt, stage) = workshop.learn(&origin, network, &set, &plans.pretrain, None)?;
        (network, origin) = (learnt, stage.key);
        stages.push(stage);
    }

    let mut measuring = Measuring {
        max_tokens: recipe.evaluate.max_tokens,
        threads: recipe.threads(),
        seed: recipe.seed,
        ..Measuring::default()
    };
    // The student before it saw an answer, where that is more than random numbers.
    let before = match (stages.last(), &recipe.student.init) {
        (Some(stage), _) => Some(store.folder("pretrain", &stage.key)),
        (None, init) => init.clone(),
    };
    let (mut facts, mut others, mut in_batches) = (None, Vec::new(), Usage::default());
    let before = before.filter(|_| recipe.evaluate.base && captured.is_some());
    others.extend(before.map(|folder| ("base", network.clone(), folder)));
    if let (Some(part), Some(captured)) = (&recipe.capture, captured) {
        let Capture { samples, usage, batched, rows, uncounted } = captured;
        in_batches = batched;
        let (samples, curated) = curate::curate(samples, &recipe.curate, &recipe.evaluate)?;
        let (samples, held_out) = curate::hold_out(samples, recipe.evaluate.capture_share);
        let (set, mapping) = train::answers(&samples, &codec)?;
        need(&set, "the capture holds no answer to train on")?;
        measuring.teacher = train::answers(&held_out, &codec)?.0;
        if let Some(reader) = corpus.as_mut().filter(|_| recipe.evaluate.scratch) {
            // The same start, the same steps and as many tokens; only what they say differs.
            let other = reader.take(&codec, Some(set.tokens), Loss::OnAnswers, true)?;
            let plan = Plan { name: "scratch", kl_weight: 0.0, own: None, ..plans.train.clone() };
            let (learnt, stage) = workshop.learn(&origin, network.clone(), &other, &plan, None)?;
            others.push(("scratch", learnt, store.folder("scratch", &stage.key)));
            stages.push(stage);
        }
        if let Some(path) = &recipe.evaluate.labels {
            let labels = train::documents(path, &codec, usize::MAX)?;
            need(&labels, "the labels hold no answer that fits the student's context")?;
            let epochs = recipe.evaluate.label_epochs.unwrap_or(plans.train.epochs);
            let plan = Plan { name: "labels", epochs, kl_weight: 0.0, own: None, ..plans.train.clone() };
            let (learnt, stage) = workshop.learn(&origin, network.clone(), &labels, &plan, None)?;
            others.push(("labels", learnt, store.folder("labels", &stage.key)));
            stages.push(stage);
        }
        let judge = plans.train.own.as_ref().map(|_| judge(recipe, &codec)).transpose()?;
        let (learnt, stage) = workshop.learn(&origin, network, &set, &plans.train, judge.as_ref())?;
        network = learnt;
        if let (Some(_), Some(base)) = (&plans.train.lora, &recipe.student.init) {
            let kept = store.folder("train", &stage.key).join(store::ADAPTER);
            let adapter = Adapter::load(&kept, &network.config)?;
            adapter.save(&recipe.out.join(store::ADAPTER), &base.to_string_lossy())?;
        }
        origin = stage.key;
        stages.push(stage);
        if let Some((plan, own, how)) = &plans.prefer {
            let (learnt, stage) = workshop.prefer(&origin, network, &set, plan, own, how)?;
            network = learnt;
            stages.push(stage);
        }
        facts = Some(Captured {
            file: file_digest(&part.source)?,
            rows,
            usage,
            uncounted,
            asking,
            curated,
            held_out: held_out.len() as u64,
            mapping,
        });
    }
    save(&recipe.out, &network, &codec)?;

    progress.stage("measuring", None);
    if let Some(path) = &recipe.evaluate.held_out {
        measuring.held_out = train::documents(path, &codec, recipe.evaluate.most_held_out)?;
    }
    if let Some(path) = &recipe.evaluate.tasks {
        measuring.tasks = evaluate::tasks(path, recipe.evaluate.most_tasks)?;
    }
    let teacher_folder = recipe.teacher.as_ref().and_then(|teacher| teacher.folder.as_deref());
    let teacher = teacher_folder.map(|folder| Teacher::load(folder, &codec)).transpose()?.flatten();
    if teacher.is_none() && teacher_folder.is_some() {
        progress.note("the teacher has another tokenizer: it is not compared place by place");
    }
    let (mut evaluation, mut folders) = (Vec::new(), Vec::new());
    if let (Some(teacher), Some(folder)) = (&teacher, teacher_folder) {
        evaluation.push(measuring.losses("teacher", &teacher.network, None)?);
        folders.push(("teacher", folder.to_owned()));
    }
    for (model, network, folder) in others {
        evaluation.push(measuring.losses(model, &network, teacher.as_ref())?);
        folders.push((model, folder));
    }
    evaluation.push(measuring.losses("student", &network, teacher.as_ref())?);
    folders.push(("student", recipe.out.clone()));

    let usage = facts.as_ref().map(|facts| facts.usage).unwrap_or_default();
    let prices = recipe.teacher.as_ref().and_then(|teacher| teacher.prices);
    let prices = prices.filter(|_| facts.is_some()).map(|list| clearance.prices(papers, list));
    let cost = Cost {
        usage,
        price: prices.map(|(class, prices)| {
            let limits = ask::Limits { prices, class, tokens: None, seed: 0 };
            let alone = Usage {
                prompt_tokens: usage.prompt_tokens - in_batches.prompt_tokens,
                completion_tokens: usage.completion_tokens - in_batches.completion_tokens,
                ..Usage::default()
            };
            prices.cost(alone, limits.class_of(false)) + prices.cost(in_batches, limits.class_of(true))
        }),
        training_tokens: stages.iter().filter(|stage| report::is_of_student(stage)).map(|stage| stage.tokens).sum(),
        stage_cpu_seconds: stages.iter().filter_map(|stage| stage.cpu_seconds).sum(),
        ..Cost::default()
    };
    let report = Report {
        format: 1,
        software: concat!("anbiq ", env!("CARGO_PKG_VERSION")).to_owned(),
        student: recipe.student.name.clone(),
        folder: recipe.out.clone(),
        parameters,
        context: codec.context as u64,
        recipe: recipe.digest(),
        seed: recipe.seed,
        teacher: recipe.teacher.as_ref().map(|teacher| teacher.name.clone()),
        clearance,
        capture: facts,
        stages,
        evaluation,
        gaps: Vec::new(),
        cost,
    };
    Ok(Worked { report, measuring, folders })
}

/// The teacher as one who judges what the student wrote.
fn judge(recipe: &Recipe, codec: &anbiq_lm::Codec) -> Result<Judge, DistillError> {
    let folder = recipe.teacher.as_ref().and_then(|teacher| teacher.folder.as_deref()).unwrap_or(Path::new("."));
    let teacher = Teacher::load(folder, codec)?.ok_or_else(|| {
        let why =
            "`[train.on_policy]`: the teacher's tokens are not the student's, so it cannot judge them place by place";
        DistillError::Nothing(why.to_owned())
    })?;
    Ok(Judge::new(teacher.network))
}

fn need(set: &Set, otherwise: &str) -> Result<(), DistillError> {
    if set.examples.is_empty() { Err(DistillError::Nothing(otherwise.to_owned())) } else { Ok(()) }
}

fn save(folder: &Path, network: &Network, codec: &anbiq_lm::Codec) -> Result<(), DistillError> {
    network.save(folder, Dtype::F32)?;
    Ok(codec.save(folder)?)
}

fn file_digest(path: &Path) -> Result<Digest, DistillError> {
    use sha2::{Digest as _, Sha256};
    let mut file = fs::File::open(path).map_err(DistillError::read(path))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        let read = std::io::Read::read(&mut file, &mut block).map_err(DistillError::read(path))?;
        if read == 0 {
            return Ok(Digest::from_bytes(hasher.finalize().into()));
        }
        hasher.update(&block[..read]);
    }
}

/// What the user brings for the gate.
fn papers(recipe: &Recipe) -> Result<Papers, DistillError> {
    let Some(teacher) = &recipe.teacher else { return Ok(Papers::default()) };
    Ok(Papers {
        terms: teacher.terms.as_deref().map(data::read_json).transpose()?,
        account: teacher.account.clone(),
        grant: teacher.grant.as_deref().map(data::read_json).transpose()?,
        permission: teacher.permission.as_deref().map(file_digest).transpose()?,
        basis: teacher.basis.clone(),
    })
}

/// The most completion tokens that the papers allow.
fn volume(papers: &Papers) -> Option<u64> {
    match (&papers.grant, &papers.terms) {
        (Some(grant), _) => grant.conditions.max_output_tokens,
        (None, terms) => terms.as_ref()?.conditions.max_output_tokens,
    }
}

/// The teacher that the recipe names.
fn endpoint(teacher: &TeacherPart, ask: &AskPart, threads: usize) -> Result<Endpoint, DistillError> {
    let setup = |message: String| {
        DistillError::Teacher(anbiq_model::ModelError::new(anbiq_model::Fault::Setup, "teacher_setup", message))
    };
    if let Some(url) = &ask.url {
        let key = match &ask.key_env {
            Some(variable) => {
                let missing = |_| setup(format!("the environment variable `{variable}` holds no key"));
                Some(Secret::new(std::env::var(variable).map_err(missing)?))
            }
            None => None,
        };
        let read_timeout = Duration::from_secs(ask.timeout_seconds);
        let config = ClientConfig { read_timeout, pool: ask.concurrency, ..ClientConfig::new(url.clone(), key) };
        let client = Client::new(config).map_err(|error| setup(error.to_string()))?;
        return Ok(Endpoint::Http { client, model: ask.model.clone().unwrap_or_else(|| teacher.name.clone()) });
    }
    let folder = teacher.folder.as_deref().ok_or_else(|| setup("there is no teacher to ask".to_owned()))?;
    let queue = ask.concurrency.max(256);
    let options = LocalOptions { threads, queue, weights: teacher.weights, ..LocalOptions::default() };
    Ok(Endpoint::Model(Arc::new(Local::open(folder, &teacher.name, options)?)))
}
