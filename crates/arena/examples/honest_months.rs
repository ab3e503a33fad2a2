//! Whom months of honest traffic accuse: `cargo xtask bench honest [--people N] [--days D] [--seed N] [--campaign N] [--no-alarms]
//! [--copies N] [--rounds N] [--threads N] [--data DIR] [--folder DIR]`.
//!
//! Composed traffic is put by in files, customer by customer, and then followed in order of time as `anbiq watch --follow` does it. So
//! neither its length nor its volume is bounded by memory. It says how many operators ever came to the stages *review* and *act*, which
//! honest accounts stand accused or before a person at the end, how long it took and how much memory. With `--campaign N` one
//! campaign of N accounts that share something is among them, and what was gone at its first alarm is counted.
//!
//! What a volume costs that nobody composes is measured with `--copies N`, where each account is N accounts that do the same at other
//! times, and `--rounds N`, where all comes N times, one after another, of the same accounts. Whom that accuses is no figure: copies
//! are one customer's in all but name.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anbiq_arena::{Campaign, Class, History, Replay};
use anbiq_domain::{Entry, Timestamp};
use anbiq_watch::{Alarms, Config, Report, Standing, State};
use serde_json::Value;

struct Options {
    people: usize,
    days: f64,
    seed: u64,
    campaign: Option<usize>,
    alarms: bool,
    out: Option<PathBuf>,
    replay: Replay,
    threads: Option<NonZeroUsize>,
    data: Option<PathBuf>,
    folder: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let mut out = std::io::stdout().lock();
    let campaign = options.campaign.map(|accounts| Campaign::new(accounts, 0.0, true, 0));
    let started = Instant::now();
    let Options { people, days, seed, .. } = options;
    let history = History::compose(seed, people, days, campaign.as_ref(), options.data.as_deref(), &options.folder);
    let history = history?;
    let classes: HashMap<String, Class> = history.classes().map(|(name, class)| (name.to_owned(), class)).collect();
    writeln!(
        out,
        "{} accounts, {} exchanges, {days} days; {:.0} % of the honest volume is of hard negatives; composed in {:.0} s",
        classes.len(),
        history.exchanges(),
        100.0 * history.hard(),
        started.elapsed().as_secs_f64()
    )?;

    let alarms = options.alarms.then(Alarms::default);
    let mut state =
        State::new(Config { alarms, listed_singles: usize::MAX, threads: options.threads, ..Config::default() });
    let (started, mut looking, mut read, mut day) = (Instant::now(), Duration::ZERO, 0_u64, 0.0);
    let mut taken: Vec<Timestamp> = Vec::new();
    history.read(options.replay, &mut |hour, entry| {
        if hour >= 24.0 * (day + 10.0) {
            day = (hour / 24.0).floor();
            let spent = started.elapsed().as_secs_f64();
            // Talk; that nobody hears it is no failure.
            let _ = writeln!(
                std::io::stderr(),
                "{day} days: {} accounts, {read} exchanges, {} looks, {spent:.0} s, {}",
                state.accounts(),
                state.looks(),
                peak()
            );
        }
        if let Entry::Exchange(exchange) = &entry {
            read += 1;
            if classes.get(exchange.account.as_str()) == Some(&Class::Campaign) {
                taken.push(exchange.at);
            }
        }
        let (before, looks) = (Instant::now(), state.looks());
        state.take(entry);
        if state.looks() > looks {
            looking += before.elapsed();
        }
    })?;
    let spent = started.elapsed();
    let (before, report) = (Instant::now(), state.report());
    writeln!(
        out,
        "followed in {:.0} s, {:.0} of it {} looks; a report {:.1} s; {}",
        spent.as_secs_f64(),
        looking.as_secs_f64(),
        state.looks(),
        before.elapsed().as_secs_f64(),
        peak()
    )?;
    if let Some(path) = &options.out {
        std::fs::write(path, serde_json::to_vec(&(&report, &state))?)?;
    }
    let written = serde_json::to_value(&state)?;
    write_ever(&mut out, &written, &classes)?;
    write_end(&mut out, &report, &classes)?;
    if options.campaign.is_some() {
        write_campaign(&mut out, &report, &classes, &taken)?;
    }
    std::fs::remove_dir_all(&options.folder)?;
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        people: 450,
        days: 90.0,
        seed: 1,
        campaign: None,
        alarms: true,
        out: None,
        replay: Replay::default(),
        threads: None,
        data: std::env::var_os("ANBIQ_DATA").map(PathBuf::from),
        folder: std::env::temp_dir().join(format!("anbiq-honest-{}", std::process::id())),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
        match word.as_str() {
            "--people" => options.people = value()?.parse()?,
            "--days" => options.days = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--campaign" => options.campaign = Some(value()?.parse()?),
            "--out" => options.out = Some(value()?.into()),
            "--no-alarms" => options.alarms = false,
            "--copies" => options.replay.copies = value()?.parse()?,
            "--rounds" => options.replay.rounds = value()?.parse()?,
            "--threads" => options.threads = Some(value()?.parse()?),
            "--data" => options.data = Some(value()?.into()),
            "--folder" => options.folder = PathBuf::from(value()?).join("rows"),
            _ => return Err(format!("`{word}` is not known").into()),
        }
    }
    Ok(options)
}

