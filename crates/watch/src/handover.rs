//! Accounts that take over from each other.
//!
//! A program that deals out work over accounts gives a request to the next one when an account is refused: for its rate, its budget, or
//! because it was closed. So one account falls silent, and within seconds another that was idle begins. Whoever has one account
//! waits and tries again.
//!
//! Only the journal shows refusals, and only refusals of one account count: where all are refused at once, all come back at once.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anbiq_domain::{Refusal, Seeded, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::fit::optional;
use crate::profile::{Profile, TALLY};

/// Milliseconds within which a program goes on with another account.
const WINDOW: i64 = 3_000;
/// Milliseconds without an exchange after which an account is idle.
const IDLE: i64 = 600_000;
/// Milliseconds within which further refusals of an account are the same one.
const AGAIN: i64 = 60_000;
/// Refusals that are remembered until what came after them is journalled: an exchange is when it ends.
const OPEN: usize = 256;
/// Accounts that may have taken over from one; more are chance.
const FOLLOWERS: u8 = 16;
/// Codes of refusals that concern one account.
const CODES: [&str; 4] =
    ["rate_limit_exceeded", "concurrency_limit_exceeded", "account_budget_exceeded", "key_budget_exceeded"];
/// Share of operators whose accounts take over from each other.
const SHARE: f64 = 0.5;
/// Chances that a certain other account of the operator takes over: of few accounts, of some, of many.
const CHANCES: [f64; 3] = [0.3, 0.1, 0.02];
/// Random pairs by which the nats are calibrated.
const PAIRS: usize = 4_000;

/// Refusals whose consequences may not be journalled yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stops(VecDeque<Stop>);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Stop {
    who: u64,
    at: Timestamp,
    followed: u8,
}

/// What an account did where others were refused, and what was refused to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Handovers {
    /// Times that it was refused, by a limit of its own.
    stops: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<Timestamp>,
    /// Times that it began after it was idle.
    wakes: u32,
    /// Times that it did so within seconds of another's refusal, by account.
    #[serde(with = "crate::profile::pairs", default, skip_serializing_if = "BTreeMap::is_empty")]
    relieved: BTreeMap<u64, u32>,
}

impl Stops {
    /// A request of `profile` was refused.
    pub(crate) fn refuse(&mut self, refusal: &Refusal, profile: &mut Profile) {
        if !CODES.contains(&refusal.code.as_str()) {
            return;
        }
        let (handovers, who) = (&mut profile.handovers, profile.salt);
        if handovers.stopped.replace(refusal.at).is_some_and(|last| refusal.at.since(last) < AGAIN) {
            return;
        }
        handovers.stops += 1;
        if self.0.len() >= OPEN {
            self.0.pop_front();
        }
        self.0.push_back(Stop { who, at: refusal.at, followed: 0 });
    }

    /// An exchange of `profile` begins at `at`, before it is taken in.
    pub(crate) fn begin(&mut self, at: Timestamp, profile: &mut Profile) {
        let who = profile.salt;
        if profile.last.is_some_and(|last| at.since(last) < IDLE) {
            return;
        }
        let handovers = &mut profile.handovers;
        handovers.wakes += 1;
        for stop in &mut self.0 {
            if (0..=WINDOW).contains(&at.since(stop.at)) && stop.who != who && stop.followed < FOLLOWERS {
                stop.followed += 1;
                if handovers.relieved.len() < TALLY || handovers.relieved.contains_key(&stop.who) {
                    *handovers.relieved.entry(stop.who).or_default() += 1;
                }
            }
        }
    }
}

/// Who took over from whom.
#[derive(Debug, Default)]
pub(crate) struct Reliefs {
    /// By the one that was refused and the other that began: how often.
    seen: HashMap<(usize, usize), u32>,
    stops: Vec<f64>,
    /// For every account the chance that it begins within seconds of some moment.
    wakes: Vec<f64>,
    /// Share of each account's exchanges in each hour of the day.
    hours: Vec<[f64; 24]>,
    /// Nats by which random accounts would be held to be of one operator.
    too_much: f64,
}

