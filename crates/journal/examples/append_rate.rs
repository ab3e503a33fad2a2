//! How many exchanges a second a journal on this disk makes durable: `cargo xtask bench journal [DIR]`.
//!
//! Every appender waits for the fsync of its exchange before it appends the next, as a gateway's request does. The
//! exchanges are twinned and carry sketches and commitments, and no texts.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anbiq_domain::{
    AccountId, Client, Digest, Draws, Entry, Exchange, ExchangeId, JournalId, KeyId, Keyed, MINHASHES, Money, Outcome,
    RequestFacts, Seeded, Sketch, Timestamp, Twinning, Usage,
};
use anbiq_journal::{Journal, Options, SigningKey, seal, verify};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let parent = parent.join(format!("anbiq-append-rate-{}", std::process::id()));
    let mut out = std::io::stdout();
    let size = serde_json::to_vec(&exchange(&mut Seeded::new(1))?)?.len();
    writeln!(out, "an exchange takes {size} bytes; its sketch and its client {}", sketch_bytes()?)?;
    for appenders in [1, 16, 256, 1024] {
        let dir = parent.join(appenders.to_string());
        let signer = SigningKey::generate()?;
        let journal = Journal::create(&dir, JournalId::new("rate")?, signer.clone(), Options::default())?;
        let start = Instant::now();
        let tasks: Vec<_> = (0..appenders)
            .map(|appender| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    let entry = exchange(&mut Seeded::new(appender)).map_err(|error| error.to_string())?;
                    let mut count = 0_u64;
                    while start.elapsed() < Duration::from_secs(3) {
                        journal.append(&entry).await.map_err(|error| error.to_string())?;
                        count += 1;
                    }
                    Ok::<u64, String>(count)
                })
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await??;
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        writeln!(out, "{appenders:>5} appenders: {rate:>9.0} exchanges/s appended and fsynced")?;
        tokio::task::spawn_blocking(move || journal.close()).await??;
        let start = Instant::now();
        let report = verify(&dir, None)?;
        let rate = report.size as f64 / start.elapsed().as_secs_f64();
        writeln!(out, "      verified {} records: {rate:.0} records/s", report.size)?;
        let start = Instant::now();
        let files = seal(&dir, signer)?;
        let took = start.elapsed().as_secs_f64();
        let bytes = files.iter().map(|file| file.bytes).sum::<u64>();
        writeln!(
            out,
            "      sealed: {:.0} records/s, {} bytes a record",
            report.size as f64 / took,
            bytes / report.size
        )?;
    }
    std::fs::remove_dir_all(&parent)?;
    Ok(())
}

fn exchange(random: &mut Seeded) -> Result<Entry, Box<dyn std::error::Error>> {
    let at = Timestamp::from_milliseconds(1_700_000_000_000);
    let mut keyed = || Keyed(random.bits());
    let client = Client { address: keyed(), network: keyed(), agent: keyed() };
    let minhash = [0; MINHASHES].map(|_: u32| keyed().0 as u32);
    let sketch = Sketch { exact: keyed(), opening: keyed(), minhash, words: 180, flags: 3 };
    let id = ExchangeId::fresh(at, random);
    Ok(Entry::Exchange(Box::new(Exchange {
        id,
        at,
        duration_ms: 840,
        account: AccountId::new("acme")?,
        key: KeyId::new("a1b2c3d4")?,
        model: "teacher".to_owned(),
        terms: None,
        grant: None,
        request: RequestFacts {
            max_tokens: 512,
            n: 1,
            messages: 2,
            temperature: 0.7,
            top_p: 1.0,
            ..Default::default()
        },
        client,
        sketch,
        usage: Usage { prompt_tokens: 240, completion_tokens: 310, twin_tokens: 290, ..Usage::default() },
        cost: Money::from_nanos(740_000),
        outcome: Outcome::Completed,
        draws: Draws {
            prompt: Digest::of(b"prompt"),
            texts: vec![Digest::of(b"one"), Digest::of(b"two")],
            twinning: Some(Twinning { served: 1, ..Twinning::default() }),
            open: Vec::new(),
            fingerprints: Vec::new(),
        },
        texts: None,
        sealed: None,
    })))
}

/// What sketch and client take of an entry's JSON.
fn sketch_bytes() -> Result<String, Box<dyn std::error::Error>> {
    let Entry::Exchange(exchange) = exchange(&mut Seeded::new(1))? else { return Err("not an exchange".into()) };
    let client = serde_json::to_string(&exchange.client)?.len();
    let sketch = serde_json::to_string(&exchange.sketch)?.len();
    Ok(format!("{} of them", client + sketch + r#""client":,"sketch":,"#.len()))
}
