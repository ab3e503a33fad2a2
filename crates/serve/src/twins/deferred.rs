//! Twins that are drawn later, off-peak and within a money limit of their own.
//!
//! Which exchanges wait is kept in memory, within bounds; at a start those are found again in the journal whose texts it
//! keeps. Where the plan keeps no texts the prompt is nowhere but in memory, and such an exchange stays without twins when
//! the gateway stops before they are drawn.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anbiq_domain::{
    AccountId, Entry, Exchange, ExchangeId, Money, Outcome, Prompt, RequestFacts, Route, Timestamp, TwinDraw, TwinMode,
    Twinning, Twins,
};
use anbiq_model::{Request, Sampling};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Twin, TwinPieces, begin, hold, reason, times};
use crate::DeferredConfig;
use crate::gateway::Shared;
use crate::metrics::Drawn;

/// Tries to draw the twins of one exchange.
const TRIES: u32 = 3;

/// An exchange that waits for its twins.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) exchange: ExchangeId,
    pub(crate) account: AccountId,
    pub(crate) model: String,
    pub(crate) route: Route,
    /// What the customer's draw was asked for.
    pub(crate) request: Request,
    /// How many completions there shall be, the served one among them.
    pub(crate) draws: u8,
    /// Does the plan keep texts?
    pub(crate) keep: bool,
    /// Since when it waits.
    pub(crate) since: Timestamp,
    pub(crate) tries: u32,
}

/// The exchanges that wait, the oldest first.
#[derive(Debug)]
pub(crate) struct Deferral {
    config: DeferredConfig,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// Of the journal that is being read: exchanges whose twins have not come so far.
    recalled: HashMap<ExchangeId, Job>,
}

impl Job {
    /// The job of an exchange in the journal, where its texts were kept and it was answered in full.
    fn of(exchange: &Exchange, draws: u8) -> Option<Self> {
        let texts = exchange.texts.as_ref()?;
        (exchange.outcome == Outcome::Completed).then(|| Self {
            exchange: exchange.id,
            account: exchange.account.clone(),
            model: exchange.model.clone(),
            route: exchange.request.route,
            request: restored(&exchange.request, &texts.prompt),
            draws,
            keep: true,
            since: exchange.at,
            tries: 0,
        })
    }

    fn bytes(&self) -> usize {
        let prompt = match &self.request.prompt {
            Prompt::Chat(messages) => messages.iter().map(|message| message.bytes() + 32).sum(),
            Prompt::Text(text) => text.len(),
        };
        prompt + size_of::<Self>() + self.account.as_str().len() + self.model.len()
    }
}

/// What a model was asked for, as far as a journal says.
pub(crate) fn restored(facts: &RequestFacts, prompt: &Prompt) -> Request {
    let sampling = Sampling { temperature: facts.temperature, top_p: facts.top_p, seed: None };
    Request { sampling, whole: !facts.stream, ..Request::new(prompt.clone(), facts.max_tokens) }
}

impl Deferral {
    pub(crate) fn new(config: DeferredConfig) -> Self {
        Self { config, queue: Mutex::default() }
    }

