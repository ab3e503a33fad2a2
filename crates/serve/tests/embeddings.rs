//! Vectors of texts, from the request to the journal.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use anbiq_domain::{Money, Outcome, Prompt, Route, commit_bytes};
use common::teacher::{TEACHER, Teacher};
use common::{House, Reply, Setup, acme, coin, money, with};
use insta::assert_snapshot;
use serde_json::{Value, json};

async fn house() -> (House, Teacher) {
    let (teacher, model) = Teacher::start().await;
    let mut setup = Setup { more: vec![model], ..Setup::default() };
    setup.plan.twin.share = 1.0;
    (House::furnished(setup).await, teacher)
}

async fn embed(house: &House, body: &Value) -> Reply {
    house.send(house.post("/v1/embeddings", body, &[])).await
}

#[tokio::test]
async fn texts_become_vectors() {
    let (house, teacher) = house().await;
    let body = json!({"model": TEACHER, "input": ["ab", "c"], "dimensions": 3, "user": "u"});
    let reply = embed(&house, &body).await;
    assert_snapshot!(reply.body, @r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0,2.0,0.1]},{"object":"embedding","index":1,"embedding":[1.0,1.0,0.1]}],"model":"tools","usage":{"prompt_tokens":3,"total_tokens":3}}"#);
    assert_eq!(
        teacher.asked(),
        [json!({"model": TEACHER, "input": ["ab", "c"], "dimensions": 3, "encoding_format": "float"})]
    );

    let exchange = house.exchange(1).await;
    assert_eq!(
        (exchange.outcome, exchange.request.route, exchange.request.messages),
        (Outcome::Completed, Route::Embeddings, 2)
    );
    assert_eq!((exchange.usage.prompt_tokens, exchange.usage.completion_tokens), (3, 0));
    assert_eq!(reply.header("x-request-id"), exchange.id.to_string());
    // The journal commits to all numbers and keeps the texts, not the numbers.
    let numbers = [0.0_f32, 2.0, 0.1, 1.0, 1.0, 0.1];
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(exchange.draws.texts, [commit_bytes(&coin().salt(exchange.id, 0), &bytes)]);
    assert_eq!(exchange.draws.twinning, None, "there is nothing to be drawn twice");
    let texts = exchange.texts.unwrap();
    assert_eq!((texts.prompt, texts.answers.len()), (Prompt::Text(r#"["ab","c"]"#.into()), 0));
    // Three tokens at a dollar a million.
    assert_eq!((exchange.cost, house.settled().await.spent), (money("0.000003"), money("0.000003")));
    let measured = house.metrics("gen_ai_server_request_duration_seconds_count").await;
    assert!(measured.iter().any(|line| line.contains(r#"gen_ai_operation_name="embeddings""#)), "{measured:?}");
}

#[tokio::test]
async fn vectors_have_two_forms_and_texts_three() {
    let (house, teacher) = house().await;
    let body = json!({"model": TEACHER, "input": "abc", "dimensions": 3, "encoding_format": "base64"});
    let reply = embed(&house, &body).await;
    // Zero, three and a tenth in binary32.
    assert_eq!(reply.json()["data"][0]["embedding"], "AAAAAAAAQEDNzMw9", "{}", reply.body);
    for input in [json!([1, 2, 3]), json!([[1, 2], [3]])] {
        let reply = embed(&house, &with(body.clone(), json!({"input": input}))).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let inputs: Vec<Value> = teacher.asked().iter().map(|asked| asked["input"].clone()).collect();
    assert_eq!(inputs, [json!(["abc"]), json!([[1, 2, 3]]), json!([[1, 2], [3]])]);
    assert_eq!(house.exchange(1).await.texts.unwrap().prompt, Prompt::Text("abc".into()));
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused() {
    let (house, teacher) = house().await;
    let many: Vec<&str> = vec!["x"; 2049];
    for (changes, code, field) in [
        (json!({"input": null}), "invalid_value", "input"),
        (json!({"input": ""}), "invalid_value", "input"),
        (json!({"input": []}), "invalid_value", "input"),
        (json!({"input": ["a", ""]}), "invalid_value", "input"),
        (json!({"input": {"a": 1}}), "invalid_value", "input"),
        (json!({"input": many}), "invalid_value", "input"),
        (json!({"dimensions": 0}), "invalid_value", "dimensions"),
        (json!({"encoding_format": "int8"}), "invalid_value", "encoding_format"),
        (json!({"stream": true}), "unsupported_parameter", "stream"),
        (json!({"model": "open"}), "unsupported_parameter", "model"),
        (json!({"model": "gone"}), "model_not_found", "model"),
    ] {
        let reply = embed(&house, &with(json!({"model": TEACHER, "input": "x"}), changes)).await;
        let error = &reply.json()["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!(field)), "{}", reply.body);
        assert!(!reply.header("x-request-id").is_empty());
    }
    assert!(teacher.asked().is_empty());
}

#[tokio::test]
async fn the_budget_holds_for_vectors_too() {
    let (house, teacher) = house().await;
    house.ledger.set_budget(&acme(), money("0.00001")).await.unwrap();
    let body = json!({"model": TEACHER, "input": "x".repeat(100)});
    let reply = embed(&house, &body).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (429, &json!("insufficient_quota")));
    assert_eq!((house.refusals(), teacher.asked().len()), (vec!["insufficient_quota".to_owned()], 0));
    // What fails is journalled, and costs nothing.
    house.ledger.set_budget(&acme(), money("1")).await.unwrap();
    teacher.refuse(500, json!({"message": "broken"}));
    assert_eq!(embed(&house, &body).await.status, 502);
    let exchange = house.exchange(1).await;
    assert!(matches!(exchange.outcome, Outcome::Failed { .. }) && exchange.draws.texts.is_empty());
    assert_eq!(house.settled().await.spent, Money::ZERO);
}

#[tokio::test]
async fn a_named_request_is_embedded_once() {
    let (house, teacher) = house().await;
    let body = json!({"model": TEACHER, "input": "abc"});
    let send = || house.send(house.post("/v1/embeddings", &body, &[("idempotency-key", "k")]));
    let (first, second) = (send().await, send().await);
    assert_eq!((first.status.as_u16(), &first.body), (200, &second.body));
    assert_eq!(teacher.asked().len(), 1);
    // The same name for something else is refused, whatever the address.
    let other = house.post("/v1/chat/completions", &body, &[("idempotency-key", "k")]);
    assert_ne!(house.send(other).await.status, 200);
}
