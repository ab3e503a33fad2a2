//! One request: how it is asked, and what an answer or a failure means.

use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{Answer, Digest, Finish, Prompt, Usage};
use anbiq_model::{Event, Fault, Model, ModelError, Request, Sampling};
use anbiq_openai::{ChatMessage, ChatRequest, ChatResponse, ChatTokenLogprob, FinishReason};
use anbiq_upstream::{Client, ClientError, ErrorKind, Told};
use tokio::time::timeout;

use super::Endpoint;
use super::want::{Request as Ask, Want};
use crate::capture::{Row, Token};
use crate::data::Asked;
use crate::recipe::AskPart;

/// What every request says: a gateway that sells distillation knows what it is for, and one that forbids it too.
pub(crate) const PURPOSE: (&str, &str) = ("x-anbiq-purpose", "distillation");

/// The name of a request, by which a server that knows the header answers it once, however often it is sent.
const KEY: &str = "idempotency-key";

/// Asks one teacher.
#[derive(Debug)]
pub(crate) struct Asker {
    endpoint: Endpoint,
    part: AskPart,
    /// Alternatives a token that are asked for.
    logprobs: Option<u8>,
}

/// What a request brought.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its answers in the order in which they were wanted; fewer, where the server gives no more.
    pub(crate) answers: Vec<Answered>,
    /// What was charged for all of them together.
    pub(crate) usage: Usage,
    pub(crate) told: Told,
}

/// An answer, as a line of the capture.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) line: Vec<u8>,
    /// What it would have been charged by itself.
    pub(crate) usage: Usage,
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct Bad {
    pub(crate) error: ModelError,
    /// Was it perhaps answered and paid for all the same?
    pub(crate) charged: bool,
    /// Is too much asked of the server now?
    pub(crate) busy: bool,
    pub(crate) remedy: Remedy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    Retry {
        after_ms: Option<u64>,
    },
    /// The same request is being answered still; its answer can be had when that ends.
    Wait {
        after_ms: Option<u64>,
    },
    /// The same request under another name: the server has answered it under this one and will not say so again.
    Rename,
    /// This prompt will never be answered; others may.
    Skip,
    Stop,
}

impl Asker {
    pub(crate) fn new(endpoint: &Endpoint, part: &AskPart, logprobs: Option<u8>) -> Arc<Self> {
        Arc::new(Self { endpoint: endpoint.clone(), part: part.clone(), logprobs })
    }

    /// Asks once.
    pub(crate) async fn ask(&self, request: &Ask) -> Result<Reply, Bad> {
        let answer = async {
            match (&self.endpoint, request.wants.as_slice()) {
                (Endpoint::Http { client, model }, _) => self.ask_http(client, model, request).await,
                (Endpoint::Model(model), [want, ..]) => self.ask_model(model.as_ref(), want).await,
                (Endpoint::Model(_), []) => Err(malformed("nothing was asked for")),
            }
        };
        let seconds = self.part.timeout_seconds;
        timeout(Duration::from_secs(seconds), answer).await.unwrap_or_else(|_| {
            let error = ModelError::new(Fault::Model, "timeout", format!("no answer within {seconds} s"));
            Err(Bad { error, charged: true, busy: false, remedy: Remedy::Retry { after_ms: None } })
        })
    }

    async fn ask_http(&self, client: &Client, model: &str, request: &Ask) -> Result<Reply, Bad> {
        let body = self.chat_request(model, &request.wants);
        let headers = [(PURPOSE.0.to_owned(), PURPOSE.1.to_owned()), (KEY.to_owned(), key(request, &body))];
        let (response, told) = client.chat_told(&body, &headers).await.map_err(from_client)?;
        from_chat(&request.wants, response, told, false)
    }

    /// The request for a chat completion that brings `wants`, all of one prompt.
    pub(crate) fn chat_request(&self, model: &str, wants: &[Want]) -> ChatRequest {
        let part = &self.part;
        let messages = match wants.first().map(|want| &want.prompt) {
            Some(Prompt::Chat(messages)) => messages.clone(),
            Some(Prompt::Text(text)) => vec![anbiq_domain::Message::new(anbiq_domain::Role::User, text.clone())],
            None => Vec::new(),
        };
        // Some servers read a signed number.
        let seed = wants.first().map(|want| ((want.first_seed >> 1) as i64).saturating_add(i64::from(want.sample)));
        ChatRequest {
            model: model.to_owned(),
            messages: messages.into_iter().map(ChatMessage::from).collect(),
            temperature: Some(part.temperature),
            max_tokens: Some(part.max_tokens),
            n: (wants.len() > 1).then_some(wants.len() as u32),
            seed,
            logprobs: self.logprobs.map(|_| true),
            top_logprobs: self.logprobs.map(u32::from),
            ..ChatRequest::default()
        }
    }

