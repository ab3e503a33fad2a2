//! Accounts that are opened together.
//!
//! Many accounts on one day are no sign of anything where many people come that day: on the day of a launch, of a prize for new
//! customers, or in the week in which a course begins on some campus. So the time between two openings is weighed against how many open
//! an account around then, among all; and of two that share a network, against how many do among those of that network.

use std::collections::HashMap;

use anbiq_domain::Keyed;

use crate::Config;
use crate::link::POPULATION;
use crate::profile::Profile;

const HOUR: f64 = 3_600_000.0;
/// Share of an operator's accounts that are opened in one go.
const BURST_SHARE: f64 = 0.7;
/// Hours on each side over which the density of openings is taken.
const AROUND: f64 = 24.0;
/// Openings that are taken to be spread evenly, besides those that were seen.
const SPREAD_EVENLY: f64 = 4.0;

/// When accounts were opened.
#[derive(Debug)]
pub(crate) struct Openings {
    /// Mean hours between two openings of one operator: equal shares of these.
    scales: [f64; 3],
    /// The hours of the first and of the last.
    span: (f64, f64),
    /// Hours of those who speak for the population, sorted.
    all: Vec<f64>,
    /// The same of all accounts on a network, for each that several have.
    places: HashMap<Keyed, Vec<f64>>,
}

impl Openings {
    /// Of `profiles`; how many open an account at what time is learnt from those of `reference`. `None` where they say nothing.
    pub(crate) fn of(profiles: &[Profile], reference: &[usize], config: &Config) -> Option<Self> {
        let hours = || profiles.iter().filter_map(hour);
        let span = (hours().fold(f64::INFINITY, f64::min), hours().fold(f64::NEG_INFINITY, f64::max));
        // Accounts that were all opened at once, or imported together, say nothing about each other.
        if hours().count() < POPULATION || span.1 - span.0 < 6.0 * config.burst_hours {
            return None;
        }
        // As long as no operator is known, one that opens many accounts at once would pass for a rush of people.
        let speak = if reference.len() < profiles.len() { reference } else { &[] };
        let mut all: Vec<f64> = speak.iter().filter_map(|one| hour(&profiles[*one])).collect();
        all.sort_by(f64::total_cmp);
        let mut places: HashMap<Keyed, Vec<f64>> = HashMap::new();
        for profile in profiles {
            let Some(hour) = hour(profile) else { continue };
            profile.networks.keys().for_each(|network| places.entry(*network).or_default().push(hour));
        }
        // Two are only the pair that is weighed.
        places.retain(|_, hours| hours.len() > 2);
        places.values_mut().for_each(|hours| hours.sort_by(f64::total_cmp));
        // Some open all in one sitting, some over days: three scales give the density a long tail.
        Some(Self { scales: [1.0, 4.0, 16.0].map(|times| times * config.burst_hours), span, all, places })
    }

    /// The density of the time between the openings of `a` and `b` if one operator opened both, relative to two strangers, or to two
    /// who share no more than a place.
    pub(crate) fn nats(&self, a: &Profile, b: &Profile) -> f64 {
        let (Some(one), Some(two)) = (hour(a), hour(b)) else { return 0.0 };
        let (gap, middle) = ((one - two).abs(), f64::midpoint(one, two));
        let together =
            self.scales.iter().map(|scale| (-gap / scale).exp() / scale).sum::<f64>() / self.scales.len() as f64;
        let shared = a.networks.keys().filter(|network| b.networks.contains_key(network));
        let places = shared.filter_map(|network| self.places.get(network));
        let near = [one, two].map(|hour| f64::from(u8::from((hour - middle).abs() <= AROUND)));
        let among = |place: &Vec<f64>| self.density(place, middle, near[0] + near[1], 2.0);
        let unrelated = places.map(among).fold(self.density(&self.all, middle, 0.0, 0.0), f64::max);
        (BURST_SHARE * together / (2.0 * unrelated) + 1.0 - BURST_SHARE).ln()
    }

