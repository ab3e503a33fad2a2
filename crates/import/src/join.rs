//! Requests that are told in several rows, put together in bounded memory.
//!
//! Rows come in the order of time, from all files at once, so rows of one request are near each other. What waits longest
//! goes first when there is no more room; a row that comes after that finds nobody, and that is counted.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};

use crate::format::Side;

/// Where a row stands: in which log, and as which of its rows.
pub(crate) type Place = (usize, u64);

/// Rows of one request.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) caller: Option<Map<String, Value>>,
    pub(crate) calls: Vec<Map<String, Value>>,
    /// Of the first call.
    pub(crate) place: Place,
    bytes: usize,
}

/// Requests whose rows have not all come, as far as anybody knows.
#[derive(Debug)]
pub(crate) struct Join {
    waiting: HashMap<String, Joined>,
    order: VecDeque<String>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    /// Is a call complete as soon as its caller is known?
    eager: bool,
}

impl Join {
    /// At most `most` requests wait, and rows of at most `most_bytes` bytes.
    pub(crate) fn new(most: usize, most_bytes: usize, eager: bool) -> Self {
        Self { waiting: HashMap::new(), order: VecDeque::new(), bytes: 0, most, most_bytes, eager }
    }

    /// Takes a row; gives what is complete, or what has to make room.
    pub(crate) fn take(&mut self, key: String, side: Side, row: Map<String, Value>, place: Place) -> Vec<Joined> {
        let size = key.len() + size_of(&row);
        if !self.waiting.contains_key(&key) {
            self.order.push_back(key.clone());
        }
        let joined = self.waiting.entry(key).or_default();
        match side {
            Side::Caller => joined.caller = Some(row),
            Side::Call => {
                if joined.calls.is_empty() {
                    joined.place = place;
                }
                joined.calls.push(row);
            }
        }
        joined.bytes += size;
        self.bytes += size;
        let mut out = Vec::new();
        if self.eager && joined.caller.is_some() && !joined.calls.is_empty() {
            let calls = std::mem::take(&mut joined.calls);
            out.push(Joined { caller: joined.caller.clone(), calls, place: joined.place, bytes: 0 });
            let kept = joined.caller.as_ref().map_or(0, size_of);
            self.bytes = self.bytes - joined.bytes + kept;
            joined.bytes = kept;
        }
        while self.order.len() > self.most || self.bytes > self.most_bytes {
            match self.first() {
                Some(joined) => out.push(joined),
                None => break,
            }
        }
        out
    }

    /// Whatever has waited longest.
    pub(crate) fn first(&mut self) -> Option<Joined> {
        let joined = self.waiting.remove(&self.order.pop_front()?)?;
        self.bytes -= joined.bytes;
        Some(joined)
    }
}

fn size_of(row: &Map<String, Value>) -> usize {
    row.iter().map(|(key, value)| 64 + key.len() + size_of_value(value)).sum()
}

fn size_of_value(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 32 + size_of_value(item)).sum(),
        Value::Object(row) => size_of(row),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(text: &str) -> Map<String, Value> {
        Map::from_iter([("a".to_owned(), json!(text))])
    }

    #[test]
    fn who_waits_longest_makes_room() {
        let mut join = Join::new(2, 1 << 20, false);
        assert!(join.take("x".into(), Side::Call, row("1"), (0, 1)).is_empty());
        assert!(join.take("y".into(), Side::Call, row("2"), (0, 2)).is_empty());
        assert!(join.take("x".into(), Side::Caller, row("3"), (1, 1)).is_empty());
        let out = join.take("z".into(), Side::Call, row("4"), (0, 3));
        assert_eq!(out.len(), 1);
        assert!(out[0].caller.is_some() && out[0].calls.len() == 1 && out[0].place == (0, 1));
        let rest: Vec<Joined> = std::iter::from_fn(|| join.first()).collect();
        assert_eq!((rest.len(), join.bytes), (2, 0));
    }

    #[test]
    fn rows_of_too_many_bytes_do_not_wait() {
        let mut join = Join::new(100, 1000, false);
        let long = "x".repeat(600);
        assert!(join.take("a".into(), Side::Call, row(&long), (0, 1)).is_empty());
        assert_eq!(join.take("b".into(), Side::Call, row(&long), (0, 2)).len(), 1);
        assert_eq!(join.take("c".into(), Side::Call, row(&"x".repeat(2000)), (0, 3)).len(), 2);
        assert_eq!(join.bytes, 0);
    }

    #[test]
    fn an_eager_join_keeps_the_caller_for_further_calls() {
        let mut join = Join::new(10, 1 << 20, true);
        assert!(join.take("t".into(), Side::Call, row("1"), (0, 1)).is_empty());
        assert_eq!(join.take("t".into(), Side::Caller, row("2"), (0, 2))[0].calls.len(), 1);
        let again = join.take("t".into(), Side::Call, row("3"), (0, 3));
        assert_eq!((again[0].calls.len(), again[0].place), (1, (0, 3)));
        assert!(join.first().is_some_and(|left| left.calls.is_empty()));
        assert_eq!(join.bytes, 0);
    }
}
