//! What an operator is doing: its pooled stream against archetypes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use anbiq_domain::Seeded;

use crate::fit::tidy;
use crate::habits::{resultant, resultant_each};
use crate::profile::{Distinct, Profile};
use crate::report::{Archetype, Fit, Purpose};
use crate::{Config, cells::tally};

/// Fewest exchanges of an operator from which its purpose is judged.
pub(crate) const ENOUGH: u64 = 30;
/// Fewest hours from which a daily rhythm can show.
pub(crate) const A_DAY: f64 = 20.0;
/// Share of every expectation that is left to uses unlike any archetype; it bounds what one trait can say.
const SURPRISE: f64 = 0.1;
/// Fewest kinds of prompts, as the exponential of their entropy, that make a harvest rather than an application that
/// never sleeps and never sees the same input twice.
const KINDS: f64 = 5.0;
/// Least share of new prompts of a harvest.
pub(crate) const FRESH: f64 = 0.5;
/// Nats of one trait from which it contradicts an archetype.
const CONTRADICTION: f64 = -1.5;
/// Share of the accounts that another means of payment pays for than the usual one from which it does not show that they are one
/// customer's.
const HIDDEN: f64 = 0.5;
/// Nats by which an honest kind must fit better than a harvest where it does not show.
const CLEAR: f64 = 1.0;
/// Mean nats a trait below which not even the best archetype fits.
const MISFIT: f64 = -0.5;

/// One measured trait of a stream, in `0..=1`.
#[derive(Debug, Clone, Copy)]
struct Measured {
    kind: &'static Trait,
    value: f64,
}

/// A trait and what each archetype is expected to show of it: `(typical value, spread)`. These are stated priors from
/// what is publicly known of each kind of use, not values fitted to any traffic.
#[derive(Debug)]
struct Trait {
    name: &'static str,
    /// In the order of [`KNOWN`].
    expected: [(f64, f64); KNOWN.len()],
    /// What a harvest shows at which people sit by day, where that differs.
    by_day: Option<(f64, f64)>,
    /// How much of each expectation lies in `0..=1`, once it was worked out.
    inside: OnceLock<[f64; KINDS_OF_USE]>,
    words: fn(f64) -> String,
}

const KNOWN: [Archetype; 7] = [
    Archetype::Chat,
    Archetype::Template,
    Archetype::Templates,
    Archetype::Evaluation,
    Archetype::Labelling,
    Archetype::Pool,
    Archetype::Harvest,
];
/// A harvest at which a machine sits, round the clock; the honest kinds stand before it.
const HARVEST: usize = 6;
/// A harvest at which people sit by day: [`KNOWN`] has it under one name with the other.
const BY_DAY: usize = 7;
const KINDS_OF_USE: usize = 8;

fn percent(value: f64) -> String {
    format!("{:.0} %", 100.0 * value)
}

