//! What eight bits a weight cost a model in quality.
//!
//! `cargo run --release -p anbiq-lm --example precision MODEL DOCUMENTS`
//!
//! `MODEL` is a Hugging Face folder or a file `*.gguf`, `DOCUMENTS` a file of one `{"prompt": ..., "answer": ...}` a line. On
//! the tokens of the answers: the loss either way, KL(f32 || int8) over the whole vocabulary, and how often both find the
//! same token likeliest.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::path::PathBuf;

use anbiq_domain::{Answer, Finish, Prompt};
use anbiq_lm::{Codec, Network, Precision, score};

/// Documents that are read at most.
const MOST: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let [model, documents] = paths.as_slice() else { return Err("precision MODEL DOCUMENTS".into()) };
    let (network, codec) = (Network::load(model)?, Codec::load(model)?);
    let mut examples = Vec::new();
    for line in std::fs::read_to_string(documents)?.lines().take(MOST) {
        let document: serde_json::Value = serde_json::from_str(line)?;
        let (Some(prompt), Some(answer)) = (document["prompt"].as_str(), document["answer"].as_str()) else { continue };
        let example = codec.example(&Prompt::user(prompt), &Answer::new(answer, Finish::Stop))?;
        examples.extend((example.0.len() <= codec.context).then_some(example));
    }
    let sequences: Vec<(&[u32], usize)> = examples.iter().map(|(tokens, first)| (tokens.as_slice(), *first)).collect();
    let mut rounded = network.clone();
    Precision::Int8.round(&mut rounded);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let near = score::compare(&network, &rounded, &sequences, threads)?;
    let [whole, eight] = [&network, &rounded].map(|network| score::mean_loss(network, &sequences, threads));
    println!(
        "loss f32 {:.5}, int8 {:.5}; KL {:.2e} nats a token; the same likeliest token at {:.2} % of {} places",
        whole?,
        eight?,
        near.kl,
        100.0 * near.top1,
        near.positions
    );
    Ok(())
}
