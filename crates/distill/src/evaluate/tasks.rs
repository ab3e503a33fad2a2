//! Tasks with one right answer: who answers how many of them, how fast and at what price.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anbiq_domain::{Money, Usage};
use anbiq_lm::{Local, LocalOptions};
use anbiq_model::{Model, Request, Sampling, collect};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::interval::{self, Unit, mean};
use super::{Column, Measuring};
use crate::data::{Document, Lines};
use crate::progress::Progress;
use crate::{DistillError, cost};

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

/// How fast and at what price a model answered the tasks, on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Most answers under way together.
    pub together: u64,
    /// Half of the answers took less than so many milliseconds, from the question to the last word, with others beside them.
    /// Not known of answers that were there from before.
    pub median_ms: Option<f64>,
    /// Seconds on the wall for a thousand answers, where all of them were measured.
    pub seconds_a_thousand: Option<f64>,
    /// Seconds of processors for a thousand answers, where the system says.
    pub cpu_seconds_a_thousand: Option<f64>,
    /// Tokens of all prompts and answers.
    pub usage: Usage,
    /// What a thousand answers cost: the teacher's by its price list, the others' by the recipe's price of a processor's hour.
    pub price_a_thousand: Option<Money>,
}

/// What an answer to a task costs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Price {
    #[default]
    Unknown,
    /// By tokens.
    List(anbiq_domain::PriceList, anbiq_domain::PriceClass),
    /// An hour of a processor.
    Hour(Money),
}

/// Reads at most `most` tasks.
pub(crate) fn tasks(path: &Path, most: usize) -> Result<Vec<Document>, DistillError> {
    let tasks =
        Lines::<Document>::open(path)?.filter(|task| task.as_ref().map_or(true, |task| task.expected.is_some()));
    tasks.take(most).collect()
}

impl Measuring {
    /// Lets the model in `folder` answer the tasks, each with the likeliest answer, and writes into `column` what came of it.
    pub(crate) async fn answer(
        &self,
        folder: &Path,
        column: &mut Column,
        price: Price,
        progress: &dyn Progress,
    ) -> Result<(), DistillError> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        let options = LocalOptions { threads: self.threads, seed: Some(0), ..LocalOptions::default() };
        let together = (options.max_batch * options.threads).min(self.tasks.len());
        let model: Arc<dyn Model> = Arc::new(Local::open(folder, "evaluated", options)?);
        let (begun, cpu) = (Instant::now(), cost::cpu_seconds());
        let mut answers = futures::stream::iter(self.tasks.iter().enumerate())
            .map(|(place, task)| {
                let model = Arc::clone(&model);
                async move { Ok::<_, DistillError>((place, self.answer_one(model.as_ref(), task).await?)) }
            })
            .buffer_unordered(together);
        let mut right = vec![false; self.tasks.len()];
        let (mut usage, mut times) = (Usage::default(), Vec::new());
        while let Some(answer) = answers.next().await {
            let (place, Answered { right: is_right, took, used }) = answer?;
            right[place] = is_right;
            usage.prompt_tokens += used.prompt_tokens;
            usage.completion_tokens += used.completion_tokens;
            times.push(took);
            progress.advance(1);
        }
        times.sort_unstable();
        let thousand = |all: f64| all * 1000.0 / times.len().max(1) as f64;
        let cpu_seconds_a_thousand = cost::cpu_since(cpu).map(thousand);
        let nanos = match price {
            Price::Unknown => None,
            Price::List(list, class) => Some(thousand(list.cost(usage, class).nanos() as f64)),
            Price::Hour(hour) => cpu_seconds_a_thousand.map(|seconds| hour.nanos() as f64 * seconds / 3600.0),
        };
        self.mark(column, &right);
        column.speed = Some(Speed {
            together: together as u64,
            median_ms: times.get(times.len() / 2).map(|time| time.as_secs_f64() * 1e3),
            seconds_a_thousand: Some(thousand(begun.elapsed().as_secs_f64())),
            cpu_seconds_a_thousand,
            usage,
            price_a_thousand: nanos.map(|nanos| Money::from_nanos(nanos.round() as i64)),
        });
        Ok(())
    }

    /// Writes into `column` which tasks were answered right.
    pub(crate) fn mark(&self, column: &mut Column, right: &[bool]) {
        let unit = |right: &bool| Unit { sum: f64::from(u8::from(*right)), places: 1.0 };
        column.units.tasks = right.iter().map(unit).collect();
        let units = &column.units.tasks;
        column.intervals.tasks = interval::interval(self.seed, "tasks", units.len(), |times| mean(units, times));
        let count = |all: usize| all as u64;
        column.tasks =
            Some(Tasks { right: count(right.iter().filter(|right| **right).count()), asked: count(right.len()) });
    }

    async fn answer_one(&self, model: &dyn Model, task: &Document) -> Result<Answered, DistillError> {
        let request = Request {
            sampling: Sampling { temperature: 0.0, seed: Some(0), ..Sampling::default() },
            ..Request::new(task.prompt(), self.max_tokens)
        };
        let begun = Instant::now();
        let answers = async { collect(model.generate(request).await?, 1).await };
        match answers.await {
            Ok((answers, used)) => {
                let answer = answers.first().map_or("", |answer| answer.text.as_str());
                Ok(Answered { right: task.is_right(answer).unwrap_or(false), took: begun.elapsed(), used })
            }
            // A task that does not fit the model's context is not answered right.
            Err(error) if error.fault == anbiq_model::Fault::Request => {
                Ok(Answered { right: false, took: begun.elapsed(), used: Usage::default() })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// An answer to a task.
struct Answered {
    right: bool,
    took: Duration,
    used: Usage,
}
