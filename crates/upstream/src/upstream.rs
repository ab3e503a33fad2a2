use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anbiq_domain::{Finish, Prompt, Usage};
use anbiq_model::{
    Abilities, Alternative, EmbedRequest, Embedded, Event, Fault, Generation, Inputs, Model, ModelError, Request,
    ScoreRequest, Scored, Server, TokenLogprob, ToolCallDelta,
};
use anbiq_openai::{
    ChatChunk, ChatMessage, ChatRequest, ChatResponse, ChatTokenLogprob, Completion, CompletionLogprobs,
    CompletionRequest, Embedding, EmbeddingInput, EmbeddingRequest, EncodingFormat, FinishReason, Stop, StreamOptions,
    Vector,
};
use anbiq_secret::{Secret, redact_url};
use futures::stream::{self, BoxStream, SelectAll};
use futures::{Stream, StreamExt, TryStreamExt};
use serde_json::Map;
use tokio::sync::OnceCell;

use crate::client::{Client, ClientConfig, ClientError, ErrorKind};
use crate::given::{self, Scoring};

/// One model of a server.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// The name that requests to this program use.
    pub name: String,
    /// The name that the server knows it by.
    pub model: String,
    /// How to reach the server.
    pub client: ClientConfig,
    /// Ask for several completions in one request?
    ///
    /// Otherwise each is a request of its own, sent at the same moment: every server can do that, and each one's
    /// length in tokens is then known exactly. In one request it is only known in total, so that the tokens of each
    /// are counted by its log-probabilities, or by its chunks where it has none; and no completion is known to have ended
    /// before all have. It is cheaper where the server does not remember prompts.
    ///
    /// A server that gives fewer completions than it was asked for, or refuses to give several, is asked for the missing
    /// ones one by one, and from then on for all of them.
    pub several: bool,
    /// Most alternatives a token whose log-probabilities the server gives.
    pub logprobs: Option<u8>,
    /// Longest prompt and answer together, in tokens, where it is known.
    pub context: Option<u32>,
    /// Can given text be scored, and how?
    pub scoring: Option<Scoring>,
}

impl UpstreamConfig {
    /// The model `name` of the server at `base_url`, which knows it by the same name; no log-probabilities.
    pub fn new(name: impl Into<String>, base_url: impl Into<String>, key: Option<Secret<String>>) -> Self {
        let name = name.into();
        Self {
            model: name.clone(),
            name,
            client: ClientConfig::new(base_url, key),
            several: false,
            logprobs: None,
            context: None,
            scoring: None,
        }
    }
}

/// A model behind HTTP.
#[derive(Debug, Clone)]
pub struct Upstream {
    config: UpstreamConfig,
    client: Client,
    /// The server was seen not to give several completions in one request. Clones share it.
    one_by_one: Arc<AtomicBool>,
    /// How the server scores given text, once it was asked. Clones share it.
    scoring: Arc<OnceCell<Scoring>>,
}

impl Upstream {
    /// A model behind HTTP; nothing is connected yet.
    ///
    /// # Errors
    /// The address or the key is unusable.
    pub fn new(config: UpstreamConfig) -> Result<Self, ModelError> {
        let client = Client::new(config.client.clone()).map_err(to_model_error)?;
        Ok(Self { config, client, one_by_one: Arc::default(), scoring: Arc::default() })
    }

