//! Prompts as the dialects of several providers write them.

use anbiq_domain::{Message, Prompt, Role};
use serde_json::{Map, Value};

/// The prompt in `value`, with the system's message `system` before it; `None` where there is no text.
///
/// Read are: a text; the JSON of what follows; messages with `content` or `parts`; and requests to the interfaces of
/// OpenAI (`messages`, `input`, `prompt`), Anthropic (`system`), Google (`contents`) and Amazon (`inputText`).
pub(crate) fn prompt(value: &Value, system: Option<&Value>) -> Option<Prompt> {
    let prompt = match value {
        Value::String(text) if text.trim_start().starts_with(['[', '{']) => match serde_json::from_str::<Value>(text) {
            Ok(inner) => return self::prompt(&inner, system),
            Err(_) => Prompt::Text(text.clone()),
        },
        Value::String(text) => Prompt::Text(text.clone()),
        Value::Array(items) => list(items)?,
        Value::Object(request) => return of_request(request, system),
        _ => return None,
    };
    let Some(said) = system.map(content).filter(|text| !text.trim().is_empty()) else { return Some(prompt) };
    let mut messages = vec![Message::new(Role::System, said)];
    match prompt {
        Prompt::Chat(others) => messages.extend(others),
        Prompt::Text(text) => messages.push(Message::new(Role::User, text)),
    }
    Some(Prompt::Chat(messages))
}

fn of_request(request: &Map<String, Value>, system: Option<&Value>) -> Option<Prompt> {
    const SYSTEM: [&str; 4] = ["system", "instructions", "systemInstruction", "system_instruction"];
    const ASKED: [&str; 6] = ["messages", "contents", "input", "prompt", "inputText", "query"];
    let own = SYSTEM.iter().find_map(|key| request.get(*key)).filter(|value| !value.is_null());
    let asked = ASKED.iter().find_map(|key| request.get(*key).filter(|value| !value.is_null()));
    match asked {
        Some(asked) => prompt(asked, own.or(system)),
        // A single message.
        None if request.contains_key("role") || request.contains_key("content") => {
            prompt(&Value::Array(vec![Value::Object(request.clone())]), own.or(system))
        }
        None => None,
    }
}

fn list(items: &[Value]) -> Option<Prompt> {
    let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
    if texts.len() == items.len() {
        return (!texts.is_empty()).then(|| Prompt::Text(texts.join("\n")));
    }
    let messages: Vec<Message> = items.iter().filter_map(message).collect();
    (!messages.is_empty()).then_some(Prompt::Chat(messages))
}

fn message(value: &Value) -> Option<Message> {
    let Value::Object(said) = value else { return None };
    // Some wrap each message once more.
    let said = match said.get("message") {
        Some(Value::Object(inner)) if !said.contains_key("role") => inner,
        _ => said,
    };
    let role = match said.get("role").and_then(Value::as_str).unwrap_or("user") {
        "system" | "developer" => Role::System,
        "assistant" | "model" | "ai" | "bot" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        _ => Role::User,
    };
    let what = ["content", "parts", "text"].iter().find_map(|key| said.get(*key).filter(|value| !value.is_null()));
    Some(Message::new(role, what.map(content).unwrap_or_default()))
}

/// All text of a message's content, one part after the other.
fn content(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(content).collect(),
        Value::Object(part) => match ["text", "content", "parts"].iter().find_map(|key| part.get(*key)) {
            Some(inner @ (Value::String(_) | Value::Array(_))) => content(inner),
            _ => String::new(),
        },
        _ => String::new(),
    }
}
