//! One exchange: draw, commit, settle, and only then let the end of the answer go.

use std::time::Duration;

use anbiq_domain::{
    Answer, Client, Draws, Entry, Exchange, Finish, Keeping, KeyId, Money, Outcome, RequestFacts, SealedTexts, Sketch,
    TextPolicy, Texts, Timestamp, Twinning, Usage,
};
use anbiq_journal::TextsError;
use anbiq_ledger::{Cost, LedgerError, ReservationId};
use anbiq_model::{Calls, Event, Fault, Generation, ModelError, Request, TokenLogprob, ToolCallDelta};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::admission::{Admitted, Served};
use crate::gateway::{Place, Shared};
use crate::metrics::Ended;
use crate::rate::Taken;
use crate::rejection::Rejection;

/// A piece of what is served. `choice` counts the answers that the customer sees, not the draws.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// More text.
    Text { choice: u32, text: String, logprobs: Vec<TokenLogprob> },
    /// More of a tool's call.
    ToolCall { choice: u32, delta: ToolCallDelta },
    /// An answer ended: only after the exchange is durable.
    Finished { choice: u32, finish: Finish },
    /// All is said: only after the exchange is durable.
    Done(anbiq_openai::Usage),
}

/// Where pieces go; whoever reads them is the client.
pub(crate) type Pieces = mpsc::Sender<Result<Piece, Rejection>>;

/// Pieces that wait for a slow client before the model is made to wait.
pub(crate) const PIECES: usize = 32;

/// How long an answer waits for its settlement; after that it goes out and the settlement goes on.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Tries to settle, with a longer pause after each.
const SETTLE_TRIES: u32 = 6;

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Conductor {
    pub(crate) gateway: Shared,
    pub(crate) admitted: Admitted,
    pub(crate) request: Request,
    pub(crate) facts: RequestFacts,
    pub(crate) account: anbiq_domain::AccountId,
    pub(crate) key: KeyId,
    pub(crate) client: Client,
    pub(crate) sketch: Sketch,
    pub(crate) policy: TextPolicy,
    pub(crate) at: Timestamp,
    pub(crate) started: Instant,
    /// How long the gateway has waited for the client so far.
    pub(crate) waited: Duration,
    /// Given back when the exchange is settled, whoever has left by then.
    pub(crate) place: Option<Place>,
}

/// How drawing ended.
enum End {
    Completed,
    Cancelled,
    Failed(Rejection),
}

/// What was drawn.
struct Drawn {
    texts: Vec<String>,
    calls: Vec<Calls>,
    /// The length in tokens as far as it is known: by log-probabilities, or else by events.
    counted: Vec<u64>,
    finishes: Vec<Option<Finish>>,
    prompt_tokens: Option<u64>,
    cached_tokens: u64,
    /// Tokens that went out to the client in a stream.
    sent: u64,
    /// Has any piece of what is served come?
    begun: bool,
    /// How long the model and the client were waited for.
    waited: Duration,
}

impl Conductor {
    /// Leads the exchange to its end. It runs on as a task of its own when the client leaves.
    pub(crate) async fn run(self, pieces: Pieces) {
        let mut drawn = Drawn { waited: self.waited, ..Drawn::new(self.request.n) };
        let end = self.draw(&mut drawn, &pieces).await;
        match end {
            End::Completed => self.complete(&drawn, &pieces).await,
            End::Cancelled => self.cancel(&drawn).await,
            End::Failed(rejection) => self.fail(&drawn, rejection, &pieces).await,
        }
    }

    async fn draw(&self, drawn: &mut Drawn, pieces: &Pieces) -> End {
        let deadline = self.started + Duration::from_millis(self.gateway.config.request_timeout_ms);
        let mut abort = self.gateway.abort.subscribe();
        let asked = Instant::now();
        let generation = tokio::select! {
            generation = self.admitted.model.generate(self.request.clone()) => generation,
            () = pieces.closed() => return End::Cancelled,
            () = tokio::time::sleep_until(deadline) => return End::Failed(Rejection::timeout()),
            () = aborted(&mut abort) => return End::Failed(shutting_down()),
        };
        drawn.waited += asked.elapsed();
        match generation {
            // Dropping the generation, on whichever way out, cancels the model's work.
            Ok(mut generation) => self.follow(&mut generation, drawn, pieces, deadline, &mut abort).await,
            Err(error) => End::Failed(error.into()),
        }
    }

