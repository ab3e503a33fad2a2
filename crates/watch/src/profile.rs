//! What is remembered of an account: bounded, whatever its traffic.

use std::collections::BTreeMap;

use anbiq_domain::{
    AccountId, Exchange, GrantId, ImportedExchange, Keyed, Money, RequestFacts, Sketch, TermsRef, Timestamp, flags,
};
use anbiq_statistics::siphash::SipHash;
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::alarm::{Bets, Scores};
use crate::cells::Finder;
use crate::handover::Handovers;

/// Distinct networks, agents and the like that one account may show before further ones are ignored.
pub(crate) const TALLY: usize = 32;
/// Distinct prompts whose repeats are counted: those with the smallest hashes.
const DISTINCT: usize = 128;
/// Prompts of several accounts that are counted together at most.
const DISTINCT_TOGETHER: usize = 1_024;
/// One in so many requests goes on with a conversation where an account is one that converses.
const CONVERSES: u64 = 20;
/// Buckets of a timeline.
const BUCKETS: usize = 48;
/// Width of a fresh timeline's buckets: a quarter of an hour.
const BUCKET_MS: i64 = 900_000;

/// One exchange as it is seen. What an imported log does not say is absent; a journal says everything.
#[derive(Debug)]
pub(crate) struct Observed<'a> {
    pub(crate) at: Timestamp,
    pub(crate) sketch: Option<&'a Sketch>,
    network: Option<Keyed>,
    agent: Option<Keyed>,
    /// The request's settings, folded to one number.
    settings: Option<u64>,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    cost: Money,
    pub(crate) deep: bool,
    elicits: bool,
    twinned: bool,
    terms: Option<&'a TermsRef>,
    grant: Option<&'a GrantId>,
}

/// One exchange as far as it is kept.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    /// Of a prompt without a sketch nothing is known.
    pub(crate) prompt: Option<Asked>,
}

/// What is kept of a prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Equal prompts are equal.
    pub(crate) exact: Keyed,
    /// Its cell; see [`Finder`].
    pub(crate) cell: u32,
    /// Does it go on with a conversation?
    pub(crate) deep: bool,
}

/// A sample as it is written down: of what goes on with a conversation the cell, which is never 0, with a minus before it. There are many of
/// them.
type Kept = (Timestamp, Option<(Keyed, i64)>);

impl From<Kept> for Sample {
    fn from((at, prompt): Kept) -> Self {
        let asked = |(exact, cell): (Keyed, i64)| Asked {
            exact,
            cell: u32::try_from(cell.unsigned_abs()).unwrap_or(u32::MAX),
            deep: cell < 0,
        };
        Self { at, prompt: prompt.map(asked) }
    }
}

impl From<Sample> for Kept {
    fn from(Sample { at, prompt }: Sample) -> Self {
        let sign = |deep: bool| if deep { -1 } else { 1 };
        (at, prompt.map(|Asked { exact, cell, deep }| (exact, sign(deep) * i64::from(cell))))
    }
}

/// One account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) account: AccountId,
    pub(crate) opened: Option<Timestamp>,
    pub(crate) payment: Option<Keyed>,
    pub(crate) networks: BTreeMap<Keyed, u64>,
    pub(crate) agents: BTreeMap<Keyed, u64>,
    pub(crate) settings: BTreeMap<u64, u64>,
    /// The models that it used, and when first.
    pub(crate) models: BTreeMap<String, Timestamp>,
    pub(crate) exchanges: u64,
    /// Those of them whose prompts were sketched.
    pub(crate) sketched: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost: Money,
    pub(crate) deep: u64,
    pub(crate) elicits: u64,
    pub(crate) twinned: u64,
    pub(crate) granted_tokens: BTreeMap<GrantId, u64>,
    pub(crate) granted_exchanges: u64,
    #[serde(with = "pairs")]
    pub(crate) terms: BTreeMap<TermsRef, u64>,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    pub(crate) hours: [u32; 24],
    pub(crate) distinct: Distinct,
    pub(crate) timeline: Timeline,
    /// A uniform sample of the exchanges (Vitter 1985, algorithm R), sorted by time.
    pub(crate) samples: Vec<Sample>,
    /// What was bet against its honesty.
    pub(crate) bets: Bets,
    /// What it did where others were refused.
    pub(crate) handovers: Handovers,
    /// Fixes which exchanges are kept, by their number; so nothing of a generator need be remembered.
    pub(crate) salt: u64,
}

