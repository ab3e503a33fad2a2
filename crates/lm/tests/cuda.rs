//! A card does what the processor does. `examples/cuda_check` compares more.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

use anbiq_lm::train::{Config, Example, Hardware, Trainer};
use anbiq_lm::{Network, Scorer};

/// As a part of the largest number.
const BOUND: f32 = 1e-4;

fn apart(own: &[f32], other: &[f32]) -> f32 {
    let largest = own.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    own.iter().zip(other).map(|(own, other)| (own - other).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn scores_losses_and_gradients_are_those_of_the_processor() {
    for family in ["qwen3-bias", "grouped", "smollm3-window"] {
        let network = Network::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(family)).unwrap();
        let card = match Scorer::new(&network, Hardware::Cuda, 1) {
            Ok(card) => card,
            Err(error) => {
                assert_eq!(error.code(), "device_unavailable");
                eprintln!("skipped: there is no card: {error}");
                return;
            }
        };
        let vocab = network.config.vocab_size as u32;
        let tokens = |length: u32| -> Vec<u32> { (0..length).map(|at| (at * at * 31 + at * 17) % vocab).collect() };
        let examples = [70, 20, 2].map(|length| Example { tokens: tokens(length), first_target: 1, teacher: None });
        let sequences: Vec<(&[u32], usize)> = examples.iter().map(|example| (&*example.tokens, 1)).collect();
        let processor = Scorer::new(&network, Hardware::Cpu, 1).unwrap();
        let logprobs = |scorer: &Scorer<'_>| -> Vec<f32> {
            scorer.score(&sequences).unwrap().into_iter().flat_map(|score| score.logprobs).collect()
        };
        assert!(apart(&logprobs(&processor), &logprobs(&card)) < BOUND, "{family}");

        let [own, other] = [Hardware::Cpu, Hardware::Cuda].map(|device| {
            let mut trainer = Trainer::new(network.clone(), Config { device, ..Config::default() }).unwrap();
            let report = trainer.step(&examples).unwrap();
            (report.loss as f32, trainer.gradient().unwrap().into_owned())
        });
        assert!(apart(&[own.0], &[other.0]) < BOUND && apart(&own.1, &other.1) < BOUND, "{family}");
    }
}