    /// Lets `job` wait; false where there is no place.
    pub(crate) fn push(&self, job: Job) -> bool {
        let mut queue = self.lock();
        let bytes = job.bytes();
        let fits = queue.jobs.len() < self.config.queue && queue.bytes + bytes <= self.config.queue_bytes;
        if fits {
            queue.bytes += bytes;
            queue.jobs.push_back(job);
        }
        fits
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Takes note of an entry of the journal, at a start at `now`. `draws` is how many completions an exchange shall have.
    pub(crate) fn recall(&self, entry: &Entry, draws: u8, now: Timestamp) {
        let mut queue = self.lock();
        match entry {
            Entry::Exchange(exchange) => {
                let deferred = exchange.draws.twinning.is_some_and(|twinning| twinning.mode == TwinMode::Deferred);
                if let Some(job) = deferred.then(|| Job::of(exchange, draws)).flatten()
                    && !self.config.is_old(job.since, now)
                    && queue.recalled.len() < self.config.queue
                {
                    queue.recalled.insert(job.exchange, job);
                }
            }
            Entry::TwinsDrawn(twins) => drop(queue.recalled.remove(&twins.exchange)),
            _ => {}
        }
    }

    /// The journal was read to its end: what it left without twins waits for them.
    pub(crate) fn recalled(&self) {
        let mut jobs: Vec<Job> = std::mem::take(&mut self.lock().recalled).into_values().collect();
        jobs.sort_by_key(|job| job.since);
        for job in jobs {
            if !self.push(job) {
                return;
            }
        }
    }

    fn pop(&self) -> Option<Job> {
        let mut queue = self.lock();
        let job = queue.jobs.pop_front()?;
        queue.bytes -= job.bytes();
        Some(job)
    }

    /// Puts back what could not be done now; it was there a moment ago, so there is a place.
    fn put_back(&self, job: Job) {
        let mut queue = self.lock();
        queue.bytes += job.bytes();
        queue.jobs.push_front(job);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can fail half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws what waits, as long as the gateway runs: in the hours, at the rate and within the money of the configuration.
pub(crate) async fn work(gateway: Shared) {
    let per_minute = gateway.config.twin.deferred.per_minute.max(1);
    let mut ticks = tokio::time::interval(Duration::from_secs(60) / per_minute);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = gateway.clock.now();
        if gateway.draining() || !gateway.config.twin.deferred.is_time(now) {
            continue;
        }
        draw_one(&gateway, now).await;
    }
}

/// Draws the twins of the exchange that waits longest.
async fn draw_one(gateway: &Shared, now: Timestamp) {
    let config = &gateway.config.twin.deferred;
    let refused = |why| gateway.metrics.twin_refused(TwinMode::Deferred, why);
    let Some(mut job) = gateway.deferral.pop() else { return };
    if config.is_old(job.since, now) {
        return refused(reason::OLD);
    }
    let cheaper = config.models.get(&job.model).unwrap_or(&job.model);
    let Some(model) = gateway.models.get(cheaper) else { return refused(reason::FAILED) };
    let list = match gateway.ledger.prices(&job.model).await {
        Ok(list) => list.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(code = error.code(), %error, "the price of a deferred twin is not known now");
            return gateway.deferral.put_back(job);
        }
    };
    let most = list.cost(crate::admission::most_of(&job.request, model.abilities().context), Default::default());
    let Some(hold) = hold(gateway, TwinMode::Deferred, config.price_of(times(most, job.draws - 1)), now) else {
        refused(reason::MONEY);
        return gateway.deferral.put_back(job);
    };
    job.tries += 1;
    let deadline = Instant::now() + Duration::from_millis(gateway.config.request_timeout_ms);
    let begun = begin(model, &job.request, job.draws - 1, None, deadline, &gateway.abort).await;
    let pieces = match begun {
        Ok((_, mut drawing)) => drawing.rest().await,
        Err(error) => {
            tracing::debug!(code = error.code, %error, "deferred twins failed");
            TwinPieces::failed((job.draws - 1).into())
        }
    };
    let cost = config.price_of(pieces.cost(&list));
    hold.spend(cost);
    let drawn = Drawn { cost, ..pieces.measured(&list) };
    gateway.metrics.twins_drawn(TwinMode::Deferred, job.route, &job.model, &drawn);
    if pieces.failed > 0 {
        refused(reason::FAILED);
        // Those of a second try would be no more alike than those of the first; all are drawn again.
        if job.tries < TRIES && !gateway.deferral.push(job) {
            refused(reason::QUEUE);
        }
        return;
    }
    let entry = Entry::TwinsDrawn(Box::new(record_of(gateway, &job, pieces, cost)));
    if let Err(error) = gateway.record(&entry).await {
        tracing::error!(code = error.code(), %error, "deferred twins could not be journalled");
    }
}

/// The journal's record of the twins of `job`. The coin puts the served draw among them, so that whoever is shown all of
/// them in order learns nothing from a place.
fn record_of(gateway: &Shared, job: &Job, twins: TwinPieces, cost: Money) -> Twins {
    let served = gateway.coin.choose(job.exchange, job.draws);
    let places = (0..job.draws).filter(|index| *index != served);
    let draw = |(index, twin): (u8, Twin)| {
        TwinDraw::commit(&gateway.coin, job.exchange, index, twin.fingerprint, twin.answer, job.keep)
    };
    Twins {
        exchange: job.exchange,
        at: gateway.clock.now(),
        account: job.account.clone(),
        model: job.model.clone(),
        total: job.draws,
        twinning: Twinning { epoch: gateway.epoch, served, mode: TwinMode::Deferred, cost, ..Twinning::default() },
        draws: places.zip(twins.ended).map(draw).collect(),
        tokens: twins.tokens,
    }
}
