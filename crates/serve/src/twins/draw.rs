use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anbiq_domain::{Answer, Finish, Money, PriceClass, PriceList, Usage};
use anbiq_model::{Calls, Event, Fault, Generation, Model, ModelError, Request, detach, split};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::nth;
use crate::metrics::Drawn;

/// A draw that ended in good order and that nobody is served.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Twin {
    pub(crate) index: u8,
    pub(crate) answer: Answer,
    pub(crate) tokens: u64,
    pub(crate) prompt_tokens: u64,
    /// Empty where the server does not say it.
    pub(crate) fingerprint: String,
}

impl Twin {
    /// What it costs the provider: its prompt and its text at the ordinary price.
    fn cost(&self, list: &PriceList) -> Money {
        let usage = Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.tokens, ..Usage::default() };
        list.cost(usage, PriceClass::Standard)
    }
}

/// The draws of an exchange that are not served, each in a task of its own. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Drawing {
    tasks: JoinSet<Result<Twin, ModelError>>,
    /// Tokens of each so far: what is paid for even where nothing comes of it.
    tokens: Vec<Arc<AtomicU64>>,
    /// Are they one piece of work with what is served?
    together: bool,
    /// Those that ended.
    pieces: TwinPieces,
}

/// How long after the end of what is served other draws of the same piece of work are waited for.
const SAME_MOMENT: Duration = Duration::from_millis(50);

/// What a [`Drawing`] has given by some moment.
#[derive(Debug, Default)]
pub(crate) struct TwinPieces {
    /// By index.
    pub(crate) ended: Vec<Twin>,
    /// How many failed.
    pub(crate) failed: u32,
    /// Tokens of those that ended, or of those that were given up before.
    pub(crate) tokens: u64,
    /// How many were given up before their end.
    given_up: u32,
}

/// Begins `draws` completions of `request`, all at once and each alike; gives the one of number `served`, and the others.
///
/// # Errors
/// The model does not begin, where it draws several completions as one piece of work. Otherwise each says itself what
/// befalls it.
pub(crate) async fn begin(
    model: &Arc<dyn Model>,
    request: &Request,
    draws: u8,
    served: Option<u8>,
    deadline: Instant,
    abort: &watch::Sender<bool>,
) -> Result<(Option<Generation>, Drawing), ModelError> {
    let together = draws > 1 && model.together();
    let generations = if together {
        split(model.generate(Request { n: draws.into(), ..request.clone() }).await?, draws.into())
    } else {
        let model = model.at_one_server().unwrap_or_else(|| Arc::clone(model));
        (0..draws).map(|index| detach(Arc::clone(&model), nth(request, index))).collect()
    };
    let mut drawing = Drawing { tasks: JoinSet::new(), tokens: Vec::new(), together, pieces: TwinPieces::default() };
    let mut own = None;
    for (index, generation) in (0..draws).zip(generations) {
        if Some(index) == served {
            own = Some(generation);
            continue;
        }
        let tokens = Arc::<AtomicU64>::default();
        drawing.tokens.push(Arc::clone(&tokens));
        drawing.tasks.spawn(lead(index, generation, deadline, abort.subscribe(), tokens));
    }
    Ok((own, drawing))
}

impl Drawing {
    /// What has ended by now; the others go on. Draws that are one piece of work end at the same moment, give or take the
    /// time that a task needs to notice.
    pub(crate) async fn ended(&mut self) -> TwinPieces {
        if self.together {
            let _ = tokio::time::timeout(SAME_MOMENT, self.gather()).await;
        }
        while let Some(ended) = self.tasks.try_join_next() {
            self.pieces.take(ended.map_err(|error| stopped(&error)).flatten());
        }
        std::mem::take(&mut self.pieces).sorted()
    }

    /// All that was not [`ended`](Self::ended) then, at its end. Each has a time of its own, so this ends.
    pub(crate) async fn rest(&mut self) -> TwinPieces {
        self.gather().await;
        std::mem::take(&mut self.pieces).sorted()
    }

