//! Who belongs together: the evidence of a pair of accounts, channel by channel.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use anbiq_domain::{Keyed, Seeded};

use crate::Config;
use crate::cells::{Cells, tally};
use crate::fit::{Calibration, Habitat, moments, two_covariance};
use crate::profile::{Profile, Sample};
use crate::report::Channel;

/// Probability that two accounts of one operator share a means of payment.
const PAYMENT_KEPT: f64 = 0.3;
/// Accounts on one means of payment beyond which it is a gift card or a reseller rather than a purse.
const PURSE: f64 = 20.0;
/// Accounts on one network beyond which it is a campus or a carrier rather than an office.
const OFFICE: f64 = 8.0;
/// Share of an operator's accounts that are opened in one go.
const BURST_SHARE: f64 = 0.7;
/// Repeats between two accounts that work through one list, relative to two that draw from the same prompts freely.
const QUEUE_RATE: f64 = 0.05;
/// Comparisons by which the repeat rate of one cell is drawn towards that of all.
const REPEAT_PRIOR: f64 = 500.0;
/// Fewest accounts whose habits can be compared.
const POPULATION: usize = 8;

/// The nats of one pair by channel, in the order of [`Channel::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Evidence(pub(crate) [f64; Channel::ALL.len()]);

impl Evidence {
    pub(crate) fn of(&self, channel: Channel) -> f64 {
        self.0[channel as usize]
    }

    fn put(&mut self, channel: Channel, nats: f64) {
        let (low, high) = channel.bounds();
        self.0[channel as usize] = nats.clamp(low, high);
    }

    /// Without the channels of `ignored`.
    fn without(mut self, ignored: &BTreeSet<Channel>) -> Self {
        ignored.iter().for_each(|channel| self.0[*channel as usize] = 0.0);
        self
    }

    /// All nats together, without the channels of family `but`.
    pub(crate) fn total(&self, but: Option<&str>) -> f64 {
        let kept = Channel::ALL.iter().filter(|channel| Some(channel.family()) != but);
        kept.map(|channel| self.of(*channel)).sum()
    }

    /// Families of channels that reach `minimum`: signals that could hardly all be wrong for one reason.
    pub(crate) fn families(&self, minimum: f64, but: Option<&str>) -> usize {
        let mut sums = BTreeMap::new();
        for channel in Channel::ALL.iter().filter(|channel| Some(channel.family()) != but) {
            *sums.entry(channel.family()).or_insert(0.0) += self.of(*channel);
        }
        sums.values().filter(|sum| **sum >= minimum).count()
    }
}

/// Everything fitted on the population, ready to weigh pairs.
#[derive(Debug)]
pub(crate) struct Linker<'a> {
    profiles: &'a [Profile],
    config: &'a Config,
    payments: HashMap<Keyed, usize>,
    networks: HashMap<Keyed, usize>,
    agents: HashMap<Keyed, usize>,
    settings: HashMap<u64, usize>,
    /// Milliseconds between the first and the last opening of an account, where that is long enough to say something.
    openings: Option<f64>,
    rows: Vec<Vec<(usize, u32)>>,
    habitat: Habitat,
    content: Option<Calibration>,
    /// For every account the distinct prompts of each of its cells, all sorted.
    prompts: Vec<Vec<(usize, Vec<Keyed>)>>,
    repeats: Vec<Repeats>,
    repeat_rate: f64,
    habits: Vec<Option<[f64; HABITS]>>,
    habit_fit: Option<[Spread; HABITS]>,
    /// Every pair `a < b`, where all are examined anyway: row after row, with the work-queue nats before their cap.
    known: Vec<(Evidence, f64)>,
}

/// Within one cell, over all pairs of accounts: prompts compared, and how many were equal.
#[derive(Debug, Clone, Copy, Default)]
struct Repeats {
    compared: f64,
    equal: f64,
}

