//! Asking the teacher of a recipe: by what right, whom, and within which limits.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{Answer, Money, Usage};
use anbiq_lm::{Local, LocalOptions};
use anbiq_secret::Secret;
use anbiq_upstream::{Client, ClientConfig};

use crate::ask::{self, Asking, Endpoint, Signal};
use crate::capture::Row;
use crate::data::{Asked, Document, Lines};
use crate::forecast::{self, Forecast};
use crate::recipe::{AskPart, Recipe, TeacherPart};
use crate::student::Student;
use crate::terms::{self, Clearance, Facts, Papers};
use crate::work::file_digest;
use crate::{DistillError, Surroundings, data};

/// What is asked of whom, within which limits.
pub(crate) struct Quest<'recipe> {
    pub(crate) teacher: &'recipe TeacherPart,
    pub(crate) source: &'recipe Path,
    pub(crate) part: &'recipe AskPart,
    pub(crate) limits: ask::Limits,
}

/// Where the teacher's answers to tasks are, beside the capture `source`.
fn tasks_path(source: &Path) -> PathBuf {
    source.with_added_extension("tasks")
}

/// Looks at the terms first: nobody should pay for answers that may not be used.
pub(crate) fn quest<'recipe>(
    recipe: &'recipe Recipe,
    around: &Surroundings,
) -> Result<Option<Quest<'recipe>>, DistillError> {
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
    pub(crate) fn new(recipe: &'recipe Recipe, papers: &Papers, clearance: &Clearance) -> Option<Self> {
        let teacher = recipe.teacher.as_ref()?;
        let capture = recipe.capture.as_ref()?;
        let (class, prices) = clearance.prices(papers, teacher.prices?);
        // One who trains against the terms keeps to no volume either.
        let tokens = if clearance.breaches.is_empty() { volume(papers) } else { None };
        let limits = ask::Limits { prices, class, tokens, seed: recipe.seed };
        Some(Self { teacher, source: &capture.source, part: capture.ask.as_ref()?, limits })
    }

    pub(crate) async fn ask(
        &self,
        recipe: &Recipe,
        around: &Surroundings,
        share: Option<f64>,
    ) -> Result<Asking, DistillError> {
        let endpoint = self.endpoint(recipe, around)?;
        let (source, part) = (self.source, self.left(&tasks_path(self.source))?);
        ask::ask(source, &self.teacher.name, &part, self.limits, &endpoint, share, &*around.progress).await
    }

    /// Finds by asking what the teacher can tell.
    pub(crate) async fn probe(&self, recipe: &Recipe, around: &Surroundings) -> Result<Signal, DistillError> {
        let (endpoint, part) = (self.endpoint(recipe, around)?, self.left(&tasks_path(self.source))?);
        ask::probe(self.source, &self.teacher.name, &part, self.limits, &endpoint).await
    }

    /// How to ask, with what the capture `other` leaves of the ceiling that both share.
    fn left(&self, other: &Path) -> Result<AskPart, DistillError> {
        let left = self.part.ceiling - ask::spent(other, self.limits)?;
        Ok(AskPart { ceiling: left.max(Money::ZERO), ..self.part.clone() })
    }

    /// The teacher's likeliest answers to `tasks`, each with what it took; `None` where the ceiling does not hold all of them,
    /// or the teacher will not give one. They are kept beside the capture, so that they are paid for once.
    pub(crate) async fn answer_tasks(
        &self,
        recipe: &Recipe,
        around: &Surroundings,
        tasks: &[Document],
    ) -> Result<(Asking, Option<Vec<(Answer, Usage)>>), DistillError> {
        let path = tasks_path(self.source);
        let prompts = path.with_added_extension("prompts");
        ask::replace(&prompts, |file| {
            for task in tasks {
                serde_json::to_writer(
                    &mut *file,
                    &Document { prompt: Asked::Prompt(task.prompt()), ..Document::default() },
                )?;
                std::io::Write::write_all(file, b"\n")?;
            }
            Ok(())
        })?;
        let part = AskPart {
            prompts,
            answers: 1,
            max_tokens: recipe.evaluate.max_tokens,
            temperature: 0.0,
            logprobs: None,
            batch: None,
            ..self.left(self.source)?
        };
        // Nobody learns from these: they are of no volume.
        let limits = ask::Limits { tokens: None, ..self.limits };
        let endpoint = self.endpoint(recipe, around)?;
        let asking = ask::ask(&path, &self.teacher.name, &part, limits, &endpoint, None, &*around.progress).await?;
        let maker = ask::Maker::new(&self.teacher.name, &part, limits, None);
        let mut rows = HashMap::new();
        for row in Lines::<Row>::open(&path)? {
            let row = row?;
            if let (Some(id), Some(answer)) = (row.id, row.answers.into_iter().next()) {
                rows.insert(id, (answer, row.usage));
            }
        }
        let answers = tasks.iter().map(|task| rows.get(&maker.id(&task.prompt(), 0)).cloned()).collect();
        Ok((asking, answers))
    }

    pub(crate) fn endpoint(&self, recipe: &Recipe, around: &Surroundings) -> Result<Endpoint, DistillError> {
        match &around.endpoint {
            Some(endpoint) => Ok(endpoint.clone()),
            None => endpoint(self.teacher, self.part, recipe.threads()),
        }
    }

    pub(crate) fn pilot_share(&self, share: f64) -> Result<f64, DistillError> {
        let answers = ask::Index::new(&ask::Maker::new(&self.teacher.name, self.part, self.limits, None))?.len();
        Ok(forecast::pilot_share(share, answers, self.part.answers))
    }

    pub(crate) fn forecast(&self, share: Option<f64>) -> Result<Option<Forecast>, DistillError> {
        forecast::forecast(self.source, &self.teacher.name, self.part, self.limits, share)
    }
}

/// What the user brings for the gate.
pub(crate) fn papers(recipe: &Recipe) -> Result<Papers, DistillError> {
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
