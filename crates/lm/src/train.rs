//! Training: whole sequences in, a better network out.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::f64::consts::PI;

use anbiq_domain::Seeded;

use crate::graph::{self, Aim, Loss, Pack, Tape};
use crate::lora::Adapter;
use crate::optimizer::{Optimizer, Settings, side_by_side};
use crate::score::Likeliest;
use crate::{LmError, Network, Weights, kernel};

/// Rows that pass through the network together. Measured on two cores: fewer make the gradient buffers travel through
/// memory more often, more push the activations out of the cache.
const ROWS: usize = 512;

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
}

/// How far a student is from its teacher at one place, P being the teacher's distribution and Q the student's.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Divergence {
    /// KL(P || Q): the student must give mass to all that the teacher gives mass to (Hinton et al. 2015).
    #[default]
    ForwardKl,
    /// KL(Q || P): the student must not say what the teacher would not (Gu et al. 2024, MiniLLM).
    ReverseKl,
    /// `beta KL(P || M) + (1 - beta) KL(Q || M)` with `M = beta P + (1 - beta) Q` (Agarwal et al. 2024, GKD). Divided by
    /// `beta` it approaches the forward divergence as that goes to 0, divided by `1 - beta` the reverse as it goes to 1.
    JensenShannon {
        /// Between 0 and 1.
        beta: f64,
    },
    /// `KL(P || alpha P + (1 - alpha) Q)`, whose gradient stays small where Q is (Ko et al. 2024, DistiLLM).
    SkewKl {
        /// From 0, the forward divergence, to below 1.
        alpha: f64,
    },
    /// `KL(Q || (1 - alpha) P + alpha Q)` (Ko et al. 2024, DistiLLM).
    SkewReverseKl {
        /// From 0, the reverse divergence, to below 1.
        alpha: f64,
    },
    /// Half the sum of all differences (Wen et al. 2023).
    TotalVariation,
}

impl Divergence {
    fn check(self) -> Result<(), LmError> {
        let (name, number, good) = match self {
            Self::JensenShannon { beta } => ("beta", beta, beta > 0.0 && beta < 1.0),
            Self::SkewKl { alpha } | Self::SkewReverseKl { alpha } => ("alpha", alpha, (0.0..1.0).contains(&alpha)),
            Self::ForwardKl | Self::ReverseKl | Self::TotalVariation => return Ok(()),
        };
        if good {
            return Ok(());
        }
        let range = if name == "beta" { "above 0 and below 1" } else { "at least 0 and below 1" };
        Err(LmError::Setting { name, problem: format!("{number} is not {range}") })
    }
}

/// How to train.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: u64,
    /// The step at which the learning rate has fallen, along a cosine, to a tenth.
    pub total_steps: u64,
    /// How fast matrices are pulled towards zero.
    pub weight_decay: f64,
    /// How much of the first and second moment is kept at each step.
    pub betas: (f64, f64),
    /// Longest gradient.
    pub clip_norm: f64,
    /// Tokens a step, about: what [`epochs`] packs.
    pub batch_tokens: usize,
    /// How much of the loss is divergence from the teacher where it is known, 0 to 1; the rest is cross-entropy.
    pub kl_weight: f64,
    /// Which divergence.
    pub divergence: Divergence,
    /// Both distributions are taken to the power of one over it before they are compared, and the divergence is
    /// multiplied by its square. Where the teacher does not name every token the others count as one.
    pub temperature: f64,
    /// Threads. The same number of threads gives the same bits.
    pub threads: usize,
    /// Shuffles the examples.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            learning_rate: 2e-3,
            warmup_steps: 50,
            total_steps: 1000,
            weight_decay: 0.05,
            betas: (0.9, 0.98),
            clip_norm: 1.0,
            batch_tokens: 2048,
            kl_weight: 0.5,
            divergence: Divergence::default(),
            temperature: 1.0,
            threads: 1,
            seed: 0,
        }
    }
}

