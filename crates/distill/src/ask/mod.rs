//! Asking a teacher: as fast as it lets us, never beyond the ceiling, and never twice for the same answer.
//!
//! The capture grows in a file, one [`Row`](crate::Row) a line; beside it a ledger says of every request, before it is
//! sent, what it can cost at most (`disk.rs`). A program that is killed leaves answers that were perhaps paid for and
//! never arrived: they count against the ceiling at the most that they can have cost. Every request has a name of its
//! own, so that a server that knows `Idempotency-Key` answers and charges it once, however often it is sent.
//!
//! When asking ends, the log-probabilities of its rows are moved to a file of shards ([`crate::told`]); until then they stand in the rows, so that
//! a row is whole or not there.
//!
//! In memory are the requests under way, those that wait to be sent again (no more than may be under way), and
//! seventeen bytes for each answer that is wanted; neither prompts nor answers.

mod batch;
mod disk;
mod ledger;
mod pace;
mod purse;
mod run;
mod send;
mod signal;
mod want;

use std::path::Path;
use std::sync::Arc;

use anbiq_domain::{Money, PriceClass, PriceList};
use anbiq_model::Model;
use anbiq_upstream::Client;
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::data::Lines;
use crate::progress::Progress;
use crate::recipe::{AskPart, Best, Logprobs};
use crate::told;
use disk::Disk;
use purse::Purse;
use run::Run;
use send::Asker;

pub use signal::{Signal, Tier};

pub(crate) use disk::replace;
pub(crate) use ledger::{Head, beside_rows};
pub(crate) use want::{Index, Maker, Wants, most_usage, short};

/// Where the answers come from.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a run has one of them")]
pub enum Endpoint {
    /// A server that speaks the OpenAI dialect.
    Http {
        /// How to reach it.
        client: Client,
        /// The name that it knows the teacher by.
        model: String,
    },
    /// Any other model: one in this process.
    Model(Arc<dyn Model>),
}

/// What asking came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Asking {
    /// Answers that were to be had.
    pub requests: u64,
    /// Answers that were there already.
    pub reused: u64,
    /// Answers that came now.
    pub answered: u64,
    /// So many of those had been given before under the same name and were not charged again.
    #[serde(default)]
    pub replayed: u64,
    /// Requests that the teacher will not answer.
    pub refused: u64,
    /// Further tries after one that failed.
    pub retries: u64,
    /// What was spent on this file, over all runs.
    pub cost: Money,
    /// The most that was spent besides on answers that never arrived.
    pub lost: Money,
    /// So many requests were sent, perhaps charged, and never answered.
    #[serde(default)]
    pub lost_tries: u64,
    /// What the teacher tells beyond its answers, where more was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Half of the first answers of this run took less than so many milliseconds, with others under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_ms: Option<f64>,
    /// Why it stopped before the end, if it did.
    pub stopped: Option<String>,
}

impl Asking {
    /// As one, with what was asked `before` of the same file.
    pub(crate) fn after(self, before: &Self) -> Self {
        Self {
            reused: before.reused,
            answered: before.answered + self.answered,
            replayed: before.replayed + self.replayed,
            retries: before.retries + self.retries,
            signal: self.signal.or_else(|| before.signal.clone()),
            median_ms: self.median_ms.or(before.median_ms),
            ..self
        }
    }
}

/// What asking must keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// What the answers cost.
    pub(crate) prices: PriceList,
    /// That of answers that come by themselves.
    pub(crate) class: PriceClass,
    /// The most completion tokens that the teacher's terms or grant allow.
    pub(crate) tokens: Option<u64>,
    pub(crate) seed: u64,
}

impl Limits {
    /// The class of an answer that came in a batch or by itself. Who sells distillation at a price of its own sells it so in
    /// batches too.
    pub(crate) fn class_of(&self, batch: bool) -> PriceClass {
        match (self.class, batch) {
            (PriceClass::Distillation, _) => PriceClass::Distillation,
            (_, true) => PriceClass::Batch,
            (_, false) => PriceClass::Standard,
        }
    }
}

/// Tries of one request that fail one after the other, not counting those that the server had no room for, before the run
/// ends.
const TRIES: u32 = 8;