static NOVELTY: Trait = Trait {
    name: "novelty",
    expected: [(0.9, 0.12), (0.8, 0.3), (0.8, 0.3), (0.1, 0.2), (0.9, 0.2), (0.97, 0.08), (0.99, 0.04)],
    by_day: None,
    inside: OnceLock::new(),
    words: |value| format!("the next prompt is a new one with {} (Good-Turing)", percent(value)),
};
static BREADTH: Trait = Trait {
    name: "breadth",
    expected: [(0.6, 0.2), (0.08, 0.12), (0.35, 0.15), (0.4, 0.3), (0.1, 0.12), (0.35, 0.3), (0.6, 0.2)],
    by_day: None,
    inside: OnceLock::new(),
    words: |value| format!("prompts of about {:.0} kinds", (2.0 * value / (1.0 - value).max(0.01)).exp()),
};
static OUTPUT: Trait = Trait {
    name: "output",
    expected: [(0.65, 0.25), (0.3, 0.25), (0.4, 0.25), (0.3, 0.3), (0.08, 0.1), (0.35, 0.25), (0.75, 0.2)],
    by_day: None,
    inside: OnceLock::new(),
    words: |value| format!("{} of all tokens are answers", percent(value)),
};
static DEPTH: Trait = Trait {
    name: "depth",
    expected: [(0.45, 0.3), (0.05, 0.1), (0.1, 0.15), (0.02, 0.05), (0.02, 0.05), (0.02, 0.05), (0.02, 0.05)],
    by_day: None,
    inside: OnceLock::new(),
    words: |value| format!("{} of the requests continue a conversation", percent(value)),
};
static RHYTHM: Trait = Trait {
    name: "rhythm",
    expected: [(0.55, 0.25), (0.3, 0.3), (0.3, 0.3), (0.5, 0.4), (0.4, 0.4), (0.15, 0.2), (0.08, 0.12)],
    by_day: Some((0.5, 0.25)),
    inside: OnceLock::new(),
    words: |value| format!("activity keeps to some hours of the day by {} (0 % is round the clock)", percent(value)),
};
static SLEEP: Trait = Trait {
    name: "sleep",
    expected: [(0.6, 0.2), (0.3, 0.3), (0.3, 0.3), (0.5, 0.4), (0.4, 0.4), (0.15, 0.2), (0.25, 0.45)],
    by_day: Some((0.5, 0.25)),
    inside: OnceLock::new(),
    words: |value| format!("each account by itself keeps to some hours of the day by {}", percent(value)),
};
static EVENNESS: Trait = Trait {
    name: "evenness",
    expected: [(0.4, 0.15), (0.2, 0.25), (0.2, 0.25), (0.3, 0.3), (0.2, 0.25), (0.12, 0.12), (0.1, 0.12)],
    by_day: Some((0.3, 0.2)),
    inside: OnceLock::new(),
    words: |value| format!("accounts differ in volume by {}", percent(value / (1.0 - value).max(0.01))),
};
static ELICITATION: Trait = Trait {
    name: "elicitation",
    expected: [(0.08, 0.12), (0.1, 0.2), (0.1, 0.2), (0.3, 0.4), (0.1, 0.2), (0.1, 0.2), (0.3, 0.35)],
    by_day: None,
    inside: OnceLock::new(),
    words: |value| format!("{} ask for reasoning, grades, further data or log-probabilities", percent(value)),
};
static MIXTURE: Trait = Trait {
    name: "mixture",
    expected: [(0.75, 0.2), (0.9, 0.2), (0.95, 0.1), (0.8, 0.3), (0.9, 0.2), (0.97, 0.06), (0.97, 0.06)],
    by_day: None,
    inside: OnceLock::new(),
    words: |value| format!("each account alone shows {} of the variety of all together", percent(value)),
};
static MACHINE: Trait = Trait {
    name: "machine",
    expected: [(0.35, 0.35), (0.9, 0.2), (0.9, 0.2), (0.7, 0.4), (0.9, 0.2), (0.85, 0.25), (0.85, 0.25)],
    by_day: None,
    inside: OnceLock::new(),
    words: |value| format!("{} of the prompts are made from recurring moulds", percent(value)),
};

static SPREAD: Trait = Trait {
    name: "spread",
    expected: [(0.4, 0.35), (0.05, 0.15), (0.05, 0.15), (0.05, 0.15), (0.05, 0.15), (0.05, 0.12), (0.8, 0.3)],
    by_day: None,
    inside: OnceLock::new(),
    words: |value| format!("one means of payment pays for {} of the accounts", percent(1.0 - value)),
};

/// Judges the pooled stream of accounts; `cells` are those of each account's samples.
///
/// Where the accounts are `linked` by more than what they ask for, it counts whether they hide that they are one customer's. Of
/// accounts that only ask alike it says nothing, since those of different customers are paid for by different means; but then they are
/// no pool of keys, which one customer pays for.
pub(crate) fn judge(accounts: &[&Profile], cells: &[&[usize]], linked: bool, config: &Config) -> Purpose {
    let Some(Weighed { traits, sums, harvest, score, honest, explained, archetype }) =
        weigh(accounts, cells, linked, config)
    else {
        let exchanges: u64 = accounts.iter().map(|account| account.exchanges).sum();
        let counter = vec![format!("{exchanges} exchanges are too few to say what they are for")];
        return Purpose { archetype: Archetype::Unknown, score: 0.0, fits: Vec::new(), reasons: Vec::new(), counter };
    };
    let named = KNOWN
        .iter()
        .enumerate()
        .map(|(place, archetype)| (archetype, sums[if place == HARVEST { harvest } else { place }]));
    let mut fits: Vec<Fit> = named.map(|(archetype, nats)| Fit { archetype: *archetype, nats: tidy(nats) }).collect();
    fits.sort_by(|a, b| b.nats.total_cmp(&a.nats));
    let (reasons, counter) = explain(&traits, harvest, explained.unwrap_or(honest));
    Purpose { archetype, score: tidy(score), fits, reasons, counter }
}

