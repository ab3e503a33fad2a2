//! How near the student came.

mod calibration;
mod gap;
mod interval;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anbiq_domain::{Money, Usage};
use anbiq_lm::{Codec, Local, LocalOptions, Network, score};
use anbiq_model::{Model, Request, Sampling, collect};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::data::{Document, Lines};
use crate::progress::Progress;
use crate::train::Set;
use crate::{DistillError, cost};
use calibration::{BINS, Sure, ece};
use interval::{Unit, mean, mean_of_all};

pub use calibration::Calibration;
pub use gap::Gap;
pub use interval::Interval;

pub(crate) use gap::gaps;

/// What was measured of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// `teacher`; `base`, the student before it saw any answer; `scratch`; `labels`, the student on labels alone; `student`.
    pub model: String,
    /// Its size.
    pub parameters: u64,
    /// Loss on documents that nobody was trained on, in nats a token of the answer.
    pub held_out_loss: Option<f64>,
    /// Loss on answers of the teacher that were kept from training, in nats a token.
    pub teacher_loss: Option<f64>,
    /// How near it comes to the teacher's distribution on both.
    pub agreement: Option<Agreement>,
    /// Is it right as often as it is sure, on both?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Right answers to tasks.
    pub tasks: Option<Tasks>,
    /// How fast and at what price it answered them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// How much of each figure is the choice of what it was measured on.
    #[serde(default)]
    pub intervals: Intervals,
    /// The figures by document, answer and task.
    #[serde(skip)]
    pub(crate) units: Units,
}

/// Intervals by the bootstrap over documents, answers and tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Intervals {
    /// Of [`Column::held_out_loss`].
    pub held_out_loss: Option<Interval>,
    /// Of [`Column::teacher_loss`].
    pub teacher_loss: Option<Interval>,
    /// Of [`Agreement::kl`].
    pub kl: Option<Interval>,
    /// Of [`Agreement::top1`].
    pub top1: Option<Interval>,
    /// Of [`Tasks::share`].
    pub tasks: Option<Interval>,
}

/// Figures by unit, in an order that is the same for all models.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Units {
    held_out: Vec<Unit>,
    tasks: Vec<Unit>,
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

/// How fast and at what price a model answered the tasks, on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Most answers under way together.
    pub together: u64,
    /// Half of the answers took less than so many milliseconds, from the question to the last word, with others beside them.
    pub median_ms: f64,
    /// Seconds on the wall for a thousand answers.
    pub seconds_a_thousand: f64,
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

/// What models are measured on.
#[derive(Debug, Default)]
pub(crate) struct Measuring {
    pub(crate) held_out: Set,
    pub(crate) teacher: Set,
    pub(crate) tasks: Vec<Document>,
    pub(crate) max_tokens: u32,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
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

/// A text and the place of its first target.
type Sequence<'set> = (&'set [u32], usize);

/// What a network makes of one text.
#[derive(Debug, Clone, Default)]
struct Read {
    loss: Unit,
    sure: Sure,
}

impl Measuring {
    /// Losses, calibration and agreement of `network`.
    pub(crate) fn losses(
        &self,
        model: &str,
        network: &Network,
        teacher: Option<&Teacher>,
    ) -> Result<Column, DistillError> {
        let sequences: Vec<Sequence<'_>> =
            self.held_out.sequences().into_iter().chain(self.teacher.sequences()).collect();
        let (loss, sure): (Vec<Unit>, Vec<Sure>) =
            self.read(network, &sequences)?.into_iter().map(|read| (read.loss, read.sure)).unzip();
        let (held_out, answers) = loss.split_at(self.held_out.sequences().len());
        let interval =
            |label: &str, units: &[Unit]| interval::interval(self.seed, label, units.len(), |times| mean(units, times));
        let fits = |teacher: &&Teacher| {
            teacher.network.config.vocab_size == network.config.vocab_size
                && sequences.iter().all(|(tokens, _)| tokens.len() <= teacher.network.config.max_positions)
        };
        let (mut intervals, mut agreement) = (Intervals::default(), None);
        if let Some(teacher) = teacher.filter(fits).filter(|_| !sequences.is_empty()) {
            let (kl, same) = self.compare(&teacher.network, network, &sequences)?;
            let places = kl.iter().map(|unit| unit.places).sum::<f64>() as u64;
            agreement = mean_of_all(&kl).zip(mean_of_all(&same)).map(|(kl, top1)| Agreement { kl, top1, places });
            (intervals.kl, intervals.top1) = (interval("kl", &kl), interval("kl", &same));
        }
        intervals.held_out_loss = interval("held_out_loss", held_out);
        intervals.teacher_loss = interval("teacher_loss", answers);
        let once = vec![1; sure.len()];
        let calibration = ece(&sure, &once).map(|found| Calibration {
            ece: found,
            bins: BINS as u32,
            places: sure.iter().map(Sure::places).sum::<f64>() as u64,
            interval: interval::interval(self.seed, "calibration", sure.len(), |times| ece(&sure, times)),
        });
        Ok(Column {
            model: model.to_owned(),
            parameters: network.parameters(),
            held_out_loss: mean_of_all(held_out),
            teacher_loss: mean_of_all(answers),
            agreement,
            calibration,
            intervals,
            units: Units { held_out: held_out.to_vec(), tasks: Vec::new() },
            ..Column::default()
        })
    }

