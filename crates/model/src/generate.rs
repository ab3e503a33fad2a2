use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anbiq_domain::{Answer, Finish, Prompt, ToolCall, Usage};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::{Fault, Model, ModelError};

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to answer.
    pub prompt: Prompt,
    /// How many independent completions.
    pub n: u32,
    /// Longest completion, in tokens.
    pub max_tokens: u32,
    /// How to draw tokens.
    pub sampling: Sampling,
    /// Texts that end a completion; they are not part of it.
    pub stop: Vec<String>,
    /// Log-probabilities of each token and of this many alternatives; `None` for no log-probabilities.
    pub logprobs: Option<u8>,
    /// Does nobody read the completion before it has ended? A model may then give it in one piece, which costs less.
    pub whole: bool,
    /// Further fields of the OpenAI dialect by their names there, such as `tools` and `response_format`: for models
    /// whose [`Abilities`](crate::Abilities) hold what they ask for. Others refuse the request.
    pub dialect: Map<String, Value>,
}

impl Request {
    /// One completion of `prompt`, drawn at temperature 1, of at most `max_tokens` tokens.
    pub fn new(prompt: Prompt, max_tokens: u32) -> Self {
        Self {
            prompt,
            n: 1,
            max_tokens,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: None,
            whole: false,
            dialect: Map::new(),
        }
    }
}

/// How to draw tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Draws among the likeliest tokens that hold this much probability.
    pub top_p: f32,
    /// Fixes the draws: the same seed gives the same completion. Completion `i` of `n` uses its own stream.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, seed: None }
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// More text of completion `index`. Text is only sent once no stop string can take it back.
    Text {
        /// Which completion.
        index: u32,
        /// What was added; whole characters.
        text: String,
        /// The tokens that were added, where log-probabilities were asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// More of a tool's call in completion `index`.
    ToolCall {
        /// Which completion.
        index: u32,
        /// What was added.
        delta: ToolCallDelta,
    },
    /// Completion `index` has ended.
    Finished {
        /// Which completion.
        index: u32,
        /// Why.
        finish: Finish,
        /// Its length in tokens.
        tokens: u64,
    },
    /// The build of the model and its settings that answer, where its server says it. It may come at any time before the last
    /// event, and says nothing about a single completion.
    Fingerprint(String),
    /// The last event: tokens of all completions together.
    Usage(Usage),
}

/// What was added to one of the calls of a completion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolCallDelta {
    /// Which call of the completion, counted from 0; one begins only after all before it.
    pub call: u32,
    /// Its id, where it begins.
    pub id: Option<String>,
    /// Its function, where it begins.
    pub name: Option<String>,
    /// More of its arguments.
    pub arguments: String,
}

/// Most calls of one completion.
const CALLS: usize = 128;

/// The calls of one completion, as far as they have come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calls(Vec<ToolCall>);

impl Calls {
    /// Adds `delta`.
    ///
    /// # Errors
    /// Calls were left out before it, or there are more than 128.
    pub fn add(&mut self, delta: &ToolCallDelta) -> Result<(), ModelError> {
        let place = delta.call as usize;
        if place > self.0.len() || place >= CALLS {
            let message = format!("the model called tool {place} after {} calls", self.0.len());
            return Err(ModelError::new(Fault::Model, "answer_malformed", message));
        }
        if place == self.0.len() {
            self.0.push(ToolCall::default());
        }
        if let Some(call) = self.0.get_mut(place) {
            call.id.push_str(delta.id.as_deref().unwrap_or_default());
            call.name.push_str(delta.name.as_deref().unwrap_or_default());
            call.arguments.push_str(&delta.arguments);
        }
        Ok(())
    }

    /// All of them so far.
    pub fn as_slice(&self) -> &[ToolCall] {
        &self.0
    }

    /// All of them.
    pub fn into_list(self) -> Vec<ToolCall> {
        self.0
    }
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token as text; bytes that are no character show as U+FFFD.
    pub token: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of the probability that it had at temperature 1, before any cut.
    pub logprob: f32,
    /// The likeliest tokens at this place, likeliest first.
    pub top: Vec<Alternative>,
}

/// A token that could have stood at some place.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// The token as text.
    pub token: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// An answer under way. A slow reader slows the model down; dropping it cancels the model's work.
pub struct Generation(Source);

enum Source {
    /// Of a model that works on a thread or task of its own; the channel is bounded.
    Channel(mpsc::Receiver<Result<Event, ModelError>>),
    /// Of a model that does its work when it is read: nothing is handed from task to task.
    Stream(BoxStream<'static, Result<Event, ModelError>>),
}

impl Generation {
    /// An answer that is made when it is read.
    pub fn lazy(events: impl Stream<Item = Result<Event, ModelError>> + Send + 'static) -> Self {
        Self(Source::Stream(events.boxed()))
    }

    /// An answer that is there already.
    pub fn ready(events: Vec<Result<Event, ModelError>>) -> Self {
        Self::lazy(futures::stream::iter(events))
    }

