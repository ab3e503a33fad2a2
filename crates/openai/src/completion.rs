use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::{FinishReason, InvalidRequest, Stop, StreamOptions, Usage};

/// The body of `POST /v1/completions`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompletionRequest {
    /// Which model.
    pub model: String,
    /// The text to go on with.
    pub prompt: CompletionPrompt,
    /// Completions asked for; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Sampling temperature, 0 to 2; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Nucleus sampling, 0 to 1; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Longest completion, in tokens; 16 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Fixes the draws, as far as the server can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Texts that end a completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Log-probabilities, with so many alternatives a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u32>,
    /// Is the prompt given back before the completion?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<bool>,
    /// Is the completion streamed?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What the stream carries besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Every other field that is not `null`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl CompletionRequest {
    /// One completion of `prompt` by `model`; everything else is left to the server.
    pub fn new(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            prompt: CompletionPrompt::Text(prompt.into()),
            n: None,
            temperature: None,
            top_p: None,
            max_tokens: None,
            seed: None,
            stop: None,
            logprobs: None,
            echo: None,
            stream: None,
            stream_options: None,
            other: Map::new(),
        }
    }

    /// Reads a request body.
    ///
    /// # Errors
    /// The body is no JSON object, a required field is missing, or a known field has the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidRequest> {
        let mut fields = Fields::parse(body)?;
        Ok(Self {
            model: fields.need("model")?,
            prompt: fields.need("prompt")?,
            n: fields.take("n")?,
            temperature: fields.take("temperature")?,
            top_p: fields.take("top_p")?,
            max_tokens: fields.take("max_tokens")?,
            seed: fields.take("seed")?,
            stop: fields.take("stop")?,
            logprobs: fields.take("logprobs")?,
            echo: fields.take("echo")?,
            stream: fields.take("stream")?,
            stream_options: fields.take("stream_options")?,
            other: fields.rest(),
        })
    }
}

/// What is completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum CompletionPrompt {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Anything else, such as token numbers.
    Other(Vec<Value>),
}

/// The answer to [`CompletionRequest`], whole or one chunk of it: both have the same form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Which completion.
    #[serde(default)]
    pub id: String,
    /// `text_completion`
    #[serde(default)]
    pub object: String,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub created: i64,
    /// Which model answered.
    #[serde(default)]
    pub model: String,
    /// The completions, or what was added to them.
    pub choices: Vec<CompletionChoice>,
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The build of the model and its settings, where the server says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// One completion, or what was added to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionChoice {
    /// Its place among the completions.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Log-probabilities, where they were asked for.
    #[serde(default)]
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended.
    #[serde(default)]
    pub finish_reason: Option<FinishReason>,
}

/// Log-probabilities of a completion, as columns of equal length.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CompletionLogprobs {
    /// The tokens as text.
    pub tokens: Vec<String>,
    /// Natural logarithms of their probabilities; `null` for a first token, which nothing precedes.
    pub token_logprobs: Vec<Option<f32>>,
    /// The likeliest tokens at each place.
    #[serde(default)]
    pub top_logprobs: Option<Vec<Option<BTreeMap<String, f32>>>>,
    /// Where each token begins, in characters.
    #[serde(default)]
    pub text_offset: Vec<u64>,
}
