use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Timestamp;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// Monday, 1970-01-05: from it weeks are counted.
const FIRST_MONDAY: i64 = 4 * DAY;

/// The stretch of time for which a budget lasts; with its end a new one begins. All of them are of the calendar in UTC.
///
/// Written `total`, `month`, `week`, `day`, or a number of hours such as `6h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// All time: it never ends.
    Total,
    /// From the first of a month on.
    Month,
    /// From Monday on.
    Week,
    /// From midnight on.
    Day,
    /// So many hours, at least one, counted from 1970-01-01: 6 hours end at 0:00, 6:00, 12:00 and 18:00.
    Hours(u16),
}

/// A text that names no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no window: write `total`, `month`, `week`, `day` or a number of hours such as `6h`")]
pub struct WindowError(String);

impl Window {
    /// The beginning of the window that `at` is in, and its end, which is the beginning of the next one; no end for
    /// [`Window::Total`], which begins at the epoch.
    pub fn around(self, at: Timestamp) -> (Timestamp, Option<Timestamp>) {
        let even = |length: i64, from: i64| {
            let begins = at.milliseconds().saturating_sub((at.milliseconds() - from).rem_euclid(length));
            (Timestamp::from_milliseconds(begins), Some(Timestamp::from_milliseconds(begins.saturating_add(length))))
        };
        match self {
            Self::Total => (Timestamp::default(), None),
            Self::Month => month(at).unwrap_or_else(|| even(30 * DAY, 0)),
            Self::Week => even(7 * DAY, FIRST_MONDAY),
            Self::Day => even(DAY, 0),
            Self::Hours(hours) => even(i64::from(hours.max(1)) * HOUR, 0),
        }
    }
}

/// `None` outside of the years that the calendar knows: nobody's request is made there.
fn month(at: Timestamp) -> Option<(Timestamp, Option<Timestamp>)> {
    let first = |date: Date| {
        let midnight = Offset::UTC.to_timestamp(date.first_of_month().to_datetime(Time::midnight())).ok()?;
        Some(Timestamp::from_milliseconds(midnight.as_millisecond()))
    };
    let date = Offset::UTC.to_datetime(jiff::Timestamp::from_millisecond(at.milliseconds()).ok()?).date();
    let next = date.last_of_month().tomorrow().ok()?;
    Some((first(date)?, Some(first(next)?)))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total => f.write_str("total"),
            Self::Month => f.write_str("month"),
            Self::Week => f.write_str("week"),
            Self::Day => f.write_str("day"),
            Self::Hours(hours) => write!(f, "{hours}h"),
        }
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let hours = || {
            let hours = text.strip_suffix('h')?.parse().ok()?;
            (hours > 0).then_some(Self::Hours(hours))
        };
        match text {
            "total" => Ok(Self::Total),
            "month" => Ok(Self::Month),
            "week" => Ok(Self::Week),
            "day" => Ok(Self::Day),
            _ => hours().ok_or_else(|| WindowError(text.to_owned())),
        }
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Window; 6] =
        [Window::Total, Window::Month, Window::Week, Window::Day, Window::Hours(1), Window::Hours(5000)];

    #[test]
    fn windows_follow_the_calendar() {
        // Wednesday, 2024-02-28 17:30:00 UTC, of a leap year.
        let at = Timestamp::from_milliseconds(1_709_141_400_000);
        for (window, begins, ends) in [
            (Window::Month, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            (Window::Week, "2024-02-26T00:00:00Z", "2024-03-04T00:00:00Z"),
            (Window::Day, "2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z"),
            (Window::Hours(6), "2024-02-28T12:00:00Z", "2024-02-28T18:00:00Z"),
        ] {
            let (from, to) = window.around(at);
            assert_eq!((from.to_string(), to.unwrap().to_string()), (begins.to_owned(), ends.to_owned()), "{window}");
        }
        assert_eq!(Window::Total.around(at), (Timestamp::default(), None));
    }

    #[test]
    fn a_window_reads_as_it_is_written() {
        for window in ALL {
            assert_eq!(window.to_string().parse(), Ok(window));
        }
        for wrong in ["", "0h", "-1h", "h", "70000h", "year", "6"] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_in_one_window_and_the_next_follows_at_once(at in -10_i64.pow(13)..10_i64.pow(14)) {
            let at = Timestamp::from_milliseconds(at);
            for window in ALL {
                let (begins, ends) = window.around(at);
                prop_assert!(window == Window::Total || begins <= at);
                prop_assert_eq!(window.around(begins), (begins, ends));
                if let Some(ends) = ends {
                    prop_assert!(at < ends);
                    prop_assert_eq!(window.around(ends).0, ends);
                    prop_assert_eq!(window.around(ends.plus_milliseconds(-1)).0, begins);
                }
            }
        }

        #[test]
        fn no_moment_is_out_of_reach(at in any::<i64>()) {
            for window in ALL {
                window.around(Timestamp::from_milliseconds(at));
            }
        }
    }
}