    async fn follow(
        &self,
        generation: &mut Generation,
        drawn: &mut Drawn,
        pieces: &Pieces,
        deadline: Instant,
        abort: &mut watch::Receiver<bool>,
    ) -> End {
        let too_late = tokio::time::sleep_until(deadline);
        tokio::pin!(too_late);
        let aborted = aborted(abort);
        tokio::pin!(aborted);
        loop {
            // A client that leaves when it has all its text does not spare itself the twin.
            let may_leave = !drawn.all_ended(self.admitted.served);
            let asked = Instant::now();
            if asked >= deadline {
                return End::Failed(Rejection::timeout());
            }
            let event = tokio::select! {
                // What is there already needs no look at who else waits.
                biased;
                event = generation.recv() => event,
                () = pieces.closed(), if may_leave => return End::Cancelled,
                () = &mut too_late => return End::Failed(Rejection::timeout()),
                () = &mut aborted => return End::Failed(shutting_down()),
            };
            drawn.waited += asked.elapsed();
            let event = match event {
                Some(Ok(event)) => event,
                Some(Err(error)) => return End::Failed(error.into()),
                None => {
                    return End::Failed(malformed("answer_cut_off", "the model stopped in the middle of its answer"));
                }
            };
            match drawn.take(&event) {
                Ok(()) => {}
                Err(error) => return End::Failed(error),
            }
            let served = self.admitted.served;
            let (tokens, piece) = match event {
                Event::Text { index, text, logprobs } => {
                    let Some(choice) = served.choice(index) else { continue };
                    (tokens_of(&logprobs), Piece::Text { choice, text, logprobs })
                }
                Event::ToolCall { index, delta } => {
                    let Some(choice) = served.choice(index) else { continue };
                    (1, Piece::ToolCall { choice, delta })
                }
                Event::Finished { .. } => continue,
                Event::Usage(_) => return End::Completed,
            };
            if !std::mem::replace(&mut drawn.begun, true) {
                let after = self.started.elapsed();
                self.gateway.metrics.first_token(self.facts.route, self.admitted.model.name(), after);
            }
            let offered = Instant::now();
            let sent = tokio::time::timeout_at(deadline, pieces.send(Ok(piece))).await;
            drawn.waited += offered.elapsed();
            match sent {
                Ok(Ok(())) => drawn.sent += tokens,
                // It has left, or reads so slowly that it might as well have.
                Ok(Err(_)) | Err(_) => return End::Cancelled,
            }
        }
    }

    /// The answer is drawn: record it, charge it, and let its end go.
    async fn complete(mut self, drawn: &Drawn, pieces: &Pieces) {
        let usage = drawn.usage(self.admitted.served);
        let cost = self.cost(usage);
        let entry = self.entry(drawn, usage, cost, Outcome::Completed);
        if let Err(error) = self.gateway.record(&entry).await {
            self.release().await;
            self.measure(drawn, usage, &Outcome::Failed { code: error.code().to_owned() });
            // Nobody may be left to be told.
            let _ = pieces.send(Err(error.into())).await;
            return;
        }
        let served = self.admitted.served;
        let patience = Duration::from_millis(self.gateway.config.request_timeout_ms);
        self.settle(cost, usage).await;
        self.measure(drawn, usage, &Outcome::Completed);
        let ending = async {
            for index in served.indices() {
                let finish = drawn.finishes.get(index as usize).copied().flatten().unwrap_or(Finish::Stop);
                let choice = served.choice(index).unwrap_or_default();
                pieces.send(Ok(Piece::Finished { choice, finish })).await?;
            }
            let cached = usage.cached_tokens;
            let usage = anbiq_openai::Usage::new(usage.prompt_tokens, usage.completion_tokens).with_cached(cached);
            pieces.send(Ok(Piece::Done(usage))).await
        };
        // Whether the client reads the end of its answer is its own affair.
        let _ = tokio::time::timeout(patience, ending).await;
    }

