//! A server of the OpenAI dialect that costs next to nothing, to measure what stands in front of it.
//!
//! Whatever it is asked, it answers one fixed text of about a kilobyte, prepared when it starts. The name of the model
//! says how:
//!
//! | model | answer |
//! |---|---|
//! | [`WHOLE`] | at once; as a stream all chunks in one write |
//! | [`PACED`] | as a stream, the chunks at a fixed distance in time, each with the moment at which it was sent |
//! | [`SILENT`] | as a stream that falls silent after its first chunk |

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anbiq_domain::Role;
use anbiq_openai::{
    ApiError, ChatChoice, ChatChunk, ChatChunkChoice, ChatResponse, Delta, ErrorEnvelope, FinishReason, ReplyMessage,
    Usage, sse,
};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::listen::listen;

/// The model that answers at once.
pub const WHOLE: &str = "whole";
/// The model whose chunks have a fixed distance in time.
pub const PACED: &str = "paced";
/// The model that falls silent after the first chunk.
pub const SILENT: &str = "silent";

/// The text, in bytes.
const TEXT_BYTES: usize = 1024;

/// The tokens that the prompt is said to have.
const PROMPT_TOKENS: u64 = 64;

/// Its multiples lie as evenly as can be between whole numbers.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// How a stream runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Chunks with text.
    pub chunks: usize,
    /// From one of them to the next, for [`PACED`]; to the second it is up to twice that, or the streams of a load whose
    /// requests have the same distance would all speak at once. What ends the answer comes with the last.
    pub spacing: Duration,
    /// How long [`SILENT`] stays silent before it ends without an end.
    pub silence: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { chunks: 20, spacing: Duration::from_millis(10), silence: Duration::from_secs(600) }
    }
}

/// Opens a port of this machine and gives the server's address, up to and with `/v1`, and the server, which runs until
/// it is dropped.
///
/// # Errors
/// There is no port to be had.
pub async fn bind(pace: Pace) -> std::io::Result<(String, impl Future<Output = std::io::Result<()>> + Send + 'static)> {
    listen(Router::new().route("/v1/chat/completions", post(chat)).with_state(Arc::new(Answers::new(pace)))).await
}

/// Everything that is ever said, ready to be sent.
struct Answers {
    pace: Pace,
    /// Streams that were begun.
    begun: AtomicU32,
    whole: Bytes,
    /// A chunk with text each, the last one with all that follows it.
    chunks: Vec<Bytes>,
    at_once: Bytes,
}

#[derive(Deserialize)]
struct Asked<'a> {
    model: &'a str,
    #[serde(default)]
    stream: bool,
}

async fn chat(State(answers): State<Arc<Answers>>, body: Bytes) -> Response {
    let Ok(asked) = serde_json::from_slice::<Asked<'_>>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_request");
    };
    match (asked.model, asked.stream) {
        (WHOLE | PACED, false) => {
            ([(header::CONTENT_TYPE, "application/json")], Body::from(answers.whole.clone())).into_response()
        }
        (WHOLE, true) => event_stream(Body::from(answers.at_once.clone())),
        (PACED, true) => event_stream(paced(answers)),
        (SILENT, true) => event_stream(silent(&answers)),
        _ => refusal(StatusCode::NOT_FOUND, "model_not_found"),
    }
}

fn paced(answers: Arc<Answers>) -> Body {
    let begun = Instant::now() + answers.pace.spacing.mul_f64(answers.next_phase());
    let chunks = stream::unfold((answers, 0_u32), move |(answers, place)| async move {
        let chunk = answers.chunks.get(place as usize)?.clone();
        if place > 0 {
            // From the beginning, so that a late chunk does not make those after it late.
            tokio::time::sleep_until(begun + answers.pace.spacing * place).await;
        }
        Some((Ok::<_, Infallible>(stamped(&chunk)), (answers, place + 1)))
    });
    Body::from_stream(chunks)
}

/// What stands before the text of an event.
const CONTENT: &str = "\"content\":\"";

/// What stands before a stamp, and how long both are together.
const STAMP: char = '@';
const STAMP_BYTES: usize = 21;

/// A chunk whose first characters of text are the moment of this call.
fn stamped(chunk: &Bytes) -> Bytes {
    let mut chunk = chunk.to_vec();
    let stamp = format!("{STAMP}{:020}", since_the_epoch());
    let text = chunk.windows(CONTENT.len()).position(|part| part == CONTENT.as_bytes());
    // A chunk whose text is shorter stays as it is.
    if let Some(place) = text.and_then(|at| chunk.get_mut(at + CONTENT.len()..at + CONTENT.len() + STAMP_BYTES)) {
        place.copy_from_slice(stamp.as_bytes());
    }
    chunk.into()
}