    /// Opens the streams that together give the `n` completions of `request`.
    async fn open(&self, request: &Request) -> Result<Vec<Source>, ModelError> {
        if request.n <= 1 {
            return Ok(vec![self.open_one(request, 0, request.n).await?]);
        }
        if !self.together() {
            return self.open_each(request).await;
        }
        match self.open_one(request, 0, request.n).await {
            Ok(source) => Ok(vec![source]),
            // It may be the number that the server does not like; if so, it likes each of them.
            Err(error) if error.fault == Fault::Request => {
                let sources = self.open_each(request).await.map_err(|_| error)?;
                self.remember_one_by_one();
                Ok(sources)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a stream for each completion of `request`.
    async fn open_each(&self, request: &Request) -> Result<Vec<Source>, ModelError> {
        futures::future::try_join_all((0..request.n).map(|index| self.open_one(request, index, 1))).await
    }

    /// Opens the stream of the `n` completions of `request` from `first` on; of one that may come whole, when it is there.
    async fn open_one(&self, request: &Request, first: u32, n: u32) -> Result<Source, ModelError> {
        // Of several completions in one piece nobody could say how long each is.
        let whole = request.whole && n <= 1;
        let pieces = match &request.prompt {
            Prompt::Chat(_) if whole => {
                let answer = self.client.chat(&self.chat_request(request, first, n), &[]).await;
                stream::iter([Ok(Pieces::from(answer.map_err(to_model_error)?))]).boxed()
            }
            Prompt::Text(_) if whole => {
                let answer = self.client.completions(&self.completion_request(request, first, n), &[]).await;
                stream::iter([Ok(Pieces::from(answer.map_err(to_model_error)?).whole())]).boxed()
            }
            Prompt::Chat(_) => {
                let stream = self.client.chat_stream(&self.chat_request(request, first, n), &[]).await;
                stream.map_err(to_model_error)?.map_ok(Pieces::from).boxed()
            }
            Prompt::Text(_) => {
                let stream = self.client.completions_stream(&self.completion_request(request, first, n), &[]).await;
                stream.map_err(to_model_error)?.map_ok(Pieces::from).boxed()
            }
        };
        Ok(Source { first, n, pieces })
    }

    fn remember_one_by_one(&self) {
        if !self.one_by_one.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                model = self.config.name,
                "the server does not give several completions in one request: from here on each is a request of its own"
            );
        }
    }

    fn chat_request(&self, request: &Request, first: u32, n: u32) -> ChatRequest {
        let messages = match &request.prompt {
            Prompt::Chat(messages) => messages.iter().cloned().map(ChatMessage::from).collect(),
            Prompt::Text(text) => vec![ChatMessage::new(anbiq_domain::Role::User, text.clone())],
        };
        ChatRequest {
            model: self.config.model.clone(),
            messages,
            n: (n > 1).then_some(n),
            temperature: Some(request.sampling.temperature),
            top_p: Some(request.sampling.top_p),
            // The older name: servers other than OpenAI's know it, and OpenAI's takes it for all but some models.
            max_tokens: Some(request.max_tokens),
            seed: seed(request, first),
            stop: stop(request),
            logprobs: (request.logprobs.is_some() || self.counts_by_logprobs(n)).then_some(true),
            top_logprobs: request.logprobs.filter(|most| *most > 0).map(u32::from),
            stream_options: Some(StreamOptions { include_usage: true }),
            other: request.dialect.clone(),
            ..ChatRequest::default()
        }
    }

    fn completion_request(&self, request: &Request, first: u32, n: u32) -> CompletionRequest {
        let Prompt::Text(text) = &request.prompt else { return CompletionRequest::new(&self.config.model, "") };
        CompletionRequest {
            n: (n > 1).then_some(n),
            temperature: Some(request.sampling.temperature),
            top_p: Some(request.sampling.top_p),
            max_tokens: Some(request.max_tokens),
            seed: seed(request, first),
            stop: stop(request),
            logprobs: request.logprobs.map(u32::from).or(self.counts_by_logprobs(n).then_some(0)),
            stream_options: Some(StreamOptions { include_usage: true }),
            other: request.dialect.clone(),
            ..CompletionRequest::new(&self.config.model, text.as_str())
        }
    }

    fn counts_by_logprobs(&self, n: u32) -> bool {
        n > 1 && self.config.logprobs.is_some()
    }
}

#[async_trait::async_trait]
impl Model for Upstream {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            several: true,
            logprobs: self.config.logprobs,
            scoring: self.config.scoring.is_some(),
            context: self.config.context,
            // What its server cannot do it refuses itself, and says so.
            tools: true,
            formats: true,
            shapes: true,
            dialect: true,
            embeddings: true,
        }
    }

    async fn generate(&self, request: Request) -> Result<Generation, ModelError> {
        let sources = self.open(&request).await?;
        Ok(Generation::lazy(events(self.clone(), sources, request)))
    }

    fn together(&self) -> bool {
        self.config.several && !self.one_by_one.load(Ordering::Relaxed)
    }

    async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        let scoring = self.config.scoring.as_ref();
        let scoring = scoring.ok_or_else(|| given::unsupported("this server cannot score given text"))?;
        let found = self.scoring.get_or_try_init(|| given::found(&self.client, &self.config.model, scoring)).await?;
        given::score(&self.client, &self.config.model, found, requests).await
    }

    fn servers(&self) -> Vec<Server> {
        vec![Server::new(redact_url(&self.config.client.base_url))]
    }

    async fn embed(&self, request: &EmbedRequest) -> Result<Embedded, ModelError> {
        let body = EmbeddingRequest {
            model: self.config.model.clone(),
            input: match &request.inputs {
                Inputs::Texts(texts) => EmbeddingInput::Texts(texts.clone()),
                Inputs::Tokens(lists) => EmbeddingInput::TokenLists(lists.clone()),
            },
            // Every server knows this form; what the customer gets is the gateway's own affair.
            encoding_format: Some(EncodingFormat::Float),
            dimensions: request.dimensions,
            other: Map::new(),
        };
        let response = self.client.embeddings(&body).await.map_err(to_model_error)?;
        let prompt_tokens = response.usage.prompt_tokens;
        Ok(Embedded { vectors: vectors(response.data, request.inputs.len())?, prompt_tokens })
    }
}

