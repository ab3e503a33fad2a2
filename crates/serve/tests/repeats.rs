//! A request that names itself by `Idempotency-Key` is answered once and paid once.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anbiq_domain::{AccountId, ClockKind, Money, Outcome};
use anbiq_ledger::NewAccount;
use anbiq_model::{Fault, ModelError};
use anbiq_serve::{Config, IdempotencyConfig};
use common::{House, Mock, NOW, Reply, Setup, Step, acme, ask, finished, hello, money, text, usage, with};
use http_body_util::BodyExt;
use insta::assert_snapshot;
use serde_json::{Value, json};

/// What one [`hello`] costs.
fn one() -> Money {
    money("0.000013")
}

async fn send(house: &House, key: &str, body: &Value) -> Reply {
    house.send(house.post("/v1/chat/completions", body, &[("idempotency-key", key)])).await
}

fn replayed(reply: &Reply) -> bool {
    let told = ["x-anbiq-replayed", "idempotent-replayed"].map(|name| reply.header(name) == "true");
    assert_eq!(told[0], told[1]);
    told[0]
}

fn code(reply: &Reply) -> String {
    reply.json()["error"]["code"].as_str().unwrap_or("answered").to_owned()
}

#[tokio::test]
async fn a_repeated_request_is_given_the_same_answer_and_paid_once() {
    for stream in [false, true] {
        let mut setup = Setup::default();
        setup.plan.twin.share = 1.0;
        let house = House::furnished(setup).await;
        let body = with(hello(), json!({"stream": stream, "logprobs": true}));
        let (first, second) = (send(&house, "a", &body).await, send(&house, "a", &body).await);
        assert_eq!((first.status.as_u16(), replayed(&first)), (200, false), "{}", first.body);
        assert_eq!((second.status.as_u16(), replayed(&second)), (200, true));
        assert_eq!(first.body, second.body);
        for name in ["x-request-id", "content-type"] {
            assert_eq!(first.header(name), second.header(name));
        }
        assert_eq!((house.exchanges().len(), house.settled().await.spent), (1, one()));
        assert_eq!(house.metrics("anbiq_answers_repeated").await, ["anbiq_answers_repeated_total 1"]);
        assert!(!replayed(&send(&house, "b", &body).await), "another key is another request");
        assert!(!replayed(&house.chat(&body).await), "and so is one without a key");
        assert_eq!((house.exchanges().len(), house.settled().await.spent.nanos()), (3, 3 * one().nanos()));
    }
}

#[tokio::test]
async fn of_many_at_once_one_is_answered_and_paid() {
    let script = |request: &anbiq_model::Request| [vec![Step::Gate], common::answers(request)].concat();
    for stream in [false, true] {
        let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
        let body = with(hello(), json!({"stream": stream}));
        let turned_away = AtomicUsize::new(0);
        let one_of_many = async || {
            let reply = send(&house, "a", &body).await;
            // The gate opens when all others were turned away.
            if reply.status != 200 && turned_away.fetch_add(1, Ordering::SeqCst) == 18 {
                house.mock.gate.add_permits(20);
            }
            reply
        };
        let replies = futures::future::join_all((0..20).map(|_| one_of_many())).await;
        assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
        let refused = replies.iter().find(|reply| reply.status != 200).unwrap();
        assert_eq!(code(refused), "idempotency_in_flight");
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (409, "1"));
        assert_eq!(refused.header("x-should-retry"), "true");
        assert!(replayed(&send(&house, "a", &body).await));
        assert_eq!(house.mock.asked.load(Ordering::SeqCst), 1);
        assert_eq!((house.exchanges().len(), house.settled().await.spent), (1, one()));
    }
}

