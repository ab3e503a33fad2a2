//! Kills a writing process at random moments: nothing that it was told is durable may be missing.

#[cfg(all(test, unix))]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::time::Duration;

    use anbiq_domain::{AccountId, Entry, JournalId, Refusal, Seeded, Timestamp};
    use anbiq_journal::{Journal, Options, Reader, SigningKey, verify};

    const DIR: &str = "ANBIQ_TEST_JOURNAL";
    const ROUNDS: usize = 24;

    fn key() -> SigningKey {
        SigningKey::from_bytes([9; 32])
    }

    fn options() -> Options {
        Options { segment_bytes: 20_000, checkpoint_every: 16, ..Options::default() }
    }

    /// The process that is killed: appends from several threads and says what was acknowledged.
    #[test]
    #[ignore = "is run by the test below, in a process of its own"]
    fn writer() {
        let Ok(dir) = std::env::var(DIR) else { return };
        let (journal, _) = Journal::open(Path::new(&dir), key(), options()).unwrap();
        std::thread::scope(|scope| {
            for appender in 0..4 {
                let journal = &journal;
                scope.spawn(move || {
                    for number in 0.. {
                        let code = "x".repeat((appender * 37 + number) % 400);
                        let account = AccountId::new("a").unwrap();
                        let at = Timestamp::from_milliseconds(number as i64);
                        let position = journal.append_blocking(&Entry::Refused(Refusal { at, account, code })).unwrap();
                        writeln!(std::io::stdout(), "acknowledged {} {}", position.index, position.leaf).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn a_killed_writer_loses_nothing_it_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("journal");
        Journal::create(&dir, JournalId::new("j").unwrap(), key(), options()).unwrap().close().unwrap();
        let mut random = Seeded::new(11);
        let mut acknowledged = BTreeMap::new();
        for round in 0..ROUNDS {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "tests::writer", "--ignored", "--nocapture"])
                .env(DIR, &dir)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let output = BufReader::new(child.stdout.take().unwrap());
            let (sender, lines) = mpsc::channel();
            let listener = std::thread::spawn(move || {
                for line in output.lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
            let mut heard = Vec::new();
            while !heard.iter().any(|line: &String| line.contains("acknowledged ")) {
                heard.push(lines.recv_timeout(Duration::from_secs(60)).unwrap());
            }
            std::thread::sleep(Duration::from_micros(random.below(25_000) as u64));
            child.kill().unwrap();
            child.wait().unwrap();
            listener.join().unwrap();
            heard.extend(lines.try_iter());
            for line in heard {
                // The test runner may have written something before on the same line.
                let Some((_, said)) = line.split_once("acknowledged ") else { continue };
                let Some((index, leaf)) = said.split_once(' ').filter(|(_, leaf)| leaf.len() == 64) else { continue };
                acknowledged.insert(index.parse::<u64>().unwrap(), leaf.to_owned());
            }
            let (journal, recovery) = Journal::open(&dir, key(), options()).unwrap();
            journal.close().unwrap();
            let report = verify(&dir, Some(&key().public())).unwrap();
            assert!(report.is_sealed() && report.size == recovery.entries, "round {round}: {report:?}");
        }
        let mut left = acknowledged.clone();
        for record in Reader::open(&dir).unwrap().entries().unwrap() {
            let record = record.unwrap();
            if let Some(leaf) = left.remove(&record.index) {
                assert_eq!(record.leaf.to_string(), leaf, "record {}", record.index);
            }
        }
        assert!(left.is_empty() && acknowledged.len() >= ROUNDS, "{} lost of {}", left.len(), acknowledged.len());
    }
}