impl<'a> Linker<'a> {
    /// Fits habits and contents on the accounts of `reference`; how common payments, networks and clients are is
    /// counted over all.
    pub(crate) fn fit(profiles: &'a [Profile], cells: &Cells, reference: &[usize], config: &'a Config) -> Self {
        let rows = cells.rows();
        let population: Vec<_> = reference.iter().map(|place| rows[*place].clone()).collect();
        let habitat = Habitat::fit(&population, cells.count);
        let prompts: Vec<_> = profiles.iter().zip(&cells.of).map(|(profile, cells)| by_cell(profile, cells)).collect();
        let repeats = repeats(&prompts, cells.count);
        let all = repeats.iter().fold(Repeats::default(), |sum, one| Repeats {
            compared: sum.compared + one.compared,
            equal: sum.equal + one.equal,
        });
        let habits: Vec<_> =
            profiles.iter().map(|profile| habits(&profile.samples, profile.exchanges, config)).collect();
        let mut this = Self {
            profiles,
            config,
            payments: frequencies(profiles.iter().map(|profile| profile.payment.into_iter())),
            networks: frequencies(profiles.iter().map(|profile| profile.networks.keys().copied())),
            agents: frequencies(profiles.iter().map(|profile| profile.agents.keys().copied())),
            settings: frequencies(profiles.iter().map(|profile| profile.settings.keys().copied())),
            openings: opening_span(profiles, config),
            content: calibrate(reference.iter().map(|place| cells.of[*place].as_slice()), &habitat, config),
            rows,
            habitat,
            prompts,
            repeat_rate: if all.compared > 0.0 { all.equal / all.compared } else { 0.0 },
            repeats,
            habit_fit: fit_habits(profiles, reference, &habits, config),
            habits,
            known: Vec::new(),
        };
        let count = profiles.len();
        if count <= config.all_pairs_up_to {
            let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
            this.known = pairs.map(|(a, b)| this.weigh(a, b)).collect();
        }
        this
    }

    /// Nats that a pair's evidence must exceed: its prior odds are about 1 to the number of accounts.
    pub(crate) fn threshold(&self) -> f64 {
        (self.profiles.len().max(2) as f64).ln() + self.config.margin
    }

    /// The evidence that accounts `a` and `b` are of one operator.
    pub(crate) fn pair(&self, a: usize, b: usize) -> Evidence {
        self.known(a, b).map_or_else(|| self.weigh(a, b).0, |known| known.0)
    }

    fn known(&self, a: usize, b: usize) -> Option<&(Evidence, f64)> {
        let (a, b) = (a.min(b), a.max(b));
        let before = a * (2 * self.profiles.len() - a - 1) / 2;
        (a != b).then(|| self.known.get(before + b - a - 1)).flatten()
    }

    fn weigh(&self, a: usize, b: usize) -> (Evidence, f64) {
        let (mut evidence, mut queue) = (Evidence::default(), 0.0);
        let (one, two) = (&self.profiles[a], &self.profiles[b]);
        evidence.put(Channel::Payment, self.payment(one, two));
        evidence.put(Channel::Network, self.network(one, two));
        evidence.put(Channel::Client, self.client(one, two));
        evidence.put(Channel::SignUp, self.sign_up(one, two));
        if one.exchanges >= self.config.min_exchanges && two.exchanges >= self.config.min_exchanges {
            queue = self.queue(a, b);
            evidence.put(Channel::Content, self.content(a, b));
            evidence.put(Channel::Queue, queue);
            evidence.put(Channel::Rhythm, self.rhythm(a, b));
        }
        (evidence.without(&self.config.ignored), queue)
    }

    /// The evidence of every pair of one of `a` and one of `b`, each with its work-queue nats before their cap.
    pub(crate) fn between(&self, a: &[usize], b: &[usize]) -> Vec<(Evidence, f64)> {
        let pair = |one: usize, two: usize| self.known(one, two).copied().unwrap_or_else(|| self.weigh(one, two));
        a.iter().flat_map(|one| b.iter().map(move |two| pair(*one, *two))).collect()
    }

    /// The evidence that the accounts `a` and the accounts `b`, each of one operator, are of the same one.
    pub(crate) fn groups(&self, a: &[usize], b: &[usize]) -> Evidence {
        self.pooled(a, b, &self.between(a, b))
    }