    /// Openings an hour around `at` as a share of `hours`, less `own` of them that are near and `out` in all. A few that are spread
    /// evenly are added: that few were seen says little.
    fn density(&self, hours: &[f64], at: f64, own: f64, out: f64) -> f64 {
        let (from, to) = (self.span.0.max(at - AROUND), self.span.1.min(at + AROUND));
        let place = |hour: f64| hours.partition_point(|one| *one <= hour);
        let near = (place(to) - hours.partition_point(|one| *one < from)) as f64;
        let here = (near - own).max(0.0) / (to - from).max(1.0);
        let even = SPREAD_EVENLY / (self.span.1 - self.span.0);
        (here + even) / (hours.len() as f64 - out + SPREAD_EVENLY)
    }
}

/// The hour in which an account was opened.
fn hour(profile: &Profile) -> Option<f64> {
    profile.opened.map(|opened| opened.milliseconds() as f64 / HOUR)
}

#[cfg(test)]
mod tests {
    use anbiq_domain::{AccountId, Seeded, Timestamp};

    use super::*;

    /// Accounts by the hours in which they were opened; those of the first `campus` share a network.
    fn opened(hours: &[f64], campus: usize) -> Vec<Profile> {
        let profile = |(place, hour): (usize, &f64)| {
            let mut profile = Profile::new(AccountId::new(format!("a-{place}")).unwrap(), &Config::default());
            profile.opened = Some(Timestamp::from_milliseconds((hour * HOUR) as i64));
            let network = if place < campus { 0 } else { 1 + place as u64 };
            profile.networks.insert(Keyed(network), 1);
            profile
        };
        hours.iter().enumerate().map(profile).collect()
    }

    /// The mean nats of the pairs among the first `count`.
    fn mean(profiles: &[Profile], reference: &[usize], count: usize) -> f64 {
        let openings = Openings::of(profiles, reference, &Config::default()).unwrap();
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
        let nats: Vec<f64> = pairs.map(|(a, b)| openings.nats(&profiles[a], &profiles[b])).collect();
        nats.iter().sum::<f64>() / nats.len() as f64
    }

    #[test]
    fn who_comes_to_a_campus_in_its_first_week_is_linked_to_nobody() {
        let mut random = Seeded::new(1);
        let week = (0..12).map(|_| 1_000.0 + 168.0 * random.unit()).collect::<Vec<_>>();
        let hours: Vec<f64> = week.into_iter().chain((0..300).map(|_| 2_880.0 * random.unit())).collect();
        let everybody: Vec<usize> = (0..hours.len()).collect();
        let on_one_network = mean(&opened(&hours, 12), &everybody, 12);
        let on_their_own = mean(&opened(&hours, 0), &everybody, 12);
        assert!(on_one_network < 0.3, "{on_one_network}");
        assert!(on_their_own > 1.0, "{on_their_own}");
    }

    /// The null: most accounts were opened in the three days after a launch, each by somebody else.
    #[test]
    fn a_launch_links_nobody_once_operators_are_known() {
        let mut random = Seeded::new(2);
        let launch = (0..200).map(|_| 1_000.0 + 72.0 * random.unit()).collect::<Vec<_>>();
        let hours: Vec<f64> = launch.into_iter().chain((0..100).map(|_| 2_880.0 * random.unit())).collect();
        let profiles = opened(&hours, 0);
        let known: Vec<usize> = (1..hours.len()).collect();
        let openings = Openings::of(&profiles, &known, &Config::default()).unwrap();
        let pairs = (0..300).flat_map(|a| (a + 1..300).map(move |b| (a, b)));
        let odds: Vec<f64> = pairs.map(|(a, b)| openings.nats(&profiles[a], &profiles[b]).exp()).collect();
        let mean = odds.iter().sum::<f64>() / odds.len() as f64;
        assert!(mean < 1.2, "{mean}");
    }

    #[test]
    fn a_burst_among_people_who_come_when_they_like_links() {
        let mut random = Seeded::new(3);
        let burst = (0..10).map(|_| 1_000.0 + 6.0 * random.unit()).collect::<Vec<_>>();
        let hours: Vec<f64> = burst.into_iter().chain((0..300).map(|_| 2_880.0 * random.unit())).collect();
        let reference: Vec<usize> = (8..hours.len()).collect();
        let mean = mean(&opened(&hours, 0), &reference, 10);
        assert!(mean > 2.0, "{mean}");
    }
}
