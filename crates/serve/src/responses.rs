//! The endpoint `/v1/responses`, in the words of a chat.
//!
//! A request is read into the same form as a chat's and goes the same way; only what is written differs. Nothing is
//! kept between requests, so whatever would need that is refused.

use std::sync::Arc;

use anbiq_domain::{Finish, Message, Prompt, Role, Route, ToolCall};
use anbiq_model::{Calls, TokenLogprob, ToolCallDelta};
use anbiq_openai::{
    ChatTokenLogprob, Content, Happened, IncompleteDetails, OutputItem, OutputPart, ResponseEcho, ResponseEvent,
    ResponseInput, ResponseObject, ResponseRequest, ResponseStatus, Usage, sse,
};
use serde_json::{Map, Value, json};

use crate::answer::{Form, Heading, chat_logprobs};
use crate::exchange::Piece;
use crate::fields::{self, ChangesNothing};
use crate::rejection::Rejection;
use crate::request::{self, Asked};

/// Fields that need something to be kept, or done beside the answer, each with the values that do not.
const STATEFUL: &[(&str, ChangesNothing, &str)] = &[
    ("previous_response_id", |_| false, "no conversation is kept: send the whole of it in `input`"),
    ("conversation", |_| false, "no conversation is kept: send the whole of it in `input`"),
    ("store", |value| value == false, "no answer is kept: leave `store` out, or set it to false"),
    ("background", |value| value == false, "no answer is kept, so none can be fetched later"),
    ("prompt", |_| false, "no prompts are kept: send the text itself"),
    ("context_management", |_| false, "what is asked goes to the model as it is"),
    ("truncation", |value| value == "disabled", "what is asked goes to the model as it is"),
];

/// What may be included in an answer: log-probabilities, and thoughts, of which there are none to be had.
const INCLUDED: [&str; 2] = [LOGPROBS, "reasoning.encrypted_content"];
const LOGPROBS: &str = "message.output_text.logprobs";

