//! Client and upstream against a server on loopback that answers as it is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anbiq_domain::{Answer, Finish, Message, Prompt, Role, ToolCall};
use anbiq_model::{Event, Fault, Model, Request, ScoreRequest, collect};
use anbiq_openai::{ChatMessage, ChatRequest};
use anbiq_secret::Secret;
use anbiq_upstream::{Client, ClientConfig, ErrorKind, Form, Scoring, Upstream, UpstreamConfig};
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use futures::StreamExt;
use serde_json::{Value, json};

#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, HeaderMap, Value)>>>);

type Reply = Arc<dyn Fn(&Value) -> Response<Body> + Send + Sync>;

/// A server that notes what it is asked and answers with `reply`; gives its base URL.
async fn server(reply: impl Fn(&Value) -> Response<Body> + Send + Sync + 'static) -> (String, Seen) {
    let (seen, reply): (_, Reply) = (Seen::default(), Arc::new(reply));
    let notes = seen.clone();
    let app = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: String| {
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        notes.0.lock().unwrap().push((uri.path().to_owned(), headers, body.clone()));
        let answer = reply(&body);
        async move { answer }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (format!("http://{address}/v1/"), seen)
}

fn json_reply(status: u16, body: &Value) -> Response<Body> {
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

fn sse_reply(events: &[Value], done: bool) -> Response<Body> {
    let mut text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    if done {
        text.push_str("data: [DONE]\n\n");
    }
    Response::new(Body::from(text))
}

fn chat_chunk(index: u32, text: &str, finish: Option<&str>) -> Value {
    json!({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]})
}

fn usage(prompt: u64, completion: u64) -> Value {
    json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}})
}

fn hello() -> ChatRequest {
    ChatRequest { model: "m".into(), messages: vec![ChatMessage::new(Role::User, "hi")], ..ChatRequest::default() }
}

fn config(base: &str) -> ClientConfig {
    ClientConfig { read_timeout: Duration::from_secs(5), ..ClientConfig::new(base, Some(Secret::new("k".to_owned()))) }
}

#[tokio::test]
async fn the_client_sends_its_key_and_headers() {
    let answer = json!({"id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yo"}, "finish_reason": "stop"}]});
    let (base, seen) = server(move |_| json_reply(200, &answer)).await;
    let client = Client::new(config(&base)).unwrap();
    let response = client.chat(&hello(), &[("x-anbiq-purpose".into(), "distillation".into())]).await.unwrap();
    assert_eq!(response.choices[0].message.content.as_deref(), Some("yo"));
    let seen = seen.0.lock().unwrap();
    let (path, headers, body) = &seen[0];
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(headers["authorization"], "Bearer k");
    assert_eq!(headers["x-anbiq-purpose"], "distillation");
    assert_eq!(body, &json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}));
    assert!(!format!("{client:?} {:?}", config("http://u:p@h/v1?q")).contains("\"k\""));
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let error = |code: &str| json!({"error": {"message": "no", "type": "t", "param": null, "code": code}});
    for (status, body, retryable) in [
        (400, error("bad"), false),
        (401, error("invalid_api_key"), false),
        (403, error("terms_not_accepted"), false),
        (429, error("rate_limit_exceeded"), true),
        (429, error("insufficient_quota"), false),
        (500, Value::Null, true),
        (503, error("journal_unavailable"), true),
        (302, Value::Null, false),
    ] {
        let reply = body.clone();
        let (base, seen) = server(move |_| {
            let mut answer = json_reply(status, &reply);
            answer.headers_mut().insert("retry-after", "1.5".parse().unwrap());
            answer.headers_mut().insert("location", "/v1/elsewhere".parse().unwrap());
            answer
        })
        .await;
        let error = Client::new(config(&base)).unwrap().chat(&hello(), &[]).await.unwrap_err();
        assert_eq!((error.kind, error.status), (ErrorKind::Refused, Some(status)));
        assert_eq!((error.retryable(), error.retry_after_ms), (retryable, Some(1500)), "{status} {body}");
        assert_eq!(error.code.as_deref(), body["error"]["code"].as_str());
        assert_eq!(seen.0.lock().unwrap().len(), 1, "no second try, no redirect");
    }
}