    async fn gather(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.pieces.take(ended.map_err(|error| stopped(&error)).flatten());
        }
    }

    /// Is any still being drawn?
    pub(crate) fn goes_on(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Ends all where they are: of no use to anybody, but paid for.
    pub(crate) fn given_up(self) -> TwinPieces {
        let tokens = self.tokens.iter().map(|tokens| tokens.load(Ordering::Relaxed)).sum();
        TwinPieces { tokens, given_up: self.tokens.len() as u32, ..TwinPieces::default() }
    }
}

impl TwinPieces {
    /// So many that could not even begin.
    pub(crate) fn failed(failed: u32) -> Self {
        Self { failed, ..Self::default() }
    }

    /// What they cost the provider by `list`. The prompt of draws that were given up is not counted: its length is not known.
    pub(crate) fn cost(&self, list: &PriceList) -> Money {
        let partial = if self.given_up > 0 { self.tokens } else { 0 };
        let partial = Usage { completion_tokens: partial, ..Usage::default() };
        let ended: Money = self.ended.iter().map(|twin| twin.cost(list)).sum();
        ended + list.cost(partial, PriceClass::Standard)
    }

    /// The same for metrics.
    pub(crate) fn measured(&self, list: &PriceList) -> Drawn {
        Drawn { twins: self.ended.len() as u64, tokens: self.tokens, cost: self.cost(list) }
    }

    fn take(&mut self, ended: Result<Twin, ModelError>) {
        match ended {
            Ok(twin) => {
                self.tokens += twin.tokens;
                self.ended.push(twin);
            }
            Err(error) => {
                tracing::debug!(code = error.code, %error, "a draw that nobody is served failed");
                self.failed += 1;
            }
        }
    }

    fn sorted(mut self) -> Self {
        self.ended.sort_by_key(|twin| twin.index);
        self
    }
}

/// Leads one draw to its end.
async fn lead(
    index: u8,
    mut generation: Generation,
    deadline: Instant,
    mut abort: watch::Receiver<bool>,
    counted: Arc<AtomicU64>,
) -> Result<Twin, ModelError> {
    let mut answer = Answer::new(String::new(), Finish::Length);
    let mut calls = Calls::default();
    let mut fingerprint = String::new();
    let mut ended = false;
    loop {
        let event = tokio::select! {
            event = generation.recv() => event,
            () = tokio::time::sleep_until(deadline) => {
                return Err(ModelError::new(Fault::Model, "upstream_timeout", "the time of the request is over"));
            }
            () = crate::exchange::aborted(&mut abort) => {
                return Err(ModelError::new(Fault::Model, "shutting_down", "the gateway is stopping"));
            }
        };
        let event = event.unwrap_or_else(|| {
            Err(ModelError::new(Fault::Model, "answer_cut_off", "the model stopped in the middle of its answer"))
        })?;
        match event {
            Event::Text { text, logprobs, .. } => {
                answer.text.push_str(&text);
                counted.fetch_add((logprobs.len() as u64).max(1), Ordering::Relaxed);
            }
            Event::ToolCall { delta, .. } => {
                calls.add(&delta)?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Event::Finished { finish, tokens, .. } => {
                answer.finish = finish;
                counted.store(tokens, Ordering::Relaxed);
                ended = true;
            }
            Event::Fingerprint(build) => fingerprint = build,
            Event::Usage(Usage { prompt_tokens, .. }) if ended => {
                let tokens = counted.load(Ordering::Relaxed);
                answer.tool_calls = calls.into_list();
                return Ok(Twin { index, answer, tokens, prompt_tokens, fingerprint });
            }
            Event::Usage(_) => {
                return Err(ModelError::new(
                    Fault::Model,
                    "answer_cut_off",
                    "the model did not say how its answer ended",
                ));
            }
        }
    }
}

fn stopped(error: &tokio::task::JoinError) -> ModelError {
    ModelError::new(Fault::Model, "exchange_lost", error.to_string())
}
