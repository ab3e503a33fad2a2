use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sketch::read_bytes;
use crate::{
    AccountId, CoinKey, Digest, ExchangeId, GrantId, KeyId, Keyed, Money, Sketch, TermsRef, Timestamp, commit_text,
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
    /// The texts, where the account's policy keeps them encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedTexts>,
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

/// A client as the network saw it, as keyed hashes; written as the base64 of their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: Keyed,
    /// Its network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
    pub network: Keyed,
    /// Its software, from the header `user-agent`.
    pub agent: Keyed,
}

impl Serialize for Client {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = [self.address, self.network, self.agent].map(|part| part.0.to_be_bytes()).concat();
        serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Client {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As it is written, and as the first journals write it.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bytes(String),
            Fields { address: Keyed, network: Keyed, agent: Keyed },
        }
        let (address, network, agent) = match Either::deserialize(deserializer)? {
            Either::Fields { address, network, agent } => (address, network, agent),
            Either::Bytes(text) => {
                let bytes: [u8; 24] = read_bytes(&text)?;
                let part = |from: usize| {
                    Keyed(bytes[from..from + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
                };
                (part(0), part(8), part(16))
            }
        };
        Ok(Self { address, network, agent })
    }
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
            .map(|(index, answer)| commit_text(&coin.salt(exchange, index), &answer.text))
            .collect();
        let prompt = commit_text(&coin.salt(exchange, Self::PROMPT_INDEX), &prompt.canonical());
        Self { prompt, texts, twinning: None }
    }
}

/// How one of several draws was chosen to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twinning {
    /// The epoch of the coin key.
    pub epoch: u32,
    /// The index of the draw that was served: [`CoinKey::choose`] of the exchange and the number of draws.
    pub served: u8,
}

/// The texts of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    /// What was asked.
    pub prompt: Prompt,
    /// Every draw, in the order of [`Draws::texts`].
    pub answers: Vec<Answer>,
}

/// The texts of an exchange under a key of its account. How they are encrypted says `anbiq_journal::TextKeys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedTexts {
    /// Which key, as a hash of it: an account whose key was destroyed may get another.
    pub key: Keyed,
    /// Nonce, ciphertext and authentication tag of the JSON of [`Texts`].
    #[serde(serialize_with = "write_base64", deserialize_with = "read_base64")]
    pub bytes: Vec<u8>,
}

fn write_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn read_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
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
