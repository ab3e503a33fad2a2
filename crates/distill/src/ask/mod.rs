//! Asking a teacher: as fast as it lets us, never beyond the ceiling, and never twice for the same answer.
//!
//! The capture grows in a file, one [`Row`](crate::Row) a line; beside it a ledger says of every request, before it is
//! sent, what it can cost at most (`disk.rs`). A program that is killed leaves answers that were perhaps paid for and
//! never arrived: they count against the ceiling at the most that they can have cost. Every request has a name of its
//! own, so that a server that knows `Idempotency-Key` answers and charges it once, however often it is sent.
//!
//! In memory are the requests under way, those that wait to be sent again (no more than may be under way), and
//! seventeen bytes for each answer that is wanted; neither prompts nor answers.

mod batch;
mod disk;
mod ledger;
mod pace;
mod purse;
mod send;
mod signal;
mod want;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{Money, PriceClass, PriceList};
use anbiq_model::Model;
use anbiq_upstream::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::DistillError;
use crate::progress::Progress;
use crate::recipe::{AskPart, Best, Logprobs};
use disk::Disk;
use pace::{May, Pace};
use purse::{Held, Purse};
use send::{Answered, Asker, Bad, Remedy};
use want::Want;

pub use signal::{Signal, Tier};

pub(crate) use disk::replace;
pub(crate) use ledger::Head;
pub(crate) use want::{Index, Maker, Wants, drawn, most_usage, short};

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