impl Reliefs {
    pub(crate) fn of(profiles: &[Profile], reference: &[usize], config: &Config) -> Self {
        let places: HashMap<u64, usize> = profiles.iter().map(|profile| profile.salt).zip(0..).collect();
        let mut seen = HashMap::new();
        for (place, profile) in profiles.iter().enumerate() {
            for (who, times) in &profile.handovers.relieved {
                if let Some(who) = places.get(who) {
                    seen.insert((*who, place), *times);
                }
            }
        }
        let chance = |profile: &Profile| {
            let span = profile.first.zip(profile.last).map_or(0, |(first, last)| last.since(first)).max(86_400_000);
            f64::from(profile.handovers.wakes) * WINDOW as f64 / span as f64
        };
        let hours = |profile: &Profile| {
            let all = f64::from(profile.hours.iter().sum::<u32>().max(1));
            profile.hours.map(|count| f64::from(count) / all)
        };
        let mut this = Self {
            seen,
            stops: profiles.iter().map(|profile| f64::from(profile.handovers.stops)).collect(),
            wakes: profiles.iter().map(chance).collect(),
            hours: profiles.iter().map(hours).collect(),
            too_much: 0.0,
        };
        this.too_much = this.excess(reference, config);
        this
    }

    /// Nats that the accounts `a` and the accounts `b` are of one operator.
    pub(crate) fn nats(&self, a: &[usize], b: &[usize]) -> f64 {
        let nats = self.raw(a, b);
        if nats > 0.0 { (nats - self.too_much).max(0.0) } else { nats }
    }

    /// How often one of the two took over from the other, and how often by chance.
    pub(crate) fn between(&self, a: usize, b: usize) -> (f64, f64) {
        let (there, back) = (self.one_way(a, b), self.one_way(b, a));
        (there.0 + back.0, there.1 + back.1)
    }

