//! Measures training: tokens a second on the clock and a second of processor time.
//!
//! `throughput [threads [steps]]`
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::time::Instant;

use anbiq_domain::Seeded;
use anbiq_lm::train::{self, Example, Trainer};
use anbiq_lm::{Config, LmError, Network, RopeScaling, Variant};

fn main() -> Result<(), LmError> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let threads = arguments.next().unwrap_or(2);
    let steps = arguments.next().unwrap_or(12);
    println!("{:36} {:>10} {:>10} {:>12}", "network", "tok/s best", "median", "tok/cpu-s");
    measure("teacher d 256, 6 layers, T 256, B 8", shape(4096, 256, 688, 6, 8, 8), 256, 8, false, threads, steps)?;
    measure("  with a teacher's 20 likeliest", shape(4096, 256, 688, 6, 8, 8), 256, 8, true, threads, steps)?;
    measure("student d 128, 4 layers, T 96, B 16", shape(1024, 128, 344, 4, 4, 4), 96, 16, false, threads, steps * 4)?;
    measure("  with a teacher's 20 likeliest", shape(1024, 128, 344, 4, 4, 4), 96, 16, true, threads, steps * 4)
}

fn shape(vocab_size: usize, d: usize, ffn: usize, layers: usize, heads: usize, kv_heads: usize) -> Config {
    Config {
        variant: Variant::default(),
        vocab_size,
        hidden_size: d,
        intermediate_size: ffn,
        layers,
        heads,
        kv_heads,
        head_dim: d / heads,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tied: true,
        max_positions: 512,
        bos: None,
        eos: vec![],
        pad: None,
    }
}

fn measure(
    name: &str,
    shape: Config,
    length: usize,
    count: usize,
    taught: bool,
    threads: usize,
    steps: usize,
) -> Result<(), LmError> {
    let mut random = Seeded::new(1);
    let vocab = shape.vocab_size;
    let example = |random: &mut Seeded| Example {
        tokens: (0..=length).map(|_| random.below(vocab) as u32).collect(),
        first_target: 1,
        teacher: taught.then(|| {
            let first: Vec<u32> = (0..length).map(|_| random.below(vocab - 20) as u32).collect();
            first.iter().map(|&first| (first..first + 20).map(|token| (token, -3.2)).collect()).collect()
        }),
    };
    let batch: Vec<Example> = (0..count).map(|_| example(&mut random)).collect();
    let config = train::Config { threads, ..train::Config::default() };
    let mut trainer = Trainer::new(Network::random(shape, 1)?, config)?;
    trainer.step(&batch)?;
    let mut walls = Vec::new();
    let before = processor_seconds();
    for _ in 0..steps {
        let start = Instant::now();
        trainer.step(&batch)?;
        walls.push(start.elapsed().as_secs_f64());
    }
    let processor = processor_seconds() - before;
    walls.sort_by(f64::total_cmp);
    let tokens = (length * count) as f64;
    println!(
        "{name:36} {:>10.0} {:>10.0} {:>12.0}",
        tokens / walls[0],
        tokens / walls[steps / 2],
        tokens * steps as f64 / processor
    );
    Ok(())
}

/// User and system time of this process so far, where the system tells (Linux).
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}
