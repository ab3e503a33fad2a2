//! Parts of the pairs that are tested by themselves: of one version of the teacher, or of one period.

use std::collections::BTreeMap;

use anbiq_domain::Timestamp;
use serde::{Deserialize, Serialize};

use crate::TwinItem;

/// By what pairs are parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The teacher's name and, where its server says it, its build.
    Model,
    /// The day of the exchange, by UTC.
    Day,
    /// Its month.
    Month,
}

impl By {
    /// The part to which an exchange belongs.
    pub(crate) fn part(self, at: Timestamp, model: &str, build: &str) -> String {
        let written = at.to_string();
        match self {
            Self::Model if build.is_empty() => format!("model {model}"),
            Self::Model => format!("model {model}, build {build}"),
            Self::Day => format!("day {}", written.get(..10).unwrap_or(&written)),
            Self::Month => format!("month {}", written.get(..7).unwrap_or(&written)),
        }
    }
}

/// The parts of some pairs, in the order of their names. A part that holds all of them is none: that test is made anyway.
pub(crate) fn parts(items: &[TwinItem]) -> Vec<String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for part in items.iter().flat_map(|item| &item.slices) {
        *counts.entry(part).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count < items.len()).map(|(part, _)| part.clone()).collect()
}
