//! One exchange: draw, commit, settle, and only then let the end of the answer go.

mod drawn;
mod entry;
mod others;
mod pipe;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anbiq_domain::{Client, Finish, KeyId, Money, Outcome, RequestFacts, Sketch, TextPolicy, Timestamp, Usage};
use anbiq_journal::Position;
use anbiq_ledger::{Booking, Cost};
use anbiq_model::{EmbedRequest, Embedded, Event, Fault, Generation, ModelError, Request, TokenLogprob, ToolCallDelta};
use futures::future::maybe_done;
use tokio::sync::watch;
use tokio::time::Instant;

use self::drawn::{Drawn, tokens_of};
pub(crate) use self::pipe::{Pieces, Received, Said, pipe};
use crate::admission::Admitted;
use crate::charges::{self, Charge};
use crate::gateway::{Place, Shared};
use crate::metrics::Ended;
use crate::rate::Taken;
use crate::rejection::Rejection;
use crate::telemetry;
use crate::twins::{self, Lot, Together, TwinPieces};

/// A piece of what is served.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// More text.
    Text { choice: u32, text: String, logprobs: Vec<TokenLogprob> },
    /// More of a tool's call.
    ToolCall { choice: u32, delta: ToolCallDelta },
    /// Vectors, all at once: only after the exchange is durable.
    Vectors(Arc<Embedded>),
    /// An answer ended: only after the exchange is durable.
    Finished { choice: u32, finish: Finish },
    /// All is said: only after the exchange is durable.
    Done(anbiq_openai::Usage),
}

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Conductor {
    pub(crate) gateway: Shared,
    pub(crate) admitted: Admitted,
    pub(crate) request: Request,
    /// What is asked for where that is vectors.
    pub(crate) embedding: Option<EmbedRequest>,
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
    /// Given back when the exchange is recorded and its charge on its way, whoever has left by then.
    pub(crate) place: Option<Place>,
}

/// How drawing ended.
enum End {
    Completed,
    Cancelled,
    Failed(Rejection),
}

impl Conductor {
    /// Leads the exchange to its end. It runs on as a task of its own when the client leaves.
    pub(crate) async fn run(self, pieces: Pieces) {
        let mut drawn = Drawn { waited: self.waited, ..Drawn::new(self.request.n) };
        let end = self.draw(&mut drawn, &pieces).await;
        // On the heap, or every open stream would keep the room (4 kB) that its end will need.
        match end {
            End::Completed => Box::pin(self.complete(drawn, &pieces)).await,
            End::Cancelled => Box::pin(self.cancel(drawn)).await,
            End::Failed(rejection) => Box::pin(self.fail(drawn, rejection, &pieces)).await,
        }
    }

    async fn draw(&self, drawn: &mut Drawn, pieces: &Pieces) -> End {
        let deadline = self.deadline();
        let mut abort = self.gateway.abort.subscribe();
        let asked = Instant::now();
        if let Some(request) = &self.embedding {
            let embedded = self.admitted.model.embed(request);
            let embedded = match unless_over(embedded, pieces, deadline, &mut abort).await {
                Ok(embedded) => embedded,
                Err(end) => return end,
            };
            drawn.waited += asked.elapsed();
            return drawn.embed(embedded);
        }
        let generation = match unless_over(self.begin(drawn, deadline), pieces, deadline, &mut abort).await {
            Ok(generation) => generation,
            Err(end) => return end,
        };
        drawn.waited += asked.elapsed();
        match generation {
            // Dropping the generation, on whichever way out, cancels the model's work.
            Ok(mut generation) => self.follow(&mut generation, drawn, pieces, deadline, &mut abort).await,
            Err(error) => End::Failed(error.into()),
        }
    }

    /// Begins what is served, and the other draws beside it.
    async fn begin(&self, drawn: &mut Drawn, deadline: Instant) -> Result<Generation, ModelError> {
        let model = &self.admitted.model;
        let Lot::Together(Together { index, draws, .. }) = self.admitted.lot else {
            return model.generate(self.request.clone()).await;
        };
        let (served, others) =
            twins::begin(model, &self.request, draws, Some(index), deadline, &self.gateway.abort).await?;
        drawn.others = Some(others);
        served.ok_or_else(|| {
            ModelError::new(Fault::Model, "answer_cut_off", "the model gave fewer answers than asked for")
        })
    }

