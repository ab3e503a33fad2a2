//! What is served, in OpenAI's form: whole, or as a stream of events.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{ExchangeId, Finish, Role};
use anbiq_model::{Calls, TokenLogprob, ToolCallDelta};
use anbiq_openai::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatResponse, ChatTokenLogprob, ChatTopLogprob, Completion,
    CompletionChoice, CompletionLogprobs, Delta, EncodingFormat, FinishReason, FunctionDelta, ReplyMessage,
    ResponseEcho, ToolCall, Usage, sse,
};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use serde::Serialize;
use tokio::sync::mpsc::error::TryRecvError;

use crate::embedding;
use crate::exchange::{Piece, Received, Said};
use crate::rejection::Rejection;
use crate::responses;

/// In which form something is answered.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    Chat,
    Completion,
    /// What `/v1/responses` answers, with what was asked for.
    Response(Arc<ResponseEcho>),
    /// Vectors, in this encoding; never streamed.
    Embedding(EncodingFormat),
}

/// What all parts of one answer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    pub(crate) form: Form,
    pub(crate) id: ExchangeId,
    /// When, in seconds since 1970.
    pub(crate) created: i64,
    pub(crate) model: String,
    pub(crate) n: u32,
    pub(crate) logprobs: bool,
    pub(crate) include_usage: bool,
}

/// JSON has no infinity; OpenAI writes this for a token without any probability.
const NO_PROBABILITY: f32 = -9999.0;

/// A write of at least this many bytes takes no further events with it.
const FRAME: usize = 16 << 10;

/// The whole answer, as JSON.
pub(crate) async fn whole(heading: &Heading, mut pieces: Received) -> Result<Vec<u8>, Rejection> {
    let mut choices: Vec<Choice> = (0..heading.n).map(|_| Choice::default()).collect();
    let mut vectors = None;
    while let Some(piece) = pieces.recv().await {
        match piece? {
            Piece::Text { choice, text, logprobs } => {
                if let Some(choice) = choices.get_mut(choice as usize) {
                    choice.text.push_str(&text);
                    choice.logprobs.extend(logprobs);
                }
            }
            Piece::ToolCall { choice, delta } => {
                if let Some(choice) = choices.get_mut(choice as usize) {
                    choice.calls.add(&delta)?;
                }
            }
            Piece::Finished { choice, finish } => {
                if let Some(choice) = choices.get_mut(choice as usize) {
                    choice.finish = Some(finish);
                }
            }
            Piece::Vectors(embedded) => vectors = Some(embedded),
            Piece::Done(usage) => {
                return match (&heading.form, vectors) {
                    (Form::Embedding(encoding), Some(vectors)) => {
                        Ok(to_json(&embedding::response(&heading.model, *encoding, &vectors, usage)))
                    }
                    (Form::Response(echo), _) => {
                        let Choice { text, logprobs, calls, finish } = choices.into_iter().next().unwrap_or_default();
                        let whole = responses::whole(heading, echo, text, logprobs, calls, finish, usage);
                        Ok(to_json(&whole))
                    }
                    _ => Ok(heading.whole(choices, usage)),
                };
            }
        }
    }
    Err(lost())
}

/// The answer as a stream of events, of which `first` has come already.
///
/// A stream that fails says so in an event and ends without `[DONE]`; dropping the body tells the exchange that the
/// client has left.
pub(crate) fn streamed(heading: Heading, first: Piece, pieces: Received, heartbeat: Duration) -> Body {
    let writer = match heading.form.clone() {
        Form::Response(echo) => Either::Response(Box::new(responses::Writer::new(heading, echo))),
        _ => Either::Plain(Writer {
            offsets: vec![0; heading.n as usize],
            begun: vec![false; heading.n as usize],
            heading,
        }),
    };
    let state = Some((writer, Some(first), pieces));
    Body::from_stream(stream::unfold(state, move |state| async move {
        let (mut writer, first, mut pieces) = state?;
        let next = match first {
            Some(first) => Ok(Some(Ok(first))),
            None => tokio::time::timeout(heartbeat, pieces.recv()).await,
        };
        let Ok(mut next) = next else {
            return Some((io::Result::Ok(Bytes::from_static(sse::HEARTBEAT)), Some((writer, None, pieces))));
        };
        // Pieces that are there already go out together: each write is a way to the kernel and wakes the client.
        let mut events = Vec::new();
        let mut goes_on = writer.take(next, &mut events);
        while goes_on && events.len() < FRAME {
            next = match pieces.try_recv() {
                Ok(piece) => Some(piece),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => None,
            };
            goes_on = writer.take(next, &mut events);
        }
        Some((Ok(events.into()), goes_on.then_some((writer, None, pieces))))
    }))
}

