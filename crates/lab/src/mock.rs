//! A server of the OpenAI dialect that fails on command, for tests of whatever calls one.
//!
//! It answers every chat with the last message's words, in reverse order, one word a token. A [`Fault`] spoils the next
//! answer, or all of them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anbiq_domain::{Role, Seeded};
use anbiq_openai::{
    ApiError, ChatChoice, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatRequest, ChatResponse, ChatTokenLogprob,
    ChatTopLogprob, Delta, ErrorEnvelope, FinishReason, ModelCard, ModelList, ReplyMessage, Usage, sse,
};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::listen::serve;

/// Requests that are remembered; older ones are forgotten.
const REMEMBERED: usize = 10_000;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An error status with OpenAI's envelope.
    Status {
        /// Which.
        status: u16,
        /// The code in the envelope.
        code: &'static str,
        /// The header `retry-after`, in seconds.
        retry_after: Option<u32>,
    },
    /// The connection ends in the middle of the answer.
    Cut {
        /// Tokens that are sent before; an answer that is not streamed is cut in the middle of its JSON.
        after: usize,
    },
    /// The answer begins late.
    Slow(Duration),
    /// The body is not what it should be.
    Garbage,
}

/// How the server answers where nothing goes wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Manner {
    /// Does it give as many completions as it is asked for? Otherwise a stream has one.
    pub several: bool,
    /// Does every completion end in a number of its own and have a length of its own, so that no two are alike?
    pub various: Option<Various>,
    /// How long it takes, at random.
    pub pace: Option<Pace>,
    /// The build of the model that it names.
    pub fingerprint: Option<String>,
    /// Most answers that it gives; further requests are refused with 503. For servers that fail for good.
    pub most: Option<u64>,
}

/// Completions that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Various {
    /// Fixes their lengths.
    pub seed: u64,
    /// The shortest, in words.
    pub shortest: usize,
    /// The longest, in words.
    pub longest: usize,
}

/// How long answers take: exponential times, as of a server that many share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Fixes the times.
    pub seed: u64,
    /// Mean time until an answer begins.
    pub first: Duration,
    /// Mean time between two words.
    pub between: Duration,
}

/// A request that the server got.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: ChatRequest,
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Mock {
    /// Where it listens, up to and with `/v1`.
    pub base_url: String,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    next: VecDeque<Fault>,
    always: Option<Fault>,
    requests: VecDeque<Recorded>,
    manner: Manner,
    /// Completions so far, which also fixes their lengths and times.
    given: u64,
}

type Handle = Arc<Mutex<Shared>>;

impl Mock {
    /// Starts a server on a free port of this machine.
    ///
    /// # Errors
    /// There is no port to be had.
    pub async fn start() -> std::io::Result<Self> {
        let shared = Handle::default();
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/models", get(models))
            .with_state(Arc::clone(&shared));
        let (base_url, task) = serve(router).await?;
        Ok(Self { base_url, shared, task })
    }

    /// Spoils the next answer that no earlier fault spoils.
    pub fn fail_next(&self, fault: Fault) {
        lock(&self.shared).next.push_back(fault);
    }

    /// Spoils every answer that no other fault spoils; `None` ends that.
    pub fn fail_always(&self, fault: Option<Fault>) {
        lock(&self.shared).always = fault;
    }

    /// From here on answers come in this manner.
    pub fn answer_like(&self, manner: Manner) {
        lock(&self.shared).manner = manner;
    }

    /// The requests so far: the last ten thousand.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared).requests.iter().cloned().collect()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Handle) -> MutexGuard<'_, Shared> {
    // Nothing under this lock can fail half-way.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn models() -> Json<ModelList> {
    let card = ModelCard {
        id: "mock".to_owned(),
        object: "model".to_owned(),
        created: 0,
        owned_by: "anbiq".to_owned(),
        prices: None,
        terms: None,
    };
    Json(ModelList { object: "list".to_owned(), data: vec![card] })
}

