//! Accounts that go over to a new model together.
//!
//! A harvest wants the newest teacher, and whoever deals out its work turns all accounts over within hours. Others come to a new
//! model over days, each when it suits them. That many come on the first day is no sign of anything: what counts is how near two
//! accounts are, against how many come around that time.

use std::collections::BTreeMap;

use anbiq_domain::Seeded;

use crate::Config;
use crate::link::POPULATION;
use crate::profile::Profile;

const HOUR: f64 = 3_600_000.0;
/// Hours for which somebody must have used other models before a first use is a change.
const SETTLED: f64 = 12.0;
/// Hours from the first exchange of all to the first of a model from which that model is a new one.
const BEFORE: f64 = 24.0;
/// Share of operators whose accounts change together.
const SHARE: f64 = 0.5;
/// Mean hours between the changes of two accounts of one operator: equal shares of these.
const SCALES: [f64; 3] = [0.5, 2.0, 8.0];
/// Hours on each side over which the density of changes is taken.
const AROUND: f64 = 12.0;
/// Random pairs by which the nats are calibrated.
const PAIRS: usize = 4_000;

/// When accounts went over to new models.
#[derive(Debug, Default)]
pub(crate) struct Pivots {
    /// For every account, by number of the model, the hour of its first use.
    of: Vec<Vec<(usize, f64)>>,
    models: Vec<Model>,
    /// Nats by which random accounts would be held to be of one operator.
    too_much: f64,
}

/// A model that came later than the others.
#[derive(Debug)]
struct Model {
    name: String,
    /// The hour in which it was first used, and the last hour of all.
    span: (f64, f64),
    /// When the accounts of the population changed to it, sorted.
    changes: Vec<f64>,
}

impl Pivots {
    /// Of all `profiles`; how many change at what time is learnt from those of `reference`.
    pub(crate) fn of(profiles: &[Profile], reference: &[usize], config: &Config) -> Self {
        let hour = |at: anbiq_domain::Timestamp| at.milliseconds() as f64 / HOUR;
        let Some(begun) = profiles.iter().filter_map(|profile| profile.first).min().map(hour) else {
            return Self::default();
        };
        let end = profiles.iter().filter_map(|profile| profile.last).max().map_or(begun, hour);
        let mut first: BTreeMap<&str, f64> = BTreeMap::new();
        for (model, at) in profiles.iter().flat_map(|profile| &profile.models) {
            let earliest = first.entry(model).or_insert(f64::INFINITY);
            *earliest = earliest.min(hour(*at));
        }
        let new = first.into_iter().filter(|(_, at)| *at >= begun + BEFORE);
        let mut models: Vec<Model> =
            new.map(|(name, at)| Model { name: name.to_owned(), span: (at, end), changes: Vec::new() }).collect();
        let change = |profile: &Profile, model: &Model| {
            let at = hour(*profile.models.get(&model.name)?);
            (at >= hour(profile.first?) + SETTLED).then_some(at)
        };
        let of: Vec<Vec<(usize, f64)>> = profiles
            .iter()
            .map(|profile| {
                models.iter().enumerate().filter_map(|(place, model)| Some((place, change(profile, model)?))).collect()
            })
            .collect();
        for (model, at) in reference.iter().flat_map(|one| &of[*one]) {
            models[*model].changes.push(*at);
        }
        models.iter_mut().for_each(|model| model.changes.sort_by(f64::total_cmp));
        let mut this = Self { of, models, too_much: 0.0 };
        this.too_much = this.excess(reference, config);
        this
    }

    /// Nats that the accounts `a` and `b` are of one operator; nothing where one of them changed to no new model.
    pub(crate) fn nats(&self, a: usize, b: usize) -> f64 {
        let nats = self.raw(a, b);
        if nats > 0.0 { (nats - self.too_much).max(0.0) } else { nats }
    }

    /// The model to which both changed, and the hours between.
    pub(crate) fn shared(&self, a: usize, b: usize) -> Option<(&str, f64)> {
        let nearest = self.both(a, b).min_by(|x, y| x.2.total_cmp(&y.2));
        nearest.map(|(model, _, gap)| (self.models[model].name.as_str(), gap))
    }

    /// Accounts that changed to a new model, in the order of their changes, model by model.
    pub(crate) fn in_order(&self) -> Vec<Vec<u32>> {
        let mut orders: Vec<Vec<(f64, u32)>> = vec![Vec::new(); self.models.len()];
        for (place, changes) in (0_u32..).zip(&self.of) {
            changes.iter().for_each(|(model, at)| orders[*model].push((*at, place)));
        }
        orders
            .into_iter()
            .map(|mut order| {
                order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                order.into_iter().map(|one| one.1).collect()
            })
            .collect()
    }