fn lost() -> Rejection {
    // Only where the task that leads the exchange was killed.
    Rejection::unavailable("exchange_lost", "the answer was lost")
}

#[derive(Default)]
struct Choice {
    text: String,
    logprobs: Vec<TokenLogprob>,
    calls: Calls,
    finish: Option<Finish>,
}

impl Choice {
    /// As a chat's message; beside calls an empty text is none.
    fn into_message(self) -> ReplyMessage {
        let calls: Vec<ToolCall> = self.calls.into_list().into_iter().map(ToolCall::from).collect();
        let content = (calls.is_empty() || !self.text.is_empty()).then_some(self.text);
        let tool_calls = (!calls.is_empty()).then_some(calls);
        ReplyMessage { role: Role::Assistant, content, refusal: None, tool_calls }
    }
}

impl Heading {
    fn id(&self) -> String {
        match self.form {
            Form::Completion => format!("cmpl-{}", self.id),
            // The others have no chunks.
            Form::Chat | Form::Embedding(_) | Form::Response(_) => format!("chatcmpl-{}", self.id),
        }
    }

    fn whole(&self, choices: Vec<Choice>, usage: Usage) -> Vec<u8> {
        let choices = (0..).zip(choices);
        match self.form {
            Form::Chat | Form::Embedding(_) | Form::Response(_) => to_json(&ChatResponse {
                id: self.id(),
                object: "chat.completion".to_owned(),
                created: self.created,
                model: self.model.clone(),
                choices: choices
                    .map(|(index, mut choice)| ChatChoice {
                        index,
                        logprobs: self.logprobs.then(|| chat_logprobs(std::mem::take(&mut choice.logprobs))),
                        finish_reason: choice.finish.map(FinishReason::from),
                        message: choice.into_message(),
                    })
                    .collect(),
                usage: Some(usage),
                system_fingerprint: None,
            }),
            Form::Completion => {
                let choices = choices.map(|(index, choice)| CompletionChoice {
                    index,
                    text: choice.text,
                    logprobs: self.logprobs.then(|| completion_logprobs(choice.logprobs, &mut 0)),
                    finish_reason: choice.finish.map(FinishReason::from),
                });
                to_json(&self.completion(choices.collect(), Some(usage)))
            }
        }
    }

    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Usage>) -> ChatChunk {
        ChatChunk {
            id: self.id(),
            object: "chat.completion.chunk".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
            system_fingerprint: None,
        }
    }

    fn completion(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> Completion {
        Completion {
            id: self.id(),
            object: "text_completion".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
            system_fingerprint: None,
        }
    }
}

/// Whoever writes the events of an endpoint.
enum Either {
    Plain(Writer),
    Response(Box<responses::Writer>),
}

impl Either {
    /// Writes what came next; false where nothing follows.
    fn take(&mut self, next: Option<Said>, events: &mut Vec<u8>) -> bool {
        match next.unwrap_or_else(|| Err(lost())) {
            Ok(piece) => {
                let ends = matches!(piece, Piece::Done(_));
                match self {
                    Self::Plain(writer) => writer.write(piece, events),
                    Self::Response(writer) => writer.write(piece, events),
                }
                !ends
            }
            Err(rejection) => {
                match self {
                    Self::Plain(_) => events.extend_from_slice(&sse::encode(&rejection.body())),
                    Self::Response(writer) => writer.fail(&rejection, events),
                }
                false
            }
        }
    }
}

/// Writes pieces as events.
struct Writer {
    heading: Heading,
    /// Which chat answers have begun: the first chunk of each says who speaks.
    begun: Vec<bool>,
    /// Characters of each completion so far.
    offsets: Vec<u64>,
}