    async fn ask_model(&self, model: &dyn Model, want: &Want) -> Result<Reply, Bad> {
        let part = &self.part;
        let request = Request {
            sampling: Sampling {
                temperature: part.temperature,
                seed: Some(want.first_seed.wrapping_add(u64::from(want.sample))),
                ..Sampling::default()
            },
            logprobs: self.logprobs,
            ..Request::new(want.prompt.clone(), part.max_tokens)
        };
        let mut events = model.generate(request).await.map_err(from_model)?;
        let (mut text, mut tokens, mut end) = (String::new(), Vec::new(), None);
        while let Some(event) = events.recv().await {
            match event.map_err(from_model)? {
                Event::Text { text: more, logprobs, .. } => {
                    text.push_str(&more);
                    tokens.extend(logprobs.iter().map(Token::from));
                }
                Event::Finished { finish, .. } => end = Some(finish),
                Event::Fingerprint(_) => {}
                // None was offered any.
                Event::ToolCall { .. } => return Err(malformed("the model called a tool")),
                Event::Usage(usage) => {
                    let finish = end.ok_or_else(|| malformed("the model's answer did not end"))?;
                    let answer = answered(want, Answer::new(text, finish), tokens, usage, false)?;
                    return Ok(Reply { answers: vec![answer], usage, told: Told::default() });
                }
            }
        }
        Err(malformed("the model stopped in the middle of its answer"))
    }
}

/// What a chat completion says, alone or in a batch.
pub(crate) fn from_chat(wants: &[Want], response: ChatResponse, told: Told, batch: bool) -> Result<Reply, Bad> {
    let mut choices = response.choices;
    choices.sort_by_key(|choice| choice.index);
    choices.truncate(wants.len());
    if choices.is_empty() {
        return Err(malformed("the server answered without an answer"));
    }
    let mut given = Vec::with_capacity(choices.len());
    for choice in choices {
        let finish = match choice.finish_reason {
            Some(FinishReason::Length) => Finish::Length,
            Some(FinishReason::Stop) => Finish::Stop,
            _ => return Err(malformed("the server's answer did not end")),
        };
        let logprobs = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
        let answer = Answer::new(choice.message.content.unwrap_or_default(), finish);
        given.push((answer, logprobs.iter().map(to_token).collect::<Vec<Token>>()));
    }
    let usage = response.usage.map_or_else(
        // A server that does not count is taken to have used all that was asked for.
        || Usage { completion_tokens: wants[0].usage.completion_tokens * given.len() as u64, ..wants[0].usage },
        |usage| Usage {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens(),
            completion_tokens: usage.completion_tokens,
            ..Usage::default()
        },
    );
    let counts = share(usage.completion_tokens, &given);
    let answers = wants.iter().zip(given).zip(counts).map(|((want, (answer, tokens)), completion_tokens)| {
        answered(want, answer, tokens, Usage { completion_tokens, ..usage }, batch)
    });
    Ok(Reply { answers: answers.collect::<Result<_, _>>()?, usage, told })
}

/// How many of the `total` tokens of several answers each has: exact where their log-probabilities are given and add up; else
/// by their lengths, to the same sum (the largest remainders are rounded up).
fn share(total: u64, given: &[(Answer, Vec<Token>)]) -> Vec<u64> {
    let told: Vec<u64> = given.iter().map(|(_, tokens)| tokens.len() as u64).collect();
    // Some servers tell of the token that ends an answer and some do not.
    let ends: Vec<u64> = given.iter().map(|(answer, _)| u64::from(answer.finish == Finish::Stop)).collect();
    let with_ends: Vec<u64> = told.iter().zip(&ends).map(|(told, end)| told + end).collect();
    for counts in [&told, &with_ends] {
        if counts.iter().sum::<u64>() == total && !told.contains(&0) {
            return counts.clone();
        }
    }
    let lengths: Vec<u128> = given.iter().map(|(answer, _)| answer.text.len() as u128 + 1).collect();
    let all: u128 = lengths.iter().sum();
    let parts = lengths.iter().map(|length| length * u128::from(total));
    let mut counts: Vec<u64> = parts.clone().map(|part| (part / all) as u64).collect();
    let mut order: Vec<(u128, usize)> = parts.enumerate().map(|(place, part)| (part % all, place)).collect();
    order.sort_by_key(|&(rest, place)| (std::cmp::Reverse(rest), place));
    let left = (total - counts.iter().sum::<u64>()) as usize;
    order.iter().take(left).for_each(|&(_, place)| counts[place] += 1);
    counts
}

