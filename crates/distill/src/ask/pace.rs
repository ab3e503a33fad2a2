//! When the next request may be sent: as soon as the server and the recipe allow it.
//!
//! Five things decide, and all of them must agree: how many requests may be under way ([`Window`]), the recipe's own
//! limits a minute ([`Bucket`]), what the server says is left of its limits, a pause that the server asked for, and
//! places in the queue.

use std::time::Duration;

use anbiq_domain::Seeded;
use anbiq_upstream::{Quota, Told};
use tokio::time::Instant;

use super::want::Request;
use crate::recipe::AskPart;

/// Longest pause of our own choice, in milliseconds; the server may ask for a longer one.
const LONGEST_PAUSE_MS: u64 = 60_000;

/// The shortest wait; what is shorter would be rounded to none.
const TICK: Duration = Duration::from_micros(1);

/// May a request be sent now?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    Now,
    /// Not before this moment.
    At(Instant),
    /// Not before one that is under way has ended.
    AfterAnother,
}

/// All that says how fast to go.
#[derive(Debug)]
pub(crate) struct Pace {
    window: Window,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    left_requests: Left,
    left_tokens: Left,
    pause: Option<Instant>,
    /// Refusals since the last answer.
    refused: u32,
    /// The last answer.
    alive: Instant,
    /// The longest wait that the server asked for since.
    asked: Duration,
    random: Seeded,
}

impl Pace {
    pub(crate) fn new(part: &AskPart, seed: u64, now: Instant) -> Self {
        Self {
            window: Window::new(part.concurrency, now),
            requests: part.requests_per_minute.map(|limit| Bucket::new(u64::from(limit.get()), now)),
            tokens: part.tokens_per_minute.map(|limit| Bucket::new(limit.get(), now)),
            left_requests: Left::default(),
            left_tokens: Left::default(),
            pause: None,
            refused: 0,
            alive: now,
            asked: Duration::ZERO,
            random: Seeded::new(seed).fork("waiting between tries"),
        }
    }

    /// May a request of at most `tokens` tokens be sent where `under_way` are?
    pub(crate) fn may_send(&mut self, tokens: u64, under_way: usize, now: Instant) -> May {
        if let Some(end) = self.pause {
            if now < end {
                return May::At(end);
            }
            self.pause = None;
        }
        if under_way >= self.window.size() {
            return May::AfterAnother;
        }
        let waits = [
            self.requests.as_mut().and_then(|bucket| bucket.wait(1, now)),
            self.tokens.as_mut().and_then(|bucket| bucket.wait(tokens, now)),
            self.left_requests.wait(1, now),
            self.left_tokens.wait(tokens, now),
        ];
        waits.into_iter().flatten().max().map_or(May::Now, May::At)
    }

    /// A request of at most `tokens` tokens is sent.
    pub(crate) fn sent(&mut self, tokens: u64) {
        for (bucket, cost) in [(&mut self.requests, 1), (&mut self.tokens, tokens)] {
            if let Some(bucket) = bucket {
                bucket.take(cost);
            }
        }
        self.left_requests.take(1);
        self.left_tokens.take(tokens);
    }

    /// An answer came that took `used` of the `most` tokens that were allowed for, and its head `told` what is left where
    /// `under_way` others were under way, each taken to be as large.
    pub(crate) fn answered(&mut self, most: u64, used: u64, told: Told, under_way: u64, now: Instant) {
        self.window.grow();
        self.refused = 0;
        self.alive = now;
        self.asked = Duration::ZERO;
        if let Some(bucket) = &mut self.tokens {
            bucket.give_back(most.saturating_sub(used));
        }
        self.left_requests.tell(told.requests, under_way, now);
        self.left_tokens.tell(told.tokens, under_way.saturating_mul(most), now);
    }

    /// The server asks for less: everything waits, for as long as it says or longer each time.
    pub(crate) fn refused(&mut self, request: &Request, after_ms: Option<u64>, now: Instant) -> Instant {
        self.window.shrink(request.sent, now);
        self.refused = self.refused.saturating_add(1);
        let wait = Duration::from_millis(after_ms.unwrap_or_else(|| backoff(self.refused, &mut self.random)));
        if after_ms.is_some() {
            self.asked = self.asked.max(wait);
        }
        let end = now + wait;
        self.pause = self.pause.max(Some(end));
        end
    }

    /// How long one request waits that failed by itself. Where it was `slow`, fewer are sent at a time.
    pub(crate) fn failed(&mut self, request: &Request, slow: bool, after_ms: Option<u64>, now: Instant) -> Instant {
        if slow {
            self.window.shrink(request.sent, now);
        }
        now + Duration::from_millis(after_ms.unwrap_or_else(|| backoff(request.tries, &mut self.random)))
    }

    /// For how long nothing was answered, beyond what the server asked to wait.
    pub(crate) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.alive).saturating_sub(self.asked)
    }
}

/// Full jitter (Brooker 2015): uniform up to a limit that doubles with each try, from half a second to a minute.
fn backoff(tries: u32, random: &mut Seeded) -> u64 {
    let limit = (250_u64 << tries.min(8)).min(LONGEST_PAUSE_MS);
    50 + random.below(usize::try_from(limit).unwrap_or(usize::MAX)) as u64
}

/// How many requests are under way: one more after each round that went well, half after a refusal (Chiu and Jain 1989).
#[derive(Debug)]
struct Window {
    size: f64,
    most: f64,
    shrunk: Instant,
}

