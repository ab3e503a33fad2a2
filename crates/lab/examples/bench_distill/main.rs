//! How a capture bears faults, kills, limits and size: `cargo xtask bench distill` builds the program and runs this.
//!
//! This process is the server that sells answers ([`anbiq_lab::vendor`]) and keeps the books; the program is a process of
//! its own, killed with SIGKILL where it is killed. All figures of money and of what was paid twice come from the books.
//!
//! | part | what is done |
//! |---|---|
//! | `faults` | 20 % 429, 5 % 5xx, 1 % cut streams, three kills; against a run without any of them |
//! | `ceiling` | the same with half the money, at a server that knows `Idempotency-Key` and at one that does not |
//! | `estimate` | a pilot of 1 %, and the bill after it, for several sets of prompts |
//! | `rate` | requests a second and the peak of memory, of a capture of so many rows |
//! | `told` | bytes, seconds and memory that a capture of so many tokens with 20 alternatives takes, in its rows and shelved |

mod rig;
mod told;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anbiq_lab::vendor::{Vendor, VendorConfig};

use rig::{Ask, Rig, prices};

const USAGE: &str = "usage: bench_distill --program PATH [--requests N] [--rows N] [--concurrency N] [--tokens N] [faults] [ceiling] \
                     [estimate] [rate] [told]";

/// What is measured of the machine's other work is measured with faults of this kind.
fn unruly(seed: u64, keys: bool) -> VendorConfig {
    VendorConfig { seed, busy: 0.2, failing: 0.05, cut: 0.01, keys, ..VendorConfig::default() }
}

struct Arguments {
    program: PathBuf,
    requests: usize,
    rows: usize,
    concurrency: usize,
    tokens: usize,
    parts: Vec<String>,
}

