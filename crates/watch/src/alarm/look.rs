//! Looks: moments at which accounts are grouped and alarms given.

use std::collections::BTreeMap;

use anbiq_domain::{AccountId, Money, Timestamp};
use anbiq_statistics::detector::Detector;
use anbiq_statistics::ebh;
use serde::{Deserialize, Serialize};

use super::{Alarm, Alarms, Excuse, Leak, Stage};
use crate::Config;
use crate::campaign::{Desk, first_of};
use crate::cells::Cells;
use crate::fit::tidy;
use crate::gather::Group;
use crate::parallel::map;
use crate::profile::Profile;
use crate::report::Standing;
use crate::world::World;

const HOUR: i64 = 3_600_000;

/// Which looks were taken, and what came of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Looks {
    pub(crate) taken: u64,
    /// When the last one was taken; before, the time of the first exchange.
    since: Timestamp,
    /// The latest time of an exchange.
    now: Timestamp,
    exchanges: u64,
    /// Exchanges at the last look.
    before: u64,
    /// By the first account of an operator, what was given alarm of.
    given: BTreeMap<AccountId, Given>,
}

/// The alarms that an operator was given.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Given {
    review: Option<Leak>,
    act: Option<Leak>,
}

impl Looks {
    /// Is a look due before what happens at `at` is taken in? They are taken at whole multiples of their hours since 1970.
    pub(crate) fn due(&self, at: Timestamp, alarms: &Alarms) -> bool {
        let length = HOUR * i64::from(alarms.look_hours.max(1));
        let stretch = |at: Timestamp| at.milliseconds().div_euclid(length);
        let grown = self.exchanges as f64 >= self.before as f64 * (1.0 + alarms.growth);
        self.exchanges > 0 && grown && stretch(at) > stretch(self.since)
    }

    /// An exchange at `at` is taken in.
    pub(crate) fn passed(&mut self, at: Timestamp) {
        if self.exchanges == 0 {
            (self.since, self.now) = (at, at);
        }
        self.now = self.now.max(at);
        self.exchanges += 1;
    }

    fn take(&mut self, at: Timestamp) {
        self.since = at;
        self.before = self.exchanges;
        self.taken += 1;
    }
}

/// What the bets come to when this moment is a look.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The detector of every account.
    detectors: Vec<Detector>,
    /// For every group, whether there is an alarm.
    alarmed: Vec<bool>,
    /// What the logarithm of a detector must reach for one more alarm, and for those that there are.
    needed: [f64; 2],
}

impl Verdict {
    pub(crate) fn of(world: &World, groups: &[Group], alarms: &Alarms) -> Self {
        let profiles = &world.profiles;
        let mut pools: BTreeMap<u32, f64> = BTreeMap::new();
        for bets in profiles.iter().map(|profile| &profile.bets) {
            bets.operator.into_iter().for_each(|operator| *pools.entry(operator).or_default() += bets.share());
        }
        let detectors: Vec<Detector> = profiles
            .iter()
            .map(|Profile { bets, .. }| {
                let pooled = bets.operator.and_then(|operator| pools.get(&operator).copied());
                bets.detector(pooled.unwrap_or_else(|| bets.ln_e()))
            })
            .collect();
        let mut ln_e = vec![f64::NEG_INFINITY; profiles.len()];
        let firsts: Vec<Option<usize>> = groups.iter().map(|group| first_of(profiles, &group.accounts)).collect();
        for first in firsts.iter().flatten() {
            ln_e[*first] = detectors[*first].ln_value();
        }
        let rejected = ebh::reject(&ln_e, alarms.level());
        let alarmed = firsts.iter().map(|first| first.is_some_and(|first| rejected.binary_search(&first).is_ok()));
        let needed = |count: usize| (profiles.len().max(1) as f64 / (alarms.level() * count.max(1) as f64)).ln();
        Self { alarmed: alarmed.collect(), needed: [needed(rejected.len() + 1), needed(rejected.len())], detectors }
    }

