//! The engine beside PyTorch, transformers and llama.cpp: tokens a second and peak memory, in turns, on the same weights.
//!
//! `cargo xtask bench engine [--python PATH] [--only train|generate] [--size 6m|110m] [--rounds 3] [--seconds 10] [--threads 2]
//! [--length 256]`
//!
//! `--python` names a Python that has torch, transformers and, for llama.cpp, xllamacpp; what is missing is left out, and
//! said. In each round every program runs once, for so many seconds, in a process of its own; the table has the medians of the
//! rounds with their ranges. Absolute figures of a machine that others use too mean little; the ratios of programs that
//! took turns mean more.
//!
//! Training is one step of AdamW after the other on 2,048 tokens (512 for 110m) in sequences of `--length`, at least one; cross-entropy, gradients clipped, 32-bit
//! floats. PyTorch runs eagerly, with glibc told to keep what it frees: that alone makes it a quarter faster. The losses of
//! the first steps must be the same.
//! Generation is 32 greedy answers of 64 tokens to prompts of 64; what the prompts took is measured apart and subtracted.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod network;
mod own;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anbiq_lm::gguf;
use serde::{Deserialize, Serialize};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What one program measured of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    /// Tokens a second: trained on, or generated.
    rate: f64,
    /// Of prompts, where some were read.
    prompt_rate: Option<f64>,
    /// Losses of the first steps.
    #[serde(default)]
    losses: Vec<f64>,
    /// Most memory that it held, in bytes.
    peak_bytes: u64,
}

struct Options {
    python: Option<PathBuf>,
    only: Option<String>,
    size: Option<String>,
    rounds: usize,
    seconds: u64,
    threads: usize,
    length: usize,
}

fn main() -> Fallible<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = words.as_slice()
        && first == "own"
    {
        println!("{}", serde_json::to_string(&own::measure(rest)?)?);
        return Ok(());
    }
    let options = options(words)?;
    let place = std::env::temp_dir().join(format!("anbiq-bench-engine-{}", std::process::id()));
    for size in ["6m", "110m"] {
        if options.size.as_deref().is_some_and(|only| only != size) {
            continue;
        }
        let folder = place.join(size);
        let network = network::network(size, options.length)?;
        network.save(&folder, anbiq_lm::Dtype::F32)?;
        own::codec()?.save(&folder)?;
        gguf::write(&folder.join("model.gguf"), &network, &own::codec()?, gguf::Storage::F32, &[])?;
        drop(network);
        for what in ["train", "generate"] {
            if options.only.as_deref().is_none_or(|only| only == what) {
                table(&options, size, what, &folder)?;
            }
        }
    }
    fs::remove_dir_all(&place)?;
    Ok(())
}

/// Lets all programs take turns, and says what they measured.
fn table(options: &Options, size: &str, what: &str, folder: &Path) -> Fallible<()> {
    let names: &[&str] = match what {
        "train" => &["anbiq", "anbiq, checkpointing", "anbiq, lora", "torch"],
        _ => &["anbiq", "anbiq, int8", "transformers", "llama.cpp"],
    };
    let mut all: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    for _ in 0..options.rounds {
        for &name in names {
            match one(options, size, what, name, folder) {
                Ok(Some(measured)) => all.entry(name).or_default().push(measured),
                Ok(None) => {}
                Err(error) => println!("{name}: left out: {error}"),
            }
        }
    }
    let Options { threads, rounds, seconds, length, .. } = options;
    let length = if what == "train" { format!(", {length} tokens a sequence") } else { String::new() };
    println!("\n{what}, {size}{length}, {threads} threads, {rounds} rounds of {seconds} s");
    println!("{:<20} {:>10} {:>19} {:>12} {:>10}", "", "tokens/s", "range", "prompts/s", "peak MB");
    for name in names {
        let Some(measured) = all.get(name) else { continue };
        let mut rates: Vec<f64> = measured.iter().map(|measured| measured.rate).collect();
        rates.sort_by(f64::total_cmp);
        let prompts: Vec<f64> = measured.iter().filter_map(|measured| measured.prompt_rate).collect();
        let prompts = prompts.iter().copied().reduce(f64::max).map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        let peak = measured.iter().map(|measured| measured.peak_bytes).max().unwrap_or(0) as f64 / 1e6;
        let range = format!("{:.0} to {:.0}", rates[0], rates[rates.len() - 1]);
        println!("{name:<20} {:>10.0} {range:>19} {prompts:>12} {peak:>10.0}", rates[rates.len() / 2]);
    }
    if let (Some(own), Some(torch)) = (all.get("anbiq"), all.get("torch")) {
        let apart = own[0].losses.iter().zip(&torch[0].losses).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max);
        println!("losses of the first {} steps differ from torch's by {apart:.1e} at most", own[0].losses.len());
    }
    Ok(())
}

/// Runs one program; `None` where what it needs is not there.
fn one(options: &Options, size: &str, what: &str, name: &str, folder: &Path) -> Fallible<Option<Measured>> {
    let numbers = [options.threads.to_string(), options.seconds.to_string()];
    let mut command = match name.strip_prefix("anbiq") {
        Some(more) => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["own", what, size, more.trim_start_matches(", ")]);
            command
        }
        None => {
            let Some(python) = &options.python else { return Ok(None) };
            let mut command = Command::new(python);
            let script = match name {
                "torch" => "torch_train.py",
                "transformers" => "transformers_generate.py",
                _ => "llama_generate.py",
            };
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bench_engine").join(script)).arg(folder);
            // What it frees is kept rather than given back to the system and faulted in again.
            command.env("MALLOC_MMAP_THRESHOLD_", "4294967296").env("MALLOC_TRIM_THRESHOLD_", "8589934592");
            command.env("OMP_NUM_THREADS", options.threads.to_string()).env("HF_HUB_OFFLINE", "1");
            command
        }
    };
    command.args(numbers);
    if what == "train" {
        command.arg(options.length.to_string());
    }
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().last().unwrap_or("it said nothing").to_owned().into());
    }
    let said = String::from_utf8(output.stdout)?;
    Ok(Some(serde_json::from_str(said.lines().last().unwrap_or_default())?))
}

fn options(words: Vec<String>) -> Fallible<Options> {
    let mut options =
        Options { python: None, only: None, size: None, rounds: 3, seconds: 10, threads: 2, length: own::LENGTHS };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
        match word.as_str() {
            "--python" => options.python = Some(value.into()),
            "--only" => options.only = Some(value),
            "--size" => options.size = Some(value),
            "--rounds" => options.rounds = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--threads" => options.threads = value.parse()?,
            "--length" => options.length = value.parse()?,
            _ => return Err(format!("`{word}` is not known").into()),
        }
    }
    Ok(options)
}
