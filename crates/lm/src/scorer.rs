//! Scoring wherever there is something that computes.

use crate::score::{self, Likeliest, SequenceScore};
use crate::train::Hardware;
use crate::{LmError, Network};

#[cfg(feature = "cuda")]
use crate::device::{Cuda, Device, Memory};
#[cfg(feature = "cuda")]
use crate::graph::Model;

/// Scores sequences by a network, on the processor or on a card.
#[derive(Debug)]
pub struct Scorer<'a> {
    network: &'a Network,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Threads(usize),
    #[cfg(feature = "cuda")]
    Card(Box<(Memory, Cuda)>),
}

impl<'a> Scorer<'a> {
    /// With so many threads where it is the processor; a card takes a copy of the network.
    ///
    /// # Errors
    ///
    /// The hardware is not there or has too little memory.
    pub fn new(network: &'a Network, hardware: Hardware, threads: usize) -> Result<Self, LmError> {
        let place = match hardware {
            Hardware::Cpu => Place::Threads(threads),
            #[cfg(feature = "cuda")]
            hardware => {
                let (device, mut weights) = (Cuda::open(hardware, &network.config)?, Memory::default());
                let numbers = network.weights.data();
                device.put(numbers, device.room(&mut weights, numbers.len()));
                device.fault()?;
                Place::Card(Box::new((weights, device)))
            }
            #[cfg(not(feature = "cuda"))]
            hardware => return Err(LmError::not_built_in(hardware.word())),
        };
        Ok(Self { network, place })
    }

    /// As [`score::score`].
    ///
    /// # Errors
    ///
    /// As [`score::score`]; also where a card fails.
    pub fn score(&self, sequences: &[(&[u32], usize)]) -> Result<Vec<SequenceScore>, LmError> {
        match &self.place {
            Place::Threads(threads) => score::score(self.network, sequences, *threads),
            #[cfg(feature = "cuda")]
            Place::Card(card) => {
                let (weights, device) = &**card;
                score::check(&self.network.config, sequences)?;
                let model = Model::<Cuda>::new(&self.network.config, self.network.weights.layout(), weights);
                let scores = score::score_on(device, &model, sequences, 1);
                device.fault().map(|()| scores)
            }
        }
    }

    /// As [`score::likeliest`].
    ///
    /// # Errors
    ///
    /// As [`Scorer::score`].
    pub fn likeliest(&self, sequences: &[(&[u32], usize)], k: usize) -> Result<Vec<Vec<Likeliest>>, LmError> {
        match &self.place {
            Place::Threads(threads) => score::likeliest(self.network, sequences, k, *threads),
            #[cfg(feature = "cuda")]
            Place::Card(card) => {
                let (weights, device) = &**card;
                score::check(&self.network.config, sequences)?;
                let model = Model::<Cuda>::new(&self.network.config, self.network.weights.layout(), weights);
                let places = score::likeliest_on(device, &model, sequences, k, 1);
                device.fault().map(|()| places)
            }
        }
    }

    /// As [`score::mean_loss`].
    ///
    /// # Errors
    ///
    /// As [`Scorer::score`].
    pub fn mean_loss(&self, sequences: &[(&[u32], usize)]) -> Result<f64, LmError> {
        Ok(score::mean(&self.score(sequences)?))
    }
}