/// Operators that came to a stage at any look, by what their first account is.
fn write_ever(out: &mut impl Write, state: &Value, classes: &HashMap<String, Class>) -> Result<(), Box<dyn Error>> {
    let given = state["world"]["looks"]["given"].as_object();
    for (stage, word) in [("review", "before a person"), ("act", "at the stage act")] {
        let mut by: BTreeMap<&str, u64> = BTreeMap::new();
        for (account, _) in given.into_iter().flatten().filter(|given| !given.1[stage].is_null()) {
            *by.entry(classes.get(account).map_or("unknown", |class| class.name())).or_default() += 1;
        }
        let by: Vec<String> = by.iter().map(|(class, count)| format!("{count} of {class}")).collect();
        let by = if by.is_empty() { "none".to_owned() } else { by.join(", ") };
        writeln!(out, "operators of five accounts and more that ever came {word}: {by}")?;
    }
    Ok(())
}

/// Who stands accused or before a person at the end.
fn write_end(out: &mut impl Write, report: &Report, classes: &HashMap<String, Class>) -> Result<(), Box<dyn Error>> {
    let (mut all, mut counts) = (BTreeMap::<Class, u64>::new(), BTreeMap::<Class, [u64; 2]>::new());
    classes.values().for_each(|class| *all.entry(*class).or_default() += 1);
    let mut campaigns = 0;
    for operator in &report.operators {
        let place = match operator.standing {
            Standing::Review { .. } => 0,
            Standing::Campaign(_) => 1,
            _ => continue,
        };
        let of = |member: &anbiq_watch::Member| classes.get(member.account.as_str()).copied();
        let honest = operator.accounts.iter().filter_map(of).all(Class::is_honest);
        campaigns += u64::from(honest && place == 1);
        for class in operator.accounts.iter().filter_map(of) {
            counts.entry(class).or_default()[place] += 1;
        }
    }
    writeln!(out, "at the end {campaigns} campaigns of honest accounts alone; accounts before a person, and accused:")?;
    for (class, all) in all {
        let [reviewed, accused] = counts.get(&class).copied().unwrap_or_default();
        let share = 100.0 * reviewed as f64 / all as f64;
        writeln!(out, "  {:<34} {all:>7} {reviewed:>6} ({share:.2} %) {accused:>6}", class.name())?;
    }
    Ok(())
}

/// What was gone of the campaign whose exchanges were `taken` when any of its accounts first came before a person, or to *act*.
fn write_campaign(
    out: &mut impl Write,
    report: &Report,
    classes: &HashMap<String, Class>,
    taken: &[Timestamp],
) -> Result<(), Box<dyn Error>> {
    let its = |account: &str| classes.get(account) == Some(&Class::Campaign);
    let (mut review, mut act) = (None, None);
    let mut sizes = Vec::new();
    for operator in &report.operators {
        let members = operator.accounts.iter().filter(|member| its(member.account.as_str())).count();
        if members == 0 {
            continue;
        }
        sizes.push(members);
        if let Some(alarm) = operator.alarm.as_ref().filter(|_| 2 * members > operator.accounts.len()) {
            review = [review, alarm.review.map(|leak| leak.by)].into_iter().flatten().min();
            act = [act, alarm.act.map(|leak| leak.by)].into_iter().flatten().min();
        }
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    writeln!(
        out,
        "the campaign is {} operators, the largest of {:?} accounts",
        sizes.len(),
        &sizes[..sizes.len().min(5)]
    )?;
    for (word, by) in [("before a person", review), ("at the stage act", act)] {
        let Some(by) = by else {
            writeln!(out, "it never came {word}")?;
            continue;
        };
        let gone = taken.iter().filter(|at| **at <= by).count();
        let share = 100.0 * gone as f64 / taken.len().max(1) as f64;
        writeln!(
            out,
            "when part of it first came {word}, {gone} of {} exchanges were gone ({share:.2} %)",
            taken.len()
        )?;
    }
    Ok(())
}

/// The most memory that this process held, where the system says so.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.map_or_else(|| "memory unknown".into(), |kib| format!("{:.0} MiB at most", kib / 1024.0))
}