/// The vectors of `count` texts in their order.
fn vectors(data: Vec<Embedding>, count: usize) -> Result<Vec<Vec<f32>>, ModelError> {
    let malformed =
        |what: &str| Err(ModelError::new(Fault::Model, "answer_malformed", format!("the server gave {what}")));
    let mut vectors = vec![Vec::new(); count];
    let mut length = None;
    for Embedding { index, embedding, .. } in data {
        let Some(slot) = vectors.get_mut(index as usize) else {
            return malformed("a vector of a text that was not sent");
        };
        let Vector::Float(numbers) = embedding else { return malformed("a vector in a form that was not asked for") };
        if numbers.is_empty() || !numbers.iter().all(|number| number.is_finite()) {
            return malformed("a vector without numbers");
        }
        if *length.get_or_insert(numbers.len()) != numbers.len() {
            return malformed("vectors of different lengths");
        }
        *slot = numbers;
    }
    if vectors.iter().any(Vec::is_empty) {
        return malformed("fewer vectors than it was sent texts");
    }
    Ok(vectors)
}

/// A stream with the completions `first..first + n`.
struct Source {
    first: u32,
    n: u32,
    pieces: BoxStream<'static, Result<Pieces, ClientError>>,
}

/// What one chunk of either endpoint adds.
struct Pieces {
    choices: Vec<Piece>,
    usage: Option<anbiq_openai::Usage>,
    fingerprint: Option<String>,
}

struct Piece {
    index: u32,
    text: String,
    /// The tokens of the text, as far as they can be told from it alone.
    tokens: u64,
    logprobs: Vec<TokenLogprob>,
    calls: Vec<ToolCallDelta>,
    finish: Option<FinishReason>,
}

impl Pieces {
    /// The pieces as those of a whole answer, which are no tokens. English has about four bytes a token.
    fn whole(mut self) -> Self {
        self.choices.iter_mut().for_each(|piece| piece.tokens = piece.text.len().div_ceil(4) as u64);
        self
    }
}

impl From<ChatResponse> for Pieces {
    fn from(answer: ChatResponse) -> Self {
        let choices = answer.choices.into_iter().map(|choice| Piece {
            index: choice.index,
            text: choice.message.content.unwrap_or_default(),
            tokens: 1,
            logprobs: choice.logprobs.and_then(|all| all.content).into_iter().flatten().map(token).collect(),
            calls: choice.message.tool_calls.map(whole_calls).unwrap_or_default(),
            finish: choice.finish_reason,
        });
        Self { choices: choices.collect(), usage: answer.usage, fingerprint: answer.system_fingerprint }.whole()
    }
}

