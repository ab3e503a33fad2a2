//! Tokens a second, and the memory of it.

use std::time::{Duration, Instant};

use anbiq_lm::train::{self, Example, Hardware, Trainer};
use anbiq_lm::{LmError, Scorer};

use crate::Fallible;
use crate::network::network;

pub(crate) fn run(size: &str, rows: u64, device: &str, seconds: u64) -> Fallible<()> {
    let network = network(size, 512)?;
    let vocab = network.config.vocab_size as u64;
    let device: Hardware = serde_json::from_value(device.into())?;
    let token = |row: u64, at: u64| ((row * 7919 + at * at * 31 + at * 17) % vocab) as u32;
    let batch: Vec<Example> = (0..rows)
        .map(|row| Example { tokens: (0..=256).map(|at| token(row, at)).collect(), first_target: 1, teacher: None })
        .collect();
    let threads = std::thread::available_parallelism()?.get();
    let config = train::Config {
        learning_rate: 1e-4,
        warmup_steps: 0,
        total_steps: u64::MAX,
        weight_decay: 0.0,
        batch_tokens: 256 * rows as usize,
        threads,
        device,
        ..train::Config::default()
    };
    let sequences: Vec<(&[u32], usize)> = batch.iter().map(|example| (example.tokens.as_slice(), 1)).collect();
    let scoring = {
        let scorer = Scorer::new(&network, device, threads)?;
        scorer.score(&sequences)?;
        rate(rows, seconds, || scorer.score(&sequences).map(|_| ()))?
    };
    let mut trainer = Trainer::new(network, config)?;
    let mut losses = Vec::new();
    for _ in 0..3 {
        losses.push(trainer.step(&batch)?.loss);
    }
    let training = rate(rows, seconds, || trainer.step(&batch).map(|_| ()))?;
    let card = trainer.card().map_or(format!("{threads} threads"), |(name, needs, peak)| {
        format!("{name}, {:.0} MB of memory ({:.0} reckoned)", peak as f64 / 1e6, needs as f64 / 1e6)
    });
    let word = device.word();
    println!("{size} {rows}x256 {word}: {training:.0} tokens/s, scoring {scoring:.0}; losses {losses:.5?}; {card}");
    Ok(())
}

/// Tokens a second.
fn rate(rows: u64, seconds: u64, mut job: impl FnMut() -> Result<(), LmError>) -> Fallible<f64> {
    let (begun, mut times) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) || times == 0 {
        job()?;
        times += 1;
    }
    Ok((times * rows * 256) as f64 / begun.elapsed().as_secs_f64())
}
