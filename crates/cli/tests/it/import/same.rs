//! What a log tells gives the findings that a journal of the same traffic gives, as far as the log's fields go.

use anbiq_domain::{
    Client, ClockKind, CoinKey, Conditions, Draws, Entry, Exchange, ExchangeId, JournalId, KeyId, KeyedHasher, Money,
    Outcome, Permission, Prompt, RequestFacts, Seeded, Terms, TermsId, Usage,
};
use anbiq_journal::{Journal, Options, SigningKey};
use anbiq_lab::world::{Call, Scale, World, WorldConfig};
use anbiq_statistics::sketch::Sketcher;
use serde_json::{Value, json};

use super::place;
use crate::support::Place;

const KEY: [u8; 32] = [7; 32];

fn terms() -> Terms {
    Terms {
        id: TermsId::new("teacher-terms").unwrap(),
        version: 1,
        teacher: "teacher".into(),
        distillation: Permission::GrantRequired,
        conditions: Conditions::default(),
        expires: None,
        source: None,
        text: "Distillation needs a grant.".into(),
    }
}

fn tokens(call: &Call) -> u64 {
    10 + call.messages.iter().map(|message| message.content.len() as u64 % 50).sum::<u64>()
}

/// What a gateway would have journalled; nothing in it says who holds a grant, since no log does.
pub(crate) fn entries(world: &World, accounts: bool) -> Vec<Entry> {
    let (hasher, sketcher) = (KeyedHasher::new(&KEY), Sketcher::new(&KEY));
    let mut random = Seeded::new(1).fork("journal");
    let journal = JournalId::new("test").unwrap();
    let mut entries = vec![
        Entry::Opened { journal, at: world.start, software: "test".into(), clock: ClockKind::System },
        Entry::TermsIssued { at: world.start, terms: terms() },
    ];
    let opened = world.accounts.iter().map(|account| Entry::AccountOpened {
        at: account.opened,
        account: account.id.clone(),
        plan: account.plan.clone(),
        payment: account.payment.as_ref().map(|payment| hasher.hash("payment", payment.as_bytes())),
    });
    entries.extend(opened.filter(|_| accounts));
    for call in &world.calls {
        let account = &world.accounts[call.account];
        let prompt = Prompt::Chat(call.messages.clone());
        let id = ExchangeId::fresh(call.at, &mut random);
        entries.push(Entry::Exchange(Box::new(Exchange {
            id,
            at: call.at,
            duration_ms: 300,
            account: account.id.clone(),
            key: KeyId::new(account.id.as_str()).unwrap(),
            model: "teacher".into(),
            terms: Some(terms().reference()),
            grant: None,
            request: RequestFacts {
                stream: call.stream,
                temperature: call.temperature,
                top_p: 1.0,
                max_tokens: call.max_tokens,
                n: 1,
                logprobs: call.logprobs,
                messages: call.messages.len() as u32,
                ..RequestFacts::default()
            },
            client: Client::describe(&hasher, call.address, account.agent.as_bytes()),
            sketch: sketcher.sketch(&prompt),
            usage: Usage { prompt_tokens: 20, completion_tokens: tokens(call), ..Usage::default() },
            cost: Money::from_nanos(1_000 * tokens(call) as i64),
            outcome: Outcome::Completed,
            draws: Draws::commit(&CoinKey::from_bytes([1; 32]), id, &prompt, &[]),
            texts: None,
            sealed: None,
        })));
    }
    entries
}

async fn journal(world: &World, place: &Place, accounts: bool) {
    let (name, signer) = (JournalId::new("test").unwrap(), SigningKey::generate().unwrap());
    let journal = Journal::create(&place.path("journal"), name, signer, Options::default()).unwrap();
    for entry in &entries(world, accounts) {
        journal.append(entry).await.unwrap();
    }
    tokio::task::spawn_blocking(move || journal.close()).await.unwrap().unwrap();
}

/// How a log tells of a call.
type ToRow = fn(&World, &Call) -> Value;

fn log(world: &World, row: ToRow) -> String {
    world.calls.iter().map(|call| format!("{}\n", row(world, call))).collect()
}

/// All that a journal knows.
fn plain(world: &World, call: &Call) -> Value {
    let account = &world.accounts[call.account];
    json!({
        "at": call.at, "account": account.id, "model": "teacher", "operation": "chat", "prompt": call.messages,
        "prompt_tokens": 20, "completion_tokens": tokens(call), "cost": tokens(call) as f64 * 1e-6,
        "address": call.address, "agent": account.agent, "payment": account.payment, "opened": account.opened,
        "stream": call.stream, "temperature": call.temperature, "max_tokens": call.max_tokens, "logprobs": call.logprobs,
    })
}