    fn both(&self, a: usize, b: usize) -> impl Iterator<Item = (usize, f64, f64)> {
        self.of[a].iter().filter_map(move |(model, at)| {
            let other = self.of[b].iter().find(|(other, _)| other == model)?.1;
            Some((*model, f64::midpoint(*at, other), (at - other).abs()))
        })
    }

    /// The density of the time between two changes if one operator made both, relative to two unrelated ones.
    fn raw(&self, a: usize, b: usize) -> f64 {
        let weigh = |(model, middle, gap): (usize, f64, f64)| {
            let model = &self.models[model];
            if model.changes.len() < POPULATION {
                return 0.0;
            }
            let together = SCALES.iter().map(|scale| (-gap / scale).exp() / scale).sum::<f64>() / SCALES.len() as f64;
            (SHARE * together / (2.0 * model.density(middle)) + 1.0 - SHARE).ln()
        };
        self.both(a, b).map(weigh).sum()
    }

    /// By how much the mean likelihood ratio of random pairs is above 1, in nats: of unrelated ones it is 1. Some random pairs are of
    /// one operator, so this errs towards the accused.
    fn excess(&self, reference: &[usize], config: &Config) -> f64 {
        let changed: Vec<usize> = reference.iter().copied().filter(|one| !self.of[*one].is_empty()).collect();
        if changed.len() < POPULATION {
            return 0.0;
        }
        let mut random = Seeded::new(config.seed).fork("pivots");
        let (mut sum, mut pairs) = (0.0, 0);
        while pairs < PAIRS {
            let (a, b) = (changed[random.below(changed.len())], changed[random.below(changed.len())]);
            if a != b {
                sum += self.raw(a, b).exp();
                pairs += 1;
            }
        }
        (sum / pairs as f64).ln().max(0.0)
    }
}

impl Model {
    /// Changes an hour around `at`, as a share of all. A few that are spread evenly are added, so that nobody is alone in the world.
    fn density(&self, at: f64) -> f64 {
        const SPREAD_EVENLY: f64 = 4.0;
        let (from, to) = (self.span.0.max(at - AROUND), self.span.1.min(at + AROUND));
        let place = |hour: f64| self.changes.partition_point(|change| *change <= hour);
        // The first change of all counts as well.
        let here = (place(to) - self.changes.partition_point(|change| *change < from)) as f64 / (to - from).max(1.0);
        let even = SPREAD_EVENLY / (self.span.1 - self.span.0).max(1.0);
        (here + even) / (self.changes.len() as f64 + SPREAD_EVENLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pivots(times: &[f64]) -> Pivots {
        let mut changes = times.to_vec();
        changes.sort_by(f64::total_cmp);
        let model = Model { name: "new".into(), span: (0.0, 100.0), changes };
        let mut this =
            Pivots { of: times.iter().map(|at| vec![(0, *at)]).collect(), models: vec![model], too_much: 0.0 };
        this.too_much = this.excess(&(0..times.len()).collect::<Vec<_>>(), &Config::default());
        this
    }

    /// The null: accounts change independently, many of them on the day of the release.
    #[test]
    fn a_rush_on_the_first_day_links_nobody() {
        let mut random = Seeded::new(1);
        let times: Vec<f64> = (0..300).map(|_| (1.5 + 1.2 * random.normal()).exp().min(100.0)).collect();
        let pivots = pivots(&times);
        let all = || (0..300).flat_map(|a| (a + 1..300).map(move |b| (a, b)));
        let mean = all().map(|(a, b)| pivots.nats(a, b).exp()).sum::<f64>() / all().count() as f64;
        assert!(mean <= 1.1, "{mean}");
        let high = all().filter(|(a, b)| pivots.nats(*a, *b) > 1.5).count() as f64 / all().count() as f64;
        assert!(high < 0.01, "{high}");
    }

    #[test]
    fn those_who_change_within_an_hour_where_others_take_days_are_linked() {
        let mut random = Seeded::new(2);
        let others = (0..100).map(|_| 100.0 * random.unit()).collect::<Vec<_>>();
        let ours = (0..20).map(|_| 40.0 + random.unit());
        let times: Vec<f64> = ours.chain(others).collect();
        let pivots = pivots(&times);
        let mean = (1..20).map(|other| pivots.nats(0, other)).sum::<f64>() / 19.0;
        assert!(mean > 0.9, "{mean}");
        assert!(pivots.nats(0, 60) < 0.5);
    }
}
