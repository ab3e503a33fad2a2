//! One exchange: draw, commit, settle, and only then let the end of the answer go.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anbiq_domain::{
    Answer, Client, Draws, Entry, Exchange, Finish, Keeping, KeyId, Money, Outcome, RequestFacts, SealedTexts, Sketch,
    TextPolicy, Texts, Timestamp, TwinDraw, TwinMode, Twinning, Twins, Usage, commit_bytes,
};
use anbiq_journal::{Position, TextsError};
use anbiq_ledger::{Booking, Cost};
use anbiq_model::{
    Calls, EmbedRequest, Embedded, Event, Fault, Generation, ModelError, Request, TokenLogprob, ToolCallDelta,
};
use futures::future::maybe_done;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::admission::Admitted;
use crate::charges::{self, Charge};
use crate::gateway::{Place, Shared};
use crate::metrics::Ended;
use crate::rate::Taken;
use crate::rejection::Rejection;
use crate::telemetry;
use crate::twins::{self, Drawing, Job, Lot, Together, Twin, TwinPieces};

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

/// Where pieces go; whoever reads them is the client.
pub(crate) type Pieces = mpsc::Sender<Result<Piece, Rejection>>;

/// Pieces that wait for a slow client before the model is made to wait.
pub(crate) const PIECES: usize = 32;

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

/// What was drawn of what is served.
struct Drawn {
    texts: Vec<String>,
    calls: Vec<Calls>,
    vectors: Option<Arc<Embedded>>,
    /// The length in tokens as far as it is known: by log-probabilities, or else by events.
    counted: Vec<u64>,
    finishes: Vec<Option<Finish>>,
    prompt_tokens: Option<u64>,
    cached_tokens: u64,
    /// Tokens that went out to the client in a stream.
    sent: u64,
    /// Has any piece come?
    begun: bool,
    /// Did the model ever wait for the client?
    stalled: bool,
    /// Empty where the model does not say it.
    fingerprint: String,
    /// The draws that are not served.
    others: Option<Drawing>,
    /// How long the model and the client were waited for.
    waited: Duration,
}

/// What an entry says of all draws.
#[derive(Default)]
struct Told {
    answers: Vec<Answer>,
    open: Vec<u8>,
    fingerprints: Vec<String>,
    twinning: Option<Twinning>,
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

    /// The exchange is answered and recorded: its other draws are paid, waited for, or put off.
    fn see_to_twins(&mut self, drawn: &mut Drawn, ended: &TwinPieces) {
        match std::mem::replace(&mut self.admitted.lot, Lot::Alone) {
            Lot::Alone => {}
            Lot::Deferred { draws } => self.put_off(draws),
            Lot::Together(together) => {
                let spent = self.count(ended);
                for _ in 0..ended.failed {
                    self.gateway.metrics.twin_refused(TwinMode::Together, twins::reason::FAILED);
                }
                match drawn.others.take().filter(Drawing::goes_on) {
                    None => together.hold.spend(spent),
                    Some(others) => drop(tokio::spawn(self.late(drawn.stalled, together, others, spent))),
                }
            }
        }
    }