impl From<ChatChunk> for Pieces {
    fn from(chunk: ChatChunk) -> Self {
        let choices = chunk.choices.into_iter().map(|choice| Piece {
            index: choice.index,
            text: choice.delta.content.unwrap_or_default(),
            tokens: 1,
            logprobs: choice.logprobs.and_then(|all| all.content).into_iter().flatten().map(token).collect(),
            calls: choice.delta.tool_calls.map(calls).unwrap_or_default(),
            finish: choice.finish_reason,
        });
        Self { choices: choices.collect(), usage: chunk.usage, fingerprint: chunk.system_fingerprint }
    }
}

impl From<Completion> for Pieces {
    fn from(chunk: Completion) -> Self {
        let choices = chunk.choices.into_iter().map(|choice| Piece {
            index: choice.index,
            text: choice.text,
            tokens: 1,
            logprobs: choice.logprobs.map(tokens).unwrap_or_default(),
            calls: Vec::new(),
            finish: choice.finish_reason,
        });
        Self { choices: choices.collect(), usage: chunk.usage, fingerprint: chunk.system_fingerprint }
    }
}

fn calls(deltas: Vec<anbiq_openai::ToolCallDelta>) -> Vec<ToolCallDelta> {
    let one = |(place, delta): (u32, anbiq_openai::ToolCallDelta)| {
        let function = delta.function.unwrap_or_default();
        ToolCallDelta {
            call: delta.index.unwrap_or(place),
            id: delta.id,
            name: function.name,
            arguments: function.arguments.unwrap_or_default(),
        }
    };
    (0..).zip(deltas).map(one).collect()
}

fn whole_calls(calls: Vec<anbiq_openai::ToolCall>) -> Vec<ToolCallDelta> {
    let one = |(call, whole): (u32, anbiq_openai::ToolCall)| ToolCallDelta {
        call,
        id: Some(whole.id),
        name: Some(whole.function.name),
        arguments: whole.function.arguments,
    };
    (0..).zip(calls).map(one).collect()
}

fn token(one: ChatTokenLogprob) -> TokenLogprob {
    let bytes = one.bytes.unwrap_or_else(|| one.token.clone().into_bytes());
    let alternative = |top: anbiq_openai::ChatTopLogprob| Alternative {
        bytes: top.bytes.unwrap_or_else(|| top.token.clone().into_bytes()),
        token: top.token,
        logprob: top.logprob,
    };
    TokenLogprob {
        token: one.token,
        bytes,
        logprob: one.logprob,
        top: one.top_logprobs.into_iter().map(alternative).collect(),
    }
}

fn tokens(columns: CompletionLogprobs) -> Vec<TokenLogprob> {
    let mut tops = columns.top_logprobs.unwrap_or_default().into_iter();
    let rows = columns.tokens.into_iter().zip(columns.token_logprobs);
    rows.map(|(token, logprob)| {
        let top = tops.next().flatten().unwrap_or_default();
        let alternative =
            |(token, logprob): (String, f32)| Alternative { bytes: token.clone().into_bytes(), token, logprob };
        let mut top: Vec<Alternative> = top.into_iter().map(alternative).collect();
        top.sort_by(|one, other| other.logprob.total_cmp(&one.logprob));
        TokenLogprob { bytes: token.clone().into_bytes(), token, logprob: logprob.unwrap_or(0.0), top }
    })
    .collect()
}

/// Completion `index` of a request has its own stream of random numbers also where it is a request of its own.
fn seed(request: &Request, index: u32) -> Option<i64> {
    request.sampling.seed.map(|seed| seed.wrapping_add(u64::from(index)).cast_signed())
}

fn stop(request: &Request) -> Option<Stop> {
    (!request.stop.is_empty()).then(|| Stop::Several(request.stop.clone()))
}

/// The events of all sources until they end or one fails.
fn events(
    upstream: Upstream,
    sources: Vec<Source>,
    request: Request,
) -> impl Stream<Item = Result<Event, ModelError>> + Send {
    let mut tally = Tally::new(request.n);
    let mut merged = SelectAll::new();
    for source in sources {
        merged.push(tally.follow(source));
    }
    let reading = Reading { tally: Some(tally), merged, ready: VecDeque::new(), upstream, request };
    stream::unfold(reading, async |mut reading| Some((reading.next().await?, reading)))
}