    /// The same with the evidence of their `pairs` at hand.
    ///
    /// Networks, prompts and repeats are pooled, since a whole shows more than its parts; the rest is the mean over pairs.
    pub(crate) fn pooled(&self, a: &[usize], b: &[usize], pairs: &[(Evidence, f64)]) -> Evidence {
        let mean =
            |channel: Channel| pairs.iter().map(|pair| pair.0.of(channel)).sum::<f64>() / pairs.len().max(1) as f64;
        let mut evidence = Evidence::default();
        for channel in [Channel::Payment, Channel::Client, Channel::SignUp, Channel::Rhythm] {
            evidence.put(channel, mean(channel));
        }
        let networks = |group: &[usize]| -> BTreeSet<Keyed> {
            group.iter().flat_map(|one| self.profiles[*one].networks.keys().copied()).collect()
        };
        let shared: f64 = networks(a).intersection(&networks(b)).map(|network| self.shared_network(*network)).sum();
        evidence.put(Channel::Network, shared.max(mean(Channel::Network)));
        evidence.put(Channel::Content, self.pooled_content(a, b, mean(Channel::Content)));
        evidence.put(Channel::Queue, pairs.iter().map(|pair| pair.1).sum());
        evidence.without(&self.config.ignored)
    }

    /// Pools of many different people all look like the population and so like each other; where single accounts
    /// speak against one distribution, the pools are not believed.
    fn pooled_content(&self, a: &[usize], b: &[usize], mean: f64) -> f64 {
        let Some(calibration) = self.content else { return 0.0 };
        let pool = |group: &[usize]| {
            let mut counts = BTreeMap::new();
            for (cell, count) in group.iter().flat_map(|one| &self.rows[*one]) {
                *counts.entry(*cell).or_insert(0) += count;
            }
            counts.into_iter().collect::<Vec<(usize, u32)>>()
        };
        let pooled = calibration.apply(self.habitat.same_distribution(&pool(a), &pool(b)));
        let (low, high) = Channel::Content.bounds();
        pooled.clamp(low, high) + mean.min(0.0) * (a.len().min(b.len()) as f64).sqrt()
    }

    /// Prompts of `a` that `b` also sent, and how many would be expected if both drew freely from the same prompts.
    pub(crate) fn repeats(&self, a: usize, b: usize) -> (f64, f64) {
        let (mut seen, mut expected) = (0.0, 0.0);
        for (cell, mine, theirs) in met(&self.prompts[a], &self.prompts[b]) {
            let compared = (mine.len() * theirs.len()) as f64;
            let equal = common(mine, theirs) as f64;
            let others = self.repeats[cell];
            let rate =
                (others.equal - equal + REPEAT_PRIOR * self.repeat_rate) / (others.compared - compared + REPEAT_PRIOR);
            seen += equal;
            expected += rate * compared;
        }
        (seen, expected)
    }

    /// Fellegi and Sunter's weight (1969), with a stated chance of coincidence.
    fn payment(&self, a: &Profile, b: &Profile) -> f64 {
        match (a.payment, b.payment) {
            (Some(one), Some(two)) if one == two => {
                let users = self.payments.get(&one).copied().unwrap_or(2) as f64;
                (PAYMENT_KEPT / (self.config.payment_coincidence * (users / PURSE).max(1.0))).ln()
            }
            (Some(_), Some(_)) => (1.0 - PAYMENT_KEPT).ln(),
            _ => 0.0,
        }
    }

    /// Each shared network weighs by its rarity; one that many accounts use is a campus or a carrier and weighs little,
    /// but sharing many of them is the mark of a pool of proxies.
    fn network(&self, a: &Profile, b: &Profile) -> f64 {
        let shared: Vec<f64> = a
            .networks
            .keys()
            .filter(|network| b.networks.contains_key(network))
            .map(|network| self.shared_network(*network))
            .collect();
        if shared.is_empty() {
            if a.networks.is_empty() || b.networks.is_empty() { 0.0 } else { -0.3 }
        } else {
            shared.iter().sum()
        }
    }

    fn shared_network(&self, network: Keyed) -> f64 {
        let users = self.networks.get(&network).copied().unwrap_or(2) as f64;
        rarity(self.profiles.len(), users) / (1.0 + users / OFFICE)
    }

    fn client(&self, a: &Profile, b: &Profile) -> f64 {
        let best = |shared: Vec<f64>| shared.into_iter().max_by(f64::total_cmp);
        let accounts = self.profiles.len();
        let agents = a.agents.keys().filter(|agent| b.agents.contains_key(agent));
        let agent = best(agents.map(|agent| rarity(accounts, self.agents[agent] as f64)).collect());
        let settings = a.settings.keys().filter(|one| b.settings.contains_key(one));
        let setting = best(settings.map(|one| rarity(accounts, self.settings[one] as f64)).collect());
        // What a log does not say is no difference.
        let apart = |nats: f64, known: bool| if known { nats } else { 0.0 };
        let agents = apart(-0.3, !a.agents.is_empty() && !b.agents.is_empty());
        let settings = apart(-0.2, !a.settings.is_empty() && !b.settings.is_empty());
        agent.map_or(agents, |nats| (0.5 * nats).min(1.0)) + setting.map_or(settings, |nats| (0.3 * nats).min(0.7))
    }

