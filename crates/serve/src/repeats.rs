//! A request that is sent again under its `Idempotency-Key` is answered once and paid once.
//!
//! The first request under a key is led to its end even where its client leaves, and its answer is kept; the same
//! request under the same key is given that answer again. Nothing is drawn, journalled or charged for it. What was
//! refused or failed was not charged, so its key is free again.
//!
//! Answers are kept in memory, for a time and up to a size. The journal has keyed hashes of the name and of all that the
//! request says: a gateway that starts reads of them there. An answer may be forgotten, by a restart or because there are too
//! many; its key then still refuses to pay twice. Only when so many keys came since that an old one was forgotten too, a
//! repeated key is a new request.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::mem::{size_of, size_of_val};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anbiq_domain::{AccountId, Digest, Exchange, Keyed, Named, Outcome, Timestamp};
use anbiq_model::{Alternative, TokenLogprob};
use tokio::sync::watch;

use crate::IdempotencyConfig;
use crate::answer::Heading;
use crate::exchange::{Piece, Pieces, Received, Said, pipe};
use crate::gateway::Shared;
use crate::rejection::Rejection;

/// The header in which a client names its request.
pub(crate) const KEY: &str = "idempotency-key";

/// Longest name, in bytes.
const LONGEST: usize = 255;

/// The requests that were named, and their answers.
#[derive(Debug)]
pub(crate) struct Repeats {
    config: IdempotencyConfig,
    memory: Mutex<Memory>,
}

/// What a named request is.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The first of its name.
    First(Claimed),
    /// One that was answered before.
    Repeated(Arc<Tape>),
}

/// A name that a request under way holds. Dropping it frees the name: nothing was charged.
pub(crate) struct Claimed {
    gateway: Shared,
    name: Name,
    request: Keyed,
    at: Timestamp,
    ended: bool,
}

/// An answer, as far as it has come.
#[derive(Debug)]
pub(crate) struct Tape {
    pub(crate) heading: Heading,
    pub(crate) stream: bool,
    /// The last one is [`Piece::Done`] or an error.
    pieces: Mutex<Vec<Said>>,
    length: watch::Sender<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    account: AccountId,
    name: Keyed,
}

#[derive(Debug, Default)]
struct Memory {
    requests: HashMap<Name, Remembered>,
    /// Those that ended, in the order of their end.
    ended: BTreeMap<u64, Name>,
    /// Those of them whose answers are kept.
    kept: BTreeSet<u64>,
    /// Of all answers that are kept.
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Remembered {
    request: Keyed,
    /// Absent while the request is under way.
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    until: Timestamp,
    /// Absent where it was too large to be kept, or given before this gateway started.
    answer: Option<(Arc<Tape>, usize)>,
}

impl Repeats {
    pub(crate) fn new(config: IdempotencyConfig) -> Self {
        Self { config, memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A holder does nothing that could panic half-way.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the name of a request that was made at `at` is free again.
    fn until(&self, at: Timestamp) -> Timestamp {
        at.plus_milliseconds(i64::try_from(self.config.ttl_ms).unwrap_or(i64::MAX))
    }

    /// Remembers that an exchange of an earlier gateway was answered, unless that was long before `now`. What failed was not
    /// charged, and its name is free.
    pub(crate) fn recall(&self, exchange: &Exchange, now: Timestamp) {
        let until = self.until(exchange.at);
        let Some(Named { name, request }) = exchange.request.named.filter(|_| until > now) else { return };
        if matches!(exchange.outcome, Outcome::Failed { .. }) {
            return;
        }
        let name = Name { account: exchange.account.clone(), name };
        let mut memory = self.memory();
        memory.requests.insert(name.clone(), Remembered { request, end: None });
        memory.end(&name, until, None);
        memory.shrink(&self.config);
    }
}

/// Reads a name from the header's value.
pub(crate) fn key(value: &http::HeaderValue) -> Result<String, Rejection> {
    let text = value.to_str().ok().filter(|text| (1..=LONGEST).contains(&text.len()));
    text.map(str::to_owned).ok_or_else(|| {
        let message = format!("`Idempotency-Key` is 1 to {LONGEST} visible characters");
        Rejection::invalid("invalid_value", Some("Idempotency-Key"), message)
    })
}

/// A request under `key`; `said` stands for all that it says.
pub(crate) fn named(gateway: &Shared, key: &str, said: &Digest) -> Named {
    let hash = |label, value| gateway.hasher.hash(label, value);
    Named { name: hash("idempotency-key", key.as_bytes()), request: hash("idempotent-request", said.as_bytes()) }
}

/// Finds out whether `account` has sent a request of this name before.
pub(crate) fn claim(gateway: &Shared, account: &AccountId, named: Named, at: Timestamp) -> Result<Claim, Rejection> {
    let Named { name, request } = named;
    let name = Name { account: account.clone(), name };
    let mut memory = gateway.repeats.memory();
    memory.forget_old(at);
    let Some(remembered) = memory.requests.get(&name) else {
        memory.requests.insert(name.clone(), Remembered { request, end: None });
        return Ok(Claim::First(Claimed { gateway: Arc::clone(gateway), name, request, at, ended: false }));
    };
    if remembered.request != request {
        return Err(Rejection::key_reused());
    }
    match &remembered.end {
        None => Err(Rejection::repeat_in_flight()),
        Some(End { answer: Some((tape, _)), .. }) => Ok(Claim::Repeated(Arc::clone(tape))),
        Some(End { answer: None, .. }) => Err(Rejection::answer_forgotten()),
    }
}

/// Keeps the answer that comes as `pieces`, whether or not somebody still reads it, and gives it on.
pub(crate) fn record(claimed: Claimed, heading: Heading, stream: bool, mut pieces: Received) -> Received {
    let tape = Arc::new(Tape { heading, stream, pieces: Mutex::default(), length: watch::Sender::new(0) });
    let played = play(Arc::clone(&tape));
    tokio::spawn(async move {
        let mut bytes = 0;
        loop {
            match pieces.recv().await {
                Some(Ok(Piece::Done(usage))) => {
                    // Who has seen the end may ask for it again at once.
                    claimed.end(Some((Arc::clone(&tape), bytes)));
                    return tape.push(Ok(Piece::Done(usage)));
                }
                Some(Ok(piece)) => {
                    bytes += size(&piece);
                    tape.push(Ok(piece));
                }
                Some(Err(rejection)) => {
                    drop(claimed);
                    return tape.push(Err(rejection));
                }
                // It may have been charged, so it is not tried again.
                None => {
                    claimed.end(None);
                    return tape.push(Err(Rejection::unavailable("exchange_lost", "the answer was lost")));
                }
            }
        }
    });
    played
}

/// Gives the pieces of an answer, from the first on, as fast as they are read.
pub(crate) fn play(tape: Arc<Tape>) -> Received {
    let (sender, receiver) = pipe();
    tokio::spawn(async move { tape.play(&sender).await });
    receiver
}

impl Claimed {
    /// What the journal keeps of it.
    pub(crate) fn named(&self) -> Named {
        Named { name: self.name.name, request: self.request }
    }

    /// The request was answered and charged.
    fn end(mut self, answer: Option<(Arc<Tape>, usize)>) {
        self.ended = true;
        let repeats = &self.gateway.repeats;
        let until = repeats.until(self.at);
        let mut memory = repeats.memory();
        memory.end(&self.name, until, answer);
        memory.shrink(&repeats.config);
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.ended {
            self.gateway.repeats.memory().requests.remove(&self.name);
        }
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claimed").field(&self.name).finish()
    }
}

impl Tape {
    fn push(&self, piece: Said) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.push(piece);
        self.length.send_replace(pieces.len());
    }

    fn piece(&self, index: usize) -> Option<Said> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }

