//! Twins: which exchanges have them, how they are drawn, and when.
//!
//! # Why the test of pairs that were drawn together is exact
//!
//! The coin `J` of an exchange is a function of its id under a secret key, and both are fixed before anything is drawn. All
//! draws begin at the same moment by equal requests, each in a task of its own that does not know `J`; each has the same
//! time, the same second tries and, of several servers, the same first one. So `J` is independent of everything that the
//! model gives: of both texts, of their lengths, of when they end and whether they fail. That alone is used: the draws need
//! not even have the same distribution.
//!
//! A pair that is incomplete may be left out of a test only where that it is incomplete does not depend on `J`.
//!
//! - *One draw fails.* Where it was to be served the customer gets an error, where it was not the customer notices nothing,
//!   but the pair is incomplete in either case.
//! - *One draw is slower.* The customer waits for the served one alone, since a longer wait would tell that there is another.
//!   The other draw is led to its end afterwards and recorded in an entry of its own, [`Twins`](anbiq_domain::Twins). If it
//!   were given up because it is late, pairs would be complete where the longer draw was served, and tests would take length
//!   for evidence. Its time is that of the request, counted from the same moment.
//! - *The gateway stops or is killed.* At that moment both draws have ended and are recorded, or the pair is incomplete. When
//!   it stops in good order, slower twins are waited for like requests are.
//! - *The customer leaves before the end, or reads so slowly that the model waits.* What is served may be the reason. Such a
//!   pair that is incomplete is not left out but counts against the suspicion: `cancelled`, and
//!   [`Twinning::stalled`](anbiq_domain::Twinning::stalled).
//! - *There is no money, or no place.* That is found out before the coin is looked at.
//!
//! Where a model gives several completions only as one piece of work ([`Model::together`]), the customer's answer ends
//! when the slowest draw does, and all draws fail together. The pairs are as exact, but whoever measures time can tell.
//!
//! # What a test of deferred twins rests on
//!
//! The served draw is made as any other, and its twins later, by the same request. Only where the teacher gives the same
//! distribution of answers then is the served draw as likely as its twin to be the one that a model prefers. So the mode
//! stands in every entry, the builds of the model are compared where its server names them, and no test ever takes pairs
//! of both modes.

mod deferred;
mod draw;
mod purse;

use std::sync::Arc;

use anbiq_domain::{Entry, ExchangeId, Money, Timestamp, TwinMode};
use anbiq_ledger::Session;
use anbiq_model::{Model, Request};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use deferred::{Deferral, Job, work};
pub(crate) use draw::{Drawing, Twin, TwinPieces, begin};
pub(crate) use purse::{Hold, Purse};

use crate::gateway::Shared;
use crate::request::Asked;

/// What was decided of an exchange's twins before anything was drawn.
#[derive(Debug)]
pub(crate) enum Lot {
    /// It has none.
    Alone,
    /// They are drawn with it.
    Together(Together),
    /// They are drawn later.
    Deferred {
        /// How many completions there will be, the served one among them.
        draws: u8,
    },
}

/// Twins that are drawn with their exchange.
#[derive(Debug)]
pub(crate) struct Together {
    /// Which draw is served.
    pub(crate) index: u8,
    /// Of how many.
    pub(crate) draws: u8,
    /// The money that is kept for them.
    pub(crate) hold: Hold,
    /// Their place, until the slowest has ended.
    pub(crate) place: OwnedSemaphorePermit,
}

impl Candidate<'_> {
    /// Can the request be made again from what the journal says of it? One with stop strings, for example, cannot.
    fn can_wait(&self) -> bool {
        let mut request = self.asked.to_model(self.model.abilities(), self.max_tokens, 1);
        request.sampling.seed = None;
        request.logprobs = None;
        request == deferred::restored(&self.asked.facts(self.max_tokens), &self.asked.prompt)
    }
}

/// Why an exchange whose lot it was has no twins, or fewer; a label of metrics.
pub(crate) mod reason {
    /// The day's money is spent.
    pub(crate) const MONEY: &str = "daily_limit";
    /// As many exchanges as allowed wait for slower twins.
    pub(crate) const BUSY: &str = "too_many_under_way";
    /// The queue of deferred twins is full.
    pub(crate) const QUEUE: &str = "queue_full";
    /// A deferred twin waited too long.
    pub(crate) const OLD: &str = "waited_too_long";
    /// A draw failed.
    pub(crate) const FAILED: &str = "failed";
}

