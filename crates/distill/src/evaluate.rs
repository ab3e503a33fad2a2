//! How near the student came.

use std::path::Path;
use std::sync::Arc;

use anbiq_lm::{Codec, Local, LocalOptions, Network, score};
use anbiq_model::{Model, Request, Sampling, collect};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::data::{Document, Lines};
use crate::progress::Progress;
use crate::train::Set;

/// What was measured of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// `teacher`, `scratch` or `student`.
    pub model: String,
    /// Its size.
    pub parameters: u64,
    /// Loss on documents that nobody was trained on, in nats a token of the answer.
    pub held_out_loss: Option<f64>,
    /// Loss on answers of the teacher that were kept from training, in nats a token.
    pub teacher_loss: Option<f64>,
    /// How near it comes to the teacher's distribution on both.
    pub agreement: Option<Agreement>,
    /// Right answers to tasks.
    pub tasks: Option<Tasks>,
}

/// How near a model comes to the teacher's distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Mean of KL(teacher || model), in nats a token.
    pub kl: f64,
    /// Share of the places at which both find the same token likeliest.
    pub top1: f64,
    /// Places.
    pub places: u64,
}

/// Right answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// Right ones.
    pub right: u64,
    /// All.
    pub asked: u64,
}

impl Tasks {
    /// The share of right ones; 0 where nothing was asked.
    pub fn share(&self) -> f64 {
        if self.asked == 0 { 0.0 } else { self.right as f64 / self.asked as f64 }
    }
}

/// What models are measured on.
#[derive(Debug, Default)]
pub(crate) struct Measuring {
    pub(crate) held_out: Set,
    pub(crate) teacher: Set,
    pub(crate) tasks: Vec<Document>,
    pub(crate) max_tokens: u32,
    pub(crate) threads: usize,
}

/// The teacher's own weights, where they are at hand and speak the student's tokens.
#[derive(Debug)]
pub(crate) struct Teacher {
    pub(crate) network: Network,
}

impl Teacher {
    /// Loads the teacher from `folder`; `None` where its tokens are not those of `codec`, since then its probabilities
    /// cannot be compared place by place.
    pub(crate) fn load(folder: &Path, codec: &Codec) -> Result<Option<Self>, DistillError> {
        let own = Codec::load(folder)?;
        let tokens = own.tokenizer.size();
        let same = tokens == codec.tokenizer.size()
            && (0..tokens as u32).all(|token| own.tokenizer.bytes(token) == codec.tokenizer.bytes(token));
        if same { Ok(Some(Self { network: Network::load(folder)? })) } else { Ok(None) }
    }
}

/// Reads at most `most` tasks.
pub(crate) fn tasks(path: &Path, most: usize) -> Result<Vec<Document>, DistillError> {
    let tasks =
        Lines::<Document>::open(path)?.filter(|task| task.as_ref().map_or(true, |task| task.expected.is_some()));
    tasks.take(most).collect()
}

impl Measuring {
    /// Losses and agreement of `network`.
    pub(crate) fn losses(
        &self,
        model: &str,
        network: &Network,
        teacher: Option<&Teacher>,
    ) -> Result<Column, DistillError> {
        let loss = |set: &Set| {
            let sequences = set.sequences();
            let mean = || score::mean_loss(network, &sequences, self.threads);
            (!sequences.is_empty()).then(mean).transpose()
        };
        let sequences: Vec<(&[u32], usize)> =
            self.held_out.sequences().into_iter().chain(self.teacher.sequences()).collect();
        let fits = |teacher: &&Teacher| {
            teacher.network.config.vocab_size == network.config.vocab_size
                && sequences.iter().all(|(tokens, _)| tokens.len() <= teacher.network.config.max_positions)
        };
        let agreement = match teacher.filter(fits) {
            Some(teacher) if !sequences.is_empty() => {
                let found = score::compare(&teacher.network, network, &sequences, self.threads)?;
                Some(Agreement { kl: found.kl, top1: found.top1, places: found.positions })
            }
            _ => None,
        };
        Ok(Column {
            model: model.to_owned(),
            parameters: network.parameters(),
            held_out_loss: loss(&self.held_out)?,
            teacher_loss: loss(&self.teacher)?,
            agreement,
            tasks: None,
        })
    }

    /// Right answers of the model in `folder`, each the likeliest one.
    pub(crate) async fn answer(&self, folder: &Path, progress: &dyn Progress) -> Result<Option<Tasks>, DistillError> {
        if self.tasks.is_empty() {
            return Ok(None);
        }
        let options = LocalOptions { threads: self.threads, seed: Some(0), ..LocalOptions::default() };
        let at_once = options.max_batch * options.threads;
        let model: Arc<dyn Model> = Arc::new(Local::open(folder, "evaluated", options)?);
        let mut answers = futures::stream::iter(&self.tasks)
            .map(|task| {
                let model = Arc::clone(&model);
                async move {
                    let request = Request {
                        sampling: Sampling { temperature: 0.0, seed: Some(0), ..Sampling::default() },
                        ..Request::new(task.prompt(), self.max_tokens)
                    };
                    let (answers, _) = collect(model.generate(request).await?, 1).await?;
                    let answer = answers.first().map_or("", |answer| answer.text.as_str());
                    Ok::<_, DistillError>(task.is_right(answer).unwrap_or(false))
                }
            })
            .buffer_unordered(at_once);
        let mut tasks = Tasks::default();
        while let Some(right) = answers.next().await {
            match right {
                Ok(right) => tasks.right += u64::from(right),
                // A task that does not fit the model's context is not answered right.
                Err(DistillError::Teacher(error)) if error.fault == anbiq_model::Fault::Request => {}
                Err(error) => return Err(error),
            }
            tasks.asked += 1;
            progress.advance(1);
        }
        Ok(Some(tasks))
    }
}
