//! Load at a constant rate, and what became of it.
//!
//! The loop is open: when a request is sent does not depend on the answers before it, and its latency counts from the
//! moment that was planned for it. A server that stops for a second is charged with the second of everybody who came in
//! it; a generator that waited for the answers would see one slow request.
//!
//! Everything is bounded: the number of requests, of those under way, the time of each, and the memory of what is
//! recorded. A request that finds no place among those under way is not sent, and is counted as dropped.

mod histogram;
pub mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anbiq_openai::sse::{self, Decoder};
use anbiq_openai::{ChatMessage, ChatRequest, ErrorEnvelope, StreamOptions};
use anbiq_secret::Secret;
use axum::body::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::LabError;
pub use histogram::Histogram;

/// Largest answer, and largest event of a stream, that is read.
const MOST_BYTES: usize = 1 << 20;

/// Most chunks of an answer whose times are kept.
const MOST_CHUNKS: usize = 4096;

/// Most different codes of failures; what comes after is counted as `other`.
const MOST_CODES: usize = 32;

/// What is sent, how often, and how long it may take.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server's address, up to and with `/v1`.
    pub base_url: String,
    /// The key to present.
    pub key: Option<Secret<String>>,
    /// The model to ask.
    pub model: String,
    /// Ask for a stream?
    pub stream: bool,
    /// Requests a second.
    pub rate: f64,
    /// Requests in all.
    pub count: u64,
    /// Most requests under way.
    pub in_flight: u32,
    /// Longest time from sending a request to the end of its answer.
    pub patience: Duration,
}

/// What became of a load. All times are in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Requests that were planned.
    pub planned: u64,
    /// Requests that were not sent, since too many were under way.
    pub dropped: u64,
    /// Requests that were answered to the end.
    pub answered: u64,
    /// The others, by code.
    pub failed: BTreeMap<String, u64>,
    /// From the first planned moment to the end of the last answer.
    pub elapsed: Duration,
    /// From the planned moment to the end of the answer.
    pub latency: Histogram,
    /// From the planned moment to the first text, in a stream.
    pub first: Histogram,
    /// From the server's sending a chunk to its being read here, where the server says when it sent it.
    pub way: Histogram,
    /// From one chunk with text to the next. Chunks that come together have none between them.
    pub gap: Histogram,
    /// From the last text to the end of the answer, in a stream.
    pub tail: Histogram,
    /// How late the generator itself sent: where this is large, the machine was too small for the load.
    pub lag: Histogram,
}

impl Outcome {
    /// Requests that were sent and not answered to the end.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Answers a second.
    pub fn achieved(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.answered as f64 / self.elapsed.as_secs_f64() }
    }

    /// Adds what became of another load of the same kind.
    pub fn merge(&mut self, other: &Self) {
        self.planned += other.planned;
        self.dropped += other.dropped;
        self.answered += other.answered;
        for (code, count) in &other.failed {
            *self.failed.entry(code.clone()).or_default() += count;
        }
        self.elapsed += other.elapsed;
        let pairs = [
            (&mut self.latency, &other.latency),
            (&mut self.first, &other.first),
            (&mut self.way, &other.way),
            (&mut self.gap, &other.gap),
            (&mut self.tail, &other.tail),
            (&mut self.lag, &other.lag),
        ];
        for (mine, theirs) in pairs {
            mine.merge(theirs);
        }
    }

    fn record(&mut self, times: &Times) {
        let Times { planned, sent, chunks, ways, result } = times;
        self.lag.record(nanoseconds(*planned, *sent));
        let ended = match result {
            Ok(ended) => *ended,
            Err(code) => {
                let known = self.failed.len() < MOST_CODES || self.failed.contains_key(code);
                let code = if known { code.as_str() } else { "other" };
                *self.failed.entry(code.to_owned()).or_default() += 1;
                return;
            }
        };
        self.answered += 1;
        self.latency.record(nanoseconds(*planned, ended));
        for way in ways {
            self.way.record(*way);
        }
        for pair in chunks.windows(2) {
            self.gap.record(nanoseconds(pair[0], pair[1]));
        }
        if let (Some(first), Some(last)) = (chunks.first(), chunks.last()) {
            self.first.record(nanoseconds(*planned, *first));
            self.tail.record(nanoseconds(*last, ended));
        }
    }
}