/// A map as a list of pairs, since not every key can be a name in JSON.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Vec::<(K, V)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}

impl<'a> Observed<'a> {
    pub(crate) fn of(exchange: &'a Exchange) -> Self {
        let sketch = &exchange.sketch;
        Self {
            at: exchange.at,
            network: Some(exchange.client.network),
            agent: Some(exchange.client.agent),
            settings: Some(settings(&exchange.request)),
            prompt_tokens: exchange.usage.prompt_tokens,
            output_tokens: exchange.usage.completion_tokens,
            cost: exchange.cost,
            deep: sketch.flags & flags::MULTI_TURN != 0,
            elicits: elicits(sketch, Some(&exchange.request)),
            twinned: exchange.draws.twinning.is_some(),
            terms: exchange.terms.as_ref(),
            grant: exchange.grant.as_ref(),
            sketch: Some(sketch),
        }
    }

    pub(crate) fn of_imported(exchange: &'a ImportedExchange) -> Self {
        let usage = exchange.usage.unwrap_or_default();
        let sketch = exchange.sketch.as_ref();
        let request = exchange.request.as_ref();
        Self {
            at: exchange.at,
            network: exchange.network,
            agent: exchange.agent,
            settings: request.map(settings),
            prompt_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
            cost: exchange.cost.unwrap_or_default(),
            deep: sketch.is_some_and(|sketch| sketch.flags & flags::MULTI_TURN != 0),
            elicits: sketch.is_some_and(|sketch| elicits(sketch, request)),
            twinned: false,
            terms: None,
            grant: None,
            sketch,
        }
    }
}

/// Does it ask for reasoning, grades, further data or log-probabilities?
fn elicits(sketch: &Sketch, request: Option<&RequestFacts>) -> bool {
    let asks = flags::REASONING | flags::GRADING | flags::GENERATION;
    sketch.flags & asks != 0 || request.is_some_and(|request| request.logprobs.is_some())
}