impl Config {
    /// The learning rate of step `step`, counted from 0: linear warm-up, then a cosine down to a tenth
    /// (Loshchilov and Hutter 2017).
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        self.learning_rate * (0.1 + 0.45 * (1.0 + (PI * done).cos()))
    }

    fn check(&self) -> Result<(), LmError> {
        let wrong = |name, problem: String| Err(LmError::Setting { name, problem });
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.learning_rate) {
            return wrong("learning_rate", format!("{} is not positive", self.learning_rate));
        }
        if !self.weight_decay.is_finite() || self.weight_decay < 0.0 {
            return wrong("weight_decay", format!("{} is negative", self.weight_decay));
        }
        if ![self.betas.0, self.betas.1].iter().all(|beta| (0.0..1.0).contains(beta)) {
            return wrong("betas", format!("{:?} are not both at least 0 and below 1", self.betas));
        }
        if !positive(self.clip_norm) {
            return wrong("clip_norm", format!("{} is not positive", self.clip_norm));
        }
        if !(0.0..=1.0).contains(&self.kl_weight) {
            return wrong("kl_weight", format!("{} is not between 0 and 1", self.kl_weight));
        }
        self.divergence.check()?;
        if !positive(self.temperature) {
            return wrong("temperature", format!("{} is not positive", self.temperature));
        }
        if !(1..=1024).contains(&self.threads) {
            return wrong("threads", format!("{} is not between 1 and 1024", self.threads));
        }
        Ok(())
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
    network: Network,
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
    gradient: Vec<f32>,
}

/// What one thread owns: nothing is shared while gradients are computed.
#[derive(Debug)]
struct Worker {
    tape: Tape,
    pack: Pack,
    gradient: Weights,
    loss: Loss,
}

impl Trainer {
    /// Begins to train `network`. Memory: four times the network, and once more for every thread beyond the first.
    ///
    /// # Errors
    ///
    /// A setting makes no sense.
    pub fn new(network: Network, config: Config) -> Result<Self, LmError> {
        config.check()?;
        let worker = || Worker {
            tape: Tape::new(&network.config),
            pack: Pack::default(),
            gradient: network.weights.zeros_like(),
            loss: Loss::default(),
        };
        let workers = (0..config.threads).map(|_| worker()).collect();
        let weights = &network.weights;
        let optimizer = Optimizer::new(weights.data().len(), weights.matrices());
        Ok(Self { network, config, optimizer, workers, steps: 0, adapting: None })
    }

    /// Begins to train `adapter`, which was made for `network`; the network itself stays as it is. The gradient of the
    /// whole network is computed all the same and turned into the adapter's, so that of the memory of [`Trainer::new`]
    /// the moments are spared, and of the time little.
    ///
    /// # Errors
    ///
    /// A setting makes no sense.
    pub fn with_adapter(mut network: Network, adapter: Adapter, config: Config) -> Result<Self, LmError> {
        let base = adapter.base(&network.weights);
        adapter.apply(&base, &mut network.weights);
        let size = adapter.data().len();
        let mut trainer = Self::new(network, config)?;
        trainer.optimizer = Optimizer::new(size, std::iter::once(0..size).collect());
        trainer.adapting = Some(Adapting { gradient: vec![0.0; size], adapter, base });
        Ok(trainer)
    }

    /// One step of AdamW on the mean loss over the targets of `batch`.
    ///
    /// # Errors
    ///
    /// The batch is empty, or an example is too long, holds an unknown token, or its teacher does not fit it; nothing is
    /// changed then.
    pub fn step<E: Borrow<Example> + Sync>(&mut self, batch: &[E]) -> Result<StepReport, LmError> {
        for (index, example) in batch.iter().enumerate() {
            self.check(index, example.borrow())?;
        }
        let targets: usize = batch.iter().map(|example| example.borrow().targets()).sum();
        if targets == 0 {
            return Err(LmError::Sequence { index: 0, problem: "the batch is empty".into() });
        }
        let packs = balance(batch, self.config.threads);
        let (network, config) = (&self.network, &self.config);
        let aim =
            Aim { share: config.kl_weight as f32, divergence: config.divergence, temperature: config.temperature };
        let weight = 1.0 / targets as f32;
        // Which thread computes what is fixed beforehand: sums in another order would be other sums.
        let threads = self.workers.len();
        side_by_side(self.workers.iter_mut().enumerate(), |(thread, worker)| {
            worker.begin();
            for pack in packs.iter().skip(thread).step_by(threads) {
                worker.learn(network, batch, pack, &aim, weight);
            }
        });
        let mut loss = Loss::default();
        for worker in &self.workers {
            loss.add(&worker.loss);
        }
        let rate = self.config.rate(self.steps);
        let settings =
            Settings { rate, decay: self.config.weight_decay, betas: self.config.betas, clip: self.config.clip_norm };
        let workers = self.workers.iter_mut();
        let mut gradients: Vec<&mut [f32]> = workers.map(|worker| worker.gradient.data_mut()).collect();
        let weights = &mut self.network.weights;
        let grad_norm = match &mut self.adapting {
            None => self.optimizer.step(weights.data_mut(), &mut gradients, &settings),
            Some(Adapting { adapter, base, gradient }) => {
                if let Some((sum, others)) = gradients.split_first_mut() {
                    others.iter().for_each(|other| kernel::add(sum, other));
                    adapter.gradient(sum, gradient);
                }
                let norm = self.optimizer.step(adapter.data_mut(), &mut [gradient], &settings);
                adapter.apply(base, weights);
                norm
            }
        };
        self.steps += 1;
        Ok(StepReport {
            step: self.steps,
            loss: loss.mixed / loss.targets as f64,
            cross_entropy: loss.cross_entropy / loss.targets as f64,
            divergence: loss.divergence / loss.taught.max(1) as f64,
            tokens: loss.targets,
            rows: batch.iter().map(|example| example.borrow().tokens.len() as u64 - 1).sum(),
            grad_norm,
            learning_rate: rate,
            applied: grad_norm.is_finite(),
        })
    }