#[tokio::test]
async fn bad_servers_are_errors() {
    let unreachable = Client::new(config("http://127.0.0.1:9/v1")).unwrap().models().await.unwrap_err();
    assert_eq!((unreachable.kind, unreachable.retryable()), (ErrorKind::Connection, true));
    for wrong in ["127.0.0.1/v1", "ftp://x/v1", "http://"] {
        assert_eq!(Client::new(config(wrong)).unwrap_err().kind, ErrorKind::Setup, "{wrong}");
    }
    let (base, _) = server(|_| Response::new(Body::from("x".repeat(100)))).await;
    let small = ClientConfig { max_body_bytes: 50, ..config(&base) };
    let long = Client::new(small).unwrap().chat(&hello(), &[]).await.unwrap_err();
    assert_eq!(long.code.as_deref(), Some("answer_too_long"));
    let malformed = Client::new(config(&base)).unwrap().chat(&hello(), &[]).await.unwrap_err();
    assert_eq!(malformed.kind, ErrorKind::Malformed);
    let (base, _) =
        server(|_| Response::new(Body::from_stream(futures::stream::pending::<Result<String, String>>()))).await;
    let hasty = ClientConfig { read_timeout: Duration::from_millis(50), ..config(&base) };
    let late = Client::new(hasty).unwrap().chat(&hello(), &[]).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::Timeout);
}

#[tokio::test]
async fn a_stream_ends_with_done_or_with_an_error() {
    let chunk = || chat_chunk(0, "a", None);
    let failure = || json!({"error": {"message": "broken", "type": "server_error", "code": "c"}});
    for (events, done, code) in [
        (vec![chunk(), chunk()], true, None),
        (vec![chunk(), chunk()], false, Some("stream_cut_off")),
        (vec![chunk(), chunk(), failure(), chunk()], true, Some("c")),
        (vec![chunk(), chunk(), json!({"x": 1})], true, Some("answer_malformed")),
    ] {
        let (base, _) = server(move |_| sse_reply(&events, done)).await;
        let chunks: Vec<_> =
            Client::new(config(&base)).unwrap().chat_stream(&hello(), &[]).await.unwrap().collect().await;
        let last = chunks.last().unwrap().as_ref().err().and_then(|error| error.code.clone());
        assert_eq!(last.as_deref(), code);
        assert_eq!(chunks.iter().filter(|chunk| chunk.is_ok()).count(), 2);
    }
}

fn prompt() -> Prompt {
    Prompt::Chat(vec![Message::new(Role::User, "hi")])
}

#[tokio::test]
async fn calls_of_tools_and_cached_tokens_are_read_as_servers_write_them() {
    let count = Arc::new(AtomicU64::new(0));
    let (base, _) = server(move |_| {
        let delta = |delta: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        // The second of two parallel draws finds more in the cache than the first.
        let cached = 4 + 4 * count.fetch_add(1, Ordering::SeqCst);
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": cached}}});
        let events = [
            // Without places, and with the name repeated: some servers write so.
            delta(json!({"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]})),
            delta(json!({"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "}"}}]})),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
            usage,
        ];
        sse_reply(&events, true)
    })
    .await;
    let model = Upstream::new(UpstreamConfig::new("m", base, None)).unwrap();
    let request = Request { n: 2, ..Request::new(prompt(), 9) };
    let (answers, total) = collect(model.generate(request).await.unwrap(), 2).await.unwrap();
    let call = ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
    assert_eq!(answers, vec![Answer { tool_calls: vec![call], ..Answer::new("", Finish::ToolCalls) }; 2]);
    assert_eq!((total.prompt_tokens, total.cached_tokens), (9, 4));
}

#[tokio::test]
async fn what_nobody_reads_before_its_end_is_asked_for_whole() {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4}});
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let calls = json!({"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")]});
    let says = |message: Value, finish: &str, usage: &Value| {
        json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "fp",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage})
    };
    let words = json!({"role": "assistant", "content": "eleven byte"});
    let cut_off = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []});
    let called = |id: &str| ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() };
    for (body, expected) in [
        (says(words.clone(), "length", &usage), Ok((Answer::new("eleven byte", Finish::Length), (9, 4, 5)))),
        // A server that does not count is counted for: four bytes a token.
        (says(words, "stop", &Value::Null), Ok((Answer::new("eleven byte", Finish::Stop), (0, 0, 3)))),
        (
            says(calls, "tool_calls", &usage),
            Ok((
                Answer { tool_calls: vec![called("a"), called("b")], ..Answer::new("", Finish::ToolCalls) },
                (9, 4, 5),
            )),
        ),
        (cut_off, Err("answer_cut_off")),
        (json!({"choices": 5}), Err("upstream_malformed")),
    ] {
        let (base, seen) = server(move |_| json_reply(200, &body)).await;
        let model = Upstream::new(UpstreamConfig::new("m", base, None)).unwrap();
        let request = Request { whole: true, ..Request::new(prompt(), 9) };
        let said = match model.generate(request).await {
            Ok(generation) => collect(generation, 1).await,
            Err(error) => Err(error),
        };
        let said = said.map(|(mut answers, total)| {
            let counted = (total.prompt_tokens, total.cached_tokens, total.completion_tokens);
            (answers.swap_remove(0), counted)
        });
        assert_eq!(said.map_err(|error| error.code), expected);
        let asked = &seen.0.lock().unwrap()[0].2;
        assert_eq!((&asked["stream"], &asked["stream_options"]), (&Value::Null, &Value::Null));
    }
}

