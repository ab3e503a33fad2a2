//! What is remembered of each account in memory: its rates, its requests under way, and how many exchanges it has had.

use std::collections::HashMap;
use std::fmt;

use anbiq_domain::{AccountId, Timestamp, Window};
use anbiq_ledger::Plan;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::gateway::Shared;

/// What is remembered of all accounts; as many as there are accounts with a valid key.
#[derive(Debug, Default)]
pub(crate) struct Accounts(HashMap<AccountId, State>);

#[derive(Debug, Default)]
struct State {
    exchanges: u64,
    /// Requests that were to become exchanges; some were refused.
    tried: u64,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    day: Day,
    under_way: u32,
}

/// A token bucket: it holds what a minute allows and fills evenly.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Timestamp,
}

/// The requests of one day of the calendar in UTC.
#[derive(Debug, Clone, Copy, Default)]
struct Day {
    began: Timestamp,
    count: u32,
}

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Requests,
    Tokens,
}

/// Where an account stands with one of its rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) of: Counted,
    pub(crate) limit: u32,
    /// For which the limit is.
    pub(crate) time: &'static str,
    pub(crate) remaining: u32,
    /// Until all of it is there again.
    pub(crate) reset_ms: u64,
}

/// A rate that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsedUp {
    pub(crate) rate: Rate,
    /// Until enough is left.
    pub(crate) wait_ms: u64,
}

impl Counted {
    /// `requests` or `tokens`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }

    /// The headers of the limit, of what is left of it, and of when all of it is there again.
    const fn headers(self) -> [HeaderName; 3] {
        match self {
            Self::Requests => [
                HeaderName::from_static("x-ratelimit-limit-requests"),
                HeaderName::from_static("x-ratelimit-remaining-requests"),
                HeaderName::from_static("x-ratelimit-reset-requests"),
            ],
            Self::Tokens => [
                HeaderName::from_static("x-ratelimit-limit-tokens"),
                HeaderName::from_static("x-ratelimit-remaining-tokens"),
                HeaderName::from_static("x-ratelimit-reset-tokens"),
            ],
        }
    }
}

impl Rate {
    /// Writes it into the headers of an answer.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let [limit, remaining, reset] = self.of.headers();
        headers.insert(limit, self.limit.into());
        headers.insert(remaining, self.remaining.into());
        if let Ok(value) = HeaderValue::try_from(format!("{}ms", self.reset_ms)) {
            headers.insert(reset, value);
        }
    }
}

/// Tokens that a request took off its account's rate: the most that it can use. Dropping it gives all of them back.
pub(crate) struct Taken {
    from: Option<(Shared, AccountId)>,
    per_minute: u32,
    taken: f64,
    used: u64,
}

impl Taken {
    /// Of a plan that does not limit tokens.
    pub(crate) const fn nothing() -> Self {
        Self { from: None, per_minute: 0, taken: 0.0, used: 0 }
    }

    pub(crate) const fn new(gateway: Shared, account: AccountId, per_minute: u32, taken: f64) -> Self {
        Self { from: Some((gateway, account)), per_minute, taken, used: 0 }
    }

    /// So many were used; the others are given back.
    pub(crate) fn used(mut self, tokens: u64) {
        self.used = tokens;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some((gateway, account)) = self.from.take() {
            gateway.accounts().give_back(&account, self.per_minute, self.taken - self.used as f64);
        }
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Taken({})", self.taken)
    }
}

impl Bucket {
    /// The bucket in `place` as it is at `now`.
    fn at(place: &mut Option<Self>, per_minute: u32, now: Timestamp) -> &mut Self {
        let full = f64::from(per_minute);
        let per_ms = full / 60_000.0;
        let bucket = place.get_or_insert(Self { left: full, at: now });
        // Simulated times may come out of order; time never runs backwards for a bucket.
        let passed = now.since(bucket.at).max(0);
        bucket.left = (bucket.left + passed as f64 * per_ms).min(full);
        bucket.at = bucket.at.max(now);
        bucket
    }

    /// Milliseconds until `goal` is in it.
    fn until(&self, goal: f64, per_minute: u32) -> u64 {
        let per_ms = f64::from(per_minute) / 60_000.0;
        if per_minute == 0 { 60_000 } else { ((goal - self.left) / per_ms).ceil() as u64 }
    }