    /// The network as it is now.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The gradient of the last step before clipping, in the order of [`Weights::data`]; zeros before the first.
    pub fn gradient(&self) -> &[f32] {
        self.workers.first().map_or(&[], |worker| worker.gradient.data())
    }

    /// The adapter as it is now, where one is trained.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapting.as_ref().map(|adapting| &adapting.adapter)
    }

    /// The gradient of the adapter in the last step before clipping, in the order of [`Adapter::data`].
    pub fn adapter_gradient(&self) -> &[f32] {
        self.adapting.as_ref().map_or(&[], |adapting| &adapting.gradient)
    }

    /// The trained network; an adapter is part of it.
    pub fn into_network(self) -> Network {
        self.network
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

impl Worker {
    fn begin(&mut self) {
        self.gradient.data_mut().fill(0.0);
        self.loss = Loss::default();
    }

    fn learn<E: Borrow<Example>>(&mut self, network: &Network, batch: &[E], pack: &[usize], aim: &Aim, weight: f32) {
        self.pack.clear();
        for &index in pack {
            let example = batch[index].borrow();
            self.pack.push(index, &example.tokens, example.first_target);
        }
        let Self { tape, pack, gradient, loss } = self;
        graph::forward(network, pack, tape, true);
        graph::pick(network, pack, tape);
        let teacher = |target: &graph::Target| {
            batch[target.sequence].borrow().teacher.as_ref().map(|places| places[target.place].as_slice())
        };
        loss.add(&graph::loss(network, pack, tape, teacher, aim, weight, gradient));
        graph::backward(network, pack, tape, gradient);
    }
}

/// Shuffles the examples anew for each of `epochs` and packs them into batches of about `batch_tokens` tokens, a whole
/// number of examples each.
pub fn epochs(examples: &[Example], epochs: u32, batch_tokens: usize, seed: u64) -> Vec<Vec<&Example>> {
    let mut random = Seeded::new(seed).fork("epochs");
    let mut order: Vec<&Example> = examples.iter().collect();
    let mut batches = Vec::new();
    for _ in 0..epochs {
        random.shuffle(&mut order);
        let mut batch: Vec<&Example> = Vec::new();
        let mut tokens = 0;
        for &example in &order {
            if !batch.is_empty() && tokens + example.tokens.len() / 2 > batch_tokens {
                batches.push(std::mem::take(&mut batch));
                tokens = 0;
            }
            tokens += example.tokens.len();
            batch.push(example);
        }
        batches.extend((!batch.is_empty()).then_some(batch));
    }
    batches
}

/// Distributes a batch over packs of about [`ROWS`] rows, evenly over the threads: the longest first, each to the
/// lightest pack (Graham 1969).
fn balance<E: Borrow<Example>>(batch: &[E], threads: usize) -> Vec<Vec<usize>> {
    let length = |index: usize| batch[index].borrow().tokens.len() - 1;
    let rows: usize = (0..batch.len()).map(length).sum();
    let count = rows.div_ceil(ROWS).next_multiple_of(threads).min(batch.len());
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&index| (Reverse(length(index)), index));
    let mut packs = vec![(0, Vec::new()); count];
    for index in order {
        if let Some(lightest) = packs.iter_mut().min_by_key(|(rows, _)| *rows) {
            lightest.0 += length(index);
            lightest.1.push(index);
        }
    }
    packs.into_iter().map(|(_, pack)| pack).collect()
}
