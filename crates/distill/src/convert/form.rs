//! The forms: which fields they have, how a row is read from them and written in them.

use std::fmt;
use std::str::FromStr;

use anbiq_domain::{Answer, Finish, Message, Prompt, Role};
use anbiq_lm::score::Likeliest;
use anbiq_openai::ChatMessage;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::table::Shape;
use crate::capture::Row;
use crate::data::Asked;

/// A form of data to train on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// What `anbiq distill capture` writes, with log-probabilities and usage.
    #[default]
    Capture,
    /// `{"messages": [{"role", "content"}]}`: OpenAI's fine-tuning, TRL's language modelling, Axolotl's `chat_template`.
    Messages,
    /// `{"prompt": [messages], "completion": [messages]}`: TRL's conversational prompt and completion; texts are read too.
    PromptCompletion,
    /// `{"conversations": [{"from": "human", "value"}]}`.
    Sharegpt,
    /// `{"instruction", "input", "output"}`, and with a system's word `system`.
    Alpaca,
    /// `input_ids`, `compressed_logprobs`, `bytepacked_indices`: what DistillKit captures. It is read and not written.
    Distillkit,
    /// `messages` with `logprobs`, by place a list of `{"token": "token_id:7", "logprob"}`: Axolotl's plug-in for distillation.
    Axolotl,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Capture,
        Self::Messages,
        Self::PromptCompletion,
        Self::Sharegpt,
        Self::Alpaca,
        Self::Axolotl,
        Self::Distillkit,
    ];

    /// Its name on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt-completion",
            Self::Sharegpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::Axolotl => "axolotl",
            Self::Distillkit => "distillkit",
        }
    }

    /// The form that a row has, by its fields.
    pub(super) fn of(row: &Value) -> Option<Self> {
        let has = |field: &str| row.get(field).is_some_and(|value| !value.is_null());
        if has("answers") && has("prompt") {
            Some(Self::Capture)
        } else if has("compressed_logprobs") || has("packed_indices") {
            Some(Self::Distillkit)
        } else if has("messages") {
            Some(Self::Messages)
        } else if has("conversations") {
            Some(Self::Sharegpt)
        } else if has("prompt") && has("completion") {
            Some(Self::PromptCompletion)
        } else if has("instruction") && has("output") {
            Some(Self::Alpaca)
        } else {
            None
        }
    }

    /// The rows of a capture in a row of this form; none where it ends with no answer.
    pub(super) fn rows(self, value: Value, every_turn: bool) -> Result<Vec<Row>, String> {
        let messages = match self {
            Self::Capture => return serde_json::from_value(value).map(|row| vec![row]).map_err(|why| why.to_string()),
            Self::Messages | Self::Axolotl => messages(&value["messages"])?,
            Self::Sharegpt => turns(&value["conversations"])?,
            Self::Alpaca => instruction(&value)?,
            Self::Distillkit => return Err("its tokens are of no tokenizer that is known".to_owned()),
            Self::PromptCompletion => {
                if let (Some(prompt), Some(completion)) = (value["prompt"].as_str(), value["completion"].as_str()) {
                    return Ok(vec![row(Prompt::Text(prompt.to_owned()), Answer::new(completion, Finish::Stop))]);
                }
                let (mut all, completion) = (messages(&value["prompt"])?, messages(&value["completion"])?);
                all.extend(completion);
                all
            }
        };
        Ok(answers(&messages, every_turn))
    }

    /// A row of a capture in this form, one value an answer; how many answers it cannot hold.
    pub(super) fn values(self, row: Row) -> (Vec<Value>, u64) {
        if self == Self::Capture {
            return serde_json::to_value(row).map_or((Vec::new(), 1), |value| (vec![value], 0));
        }
        let (prompt, mut values, mut unfit) = (row.prompt(), Vec::new(), 0);
        for answer in row.answers {
            match self.value(&prompt, &answer) {
                Some(value) => values.push(value),
                None => unfit += 1,
            }
        }
        (values, unfit)
    }

    fn value(self, prompt: &Prompt, answer: &Answer) -> Option<Value> {
        let said = match prompt {
            Prompt::Chat(messages) => messages.clone(),
            Prompt::Text(text) if self == Self::PromptCompletion => {
                return Some(json!({ "prompt": text, "completion": answer.text }));
            }
            // A text to go on with is no conversation.
            Prompt::Text(_) => return None,
        };
        let wire = |messages: Vec<Message>| {
            messages
                .into_iter()
                .map(|message| serde_json::to_value(ChatMessage::from(message)).ok())
                .collect::<Option<Value>>()
        };
        match self {
            Self::Capture | Self::Axolotl | Self::Distillkit => None,
            Self::Messages => Some(json!({ "messages": wire([said, vec![reply(answer)]].concat())? })),
            Self::PromptCompletion => Some(json!({ "prompt": wire(said)?, "completion": wire(vec![reply(answer)])? })),
            Self::Sharegpt => {
                let turns = [said, vec![reply(answer)]].concat();
                let turns = turns.iter().map(|said| json!({ "from": from_role(said.role), "value": said.content }));
                let plain = answer.tool_calls.is_empty();
                plain.then(|| json!({ "conversations": turns.collect::<Value>() }))
            }
            Self::Alpaca => {
                let (system, question) = match &said[..] {
                    [question] => (None, question),
                    [system, question] if system.role == Role::System => (Some(system), question),
                    _ => return None,
                };
                if question.role != Role::User || !answer.tool_calls.is_empty() {
                    return None;
                }
                let mut value = json!({ "instruction": question.content, "input": "", "output": answer.text });
                value["system"] = system.map_or("", |system| system.content.as_str()).into();
                Some(value)
            }
        }
    }

    /// The columns of the form as a table; a capture has none.
    pub(super) fn shape(self) -> Option<Shape> {
        let texts = |names: &[&'static str]| names.iter().map(|name| (*name, Shape::Text)).collect::<Vec<_>>();
        let list = |fields| Shape::List(Box::new(Shape::Fields(fields)));
        let calls = || {
            let function = Shape::Fields(texts(&["name", "arguments"]));
            list(vec![("id", Shape::Text), ("type", Shape::Text), ("function", function)])
        };
        let messages = || {
            let mut fields = texts(&["role", "content", "name", "tool_call_id"]);
            fields.push(("tool_calls", calls()));
            list(fields)
        };
        let fields = match self {
            Self::Capture | Self::Distillkit => return None,
            Self::Messages => vec![("messages", messages())],
            Self::PromptCompletion => vec![("prompt", messages()), ("completion", messages())],
            Self::Sharegpt => vec![("conversations", list(texts(&["from", "value"])))],
            Self::Alpaca => texts(&["instruction", "input", "output", "system"]),
            Self::Axolotl => {
                let token = list(vec![("token", Shape::Text), ("logprob", Shape::Number)]);
                vec![("messages", messages()), ("logprobs", Shape::List(Box::new(token)))]
            }
        };
        Some(Shape::Fields(fields))
    }
}

