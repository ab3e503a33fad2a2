use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

use crate::{Alarms, Channel};

/// What the detector assumes and where it stops. Every number is a stated prior or a bound on memory; whatever
/// can be learned from the traffic itself is fitted instead (see the crate's documentation).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seed of every random choice.
    pub seed: u64,
    /// Threads to work in; as many as there are cores where it is not said. They change nothing but the time that it takes.
    #[serde(skip)]
    pub threads: Option<NonZeroUsize>,
    /// Exchanges an account whose sketches are kept: a uniform sample of all of them.
    pub samples: usize,
    /// Kinds of evidence that are not used.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub ignored: BTreeSet<Channel>,
    /// Fewest accounts that make a campaign.
    pub min_accounts: usize,
    /// Fewest exchanges from which an account's prompts say anything.
    pub min_exchanges: u64,
    /// Exchanges of a single unlinked account from which a harvest is sent to review.
    pub review_exchanges: u64,
    /// Nats that the evidence of a pair must exceed besides the prior odds of 1 to the number of accounts.
    pub margin: f64,
    /// Nats from which a channel counts as evidence of its own; a link needs two such channels.
    pub channel_minimum: f64,
    /// Nats by which a harvest must fit better than the best honest archetype.
    pub harvest_margin: f64,
    /// Probability that two accounts of different people share a means of payment.
    pub payment_coincidence: f64,
    /// Mean hours between two accounts that an operator opens in one sitting; it may also take 4 or 16 times as long.
    pub burst_hours: f64,
    /// Up to so many accounts every pair is examined; beyond, only pairs that some blocking key brings together.
    pub all_pairs_up_to: usize,
    /// Partners that one blocking key may give an account.
    pub block_partners: usize,
    /// Partners with whom an account is weighed at most: those with whom it shares most.
    pub partners: usize,
    /// Edges listed for one operator: the heaviest ones.
    pub listed_edges: usize,
    /// Unremarkable operators of one account listed in the report: those with most exchanges.
    pub listed_singles: usize,
    /// When alarms are given; without it no looks are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarms: Option<Alarms>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            threads: None,
            samples: 64,
            ignored: BTreeSet::new(),
            min_accounts: 5,
            min_exchanges: 8,
            review_exchanges: 500,
            margin: 2.0,
            channel_minimum: 1.0,
            harvest_margin: 2.0,
            payment_coincidence: 1e-3,
            burst_hours: 2.0,
            all_pairs_up_to: 600,
            block_partners: 12,
            partners: 48,
            listed_edges: 1_000,
            listed_singles: 1_000,
            alarms: None,
        }
    }
}

impl Config {
    pub(crate) fn threads(&self) -> NonZeroUsize {
        self.threads.or_else(|| available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }
}