fn litellm(world: &World, call: &Call) -> Value {
    let account = &world.accounts[call.account];
    let request = json!({
        "model": "teacher", "messages": call.messages, "stream": call.stream, "temperature": call.temperature,
        "max_tokens": call.max_tokens, "logprobs": call.logprobs.is_some(), "top_logprobs": call.logprobs,
    });
    json!({
        "request_id": "r", "call_type": "acompletion", "api_key": account.id, "spend": tokens(call) as f64 * 1e-6,
        "prompt_tokens": 20, "completion_tokens": tokens(call), "startTime": call.at, "model_group": "teacher", "status": "success",
        "request_tags": [format!("User-Agent: {}", account.agent)], "requester_ip_address": call.address, "messages": {},
        "proxy_server_request": request,
    })
}

fn bare(world: &World, call: &Call) -> Value {
    let mut row = litellm(world, call);
    row["proxy_server_request"] = json!({});
    row
}

/// The findings in `text`, without what says where they come from, and without alarms: logs tell nothing of grants, which alarms are to
/// respect, so of logs none are given.
fn findings(text: &str) -> Value {
    let mut report: Value = serde_json::from_str(text).unwrap();
    let remove = |of: &mut Value, key: &str| of.as_object_mut().unwrap().remove(key);
    for key in ["notes", "imported", "looks"] {
        remove(&mut report, key);
    }
    remove(&mut report["config"], "alarms");
    for operator in report["operators"].as_array_mut().unwrap() {
        remove(operator, "alarm");
        remove(&mut operator["standing"], "leaked");
    }
    report
}

#[test]
fn a_log_gives_the_findings_of_the_journal() {
    let world = World::compose(&WorldConfig::new(3, Scale::Quick)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let formats: [(&str, ToRow, bool); 2] = [("plain", plain, true), ("litellm", litellm, false)];
    for (format, row, accounts) in formats {
        let place = place();
        runtime.block_on(journal(&world, &place, accounts));
        place.write("log.jsonl", &log(&world, row));
        place.write("terms.json", &serde_json::to_string(&terms()).unwrap());
        assert_eq!(place.run("import log.jsonl --key key -q").code, 0);
        let journal = place.run("watch journal --json");
        let imported = place.run("watch --imported imported --terms terms.json --json");
        assert_eq!(journal.code, imported.code, "{format}: {}", imported.err);
        assert!(findings(&journal.out) == findings(&imported.out), "{format}");
        let report: Value = serde_json::from_str(&imported.out).unwrap();
        assert_eq!(report["imported"], world.calls.len());
        assert!(report.get("looks").is_none() && !imported.out.contains("\"alarm\""), "{format}");
        if accounts {
            assert_eq!((imported.code, &report["operators"][0]["standing"]["standing"]), (1, &json!("campaign")));
        }
    }
}

#[test]
fn without_prompts_nobody_is_accused() {
    let world = World::compose(&WorldConfig::new(3, Scale::Quick)).unwrap();
    let place = place();
    place.write("log.jsonl", &log(&world, bare));
    place.write("terms.json", &serde_json::to_string(&terms()).unwrap());
    let check: Value = serde_json::from_str(&place.run("import --check log.jsonl --json").out).unwrap();
    let works = |name: &str| {
        check["channels"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()["works"].clone()
    };
    assert_eq!((works("content"), works("network"), works("client")), (json!("no"), json!("yes"), json!("yes")));
    assert_eq!(place.run("import log.jsonl --key key -q").code, 0);
    let done = place.run("watch --imported imported --terms terms.json --json");
    assert_eq!(done.code, 0, "{}", done.err);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let notes = report["notes"].to_string();
    assert!(notes.contains("rest on imported logs") && notes.contains("came without prompts"), "{notes}");
    for operator in report["operators"].as_array().unwrap() {
        assert_ne!(operator["standing"]["standing"], "campaign");
        assert!(
            ["unknown", "chat", "template", "templates", "evaluation", "labelling"]
                .iter()
                .any(|name| operator["purpose"]["archetype"] == *name)
        );
        let told = operator["purpose"].to_string();
        assert!(!told.contains("Good-Turing") && !told.contains("continue a conversation"), "{told}");
    }
}

#[test]
fn the_order_of_rows_does_not_matter() {
    let place = place();
    let row = |at: i64| {
        let (account, at) = (at % 10, 1_772_409_600 + at * 977);
        json!({"at": at, "account": format!("a-{account}"), "prompt": format!("say {at} in words"), "address": format!("203.0.{account}.7")})
    };
    let rows: Vec<String> = (0..500).map(|at| format!("{}\n", row(at))).collect();
    place.write("forth.jsonl", &rows.concat());
    place.write("back.jsonl", &rows.iter().rev().cloned().collect::<String>());
    for name in ["forth", "back"] {
        assert_eq!(place.run(&format!("import {name}.jsonl --key key --out {name} -q")).code, 0);
    }
    assert_eq!(place.run("watch --imported forth --json").out, place.run("watch --imported back --json").out);
    // Two halves are as good as the whole.
    place.write("early.jsonl", &rows[..250].concat());
    place.write("late.jsonl", &rows[250..].concat());
    for name in ["early", "late"] {
        assert_eq!(place.run(&format!("import {name}.jsonl --key key --out {name} -q")).code, 0);
    }
    let halves = place.run("watch --imported early --imported late --json");
    assert_eq!(place.run("watch --imported forth --json").out, halves.out);
}
