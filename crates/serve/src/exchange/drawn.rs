//! What is drawn of what is served, as it comes.

use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{Answer, Finish, Usage};
use anbiq_model::{Calls, Embedded, Event, ModelError, TokenLogprob};
use tokio::time::Instant;

use super::pipe::NotTaken;
use super::{End, Piece, Pieces, malformed};
use crate::rejection::Rejection;
use crate::twins::{Drawing, TwinPieces};

/// What was drawn of what is served.
pub(super) struct Drawn {
    pub(super) texts: Vec<String>,
    pub(super) calls: Vec<Calls>,
    pub(super) vectors: Option<Arc<Embedded>>,
    /// The length in tokens as far as it is known: by log-probabilities, or else by events.
    pub(super) counted: Vec<u64>,
    pub(super) finishes: Vec<Option<Finish>>,
    pub(super) prompt_tokens: Option<u64>,
    pub(super) cached_tokens: u64,
    /// Tokens that went out to the client in a stream.
    pub(super) sent: u64,
    /// Has any piece come?
    pub(super) begun: bool,
    /// Did the model ever wait for the client?
    pub(super) stalled: bool,
    /// Empty where the model does not say it.
    pub(super) fingerprint: String,
    /// The draws that are not served.
    pub(super) others: Option<Drawing>,
    /// How long the model and the client were waited for.
    pub(super) waited: Duration,
}

impl Drawn {
    pub(super) fn new(n: u32) -> Self {
        let n = n as usize;
        Self {
            texts: vec![String::new(); n],
            calls: vec![Calls::default(); n],
            vectors: None,
            counted: vec![0; n],
            finishes: vec![None; n],
            prompt_tokens: None,
            cached_tokens: 0,
            sent: 0,
            begun: false,
            stalled: false,
            fingerprint: String::new(),
            others: None,
            waited: Duration::ZERO,
        }
    }

    pub(super) fn take(&mut self, event: &Event) -> Result<(), Rejection> {
        match event {
            Event::Text { index, text, logprobs } => {
                let at = self.open(*index)?;
                self.texts[at].push_str(text);
                self.counted[at] += tokens_of(logprobs);
            }
            Event::ToolCall { index, delta } => {
                let at = self.open(*index)?;
                self.calls[at].add(delta)?;
                self.counted[at] += 1;
            }
            Event::Finished { index, finish, tokens } => {
                let at = self.place(*index)?;
                self.finishes[at] = Some(*finish);
                self.counted[at] = *tokens;
            }
            Event::Fingerprint(build) => self.fingerprint.clone_from(build),
            Event::Usage(usage) => {
                self.prompt_tokens = Some(usage.prompt_tokens);
                self.cached_tokens = usage.cached_tokens;
                if self.finishes.iter().any(Option::is_none) {
                    return Err(malformed("answer_cut_off", "the model stopped in the middle of its answer"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn embed(&mut self, embedded: Result<Embedded, ModelError>) -> End {
        match embedded {
            Ok(embedded) => {
                self.prompt_tokens = Some(embedded.prompt_tokens);
                self.vectors = Some(Arc::new(embedded));
                End::Completed
            }
            Err(error) => End::Failed(error.into()),
        }
    }

    /// The place of a draw that has not ended.
    fn open(&self, index: u32) -> Result<usize, Rejection> {
        let place = self.place(index)?;
        if self.finishes[place].is_some() {
            return Err(malformed("answer_malformed", "the model went on after its answer had ended"));
        }
        Ok(place)
    }

    fn place(&self, index: u32) -> Result<usize, Rejection> {
        let place = index as usize;
        let known = place < self.texts.len();
        known
            .then_some(place)
            .ok_or_else(|| malformed("answer_malformed", "the model gave more answers than asked for"))
    }

    pub(super) fn all_ended(&self) -> bool {
        self.finishes.iter().all(Option::is_some)
    }

    pub(super) fn usage(&self, twins: &TwinPieces) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens.unwrap_or_default(),
            cached_tokens: self.cached_tokens,
            completion_tokens: self.counted.iter().sum(),
            twin_tokens: twins.tokens,
        }
    }

    /// Hands `piece` to the client; false where it has left, or reads so slowly that it might as well have.
    pub(super) async fn offer(&mut self, pieces: &Pieces, piece: Piece, deadline: Instant) -> bool {
        let waiting = match pieces.try_send(Ok(piece)) {
            Ok(()) => return true,
            Err(NotTaken::Gone) => return false,
            Err(NotTaken::Full(waiting)) => waiting,
        };
        self.stalled = true;
        let offered = Instant::now();
        let sent = tokio::time::timeout_at(deadline, pieces.send(waiting)).await;
        self.waited += offered.elapsed();
        matches!(sent, Ok(Ok(())))
    }

    /// Ends the other draws where they are.
    pub(super) fn give_up_others(&mut self) -> TwinPieces {
        self.others.take().map(Drawing::given_up).unwrap_or_default()
    }

    /// The draws, as they were drawn. One that did not end was cut off at some length.
    pub(super) fn answers(&self) -> Vec<Answer> {
        let draws = self.texts.iter().zip(&self.calls).zip(&self.finishes);
        let answer = |((text, calls), finish): ((&String, &Calls), &Option<Finish>)| Answer {
            text: text.clone(),
            finish: finish.unwrap_or(Finish::Length),
            tool_calls: calls.as_slice().to_vec(),
        };
        draws.map(answer).collect()
    }
}

pub(super) fn tokens_of(logprobs: &[TokenLogprob]) -> u64 {
    (logprobs.len() as u64).max(1)
}
