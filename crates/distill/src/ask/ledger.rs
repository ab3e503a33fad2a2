//! The ledger beside a capture: what each request can cost at most, on disk before the request leaves, and afterwards what
//! became of it.
//!
//! | line | meaning |
//! |---|---|
//! | `{"id": …, "held": "0.0012"}` | it is about to be sent, and may cost so much |
//! | `{"id": …, "end": "free"}` | the last one of this id was not answered and costs nothing |
//! | `{"id": …, "end": "paid"}` | it was answered, and its row is safe |
//! | `{"id": …, "end": "once"}` | the same, and all earlier ones of this id were the same exchange |
//! | `{"id": …, "end": "paid", "cost": "0.0001"}` | it was no row (a question of what the server can do), and cost so much |
//! | `{"id": 0, "end": "paid", "of": 4, "cost": "0.0001"}` | four rows count a prompt that was charged once: so much less was paid |
//!
//! Where a request asks for several answers each has its own lines, with their number in `of`.
//!
//! What is held without an end was under way when the program was killed: unless its row is there, it counts as spent, at
//! its most.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anbiq_domain::{Digest, Money, Usage};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::disk::{append, replace};
use super::want::{Short, short};
use crate::DistillError;
use crate::data::Lines;
use crate::told::Told;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    Free,
    Paid,
    Once,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(serialize_with = "write_short", deserialize_with = "read_short")]
    pub(crate) id: Short,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<End>,
    /// Answers that its request asks for, where these are several.
    #[serde(default = "alone", skip_serializing_if = "is_alone")]
    pub(crate) of: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<Money>,
}

const fn alone() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_alone(of: &u32) -> bool {
    *of == 1
}

impl Entry {
    pub(crate) fn held(id: Short, sent: Try) -> Self {
        Self { id, held: Some(sent.most), end: None, of: sent.of, cost: None }
    }

    pub(crate) fn ended(id: &Digest, end: End, of: u32) -> Self {
        Self { id: short(id), held: None, end: Some(end), of, cost: None }
    }

    /// What was paid beside the rows.
    fn extra(cost: Money) -> Self {
        Self { id: 0, held: None, end: Some(End::Paid), of: 1, cost: Some(cost) }
    }

    /// So much less was paid than rows say that were asked for together, `of` at a time.
    pub(crate) fn saved(cost: Money, of: u32) -> Self {
        Self { of, ..Self::extra(cost) }
    }
}

/// A request that was sent, perhaps charged, and has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Try {
    /// The most that it may have cost.
    pub(crate) most: Money,
    /// Answers that it asked for: tries of one answer are the same exchange only if they are of the same request.
    pub(crate) of: u32,
}

/// What the ledger says of the past.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// What is held without an end, by request.
    pub(crate) open: HashMap<Short, Vec<Try>>,
    /// What was paid for other things than rows.
    pub(crate) extra: Money,
    /// What rows count and nobody paid, since they share a prompt.
    pub(crate) saved: Money,
}

/// What is read of a row to account for it.
#[derive(Debug, Deserialize)]
pub(crate) struct Head {
    #[serde(default)]
    pub(crate) id: Option<Digest>,
    #[serde(default)]
    pub(crate) usage: Usage,
    #[serde(default)]
    pub(crate) batch: bool,
    #[serde(default)]
    pub(crate) told: Option<Told>,
}

impl Head {
    /// Places of its answers whose log-probabilities are shelved.
    pub(crate) fn shelved(&self) -> u64 {
        self.told.iter().flat_map(|told| &told.answers).map(|spot| u64::from(spot.places)).sum()
    }
}

/// The ledger of the capture `source`.
pub(crate) fn ledger_path(source: &Path) -> PathBuf {
    source.with_added_extension("ledger")
}

/// The ledger while it is read.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    requests: HashMap<Short, Sent>,
    extra: Money,
    saved: Money,
    pub(crate) lines: u64,
}

#[derive(Debug, Default)]
struct Sent {
    open: Vec<Try>,
    /// One of its tries ended with an answer whose row is safe.
    paid: bool,
}

impl Ledger {
    pub(crate) fn take(&mut self, entry: &Entry) {
        self.lines += 1;
        match (entry.of, entry.cost) {
            (1, Some(cost)) => self.extra += cost,
            (_, cost) => self.saved += cost.unwrap_or_default(),
        }
        let sent = self.requests.entry(entry.id).or_default();
        match (entry.held, entry.end) {
            (Some(most), _) => sent.open.push(Try { most, of: entry.of }),
            (None, Some(End::Once)) => {
                sent.open.retain(|sent| sent.of != entry.of);
                sent.paid = true;
            }
            (None, Some(End::Paid)) => {
                sent.open.pop();
                sent.paid = true;
            }
            (None, _) => drop(sent.open.pop()),
        }
        if sent.open.is_empty() {
            self.requests.remove(&entry.id);
        }
    }

    /// There is a row: one of the tries was the one that was answered, if the ledger does not say so itself.
    pub(crate) fn answered(&mut self, id: &Digest) {
        if let Some(sent) = self.requests.get_mut(&short(id))
            && !std::mem::replace(&mut sent.paid, true)
        {
            sent.open.pop();
        }
    }

