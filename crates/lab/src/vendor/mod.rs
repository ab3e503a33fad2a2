//! A server of the OpenAI dialect that sells answers, keeps books and is as unreliable as the worst of them.
//!
//! What it answers depends on the request alone, so that a capture with faults can be compared with one without. Faults
//! are drawn at random: refusals, failures, and answers that are charged and then cut off on their way. It writes down
//! what it charged for, so that nothing that a client says about its costs has to be believed.

mod answer;
mod batches;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anbiq_domain::{Digest, PriceClass, PriceList, Seeded};
use anbiq_openai::{ApiError, ChatRequest, ErrorEnvelope, Usage};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tokio::task::JoinHandle;

use answer::Said;
use batches::Shelf;

pub use batches::BatchConfig;

use crate::listen::serve;

/// How it sells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VendorConfig {
    /// Fixes the faults.
    pub seed: u64,
    /// The shortest answer, in words.
    pub shortest: usize,
    /// The longest, unless the request allows less.
    pub longest: usize,
    /// Share of requests that are refused with 429.
    pub busy: f64,
    /// Share of requests that fail with 500, 502 or 503.
    pub failing: f64,
    /// Share of answers that are charged and cut off in the middle.
    pub cut: f64,
    /// What a refusal says to wait.
    pub retry_after: Duration,
    /// How long an answer takes.
    pub pause: Duration,
    /// Is a request that is sent again under its `Idempotency-Key` charged once?
    pub keys: bool,
    /// Requests that are allowed in each [`VendorConfig::window`].
    pub limit: Option<u64>,
    /// How long the limit holds.
    pub window: Duration,
    /// What it can do beyond answers.
    pub can: Can,
    /// How it takes batches; `None` where it takes none.
    pub batches: Option<BatchConfig>,
}

/// What a vendor can do beyond answers that are whole texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Can {
    /// Log-probabilities, with at most so many alternatives a token; more are refused.
    pub logprobs: Option<u32>,
    /// Log-probabilities of given text, by `echo`.
    pub echo: bool,
    /// Several answers to one request; otherwise one, whatever is asked for.
    pub several: bool,
    /// Numbers of tokens.
    pub token_ids: bool,
    /// Tokens counted at the end of a stream.
    pub usage_in_streams: bool,
}

impl Default for VendorConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            shortest: 4,
            longest: 24,
            busy: 0.0,
            failing: 0.0,
            cut: 0.0,
            retry_after: Duration::from_millis(20),
            pause: Duration::ZERO,
            keys: true,
            limit: None,
            window: Duration::from_secs(1),
            can: Can::default(),
            batches: None,
        }
    }
}

/// What it wrote down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Books {
    /// Requests that came.
    pub requests: u64,
    /// Refused as drawn.
    pub busy: u64,
    /// Failed as drawn.
    pub failed: u64,
    /// Charged and cut off.
    pub cut: u64,
    /// Refused since the limit was used up.
    pub over: u64,
    /// Answers that were charged.
    pub charged: u64,
    /// Answers that were given again without a charge.
    pub replayed: u64,
    /// Different requests that were charged.
    pub different: u64,
    /// Charges for a request that had been charged before.
    pub twice: u64,
    /// Tokens of prompts that were charged.
    pub prompt_tokens: u64,
    /// Tokens of answers that were charged.
    pub completion_tokens: u64,
    /// Batches that were made.
    pub batches: u64,
    /// What all of it costs, in nano-dollars, by the prices that it was asked for.
    pub nanos: i64,
    /// Most requests that were under way together.
    pub together: u64,
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Vendor {
    /// Where it listens, up to and with `/v1`.
    pub base_url: String,
    shared: Handle,
    task: JoinHandle<()>,
}

type Handle = Arc<Mutex<Shared>>;

#[derive(Debug)]
struct Shared {
    config: VendorConfig,
    prices: PriceList,
    random: Seeded,
    books: Books,
    /// How often each request was charged, by its body.
    charges: HashMap<Digest, u32>,
    /// Requests by their name.
    names: HashMap<String, Digest>,
    window: (Instant, u64),
    under_way: u64,
    shelf: Shelf,
}

impl Vendor {
    /// Starts a server on a free port of this machine.
    ///
    /// # Errors
    /// There is no port to be had.
    pub async fn start(config: VendorConfig, prices: PriceList) -> std::io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared {
            config,
            prices,
            random: Seeded::new(config.seed).fork("faults"),
            books: Books::default(),
            charges: HashMap::new(),
            names: HashMap::new(),
            window: (Instant::now(), 0),
            under_way: 0,
            shelf: Shelf::default(),
        }));
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/completions", post(echo))
            .merge(batches::routes())
            .with_state(Arc::clone(&shared));
        let (base_url, task) = serve(router).await?;
        Ok(Self { base_url, shared, task })
    }

    /// What was charged and refused so far.
    pub fn books(&self) -> Books {
        lock(&self.shared).books
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Handle) -> MutexGuard<'_, Shared> {
    // Nothing under this lock can fail half-way.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request under way, until it is answered or its client has left.
struct Place(Handle);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0).under_way -= 1;
    }
}