    /// Density of the time between the two openings if one operator opened both, relative to two unrelated ones.
    fn sign_up(&self, a: &Profile, b: &Profile) -> f64 {
        let (Some(span), Some(one), Some(two)) = (self.openings, a.opened, b.opened) else { return 0.0 };
        let gap = one.since(two).abs() as f64;
        // Some open all in one sitting, some over days: equal shares of three scales give the density a long tail.
        let scales = [1.0, 4.0, 16.0].map(|times| times * self.config.burst_hours * 3_600_000.0);
        let together = scales.iter().map(|scale| (-gap / scale).exp() / scale).sum::<f64>() / scales.len() as f64;
        let unrelated = 2.0 / span * (1.0 - gap / span).max(0.05);
        (BURST_SHARE * together / unrelated + 1.0 - BURST_SHARE).ln()
    }

    fn content(&self, a: usize, b: usize) -> f64 {
        let Some(calibration) = self.content else { return 0.0 };
        calibration.apply(self.habitat.same_distribution(&self.rows[a], &self.rows[b]))
    }

    fn queue(&self, a: usize, b: usize) -> f64 {
        let (seen, expected) = self.repeats(a, b);
        divided(seen, expected)
    }

    /// Half the sum over habits: they are not independent of one another.
    fn rhythm(&self, a: usize, b: usize) -> f64 {
        let (Some(fit), Some(one), Some(two)) = (&self.habit_fit, &self.habits[a], &self.habits[b]) else { return 0.0 };
        let nats = (0..HABITS).map(|i| two_covariance(one[i], two[i], fit[i].mean, fit[i].between, fit[i].within));
        0.5 * nats.sum::<f64>()
    }