/// An exchange that might have twins.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) session: &'a Session,
    pub(crate) asked: &'a Asked,
    pub(crate) model: &'a Arc<dyn Model>,
    pub(crate) id: ExchangeId,
    /// Its number among its account's exchanges.
    pub(crate) number: u64,
    /// Longest completion, in tokens.
    pub(crate) max_tokens: u32,
    /// The most that one draw can cost the provider.
    pub(crate) most: Money,
    pub(crate) at: Timestamp,
}

/// Decides on the twins of an exchange.
///
/// Nothing here depends on the answer or on the coin, and nothing in the answer shows it. A request for several answers is
/// not twinned, and neither is one whose draws would all be the same.
pub(crate) fn draw_lots(gateway: &Shared, candidate: &Candidate<'_>) -> Lot {
    let Candidate { session, asked, id, number, most, at, .. } = *candidate;
    let plan = &session.plan.twin;
    let can_be = asked.n == 1 && asked.sampling.temperature > 0.0 && plan.covers(&asked.model);
    if !(can_be && (number < u64::from(plan.first) || falls_to(gateway, id, plan.share))) {
        return Lot::Alone;
    }
    let draws = plan.k.unwrap_or(gateway.config.twin.k).clamp(2, 16);
    if plan.mode == TwinMode::Deferred {
        return if candidate.can_wait() { Lot::Deferred { draws } } else { Lot::Alone };
    }
    let refused = |why| {
        gateway.metrics.twin_refused(TwinMode::Together, why);
        Lot::Alone
    };
    let Ok(place) = Arc::clone(&gateway.twins_under_way).try_acquire_owned() else {
        return refused(reason::BUSY);
    };
    let Some(hold) = hold(gateway, TwinMode::Together, times(most, draws - 1), at) else {
        return refused(reason::MONEY);
    };
    Lot::Together(Together { index: gateway.coin.choose(id, draws), draws, hold, place })
}

/// Keeps `most` of the day's money for twins of `mode`; where it does not suffice, the journal is told once a day.
pub(crate) fn hold(gateway: &Shared, mode: TwinMode, most: Money, at: Timestamp) -> Option<Hold> {
    let refused = match gateway.purse(mode).take(at, most) {
        Ok(hold) => return Some(hold),
        Err(refused) => refused,
    };
    if refused.first_today {
        tracing::warn!(mode = mode.as_str(), limit = %refused.limit, "the day's money for twins is spent");
        let gateway = Arc::clone(gateway);
        // No customer waits for that.
        tokio::spawn(async move {
            let entry = Entry::TwinsStopped { at, mode, limit: refused.limit };
            if let Err(error) = gateway.record(&entry).await {
                tracing::error!(code = error.code(), %error, "that the money for twins is spent could not be journalled");
            }
        });
    }
    None
}

/// `amount` so many times.
pub(crate) fn times(amount: Money, count: u8) -> Money {
    std::iter::repeat_n(amount, count.into()).sum()
}

/// The request for draw `index` alone.
///
/// A seed of the customer's is mixed with the exchange: else who repeats it, and gets another answer, knows that there are
/// several draws. So a seed fixes no answer on plans with twins, of whichever exchanges: [`mix_seed`].
pub(crate) fn nth(request: &Request, index: u8) -> Request {
    let mut request = Request { n: 1, ..request.clone() };
    request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(index.into()));
    request
}

/// The seed that is passed on for `seed` in exchange `id`. It fits 31 bits, as some servers want it.
pub(crate) fn mix_seed(gateway: &Shared, id: ExchangeId, seed: u64) -> u64 {
    let value = [id.as_bytes().as_slice(), &seed.to_le_bytes()].concat();
    gateway.twin_hasher.hash("anbiq seed v1", &value).0 >> 33
}

fn falls_to(gateway: &Shared, id: ExchangeId, share: f64) -> bool {
    // 53 bits, as `Seeded::unit` does.
    let unit = (gateway.twin_hasher.hash("anbiq twin v1", id.as_bytes()).0 >> 11) as f64 / (1_u64 << 53) as f64;
    unit < share
}