/// A stream weighed against every archetype.
pub(crate) struct Weighed {
    traits: Vec<Measured>,
    /// Nats of each kind of use.
    sums: [f64; KINDS_OF_USE],
    /// The harvest that fits better, of those that come into question.
    harvest: usize,
    /// Nats by which a harvest fits better than the best honest archetype.
    pub(crate) score: f64,
    honest: usize,
    /// The honest archetype that explains the stream, if any does.
    explained: Option<usize>,
    pub(crate) archetype: Archetype,
}

impl Weighed {
    /// Nats by which a harvest fits better than one kind of use.
    pub(crate) fn over(&self, kind: Archetype) -> f64 {
        KNOWN.iter().position(|known| *known == kind).map_or(0.0, |place| self.sums[self.harvest] - self.sums[place])
    }
}

/// What [`judge`] judges by, without words; `None` of too few exchanges.
pub(crate) fn weigh(accounts: &[&Profile], cells: &[&[usize]], linked: bool, config: &Config) -> Option<Weighed> {
    if accounts.iter().map(|account| account.exchanges).sum::<u64>() < ENOUGH {
        return None;
    }
    let mut traits = measure(accounts, cells, config);
    let paid = spread(accounts).filter(|_| accounts.len() >= config.min_accounts);
    // Whoever deals out requests over many keys pays for all of them.
    let excused = |place: &usize| KNOWN[*place] != Archetype::Pool || linked || paid.is_none_or(|paid| paid <= HIDDEN);
    let spread = paid.filter(|_| linked);
    traits.extend(spread.map(|value| Measured { kind: &SPREAD, value }));
    let mut sums = [0.0; KINDS_OF_USE];
    for measured in &traits {
        for (place, sum) in sums.iter_mut().enumerate() {
            *sum += measured.nats(place);
        }
    }
    let honest = (0..HARVEST).filter(excused).max_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap_or(0);
    // By day a harvest looks like an office's application; what tells it from one is that it hides behind several accounts.
    let harvest = if spread.is_some() && sums[BY_DAY] > sums[HARVEST] { BY_DAY } else { HARVEST };
    let score = sums[harvest] - sums[honest];
    let best = tidy(sums[harvest].max(sums[honest]));
    let fits_at_all = best >= MISFIT * traits.len() as f64;
    // Whoever mostly asks again what was asked gets nothing new, whatever else looks like a harvest.
    let harvests = traits.iter().all(|measured| measured.kind.name != NOVELTY.name || measured.value >= FRESH);
    // Of the honest kinds that fit at least as well as a harvest, the best that the traffic does not contradict: people of one firm
    // are paid for like a pool of keys, and talk as no application does.
    let over = |place: usize| if harvests { sums[harvest] - sums[place] } else { f64::NEG_INFINITY };
    // Whoever has many accounts and lets them look like many people's must fit an honest kind better than that.
    let clear = if spread.is_some_and(|spread| spread > HIDDEN) { -CLEAR } else { 0.0 };
    let explains = |place: &usize| over(*place) <= clear && !torn(&traits, *place, over(*place));
    let explained = (0..HARVEST).filter(excused).filter(explains).max_by(|a, b| sums[*a].total_cmp(&sums[*b]));
    let kinds = kinds(&cells.concat());
    let archetype = match fits_at_all {
        false => Archetype::Unknown,
        // It could be either, and only a person can find out.
        true if harvests && score >= config.harvest_margin && kinds < KINDS => Archetype::Unknown,
        true if harvests && score >= config.harvest_margin => Archetype::Harvest,
        // Nearly a tie: neither is the answer. And no kind of use is one that the traffic contradicts.
        true => explained.map_or(Archetype::Unknown, |place| KNOWN[place]),
    };
    Some(Weighed { traits, sums, harvest, score, honest, explained, archetype })
}

