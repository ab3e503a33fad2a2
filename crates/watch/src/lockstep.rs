//! Accounts that share nothing but a machine's pace, though they do not ask as applications do.
//!
//! People come in bursts and have nights, and so do programs that serve them. Whoever deals out a list, or the hours of rented
//! conversations among which it is hidden, gives each account its quota, evenly and round the clock. One account like that may be
//! anything; many at one rate, where chance would put hardly any, and whose use as a whole is of no honest kind, should be seen by a
//! person.
//!
//! What a timer starts keeps a round rate that many strangers have as well, so who keeps to one phase of a round period is left out.
//!
//! The pace is one kind of evidence and what they are used for another. Neither says whose the accounts are, so nothing is linked by
//! it and nobody is accused.

use std::collections::BTreeMap;

use crate::campaign::Desk;
use crate::fit::chance;
use crate::gather::{Group, thin};
use crate::grants::Grants;
use crate::habits::resultant;
use crate::parallel::map;
use crate::profile::Profile;
use crate::purpose::{A_DAY, ENOUGH};
use crate::report::{Archetype, Channel};

/// Most variation of the gaps between exchanges, as standard deviation over mean, that is a machine's: at random it is 1, and most
/// programs and people whose gaps are those of real arrivals show 2 to 10.
const EVEN: f64 = 1.5;
/// Most that activity may keep to some hours of the day.
const NIGHTLESS: f64 = 0.2;
/// Widths of a common rate that are tried, in logarithms: a quota that is kept exactly to one that is kept roughly.
const WIDTHS: [f64; 4] = [0.02, 0.05, 0.1, 0.2];
/// Half the width, in logarithms, of the rates that tell how many accounts chance would put into a narrow one: half to twice the rate.
const AROUND: f64 = std::f64::consts::LN_2;
/// Most accounts of a crowd that chance may have put there, as a share.
const BY_CHANCE: f64 = 0.1;
/// Probability with which chance may show a crowd anywhere.
const CHANCE: f64 = 1e-4;
/// Periods of timers, in minutes.
const TIMERS: [i64; 13] = [5, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720];
/// How far exchanges must keep to one phase of a period to be a timer's, from 0 to 1: chance shows that of thirty with a probability
/// of about e^(-30 x 0.7^2) (Rayleigh's test).
const PHASE: f64 = 0.7;
/// Crowds that are looked for.
const CROWDS: usize = 64;
/// Accounts of a crowd from which its purpose is judged.
const JUDGED: usize = 200;

/// For each account that keeps in step with others how many they are.
pub(crate) type Steps = BTreeMap<usize, usize>;

impl Desk<'_> {
    /// Accounts in step, outside of the operators in `found` that are large enough to be judged themselves.
    pub(crate) fn in_step(&self, found: &[Group]) -> Steps {
        if self.config.ignored.contains(&Channel::Rhythm) {
            return Steps::new();
        }
        let small = found.iter().filter(|group| group.accounts.len() < self.config.min_accounts);
        let free: Vec<usize> = small.flat_map(|group| group.accounts.iter().copied()).collect();
        let paced = map(self.config.threads(), &free, |one| self.machine_paced(*one));
        let mut paced: Vec<(f64, usize)> =
            free.into_iter().zip(paced).filter_map(|(one, rate)| Some((rate?, one))).collect();
        paced.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut steps = Steps::new();
        for _ in 0..CROWDS {
            let Some((from, to)) = crowd(&paced, self.config.min_accounts) else { break };
            let mut accounts: Vec<usize> = paced.drain(from..to).map(|one| one.1).collect();
            accounts.sort_unstable();
            let judged: Vec<usize> = thin(&accounts, JUDGED).collect();
            if matches!(self.used_as(&judged), Archetype::Harvest | Archetype::Unknown) {
                steps.extend(accounts.iter().map(|one| (*one, accounts.len())));
            }
        }
        steps
    }

    /// What accounts that nothing else links are used for.
    fn used_as(&self, group: &[usize]) -> Archetype {
        self.weighed(group, false).map_or(Archetype::Unknown, |weighed| weighed.archetype)
    }

    /// The logarithm of an account's rate, if a machine paces it and no application or grant explains that.
    fn machine_paced(&self, one: usize) -> Option<f64> {
        let profile = &self.profiles[one];
        let rate = steady_rate(profile, self.linker.irregularity(one)?)?;
        if on_a_timer(profile) {
            return None;
        }
        let honest = match self.used_as(&[one]) {
            Archetype::Chat | Archetype::Harvest | Archetype::Unknown => {
                profile.granted_exchanges > 0 && Grants::of(&[profile], self.world).explain()
            }
            _ => true,
        };
        (!honest).then_some(rate)
    }
}

/// The logarithm of the rate of an account that is even and knows no night.
fn steady_rate(profile: &Profile, irregularity: f64) -> Option<f64> {
    let hours = profile.last?.since(profile.first?) as f64 / 3_600_000.0;
    let steady = profile.exchanges >= ENOUGH
        && hours >= A_DAY
        && unthinned(irregularity, profile.samples.len() as f64 / profile.exchanges as f64) <= EVEN
        && resultant(&profile.hours) <= NIGHTLESS;
    steady.then(|| (profile.exchanges as f64 / hours).ln())
}

/// Does something start an account's exchanges every so many minutes, at a period that strangers choose too?
pub(crate) fn on_a_timer(profile: &Profile) -> bool {
    let moments: Vec<i64> = profile.samples.iter().map(|sample| sample.at.milliseconds()).collect();
    TIMERS.iter().any(|minutes| phase(&moments, minutes * 60_000) >= PHASE)
}

