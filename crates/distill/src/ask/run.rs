//! A capture under way: requests that are held, sent, answered, failed and sent again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::Money;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::disk::Disk;
use super::pace::{May, Pace};
use super::purse::{Held, Purse};
use super::send::{Asker, Bad, Remedy, Reply};
use super::want::{Index, Maker, Request, Wants};
use super::{Asking, TRIES};
use crate::DistillError;
use crate::progress::Progress;

/// How long a server may have no room for anything, beyond what it asks to wait, before the run ends.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Answers whose times are remembered.
const TIMED: usize = 10_000;

/// A capture under way.
pub(super) struct Run<'recipe> {
    maker: &'recipe Maker<'recipe>,
    wants: Wants<'recipe>,
    pub(super) index: Index,
    pub(super) purse: Purse,
    pace: Pace,
    asker: Arc<Asker>,
    progress: &'recipe dyn Progress,
    pub(super) asking: Asking,
    pub(super) failure: Option<DistillError>,
    /// Does the server give several answers to one request, as far as is known?
    several: bool,
    /// Looked at and not yet sent: the next one of the file, or what was asked for together and is now asked for apart.
    next: VecDeque<Request>,
    /// The file is read to its end.
    ended: bool,
    /// Those that failed, by the moment at which they may be sent again.
    retries: BinaryHeap<Reverse<Retry>>,
    pub(super) disk: Disk,
    /// Requests whose price is held and being written, and the word that it is safe.
    batch: Vec<Request>,
    safe: Option<oneshot::Receiver<()>>,
    under_way: JoinSet<(Request, Result<Reply, Bad>)>,
    /// Milliseconds that the first answers took.
    took: Vec<u32>,
}

/// What happened next.
enum Turn {
    /// The ledger is on disk, or will never be.
    Safe(bool),
    Ended(Box<(Request, Result<Reply, Bad>)>),
    Later,
}

impl<'recipe> Run<'recipe> {
    #[expect(clippy::too_many_arguments, reason = "all of it is what a capture is made of")]
    pub(super) fn new(
        maker: &'recipe Maker<'recipe>,
        index: Index,
        purse: Purse,
        disk: Disk,
        asker: Arc<Asker>,
        several: bool,
        progress: &'recipe dyn Progress,
        asking: Asking,
    ) -> Result<Self, DistillError> {
        Ok(Self {
            wants: Wants::new(maker)?,
            index,
            purse,
            pace: Pace::new(maker.part, maker.limits.seed, Instant::now()),
            maker,
            asker,
            progress,
            asking,
            failure: None,
            several,
            next: VecDeque::new(),
            ended: false,
            retries: BinaryHeap::new(),
            disk,
            safe: None,
            batch: Vec::new(),
            under_way: JoinSet::new(),
            took: Vec::new(),
        })
    }

