//! Who belongs together: the evidence of a pair of accounts, channel by channel.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use anbiq_domain::{Keyed, Seeded};

use crate::Config;
use crate::cells::{Cells, tally};
use crate::fit::{Calibration, Habitat, Row, Told, optional, two_covariance};
use crate::habits::{HABITS, Spread, fit_habits, habits};
use crate::handover::Reliefs;
use crate::parallel::map;
use crate::pivot::Pivots;
use crate::profile::Profile;
use crate::report::Channel;

/// Probability that two accounts of one operator share a means of payment.
const PAYMENT_KEPT: f64 = 0.3;
/// Accounts on one means of payment beyond which it is a gift card or a reseller rather than a purse.
const PURSE: f64 = 20.0;
/// Accounts on one network beyond which it is a campus or a carrier rather than an office.
const OFFICE: f64 = 8.0;
/// What one network weighs at most: two people of one household share it. That they share another one as well is another coincidence.
const ONE_NETWORK: f64 = 4.0;
/// Share of an operator's accounts that are opened in one go.
const BURST_SHARE: f64 = 0.7;
/// Share of operators whose accounts all ask alike; others give each account a topic, lend accounts out, or hide what they ask for
/// among other things.
const ALIKE_SHARE: f64 = 0.7;
/// Share of operators whose accounts divide a list.
const QUEUE_SHARE: f64 = 0.5;
/// Repeats between two accounts that work through one list, relative to two that draw from the same prompts freely.
const QUEUE_RATE: f64 = 0.05;
/// Comparisons by which the repeat rate of one cell is drawn towards that of all.
const REPEAT_PRIOR: f64 = 500.0;
/// Fewest accounts whose habits can be compared.
pub(crate) const POPULATION: usize = 8;

/// The nats of one pair by channel, in the order of [`Channel::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Evidence(pub(crate) [f64; Channel::ALL.len()]);

impl Evidence {
    pub(crate) fn of(&self, channel: Channel) -> f64 {
        self.0[channel as usize]
    }

