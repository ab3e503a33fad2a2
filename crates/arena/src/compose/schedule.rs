//! When a campaign works: drawn for each campaign, and from that for each of its accounts.
//!
//! Nobody published the hours of a real campaign beyond that its accounts' timing is coordinated, so several plausible ways are
//! drawn from. A detector that knows only one of them shows here.

use anbiq_domain::Seeded;
use anbiq_lab::world::{Arrival, Caller, Rhythm};

use super::{Campaign, Composer, HOUR, Trick};

/// How a campaign's accounts spread their work over the day.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    /// A scheduler gives each its next prompt after a pause, round the clock.
    Even,
    /// The same, while the operator's people are at work, with something left for the night.
    Hours { peak: f64, width: f64, night: f64, weekend: f64 },
    /// So many prompts at a sitting, then a pause of hours.
    Sittings { length: usize },
    /// As requests come to real programs: in bursts, whatever the hour.
    Bursts,
}

/// How a campaign keeps its time.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// Exchanges of a typical account in a day.
    rate: f64,
    /// How the accounts differ in volume: the standard deviation of its logarithm.
    spread: f64,
    shape: Shape,
    /// How much of a pause is chance: of 0 it is a clock's, of 1 as random as it can be.
    jitter: f64,
    /// Hours by which accounts differ in when they work, as a standard deviation.
    shift: f64,
    /// Has every account hours of its own?
    own_hours: bool,
    /// Hours after the beginning of the world within which the accounts begin.
    begins: (f64, f64),
    /// Hours after the release of a new teacher in which the accounts go over to it, if they do.
    renews: Option<f64>,
    /// Does another account go on where one is refused?
    hands_over: bool,
}

/// What one account does of it.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// Its exchanges, about.
    pub(super) count: usize,
    /// Its first hour.
    start: f64,
    shape: Shape,
    jitter: f64,
    /// Does another account go on where it is refused?
    pub(super) hands_over: bool,
}

impl Schedule {
    /// Draws how `campaign` works in a world of so many `days`.
    pub(super) fn draw(campaign: &Campaign, days: f64, random: &mut Seeded) -> Self {
        let shape = match random.unit() {
            even if even < 0.35 => Shape::Even,
            hours if hours < 0.65 => Shape::Hours {
                peak: 24.0 * random.unit(),
                width: 2.5 + 3.0 * random.unit(),
                night: 0.02 + 0.3 * random.unit(),
                weekend: 0.2 + 0.8 * random.unit(),
            },
            sittings if sittings < 0.85 => Shape::Sittings { length: 4 + random.below(30) },
            _ => Shape::Bursts,
        };
        let mut this = Self {
            rate: (campaign.a_day * (0.4 * random.normal()).exp()).clamp(0.25 * campaign.a_day, 4.0 * campaign.a_day),
            spread: 0.03 + 0.55 * random.unit(),
            shape,
            jitter: random.unit(),
            shift: 3.0 * random.unit(),
            own_hours: false,
            begins: {
                let first = 24.0 * days * 0.3 * random.unit();
                (first, first + 1.0 + 23.0 * random.unit())
            },
            renews: {
                let hours = 1.0 + 30.0 * random.unit();
                random.chance(0.6).then_some(hours)
            },
            hands_over: random.chance(0.5),
        };
        match campaign.trick {
            Some(Trick::Jitter) => {
                this.spread = this.spread.max(0.5);
                this.shape = Shape::Hours { peak: 0.0, width: 4.0, night: 0.05, weekend: 1.0 };
                this.own_hours = true;
            }
            Some(Trick::Staggered) => this.begins.1 = this.begins.1.max(24.0 * days * 0.6),
            _ => {}
        }
        this
    }

    /// When one account goes over to the teacher that is released at `released`: within an hour or so of the others, if they do.
    pub(super) fn renews(&self, released: f64, campaign: &Campaign, random: &mut Seeded) -> Option<f64> {
        let apart = if campaign.trick == Some(Trick::Staggered) { 24.0 } else { 1.0 };
        self.renews.map(|hours| released + hours + apart * random.exponential())
    }

    /// What one account does.
    pub(super) fn task(&self, days: f64, random: &mut Seeded) -> Task {
        let start = self.begins.0 + (self.begins.1 - self.begins.0) * random.unit();
        let volume = (self.spread * random.normal()).exp();
        let moved = if self.own_hours { 24.0 * random.unit() } else { self.shift * random.normal() };
        let shape = match self.shape {
            Shape::Hours { peak, width, night, weekend } => {
                Shape::Hours { peak: (peak + moved).rem_euclid(24.0), width, night, weekend }
            }
            other => other,
        };
        Task {
            count: (self.rate * volume * (days - start / 24.0)) as usize,
            start,
            shape,
            jitter: self.jitter,
            hands_over: self.hands_over,
        }
    }
}

impl Composer<'_> {
    /// The moments at which an account works.
    pub(super) fn keep(&mut self, task: &Task) -> Vec<(i64, Arrival)> {
        let real = self.arrivals.take(Caller::Program, task.count, &mut self.random);
        let paused: Vec<Arrival> =
            real.iter().zip(0..).map(|(arrival, number)| self.paused(task, *arrival, number)).collect();
        let rhythm = match task.shape {
            Shape::Hours { peak, width, night, weekend } => Rhythm { peak, width, night, weekend },
            _ => Rhythm { peak: 12.0, width: 6.0, night: 1.0, weekend: 1.0 },
        };
        let places = rhythm.place(&paused, task.start, 24.0 * self.days);
        places.into_iter().map(|at| (at as f64).min(self.days * 24.0 * HOUR) as i64).zip(paused).collect()
    }

    fn paused(&mut self, task: &Task, arrival: Arrival, number: usize) -> Arrival {
        let chance = 1.0 - task.jitter + task.jitter * self.random.exponential();
        let gap = match task.shape {
            Shape::Even | Shape::Hours { .. } => chance,
            // Within a sitting the next prompt follows the answer.
            Shape::Sittings { length } if number.is_multiple_of(length) => length as f64 * chance,
            Shape::Sittings { .. } => 0.02 * chance,
            Shape::Bursts => arrival.gap,
        };
        Arrival { gap, ..arrival }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_differ_and_so_do_their_accounts() {
        let campaign = Campaign::new(100, 0.0, false, 0);
        let drawn: Vec<Schedule> = (0..40).map(|seed| Schedule::draw(&campaign, 5.0, &mut Seeded::new(seed))).collect();
        let rates: Vec<f64> = drawn.iter().map(|schedule| schedule.rate).collect();
        let (low, high) = rates.iter().fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
        assert!(low < 20.0 && high > 34.0, "{low} {high}");
        for wanted in ["Even", "Hours", "Sittings", "Bursts"] {
            assert!(drawn.iter().any(|schedule| format!("{:?}", schedule.shape).starts_with(wanted)), "{wanted}");
        }
        let counts: std::collections::BTreeSet<usize> =
            (0..20).map(|seed| drawn[0].task(5.0, &mut Seeded::new(seed)).count).collect();
        assert!(counts.len() > 5, "{counts:?}");
    }
}