    /// Asks until nothing is left that can be had.
    pub(super) async fn work(mut self) -> Result<Self, DistillError> {
        loop {
            let wait = self.fill().await?;
            if self.safe.is_none() && self.under_way.is_empty() && wait.is_none() {
                self.took.sort_unstable();
                self.asking.median_ms = self.took.get(self.took.len() / 2).map(|&took| f64::from(took));
                return Ok(self);
            }
            match self.turn(wait).await? {
                Turn::Later => {}
                Turn::Safe(true) => self.send(),
                Turn::Safe(false) => self.disk.failure().await?,
                Turn::Ended(ended) => match *ended {
                    (request, Ok(reply)) => self.answered(request, reply).await?,
                    (request, Err(bad)) => self.failed(request, bad).await?,
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
            let Some((request, from)) = self.peek(now)? else {
                wait = self.retries.peek().map(|Reverse(retry)| retry.at);
                break;
            };
            let (most, tokens, count) = (request.most(), request.tokens(), request.count());
            match self.pace.may_send(tokens, self.under_way.len() + self.batch.len(), now) {
                May::Now => {}
                May::AfterAnother => break,
                May::At(moment) => {
                    wait = Some(moment);
                    break;
                }
            }
            match self.purse.hold(most, self.purse.max_tokens * u64::from(count)) {
                Held::Yes => {}
                Held::NotNow => break,
                // There may be enough for some of them.
                Held::Never(_) if count > 1 => {
                    let together = self.take(from);
                    self.apart(together);
                    continue;
                }
                Held::Never(why) => {
                    self.asking.stopped = Some(why);
                    break;
                }
            }
            self.pace.sent(tokens);
            let request = self.take(from);
            self.batch.extend(request);
        }
        if !self.batch.is_empty() {
            let held = self
                .batch
                .iter()
                .flat_map(|request| request.wants.iter().map(|want| (want.id, want.most, request.count())));
            self.safe = Some(self.disk.hold(held).await?);
        }
        Ok(wait)
    }

    /// What is to be sent next, and where it stands.
    fn peek(&mut self, now: Instant) -> Result<Option<(&Request, From)>, DistillError> {
        let due = self.retries.peek().is_some_and(|Reverse(retry)| retry.at <= now);
        if !due && self.next.is_empty() && !self.ended && self.retries.len() < self.maker.part.concurrency {
            self.next.extend(self.wants.next_request(&self.index, self.several)?);
            self.ended = self.next.is_empty();
        }
        Ok(match self.retries.peek() {
            Some(Reverse(retry)) if due => Some((&retry.request, From::Retries)),
            _ => self.next.front().map(|request| (request, From::File)),
        })
    }

    fn take(&mut self, from: From) -> Option<Request> {
        match from {
            From::Retries => self.retries.pop().map(|Reverse(retry)| retry.request),
            From::File => self.next.pop_front(),
        }
    }

    /// What was to be asked for together is asked for one by one.
    fn apart(&mut self, requests: impl IntoIterator<Item = Request>) {
        for request in requests {
            for alone in request.apart().collect::<Vec<_>>().into_iter().rev() {
                self.next.push_front(alone);
            }
        }
    }

    /// The server does not give several answers to a request.
    fn not_several(&mut self) {
        if std::mem::replace(&mut self.several, false) {
            self.progress.note("the server does not give several answers to one request: each is asked for by itself");
        }
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
        for mut request in self.batch.drain(..) {
            request.sent = Instant::now();
            let asker = Arc::clone(&self.asker);
            self.under_way.spawn(async move {
                let outcome = asker.ask(&request).await;
                (request, outcome)
            });
        }
    }

    async fn answered(&mut self, mut request: Request, reply: Reply) -> Result<(), DistillError> {
        let Reply { answers, usage, told } = reply;
        if self.took.len() < TIMED {
            self.took.push(u32::try_from(request.sent.elapsed().as_millis()).unwrap_or(u32::MAX));
        }
        let (most, under_way) = (request.tokens(), self.under_way.len() + self.batch.len());
        self.pace.answered(most, usage.total(), told, under_way as u64, Instant::now());
        let (of, class) = (request.count(), self.maker.limits.class_of(false));
        let missing = request.wants.split_off(answers.len().min(request.wants.len()));
        let mut counted = Money::ZERO;
        for (want, answer) in request.wants.iter().zip(&answers) {
            let cost = self.maker.limits.prices.cost(answer.usage, class);
            self.purse.settle(want, cost, answer.usage, told.replayed, of);
            counted += cost;
        }
        // Each row counts the prompt that all of them share.
        let saved = counted - self.maker.limits.prices.cost(usage, class);
        self.purse.save(saved);
        let count = answers.len() as u64;
        let rows = request.wants.iter().map(|want| want.id).zip(answers.into_iter().map(|answer| answer.line));
        self.disk.keep(rows, told.replayed, of, saved).await?;
        self.asking.answered += count;
        self.asking.replayed += if told.replayed { count } else { 0 };
        self.progress.advance(count);
        if !missing.is_empty() {
            self.not_several();
            for want in &missing {
                self.purse.release(want.most);
                self.disk.free(&want.id, of).await?;
            }
            self.apart([Request::of(missing)]);
        }
        Ok(())
    }

    async fn failed(&mut self, mut request: Request, bad: Bad) -> Result<(), DistillError> {
        let (now, of) = (Instant::now(), request.count());
        for want in &request.wants {
            if bad.charged {
                self.purse.lose(want, of);
            } else {
                self.purse.release(want.most);
                self.disk.free(&want.id, of).await?;
            }
        }
        let at = match bad.remedy {
            Remedy::Retry { after_ms } if bad.busy => {
                let end = self.pace.refused(&request, after_ms, now);
                (self.pace.silent_for(now) < PATIENCE).then_some(end)
            }
            Remedy::Retry { after_ms } => {
                request.tries += 1;
                let slow = bad.error.code == "timeout";
                (request.tries < TRIES).then(|| self.pace.failed(&request, slow, after_ms, now))
            }
            // It does not count as a try: a connection broke, and the first try goes on without it.
            Remedy::Wait { after_ms } => {
                let wait = Duration::from_millis(after_ms.unwrap_or(1000));
                (self.pace.silent_for(now) < PATIENCE).then_some(now + wait)
            }
            Remedy::Rename => {
                request.tries += 1;
                request.edition += 1;
                (request.tries < TRIES).then_some(now)
            }
            // Perhaps it is the number of answers that it does not accept.
            Remedy::Skip if of > 1 => {
                self.not_several();
                self.apart([request]);
                return Ok(());
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
                self.retries.push(Reverse(Retry { at, request }));
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
    request: Request,
}

impl Retry {
    fn place(&self) -> Option<u32> {
        self.request.wants.first().map(|want| want.place)
    }
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
        (self.at, self.place()).cmp(&(other.at, other.place()))
    }
}
