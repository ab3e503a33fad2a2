//! Plays a world over HTTP: every call of every account, through the front door.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use anbiq_domain::{AccountId, Answer, Message, Prompt, Role, Usage};
use anbiq_model::{Alternative, TokenLogprob};
use anbiq_openai::{ChatChunk, ChatLogprobs, ChatMessage, ChatRequest, ChatResponse, FinishReason, StreamOptions};
use anbiq_secret::Secret;
use anbiq_upstream::client::{Client, ClientConfig, ClientError, ErrorKind};
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use serde::Serialize;

use crate::LabError;
use crate::corpus::write_jsonl;
use crate::world::{Call, Group, World};

/// The header that sets the time of an exchange where a gateway's clock is simulated.
const TIME: &str = "x-anbiq-time";

/// The header by which a caller declares what it does.
const PURPOSE: &str = "x-anbiq-purpose";

/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How to play.
#[derive(Debug, Clone)]
pub struct PlayConfig {
    /// Address of the gateway up to and with `/v1`.
    pub base_url: String,
    /// The model to ask.
    pub model: String,
    /// A key for every account.
    pub keys: HashMap<AccountId, Secret<String>>,
    /// Calls under way at the same time, at most.
    pub in_flight: usize,
    /// Tries of a call that was refused for now, or that found no connection.
    pub tries: u32,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

impl PlayConfig {
    /// The usual settings.
    pub fn new(
        base_url: impl Into<String>,
        model: impl Into<String>,
        keys: HashMap<AccountId, Secret<String>>,
    ) -> Self {
        Self {
            base_url: base_url.into(),
            model: model.into(),
            keys,
            in_flight: 48,
            tries: 6,
            timeout: Duration::from_secs(120),
        }
    }
}

/// How far the play is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayProgress {
    /// Calls that have ended.
    pub done: usize,
    /// Calls in all.
    pub of: usize,
    /// Calls that ended without an answer.
    pub failed: usize,
    /// Tokens of all answers so far.
    pub tokens: u64,
}

/// What came of one call.
#[derive(Debug, Clone)]
pub struct Played {
    /// Its place in [`World::calls`].
    pub call: usize,
    /// What was asked, in full.
    pub prompt: Prompt,
    /// The answer, or why there is none.
    pub result: Result<Reply, ClientError>,
}

/// An answer as its caller got it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// Its tokens with their log-probabilities, where they were asked for and given.
    pub logprobs: Vec<TokenLogprob>,
    /// Tokens, as the caller is charged for them.
    pub usage: Usage,
}

/// What came of all calls, in the order of [`World::calls`].
#[derive(Debug, Clone, Default)]
pub struct Performance {
    /// One for each call.
    pub played: Vec<Played>,
}

/// Plays all calls of `world`. Calls of one account begin in order, at most [`side_by_side`] at a time; calls of
/// different accounts begin in the order of their simulated times, as far as their accounts are free.
///
/// A refused call does not stop the play: [`Performance::failures`] has them.
///
/// [`side_by_side`]: crate::world::AccountSpec::side_by_side
///
/// # Errors
/// The address is unusable, or an account has no key.
pub async fn play(
    world: &World,
    config: &PlayConfig,
    progress: &mut dyn FnMut(PlayProgress),
) -> Result<Performance, LabError> {
    let stage = Stage::new(world, config)?;
    let mut waiting = Waiting::new(world);
    let mut running = FuturesUnordered::new();
    let mut played: Vec<Option<Played>> = Vec::new();
    played.resize_with(world.calls.len(), || None);
    let mut at = PlayProgress { done: 0, of: world.calls.len(), failed: 0, tokens: 0 };
    loop {
        while running.len() < config.in_flight.max(1)
            && let Some(call) = waiting.next()
        {
            let prompt = waiting.prompt(&world.calls[call]);
            running.push(stage.perform(call, prompt));
        }
        let Some(done) = running.next().await else { break };
        waiting.ended(world, &done);
        at.done += 1;
        match &done.result {
            Ok(reply) => at.tokens += reply.usage.completion_tokens,
            Err(error) => {
                at.failed += 1;
                tracing::debug!(account = %world.accounts[world.calls[done.call].account].id, %error, "no answer");
            }
        }
        progress(at);
        let place = done.call;
        played[place] = Some(done);
    }
    Ok(Performance { played: played.into_iter().flatten().collect() })
}

/// Calls that have not begun.
struct Waiting {
    accounts: Vec<Line>,
    /// The next call of every account that is free, by place: that is by time.
    ready: BTreeSet<(usize, usize)>,
}

/// The calls of one account.
struct Line {
    calls: VecDeque<usize>,
    running: usize,
    side_by_side: usize,
    /// The conversation so far: what a call that continues goes on from.
    said: Vec<Message>,
}

