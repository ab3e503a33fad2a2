//! Weights that are independent, those of a student of the teacher's answers, and copies.

use anbiq_domain::Seeded;
use anbiq_lm::Network;
use anbiq_lm::train::{Config as Training, Trainer, epochs};
use anbiq_trace::weights::{Anatomy, Tokens, WeightsReport, compare};

use super::base::{Base, THREADS};
use super::figures::{Results, Weighed};
use super::{Failure, Options};

/// Networks that are trained from initialisations of their own; every two of them are compared.
const INDEPENDENT: u64 = 40;

pub(super) fn weighed(options: &Options, base: &Base, results: &mut Results) -> Result<(), Failure> {
    if ["independent", "copies"].iter().all(|id| results.has(&format!("weights {id}"))) || options.is_late() {
        return Ok(());
    }
    let trained = |network: Network, seed: u64, documents: usize| -> Result<Network, Failure> {
        let examples = base.other_text(seed, documents)?;
        let batches = epochs(&examples, 1, 1024, seed);
        let total_steps = batches.len() as u64;
        let config = Training { learning_rate: 4e-3, total_steps, threads: THREADS, seed, ..Training::default() };
        let mut trainer = Trainer::new(network, config)?;
        for batch in batches {
            trainer.step(&batch)?;
        }
        Ok(trainer.into_network()?)
    };
    let own = |seed: u64| trained(Network::random(base.network.config.clone(), 500 + seed)?, 700 + seed, 200);
    let networks = (0..INDEPENDENT).map(own).collect::<Result<Vec<_>, _>>()?;
    let mut independent = Found::default();
    for (place, one) in networks.iter().enumerate() {
        for other in &networks[..place] {
            independent.add(&beside(one, other));
        }
    }
    results.add(independent.line("independent", "independent networks, every two"))?;

    // Copies of the base, fine-tuned, with their hidden units or the dimensions of their residual stream in another order.
    let mut copies = Found::default();
    let mut moved = Found::default();
    for seed in 0..10 {
        copies.add(&beside(&trained(base.network.clone(), 900 + seed, 200)?, &base.network));
        let units = reordered(&base.network, &mut Seeded::new(seed).fork("units"));
        moved.add(&beside(&trained(units, 900 + seed, 200)?, &base.network));
    }
    results.add(moved.line("moved", "fine-tuned copies with their hidden units in another order"))?;
    results.add(copies.line("copies", "fine-tuned copies"))
}

#[derive(Default)]
struct Found {
    log10_p: Vec<f64>,
    agree: u64,
    of: u64,
}

impl Found {
    fn add(&mut self, report: &WeightsReport) {
        let p = report.tests.iter().map(|test| test.p_holm).fold(1.0, f64::min);
        self.log10_p.push(p.log10());
        let (agree, of) = report.agreement.unwrap_or_default();
        self.agree += agree;
        self.of += of;
    }

    fn line(self, id: &str, group: &str) -> Weighed {
        let Self { log10_p, agree, of } = self;
        Weighed { id: format!("weights {id}"), group: group.to_owned(), log10_p, agree, of }
    }
}

fn beside(suspect: &Network, teacher: &Network) -> WeightsReport {
    let size = suspect.config.vocab_size as u64;
    let tokens = Tokens { suspect: size, teacher: size, shared: size, same_number: size };
    compare(("suspect", &anatomy(suspect)), ("teacher", &anatomy(teacher)), tokens)
}

fn anatomy(network: &Network) -> Anatomy {
    let (config, rows) = (&network.config, (0..network.config.vocab_size).collect::<Vec<_>>());
    let layers = (0..config.layers).map(|layer| {
        let layer = network.weights.layer(layer);
        [layer.gate, layer.up, layer.down]
    });
    Anatomy::of((config.hidden_size, config.intermediate_size), layers, network.weights.embed(), &rows)
}

/// The same function with the hidden units of each layer in another order.
fn reordered(network: &Network, random: &mut Seeded) -> Network {
    let mut copy = network.clone();
    let (hidden, inner) = (network.config.hidden_size, network.config.intermediate_size);
    for index in 0..network.config.layers {
        let mut order: Vec<usize> = (0..inner).collect();
        random.shuffle(&mut order);
        let from = network.weights.layer(index);
        let place =
            |part: &[f32]| (part.as_ptr() as usize - network.weights.data().as_ptr() as usize) / size_of::<f32>();
        let (gate, up, down) = (place(from.gate), place(from.up), place(from.down));
        let data = copy.weights.data_mut();
        for (to, &unit) in order.iter().enumerate() {
            for (start, part) in [(gate, from.gate), (up, from.up)] {
                let row = &part[unit * hidden..(unit + 1) * hidden];
                data[start + to * hidden..start + (to + 1) * hidden].copy_from_slice(row);
            }
            for row in 0..hidden {
                data[down + row * inner + to] = from.down[row * inner + unit];
            }
        }
    }
    copy
}
