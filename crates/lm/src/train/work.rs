//! What computes gradients and moves what is trained: threads of the processor, or a card.

use crate::LmError;
use crate::device::{Cpu, Device, Loss, Stretch};
use crate::graph::{Guided, Keep, Model, Pack, Pulls, Sink, Tape, Whole};
use crate::lora::Adapter;
use crate::optimizer::{Optimizer, Settings, side_by_side};

use super::batches::balance;
#[cfg(feature = "cuda")]
use super::card::Card;
use super::guide::Guiding;
use super::preference::Sums;
use super::{Adapting, Config, Network};

/// What is trained, where it is computed.
pub(super) struct At<'a, D: Device> {
    pub(super) device: &'a D,
    pub(super) model: Model<'a, D>,
    /// The adapter that is trained in the place of the network, and its numbers on the device.
    pub(super) adapter: Option<(&'a Adapter, &'a D::Slice)>,
    /// A teacher whose hidden states are matched.
    pub(super) guided: Option<Guided<'a, D>>,
}

/// What a worker does with a pack of the members of a batch.
pub(super) trait Job: Sync {
    fn run<D: Device>(&self, at: &At<'_, D>, worker: &mut Worker<D>, members: &[usize]);
}

/// What one thread owns: nothing is shared while gradients are computed.
#[derive(Debug)]
pub(super) struct Worker<D: Device> {
    pub(super) tape: Tape<D>,
    /// What passes keep for the way back.
    pub(super) keep: Keep,
    pub(super) pack: Pack,
    /// Of every weight, or of the adapter's numbers.
    pub(super) gradient: D::Buffer,
    size: usize,
    /// Room for what an adapter's gradient needs.
    pub(super) room: D::Buffer,
    pub(super) pulls: Pulls<D>,
    pub(super) loss: Loss,
    pub(super) sums: Sums,
}

impl<D: Device> Worker<D> {
    /// For a gradient of `size` numbers.
    pub(super) fn new(device: &D, network: &Network, size: usize, keep: Keep) -> Self {
        let mut gradient = D::Buffer::default();
        device.clear(device.room(&mut gradient, size));
        Self {
            tape: Tape::new(&network.config),
            keep,
            pack: Pack::default(),
            gradient,
            size,
            room: D::Buffer::default(),
            pulls: Pulls::default(),
            loss: Loss::default(),
            sums: Sums::default(),
        }
    }

    /// Numbers of its gradient.
    #[cfg(feature = "cuda")]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Begins a batch; `projection` is how many numbers a guide's projection has.
    pub(super) fn begin(&mut self, device: &D, projection: usize) {
        device.clear(self.gradient.part_mut(0..self.size));
        self.pulls.begin(device, projection);
        self.loss = Loss::default();
        self.sums = Sums::default();
    }
}

impl<D: Device> At<'_, D> {
    /// Calls `job` with what takes the gradients of the weights.
    pub(super) fn into(&self, gradient: &mut D::Slice, room: &mut D::Buffer, job: impl FnOnce(&mut dyn Sink<D>)) {
        match self.adapter {
            Some((adapter, numbers)) => job(&mut adapter.sink(self.device, numbers, gradient, room)),
            None => job(&mut Whole { device: self.device, layout: self.model.layout(), data: gradient }),
        }
    }
}

/// What a batch left to report.
#[derive(Debug, Default)]
pub(super) struct Reported {
    pub(super) loss: Loss,
    pub(super) sums: Sums,
    /// Sum of how far hidden states are from a guide's, over rows and pairs of layers.
    pub(super) states: f64,
}

#[derive(Debug)]
pub(super) enum Engine {
    Threads {
        workers: Vec<Worker<Cpu>>,
        optimizer: Optimizer,
    },
    #[cfg(feature = "cuda")]
    Card(Box<Card>),
}

/// The optimiser's memory: how often it moved, and both moments.
pub(super) type State<'a> = (i32, std::borrow::Cow<'a, [f32]>, std::borrow::Cow<'a, [f32]>);

impl Engine {
    /// As many threads as `config` says, for the numbers of `optimizer`.
    pub(super) fn threads(network: &Network, optimizer: Optimizer, config: &Config) -> Self {
        let new = |_| Worker::new(&Cpu, network, optimizer.size(), config.keep());
        let workers = (0..config.threads).map(new).collect();
        Self::Threads { workers, optimizer }
    }