/// What a client's software fixes: everything of the request that is not its text, folded to one number (FNV-1a).
fn settings(request: &RequestFacts) -> u64 {
    let parts = [
        request.route as u64,
        u64::from(request.stream),
        request.temperature.to_bits().into(),
        request.top_p.to_bits().into(),
        request.max_tokens.into(),
        request.n.into(),
        request.logprobs.map_or(0, |count| 1 + u64::from(count)),
    ];
    let bytes = parts.iter().flat_map(|part| part.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl Profile {
    pub(crate) fn new(account: AccountId, config: &Config) -> Self {
        Self {
            salt: SipHash::new(config.seed, 0).hash(account.as_str().as_bytes()),
            account,
            opened: None,
            payment: None,
            networks: BTreeMap::new(),
            agents: BTreeMap::new(),
            settings: BTreeMap::new(),
            models: BTreeMap::new(),
            exchanges: 0,
            sketched: 0,
            prompt_tokens: 0,
            output_tokens: 0,
            cost: Money::ZERO,
            deep: 0,
            elicits: 0,
            twinned: 0,
            granted_tokens: BTreeMap::new(),
            granted_exchanges: 0,
            terms: BTreeMap::new(),
            first: None,
            last: None,
            hours: [0; 24],
            distinct: Distinct::default(),
            timeline: Timeline::default(),
            samples: Vec::new(),
            bets: Bets::default(),
            handovers: Handovers::default(),
        }
    }

    /// Takes in an exchange; `keep` of all are kept as samples, and their prompts sorted into cells by `finder`. Against what a
    /// grant has `explained` nothing is bet.
    pub(crate) fn observe(&mut self, seen: &Observed<'_>, explained: bool, keep: usize, finder: &mut Finder) {
        let place = self.place(keep);
        let prompt = seen.sketch.map(|sketch| Asked {
            exact: sketch.exact,
            // Only of those that are kept the cell is asked for: that takes longer than all the rest.
            cell: if place.is_some() { finder.cell(sketch) } else { 0 },
            deep: seen.deep,
        });
        if !explained {
            let scores = Scores::of(seen, prompt.filter(|_| place.is_some()), self);
            self.bets.place(&scores);
        }
        self.sum_up(seen);
        if let Some(place) = place {
            if self.samples.len() >= keep {
                self.samples.remove(place);
            }
            let at = self.samples.partition_point(|sample| sample.at <= seen.at);
            self.samples.insert(at, Sample { at: seen.at, prompt });
        }
    }

    /// The place among the samples that the next exchange takes, of which `keep` are kept, if any.
    fn place(&self, keep: usize) -> Option<usize> {
        if self.samples.len() < keep {
            return Some(self.samples.len());
        }
        let drawn = SipHash::new(self.salt, 1).hash_number(self.exchanges);
        let place = ((u128::from(drawn) * u128::from(self.exchanges + 1)) >> 64) as usize;
        (place < keep).then_some(place)
    }

    fn sum_up(&mut self, seen: &Observed<'_>) {
        self.exchanges += 1;
        self.prompt_tokens += seen.prompt_tokens;
        self.output_tokens += seen.output_tokens;
        self.cost += seen.cost;
        self.deep += u64::from(seen.deep);
        self.elicits += u64::from(seen.elicits);
        self.twinned += u64::from(seen.twinned);
        self.sketched += u64::from(seen.sketch.is_some());
        seen.network.into_iter().for_each(|network| count(&mut self.networks, network));
        seen.agent.into_iter().for_each(|agent| count(&mut self.agents, agent));
        seen.settings.into_iter().for_each(|settings| count(&mut self.settings, settings));
        if let Some(terms) = seen.terms {
            count(&mut self.terms, terms.clone());
        }
        if let Some(grant) = seen.grant {
            self.granted_exchanges += 1;
            if self.granted_tokens.len() < TALLY || self.granted_tokens.contains_key(grant) {
                *self.granted_tokens.entry(grant.clone()).or_default() += seen.output_tokens;
            }
        }
        self.first = Some(self.first.map_or(seen.at, |first| first.min(seen.at)));
        self.last = Some(self.last.map_or(seen.at, |last| last.max(seen.at)));
        self.hours[hour_of_day(seen.at)] += 1;
        seen.sketch.iter().for_each(|sketch| self.distinct.add(sketch.exact));
        self.timeline.add(seen.at, seen.output_tokens);
    }

    /// `model` was used at `at`.
    pub(crate) fn uses(&mut self, model: &str, at: Timestamp) {
        if let Some(first) = self.models.get_mut(model) {
            *first = at.min(*first);
        } else if self.models.len() < TALLY {
            self.models.insert(model.to_owned(), at);
        }
    }

    /// Does it talk, at least at times, rather than call?
    pub(crate) fn converses(&self) -> bool {
        CONVERSES * self.deep >= self.sketched.max(1)
    }

    /// What the samples ask for, in their order.
    pub(crate) fn sketches(&self) -> impl Iterator<Item = &Asked> {
        self.samples.iter().filter_map(|sample| sample.prompt.as_ref())
    }
}

fn count<K: Ord>(tally: &mut BTreeMap<K, u64>, key: K) {
    if tally.len() < TALLY || tally.contains_key(&key) {
        *tally.entry(key).or_default() += 1;
    }
}

/// The hour of the day in UTC, 0..24.
pub(crate) fn hour_of_day(at: Timestamp) -> usize {
    usize::try_from(at.milliseconds().div_euclid(3_600_000).rem_euclid(24)).unwrap_or(0)
}

/// How often prompts repeat, in bounded memory: all occurrences of those prompts whose keyed hashes are smallest.
///
/// The hashes are uniform and the same for all accounts, so the prompts that remain are a uniform sample of the
/// distinct ones, and two accounts sample the same ones (bottom-k sketch, Cohen and Kaplan 2007).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Distinct(#[serde(with = "pairs")] BTreeMap<Keyed, u32>);

impl Distinct {
    fn add(&mut self, prompt: Keyed) {
        *self.0.entry(prompt).or_default() += 1;
        if self.0.len() > DISTINCT {
            self.0.pop_last();
        }
    }

    /// Was this prompt not there before? `None` of those of which nothing is remembered.
    pub(crate) fn is_new(&self, prompt: Keyed) -> Option<bool> {
        let full = self.0.len() >= DISTINCT;
        let last = self.0.keys().next_back().copied();
        (!full || last.is_some_and(|last| prompt <= last)).then(|| !self.0.contains_key(&prompt))
    }

    /// Adds the prompts of another account; what neither can have seen in full falls out.
    pub(crate) fn merge(&mut self, other: &Self) {
        let full = |sketch: &Self| (sketch.0.len() >= DISTINCT).then(|| sketch.0.keys().next_back().copied()).flatten();
        let limit = match (full(self), full(other)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        for (prompt, times) in &other.0 {
            *self.0.entry(*prompt).or_default() += times;
        }
        if let Some(limit) = limit {
            self.0.retain(|prompt, _| *prompt <= limit);
        }
        while self.0.len() > DISTINCT_TOGETHER {
            self.0.pop_last();
        }
    }

    /// Good and Turing's estimate that the next prompt is a new one: the share of exchanges whose prompt came once.
    pub(crate) fn new_rate(&self) -> f64 {
        let all: u64 = self.0.values().map(|times| u64::from(*times)).sum();
        let once = self.0.values().filter(|times| **times == 1).count();
        if all == 0 { 1.0 } else { once as f64 / all as f64 }
    }
}

/// Exchanges and output tokens over time, in at most [`BUCKETS`] buckets whose width doubles when needed.
/// Buckets start at whole multiples of their width since 1970, so timelines of several accounts add up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Timeline {
    pub(crate) width: i64,
    #[serde(with = "pairs")]
    pub(crate) buckets: BTreeMap<i64, (u64, u64)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width: BUCKET_MS, buckets: BTreeMap::new() }
    }
}

impl Timeline {
    fn add(&mut self, at: Timestamp, tokens: u64) {
        let bucket = self.buckets.entry(at.milliseconds().div_euclid(self.width)).or_default();
        bucket.0 += 1;
        bucket.1 += tokens;
        self.shrink();
    }

    /// Adds another timeline.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while other.width < self.width {
            other.double();
        }
        while self.width < other.width {
            self.double();
        }
        for (place, (exchanges, tokens)) in other.buckets {
            let bucket = self.buckets.entry(place).or_default();
            bucket.0 += exchanges;
            bucket.1 += tokens;
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        let too_long = |buckets: &BTreeMap<i64, (u64, u64)>| match (buckets.keys().next(), buckets.keys().next_back()) {
            (Some(first), Some(last)) => last - first >= BUCKETS as i64,
            _ => false,
        };
        while too_long(&self.buckets) {
            self.double();
        }
    }

    fn double(&mut self) {
        self.width *= 2;
        let fine = std::mem::take(&mut self.buckets);
        for (place, (exchanges, tokens)) in fine {
            let bucket = self.buckets.entry(place.div_euclid(2)).or_default();
            bucket.0 += exchanges;
            bucket.1 += tokens;
        }
    }
}
