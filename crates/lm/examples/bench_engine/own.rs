//! What the engine itself is measured by.

use std::time::{Duration, Instant};

use anbiq_domain::Prompt;
use anbiq_lm::lora::{Adapter, Shape};
use anbiq_lm::train::{self, Example, Trainer};
use anbiq_lm::{Codec, LmError, Local, LocalOptions, Precision, SPECIALS, Tokenizer};
use anbiq_model::{Model, Request, Sampling, collect};

use crate::network::network;
use crate::{Fallible, Measured};

/// Answers that are generated together, and the tokens of each and of its prompt.
const ANSWERS: usize = 32;
const LENGTH: usize = 64;

/// Tokens of a sequence that is trained on.
pub(crate) const LENGTHS: usize = 256;

/// One token a byte, so that a prompt of 64 characters has 64 tokens.
pub(crate) fn codec() -> Result<Codec, LmError> {
    Codec::plain(Tokenizer::train_bpe(["a"], 256 + SPECIALS.len(), &SPECIALS)?, 512)
}

/// Measures what `words` say: what, the size, how, threads, seconds.
pub(crate) fn measure(words: &[String]) -> Fallible<Measured> {
    let [what, size, how, threads, seconds, more @ ..] = words else {
        return Err("own WHAT SIZE HOW THREADS SECONDS [LENGTH]".into());
    };
    let (threads, time) = (threads.parse()?, Duration::from_secs(seconds.parse()?));
    match what.as_str() {
        "train" => {
            let length = more.first().map_or(Ok(LENGTHS), |length| length.parse())?;
            training(size, how, threads, time, length)
        }
        _ => generating(size, if how == "int8" { Precision::Int8 } else { Precision::F32 }, threads),
    }
}

fn training(size: &str, how: &str, threads: usize, time: Duration, length: usize) -> Fallible<Measured> {
    let network = network(size, length)?;
    let vocab = network.config.vocab_size as u64;
    let rows = ((if size == "6m" { 2048 } else { 512 }) / length as u64).max(1);
    // As in the scripts beside this: sequence `row` has at `at` the token that these numbers give.
    let token = |row: u64, at: u64| ((row * 7919 + at * at * 31 + at * 17) % vocab) as u32;
    let example = |row| Example {
        tokens: (0..=length as u64).map(|at| token(row, at)).collect(),
        first_target: 1,
        teacher: None,
    };
    let batch: Vec<Example> = (0..rows).map(example).collect();
    let config = train::Config {
        learning_rate: 1e-4,
        warmup_steps: 0,
        total_steps: u64::MAX,
        weight_decay: 0.0,
        threads,
        activation_checkpointing: how == "checkpointing",
        ..train::Config::default()
    };
    let mut trainer = if how == "lora" {
        let adapter = Adapter::new(&network, Shape::default(), 1)?;
        Trainer::with_adapter(network, adapter, config)?
    } else {
        Trainer::new(network, config)?
    };
    let mut losses = Vec::new();
    for _ in 0..3 {
        losses.push(trainer.step(&batch)?.loss);
    }
    let (begun, mut steps) = (Instant::now(), 0);
    while begun.elapsed() < time || steps == 0 {
        trainer.step(&batch)?;
        steps += 1;
    }
    let rate = f64::from(steps) * (rows as usize * length) as f64 / begun.elapsed().as_secs_f64();
    Ok(Measured { rate, prompt_rate: None, losses, peak_bytes: peak() })
}

fn generating(size: &str, weights: Precision, threads: usize) -> Fallible<Measured> {
    let options = LocalOptions { threads, max_batch: ANSWERS, seed: Some(1), weights, ..LocalOptions::default() };
    let model = Local::from_parts(network(size, LENGTHS)?, codec()?, "random", options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = |max_tokens: u32| {
        let begun = Instant::now();
        let tokens = runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..ANSWERS {
                let prompt: String =
                    (0..LENGTH).map(|at| char::from(b'a' + ((number * 7 + at * at) % 26) as u8)).collect();
                let sampling = Sampling { temperature: 0.0, seed: Some(1), ..Sampling::default() };
                let request = Request { sampling, ..Request::new(Prompt::Text(prompt), max_tokens) };
                tasks.spawn(collect(model.generate(request).await?, 1));
            }
            let mut tokens = 0;
            for answer in tasks.join_all().await {
                tokens += answer?.1.completion_tokens;
            }
            Ok::<u64, anbiq_model::ModelError>(tokens)
        })?;
        Ok::<_, Box<dyn std::error::Error>>((tokens as f64, begun.elapsed().as_secs_f64()))
    };
    answers(2)?;
    let (few, reading) = answers(1)?;
    let (many, whole) = answers(LENGTH as u32 + 1)?;
    let rate = (many - few) / (whole - reading);
    Ok(Measured {
        rate,
        prompt_rate: Some((ANSWERS * LENGTH) as f64 / reading),
        losses: Vec::new(),
        peak_bytes: peak(),
    })
}

/// Most memory that this process held, where the system says (Linux).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