    /// Does `job` with the members of a batch, whose rows are `lengths`. Which thread computes what is fixed beforehand: sums
    /// in another order would be other sums.
    pub(super) fn compute(
        &mut self,
        network: &Network,
        adapting: Option<&Adapting>,
        guiding: Option<&Guiding>,
        lengths: &[usize],
        job: &impl Job,
    ) -> Result<Reported, LmError> {
        match self {
            Self::Threads { workers, .. } => {
                let threads = workers.len();
                let packs = balance(lengths, threads, Cpu.pack_rows());
                let adapter = adapting.map(|adapting| (&adapting.adapter, adapting.adapter.data()));
                let guided = guiding.map(|guiding| guiding.guide.on_processor());
                let projection = guided.as_ref().map_or(0, |guided| guided.projection.len());
                let at = At { device: &Cpu, model: Model::of(network), adapter, guided };
                side_by_side(workers.iter_mut().enumerate(), |(thread, worker)| {
                    worker.begin(&Cpu, projection);
                    for pack in packs.iter().skip(thread).step_by(threads) {
                        job.run(&at, worker, pack);
                    }
                });
                let mut reported = Reported::default();
                for worker in workers {
                    reported.loss.add(&worker.loss);
                    reported.sums.add(&worker.sums);
                    reported.states += worker.pulls.sum;
                }
                Ok(reported)
            }
            #[cfg(feature = "cuda")]
            Self::Card(card) => {
                // A trainer with a guide is not begun on a card.
                let _ = guiding;
                card.compute(network, adapting, lengths, job)
            }
        }
    }

    /// Moves what is trained against the sum of all gradients; gives its norm before clipping.
    pub(super) fn step(
        &mut self,
        network: &mut std::sync::Arc<Network>,
        adapting: Option<&mut Adapting>,
        guiding: Option<&mut Guiding>,
        settings: &Settings,
    ) -> Result<f64, LmError> {
        match self {
            Self::Threads { workers, optimizer } => {
                let mut gradients: Vec<&mut [f32]> =
                    workers.iter_mut().map(|worker| worker.gradient.as_mut_slice()).collect();
                let weights = &mut std::sync::Arc::make_mut(network).weights;
                let norm = match adapting {
                    None => optimizer.step(weights.data_mut(), &mut gradients, settings),
                    Some(adapting) => {
                        let norm = optimizer.step(adapting.adapter.data_mut(), &mut gradients, settings);
                        adapting.adapter.apply(&adapting.base, weights);
                        norm
                    }
                };
                // What is left out for one is left out for both.
                if let Some(guiding) = guiding.filter(|_| norm.is_finite()) {
                    let mut gradients: Vec<&mut [f32]> =
                        workers.iter_mut().map(|worker| worker.pulls.projection.as_mut_slice()).collect();
                    guiding.step(&mut gradients, settings);
                }
                Ok(norm)
            }
            #[cfg(feature = "cuda")]
            Self::Card(card) => {
                let _ = guiding;
                card.step(adapting.map(|adapting| &adapting.adapter), settings)
            }
        }
    }

    /// Brings what is trained back to `network` and `adapting`, where it lies elsewhere.
    pub(super) fn fetch(
        &mut self,
        network: &mut std::sync::Arc<Network>,
        adapting: Option<&mut Adapting>,
    ) -> Result<(), LmError> {
        match self {
            Self::Threads { .. } => {
                let _ = (network, adapting);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Card(card) => card.fetch(network, adapting),
        }
    }

    /// Name, reckoned and taken bytes of a card.
    pub(super) fn card(&self) -> Option<(&str, usize, usize)> {
        match self {
            Self::Threads { .. } => None,
            #[cfg(feature = "cuda")]
            Self::Card(card) => Some(card.memory()),
        }
    }

    /// The gradient of the last step before clipping.
    pub(super) fn gradient(&mut self) -> Result<std::borrow::Cow<'_, [f32]>, LmError> {
        match self {
            Self::Threads { workers, .. } => {
                Ok(workers.first().map_or(&[][..], |worker| worker.gradient.as_slice()).into())
            }
            #[cfg(feature = "cuda")]
            Self::Card(card) => Ok(card.gradient()?.into()),
        }
    }

    /// The gradient of a guide's projection in the last step before clipping.
    pub(super) fn projection_gradient(&self) -> Option<&[f32]> {
        match self {
            Self::Threads { workers, .. } => workers.first().map(|worker| worker.pulls.projection.as_slice()),
            #[cfg(feature = "cuda")]
            Self::Card(_) => None,
        }
    }

    pub(super) fn state(&self) -> Result<State<'_>, LmError> {
        match self {
            Self::Threads { optimizer, .. } => {
                let (moves, first, second) = optimizer.state();
                Ok((moves, first.into(), second.into()))
            }
            #[cfg(feature = "cuda")]
            Self::Card(card) => card.state(),
        }
    }

    /// Goes on from `network` and `adapting` with an [`Engine::state`].
    pub(super) fn set_state(
        &mut self,
        network: &Network,
        adapting: Option<&Adapting>,
        (moves, first, second): (i32, Vec<f32>, Vec<f32>),
    ) -> Result<(), LmError> {
        match self {
            Self::Threads { optimizer, .. } => {
                let _ = (network, adapting);
                optimizer.set_state(moves, first, second);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Card(card) => card.set_state(network, adapting, (moves, &first, &second)),
        }
    }
}
