use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::{ChatTokenLogprob, InvalidRequest};

/// The body of `POST /v1/responses`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResponseRequest {
    /// Which model.
    pub model: String,
    /// What is asked.
    pub input: ResponseInput,
    /// What the model is told before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Longest answer, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// Sampling temperature, 0 to 2; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Nucleus sampling, 0 to 1; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Alternatives a token, where log-probabilities are included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// What the answer holds besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    /// Tools that the model may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Value>>,
    /// Which of them it must.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    /// Several at once?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// The form of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Map<String, Value>>,
    /// How much thought is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Map<String, Value>>,
    /// The customer's own notes; given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Is the answer streamed?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Every other field that is not `null`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ResponseRequest {
    /// Reads a request body.
    ///
    /// # Errors
    /// The body is no JSON object, a required field is missing, or a known field has the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidRequest> {
        let mut fields = Fields::parse(body)?;
        Ok(Self {
            model: fields.need("model")?,
            input: fields.need("input")?,
            instructions: fields.take("instructions")?,
            max_output_tokens: fields.take("max_output_tokens")?,
            temperature: fields.take("temperature")?,
            top_p: fields.take("top_p")?,
            top_logprobs: fields.take("top_logprobs")?,
            include: fields.take("include")?,
            tools: fields.take("tools")?,
            tool_choice: fields.take("tool_choice")?,
            parallel_tool_calls: fields.take("parallel_tool_calls")?,
            text: fields.take("text")?,
            reasoning: fields.take("reasoning")?,
            metadata: fields.take("metadata")?,
            stream: fields.take("stream")?,
            other: fields.rest(),
        })
    }
}

/// What is asked: a text, or the items of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of items")]
pub enum ResponseInput {
    /// A text by the user.
    Text(String),
    /// Messages, calls of functions and what they said.
    Items(Vec<Value>),
}

/// The answer to [`ResponseRequest`], whole or as it is so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseObject {
    /// Which answer.
    pub id: String,
    /// `response`
    #[serde(default)]
    pub object: String,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub created_at: i64,
    /// How far it is.
    pub status: ResponseStatus,
    /// Why it failed: always absent here, since what fails is an error.
    #[serde(default)]
    pub error: Option<Value>,
    /// Why it is not complete.
    #[serde(default)]
    pub incomplete_details: Option<IncompleteDetails>,
    /// Which model answered.
    #[serde(default)]
    pub model: String,
    /// Messages and calls of functions.
    pub output: Vec<OutputItem>,
    /// Tokens, at the end.
    #[serde(default)]
    pub usage: Option<ResponseUsage>,
    /// What was asked for, given back.
    #[serde(flatten)]
    pub echo: ResponseEcho,
}

/// How far an answer, or a part of it, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    /// More follows.
    InProgress,
    /// All is said.
    Completed,
    /// It was cut off.
    Incomplete,
}

/// Why an answer is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncompleteDetails {
    /// `max_output_tokens` or `content_filter`
    pub reason: String,
}

/// What a request asked for, as its answer gives it back.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResponseEcho {
    /// See [`ResponseRequest`].
    pub instructions: Option<String>,
    /// See [`ResponseRequest`].
    pub max_output_tokens: Option<u32>,
    /// See [`ResponseRequest`].
    pub metadata: Map<String, Value>,
    /// See [`ResponseRequest`].
    pub parallel_tool_calls: bool,
    /// Always absent: no conversation is kept.
    pub previous_response_id: Option<String>,
    /// See [`ResponseRequest`].
    pub reasoning: Map<String, Value>,
    /// Always false: no answer is kept.
    pub store: bool,
    /// See [`ResponseRequest`].
    pub temperature: f32,
    /// See [`ResponseRequest`].
    pub text: Map<String, Value>,
    /// See [`ResponseRequest`].
    pub tool_choice: Value,
    /// See [`ResponseRequest`].
    pub tools: Vec<Value>,
    /// See [`ResponseRequest`].
    pub top_p: f32,
    /// `disabled`: nothing is left out of what is asked.
    pub truncation: String,
}

/// A message, or a call of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// A message.
    Message {
        /// Which item.
        id: String,
        /// How far it is.
        status: ResponseStatus,
        /// Always the assistant.
        role: anbiq_domain::Role,
        /// What it says.
        content: Vec<OutputPart>,
    },
    /// A call of a function.
    FunctionCall {
        /// Which item.
        id: String,
        /// By which the function's answer is told from others.
        call_id: String,
        /// Which function.
        name: String,
        /// Its arguments, as JSON if the model made no mistake.
        arguments: String,
        /// How far it is.
        status: ResponseStatus,
    },
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputPart {
    /// A text.
    OutputText {
        /// The text.
        text: String,
        /// Always empty here; clients expect the field.
        #[serde(default)]
        annotations: Vec<Value>,
        /// Log-probabilities, where they were asked for.
        #[serde(default)]
        logprobs: Vec<ChatTokenLogprob>,
    },
}