    async fn play(&self, to: &Pieces) {
        let mut length = self.length.subscribe();
        let mut index = 0;
        // The sender lives as long as the tape, so that waiting does not fail.
        while length.wait_for(|length| *length > index).await.is_ok() {
            let Some(piece) = self.piece(index) else { return };
            let last = matches!(piece, Ok(Piece::Done(_)) | Err(_));
            if to.send(piece).await.is_err() || last {
                return;
            }
            index += 1;
        }
    }
}

impl Memory {
    fn end(&mut self, name: &Name, until: Timestamp, answer: Option<(Arc<Tape>, usize)>) {
        let Some(remembered) = self.requests.get_mut(name) else { return };
        let number = self.next;
        self.next += 1;
        if let Some((_, bytes)) = &answer {
            self.bytes += bytes;
            self.kept.insert(number);
        }
        remembered.end = Some(End { until, answer });
        self.ended.insert(number, name.clone());
    }

    /// Forgets what ended long enough ago.
    fn forget_old(&mut self, now: Timestamp) {
        while let Some((_, name)) = self.ended.first_key_value() {
            let end = self.requests.get(name).and_then(|remembered| remembered.end.as_ref());
            if end.is_some_and(|end| end.until > now) {
                return;
            }
            self.forget_first();
        }
    }

    /// Forgets the oldest answers, and then the oldest keys, until everything fits.
    fn shrink(&mut self, config: &IdempotencyConfig) {
        while self.bytes > config.bytes
            && let Some(number) = self.kept.first().copied()
        {
            self.forget_answer(number);
        }
        while self.ended.len() > config.keys {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(number) = self.ended.keys().next().copied() {
            self.forget_answer(number);
            if let Some(name) = self.ended.remove(&number) {
                self.requests.remove(&name);
            }
        }
    }

    fn forget_answer(&mut self, number: u64) {
        self.kept.remove(&number);
        let remembered = self.ended.get(&number).and_then(|name| self.requests.get_mut(name));
        if let Some((_, bytes)) = remembered.and_then(|one| one.end.as_mut()).and_then(|end| end.answer.take()) {
            self.bytes -= bytes;
        }
    }
}

/// Bytes that a piece takes in memory, about.
fn size(piece: &Piece) -> usize {
    let top = |one: &Alternative| size_of::<Alternative>() + one.token.len() + one.bytes.len();
    let token = |one: &TokenLogprob| {
        size_of::<TokenLogprob>() + one.token.len() + one.bytes.len() + one.top.iter().map(top).sum::<usize>()
    };
    size_of::<Piece>()
        + match piece {
            Piece::Text { text, logprobs, .. } => text.len() + logprobs.iter().map(token).sum::<usize>(),
            Piece::ToolCall { delta, .. } => {
                delta.arguments.len() + [&delta.id, &delta.name].into_iter().flatten().map(String::len).sum::<usize>()
            }
            Piece::Vectors(embedded) => embedded.vectors.iter().map(|vector| size_of_val(vector.as_slice())).sum(),
            Piece::Finished { .. } | Piece::Done(_) => 0,
        }
}