impl Waiting {
    fn new(world: &World) -> Self {
        let line = |side_by_side: usize| Line {
            calls: VecDeque::new(),
            running: 0,
            side_by_side: side_by_side.max(1),
            said: Vec::new(),
        };
        let mut accounts: Vec<Line> = world.accounts.iter().map(|account| line(account.side_by_side)).collect();
        for (place, call) in world.calls.iter().enumerate() {
            accounts[call.account].calls.push_back(place);
        }
        let ready =
            accounts.iter().enumerate().filter_map(|(account, line)| Some((*line.calls.front()?, account))).collect();
        Self { accounts, ready }
    }

    fn next(&mut self) -> Option<usize> {
        let (place, account) = self.ready.pop_first()?;
        let line = &mut self.accounts[account];
        line.calls.pop_front();
        line.running += 1;
        self.open(account);
        Some(place)
    }

    fn ended(&mut self, world: &World, done: &Played) {
        let account = world.calls[done.call].account;
        let line = &mut self.accounts[account];
        line.running -= 1;
        if let (Prompt::Chat(messages), Ok(reply)) = (&done.prompt, &done.result) {
            line.said.clone_from(messages);
            line.said.push(Message::new(Role::Assistant, reply.answer.text.clone()));
        }
        self.open(account);
    }

    /// Lets the next call of `account` begin, if the account is free for it.
    fn open(&mut self, account: usize) {
        let line = &self.accounts[account];
        if let Some(&next) = line.calls.front()
            && line.running < line.side_by_side
        {
            self.ready.insert((next, account));
        }
    }

    /// What `call` asks, with what was said before where it goes on from that.
    fn prompt(&self, call: &Call) -> Prompt {
        let mut messages = if call.continues { self.accounts[call.account].said.clone() } else { Vec::new() };
        messages.extend(call.messages.iter().cloned());
        Prompt::Chat(messages)
    }
}

/// Everything that calls share.
struct Stage<'a> {
    world: &'a World,
    config: &'a PlayConfig,
    client: Client,
    keys: Vec<&'a Secret<String>>,
}

impl<'a> Stage<'a> {
    fn new(world: &'a World, config: &'a PlayConfig) -> Result<Self, LabError> {
        let key = |id: &AccountId| config.keys.get(id).ok_or_else(|| LabError::NoKey { account: id.clone() });
        let keys = world.accounts.iter().map(|account| key(&account.id)).collect::<Result<_, _>>()?;
        let mut client = ClientConfig::new(config.base_url.clone(), None);
        client.read_timeout = config.timeout;
        client.pool = config.in_flight.max(1);
        Ok(Self { world, config, client: Client::new(client)?, keys })
    }

    async fn perform(&self, place: usize, prompt: Prompt) -> Played {
        let call = &self.world.calls[place];
        let request = self.request(call, &prompt);
        let headers = self.headers(call);
        let mut result = self.ask(call, &request, &headers).await;
        for tried in 1..self.config.tries {
            let Err(error) = &result else { break };
            if !may_repeat(error) {
                break;
            }
            tokio::time::sleep(pause(error, tried)).await;
            result = self.ask(call, &request, &headers).await;
        }
        Played { call: place, prompt, result }
    }

    fn request(&self, call: &Call, prompt: &Prompt) -> ChatRequest {
        let messages: &[Message] = match prompt {
            Prompt::Chat(messages) => messages,
            Prompt::Text(_) => &[],
        };
        ChatRequest {
            model: self.config.model.clone(),
            messages: messages.iter().cloned().map(ChatMessage::from).collect(),
            temperature: Some(call.temperature),
            max_tokens: Some(call.max_tokens),
            logprobs: call.logprobs.map(|_| true),
            top_logprobs: call.logprobs.map(u32::from),
            stream_options: call.stream.then_some(StreamOptions { include_usage: true }),
            ..ChatRequest::default()
        }
    }

    fn headers(&self, call: &Call) -> Vec<(String, String)> {
        let mut headers = vec![
            ("authorization".to_owned(), format!("Bearer {}", self.keys[call.account].expose())),
            ("user-agent".to_owned(), self.world.accounts[call.account].agent.clone()),
            ("x-forwarded-for".to_owned(), call.address.to_string()),
            (TIME.to_owned(), call.at.milliseconds().to_string()),
        ];
        if call.declared {
            headers.push((PURPOSE.to_owned(), "distillation".to_owned()));
        }
        headers
    }

    async fn ask(
        &self,
        call: &Call,
        request: &ChatRequest,
        headers: &[(String, String)],
    ) -> Result<Reply, ClientError> {
        if call.stream {
            gather(self.client.chat_stream(request, headers).await?).await
        } else {
            whole(self.client.chat(request, headers).await?)
        }
    }
}

/// Was the call surely not answered, so that asking again cannot be charged twice?
fn may_repeat(error: &ClientError) -> bool {
    match error.kind {
        ErrorKind::Refused => error.retryable() && matches!(error.status, Some(429 | 503)),
        ErrorKind::Connection => error.code.as_deref() == Some("connection_failed"),
        _ => false,
    }
}

