//! What whoever operates a gateway can see of it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::net::SocketAddr;

use anbiq_model::{Fault, ModelError};
use anbiq_serve::Config;
use common::{House, Mock, Setup, Step, ask, finished, hello, text, usage, with};
use http_body_util::BodyExt;
use insta::assert_snapshot;
use serde_json::json;

#[tokio::test]
async fn both_listeners_answer_probes_and_only_one_gives_metrics() {
    let house = House::new().await;
    for path in ["/livez", "/readyz"] {
        let (main, admin) = (house.get(path).await, house.admin(path).await);
        assert_eq!(
            [(main.status, main.body.as_str()), (admin.status, admin.body.as_str())],
            [(http::StatusCode::OK, "ok"); 2]
        );
    }
    assert_eq!(house.get("/metrics").await.status, 404);
    assert_eq!(house.admin("/v1/models").await.status, 404, "no customer is answered there");
    let metrics = house.admin("/metrics").await;
    assert_eq!(metrics.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(metrics.body.ends_with("# EOF\n"), "{}", metrics.body);
}

#[tokio::test]
async fn exchanges_twins_and_refusals_are_counted() {
    let script = |request: &anbiq_model::Request| {
        if request.prompt.last_text() == "fail" {
            return vec![Step::Fail(ModelError::new(Fault::Model, "upstream_failed", "oh"))];
        }
        common::answers(request)
    };
    let mut setup = Setup { mock: Mock::new(script), ..Setup::default() };
    setup.plan.twin.share = 1.0;
    let house = House::furnished(setup).await;
    assert_eq!(house.chat(&hello()).await.status, 200);
    assert_eq!(house.chat(&with(hello(), json!({"stream": true}))).await.status, 200);
    let completion = json!({"model": "open", "prompt": "one two", "temperature": 0});
    assert_eq!(house.send(house.post("/v1/completions", &completion, &[])).await.status, 200);
    assert_eq!(house.chat(&ask("open", "fail")).await.status, 502);
    for refused in [ask("closed", "x"), ask("gone", "x"), ask("gone too", "x"), json!({})] {
        assert!(house.chat(&refused).await.status.is_client_error());
    }
    assert!(house.get("/v1/nothing").await.status.is_client_error());
    let text = house.admin("/metrics").await.body;
    let counts = |name: &str| {
        let of_name =
            |line: &&str| line.starts_with(name) && !line.contains("_bucket") && !line.contains("_seconds_sum");
        let mut lines: Vec<&str> = text.lines().filter(of_name).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    assert_snapshot!([counts("gen_ai_"), counts("anbiq_")].join("\n"), @r#"
    gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_request_model="open",gen_ai_token_type="input"} 2
    gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_request_model="open",gen_ai_token_type="output"} 2
    gen_ai_client_token_usage_count{gen_ai_operation_name="text_completion",gen_ai_request_model="open",gen_ai_token_type="input"} 1
    gen_ai_client_token_usage_count{gen_ai_operation_name="text_completion",gen_ai_request_model="open",gen_ai_token_type="output"} 1
    gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_request_model="open",gen_ai_token_type="input"} 6.0
    gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_request_model="open",gen_ai_token_type="output"} 10.0
    gen_ai_client_token_usage_sum{gen_ai_operation_name="text_completion",gen_ai_request_model="open",gen_ai_token_type="input"} 2.0
    gen_ai_client_token_usage_sum{gen_ai_operation_name="text_completion",gen_ai_request_model="open",gen_ai_token_type="output"} 4.0
    gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_request_model="open",outcome="completed",error_type=""} 2
    gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_request_model="open",outcome="failed",error_type="upstream_failed"} 1
    gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="text_completion",gen_ai_request_model="open",outcome="completed",error_type=""} 1
    gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat",gen_ai_request_model="open"} 2
    gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="text_completion",gen_ai_request_model="open"} 1
    anbiq_answers_repeated_total 0
    anbiq_journal_append_seconds_count 7
    anbiq_overhead_seconds_count{gen_ai_operation_name="chat",gen_ai_request_model="open"} 2
    anbiq_overhead_seconds_count{gen_ai_operation_name="text_completion",gen_ai_request_model="open"} 1
    anbiq_refusals_total{code="invalid_value"} 1
    anbiq_refusals_total{code="model_not_found"} 2
    anbiq_refusals_total{code="terms_not_accepted"} 1
    anbiq_refusals_total{code="unknown_url"} 1
    anbiq_requests_in_flight 0
    anbiq_reservations_expired_total 0
    anbiq_telemetry_dropped_total 0
    anbiq_twin_cost_dollars_total{gen_ai_operation_name="chat",gen_ai_request_model="open",mode="together"} 0.000026
    anbiq_twin_tokens_total{gen_ai_operation_name="chat",gen_ai_request_model="open",mode="together"} 10
    anbiq_twins_drawn_total{gen_ai_operation_name="chat",gen_ai_request_model="open",mode="together"} 2
    anbiq_twins_late_total 0
    anbiq_twins_waiting 0
    "#);
    assert!(!text.contains("acme") && !text.contains("gone"), "nothing that a customer chose is a label");
}

#[tokio::test]
async fn requests_under_way_are_seen_and_a_client_that_leaves_is_counted() {
    let script = |_: &anbiq_model::Request| {
        vec![Step::Do(text(0, "one ", None)), Step::Gate, Step::Do(finished(0, 1)), Step::Do(usage(1, 1))]
    };
    let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    assert_eq!(house.metrics("anbiq_requests_in_flight").await, ["anbiq_requests_in_flight 0"]);
    let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
    let mut body = house.open(request).await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(house.metrics("anbiq_requests_in_flight").await, ["anbiq_requests_in_flight 1"]);
    drop(body);
    loop {
        let ended = house.metrics("gen_ai_server_request_duration_seconds_count").await;
        if let [line] = ended.as_slice() {
            assert!(line.contains("outcome=\"cancelled\"") && line.ends_with(" 1"), "{line}");
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_operator_sees_that_the_gateway_stops() {
    let script = |_: &anbiq_model::Request| {
        vec![Step::Do(text(0, "one ", None)), Step::Gate, Step::Do(finished(0, 1)), Step::Do(usage(1, 1))]
    };
    let mut house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
    let mut body = house.open(request).await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    house.tell();
    let unready = loop {
        let reply = house.admin("/readyz").await;
        if reply.status != 200 {
            break reply;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!((unready.status.as_u16(), unready.body.as_str()), (503, "draining"));
    assert_eq!(house.admin("/livez").await.status, 200);
    house.mock.gate.add_permits(1);
    while body.frame().await.is_some() {}
    house.stopped().await.0.unwrap();
}

#[test]
fn strangers_do_not_reach_the_operators_address_by_mistake() {
    let at = |address: &str| Some(address.parse::<SocketAddr>().unwrap());
    for address in ["127.0.0.1:9090", "[::1]:9090"] {
        Config { admin_listen: at(address), ..Config::default() }.check().unwrap();
    }
    let open = Config { admin_listen: at("0.0.0.0:9090"), ..Config::default() };
    let error = open.check().unwrap_err();
    assert_eq!(error.code(), "config_invalid");
    assert_snapshot!(error, @r"
    the configuration cannot be used: `admin_listen` is `0.0.0.0:9090`, which other machines may reach, and it asks for no key
    hint: listen on 127.0.0.1, or set `admin_anywhere = true` where the network keeps strangers out
    ");
    Config { admin_anywhere: true, ..open }.check().unwrap();
}