    /// The next event; `None` after the last, or where the model vanished before it. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Result<Event, ModelError>> {
        self.next().await
    }
}

impl Stream for Generation {
    type Item = Result<Event, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Source::Channel(events) => events.poll_recv(context),
            Source::Stream(events) => events.poll_next_unpin(context),
        }
    }
}

impl From<mpsc::Receiver<Result<Event, ModelError>>> for Generation {
    fn from(events: mpsc::Receiver<Result<Event, ModelError>>) -> Self {
        Self(Source::Channel(events))
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Generation(..)")
    }
}

/// Reads a generation to its end: the completions in the order of their index, and the usage.
pub async fn collect(mut generation: Generation, n: u32) -> Result<(Vec<Answer>, Usage), ModelError> {
    let mut texts = vec![String::new(); n as usize];
    let mut calls = vec![Calls::default(); n as usize];
    let mut finishes = vec![None; n as usize];
    while let Some(event) = generation.recv().await {
        match event? {
            Event::Text { index, text, .. } => {
                if let Some(whole) = texts.get_mut(index as usize) {
                    whole.push_str(&text);
                }
            }
            Event::ToolCall { index, delta } => {
                if let Some(calls) = calls.get_mut(index as usize) {
                    calls.add(&delta)?;
                }
            }
            Event::Finished { index, finish, .. } => {
                if let Some(slot) = finishes.get_mut(index as usize) {
                    *slot = Some(finish);
                }
            }
            Event::Fingerprint(_) => {}
            Event::Usage(usage) => {
                let finishes: Option<Vec<Finish>> = finishes.into_iter().collect();
                let finishes = finishes.ok_or_else(cut_off)?;
                let answers = texts.into_iter().zip(calls).zip(finishes);
                let answer =
                    |((text, calls), finish): ((_, Calls), _)| Answer { text, finish, tool_calls: calls.into_list() };
                return Ok((answers.map(answer).collect(), usage));
            }
        }
    }
    Err(cut_off())
}

/// Events that wait for a slow reader before the model is made to wait.
const EVENTS: usize = 64;

/// Begins `request` in a task of its own; why it cannot be begun is then its first event.
pub fn detach(model: Arc<dyn Model>, request: Request) -> Generation {
    let (sender, receiver) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        let begun = tokio::select! {
            begun = model.generate(request) => begun,
            () = sender.closed() => return,
        };
        match begun {
            Err(error) => drop(sender.send(Err(error)).await),
            Ok(mut generation) => loop {
                let event = tokio::select! {
                    event = generation.recv() => event,
                    // Dropping the generation cancels the model's work.
                    () = sender.closed() => return,
                };
                let Some(event) = event else { return };
                if sender.send(event).await.is_err() {
                    return;
                }
            },
        }
    });
    receiver.into()
}

/// Takes a generation of `n` completions apart into `n` of one each. Its usage comes last, so each of them ends only when
/// all have. One that nobody reads any more does not hold up the others.
pub fn split(mut generation: Generation, n: u32) -> Vec<Generation> {
    let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..n).map(|_| mpsc::channel(EVENTS)).unzip();
    tokio::spawn(async move {
        let mut tokens = vec![0; n as usize];
        while !senders.iter().all(mpsc::Sender::is_closed) {
            let event = tokio::select! {
                event = generation.recv() => event,
                () = all_closed(&senders) => return,
            };
            let (whom, event) = match event {
                None => return,
                Some(Ok(Event::Text { index, text, logprobs })) => {
                    (Some(index), Ok(Event::Text { index: 0, text, logprobs }))
                }
                Some(Ok(Event::ToolCall { index, delta })) => (Some(index), Ok(Event::ToolCall { index: 0, delta })),
                Some(Ok(Event::Finished { index, finish, tokens: length })) => {
                    if let Some(slot) = tokens.get_mut(index as usize) {
                        *slot = length;
                    }
                    (Some(index), Ok(Event::Finished { index: 0, finish, tokens: length }))
                }
                Some(Ok(Event::Usage(usage))) => {
                    for (sender, completion_tokens) in senders.drain(..).zip(tokens) {
                        // Whoever has left does not want to know.
                        let _ = sender.send(Ok(Event::Usage(Usage { completion_tokens, ..usage }))).await;
                    }
                    return;
                }
                Some(event) => (None, event),
            };
            for (place, sender) in (0..).zip(&senders) {
                if whom.is_none_or(|index| index == place) {
                    let _ = sender.send(event.clone()).await;
                }
            }
        }
    });
    receivers.into_iter().map(Generation::from).collect()
}

async fn all_closed(senders: &[mpsc::Sender<Result<Event, ModelError>>]) {
    for sender in senders {
        sender.closed().await;
    }
}

fn cut_off() -> ModelError {
    ModelError::new(Fault::Model, "answer_cut_off", "the model stopped in the middle of its answer")
}
