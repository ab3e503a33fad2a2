//! OpenTelemetry's spans of generative AI, by the names of the conventions since 1.37 and by the older ones: OTLP as JSON
//! (`resourceSpans`), or one span a line as the consoles of the SDKs write it.
//!
//! The conventions have no name for who asked; `user.id`, `enduser.id` and the like of the general ones are taken.

use serde_json::{Map, Value};

use super::{Prepared, has_any};
use crate::field::Field;

pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime"]),
    (
        Field::Account,
        &["user.id", "enduser.id", "enduser.pseudo.id", "user.hash", "tenant.id", "client.id", "langfuse.user.id"],
    ),
    (Field::Model, &["gen_ai.request.model", "gen_ai.response.model"]),
    (Field::Operation, &["gen_ai.operation.name", "llm.request.type"]),
    (Field::Status, &["http.response.status_code", "http.status_code", "span.status"]),
    (Field::PromptTokens, &["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"]),
    (Field::CachedTokens, &["gen_ai.usage.cache_read.input_tokens"]),
    (Field::CompletionTokens, &["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"]),
    (Field::Cost, &["gen_ai.usage.cost"]),
    (Field::Address, &["client.address", "http.client_ip", "net.peer.ip"]),
    (Field::Agent, &["user_agent.original", "http.user_agent"]),
    (Field::Prompt, &["gen_ai.input.messages", "gen_ai.prompt"]),
    (Field::System, &["gen_ai.system_instructions"]),
    (Field::Temperature, &["gen_ai.request.temperature"]),
    (Field::TopP, &["gen_ai.request.top_p"]),
    (Field::MaxTokens, &["gen_ai.request.max_tokens"]),
    (Field::N, &["gen_ai.request.choice.count"]),
    (Field::Stream, &["gen_ai.request.stream", "llm.is_streaming"]),
];

/// The prefix of all attributes of generative AI.
const PREFIX: &str = "gen_ai.";

pub(super) fn is(row: &Map<String, Value>) -> bool {
    if has_any(row, &["resourceSpans", "scopeSpans", "instrumentationLibrarySpans"]) {
        return true;
    }
    let is_span = has_any(row, &["startTimeUnixNano", "start_time", "startTime", "start_time_unix_nano"]);
    row.keys().any(|key| key.starts_with(PREFIX)) || (is_span && row.contains_key("attributes"))
}

pub(super) fn prepare(mut row: Map<String, Value>, out: &mut Vec<Prepared>) {
    let Some(scopes) = row.remove("scopeSpans").or_else(|| row.remove("instrumentationLibrarySpans")) else {
        out.push(span(row, &Map::new()));
        return;
    };
    let mut resource = Map::new();
    attributes(row.remove("resource").unwrap_or(Value::Null), &mut resource);
    let before = out.len();
    for mut scope in objects(scopes) {
        for row in objects(scope.remove("spans").unwrap_or(Value::Null)) {
            out.push(span(row, &resource));
        }
    }
    if out.len() == before {
        out.push(Prepared::Other);
    }
}

fn objects(value: Value) -> impl Iterator<Item = Map<String, Value>> {
    let items = if let Value::Array(items) = value { items } else { Vec::new() };
    items.into_iter().filter_map(|item| if let Value::Object(row) = item { Some(row) } else { None })
}

/// The span with all attributes on its own level. One without any of generative AI is no call of a model.
fn span(mut row: Map<String, Value>, resource: &Map<String, Value>) -> Prepared {
    let mut flat = resource.clone();
    if let Some(resource) = row.remove("resource") {
        attributes(resource, &mut flat);
    }
    let own = row.remove("attributes").unwrap_or(Value::Null);
    merge(own, &mut flat);
    if !flat.keys().chain(row.keys()).any(|key| key.starts_with(PREFIX)) {
        return Prepared::Other;
    }
    let status = row.get("status").and_then(|status| {
        let code = status.get("code").or_else(|| status.get("status_code")).unwrap_or(status);
        Some(code.as_i64() == Some(2) || code.as_str()?.to_ascii_uppercase().contains("ERROR"))
    });
    if status == Some(true) {
        flat.insert("span.status".to_owned(), Value::String("error".to_owned()));
    }
    let events = row.remove("events");
    flat.extend(row);
    if !flat.contains_key("gen_ai.input.messages") && !flat.contains_key("gen_ai.prompt") {
        let messages = numbered(&flat).or_else(|| told(events));
        flat.extend(messages.map(|messages| ("gen_ai.prompt".to_owned(), messages)));
    }
    Prepared::Request(flat)
}

/// Messages as some libraries number them: `gen_ai.prompt.0.role`, `gen_ai.prompt.0.content`.
fn numbered(flat: &Map<String, Value>) -> Option<Value> {
    let part = |place: usize, name: &str| flat.get(&format!("gen_ai.prompt.{place}.{name}")).cloned();
    let messages: Vec<Value> = (0..)
        .map_while(|place| {
            let role = part(place, "role");
            let content = part(place, "content");
            (role.is_some() || content.is_some()).then(|| message(role, content))
        })
        .collect();
    (!messages.is_empty()).then_some(Value::Array(messages))
}

/// Messages as events: `gen_ai.user.message` with `content`, or `gen_ai.content.prompt` with `gen_ai.prompt`.
fn told(events: Option<Value>) -> Option<Value> {
    let mut messages = Vec::new();
    for mut event in objects(events?) {
        let mut flat = Map::new();
        merge(event.remove("attributes").unwrap_or(Value::Null), &mut flat);
        let name = event.get("name").and_then(Value::as_str).unwrap_or_default();
        if let Some(prompt) = flat.remove("gen_ai.prompt").or_else(|| flat.remove("gen_ai.input.messages")) {
            return Some(prompt);
        }
        if let Some(role) = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(".message")) {
            messages.push(message(Some(Value::String(role.to_owned())), flat.remove("content")));
        }
    }
    (!messages.is_empty()).then_some(Value::Array(messages))
}

fn message(role: Option<Value>, content: Option<Value>) -> Value {
    let role = role.unwrap_or_else(|| Value::String("user".to_owned()));
    let content = content.unwrap_or(Value::Null);
    Value::Object(Map::from_iter([("role".to_owned(), role), ("content".to_owned(), content)]))
}

/// The attributes of a resource.
fn attributes(resource: Value, into: &mut Map<String, Value>) {
    if let Value::Object(mut resource) = resource {
        merge(resource.remove("attributes").unwrap_or(Value::Null), into);
    }
}

/// Attributes as OTLP lists them, or as an object.
fn merge(attributes: Value, into: &mut Map<String, Value>) {
    match attributes {
        Value::Object(members) => into.extend(members),
        list @ Value::Array(_) => {
            for mut pair in objects(list) {
                if let (Some(Value::String(key)), Some(value)) = (pair.remove("key"), pair.remove("value")) {
                    into.insert(key, plain(value));
                }
            }
        }
        _ => {}
    }
}

/// A value of OTLP as JSON has it.
fn plain(value: Value) -> Value {
    let Value::Object(members) = value else { return value };
    let Some((kind, inner)) = members.into_iter().next() else { return Value::Null };
    match (kind.as_str(), inner) {
        ("arrayValue", Value::Object(mut inner)) => match inner.remove("values") {
            Some(Value::Array(values)) => Value::Array(values.into_iter().map(plain).collect()),
            _ => Value::Null,
        },
        ("kvlistValue", Value::Object(mut inner)) => {
            let mut flat = Map::new();
            merge(inner.remove("values").unwrap_or(Value::Null), &mut flat);
            Value::Object(flat)
        }
        (_, inner) => inner,
    }
}
