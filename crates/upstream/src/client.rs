//! A small client of the OpenAI dialect.
//!
//! It follows no redirects, bounds what it reads and how long it waits, and never tries again by itself: whether and
//! when to do so is the caller's choice, and [`ClientError`] says what it needs for it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anbiq_openai::sse::{self, Decoder, Event};
use anbiq_openai::{
    ApiError, ChatChunk, ChatRequest, ChatResponse, Completion, CompletionRequest, EmbeddingRequest, EmbeddingResponse,
    ErrorEnvelope, ModelList,
};
use anbiq_secret::{Secret, redact_url};
use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::dialect::Dialect;
use crate::head::{Told, retry_after};
use crate::reach::{Reach, Resolver, Unreachable};

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Its address up to and with `/v1`, such as `http://127.0.0.1:8000/v1`.
    pub base_url: String,
    /// Which addresses may be reached.
    pub reach: Arc<Reach>,
    /// How the server lays out its paths and takes its key.
    pub dialect: Dialect,
    /// The key to present.
    pub key: Option<Secret<String>>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer, and then for each further piece of it.
    pub read_timeout: Duration,
    /// Longest wait for the head of an answer that is not streamed, which has it only when it is complete; `None` for as
    /// long as for any other.
    pub whole_timeout: Option<Duration>,
    /// Idle connections that are kept.
    pub pool: usize,
    /// Largest answer, and in a stream the largest event, in bytes.
    pub max_body_bytes: usize,
}

impl ClientConfig {
    /// The usual settings for the server at `base_url`.
    pub fn new(base_url: impl Into<String>, key: Option<Secret<String>>) -> Self {
        Self {
            base_url: base_url.into(),
            reach: Arc::default(),
            dialect: Dialect::OpenAi,
            key,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(120),
            whole_timeout: None,
            pool: 32,
            max_body_bytes: 64 << 20,
        }
    }
}

/// A client of one server. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    pooled: Pooled<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    base: String,
    dialect: Dialect,
    key: Option<(HeaderName, HeaderValue)>,
    read_timeout: Duration,
    whole_timeout: Duration,
    max_body_bytes: usize,
}

/// What kept an answer from coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The address, the key or a header is unusable.
    Setup,
    /// The server was not reached, or the connection broke.
    Connection,
    /// The server did not answer in time.
    Timeout,
    /// The server answered that it will not.
    Refused,
    /// The server's answer is not of this dialect, too long, or cut off.
    Malformed,
}

/// A request without an answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    /// What kept it from coming.
    pub kind: ErrorKind,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// The server's code, such as `insufficient_quota`, or this client's own, such as `stream_cut_off`.
    pub code: Option<String>,
    /// What happened, for a person.
    pub message: String,
    /// After how many milliseconds to try again, where the server said so.
    pub retry_after_ms: Option<u64>,
}

impl ClientError {
    /// Something on this side keeps a request from being sent.
    pub fn setup(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Setup, "request_invalid", message)
    }

    pub(crate) fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: None, code: Some(code.to_owned()), message: message.into(), retry_after_ms: None }
    }

    /// May the same request succeed later?
    pub fn retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Setup => false,
            ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Malformed => true,
            ErrorKind::Refused => {
                self.code.as_deref() != Some("insufficient_quota")
                    && matches!(self.status, Some(408 | 409 | 425 | 429 | 500..=599))
            }
        }
    }
}

impl From<Unreachable> for ClientError {
    fn from(why: Unreachable) -> Self {
        Self::new(ErrorKind::Setup, why.code(), why.to_string())
    }
}

