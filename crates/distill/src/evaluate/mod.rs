//! How near the student came.

mod calibration;
mod gap;
mod interval;
mod tasks;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anbiq_lm::{Codec, Network, score};
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::data::Document;
use crate::train::Set;
use calibration::{BINS, Sure, ece};

pub use calibration::Calibration;
pub use gap::Gap;
pub use interval::Interval;
pub use tasks::{Speed, Tasks};

pub(crate) use gap::gaps;
pub(crate) use interval::{Unit, interval, mean, mean_of_all};
pub(crate) use tasks::{Price, tasks};

/// What was measured of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// `teacher`; `base`, the student before it saw any answer; `scratch`; `labels`, the student on labels alone; `student`.
    pub model: String,
    /// Its size; 0 where it is not known.
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
    pub(crate) network: Arc<Network>,
}

impl Teacher {
    /// Loads the teacher from `folder`; `None` where its tokens are not those of `codec`, since then its probabilities
    /// cannot be compared place by place.
    pub(crate) fn load(folder: &Path, codec: &Codec) -> Result<Option<Self>, DistillError> {
        let own = Codec::load(folder)?;
        let tokens = own.tokenizer.size();
        let same = tokens == codec.tokenizer.size()
            && (0..tokens as u32).all(|token| own.tokenizer.bytes(token) == codec.tokenizer.bytes(token));
        if same { Ok(Some(Self { network: Arc::new(Network::load(folder)?) })) } else { Ok(None) }
    }
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
}
