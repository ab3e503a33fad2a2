//! Wire types and the SSE codec of the OpenAI dialect: pure.
//!
//! Requests are read leniently, as the servers of this dialect do: unknown fields are kept in `other`, `null` is the
//! same as absent. What a field *means*, and whether it is allowed, is decided by whoever serves. Every type is both
//! written and read, so that gateway and client speak from one definition.

mod chat;
mod completion;
mod embedding;
mod error;
mod fields;
mod models;
mod response;
pub mod sse;
mod tool;

pub use chat::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatMessage, ChatRequest, ChatResponse, ChatTokenLogprob,
    ChatTopLogprob, Content, Delta, Part, ReplyMessage,
};
pub use completion::{Completion, CompletionChoice, CompletionLogprobs, CompletionPrompt, CompletionRequest};
pub use embedding::{
    Embedding, EmbeddingInput, EmbeddingRequest, EmbeddingResponse, EmbeddingUsage, EncodingFormat, Vector,
};
pub use error::{ApiError, ErrorEnvelope};
pub use fields::{InvalidRequest, Stop, StreamOptions};
pub use models::{ModelCard, ModelList};
pub use response::{
    Happened, IncompleteDetails, InputTokensDetails, OutputItem, OutputPart, OutputTokensDetails, ResponseEcho,
    ResponseEvent, ResponseInput, ResponseObject, ResponseRequest, ResponseStatus, ResponseUsage,
};
pub use tool::{FunctionCall, FunctionDelta, ToolCall, ToolCallDelta};

use anbiq_domain::Finish;
use serde::{Deserialize, Serialize};

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// It reached its largest length.
    Length,
    /// The server cut something out.
    ContentFilter,
    /// The model called a tool.
    ToolCalls,
    /// Something else.
    #[serde(other)]
    Other,
}

impl From<Finish> for FinishReason {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop => Self::Stop,
            Finish::Length => Self::Length,
            Finish::ToolCalls => Self::ToolCalls,
            Finish::ContentFilter => Self::ContentFilter,
        }
    }
}

impl From<FinishReason> for Finish {
    /// Whatever is not known ended it: the model did not go on.
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Length => Self::Length,
            FinishReason::ToolCalls => Self::ToolCalls,
            FinishReason::ContentFilter => Self::ContentFilter,
            FinishReason::Stop | FinishReason::Other => Self::Stop,
        }
    }
}

/// Tokens of one exchange, as its customer sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of all choices together.
    #[serde(default)]
    pub completion_tokens: u64,
    /// Of both.
    pub total_tokens: u64,
    /// What is known of the prompt's tokens besides their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

/// What is known of a prompt's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    /// So many of them the server had read before.
    #[serde(default)]
    pub cached_tokens: Option<u64>,
}

impl Usage {
    /// The usage with its total.
    pub const fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        let total_tokens = prompt_tokens + completion_tokens;
        Self { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details: None }
    }

    /// The same usage, of whose prompt `cached` tokens had been read before.
    #[must_use]
    pub const fn with_cached(self, cached: u64) -> Self {
        let details = PromptTokensDetails { cached_tokens: Some(cached) };
        Self { prompt_tokens_details: if cached > 0 { Some(details) } else { None }, ..self }
    }

    /// How many tokens of the prompt had been read before; never more than it has.
    pub fn cached_tokens(&self) -> u64 {
        let cached = self.prompt_tokens_details.and_then(|details| details.cached_tokens);
        cached.unwrap_or_default().min(self.prompt_tokens)
    }
}
