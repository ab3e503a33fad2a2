//! LiteLLM's table `LiteLLM_SpendLogs`, as JSON or CSV. Prompts are in it only where `store_prompts_in_spend_logs` is set.

use serde_json::{Map, Value};

use super::{has, has_any};
use crate::field::Field;

/// Where the client's software stands once a row is prepared.
const AGENT: &str = "request_tags.user_agent";

pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["startTime"]),
    (Field::Account, &["api_key", "user", "end_user", "team_id"]),
    (Field::Model, &["model_group", "model"]),
    (Field::Operation, &["call_type"]),
    (Field::Status, &["status", "metadata.status"]),
    (Field::PromptTokens, &["prompt_tokens"]),
    (Field::CachedTokens, &["metadata.additional_usage_values.cache_read_input_tokens"]),
    (Field::CompletionTokens, &["completion_tokens"]),
    (Field::Cost, &["spend"]),
    (Field::Address, &["requester_ip_address", "metadata.requester_ip_address"]),
    (Field::Agent, &[AGENT, "metadata.user_agent"]),
    (Field::Prompt, &["messages"]),
    (Field::Request, &["proxy_server_request.body", "proxy_server_request"]),
];

pub(super) fn is(row: &Map<String, Value>) -> bool {
    has(row, &["request_id", "startTime"]) && has_any(row, &["spend", "call_type", "api_key"])
}

/// The proxy tags requests with their client's software: `User-Agent: name` and `User-Agent: name/version`.
pub(super) fn prepare(mut row: Map<String, Value>) -> Map<String, Value> {
    let written = match row.get("request_tags") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
        Some(tags) => tags.clone(),
        None => Value::Null,
    };
    let agents = written.as_array().into_iter().flatten().filter_map(Value::as_str);
    let agents = agents.filter_map(|tag| tag.strip_prefix("User-Agent: "));
    if let Some(agent) = agents.max_by_key(|agent| agent.len()).map(str::to_owned) {
        row.insert(AGENT.to_owned(), Value::String(agent));
    }
    row
}