async fn chat(State(shared): State<Handle>, headers: HeaderMap, body: Bytes) -> Response {
    let request = match ChatRequest::parse(&body) {
        Ok(request) => request,
        Err(error) => return refusal(400, "invalid_request", &error.to_string(), None),
    };
    let (fault, manner, number) = {
        let mut shared = lock(&shared);
        if shared.requests.len() == REMEMBERED {
            shared.requests.pop_front();
        }
        shared.requests.push_back(Recorded { headers, body: request.clone() });
        let number = shared.given;
        shared.given += u64::from(request.n.unwrap_or(1));
        (shared.next.pop_front().or_else(|| shared.always.clone()), shared.manner.clone(), number)
    };
    if manner.most.is_some_and(|most| number >= most) {
        return refusal(503, "overloaded", "no more answers", None);
    }
    let mut cut = None;
    match fault {
        Some(Fault::Status { status, code, retry_after }) => {
            return refusal(status, code, "refused on command", retry_after);
        }
        Some(Fault::Garbage) => return (StatusCode::OK, "<html>gateway</html>").into_response(),
        Some(Fault::Slow(wait)) => tokio::time::sleep(wait).await,
        Some(Fault::Cut { after }) => cut = Some(after),
        None => {}
    }
    if request.stream == Some(true) {
        return streamed(&request, &manner, number, cut);
    }
    let words = answer(&request, &manner, number);
    if let Some(pace) = manner.pace {
        let mut random = Seeded::new(pace.seed).fork(&format!("pace {number}"));
        let waits = std::iter::once(pace.first).chain(words.iter().skip(1).map(|_| pace.between));
        tokio::time::sleep(waits.map(|mean| wait(mean, &mut random)).sum()).await;
    }
    whole(&request, &manner, &words, cut)
}

fn refusal(status: u16, code: &str, message: &str, retry_after: Option<u32>) -> Response {
    let error = ApiError {
        message: message.to_owned(),
        kind: "mock_error".to_owned(),
        param: None,
        code: Some(code.to_owned()),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(ErrorEnvelope { error })).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The words of completion `number`: the last message's in reverse order, or what is various. Every one but the first has the
/// space before it.
fn answer(request: &ChatRequest, manner: &Manner, number: u64) -> Vec<String> {
    if let Some(Various { seed, shortest, longest }) = manner.various {
        let mut random = Seeded::new(seed).fork(&format!("length {number}"));
        let length = shortest + random.below(longest - shortest + 1);
        let filler = (1..length).map(|place| format!("word{place} "));
        return filler.chain([format!("take{number}")]).collect();
    }
    let said = request.messages.last().and_then(|message| message.content.clone());
    let text = said.and_then(|content| content.into_text().ok()).unwrap_or_default();
    let most = request.max_tokens.or(request.max_completion_tokens).unwrap_or(u32::MAX) as usize;
    let words = text.split_whitespace().rev().take(most);
    words.enumerate().map(|(place, word)| if place == 0 { word.to_owned() } else { format!(" {word}") }).collect()
}

fn whole(request: &ChatRequest, manner: &Manner, words: &[String], cut: Option<usize>) -> Response {
    let content = words.concat();
    let choice = |index| ChatChoice {
        index,
        message: ReplyMessage {
            role: Role::Assistant,
            content: Some(content.clone()),
            refusal: None,
            tool_calls: None,
        },
        logprobs: logprobs(request, words),
        finish_reason: Some(FinishReason::Stop),
    };
    let n = request.n.unwrap_or(1);
    let response = ChatResponse {
        id: "chatcmpl-mock".to_owned(),
        object: "chat.completion".to_owned(),
        created: 0,
        model: request.model.clone(),
        choices: (0..n).map(choice).collect(),
        usage: Some(usage(request, words)),
        system_fingerprint: manner.fingerprint.clone(),
    };
    match cut {
        None => Json(response).into_response(),
        Some(_) => {
            let text = json(&response);
            let half = text.len() / 2;
            // The length promises more than is sent.
            let broken = stream::iter([Ok::<_, std::io::Error>(text.slice(..half)), Err(broken())]);
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], Body::from_stream(broken)).into_response()
        }
    }
}