    pub(crate) fn put(&mut self, channel: Channel, nats: f64) {
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

    /// The part of [`Evidence::total`] that several pairs can owe to one coincidence: how their accounts came to be, not how each is
    /// used.
    pub(crate) fn facts(&self, but: Option<&str>) -> f64 {
        let kept = Channel::ALL.iter().filter(|channel| channel.is_fact() && Some(channel.family()) != but);
        kept.map(|channel| self.of(*channel)).sum()
    }

    /// Families of channels that reach `minimum`: signals that could hardly all be wrong for one reason.
    pub(crate) fn families(&self, minimum: f64, but: Option<&str>) -> usize {
        let mut sums = [None; Channel::ALL.len()];
        for channel in Channel::ALL.iter().filter(|channel| Some(channel.family()) != but) {
            let sum = &mut sums[channel.head() as usize];
            *sum = Some(sum.unwrap_or(0.0) + self.of(*channel));
        }
        sums.iter().flatten().filter(|sum| **sum >= minimum).count()
    }
}

/// Everything fitted on the population, ready to weigh pairs.
#[derive(Debug)]
pub(crate) struct Linker<'a> {
    pub(crate) profiles: &'a [Profile],
    pub(crate) config: &'a Config,
    payments: HashMap<Keyed, usize>,
    /// For every account what a network, a program or settings weigh that it shares with another, all sorted.
    networks: Vec<Weights<Keyed>>,
    agents: Vec<Weights<Keyed>>,
    settings: Vec<Weights<u64>>,
    /// Milliseconds between the first and the last opening of an account, where that is long enough to say something.
    openings: Option<f64>,
    pub(crate) rows: Vec<Vec<(usize, u32)>>,
    habitat: Habitat,
    /// What is needed of each of `rows` to compare it.
    told: Vec<Told>,
    content: Option<Calibration>,
    /// For every account the distinct prompts of each of its cells, all sorted.
    prompts: Vec<Vec<(usize, Vec<Keyed>)>>,
    repeats: Vec<Repeats>,
    /// Is an account one of those that the repeats were counted among?
    counted: Vec<bool>,
    repeat_rate: f64,
    habits: Vec<Option<[f64; HABITS]>>,
    habit_fit: Option<[Spread; HABITS]>,
    pub(crate) reliefs: Reliefs,
    pub(crate) pivots: Pivots,
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
    /// Fits all on the accounts of `reference`, and what is asked on those of them that are `examples` of honest use; how common payments are is
    /// counted over all.
    pub(crate) fn fit(
        profiles: &'a [Profile],
        cells: &Cells,
        reference: &[usize],
        examples: &[bool],
        config: &'a Config,
    ) -> Self {
        let rows = cells.rows();
        let mut asking: Vec<usize> = reference.iter().copied().filter(|place| examples[*place]).collect();
        if asking.len() < POPULATION {
            asking = reference.to_vec();
        }
        let population: Vec<_> =
            asking.iter().map(|place| (rows[*place].clone(), profiles[*place].converses())).collect();
        let habitat = Habitat::fit(&population, cells.count + 1);
        let threads = config.threads();
        let everybody: Vec<usize> = (0..profiles.len()).collect();
        let prompts = map(threads, &everybody, |place| by_cell(&profiles[*place], &cells.of[*place]));
        // Of unrelated accounts alone: those that divide a list would make it look as if nobody repeated anybody.
        let repeats = repeats(asking.iter().map(|place| &prompts[*place]), cells.count);
        let all = repeats.iter().fold(Repeats::default(), |sum, one| Repeats {
            compared: sum.compared + one.compared,
            equal: sum.equal + one.equal,
        });
        let mut counted = vec![false; profiles.len()];
        asking.iter().for_each(|place| counted[*place] = true);
        let habits = map(threads, profiles, |profile| habits(&profile.samples, profile.exchanges, config));
        let mut this = Self {
            profiles,
            config,
            payments: frequencies(profiles.iter().map(|profile| profile.payment.into_iter())),
            networks: weights(profiles, reference, |profile| &profile.networks, shared_network),
            agents: weights(profiles, reference, |profile| &profile.agents, rarity),
            settings: weights(profiles, reference, |profile| &profile.settings, rarity),
            openings: opening_span(profiles, config),
            content: calibrate(asking.iter().map(|place| cells.kinds[*place].as_slice()), &habitat, config),
            told: map(threads, &rows, |row| habitat.told(row)),
            rows,
            habitat,
            prompts,
            repeat_rate: if all.compared > 0.0 { all.equal / all.compared } else { 0.0 },
            repeats,
            counted,
            habit_fit: fit_habits(profiles, reference, &habits, config),
            habits,
            reliefs: Reliefs::of(profiles, reference, config),
            pivots: Pivots::of(profiles, reference, config),
            known: Vec::new(),
        };
        let count = profiles.len();
        if count <= config.all_pairs_up_to {
            let known = map(threads, &everybody, |a| (a + 1..count).map(|b| this.weigh(*a, b)).collect::<Vec<_>>());
            this.known = known.into_iter().flatten().collect();
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

    pub(crate) fn known(&self, a: usize, b: usize) -> Option<&(Evidence, f64)> {
        let (a, b) = (a.min(b), a.max(b));
        let before = a * (2 * self.profiles.len() - a - 1) / 2;
        (a != b).then(|| self.known.get(before + b - a - 1)).flatten()
    }

    fn weigh(&self, a: usize, b: usize) -> (Evidence, f64) {
        self.finish(a, b, self.without_prompts(a, b))
    }

    /// The evidence of a pair but for what it asks, which takes longest to weigh.
    pub(crate) fn without_prompts(&self, a: usize, b: usize) -> Evidence {
        let mut evidence = Evidence::default();
        let (one, two) = (&self.profiles[a], &self.profiles[b]);
        evidence.put(Channel::Payment, self.payment(one, two));
        evidence.put(Channel::Network, self.network(a, b));
        evidence.put(Channel::Client, self.client(a, b));
        evidence.put(Channel::SignUp, self.sign_up(one, two));
        evidence.put(Channel::HandOver, self.reliefs.nats(&[a], &[b]));
        evidence.put(Channel::Pivot, self.pivots.nats(a, b));
        if self.speaks(a) && self.speaks(b) {
            evidence.put(Channel::Rhythm, self.rhythm(a, b));
        }
        evidence.without(&self.config.ignored)
    }

    pub(crate) fn finish(&self, a: usize, b: usize, mut evidence: Evidence) -> (Evidence, f64) {
        let mut queue = 0.0;
        if self.speaks(a) && self.speaks(b) {
            queue = self.queue(a, b);
            evidence.put(Channel::Content, self.content(a, b));
            evidence.put(Channel::Queue, optional(QUEUE_SHARE, queue));
        }
        (evidence.without(&self.config.ignored), queue)
    }

    /// Does an account ask enough for its prompts to say anything?
    fn speaks(&self, one: usize) -> bool {
        self.profiles[one].exchanges >= self.config.min_exchanges
    }

    /// What the networks weigh that some of `a` and some of `b` use.
    pub(crate) fn pooled_networks(&self, a: &[usize], b: &[usize]) -> f64 {
        let networks = |group: &[usize]| -> BTreeMap<Keyed, f64> {
            group.iter().flat_map(|one| self.networks[*one].iter().copied()).collect()
        };
        let (mine, theirs) = (networks(a), networks(b));
        mine.iter().filter(|one| theirs.contains_key(one.0)).map(|one| *one.1).sum()
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
    /// Networks, prompts, repeats and hand-overs are pooled, since a whole shows more than its parts; the rest is the mean over pairs.
    pub(crate) fn pooled(&self, a: &[usize], b: &[usize], pairs: &[(Evidence, f64)]) -> Evidence {
        let mean =
            |channel: Channel| pairs.iter().map(|pair| pair.0.of(channel)).sum::<f64>() / pairs.len().max(1) as f64;
        let mut evidence = Evidence::default();
        for channel in [Channel::Payment, Channel::Client, Channel::SignUp, Channel::Rhythm, Channel::Pivot] {
            evidence.put(channel, mean(channel));
        }
        evidence.put(Channel::Network, self.pooled_networks(a, b).max(mean(Channel::Network)));
        evidence.put(Channel::Content, self.pooled_content(a, b, mean(Channel::Content)));
        evidence.put(Channel::Queue, optional(QUEUE_SHARE, pairs.iter().map(|pair| pair.1).sum()));
        evidence.put(Channel::HandOver, self.reliefs.nats(a, b));
        evidence.without(&self.config.ignored)
    }

    /// Pools of many different people all look like the population and so like each other; where single accounts
    /// speak against one distribution, the pools are not believed.
    fn pooled_content(&self, a: &[usize], b: &[usize], mean: f64) -> f64 {
        let Some(calibration) = self.content else { return 0.0 };
        let nats = self.pools(a, b);
        let pooled = optional(ALIKE_SHARE, calibration.apply(nats));
        let (low, high) = Channel::Content.bounds();
        pooled.clamp(low, high) + mean.min(0.0) * (a.len().min(b.len()) as f64).sqrt()
    }

    /// What prompts and pace alone say: nats that the accounts `a` and the accounts `b` are of one operator, without a bound.
    pub(crate) fn prompts(&self, a: &[usize], b: &[usize]) -> f64 {
        let Some(calibration) = self.content else { return 0.0 };
        let (nats, pairs) = (self.pools(a, b), (a.len() * b.len()) as f64);
        let all = || a.iter().flat_map(|one| b.iter().map(move |two| (*one, *two)));
        let queue: f64 = all().map(|(one, two)| self.queue(one, two)).sum();
        let rhythm = all().map(|(one, two)| self.rhythm(one, two)).sum::<f64>() / pairs.max(1.0);
        let kept = |channel: Channel, nats: f64| if self.config.ignored.contains(&channel) { 0.0 } else { nats };
        let (low, high) = Channel::Queue.bounds();
        let queue = optional(QUEUE_SHARE, queue).clamp(low, high);
        let (slow, fast) = Channel::Rhythm.bounds();
        kept(Channel::Content, calibration.apply(nats))
            + kept(Channel::Queue, queue)
            + kept(Channel::Rhythm, rhythm.clamp(slow, fast))
    }

    /// What content alone says of the counts of some prompts, as [`Cells::rows`](crate::cells::Cells::rows) has them, without a bound.
    pub(crate) fn rows_alike(&self, a: (&Row, &Told), b: (&Row, &Told)) -> f64 {
        match self.content {
            Some(calibration) if !self.config.ignored.contains(&Channel::Content) => {
                calibration.apply(self.habitat.same_distribution(a, b))
            }
            _ => 0.0,
        }
    }

    /// What is needed of such counts.
    pub(crate) fn told(&self, row: &Row) -> Told {
        self.habitat.told(row)
    }

    /// What one account asks, with what is needed of it.
    pub(crate) fn row_of(&self, one: usize) -> (&Row, &Told) {
        (&self.rows[one], &self.told[one])
    }

    /// The log Bayes factor that the prompts of `a` and of `b` come from one distribution.
    fn pools(&self, a: &[usize], b: &[usize]) -> f64 {
        if let ([one], [two]) = (a, b) {
            return self.habitat.same_distribution(self.row_of(*one), self.row_of(*two));
        }
        let pool = |group: &[usize]| {
            let mut counts: Vec<(usize, u32)> = group.iter().flat_map(|one| &self.rows[*one]).copied().collect();
            counts.sort_unstable_by_key(|(cell, _)| *cell);
            counts.dedup_by(|next, one| {
                let same = next.0 == one.0;
                one.1 += if same { next.1 } else { 0 };
                same
            });
            let told = self.habitat.told(&counts);
            (counts, told)
        };
        let pools = [a, b].map(|group| if let [_] = group { None } else { Some(pool(group)) });
        let of = |place: usize, group: &[usize]| match &pools[place] {
            Some((row, told)) => (&row[..], told),
            None => self.row_of(group[0]),
        };
        self.habitat.same_distribution(of(0, a), of(1, b))
    }

    /// Prompts of `a` that `b` also sent, and how many would be expected if both drew freely from the same prompts.
    pub(crate) fn repeats(&self, a: usize, b: usize) -> (f64, f64) {
        let (mut seen, mut expected) = (0.0, 0.0);
        for (cell, mine, theirs) in met(&self.prompts[a], &self.prompts[b]) {
            let compared = (mine.len() * theirs.len()) as f64;
            let equal = common(mine, theirs) as f64;
            let others = self.repeats[cell];
            let own = if self.counted[a] && self.counted[b] { (equal, compared) } else { (0.0, 0.0) };
            let rate =
                (others.equal - own.0 + REPEAT_PRIOR * self.repeat_rate) / (others.compared - own.1 + REPEAT_PRIOR);
            seen += equal;
            expected += rate * compared;
        }
        (seen, expected)
    }

    /// How often one of two accounts went on where the other was refused, and how often by chance.
    pub(crate) fn took_over(&self, a: usize, b: usize) -> (f64, f64) {
        self.reliefs.between(a, b)
    }

    /// The new model to which both went over, and the hours between.
    pub(crate) fn pivot(&self, a: usize, b: usize) -> Option<(&str, f64)> {
        self.pivots.shared(a, b)
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
    fn network(&self, a: usize, b: usize) -> f64 {
        let (mine, theirs) = (&self.networks[a], &self.networks[b]);
        let mut shared = shared(mine, theirs).peekable();
        if shared.peek().is_none() {
            if mine.is_empty() || theirs.is_empty() { 0.0 } else { -0.3 }
        } else {
            shared.sum()
        }
    }

    fn client(&self, a: usize, b: usize) -> f64 {
        let agent = shared(&self.agents[a], &self.agents[b]).max_by(f64::total_cmp);
        let setting = shared(&self.settings[a], &self.settings[b]).max_by(f64::total_cmp);
        // What a log does not say is no difference.
        let apart = |nats: f64, known: bool| if known { nats } else { 0.0 };
        let agents = apart(-0.3, !self.agents[a].is_empty() && !self.agents[b].is_empty());
        let settings = apart(-0.2, !self.settings[a].is_empty() && !self.settings[b].is_empty());
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
        optional(ALIKE_SHARE, calibration.apply(self.pools(&[a], &[b])))
    }

    /// How irregular the gaps between an account's exchanges are: their standard deviation over their mean.
    pub(crate) fn irregularity(&self, one: usize) -> Option<f64> {
        self.habits[one].map(|habits| habits[2].exp())
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
}

/// Poisson: a shared list is worked through without replacement, so what chance would repeat does not come back.
fn divided(seen: f64, expected: f64) -> f64 {
    seen * QUEUE_RATE.ln() + (1.0 - QUEUE_RATE) * expected
}

/// What a network weighs that so many of the accounts use.
fn shared_network(accounts: usize, users: f64) -> f64 {
    (rarity(accounts, users) / (1.0 + users / OFFICE)).min(ONE_NETWORK)
}

pub(crate) fn rarity(accounts: usize, users: f64) -> f64 {
    (accounts as f64 / users).ln().max(0.0)
}

/// Things that an account shows, sorted, each with what it weighs.
type Weights<K> = Vec<(K, f64)>;

/// For every account what those things of it weigh that `of` names, by how many use each.
fn weights<K: Copy + Eq + Hash>(
    profiles: &[Profile],
    reference: &[usize],
    of: fn(&Profile) -> &BTreeMap<K, u64>,
    weight: fn(usize, f64) -> f64,
) -> Vec<Weights<K>> {
    let users = frequencies(reference.iter().map(|place| of(&profiles[*place]).keys().copied()));
    let weigh = |key: &K| (*key, weight(reference.len(), users.get(key).copied().unwrap_or(0).max(2) as f64));
    profiles.iter().map(|profile| of(profile).keys().map(weigh).collect()).collect()
}

/// What each of those things weighs that stand in both sorted lists.
fn shared<'w, K: Ord>(a: &'w [(K, f64)], b: &'w [(K, f64)]) -> impl Iterator<Item = f64> + 'w {
    let mut rest = b;
    a.iter().filter_map(move |(key, nats)| {
        while let Some(((other, _), more)) = rest.split_first() {
            match other.cmp(key) {
                std::cmp::Ordering::Less => rest = more,
                std::cmp::Ordering::Equal => return Some(*nats),
                std::cmp::Ordering::Greater => break,
            }
        }
        None
    })
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
fn calibrate<'a>(cells: impl Iterator<Item = &'a [usize]>, habitat: &Habitat, config: &Config) -> Option<Calibration> {
    let half = |cells: &[usize], odd: usize| tally(cells.iter().skip(odd).step_by(2).copied());
    let halves: Vec<_> = cells
        .filter(|cells| cells.len() >= usize::try_from(config.min_exchanges).unwrap_or(usize::MAX))
        .map(|cells| [half(cells, 0), half(cells, 1)])
        .collect();
    if halves.len() < POPULATION {
        return None;
    }
    let score = |a: &Row, b: &Row| habitat.same_distribution((a, &habitat.told(a)), (b, &habitat.told(b)));
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

fn repeats<'p>(prompts: impl Iterator<Item = &'p Vec<(usize, Vec<Keyed>)>>, cells: usize) -> Vec<Repeats> {
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