/// What comes of a source, each with its first completion; nothing at its end.
type Marked = BoxStream<'static, (u32, Option<Result<Pieces, ClientError>>)>;

/// An answer while it is read.
struct Reading {
    /// Taken when the answer has ended.
    tally: Option<Tally>,
    merged: SelectAll<Marked>,
    /// What is known already but was not given yet.
    ready: VecDeque<Event>,
    /// Whom to ask for completions that did not come.
    upstream: Upstream,
    request: Request,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Event, ModelError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let mut tally = self.tally.take()?;
            let events = match self.merged.next().await {
                None => return Some(Ok(Event::Usage(tally.usage))),
                Some((first, Some(Ok(pieces)))) => tally.add(first, pieces),
                Some((first, None)) => match self.ask_for_missing(&mut tally, first).await {
                    Ok(()) => tally.end(first),
                    Err(why) => Err(why),
                },
                Some((_, Some(Err(why)))) => Err(to_model_error(why)),
            };
            match events {
                Ok(events) => self.ready.extend(events),
                Err(why) => return Some(Err(why)),
            }
            self.tally = Some(tally);
        }
    }

    /// Asks one by one for the completions that the source which begins with `first` did not give.
    async fn ask_for_missing(&mut self, tally: &mut Tally, first: u32) -> Result<(), ModelError> {
        let missing = tally.missing(first);
        if !missing.is_empty() {
            self.upstream.remember_one_by_one();
        }
        for index in missing {
            let source = self.upstream.open_one(&self.request, index, 1).await?;
            self.merged.push(tally.follow(source));
        }
        Ok(())
    }
}

/// What is known of the completions so far.
struct Tally {
    sources: Vec<(u32, u32)>,
    counted: Vec<u64>,
    /// Calls of tools that each completion has begun.
    called: Vec<u32>,
    finishes: Vec<Option<Finish>>,
    /// The usage that each source reported, by its first completion.
    reported: Vec<Option<anbiq_openai::Usage>>,
    fingerprint: Option<String>,
    usage: Usage,
}

impl Tally {
    fn new(n: u32) -> Self {
        let n = n as usize;
        Self {
            sources: Vec::new(),
            counted: vec![0; n],
            called: vec![0; n],
            finishes: vec![None; n],
            reported: vec![None; n],
            fingerprint: None,
            usage: Usage::default(),
        }
    }

    /// From here on the completions of `source` are counted.
    fn follow(&mut self, source: Source) -> Marked {
        let Source { first, n, pieces } = source;
        self.sources.push((first, n));
        pieces.map(move |piece| (first, Some(piece))).chain(stream::once(async move { (first, None) })).boxed()
    }

    /// The completions of a source that has ended of which nothing ever came, although others did: the server gave fewer
    /// than it was asked for. They no longer count as this source's.
    fn missing(&mut self, first: u32) -> Vec<u32> {
        let Some((_, n)) = self.sources.iter_mut().find(|(start, _)| *start == first) else { return Vec::new() };
        let came = |index: &u32| {
            let place = *index as usize;
            self.counted.get(place).is_some_and(|count| *count > 0)
                || self.called.get(place).is_some_and(|count| *count > 0)
                || self.finishes.get(place).is_some_and(Option::is_some)
        };
        // They are the last ones: a server counts from 0.
        let given = (first..first + *n).rev().find(came).map_or(0, |last| last + 1 - first);
        if given == 0 || given == *n {
            return Vec::new();
        }
        let missing = first + given..first + *n;
        *n = given;
        missing.collect()
    }

