use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::sketch::read_bytes;
use crate::{
    AccountId, CoinKey, Digest, ExchangeId, GrantId, KeyId, Keyed, KeyedHasher, Money, Sketch, TermsRef, Timestamp,
    Twinning, commit_text,
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
    /// Messages in the prompt; inputs of embeddings.
    pub messages: u32,
    /// Tools that the model was offered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tools: u64,
    /// Was a form of the answer demanded, such as JSON of some schema?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub structured: bool,
    /// What its client called it, so that a repeat is known for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<Named>,
}

/// A request that names itself by `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The keyed hash of the name.
    pub name: Keyed,
    /// The keyed hash of all that it says.
    pub request: Keyed,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An endpoint that a model stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// `/v1/chat/completions`
    #[default]
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/responses`
    Responses,
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

impl Client {
    /// The first so many bytes of a client's software are hashed.
    const AGENT_BYTES: usize = 512;

    /// The keyed hashes of a client's address, network and software.
    pub fn describe(hasher: &KeyedHasher, address: IpAddr, agent: &[u8]) -> Self {
        let (address, network) = Self::place(hasher, address);
        Self { address, network, agent: Self::software(hasher, agent) }
    }

    /// The keyed hashes of an address and of its network.
    pub fn place(hasher: &KeyedHasher, address: IpAddr) -> (Keyed, Keyed) {
        let network = match address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into(),
            IpAddr::V6(address) => IpAddr::from(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80))),
        };
        let hash = |label: &str, address: IpAddr| hasher.hash(label, address.to_string().as_bytes());
        (hash("address", address), hash("network", network))
    }

    /// The keyed hash of a client's software, as it names itself.
    pub fn software(hasher: &KeyedHasher, agent: &[u8]) -> Keyed {
        hasher.hash("agent", &agent[..agent.len().min(Self::AGENT_BYTES)])
    }
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
    /// So many of those the model's server had read before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_tokens: u64,
    /// Of the answers that were served.
    pub completion_tokens: u64,
    /// Of the twins that were not served; the customer is never charged for them.
    #[serde(default)]
    pub twin_tokens: u64,
}

impl Usage {
    /// All that the customer has to do with: of the prompt and of the answers that were served.
    pub const fn total(self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
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

impl Outcome {
    /// Such as `completed`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed { .. } => "failed",
        }
    }

    /// The stable code of the failure, where it failed.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Failed { code } => Some(code),
            Self::Completed | Self::Cancelled => None,
        }
    }
}

/// Commitments to the completions that were drawn for one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draws {
    /// Commitment to the prompt: salted like a draw, with index 255.
    pub prompt: Digest,
    /// Commitment to what each draw says, in the order of drawing: to [`Answer::canonical`]. Embeddings have one, to the
    /// bytes of all their numbers: each vector in turn, each number as IEEE 754 binary32 in little-endian order.
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
    /// Every draw, in the order of [`Draws::texts`]. Of embeddings only what was asked is kept.
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
    /// The tools that it calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

impl Answer {
    /// A completion that calls no tool.
    pub fn new(text: impl Into<String>, finish: Finish) -> Self {
        Self { text: text.into(), finish, tool_calls: Vec::new() }
    }

    /// What a commitment is made to: the text alone where no tool is called, or else the JSON of text and calls without
    /// spaces.
    pub fn canonical(&self) -> Cow<'_, str> {
        #[derive(Serialize)]
        struct Said<'a> {
            text: &'a str,
            tool_calls: &'a [ToolCall],
        }
        if self.tool_calls.is_empty() {
            return Cow::Borrowed(&self.text);
        }
        // Strings always have a JSON form.
        let said = serde_json::to_string(&Said { text: &self.text, tool_calls: &self.tool_calls });
        Cow::Owned(said.unwrap_or_default())
    }
}

/// A call of a tool: a function of the application, which a model asks it to run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ToolCall {
    /// By which the tool's answer is told from others.
    pub id: String,
    /// Which function.
    pub name: String,
    /// Its arguments, as JSON if the model made no mistake.
    pub arguments: String,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// It reached its largest length.
    Length,
    /// The model calls tools and waits for what they say.
    ToolCalls,
    /// The server cut something out.
    ContentFilter,
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
        Self::Chat(vec![Message::new(Role::User, text)])
    }

    /// Bytes of all its text.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Chat(messages) => messages.iter().map(Message::bytes).sum(),
            Self::Text(text) => text.len(),
        }
    }

    /// The bytes that a commitment is made to: its JSON without spaces.
    pub fn canonical(&self) -> String {
        // Strings, enums of strings and JSON itself always have a JSON form.
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
    /// What is said: all of its text.
    pub content: String,
    /// Which of several that have the same role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The tools that the model called with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that it answers, where a tool speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// All its parts as they came, texts among them, where some are no text, such as images; otherwise none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let content = content.into();
        Self { role, content, name: None, tool_calls: Vec::new(), tool_call_id: None, parts: Vec::new() }
    }

    /// Bytes of all its text: what it says, its name, and the calls it makes or answers.
    pub fn bytes(&self) -> usize {
        let own = [&self.name, &self.tool_call_id].into_iter().flatten().map(String::len).sum::<usize>();
        let calls = self.tool_calls.iter().map(|call| call.id.len() + call.name.len() + call.arguments.len());
        self.content.len() + own + calls.sum::<usize>()
    }

    /// The types of its parts that are no text, such as `image_url`.
    pub fn other_kinds(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| part["type"].as_str()).filter(|kind| *kind != "text")
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seeded;

    /// Commitments in journals that exist were made to these bytes.
    #[test]
    fn plain_texts_keep_their_bytes() {
        let plain = [Message::new(Role::System, "be brief"), Message::new(Role::User, "hi \"you\"")];
        assert_eq!(
            Prompt::Chat(plain.to_vec()).canonical(),
            r#"{"chat":[{"role":"system","content":"be brief"},{"role":"user","content":"hi \"you\""}]}"#
        );
        assert_eq!(Prompt::Text("x".into()).canonical(), r#"{"text":"x"}"#);
        let answer = Answer::new("ab", Finish::Length);
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"text":"ab","finish":"length"}"#);
        assert_eq!(answer.canonical(), "ab");
        let usage = Usage { prompt_tokens: 1, completion_tokens: 2, ..Usage::default() };
        assert_eq!(
            serde_json::to_string(&usage).unwrap(),
            r#"{"prompt_tokens":1,"completion_tokens":2,"twin_tokens":0}"#
        );
        let old = r#"{"route":"chat","stream":false,"temperature":0.5,"top_p":0.25,"max_tokens":7,"n":3,"messages":2}"#;
        let facts: RequestFacts = serde_json::from_str(old).unwrap();
        assert_eq!(serde_json::to_string(&facts).unwrap(), old);
    }

    #[test]
    fn a_commitment_covers_tool_calls() {
        let call = |arguments: &str| ToolCall { id: "c".into(), name: "f".into(), arguments: arguments.into() };
        let mut answer = Answer { tool_calls: vec![call("{}")], ..Answer::new("t", Finish::ToolCalls) };
        assert_eq!(answer.canonical(), r#"{"text":"t","tool_calls":[{"id":"c","name":"f","arguments":"{}"}]}"#);
        let (coin, prompt) = (CoinKey::from_bytes([7; 32]), Prompt::user("x"));
        let id = ExchangeId::fresh(Timestamp::from_milliseconds(5), &mut Seeded::new(3));
        let commit = |answer: &Answer| Draws::commit(&coin, id, &prompt, std::slice::from_ref(answer));
        let before = commit(&answer);
        answer.tool_calls[0].arguments = "{ }".into();
        assert_ne!(commit(&answer).texts, before.texts);
        let again: Answer = serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
        assert_eq!(again, answer);
    }

    #[test]
    fn what_a_message_says_besides_text_is_kept() {
        let text = r#"{"role":"user","content":"a","parts":[{"text":"a","type":"text"},{"image_url":{"url":"data:"},"type":"image_url"}]}"#;
        let message: Message = serde_json::from_str(text).unwrap();
        assert_eq!((message.other_kinds().collect::<Vec<_>>(), message.bytes()), (vec!["image_url"], 1));
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
    }

    #[test]
    fn a_network_is_24_or_48_bits() {
        let hasher = KeyedHasher::new(&[3; 32]);
        let place = |text: &str| Client::place(&hasher, text.parse().unwrap());
        for (address, network) in [("1.2.3.4", "1.2.3.0"), ("2001:db8:1:2::3", "2001:db8:1::")] {
            assert_eq!(place(address).1, place(network).1, "{address}");
            assert_ne!(place(address).0, place(network).0, "{address}");
        }
        assert_ne!(place("1.2.3.4").1, place("1.2.4.4").1);
        let long = [b'a'; 600];
        assert_eq!(Client::software(&hasher, &long), Client::software(&hasher, &long[..512]));
    }
}