/// Tokens of one exchange, in this endpoint's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResponseUsage {
    /// Of the prompt.
    pub input_tokens: u64,
    /// What is known of those.
    #[serde(default)]
    pub input_tokens_details: InputTokensDetails,
    /// Of the answer.
    pub output_tokens: u64,
    /// What is known of those.
    #[serde(default)]
    pub output_tokens_details: OutputTokensDetails,
    /// Of both.
    pub total_tokens: u64,
}

/// What is known of a prompt's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InputTokensDetails {
    /// So many of them the server had read before.
    #[serde(default)]
    pub cached_tokens: u64,
}

/// What is known of an answer's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputTokensDetails {
    /// Always 0 here; clients expect the field.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

impl From<crate::Usage> for ResponseUsage {
    fn from(usage: crate::Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails { cached_tokens: usage.cached_tokens() },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails::default(),
            total_tokens: usage.total_tokens,
        }
    }
}

/// An event of a streamed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseEvent {
    /// What happened.
    #[serde(flatten)]
    pub happened: Happened,
    /// Its place among the events, counted from 0.
    pub sequence_number: u64,
}

/// What an event of a streamed answer says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Happened {
    /// The answer was begun.
    #[serde(rename = "response.created")]
    Created {
        /// The answer so far.
        response: ResponseObject,
    },
    /// The model is at work.
    #[serde(rename = "response.in_progress")]
    InProgress {
        /// The answer so far.
        response: ResponseObject,
    },
    /// An item begins.
    #[serde(rename = "response.output_item.added")]
    ItemAdded {
        /// Its place.
        output_index: u32,
        /// The item so far.
        item: OutputItem,
    },
    /// A part of a message begins.
    #[serde(rename = "response.content_part.added")]
    PartAdded {
        /// Of which item.
        item_id: String,
        /// The item's place.
        output_index: u32,
        /// The part's place.
        content_index: u32,
        /// The part so far.
        part: OutputPart,
    },
    /// More text.
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        /// Of which item.
        item_id: String,
        /// The item's place.
        output_index: u32,
        /// The part's place.
        content_index: u32,
        /// What was added.
        delta: String,
        /// Log-probabilities of that, where they were asked for.
        #[serde(default)]
        logprobs: Vec<ChatTokenLogprob>,
    },
    /// A text is complete.
    #[serde(rename = "response.output_text.done")]
    TextDone {
        /// Of which item.
        item_id: String,
        /// The item's place.
        output_index: u32,
        /// The part's place.
        content_index: u32,
        /// All of it.
        text: String,
        /// Log-probabilities of that, where they were asked for.
        #[serde(default)]
        logprobs: Vec<ChatTokenLogprob>,
    },
    /// A part of a message is complete.
    #[serde(rename = "response.content_part.done")]
    PartDone {
        /// Of which item.
        item_id: String,
        /// The item's place.
        output_index: u32,
        /// The part's place.
        content_index: u32,
        /// All of it.
        part: OutputPart,
    },
    /// More arguments of a function.
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta {
        /// Of which item.
        item_id: String,
        /// The item's place.
        output_index: u32,
        /// What was added.
        delta: String,
    },
    /// The arguments of a function are complete.
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone {
        /// Of which item.
        item_id: String,
        /// The item's place.
        output_index: u32,
        /// Which function.
        name: String,
        /// All of them.
        arguments: String,
    },
    /// An item is complete.
    #[serde(rename = "response.output_item.done")]
    ItemDone {
        /// Its place.
        output_index: u32,
        /// All of it.
        item: OutputItem,
    },
    /// The answer is complete.
    #[serde(rename = "response.completed")]
    Completed {
        /// All of it.
        response: ResponseObject,
    },
    /// The answer was cut off.
    #[serde(rename = "response.incomplete")]
    Incomplete {
        /// All there is of it.
        response: ResponseObject,
    },
    /// The answer failed.
    #[serde(rename = "error")]
    Error {
        /// Its stable code.
        code: Option<String>,
        /// What happened, for a person.
        message: String,
        /// The field at fault.
        param: Option<String>,
    },
}

impl Happened {
    /// The event's type.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "response.created",
            Self::InProgress { .. } => "response.in_progress",
            Self::ItemAdded { .. } => "response.output_item.added",
            Self::PartAdded { .. } => "response.content_part.added",
            Self::TextDelta { .. } => "response.output_text.delta",
            Self::TextDone { .. } => "response.output_text.done",
            Self::PartDone { .. } => "response.content_part.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Self::ItemDone { .. } => "response.output_item.done",
            Self::Completed { .. } => "response.completed",
            Self::Incomplete { .. } => "response.incomplete",
            Self::Error { .. } => "error",
        }
    }
}
