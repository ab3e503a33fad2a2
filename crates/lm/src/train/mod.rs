//! Training: whole sequences in, a better network out.

mod batches;
#[cfg(feature = "cuda")]
mod card;
mod checkpoint;
mod guide;
mod preference;
mod settings;
mod work;

use std::borrow::{Borrow, Cow};
use std::sync::Arc;

use crate::device::{Aim, Device};
use crate::graph;
use crate::lora::Adapter;
use crate::optimizer::{Optimizer, Settings};
use crate::score::Likeliest;
use crate::{LmError, Network};

pub use crate::graph::Measure;
pub use batches::{Member, epochs};
use guide::Guiding;
pub use guide::{Guide, HiddenStates};
pub use preference::{Pair, Preference, PreferenceReport};
pub use settings::{Config, Divergence, Hardware};
use work::{At, Engine, Job, Worker};

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
    /// How far hidden states are from a guide's, a token and pair of layers, as its measure says; 0 where there is none.
    pub states: f64,
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
    /// Whoever else holds it keeps it as it was. Where a card trains it is as it was when it was last asked for.
    network: Arc<Network>,
    config: Config,
    engine: Engine,
    steps: u64,
    adapting: Option<Adapting>,
    guiding: Option<Guiding>,
}

/// What is trained in the place of the network.
#[derive(Debug)]
struct Adapting {
    adapter: Adapter,
    /// The projections without it.
    base: Vec<f32>,
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
    /// A setting makes no sense; the hardware is not there or has too little memory.
    pub fn new(network: Network, config: Config) -> Result<Self, LmError> {
        config.check()?;
        let (size, matrices) = (network.weights.data().len(), network.weights.matrices());
        Self::begin(network, None, config, Optimizer::new(size, matrices))
    }

    /// Begins to train `adapter`, which was made for `network`; the network itself stays as it is. No gradient of the
    /// network's own weights is computed. Memory: the network, its adapted projections once more, and little besides.
    ///
    /// # Errors
    ///
    /// As [`Trainer::new`].
    pub fn with_adapter(mut network: Network, adapter: Adapter, config: Config) -> Result<Self, LmError> {
        config.check()?;
        let size = adapter.data().len();
        let base = adapter.base(&network.weights);
        adapter.apply(&base, &mut network.weights);
        let optimizer = Optimizer::new(size, std::iter::once(0..size).collect());
        Self::begin(network, Some(Adapting { adapter, base }), config, optimizer)
    }

    fn begin(
        network: Network,
        adapting: Option<Adapting>,
        config: Config,
        optimizer: Optimizer,
    ) -> Result<Self, LmError> {
        let engine = match config.device {
            Hardware::Cpu => Engine::threads(&network, optimizer, &config),
            #[cfg(feature = "cuda")]
            hardware => {
                let card = card::Card::new(hardware, &network, adapting.as_ref(), &config, &optimizer)?;
                Engine::Card(Box::new(card))
            }
            #[cfg(not(feature = "cuda"))]
            hardware => return Err(LmError::not_built_in(hardware.word())),
        };
        Ok(Self { network: Arc::new(network), config, engine, steps: 0, adapting, guiding: None })
    }

    /// Pulls hidden states to those of a guide too, in every step that learns from examples. To be called before the first step.
    ///
    /// # Errors
    ///
    /// The training is on a card, where this is not computed.
    pub fn guided(self, guide: Guide) -> Result<Self, LmError> {
        if !self.config.device.is_cpu() {
            let (name, device) = ("hidden_states", self.config.device.word());
            let problem = format!("hidden states are matched on `cpu` only, and this training is on `{device}`");
            return Err(LmError::Setting { name, problem });
        }
        Ok(Self { guiding: Some(Guiding::new(guide)), ..self })
    }

    /// The guide with its projection as it is now.
    pub fn guide(&self) -> Option<&Guide> {
        self.guiding.as_ref().map(|guiding| &guiding.guide)
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
        let rows: usize = lengths.iter().sum();
        let how = self.guide().map(Guide::how);
        let (pull, compared) = how.map_or((0.0, 1), |how| (how.weight, rows * how.layers.len()));
        let learn = Learn { batch, aim, weight, pull: (pull / compared as f64) as f32 };
        let (adapting, guiding) = (self.adapting.as_ref(), self.guiding.as_ref());
        let reported = self.engine.compute(&self.network, adapting, guiding, &lengths, &learn)?;
        let (loss, states) = (reported.loss, reported.states / compared as f64);
        let Moved { grad_norm, rate } = self.move_weights()?;
        Ok(StepReport {
            step: self.steps,
            loss: loss.mixed / loss.targets as f64 + pull * states,
            cross_entropy: loss.cross_entropy / loss.targets as f64,
            divergence: loss.divergence / loss.taught.max(1) as f64,
            states,
            tokens: loss.targets,
            rows: rows as u64,
            grad_norm,
            learning_rate: rate,
            applied: grad_norm.is_finite(),
        })
    }

