//! What was gone before a campaign was found: a stream is followed as `watch --follow` follows a journal.

use std::collections::HashMap;

use anbiq_watch::{Alarms, Config, Stage, State};
use serde::{Deserialize, Serialize};

use crate::compose::{Campaign, HOUR, Stream};
use crate::tally::half_of_active;

/// What was gone of campaigns of one kind before they came to a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelayRow {
    /// Which.
    pub campaign: Campaign,
    /// All of them.
    pub of: u64,
    /// Until the first alarm of any kind.
    pub review: Gone,
    /// Until the stage *act*.
    pub act: Gone,
}

/// What was gone until a stage, over those campaigns that came to it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Gone {
    /// Those that came to it.
    pub found: u64,
    /// Hours since the campaign's first harvested exchange.
    pub hours: Spread,
    /// Exchanges that were harvested.
    pub exchanges: Spread,
    /// Tokens of their answers.
    pub tokens: Spread,
    /// Share of the campaign's exchanges, as long as the world lasts.
    pub share: Spread,
}

/// A median and how sure it is: between two of the ordered values it lies with 95 % probability, whatever their distribution, from six
/// values on; of fewer the smallest and the largest stand here.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// Not below.
    pub low: f64,
    /// Not above.
    pub high: f64,
}

/// What was gone of one campaign at each of its stages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Delays {
    review: Option<Leaked>,
    act: Option<Leaked>,
}

#[derive(Debug, Clone, Copy)]
struct Leaked {
    hours: f64,
    exchanges: u64,
    tokens: u64,
    share: f64,
}

/// Follows `stream` with alarms on, reports whenever a look is due, and says for each campaign what was gone when half of its accounts
/// were first to be reviewed, and when half were at the stage *act*.
pub(crate) fn delays(stream: &Stream) -> Vec<Delays> {
    let alarms = Alarms::default();
    let mut state = State::new(Config { alarms: Some(alarms), listed_singles: usize::MAX, ..Config::default() });
    let places: HashMap<&str, usize> =
        stream.parties.iter().enumerate().map(|(place, party)| (party.id.as_str(), place)).collect();
    let mut found = vec![Delays::default(); stream.campaigns.len()];
    let step = (f64::from(alarms.look_hours) * HOUR) as i64;
    let mut next = step;
    let mut entries = stream.timed_entries().peekable();
    while let Some((at, entry)) = entries.next() {
        state.take(entry);
        let later = entries.peek().map(|(later, _)| *later);
        if later.is_some_and(|later| later < next) {
            continue;
        }
        next = later.map_or(next, |later| (later.div_euclid(step) + 1) * step);
        let stages = stages(&mut state, &places, stream.parties.len());
        for (delays, (operator, _)) in found.iter_mut().zip(&stream.campaigns) {
            let reached = |stage: Stage| half_of_active(stream, *operator, at, |place| stages[place] >= stage);
            if delays.review.is_none() && reached(Stage::Review) {
                delays.review = Some(leaked(stream, *operator, at));
            }
            if delays.act.is_none() && reached(Stage::Act) {
                delays.act = Some(leaked(stream, *operator, at));
            }
        }
    }
    found
}

/// The stage of every account by what was taken in.
fn stages(state: &mut State, places: &HashMap<&str, usize>, accounts: usize) -> Vec<Stage> {
    let mut stages = vec![Stage::Watch; accounts];
    for operator in &state.report().operators {
        let Some(alarm) = &operator.alarm else { continue };
        for member in &operator.accounts {
            if let Some(place) = places.get(member.account.as_str()) {
                stages[*place] = alarm.stage;
            }
        }
    }
    stages
}

fn leaked(stream: &Stream, operator: usize, until: i64) -> Leaked {
    let its =
        stream.rows.iter().filter(|row| row.harvested && stream.parties[row.account as usize].operator == operator);
    let (mut first, mut all, mut exchanges, mut tokens) = (None, 0_u64, 0, 0);
    for row in its {
        first.get_or_insert(row.at);
        all += 1;
        if row.at <= until {
            exchanges += 1;
            tokens += u64::from(row.output_tokens);
        }
    }
    let hours = (until - first.unwrap_or(until)).max(0) as f64 / HOUR;
    Leaked { hours, exchanges, tokens, share: exchanges as f64 / all.max(1) as f64 }
}

impl DelayRow {
    pub(crate) fn of(campaign: &Campaign, delays: &[Delays]) -> Self {
        Self {
            campaign: campaign.clone(),
            of: delays.len() as u64,
            review: Gone::of(delays.iter().filter_map(|delays| delays.review)),
            act: Gone::of(delays.iter().filter_map(|delays| delays.act)),
        }
    }
}

impl Gone {
    fn of(leaked: impl Iterator<Item = Leaked>) -> Self {
        let leaked: Vec<Leaked> = leaked.collect();
        let spread = |of: fn(&Leaked) -> f64| Spread::of(leaked.iter().map(of).collect());
        Self {
            found: leaked.len() as u64,
            hours: spread(|leaked| leaked.hours),
            exchanges: spread(|leaked| leaked.exchanges as f64),
            tokens: spread(|leaked| leaked.tokens as f64),
            share: spread(|leaked| leaked.share),
        }
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
        let median = if n % 2 == 1 { at(n / 2) } else { f64::midpoint(at((n / 2).saturating_sub(1)), at(n / 2)) };
        let place = place(n);
        Self { median, low: at(place), high: at((n - place).saturating_sub(1)) }
    }
}

/// Of `n` ordered values the one between which and its counterpart from the other end the median lies with 95 %: at most so many of
/// `n` fair coins show heads with at most 2.5 % (the sign test turned round). 0 where no choice reaches that.
fn place(n: usize) -> usize {
    let mut term = 0.5_f64.powi(n as i32);
    let (mut below, mut place) = (term, 0);
    loop {
        term *= n.saturating_sub(place) as f64 / (place + 1) as f64;
        below += term;
        if below > 0.025 || place >= n {
            return place;
        }
        place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_has_the_interval_of_the_sign_test() {
        // From tables: of 6 the whole range, of 9 all but one at each end, of 20 all but five.
        assert_eq!([1, 5, 6, 8, 9, 12, 20].map(place), [0, 0, 0, 0, 1, 2, 5]);
        let spread = Spread::of((0..9).map(f64::from).collect());
        assert_eq!(spread, Spread { median: 4.0, low: 1.0, high: 7.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        assert_eq!(Spread::of(vec![3.0, 1.0]), Spread { median: 2.0, low: 1.0, high: 3.0 });
    }
}
