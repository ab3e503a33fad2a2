//! What a collector of OpenTelemetry is told, and what becomes of it when it does not listen.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::{Arc, Mutex};

use anbiq_serve::{Config, TelemetryConfig};
use axum::http::{StatusCode, Uri};
use common::{House, Mock, Setup, Step, hello, with};
use serde_json::{Value, json};

type Told = Arc<Mutex<Vec<(String, Value)>>>;

/// A collector that answers with `status`.
async fn collector(status: StatusCode) -> (String, Told) {
    let told = Told::default();
    let notes = Arc::clone(&told);
    let app = axum::Router::new().fallback(move |uri: Uri, body: String| {
        notes.lock().unwrap().push((uri.path().to_owned(), serde_json::from_str(&body).unwrap()));
        async move { status }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (base, told)
}

fn setup(base: String, queue: usize, mock: Mock) -> Setup {
    let telemetry = TelemetryConfig { otlp: Some(base), interval_ms: 20, timeout_ms: 1000, queue };
    Setup { config: Config { telemetry, ..Config::default() }, mock, ..Setup::default() }
}

/// Attributes as a map, their values as text.
fn attributes(of: &Value) -> std::collections::BTreeMap<String, String> {
    let pair = |one: &Value| {
        let value = one["value"].as_object().unwrap().values().next().unwrap();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (one["key"].as_str().unwrap().to_owned(), value)
    };
    of["attributes"].as_array().unwrap().iter().map(pair).collect()
}

fn spans(told: &Told) -> Vec<Value> {
    let told = told.lock().unwrap();
    let traces = told.iter().filter(|(path, _)| path == "/v1/traces");
    let spans = traces.flat_map(|(_, body)| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap());
    spans.cloned().collect()
}

#[tokio::test]
async fn an_exchange_is_a_span_and_is_measured_and_its_words_stay_here() {
    let (base, told) = collector(StatusCode::OK).await;
    let script = |request: &anbiq_model::Request| {
        if request.prompt.last_text().contains("fail") {
            let why = anbiq_model::ModelError::new(anbiq_model::Fault::Model, "upstream_failed", "xyzzy");
            return vec![Step::Fail(why)];
        }
        common::answers(request)
    };
    let mut house = House::furnished(setup(base, 16, Mock::new(script))).await;
    let say = |words: &str| with(hello(), json!({"messages": [{"role": "user", "content": words}], "max_tokens": 77}));
    assert_eq!(house.chat(&say("xyzzy plugh")).await.status, 200);
    assert_eq!(house.chat(&say("xyzzy fail")).await.status, 502);
    house.tell();
    house.stopped().await.0.unwrap();
    let spans = spans(&told);
    assert_eq!(spans.len(), 2, "all that waits is told before the gateway stops");
    let (good, bad) = (&spans[0], &spans[1]);
    let said = attributes(good);
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "open"),
        ("gen_ai.request.max_tokens", "77"),
        ("gen_ai.usage.input_tokens", "2"),
        ("gen_ai.usage.output_tokens", "4"),
        ("anbiq.account", "acme"),
    ] {
        assert_eq!(said[name], value, "{name}");
    }
    assert_eq!((good["name"].as_str(), good["kind"].as_u64()), (Some("chat open"), Some(2)));
    assert_eq!((good["traceId"].as_str().unwrap().len(), good["spanId"].as_str().unwrap().len()), (32, 16));
    let nanoseconds = |name: &str| good[name].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanoseconds("startTimeUnixNano") < nanoseconds("endTimeUnixNano"));
    assert_eq!((attributes(bad)["error.type"].as_str(), &bad["status"]["code"]), ("upstream_failed", &json!(2)));

    let told = told.lock().unwrap();
    let (_, last) = told.iter().rfind(|(path, _)| path == "/v1/metrics").unwrap();
    let metrics = last["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let names: Vec<&str> = metrics.iter().map(|metric| metric["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["gen_ai.client.operation.duration", "gen_ai.client.token.usage"]);
    let tokens = metrics[1]["histogram"]["dataPoints"].as_array().unwrap();
    let output = tokens.iter().find(|point| attributes(point)["gen_ai.token.type"] == "output").unwrap();
    assert_eq!((output["count"].as_str(), output["sum"].as_f64()), (Some("1"), Some(4.0)));
    let counts = output["bucketCounts"].as_array().unwrap();
    assert_eq!(counts.len(), output["explicitBounds"].as_array().unwrap().len() + 1);
    assert_eq!(counts.iter().position(|count| count == "1"), Some(1), "4 is in the bucket that ends with 4");
    assert!(!format!("{told:?}").contains("xyzzy"), "neither prompts nor answers nor what servers say");
}

#[tokio::test]
async fn a_collector_that_does_not_listen_costs_nothing_but_what_it_is_told() {
    let (refusing, _) = collector(StatusCode::SERVICE_UNAVAILABLE).await;
    for base in [refusing, "http://127.0.0.1:9".to_owned()] {
        let house = House::furnished(setup(base, 2, Mock::default())).await;
        for _ in 0..8 {
            assert_eq!(house.chat(&hello()).await.status, 200);
        }
        loop {
            let dropped = house.metrics("anbiq_telemetry_dropped_total").await;
            if dropped == ["anbiq_telemetry_dropped_total 8"] {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn an_address_that_is_none_is_refused() {
    for wrong in ["127.0.0.1:4318", "ftp://x", "http://user:pass@x", "http://x?key=1", "grpc://x"] {
        let telemetry = TelemetryConfig { otlp: Some(wrong.to_owned()), ..TelemetryConfig::default() };
        let error = Config { telemetry, ..Config::default() }.check().unwrap_err();
        assert_eq!(error.code(), "config_invalid", "{wrong}");
        assert!(!error.to_string().contains("pass@"));
    }
}