    /// Moves what is trained against the sum of all gradients.
    fn move_weights(&mut self) -> Result<Moved, LmError> {
        let rate = self.config.rate(self.steps);
        let settings =
            Settings { rate, decay: self.config.weight_decay, betas: self.config.betas, clip: self.config.clip_norm };
        let grad_norm =
            self.engine.step(&mut self.network, self.adapting.as_mut(), self.guiding.as_mut(), &settings)?;
        self.steps += 1;
        Ok(Moved { grad_norm, rate })
    }

    /// The network as it is now.
    ///
    /// # Errors
    ///
    /// A card cannot give it; on the processor there are none.
    pub fn network(&mut self) -> Result<&Network, LmError> {
        self.fetch()?;
        Ok(&self.network)
    }

    /// The same, to be held while training goes on: it stays as it is now.
    ///
    /// # Errors
    ///
    /// As [`Trainer::network`].
    pub fn snapshot(&mut self) -> Result<Arc<Network>, LmError> {
        self.fetch()?;
        Ok(Arc::clone(&self.network))
    }

    /// Where a card trains: its name, the bytes of its memory that were reckoned to be enough, and the most that were taken.
    pub fn card(&self) -> Option<(&str, usize, usize)> {
        self.engine.card()
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The gradient of the last step before clipping, in the order of [`crate::Weights::data`], or of [`Adapter::data`] where
    /// an adapter is trained; zeros before the first.
    ///
    /// # Errors
    ///
    /// As [`Trainer::network`].
    pub fn gradient(&mut self) -> Result<Cow<'_, [f32]>, LmError> {
        self.engine.gradient()
    }

    /// The gradient of a guide's projection in the last step before clipping, in the order of [`Guide::projection`].
    pub fn projection_gradient(&self) -> Option<&[f32]> {
        let size = self.guide()?.projection().len();
        self.engine.projection_gradient()?.get(..size)
    }

    /// The adapter as it is now, where one is trained.
    ///
    /// # Errors
    ///
    /// As [`Trainer::network`].
    pub fn adapter(&mut self) -> Result<Option<&Adapter>, LmError> {
        self.fetch()?;
        Ok(self.adapting.as_ref().map(|adapting| &adapting.adapter))
    }

    /// The trained network; an adapter is part of it.
    ///
    /// # Errors
    ///
    /// As [`Trainer::network`].
    pub fn into_network(mut self) -> Result<Network, LmError> {
        self.fetch()?;
        Ok(Arc::unwrap_or_clone(self.network))
    }

    /// Brings back what a card has.
    fn fetch(&mut self) -> Result<(), LmError> {
        self.engine.fetch(&mut self.network, self.adapting.as_mut())
    }

    fn check(&self, index: usize, example: &Example) -> Result<(), LmError> {
        graph::check(&self.network.config, index, &example.tokens, example.first_target)?;
        if let Some(guide) = self.guide() {
            graph::check(guide.teacher(), index, &example.tokens, example.first_target)?;
        }
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

/// Learning from examples.
struct Learn<'a, E> {
    batch: &'a [E],
    aim: Aim,
    /// Of each target.
    weight: f32,
    /// Of each row and pair of layers, where hidden states are matched.
    pull: f32,
}

impl<E: Borrow<Example> + Sync> Job for Learn<'_, E> {
    fn run<D: Device>(&self, at: &At<'_, D>, worker: &mut Worker<D>, members: &[usize]) {
        let Worker { tape, keep, pack, gradient, room, pulls, loss, .. } = worker;
        pack.clear();
        for &index in members {
            let example = self.batch[index].borrow();
            pack.push(index, &example.tokens, example.first_target);
        }
        graph::forward(at.device, &at.model, pack, tape, *keep);
        if let Some(guided) = &at.guided {
            pulls.compare(at.device, &at.model, (tape, pack), guided, self.pull);
        }
        let layers = at.guided.as_ref().map_or(&[][..], |guided| guided.layers);
        graph::pick(at.device, &at.model, pack, tape);
        let teacher = |target: &graph::Target| {
            self.batch[target.sequence].borrow().teacher.as_ref().map(|places| places[target.place].as_slice())
        };
        at.into(gradient, room, |sink| {
            graph::loss(at.device, &at.model, pack, tape, teacher, &self.aim, |_| self.weight, sink);
            graph::backward(at.device, &at.model, pack, tape, sink, |layer, stream| {
                pulls.add(at.device, layers, layer, stream);
            });
        });
        loss.add(&at.device.lost(&mut tape.scratch));
    }
}