    /// The client has left: record what was drawn, charge what was served. What cannot be recorded is not charged.
    async fn cancel(mut self, drawn: &Drawn) {
        // Without a stream nothing is served before all is.
        let sent = if self.facts.stream { drawn.sent } else { 0 };
        let served = drawn.usage(self.admitted.served);
        let usage = Usage {
            completion_tokens: served.completion_tokens.min(sent),
            prompt_tokens: drawn.prompt_tokens.unwrap_or_else(|| self.guess_prompt_tokens()),
            ..served
        };
        let cost = if sent == 0 { Money::ZERO } else { self.cost(usage) };
        let entry = self.entry(drawn, usage, cost, Outcome::Cancelled);
        match self.gateway.record(&entry).await {
            Ok(_) => {
                self.settle(cost, usage).await;
                self.measure(drawn, usage, &Outcome::Cancelled);
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "a cancelled exchange could not be journalled");
                self.release().await;
            }
        }
    }

    /// The model failed: record it, charge nothing, say so.
    async fn fail(mut self, drawn: &Drawn, rejection: Rejection, pieces: &Pieces) {
        let usage = drawn.usage(self.admitted.served);
        let outcome = Outcome::Failed { code: rejection.code.to_owned() };
        let entry = self.entry(drawn, usage, Money::ZERO, outcome.clone());
        if let Err(error) = self.gateway.record(&entry).await {
            tracing::error!(code = error.code(), %error, "a failed exchange could not be journalled");
        }
        self.release().await;
        self.measure(drawn, usage, &outcome);
        let _ = pieces.send(Err(rejection)).await;
    }

    /// What is charged: never more than was reserved, so that a budget holds whatever a model counts.
    fn cost(&self, usage: Usage) -> Money {
        let reserved = self.admitted.reserved.money;
        let cost = self.admitted.price.cost_of(usage).money;
        if cost > reserved {
            tracing::warn!(exchange = %self.admitted.id, %cost, %reserved, "an exchange cost more than was reserved");
        }
        cost.min(reserved)
    }

    fn entry(&self, drawn: &Drawn, usage: Usage, cost: Money, outcome: Outcome) -> Entry {
        let Admitted { id, served, terms, price, .. } = &self.admitted;
        let answers = drawn.answers();
        let prompt = &self.request.prompt;
        let mut draws = Draws::commit(&self.gateway.coin, *id, prompt, &answers);
        if let Served::One { index, .. } = served {
            draws.twinning = Some(Twinning { epoch: self.gateway.epoch, served: *index });
        }
        let (texts, sealed) = match self.policy.keeps(draws.twinning.is_some()) {
            Keeping::Nothing => (None, None),
            Keeping::Plain => (Some(Texts { prompt: prompt.clone(), answers }), None),
            Keeping::Sealed => (None, self.seal(&Texts { prompt: prompt.clone(), answers })),
        };
        Entry::Exchange(Box::new(Exchange {
            id: *id,
            at: self.at,
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            account: self.account.clone(),
            key: self.key.clone(),
            model: self.admitted.model.name().to_owned(),
            terms: terms.clone(),
            grant: price.grant.clone(),
            request: self.facts.clone(),
            client: self.client,
            sketch: self.sketch.clone(),
            usage,
            cost,
            outcome,
            draws,
            texts,
            sealed,
        }))
    }

    /// The texts under the account's key. Where that cannot be had they are not kept: never in the open, and the
    /// commitments stay.
    fn seal(&self, texts: &Texts) -> Option<SealedTexts> {
        let id = self.admitted.id;
        let keys = self.gateway.texts.as_ref().ok_or(TextsError::Absent);
        let sealed = keys.and_then(|keys| keys.seal(&self.account, id, texts));
        let told =
            |error: &TextsError| tracing::error!(exchange = %id, code = error.code(), %error, "texts were not kept");
        sealed.inspect_err(told).ok()
    }

    /// The length of the prompt of an exchange that was cancelled before the model told it: English has about four
    /// bytes a token, and a guess that is too low is the provider's loss.
    fn guess_prompt_tokens(&self) -> u64 {
        let bytes = match &self.request.prompt {
            anbiq_domain::Prompt::Chat(messages) => messages.iter().map(anbiq_domain::Message::bytes).sum::<usize>(),
            anbiq_domain::Prompt::Text(text) => text.len(),
        };
        bytes.div_ceil(4) as u64
    }

    /// Charges the account. Before the last byte goes out, so that who has its answer also has the rest of its
    /// reservation back; but an answer that is recorded does not wait long for a slow ledger.
    async fn settle(&mut self, cost: Money, usage: Usage) {
        let (gateway, place) = (self.gateway.clone(), self.place.take());
        let (reservation, id, most) = (self.admitted.reservation.clone(), self.admitted.id, self.admitted.reserved);
        self.untake(usage.total());
        let actual = Cost {
            money: cost,
            tokens: usage.total().min(most.tokens),
            completion_tokens: usage.completion_tokens.min(most.completion_tokens),
        };
        let settling = tokio::spawn(async move {
            if let Err(error) = close(&gateway, &reservation, actual).await {
                // The journal has the cost; the reservation will expire.
                tracing::error!(exchange = %id, %cost, code = error.code(), %error, "an exchange could not be charged");
            }
            drop(place);
        });
        let _ = tokio::time::timeout(SETTLE_PATIENCE, settling).await;
    }

    fn measure(&self, drawn: &Drawn, usage: Usage, outcome: &Outcome) {
        self.gateway.metrics.ended(&Ended {
            route: self.facts.route,
            model: self.admitted.model.name(),
            outcome,
            usage,
            twins: match self.admitted.served {
                Served::All(_) => 0,
                Served::One { draws, .. } => u32::from(draws) - 1,
            },
            took: self.started.elapsed(),
            waited: drawn.waited,
        });
    }

    /// Gives the tokens back that it took off the account's rate and did not use; what goes out from here on says so.
    fn untake(&mut self, used: u64) {
        std::mem::replace(&mut self.admitted.taken, Taken::nothing()).used(used);
    }

    async fn release(&mut self) {
        self.untake(0);
        if let Err(error) = close(&self.gateway, &self.admitted.reservation, Cost::default()).await {
            tracing::error!(code = error.code(), %error, "a reservation could not be released; it will expire");
        }
    }
}