impl Arguments {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let (mut program, mut requests, mut rows, mut concurrency, mut parts) = (None, 10_000, 100_000, 64, Vec::new());
        let mut tokens = 2_000_000;
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(USAGE);
            match word.as_str() {
                "--program" => program = Some(PathBuf::from(value()?)),
                "--requests" => requests = value()?.parse()?,
                "--rows" => rows = value()?.parse()?,
                "--concurrency" => concurrency = value()?.parse()?,
                "--tokens" => tokens = value()?.parse()?,
                "faults" | "ceiling" | "estimate" | "rate" | "told" => parts.push(word),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(Self { program: program.ok_or(USAGE)?, requests, rows, concurrency, tokens, parts })
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse()?;
    let mut held = true;
    if arguments.wants("faults") {
        held &= faults(&arguments).await?;
    }
    if arguments.wants("ceiling") {
        held &= ceiling(&arguments).await?;
    }
    if arguments.wants("estimate") {
        held &= estimate(&arguments).await?;
    }
    if arguments.wants("rate") {
        rate(&arguments).await?;
    }
    if arguments.wants("told") {
        told::told(&arguments.program, arguments.tokens).await?;
    }
    if held { Ok(()) } else { Err("a promise was not kept".into()) }
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

async fn faults(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let count = arguments.requests;
    let rig = Rig::new(&arguments.program, count)?;
    let calm = Vendor::start(VendorConfig::default(), prices()).await?;
    let ask = Ask { ceiling: "100", concurrency: arguments.concurrency };
    rig.capture("calm", &calm, ask).await?;
    let vendor = Vendor::start(unruly(1, true), prices()).await?;
    let begun = Instant::now();
    for kill in 1..=3 {
        rig.killed("unruly", &vendor, ask, count as u64 * kill / 4).await?;
    }
    let asking = rig.capture("unruly", &vendor, ask).await?;
    let (books, seconds) = (vendor.books(), begun.elapsed().as_secs_f64());
    let same = rig.read("unruly")? == rig.read("calm")?;
    let lost = count as u64 - rig.rows("unruly")?;
    say(&format!(
        "faults    {count} requests in {seconds:.1} s, 3 kills; {} came: {} refused with 429, {} failed, {} cut off, {} given again\n\
         \x20         lost {lost}, paid twice {}, charged ${:.6}, counted ${:.6} and at most ${:.6} besides; bytes {}",
        books.requests,
        books.busy,
        books.failed,
        books.cut,
        books.replayed,
        books.twice,
        books.nanos as f64 / 1e9,
        asking.cost,
        asking.lost,
        if same { "equal" } else { "DIFFER" },
    ))?;
    Ok(same && lost == 0 && books.twice == 0 && (books.nanos as f64 / 1e9 - asking.cost).abs() < 1e-9)
}

async fn ceiling(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let count = arguments.requests;
    let rig = Rig::new(&arguments.program, count)?;
    let calm = Vendor::start(VendorConfig::default(), prices()).await?;
    let whole = rig.capture("calm", &calm, Ask { ceiling: "100", concurrency: arguments.concurrency }).await?.cost;
    let mut held = true;
    for keys in [true, false] {
        let (name, limit) = (format!("ceiling-{keys}"), format!("{:.6}", whole / 2.0));
        let ask = Ask { ceiling: &limit, concurrency: arguments.concurrency };
        let vendor = Vendor::start(unruly(2, keys), prices()).await?;
        for kill in 1..=3 {
            rig.killed(&name, &vendor, ask, count as u64 * kill / 10).await?;
        }
        let asking = rig.capture(&name, &vendor, ask).await?;
        let (charged, limit) = (vendor.books().nanos as f64 / 1e9, limit.parse::<f64>()?);
        let over = (charged - limit).max(0.0);
        say(&format!(
            "ceiling   ${limit:.6}, {}: charged ${charged:.6}, counted ${:.6} and at most ${:.6} besides, {} paid twice; over by ${over:.6}",
            if keys { "names known" } else { "names not known" },
            asking.cost,
            asking.lost,
            vendor.books().twice,
        ))?;
        held &= over == 0.0 && asking.cost + asking.lost <= limit;
    }
    Ok(held)
}

async fn estimate(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let (mut within, mut inside, mut worst, sets) = (0, 0, 0.0_f64, 5);
    for set in 0..sets {
        let rig = Rig::with_seed(&arguments.program, arguments.requests, set)?;
        // Answers of very different lengths.
        let config = VendorConfig { shortest: 5, longest: 120, ..VendorConfig::default() };
        let vendor = Vendor::start(config, prices()).await?;
        let ask = Ask { ceiling: "100", concurrency: arguments.concurrency };
        let forecast = rig.pilot("estimate", &vendor, ask).await?;
        rig.capture("estimate", &vendor, ask).await?;
        let bill = vendor.books().nanos as f64 / 1e9;
        let off = forecast.expected / bill - 1.0;
        within += usize::from(off.abs() <= 0.05);
        inside += usize::from((forecast.low..=forecast.high).contains(&bill));
        worst = worst.max(off.abs());
        say(&format!(
            "estimate  from {} of {} answers: ${:.6} (${:.6} to ${:.6}), billed ${bill:.6}: {:+.2} %",
            forecast.sample,
            arguments.requests,
            forecast.expected,
            forecast.low,
            forecast.high,
            off * 100.0,
        ))?;
    }
    say(&format!(
        "estimate  {within} of {sets} within 5 %, {inside} inside their band, at worst {:.2} %",
        worst * 100.0
    ))?;
    Ok(within == sets as usize)
}

async fn rate(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let rig = Rig::new(&arguments.program, arguments.rows)?;
    let vendor = Vendor::start(VendorConfig::default(), prices()).await?;
    let ask = Ask { ceiling: "1000", concurrency: arguments.concurrency };
    let begun = Instant::now();
    let (program, sample) = (rig.start("rate", &vendor, ask)?, Duration::from_millis(100));
    let (mut peak, mut first) = (0, None);
    let outcome = rig::watched(program, sample, |pid| {
        peak = peak.max(rig::peak_kib(pid));
        if first.is_none() && vendor.books().requests > 0 {
            first = Some(Instant::now());
        }
    })
    .await?;
    if !outcome.success() {
        return Err("the capture failed".into());
    }
    let whole = begun.elapsed().as_secs_f64();
    let asked = first.map_or(whole, |first| first.elapsed().as_secs_f64());
    let rows = rig.rows("rate")?;
    say(&format!(
        "rate      {rows} rows, {} MB, {whole:.1} s: {:.0} a second over all, {:.0} a second from the first request; peak of \
         memory {:.0} MB; at most {} together",
        rig.bytes("rate")? / 1_000_000,
        rows as f64 / whole,
        rows as f64 / asked,
        peak as f64 * 1024.0 / 1e6,
        vendor.books().together,
    ))?;
    Ok(())
}