/// Words of a chat, and what they are called here.
const WORDS: [(&str, &str); 7] = [
    ("messages", "input"),
    ("logprobs", "include"),
    ("max_tokens", "max_output_tokens"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    ("verbosity", "text.verbosity"),
];

/// Reads a request.
pub(crate) fn asked(request: ResponseRequest) -> Result<Asked, Rejection> {
    for (name, harmless, why) in STATEFUL {
        if request.other.get(*name).is_some_and(|value| !harmless(value)) {
            return Err(Rejection::unsupported(name, format!("`{name}` is not supported: {why}")));
        }
    }
    let include = request.include.unwrap_or_default();
    if let Some(unknown) = include.iter().find(|name| !INCLUDED.contains(&name.as_str())) {
        return Err(Rejection::unsupported("include", format!("`{unknown}` cannot be included")));
    }
    let logprobs = match (include.iter().any(|name| name == LOGPROBS), request.top_logprobs) {
        (true, alternatives) => Some(request::alternatives_of("top_logprobs", alternatives.unwrap_or(0), 20)?),
        (false, None | Some(0)) => None,
        (false, Some(_)) => {
            let message = format!("`top_logprobs` needs `{LOGPROBS}` in `include`");
            return Err(Rejection::value("top_logprobs", message));
        }
    };
    let echo = ResponseEcho {
        instructions: request.instructions.clone(),
        max_output_tokens: request.max_output_tokens,
        metadata: request.metadata.unwrap_or_default(),
        parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
        previous_response_id: None,
        reasoning: request.reasoning.clone().unwrap_or_default(),
        store: false,
        temperature: request.temperature.unwrap_or(1.0),
        text: request.text.clone().unwrap_or_else(plain_text),
        tool_choice: request.tool_choice.clone().unwrap_or_else(|| "auto".into()),
        tools: request.tools.clone().unwrap_or_default(),
        top_p: request.top_p.unwrap_or(1.0),
        truncation: "disabled".to_owned(),
    };
    let mut fields = request.other;
    fields.extend(tool_fields(request.tools, request.tool_choice, request.parallel_tool_calls)?);
    fields.extend(text_fields(request.text)?);
    fields
        .extend(request.reasoning.and_then(|mut all| all.remove("effort")).map(|how| ("reasoning_effort".into(), how)));
    Ok(Asked {
        route: Route::Responses,
        form: Form::Response(Arc::new(echo)),
        model: request.model,
        prompt: Prompt::Chat(messages(request.instructions, request.input)?),
        n: 1,
        max_tokens: request::at_least_one("max_output_tokens", request.max_output_tokens)?,
        sampling: request::sampling(request.temperature, request.top_p, None)?,
        stop: Vec::new(),
        logprobs,
        stream: request.stream.unwrap_or(false),
        include_usage: true,
        dialect: fields::handed_on(Route::Responses, fields).map_err(reworded)?,
        embedding: None,
    })
}

/// What refuses a chat, in the words of this endpoint.
pub(crate) fn reworded(mut rejection: Rejection) -> Rejection {
    for (chat, here) in &WORDS {
        if let Some(rest) = rejection.param.as_deref().and_then(|param| param.strip_prefix(chat)) {
            // Which message it is depends on how the items were put together.
            let rest = if *chat == "messages" { String::new() } else { rest.replace(".function", "") };
            rejection.param = Some(format!("{here}{rest}"));
            rejection.message = rejection.message.replace(&format!("`{chat}`"), &format!("`{here}`"));
            return rejection;
        }
    }
    rejection.param = rejection.param.map(|param| param.replace(".function", ""));
    rejection
}

fn plain_text() -> Map<String, Value> {
    Map::from_iter([("format".to_owned(), json!({"type": "text"}))])
}

/// The fields of a chat that say the same of tools.
fn tool_fields(
    tools: Option<Vec<Value>>,
    choice: Option<Value>,
    parallel: Option<bool>,
) -> Result<Map<String, Value>, Rejection> {
    let mut fields = Map::new();
    let chat_tool = |(index, tool): (usize, Value)| match tool {
        Value::Object(mut function) if function.get("type").is_some_and(|kind| kind == "function") => {
            function.remove("type");
            Ok(json!({"type": "function", "function": function}))
        }
        _ => {
            let message = "a tool is of the type `function`: this gateway runs none of its own";
            Err(Rejection::unsupported(&format!("tools.[{index}].type"), message))
        }
    };
    if let Some(tools) = tools {
        let tools: Vec<Value> = tools.into_iter().enumerate().map(chat_tool).collect::<Result<_, _>>()?;
        fields.insert("tools".to_owned(), tools.into());
    }
    if let Some(choice) = choice {
        let choice = match choice {
            Value::String(_) => choice,
            Value::Object(_) if choice["type"] == "function" => {
                json!({"type": "function", "function": {"name": choice["name"]}})
            }
            _ => {
                let message = "`tool_choice` is `auto`, `none`, `required` or one function";
                return Err(Rejection::unsupported("tool_choice", message));
            }
        };
        fields.insert("tool_choice".to_owned(), choice);
    }
    fields.extend(parallel.map(|parallel| ("parallel_tool_calls".to_owned(), parallel.into())));
    Ok(fields)
}

/// The fields of a chat that say the same of the text.
fn text_fields(text: Option<Map<String, Value>>) -> Result<Map<String, Value>, Rejection> {
    let mut fields = Map::new();
    let Some(mut text) = text else { return Ok(fields) };
    fields.extend(text.remove("verbosity").map(|verbosity| ("verbosity".to_owned(), verbosity)));
    match text.remove("format") {
        None | Some(Value::Null) => {}
        Some(Value::Object(mut format)) if format.get("type").is_some_and(|kind| kind == "json_schema") => {
            format.remove("type");
            fields.insert("response_format".to_owned(), json!({"type": "json_schema", "json_schema": format}));
        }
        Some(format @ Value::Object(_)) => {
            fields.insert("response_format".to_owned(), format);
        }
        Some(_) => return Err(Rejection::value("text.format", "`text.format` is an object")),
    }
    Ok(fields)
}

fn messages(instructions: Option<String>, input: ResponseInput) -> Result<Vec<Message>, Rejection> {
    let mut messages: Vec<Message> = instructions.map(|text| Message::new(Role::System, text)).into_iter().collect();
    match input {
        ResponseInput::Text(text) => messages.push(Message::new(Role::User, text)),
        ResponseInput::Items(items) => {
            if items.is_empty() {
                return Err(Rejection::value("input", "`input` is empty: something is asked"));
            }
            for (index, item) in items.iter().enumerate() {
                add_item(&mut messages, item)
                    .map_err(|(field, message)| Rejection::unsupported(&format!("input.[{index}].{field}"), message))?;
            }
        }
    }
    request::check_length(messages.len()).map_err(reworded)?;
    Ok(messages)
}

/// Adds an item to a conversation, or says which of its fields is at fault and why.
fn add_item(messages: &mut Vec<Message>, item: &Value) -> Result<(), (&'static str, String)> {
    let text = |name: &'static str| match item[name].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err((name, format!("this item has a text `{name}`"))),
    };
    match item["type"].as_str().unwrap_or("message") {
        "message" => {
            let role = serde_json::from_value(item["role"].clone());
            let role = role.map_err(|_| ("role", "a message has a role: `user`, `assistant`, `system`".to_owned()))?;
            let (content, parts) = content(&item["content"]).map_err(|message| ("content", message))?;
            messages.push(Message { parts, ..Message::new(role, content) });
        }
        "function_call" => {
            let call = ToolCall { id: text("call_id")?, name: text("name")?, arguments: text("arguments")? };
            // A chat has what the model says and all it calls at once in one message.
            match messages.last_mut().filter(|last| last.role == Role::Assistant) {
                Some(last) => last.tool_calls.push(call),
                None => messages.push(Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") }),
            }
        }
        "function_call_output" => {
            let (content, parts) = content(&item["output"]).map_err(|message| ("output", message))?;
            let tool_call_id = Some(text("call_id")?);
            messages.push(Message { tool_call_id, parts, ..Message::new(Role::Tool, content) });
        }
        // Some clients send back what they were given; there is nothing in it.
        "reasoning" => {}
        "item_reference" => return Err(("type", "no items are kept: send the item itself".to_owned())),
        other => return Err(("type", format!("items of the type `{other}` are not supported"))),
    }
    Ok(())
}

/// The text, and the parts where some are no text, in a chat's words.
fn content(content: &Value) -> Result<(String, Vec<Value>), String> {
    let Value::Array(parts) = content else {
        let text = content.as_str().map(|text| (text.to_owned(), Vec::new()));
        return text.ok_or_else(|| "content is a text or a list of parts".to_owned());
    };
    let chat_part = |part: &Value| match part["type"].as_str().unwrap_or_default() {
        "input_text" | "output_text" | "text" if part["text"].is_string() => {
            Ok(json!({"type": "text", "text": part["text"]}))
        }
        "refusal" if part["refusal"].is_string() => Ok(json!({"type": "text", "text": part["refusal"]})),
        "input_image" if part["image_url"].is_string() => {
            let mut image = json!({"url": part["image_url"]});
            if part["detail"].is_string() {
                image["detail"] = part["detail"].clone();
            }
            Ok(json!({"type": "image_url", "image_url": image}))
        }
        other => Err(format!("a part of the type `{other}` is not supported as it is")),
    };
    let parts: Vec<Value> = parts.iter().map(chat_part).collect::<Result<_, _>>()?;
    let content: Content = serde_json::from_value(parts.into()).map_err(|why| why.to_string())?;
    Ok(content.into_parts())
}

impl Heading {
    fn response(&self, status: ResponseStatus, output: Vec<OutputItem>, echo: &ResponseEcho) -> ResponseObject {
        ResponseObject {
            id: format!("resp_{}", self.id),
            object: "response".to_owned(),
            created_at: self.created,
            status,
            error: None,
            incomplete_details: None,
            model: self.model.clone(),
            output,
            usage: None,
            echo: echo.clone(),
        }
    }
}

/// The whole answer.
pub(crate) fn whole(
    heading: &Heading,
    echo: &ResponseEcho,
    text: String,
    logprobs: Vec<TokenLogprob>,
    calls: Calls,
    finish: Option<Finish>,
    usage: Usage,
) -> ResponseObject {
    let (status, reason) = end(finish);
    let calls = calls.into_list();
    let mut output = Vec::new();
    if !text.is_empty() || calls.is_empty() {
        let item = Item::Text { text, logprobs: chat_logprobs(logprobs).content.unwrap_or_default() };
        output.push(item.finished(heading, 0, status));
    }
    for call in calls {
        let index = output.len();
        output.push(Item::Call(call).finished(heading, index, status));
    }
    let incomplete_details = reason.map(|reason| IncompleteDetails { reason: reason.to_owned() });
    ResponseObject { incomplete_details, usage: Some(usage.into()), ..heading.response(status, output, echo) }
}

fn end(finish: Option<Finish>) -> (ResponseStatus, Option<&'static str>) {
    match finish {
        Some(Finish::Length) => (ResponseStatus::Incomplete, Some("max_output_tokens")),
        Some(Finish::ContentFilter) => (ResponseStatus::Incomplete, Some("content_filter")),
        Some(Finish::Stop | Finish::ToolCalls) | None => (ResponseStatus::Completed, None),
    }
}

/// An item under way.
#[derive(Debug)]
enum Item {
    Text { text: String, logprobs: Vec<ChatTokenLogprob> },
    Call(ToolCall),
}

impl Item {
    fn id(&self, heading: &Heading, index: usize) -> String {
        match self {
            Self::Text { .. } => format!("msg_{}_{index}", heading.id),
            Self::Call(_) => format!("fc_{}_{index}", heading.id),
        }
    }

    fn part(text: String, logprobs: Vec<ChatTokenLogprob>) -> OutputPart {
        OutputPart::OutputText { text, annotations: Vec::new(), logprobs }
    }

    fn begun(&self, heading: &Heading, index: usize) -> OutputItem {
        let (id, status) = (self.id(heading, index), ResponseStatus::InProgress);
        match self {
            Self::Text { .. } => OutputItem::Message { id, status, role: Role::Assistant, content: Vec::new() },
            Self::Call(call) => OutputItem::FunctionCall {
                id,
                call_id: call.id.clone(),
                name: call.name.clone(),
                arguments: String::new(),
                status,
            },
        }
    }

    fn finished(self, heading: &Heading, index: usize, status: ResponseStatus) -> OutputItem {
        let id = self.id(heading, index);
        match self {
            Self::Text { text, logprobs } => {
                OutputItem::Message { id, status, role: Role::Assistant, content: vec![Self::part(text, logprobs)] }
            }
            Self::Call(ToolCall { id: call_id, name, arguments }) => {
                OutputItem::FunctionCall { id, call_id, name, arguments, status }
            }
        }
    }
}

/// Writes pieces as this endpoint's events.
pub(crate) struct Writer {
    heading: Heading,
    echo: Arc<ResponseEcho>,
    number: u64,
    finish: Option<Finish>,
    items: Vec<Slot>,
    /// The places of calls among the items.
    calls: Vec<usize>,
}

enum Slot {
    Open(Item),
    Done(OutputItem),
}

impl Writer {
    pub(crate) fn new(heading: Heading, echo: Arc<ResponseEcho>) -> Self {
        Self { heading, echo, number: 0, finish: None, items: Vec::new(), calls: Vec::new() }
    }

    pub(crate) fn write(&mut self, piece: Piece, events: &mut Vec<u8>) {
        if self.number == 0 {
            let response = || self.heading.response(ResponseStatus::InProgress, Vec::new(), &self.echo);
            let (created, in_progress) = (response(), response());
            self.event(Happened::Created { response: created }, events);
            self.event(Happened::InProgress { response: in_progress }, events);
        }
        match piece {
            Piece::Text { text, logprobs, .. } => self.text(text, logprobs, events),
            Piece::ToolCall { delta, .. } => self.call(delta, events),
            Piece::Finished { finish, .. } => self.finish = Some(finish),
            Piece::Done(usage) => self.end(usage, events),
            // Asked for at another endpoint.
            Piece::Vectors(_) => {}
        }
    }

    /// Says that the answer failed.
    pub(crate) fn fail(&mut self, rejection: &Rejection, events: &mut Vec<u8>) {
        let error = rejection.envelope().error;
        self.event(Happened::Error { code: error.code, message: error.message, param: error.param }, events);
    }

    fn text(&mut self, more: String, logprobs: Vec<TokenLogprob>, events: &mut Vec<u8>) {
        let index = self.open_text(events);
        let logprobs =
            if self.heading.logprobs { chat_logprobs(logprobs).content.unwrap_or_default() } else { Vec::new() };
        let Some(Slot::Open(item @ Item::Text { .. })) = self.items.get_mut(index) else { return };
        let item_id = item.id(&self.heading, index);
        if let Item::Text { text, logprobs: all } = item {
            text.push_str(&more);
            all.extend(logprobs.iter().cloned());
        }
        let output_index = index as u32;
        self.event(Happened::TextDelta { item_id, output_index, content_index: 0, delta: more, logprobs }, events);
    }

    /// The place of the text that is being said.
    fn open_text(&mut self, events: &mut Vec<u8>) -> usize {
        if let Some(Slot::Open(Item::Text { .. })) = self.items.last() {
            return self.items.len() - 1;
        }
        let item = Item::Text { text: String::new(), logprobs: Vec::new() };
        let item_id = item.id(&self.heading, self.items.len());
        let index = self.begin(item, events);
        let part = Item::part(String::new(), Vec::new());
        let output_index = index as u32;
        self.event(Happened::PartAdded { item_id, output_index, content_index: 0, part }, events);
        index
    }

    fn call(&mut self, delta: ToolCallDelta, events: &mut Vec<u8>) {
        let place = delta.call as usize;
        if place >= self.calls.len() {
            // What was said before is complete; calls may come at the same time.
            self.close(|item| matches!(item, Item::Text { .. }), ResponseStatus::Completed, events);
            let call = ToolCall {
                id: delta.id.unwrap_or_default(),
                name: delta.name.unwrap_or_default(),
                arguments: String::new(),
            };
            let index = self.begin(Item::Call(call), events);
            self.calls.push(index);
        }
        let Some(index) = self.calls.get(place).copied().filter(|_| !delta.arguments.is_empty()) else { return };
        let Some(Slot::Open(item)) = self.items.get_mut(index) else { return };
        let item_id = item.id(&self.heading, index);
        if let Item::Call(call) = item {
            call.arguments.push_str(&delta.arguments);
        }
        self.event(Happened::ArgumentsDelta { item_id, output_index: index as u32, delta: delta.arguments }, events);
    }

    fn begin(&mut self, item: Item, events: &mut Vec<u8>) -> usize {
        let index = self.items.len();
        let begun = item.begun(&self.heading, index);
        self.items.push(Slot::Open(item));
        self.event(Happened::ItemAdded { output_index: index as u32, item: begun }, events);
        index
    }

    /// Completes the items under way that are `chosen`.
    fn close(&mut self, chosen: impl Fn(&Item) -> bool, status: ResponseStatus, events: &mut Vec<u8>) {
        for index in 0..self.items.len() {
            let Some(Slot::Open(item)) = self.items.get(index) else { continue };
            if !chosen(item) {
                continue;
            }
            let (item_id, output_index) = (item.id(&self.heading, index), index as u32);
            match item {
                Item::Text { text, logprobs } => {
                    let (text, logprobs) = (text.clone(), logprobs.clone());
                    let part = Item::part(text.clone(), logprobs.clone());
                    let id = item_id.clone();
                    self.event(
                        Happened::TextDone { item_id: id, output_index, content_index: 0, text, logprobs },
                        events,
                    );
                    self.event(Happened::PartDone { item_id, output_index, content_index: 0, part }, events);
                }
                Item::Call(call) => {
                    let (name, arguments) = (call.name.clone(), call.arguments.clone());
                    self.event(Happened::ArgumentsDone { item_id, output_index, name, arguments }, events);
                }
            }
            let empty = Slot::Open(Item::Call(ToolCall::default()));
            let Some(slot) = self.items.get_mut(index) else { continue };
            let Slot::Open(item) = std::mem::replace(slot, empty) else { continue };
            let item = item.finished(&self.heading, index, status);
            *slot = Slot::Done(item.clone());
            self.event(Happened::ItemDone { output_index, item }, events);
        }
    }

    fn end(&mut self, usage: Usage, events: &mut Vec<u8>) {
        if self.items.is_empty() {
            self.open_text(events);
        }
        let (status, reason) = end(self.finish);
        self.close(|_| true, status, events);
        let done = |slot| if let Slot::Done(item) = slot { Some(item) } else { None };
        let output = std::mem::take(&mut self.items).into_iter().filter_map(done).collect();
        let incomplete_details = reason.map(|reason| IncompleteDetails { reason: reason.to_owned() });
        let response = ResponseObject {
            incomplete_details,
            usage: Some(usage.into()),
            ..self.heading.response(status, output, &self.echo)
        };
        let happened = match status {
            ResponseStatus::Incomplete => Happened::Incomplete { response },
            _ => Happened::Completed { response },
        };
        self.event(happened, events);
    }

    fn event(&mut self, happened: Happened, events: &mut Vec<u8>) {
        let kind = happened.kind();
        let event = ResponseEvent { happened, sequence_number: self.number };
        self.number += 1;
        // Strings, numbers and lists of them always have a JSON form.
        let data = serde_json::to_string(&event).unwrap_or_default();
        events.extend_from_slice(&sse::encode_as(kind, &data));
    }
}