/// What is done with a request.
enum Fate {
    Busy,
    Over { left: Duration },
    Failed(StatusCode),
    Given { usage: Usage, texts: Vec<String>, cut: bool, replayed: bool, quota: Option<(u64, u64, Duration)> },
}

async fn chat(State(shared): State<Handle>, headers: HeaderMap, body: Bytes) -> Response {
    let request = match ChatRequest::parse(&body) {
        Ok(request) => request,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "invalid_request", &error.to_string()),
    };
    if let Some(message) = answer::refused(&request, lock(&shared).config.can) {
        return refusal(StatusCode::BAD_REQUEST, "unsupported_parameter", message);
    }
    let said = Digest::of(&body);
    let name = headers.get("idempotency-key").and_then(|name| name.to_str().ok()).map(str::to_owned);
    let (config, fate) = {
        let mut shared = lock(&shared);
        (shared.config, shared.decide(&request, said, name))
    };
    let place = Place(shared);
    match fate {
        Fate::Busy => wait_a_little(refusal(StatusCode::TOO_MANY_REQUESTS, "busy", "slow down"), config.retry_after),
        Fate::Over { left } => {
            wait_a_little(refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "the limit is used up"), left)
        }
        Fate::Failed(status) => refusal(status, "failed", "failed on command"),
        Fate::Given { usage, texts, cut, replayed, quota } => {
            if !config.pause.is_zero() {
                tokio::time::sleep(config.pause).await;
            }
            drop(place);
            let said = Said { request: &request, texts: &texts, usage, can: config.can };
            let mut response = if cut { said.half() } else { said.whole() };
            let head = response.headers_mut();
            if replayed {
                head.insert("idempotent-replayed", HeaderValue::from_static("true"));
            }
            if let Some((limit, left, reset)) = quota {
                head.insert("x-ratelimit-limit-requests", limit.into());
                head.insert("x-ratelimit-remaining-requests", left.into());
                if let Ok(reset) = HeaderValue::try_from(format!("{}ms", reset.as_millis())) {
                    head.insert("x-ratelimit-reset-requests", reset);
                }
            }
            response
        }
    }
}

/// Only ever asked to repeat a prompt; it is not charged.
async fn echo(State(shared): State<Handle>, body: Bytes) -> Response {
    let can = lock(&shared).config.can;
    match answer::echoed(&body).filter(|_| can.echo) {
        Some(answer) => Json(answer).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "not_found", "there is no such endpoint"),
    }
}

impl Shared {
    fn decide(&mut self, request: &ChatRequest, said: Digest, name: Option<String>) -> Fate {
        self.books.requests += 1;
        self.under_way += 1;
        self.books.together = self.books.together.max(self.under_way);
        let mut quota = None;
        if let Some(limit) = self.config.limit {
            let (begun, used) = &mut self.window;
            if begun.elapsed() >= self.config.window {
                (*begun, *used) = (Instant::now(), 0);
            }
            let left = self.config.window.saturating_sub(begun.elapsed());
            if *used >= limit {
                self.books.over += 1;
                return Fate::Over { left };
            }
            *used += 1;
            quota = Some((limit, limit - *used, left));
        }
        let drawn = self.random.unit();
        if drawn < self.config.busy {
            self.books.busy += 1;
            return Fate::Busy;
        }
        if drawn < self.config.busy + self.config.failing {
            self.books.failed += 1;
            let statuses =
                [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
            return Fate::Failed(statuses[self.random.below(statuses.len())]);
        }
        let cut = self.random.chance(self.config.cut);
        self.books.cut += u64::from(cut);
        let (texts, usage) = answer::words(request, said, self.config);
        let known = name.as_ref().is_some_and(|name| self.names.get(name) == Some(&said));
        let replayed = self.config.keys && known;
        if replayed {
            self.books.replayed += 1;
        } else {
            self.charge(said, usage, PriceClass::Distillation);
            if let (true, Some(name)) = (self.config.keys, name) {
                self.names.insert(name, said);
            }
        }
        Fate::Given { usage, texts, cut, replayed, quota }
    }
}

impl Shared {
    /// Writes down an answer to the request of which `said` is the digest.
    fn charge(&mut self, said: Digest, usage: Usage, class: PriceClass) {
        let times = self.charges.entry(said).or_default();
        *times += 1;
        let first = *times == 1;
        self.books.charged += 1;
        self.books.different += u64::from(first);
        self.books.twice += u64::from(!first);
        self.books.prompt_tokens += usage.prompt_tokens;
        self.books.completion_tokens += usage.completion_tokens;
        let tokens = anbiq_domain::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            ..anbiq_domain::Usage::default()
        };
        self.books.nanos += self.prices.cost(tokens, class).nanos();
    }
}

fn wait_a_little(mut response: Response, wait: Duration) -> Response {
    if let Ok(wait) = HeaderValue::try_from(wait.as_millis().to_string()) {
        response.headers_mut().insert("retry-after-ms", wait);
    }
    response
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let error = ApiError {
        message: message.to_owned(),
        kind: "vendor_error".to_owned(),
        param: None,
        code: Some(code.to_owned()),
    };
    (status, Json(ErrorEnvelope { error })).into_response()
}