    /// The time of the request, and of all its draws.
    fn deadline(&self) -> Instant {
        self.started + Duration::from_millis(self.gateway.config.request_timeout_ms)
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
            // A client that leaves when it has all its text does not spare itself the end.
            let may_leave = !drawn.all_ended();
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
            let (tokens, piece) = match event {
                Event::Text { index, text, logprobs } => {
                    (tokens_of(&logprobs), Piece::Text { choice: index, text, logprobs })
                }
                Event::ToolCall { index, delta } => (1, Piece::ToolCall { choice: index, delta }),
                Event::Finished { .. } | Event::Fingerprint(_) => continue,
                Event::Usage(_) => return End::Completed,
            };
            if !std::mem::replace(&mut drawn.begun, true) {
                let after = self.started.elapsed();
                self.gateway.metrics.first_token(self.facts.route, self.admitted.model.name(), after);
            }
            if !drawn.offer(pieces, piece, deadline).await {
                return End::Cancelled;
            }
            drawn.sent += tokens;
        }
    }

    /// The answer is drawn: record it, charge it, and let its end go. Draws that are slower than what is served are led to
    /// their end after that.
    async fn complete(mut self, mut drawn: Drawn, pieces: &Pieces) {
        let twins = match &mut drawn.others {
            Some(others) => others.ended().await,
            None => TwinPieces::default(),
        };
        let usage = drawn.usage(&twins);
        let cost = self.cost(usage);
        let entry = self.entry(&drawn, &twins, usage, cost, Outcome::Completed);
        let charge = self.gateway.uncharged.begin();
        let position = match self.gateway.record(&entry).await {
            Ok(position) => position,
            Err(error) => {
                let released = self.release().await;
                self.measure(&drawn, usage, &Outcome::Failed { code: error.code().to_owned() });
                // Nobody may be left to be told.
                let _ = pieces.send(Err(error.into())).await;
                return released.await;
            }
        };
        let patience = Duration::from_millis(self.gateway.config.request_timeout_ms);
        let settled = self.settle(cost, usage, position, charge).await;
        self.measure(&drawn, usage, &Outcome::Completed);
        self.see_to_twins(&mut drawn, &twins);
        let ending = async {
            if let Some(vectors) = &drawn.vectors {
                pieces.send(Ok(Piece::Vectors(Arc::clone(vectors)))).await?;
            }
            for (choice, finish) in (0..).zip(&drawn.finishes) {
                pieces.send(Ok(Piece::Finished { choice, finish: finish.unwrap_or(Finish::Stop) })).await?;
            }
            let cached = usage.cached_tokens;
            let usage = anbiq_openai::Usage::new(usage.prompt_tokens, usage.completion_tokens).with_cached(cached);
            pieces.send(Ok(Piece::Done(usage))).await
        };
        // Whether the client reads the end of its answer is its own affair.
        let _ = tokio::time::timeout(patience, ending).await;
        settled.await;
    }

    /// The client has left: record what was drawn, charge what was served. What cannot be recorded is not charged.
    async fn cancel(mut self, mut drawn: Drawn) {
        // Without a stream nothing is served before all is.
        let sent = if self.facts.stream { drawn.sent } else { 0 };
        let twins = drawn.give_up_others();
        let served = drawn.usage(&twins);
        let usage = Usage {
            completion_tokens: served.completion_tokens.min(sent),
            prompt_tokens: drawn.prompt_tokens.unwrap_or_else(|| self.guess_prompt_tokens()),
            ..served
        };
        let cost = if sent == 0 { Money::ZERO } else { self.cost(usage) };
        let entry = self.entry(&drawn, &twins, usage, cost, Outcome::Cancelled);
        self.pay(&twins);
        let charge = self.gateway.uncharged.begin();
        match self.gateway.record(&entry).await {
            Ok(position) => {
                let settled = self.settle(cost, usage, position, charge).await;
                self.measure(&drawn, usage, &Outcome::Cancelled);
                settled.await;
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "a cancelled exchange could not be journalled");
                self.release().await.await;
            }
        }
    }

    /// The model failed: record it, charge nothing, say so.
    async fn fail(mut self, mut drawn: Drawn, rejection: Rejection, pieces: &Pieces) {
        let twins = drawn.give_up_others();
        let usage = drawn.usage(&twins);
        let outcome = Outcome::Failed { code: rejection.code.to_owned() };
        let entry = self.entry(&drawn, &twins, usage, Money::ZERO, outcome.clone());
        self.pay(&twins);
        if let Err(error) = self.gateway.record(&entry).await {
            tracing::error!(code = error.code(), %error, "a failed exchange could not be journalled");
        }
        let released = self.release().await;
        self.measure(&drawn, usage, &outcome);
        let _ = pieces.send(Err(rejection)).await;
        released.await;
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

    /// Begins to charge the account, before the last byte goes out: whoever has its answer also finds the rest of its
    /// reservation let go. That it is done is waited for after.
    async fn settle(&mut self, cost: Money, usage: Usage, position: Position, charge: Charge) -> Begun {
        let gateway = self.gateway.clone();
        let (id, most) = (self.admitted.id, self.admitted.reserved);
        self.untake(usage.total());
        let actual = Cost {
            money: cost,
            tokens: usage.total().min(most.tokens),
            completion_tokens: usage.completion_tokens.min(most.completion_tokens),
        };
        let booking = Booking { journal: gateway.journal.id().clone(), entry: position.index };
        let begun = begin(async move {
            charges::settle(&gateway, id, actual, booking).await;
            drop(charge);
        })
        .await;
        self.place = None;
        begun
    }

    fn measure(&self, drawn: &Drawn, usage: Usage, outcome: &Outcome) {
        let (account, model, took) = (&self.account, self.admitted.model.name(), self.started.elapsed());
        let id = self.admitted.id;
        if let Some(telemetry) = &self.gateway.telemetry {
            telemetry.ended(&telemetry::Told {
                id,
                account,
                model,
                facts: &self.facts,
                usage,
                outcome,
                at: self.at,
                took,
            });
        }
        // The request and the exchange that it became go by one id.
        tracing::info!(
            request = %id, exchange = %id, account = account.as_str(), model, outcome = outcome.as_str(),
            code = outcome.code(),
            input_tokens = usage.prompt_tokens, output_tokens = usage.completion_tokens,
            duration_ms = took.as_millis() as u64, "an exchange ended"
        );
        self.gateway.metrics.ended(&Ended {
            route: self.facts.route,
            model,
            outcome,
            usage,
            took,
            waited: drawn.waited,
        });
    }

    /// Gives the tokens back that it took off the account's rate and did not use; what goes out from here on says so.
    fn untake(&mut self, used: u64) {
        std::mem::replace(&mut self.admitted.taken, Taken::nothing()).used(used);
    }

    /// Begins to let go of what is held.
    async fn release(&mut self) -> Begun {
        self.untake(0);
        let (gateway, id) = (self.gateway.clone(), self.admitted.id);
        // Nothing is charged, and a gateway that stops waits for it all the same.
        let under_way = gateway.uncharged.begin();
        let begun = begin(async move {
            if let Err(error) = charges::release(&gateway, id).await {
                tracing::error!(code = error.code(), %error, "a reservation could not be released; it will expire");
            }
            drop(under_way);
        })
        .await;
        self.place = None;
        begun
    }
}