    /// Waits for the draws that are slower than what was served, and records them. What it needs of the exchange goes with
    /// it.
    fn late(
        &self,
        stalled: bool,
        together: Together,
        mut others: Drawing,
        spent: Money,
    ) -> impl Future<Output = ()> + Send + 'static {
        let gateway = Arc::clone(&self.gateway);
        let (exchange, account) = (self.admitted.id, self.account.clone());
        let (model, route) = (self.admitted.model.name().to_owned(), self.facts.route);
        let (list, keep) = (self.admitted.price.list, self.keeps_later());
        gateway.metrics.twins_late();
        async move {
            let Together { index, draws, hold, place } = together;
            let pieces = others.rest().await;
            let (cost, tokens) = (pieces.cost(&list), pieces.tokens);
            hold.spend(spent + cost);
            gateway.metrics.twins_drawn(TwinMode::Together, route, &model, &pieces.measured(&list));
            for _ in 0..pieces.failed {
                gateway.metrics.twin_refused(TwinMode::Together, twins::reason::FAILED);
            }
            if pieces.ended.is_empty() {
                return;
            }
            let commit =
                |twin: Twin| TwinDraw::commit(&gateway.coin, exchange, twin.index, twin.fingerprint, twin.answer, keep);
            let entry = Entry::TwinsDrawn(Box::new(Twins {
                exchange,
                at: gateway.clock.now(),
                account,
                model,
                total: draws,
                twinning: Twinning { epoch: gateway.epoch, served: index, stalled, cost, ..Twinning::default() },
                draws: pieces.ended.into_iter().map(commit).collect(),
                tokens,
            }));
            if let Err(error) = gateway.record(&entry).await {
                tracing::error!(%exchange, code = error.code(), %error, "slower draws could not be journalled");
            }
            drop(place);
        }
    }

    /// Lets the exchange wait for deferred twins.
    fn put_off(&self, draws: u8) {
        let mut request = Request { logprobs: None, ..self.request.clone() };
        request.sampling.seed = None;
        let job = Job {
            exchange: self.admitted.id,
            account: self.account.clone(),
            model: self.admitted.model.name().to_owned(),
            route: self.facts.route,
            request,
            draws,
            keep: self.keeps_later(),
            since: self.gateway.clock.now(),
            tries: 0,
        };
        if !self.gateway.deferral.push(job) {
            self.gateway.metrics.twin_refused(TwinMode::Deferred, twins::reason::QUEUE);
        }
    }

    /// Nobody was served in full, so the other draws are of no use; what they cost so far is paid.
    fn pay(&mut self, given_up: &TwinPieces) {
        if let Lot::Together(together) = std::mem::replace(&mut self.admitted.lot, Lot::Alone) {
            together.hold.spend(self.count(given_up));
        }
    }

    /// Counts draws that were not served; gives what they cost the provider.
    fn count(&self, twins: &TwinPieces) -> Money {
        let drawn = twins.measured(&self.admitted.price.list);
        let model = self.admitted.model.name();
        self.gateway.metrics.twins_drawn(TwinMode::Together, self.facts.route, model, &drawn);
        drawn.cost
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

    fn entry(&self, drawn: &Drawn, twins: &TwinPieces, usage: Usage, cost: Money, outcome: Outcome) -> Entry {
        let Admitted { id, terms, price, .. } = &self.admitted;
        let prompt = &self.request.prompt;
        let told = self.told(drawn, twins);
        let mut draws = Draws::commit(&self.gateway.coin, *id, prompt, &told.answers);
        if let Some(vectors) = &drawn.vectors {
            draws.texts.push(commit_bytes(&self.gateway.coin.salt(*id, 0), &vectors.bytes()));
        }
        draws.open = told.open;
        draws.fingerprints = told.fingerprints;
        draws.twinning = told.twinning;
        let answers = told.answers;
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

    /// Does the journal keep the texts of draws that are recorded after the answer? Only in the open: what is sealed is
    /// sealed with the exchange, so that of later draws an account under seal has the commitments alone.
    fn keeps_later(&self) -> bool {
        self.policy.keeps(true) == Keeping::Plain
    }

    /// All draws as they are known now, in the order of their index.
    fn told(&self, drawn: &Drawn, twins: &TwinPieces) -> Told {
        let mut told = Told { answers: drawn.answers(), ..Told::default() };
        let build = |told: &mut Told, fingerprints: Vec<String>| {
            // Nothing is said where no server says anything.
            told.fingerprints = if fingerprints.iter().all(String::is_empty) { Vec::new() } else { fingerprints };
        };
        let (epoch, stalled) = (self.gateway.epoch, drawn.stalled);
        match &self.admitted.lot {
            Lot::Alone => {}
            Lot::Deferred { .. } => {
                build(&mut told, vec![drawn.fingerprint.clone()]);
                told.twinning = Some(Twinning { epoch, stalled, mode: TwinMode::Deferred, ..Twinning::default() });
            }
            Lot::Together(Together { index, draws, .. }) => {
                let served = usize::from(*index);
                let mut all = vec![Answer::new(String::new(), Finish::Length); usize::from(*draws)];
                let mut fingerprints = vec![String::new(); usize::from(*draws)];
                let mut ended = vec![false; usize::from(*draws)];
                if let (Some(slot), Some(answer)) = (all.get_mut(served), told.answers.pop()) {
                    *slot = answer;
                    fingerprints[served].clone_from(&drawn.fingerprint);
                    ended[served] = drawn.all_ended();
                }
                for twin in &twins.ended {
                    let place = usize::from(twin.index);
                    if let Some(slot) = all.get_mut(place) {
                        *slot = twin.answer.clone();
                        fingerprints[place].clone_from(&twin.fingerprint);
                        ended[place] = true;
                    }
                }
                told.answers = all;
                told.open = (0..*draws).zip(ended).filter(|(_, ended)| !ended).map(|(index, _)| index).collect();
                build(&mut told, fingerprints);
                let cost = twins.cost(&self.admitted.price.list);
                told.twinning = Some(Twinning { epoch, stalled, served: *index, cost, ..Twinning::default() });
            }
        }
        told
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

impl Drawn {
    fn new(n: u32) -> Self {
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

    fn embed(&mut self, embedded: Result<Embedded, ModelError>) -> End {
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

    fn all_ended(&self) -> bool {
        self.finishes.iter().all(Option::is_some)
    }

    fn usage(&self, twins: &TwinPieces) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens.unwrap_or_default(),
            cached_tokens: self.cached_tokens,
            completion_tokens: self.counted.iter().sum(),
            twin_tokens: twins.tokens,
        }
    }

    /// Hands `piece` to the client; false where it has left, or reads so slowly that it might as well have.
    async fn offer(&mut self, pieces: &Pieces, piece: Piece, deadline: Instant) -> bool {
        let waiting = match pieces.try_send(Ok(piece)) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(waiting)) => waiting,
        };
        self.stalled = true;
        let offered = Instant::now();
        let sent = tokio::time::timeout_at(deadline, pieces.send(waiting)).await;
        self.waited += offered.elapsed();
        matches!(sent, Ok(Ok(())))
    }

    /// Ends the other draws where they are.
    fn give_up_others(&mut self) -> TwinPieces {
        self.others.take().map(Drawing::given_up).unwrap_or_default()
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
