//! What it costs to follow a stream: `cargo xtask bench follow [--people N] [--days D] [--seed N] [--data DIR]`.
//!
//! Composed traffic is followed with alarms as `anbiq watch --follow` does it, and once more without looks. It says how long looks
//! take, how long a report, and how many bytes the state has for each account: of the account itself and of what all have in common.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anbiq_arena::Composed;
use anbiq_watch::{Alarms, Config, State};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut people, mut days, mut seed) = (500, 5.0, 1);
    let mut data = std::env::var_os("ANBIQ_DATA").map(PathBuf::from);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
        match word.as_str() {
            "--people" => people = value()?.parse()?,
            "--days" => days = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--data" => data = Some(value()?.into()),
            _ => return Err(format!("`{word}` is not known").into()),
        }
    }
    let composed = Composed::new(seed, people, days, data.as_deref())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} accounts, {} exchanges, {days} days", composed.accounts(), composed.exchanges())?;

    // Making an entry takes time as well, as reading one from a journal does.
    let started = Instant::now();
    let made = composed.entries().count();
    let making = started.elapsed();
    let (mut plain, _) = follow(&composed, None);
    let (mut followed, looks) = follow(&composed, Some(Alarms::default()));
    let alone = plain.spent.saturating_sub(making);
    let taking: Duration = looks.iter().sum();
    let rate = composed.exchanges() as f64 / alone.as_secs_f64().max(1e-9);
    writeln!(
        out,
        "taking in {made} entries without looks: {:.2} s, {rate:.0} exchanges a second",
        alone.as_secs_f64()
    )?;
    let per = |part: Duration, of: usize| 1e3 * part.as_secs_f64() / of.max(1) as f64;
    let mut sorted = looks.clone();
    sorted.sort();
    let longest = sorted.last().copied().unwrap_or_default();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    writeln!(
        out,
        "{} looks: {:.2} s in all, median {:.0} ms, longest {:.0} ms, {:.3} ms an account at the longest",
        looks.len(),
        taking.as_secs_f64(),
        per(median, 1),
        per(longest, 1),
        per(longest, composed.accounts()),
    )?;
    let with = followed.spent.saturating_sub(making);
    writeln!(
        out,
        "with looks: {:.2} s, {:.0} exchanges a second",
        with.as_secs_f64(),
        composed.exchanges() as f64 / with.as_secs_f64().max(1e-9)
    )?;
    for (name, state) in [("without alarms", &mut plain.state), ("with alarms", &mut followed.state)] {
        let started = Instant::now();
        let report = state.report();
        writeln!(
            out,
            "a report {name}: {:.0} ms, {} operators",
            per(started.elapsed(), 1),
            report.operators.len() as u64 + report.unlisted
        )?;
    }
    write_size(&mut out, &followed.state)?;
    Ok(())
}

struct Followed {
    state: State,
    spent: Duration,
}

/// Follows the stream; the time of every look besides.
fn follow(composed: &Composed, alarms: Option<Alarms>) -> (Followed, Vec<Duration>) {
    let mut state = State::new(Config { alarms, ..Config::default() });
    let mut looks = Vec::new();
    let started = Instant::now();
    for entry in composed.entries() {
        let (before, taken) = (Instant::now(), state.looks());
        state.take(entry);
        if state.looks() > taken {
            looks.push(before.elapsed());
        }
    }
    (Followed { state, spent: started.elapsed() }, looks)
}

fn write_size(out: &mut impl std::io::Write, state: &State) -> Result<(), Box<dyn Error>> {
    let accounts = state.accounts().max(1);
    let written = serde_json::to_vec(state)?;
    let value: Value = serde_json::from_slice(&written)?;
    let profiles = value["world"]["profiles"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut each: Vec<usize> = profiles.iter().map(packed).collect::<Result<_, _>>()?;
    each.sort_unstable();
    let all = packed(&value)?;
    let own = packed(&value["world"]["profiles"])?;
    writeln!(
        out,
        "state: {} bytes as JSON, {all} as it is written down (Zstandard): {} an account",
        written.len(),
        all / accounts
    )?;
    writeln!(
        out,
        "of that the accounts' own {own}: {} an account; what all have in common {}",
        own / accounts,
        all.saturating_sub(own)
    )?;
    let at = |share: f64| each.get(((each.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(0);
    writeln!(
        out,
        "an account by itself, packed: median {} bytes, 95 % below {}, largest {}",
        at(0.5),
        at(0.95),
        at(1.0)
    )?;
    Ok(())
}

/// Bytes of a value as `--follow` writes it.
fn packed(value: &Value) -> Result<usize, Box<dyn Error>> {
    Ok(zstd::encode_all(&serde_json::to_vec(value)?[..], 3)?.len())
}