    /// The alarm of the operator `groups[place]`, which stands as `standing` says.
    pub(crate) fn alarm(&self, world: &World, group: &[usize], place: usize, standing: &Standing) -> Alarm {
        let alarmed = self.alarmed[place];
        let first = first_of(&world.profiles, group);
        let nats = first.map_or(f64::NEG_INFINITY, |first| self.detectors[first].ln_value());
        let members = || group.iter().map(|one| &world.profiles[*one]);
        let mut against: Vec<(Excuse, f64)> = Excuse::ALL.iter().map(|excuse| (*excuse, 0.0)).collect();
        for (place, won) in members().flat_map(|member| member.bets.won().into_iter().enumerate()) {
            against[place].1 += won;
        }
        against.iter_mut().for_each(|(_, nats)| *nats = tidy(*nats));
        against.sort_by(|a, b| a.1.total_cmp(&b.1));
        let given: Vec<&Given> = members().filter_map(|member| world.looks.given.get(&member.account)).collect();
        let earliest =
            |of: fn(&Given) -> Option<Leak>| given.iter().filter_map(|given| of(given)).min_by_key(|leak| leak.by);
        let (mut review, mut act) = (earliest(|given| given.review), earliest(|given| given.act));
        let stage = stage(standing, alarmed || act.is_some());
        let now = leak(world, group);
        if stage >= Stage::Review {
            review.get_or_insert(now);
        }
        if stage == Stage::Act {
            act.get_or_insert(now);
        }
        // Of a group that nobody bet on yet the logarithm has no value that JSON can write.
        Alarm {
            stage,
            nats: tidy(nats.max(-1e3)),
            needed: tidy(self.needed[usize::from(alarmed)]),
            against,
            review,
            act,
        }
    }
}

/// How far things have come: never by an alarm alone, and never to *act* without one.
fn stage(standing: &Standing, alarmed: bool) -> Stage {
    match standing {
        Standing::Campaign(_) if alarmed => Stage::Act,
        Standing::Campaign(_) | Standing::Review { .. } => Stage::Review,
        Standing::WithinGrant { .. } | Standing::Unremarkable => Stage::Watch,
    }
}

/// What the accounts of `group` have taken by now.
fn leak(world: &World, group: &[usize]) -> Leak {
    let mut leak =
        Leak { by: world.looks.now, accounts: group.len() as u64, exchanges: 0, output_tokens: 0, cost: Money::ZERO };
    for profile in group.iter().map(|one| &world.profiles[*one]) {
        leak.exchanges += profile.exchanges;
        leak.output_tokens += profile.output_tokens;
        leak.cost += profile.cost;
    }
    leak
}

impl World {
    /// Takes a look before what happens at `at`: groups the accounts, gives alarms, and begins to bet anew.
    pub(crate) fn look(&mut self, at: Timestamp, config: &Config, alarms: &Alarms) {
        let cells = Cells::of(&self.profiles);
        let desk = Desk::open(self, &self.profiles, &cells, config);
        let groups = desk.operators();
        let verdict = Verdict::of(self, &groups, alarms);
        let places: Vec<usize> =
            (0..groups.len()).filter(|place| groups[*place].accounts.len() >= config.min_accounts).collect();
        let given = map(config.threads(), &places, |place| {
            let group = &groups[*place];
            let first = self.profiles[first_of(&self.profiles, &group.accounts)?].account.clone();
            let before = self.looks.given.get(&first).cloned().unwrap_or_default();
            if before.act.is_some() {
                return None;
            }
            let stage = stage(&desk.standing_of(group), verdict.alarmed[*place]);
            let now = leak(self, &group.accounts);
            let given = Given {
                review: before.review.or((stage >= Stage::Review).then_some(now)),
                act: (stage == Stage::Act).then_some(now),
            };
            given.review.is_some().then_some((first, given))
        });
        self.looks.given.extend(given.into_iter().flatten());
        let mut operators = vec![None; self.profiles.len()];
        for (number, group) in (0..).zip(&groups) {
            group.accounts.iter().for_each(|one| operators[*one] = Some(number));
        }
        for ((profile, detector), operator) in self.profiles.iter_mut().zip(verdict.detectors).zip(operators) {
            profile.bets.settle(detector, operator);
        }
        self.looks.take(at);
    }
}
