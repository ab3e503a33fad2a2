//! The trait [`Model`] and what every model shares: chat templates, sampling settings, stop strings.
//!
//! A model may run in this process (`anbiq-lm`) or behind HTTP (`anbiq-upstream`); the verbs do not care which.

mod embed;
mod error;
mod generate;
mod score;
mod server;
mod shape;
pub mod template;

use std::fmt;
use std::sync::Arc;

pub use embed::{EmbedRequest, Embedded, Inputs};
pub use error::{Fault, ModelError};
pub use generate::{
    Alternative, Calls, Event, Generation, Request, Sampling, TokenLogprob, ToolCallDelta, collect, detach, split,
};
pub use score::{ScoreRequest, Scored};
pub use server::Server;
pub use shape::Shape;

/// Something that answers prompts.
#[async_trait::async_trait]
pub trait Model: Send + Sync + fmt::Debug {
    /// The name that requests use.
    fn name(&self) -> &str;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Begins to answer. Events of the `n` completions come interleaved, each marked with its index; the stream ends
    /// with one [`Event::Usage`]. Dropping the [`Generation`] cancels the work.
    async fn generate(&self, request: Request) -> Result<Generation, ModelError>;

    /// Are several completions of one request drawn as one piece of work, which succeeds or fails as a whole and of which no
    /// completion is known to have ended before all have?
    fn together(&self) -> bool {
        false
    }

    /// This model as one of its servers has it, for requests that should meet the same conditions; `None` where there is
    /// only one anyway. Where that server fails, others are asked.
    fn at_one_server(&self) -> Option<Arc<dyn Model>> {
        None
    }

    /// Log-probabilities of given completions after their prompts, in the same order.
    async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError>;

    /// The servers behind it and how they do; none where it runs in this process.
    fn servers(&self) -> Vec<Server> {
        Vec::new()
    }

    /// Makes vectors of texts. Most models cannot; see [`Abilities::embeddings`].
    async fn embed(&self, _request: &EmbedRequest) -> Result<Embedded, ModelError> {
        Err(embed::unable())
    }
}

/// What a model can do beyond answering with text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Abilities {
    /// Several independent completions of one request.
    pub several: bool,
    /// Most alternatives a token whose log-probabilities it gives; `None` where it gives none.
    pub logprobs: Option<u8>,
    /// Log-probabilities of text that it did not write itself.
    pub scoring: bool,
    /// Longest prompt and answer together, in tokens, where it is known.
    pub context: Option<u32>,
    /// Tools: it may be offered some, call them and be told what they say.
    pub tools: bool,
    /// Answers of a form that is demanded, such as JSON of some schema.
    pub formats: bool,
    /// Penalties, biases and further cuts of the probabilities of tokens; see [`Shape`].
    pub shapes: bool,
    /// Whatever else the OpenAI dialect knows, content other than text among it.
    pub dialect: bool,
    /// Vectors of texts.
    pub embeddings: bool,
}

impl Abilities {
    /// What both this and `other` can do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            several: self.several && other.several,
            logprobs: self.logprobs.zip(other.logprobs).map(|(one, other)| one.min(other)),
            scoring: self.scoring && other.scoring,
            context: self.context.into_iter().chain(other.context).min(),
            tools: self.tools && other.tools,
            formats: self.formats && other.formats,
            shapes: self.shapes && other.shapes,
            dialect: self.dialect && other.dialect,
            embeddings: self.embeddings && other.embeddings,
        }
    }
}