/// Does the traffic contradict an archetype: in several traits, or in one where a harvest fits about as well?
fn torn(traits: &[Measured], honest: usize, score: f64) -> bool {
    let against = traits.iter().filter(|measured| measured.nats(honest) <= CONTRADICTION).count();
    against >= 2 || (against == 1 && score > -1.0)
}

/// In words, each trait that tells a harvest from the best honest archetype.
fn explain(traits: &[Measured], harvest: usize, honest: usize) -> (Vec<String>, Vec<String>) {
    let mut weighed: Vec<(f64, &Measured)> =
        traits.iter().map(|measured| (measured.nats(harvest) - measured.nats(honest), measured)).collect();
    weighed.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()).then(a.1.kind.name.cmp(b.1.kind.name)));
    let side = |sign: f64| {
        let strong = weighed.iter().filter(|(nats, _)| nats * sign >= 0.15);
        let other = KNOWN[honest].name();
        strong
            .map(|(nats, measured)| {
                format!("{} ({nats:+.1} nats against {other})", (measured.kind.words)(measured.value))
            })
            .collect()
    };
    (side(1.0), side(-1.0))
}

impl Measured {
    /// Log density under archetype `place`: a normal cut to `0..=1`, mixed with a uniform part, so 0 is what a
    /// use of which nothing is known would get.
    fn nats(&self, place: usize) -> f64 {
        let (typical, spread) = self.kind.expected(place);
        let density = bell(self.value, typical, spread) / self.kind.inside()[place];
        ((1.0 - SURPRISE) * density + SURPRISE).ln()
    }
}

impl Trait {
    fn expected(&self, place: usize) -> (f64, f64) {
        match self.by_day {
            Some(expected) if place == BY_DAY => expected,
            _ => self.expected[place.min(HARVEST)],
        }
    }

    /// How much of each expectation lies in `0..=1`: the mean of its bell there.
    fn inside(&self) -> &[f64; KINDS_OF_USE] {
        const STEPS: u32 = 100;
        self.inside.get_or_init(|| {
            std::array::from_fn(|place| {
                let (typical, spread) = self.expected(place);
                let value = |step: u32| (f64::from(step) + 0.5) / f64::from(STEPS);
                (0..STEPS).map(|step| bell(value(step), typical, spread)).sum::<f64>() / f64::from(STEPS)
            })
        })
    }
}

fn bell(value: f64, typical: f64, spread: f64) -> f64 {
    (-0.5 * ((value - typical) / spread).powi(2)).exp()
}

