//! What is remembered of each account in memory: its rate, its requests under way, and how many exchanges it has had.

use std::collections::HashMap;

use anbiq_domain::{AccountId, Timestamp};
use http::{HeaderMap, HeaderValue};

/// What is remembered of all accounts; as many as there are accounts with a valid key.
#[derive(Debug, Default)]
pub(crate) struct Accounts(HashMap<AccountId, State>);

#[derive(Debug, Default)]
struct State {
    exchanges: u64,
    bucket: Option<Bucket>,
    under_way: u32,
}

/// A token bucket: it holds a minute's requests and fills evenly.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Timestamp,
}

/// Where an account stands with its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) per_minute: u32,
    pub(crate) remaining: u32,
    /// Until the bucket is full again.
    pub(crate) reset_ms: u64,
}

/// A rate that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsedUp {
    pub(crate) rate: Rate,
    /// Until one more request is left.
    pub(crate) wait_ms: u64,
}

impl Rate {
    /// Writes it into the headers of an answer.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert("x-ratelimit-limit-requests", self.per_minute.into());
        headers.insert("x-ratelimit-remaining-requests", self.remaining.into());
        if let Ok(reset) = HeaderValue::try_from(format!("{}ms", self.reset_ms)) {
            headers.insert("x-ratelimit-reset-requests", reset);
        }
    }
}

impl Accounts {
    /// Counts one more exchange and says how many there were before.
    pub(crate) fn count(&mut self, account: &AccountId) -> u64 {
        let state = self.0.entry(account.clone()).or_default();
        let before = state.exchanges;
        state.exchanges += 1;
        before
    }

    /// Counts one more request of the account that is under way, unless there are `most` already.
    pub(crate) fn enter(&mut self, account: &AccountId, most: u32) -> bool {
        let state = self.0.entry(account.clone()).or_default();
        let enters = state.under_way < most;
        state.under_way += u32::from(enters);
        enters
    }

    /// A request that entered is over.
    pub(crate) fn leave(&mut self, account: &AccountId) {
        if let Some(state) = self.0.get_mut(account) {
            state.under_way = state.under_way.saturating_sub(1);
        }
    }

    /// Takes one request off the account's rate; where there is none left, says how many milliseconds to wait.
    pub(crate) fn take(&mut self, account: &AccountId, per_minute: u32, now: Timestamp) -> Result<Rate, UsedUp> {
        let full = f64::from(per_minute);
        let per_ms = full / 60_000.0;
        let state = self.0.entry(account.clone()).or_default();
        let bucket = state.bucket.get_or_insert(Bucket { left: full, at: now });
        // Simulated times may come out of order; time never runs backwards for a bucket.
        let passed = now.since(bucket.at).max(0);
        bucket.left = (bucket.left + passed as f64 * per_ms).min(full);
        bucket.at = bucket.at.max(now);
        let left = bucket.left;
        let until =
            |goal: f64, left: f64| if per_minute == 0 { 60_000 } else { ((goal - left) / per_ms).ceil() as u64 };
        let rate = |left: f64| Rate { per_minute, remaining: left as u32, reset_ms: until(full, left) };
        if left < 1.0 {
            return Err(UsedUp { rate: rate(left), wait_ms: until(1.0, left) });
        }
        bucket.left -= 1.0;
        Ok(rate(bucket.left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(milliseconds)
    }

    #[test]
    fn a_rate_is_a_minutes_requests_that_fill_evenly() {
        let mut accounts = Accounts::default();
        let (one, other) = (AccountId::new("a").unwrap(), AccountId::new("b").unwrap());
        let wait = |taken: Result<Rate, UsedUp>| taken.map_err(|used_up| used_up.wait_ms);
        assert_eq!(accounts.take(&one, 2, at(0)), Ok(Rate { per_minute: 2, remaining: 1, reset_ms: 30_000 }));
        assert_eq!(accounts.take(&one, 2, at(0)), Ok(Rate { per_minute: 2, remaining: 0, reset_ms: 60_000 }));
        assert_eq!(wait(accounts.take(&one, 2, at(10_000))), Err(20_000));
        assert!(accounts.take(&other, 2, at(10_000)).is_ok());
        assert_eq!(wait(accounts.take(&one, 2, at(5_000))), Err(20_000), "time runs forward");
        assert!(accounts.take(&one, 2, at(30_000)).is_ok());
        assert_eq!(wait(accounts.take(&one, 0, at(30_000))), Err(60_000));
    }

    #[test]
    fn exchanges_are_counted_by_account() {
        let mut accounts = Accounts::default();
        let (one, other) = (AccountId::new("a").unwrap(), AccountId::new("b").unwrap());
        assert_eq!([accounts.count(&one), accounts.count(&one), accounts.count(&other)], [0, 1, 0]);
    }
}