#[tokio::test]
async fn a_key_is_for_one_request_of_one_account() {
    let setup = Setup::default();
    let plan = setup.plan.id.clone();
    let house = House::furnished(setup).await;
    assert_eq!(send(&house, "a", &hello()).await.status, 200);
    let other = send(&house, "a", &ask("open", "other")).await;
    assert_snapshot!(other.body, @r#"{"error":{"message":"another request was sent under this `Idempotency-Key`: one key is for one request","type":"invalid_request_error","param":"Idempotency-Key","code":"idempotency_key_reused"}}"#);
    assert_eq!(other.status, 422);
    let declared = [("idempotency-key", "a"), ("x-anbiq-purpose", "distillation")];
    assert_eq!(house.send(house.post("/v1/chat/completions", &hello(), &declared)).await.status, 422);
    assert_eq!(house.exchanges().len(), 1);

    let id = AccountId::new("other").unwrap();
    house.admin.open_account(&NewAccount { id: id.clone(), plan, payment: None, opened: NOW }).await.unwrap();
    let (_, key) = house.ledger.issue_key(&id, None, NOW).await.unwrap();
    let headers = [("authorization", &*format!("Bearer {}", key.expose())), ("idempotency-key", "a")];
    let reply = house.send(house.post("/v1/chat/completions", &hello(), &headers)).await;
    assert_eq!((reply.status.as_u16(), replayed(&reply)), (200, false), "an answer is never given to another account");

    for bad in ["", &*"x".repeat(256)] {
        let reply = send(&house, bad, &hello()).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error"]["param"].as_str()), (400, Some("Idempotency-Key")));
    }
}

#[tokio::test]
async fn what_was_refused_or_failed_may_be_tried_again() {
    let tries = AtomicUsize::new(0);
    let script = move |request: &anbiq_model::Request| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => vec![Step::Fail(ModelError::new(Fault::Busy, "upstream_busy", "later"))],
        1 => vec![Step::Do(text(0, "half", None))],
        _ => common::answers(request),
    };
    let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    house.ledger.set_budget(&acme(), Money::ZERO).await.unwrap();
    assert_eq!(code(&send(&house, "a", &hello()).await), "insufficient_quota");
    house.ledger.set_budget(&acme(), money("1")).await.unwrap();
    assert_eq!(code(&send(&house, "a", &hello()).await), "upstream_busy");
    assert_eq!(code(&send(&house, "a", &hello()).await), "answer_cut_off");
    assert!(!replayed(&send(&house, "a", &hello()).await));
    assert!(replayed(&send(&house, "a", &hello()).await));
    assert_eq!(house.settled().await.spent, one());
}

