//! Training: whole sequences in, a better network out.

mod batches;
mod checkpoint;
mod preference;
mod settings;

use std::borrow::Borrow;
use std::sync::Arc;

use crate::graph::{self, Aim, Loss, Pack, Sink, Tape};
use crate::lora::Adapter;
use crate::optimizer::{Optimizer, Settings, side_by_side};
use crate::score::Likeliest;
use crate::{LmError, Network, Weights};

use batches::balance;
pub use batches::{Member, epochs};
use preference::Sums;
pub use preference::{Pair, Preference, PreferenceReport};
pub use settings::{Config, Divergence};

/// One sequence to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The tokens: prompt and answer.
    pub tokens: Vec<u32>,
    /// The loss counts on `tokens[first_target..]`; at least 1, since the first token follows nothing.
    pub first_target: usize,
    /// For each of those tokens the teacher's likeliest tokens at its place with their log-probabilities; where the list
    /// of a place is empty only the token itself counts.
    pub teacher: Option<Vec<Likeliest>>,
}

impl Example {
    /// How many tokens the loss counts on.
    pub fn targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.first_target)
    }

    /// How many tokens pass through the network: the last one is only predicted.
    fn rows(&self) -> usize {
        self.tokens.len().saturating_sub(1)
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct StepReport {
    /// Counted from 1.
    pub step: u64,
    /// What was minimised, a target.
    pub loss: f64,
    /// Cross-entropy, a target, in nats.
    pub cross_entropy: f64,
    /// Divergence from the teacher, a target that has one, in nats; 0 where none has.
    pub divergence: f64,
    /// Tokens that the loss counted on.
    pub tokens: u64,
    /// Tokens that passed through the network.
    pub rows: u64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// False where the gradient was not finite; the network was then left as it was.
    pub applied: bool,
}

/// A network under training.
#[derive(Debug)]
pub struct Trainer {
    /// Whoever else holds it keeps it as it was.
    network: Arc<Network>,
    config: Config,
    optimizer: Optimizer,
    workers: Vec<Worker>,
    steps: u64,
    adapting: Option<Adapting>,
}

/// What is trained in the place of the network.
#[derive(Debug)]
struct Adapting {
    adapter: Adapter,
    /// The projections without it.
    base: Vec<f32>,
}

/// What one thread owns: nothing is shared while gradients are computed.
#[derive(Debug)]
struct Worker {
    tape: Tape,
    pack: Pack,
    gradient: Gradient,
    loss: Loss,
    sums: Sums,
}

/// The gradient of what is trained.
#[derive(Debug)]
enum Gradient {
    /// Of every weight.
    Whole(Weights),
    /// Of the adapter's numbers, and room for what is computed on the way.
    Low(Vec<f32>, Vec<f32>),
}

/// What a step left to report.
struct Moved {
    grad_norm: f64,
    rate: f64,
}

impl Trainer {
    /// Begins to train `network`. Memory: four times the network, and once more for every thread beyond the first.
    ///
    /// # Errors
    ///
    /// A setting makes no sense.
    pub fn new(network: Network, config: Config) -> Result<Self, LmError> {
        let weights = &network.weights;
        let optimizer = Optimizer::new(weights.data().len(), weights.matrices());
        let gradient = || Gradient::Whole(weights.zeros_like());
        let workers = workers(&network, &config, gradient)?;
        Ok(Self { network: Arc::new(network), config, optimizer, workers, steps: 0, adapting: None })
    }

    /// Begins to train `adapter`, which was made for `network`; the network itself stays as it is. No gradient of the
    /// network's own weights is computed. Memory: the network, its adapted projections once more, and little besides.
    ///
    /// # Errors
    ///
    /// A setting makes no sense.
    pub fn with_adapter(mut network: Network, adapter: Adapter, config: Config) -> Result<Self, LmError> {
        let size = adapter.data().len();
        let workers = workers(&network, &config, || Gradient::Low(vec![0.0; size], Vec::new()))?;
        let base = adapter.base(&network.weights);
        adapter.apply(&base, &mut network.weights);
        let optimizer = Optimizer::new(size, std::iter::once(0..size).collect());
        let adapting = Some(Adapting { adapter, base });
        Ok(Self { network: Arc::new(network), config, optimizer, workers, steps: 0, adapting })
    }

    /// One step of AdamW on the mean loss over the targets of `batch`.
    ///
    /// # Errors
    ///
    /// The batch is empty, or an example is too long, holds an unknown token, or its teacher does not fit it; nothing is
    /// changed then.
    pub fn step<E: Borrow<Example> + Sync>(&mut self, batch: &[E]) -> Result<StepReport, LmError> {
        self.step_towards(batch, self.config.kl_weight)
    }

    /// As [`Trainer::step`], with `kl_weight` in the place of the configured one: all of the loss is divergence where the
    /// student's own samples are judged, since its own tokens are no target.
    ///
    /// # Errors
    ///
    /// As [`Trainer::step`].
    pub fn step_towards<E: Borrow<Example> + Sync>(
        &mut self,
        batch: &[E],
        kl_weight: f64,
    ) -> Result<StepReport, LmError> {
        for (index, example) in batch.iter().enumerate() {
            self.check(index, example.borrow())?;
        }
        let targets: usize = batch.iter().map(|example| example.borrow().targets()).sum();
        if targets == 0 {
            return Err(LmError::Sequence { index: 0, problem: "the batch is empty".into() });
        }
        let lengths: Vec<usize> = batch.iter().map(|example| example.borrow().rows()).collect();
        let Config { divergence, temperature, .. } = self.config;
        let aim = Aim { share: kl_weight as f32, divergence, temperature };
        let weight = 1.0 / targets as f32;
        self.compute(&lengths, |worker, network, adapter, members| {
            worker.learn(network, adapter, batch, members, &aim, weight);
        });
        let mut loss = Loss::default();
        for worker in &self.workers {
            loss.add(&worker.loss);
        }
        let Moved { grad_norm, rate } = self.move_weights();
        Ok(StepReport {
            step: self.steps,
            loss: loss.mixed / loss.targets as f64,
            cross_entropy: loss.cross_entropy / loss.targets as f64,
            divergence: loss.divergence / loss.taught.max(1) as f64,
            tokens: loss.targets,
            rows: lengths.iter().sum::<usize>() as u64,
            grad_norm,
            learning_rate: rate,
            applied: grad_norm.is_finite(),
        })
    }

    /// Lets every thread do `job` with its packs of the members of a batch, whose rows are `lengths`. Which thread computes
    /// what is fixed beforehand: sums in another order would be other sums.
    fn compute(
        &mut self,
        lengths: &[usize],
        job: impl Fn(&mut Worker, &Network, Option<&Adapter>, &[usize]) + Sync + Send + Copy,
    ) {
        let threads = self.workers.len();
        let packs = balance(lengths, threads);
        let network = &self.network;
        let adapter = self.adapting.as_ref().map(|adapting| &adapting.adapter);
        side_by_side(self.workers.iter_mut().enumerate(), |(thread, worker)| {
            worker.begin();
            for pack in packs.iter().skip(thread).step_by(threads) {
                job(worker, network, adapter, pack);
            }
        });
    }

    /// Moves what is trained against the sum of all threads' gradients.
    fn move_weights(&mut self) -> Moved {
        let rate = self.config.rate(self.steps);
        let settings =
            Settings { rate, decay: self.config.weight_decay, betas: self.config.betas, clip: self.config.clip_norm };
        let mut gradients: Vec<&mut [f32]> = self.workers.iter_mut().map(|worker| worker.gradient.data_mut()).collect();
        let weights = &mut Arc::make_mut(&mut self.network).weights;
        let grad_norm = match &mut self.adapting {
            None => self.optimizer.step(weights.data_mut(), &mut gradients, &settings),
            Some(Adapting { adapter, base }) => {
                let norm = self.optimizer.step(adapter.data_mut(), &mut gradients, &settings);
                adapter.apply(base, weights);
                norm
            }
        };
        self.steps += 1;
        Moved { grad_norm, rate }
    }

    /// The network as it is now.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The same, to be held while training goes on: it stays as it is now.
    pub fn snapshot(&self) -> Arc<Network> {
        Arc::clone(&self.network)
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The gradient of the last step before clipping, in the order of [`Weights::data`], or of [`Adapter::data`] where an
    /// adapter is trained; zeros before the first.
    pub fn gradient(&self) -> &[f32] {
        self.workers.first().map_or(&[], |worker| worker.gradient.data())
    }

    /// The adapter as it is now, where one is trained.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapting.as_ref().map(|adapting| &adapting.adapter)
    }

    /// The trained network; an adapter is part of it.
    pub fn into_network(self) -> Network {
        Arc::unwrap_or_clone(self.network)
    }

    fn check(&self, index: usize, example: &Example) -> Result<(), LmError> {
        graph::check(&self.network.config, index, &example.tokens, example.first_target)?;
        let Some(teacher) = &example.teacher else { return Ok(()) };
        let wrong = |problem: String| Err(LmError::Sequence { index, problem });
        if teacher.len() != example.targets() {
            return wrong(format!("its teacher speaks of {} places, not of {}", teacher.len(), example.targets()));
        }
        for place in teacher {
            for (at, &(token, logprob)) in place.iter().enumerate() {
                if token as usize >= self.network.config.vocab_size {
                    return wrong(format!("its teacher's token {token} is not in the vocabulary"));
                }
                // A little above 0 is rounding.
                if logprob.is_nan() || logprob > 1e-3 {
                    return wrong(format!("its teacher's log-probability {logprob} is not at most 0"));
                }
                if place[..at].iter().any(|&(other, _)| other == token) {
                    return wrong(format!("its teacher names token {token} twice at one place"));
                }
            }
        }
        Ok(())
    }
}

/// One for each thread.
fn workers(network: &Network, config: &Config, gradient: impl Fn() -> Gradient) -> Result<Vec<Worker>, LmError> {
    config.check()?;
    let worker = |_| Worker {
        tape: Tape::new(&network.config),
        pack: Pack::default(),
        gradient: gradient(),
        loss: Loss::default(),
        sums: Sums::default(),
    };
    Ok((0..config.threads).map(worker).collect())
}

impl Gradient {
    fn data(&self) -> &[f32] {
        match self {
            Self::Whole(weights) => weights.data(),
            Self::Low(numbers, _) => numbers,
        }
    }

    fn data_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Whole(weights) => weights.data_mut(),
            Self::Low(numbers, _) => numbers,
        }
    }
}