fn measure(accounts: &[&Profile], cells: &[&[usize]], config: &Config) -> Vec<Measured> {
    let sum = |of: fn(&Profile) -> u64| accounts.iter().map(|account| of(account)).sum::<u64>() as f64;
    let exchanges = sum(|account| account.exchanges);
    let output = sum(|account| account.output_tokens);
    let novelty = match accounts {
        [one] => one.distinct.new_rate(),
        _ => {
            let mut distinct = Distinct::default();
            accounts.iter().for_each(|account| distinct.merge(&account.distinct));
            distinct.new_rate()
        }
    };
    let pool = tally(cells.iter().flat_map(|cells| cells.iter().copied()));
    let kinds = entropy(&pool);
    let mut traits = Vec::new();
    let sketched = sum(|account| account.sketched);
    // What an imported log does not have is not measured; a journal has it all.
    if 2.0 * sketched >= exchanges {
        traits.extend([(&NOVELTY, novelty), (&BREADTH, kinds / (kinds + 2.0))]);
    }
    let tokens = output + sum(|account| account.prompt_tokens);
    if tokens > 0.0 {
        traits.push((&OUTPUT, output / tokens.max(1.0)));
    }
    if 2.0 * sketched >= exchanges {
        traits.push((&DEPTH, sum(|account| account.deep) / sketched));
        traits.push((&ELICITATION, sum(|account| account.elicits) / sketched));
        traits.push((&MACHINE, moulded(&pool)));
    }
    if hours(accounts) >= A_DAY {
        let mut clock = [0; 24];
        for account in accounts {
            clock.iter_mut().zip(account.hours).for_each(|(sum, count)| *sum += count);
        }
        traits.push((&RHYTHM, resultant(&clock)));
        if accounts.len() >= config.min_accounts {
            traits.push((&SLEEP, resultant_each(accounts.iter().map(|account| &account.hours))));
        }
    }
    if accounts.len() >= config.min_accounts {
        let volumes: Vec<f64> = accounts.iter().map(|account| account.exchanges as f64).collect();
        let (mean, variance) = crate::fit::moments(&volumes);
        let variation = variance.sqrt() / mean.max(1.0);
        traits.push((&EVENNESS, variation / (1.0 + variation)));
        traits.extend(mixture(cells, config).map(|value| (&MIXTURE, value)));
    }
    traits.into_iter().map(|(kind, value)| Measured { kind, value: value.clamp(0.0, 1.0) }).collect()
}

/// Share of the accounts that another means of payment pays for than the most usual one; `None` where some are not known.
pub(crate) fn spread(accounts: &[&Profile]) -> Option<f64> {
    let mut paid: BTreeMap<_, usize> = BTreeMap::new();
    for account in accounts {
        *paid.entry(account.payment?).or_default() += 1;
    }
    paid.values().max().map(|most| 1.0 - *most as f64 / accounts.len() as f64)
}

fn hours(accounts: &[&Profile]) -> f64 {
    let first = accounts.iter().filter_map(|account| account.first).min();
    let last = accounts.iter().filter_map(|account| account.last).max();
    first.zip(last).map_or(0.0, |(first, last)| last.since(first) as f64 / 3_600_000.0)
}

/// How many kinds of prompts there are among some: the exponential of their entropy.
pub(crate) fn kinds(cells: &[usize]) -> f64 {
    entropy(&tally(cells.iter().copied())).exp()
}

/// Shannon's entropy of counts, in nats.
fn entropy(counts: &[(usize, u32)]) -> f64 {
    let all: f64 = counts.iter().map(|(_, count)| f64::from(*count)).sum();
    counts.iter().map(|(_, count)| f64::from(*count) / all).map(|share| -share * share.ln()).sum()
}

/// Share of the samples whose cell holds at least four.
fn moulded(pool: &[(usize, u32)]) -> f64 {
    let all: u32 = pool.iter().map(|(_, count)| count).sum();
    let moulded: u32 = pool.iter().map(|(_, count)| count).filter(|count| **count >= 4).sum();
    f64::from(moulded) / f64::from(all.max(1))
}

/// How much of the pool's variety an account shows, relative to equally many samples drawn from the pool at random:
/// near 1 where one list is dealt out, lower where every account has its own habits. `None` where there is no variety.
fn mixture(cells: &[&[usize]], config: &Config) -> Option<f64> {
    let pool: Vec<usize> = cells.iter().flat_map(|cells| cells.iter().copied()).collect();
    let mut random = Seeded::new(config.seed).fork("mixture");
    let (mut own, mut drawn) = (0.0, 0.0);
    let mut counts = BTreeMap::new();
    for cells in cells.iter().filter(|cells| cells.len() as u64 >= config.min_exchanges) {
        own += entropy(&tally(cells.iter().copied()));
        // Accounts of one size share a draw, so the cost does not grow with their number.
        drawn += *counts.entry(cells.len()).or_insert_with(|| {
            let draws = (0..20).map(|_| entropy(&tally((0..cells.len()).filter_map(|_| random.pick(&pool).copied()))));
            draws.sum::<f64>() / 20.0
        });
    }
    (drawn > 0.0 && entropy(&tally(pool.iter().copied())) > 0.3).then(|| (own / drawn).min(1.0))
}
