//! How much text a second is looked at for a watermark, on one core: `cargo xtask bench trace`.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::time::Instant;

use anbiq_domain::Seeded;
use anbiq_lab::corpus::Corpus;
use anbiq_lab::teacher::write_teacher;
use anbiq_lm::Tokenizer;
use anbiq_watermark::{Mark, Scheme, Tally};

/// Megabytes of text.
const SIZE: f64 = 20.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("anbiq-watermark-rate-{}", std::process::id()));
    write_teacher(&folder)?;
    let tokenizer = Tokenizer::load(&folder);
    std::fs::remove_dir_all(&folder)?;
    let tokenizer = tokenizer?;
    let corpus = Corpus::new(3);
    let mut random = Seeded::new(4);
    let (mut texts, mut bytes) = (Vec::new(), 0);
    while (bytes as f64) < SIZE * 1e6 {
        let text = corpus.any(&mut random).answer;
        bytes += text.len();
        texts.push(text);
    }
    let megabytes = bytes as f64 / 1e6;
    let started = Instant::now();
    let tokens: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text, false)).collect::<Result<_, _>>()?;
    let tokenized = started.elapsed().as_secs_f64();
    let count: usize = tokens.iter().map(Vec::len).sum();
    println!("{megabytes:.1} MB of text in {count} tokens; to tokens {:.1} MB/s", megabytes / tokenized);
    for (name, scheme) in [("two keys", Scheme::Gumbel), ("green list", Scheme::Green { share: 0.5, bias: 2.0 })] {
        for window in [2, 4] {
            let mark = Mark::new(scheme, window, &[7; 32])?;
            let mut tally = Tally::new(&mark);
            let started = Instant::now();
            tokens.iter().for_each(|tokens| tally.text(tokens));
            let found = tally.detect();
            let seconds = started.elapsed().as_secs_f64();
            println!(
                "{name}, window {window}: {:.1} MB/s of tokens, {:.1} MB/s from text; {} pairs, {} repeated, p {:.3}",
                megabytes / seconds,
                megabytes / (seconds + tokenized),
                found.pairs,
                found.repeated,
                found.p_value
            );
        }
    }
    Ok(())
}
