//! How many entries a second a journal on this disk makes durable: `cargo run --release --example append_rate [DIR]`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anbiq_domain::{AccountId, Entry, JournalId, Refusal, Timestamp};
use anbiq_journal::{Journal, Options, SigningKey, verify};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let parent = parent.join(format!("anbiq-append-rate-{}", std::process::id()));
    let mut out = std::io::stdout();
    for (appenders, bytes) in [(1, 1_000), (16, 1_000), (256, 1_000), (1024, 1_000), (256, 10_000)] {
        let dir = parent.join(format!("{appenders}-{bytes}"));
        let signer = SigningKey::generate()?;
        let journal = Journal::create(&dir, JournalId::new("rate")?, signer, Options::default())?;
        let start = Instant::now();
        let tasks: Vec<_> = (0..appenders)
            .map(|_| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    let account = AccountId::new("a").map_err(|error| error.to_string())?;
                    let (at, code) = (Timestamp::default(), "x".repeat(bytes));
                    let entry = Entry::Refused(Refusal { at, account, code });
                    let mut count = 0_u64;
                    while start.elapsed() < Duration::from_secs(2) {
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
        writeln!(out, "{appenders:>5} appenders, entries of {bytes:>6} bytes: {rate:>9.0} entries/s")?;
        tokio::task::spawn_blocking(move || journal.close()).await??;
        let start = Instant::now();
        let report = verify(&dir, None)?;
        let rate = report.size as f64 / start.elapsed().as_secs_f64();
        writeln!(out, "      verified {} records: {rate:.0} records/s", report.size)?;
    }
    std::fs::remove_dir_all(&parent)?;
    Ok(())
}