/// What the server asked for, or a wait that doubles from try to try.
fn pause(error: &ClientError, tried: u32) -> Duration {
    let asked = error.retry_after_ms.map(Duration::from_millis);
    asked.unwrap_or_else(|| Duration::from_millis(50 << tried.min(10))).min(LONGEST_WAIT)
}

fn whole(response: ChatResponse) -> Result<Reply, ClientError> {
    let usage = response.usage.unwrap_or_default();
    let choice = response.choices.into_iter().next().ok_or_else(|| malformed("the answer has no choice"))?;
    let finish = choice.finish_reason.ok_or_else(|| malformed("the answer does not say why it ended"))?;
    let text = choice.message.content.unwrap_or_default();
    Ok(Reply { answer: Answer::new(text, finish.into()), logprobs: tokens(choice.logprobs), usage: counted(usage) })
}

async fn gather(mut chunks: impl Stream<Item = Result<ChatChunk, ClientError>> + Unpin) -> Result<Reply, ClientError> {
    let (mut text, mut logprobs, mut usage) = (String::new(), Vec::new(), anbiq_openai::Usage::default());
    let mut finish: Option<FinishReason> = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        usage = chunk.usage.unwrap_or(usage);
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            text.push_str(choice.delta.content.as_deref().unwrap_or_default());
            logprobs.extend(tokens(choice.logprobs));
            finish = choice.finish_reason.or(finish);
        }
    }
    let finish = finish.ok_or_else(|| malformed("the answer does not say why it ended"))?;
    Ok(Reply { answer: Answer::new(text, finish.into()), logprobs, usage: counted(usage) })
}

fn counted(usage: anbiq_openai::Usage) -> Usage {
    let cached_tokens = usage.cached_tokens();
    let anbiq_openai::Usage { prompt_tokens, completion_tokens, .. } = usage;
    Usage { prompt_tokens, cached_tokens, completion_tokens, twin_tokens: 0 }
}

fn tokens(logprobs: Option<ChatLogprobs>) -> Vec<TokenLogprob> {
    let told = logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
    let token = |told: anbiq_openai::ChatTokenLogprob| TokenLogprob {
        bytes: told.bytes.unwrap_or_else(|| told.token.clone().into_bytes()),
        token: told.token,
        logprob: told.logprob,
        top: told
            .top_logprobs
            .into_iter()
            .map(|other| Alternative {
                bytes: other.bytes.unwrap_or_else(|| other.token.clone().into_bytes()),
                token: other.token,
                logprob: other.logprob,
            })
            .collect(),
    };
    told.into_iter().map(token).collect()
}

fn malformed(message: &str) -> ClientError {
    ClientError {
        kind: ErrorKind::Malformed,
        status: None,
        code: Some("answer_malformed".to_owned()),
        message: message.to_owned(),
        retry_after_ms: None,
    }
}

impl Performance {
    /// Calls without an answer: how many, by code.
    pub fn failures(&self) -> BTreeMap<String, usize> {
        let mut failures = BTreeMap::new();
        for error in self.played.iter().filter_map(|played| played.result.as_ref().err()) {
            let code = error.code.clone().unwrap_or_else(|| error.status.unwrap_or_default().to_string());
            *failures.entry(code).or_default() += 1;
        }
        failures
    }

    /// What the accounts of `group` collected, in order of time.
    pub fn collected<'a>(&'a self, world: &'a World, group: Group) -> impl Iterator<Item = (&'a Played, &'a Reply)> {
        let by = move |played: &&Played| world.accounts[world.calls[played.call].account].group == group;
        self.played.iter().filter(by).filter_map(|played| Some((played, played.result.as_ref().ok()?)))
    }

    /// Writes what the accounts of `group` collected as a capture: one request with its answer a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_capture(&self, world: &World, group: Group, path: &Path) -> Result<(), LabError> {
        write_jsonl(path, self.collected(world, group).map(|(played, reply)| Row::new(&played.prompt, reply)))
    }
}

/// One line of a capture, as `anbiq distill` reads it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    prompt: &'a Prompt,
    answers: [&'a Answer; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Vec<Token<'a>>>,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Token<'a> {
    bytes: Bytes<'a>,
    logprob: f32,
    top: Vec<(Bytes<'a>, f32)>,
}

/// Written as a text where the bytes are one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Bytes<'a> {
    Text(&'a str),
    Raw(&'a [u8]),
}

impl<'a> Row<'a> {
    fn new(prompt: &'a Prompt, reply: &'a Reply) -> Self {
        let tokens: Vec<Token<'a>> = reply.logprobs.iter().map(Token::new).collect();
        let logprobs = if tokens.is_empty() { Vec::new() } else { vec![tokens] };
        Self { prompt, answers: [&reply.answer], logprobs, usage: reply.usage }
    }
}

impl<'a> Token<'a> {
    fn new(token: &'a TokenLogprob) -> Self {
        let top = token.top.iter().map(|other| (Bytes::new(&other.bytes), other.logprob)).collect();
        Self { bytes: Bytes::new(&token.bytes), logprob: token.logprob, top }
    }
}

impl<'a> Bytes<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Raw(bytes), Self::Text)
    }
}