/// How long a server may have no room for anything, beyond what it asks to wait, before the run ends.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

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
    progress.stage("asking the teacher", Some(asking.requests));
    progress.advance(reused);
    if let (Some(settings), Endpoint::Http { client, model }) = (part.batch, endpoint) {
        let asker = Asker::new(endpoint, part, logprobs);
        let mut batches = batch::Batches {
            source,
            client,
            model,
            asker,
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
    let now = Instant::now();
    let mut run = Run {
        wants: Wants::new(&maker)?,
        index,
        purse,
        pace: Pace::new(part, limits.seed, now),
        limits,
        part,
        asker: Asker::new(endpoint, part, logprobs),
        progress,
        asking,
        failure: None,
        next: None,
        ended: false,
        retries: BinaryHeap::new(),
        disk,
        safe: None,
        batch: Vec::new(),
        under_way: JoinSet::new(),
    };
    run.work().await?;
    let Run { asking, purse, index, failure, disk, .. } = run;
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
    if asking.reused + asking.answered == asking.requests {
        ledger::shorten(source, &purse.open, purse.extra)?;
    }
    asking.cost = purse.spent;
    asking.lost = purse.lost;
    asking.lost_tries = purse.lost_tries();
    if let Some(why) = &asking.stopped {
        progress.note(why);
    }
    failure.map_or(Ok(asking), Err)
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

/// A capture under way.
struct Run<'recipe> {
    wants: Wants<'recipe>,
    index: Index,
    purse: Purse,
    pace: Pace,
    limits: Limits,
    part: &'recipe AskPart,
    asker: Arc<Asker>,
    progress: &'recipe dyn Progress,
    asking: Asking,
    failure: Option<DistillError>,
    /// The next one of the file, looked at and not yet sent.
    next: Option<Want>,
    /// The file is read to its end.
    ended: bool,
    /// Those that failed, by the moment at which they may be sent again.
    retries: BinaryHeap<Reverse<Retry>>,
    disk: Disk,
    /// Requests whose price is held and being written, and the word that it is safe.
    batch: Vec<Want>,
    safe: Option<oneshot::Receiver<()>>,
    under_way: JoinSet<(Want, Result<Answered, Bad>)>,
}

/// What happened next.
enum Turn {
    /// The ledger is on disk, or will never be.
    Safe(bool),
    Ended(Box<(Want, Result<Answered, Bad>)>),
    Later,
}

impl Run<'_> {
    async fn work(&mut self) -> Result<(), DistillError> {
        loop {
            let wait = self.fill().await?;
            if self.safe.is_none() && self.under_way.is_empty() && wait.is_none() {
                return Ok(());
            }
            match self.turn(wait).await? {
                Turn::Later => {}
                Turn::Safe(true) => self.send(),
                Turn::Safe(false) => self.disk.failure().await?,
                Turn::Ended(ended) => match *ended {
                    (want, Ok(answer)) => self.answered(&want, answer).await?,
                    (want, Err(bad)) => self.failed(want, bad).await?,
                },
            }
        }
    }

    /// Holds the price of whatever may be sent; gives the moment at which to look again, where nothing else will tell.
    async fn fill(&mut self) -> Result<Option<Instant>, DistillError> {
        // What is being written now is sent before more is.
        if self.safe.is_some() || self.failure.is_some() || self.asking.stopped.is_some() {
            return Ok(None);
        }
        let mut wait = None;
        loop {
            let now = Instant::now();
            let Some((want, from)) = self.peek(now)? else {
                wait = self.retries.peek().map(|Reverse(retry)| retry.at);
                break;
            };
            let (most, tokens) = (want.most, want.usage.total());
            match self.pace.may_send(tokens, self.under_way.len() + self.batch.len(), now) {
                May::Now => {}
                May::AfterAnother => break,
                May::At(moment) => {
                    wait = Some(moment);
                    break;
                }
            }
            match self.purse.hold(most, self.purse.max_tokens) {
                Held::Yes => {}
                Held::NotNow => break,
                Held::Never(why) => {
                    self.asking.stopped = Some(why);
                    break;
                }
            }
            self.pace.sent(tokens);
            let want = match from {
                From::Retries => self.retries.pop().map(|Reverse(retry)| retry.want),
                From::File => self.next.take(),
            };
            self.batch.extend(want);
        }
        if !self.batch.is_empty() {
            self.safe = Some(self.disk.hold(self.batch.iter().map(|want| (want.id, want.most))).await?);
        }
        Ok(wait)
    }

    /// What is to be sent next, and where it stands.
    fn peek(&mut self, now: Instant) -> Result<Option<(&Want, From)>, DistillError> {
        let due = self.retries.peek().is_some_and(|Reverse(retry)| retry.at <= now);
        if !due && self.next.is_none() && !self.ended && self.retries.len() < self.part.concurrency {
            self.next = self.wants.next(&self.index)?;
            self.ended = self.next.is_none();
        }
        Ok(match self.retries.peek() {
            Some(Reverse(retry)) if due => Some((&retry.want, From::Retries)),
            _ => self.next.as_ref().map(|want| (want, From::File)),
        })
    }

    async fn turn(&mut self, wait: Option<Instant>) -> Result<Turn, DistillError> {
        let safe = async {
            match &mut self.safe {
                Some(safe) => safe.await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let later = async {
            match wait {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            safe = safe => Ok(Turn::Safe(safe)),
            Some(ended) = self.under_way.join_next() => {
                let ended = ended.map_err(|error| DistillError::Interrupted(error.to_string()))?;
                Ok(Turn::Ended(Box::new(ended)))
            }
            () = later => Ok(Turn::Later),
        }
    }

    fn send(&mut self) {
        self.safe = None;
        for mut want in self.batch.drain(..) {
            want.sent = Instant::now();
            let asker = Arc::clone(&self.asker);
            self.under_way.spawn(async move {
                let outcome = asker.ask(&want).await;
                (want, outcome)
            });
        }
    }

    async fn answered(&mut self, want: &Want, answer: Answered) -> Result<(), DistillError> {
        let Answered { line, usage, told } = answer;
        let (most, under_way) = (want.usage.total(), self.under_way.len() + self.batch.len());
        self.pace.answered(most, usage.total(), told, under_way as u64, Instant::now());
        let cost = self.limits.prices.cost(usage, self.limits.class_of(false));
        self.purse.settle(want, cost, usage, told.replayed);
        self.disk.keep(&want.id, line, told.replayed).await?;
        self.asking.answered += 1;
        self.asking.replayed += u64::from(told.replayed);
        self.progress.advance(1);
        Ok(())
    }

    async fn failed(&mut self, mut want: Want, bad: Bad) -> Result<(), DistillError> {
        let now = Instant::now();
        if bad.charged {
            self.purse.lose(&want);
        } else {
            self.purse.release(want.most);
            self.disk.free(&want.id).await?;
        }
        let at = match bad.remedy {
            Remedy::Retry { after_ms } if bad.busy => {
                let end = self.pace.refused(&want, after_ms, now);
                (self.pace.silent_for(now) < PATIENCE).then_some(end)
            }
            Remedy::Retry { after_ms } => {
                want.tries += 1;
                let slow = bad.error.code == "timeout";
                (want.tries < TRIES).then(|| self.pace.failed(&want, slow, after_ms, now))
            }
            // It does not count as a try: a connection broke, and the first try goes on without it.
            Remedy::Wait { after_ms } => {
                let wait = Duration::from_millis(after_ms.unwrap_or(1000));
                (self.pace.silent_for(now) < PATIENCE).then_some(now + wait)
            }
            Remedy::Rename => {
                want.tries += 1;
                want.edition += 1;
                (want.tries < TRIES).then_some(now)
            }
            Remedy::Skip => {
                self.asking.refused += 1;
                self.progress.note(&bad.error.to_string());
                self.progress.advance(1);
                return Ok(());
            }
            Remedy::Stop => None,
        };
        match at {
            Some(at) => {
                self.asking.retries += 1;
                self.retries.push(Reverse(Retry { at, want }));
            }
            None => {
                self.failure.get_or_insert(DistillError::Teacher(bad.error));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum From {
    Retries,
    File,
}

/// Ordered by the moment, then by the place, so that nothing is passed over for long.
#[derive(Debug)]
struct Retry {
    at: Instant,
    want: Want,
}

impl PartialEq for Retry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Retry {}

impl PartialOrd for Retry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Retry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.want.place).cmp(&(other.at, other.want.place))
    }
}
