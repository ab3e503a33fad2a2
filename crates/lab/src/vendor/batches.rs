//! The vendor's files and batches: a batch is answered as soon as it is made, told after some questions, and fails on command.

use std::collections::HashMap;

use anbiq_domain::{Digest, PriceClass};
use anbiq_openai::ChatRequest;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Said};
use super::{Handle, Shared, lock, refusal};

/// How it takes batches, and what goes wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BatchConfig {
    /// Questions after a batch that are answered with `in_progress`.
    pub questions: u32,
    /// Share of requests that fail and stand in the file of errors.
    pub failing: f64,
    /// Share of requests of which nothing is told, as if the day had ended before their turn.
    pub expiring: f64,
    /// So many batches are made while their client is told nothing, since the connection ends.
    pub cut_makings: u32,
    /// So many files are cut off in the middle.
    pub cut_files: u32,
}

/// What is kept of files and batches.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    files: HashMap<String, Vec<u8>>,
    batches: Vec<Value>,
    /// Questions after each batch.
    asked: HashMap<String, u32>,
    cut_makings: u32,
    cut_files: u32,
}

pub(super) fn routes() -> Router<Handle> {
    Router::new()
        .route("/v1/files", post(upload))
        .route("/v1/files/{id}/content", get(content))
        .route("/v1/batches", post(make).get(list))
        .route("/v1/batches/{id}", get(tell))
        .layer(DefaultBodyLimit::max(128 << 20))
}

async fn upload(State(shared): State<Handle>, body: Bytes) -> Response {
    // The content of the last part, which is the file.
    let head = body.windows(4).rposition(|four| four == b"\r\n\r\n").map(|place| place + 4);
    let end = body.windows(4).rposition(|four| four == b"\r\n--");
    let (Some(begin), Some(end)) = (head, end) else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_request", "no file");
    };
    let mut shared = lock(&shared);
    let id = format!("file-{}", shared.shelf.files.len());
    shared.shelf.files.insert(id.clone(), body.get(begin..end).unwrap_or_default().to_vec());
    Json(json!({ "id": id, "object": "file", "purpose": "batch" })).into_response()
}

async fn content(State(shared): State<Handle>, Path(id): Path<String>) -> Response {
    let mut shared = lock(&shared);
    let Some(file) = shared.shelf.files.get(&id).cloned() else {
        return refusal(StatusCode::NOT_FOUND, "not_found", "there is no such file");
    };
    let most = shared.config.batches.map_or(0, |config| config.cut_files);
    if shared.shelf.cut_files >= most {
        return file.into_response();
    }
    shared.shelf.cut_files += 1;
    let half = Bytes::from(file[..file.len() / 2].to_vec());
    let pieces = stream::iter([Ok(half), Err(std::io::Error::other("cut on command"))]);
    Body::from_stream(pieces).into_response()
}

async fn make(State(shared): State<Handle>, Json(asked): Json<Value>) -> Response {
    let mut shared = lock(&shared);
    let Some(config) = shared.config.batches else {
        return refusal(StatusCode::NOT_FOUND, "not_found", "there are no batches here");
    };
    let input = asked["input_file_id"].as_str().and_then(|id| shared.shelf.files.get(id)).cloned();
    let Some(input) = input else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_request", "there is no such file");
    };
    let batch = shared.answer(&input, &asked, config);
    if shared.shelf.cut_makings < config.cut_makings {
        shared.shelf.cut_makings += 1;
        let broken: [Result<Bytes, std::io::Error>; 1] = [Err(std::io::Error::other("cut on command"))];
        return Body::from_stream(stream::iter(broken)).into_response();
    }
    Json(batch).into_response()
}

async fn tell(State(shared): State<Handle>, Path(id): Path<String>) -> Response {
    let mut shared = lock(&shared);
    let questions = shared.config.batches.map_or(0, |config| config.questions);
    let asked = shared.shelf.asked.entry(id.clone()).or_default();
    *asked += 1;
    let early = *asked <= questions;
    match shared.shelf.batches.iter().find(|batch| batch["id"] == id.as_str()) {
        Some(batch) if early => {
            Json(json!({ "id": id, "status": "in_progress", "metadata": batch["metadata"] })).into_response()
        }
        Some(batch) => Json(batch.clone()).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "not_found", "there is no such batch"),
    }
}

#[derive(Deserialize)]
struct Page {
    after: Option<String>,
}

async fn list(State(shared): State<Handle>, Query(page): Query<Page>) -> Response {
    let shared = lock(&shared);
    let latest = shared.shelf.batches.iter().rev();
    let rest: Vec<&Value> = match page.after {
        Some(after) => latest.skip_while(|batch| batch["id"] != after.as_str()).skip(1).collect(),
        None => latest.collect(),
    };
    // Small pages, so that whoever looks only at the first one is found out.
    let data: Vec<&Value> = rest.iter().take(2).copied().collect();
    Json(json!({ "object": "list", "data": data, "has_more": rest.len() > 2 })).into_response()
}

impl Shared {
    /// Answers and charges all requests of a file; the batch as it will be told of in the end.
    fn answer(&mut self, input: &[u8], asked: &Value, config: BatchConfig) -> Value {
        let (mut output, mut errors, mut silent) = (Vec::new(), String::new(), false);
        for line in input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Value = serde_json::from_slice(line).unwrap_or_default();
            let Ok(request) = ChatRequest::parse(line["body"].to_string().as_bytes()) else { continue };
            self.books.requests += 1;
            let drawn = self.random.unit();
            if drawn < config.failing {
                self.books.failed += 1;
                let response = json!({ "status_code": 500, "body": { "error": { "message": "failed on command" } } });
                errors.push_str(&format!("{}\n", json!({ "custom_id": line["custom_id"], "response": response })));
                continue;
            }
            if drawn < config.failing + config.expiring {
                silent = true;
                continue;
            }
            let said = Digest::of(&serde_json::to_vec(&request).unwrap_or_default());
            let (texts, usage) = answer::words(&request, said, self.config);
            self.charge(said, usage, PriceClass::Batch);
            let said = Said { request: &request, texts: &texts, usage, can: self.config.can };
            let response = json!({ "status_code": 200, "body": said.response() });
            output.push(json!({ "custom_id": line["custom_id"], "response": response, "error": null }).to_string());
        }
        // Their order is not kept.
        output.reverse();
        let number = self.shelf.batches.len();
        let mut keep = |name: &str, text: String| {
            let id = format!("file-{name}-{number}");
            (!text.is_empty()).then(|| self.shelf.files.insert(id.clone(), text.into_bytes())).map(|_| id)
        };
        let batch = json!({
            "id": format!("batch_{number}"),
            "object": "batch",
            "status": if silent { "expired" } else { "completed" },
            "metadata": asked["metadata"],
            "output_file_id": keep("output", output.join("\n")),
            "error_file_id": keep("errors", errors),
        });
        self.books.batches += 1;
        self.shelf.batches.push(batch.clone());
        batch
    }
}