impl Window {
    fn new(most: usize, now: Instant) -> Self {
        Self { size: (most as f64 / 4.0).max(1.0), most: most as f64, shrunk: now }
    }

    fn size(&self) -> usize {
        self.size as usize
    }

    fn grow(&mut self) {
        self.size = (self.size + 1.0 / self.size).min(self.most);
    }

    /// Once for all requests that were under way together: they tell of one and the same crowd.
    fn shrink(&mut self, sent: Instant, now: Instant) {
        if sent >= self.shrunk {
            self.size = (self.size / 2.0).max(1.0);
            self.shrunk = now;
        }
    }
}

/// A limit a minute, kept by a bucket that refills evenly.
///
/// What it holds when it is full and what comes in during a minute are the limit together, so that no minute, wherever
/// it begins, sees more. A limit below 120 is kept by even distances instead.
#[derive(Debug)]
struct Bucket {
    capacity: f64,
    a_second: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(limit: u64, now: Instant) -> Self {
        let limit = limit as f64;
        let capacity = if limit < 120.0 { 1.0 } else { (limit / 60.0).floor() };
        let a_second = if limit < 120.0 { limit / 60.0 } else { (limit - capacity) / 60.0 };
        Self { capacity, a_second, level: capacity, at: now }
    }

    /// Until when to wait before `cost` may be taken. One that costs more than ever fits waits until the bucket is full
    /// and leaves a debt.
    fn wait(&mut self, cost: u64, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.a_second).min(self.capacity);
        self.at = now;
        let missing = (cost as f64).min(self.capacity) - self.level;
        (missing > 1e-9).then(|| now + Duration::from_secs_f64(missing / self.a_second).max(TICK))
    }

    fn take(&mut self, cost: u64) {
        self.level -= cost as f64;
    }

    fn give_back(&mut self, cost: u64) {
        self.level = (self.level + cost as f64).min(self.capacity);
    }
}

/// What the server says is left of its limit, less what was sent since.
#[derive(Debug, Default)]
struct Left(Option<(u64, Instant)>);

impl Left {
    fn wait(&mut self, cost: u64, now: Instant) -> Option<Instant> {
        let (left, reset) = self.0?;
        if now >= reset {
            // It is whole again; the next answer says how large it is.
            self.0 = None;
            return None;
        }
        (left < cost).then_some(reset)
    }

    fn take(&mut self, cost: u64) {
        if let Some((left, _)) = &mut self.0 {
            *left = left.saturating_sub(cost);
        }
    }

    /// Whether the server has counted what is `under_way` is not known: that it has not is the safe side.
    fn tell(&mut self, told: Option<Quota>, under_way: u64, now: Instant) {
        if let Some(quota) = told {
            self.0 = Some((quota.left.saturating_sub(under_way), now + Duration::from_millis(quota.reset_ms)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever sends as soon as the bucket allows never sends more than the limit in a minute, wherever it begins.
        #[test]
        fn no_minute_sees_more_than_its_limit(
            limit in 1_u64..2_000,
            costs in prop::collection::vec((1_u64..40, 0_u64..3_000), 1..200),
        ) {
            let start = Instant::now();
            let (mut now, mut bucket) = (start, Bucket::new(limit, start));
            let mut sent: Vec<(Duration, u64)> = Vec::new();
            for (cost, idle_ms) in costs {
                now += Duration::from_millis(idle_ms);
                while let Some(moment) = bucket.wait(cost, now) {
                    prop_assert!(moment > now);
                    now = moment;
                }
                bucket.take(cost);
                sent.push((now - start, cost));
            }
            // One that costs more than a bucket holds leaves a debt, so a minute may see the rest of it beyond its limit.
            let most = sent.iter().map(|(_, cost)| *cost).max().unwrap_or_default();
            let capacity = if limit < 120 { 1 } else { limit / 60 };
            let minute = Duration::from_secs(60) - Duration::from_micros(10);
            for (place, (from, _)) in sent.iter().enumerate() {
                let within = sent[place..].iter().take_while(|(at, _)| *at < *from + minute);
                let sum: u64 = within.map(|(_, cost)| *cost).sum();
                prop_assert!(sum <= limit + most.saturating_sub(capacity), "{sum} of {limit} in a minute");
            }
        }
    }

    #[test]
    fn the_window_shrinks_once_a_round_and_grows_again() {
        let start = Instant::now();
        let mut window = Window::new(64, start);
        assert_eq!(window.size(), 16);
        for _ in 0..5 {
            window.shrink(start, start + Duration::from_secs(1));
        }
        assert_eq!(window.size(), 8, "all five were sent before the first refusal came");
        window.shrink(start + Duration::from_secs(2), start + Duration::from_secs(3));
        assert_eq!(window.size(), 4);
        for _ in 0..20 {
            window.grow();
        }
        assert!((7..=8).contains(&window.size()), "about one more a round: {}", window.size());
        for _ in 0..10_000 {
            window.grow();
        }
        assert_eq!(window.size(), 64);
    }

    #[test]
    fn what_the_server_says_is_left_is_not_overdrawn() {
        let now = Instant::now();
        let mut left = Left::default();
        assert_eq!(left.wait(1, now), None);
        left.tell(Some(Quota { left: 5, reset_ms: 1_000 }), 2, now);
        for _ in 0..3 {
            assert_eq!(left.wait(1, now), None);
            left.take(1);
        }
        let reset = now + Duration::from_secs(1);
        assert_eq!(left.wait(1, now), Some(reset));
        assert_eq!(left.wait(1, reset), None, "then it is whole again");
    }
}
