//! Azure API Management: `ApiManagementGatewayLogs`, which know who called, and `ApiManagementGatewayLlmLog`, which know
//! what was asked. A request is one row of the first and one or more of the second, with one `CorrelationId`.
//!
//! Read are the tables as Log Analytics exports them and the resource logs as diagnostic settings write them, whose
//! properties begin with small letters and stand one level deeper.

use serde_json::{Map, Value};

use super::{Prepared, Side, has_any};
use crate::field::{Field, at};

pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["TimeGenerated"]),
    (Field::Account, &["ApimSubscriptionId", "UserId"]),
    (Field::Model, &["ModelName", "DeploymentName"]),
    (Field::Operation, &["OperationName"]),
    (Field::Status, &["ResponseCode"]),
    (Field::PromptTokens, &["PromptTokens"]),
    (Field::CompletionTokens, &["CompletionTokens"]),
    (Field::Address, &["CallerIpAddress"]),
    (Field::Agent, &["RequestHeaders.User-Agent", "RequestHeaders.user-agent"]),
    (Field::Prompt, &["RequestMessages"]),
    (Field::Request, &["RequestBody", "BackendRequestBody"]),
    (Field::Stream, &["IsStreamCompletion"]),
];

/// What only rows about the call have.
const CALL: [&str; 6] =
    ["PromptTokens", "CompletionTokens", "SequenceNumber", "RequestMessages", "ModelName", "DeploymentName"];

/// What is kept of a row about the caller while its call is awaited.
const CALLER: [&str; 8] = [
    "TimeGenerated",
    "ApimSubscriptionId",
    "UserId",
    "ResponseCode",
    "CallerIpAddress",
    "RequestHeaders",
    "RequestBody",
    "BackendRequestBody",
];

pub(super) fn is(row: &Map<String, Value>) -> bool {
    const NAMES: [&str; 4] =
        ["GatewayLogs", "GatewayLlmLogs", "ApiManagementGatewayLogs", "ApiManagementGatewayLlmLog"];
    let says = |key: &str| row.get(key).and_then(Value::as_str).is_some_and(|name| NAMES.contains(&name));
    let named = ["category", "Category", "Type", "TableName"].into_iter().any(says);
    let columns = has_any(row, &CALL) || has_any(row, &["ApimSubscriptionId", "CallerIpAddress"]);
    named || (row.contains_key("CorrelationId") && columns)
}

pub(super) fn prepare(row: Map<String, Value>) -> Prepared {
    let row = level(row);
    let Some(Value::String(key)) = row.get("CorrelationId") else { return Prepared::Other };
    let key = key.clone();
    let said = |name: &&str| row.get(*name).is_some_and(|value| !matches!(value, Value::Null) && value != "");
    let names = ["Category", "Type", "TableName"].into_iter().filter_map(|key| row.get(key)?.as_str());
    let side = match names.into_iter().find(|name| name.contains("Gateway")) {
        Some(name) if name.contains("Llm") => Side::Call,
        Some(_) => Side::Caller,
        None if CALL.iter().any(said) => Side::Call,
        None => Side::Caller,
    };
    let row = match side {
        // Answers are not needed and are the most of it.
        Side::Call => row.into_iter().filter(|(key, _)| key != "ResponseMessages").collect(),
        Side::Caller => row.into_iter().filter(|(key, _)| CALLER.contains(&key.as_str())).collect(),
    };
    Prepared::Part { key, side, row }
}

/// The row with its properties on one level and all names as the tables have them.
fn level(row: Map<String, Value>) -> Map<String, Value> {
    let mut flat = Map::new();
    let mut put = |key: String, value: Value| {
        let mut letters = key.chars();
        let key: String = match letters.next() {
            Some(first) => first.to_uppercase().chain(letters).collect(),
            None => key,
        };
        let key = match key.as_str() {
            "Time" => "TimeGenerated".to_owned(),
            "CallerIPAddress" => "CallerIpAddress".to_owned(),
            _ => key,
        };
        if !value.is_null() {
            flat.insert(key, value);
        }
    };
    for (key, value) in row {
        match value {
            Value::Object(inner) if key.eq_ignore_ascii_case("properties") => {
                inner.into_iter().for_each(|(key, value)| put(key, value));
            }
            value => put(key, value),
        }
    }
    flat
}

/// One request of its rows; `None` where no row tells of a call to a language model.
pub(super) fn join(
    caller: Option<Map<String, Value>>,
    mut calls: Vec<Map<String, Value>>,
) -> Option<Map<String, Value>> {
    calls.sort_by_key(|row| row.get("SequenceNumber").and_then(sequence).unwrap_or(0));
    let messages = messages(&calls);
    let mut request = calls.into_iter().reduce(|mut all, part| {
        for (key, value) in part {
            // Tokens are told in one of the parts; what says something holds.
            let empty = all.get(&key).is_none_or(|known| *known == 0 || *known == "" || *known == "0");
            if empty {
                all.insert(key, value);
            }
        }
        all
    })?;
    request.remove("RequestMessages");
    request.extend(messages.map(|messages| ("RequestMessages".to_owned(), messages)));
    for (key, value) in caller.into_iter().flatten() {
        // Both tables have a time; that of the gateway is when the request arrived.
        request.insert(key, value);
    }
    Some(request)
}

fn sequence(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// All messages: each part's own where each is whole by itself, or else the parts' texts put together.
fn messages(calls: &[Map<String, Value>]) -> Option<Value> {
    let parts: Vec<Value> =
        calls.iter().filter_map(|row| at(row, "RequestMessages").map(std::borrow::Cow::into_owned)).collect();
    let whole = |part: &Value| match part {
        Value::String(text) => serde_json::from_str::<Vec<Value>>(text).ok(),
        Value::Array(messages) => Some(messages.clone()),
        _ => None,
    };
    let wholes: Option<Vec<Vec<Value>>> = parts.iter().map(whole).collect();
    match wholes {
        _ if parts.is_empty() => None,
        Some(messages) => Some(Value::Array(messages.concat())),
        None => Some(Value::String(parts.iter().filter_map(Value::as_str).collect())),
    }
}
