//! How many tokens a second the engine generates with a random network of 3.3 million parameters.
//!
//! `cargo run --release -p anbiq-lm --example decode_throughput [threads] [batch] [requests]`
//!
//! The rate that counts on a shared machine is the one by processor time, which Linux counts for the whole process.

use std::time::{Duration, Instant};

use anbiq_domain::Prompt;
use anbiq_lm::{Codec, Config, Local, LocalOptions, Network, RopeScaling, SPECIALS, Tokenizer, Variant};
use anbiq_model::{Model, Request, Sampling, collect};

const PROMPT: &str = "Tell me a story about an old mill by the river, and about the people who lived there.";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mut next = |default: usize| arguments.next().transpose().map(|value| value.unwrap_or(default));
    let (threads, max_batch, requests) = (next(2)?, next(32)?, next(256)?);
    let options = LocalOptions { threads, max_batch, queue: requests, seed: Some(1), ..LocalOptions::default() };
    let model = Local::from_parts(network()?, codec()?, "random", options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (label, temperature, top_p, logprobs) in [
        ("temperature 1", 1.0, 1.0, None),
        ("greedy", 0.0, 1.0, None),
        ("top_p 0.9", 1.0, 0.9, None),
        ("20 logprobs", 1.0, 1.0, Some(20)),
    ] {
        let (wall, processor) = (Instant::now(), processor_time());
        let tokens = runtime.block_on(async {
            let mut running = Vec::new();
            for seed in 0..requests as u64 {
                let sampling = Sampling { temperature, top_p, seed: Some(seed) };
                running.push(
                    model.generate(Request { sampling, logprobs, ..Request::new(Prompt::user(PROMPT), 128) }).await?,
                );
            }
            let mut tokens = 0;
            let collected = futures_of(running).await;
            for answer in collected {
                tokens += answer?.1.completion_tokens;
            }
            Ok::<u64, anbiq_model::ModelError>(tokens)
        })?;
        let (wall, processor) = (wall.elapsed(), processor_time().saturating_sub(processor));
        report(label, threads, tokens, wall, processor);
    }
    Ok(())
}

async fn futures_of(
    running: Vec<anbiq_model::Generation>,
) -> Vec<Result<(Vec<anbiq_domain::Answer>, anbiq_domain::Usage), anbiq_model::ModelError>> {
    let mut tasks = tokio::task::JoinSet::new();
    for generation in running {
        tasks.spawn(collect(generation, 1));
    }
    tasks.join_all().await
}

fn network() -> Result<Network, anbiq_lm::LmError> {
    let config = Config {
        variant: Variant::default(),
        vocab_size: 1024,
        hidden_size: 224,
        intermediate_size: 608,
        layers: 5,
        heads: 7,
        kv_heads: 7,
        head_dim: 32,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tied: true,
        max_positions: 512,
        bos: None,
        eos: vec![0],
        pad: None,
    };
    Network::random(config, 1)
}

fn codec() -> Result<Codec, anbiq_lm::LmError> {
    Codec::plain(Tokenizer::train_bpe([PROMPT, PROMPT], 400, &SPECIALS)?, 512)
}

#[expect(clippy::print_stdout, reason = "it is what the example is for")]
fn report(label: &str, threads: usize, tokens: u64, wall: Duration, processor: Duration) {
    let rate = |time: Duration| tokens as f64 / time.as_secs_f64();
    let by_processor = rate(processor) * threads as f64;
    println!(
        "{label:14} {tokens} tokens: {:.0}/s on the wall, {by_processor:.0}/s of {threads} whole processors ({:.1} us a token)",
        rate(wall),
        processor.as_secs_f64() * 1e6 / tokens as f64
    );
}

/// Processor time of this process so far; nothing where there is no `/proc`.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // A tick is a hundredth of a second on every Linux that Rust runs on.
    Duration::from_millis(ticks * 10)
}
