//! When somebody is active: hours of the day and days of the week.

use super::arrivals::Arrival;

/// Milliseconds of an hour.
const HOUR: f64 = 3_600_000.0;

/// How active somebody is, hour by hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rhythm {
    /// The hour of the day around which activity is highest, UTC.
    pub peak: f64,
    /// Hours on each side of the peak in which most of it falls.
    pub width: f64,
    /// Activity at night, as a share of the peak's.
    pub night: f64,
    /// Activity on Saturday and Sunday, as a share of a weekday's.
    pub weekend: f64,
}

impl Rhythm {
    /// Office hours, for an office some hours east or west of UTC.
    pub const fn office(peak: f64) -> Self {
        Self { peak, width: 3.5, night: 0.01, weekend: 0.05 }
    }

    /// Activity in the hour `hour` after a Monday's midnight.
    fn at(&self, hour: usize) -> f64 {
        let away = (hour as f64 % 24.0 + 0.5 - self.peak).rem_euclid(24.0);
        let away = away.min(24.0 - away) / self.width;
        let day = self.night + (1.0 - self.night) * (-0.5 * away * away).exp();
        if (hour / 24) % 7 < 5 { day } else { day * self.weekend }
    }

    /// Places arrivals between the hours `from` and `to`: in the time in which this rhythm is even, the gaps keep their
    /// proportions (the time-rescaling theorem; Daley and Vere-Jones 2003, theorem 7.4.I).
    ///
    /// The results are milliseconds since the world's beginning, in order.
    pub fn place(&self, arrivals: &[Arrival], from: f64, to: f64) -> Vec<i64> {
        let whole = arrivals.iter().map(|arrival| arrival.gap).sum::<f64>();
        let mean = (whole / arrivals.len().max(1) as f64).max(f64::MIN_POSITIVE);
        // One mean gap is left at the end, as the first gap is at the beginning.
        let scale = self.mass(from, to) / (whole + mean);
        // What every hour holds is worked out once: there are far fewer hours than times that it is asked for.
        let hours: Vec<(f64, f64)> = pieces(from, to).map(|(hour, length)| (length, self.at(hour) * length)).collect();
        let mut passed = 0.0;
        let places = arrivals.iter().map(|arrival| {
            passed += arrival.gap * scale;
            (moment(&hours, from, to, passed) * HOUR) as i64
        });
        places.collect()
    }

    /// Activity between two hours.
    fn mass(&self, from: f64, to: f64) -> f64 {
        pieces(from, to).map(|(hour, length)| self.at(hour) * length).sum()
    }
}

/// The hour at which `mass` of activity has passed since `from`; of the `hours` until `to` the length and what each holds.
fn moment(hours: &[(f64, f64)], from: f64, to: f64, mass: f64) -> f64 {
    let (mut left, mut now) = (mass, from);
    for (length, here) in hours {
        if left <= *here {
            return now + length * left / here.max(f64::MIN_POSITIVE);
        }
        left -= here;
        now += length;
    }
    to
}

/// The hours between two moments, each with the length that lies between them.
fn pieces(from: f64, to: f64) -> impl Iterator<Item = (usize, f64)> {
    let hours = from.max(0.0) as usize..to.max(0.0).ceil() as usize;
    hours.map(move |hour| (hour, (to.min(hour as f64 + 1.0) - from.max(hour as f64)).max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(count: usize) -> Vec<Arrival> {
        vec![Arrival { gap: 1.0, long: false, tokens: None }; count]
    }

    #[test]
    fn arrivals_keep_to_the_hours() {
        let office = Rhythm::office(10.0).place(&even(1_000), 0.0, 24.0 * 14.0);
        assert!(office.is_sorted() && office.len() == 1_000);
        let hours = office.iter().map(|&at| (at as f64 / HOUR) as usize);
        let working = hours.filter(|hour| (5..16).contains(&(hour % 24)) && (hour / 24) % 7 < 5).count();
        assert!(working > 850, "{working}");
    }

    #[test]
    fn a_steady_rhythm_leaves_gaps_as_they_are() {
        let steady = Rhythm { peak: 12.0, width: 4.0, night: 1.0, weekend: 1.0 };
        let places = steady.place(&even(3), 10.5, 14.5);
        assert_eq!(places, [11.5, 12.5, 13.5].map(|hour| (hour * HOUR) as i64));
    }
}