impl Drawn {
    fn new(n: u32) -> Self {
        let n = n as usize;
        Self {
            texts: vec![String::new(); n],
            calls: vec![Calls::default(); n],
            counted: vec![0; n],
            finishes: vec![None; n],
            prompt_tokens: None,
            cached_tokens: 0,
            sent: 0,
            begun: false,
            waited: Duration::ZERO,
        }
    }

    fn take(&mut self, event: &Event) -> Result<(), Rejection> {
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

    fn all_ended(&self, served: Served) -> bool {
        served.indices().all(|index| self.finishes.get(index as usize).is_some_and(Option::is_some))
    }

    fn usage(&self, served: Served) -> Usage {
        let total: u64 = self.counted.iter().sum();
        let served = served.indices().filter_map(|index| self.counted.get(index as usize)).sum();
        Usage {
            prompt_tokens: self.prompt_tokens.unwrap_or_default(),
            cached_tokens: self.cached_tokens,
            completion_tokens: served,
            twin_tokens: total - served,
        }
    }

    /// The draws, as they were drawn. One that did not end was cut off at some length.
    fn answers(&self) -> Vec<Answer> {
        let draws = self.texts.iter().zip(&self.calls).zip(&self.finishes);
        let answer = |((text, calls), finish): ((&String, &Calls), &Option<Finish>)| Answer {
            text: text.clone(),
            finish: finish.unwrap_or(Finish::Length),
            tool_calls: calls.as_slice().to_vec(),
        };
        draws.map(answer).collect()
    }
}

fn tokens_of(logprobs: &[TokenLogprob]) -> u64 {
    (logprobs.len() as u64).max(1)
}

fn malformed(code: &'static str, message: &str) -> Rejection {
    ModelError::new(Fault::Model, code, message).into()
}

fn shutting_down() -> Rejection {
    Rejection::unavailable("shutting_down", "the gateway is stopping")
}

/// Ends when the gateway tells requests under way to end.
async fn aborted(abort: &mut watch::Receiver<bool>) {
    if abort.wait_for(|abort| *abort).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Settles a reservation, or releases it where it cost nothing; tries again while that is of use.
async fn close(gateway: &Shared, reservation: &ReservationId, actual: Cost) -> Result<(), LedgerError> {
    let mut pause = Duration::from_millis(50);
    let mut tries = 1;
    loop {
        match gateway.ledger.settle(reservation, actual).await {
            Err(error) if error.retryable() && tries < SETTLE_TRIES => tokio::time::sleep(pause).await,
            done => return done,
        }
        pause *= 3;
        tries += 1;
    }
}
