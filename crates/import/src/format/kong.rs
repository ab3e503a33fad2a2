//! Kong's log with the entries of its AI plugins. Payloads are in it only where the plugin logs them.

use serde_json::{Map, Value};

use super::Prepared;
use crate::field::Field;

pub(super) const FIELDS: &[(Field, &[&str])] = &[
    (Field::At, &["started_at"]),
    (Field::Account, &["consumer.username", "consumer.id", "consumer.custom_id", "authenticated_entity.id"]),
    (Field::Model, &["ai.proxy.meta.request_model", "ai.proxy.meta.response_model"]),
    (Field::Operation, &["ai.proxy.meta.request_type", "request.uri"]),
    (Field::Status, &["response.status"]),
    (Field::PromptTokens, &["ai.proxy.usage.prompt_tokens"]),
    (Field::CachedTokens, &["ai.proxy.usage.prompt_tokens_details.cached_tokens"]),
    (Field::CompletionTokens, &["ai.proxy.usage.completion_tokens"]),
    (Field::Cost, &["ai.proxy.usage.cost"]),
    (Field::Address, &["client_ip"]),
    (Field::Agent, &["request.headers.user-agent"]),
    (Field::Request, &["ai.proxy.payload.request", "request.body"]),
    (Field::Stream, &["ai.proxy.meta.request_mode"]),
];

/// The names of the plugin under which its entries stand, the present one first.
const PLUGINS: [&str; 3] = ["proxy", "ai-proxy", "ai-proxy-advanced"];

pub(super) fn is(row: &Map<String, Value>) -> bool {
    proxy(row).is_some() || (row.contains_key("started_at") && row.contains_key("client_ip"))
}

/// A request that went through no AI plugin is none to a language model.
pub(super) fn prepare(mut row: Map<String, Value>) -> Prepared {
    let Some(plugin) = proxy(&row) else { return Prepared::Other };
    if plugin != PLUGINS[0]
        && let Some(Value::Object(ai)) = row.get_mut("ai")
        && let Some(entries) = ai.remove(plugin)
    {
        ai.insert(PLUGINS[0].to_owned(), entries);
    }
    Prepared::Request(row)
}

fn proxy(row: &Map<String, Value>) -> Option<&'static str> {
    let ai = row.get("ai")?.as_object()?;
    PLUGINS.into_iter().find(|plugin| ai.get(*plugin).is_some_and(Value::is_object))
}