/// What was polled once, and is to be awaited.
type Begun = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls `doing` once.
async fn begin(doing: impl Future<Output = ()> + Send + 'static) -> Begun {
    let mut doing = Box::pin(maybe_done(doing));
    poll_fn(|context| Poll::Ready(doing.as_mut().poll(context).is_ready())).await;
    doing
}

/// What `doing` gives, unless the exchange is over before.
async fn unless_over<T>(
    doing: impl Future<Output = T>,
    pieces: &Pieces,
    deadline: Instant,
    abort: &mut watch::Receiver<bool>,
) -> Result<T, End> {
    tokio::select! {
        done = doing => Ok(done),
        () = pieces.closed() => Err(End::Cancelled),
        () = tokio::time::sleep_until(deadline) => Err(End::Failed(Rejection::timeout())),
        () = aborted(abort) => Err(End::Failed(shutting_down())),
    }
}

fn malformed(code: &'static str, message: &str) -> Rejection {
    ModelError::new(Fault::Model, code, message).into()
}

fn shutting_down() -> Rejection {
    Rejection::unavailable("shutting_down", "the gateway is stopping")
}

/// Ends when the gateway tells requests under way to end.
pub(crate) async fn aborted(abort: &mut watch::Receiver<bool>) {
    if abort.wait_for(|abort| *abort).await.is_err() {
        std::future::pending::<()>().await;
    }
}