fn streamed(request: &ChatRequest, manner: &Manner, number: u64, cut: Option<usize>) -> Response {
    let n = if manner.several { request.n.unwrap_or(1) } else { 1 };
    let answers: Vec<Vec<String>> = (0..n).map(|index| answer(request, manner, number + u64::from(index))).collect();
    let chunk = |choices, usage| ChatChunk {
        id: "chatcmpl-mock".to_owned(),
        object: "chat.completion.chunk".to_owned(),
        created: 0,
        model: request.model.clone(),
        choices,
        usage,
        system_fingerprint: manner.fingerprint.clone(),
    };
    let piece = |index, content: Option<&String>, finish_reason| ChatChunkChoice {
        index,
        delta: Delta { content: content.cloned(), ..Delta::default() },
        logprobs: content.and_then(|word| logprobs(request, std::slice::from_ref(word))),
        finish_reason,
    };
    let mut events: Vec<Bytes> = Vec::new();
    // All of them at the same time, a word each in turn; one that has ended says so when its turn comes.
    for place in 0..=answers.iter().map(Vec::len).max().unwrap_or(0) {
        for (index, words) in (0..).zip(&answers) {
            if let Some(word) = words.get(place) {
                events.push(event(&chunk(vec![piece(index, Some(word), None)], None)));
            } else if place == words.len() {
                events.push(event(&chunk(vec![piece(index, None, Some(FinishReason::Stop))], None)));
            }
        }
    }
    if let Some(after) = cut {
        events.truncate(after);
        let events = events.into_iter().map(Ok::<_, Infallible>);
        return event_stream(Body::from_stream(stream::iter(events)));
    }
    if request.stream_options.as_ref().is_some_and(|options| options.include_usage) {
        let length = answers.iter().map(Vec::len).sum();
        events.push(event(&chunk(Vec::new(), Some(usage_of(request, length)))));
    }
    events.push(sse::encode(sse::DONE));
    match manner.pace {
        None => event_stream(Body::from_stream(stream::iter(events).map(Ok::<_, Infallible>))),
        Some(pace) => event_stream(paced(events, pace, number)),
    }
}

/// The events in their time.
fn paced(events: Vec<Bytes>, pace: Pace, number: u64) -> Body {
    let random = Seeded::new(pace.seed).fork(&format!("pace {number}"));
    let state = (events.into_iter(), random, pace.first);
    Body::from_stream(stream::unfold(state, move |(mut events, mut random, mean)| async move {
        let event = events.next()?;
        // The end and the usage come at once with the last word.
        if !mean.is_zero() {
            tokio::time::sleep(wait(mean, &mut random)).await;
        }
        let next = if events.len() > 3 { pace.between } else { Duration::ZERO };
        Some((Ok::<_, Infallible>(event), (events, random, next)))
    }))
}

/// A time with this mean; such times are exponential.
fn wait(mean: Duration, random: &mut Seeded) -> Duration {
    mean.mul_f64(-(1.0 - random.unit()).ln())
}

fn event_stream(body: Body) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn event(chunk: &ChatChunk) -> Bytes {
    sse::encode(&String::from_utf8_lossy(&json(chunk)))
}

fn json(value: &impl Serialize) -> Bytes {
    // Wire types always have a JSON form.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

fn broken() -> std::io::Error {
    std::io::Error::other("cut on command")
}

fn usage(request: &ChatRequest, words: &[String]) -> Usage {
    usage_of(request, words.len() * request.n.unwrap_or(1) as usize)
}

fn usage_of(request: &ChatRequest, length: usize) -> Usage {
    let said = request.messages.iter().filter_map(|message| message.content.clone()?.into_text().ok());
    let prompt: usize = said.map(|text| text.split_whitespace().count()).sum();
    Usage::new(prompt as u64, length as u64)
}

fn logprobs(request: &ChatRequest, words: &[String]) -> Option<ChatLogprobs> {
    request.logprobs.filter(|asked| *asked)?;
    let one = |word: &String| ChatTokenLogprob {
        token: word.clone(),
        logprob: -0.5,
        bytes: Some(word.clone().into_bytes()),
        top_logprobs: match request.top_logprobs {
            None | Some(0) => Vec::new(),
            Some(_) => {
                vec![ChatTopLogprob { token: word.clone(), logprob: -0.5, bytes: Some(word.clone().into_bytes()) }]
            }
        },
    };
    Some(ChatLogprobs { content: Some(words.iter().map(one).collect()), refusal: None })
}