impl Writer {
    fn write(&mut self, piece: Piece, events: &mut Vec<u8>) {
        match (&self.heading.form, piece) {
            (Form::Chat, Piece::Text { choice, text, logprobs }) => {
                self.begin(choice, true, events);
                let logprobs = self.heading.logprobs.then(|| chat_logprobs(logprobs));
                self.chat(choice, Delta { content: Some(text), ..Delta::default() }, logprobs, None, events);
            }
            (Form::Chat, Piece::ToolCall { choice, delta }) => {
                self.begin(choice, false, events);
                self.chat(choice, call_delta(delta), None, None, events);
            }
            (Form::Chat, Piece::Finished { choice, finish }) => {
                self.begin(choice, true, events);
                self.chat(choice, Delta::default(), None, Some(finish), events);
            }
            (Form::Completion, Piece::Text { choice, text, logprobs }) => {
                let offset = self.offsets.get_mut(choice as usize);
                let logprobs = offset.filter(|_| self.heading.logprobs).map(|at| completion_logprobs(logprobs, at));
                self.text(choice, text, logprobs, None, events);
            }
            (Form::Completion, Piece::Finished { choice, finish }) => {
                self.text(choice, String::new(), None, Some(finish), events);
            }
            // No tool was offered, and vectors are not streamed.
            (Form::Completion, Piece::ToolCall { .. })
            | (Form::Embedding(_) | Form::Response(_), _)
            | (_, Piece::Vectors(_)) => {}
            (form, Piece::Done(usage)) => {
                if self.heading.include_usage {
                    let event = match form {
                        Form::Completion => to_event(&self.heading.completion(Vec::new(), Some(usage))),
                        _ => to_event(&self.heading.chunk(Vec::new(), Some(usage))),
                    };
                    events.extend_from_slice(&event);
                }
                events.extend_from_slice(&sse::encode(sse::DONE));
            }
        }
    }

    /// The first chunk of an answer; readers take the empty text in it for the beginning of one.
    fn begin(&mut self, choice: u32, with_text: bool, events: &mut Vec<u8>) {
        let begun = self.begun.get_mut(choice as usize).is_none_or(|begun| std::mem::replace(begun, true));
        if !begun {
            let content = with_text.then(String::new);
            let delta = Delta { role: Some(Role::Assistant), content, tool_calls: None };
            self.chat(choice, delta, None, None, events);
        }
    }

    fn chat(
        &self,
        index: u32,
        delta: Delta,
        logprobs: Option<ChatLogprobs>,
        finish: Option<Finish>,
        events: &mut Vec<u8>,
    ) {
        let finish_reason = finish.map(FinishReason::from);
        let choice = ChatChunkChoice { index, delta, logprobs, finish_reason };
        events.extend_from_slice(&to_event(&self.heading.chunk(vec![choice], None)));
    }

    fn text(
        &self,
        index: u32,
        text: String,
        logprobs: Option<CompletionLogprobs>,
        finish: Option<Finish>,
        events: &mut Vec<u8>,
    ) {
        let choice = CompletionChoice { index, text, logprobs, finish_reason: finish.map(FinishReason::from) };
        events.extend_from_slice(&to_event(&self.heading.completion(vec![choice], None)));
    }
}

fn call_delta(delta: ToolCallDelta) -> Delta {
    let ToolCallDelta { call, id, name, arguments } = delta;
    let kind = id.is_some().then(|| "function".to_owned());
    let function = Some(FunctionDelta { name, arguments: Some(arguments) });
    let delta = anbiq_openai::ToolCallDelta { index: Some(call), id, kind, function };
    Delta { tool_calls: Some(vec![delta]), ..Delta::default() }
}

pub(crate) fn chat_logprobs(tokens: Vec<TokenLogprob>) -> ChatLogprobs {
    let one = |token: TokenLogprob| ChatTokenLogprob {
        token: token.token,
        logprob: finite(token.logprob),
        bytes: Some(token.bytes),
        top_logprobs: token
            .top
            .into_iter()
            .map(|top| ChatTopLogprob { token: top.token, logprob: finite(top.logprob), bytes: Some(top.bytes) })
            .collect(),
    };
    ChatLogprobs { content: Some(tokens.into_iter().map(one).collect()), refusal: None }
}

/// The tokens as columns; `offset` counts the characters before each.
fn completion_logprobs(tokens: Vec<TokenLogprob>, offset: &mut u64) -> CompletionLogprobs {
    let mut columns = CompletionLogprobs::default();
    let mut tops = Vec::new();
    for token in tokens {
        columns.text_offset.push(*offset);
        *offset += token.token.chars().count() as u64;
        columns.token_logprobs.push(Some(finite(token.logprob)));
        columns.tokens.push(token.token);
        let top: BTreeMap<String, f32> = token.top.into_iter().map(|top| (top.token, finite(top.logprob))).collect();
        tops.push(Some(top));
    }
    columns.top_logprobs = Some(tops);
    columns
}

fn finite(logprob: f32) -> f32 {
    // `max` gives the other one for NaN.
    logprob.max(NO_PROBABILITY)
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // Strings, numbers and lists of them always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

fn to_event<T: Serialize>(value: &T) -> Bytes {
    sse::encode(&serde_json::to_string(value).unwrap_or_default())
}
