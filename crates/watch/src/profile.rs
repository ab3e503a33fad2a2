//! What is remembered of an account: bounded, whatever its traffic.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;

use anbiq_domain::{
    AccountId, ClockKind, Entry, Exchange, Grant, GrantId, Imported, ImportedExchange, Keyed, Money, RequestFacts,
    Seeded, Sketch, Terms, TermsRef, Timestamp, flags,
};

use crate::read::read;
use crate::{Config, Seen};

/// Distinct networks, agents and the like that one account may show before further ones are ignored.
const TALLY: usize = 64;
/// Distinct prompts whose repeats are counted: those with the smallest hashes.
const DISTINCT: usize = 256;
/// Buckets of a timeline.
const BUCKETS: usize = 96;
/// Width of a fresh timeline's buckets: a quarter of an hour.
const BUCKET_MS: i64 = 900_000;

/// Everything that was read, summed up.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) profiles: Vec<Profile>,
    pub(crate) terms: BTreeMap<TermsRef, Terms>,
    pub(crate) teachers: BTreeMap<String, TermsRef>,
    pub(crate) grants: BTreeMap<GrantId, HeldGrant>,
    pub(crate) simulated: bool,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) refusals: u64,
    /// Exchanges that other systems' logs tell of.
    pub(crate) imported: u64,
    /// Those of them that came without a sketch.
    pub(crate) unsketched: u64,
}

/// A grant and when it was taken back.
#[derive(Debug, Clone)]
pub(crate) struct HeldGrant {
    pub(crate) grant: Grant,
    pub(crate) revoked: Option<Timestamp>,
}

/// One exchange as far as it is kept. What an imported log does not say is absent; a journal says everything.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    pub(crate) sketch: Option<Sketch>,
    pub(crate) network: Option<Keyed>,
    pub(crate) agent: Option<Keyed>,
    /// The request's settings, folded to one number.
    pub(crate) settings: Option<u64>,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost: Money,
    pub(crate) deep: bool,
    pub(crate) elicits: bool,
    pub(crate) twinned: bool,
    pub(crate) terms: Option<TermsRef>,
    pub(crate) grant: Option<GrantId>,
}

/// One account.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) account: AccountId,
    pub(crate) opened: Option<Timestamp>,
    pub(crate) payment: Option<Keyed>,
    pub(crate) networks: BTreeMap<Keyed, u64>,
    pub(crate) agents: BTreeMap<Keyed, u64>,
    pub(crate) settings: BTreeMap<u64, u64>,
    pub(crate) models: BTreeSet<String>,
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
    pub(crate) terms: BTreeMap<TermsRef, u64>,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    pub(crate) hours: [u32; 24],
    pub(crate) distinct: Distinct,
    pub(crate) timeline: Timeline,
    /// A uniform sample of the exchanges (Vitter 1985, algorithm R), sorted by time once reading is over.
    pub(crate) samples: Vec<Sample>,
    random: Seeded,
}

impl World {
    /// Reads all `entries` once.
    pub(crate) fn read(seen: impl Iterator<Item = impl Into<Seen>>, config: &Config) -> Self {
        let mut world = match NonZeroUsize::new(config.threads().get() - 1) {
            Some(others) => read(seen.map(Into::into), others, config),
            None => {
                let (mut world, mut index) = (Self::default(), HashMap::new());
                seen.for_each(|seen| world.see(seen.into(), &mut index, config));
                world
            }
        };
        world.first = world.profiles.iter().filter_map(|profile| profile.first).min().unwrap_or_default();
        world.last = world.profiles.iter().filter_map(|profile| profile.last).max().unwrap_or_default();
        for profile in &mut world.profiles {
            profile.samples.sort_by_key(|sample| sample.at);
        }
        world.profiles.sort_by(|a, b| a.account.cmp(&b.account));
        world
    }

    pub(crate) fn see(&mut self, seen: Seen, index: &mut HashMap<AccountId, usize>, config: &Config) {
        match seen {
            Seen::Entry(entry) => self.take(entry, index, config),
            Seen::Imported(row) => self.take_imported(row, index, config),
        }
    }