impl Client {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// The address is not one that may be reached, or the key cannot stand in a header.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let ClientConfig { base_url, reach, dialect, key, connect_timeout, read_timeout, whole_timeout, .. } = config;
        reach.check(&base_url)?;
        dialect.check()?;
        let base = base_url.trim_end_matches('/').to_owned();
        let key = key.as_ref().map(|key| dialect.key(key)).transpose()?;
        let mut tcp = HttpConnector::new_with_resolver(Resolver(reach));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(tcp);
        let pooled = Pooled::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(config.pool)
            .build(connector);
        let whole_timeout = whole_timeout.unwrap_or(read_timeout);
        Ok(Self { pooled, base, dialect, key, read_timeout, whole_timeout, max_body_bytes: config.max_body_bytes })
    }

    /// Asks for a chat completion, unstreamed.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn chat(&self, request: &ChatRequest, headers: &[(String, String)]) -> Result<ChatResponse, ClientError> {
        Ok(self.chat_told(request, headers).await?.0)
    }

    /// Asks for a chat completion, streamed.
    ///
    /// # Errors
    /// See [`ErrorKind`]; the stream may end with an error too.
    pub async fn chat_stream(
        &self,
        request: &ChatRequest,
        headers: &[(String, String)],
    ) -> Result<ChatStream, ClientError> {
        let body = ChatRequest { stream: Some(true), ..request.clone() };
        self.streamed("/chat/completions", &body, headers).await
    }

    /// Asks for a completion, unstreamed.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn completions(
        &self,
        request: &CompletionRequest,
        headers: &[(String, String)],
    ) -> Result<Completion, ClientError> {
        let body = CompletionRequest { stream: None, stream_options: None, ..request.clone() };
        self.whole(Method::POST, "/completions", Some(&body), headers).await
    }

    /// Asks for a completion, streamed.
    ///
    /// # Errors
    /// See [`ErrorKind`]; the stream may end with an error too.
    pub async fn completions_stream(
        &self,
        request: &CompletionRequest,
        headers: &[(String, String)],
    ) -> Result<CompletionStream, ClientError> {
        let body = CompletionRequest { stream: Some(true), ..request.clone() };
        self.streamed("/completions", &body, headers).await
    }

    /// Asks for vectors of texts.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn embeddings(&self, request: &EmbeddingRequest) -> Result<EmbeddingResponse, ClientError> {
        self.whole(Method::POST, "/embeddings", Some(request), &[]).await
    }

    /// Asks which models there are.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn models(&self) -> Result<ModelList, ClientError> {
        self.whole::<(), _>(Method::GET, "/models", None, &[]).await
    }

    /// As [`Client::chat`], with what the head of the answer tells besides.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn chat_told(
        &self,
        request: &ChatRequest,
        headers: &[(String, String)],
    ) -> Result<(ChatResponse, Told), ClientError> {
        let body = ChatRequest { stream: None, stream_options: None, ..request.clone() };
        self.whole_told(Method::POST, "/chat/completions", Some(&body), headers).await
    }

    /// Sends any body to any path of the server, such as `/completions`, and gives what it answers.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn post(
        &self,
        path: &str,
        body: &serde_json::Value,
        headers: &[(String, String)],
    ) -> Result<(serde_json::Value, Told), ClientError> {
        self.whole_told(Method::POST, path, Some(body), headers).await
    }

    async fn whole<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        headers: &[(String, String)],
    ) -> Result<T, ClientError> {
        Ok(self.whole_told(method, path, body, headers).await?.0)
    }

    async fn whole_told<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        headers: &[(String, String)],
    ) -> Result<(T, Told), ClientError> {
        let answer = self.send(method, path, body, headers, self.whole_timeout).await?;
        self.read_json(answer).await
    }

    /// Sends bytes of any kind, or none, and reads a JSON answer.
    pub(crate) async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(Bytes, HeaderValue)>,
        headers: &[(String, String)],
    ) -> Result<T, ClientError> {
        let answer = self.send_bytes(method, path, body, headers, self.whole_timeout).await?;
        Ok(self.read_json(answer).await?.0)
    }

    /// The body of what is at `path`, with how long each piece of it may take and how long a line of it may be.
    pub(crate) async fn open(&self, path: &str) -> Result<(Incoming, Duration, usize), ClientError> {
        let answer = self.send_bytes(Method::GET, path, None, &[], self.whole_timeout).await?;
        Ok((answer.into_body(), self.read_timeout, self.max_body_bytes))
    }

    async fn read_json<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<(T, Told), ClientError> {
        let status = answer.status().as_u16();
        let told = Told::read(answer.headers());
        let bytes = self.read_all(answer.into_body()).await?;
        serde_json::from_slice(&bytes).map(|answer| (answer, told)).map_err(|why| ClientError {
            status: Some(status),
            ..ClientError::new(
                ErrorKind::Malformed,
                "answer_malformed",
                format!("the server's answer is malformed: {why}"),
            )
        })
    }

    async fn streamed<B: Serialize, T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: &B,
        headers: &[(String, String)],
    ) -> Result<EventStream<T>, ClientError> {
        let answer = self.send(Method::POST, path, Some(body), headers, self.read_timeout).await?;
        Ok(EventStream::new(answer.into_body(), self.read_timeout, self.max_body_bytes))
    }

    /// Sends a request and reads the head of its answer; an error status becomes an error.
    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        headers: &[(String, String)],
        patience: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let setup = |message: String| ClientError::new(ErrorKind::Setup, "request_invalid", message);
        let bytes = body.map(|body| serde_json::to_vec(body).map_err(|why| setup(why.to_string()))).transpose()?;
        let body = bytes.map(|bytes| (Bytes::from(bytes), HeaderValue::from_static("application/json")));
        self.send_bytes(method, path, body, headers, patience).await
    }

    async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<(Bytes, HeaderValue)>,
        headers: &[(String, String)],
        patience: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.request(method, path, body, headers)?;
        let answer = match timeout(patience, self.pooled.request(request)).await {
            Err(_) => return Err(too_late(patience)),
            Ok(Err(why)) => {
                if let Some(refused) = refused_by_reach(&why) {
                    return Err(refused.clone().into());
                }
                let message = format!("cannot reach {}: {}", redact_url(&self.base), with_sources(&why));
                // One that broke later may have been read, answered and charged.
                let code = if why.is_connect() { "connection_failed" } else { "connection_broken" };
                return Err(ClientError::new(ErrorKind::Connection, code, message));
            }
            Ok(Ok(answer)) => answer,
        };
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(Bytes, HeaderValue)>,
        headers: &[(String, String)],
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let setup = |message: String| ClientError::new(ErrorKind::Setup, "request_invalid", message);
        let (bytes, kind) = body.unzip();
        let mut request = Request::builder()
            .method(method)
            .uri(self.dialect.uri(&self.base, path))
            .body(Full::new(bytes.unwrap_or_default()))
            .map_err(|why| setup(why.to_string()))?;
        let head = request.headers_mut();
        head.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        head.insert(USER_AGENT, HeaderValue::from_static(concat!("anbiq/", env!("CARGO_PKG_VERSION"))));
        if let Some(kind) = kind {
            head.insert(CONTENT_TYPE, kind);
        }
        if let Some((name, key)) = &self.key {
            head.insert(name, key.clone());
        }
        for (name, value) in headers {
            let unusable = || setup(format!("the header `{name}` cannot be sent"));
            let name = HeaderName::try_from(name.as_str()).map_err(|_| unusable())?;
            let value = HeaderValue::try_from(value.as_str()).map_err(|_| unusable())?;
            head.insert(name, value);
        }
        Ok(request)
    }

    /// `message` without this client's key: some servers repeat a key that they do not like.
    fn scrub(&self, message: String) -> String {
        let key = self.key.as_ref().and_then(|(_, value)| value.to_str().ok());
        match key.map(|key| key.trim_start_matches("Bearer ")).filter(|key| !key.is_empty()) {
            Some(key) => message.replace(key, "[secret]"),
            None => message,
        }
    }

    async fn read_all(&self, mut body: Incoming) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(piece) = next_piece(&mut body, self.read_timeout).await? {
            if bytes.len() + piece.len() > self.max_body_bytes {
                let message = format!("the server's answer is longer than {} bytes", self.max_body_bytes);
                return Err(ClientError::new(ErrorKind::Malformed, "answer_too_long", message));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// What an answer with an error status says.
    async fn refusal(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        let retry_after_ms = retry_after(answer.headers()).or_else(|| Told::read(answer.headers()).wait_ms());
        let body = self.read_all(answer.into_body()).await.unwrap_or_default();
        let (message, code) = match ErrorEnvelope::parse(&body) {
            Some(error) => (error.message, error.code),
            None => (String::new(), None),
        };
        let message = if message.is_empty() { format!("the server answered {status}") } else { self.scrub(message) };
        ClientError { kind: ErrorKind::Refused, status: Some(status.as_u16()), code, message, retry_after_ms }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", redact_url(&self.base))
    }
}

/// A chat completion under way. Dropping it cancels the request.
pub type ChatStream = EventStream<ChatChunk>;

/// A completion under way. Dropping it cancels the request.
pub type CompletionStream = EventStream<Completion>;

/// Chunks of a streamed answer. It ends after `[DONE]`, or with an error: one that ends otherwise was cut off.
pub struct EventStream<T> {
    chunks: Pin<Box<dyn Stream<Item = Result<T, ClientError>> + Send>>,
}

impl<T: DeserializeOwned + Send + 'static> EventStream<T> {
    fn new(body: Incoming, patience: Duration, limit: usize) -> Self {
        let reader =
            Reader { body, patience, decoder: Decoder::new(limit), events: Vec::new().into_iter(), ended: false };
        let chunks = futures::stream::unfold(reader, |mut reader| -> BoxFuture<'static, _> {
            Box::pin(async move { reader.next().await.map(|chunk| (chunk, reader)) })
        });
        Self { chunks: Box::pin(chunks) }
    }
}

