//! What others propose, on the same streams.
//!
//! Those that compare prompts see the first hundred of an account, as their authors' windows are. Their thresholds are set so that
//! one in a hundred accounts that chat is flagged in a world of its own.

mod linkage;
mod prompts;

use serde::{Deserialize, Serialize};

pub(crate) use linkage::components;
pub(crate) use prompts::Reference;

use crate::compose::{Class, Stream};

/// Fewest prompts of which a method speaks.
const FEWEST: usize = 10;
/// Share of chatting accounts that a threshold lets through.
const FALSE_ALARMS: f64 = 0.01;
/// Accounts that share a payment or an address from which linkage alone flags them.
const LINKED: f64 = 5.0;

/// A detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// This program.
    Anbiq,
    /// Exchanges of an account in its busiest day.
    Volume,
    /// Distances between an account's prompts are not normal (Juuti et al. 2019).
    Prada,
    /// Pairs of prompts that are too alike (Zhang et al. 2021).
    Seat,
    /// The mean prompt is far from the population's, in its own metric.
    Mahalanobis,
    /// The maximum mean discrepancy from the population (Gretton et al. 2012).
    Mmd,
    /// Accounts that share a payment or an address, whatever they do.
    Linkage,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Anbiq, Self::Volume, Self::Prada, Self::Seat, Self::Mahalanobis, Self::Mmd, Self::Linkage];
    /// All but ours.
    pub const BASELINES: [Self; 6] =
        [Self::Volume, Self::Prada, Self::Seat, Self::Mahalanobis, Self::Mmd, Self::Linkage];

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anbiq => "Anbiq",
            Self::Volume => "volume",
            Self::Prada => "PRADA",
            Self::Seat => "SEAT-like",
            Self::Mahalanobis => "Mahalanobis",
            Self::Mmd => "MMD",
            Self::Linkage => "linkage alone",
        }
    }
}

/// The scores that `method` gives to all accounts of a stream; minus infinity where it does not speak.
pub(crate) fn scores(method: Method, stream: &Stream, reference: &Reference) -> Vec<f64> {
    match method {
        Method::Anbiq => Vec::new(),
        Method::Volume => volume(stream),
        Method::Linkage => {
            let (of, sizes) = components(stream);
            of.into_iter().map(|component| sizes[component] as f64).collect()
        }
        _ => stream
            .parties
            .iter()
            .map(|party| match party.window.len() >= FEWEST {
                true => reference.score(method, &party.window),
                false => f64::NEG_INFINITY,
            })
            .collect(),
    }
}

/// The score from which a method flags, set on the chatting accounts of `stream`.
pub(crate) fn threshold(method: Method, stream: &Stream, reference: &Reference) -> f64 {
    if method == Method::Linkage {
        return LINKED;
    }
    let scores = scores(method, stream, reference).into_iter().zip(&stream.parties);
    let chatting = scores.filter(|(score, party)| party.class == Class::Chat && score.is_finite());
    let mut scores: Vec<f64> = chatting.map(|(score, _)| score).collect();
    scores.sort_by(f64::total_cmp);
    let place = ((1.0 - FALSE_ALARMS) * scores.len() as f64).ceil() as usize;
    scores.get(place.min(scores.len().saturating_sub(1))).copied().unwrap_or(f64::INFINITY)
}

/// Exchanges of each account in its busiest day.
fn volume(stream: &Stream) -> Vec<f64> {
    const DAY: i64 = 86_400_000;
    let mut days = vec![std::collections::BTreeMap::<i64, u32>::new(); stream.parties.len()];
    for row in &stream.rows {
        *days[row.account as usize].entry(row.at / DAY).or_default() += 1;
    }
    days.iter().map(|days| days.values().max().copied().unwrap_or(0).into()).collect()
}
