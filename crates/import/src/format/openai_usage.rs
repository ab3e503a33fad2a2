//! Buckets of OpenAI's usage interface, `/v1/organization/usage/completions`. They hold sums over minutes, hours or days
//! and no single request, so that nothing in them can be linked or judged; they can be added up.

use serde_json::{Map, Value};

use super::{Prepared, has, has_any};
use crate::field::text;

/// One account's sums in one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Whose: the first of `api_key_id`, `user_id` and `project_id` that is there.
    pub(crate) account: Option<String>,
    pub(crate) requests: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
}

pub(super) fn is(row: &Map<String, Value>) -> bool {
    row.get("object").and_then(Value::as_str) == Some("bucket")
        || has(row, &["start_time", "end_time"]) && has_any(row, &["results", "num_model_requests"])
}

pub(super) fn prepare(row: &Map<String, Value>, out: &mut Vec<Prepared>) {
    let results = match row.get("results") {
        Some(Value::Array(results)) => results.iter().filter_map(Value::as_object).collect(),
        _ if row.contains_key("num_model_requests") => vec![row],
        _ => Vec::new(),
    };
    let before = out.len();
    for result in results {
        let count = |key: &str| result.get(key).and_then(Value::as_u64).unwrap_or(0);
        let account = ["api_key_id", "user_id", "project_id"].iter().find_map(|key| text(result.get(*key)?));
        out.push(Prepared::Bucket(Bucket {
            account,
            requests: count("num_model_requests"),
            prompt_tokens: count("input_tokens"),
            completion_tokens: count("output_tokens"),
        }));
    }
    if out.len() == before {
        out.push(Prepared::Other);
    }
}
