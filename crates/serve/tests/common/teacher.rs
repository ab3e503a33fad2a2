//! A teacher behind HTTP that calls tools, obeys forms, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anbiq_model::Model;
use anbiq_upstream::{ClientConfig, Upstream, UpstreamConfig};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};

/// The teacher's name in requests.
pub(crate) const TEACHER: &str = "tools";

/// What it was asked and what is to go wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Teacher(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    asked: Vec<Value>,
    failures: VecDeque<(StatusCode, Value)>,
}

impl Teacher {
    /// Starts one, and gives it as a model.
    pub(crate) async fn start() -> (Self, Arc<dyn Model>) {
        let teacher = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embeddings))
            .with_state(teacher.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config =
            UpstreamConfig { client: ClientConfig::new(&base, None), ..UpstreamConfig::new(TEACHER, base, None) };
        (teacher, Arc::new(Upstream::new(config).unwrap()))
    }

    /// The bodies of all requests so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.0.lock().unwrap().asked.clone()
    }

    /// Refuses the next request.
    pub(crate) fn refuse(&self, status: u16, error: Value) {
        self.0.lock().unwrap().failures.push_back((StatusCode::from_u16(status).unwrap(), json!({"error": error})));
    }
}

async fn chat(State(teacher): State<Teacher>, Json(body): Json<Value>) -> Response {
    let (number, failure) = {
        let mut memory = teacher.0.lock().unwrap();
        memory.asked.push(body.clone());
        (memory.asked.len(), memory.failures.pop_front())
    };
    if let Some((status, error)) = failure {
        return (status, Json(error)).into_response();
    }
    let (deltas, finish) = says(&body, number);
    if body["stream"] != true {
        return Json(whole(&deltas, finish)).into_response();
    }
    let chunk = |choices: Value, usage: Value| json!({"id": "up", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": choices, "usage": usage});
    let mut events: Vec<String> = deltas
        .iter()
        .map(|delta| chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), json!(null)).to_string())
        .collect();
    events.push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": finish}]), json!(null)).to_string());
    events.push(chunk(json!([]), usage(&deltas)).to_string());
    events.push("[DONE]".to_owned());
    let text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    ([("content-type", "text/event-stream")], Body::from(text)).into_response()
}

fn usage(deltas: &[Value]) -> Value {
    json!({"prompt_tokens": 20, "completion_tokens": deltas.len(), "total_tokens": 20 + deltas.len(),
        "prompt_tokens_details": {"cached_tokens": 16}})
}

/// All of it in one piece.
fn whole(deltas: &[Value], finish: &str) -> Value {
    let (mut content, mut calls) = (String::new(), Vec::<Value>::new());
    for delta in deltas {
        content.push_str(delta["content"].as_str().unwrap_or_default());
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            match calls.get_mut(call["index"].as_u64().unwrap() as usize) {
                None => calls.push(call.clone()),
                Some(begun) => {
                    let more = call["function"]["arguments"].as_str().unwrap();
                    let arguments = [begun["function"]["arguments"].as_str().unwrap(), more].concat();
                    begun["function"]["arguments"] = arguments.into();
                }
            }
        }
    }
    let mut message = json!({"role": "assistant", "content": content});
    if !calls.is_empty() {
        message["content"] = Value::Null;
        message["tool_calls"] = calls.into();
    }
    let choice = json!({"index": 0, "message": message, "finish_reason": finish});
    json!({"id": "up", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice], "usage": usage(deltas)})
}

/// A vector of each input: its place, its length, and then a number that is not exact in binary.
async fn embeddings(State(teacher): State<Teacher>, Json(body): Json<Value>) -> Response {
    let failure = {
        let mut memory = teacher.0.lock().unwrap();
        memory.asked.push(body.clone());
        memory.failures.pop_front()
    };
    if let Some((status, error)) = failure {
        return (status, Json(error)).into_response();
    }
    let inputs = body["input"].as_array().unwrap();
    let length = |input: &Value| input.as_str().map_or_else(|| input.as_array().unwrap().len(), str::len);
    let dimensions = body["dimensions"].as_u64().unwrap_or(4) as usize;
    // The last one first: the places count.
    let data: Vec<Value> = (0..inputs.len())
        .rev()
        .map(|place| {
            let mut vector = vec![place as f64, length(&inputs[place]) as f64];
            vector.resize(dimensions, 0.1);
            json!({"object": "embedding", "index": place, "embedding": vector})
        })
        .collect();
    let tokens = inputs.iter().map(length).sum::<usize>();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Json(json!({"object": "list", "data": data, "model": "x", "usage": usage})).into_response()
}

/// What it says to a request: two calls where it has tools and was not told what they say, JSON where that is demanded,
/// or else a few words.
fn says(body: &Value, number: usize) -> (Vec<Value>, &'static str) {
    let last = &body["messages"][body["messages"].as_array().map_or(0, Vec::len) - 1];
    let tool = &body["tools"][0]["function"]["name"];
    if last["role"] != "tool" && tool.is_string() && body["tool_choice"] != "none" {
        let call = |place: usize, city: &str| {
            [
                json!({"tool_calls": [{"index": place, "id": format!("call_{number}_{place}"), "type": "function",
                    "function": {"name": tool, "arguments": ""}}]}),
                json!({"tool_calls": [{"index": place, "function": {"arguments": "{\"city\":"}}]}),
                json!({"tool_calls": [{"index": place, "function": {"arguments": format!("\"{city}\"}}")}}]}),
            ]
        };
        let first = json!({"role": "assistant", "content": null});
        return ([vec![first], call(0, "Basra").to_vec(), call(1, "Kufa").to_vec()].concat(), "tool_calls");
    }
    let words = match body["response_format"]["type"].as_str() {
        Some("json_schema") => vec!["{\"city\":".to_owned(), "\"Basra\",".to_owned(), "\"degrees\":41}".to_owned()],
        Some(_) => vec!["{".to_owned(), "}".to_owned()],
        None => format!("draw {number} of {}", last["content"].as_str().unwrap_or("parts"))
            .split_inclusive(' ')
            .map(str::to_owned)
            .collect(),
    };
    (words.iter().map(|word| json!({"content": word})).collect(), "stop")
}
