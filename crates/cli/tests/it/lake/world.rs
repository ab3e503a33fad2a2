//! A journal, sealed in part, and an imported log, made of a seed: with whatever the questions ask about.

use std::path::Path;

use anbiq_domain::{
    AccountId, Client, Digest, Draws, Entry, Exchange, ExchangeId, GrantId, JournalId, KeyId, Keyed, MINHASHES, Money,
    Outcome, PlanId, Refusal, RequestFacts, Seeded, Sketch, Timestamp, Usage,
};
use anbiq_journal::{Journal, Options, Reader, SigningKey};
use serde_json::json;

use crate::support::Place;

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// 2026-04-22T00:00:00Z
const START: i64 = 1_776_816_000_000;

/// Writes the journal `journal` of so many exchanges, two thirds of it sealed, and the log `imported`.
pub(crate) fn write(place: &Place, exchanges: usize) {
    let entries = entries(exchanges);
    let segment_bytes = (exchanges as u64 * 100).max(4096);
    let options = || Options { segment_bytes, checkpoint_every: 0, ..Options::default() };
    let (dir, key) = (place.path("journal"), || SigningKey::from_bytes([9; 32]));
    let journal = Journal::create(&dir, JournalId::new("lake-test").unwrap(), key(), options()).unwrap();
    let (sealed, open) = entries.split_at(entries.len() * 2 / 3);
    append(journal, sealed);
    let files = anbiq_journal::seal(&dir, key()).unwrap();
    assert!(files.len() > 1, "there is more than one file to read: {}", files.len());
    append(Journal::open(&dir, key(), options()).unwrap().0, open);
    place.write("key", &"07".repeat(32));
    place.write("log.jsonl", &log(exchanges / 4));
    let imported = place.run("import log.jsonl --key key --out imported");
    assert_eq!(imported.code, 0, "{}", imported.err);
}

/// All entries of a journal, as they can be read back.
pub(crate) fn read(dir: &Path) -> Vec<Entry> {
    Reader::open(dir).unwrap().entries().unwrap().map(|record| record.unwrap().entry).collect()
}

fn append(journal: Journal, entries: &[Entry]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // As many at once as fit the queue, so that many share one sync of the disk.
        for some in entries.chunks(64) {
            let waiting = some.iter().map(|entry| journal.append(entry));
            for done in futures::future::join_all(waiting).await {
                done.unwrap();
            }
        }
    });
    journal.close().unwrap();
}

fn entries(exchanges: usize) -> Vec<Entry> {
    let mut random = Seeded::new(8).fork("journal");
    let accounts: Vec<AccountId> =
        (0..60).map(|number| AccountId::new(format!("account-{number:02}")).unwrap()).collect();
    let mut entries = Vec::new();
    for (number, account) in accounts.iter().enumerate() {
        // Six neighbours pay alike; of some nobody knows how they pay.
        let payment = (number % 5 != 0).then(|| keyed("payment", number / 6));
        let at = at(START + DAY * (number as i64 % 6 - 2));
        let opened = |payment| Entry::AccountOpened {
            at,
            account: account.clone(),
            plan: PlanId::new("standard").unwrap(),
            payment,
        };
        entries.push(opened(payment));
        if number % 10 == 3 {
            entries.push(opened(None));
        }
    }
    let mut now = START;
    for _ in 0..exchanges {
        now += random.below(4 * 60 * SECOND as usize) as i64;
        let who = random.below(accounts.len());
        entries.push(Entry::Exchange(Box::new(exchange(now, who, &accounts[who], &mut random))));
        if random.chance(0.05) {
            let codes = ["rate_limit_exceeded", "account_budget_exceeded", "prompt_too_long"];
            let code = (*random.pick(&codes).unwrap()).to_owned();
            let account = accounts[who].clone();
            entries.push(Entry::Refused(Refusal { at: at(now + SECOND), account, code }));
            // Its neighbour goes on, now and then in time.
            let next = (who / 2 * 2) + (who + 1) % 2;
            let soon = now + SECOND + random.below(6 * SECOND as usize) as i64;
            entries.push(Entry::Exchange(Box::new(exchange(soon, next, &accounts[next], &mut random))));
        }
    }
    entries
}

fn exchange(when: i64, who: usize, account: &AccountId, random: &mut Seeded) -> Exchange {
    let prompt = if random.chance(0.5) { random.below(40) } else { 1000 + random.below(100_000) };
    let network = if random.chance(0.8) { who / 4 } else { 100 + who };
    let (read, said) = (10 + random.below(400) as u64, random.below(900) as u64);
    Exchange {
        id: ExchangeId::fresh(at(when), random),
        at: at(when),
        duration_ms: random.below(3000) as u64,
        account: account.clone(),
        key: KeyId::new(account.as_str()).unwrap(),
        model: (*random.pick(&["large", "small"]).unwrap()).to_owned(),
        terms: None,
        grant: (who % 9 == 0).then(|| GrantId::new(format!("grant-{}", who / 18)).unwrap()),
        request: RequestFacts { max_tokens: 512, n: 1, messages: 1, ..RequestFacts::default() },
        client: Client {
            network: keyed("network", network),
            address: keyed("address", network * 7 + random.below(3)),
            agent: keyed("agent", who / 20),
        },
        sketch: Sketch {
            exact: keyed("prompt", prompt),
            opening: keyed("template", prompt % 17),
            minhash: [7; MINHASHES],
            words: 12,
            flags: 1,
        },
        usage: Usage {
            prompt_tokens: read,
            cached_tokens: read / 3,
            completion_tokens: said,
            twin_tokens: if random.chance(0.1) { said } else { 0 },
        },
        cost: Money::from_nanos(1_700 * said as i64 + 3),
        outcome: match random.below(20) {
            0 => Outcome::Failed { code: "upstream_failed".to_owned() },
            1 => Outcome::Cancelled,
            _ => Outcome::Completed,
        },
        draws: Draws {
            prompt: Digest::of(b""),
            texts: Vec::new(),
            open: Vec::new(),
            fingerprints: Vec::new(),
            twinning: None,
        },
        texts: None,
        sealed: None,
    }
}

/// A log of another system, of which some rows say little.
fn log(rows: usize) -> String {
    let mut random = Seeded::new(8).fork("log");
    let mut now = START + DAY;
    let mut lines = String::new();
    for _ in 0..rows {
        now += random.below(9 * 60 * SECOND as usize) as i64;
        let who = random.below(30);
        let mut row = json!({
            "at": at(now).to_string(),
            "account": format!("firm-{who}"),
            "status": if random.chance(0.1) { 429 } else { 200 },
        });
        if random.chance(0.7) {
            row["model"] = json!("large");
            row["prompt_tokens"] = json!(random.below(300));
            row["completion_tokens"] = json!(random.below(300));
            row["cost"] = json!("0.000123");
            row["prompt"] = json!(format!("write something about the number {}", random.below(50)));
            row["address"] = json!(format!("192.0.{}.{}", who / 3, random.below(4)));
            row["agent"] = json!(format!("program {}", who % 4));
            row["payment"] = json!(format!("card {}", who / 2));
        }
        lines.push_str(&format!("{row}\n"));
    }
    lines
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(milliseconds)
}

/// Something that looks like a keyed hash, its highest bit set now and then.
fn keyed(kind: &str, number: usize) -> Keyed {
    let digest = Digest::of(format!("{kind} {number}").as_bytes()).to_string();
    Keyed(u64::from_str_radix(&digest[..16], 16).unwrap())
}