/// A generator of load. Its connections stay open from one load to the next.
#[derive(Debug, Clone)]
pub struct Generator {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Generator {
    fn default() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .build(tcp);
        Self { client }
    }
}

impl Generator {
    /// Puts `load` on its server, and returns when every request has been answered or has failed.
    ///
    /// # Errors
    /// The address or the key cannot stand in a request.
    pub async fn run(&self, load: &Load) -> Result<Outcome, LabError> {
        let template = Template::new(load)?;
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let places = Arc::new(Semaphore::new(load.in_flight as usize));
        let start = Instant::now();
        let release = {
            let (generator, load) = (self.clone(), load.clone());
            let (outcome, places, runtime) = (Arc::clone(&outcome), Arc::clone(&places), Handle::current());
            move |planned| {
                lock(&outcome).planned += 1;
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    lock(&outcome).dropped += 1;
                    return;
                };
                let request = template.request();
                runtime.spawn(generator.clone().lead(request, planned, load.clone(), place, Arc::clone(&outcome)));
            }
        };
        let schedule = Schedule { start, rate: load.rate, count: load.count };
        // A thread of its own sleeps more exactly than a runtime's timer, which counts in milliseconds. It does not
        // fail, and if it did, `planned` would show it.
        let _ = tokio::task::spawn_blocking(move || pace(schedule, release)).await;
        // Every request ends within its patience, and nobody closes the semaphore.
        let _ = places.acquire_many(load.in_flight).await;
        let mut outcome = std::mem::take(&mut *lock(&outcome));
        outcome.elapsed = start.elapsed();
        Ok(outcome)
    }

    /// Opens one stream, reads it to its first text, and gives what keeps it open.
    ///
    /// # Errors
    /// The code of what kept it from opening.
    pub async fn open(&self, load: &Load) -> Result<OpenStream, String> {
        let request = Template::new(load).map_err(|error| error.code().to_owned())?.request();
        let opening = async {
            let mut body = self.send(request).await?;
            let mut reader = Reader::default();
            while reader.chunks.is_empty() {
                reader.read_more(&mut body).await?;
            }
            Ok(OpenStream { _body: body })
        };
        tokio::time::timeout(load.patience, opening).await.unwrap_or_else(|_| Err("timeout".to_owned()))
    }

    /// Leads one request to its end, and writes down what became of it.
    async fn lead(
        self,
        request: Request<Full<Bytes>>,
        planned: Instant,
        load: Load,
        place: OwnedSemaphorePermit,
        outcome: Arc<Mutex<Outcome>>,
    ) {
        let sent = Instant::now();
        let mut reader = Reader::default();
        let exchange = async {
            let mut body = self.send(request).await?;
            if load.stream {
                while !reader.done {
                    reader.read_more(&mut body).await?;
                }
                // What follows the end is nothing, but only a body that was read to its end gives its connection back.
                while let Some(frame) = body.frame().await {
                    frame.map_err(|_| "connection".to_owned())?;
                }
            } else {
                read_all(body).await?;
            }
            Ok(Instant::now())
        };
        let result = tokio::time::timeout(load.patience, exchange).await.unwrap_or_else(|_| Err("timeout".to_owned()));
        let times = Times { planned, sent, chunks: reader.chunks, ways: reader.ways, result };
        lock(&outcome).record(&times);
        // Only now, so that who gets all places has all records.
        drop(place);
    }

    /// Sends a request and reads the head of its answer; a refusal becomes its code.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Incoming, String> {
        let answer = self.client.request(request).await.map_err(|_| "connection".to_owned())?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = read_all(answer.into_body()).await.unwrap_or_default();
        let code = ErrorEnvelope::parse(&body).and_then(|error| error.code);
        Err(format!("{} {}", status.as_u16(), code.unwrap_or_default()).trim_end().to_owned())
    }
}

