//! What `watch` said, account by account.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anbiq_watch::{Config, Operator, Standing, analyze};

use crate::compose::Stream;

/// What was said of one account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Said {
    /// The group that it was put into.
    pub(crate) group: usize,
    /// Is it to be looked at by a person?
    pub(crate) reviewed: bool,
    /// Is it accused?
    pub(crate) accused: bool,
    /// Nats by which its operator looks like a harvest.
    pub(crate) score: f64,
}

impl Said {
    pub(crate) const fn found(&self) -> bool {
        self.reviewed || self.accused
    }
}

/// What was said of all accounts of `stream`, on its rows until `end`, and how long that took.
pub(crate) fn verdicts(stream: &Stream, end: i64, config: &Config) -> (Vec<Said>, Duration) {
    let config = Config { listed_singles: usize::MAX, ..config.clone() };
    let start = Instant::now();
    let report = analyze(stream.entries(end), &config);
    let spent = start.elapsed();
    let places: HashMap<&str, usize> =
        stream.parties.iter().enumerate().map(|(place, party)| (party.id.as_str(), place)).collect();
    // An account that is in no operator did nothing.
    let nothing = |place: usize| Said {
        group: report.operators.len() + place,
        reviewed: false,
        accused: false,
        score: f64::NEG_INFINITY,
    };
    let mut said: Vec<Said> = (0..stream.parties.len()).map(nothing).collect();
    for (group, operator) in report.operators.iter().enumerate() {
        let score = score(operator, &config);
        for member in &operator.accounts {
            if let Some(place) = places.get(member.account.as_str()) {
                said[*place] = Said {
                    group,
                    reviewed: matches!(operator.standing, Standing::Review { .. }),
                    accused: matches!(operator.standing, Standing::Campaign(_)),
                    score,
                };
            }
        }
    }
    (said, spent)
}

/// Nats for a harvest; an operator of too few accounts for a campaign ranks below all others, and so does one with a grant.
fn score(operator: &Operator, config: &Config) -> f64 {
    const BELOW: f64 = 1_000.0;
    let granted = matches!(operator.standing, Standing::WithinGrant { .. });
    let few = operator.accounts.len() < config.min_accounts;
    operator.purpose.score - if few { BELOW } else { 0.0 } - if granted { BELOW } else { 0.0 }
}
