use serde::{Deserialize, Serialize};

use crate::{
    AccountId, CoinKey, Digest, ExchangeId, GrantId, KeyId, Keyed, Money, Sketch, TermsRef, Timestamp, Twinning,
    commit_text,
};

/// One request and its answer, with what it cost, under which terms: the journal's main record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// Which exchange.
    pub id: ExchangeId,
    /// When the request arrived.
    pub at: Timestamp,
    /// From its arrival to the moment its answer was complete, in milliseconds of real time.
    pub duration_ms: u64,
    /// Who asked.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// Which model answered.
    pub model: String,
    /// The terms the account had accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<TermsRef>,
    /// The grant it was made under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// What was asked for, without the text.
    pub request: RequestFacts,
    /// Who asked, as the network saw it.
    pub client: Client,
    /// What remains of the prompt.
    pub sketch: Sketch,
    /// Tokens.
    pub usage: Usage,
    /// What the account was charged.
    pub cost: Money,
    /// How it ended.
    pub outcome: Outcome,
    /// Commitments to every completion that was drawn, served or not.
    pub draws: Draws,
    /// The texts, where the account's policy keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<Texts>,
}

/// What was asked for, without the text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RequestFacts {
    /// Which endpoint.
    pub route: Route,
    /// Was the answer streamed?
    pub stream: bool,
    /// Sampling temperature.
    pub temperature: f32,
    /// Nucleus sampling.
    pub top_p: f32,
    /// Largest answer asked for, in tokens.
    pub max_tokens: u32,
    /// Answers asked for.
    pub n: u32,
    /// Log-probabilities asked for: alternatives a token; absent where none were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u8>,
    /// Messages in the prompt.
    pub messages: u32,
}

/// An endpoint that answers with text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// `/v1/chat/completions`
    #[default]
    Chat,
    /// `/v1/completions`
    Completions,
}

/// A client as the network saw it, as keyed hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its address.
    pub address: Keyed,
    /// Its network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
    pub network: Keyed,
    /// Its software, from the header `user-agent`.
    pub agent: Keyed,
}

/// Tokens of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of the answers that were served.
    pub completion_tokens: u64,
    /// Of the twins that were not served; the customer is never charged for them.
    #[serde(default)]
    pub twin_tokens: u64,
}

/// How an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered in full.
    Completed,
    /// The client left before the end.
    Cancelled,
    /// The model failed; the code says how.
    Failed {
        /// Stable code of the error.
        code: String,
    },
}

/// Commitments to the completions that were drawn for one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draws {
    /// Commitment to the prompt: salted like a draw, with index 255.
    pub prompt: Digest,
    /// Commitment to each draw's text, in the order of drawing.
    pub texts: Vec<Digest>,
    /// Those of them that had not ended in good order when the answer did. One that ends later stands in an entry of its own,
    /// [`Twins`](crate::Twins); one that failed nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<u8>,
    /// The build of the model that made each draw, where its server says which; empty where it says it of none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<String>,
    /// How the served one was chosen among them; absent where all were served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twinning: Option<Twinning>,
}

impl Draws {
    /// The salt index that commits to the prompt rather than to a draw.
    pub const PROMPT_INDEX: u8 = 255;

    /// Commits to `prompt` and to every one of `answers`.
    ///
    /// At most 255 answers are committed to; no gateway draws as many.
    pub fn commit(coin: &CoinKey, exchange: ExchangeId, prompt: &Prompt, answers: &[Answer]) -> Self {
        let texts = (0..Self::PROMPT_INDEX)
            .zip(answers)
            .map(|(index, answer)| Self::commit_answer(coin, exchange, index, answer))
            .collect();
        let prompt = commit_text(&coin.salt(exchange, Self::PROMPT_INDEX), &prompt.canonical());
        Self { prompt, texts, open: Vec::new(), fingerprints: Vec::new(), twinning: None }
    }
}

/// The texts of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    /// What was asked.
    pub prompt: Prompt,
    /// Every draw, in the order of [`Draws::texts`].
    pub answers: Vec<Answer>,
}

/// One completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// It reached its largest length.
    Length,
}

/// What a model is asked: a conversation, or a text to go on with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// A conversation, put in form by the model's own chat template.
    Chat(Vec<Message>),
    /// A text as it is.
    Text(String),
}

impl Prompt {
    /// A conversation of one message by the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self::Chat(vec![Message { role: Role::User, content: text.into() }])
    }

    /// The bytes that a commitment is made to: its JSON without spaces.
    pub fn canonical(&self) -> String {
        // Strings and enums of strings always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The last words of the user, or the text itself: what sketches are made of.
    pub fn last_text(&self) -> &str {
        match self {
            Self::Chat(messages) => messages.last().map_or("", |message| &message.content),
            Self::Text(text) => text,
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who speaks in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Who wrote the application.
    #[serde(alias = "developer")]
    System,
    /// Who uses it.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called.
    Tool,
}

impl Role {
    /// The name in chat templates and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}
