use anbiq_domain::{Message, Role};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::{FinishReason, InvalidRequest, Stop, StreamOptions, ToolCall, ToolCallDelta, Usage};

/// The body of `POST /v1/chat/completions`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ChatRequest {
    /// Which model.
    pub model: String,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// Answers asked for; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Sampling temperature, 0 to 2; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Nucleus sampling, 0 to 1; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Longest answer, in tokens: the older name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Longest answer, in tokens: the newer name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
    /// Fixes the draws, as far as the server can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Texts that end an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Are log-probabilities asked for?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// Alternatives a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// Is the answer streamed?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What the stream carries besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Every other field that is not `null`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ChatRequest {
    /// Reads a request body.
    ///
    /// # Errors
    /// The body is no JSON object, a required field is missing, or a known field has the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidRequest> {
        let mut fields = Fields::parse(body)?;
        Ok(Self {
            model: fields.need("model")?,
            messages: fields.need("messages")?,
            n: fields.take("n")?,
            temperature: fields.take("temperature")?,
            top_p: fields.take("top_p")?,
            max_tokens: fields.take("max_tokens")?,
            max_completion_tokens: fields.take("max_completion_tokens")?,
            seed: fields.take("seed")?,
            stop: fields.take("stop")?,
            logprobs: fields.take("logprobs")?,
            top_logprobs: fields.take("top_logprobs")?,
            stream: fields.take("stream")?,
            stream_options: fields.take("stream_options")?,
            other: fields.rest(),
        })
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said; absent where the message only calls a tool.
    #[serde(default)]
    pub content: Option<Content>,
    /// Which of several that have the same role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The tools that the model called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call that it answers, where a tool speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Every other field, such as refusals.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ChatMessage {
    /// A message of plain text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        let content = Some(Content::Text(text.into()));
        Self { role, content, name: None, tool_calls: None, tool_call_id: None, other: Map::new() }
    }

    /// What it says, in the words of the domain. Texts become one; where a part is no text, all parts are kept.
    pub fn into_message(self) -> Message {
        let (content, parts) = self.content.map_or_else(Default::default, Content::into_parts);
        Message {
            role: self.role,
            content,
            name: self.name,
            tool_calls: self.tool_calls.into_iter().flatten().map(ToolCall::into).collect(),
            tool_call_id: self.tool_call_id,
            parts,
        }
    }
}

impl From<Message> for ChatMessage {
    fn from(message: Message) -> Self {
        let Message { role, content, name, tool_calls, tool_call_id, parts } = message;
        let content = match (parts.is_empty(), content.is_empty() && !tool_calls.is_empty()) {
            (false, _) => Some(Content::Parts(parts.into_iter().map(Part::from).collect())),
            // Some servers take an empty text beside calls for one that the model wrote.
            (true, true) => None,
            (true, false) => Some(Content::Text(content)),
        };
        let tool_calls = (!tool_calls.is_empty()).then(|| tool_calls.into_iter().map(ToolCall::from).collect());
        Self { role, content, name, tool_calls, tool_call_id, other: Map::new() }
    }
}

/// What a message says: a text, or a list of parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of content parts")]
pub enum Content {
    /// A text.
    Text(String),
    /// Texts, and perhaps other things.
    Parts(Vec<Part>),
}

impl Content {
    /// The text of all parts, one after the other.
    ///
    /// # Errors
    /// A part is no text; the error is its type.
    pub fn into_text(self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Parts(parts) => parts.into_iter().map(Part::into_text).collect(),
        }
    }

    /// All of its text, and all parts where some are no text.
    pub fn into_parts(self) -> (String, Vec<Value>) {
        match self {
            Self::Text(text) => (text, Vec::new()),
            Self::Parts(parts) => {
                let text = parts.iter().filter(|part| part.is_text()).filter_map(|part| part.text.as_deref()).collect();
                let only_text = parts.iter().all(Part::is_text);
                (text, if only_text { Vec::new() } else { parts.into_iter().map(Value::from).collect() })
            }
        }
    }
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its type, such as `text` or `image_url`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its text, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Part {
    fn is_text(&self) -> bool {
        self.kind == "text" && self.text.is_some()
    }

    fn into_text(self) -> Result<String, String> {
        match self.text {
            Some(text) if self.kind == "text" => Ok(text),
            _ => Err(self.kind),
        }
    }
}

impl From<Part> for Value {
    fn from(part: Part) -> Self {
        let Part { kind, text, other: mut fields } = part;
        fields.insert("type".to_owned(), kind.into());
        fields.extend(text.map(|text| ("text".to_owned(), text.into())));
        Self::Object(fields)
    }
}

impl From<Value> for Part {
    /// What is no object becomes a part without a type, which no server takes.
    fn from(value: Value) -> Self {
        let mut other = if let Value::Object(fields) = value { fields } else { Map::new() };
        let mut take = |name| if let Some(Value::String(text)) = other.remove(name) { Some(text) } else { None };
        let (kind, text) = (take("type").unwrap_or_default(), take("text"));
        Self { kind, text, other }
    }
}

/// The answer to [`ChatRequest`], unstreamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// Which answer.
    pub id: String,
    /// `chat.completion`
    pub object: String,
    /// When, in seconds since 1970.
    pub created: i64,
    /// Which model answered.
    pub model: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The build of the model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChoice {
    /// Its place among the answers.
    pub index: u32,
    /// What is said.
    pub message: ReplyMessage,
    /// Log-probabilities, where they were asked for.
    #[serde(default)]
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
}

/// The message of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyMessage {
    /// Always the assistant.
    pub role: Role,
    /// What is said.
    pub content: Option<String>,
    /// Always absent here; clients expect the field.
    #[serde(default)]
    pub refusal: Option<String>,
    /// The tools that it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
}

/// One piece of a streamed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChunk {
    /// Which answer.
    #[serde(default)]
    pub id: String,
    /// `chat.completion.chunk`
    #[serde(default)]
    pub object: String,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub created: i64,
    /// Which model answers.
    #[serde(default)]
    pub model: String,
    /// What was added; empty in the chunk that carries the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// Tokens, in the last chunk and where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The build of the model and its settings, where the server says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// What was added to one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChunkChoice {
    /// Its place among the answers.
    pub index: u32,
    /// The addition. Azure leaves it out where a chunk holds only what its content filter found.
    #[serde(default)]
    pub delta: Delta,
    /// Log-probabilities of what was added.
    #[serde(default)]
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended, in its last chunk.
    #[serde(default)]
    pub finish_reason: Option<FinishReason>,
}

/// An addition to a message.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Who speaks, in the first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// More text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// More of the tools that it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallDelta>>,
}

/// Log-probabilities of an answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ChatLogprobs {
    /// Of each token.
    pub content: Option<Vec<ChatTokenLogprob>>,
    /// Always absent here; clients expect the field.
    #[serde(default)]
    pub refusal: Option<Vec<ChatTokenLogprob>>,
}

/// The log-probability of a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatTokenLogprob {
    /// The token as text.
    pub token: String,
    /// Natural logarithm of its probability; -9999 stands for zero probability.
    pub logprob: f32,
    /// Its bytes.
    #[serde(default)]
    pub bytes: Option<Vec<u8>>,
    /// The likeliest tokens at this place.
    #[serde(default)]
    pub top_logprobs: Vec<ChatTopLogprob>,
}

/// A token that could have stood at some place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatTopLogprob {
    /// The token as text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes.
    #[serde(default)]
    pub bytes: Option<Vec<u8>>,
}