/// The name of a request: the same recipe and row give the same name in every run, and nothing else does, since a name
/// that meets another request is refused.
fn key(request: &Ask, body: &ChatRequest) -> String {
    // Wire types always have a JSON form.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let edition = request.edition.to_le_bytes();
    let ids: Vec<u8> = request.wants.iter().flat_map(|want| *want.id.as_bytes()).collect();
    let digest = Digest::of_parts(&[b"anbiq idempotency v1\0", &ids, &edition, &body]);
    let mut name = format!("anbiq-{digest}");
    name.truncate(46);
    name
}

fn answered(want: &Want, answer: Answer, tokens: Vec<Token>, usage: Usage, batch: bool) -> Result<Answered, Bad> {
    let row = Row {
        id: Some(want.id),
        exchange: None,
        prompt: Asked::Prompt(want.prompt.clone()),
        answers: vec![answer],
        logprobs: if tokens.is_empty() { Vec::new() } else { vec![tokens] },
        told: None,
        usage,
        batch,
    };
    let mut line = serde_json::to_vec(&row).map_err(|why| malformed(&format!("the answer cannot be kept: {why}")))?;
    line.push(b'\n');
    Ok(Answered { line, usage })
}

fn to_token(token: &ChatTokenLogprob) -> Token {
    let bytes = |bytes: &Option<Vec<u8>>, text: &str| bytes.clone().unwrap_or_else(|| text.as_bytes().to_vec()).into();
    let top = token.top_logprobs.iter().map(|other| (bytes(&other.bytes, &other.token), other.logprob));
    Token { bytes: bytes(&token.bytes, &token.token), logprob: token.logprob, top: top.collect() }
}

fn malformed(message: &str) -> Bad {
    let error = ModelError::new(Fault::Model, "answer_malformed", message);
    Bad { error, charged: true, busy: false, remedy: Remedy::Retry { after_ms: None } }
}

pub(crate) fn from_client(error: ClientError) -> Bad {
    let refused = error.kind == ErrorKind::Refused;
    let unreached = error.kind == ErrorKind::Setup || error.code.as_deref() == Some("connection_failed");
    let retry = error.retryable();
    let forgotten = error.code.as_deref() == Some("idempotency_answer_forgotten");
    let skip = refused && matches!(error.status, Some(400 | 413 | 422));
    let after_ms = error.retry_after_ms;
    let remedy = match (retry, skip) {
        _ if forgotten => Remedy::Rename,
        _ if error.code.as_deref() == Some("idempotency_in_flight") => Remedy::Wait { after_ms },
        (true, _) => Remedy::Retry { after_ms },
        (false, true) => Remedy::Skip,
        (false, false) => Remedy::Stop,
    };
    let busy = refused && matches!(error.status, Some(429 | 503 | 529));
    // Whoever answers with an error says that it gave no answer; only one that was tired of waiting cannot know.
    let doubtful = matches!(error.status, Some(408 | 499 | 504 | 524));
    let fault = if retry { Fault::Model } else { Fault::Setup };
    let code = if refused { "teacher_refused" } else { "teacher_unreachable" };
    let error = ModelError { retry_after_ms: after_ms, ..ModelError::new(fault, code, error.message) };
    Bad { error, charged: doubtful || !refused && !unreached, busy, remedy }
}

fn from_model(error: ModelError) -> Bad {
    let remedy = match error.fault {
        Fault::Model | Fault::Busy => Remedy::Retry { after_ms: error.retry_after_ms },
        Fault::Request => Remedy::Skip,
        Fault::Setup => Remedy::Stop,
    };
    Bad { charged: error.fault == Fault::Model, busy: error.fault == Fault::Busy, error, remedy }
}