    /// Pairs of accounts of which one took over from the other at least twice.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        self.seen.iter().filter(|(_, times)| **times > 1).map(|((a, b), _)| (*a, *b))
    }

    /// Seen, expected, and refusals after which it could have been.
    fn one_way(&self, from: usize, to: usize) -> (f64, f64, f64) {
        let stops = self.stops[from];
        if stops <= 0.0 {
            return (0.0, 0.0, 0.0);
        }
        // Who works at the same hours begins more often where the other is refused.
        let meet: f64 = 24.0 * self.hours[from].iter().zip(self.hours[to]).map(|(one, other)| one * other).sum::<f64>();
        let seen = f64::from(self.seen.get(&(from, to)).copied().unwrap_or(0));
        (seen, stops * self.wakes[to] * meet.max(0.1), stops)
    }

    /// Poisson: what chance gives, against what a program that goes on with another account gives besides.
    fn raw(&self, a: &[usize], b: &[usize]) -> f64 {
        let pairs = a.iter().flat_map(|a| b.iter().flat_map(move |b| [(*a, *b), (*b, *a)]));
        let (mut seen, mut expected, mut stops) = (0.0, 1e-4, 0.0);
        for (from, to) in pairs {
            let (hits, chance, all) = self.one_way(from, to);
            (seen, expected, stops) = (seen + hits, expected + chance, stops + all);
        }
        if stops <= 0.0 {
            return 0.0;
        }
        let ratio = |chance: f64| seen * (1.0 + chance * stops / expected).ln() - chance * stops;
        let ratios = CHANCES.map(ratio);
        let largest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = ratios.iter().map(|ratio| (ratio - largest).exp()).sum();
        optional(SHARE, largest + (sum / CHANCES.len() as f64).ln())
    }

    /// By how much the mean likelihood ratio of random pairs is above 1, in nats.
    fn excess(&self, reference: &[usize], config: &Config) -> f64 {
        let stopped: Vec<usize> = reference.iter().copied().filter(|one| self.stops[*one] > 0.0).collect();
        if stopped.is_empty() || reference.len() < 2 {
            return 0.0;
        }
        let mut random = Seeded::new(config.seed).fork("handovers");
        let (mut sum, mut pairs) = (0.0, 0);
        while pairs < PAIRS {
            let (a, b) = (stopped[random.below(stopped.len())], reference[random.below(reference.len())]);
            if a != b {
                sum += self.raw(&[a], &[b]).exp();
                pairs += 1;
            }
        }
        (sum / pairs as f64).ln().max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use anbiq_domain::AccountId;

    use super::*;

    const DAY: i64 = 86_400_000;

    /// What accounts did, each with the moments at which it began after it was idle, and refusals `(account, moment)`.
    fn reliefs(wakes: &[Vec<i64>], refusals: &[(usize, i64)]) -> Reliefs {
        let config = Config::default();
        let account = |place: usize| AccountId::new(format!("account-{place:03}")).unwrap();
        let mut profiles: Vec<Profile> = (0..wakes.len()).map(|place| Profile::new(account(place), &config)).collect();
        let begun = wakes.iter().enumerate().flat_map(|(place, times)| times.iter().map(move |at| (*at, 1, place)));
        let refused = refusals.iter().map(|(place, at)| (*at, 0, *place));
        let mut all: Vec<(i64, u8, usize)> = begun.chain(refused).collect();
        all.sort_unstable();
        let mut stops = Stops::default();
        for (at, kind, place) in all {
            let (profile, at) = (&mut profiles[place], Timestamp::from_milliseconds(at));
            if kind == 0 {
                stops.refuse(&Refusal { at, account: account(place), code: "rate_limit_exceeded".to_owned() }, profile);
                continue;
            }
            stops.begin(at, profile);
            profile.first = profile.first.or(Some(at));
            profile.last = Some(at);
            profile.hours[crate::profile::hour_of_day(at)] += 1;
        }
        Reliefs::of(&profiles, &(0..wakes.len()).collect::<Vec<_>>(), &config)
    }

    fn random_moments(seed: u64, count: usize) -> Vec<i64> {
        let mut random = Seeded::new(seed);
        (0..count).map(|_| random.below(5 * DAY as usize) as i64).collect()
    }

    #[test]
    fn who_goes_on_where_another_is_refused_is_linked_to_it() {
        let mut wakes: Vec<Vec<i64>> = (0..40).map(|seed| random_moments(seed, 20)).collect();
        let refusals: Vec<(usize, i64)> = (1..=4).map(|day| (0, day * DAY)).collect();
        wakes[1].extend(refusals.iter().map(|(_, at)| at + 1_500));
        let reliefs = reliefs(&wakes, &refusals);
        assert_eq!(reliefs.between(0, 1).0, 4.0);
        assert!(reliefs.nats(&[0], &[1]) > 2.0, "{}", reliefs.nats(&[0], &[1]));
        // Whoever does something else meanwhile is not, and the chance of it is small.
        assert!((2..40).all(|other| reliefs.nats(&[0], &[other]) < 0.0 && reliefs.between(0, other).1 < 0.1));
    }

    #[test]
    fn where_all_are_refused_and_come_back_at_once_nobody_is_linked() {
        let moments: Vec<i64> = (1..=4).map(|day| day * DAY).collect();
        let refusals: Vec<(usize, i64)> = (0..40).flat_map(|one| moments.iter().map(move |at| (one, *at))).collect();
        let wakes: Vec<Vec<i64>> = (0..40_u64)
            .map(|seed| {
                let mut random = Seeded::new(seed);
                moments.iter().map(|at| at + random.below(3_000) as i64).chain(random_moments(seed + 100, 20)).collect()
            })
            .collect();
        let reliefs = reliefs(&wakes, &refusals);
        let pairs = (0..40).flat_map(|a| (0..a).map(move |b| (a, b)));
        let linked = pairs.filter(|(a, b)| reliefs.nats(&[*a], &[*b]) > 1.0).count();
        assert!(linked <= 8, "{linked} of 780 pairs");
    }
}