    /// Adds what was read of other accounts.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.profiles.extend(other.profiles);
        self.imported += other.imported;
        self.unsketched += other.unsketched;
    }

    fn take(&mut self, entry: Entry, index: &mut HashMap<AccountId, usize>, config: &Config) {
        match entry {
            Entry::Opened { clock, .. } => self.simulated |= clock == ClockKind::Simulated,
            Entry::TermsIssued { terms, .. } => {
                self.teachers.insert(terms.teacher.clone(), terms.reference());
                self.terms.insert(terms.reference(), terms);
            }
            Entry::AccountOpened { at, account, payment, .. } => {
                let profile = self.profile(&account, index, config);
                profile.opened = Some(at);
                profile.payment = payment;
            }
            Entry::GrantGiven { grant } => {
                self.grants.insert(grant.id.clone(), HeldGrant { grant, revoked: None });
            }
            Entry::GrantRevoked { at, grant } => {
                if let Some(held) = self.grants.get_mut(&grant) {
                    held.revoked = Some(at);
                }
            }
            Entry::Exchange(exchange) => {
                let samples = config.samples;
                let profile = self.profile(&exchange.account, index, config);
                if profile.models.len() < TALLY && !profile.models.contains(&exchange.model) {
                    profile.models.insert(exchange.model.clone());
                }
                profile.observe(Sample::of(&exchange), samples);
            }
            Entry::Refused(_) => self.refusals += 1,
            Entry::CoinsCommitted { .. }
            | Entry::PricesSet { .. }
            | Entry::TermsAccepted { .. }
            | Entry::GrantAsked { .. }
            | Entry::GrantRefused { .. }
            | Entry::Administered(_)
            | Entry::TwinsDrawn(_)
            | Entry::TwinsStopped { .. }
            | Entry::TextsForgotten { .. }
            | Entry::Closed { .. } => {}
        }
    }

    fn take_imported(&mut self, row: Imported, index: &mut HashMap<AccountId, usize>, config: &Config) {
        match row {
            Imported::Account { account, opened, payment } => {
                let profile = self.profile(&account, index, config);
                profile.opened = opened.or(profile.opened);
                profile.payment = payment.or(profile.payment);
            }
            Imported::Exchange(exchange) => {
                self.imported += 1;
                self.unsketched += u64::from(exchange.sketch.is_none());
                let profile = self.profile(&exchange.account, index, config);
                if profile.models.len() < TALLY {
                    profile.models.extend(exchange.model.clone());
                }
                profile.observe(Sample::of_imported(&exchange), config.samples);
            }
            Imported::Refused { .. } => self.refusals += 1,
        }
    }

    fn profile(&mut self, account: &AccountId, index: &mut HashMap<AccountId, usize>, config: &Config) -> &mut Profile {
        let place = index.get(account).copied().unwrap_or_else(|| {
            let random = Seeded::new(config.seed).fork(account.as_str());
            self.profiles.push(Profile::new(account.clone(), random));
            index.insert(account.clone(), self.profiles.len() - 1);
            self.profiles.len() - 1
        });
        &mut self.profiles[place]
    }
}

impl Sample {
    fn of(exchange: &Exchange) -> Self {
        let sketch = exchange.sketch.clone();
        Self {
            at: exchange.at,
            network: Some(exchange.client.network),
            agent: Some(exchange.client.agent),
            settings: Some(settings(&exchange.request)),
            prompt_tokens: exchange.usage.prompt_tokens,
            output_tokens: exchange.usage.completion_tokens,
            cost: exchange.cost,
            deep: sketch.flags & flags::MULTI_TURN != 0,
            elicits: elicits(&sketch, Some(&exchange.request)),
            twinned: exchange.draws.twinning.is_some(),
            terms: exchange.terms.clone(),
            grant: exchange.grant.clone(),
            sketch: Some(sketch),
        }
    }

