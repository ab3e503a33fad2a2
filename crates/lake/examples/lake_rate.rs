//! How long each named question takes over a sealed journal, and in how much memory: `cargo xtask bench lake [EXCHANGES] [DIR] [MIB]`.
//!
//! The exchanges are generated from a seed: 20,000 accounts, half of the prompts from a list of 100,000. Each question is asked in
//! a process of its own, so that the peak of its memory, as the kernel counts it, is its alone.

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anbiq_domain::{
    AccountId, Client, Digest, Draws, Entry, Exchange, ExchangeId, JournalId, KeyId, Keyed, MINHASHES, Money, Outcome,
    PlanId, RequestFacts, Seeded, Sketch, Timestamp, Usage,
};
use anbiq_journal::{Journal, Options, SigningKey};
use anbiq_lake::{Lake, QUERIES, Settings, Sources, query};

/// Accounts between which the exchanges are divided.
const ACCOUNTS: usize = 20_000;
/// 2026-04-22T00:00:00Z
const START: i64 = 1_776_816_000_000;
const DAY: i64 = 86_400_000;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [ask, journal, name, memory] = &words[..]
        && ask == "ask"
    {
        return tell(Path::new(journal), name, memory.parse()?);
    }
    let exchanges: usize = words.first().map_or(Ok(1_000_000), |number| number.parse())?;
    let parent = words.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let memory = words.get(2).map_or("1024", String::as_str);
    let folder = parent.join(format!("anbiq-lake-rate-{}", std::process::id()));
    let done = run(exchanges, &folder, memory);
    fs::remove_dir_all(&folder)?;
    done
}

fn run(exchanges: usize, journal: &Path, memory: &str) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    write(exchanges, journal)?;
    let files = anbiq_journal::seal(journal, key())?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{exchanges} exchanges written and sealed in {:.0} s: {} files, {:.0} MB",
        started.elapsed().as_secs_f64(),
        files.len(),
        bytes as f64 / 1e6
    )?;
    let program = std::env::current_exe()?;
    for query in QUERIES {
        let mut command = Command::new(&program);
        if !command.arg("ask").arg(journal).args([query.name, memory]).status()?.success() {
            return Err(format!("`{}` has no answer", query.name).into());
        }
    }
    Ok(())
}

/// Asks one question and says what it took. Comparing the files with what was signed comes before, and is told by itself.
fn tell(journal: &Path, name: &str, memory: u64) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(32 << 20).build()?;
    runtime.block_on(async {
        let started = Instant::now();
        let mut sources = Sources::new(journal.parent())?;
        sources.journal(journal)?;
        let checked = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let lake = Lake::open(Settings { memory: memory << 20, ..Settings::default() }, sources).await?;
        let mut answer = lake.ask(&query(name)?.with(&[])?).await?;
        let mut count = 0;
        while let Some(rows) = answer.rows().await? {
            count += rows.len();
        }
        let took = started.elapsed().as_secs_f64();
        let mut out = std::io::stdout();
        writeln!(
            out,
            "{name:<10} {count:>8} rows in {took:>6.2} s (files checked in {checked:.2} s), peak {}",
            peak()
        )?;
        Ok(())
    })
}

fn write(exchanges: usize, dir: &Path) -> Result<(), Box<dyn Error>> {
    let options = Options { checkpoint_every: 0, ..Options::default() };
    let journal = Journal::create(dir, JournalId::new("rate")?, key(), options)?;
    let mut random = Seeded::new(1).fork("lake");
    let accounts = (0..ACCOUNTS).map(|number| AccountId::new(format!("account-{number:05}")));
    let accounts = accounts.collect::<Result<Vec<_>, _>>()?;
    let mut entries: Vec<Entry> =
        (0..).zip(&accounts).map(|(number, account)| opened(number, account)).collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for number in 0..exchanges {
        let who = random.below(ACCOUNTS);
        let at = START + (number as i64 * 30 * DAY) / exchanges as i64;
        entries.push(Entry::Exchange(Box::new(exchange(at, who, &accounts[who], &mut random)?)));
        if entries.len() >= 1024 || number + 1 == exchanges {
            let waiting = entries.iter().map(|entry| journal.append(entry));
            for done in runtime.block_on(futures::future::join_all(waiting)) {
                done?;
            }
            entries.clear();
        }
    }
    journal.close()?;
    Ok(())
}

fn opened(number: usize, account: &AccountId) -> Result<Entry, Box<dyn Error>> {
    Ok(Entry::AccountOpened {
        at: Timestamp::from_milliseconds(START - DAY * (number % 30) as i64),
        account: account.clone(),
        plan: PlanId::new("standard")?,
        payment: Some(keyed("payment", number / 2)),
    })
}

fn exchange(at: i64, who: usize, account: &AccountId, random: &mut Seeded) -> Result<Exchange, Box<dyn Error>> {
    let at = Timestamp::from_milliseconds(at);
    let prompt = if random.chance(0.5) { random.below(100_000) } else { 100_000 + random.below(1 << 40) };
    let said = random.below(900) as u64;
    let mut minhash = [0; MINHASHES];
    minhash.iter_mut().for_each(|value| *value = random.bits() as u32);
    Ok(Exchange {
        id: ExchangeId::fresh(at, random),
        at,
        duration_ms: 500,
        account: account.clone(),
        key: KeyId::new(account.as_str())?,
        model: "teacher".to_owned(),
        terms: None,
        grant: None,
        request: RequestFacts { max_tokens: 512, n: 1, messages: 1, ..RequestFacts::default() },
        client: Client {
            network: keyed("network", who / 3),
            address: keyed("address", who / 3 * 5 + random.below(5)),
            agent: keyed("agent", who % 200),
        },
        sketch: Sketch {
            exact: keyed("prompt", prompt),
            opening: keyed("template", prompt % 5000),
            minhash,
            words: 12,
            flags: 0,
        },
        usage: Usage { prompt_tokens: 80, cached_tokens: 0, completion_tokens: said, twin_tokens: 0 },
        cost: Money::from_nanos(1_700 * said as i64),
        outcome: Outcome::Completed,
        draws: Draws {
            prompt: Digest::of(b""),
            texts: vec![Digest::of(&random.bits().to_be_bytes())],
            open: Vec::new(),
            fingerprints: Vec::new(),
            twinning: None,
        },
        texts: None,
        sealed: None,
    })
}

fn key() -> SigningKey {
    SigningKey::from_bytes([9; 32])
}

/// Spreads numbers of one kind over all 64 bits, as a keyed hash does (SplitMix64's finaliser).
fn keyed(kind: &str, number: usize) -> Keyed {
    let mut bits = (number as u64).wrapping_add(kind.len() as u64 * 0x9e37_79b9_7f4a_7c15);
    for factor in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        bits = (bits ^ (bits >> 30)).wrapping_mul(factor);
    }
    Keyed(bits ^ (bits >> 31))
}

/// Most memory that the process has had, as the kernel counts it.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kilobytes.map_or_else(|| "not known".to_owned(), |kilobytes| format!("{:.0} MiB", kilobytes / 1024.0))
}