/// How long ago, in nanoseconds, the server gave away the text that an event begins with; `None` if the event has no stamp.
pub(crate) fn way(text: &str) -> Option<u64> {
    let digits = text.strip_prefix(STAMP)?.get(..STAMP_BYTES - 1)?;
    Some(since_the_epoch().saturating_sub(digits.parse().ok()?))
}

/// The system's clock, in nanoseconds: it is the same one in two processes of a machine.
fn since_the_epoch() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The text that an event begins with, if it has any. To parse them all would make the generator as expensive as what
/// it measures.
pub(crate) fn text_of(data: &str) -> Option<&str> {
    let text = data.find(CONTENT).and_then(|at| data.get(at + CONTENT.len()..))?;
    (!text.starts_with('"')).then_some(text)
}

fn silent(answers: &Answers) -> Body {
    let (first, silence) = (answers.chunks.first().cloned(), answers.pace.silence);
    let chunks = stream::unfold(first, move |first| async move {
        match first {
            Some(first) => Some((Ok::<_, Infallible>(first), None)),
            None => {
                tokio::time::sleep(silence).await;
                None
            }
        }
    });
    Body::from_stream(chunks)
}

fn event_stream(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn refusal(status: StatusCode, code: &str) -> Response {
    let error = ApiError {
        message: "the benchmark's server does not know this".to_owned(),
        kind: "mock_error".to_owned(),
        param: None,
        code: Some(code.to_owned()),
    };
    (status, Json(ErrorEnvelope { error })).into_response()
}

impl Answers {
    /// Where in the distance between two chunks the next stream speaks, from 0 to 1: evenly over any number of streams.
    fn next_phase(&self) -> f64 {
        let place = f64::from(self.begun.fetch_add(1, Ordering::Relaxed));
        (place * GOLDEN).fract()
    }

    fn new(pace: Pace) -> Self {
        let pace = Pace { chunks: pace.chunks.clamp(1, TEXT_BYTES), ..pace };
        let text: String = "a fixed text of about a kilobyte, ".chars().cycle().take(TEXT_BYTES).collect();
        let usage = Usage::new(PROMPT_TOKENS, pace.chunks as u64);
        let message =
            ReplyMessage { role: Role::Assistant, content: Some(text.clone()), refusal: None, tool_calls: None };
        let whole = json(&ChatResponse {
            id: "chatcmpl-bench".to_owned(),
            object: "chat.completion".to_owned(),
            created: 0,
            model: WHOLE.to_owned(),
            choices: vec![ChatChoice { index: 0, message, logprobs: None, finish_reason: Some(FinishReason::Stop) }],
            usage: Some(usage),
            system_fingerprint: None,
        });
        // The text is ASCII, and no chunk is empty.
        let ends = (0..=pace.chunks).map(|place| place * TEXT_BYTES / pace.chunks);
        let ends: Vec<usize> = ends.collect();
        let pieces = ends.windows(2).filter_map(|ends| text.get(ends[0]..ends[1]));
        let mut chunks: Vec<Vec<u8>> = pieces.map(|piece| event(Some(piece), None, None)).collect();
        if let Some(last) = chunks.last_mut() {
            last.extend(event(None, Some(FinishReason::Stop), None));
            last.extend(event(None, None, Some(usage)));
            last.extend_from_slice(&sse::encode(sse::DONE));
        }
        let at_once = chunks.concat().into();
        Self {
            pace,
            begun: AtomicU32::new(0),
            whole: whole.into(),
            chunks: chunks.into_iter().map(Bytes::from).collect(),
            at_once,
        }
    }
}

fn event(content: Option<&str>, finish_reason: Option<FinishReason>, usage: Option<Usage>) -> Vec<u8> {
    let delta = Delta { content: content.map(str::to_owned), ..Delta::default() };
    let choice = ChatChunkChoice { index: 0, delta, logprobs: None, finish_reason };
    let chunk = ChatChunk {
        id: "chatcmpl-bench".to_owned(),
        object: "chat.completion.chunk".to_owned(),
        created: 0,
        model: WHOLE.to_owned(),
        choices: if usage.is_some() { Vec::new() } else { vec![choice] },
        usage,
        system_fingerprint: None,
    };
    sse::encode(&String::from_utf8_lossy(&json(&chunk))).into()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Wire types always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}