    /// Pairs worth examining, `a < b`, and whether they are all there are.
    pub(crate) fn candidates(&self) -> (Vec<(usize, usize)>, bool) {
        let count = self.profiles.len();
        if count <= self.config.all_pairs_up_to {
            return ((0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect(), true);
        }
        let mut blocks: BTreeMap<(u8, u64, u64), Vec<u32>> = BTreeMap::new();
        for (place, profile) in (0_u32..).zip(self.profiles) {
            let mut join = |kind: u8, x: u64, y: u64| blocks.entry((kind, x, y)).or_default().push(place);
            profile.payment.iter().for_each(|payment| join(0, payment.0, 0));
            profile.networks.keys().for_each(|network| join(1, network.0, 0));
            for agent in profile.agents.keys() {
                profile.settings.keys().for_each(|settings| join(2, agent.0, *settings));
            }
            self.rows[place as usize].iter().for_each(|(cell, _)| join(3, *cell as u64, 0));
        }
        // What two accounts share, weighed by how few share it: a block that holds a tenth of all accounts tells nobody apart.
        let mut shared: Vec<HashMap<u32, f64>> = vec![HashMap::new(); count];
        for members in blocks.values().filter(|members| members.len() > 1 && members.len() <= count / 10) {
            self.pair_up(members, rarity(count, members.len() as f64), &mut shared);
        }
        let mut by_opening: Vec<u32> =
            (0_u32..).zip(self.profiles).filter(|(_, profile)| profile.opened.is_some()).map(|(place, _)| place).collect();
        by_opening.sort_by_key(|place| (self.profiles[*place as usize].opened, *place));
        self.pair_up(&by_opening, rarity(count, 10.0), &mut shared);
        let mut pairs = Vec::new();
        for (place, partners) in shared.iter().enumerate() {
            let mut partners: Vec<(u32, f64)> = partners.iter().map(|(other, nats)| (*other, *nats)).collect();
            partners.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
            partners.truncate(self.config.partners);
            pairs.extend(partners.iter().map(|(other, _)| (place.min(*other as usize), place.max(*other as usize))));
        }
        pairs.sort_unstable();
        pairs.dedup();
        (pairs, false)
    }

    /// Brings each of a block together with the next ones of it; the last ones with the first.
    fn pair_up(&self, members: &[u32], nats: f64, shared: &mut [HashMap<u32, f64>]) {
        for (place, a) in members.iter().enumerate() {
            for step in 1..=self.config.block_partners.min(members.len() / 2) {
                let b = members[(place + step) % members.len()];
                *shared[*a as usize].entry(b).or_default() += nats;
                *shared[b as usize].entry(*a).or_default() += nats;
            }
        }
    }
}

/// Poisson: a shared list is worked through without replacement, so what chance would repeat does not come back.
fn divided(seen: f64, expected: f64) -> f64 {
    seen * QUEUE_RATE.ln() + (1.0 - QUEUE_RATE) * expected
}

fn rarity(accounts: usize, users: f64) -> f64 {
    (accounts as f64 / users).ln().max(0.0)
}

fn frequencies<K: Eq + Hash, I: Iterator<Item = K>>(accounts: impl Iterator<Item = I>) -> HashMap<K, usize> {
    let mut users = HashMap::new();
    for key in accounts.flatten() {
        *users.entry(key).or_insert(0) += 1;
    }
    users
}

fn opening_span(profiles: &[Profile], config: &Config) -> Option<f64> {
    let opened: Vec<i64> = profiles.iter().filter_map(|profile| Some(profile.opened?.milliseconds())).collect();
    let span = (opened.iter().max()? - opened.iter().min()?) as f64;
    // Accounts that were all opened at once, or imported together, say nothing about each other.
    (opened.len() >= POPULATION && span >= 6.0 * config.burst_hours * 3_600_000.0).then_some(span)
}

/// Self-supervised: halves of one account are of one operator, halves of two random accounts almost never.
fn calibrate<'a>(
    cells: impl Iterator<Item = &'a [usize]>,
    habitat: &Habitat,
    config: &Config,
) -> Option<Calibration> {
    let half = |cells: &[usize], odd: usize| tally(cells.iter().skip(odd).step_by(2).copied());
    let halves: Vec<_> = cells
        .filter(|cells| cells.len() >= usize::try_from(config.min_exchanges).unwrap_or(usize::MAX))
        .map(|cells| [half(cells, 0), half(cells, 1)])
        .collect();
    if halves.len() < POPULATION {
        return None;
    }
    let score = |a: &[(usize, u32)], b: &[(usize, u32)]| habitat.same_distribution(a, b);
    let same: Vec<f64> = halves.iter().take(4_000).map(|[a, b]| score(a, b)).collect();
    let mut random = Seeded::new(config.seed).fork("content calibration");
    let mut other = Vec::new();
    while other.len() < 4_000.min(20 * halves.len()) {
        let (a, b) = (random.below(halves.len()), random.below(halves.len()));
        if a != b {
            other.push(score(&halves[a][0], &halves[b][1]));
        }
    }
    Some(Calibration::fit(&same, &other, 0.5))
}

fn by_cell(profile: &Profile, cells: &[usize]) -> Vec<(usize, Vec<Keyed>)> {
    let mut prompts: BTreeMap<usize, BTreeSet<Keyed>> = BTreeMap::new();
    for (sketch, cell) in profile.sketches().zip(cells) {
        prompts.entry(*cell).or_default().insert(sketch.exact);
    }
    prompts.into_iter().map(|(cell, prompts)| (cell, prompts.into_iter().collect())).collect()
}

/// The cells that both have, with the prompts of each in it.
fn met<'p>(
    a: &'p [(usize, Vec<Keyed>)],
    b: &'p [(usize, Vec<Keyed>)],
) -> impl Iterator<Item = (usize, &'p [Keyed], &'p [Keyed])> {
    let mut rest = b;
    a.iter().filter_map(move |(cell, mine)| {
        while let Some(((other, theirs), more)) = rest.split_first() {
            match other.cmp(cell) {
                std::cmp::Ordering::Less => rest = more,
                std::cmp::Ordering::Equal => return Some((*cell, &mine[..], &theirs[..])),
                std::cmp::Ordering::Greater => break,
            }
        }
        None
    })
}

/// How many stand in both sorted lists.
fn common(a: &[Keyed], b: &[Keyed]) -> usize {
    let (mut i, mut j, mut count) = (0, 0, 0);
    while let (Some(one), Some(other)) = (a.get(i), b.get(j)) {
        i += usize::from(one <= other);
        j += usize::from(other <= one);
        count += usize::from(one == other);
    }
    count
}