/// A stream that is open as long as this lives.
#[derive(Debug)]
pub struct OpenStream {
    _body: Incoming,
}

/// When something happened to one request.
struct Times {
    planned: Instant,
    sent: Instant,
    /// When each chunk with text came.
    chunks: Vec<Instant>,
    /// How long those took from the server to here that say when they were sent, in nanoseconds.
    ways: Vec<u64>,
    /// When the answer ended, or why it did not.
    result: Result<Instant, String>,
}

/// Reads a stream and notes when its text comes.
struct Reader {
    decoder: Decoder,
    events: Vec<sse::Event>,
    chunks: Vec<Instant>,
    ways: Vec<u64>,
    done: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            decoder: Decoder::new(MOST_BYTES),
            events: Vec::new(),
            chunks: Vec::new(),
            ways: Vec::new(),
            done: false,
        }
    }
}

impl Reader {
    async fn read_more(&mut self, body: &mut Incoming) -> Result<(), String> {
        let Some(frame) = body.frame().await else { return Err("cut_off".to_owned()) };
        let frame = frame.map_err(|_| "connection".to_owned())?;
        let at = Instant::now();
        let Ok(bytes) = frame.into_data() else { return Ok(()) };
        self.decoder.push(&bytes, &mut self.events).map_err(|_| "malformed".to_owned())?;
        for event in self.events.drain(..) {
            self.done |= event.data == sse::DONE;
            if event.data.starts_with("{\"error\"") {
                let error = ErrorEnvelope::parse(event.data.as_bytes()).and_then(|error| error.code);
                return Err(format!("in the stream: {}", error.unwrap_or_default()));
            }
            let Some(text) = server::text_of(&event.data).filter(|_| self.chunks.len() < MOST_CHUNKS) else { continue };
            self.chunks.push(at);
            self.ways.extend(server::way(text));
        }
        Ok(())
    }
}

async fn read_all(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "connection".to_owned())?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if bytes.len() > MOST_BYTES {
            return Err("malformed".to_owned());
        }
    }
    Ok(bytes)
}

/// A request that is sent again and again.
struct Template {
    address: Uri,
    key: Option<HeaderValue>,
    body: Bytes,
}

impl Template {
    fn new(load: &Load) -> Result<Self, LabError> {
        let address = [load.base_url.trim_end_matches('/'), "/chat/completions"].concat();
        let address = address.parse().map_err(|_| LabError::Address(load.base_url.clone()))?;
        let bearer = load.key.as_ref().map(|key| HeaderValue::try_from(["Bearer ", key.expose()].concat()));
        let key = bearer.transpose().map_err(|_| LabError::Address("the key".to_owned()))?;
        let question = "Say something of about a kilobyte, please. ".repeat(8);
        let body = ChatRequest {
            model: load.model.clone(),
            messages: vec![ChatMessage::new(anbiq_domain::Role::User, question)],
            max_tokens: Some(256),
            stream: load.stream.then_some(true),
            stream_options: load.stream.then_some(StreamOptions { include_usage: true }),
            ..ChatRequest::default()
        };
        // Wire types always have a JSON form.
        Ok(Self { address, key, body: serde_json::to_vec(&body).unwrap_or_default().into() })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.address.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        request
    }
}

/// When each request is to be sent.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    rate: f64,
    count: u64,
}

impl Schedule {
    fn moments(self) -> impl Iterator<Item = Instant> {
        // From the start each, so that no rounding adds up.
        (0..self.count).map(move |place| self.start + Duration::from_secs_f64(place as f64 / self.rate.max(1e-3)))
    }
}

/// Releases every request at its moment: in order, never early, and those that are late without a pause.
fn pace(schedule: Schedule, mut release: impl FnMut(Instant)) {
    for moment in schedule.moments() {
        let wait = moment.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        release(moment);
    }
}

fn nanoseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

fn lock(outcome: &Mutex<Outcome>) -> MutexGuard<'_, Outcome> {
    // Nothing under this lock can fail half-way.
    outcome.lock().unwrap_or_else(PoisonError::into_inner)
}