impl Worker {
    fn begin(&mut self) {
        self.gradient.data_mut().fill(0.0);
        self.loss = Loss::default();
        self.sums = Sums::default();
    }

    fn learn<E: Borrow<Example>>(
        &mut self,
        network: &Network,
        adapter: Option<&Adapter>,
        batch: &[E],
        members: &[usize],
        aim: &Aim,
        weight: f32,
    ) {
        self.pack.clear();
        for &index in members {
            let example = batch[index].borrow();
            self.pack.push(index, &example.tokens, example.first_target);
        }
        let Self { tape, pack, gradient, loss, .. } = self;
        graph::forward(network, pack, tape, true);
        graph::pick(network, pack, tape);
        let teacher = |target: &graph::Target| {
            batch[target.sequence].borrow().teacher.as_ref().map(|places| places[target.place].as_slice())
        };
        gradient.with(adapter, |sink| {
            loss.add(&graph::loss(network, pack, tape, teacher, aim, |_| weight, sink));
            graph::backward(network, pack, tape, sink);
        });
    }
}

impl Gradient {
    /// Calls `job` with what takes the gradients of the weights.
    fn with(&mut self, adapter: Option<&Adapter>, job: impl FnOnce(&mut dyn Sink)) {
        match (self, adapter) {
            (Self::Low(numbers, room), Some(adapter)) => job(&mut adapter.sink(numbers, room)),
            (Self::Whole(weights), _) => job(weights),
            // An adapter's gradient is only made where there is an adapter.
            (Self::Low(..), None) => {}
        }
    }
}
