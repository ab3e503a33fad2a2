//! Invocation logs of Amazon Bedrock, as files in S3 or as events of CloudWatch. They have no addresses.

use serde_json::{Map, Value};

use super::Prepared;
use crate::field::Field;

pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["timestamp"]),
    (Field::Account, &["identity.arn", "accountId"]),
    (Field::Model, &["modelId"]),
    (Field::Status, &["errorCode"]),
    (Field::PromptTokens, &["input.inputTokenCount"]),
    (Field::CachedTokens, &["input.cacheReadInputTokenCount"]),
    (Field::CompletionTokens, &["output.outputTokenCount"]),
    (Field::Request, &["input.inputBodyJson"]),
    (Field::Stream, &["stream"]),
];

pub(super) fn is(row: &Map<String, Value>) -> bool {
    let is_log = |row: &Map<String, Value>| row.get("schemaType").and_then(Value::as_str) == Some("ModelInvocationLog");
    is_log(row) || event(row).is_some_and(|row| is_log(&row))
}

pub(super) fn prepare(row: Map<String, Value>) -> Prepared {
    let mut row = match event(&row) {
        Some(inner) => inner,
        None => row,
    };
    if !is(&row) {
        return Prepared::Other;
    }
    if let Some(operation) = row.get("operation").and_then(Value::as_str) {
        let stream = operation.contains("Stream");
        row.insert("stream".to_owned(), Value::Bool(stream));
    }
    // An error is named by a word such as `ThrottlingException`; it says whether a model saw the request.
    if let Some(code) = row.get("errorCode").and_then(Value::as_str) {
        let refused = ["Throttling", "AccessDenied", "Validation", "ResourceNotFound"];
        let status = if refused.iter().any(|word| code.contains(word)) { "refused" } else { "error" };
        row.insert("errorCode".to_owned(), Value::String(status.to_owned()));
    }
    Prepared::Request(row)
}

/// The log in an event of CloudWatch.
fn event(row: &Map<String, Value>) -> Option<Map<String, Value>> {
    let message = row.get("message").or_else(|| row.get("@message"))?;
    match message {
        Value::String(text) if text.contains("ModelInvocationLog") => serde_json::from_str(text).ok(),
        Value::Object(inner) => Some(inner.clone()),
        _ => None,
    }
}
