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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<Money>,
}

/// What the ledger says of the past.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// What is held without an end, by request.
    pub(crate) open: HashMap<Short, Vec<Money>>,
    /// What was paid for other things than rows.
    pub(crate) extra: Money,
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
    pub(crate) lines: u64,
}

#[derive(Debug, Default)]
struct Sent {
    open: Vec<Money>,
    /// One of its tries ended with an answer whose row is safe.
    paid: bool,
}

impl Ledger {
    pub(crate) fn take(&mut self, entry: &Entry) {
        self.lines += 1;
        self.extra += entry.cost.unwrap_or_default();
        let sent = self.requests.entry(entry.id).or_default();
        match (entry.held, entry.end) {
            (Some(most), _) => sent.open.push(most),
            (None, Some(End::Once)) => {
                sent.open.clear();
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
        Past { open: open.map(|(id, sent)| (id, sent.open)).collect(), extra: self.extra }
    }
}

/// Forgets what has ended: the ledger of a capture that is whole says only what was lost.
pub(crate) fn shorten(source: &Path, open: &HashMap<Short, Vec<Money>>, extra: Money) -> Result<(), DistillError> {
    rewrite(&ledger_path(source), open, extra).map(drop)
}

pub(crate) fn rewrite(path: &Path, open: &HashMap<Short, Vec<Money>>, extra: Money) -> Result<File, DistillError> {
    let mut entries: Vec<_> = open.iter().flat_map(|(id, tries)| tries.iter().map(|most| (*id, *most))).collect();
    entries.sort_unstable();
    let mut lines = Vec::new();
    for (id, most) in entries {
        line(&mut lines, &Entry { id, held: Some(most), end: None, cost: None });
    }
    if !extra.is_zero() {
        line(&mut lines, &Entry { id: 0, held: None, end: Some(End::Paid), cost: Some(extra) });
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
        Entry { id, held: held.map(Money::from_nanos), end, cost: None }
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
            let sum = |open: &HashMap<Short, Vec<Money>>| open.values().flatten().map(|most| most.nanos()).sum::<i64>();
            let expected: i64 = model.values().flatten().sum();
            if exact {
                prop_assert_eq!(sum(&read.end().open), expected);
            } else {
                prop_assert!(sum(&read.end().open) >= expected);
            }
        }
    }
}
