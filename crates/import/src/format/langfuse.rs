//! Langfuse: observations and traces. Who asked stands in the trace, unless the export gives each observation its trace's
//! `user_id`. Read are the public interface (`traceId`, traces with their observations), the files of the blob storage
//! (`trace_id`), and the tables as JSON or CSV.

use serde_json::{Map, Value};

use super::{Prepared, Side, has, has_any};
use crate::field::{Field, at, text};

pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["startTime", "start_time"]),
    (Field::Account, &["userId", "user_id"]),
    (Field::Model, &["model", "providedModelName", "provided_model_name"]),
    (Field::Operation, &["type"]),
    (Field::Status, &["level"]),
    (
        Field::PromptTokens,
        &[
            "usageDetails.input",
            "usage_details.input",
            "usage.input",
            "usage.promptTokens",
            "promptTokens",
            "inputUsage",
        ],
    ),
    (Field::CachedTokens, &["usageDetails.input_cached_tokens", "usage_details.input_cached_tokens"]),
    (
        Field::CompletionTokens,
        &[
            "usageDetails.output",
            "usage_details.output",
            "usage.output",
            "usage.completionTokens",
            "completionTokens",
            "outputUsage",
        ],
    ),
    (Field::Cost, &["costDetails.total", "cost_details.total", "calculatedTotalCost", "totalCost", "total_cost"]),
    (Field::Agent, &["metadata.user_agent", "metadata.attributes.user_agent.original"]),
    (Field::Address, &["metadata.client_ip", "metadata.attributes.client.address"]),
    (Field::Prompt, &["input"]),
    (Field::Temperature, &["modelParameters.temperature", "model_parameters.temperature"]),
    (Field::TopP, &["modelParameters.top_p", "model_parameters.top_p"]),
    (Field::MaxTokens, &["modelParameters.max_tokens", "model_parameters.max_tokens"]),
];

/// Where the account is looked for, in an observation and in its trace.
const USERS: [&str; 2] = ["userId", "user_id"];
/// Where an observation names its trace.
const TRACES: [&str; 2] = ["traceId", "trace_id"];

pub(super) fn is(row: &Map<String, Value>) -> bool {
    let observation = has_any(row, &TRACES) && row.contains_key("type") && has_any(row, &["startTime", "start_time"]);
    observation || is_trace(row)
}

fn is_trace(row: &Map<String, Value>) -> bool {
    has(row, &["id", "timestamp"]) && !has_any(row, &TRACES) && has_any(row, &["userId", "user_id", "observations"])
}

pub(super) fn prepare(mut row: Map<String, Value>, out: &mut Vec<Prepared>) {
    if is_trace(&row) {
        let user = user(&row);
        let inside = row.remove("observations");
        for observation in inside.into_iter().flat_map(into_objects) {
            let mut whole = observation;
            if let Some(user) = &user {
                whole.insert(USERS[0].to_owned(), Value::String(user.clone()));
            }
            call(whole, out);
        }
        if let (Some(id), Some(user)) = (row.get("id").and_then(text), user) {
            let row = Map::from_iter([(USERS[0].to_owned(), Value::String(user))]);
            out.push(Prepared::Part { key: id, side: Side::Caller, row });
        } else {
            out.push(Prepared::Other);
        }
        return;
    }
    call(row, out);
}

fn into_objects(value: Value) -> Vec<Map<String, Value>> {
    let Value::Array(items) = value else { return Vec::new() };
    items.into_iter().filter_map(|item| if let Value::Object(row) = item { Some(row) } else { None }).collect()
}

fn user(row: &Map<String, Value>) -> Option<String> {
    USERS.iter().find_map(|key| text(at(row, key)?.as_ref()))
}

/// Spans, events and tools are no requests to a model.
fn call(mut row: Map<String, Value>, out: &mut Vec<Prepared>) {
    let kind = row.get("type").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase();
    if kind != "GENERATION" && kind != "EMBEDDING" {
        out.push(Prepared::Other);
        return;
    }
    // The answer is not needed and may be long.
    row.remove("output");
    let trace = TRACES.iter().find_map(|key| text(row.get(*key)?));
    match trace {
        Some(key) if user(&row).is_none() => out.push(Prepared::Part { key, side: Side::Call, row }),
        _ => out.push(Prepared::Request(row)),
    }
}

/// Every observation with the user of its trace.
pub(super) fn join(caller: Option<&Map<String, Value>>, mut calls: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
    for call in &mut calls {
        call.extend(caller.cloned().into_iter().flatten());
    }
    calls
}
