//! What is remembered of each account in memory: its rate, and how many exchanges it has had.

use std::collections::HashMap;

use anbiq_domain::{AccountId, Timestamp};

/// What is remembered of all accounts; as many as there are accounts with a valid key.
#[derive(Debug, Default)]
pub(crate) struct Accounts(HashMap<AccountId, State>);

#[derive(Debug, Default)]
struct State {
    exchanges: u64,
    bucket: Option<Bucket>,
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

impl Accounts {
    /// Counts one more exchange and says how many there were before.
    pub(crate) fn count(&mut self, account: &AccountId) -> u64 {
        let state = self.0.entry(account.clone()).or_default();
        let before = state.exchanges;
        state.exchanges += 1;
        before
    }

    /// Takes one request off the account's rate; where there is none left, says how many milliseconds to wait.
    pub(crate) fn take(&mut self, account: &AccountId, per_minute: u32, now: Timestamp) -> Result<Rate, u64> {
        let full = f64::from(per_minute);
        let per_ms = full / 60_000.0;
        let state = self.0.entry(account.clone()).or_default();
        let bucket = state.bucket.get_or_insert(Bucket { left: full, at: now });
        // Simulated times may come out of order; time never runs backwards for a bucket.
        let passed = now.since(bucket.at).max(0);
        bucket.left = (bucket.left + passed as f64 * per_ms).min(full);
        bucket.at = bucket.at.max(now);
        if bucket.left < 1.0 {
            let wait = if per_minute == 0 { 60_000.0 } else { (1.0 - bucket.left) / per_ms };
            return Err(wait.ceil() as u64);
        }
        bucket.left -= 1.0;
        let reset_ms = ((full - bucket.left) / per_ms).ceil() as u64;
        Ok(Rate { per_minute, remaining: bucket.left as u32, reset_ms })
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
        assert_eq!(accounts.take(&one, 2, at(0)), Ok(Rate { per_minute: 2, remaining: 1, reset_ms: 30_000 }));
        assert_eq!(accounts.take(&one, 2, at(0)), Ok(Rate { per_minute: 2, remaining: 0, reset_ms: 60_000 }));
        assert_eq!(accounts.take(&one, 2, at(10_000)), Err(20_000));
        assert!(accounts.take(&other, 2, at(10_000)).is_ok());
        assert_eq!(accounts.take(&one, 2, at(5_000)), Err(20_000), "time runs forward");
        assert!(accounts.take(&one, 2, at(30_000)).is_ok());
        assert_eq!(accounts.take(&one, 0, at(30_000)), Err(60_000));
    }

    #[test]
    fn exchanges_are_counted_by_account() {
        let mut accounts = Accounts::default();
        let (one, other) = (AccountId::new("a").unwrap(), AccountId::new("b").unwrap());
        assert_eq!([accounts.count(&one), accounts.count(&one), accounts.count(&other)], [0, 1, 0]);
    }
}
