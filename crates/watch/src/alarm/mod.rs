//! Alarms that are valid at any time.
//!
//! At some moments, the *looks*, accounts are grouped into operators by all that was seen until then. From one look to the next it
//! is bet that an operator's accounts are not used honestly, exchange by exchange. Grouping uses what was before, betting what
//! comes after; so neither can be wrong because of the other.
//!
//! **The null hypothesis** of an operator: each of its accounts has an honest [`Excuse`], which one is not known: it converses, or
//! asks few kinds of things, or sends more than it takes, or asks again what it asked. An excuse is a bound on the expectation of
//! a score of the next exchange, given everything before. **Random** are the exchanges. For each account and excuse a wager is
//! kept ([`wager`](anbiq_statistics::detector::wager)), an e-value as long as that excuse holds. An account counts with its best
//! excuse, the smallest of the four, and an operator with the product over its accounts. So the accounts need not have one
//! excuse in common, and honest accounts that are linked by mistake give no alarm. Accounts whose exchanges spoke
//! for an excuse until the last look are left out of the next bet: that is known beforehand, and nobody hides behind a chatty account.
//!
//! Every account carries a [`Detector`](anbiq_statistics::detector::Detector) that takes in, look by look, the e-value of the operator
//! it then belonged to. An operator goes by that of its first account, and the e-BH procedure over all accounts, with nothing
//! for those that are nobody's first, gives the alarms. What is guaranteed is said at [`Alarms::false_alarms`], of whatever
//! dependence between accounts, however they are grouped, and whenever one looks or stops.
//!
//! What an honest use without any of the four excuses does is *not* covered: customers who never converse, ask new things of many kinds
//! and take more than they send look like this. Hence an alarm alone does nothing. Only a campaign, found by its links and its
//! purpose, with an alarm besides is at the stage *act*.

mod excuse;
mod look;

use anbiq_domain::{Money, Timestamp};
pub(crate) use excuse::{Bets, Scores};
pub(crate) use look::{Looks, Verdict};
use serde::{Deserialize, Serialize};

pub use excuse::Excuse;

/// When alarms are given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alarms {
    /// Fewest hours, in the stream's own time, between two looks.
    pub look_hours: u32,
    /// Smallest growth in exchanges between two looks, as a share; it bounds what a long history costs.
    pub growth: f64,
    /// Where every account is honest, the probability that there is any alarm within [`Alarms::horizon_days`], over all accounts.
    /// Where some are not, the expected share of false ones among the alarms of a look is at most this, until then.
    pub false_alarms: f64,
    /// Days for which [`Alarms::false_alarms`] holds. After them the bound grows in proportion.
    pub horizon_days: u32,
}

impl Default for Alarms {
    fn default() -> Self {
        Self { look_hours: 6, growth: 0.02, false_alarms: 0.01, horizon_days: 90 }
    }
}

impl Alarms {
    /// The level of the e-BH procedure: the bound spread over the looks of the horizon.
    pub fn level(&self) -> f64 {
        let looks = f64::from(self.horizon_days) * 24.0 / f64::from(self.look_hours.max(1));
        (self.false_alarms / looks.max(1.0)).clamp(f64::MIN_POSITIVE, 1.0)
    }
}

/// How far things have come with an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing follows.
    Watch,
    /// A person should look.
    Review,
    /// Links, purpose and later exchanges each speak against it: something may be done.
    Act,
}

impl Stage {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Review => "review",
            Self::Act => "act",
        }
    }
}

/// The alarm of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// How far things have come.
    pub stage: Stage,
    /// The natural logarithm of its detector: the sum of the fortunes of those who bet against its honesty.
    pub nats: f64,
    /// What it must reach.
    pub needed: f64,
    /// What was won against each excuse since its accounts were first seen, in nats; only the smallest counts, account by account.
    pub against: Vec<(Excuse, f64)>,
    /// When it first was to be looked at by a person, and what was gone by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<Leak>,
    /// When it first was at the stage *act*, and what was gone by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Leak>,
}

impl Alarm {
    /// The first alarm of either kind.
    pub fn first(&self) -> Option<Leak> {
        [self.review, self.act].into_iter().flatten().min_by_key(|leak| leak.by)
    }
}

/// What the accounts of an operator had taken at some look: counted, not estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// Time of the last exchange before the look.
    pub by: Timestamp,
    /// Accounts that belonged to it then.
    pub accounts: u64,
    /// Exchanges of them until then.
    pub exchanges: u64,
    /// Tokens that they were served until then.
    pub output_tokens: u64,
    /// What they were charged until then.
    pub cost: Money,
}