/// A row for Axolotl's plug-in; a place of which the teacher told nothing has an empty list.
pub(super) fn axolotl(row: &Row, answer: &Answer, places: &[Likeliest]) -> Value {
    let mut value = Form::Messages.value(&row.prompt(), answer).unwrap_or_default();
    let token = |(id, logprob): &(u32, f32)| json!({ "token": format!("token_id:{id}"), "logprob": logprob });
    value["logprobs"] = places.iter().map(|place| place.iter().map(token).collect::<Value>()).collect();
    value
}

fn row(prompt: Prompt, answer: Answer) -> Row {
    Row {
        id: None,
        exchange: None,
        prompt: Asked::Prompt(prompt),
        answers: vec![answer],
        logprobs: Vec::new(),
        told: None,
        usage: anbiq_domain::Usage::default(),
        batch: false,
    }
}

/// The last answer with what was said before it, or every one.
fn answers(messages: &[Message], every_turn: bool) -> Vec<Row> {
    let is_answer = |place: usize| place > 0 && messages[place].role == Role::Assistant;
    let last = messages.len().saturating_sub(1);
    let places = (0..messages.len()).filter(|&place| is_answer(place) && (every_turn || place == last));
    let answer = |place: usize| Answer {
        tool_calls: messages[place].tool_calls.clone(),
        ..Answer::new(messages[place].content.clone(), Finish::Stop)
    };
    places.map(|place| row(Prompt::Chat(messages[..place].to_vec()), answer(place))).collect()
}

fn reply(answer: &Answer) -> Message {
    Message { tool_calls: answer.tool_calls.clone(), ..Message::new(Role::Assistant, answer.text.clone()) }
}

fn messages(value: &Value) -> Result<Vec<Message>, String> {
    let all = value.as_array().ok_or("it has no list of messages")?;
    let message = |one: &Value| {
        // Tables give every message all of the columns, most of them empty.
        let mut one = one.clone();
        if let Some(fields) = one.as_object_mut() {
            fields.retain(|_, field| !field.is_null());
        }
        serde_json::from_value::<ChatMessage>(one).map(ChatMessage::into_message).map_err(|why| why.to_string())
    };
    all.iter().map(message).collect()
}

fn turns(value: &Value) -> Result<Vec<Message>, String> {
    let all = value.as_array().ok_or("it has no list of turns")?;
    let turn = |one: &Value| {
        let role = one["from"].as_str().and_then(to_role).ok_or_else(|| format!("a turn is from {}", one["from"]))?;
        let text = one["value"].as_str().ok_or("a turn has no text")?;
        Ok(Message::new(role, text))
    };
    all.iter().map(turn).collect()
}

fn to_role(from: &str) -> Option<Role> {
    match from {
        "human" | "user" => Some(Role::User),
        "gpt" | "assistant" | "chatgpt" | "bing" | "bard" => Some(Role::Assistant),
        "system" => Some(Role::System),
        "tool" | "observation" => Some(Role::Tool),
        _ => None,
    }
}

const fn from_role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "human",
        Role::Assistant => "gpt",
        Role::Tool => "tool",
    }
}

fn instruction(value: &Value) -> Result<Vec<Message>, String> {
    let text = |field: &str| value[field].as_str().filter(|text| !text.is_empty());
    let instruction = text("instruction").ok_or("it has no instruction")?;
    let output = value["output"].as_str().ok_or("it has no output")?;
    let question = text("input").map_or(instruction.to_owned(), |input| format!("{instruction}\n\n{input}"));
    let system = text("system").map(|system| Message::new(Role::System, system));
    let rest = [Message::new(Role::User, question), Message::new(Role::Assistant, output)];
    Ok(system.into_iter().chain(rest).collect())
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|form| form.word() == word).ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.into_iter().map(Self::word).collect();
            format!("`{word}` is not a form of data; there are {}", words.join(", "))
        })
    }
}
