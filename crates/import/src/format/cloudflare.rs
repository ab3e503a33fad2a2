//! Logs of Cloudflare's AI gateway. Who asked stands in them only where the application sends it as custom metadata.

use serde_json::{Map, Value};

use super::{has, has_any};
use crate::field::Field;

pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["created_at"]),
    (
        Field::Account,
        &["metadata.account", "metadata.user_id", "metadata.userId", "metadata.user", "metadata.customer"],
    ),
    (Field::Model, &["model"]),
    (Field::Operation, &["path", "request_type"]),
    (Field::Status, &["status_code"]),
    (Field::PromptTokens, &["tokens_in"]),
    (Field::CompletionTokens, &["tokens_out"]),
    (Field::Cost, &["cost"]),
    (Field::Request, &["request", "request_body"]),
];

pub(super) fn is(row: &Map<String, Value>) -> bool {
    has(row, &["created_at", "provider"]) && has_any(row, &["tokens_in", "tokens_out"])
}