    /// The loss and the confidence of `network` at each target.
    fn read(&self, network: &Network, sequences: &[Sequence<'_>]) -> Result<Vec<Read>, DistillError> {
        let texts: Vec<Mutex<Read>> = sequences.iter().map(|_| Mutex::default()).collect();
        score::distributions(network, sequences, self.threads, &|sequence, place, logprobs| {
            let (tokens, first) = sequences[sequence];
            let target = tokens[first + place] as usize;
            let likeliest = logprobs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut text = texts[sequence].lock().unwrap_or_else(PoisonError::into_inner);
            text.loss.sum -= f64::from(logprobs[target]);
            text.loss.places += 1.0;
            text.sure.add(f64::from(likeliest).exp(), logprobs[target] >= likeliest);
        })?;
        Ok(texts.into_iter().map(|text| text.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
    }

    /// By text: KL from the teacher, and whether both find the same token likeliest.
    fn compare(
        &self,
        teacher: &Network,
        network: &Network,
        sequences: &[Sequence<'_>],
    ) -> Result<(Vec<Unit>, Vec<Unit>), DistillError> {
        let part = sequences.len().div_ceil(self.threads.max(1)).max(1);
        let each = |part: &[Sequence<'_>]| -> Result<Vec<score::Agreement>, DistillError> {
            part.iter().map(|&sequence| Ok(score::compare(teacher, network, &[sequence], 1)?)).collect()
        };
        let found = std::thread::scope(|scope| {
            let parts: Vec<_> = sequences.chunks(part).map(|part| scope.spawn(move || each(part))).collect();
            let joined = |part: std::thread::ScopedJoinHandle<'_, _>| {
                part.join().map_err(|_| DistillError::Interrupted("a comparison ended in a panic".to_owned()))?
            };
            parts.into_iter().map(joined).collect::<Result<Vec<Vec<score::Agreement>>, DistillError>>()
        })?;
        let unit = |mean: f64, places: u64| Unit { sum: mean * places as f64, places: places as f64 };
        let texts = found.into_iter().flatten();
        Ok(texts.map(|text| (unit(text.kl, text.positions), unit(text.top1, text.positions))).unzip())
    }

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
        column.units.tasks = vec![Unit::default(); self.tasks.len()];
        let (mut tasks, mut usage, mut times) = (Tasks::default(), Usage::default(), Vec::new());
        while let Some(answer) = answers.next().await {
            let (place, Answered { right, took, used }) = answer?;
            column.units.tasks[place] = Unit { sum: f64::from(u8::from(right)), places: 1.0 };
            tasks.right += u64::from(right);
            tasks.asked += 1;
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
        column.speed = Some(Speed {
            together: together as u64,
            median_ms: times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3),
            seconds_a_thousand: thousand(begun.elapsed().as_secs_f64()),
            cpu_seconds_a_thousand,
            usage,
            price_a_thousand: nanos.map(|nanos| Money::from_nanos(nanos.round() as i64)),
        });
        let units = &column.units.tasks;
        column.intervals.tasks = interval::interval(self.seed, "tasks", units.len(), |times| mean(units, times));
        column.tasks = Some(tasks);
        Ok(())
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