#[tokio::test]
async fn several_completions_are_several_requests_or_one() {
    for several in [false, true] {
        let (base, seen) = server(|body| {
            let n = body["n"].as_u64().unwrap_or(1) as u32;
            let mut events = Vec::new();
            for index in 0..n {
                events.extend([
                    chat_chunk(index, "a", None),
                    chat_chunk(index, "b", None),
                    chat_chunk(index, "", Some("length")),
                ]);
            }
            events.push(usage(5, 2 * u64::from(n)));
            sse_reply(&events, true)
        })
        .await;
        let model = Upstream::new(UpstreamConfig { several, ..UpstreamConfig::new("m", base, None) }).unwrap();
        let mut request = Request::new(prompt(), 9);
        request.n = 3;
        request.sampling.seed = Some(u64::MAX);
        let (answers, total) = collect(model.generate(request).await.unwrap(), 3).await.unwrap();
        assert_eq!(answers, vec![Answer::new("ab", Finish::Length); 3]);
        assert_eq!((total.prompt_tokens, total.completion_tokens), (5, 6));
        let mut seeds: Vec<i64> =
            seen.0.lock().unwrap().iter().map(|(_, _, body)| body["seed"].as_i64().unwrap()).collect();
        seeds.sort_unstable();
        assert_eq!(seeds, if several { vec![-1] } else { vec![-1, 0, 1] });
    }
}

#[tokio::test]
async fn a_server_without_several_completions_is_asked_for_each() {
    let one = || sse_reply(&[chat_chunk(0, "a", None), chat_chunk(0, "", Some("stop")), usage(5, 1)], true);
    for refuses in [false, true] {
        let (base, seen) = server(move |body| {
            if refuses && body["n"].as_u64() > Some(1) {
                return json_reply(400, &json!({"error": {"message": "n must be 1"}}));
            }
            one()
        })
        .await;
        let config = UpstreamConfig { several: true, ..UpstreamConfig::new("m", base, None) };
        let model = Upstream::new(config).unwrap();
        assert!(model.together());
        for round in 0..2 {
            let request = Request { n: 3, ..Request::new(prompt(), 9) };
            let (answers, total) = collect(model.generate(request).await.unwrap(), 3).await.unwrap();
            assert_eq!(answers, vec![Answer::new("a", Finish::Stop); 3]);
            assert_eq!((total.prompt_tokens, total.completion_tokens), (5, 3));
            assert!(!model.together(), "after {round}");
        }
        let asked: Vec<Option<u64>> = seen.0.lock().unwrap().iter().map(|(_, _, body)| body["n"].as_u64()).collect();
        let singles = if refuses { 6 } else { 5 };
        assert_eq!(asked, [vec![Some(3)], vec![None; singles]].concat());
    }
    // What is wrong with the request itself is still said, and teaches nothing.
    let (base, _) = server(|_| json_reply(400, &json!({"error": {"message": "no such thing"}}))).await;
    let model = Upstream::new(UpstreamConfig { several: true, ..UpstreamConfig::new("m", base, None) }).unwrap();
    let error = model.generate(Request { n: 2, ..Request::new(prompt(), 9) }).await.unwrap_err();
    assert_eq!(error.fault, Fault::Request);
    assert!(model.together());
}

#[tokio::test]
async fn the_build_of_a_model_is_passed_on_once() {
    let mut chunk = chat_chunk(0, "a", None);
    chunk["system_fingerprint"] = json!("fp_7");
    let events = [chunk.clone(), chunk, chat_chunk(0, "", Some("stop")), usage(5, 2)];
    let (base, _) = server(move |_| sse_reply(&events, true)).await;
    let model = Upstream::new(UpstreamConfig::new("m", base, None)).unwrap();
    let mut generation = model.generate(Request::new(prompt(), 9)).await.unwrap();
    let mut builds = Vec::new();
    while let Some(event) = generation.recv().await {
        if let Event::Fingerprint(build) = event.unwrap() {
            builds.push(build);
        }
    }
    assert_eq!(builds, ["fp_7"]);
}