/// Asks `endpoint` for every answer that `part` wants and that `source` does not hold yet, or for a random `share` of
/// them. In the end `source` holds them in the order of the prompts: equal answers give equal bytes, however often the
/// work was interrupted.
pub(crate) async fn ask(
    source: &Path,
    teacher: &str,
    part: &AskPart,
    limits: Limits,
    endpoint: &Endpoint,
    share: Option<f64>,
    progress: &dyn Progress,
) -> Result<Asking, DistillError> {
    if part.batch.is_none() {
        batch::refuse_if_open(source)?;
    }
    let maker = Maker::new(teacher, part, limits, share);
    let Opened { index, mut disk, mut purse, reused } = Opened::of(source, &maker, part, limits)?;
    let signal = match part.logprobs {
        Some(_) if reused < index.len() => {
            let can = signal::find(source, teacher, part, limits, endpoint, &mut disk, &mut purse).await?;
            let signal = Signal::choose(part.logprobs, can);
            for lost in &signal.lost {
                progress.note(lost);
            }
            Some(signal)
        }
        _ => None,
    };
    let logprobs = signal.as_ref().and_then(|signal| signal.logprobs);
    let asking = Asking { requests: index.len(), reused, signal, ..Asking::default() };
    // Whether a server gives several answers at once is known from asking what it can do, or found out by the first request.
    let several =
        matches!(endpoint, Endpoint::Http { .. }) && asking.signal.as_ref().is_none_or(|signal| signal.can.several);
    progress.stage("asking the teacher", Some(asking.requests));
    progress.advance(reused);
    if let (Some(settings), Endpoint::Http { client, model }) = (part.batch, endpoint) {
        let asker = Asker::new(endpoint, part, logprobs);
        let mut batches = batch::Batches {
            source,
            client,
            model,
            asker,
            several,
            settings,
            limits,
            maker: &maker,
            index,
            purse,
            disk,
            progress,
            asking,
            tries: std::collections::HashMap::new(),
        };
        let failure = batches.work().await?;
        let batch::Batches { asking, purse, index, disk, .. } = batches;
        return end(source, asking, purse, &index, disk, failure, progress).await;
    }
    let asker = Asker::new(endpoint, part, logprobs);
    let run = Run::new(&maker, index, purse, disk, asker, several, progress, asking)?;
    let Run { asking, purse, index, failure, disk, .. } = run.work().await?;
    end(source, asking, purse, &index, disk, failure, progress).await
}

/// Puts the capture in order and says what it came to.
async fn end(
    source: &Path,
    mut asking: Asking,
    purse: Purse,
    index: &Index,
    disk: Disk,
    failure: Option<DistillError>,
    progress: &dyn Progress,
) -> Result<Asking, DistillError> {
    let _lock = disk.close().await?;
    disk::put_in_order(source, index)?;
    told::shelve(source)?;
    if asking.reused + asking.answered == asking.requests {
        ledger::rewrite(&ledger::ledger_path(source), &purse.past)?;
    }
    asking.cost = purse.spent;
    asking.lost = purse.lost;
    asking.lost_tries = purse.lost_tries();
    if let Some(why) = &asking.stopped {
        progress.note(why);
    }
    failure.map_or(Ok(asking), Err)
}

/// All that the capture `source` counts against a ceiling: its rows, what was paid besides, and what may have been.
pub(crate) fn spent(source: &Path, limits: Limits) -> Result<Money, DistillError> {
    let mut rows = Money::ZERO;
    if source.exists() {
        for head in Lines::<Head>::open_appended(source)? {
            let Head { id: Some(_), usage, batch, .. } = head? else { continue };
            rows += limits.prices.cost(usage, limits.class_of(batch));
        }
    }
    let (extra, saved) = beside_rows(source)?;
    Ok(rows + extra - saved + ledger::open(source)?)
}

/// What the teacher of `part` can tell, found by asking it now. What that costs counts against the ceiling of `source`.
pub(crate) async fn probe(
    source: &Path,
    teacher: &str,
    part: &AskPart,
    limits: Limits,
    endpoint: &Endpoint,
) -> Result<Signal, DistillError> {
    let maker = Maker::new(teacher, part, limits, None);
    let Opened { mut disk, mut purse, .. } = Opened::of(source, &maker, part, limits)?;
    signal::forget(source)?;
    let can = signal::find(source, teacher, part, limits, endpoint, &mut disk, &mut purse).await?;
    let _lock = disk.close().await?;
    Ok(Signal::choose(part.logprobs.or(Some(Logprobs::Best(Best::Best))), can))
}

/// A capture as its files have it.
struct Opened {
    index: Index,
    disk: Disk,
    purse: Purse,
    /// Answers that are wanted and there.
    reused: u64,
}

impl Opened {
    fn of(source: &Path, maker: &Maker<'_>, part: &AskPart, limits: Limits) -> Result<Self, DistillError> {
        let mut index = Index::new(maker)?;
        let (mut spent, mut used, mut reused) = (Money::ZERO, 0, 0);
        let (disk, past) = Disk::open(source, &mut index, |usage, batch, wanted| {
            spent += limits.prices.cost(usage, limits.class_of(batch));
            used += usage.completion_tokens;
            reused += u64::from(wanted);
        })?;
        Ok(Self { index, disk, purse: Purse::new(part, limits, spent, used, past), reused })
    }
}