    pub(crate) fn end(self) -> Past {
        let open = self.requests.into_iter().filter(|(_, sent)| !sent.open.is_empty());
        Past { open: open.map(|(id, sent)| (id, sent.open)).collect(), extra: self.extra, saved: self.saved }
    }
}

/// What the ledger of the capture `source` says; nothing where there is none.
fn past(source: &Path) -> Result<Past, DistillError> {
    let path = ledger_path(source);
    let mut ledger = Ledger::default();
    if path.exists() {
        for entry in Lines::<Entry>::open_appended(&path)? {
            ledger.take(&entry?);
        }
    }
    if path.exists() && source.exists() {
        for head in Lines::<Head>::open_appended(source)? {
            head?.id.iter().for_each(|id| ledger.answered(id));
        }
    }
    Ok(ledger.end())
}

/// What was paid beside the rows of the capture `source`, and what its rows count that nobody paid.
pub(crate) fn beside_rows(source: &Path) -> Result<(Money, Money), DistillError> {
    past(source).map(|past| (past.extra, past.saved))
}

/// The most that was paid for what never arrived.
pub(crate) fn open(source: &Path) -> Result<Money, DistillError> {
    Ok(past(source)?.open.values().flatten().map(|sent| sent.most).sum())
}

/// Forgets what has ended: the ledger of a capture that is whole says only what was lost, and what rows do not.
pub(crate) fn rewrite(path: &Path, past: &Past) -> Result<File, DistillError> {
    let tries = past.open.iter().flat_map(|(id, tries)| tries.iter().map(|sent| (*id, *sent)));
    let mut entries: Vec<_> = tries.collect();
    entries.sort_unstable();
    let mut lines = Vec::new();
    for (id, sent) in entries {
        line(&mut lines, &Entry::held(id, sent));
    }
    if !past.extra.is_zero() {
        line(&mut lines, &Entry::extra(past.extra));
    }
    if !past.saved.is_zero() {
        line(&mut lines, &Entry::saved(past.saved, 2));
    }
    replace(path, |file| file.write_all(&lines))?;
    append(path)
}

pub(crate) fn line(lines: &mut Vec<u8>, entry: &Entry) {
    // An entry always has a JSON form, and memory takes every write.
    let _ = serde_json::to_writer(&mut *lines, entry);
    lines.push(b'\n');
}

fn write_short<S: Serializer>(id: &Short, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{id:024x}"))
}

fn read_short<'de, D: Deserializer<'de>>(from: D) -> Result<Short, D::Error> {
    let text = String::deserialize(from)?;
    Short::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: Short, held: Option<i64>, end: Option<End>) -> Entry {
        Entry { id, held: held.map(Money::from_nanos), end, of: 1, cost: None }
    }

    proptest! {
        /// Whatever happened to requests, and wherever the program was killed: what is open is what was sent and is
        /// neither known to be free nor answered.
        #[test]
        fn what_is_open_is_what_may_have_been_paid_for_nothing(
            steps in prop::collection::vec((0_u8..4, 0_u8..5, 1_i64..1000), 0..60),
            kept in 0.0..1.0_f64,
        ) {
            let id = |number: u8| Digest::of(&[number]);
            let (mut ledger, mut rows): (Vec<Entry>, Vec<Digest>) = Default::default();
            let mut model: HashMap<u8, Vec<i64>> = HashMap::new();
            let mut answered = [false; 4];
            for (request, what, most) in steps {
                if answered[usize::from(request)] {
                    continue;
                }
                let short = short(&id(request));
                let open = model.entry(request).or_default();
                ledger.push(entry(short, Some(most), None));
                open.push(most);
                match what {
                    // Cut off: nobody knows.
                    0 | 1 => {}
                    2 => {
                        ledger.push(entry(short, None, Some(End::Free)));
                        open.pop();
                    }
                    3 => {
                        rows.push(id(request));
                        ledger.push(entry(short, None, Some(End::Paid)));
                        open.pop();
                        answered[usize::from(request)] = true;
                    }
                    _ => {
                        rows.push(id(request));
                        ledger.push(entry(short, None, Some(End::Once)));
                        open.clear();
                        answered[usize::from(request)] = true;
                    }
                }
            }
            // A kill may take the ends of answered requests, not their rows; of those that were all one exchange the
            // earlier tries then stay counted, which errs on the safe side.
            let cut = (ledger.len() as f64 * kept) as usize;
            let mut read = Ledger::default();
            let mut exact = true;
            for (place, entry) in ledger.iter().enumerate() {
                if place >= cut && matches!(entry.end, Some(End::Paid | End::Once)) {
                    exact &= entry.end == Some(End::Paid);
                    continue;
                }
                read.take(entry);
            }
            for row in &rows {
                read.answered(row);
            }
            let sum = |open: &HashMap<Short, Vec<Try>>| open.values().flatten().map(|sent| sent.most.nanos()).sum::<i64>();
            let expected: i64 = model.values().flatten().sum();
            if exact {
                prop_assert_eq!(sum(&read.end().open), expected);
            } else {
                prop_assert!(sum(&read.end().open) >= expected);
            }
        }
    }
}