#[tokio::test]
async fn log_probabilities_come_through_both_endpoints() {
    let (base, seen) = server(|body| {
        let chat = json!([{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "logprobs": {"content":
            [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}]}]}}]);
        let text = json!([{"index": 0, "text": "a", "finish_reason": "stop", "logprobs": {"tokens": ["a"],
            "token_logprobs": [-0.5], "top_logprobs": [{"b": -2.0, "a": -0.5}], "text_offset": [0]}}]);
        let choices = if body["messages"].is_array() { chat } else { text };
        sse_reply(&[json!({"choices": choices}), usage(1, 1)], true)
    })
    .await;
    let model = Upstream::new(UpstreamConfig { logprobs: Some(5), ..UpstreamConfig::new("m", base, None) }).unwrap();
    for (prompt, path) in [(prompt(), "/v1/chat/completions"), (Prompt::Text("x".into()), "/v1/completions")] {
        let request = Request { logprobs: Some(2), ..Request::new(prompt, 9) };
        let mut events = model.generate(request).await.unwrap();
        let Event::Text { logprobs, .. } = events.recv().await.unwrap().unwrap() else { panic!("no text") };
        assert_eq!((logprobs[0].token.as_str(), logprobs[0].logprob), ("a", -0.5));
        assert_eq!(logprobs[0].top[0].token, "a");
        assert_eq!(seen.0.lock().unwrap().last().unwrap().0, path);
    }
}

#[tokio::test]
async fn a_server_that_fails_is_told_apart() {
    for (status, message, fault, code) in [
        (400, "This model's maximum context length is 8 tokens", Fault::Request, "context_length_exceeded"),
        (400, "bad", Fault::Request, "upstream_refused"),
        (401, "who?", Fault::Setup, "upstream_setup"),
        (429, "slow down", Fault::Busy, "upstream_busy"),
        (500, "oh", Fault::Model, "upstream_failed"),
    ] {
        let (base, _) = server(move |_| json_reply(status, &json!({"error": {"message": message}}))).await;
        let model = Upstream::new(UpstreamConfig::new("m", base, None)).unwrap();
        let error = model.generate(Request::new(prompt(), 9)).await.unwrap_err();
        assert_eq!((error.fault, error.code, error.message.as_str()), (fault, code, message));
    }
    let (base, _) = server(|_| sse_reply(&[chat_chunk(0, "a", None)], true)).await;
    let model = Upstream::new(UpstreamConfig::new("m", base, None)).unwrap();
    let error = collect(model.generate(Request::new(prompt(), 9)).await.unwrap(), 1).await.unwrap_err();
    assert_eq!(error.code, "answer_cut_off");
}

#[tokio::test]
async fn given_text_is_scored_by_an_echo() {
    // As vLLM answers: offsets in characters, the start of the text shown as a token, one token written after it.
    let (base, seen) = server(|_| {
        json_reply(
            200,
            &json!({"choices": [{"index": 0, "text": "é ab<e>x", "finish_reason": "length", "logprobs": {
                "tokens": ["<s>", "é", " a", "b", "<e>", "x"],
                "token_logprobs": [null, -1.0, -2.0, -3.0, -4.0, -5.0],
                "top_logprobs": [null, {"é": -1.0}, {" a": -2.0}, {"b": -3.0, "c": -0.5}, {"<e>": -4.0}, {"x": -5.0}],
                "text_offset": [0, 3, 4, 6, 7, 10]}}]}),
        )
    })
    .await;
    let scoring = Scoring::Echo(Form { template: None, end_of_turn: "<e>".into() });
    let model =
        Upstream::new(UpstreamConfig { scoring: Some(scoring), ..UpstreamConfig::new("m", base, None) }).unwrap();
    let answer = Answer::new(" ab", Finish::Stop);
    let request = ScoreRequest { prompt: Prompt::Text("é".into()), answer: answer.clone() };
    let scored = model.score(std::slice::from_ref(&request)).await.unwrap();
    assert_eq!(scored[0].logprobs, [-2.0, -3.0, -4.0]);
    assert_eq!(scored[0].greedy, [true, false, true]);
    assert_eq!(seen.0.lock().unwrap()[0].2["prompt"], "é ab<e>");

    let chat = ScoreRequest { prompt: prompt(), answer };
    assert_eq!(model.score(&[chat]).await.unwrap_err().code, "scoring_unsupported");
}