    fn rate(&self, of: Counted, per_minute: u32) -> Rate {
        let reset_ms = self.until(per_minute.into(), per_minute);
        Rate { of, limit: per_minute, time: "a minute", remaining: self.left as u32, reset_ms }
    }

    /// Takes `amount` out of it, where it holds that much.
    fn take(&mut self, amount: f64, of: Counted, per_minute: u32) -> Result<Rate, UsedUp> {
        if self.left < amount || per_minute == 0 {
            return Err(UsedUp { rate: self.rate(of, per_minute), wait_ms: self.until(amount, per_minute) });
        }
        self.left -= amount;
        Ok(self.rate(of, per_minute))
    }
}

impl Day {
    /// The day in `place` as it is at `now`: a later one begins anew.
    fn at(&mut self, now: Timestamp) -> &mut Self {
        let (began, _) = Window::Day.around(now);
        if began > self.began {
            *self = Self { began, count: 0 };
        }
        self
    }

    fn rate(&self, per_day: u32, now: Timestamp) -> Rate {
        let ends = Window::Day.around(self.began).1.unwrap_or(now);
        let reset_ms = u64::try_from(ends.since(now)).unwrap_or(0);
        let remaining = per_day.saturating_sub(self.count);
        Rate { of: Counted::Requests, limit: per_day, time: "a day", remaining, reset_ms }
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

    /// Counts one more request that is to become an exchange, and says how many there were before.
    pub(crate) fn try_one_more(&mut self, account: &AccountId) -> u64 {
        let state = self.0.entry(account.clone()).or_default();
        state.tried += 1;
        state.tried - 1
    }

    /// Counts an exchange that was before this gateway began.
    pub(crate) fn recall(&mut self, account: &AccountId, at: Timestamp) {
        let state = self.0.entry(account.clone()).or_default();
        state.exchanges += 1;
        state.tried += 1;
        if Window::Day.around(at).0 >= state.day.began {
            state.day.at(at).count += 1;
        }
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

    /// Takes one request off the account's rates, and gives the one of which less is left; where none is left of one of
    /// them, says for how long.
    pub(crate) fn take(&mut self, account: &AccountId, plan: &Plan, now: Timestamp) -> Result<Option<Rate>, UsedUp> {
        if plan.requests_per_minute.is_none() && plan.requests_per_day.is_none() {
            return Ok(None);
        }
        let state = self.0.entry(account.clone()).or_default();
        let day = state.day.at(now);
        if let Some(rate) =
            plan.requests_per_day.map(|per_day| day.rate(per_day, now)).filter(|rate| rate.remaining == 0)
        {
            return Err(UsedUp { rate, wait_ms: rate.reset_ms });
        }
        let minute = match plan.requests_per_minute {
            None => None,
            Some(most) => Some(Bucket::at(&mut state.requests, most, now).take(1.0, Counted::Requests, most)?),
        };
        day.count += 1;
        let day = plan.requests_per_day.map(|per_day| day.rate(per_day, now));
        Ok(minute.into_iter().chain(day).min_by_key(|rate| rate.remaining))
    }

    /// Takes the tokens off the account's rate that a request can use, and gives how many: one that can use more than a
    /// minute's takes all of those.
    pub(crate) fn take_tokens(
        &mut self,
        account: &AccountId,
        most: u64,
        per_minute: u32,
        now: Timestamp,
    ) -> Result<f64, UsedUp> {
        let amount = (most as f64).min(per_minute.into());
        let state = self.0.entry(account.clone()).or_default();
        Bucket::at(&mut state.tokens, per_minute, now).take(amount, Counted::Tokens, per_minute)?;
        Ok(amount)
    }

    /// Gives back tokens that were taken and not used; fewer than none where more were used than a minute has.
    fn give_back(&mut self, account: &AccountId, per_minute: u32, tokens: f64) {
        if let Some(bucket) = self.0.get_mut(account).and_then(|state| state.tokens.as_mut()) {
            bucket.left = (bucket.left + tokens).min(per_minute.into());
        }
    }

    /// Where the account stands with its rate of tokens.
    pub(crate) fn tokens(&mut self, account: &AccountId, per_minute: u32, now: Timestamp) -> Rate {
        let state = self.0.entry(account.clone()).or_default();
        Bucket::at(&mut state.tokens, per_minute, now).rate(Counted::Tokens, per_minute)
    }
}

#[cfg(test)]
mod tests {
    use anbiq_domain::PlanId;

    use super::*;

    const DAY: i64 = 24 * 3_600_000;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(milliseconds)
    }

    fn plan(requests_per_minute: Option<u32>, requests_per_day: Option<u32>) -> Plan {
        Plan { requests_per_minute, requests_per_day, ..Plan::new(PlanId::new("p").unwrap()) }
    }

    fn wait(taken: Result<Option<Rate>, UsedUp>) -> Result<u32, u64> {
        taken.map(|rate| rate.unwrap().remaining).map_err(|used_up| used_up.wait_ms)
    }

    #[test]
    fn a_rate_is_a_minutes_requests_that_fill_evenly() {
        let mut accounts = Accounts::default();
        let (one, other) = (AccountId::new("a").unwrap(), AccountId::new("b").unwrap());
        let (two, none) = (plan(Some(2), None), plan(Some(0), None));
        let rate = accounts.take(&one, &two, at(0)).unwrap().unwrap();
        assert_eq!((rate.limit, rate.remaining, rate.reset_ms), (2, 1, 30_000));
        assert_eq!(accounts.take(&one, &two, at(0)).unwrap().unwrap().reset_ms, 60_000);
        assert_eq!(wait(accounts.take(&one, &two, at(10_000))), Err(20_000));
        assert!(accounts.take(&other, &two, at(10_000)).is_ok());
        assert_eq!(wait(accounts.take(&one, &two, at(5_000))), Err(20_000), "time runs forward");
        assert!(accounts.take(&one, &two, at(30_000)).is_ok());
        assert_eq!(wait(accounts.take(&one, &none, at(30_000))), Err(60_000));
        assert_eq!(accounts.take(&one, &plan(None, None), at(0)), Ok(None));
    }

    #[test]
    fn a_day_has_its_own_count() {
        let mut accounts = Accounts::default();
        let one = AccountId::new("a").unwrap();
        let three = plan(Some(10), Some(3));
        accounts.recall(&one, at(DAY - 1));
        accounts.recall(&one, at(DAY + 1));
        assert_eq!(wait(accounts.take(&one, &three, at(DAY + 2))), Ok(1), "one of today was recalled");
        assert_eq!(wait(accounts.take(&one, &three, at(DAY + 3))), Ok(0));
        assert_eq!(wait(accounts.take(&one, &three, at(DAY + 4))), Err(u64::try_from(DAY - 4).unwrap()));
        assert_eq!(wait(accounts.take(&one, &three, at(2 * DAY))), Ok(2));
        assert_eq!(accounts.take(&one, &plan(Some(1), Some(3)), at(2 * DAY)).unwrap().unwrap().time, "a minute");
    }

    #[test]
    fn tokens_that_are_not_used_are_given_back() {
        let mut accounts = Accounts::default();
        let one = AccountId::new("a").unwrap();
        let mut take = |most, now| accounts.take_tokens(&one, most, 600, at(now)).map_err(|used_up| used_up.wait_ms);
        assert_eq!(take(500, 0), Ok(500.0));
        assert_eq!(take(500, 0), Err(40_000));
        accounts.give_back(&one, 600, 450.0);
        let mut take = |most, now| accounts.take_tokens(&one, most, 600, at(now)).map_err(|used_up| used_up.wait_ms);
        assert_eq!(take(500, 0), Ok(500.0));
        // More than a minute has waits for all of it, and is charged what it used.
        assert_eq!(take(5_000, 55_000), Ok(600.0));
        accounts.give_back(&one, 600, 600.0 - 1_200.0);
        let rate = accounts.tokens(&one, 600, at(55_000));
        assert_eq!((rate.remaining, rate.reset_ms), (0, 120_000));
        assert!(accounts.take_tokens(&one, 1, 0, at(0)).is_err());
    }

    #[test]
    fn exchanges_are_counted_by_account() {
        let mut accounts = Accounts::default();
        let (one, other) = (AccountId::new("a").unwrap(), AccountId::new("b").unwrap());
        assert_eq!([accounts.count(&one), accounts.count(&one), accounts.count(&other)], [0, 1, 0]);
    }
}
