//! How an account works: how fast, how evenly over the day, how regularly.

use crate::Config;
use crate::fit::moments;
use crate::link::POPULATION;
use crate::profile::{Profile, Sample};

/// Number of habits: log rate, evenness over the day, log irregularity of gaps.
pub(crate) const HABITS: usize = 3;

/// How a habit varies between accounts and within one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) between: f64,
    pub(crate) within: f64,
}

/// The habits that some exchanges show.
pub(crate) fn habits(samples: &[Sample], exchanges: u64, config: &Config) -> Option<[f64; HABITS]> {
    if samples.len() < 2 || (samples.len() as u64) < config.min_exchanges / 2 {
        return None;
    }
    let span = samples[samples.len() - 1].at.since(samples[0].at).max(60_000) as f64;
    let gaps: Vec<f64> = samples.windows(2).map(|pair| pair[1].at.since(pair[0].at) as f64).collect();
    let (mean, variance) = moments(&gaps);
    let irregularity = (variance.sqrt() / mean.max(1.0)).max(0.05);
    let mut hours = [0; 24];
    samples.iter().for_each(|sample| hours[crate::profile::hour_of_day(sample.at)] += 1);
    Some([(exchanges as f64 / span * 3_600_000.0).ln(), resultant(&hours), irregularity.ln()])
}

/// How far activity keeps to some hours of the day: 0 for none, 1 for all in one hour. The length of the mean
/// direction on the 24-hour circle, corrected for its bias in small samples (Mardia and Jupp 2000).
pub(crate) fn resultant(hours: &[u32; 24]) -> f64 {
    resultant_each(std::iter::once(hours))
}

/// The same of several accounts, each by itself: people on several continents keep no hours together, and every one of them sleeps.
/// Accounts weigh by their pairs of exchanges, so that the square is unbiased.
pub(crate) fn resultant_each<'h>(accounts: impl Iterator<Item = &'h [u32; 24]>) -> f64 {
    let (mut together, mut pairs) = (0.0, 0.0);
    for hours in accounts {
        let n: f64 = hours.iter().map(|count| f64::from(*count)).sum();
        let (mut x, mut y) = (0.0, 0.0);
        for (hour, count) in hours.iter().enumerate() {
            let angle = std::f64::consts::TAU * hour as f64 / 24.0;
            x += f64::from(*count) * angle.cos();
            y += f64::from(*count) * angle.sin();
        }
        together += x * x + y * y - n;
        pairs += n * (n - 1.0);
    }
    if pairs <= 0.0 { 0.0 } else { (together / pairs).max(0.0).sqrt() }
}

/// How habits vary, by the accounts of `reference` and by the halves of each.
pub(crate) fn fit_habits(
    profiles: &[Profile],
    reference: &[usize],
    all: &[Option<[f64; HABITS]>],
    config: &Config,
) -> Option<[Spread; HABITS]> {
    let known: Vec<&[f64; HABITS]> = reference.iter().filter_map(|place| all[*place].as_ref()).collect();
    if known.len() < POPULATION {
        return None;
    }
    let mut squares = [const { Vec::new() }; HABITS];
    let reference = reference.iter().map(|place| &profiles[*place]);
    for profile in reference.filter(|profile| profile.exchanges >= config.min_exchanges) {
        let (early, late) = profile.samples.split_at(profile.samples.len() / 2);
        // A sample stands for several exchanges where not all were kept; the same for both halves.
        let each = profile.exchanges / (profile.samples.len() as u64).max(1);
        let half = |samples: &[Sample]| habits(samples, each * samples.len() as u64, config);
        if let (Some(early), Some(late)) = (half(early), half(late)) {
            for i in 0..HABITS {
                squares[i].push((early[i] - late[i]).powi(2) / 2.0);
            }
        }
    }
    let mut spreads = [Spread { mean: 0.0, between: 0.0, within: 0.0 }; HABITS];
    for (i, spread) in spreads.iter_mut().enumerate() {
        let (mean, total) = moments(&known.iter().map(|habits| habits[i]).collect::<Vec<_>>());
        // The median does not let a few restless accounts speak for all.
        squares[i].sort_by(f64::total_cmp);
        let within = squares[i].get(squares[i].len() / 2).map_or(total / 2.0, |median| median / 0.455).max(1e-3);
        *spread = Spread { mean, between: (total - within).max(1e-3), within };
    }
    Some(spreads)
}