/// A server that reads conversations as vLLM does: a token a word, after one that begins the text and before one that begins an answer.
fn reads_conversations(body: &Value) -> Response<Body> {
    if body["echo"] == true {
        return json_reply(400, &json!({"error": {"message": "no echo"}}));
    }
    let words =
        |message: &Value| message["content"].as_str().unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut tokens: Vec<String> = vec!["<s>".into()];
    tokens.extend(body["messages"].as_array().unwrap().iter().flat_map(|message| {
        let begin = (message["role"] == "assistant").then(|| "<a>".to_owned());
        begin.into_iter().chain(words(message))
    }));
    if body["continue_final_message"] != true {
        tokens.push("<a>".into());
    }
    // The token of the text is at the number of its letters; where it is not the likeliest, that one is shown as well.
    let row = |token: &String| {
        let own = json!({"logprob": -(token.len() as f64), "rank": token.len(), "decoded_token": token});
        match token.len() {
            1 => json!({"7": own}),
            _ => json!({"7": own, "9": {"logprob": -0.5, "rank": 1, "decoded_token": "x"}}),
        }
    };
    let rows: Vec<Value> = std::iter::once(Value::Null).chain(tokens.iter().skip(1).map(row)).collect();
    let asked = body["prompt_logprobs"].is_number();
    json_reply(
        200,
        &json!({
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}],
            "prompt_logprobs": if asked { json!(rows) } else { Value::Null },
            "usage": {"prompt_tokens": tokens.len(), "completion_tokens": 1, "total_tokens": tokens.len() + 1}
        }),
    )
}

#[tokio::test]
async fn given_text_is_scored_by_what_it_adds_to_a_conversation() {
    let (base, seen) = server(reads_conversations).await;
    // The form is known, but the server repeats nothing.
    for form in [None, Some(Form::default())] {
        let scoring = Some(Scoring::Asked(form));
        let model = Upstream::new(UpstreamConfig { scoring, ..UpstreamConfig::new("m", &base, None) }).unwrap();
        assert!(model.abilities().scoring);
        let request = |answer: &str| ScoreRequest { prompt: prompt(), answer: Answer::new(answer, Finish::Stop) };
        let before = seen.0.lock().unwrap().len();
        let scored = model.score(&[request("a bcd e"), request("fg")]).await.unwrap();
        assert_eq!(
            (&scored[0].logprobs[..], &scored[0].greedy[..]),
            (&[-1.0, -3.0, -1.0][..], &[true, false, true][..])
        );
        assert_eq!((&scored[1].logprobs[..], &scored[1].greedy[..]), (&[-2.0][..], &[false][..]));
        // How it scores is asked once, what a prompt is alone once for both of its answers.
        model.score(&[request("h")]).await.unwrap();
        let asked: Vec<bool> = seen.0.lock().unwrap()[before..]
            .iter()
            .map(|(_, _, body)| body["continue_final_message"] == true)
            .collect();
        assert_eq!(asked.iter().filter(|continued| !**continued).count(), 2 + usize::from(asked.len() > 6));
    }

    let (base, _) = server(|_| json_reply(200, &json!({"choices": []}))).await;
    let model = UpstreamConfig { scoring: Some(Scoring::Asked(None)), ..UpstreamConfig::new("m", base, None) };
    let request = ScoreRequest { prompt: prompt(), answer: Answer::new("a", Finish::Stop) };
    let error = Upstream::new(model).unwrap().score(&[request]).await.unwrap_err();
    assert_eq!((error.fault, error.code), (Fault::Setup, "scoring_unsupported"));
}

#[tokio::test]
async fn when_to_come_back_is_read_from_numbers_and_dates() {
    type Header = (&'static str, &'static str);
    const NOW: Header = ("date", "Wed, 25 Nov 2026 12:00:00 GMT");
    const CASES: &[(&[Header], Option<u64>)] = &[
        (&[("retry-after", "2")], Some(2000)),
        (&[("retry-after", "0.25")], Some(250)),
        (&[("retry-after-ms", "30"), ("retry-after", "2")], Some(30)),
        (&[NOW, ("retry-after", "Wed, 25 Nov 2026 12:00:07 GMT")], Some(7000)),
        (&[NOW, ("retry-after", "Wed, 25 Nov 2026 11:00:00 GMT")], Some(0)),
        (&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")], Some(0)),
        (&[("retry-after", "soon")], None),
        (&[("retry-after", "-1")], None),
        (&[], None),
    ];
    for (headers, wait) in CASES {
        let (base, _) = server(move |_| {
            let mut answer = json_reply(503, &Value::Null);
            for (name, value) in *headers {
                answer.headers_mut().insert(*name, value.parse().unwrap());
            }
            answer
        })
        .await;
        let error = Client::new(config(&base)).unwrap().chat(&hello(), &[]).await.unwrap_err();
        assert_eq!(error.retry_after_ms, *wait, "{headers:?}");
    }
}
