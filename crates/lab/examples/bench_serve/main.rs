//! What the gateway adds to a request: `cargo xtask bench serve` builds the program and runs this.
//!
//! Three processes on this machine: this one makes the load, a second is the model's server
//! ([`anbiq_lab::load::server`]), the third is `anbiq serve` with an installation of its own. Every load is put on the
//! server directly and then on the gateway in front of it, in turns, so that whatever else the machine does meets both.
//! What is called *added* is the difference of the two percentiles, which is not the percentile of a difference.

mod arguments;
mod gateway;
mod report;
mod usage;

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anbiq_lab::load::server::{self, PACED, Pace, SILENT, WHOLE};
use anbiq_lab::load::{Generator, Load, Outcome};
use anbiq_secret::Secret;
use futures::StreamExt;
use futures::stream;

use arguments::Arguments;
use gateway::{Account, Gateway};
use report::{Idle, Report, Row};
use usage::Usage;

/// The word that makes this program the model's server.
const MOCK: &str = "mock";

/// Longest time of one request, and of opening one stream.
const PATIENCE: Duration = Duration::from_secs(30);

/// A load of this length comes before each measurement, so that connections are open and caches warm.
const WARM_UP: Duration = Duration::from_millis(1_500);

/// Streams that are opened at the same time.
const OPENED_AT_ONCE: usize = 64;

/// How long streams stay silent before memory is read.
const SETTLING: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == MOCK) {
        return be_the_server().await;
    }
    let arguments = Arguments::parse(&words)?;
    let report = measure(&arguments).await?;
    write!(std::io::stdout(), "{report}")?;
    if let Some(path) = &arguments.json {
        serde_json::to_writer_pretty(File::create(path)?, &report)?;
    }
    Ok(())
}

/// Serves until whoever started this closes its end of standard input, be it by dying.
async fn be_the_server() -> Result<(), Box<dyn Error>> {
    let (base_url, serving) = server::bind(Pace::default()).await?;
    writeln!(std::io::stdout(), "{base_url}")?;
    let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = serving => served?,
        _ = closed => {}
    }
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<Report, Box<dyn Error>> {
    let (_mock, mock_url) = start_mock()?;
    let gateway = Gateway::start(arguments, &mock_url)?;
    let generator = Generator::default();
    let mut report = Report::new(&gateway.fsync()?);
    let bench = Bench { arguments, gateway: &gateway, generator: &generator, mock_url: &mock_url };
    let whole = arguments.rates.iter().map(|rate| (*rate, false));
    let streamed = arguments.stream_rates.iter().map(|rate| (*rate, true));
    for (rate, stream) in whole.chain(streamed) {
        for account in &gateway.accounts {
            talk(&format!("{rate} requests/s, {}, {}", if stream { "streamed" } else { "whole" }, account.plan));
            report.rows.push(bench.pair(rate, stream, account).await?);
        }
    }
    if let Some(streams) = arguments.idle_streams {
        talk(&format!("{streams} silent streams"));
        report.idle = Some(bench.idle(streams).await?);
    }
    report.journal = gateway.stop()?;
    Ok(report)
}

/// Starts this program once more, as the model's server.
fn start_mock() -> Result<(Stopped, String), Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.arg(MOCK).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut child = Stopped(child);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().ok_or("the server says nothing")?).read_line(&mut line)?;
    if line.trim().is_empty() {
        return Err("the model's server did not start".into());
    }
    Ok((child, line.trim().to_owned()))
}

/// A process that ends with this.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Bench<'a> {
    arguments: &'a Arguments,
    gateway: &'a Gateway,
    generator: &'a Generator,
    mock_url: &'a str,
}

impl Bench<'_> {
    /// One load, directly and through the gateway, in turns.
    async fn pair(&self, rate: f64, stream: bool, account: &Account) -> Result<Row, Box<dyn Error>> {
        let seconds = Duration::from_secs(self.arguments.seconds);
        let model = if stream { PACED } else { WHOLE };
        let direct = self.load(model, stream, rate, seconds, None);
        let through = self.load(model, stream, rate, seconds, Some(&account.key));
        for load in [&direct, &through] {
            let count = (load.rate * WARM_UP.as_secs_f64()).ceil() as u64;
            self.generator.run(&Load { count, ..load.clone() }).await?;
        }
        let (mut without, mut with, mut usage) = (Outcome::default(), Outcome::default(), Usage::default());
        for _ in 0..self.arguments.rounds {
            without.merge(&self.generator.run(&direct).await?);
            let before = self.gateway.usage()?;
            with.merge(&self.generator.run(&through).await?);
            usage = usage.plus(self.gateway.usage()?.since(before));
        }
        Ok(Row::new(rate, stream, &account.plan, &without, &with, usage))
    }

    fn load(&self, model: &str, stream: bool, rate: f64, length: Duration, key: Option<&Secret<String>>) -> Load {
        Load {
            base_url: if key.is_some() { &self.gateway.base_url } else { self.mock_url }.to_owned(),
            key: key.cloned(),
            model: model.to_owned(),
            stream,
            rate,
            count: (rate * length.as_secs_f64()).ceil() as u64,
            in_flight: self.arguments.in_flight,
            patience: PATIENCE,
        }
    }

    /// The gateway's memory with many streams open that say nothing.
    async fn idle(&self, asked: usize) -> Result<Idle, Box<dyn Error>> {
        // The gateway needs two sockets a stream and some files besides, and connections of loads before are open still.
        let files = usage::file_limit()?;
        let streams = asked.min(files.saturating_sub(1_000) / 2);
        if streams < asked {
            talk(&format!("only {streams} of {asked} streams: a process may have {files} files open here"));
        }
        let account = self.gateway.accounts.first().ok_or("no account")?;
        let load = self.load(SILENT, true, 1.0, Duration::from_secs(1), Some(&account.key));
        let before = self.gateway.usage()?;
        let started = Instant::now();
        let opening = stream::iter(0..streams).map(|_| self.generator.open(&load)).buffer_unordered(OPENED_AT_ONCE);
        let (mut open, mut failed) = (Vec::new(), 0);
        let mut opening = std::pin::pin!(opening);
        while let Some(opened) = opening.next().await {
            match opened {
                Ok(stream) => open.push(stream),
                Err(_) => failed += 1,
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLING).await;
        let after = self.gateway.usage()?;
        Ok(Idle::new(open.len(), failed, seconds, before, after))
    }
}

fn talk(line: &str) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}