    fn of_imported(exchange: &ImportedExchange) -> Self {
        let usage = exchange.usage.unwrap_or_default();
        let sketch = exchange.sketch.clone();
        let request = exchange.request.as_ref();
        Self {
            at: exchange.at,
            network: exchange.network,
            agent: exchange.agent,
            settings: request.map(settings),
            prompt_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
            cost: exchange.cost.unwrap_or_default(),
            deep: sketch.as_ref().is_some_and(|sketch| sketch.flags & flags::MULTI_TURN != 0),
            elicits: sketch.as_ref().is_some_and(|sketch| elicits(sketch, request)),
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

/// What a client's software fixes: everything of the request that is not its text, folded to one number.
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
    fold(parts.iter().flat_map(|part| part.to_le_bytes()))
}

/// One number for some bytes, the same every time (FNV-1a).
pub(crate) fn fold(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl Profile {
    fn new(account: AccountId, random: Seeded) -> Self {
        Self {
            account,
            opened: None,
            payment: None,
            networks: BTreeMap::new(),
            agents: BTreeMap::new(),
            settings: BTreeMap::new(),
            models: BTreeSet::new(),
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
            random,
        }
    }

    fn observe(&mut self, sample: Sample, keep: usize) {
        self.exchanges += 1;
        self.prompt_tokens += sample.prompt_tokens;
        self.output_tokens += sample.output_tokens;
        self.cost += sample.cost;
        self.deep += u64::from(sample.deep);
        self.elicits += u64::from(sample.elicits);
        self.twinned += u64::from(sample.twinned);
        self.sketched += u64::from(sample.sketch.is_some());
        sample.network.into_iter().for_each(|network| count(&mut self.networks, network));
        sample.agent.into_iter().for_each(|agent| count(&mut self.agents, agent));
        sample.settings.into_iter().for_each(|settings| count(&mut self.settings, settings));
        if let Some(terms) = &sample.terms {
            count(&mut self.terms, terms.clone());
        }
        if let Some(grant) = &sample.grant {
            self.granted_exchanges += 1;
            if self.granted_tokens.len() < TALLY || self.granted_tokens.contains_key(grant) {
                *self.granted_tokens.entry(grant.clone()).or_default() += sample.output_tokens;
            }
        }
        self.first = Some(self.first.map_or(sample.at, |first| first.min(sample.at)));
        self.last = Some(self.last.map_or(sample.at, |last| last.max(sample.at)));
        self.hours[hour_of_day(sample.at)] += 1;
        sample.sketch.iter().for_each(|sketch| self.distinct.add(sketch.exact));
        self.timeline.add(sample.at, sample.output_tokens);
        self.keep(sample, keep);
    }

    fn keep(&mut self, sample: Sample, keep: usize) {
        if self.samples.len() < keep {
            self.samples.push(sample);
            return;
        }
        let place = self.random.below(usize::try_from(self.exchanges).unwrap_or(usize::MAX));
        if let Some(slot) = self.samples.get_mut(place) {
            *slot = sample;
        }
    }

    /// The sketches among the samples, in their order: what cells are made of.
    pub(crate) fn sketches(&self) -> impl Iterator<Item = &Sketch> {
        self.samples.iter().filter_map(|sample| sample.sketch.as_ref())
    }

    /// This account as it stood at `moment`, rebuilt from its samples: exact as long as all exchanges are kept.
    pub(crate) fn until(&self, moment: Timestamp) -> Self {
        let mut past = Self::new(self.account.clone(), self.random.clone());
        past.opened = self.opened.filter(|opened| *opened <= moment);
        past.payment = self.payment.filter(|_| past.opened.is_some() || self.opened.is_none());
        past.models.clone_from(&self.models);
        for sample in self.samples.iter().filter(|sample| sample.at <= moment) {
            past.observe(sample.clone(), usize::MAX);
        }
        past
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
#[derive(Debug, Clone, Default)]
pub(crate) struct Distinct(BTreeMap<Keyed, u32>);

impl Distinct {
    fn add(&mut self, prompt: Keyed) {
        self.add_times(prompt, 1);
    }

    fn add_times(&mut self, prompt: Keyed, times: u32) {
        *self.0.entry(prompt).or_default() += times;
        if self.0.len() > DISTINCT {
            self.0.pop_last();
        }
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
        while self.0.len() > 4 * DISTINCT {
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
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    pub(crate) width: i64,
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