    fn add(&mut self, first: u32, pieces: Pieces) -> Result<Vec<Event>, ModelError> {
        let mut events = Vec::new();
        if let Some(fingerprint) = pieces.fingerprint.filter(|_| self.fingerprint.is_none()) {
            self.fingerprint = Some(fingerprint.clone());
            events.push(Event::Fingerprint(fingerprint));
        }
        for piece in pieces.choices {
            let index = first + piece.index;
            let place = index as usize;
            let (Some(counted), Some(called), Some(finish)) =
                (self.counted.get_mut(place), self.called.get_mut(place), self.finishes.get_mut(place))
            else {
                return Err(ModelError::new(
                    Fault::Model,
                    "answer_malformed",
                    format!("the server gave a completion of number {index}, which was not asked for"),
                ));
            };
            if let Some(reason) = piece.finish {
                *finish = Some(reason.into());
            }
            if !piece.text.is_empty() || !piece.logprobs.is_empty() {
                let tokens = piece.logprobs.len() as u64;
                *counted += if tokens > 0 { tokens } else { piece.tokens };
                events.push(Event::Text { index, text: piece.text, logprobs: piece.logprobs });
            }
            for mut delta in piece.calls {
                if delta.call < *called {
                    // Some servers repeat these with every part of a call; readers put the parts together.
                    (delta.id, delta.name) = (None, None);
                }
                *called = (*called).max(delta.call.saturating_add(1));
                *counted += 1;
                events.push(Event::ToolCall { index, delta });
            }
        }
        if let (Some(usage), Some(slot)) = (pieces.usage, self.reported.get_mut(first as usize)) {
            *slot = Some(usage);
        }
        Ok(events)
    }

    /// The completions of a source that has ended. Their lengths are told only now: the usage comes last.
    fn end(&mut self, first: u32) -> Result<Vec<Event>, ModelError> {
        let n = self.sources.iter().find(|(start, _)| *start == first).map_or(1, |(_, n)| *n);
        let reported = self.reported.get(first as usize).copied().flatten();
        let mut events = Vec::new();
        for index in first..first + n {
            let finish = self.finishes.get(index as usize).copied().flatten().ok_or_else(|| {
                ModelError::new(Fault::Model, "answer_cut_off", "the server did not say how its answer ended")
            })?;
            let counted = self.counted.get(index as usize).copied().unwrap_or_default();
            let tokens = reported.filter(|_| n == 1).map_or(counted, |usage| usage.completion_tokens);
            self.usage.completion_tokens += tokens;
            events.push(Event::Finished { index, finish, tokens });
        }
        if let Some(usage) = reported {
            // Every source has the same prompt; it is one prompt. Of what was cached the least counts: one source may have
            // found there what another had just left.
            let known = self.usage.prompt_tokens > 0;
            self.usage.prompt_tokens = usage.prompt_tokens;
            let cached = usage.cached_tokens();
            self.usage.cached_tokens = if known { cached.min(self.usage.cached_tokens) } else { cached };
        }
        Ok(events)
    }
}

pub(crate) fn to_model_error(error: ClientError) -> ModelError {
    let says_context = error.code.as_deref() == Some("context_length_exceeded")
        || error.message.contains("maximum context length")
        || error.message.contains("context size");
    let (fault, code) = match (error.kind, error.status) {
        (ErrorKind::Connection, _) => (Fault::Model, "upstream_unreachable"),
        (ErrorKind::Timeout, _) => (Fault::Model, "upstream_timeout"),
        (ErrorKind::Malformed, _) => (Fault::Model, "upstream_malformed"),
        (ErrorKind::Setup, _) if error.code.as_deref() == Some("address_refused") => {
            (Fault::Setup, "upstream_forbidden")
        }
        (ErrorKind::Setup, _) => (Fault::Setup, "upstream_setup"),
        (ErrorKind::Refused, Some(400)) if error.code.as_deref() == Some("content_filter") => {
            (Fault::Request, "content_filter")
        }
        (ErrorKind::Refused, Some(400 | 413 | 422)) if says_context => (Fault::Request, "context_length_exceeded"),
        (ErrorKind::Refused, Some(400 | 413 | 422)) => (Fault::Request, "upstream_refused"),
        (ErrorKind::Refused, Some(401 | 403 | 404)) => (Fault::Setup, "upstream_setup"),
        (ErrorKind::Refused, Some(408 | 425 | 429 | 503 | 529)) => (Fault::Busy, "upstream_busy"),
        (ErrorKind::Refused, _) => (Fault::Model, "upstream_failed"),
    };
    ModelError { retry_after_ms: error.retry_after_ms, ..ModelError::new(fault, code, error.message) }
}
