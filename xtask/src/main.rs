//! Chores of the repository that are too long for the tests.
//!
//! `cargo xtask seeds [--quick] SEED...` plays the demonstration once for each seed and says what came of it.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

const USAGE: &str = "usage: cargo xtask seeds [--quick] SEED...";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((verb, rest)) if verb == "seeds" => seeds(rest),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Plays the demonstration for each seed; true if the case came out as it should every time.
fn seeds(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let quick = words.iter().any(|word| word == "--quick");
    let seeds = words.iter().filter(|word| !word.starts_with("--")).map(|word| word.parse());
    let seeds = seeds.collect::<Result<Vec<u64>, _>>().map_err(|_| USAGE)?;
    if seeds.is_empty() {
        return Err(USAGE.into());
    }
    let built = Command::new("cargo").args(["build", "--release", "--locked", "--package", "anbiq-cli"]).status()?;
    if !built.success() {
        return Err("the program does not build".into());
    }
    let mut all = true;
    let mut out = std::io::stdout();
    for seed in seeds {
        let folder = Path::new("target").join(format!("demo-{seed}"));
        // What an earlier call left is of no use; that there is nothing is fine.
        let _ = std::fs::remove_dir_all(&folder);
        let mut command = Command::new("target/release/anbiq");
        command.args(["demo", "--seed", &seed.to_string(), "--out"]).arg(&folder).stdout(Stdio::null());
        if quick {
            command.arg("--quick");
        }
        let started = Instant::now();
        let came_out = command.status()?.success();
        let word = if came_out { "as it should" } else { "NOT AS IT SHOULD" };
        writeln!(out, "seed {seed}: {word}, {:.0} s", started.elapsed().as_secs_f64())?;
        all &= came_out;
    }
    Ok(all)
}
