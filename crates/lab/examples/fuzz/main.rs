//! Feeds mutated inputs to whatever reads what strangers write, until time is up; keeps those that break a promise.
//!
//! `cargo xtask fuzz [TARGET] [--seconds N] [--seed S]`. The same seed gives the same inputs in the same order; how many
//! there are is said by the time. What breaks a promise is kept in `target/fuzz/TARGET`, and the exit code is 1.

mod mutate;
mod targets;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anbiq_domain::Digest;

use crate::mutate::Mutator;
use crate::targets::{TARGETS, Target};

const USAGE: &str = "usage: fuzz [sse|request|journal|key] [--seconds N] [--seed S]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (mut only, mut seconds, mut seed) = (None, 5, 1);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => seconds = words.next().and_then(|word| word.parse().ok()).ok_or(USAGE)?,
            "--seed" => seed = words.next().and_then(|word| word.parse().ok()).ok_or(USAGE)?,
            name if TARGETS.iter().any(|target| target.name == name) => only = Some(name.to_owned()),
            _ => return Err(USAGE.into()),
        }
    }
    let mut all = true;
    for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)) {
        all &= fuzz(target, Duration::from_secs(seconds), seed)?;
    }
    Ok(all)
}

/// True where nothing was found.
fn fuzz(target: &Target, time: Duration, seed: u64) -> Result<bool, Box<dyn Error>> {
    let mut mutator = Mutator::new(target, seed)?;
    let mut check = (target.prepare)()?;
    let (started, mut inputs) = (Instant::now(), 0_u64);
    while started.elapsed() < time {
        let input = mutator.next();
        if let Err(broken) = targets::guarded(&mut check, &input) {
            let folder = Path::new("target/fuzz").join(target.name);
            std::fs::create_dir_all(&folder)?;
            let path = folder.join(Digest::of_parts(&[&input]).to_string());
            std::fs::write(&path, &input)?;
            writeln!(std::io::stderr(), "{}: {broken}\n  the input is kept in `{}`", target.name, path.display())?;
            return Ok(false);
        }
        inputs += 1;
    }
    writeln!(std::io::stdout(), "{}: {inputs} inputs from seed {seed}, every promise kept", target.name)?;
    Ok(true)
}