impl<T> Stream for EventStream<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(context)
    }
}

impl<T> fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventStream(..)")
    }
}

struct Reader {
    body: Incoming,
    patience: Duration,
    decoder: Decoder,
    events: std::vec::IntoIter<Event>,
    ended: bool,
}

impl Reader {
    async fn next<T: DeserializeOwned>(&mut self) -> Option<Result<T, ClientError>> {
        if self.ended {
            return None;
        }
        let chunk = self.next_chunk().await;
        // After an error nothing that follows could be trusted to follow on.
        self.ended = !matches!(chunk, Ok(Some(_)));
        chunk.transpose()
    }

    async fn next_chunk<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(event) = self.events.next() {
                return if event.data == sse::DONE { Ok(None) } else { read_chunk(&event.data).map(Some) };
            }
            let Some(piece) = next_piece(&mut self.body, self.patience).await? else {
                let message = "the server ended the stream in the middle of its answer";
                return Err(ClientError::new(ErrorKind::Malformed, "stream_cut_off", message));
            };
            let mut events = Vec::new();
            self.decoder
                .push(&piece, &mut events)
                .map_err(|why| ClientError::new(ErrorKind::Malformed, "answer_too_long", why.to_string()))?;
            self.events = events.into_iter();
        }
    }
}

