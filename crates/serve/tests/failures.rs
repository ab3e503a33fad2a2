//! What is refused, what fails, and that nothing is lost by it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use anbiq_domain::{Entry, Money, Outcome, TextPolicy, Window};
use anbiq_journal::Options;
use anbiq_ledger::{Budget, Holder, Measure, NewKey, Scope, Scopes};
use anbiq_model::{Fault, ModelError};
use anbiq_serve::Config;
use common::teacher::{TEACHER, Teacher};
use common::{
    House, Mock, NOW, Reply, Setup, Step, acme, ask, finished, grant, hello, money, terms, text, usage, with,
};
use http_body_util::BodyExt;
use insta::assert_snapshot;
use serde_json::{Value, json};

fn show(reply: &Reply) -> String {
    let error = &reply.json()["error"];
    let mut line = format!("{} {}", reply.status.as_u16(), error);
    for name in ["retry-after", "x-should-retry"] {
        if !reply.header(name).is_empty() {
            line = format!("{line} {name}: {}", reply.header(name));
        }
    }
    assert!(!reply.header("x-request-id").is_empty() && !reply.header("openai-processing-ms").is_empty());
    line
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let house =
        House::furnished(Setup { config: Config { max_body_bytes: 2000, ..Config::default() }, ..Setup::default() })
            .await;
    let mut lines = Vec::new();
    for body in ["", "[1]", "{\"model\": \"open\"", "{\"model\": \"open\"}"] {
        lines.push(show(&house.send(house.post_bytes("/v1/chat/completions", body, &[])).await));
    }
    for changes in [
        json!({"model": "gone"}),
        json!({"messages": []}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]}),
        json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}]}),
        json!({"n": 0}),
        json!({"n": 5}),
        json!({"temperature": 2.5}),
        json!({"temperature": "hot"}),
        json!({"top_p": -1}),
        json!({"max_tokens": 101}),
        json!({"max_tokens": 5, "max_completion_tokens": 6}),
        json!({"stop": ["a", "b", "c", "d", "e"]}),
        json!({"stop": ""}),
        json!({"top_logprobs": 1}),
        json!({"logprobs": true, "top_logprobs": 21}),
        json!({"logprobs": true, "top_logprobs": 6}),
        json!({"stream_options": {"include_usage": true}}),
        json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"frequency_penalty": 0.5}),
        json!({"logit_bias": {"5": 1}}),
        json!({"messages": [{"role": "user", "content": "x".repeat(3000)}]}),
    ] {
        lines.push(show(&house.chat(&with(hello(), changes)).await));
    }
    for changes in [
        json!({"echo": true}),
        json!({"prompt": ["a", "b"]}),
        json!({"prompt": [1, 2]}),
        json!({"suffix": "x"}),
        json!({"best_of": 3}),
    ] {
        let body = with(json!({"model": "open", "prompt": "x"}), changes);
        lines.push(show(&house.send(house.post("/v1/completions", &body, &[])).await));
    }
    lines.push(show(&house.get("/v1/models/gone").await));
    lines.push(show(&house.get("/v1/images").await));
    lines.push(show(&house.get("/v1/chat/completions").await));
    assert_snapshot!(lines.join("\n"), @r#"
    400 {"code":"invalid_json","message":"the request body is not valid JSON: EOF while parsing a value at line 1 column 0","param":null,"type":"invalid_request_error"}
    400 {"code":"invalid_json","message":"the request body is not a JSON object","param":null,"type":"invalid_request_error"}
    400 {"code":"invalid_json","message":"the request body is not valid JSON: EOF while parsing an object at line 1 column 16","param":null,"type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"missing required field `messages`","param":"messages","type":"invalid_request_error"}
    404 {"code":"model_not_found","message":"the model `gone` does not exist","param":"model","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`messages` is empty: a conversation has at least one message","param":"messages","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"content of type `image_url` is not supported by this model: text only","param":"messages.[0].content","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"tool calls are not supported by this model","param":"messages.[0].tool_calls","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`n` is at least 1","param":"n","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`n` is at most 4 on the plan `standard`","param":"n","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`temperature` is between 0 and 2","param":"temperature","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"invalid value for `temperature`: invalid type: string \"hot\", expected f32","param":"temperature","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`top_p` is between 0 and 1","param":"top_p","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`max_tokens` is at most 100 on the plan `standard`, not 101","param":"max_tokens","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`max_tokens` and `max_completion_tokens` disagree: give one of them","param":"max_tokens","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`stop` is at most 4 strings of 1 to 1024 bytes","param":"stop","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`stop` is at most 4 strings of 1 to 1024 bytes","param":"stop","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`top_logprobs` needs `logprobs` to be true","param":"top_logprobs","type":"invalid_request_error"}
    400 {"code":"invalid_value","message":"`top_logprobs` is between 0 and 20","param":"top_logprobs","type":"invalid_request_error"}
    403 {"code":"logprobs_not_allowed","message":"`top_logprobs` is at most 5 on the plan `standard`","param":"top_logprobs","type":"permission_error"}
    400 {"code":"invalid_value","message":"`stream_options` needs `stream` to be true","param":"stream_options","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`tools` is not supported by this model","param":"tools","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`response_format` is not supported by this model","param":"response_format","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`frequency_penalty` is not supported by this model","param":"frequency_penalty","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`logit_bias` is not supported by this model","param":"logit_bias","type":"invalid_request_error"}
    413 {"code":"request_too_large","message":"the request body is larger than 2000 bytes","param":null,"type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`echo` is not supported: a prompt is not given back","param":"echo","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`prompt` is a string or a list of one string; send several prompts as several requests","param":"prompt","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`prompt` as token numbers is not supported: send text","param":"prompt","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`suffix` is not supported","param":"suffix","type":"invalid_request_error"}
    400 {"code":"unsupported_parameter","message":"`best_of` is not supported other than equal to `n`","param":"best_of","type":"invalid_request_error"}
    404 {"code":"model_not_found","message":"the model `gone` does not exist","param":"model","type":"invalid_request_error"}
    404 {"code":"unknown_url","message":"there is nothing at this address","param":null,"type":"invalid_request_error"}
    405 {"code":"method_not_allowed","message":"this address does not know this method","param":null,"type":"invalid_request_error"}
    "#);
    assert_eq!(house.mock.asked.load(Ordering::SeqCst), 0);
    assert_eq!(house.budget().await.reserved, Money::ZERO);
    let neutral = json!({"tools": [], "response_format": {"type": "text"}, "frequency_penalty": 0, "logit_bias": {}, "unknown": 1});
    assert_eq!(house.chat(&with(hello(), neutral)).await.status, 200);
}

#[tokio::test]
async fn keys_terms_grants_and_budgets_refuse() {
    let house = House::new().await;
    let (revoked, revoked_key) = house.ledger.issue_key(&acme(), None, NOW).await.unwrap();
    house.ledger.revoke_key(&revoked, NOW).await.unwrap();
    let (_, expired_key) = house.ledger.issue_key(&acme(), Some(NOW), NOW).await.unwrap();
    let mut lines = Vec::new();
    for key in ["", "Basic x", "Bearer sk-wrong", &format!("Bearer {}x", &house.key[..house.key.len() - 1])] {
        lines.push(show(&house.send(house.post("/v1/chat/completions", &hello(), &[("authorization", key)])).await));
    }
    for key in [revoked_key, expired_key] {
        let key = format!("Bearer {}", key.expose());
        lines.push(show(&house.send(house.post("/v1/chat/completions", &hello(), &[("authorization", &key)])).await));
    }
    lines.push(show(&house.chat(&ask("closed", "x")).await));
    house.admin.accept_terms(&acme(), &terms().reference(), NOW).await.unwrap();
    house.admin.give_grant(&grant(Some(NOW), None)).await.unwrap();
    let declared = house.post("/v1/chat/completions", &ask("closed", "x"), &[("x-anbiq-purpose", "distillation")]);
    lines.push(show(&house.send(declared).await));
    house.ledger.set_budget(&acme(), money("0.0001")).await.unwrap();
    lines.push(show(&house.chat(&hello()).await));
    assert_snapshot!(lines.join("\n"), @r#"
    401 {"code":"invalid_api_key","message":"no API key: send it in the header `Authorization: Bearer KEY`","param":null,"type":"invalid_request_error"}
    401 {"code":"invalid_api_key","message":"no API key: send it in the header `Authorization: Bearer KEY`","param":null,"type":"invalid_request_error"}
    401 {"code":"invalid_api_key","message":"this API key is not valid","param":null,"type":"invalid_request_error"}
    401 {"code":"invalid_api_key","message":"this API key is not valid","param":null,"type":"invalid_request_error"}
    401 {"code":"key_revoked","message":"this API key was revoked","param":null,"type":"invalid_request_error"}
    401 {"code":"key_expired","message":"this API key has expired","param":null,"type":"invalid_request_error"}
    403 {"code":"terms_not_accepted","message":"accept version 1 of the terms `closed-terms` first","param":null,"type":"permission_error"}
    403 {"code":"grant_expired","message":"grant `grant-1` has expired","param":null,"type":"permission_error"}
    429 {"code":"insufficient_quota","message":"the budget of $0.0001 does not hold $0.000285 more: $0.00 spent, $0.00 reserved","param":null,"type":"insufficient_quota"} x-should-retry: false
    "#);
    assert_eq!(house.refusals(), ["terms_not_accepted", "grant_expired", "insufficient_quota"]);
    assert_eq!(house.mock.asked.load(Ordering::SeqCst), 0, "no model saw any of them");

    // New terms have to be accepted anew.
    let newer = anbiq_domain::Terms { version: 2, ..terms() };
    house.admin.issue_terms(&newer, NOW.plus_milliseconds(1)).await.unwrap();
    assert_eq!(house.chat(&ask("closed", "x")).await.json()["error"]["code"], "terms_not_accepted");
}

#[tokio::test]
async fn a_budget_holds_under_200_requests_at_once() {
    let house = House::new().await;
    // What one of these can cost at most: 64 + 8 + 13 prompt tokens, and 10 of the answer.
    let most = money("1").per_million(85) + money("2").per_million(10);
    let limit = Money::from_nanos(most.nanos() * 11 + most.nanos() / 2);
    house.ledger.set_budget(&acme(), limit).await.unwrap();
    let body = with(hello(), json!({"max_tokens": 10, "stream": true}));
    let gate = with(body.clone(), json!({}));
    let replies = futures::future::join_all((0..200).map(|_| house.chat(&gate))).await;
    let budget = house.settled().await;
    let served = replies.iter().filter(|reply| reply.status == 200).count() as i64;
    let refused = replies.iter().filter(|reply| reply.status == 429).count() as i64;
    assert_eq!(served + refused, 200);
    assert_eq!(budget.spent.nanos(), served * money("0.000013").nanos(), "what is spent is what was served");
    assert!(budget.spent <= limit && served >= 11, "{served} {budget:?}");
    assert_eq!(house.exchanges().len() as i64, served);
}

#[tokio::test]
async fn a_budget_for_eleven_grants_eleven() {
    // All 200 are held at the gate until every one of them was admitted or refused.
    let script = |request: &anbiq_model::Request| [vec![Step::Gate], common::answers(request)].concat();
    let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    let most = money("1").per_million(85) + money("2").per_million(10);
    house.ledger.set_budget(&acme(), Money::from_nanos(most.nanos() * 11)).await.unwrap();
    let body = with(hello(), json!({"max_tokens": 10}));
    let opener = async {
        while house.refusals().len() < 189 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        house.mock.gate.add_permits(200);
    };
    let (replies, ()) = tokio::join!(futures::future::join_all((0..200).map(|_| house.chat(&body))), opener);
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 11);
    assert_eq!(house.settled().await.spent, Money::from_nanos(money("0.000013").nanos() * 11));
}

#[tokio::test]
async fn what_a_model_counts_cannot_break_a_budget() {
    let script = |_: &anbiq_model::Request| {
        vec![Step::Do(text(0, "x", None)), Step::Do(finished(0, 1_000_000)), Step::Do(usage(1_000_000, 1_000_000))]
    };
    let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    house.ledger.set_budget(&acme(), money("0.001")).await.unwrap();
    assert_eq!(house.chat(&hello()).await.status, 200);
    assert!(house.settled().await.spent <= money("0.001"));
}

#[tokio::test]
async fn a_rate_is_limited() {
    let mut setup = Setup::default();
    setup.plan.requests_per_minute = Some(2);
    let house = House::furnished(setup).await;
    let first = house.chat(&hello()).await;
    assert_eq!(first.header("x-ratelimit-limit-requests"), "2");
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "1");
    assert_eq!(first.header("x-ratelimit-reset-requests"), "30000ms");
    house.chat(&hello()).await;
    let third = house.chat(&hello()).await;
    let rate =
        ["limit", "remaining", "reset"].map(|name| third.header(&format!("x-ratelimit-{name}-requests")).to_owned());
    assert_eq!(rate, ["2", "0", "60000ms"], "who is turned away is told too");
    assert_snapshot!(show(&third), @r#"429 {"code":"rate_limit_exceeded","message":"rate limit reached: 2 requests a minute; try again in 30000 ms","param":null,"type":"requests"} retry-after: 30"#);
}

#[tokio::test]
async fn every_route_has_its_headers_and_limits() {
    for (path, body, stream_ends) in [
        ("/v1/chat/completions", ask("open", "x"), Some("data: [DONE]")),
        ("/v1/completions", json!({"model": "open", "prompt": "x"}), Some("data: [DONE]")),
        ("/v1/responses", json!({"model": "open", "input": "x"}), Some("\"type\":\"response.completed\"")),
        ("/v1/embeddings", json!({"model": TEACHER, "input": "x"}), None),
    ] {
        let (_teacher, model) = Teacher::start().await;
        let mut setup = Setup { more: vec![model], ..Setup::default() };
        setup.plan.requests_per_minute = Some(4);
        let house = House::furnished(setup).await;
        let send = |changes: Value| house.send(house.post(path, &with(body.clone(), changes), &[]));
        let mut replies = vec![send(json!({})).await, send(json!({"model": "gone"})).await];
        if let Some(end) = stream_ends {
            let streamed = send(json!({"stream": true})).await;
            assert!(streamed.body.lines().rfind(|line| !line.is_empty()).unwrap().contains(end), "{}", streamed.body);
            replies.push(streamed);
        } else {
            replies.push(send(json!({"stream": true})).await);
        }
        replies.push(send(json!({"model": 5})).await);
        replies.push(send(json!({})).await);
        for (reply, left) in replies.iter().zip(["3", "2", "1", "0", "0"]) {
            let rate = ["limit", "remaining"].map(|name| reply.header(&format!("x-ratelimit-{name}-requests")));
            assert_eq!(rate, ["4", left], "{path} {}", reply.body);
            assert!(!reply.header("x-request-id").is_empty() && !reply.header("openai-processing-ms").is_empty());
        }
        let statuses: Vec<u16> = replies.iter().map(|reply| reply.status.as_u16()).collect();
        assert_eq!(statuses, [200, 404, if stream_ends.is_some() { 200 } else { 400 }, 400, 429], "{path}");
        assert_eq!((replies[4].header("retry-after"), replies[4].header("retry-after-ms")), ("15", "15000"));
        let stranger = house.send(house.post(path, &body, &[("authorization", "Bearer sk-wrong")])).await;
        assert_eq!((stranger.status.as_u16(), stranger.header("x-request-id").is_empty()), (401, false));
    }
}

#[tokio::test]
async fn a_rate_of_tokens_is_limited() {
    let mut setup = Setup { mock: Mock::new(gated_answers), ..Setup::default() };
    setup.plan.tokens_per_minute = Some(1000);
    let house = House::furnished(setup).await;
    // What one can use at most: 85 of the prompt, 100 of the answer.
    let rate = |reply: &common::Reply| {
        ["limit", "remaining", "reset"].map(|name| reply.header(&format!("x-ratelimit-{name}-tokens")).to_owned())
    };
    let body = hello();
    let opener = async {
        while house.mock.asked.load(Ordering::SeqCst) < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // All five hold what they may need, so a sixth finds 75.
        let sixth = house.chat(&body).await;
        house.mock.gate.add_permits(6);
        sixth
    };
    let (replies, sixth) = tokio::join!(futures::future::join_all((0..5).map(|_| house.chat(&body))), opener);
    assert_eq!(rate(&sixth), ["1000", "75", "55500ms"]);
    assert_snapshot!(show(&sixth), @r#"429 {"code":"rate_limit_exceeded","message":"rate limit reached: 1000 tokens a minute; try again in 6600 ms","param":null,"type":"tokens"} retry-after: 7"#);
    assert!(replies.iter().all(|reply| reply.status == 200));
    // When they have ended, they hold what they used: 3 + 5 tokens each.
    let last = house.chat(&body).await;
    assert_eq!(rate(&last), ["1000", "952", "2880ms"]);
}

fn gated_answers(request: &anbiq_model::Request) -> Vec<Step> {
    [vec![Step::Gate], common::answers(request)].concat()
}

#[tokio::test]
async fn a_plan_limits_days_bodies_and_requests_under_way() {
    let mut setup = Setup { mock: Mock::new(gated_answers), ..Setup::default() };
    setup.plan.requests_per_day = Some(3);
    setup.plan.max_body_bytes = Some(500);
    setup.plan.max_in_flight = Some(1);
    let house = House::furnished(setup).await;
    let body = hello();
    let second = async {
        while house.mock.asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let turned_away = house.chat(&body).await;
        house.mock.gate.add_permits(1);
        turned_away
    };
    let (first, second) = tokio::join!(house.chat(&body), second);
    house.settled().await;
    let large = house.chat(&ask("open", &"x".repeat(600))).await;
    let fourth = house.chat(&body).await;
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "2");
    assert_snapshot!([show(&second), show(&large), show(&fourth)].join("\n"), @r#"
    429 {"code":"concurrency_limit_exceeded","message":"1 requests of this account are under way, and no more may be at a time","param":null,"type":"requests"} retry-after: 1
    413 {"code":"request_too_large","message":"the request body is larger than 500 bytes","param":null,"type":"invalid_request_error"}
    429 {"code":"rate_limit_exceeded","message":"rate limit reached: 3 requests a day; try again in 76800000 ms","param":null,"type":"requests"} retry-after: 76800
    "#);
}

#[tokio::test]
async fn a_key_is_good_for_what_it_says() {
    let house = House::new().await;
    let scopes = Scopes { routes: Some(vec![Scope::Chat, Scope::Models]), models: Some(vec!["open".into()]) };
    let new = NewKey { account: acme(), name: None, user: None, scopes, expires: None, issued: NOW };
    let (_, key) = house.ledger.issue(&new).await.unwrap();
    let bearer = format!("Bearer {}", key.expose());
    let with_key = [("authorization", bearer.as_str())];
    let post = async |path: &str, body: &Value| house.send(house.post(path, body, &with_key)).await;
    assert_eq!(post("/v1/chat/completions", &hello()).await.status, 200);
    let lines = [
        show(&post("/v1/chat/completions", &ask("closed", "x")).await),
        show(&post("/v1/completions", &json!({"model": "open", "prompt": "x"})).await),
    ];
    assert_snapshot!(lines.join("\n"), @r#"
    403 {"code":"model_not_allowed","message":"this API key is not good for the model `closed`","param":null,"type":"permission_error"}
    403 {"code":"scope_not_allowed","message":"this API key is not good for `completions`","param":null,"type":"permission_error"}
    "#);
    let get = async |path: &str| {
        let request = http::Request::get(format!("{}{path}", house.base)).header("authorization", &bearer);
        house.send(request.body(Default::default()).unwrap()).await
    };
    assert_eq!(get("/v1/models").await.json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(get("/v1/models/closed").await.status, 404);
}

#[tokio::test]
async fn each_budget_refuses_in_its_own_name() {
    let house = House::new().await;
    house.ledger.set_operator(&acme(), Some(&"group".parse().unwrap()), NOW).await.unwrap();
    let mut lines = Vec::new();
    for (holder, window, limit) in [
        (Holder::Key(house.key_id.clone()), Window::Hours(6), Measure::Tokens(50)),
        (Holder::Account(acme()), Window::Day, Measure::Money(money("0.0001"))),
        (Holder::Operator("group".parse().unwrap()), Window::Month, Measure::Tokens(100)),
    ] {
        let budget = Budget { holder: holder.clone(), window, limit };
        house.ledger.put_budget(&budget).await.unwrap();
        lines.push(show(&house.chat(&hello()).await));
        house.ledger.remove_budget(&holder, limit.unit(), window).await.unwrap();
    }
    house
        .ledger
        .put_budget(&Budget { holder: Holder::Account(acme()), window: Window::Day, limit: Measure::Tokens(190) })
        .await
        .unwrap();
    for _ in 0..2 {
        lines.push(show(&house.chat(&hello()).await));
        house.settled().await;
    }
    assert_snapshot!(lines.join("\n"), @r#"
    429 {"code":"key_budget_exceeded","message":"the key's budget of 50 tokens in 6 hours does not hold 185 tokens more: 0 tokens spent, 0 tokens reserved","param":null,"type":"insufficient_quota"} x-should-retry: false
    429 {"code":"account_budget_exceeded","message":"the account's budget of $0.0001 a day does not hold $0.000285 more: $0.00 spent, $0.00 reserved","param":null,"type":"insufficient_quota"} x-should-retry: false
    429 {"code":"operator_budget_exceeded","message":"the operator's budget of 100 tokens a month does not hold 185 tokens more","param":null,"type":"insufficient_quota"} x-should-retry: false
    200 null
    429 {"code":"account_budget_exceeded","message":"the account's budget of 190 tokens a day does not hold 185 tokens more: 8 tokens spent, 0 tokens reserved","param":null,"type":"insufficient_quota"} retry-after: 76800 x-should-retry: false
    "#);
    assert_eq!(house.refusals().len(), 4);
}

#[tokio::test]
async fn too_many_requests_at_once_are_turned_away() {
    let setup = Setup {
        config: Config { max_in_flight: 1, ..Config::default() },
        mock: Mock::new(|request| [vec![Step::Gate], common::answers(request)].concat()),
        ..Setup::default()
    };
    let house = House::furnished(setup).await;
    let second = async {
        while house.mock.asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let turned_away = house.chat(&hello()).await;
        house.mock.gate.add_permits(1);
        turned_away
    };
    let body = hello();
    let (first, second) = tokio::join!(house.chat(&body), second);
    assert_eq!((first.status, second.json()["error"]["code"].as_str()), (http::StatusCode::OK, Some("overloaded")));
}

#[tokio::test]
async fn one_account_cannot_take_all_places() {
    let setup = Setup {
        config: Config { max_in_flight_per_account: Some(1), ..Config::default() },
        mock: Mock::new(|request| [vec![Step::Gate], common::answers(request)].concat()),
        ..Setup::default()
    };
    let plan = setup.plan.id.clone();
    let house = House::furnished(setup).await;
    let other = anbiq_domain::AccountId::new("other").unwrap();
    let account = anbiq_ledger::NewAccount { id: other.clone(), plan, payment: None, opened: NOW };
    house.admin.open_account(&account).await.unwrap();
    let (_, key) = house.ledger.issue_key(&other, None, NOW).await.unwrap();
    let key = format!("Bearer {}", key.expose());
    let (asked, gate) = (&house.mock.asked, &house.mock.gate);
    let others = async {
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let turned_away = house.chat(&hello()).await;
        let opener = async {
            while asked.load(Ordering::SeqCst) == 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            gate.add_permits(2);
        };
        let request = house.post("/v1/chat/completions", &hello(), &[("authorization", &key)]);
        (turned_away, tokio::join!(house.send(request), opener).0)
    };
    let body = hello();
    let (first, (second, other)) = tokio::join!(house.chat(&body), others);
    assert_eq!((first.status.as_u16(), other.status.as_u16()), (200, 200));
    assert_snapshot!(show(&second), @r#"429 {"code":"concurrency_limit_exceeded","message":"1 requests of this account are under way, and no more may be at a time","param":null,"type":"requests"} retry-after: 1"#);
    house.settled().await;
    house.mock.gate.add_permits(1);
    assert_eq!(house.chat(&hello()).await.status, 200, "a place is given back");
}

#[tokio::test]
async fn a_failing_model_is_recorded_and_not_charged() {
    let failing = |fault, code| move || vec![Step::Fail(ModelError::new(fault, code, "inner secret"))];
    let mut lines = Vec::new();
    for (script, code) in [
        (failing(Fault::Request, "context_length_exceeded")(), "context_length_exceeded"),
        (failing(Fault::Busy, "upstream_busy")(), "upstream_busy"),
        (failing(Fault::Model, "upstream_failed")(), "upstream_failed"),
        (failing(Fault::Setup, "upstream_setup")(), "upstream_setup"),
        (vec![Step::Do(text(0, "a", None))], "answer_cut_off"),
        (vec![Step::Do(usage(1, 1))], "answer_cut_off"),
        (vec![Step::Do(text(7, "a", None))], "answer_malformed"),
        (vec![Step::Do(finished(0, 1)), Step::Do(text(0, "a", None))], "answer_malformed"),
        (vec![Step::Hang], "timeout"),
    ] {
        let config = Config { request_timeout_ms: 300, ..Config::default() };
        let house =
            House::furnished(Setup { config, mock: Mock::new(move |_| script.clone()), ..Setup::default() }).await;
        let reply = house.chat(&hello()).await;
        lines.push(show(&reply));
        let exchange = house.exchange(1).await;
        assert_eq!(exchange.outcome, Outcome::Failed { code: code.into() });
        let budget = house.settled().await;
        assert_eq!((exchange.cost, budget.spent), (Money::ZERO, Money::ZERO));
    }
    assert_snapshot!(lines.join("\n"), @r#"
    400 {"code":"context_length_exceeded","message":"inner secret","param":null,"type":"invalid_request_error"}
    503 {"code":"upstream_busy","message":"the model is overloaded; try again later","param":null,"type":"server_error"} retry-after: 1
    502 {"code":"upstream_failed","message":"the model failed to answer","param":null,"type":"server_error"}
    500 {"code":"upstream_setup","message":"the model is not available","param":null,"type":"server_error"}
    502 {"code":"answer_cut_off","message":"the model failed to answer","param":null,"type":"server_error"}
    502 {"code":"answer_cut_off","message":"the model failed to answer","param":null,"type":"server_error"}
    502 {"code":"answer_malformed","message":"the model failed to answer","param":null,"type":"server_error"}
    502 {"code":"answer_malformed","message":"the model failed to answer","param":null,"type":"server_error"}
    504 {"code":"timeout","message":"the answer did not end in time","param":null,"type":"server_error"}
    "#);
}

#[tokio::test]
async fn a_stream_that_fails_says_so_and_does_not_end_well() {
    let script = |_: &anbiq_model::Request| {
        vec![Step::Do(text(0, "a", None)), Step::Fail(ModelError::new(Fault::Model, "engine_failed", "inner secret"))]
    };
    let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    let reply = house.chat(&with(hello(), json!({"stream": true}))).await;
    assert_eq!(reply.streamed_text(), "a");
    let last: Value = serde_json::from_str(reply.events().last().unwrap()).unwrap();
    assert_snapshot!(last, @r#"{"error":{"code":"engine_failed","message":"the model failed to answer","param":null,"type":"server_error"}}"#);
    assert_eq!(house.settled().await.spent, Money::ZERO);
}

#[tokio::test]
async fn an_answer_that_cannot_be_journalled_is_not_given() {
    let house = House::new().await;
    house.journal.clone().close().unwrap();
    let reply = house.chat(&ask("open", "canary")).await;
    assert_snapshot!(show(&reply), @r#"503 {"code":"journal_unavailable","message":"the answer could not be recorded, so it is not given; nothing was charged","param":null,"type":"server_error"} retry-after: 1 x-should-retry: false"#);
    assert!(!reply.body.contains("canary"));
    let stream = house.chat(&with(hello(), json!({"stream": true}))).await;
    let events = stream.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "journal_unavailable");
    assert!(!stream.body.contains("[DONE]") && !stream.body.contains("\"finish_reason\":\"stop\""));
    assert_eq!(house.settled().await.spent, Money::ZERO, "what is not recorded is not charged");
    assert_eq!(house.get("/readyz").await.body, "journal");
    assert_eq!(house.get("/livez").await.status, 200);
}

#[tokio::test]
async fn an_answer_is_refused_when_the_disk_is_full() {
    if !std::path::Path::new("/dev/full").exists() {
        eprintln!("SKIPPED: this system has no /dev/full");
        return;
    }
    // Each entry begins a segment, and one of the next segments lies on a device that is always full.
    let house =
        House::furnished(Setup { journal: Options { segment_bytes: 1, ..Options::default() }, ..Setup::default() })
            .await;
    assert_eq!(house.chat(&hello()).await.status, 200);
    let segments = || {
        std::fs::read_dir(house.journal_folder())
            .unwrap()
            .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "seg"))
    };
    let next = segments().count();
    for number in next..next + 3 {
        std::os::unix::fs::symlink("/dev/full", house.journal_folder().join(format!("{number:08}.seg"))).unwrap();
    }
    let reply = house.chat(&ask("open", "canary")).await;
    assert_eq!((reply.status.as_u16(), reply.json()["error"]["code"].as_str()), (503, Some("journal_unavailable")));
    assert!(!reply.body.contains("canary"));
    assert_eq!(house.settled().await.spent, money("0.000013"), "only the first one was charged");
}

/// Reads the body until `text` has come.
async fn read_until(body: &mut hyper::body::Incoming, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let frame = body.frame().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_what_it_got() {
    let script = |request: &anbiq_model::Request| {
        vec![
            Step::Do(text(0, "one ", request.logprobs)),
            Step::Do(text(0, "two ", request.logprobs)),
            Step::Hang,
            Step::Do(text(0, "three", request.logprobs)),
        ]
    };
    let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    let request = house.post("/v1/chat/completions", &with(ask("open", "12345678"), json!({"stream": true})), &[]);
    let mut body = house.open(request).await.into_body();
    read_until(&mut body, "two ").await;
    drop(body);
    let exchange = house.exchange(1).await;
    assert_eq!(exchange.outcome, Outcome::Cancelled);
    assert_eq!(exchange.texts.unwrap().answers[0].text, "one two ");
    // Two tokens, and a prompt of eight bytes counted as two: the model had not told its length yet.
    assert_eq!((exchange.usage.prompt_tokens, exchange.usage.completion_tokens), (2, 2));
    assert_eq!(house.settled().await.spent, money("0.000006"));
    while house.mock.cancelled.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_anything_was_served_pays_nothing() {
    let house = House::furnished(Setup {
        mock: Mock::new(|_| vec![Step::Do(text(0, "one ", None)), Step::Hang]),
        ..Setup::default()
    })
    .await;
    let request = house.post("/v1/chat/completions", &hello(), &[]);
    let waiting = tokio::time::timeout(Duration::from_millis(200), house.open(request)).await;
    assert!(waiting.is_err());
    let exchange = house.exchange(1).await;
    assert_eq!((exchange.outcome, exchange.cost), (Outcome::Cancelled, Money::ZERO));
    assert_eq!(house.settled().await.spent, Money::ZERO);
}

#[tokio::test]
async fn leaving_with_all_the_text_does_not_spare_the_twin() {
    // The served draw ends; its twin goes on after the gate.
    let script = |request: &anbiq_model::Request| {
        let mut steps = vec![];
        for index in 0..request.n {
            steps.extend([Step::Do(text(index, "one ", None)), Step::Do(text(index, "two", None))]);
        }
        steps.push(Step::Gate);
        steps.extend((0..request.n).map(|index| Step::Do(finished(index, 2))));
        steps.push(Step::Gate);
        steps.push(Step::Do(usage(3, 4)));
        steps
    };
    let mut setup = Setup { mock: Mock::new(script), ..Setup::default() };
    setup.plan.twin.share = 1.0;
    setup.plan.text_policy = TextPolicy::Twinned;
    let house = House::furnished(setup).await;
    let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
    let mut body = house.open(request).await.into_body();
    read_until(&mut body, "two").await;
    house.mock.gate.add_permits(1);
    // The gateway has read both ends when the mock stands at its second gate.
    while house.mock.gate.available_permits() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(body);
    tokio::time::sleep(Duration::from_millis(50)).await;
    house.mock.gate.add_permits(1);
    let exchange = house.exchange(1).await;
    assert_eq!(exchange.outcome, Outcome::Completed);
    assert_eq!(exchange.usage.twin_tokens, 2);
    assert_eq!(house.mock.cancelled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_end_of_a_stream_waits_for_the_journal() {
    let script = |_: &anbiq_model::Request| {
        vec![Step::Do(text(0, "one", None)), Step::Do(finished(0, 1)), Step::Gate, Step::Do(usage(1, 1))]
    };
    let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
    let mut body = house.open(request).await.into_body();
    read_until(&mut body, "one").await;
    assert!(house.exchanges().is_empty());
    let more = tokio::time::timeout(Duration::from_millis(100), body.frame()).await;
    assert!(more.is_err(), "nothing goes out between the text and the commitment");
    house.mock.gate.add_permits(1);
    read_until(&mut body, "\"finish_reason\":\"stop\"").await;
    assert_eq!(house.exchanges().len(), 1, "durable before its end is seen");
}

#[tokio::test]
async fn a_silent_stream_is_kept_open() {
    let config = Config { heartbeat_ms: 20, ..Config::default() };
    let script = |_: &anbiq_model::Request| {
        vec![Step::Do(text(0, "one", None)), Step::Gate, Step::Do(finished(0, 1)), Step::Do(usage(1, 1))]
    };
    let house = House::furnished(Setup { config, mock: Mock::new(script), ..Setup::default() }).await;
    let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
    let mut body = house.open(request).await.into_body();
    read_until(&mut body, ": keep-alive\n\n").await;
    house.mock.gate.add_permits(1);
    read_until(&mut body, "[DONE]").await;
}

#[tokio::test]
async fn stopping_lets_requests_end() {
    let script = |request: &anbiq_model::Request| {
        [vec![Step::Do(text(0, "a ", None)), Step::Gate], common::answers(request)].concat()
    };
    let mut house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
    let mut body = house.open(request).await.into_body();
    read_until(&mut body, "a ").await;
    house.tell();
    let gate = std::sync::Arc::clone(&house.mock.gate);
    gate.add_permits(1);
    read_until(&mut body, "[DONE]").await;
    let (result, folder) = house.stopped().await;
    result.unwrap();
    let entries = common::entries(&folder.path().join("journal"));
    assert!(
        matches!(&entries[entries.len() - 2..], [Entry::Exchange(exchange), Entry::Closed { .. }] if exchange.outcome == Outcome::Completed)
    );
}

#[tokio::test]
async fn stopping_ends_requests_that_do_not_end() {
    let config = Config { drain_ms: 50, ..Config::default() };
    let script = |_: &anbiq_model::Request| vec![Step::Do(text(0, "a ", None)), Step::Hang];
    let mut house = House::furnished(Setup { config, mock: Mock::new(script), ..Setup::default() }).await;
    let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
    let mut body = house.open(request).await.into_body();
    read_until(&mut body, "a ").await;
    house.tell();
    read_until(&mut body, "shutting_down").await;
    let ledger = house.ledger.clone();
    let (result, folder) = house.stopped().await;
    result.unwrap();
    let entries = common::entries(&folder.path().join("journal"));
    assert!(matches!(entries.last(), Some(Entry::Closed { .. })));
    assert_eq!(ledger.budget(&acme()).await.unwrap().unwrap().reserved, Money::ZERO);
}

#[tokio::test]
async fn a_senseless_configuration_is_refused() {
    for (config, says) in [
        (
            Config {
                twin: anbiq_serve::TwinConfig { k: 1, ..anbiq_serve::TwinConfig::default() },
                ..Config::default()
            },
            "twin.k",
        ),
        (Config { reservation_ttl_ms: 1, ..Config::default() }, "reservation_ttl_ms"),
        (Config { max_in_flight: 0, ..Config::default() }, "max_in_flight"),
        (Config { max_in_flight_per_account: Some(0), ..Config::default() }, "max_in_flight_per_account"),
        (Config { max_body_bytes: 1 << 30, ..Config::default() }, "max_body_bytes"),
    ] {
        let house = House::new().await;
        let parts = anbiq_serve::GatewayParts {
            config,
            ledger: house.ledger.clone(),
            journal: house.journal.clone(),
            models: Vec::new(),
            planted: Vec::new(),
            secrets: anbiq_serve::Secrets {
                coin: common::coin(),
                epoch: 0,
                sketch_key: common::SKETCH_KEY,
                texts: None,
            },
            clock: std::sync::Arc::new(anbiq_domain::SystemClock),
            spool: None,
        };
        let error = anbiq_serve::Gateway::open(parts).await.unwrap_err();
        assert!(error.code() == "config_invalid" && error.to_string().contains(says), "{error}");
    }
}
