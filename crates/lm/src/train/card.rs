//! Training on a card: weights, gradients and moments stay there, and come back when somebody asks for them.

use std::sync::Arc;

use super::batches::balance;
use super::work::{At, Job, Reported, State, Worker};
use super::{Adapting, Config, Hardware, Network};
use crate::LmError;
use crate::device::{Cuda, Device, Memory, Moments, Stretch};
use crate::graph::Model;
use crate::lora::Adapter;
use crate::optimizer::{Optimizer, Settings};

/// What a card has of a training.
#[derive(Debug)]
pub(super) struct Card {
    worker: Worker<Cuda>,
    weights: Memory,
    /// Where an adapter is trained: its numbers, and the projections without it.
    adapter: Memory,
    base: Memory,
    moments: Moments,
    /// Was anything moved since it was fetched?
    ahead: bool,
    needs: usize,
    // Last, so that it is closed after what lies on it.
    device: Cuda,
}

impl Card {
    /// Opens the card and takes the network there, unless it has too little memory.
    pub(super) fn new(
        hardware: Hardware,
        network: &Network,
        adapting: Option<&Adapting>,
        config: &Config,
        optimizer: &Optimizer,
    ) -> Result<Self, LmError> {
        let device = Cuda::open(hardware, &network.config)?;
        let needs = needs(&device, network, adapting, config, optimizer.size());
        let (free, all) = device.memory()?;
        let (name, gigabytes) = (device.name(), |bytes: usize| bytes as f64 / 1e9);
        let said = format!(
            "{name}: training takes about {:.2} GB of its {:.2} GB, of which {:.2} GB are free",
            gigabytes(needs),
            gigabytes(all),
            gigabytes(free)
        );
        if needs > free {
            let hint = "take a smaller `batch_tokens`, an adapter (`[train.lora]`), a larger card, or device = \"cpu\"";
            return Err(LmError::Device { device: hardware.word(), problem: said, hint });
        }
        tracing::info!("{said}");
        let worker = Worker::new(&device, network, optimizer.size(), config.keep());
        let moments = Moments::new(&device, optimizer);
        let mut card = Self {
            worker,
            weights: Memory::default(),
            adapter: Memory::default(),
            base: Memory::default(),
            moments,
            ahead: false,
            needs,
            device,
        };
        card.send(network, adapting);
        card.device.fault()?;
        Ok(card)
    }

    fn send(&mut self, network: &Network, adapting: Option<&Adapting>) {
        let Self { device, weights, adapter, base, .. } = self;
        let put = |numbers: &[f32], to: &mut Memory| device.put(numbers, device.room(to, numbers.len()));
        put(network.weights.data(), weights);
        if let Some(adapting) = adapting {
            put(adapting.adapter.data(), adapter);
            put(&adapting.base, base);
        }
    }

    pub(super) fn compute(
        &mut self,
        network: &Network,
        adapting: Option<&Adapting>,
        lengths: &[usize],
        job: &impl Job,
    ) -> Result<Reported, LmError> {
        let Self { worker, weights, adapter, device, .. } = self;
        let numbers = adapting.map(|adapting| (&adapting.adapter, adapter.part(0..adapting.adapter.data().len())));
        let model = Model::<Cuda>::new(&network.config, network.weights.layout(), weights);
        let at = At { device: &*device, model, adapter: numbers, guided: None };
        worker.begin(device, 0);
        for pack in balance(lengths, 1, device.pack_rows()) {
            job.run(&at, worker, &pack);
        }
        device.fault()?;
        Ok(Reported { loss: worker.loss, sums: worker.sums, states: 0.0 })
    }

    pub(super) fn step(&mut self, adapted: Option<&Adapter>, settings: &Settings) -> Result<f64, LmError> {
        let Self { worker, weights, adapter, base, moments, device, .. } = self;
        self.ahead = true;
        let Some(adapted) = adapted else { return moments.step(device, weights, &worker.gradient, settings) };
        let norm = moments.step(device, adapter, &worker.gradient, settings)?;
        adapted.apply_on(device, adapter, base, weights);
        Ok(norm)
    }

    pub(super) fn fetch(&mut self, network: &mut Arc<Network>, adapting: Option<&mut Adapting>) -> Result<(), LmError> {
        if !self.ahead {
            return Ok(());
        }
        self.device.fetch(&self.weights, Arc::make_mut(network).weights.data_mut())?;
        if let Some(adapting) = adapting {
            self.device.fetch(&self.adapter, adapting.adapter.data_mut())?;
        }
        self.ahead = false;
        Ok(())
    }

    pub(super) fn gradient(&self) -> Result<Vec<f32>, LmError> {
        let mut gradient = vec![0.0; self.worker.size()];
        self.device.fetch(&self.worker.gradient, &mut gradient)?;
        Ok(gradient)
    }

    pub(super) fn state(&self) -> Result<State<'_>, LmError> {
        let (moves, first, second) = self.moments.state(&self.device)?;
        Ok((moves, first.into(), second.into()))
    }

    pub(super) fn set_state(
        &mut self,
        network: &Network,
        adapting: Option<&Adapting>,
        (moves, first, second): (i32, &[f32], &[f32]),
    ) -> Result<(), LmError> {
        self.send(network, adapting);
        self.moments.set_state(&self.device, moves, first, second);
        self.ahead = false;
        self.device.fault()
    }

    /// Its name, the bytes that were reckoned beforehand, and the most that were taken.
    pub(super) fn memory(&self) -> (&str, usize, usize) {
        (self.device.name(), self.needs, self.device.peak())
    }
}

/// Bytes that training takes at most, where no sequence is longer than a step.
fn needs(device: &Cuda, network: &Network, adapting: Option<&Adapting>, config: &Config, trained: usize) -> usize {
    let shape = &network.config;
    let (d, ffn, queries) = (shape.hidden_size, shape.intermediate_size, shape.query_size());
    let (step, turned) = (queries + 2 * shape.kv_size(), shape.heads + shape.kv_heads);
    // A step takes members until it is full, so it may be half a member longer.
    let rows = device.pack_rows().min(config.batch_tokens + config.batch_tokens / 2);
    let plain = if shape.qk_norm() { turned * (shape.head_dim + 1) } else { 0 };
    let layer = d + 2 + step + plain + queries + shape.heads + 2 * ffn;
    let slots = if config.activation_checkpointing { 1 } else { shape.layers };
    let row = shape.layers * d + slots * layer + 6 * d + ffn + queries + step + shape.heads + 16;
    let logits = device.logit_rows(shape.vocab_size).min(rows) * shape.vocab_size;
    let base = adapting.map_or(0, |adapting| adapting.base.len() + trained);
    let numbers = network.weights.data().len() + base + 3 * trained + rows * row + logits;
    // What cuBLAS keeps for itself.
    4 * numbers + (64 << 20)
}
