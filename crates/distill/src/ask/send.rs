//! One request: how it is asked, and what an answer or a failure means.

use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{Answer, Digest, Finish, Prompt, Usage};
use anbiq_model::{Event, Fault, Model, ModelError, Request, Sampling};
use anbiq_openai::{ChatMessage, ChatRequest, ChatResponse, ChatTokenLogprob, FinishReason};
use anbiq_upstream::{Client, ClientError, ErrorKind, Told};
use tokio::time::timeout;

use super::Endpoint;
use super::want::Want;
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

/// An answer, as a line of the capture.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) line: Vec<u8>,
    pub(crate) usage: Usage,
    pub(crate) told: Told,
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
    pub(crate) async fn ask(&self, want: &Want) -> Result<Answered, Bad> {
        let answer = async {
            match &self.endpoint {
                Endpoint::Http { client, model } => self.ask_http(client, model, want).await,
                Endpoint::Model(model) => self.ask_model(model.as_ref(), want).await,
            }
        };
        let seconds = self.part.timeout_seconds;
        timeout(Duration::from_secs(seconds), answer).await.unwrap_or_else(|_| {
            let error = ModelError::new(Fault::Model, "timeout", format!("no answer within {seconds} s"));
            Err(Bad { error, charged: true, busy: false, remedy: Remedy::Retry { after_ms: None } })
        })
    }

    async fn ask_http(&self, client: &Client, model: &str, want: &Want) -> Result<Answered, Bad> {
        let request = self.chat_request(model, want);
        let headers = [(PURPOSE.0.to_owned(), PURPOSE.1.to_owned()), (KEY.to_owned(), key(want, &request))];
        let (response, told) = client.chat_told(&request, &headers).await.map_err(from_client)?;
        from_chat(want, response, told, false)
    }

    /// The request for a chat completion.
    pub(crate) fn chat_request(&self, model: &str, want: &Want) -> ChatRequest {
        let part = &self.part;
        let messages = match &want.prompt {
            Prompt::Chat(messages) => messages.clone(),
            Prompt::Text(text) => vec![anbiq_domain::Message::new(anbiq_domain::Role::User, text.clone())],
        };
        ChatRequest {
            model: model.to_owned(),
            messages: messages.into_iter().map(ChatMessage::from).collect(),
            temperature: Some(part.temperature),
            max_tokens: Some(part.max_tokens),
            // Some servers read a signed number.
            seed: Some((want.seed >> 1) as i64),
            logprobs: self.logprobs.map(|_| true),
            top_logprobs: self.logprobs.map(u32::from),
            ..ChatRequest::default()
        }
    }

    async fn ask_model(&self, model: &dyn Model, want: &Want) -> Result<Answered, Bad> {
        let part = &self.part;
        let request = Request {
            sampling: Sampling { temperature: part.temperature, seed: Some(want.seed), ..Sampling::default() },
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
                    return answered(want, Answer::new(text, finish), tokens, Some(usage), Told::default(), false);
                }
            }
        }
        Err(malformed("the model stopped in the middle of its answer"))
    }
}

/// What a chat completion says, alone or in a batch.
pub(crate) fn from_chat(want: &Want, response: ChatResponse, told: Told, batch: bool) -> Result<Answered, Bad> {
    let Some(choice) = response.choices.into_iter().next() else {
        return Err(malformed("the server answered without an answer"));
    };
    let finish = match choice.finish_reason {
        Some(FinishReason::Length) => Finish::Length,
        Some(FinishReason::Stop) => Finish::Stop,
        _ => return Err(malformed("the server's answer did not end")),
    };
    let logprobs = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
    let answer = Answer::new(choice.message.content.unwrap_or_default(), finish);
    let usage = response.usage.map(|usage| Usage {
        prompt_tokens: usage.prompt_tokens,
        cached_tokens: usage.cached_tokens(),
        completion_tokens: usage.completion_tokens,
        ..Usage::default()
    });
    answered(want, answer, logprobs.iter().map(to_token).collect(), usage, told, batch)
}

/// The name of a request: the same recipe and row give the same name in every run, and nothing else does, since a name
/// that meets another request is refused.
fn key(want: &Want, request: &ChatRequest) -> String {
    // Wire types always have a JSON form.
    let body = serde_json::to_vec(request).unwrap_or_default();
    let edition = want.edition.to_le_bytes();
    let digest = Digest::of_parts(&[b"anbiq idempotency v1\0", want.id.as_bytes(), &edition, &body]);
    let mut name = format!("anbiq-{digest}");
    name.truncate(46);
    name
}

fn answered(
    want: &Want,
    answer: Answer,
    tokens: Vec<Token>,
    usage: Option<Usage>,
    told: Told,
    batch: bool,
) -> Result<Answered, Bad> {
    // A server that does not count is taken to have used all that was asked for.
    let usage = usage.unwrap_or(want.usage);
    let row = Row {
        id: Some(want.id),
        exchange: None,
        prompt: Asked::Prompt(want.prompt.clone()),
        answers: vec![answer],
        logprobs: if tokens.is_empty() { Vec::new() } else { vec![tokens] },
        usage,
        batch,
    };
    let mut line = serde_json::to_vec(&row).map_err(|why| malformed(&format!("the answer cannot be kept: {why}")))?;
    line.push(b'\n');
    Ok(Answered { line, usage, told })
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