fn read_chunk<T: DeserializeOwned>(data: &str) -> Result<T, ClientError> {
    serde_json::from_str(data).map_err(|why| match ErrorEnvelope::parse(data.as_bytes()) {
        Some(ApiError { message, code, .. }) => {
            // The server failed after it had begun; it has no status to say so, which is as a status of 500.
            ClientError { kind: ErrorKind::Refused, status: Some(500), code, message, retry_after_ms: None }
        }
        None => ClientError::new(
            ErrorKind::Malformed,
            "answer_malformed",
            format!("a chunk of the server's answer is malformed: {why}"),
        ),
    })
}

pub(crate) async fn next_piece(body: &mut Incoming, patience: Duration) -> Result<Option<Bytes>, ClientError> {
    loop {
        match timeout(patience, body.frame()).await {
            Err(_) => return Err(too_late(patience)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(why))) => {
                let message = format!("the connection broke: {}", with_sources(&why));
                return Err(ClientError::new(ErrorKind::Connection, "connection_broken", message));
            }
            // Trailers say nothing that is needed.
            Ok(Some(Ok(frame))) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// Was the connection not made because it must not be?
fn refused_by_reach<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Unreachable> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(why) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(why);
        }
        cause = error.source();
    }
    None
}

fn too_late(patience: Duration) -> ClientError {
    let message = format!("the server did not answer within {} ms", patience.as_millis());
    ClientError::new(ErrorKind::Timeout, "timeout", message)
}

/// An error and what caused it, in one line: hyper tells the reason only in the sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
