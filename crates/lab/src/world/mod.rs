//! Composed traffic: who calls a teacher, when, and with what.
//!
//! No public data set joins accounts, prompts and times, so a world is composed: accounts of known kinds, prompts of the
//! generated corpus, arrival times of a real service where they are at hand and drawn ones otherwise. Every figure from
//! it must say so; [`World::composed_from`] has the words.

mod arrivals;
mod cast;
mod rhythm;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anbiq_domain::{AccountId, Message, PlanId, Seeded, Timestamp};
use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::corpus::{Corpus, Kind};
pub use arrivals::{Arrival, Arrivals, Caller};
pub use rhythm::Rhythm;

/// What world to compose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldConfig {
    /// Seed of every choice.
    pub seed: u64,
    /// How much traffic.
    pub scale: Scale,
    /// Folder that holds real traces as `watch/conv_2023.csv` and `watch/code_2023.csv`; without it, or where they are
    /// not there, arrivals are drawn.
    pub traces: Option<PathBuf>,
    /// When the world begins: a midnight, UTC.
    pub start: Timestamp,
}

impl WorldConfig {
    /// A world of `scale` that begins on Monday 2 March 2026, with drawn arrivals.
    pub const fn new(seed: u64, scale: Scale) -> Self {
        Self { seed, scale, traces: None, start: Timestamp::from_milliseconds(1_772_409_600_000) }
    }
}

/// How much traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The case of `anbiq demo`: about 2,600 exchanges.
    Full,
    /// The same accounts with about two fifths of the exchanges.
    Quick,
}

impl Scale {
    /// How many exchanges are made of `full`; `quick` are the least.
    fn of(self, full: usize, quick: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// What an account is: the truth that `watch` must find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// A person who chats.
    Person,
    /// A business application that fills one template.
    Application,
    /// An evaluation harness that runs one list of items over and over.
    Harness,
    /// A firm that labels reviews in batches, with two accounts.
    Labeller,
    /// A distiller with a grant.
    Licensee,
    /// One of the quiet accounts between which one operator splits its harvest.
    Operator,
}

impl Group {
    /// Is it honest: neither an undeclared harvest nor a licensed one?
    pub const fn is_honest(self) -> bool {
        !matches!(self, Self::Licensee | Self::Operator)
    }
}

/// An account of the world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountSpec {
    /// Its id.
    pub id: AccountId,
    /// What it is.
    pub group: Group,
    /// Its plan: `standard`, or `licensed` for the distiller with a grant.
    pub plan: PlanId,
    /// Its means of payment, as the provider's bank names it.
    pub payment: Option<String>,
    /// When it was opened.
    pub opened: Timestamp,
    /// Where it usually calls from.
    pub address: IpAddr,
    /// With which software.
    pub agent: String,
    /// How many calls it makes side by side; they begin in order all the same.
    pub side_by_side: usize,
}

/// A request that will be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// When, in simulated time.
    pub at: Timestamp,
    /// Whose: a place in [`World::accounts`].
    pub account: usize,
    /// What the prompt asks for.
    pub kind: Kind,
    /// What is said: a whole conversation, or what is added to it where `continues` is set.
    pub messages: Vec<Message>,
    /// Does it go on from the account's call before, with the answer to it?
    pub continues: bool,
    /// From where.
    pub address: IpAddr,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature.
    pub temperature: f32,
    /// Is the answer streamed?
    pub stream: bool,
    /// Alternatives a token whose log-probabilities are asked for.
    pub logprobs: Option<u8>,
    /// Does the caller declare that it distills?
    pub declared: bool,
}

/// Accounts and what they do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct World {
    /// Who.
    pub accounts: Vec<AccountSpec>,
    /// What, in order of time.
    pub calls: Vec<Call>,
    /// When it begins.
    pub start: Timestamp,
    /// What arrival times and lengths were made of, in words.
    pub composed_from: String,
}

impl World {
    /// Composes a world. The same configuration gives the same world, with or without traces at hand.
    ///
    /// # Errors
    /// A trace is there but cannot be read.
    pub fn compose(config: &WorldConfig) -> Result<Self, LabError> {
        let corpus = Corpus::new(config.seed);
        let arrivals = Arrivals::open(config.traces.as_deref())?;
        let composed_from = arrivals.source().to_owned();
        let mut composer = Composer::new(config, &corpus, arrivals);
        cast::people(&mut composer)?;
        cast::applications(&mut composer)?;
        cast::harness(&mut composer)?;
        cast::labellers(&mut composer)?;
        cast::licensee(&mut composer)?;
        cast::operator(&mut composer)?;
        let Composer { accounts, mut calls, .. } = composer;
        // Stable: calls of one account at one moment stay in their order.
        calls.sort_by_key(|call| call.at);
        Ok(Self { accounts, calls, start: config.start, composed_from })
    }

    /// The accounts of `group`, in order.
    pub fn group(&self, group: Group) -> impl Iterator<Item = &AccountSpec> {
        self.accounts.iter().filter(move |account| account.group == group)
    }

    /// How many calls the accounts of `group` make.
    pub fn calls_of(&self, group: Group) -> usize {
        self.calls.iter().filter(|call| self.accounts.get(call.account).is_some_and(|by| by.group == group)).count()
    }
}

/// A world under composition.
struct Composer<'a> {
    corpus: &'a Corpus,
    scale: Scale,
    start: Timestamp,
    random: Seeded,
    arrivals: Arrivals,
    accounts: Vec<AccountSpec>,
    calls: Vec<Call>,
}

impl<'a> Composer<'a> {
    fn new(config: &WorldConfig, corpus: &'a Corpus, arrivals: Arrivals) -> Self {
        Self {
            corpus,
            scale: config.scale,
            start: config.start,
            random: Seeded::new(config.seed).fork("world"),
            arrivals,
            accounts: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// The moment `hours` after the beginning.
    fn after(&self, hours: f64) -> Timestamp {
        self.start.plus_milliseconds((hours * 3_600_000.0) as i64)
    }
}

/// An address in the network `first.second.third`.
fn host([first, second, third]: [u8; 3], random: &mut Seeded) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(first, second, third, 1 + random.below(254) as u8))
}

/// A network of a home, an office or a proxy; never a private or a reserved one.
fn network(random: &mut Seeded) -> [u8; 3] {
    const FIRST: [u8; 12] = [23, 31, 46, 62, 77, 81, 92, 109, 151, 178, 188, 203];
    let first = random.pick(&FIRST).copied().unwrap_or(23);
    [first, 16 + random.below(200) as u8, random.below(256) as u8]
}

#[cfg(test)]
mod tests;
