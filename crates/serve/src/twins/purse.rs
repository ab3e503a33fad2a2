use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anbiq_domain::{Money, Timestamp};

/// Milliseconds of a day.
const DAY: i64 = 24 * 3_600_000;

/// The money of a day (UTC) for twins of one mode.
///
/// The most that twins can cost is kept for them before they are drawn, so the limit holds whatever they turn out to cost.
#[derive(Debug)]
pub(crate) struct Purse {
    limit: Option<Money>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Days since 1970.
    day: i64,
    spent: Money,
    held: Money,
    /// Was it said today that there is no more?
    told: bool,
}

/// Money that is kept for twins that are being drawn. What is not [spent](Hold::spend) of it goes back.
#[derive(Debug)]
pub(crate) struct Hold {
    purse: Arc<Purse>,
    amount: Money,
}

/// There is not enough left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The money of a day.
    pub(crate) limit: Money,
    /// Is it the first time today?
    pub(crate) first_today: bool,
}

impl Purse {
    pub(crate) fn new(limit: Option<Money>) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    /// Keeps `amount` of the money of the day of `at`.
    pub(crate) fn take(self: &Arc<Self>, at: Timestamp, amount: Money) -> Result<Hold, Refused> {
        let mut state = self.lock();
        state.turn(at);
        match self.limit {
            Some(limit) if state.spent + state.held + amount > limit => {
                let first_today = !std::mem::replace(&mut state.told, true);
                Err(Refused { limit, first_today })
            }
            _ => {
                state.held += amount;
                Ok(Hold { purse: Arc::clone(self), amount })
            }
        }
    }

    /// Counts what was spent at `at`, before a restart.
    pub(crate) fn recall(&self, at: Timestamp, amount: Money) {
        let mut state = self.lock();
        state.turn(at);
        // Entries are nearly in the order of time; one of the day before does not count today.
        if day(at) == state.day {
            state.spent += amount;
        }
    }

    /// That today's limit was reached stands in the journal already.
    pub(crate) fn recall_told(&self, at: Timestamp) {
        let mut state = self.lock();
        state.turn(at);
        state.told |= day(at) == state.day;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one of numbers that holds by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// `cost` was spent.
    pub(crate) fn spend(self, cost: Money) {
        self.purse.lock().spent += cost;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.purse.lock();
        state.held = state.held - self.amount;
    }
}

impl State {
    /// A new day has money of its own; what is held is still to be spent. Simulated moments may lie before today: they
    /// count for today.
    fn turn(&mut self, at: Timestamp) {
        let today = day(at);
        if today > self.day {
            *self = Self { day: today, spent: Money::ZERO, held: self.held, told: false };
        }
    }
}

const fn day(at: Timestamp) -> i64 {
    at.milliseconds().div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_milliseconds(days * DAY + 5)
    }

    #[test]
    fn a_day_has_its_money_and_says_once_that_it_is_spent() {
        let purse = Purse::new(Some(Money::from_nanos(10)));
        let first = purse.take(at(3), Money::from_nanos(6)).unwrap();
        let refused = |first_today| Refused { limit: Money::from_nanos(10), first_today };
        assert_eq!(purse.take(at(3), Money::from_nanos(6)).unwrap_err(), refused(true));
        first.spend(Money::from_nanos(2));
        drop(purse.take(at(3), Money::from_nanos(8)).unwrap());
        assert_eq!(purse.take(at(3), Money::from_nanos(9)).unwrap_err(), refused(false));
        assert!(purse.take(at(4), Money::from_nanos(9)).is_ok());
        purse.recall(at(4), Money::from_nanos(9));
        purse.recall(at(2), Money::from_nanos(9));
        assert_eq!(purse.take(at(4), Money::from_nanos(2)).unwrap_err(), refused(true));
        assert!(Purse::new(None).take(at(4), Money::MAX).is_ok());
    }

    proptest! {
        #[test]
        fn the_limit_holds(costs in proptest::collection::vec((1..50_i64, 0..50_i64), 1..60)) {
            let purse = Purse::new(Some(Money::from_nanos(100)));
            let mut spent = 0;
            let mut held = std::collections::VecDeque::new();
            for (most, cost) in costs {
                if let Ok(hold) = purse.take(at(1), Money::from_nanos(most)) {
                    held.push_back((hold, cost.min(most)));
                }
                if held.len() > 2 && let Some((hold, cost)) = held.pop_front() {
                    hold.spend(Money::from_nanos(cost));
                    spent += cost;
                }
                prop_assert!(spent <= 100);
            }
        }
    }
}
