//! What is measured.

use std::path::PathBuf;

const USAGE: &str = "usage: bench_serve [--rates R,R] [--stream-rates R,R] [--seconds S] [--rounds N] [--in-flight N] \
    [--idle-streams N] [--program FILE] [--dir DIR] [--ledger-dir DIR] [--json FILE]";

/// The arguments, all within bounds.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    /// Requests a second whose answers come whole.
    pub(crate) rates: Vec<f64>,
    /// Requests a second whose answers are streamed.
    pub(crate) stream_rates: Vec<f64>,
    /// Length of one load.
    pub(crate) seconds: u64,
    /// Loads of each side, in turns.
    pub(crate) rounds: u32,
    /// Most requests under way.
    pub(crate) in_flight: u32,
    /// Streams to open that say nothing.
    pub(crate) idle_streams: Option<usize>,
    /// `anbiq`.
    pub(crate) program: PathBuf,
    /// Where the installation stands while it is measured: on the disk that is to be measured.
    pub(crate) dir: PathBuf,
    /// Where the ledger stands, if not there: in memory, the rest is what the journal costs.
    pub(crate) ledger_dir: Option<PathBuf>,
    /// Where the figures go, besides standard output.
    pub(crate) json: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut arguments = Self {
            rates: vec![1_000.0, 2_000.0, 4_000.0],
            stream_rates: vec![50.0],
            seconds: 10,
            rounds: 2,
            in_flight: 512,
            idle_streams: None,
            program: "target/release/anbiq".into(),
            dir: std::env::temp_dir(),
            ledger_dir: None,
            json: None,
        };
        let mut words = words.iter();
        while let Some(flag) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            let number = |least: u64, most: u64| {
                let number = value.parse().ok().filter(|number| (least..=most).contains(number));
                number.ok_or_else(|| format!("`{flag}` is a number between {least} and {most}"))
            };
            match flag.as_str() {
                "--rates" => arguments.rates = rates(flag, value)?,
                "--stream-rates" => arguments.stream_rates = rates(flag, value)?,
                "--seconds" => arguments.seconds = number(1, 600)?,
                "--rounds" => arguments.rounds = number(1, 20)? as u32,
                "--in-flight" => arguments.in_flight = number(1, 10_000)? as u32,
                "--idle-streams" => arguments.idle_streams = Some(number(1, 50_000)? as usize),
                "--program" => arguments.program = value.into(),
                "--dir" => arguments.dir = value.into(),
                "--ledger-dir" => arguments.ledger_dir = Some(value.into()),
                "--json" => arguments.json = Some(value.into()),
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(arguments)
    }
}

/// Rates, separated by commas; `none` for none.
fn rates(flag: &str, value: &str) -> Result<Vec<f64>, String> {
    if value == "none" {
        return Ok(Vec::new());
    }
    let rate = |word: &str| word.parse().ok().filter(|rate| (0.1..=100_000.0).contains(rate));
    let rates = value.split(',').map(rate).collect::<Option<Vec<f64>>>();
    rates.ok_or_else(|| format!("`{flag}` is `none` or some rates between 0.1 and 100000, such as 1000,2000"))
}