/// How far moments keep to one phase of a period: 0 for none, 1 for all at one. The length of their mean direction.
fn phase(moments: &[i64], period: i64) -> f64 {
    let (mut x, mut y) = (0.0, 0.0);
    for moment in moments {
        let angle = std::f64::consts::TAU * moment.rem_euclid(period) as f64 / period as f64;
        x += angle.cos();
        y += angle.sin();
    }
    x.hypot(y) / moments.len().max(1) as f64
}

/// How irregular gaps were before only a `share` of the events was kept: whatever is thinned looks more random than it is. Exact for
/// independent gaps (of a renewal process thinned to `p`, the squared variation less one is `p` times that of the whole).
fn unthinned(irregularity: f64, share: f64) -> f64 {
    (1.0 + (irregularity * irregularity - 1.0) / share.clamp(f64::MIN_POSITIVE, 1.0)).max(0.0).sqrt()
}

/// The most striking crowd among sorted rates, from one place to before another, of at least `fewest` accounts.
///
/// The null: accounts come to their rates independently, with a density that does not change much between half and twice a rate
/// (a scan statistic; Kulldorff 1997). Chernoff's bound on a Poisson tail, times all windows that are looked at, is at most [`CHANCE`].
fn crowd(paced: &[(f64, usize)], fewest: usize) -> Option<(usize, usize)> {
    let needed = ((paced.len() * WIDTHS.len()).max(1) as f64 / CHANCE).ln();
    let place = |rate: f64| paced.partition_point(|one| one.0 <= rate);
    let mut best: Option<(f64, usize, usize)> = None;
    for (from, (rate, _)) in paced.iter().enumerate() {
        for width in WIDTHS {
            let to = place(rate + width);
            let count = to - from;
            let middle = rate + width / 2.0;
            let around = place(middle + AROUND) - place(middle - AROUND) - count;
            // One more than are seen: that none was seen does not show that there are none.
            let expected = (around + 1) as f64 * width / (2.0 * AROUND - width);
            let count = count as f64;
            let nats = chance(count, expected);
            let striking = to - from >= fewest && expected <= BY_CHANCE * count && nats > needed;
            if striking && best.is_none_or(|best| nats > best.0) {
                best = Some((nats, from, to));
            }
        }
    }
    best.map(|(_, from, to)| (from, to))
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    fn rates(random: &mut Seeded, count: usize) -> Vec<(f64, usize)> {
        let mut rates: Vec<(f64, usize)> = (0..count).map(|place| (4.0 * random.unit() - 2.0, place)).collect();
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        rates
    }

    #[test]
    fn rates_of_their_own_are_no_crowd() {
        let mut crowds = 0;
        for seed in 0..2_000 {
            let mut random = Seeded::new(seed);
            let count = 5 + random.below(300);
            crowds += usize::from(crowd(&rates(&mut random, count), 5).is_some());
        }
        // At a chance of 1e-4 each one is seen about once in five such tests; what is expected is estimated as well.
        assert!(crowds <= 4, "{crowds} of 2000");
    }

    #[test]
    fn a_timer_is_told_from_a_quota() {
        let mut random = Seeded::new(3);
        // Every half hour, late by up to minutes; every third moment is kept.
        let timer: Vec<i64> = (0..240).map(|run| run * 1_800_000 + random.below(200_000) as i64).step_by(3).collect();
        assert!(phase(&timer, 1_800_000) > PHASE && phase(&timer, 3_600_000) < PHASE);
        let mut quotas = 0;
        for seed in 0..1_000 {
            let mut random = Seeded::new(seed);
            let mut now = 0.0;
            let quota: Vec<i64> = (0..30)
                .map(|_| {
                    now += 1_700_000.0 * (0.4 + 0.6 * random.exponential());
                    now as i64
                })
                .collect();
            quotas += usize::from(TIMERS.iter().any(|minutes| phase(&quota, minutes * 60_000) >= PHASE));
        }
        assert!(quotas <= 20, "{quotas} of 1000");
    }

    #[test]
    fn what_is_thinned_is_as_irregular_as_before() {
        let mut random = Seeded::new(1);
        let variation = |gaps: &[f64]| {
            let (mean, variance) = crate::fit::moments(gaps);
            variance.sqrt() / mean
        };
        for burst in [0.02, 1.0] {
            // Some gaps are short, the others long: bursts, or none.
            let gap = |random: &mut Seeded| random.exponential() * if random.chance(0.8) { burst } else { 1.0 };
            let gaps: Vec<f64> = (0..400_000).map(|_| gap(&mut random)).collect();
            let (mut kept, mut since) = (Vec::new(), 0.0);
            for gap in &gaps {
                since += gap;
                if random.chance(0.2) {
                    kept.push(std::mem::take(&mut since));
                }
            }
            let (whole, back) = (variation(&gaps), unthinned(variation(&kept), 0.2));
            assert!((whole - back).abs() < 0.05 * whole, "{whole} {back}");
        }
    }

    #[test]
    fn one_quota_is_a_crowd() {
        for seed in 0..50 {
            let mut random = Seeded::new(seed);
            let mut all = rates(&mut random, 20);
            all.extend((0..12).map(|place| (0.08 + 0.02 * random.normal(), 100 + place)));
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (from, to) = crowd(&all, 5).unwrap();
            let ours = all[from..to].iter().filter(|one| one.1 >= 100).count();
            assert!(ours >= 6 && to - from <= ours + 4, "seed {seed}: {ours} of {}", to - from);
        }
    }
}
