//! Azure's dialect against a server on loopback that answers as Azure does.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::{Arc, Mutex};

use anbiq_domain::{Finish, Prompt};
use anbiq_model::{Fault, Model, Request, collect};
use anbiq_secret::Secret;
use anbiq_upstream::{Dialect, Upstream, UpstreamConfig};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use serde_json::{Value, json};

type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

async fn azure(status: u16, reply: String) -> (String, Seen) {
    let seen = Seen::default();
    let notes = Arc::clone(&seen);
    let app = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
        notes.lock().unwrap().push((uri.to_string(), headers));
        let answer = (StatusCode::from_u16(status).unwrap(), reply.clone()).into_response();
        async move { answer }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (base, seen)
}

fn stream(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).chain(["data: [DONE]\n\n".to_owned()]).collect()
}

/// What Azure adds: a first chunk about the prompt without choices, ratings in each choice, and where its filter works
/// beside the model, chunks with ratings and without text.
fn filtered(finish: &str) -> String {
    let safe = json!({"hate": {"filtered": false, "severity": "safe"}});
    stream(&[
        json!({"id": "", "object": "", "created": 0, "model": "", "choices": [],
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}]}),
        json!({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "system_fingerprint": "f",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "refusal": null}, "logprobs": null,
            "finish_reason": null, "content_filter_results": {}}], "usage": null}),
        json!({"choices": [{"index": 0, "delta": {"content": "yo"}, "finish_reason": null, "content_filter_results": safe}]}),
        json!({"id": "", "object": "", "created": 0, "model": "", "choices": [{"index": 0, "finish_reason": null,
            "content_filter_results": safe, "content_filter_offsets": {"check_offset": 0, "start_offset": 0, "end_offset": 2}}]}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": finish, "content_filter_results": safe}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}),
    ])
}

fn model(base: String, deployment: &str, api_version: Option<&str>) -> Upstream {
    let mut config = UpstreamConfig::new("teacher", base, Some(Secret::new("azure-key".to_owned())));
    config.model = deployment.to_owned();
    config.client.dialect =
        Dialect::Azure { deployment: deployment.to_owned(), api_version: api_version.map(str::to_owned) };
    Upstream::new(config).unwrap()
}

fn hello() -> Request {
    Request::new(Prompt::user("hi"), 9)
}

#[tokio::test]
async fn a_deployment_is_reached_by_path_query_and_header() {
    let version = Some("2024-10-21");
    for (suffix, api_version, path) in [
        ("", version, "/openai/deployments/gpt-4o-eu/chat/completions?api-version=2024-10-21"),
        ("/", version, "/openai/deployments/gpt-4o-eu/chat/completions?api-version=2024-10-21"),
        ("/openai", version, "/openai/deployments/gpt-4o-eu/chat/completions?api-version=2024-10-21"),
        ("", None, "/openai/v1/chat/completions"),
        ("/openai/v1/", None, "/openai/v1/chat/completions"),
    ] {
        let (base, seen) = azure(200, filtered("stop")).await;
        let generation = model(base + suffix, "gpt-4o-eu", api_version).generate(hello()).await.unwrap();
        let (answers, usage) = collect(generation, 1).await.unwrap();
        assert_eq!((answers[0].text.as_str(), answers[0].finish), ("yo", Finish::Stop));
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (3, 1));
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].0, path, "{suffix} {api_version:?}");
        assert_eq!(seen[0].1["api-key"], "azure-key");
        assert!(!seen[0].1.contains_key("authorization"));
    }
}

#[tokio::test]
async fn what_the_filter_stops_is_told_apart() {
    let (base, _) = azure(200, filtered("content_filter")).await;
    let generation = model(base, "d", None).generate(hello()).await.unwrap();
    let (answers, _) = collect(generation, 1).await.unwrap();
    assert_eq!(answers[0].text, "yo", "what it let through is there");
    let refusal = json!({"error": {"code": "content_filter", "status": 400, "param": "prompt", "type": null,
        "message": "the prompt was filtered", "innererror": {"code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"hate": {"filtered": true, "severity": "high"}}}}});
    let (base, _) = azure(400, refusal.to_string()).await;
    let error = model(base, "d", None).generate(hello()).await.unwrap_err();
    assert_eq!((error.fault, error.code), (Fault::Request, "content_filter"));
}

#[test]
fn a_deployment_cannot_lead_elsewhere() {
    for (deployment, api_version) in
        [("..", None), ("a/b", None), ("a?b", None), ("", None), ("a b", None), ("d", Some("1&x=2")), ("d", Some(""))]
    {
        let mut config = UpstreamConfig::new("m", "https://name.openai.azure.com", None);
        config.client.dialect =
            Dialect::Azure { deployment: deployment.to_owned(), api_version: api_version.map(str::to_owned) };
        let error = Upstream::new(config).unwrap_err();
        assert_eq!(error.fault, Fault::Setup, "{deployment} {api_version:?}");
    }
}