#[tokio::test]
async fn who_left_comes_back_for_the_whole_answer() {
    let script = |_: &anbiq_model::Request| {
        vec![
            Step::Do(text(0, "one ", None)),
            Step::Gate,
            Step::Do(text(0, "two", None)),
            Step::Do(finished(0, 2)),
            Step::Do(usage(3, 2)),
        ]
    };
    for stream in [false, true] {
        let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
        let body = with(hello(), json!({"stream": stream}));
        let request = house.post("/v1/chat/completions", &body, &[("idempotency-key", "a")]);
        if stream {
            let mut answer = house.open(request).await.into_body();
            assert!(answer.frame().await.unwrap().is_ok());
        } else {
            let left = tokio::time::timeout(Duration::from_millis(200), house.open(request)).await;
            assert!(left.is_err(), "nothing is served before all is");
        }
        assert_eq!(code(&send(&house, "a", &body).await), "idempotency_in_flight");
        house.mock.gate.add_permits(1);
        assert_eq!(house.exchange(1).await.outcome, Outcome::Completed);
        house.settled().await;
        let reply = loop {
            let reply = send(&house, "a", &body).await;
            if reply.status == 200 {
                break reply;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let answer = if stream {
            reply.streamed_text()
        } else {
            reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
        };
        assert_eq!((answer.as_str(), replayed(&reply)), ("one two", true));
        assert_eq!((house.exchanges().len(), house.mock.asked.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(house.budget().await.spent, money("0.000007"));
    }
}

#[tokio::test]
async fn a_restart_forgets_the_answer_and_does_not_charge_for_it_again() {
    let tries = AtomicUsize::new(0);
    let script = move |request: &anbiq_model::Request| match tries.fetch_add(1, Ordering::SeqCst) {
        1 => vec![Step::Do(text(0, "half", None))],
        _ => common::answers(request),
    };
    let before = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    let (name, failed) = ("the-name-of-one", "the-name-of-another");
    assert_eq!(send(&before, name, &hello()).await.status, 200);
    assert_eq!(code(&send(&before, failed, &hello()).await), "answer_cut_off");
    let journalled = serde_json::to_string(&before.exchanges()).unwrap();
    assert!(journalled.contains(r#""named":{"#) && !journalled.contains("the-name"), "names are hashed");

    // Another gateway with the same keys reads the journal as one that starts does.
    let house = House::new().await;
    house.gateway.recall(&anbiq_journal::Reader::open(&before.journal_folder()).unwrap()).await.unwrap();
    // Whether it makes that charge good depends on how far its own journal, of the same name, has come.
    let paid = house.settled().await.spent;
    let repeated = send(&house, name, &hello()).await;
    assert_eq!((repeated.status.as_u16(), code(&repeated)), (409, "idempotency_answer_forgotten".to_owned()));
    let another = send(&house, name, &with(hello(), json!({"max_tokens": 3}))).await;
    assert_eq!((another.status.as_u16(), code(&another)), (422, "idempotency_key_reused".to_owned()));
    assert_eq!((house.exchanges().len(), house.settled().await.spent), (0, paid));
    assert_eq!(send(&house, failed, &hello()).await.status, 200, "what failed was not paid");
    assert_eq!(send(&house, "b", &hello()).await.status, 200);
    let both = paid.nanos() + 2 * one().nanos();
    assert_eq!((house.exchanges().len(), house.settled().await.spent.nanos()), (2, both));
}

#[tokio::test]
async fn memory_is_bounded() {
    let furnished = |idempotency| {
        let config = Config { idempotency, clock: ClockKind::Simulated, ..Config::default() };
        House::furnished(Setup { config, ..Setup::default() })
    };
    let usual = IdempotencyConfig::default();
    let house = furnished(IdempotencyConfig { keys: 2, ..usual }).await;
    for key in ["a", "b", "c"] {
        assert_eq!(send(&house, key, &hello()).await.status, 200);
    }
    assert!(replayed(&send(&house, "c", &hello()).await));
    assert!(replayed(&send(&house, "b", &hello()).await));
    assert!(!replayed(&send(&house, "a", &hello()).await), "the oldest was forgotten");

    // Room for one answer of this length, and not for two.
    let house = furnished(IdempotencyConfig { bytes: 700, ..usual }).await;
    for key in ["a", "b"] {
        assert_eq!(send(&house, key, &hello()).await.status, 200);
    }
    assert!(replayed(&send(&house, "b", &hello()).await));
    let forgotten = send(&house, "a", &hello()).await;
    assert_eq!((forgotten.status.as_u16(), forgotten.header("x-should-retry")), (409, "false"));
    assert_eq!(code(&forgotten), "idempotency_answer_forgotten");
    assert_eq!(house.settled().await.spent.nanos(), 2 * one().nanos(), "and is not paid twice");

    let house = furnished(IdempotencyConfig { ttl_ms: 1000, ..usual }).await;
    let at = async |after: i64| {
        let time = NOW.plus_milliseconds(after).milliseconds().to_string();
        let headers = [("idempotency-key", "a"), ("x-anbiq-time", time.as_str())];
        replayed(&house.send(house.post("/v1/chat/completions", &hello(), &headers)).await)
    };
    assert_eq!([at(0).await, at(999).await, at(1000).await, at(1999).await], [false, true, false, true]);
    assert_eq!(house.exchanges().len(), 2);
}
