//! Helicone's table `request_response_rmt`, as JSON or CSV. Bodies are kept for three months.

use serde_json::{Map, Value};

use super::{has, has_any};
use crate::field::Field;

// `country_code` is not among them: no country is evidence of anything.
pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["request_created_at"]),
    (Field::Account, &["user_id", "proxy_key_id"]),
    (Field::Model, &["model", "request_model"]),
    (Field::Operation, &["target_url"]),
    (Field::Status, &["status"]),
    (Field::PromptTokens, &["prompt_tokens"]),
    (Field::CachedTokens, &["prompt_cache_read_tokens"]),
    (Field::CompletionTokens, &["completion_tokens"]),
    (Field::Cost, &["cost_usd"]),
    (Field::Request, &["request_body"]),
];

pub(super) fn is(row: &Map<String, Value>) -> bool {
    has(row, &["request_created_at"])
        && has_any(row, &["request_id", "request_body", "proxy_key_id", "time_to_first_token"])
}
