//! Really trains many tiny students and asks the exact tests about each: `cargo xtask students`.
//!
//! *Innocent* students never see a served or a marked answer; under the null their p-values must be uniform, and none may be
//! established. *Suspects* learn from served answers, alone or diluted with other text, for some epochs; the table says how
//! many pairs establish them; *probes* asks some of them without log-probabilities. *Marked* ones learn from text that carries a watermark. *Acquittals* say whom the pairs clear of training
//! like that of known students, and *weights* whose weights are not independent.
//!
//! ```text
//! students [--dir DIR] [--short] [--pairs N] [--innocent N] [--marked N] [--minutes M] [--only base|innocent|suspects|probes|acquittals|weights|marked]
//! ```
//!
//! All that was made lies in DIR: whoever calls again goes on where it stopped, also after `--minutes`. Every choice has its
//! seed, so DIR can be thrown away. Coins of innocent students are drawn anew for each of them, as their p-values would
//! otherwise rest on the same coins and not be independent; what they learnt from never knew any coin.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

mod base;
mod figures;
mod marked;
mod twins;
mod weights;

use std::path::PathBuf;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What was asked for.
#[derive(Debug, Clone)]
struct Options {
    dir: PathBuf,
    /// Served pairs that suspects may learn from.
    pairs: usize,
    innocent: usize,
    /// Marked answers that students may learn from.
    marked: usize,
    until: Instant,
    only: Option<String>,
    short: bool,
}

impl Options {
    fn parse() -> Result<Self, Failure> {
        let mut options = Self {
            dir: PathBuf::from("target/students"),
            pairs: 2_000,
            innocent: 200,
            marked: 1_000,
            until: Instant::now() + Duration::from_secs(24 * 3600),
            only: None,
            short: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--short" {
                (options.pairs, options.innocent, options.marked, options.short) = (400, 40, 200, true);
                options.dir = PathBuf::from("target/students-short");
                continue;
            }
            let value = words.next().ok_or_else(|| format!("`{word}` wants a value"))?;
            match word.as_str() {
                "--dir" => options.dir = PathBuf::from(value),
                "--pairs" => options.pairs = value.parse()?,
                "--innocent" => options.innocent = value.parse()?,
                "--marked" => options.marked = value.parse()?,
                "--minutes" => options.until = Instant::now() + Duration::from_secs_f64(60.0 * value.parse::<f64>()?),
                "--only" => options.only = Some(value),
                _ => return Err(format!("unknown option `{word}`").into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    fn is_late(&self) -> bool {
        Instant::now() > self.until
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse()?;
    let started = Instant::now();
    let base = base::Base::make(&options).await?;
    println!(
        "base of {} parameters, {} pairs of served answers, {:.0} s",
        base.network.parameters(),
        base.items.items.len(),
        started.elapsed().as_secs_f64()
    );
    let mut results = figures::Results::open(&options.dir)?;
    if options.wants("innocent") {
        twins::innocent(&options, &base, &mut results).await?;
    }
    if options.wants("suspects") {
        twins::suspects(&options, &base, &mut results).await?;
    }
    if options.wants("probes") {
        twins::probes(&options, &base, &mut results).await?;
    }
    if options.wants("acquittals") {
        twins::acquittals(&options, &base, &mut results).await?;
    }
    if options.wants("weights") {
        weights::weighed(&options, &base, &mut results)?;
    }
    if options.wants("marked") {
        marked::students(&options, &base, &mut results).await?;
    }
    figures::print(&results, base.items.items.len());
    println!("{:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