fn repeats(prompts: &[Vec<(usize, Vec<Keyed>)>], cells: usize) -> Vec<Repeats> {
    let mut sums = vec![(0.0, 0.0); cells];
    let mut users: HashMap<(usize, Keyed), f64> = HashMap::new();
    for account in prompts {
        for (cell, prompts) in account {
            let n = prompts.len() as f64;
            sums[*cell].0 += n;
            sums[*cell].1 += n * n;
            prompts.iter().for_each(|prompt| *users.entry((*cell, *prompt)).or_default() += 1.0);
        }
    }
    let mut repeats: Vec<Repeats> =
        sums.iter().map(|(sum, squares)| Repeats { compared: (sum * sum - squares) / 2.0, equal: 0.0 }).collect();
    // Whole numbers: their sum does not depend on the order.
    for ((cell, _), users) in users {
        repeats[cell].equal += users * (users - 1.0) / 2.0;
    }
    repeats
}

/// Number of habits: log rate, evenness over the day, log irregularity of gaps.
const HABITS: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Spread {
    mean: f64,
    between: f64,
    within: f64,
}

fn habits(samples: &[Sample], exchanges: u64, config: &Config) -> Option<[f64; HABITS]> {
    if samples.len() < 2 || (samples.len() as u64) < config.min_exchanges / 2 {
        return None;
    }
    let span = samples[samples.len() - 1].at.since(samples[0].at).max(60_000) as f64;
    let gaps: Vec<f64> = samples.windows(2).map(|pair| pair[1].at.since(pair[0].at) as f64).collect();
    let (mean, variance) = moments(&gaps);
    let irregularity = (variance.sqrt() / mean.max(1.0)).max(0.05);
    let mut hours = [0; 24];
    samples.iter().for_each(|sample| hours[crate::profile::hour_of_day(sample.at)] += 1);
    Some([(exchanges as f64 / span * 3_600_000.0).ln(), resultant(&hours), irregularity.ln()])
}

/// How far activity keeps to some hours of the day: 0 for none, 1 for all in one hour. The length of the mean
/// direction on the 24-hour circle, corrected for its bias in small samples (Mardia and Jupp 2000).
pub(crate) fn resultant(hours: &[u32; 24]) -> f64 {
    let n: f64 = hours.iter().map(|count| f64::from(*count)).sum();
    if n < 2.0 {
        return 0.0;
    }
    let (mut x, mut y) = (0.0, 0.0);
    for (hour, count) in hours.iter().enumerate() {
        let angle = std::f64::consts::TAU * hour as f64 / 24.0;
        x += f64::from(*count) * angle.cos();
        y += f64::from(*count) * angle.sin();
    }
    ((x * x + y * y - n) / (n * (n - 1.0))).max(0.0).sqrt()
}

fn fit_habits(
    profiles: &[Profile],
    reference: &[usize],
    all: &[Option<[f64; HABITS]>],
    config: &Config,
) -> Option<[Spread; HABITS]> {
    let known: Vec<&[f64; HABITS]> = reference.iter().filter_map(|place| all[*place].as_ref()).collect();
    if known.len() < POPULATION {
        return None;
    }
    let mut squares = [const { Vec::new() }; HABITS];
    let reference = reference.iter().map(|place| &profiles[*place]);
    for profile in reference.filter(|profile| profile.exchanges >= config.min_exchanges) {
        let (early, late) = profile.samples.split_at(profile.samples.len() / 2);
        // A sample stands for several exchanges where not all were kept; the same for both halves.
        let each = profile.exchanges / (profile.samples.len() as u64).max(1);
        let half = |samples: &[Sample]| habits(samples, each * samples.len() as u64, config);
        if let (Some(early), Some(late)) = (half(early), half(late)) {
            for i in 0..HABITS {
                squares[i].push((early[i] - late[i]).powi(2) / 2.0);
            }
        }
    }
    let mut spreads = [Spread { mean: 0.0, between: 0.0, within: 0.0 }; HABITS];
    for (i, spread) in spreads.iter_mut().enumerate() {
        let (mean, total) = moments(&known.iter().map(|habits| habits[i]).collect::<Vec<_>>());
        // The median does not let a few restless accounts speak for all.
        squares[i].sort_by(f64::total_cmp);
        let within = squares[i].get(squares[i].len() / 2).map_or(total / 2.0, |median| median / 0.455).max(1e-3);
        *spread = Spread { mean, between: (total - within).max(1e-3), within };
    }
    Some(spreads)
}
