//! Rows whose columns bear our names, or those that a mapping says.

use serde_json::{Map, Value};

use super::has;
use crate::field::Field;

pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["at"]),
    (Field::Account, &["account"]),
    (Field::Model, &["model"]),
    (Field::Operation, &["operation"]),
    (Field::Status, &["status"]),
    (Field::PromptTokens, &["prompt_tokens"]),
    (Field::CachedTokens, &["cached_tokens"]),
    (Field::CompletionTokens, &["completion_tokens"]),
    (Field::Cost, &["cost"]),
    (Field::Address, &["address"]),
    (Field::Agent, &["agent"]),
    (Field::Payment, &["payment"]),
    (Field::Opened, &["opened"]),
    (Field::Prompt, &["prompt"]),
    (Field::System, &["system"]),
    (Field::Request, &["request"]),
    (Field::Temperature, &["temperature"]),
    (Field::TopP, &["top_p"]),
    (Field::MaxTokens, &["max_tokens"]),
    (Field::N, &["n"]),
    (Field::Logprobs, &["logprobs"]),
    (Field::Stream, &["stream"]),
];

pub(super) fn is(row: &Map<String, Value>) -> bool {
    has(row, &["at", "account"])
}
