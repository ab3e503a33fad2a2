use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ImportError;

/// What a row may say. The names are those of a column mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// When the request arrived: RFC 3339, or seconds, milliseconds, microseconds or nanoseconds since 1970.
    At,
    /// Whose request it was.
    Account,
    /// Which model was asked.
    Model,
    /// What kind of call it was, such as `chat` or `embeddings`.
    Operation,
    /// HTTP status, or a word such as `success`.
    Status,
    /// Tokens of the prompt.
    PromptTokens,
    /// So many of those the model's server had read before.
    CachedTokens,
    /// Tokens of the answer.
    CompletionTokens,
    /// What it cost, in dollars.
    Cost,
    /// The client's address.
    Address,
    /// The client's software, as in the header `user-agent`.
    Agent,
    /// How the account pays.
    Payment,
    /// When the account was opened.
    Opened,
    /// The prompt: a text, or messages.
    Prompt,
    /// The system's message, where it stands apart.
    System,
    /// The whole request as it was sent, as JSON.
    Request,
    /// Sampling temperature.
    Temperature,
    /// Nucleus sampling.
    TopP,
    /// Largest answer asked for, in tokens.
    MaxTokens,
    /// Answers asked for.
    N,
    /// Log-probabilities asked for: alternatives a token.
    Logprobs,
    /// Was the answer streamed?
    Stream,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::At,
        Self::Account,
        Self::Model,
        Self::Operation,
        Self::Status,
        Self::PromptTokens,
        Self::CachedTokens,
        Self::CompletionTokens,
        Self::Cost,
        Self::Address,
        Self::Agent,
        Self::Payment,
        Self::Opened,
        Self::Prompt,
        Self::System,
        Self::Request,
        Self::Temperature,
        Self::TopP,
        Self::MaxTokens,
        Self::N,
        Self::Logprobs,
        Self::Stream,
    ];

    /// Its name in a mapping.
    pub const fn name(self) -> &'static str {
        match self {
            Self::At => "at",
            Self::Account => "account",
            Self::Model => "model",
            Self::Operation => "operation",
            Self::Status => "status",
            Self::PromptTokens => "prompt_tokens",
            Self::CachedTokens => "cached_tokens",
            Self::CompletionTokens => "completion_tokens",
            Self::Cost => "cost",
            Self::Address => "address",
            Self::Agent => "agent",
            Self::Payment => "payment",
            Self::Opened => "opened",
            Self::Prompt => "prompt",
            Self::System => "system",
            Self::Request => "request",
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::MaxTokens => "max_tokens",
            Self::N => "n",
            Self::Logprobs => "logprobs",
            Self::Stream => "stream",
        }
    }

    /// The field of that name.
    pub(crate) fn named(name: &str) -> Result<Self, ImportError> {
        Self::ALL.into_iter().find(|field| field.name() == name).ok_or_else(|| ImportError::FieldUnknown {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Where each field stands in the rows of a log: the first of its places that says something is taken.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    places: Vec<Vec<String>>,
    /// What is taken where no place says something.
    values: Vec<Option<Value>>,
}

impl Layout {
    /// A layout from a table. A field that the table does not name is never there.
    pub(crate) fn new(table: &[(Field, &[&str])]) -> Self {
        let mut layout = Self { places: vec![Vec::new(); Field::ALL.len()], values: vec![None; Field::ALL.len()] };
        for (field, places) in table {
            layout.places[*field as usize] = places.iter().map(|place| (*place).to_owned()).collect();
        }
        layout
    }

    /// Takes `field` from `places` alone.
    pub(crate) fn put(&mut self, field: Field, places: Vec<String>) {
        self.places[field as usize] = places;
    }

    /// Takes `value` for `field` where no place says something.
    pub(crate) fn put_value(&mut self, field: Field, value: Value) {
        self.values[field as usize] = Some(value);
    }

    /// The places of `field`.
    pub(crate) fn places(&self, field: Field) -> &[String] {
        &self.places[field as usize]
    }

    /// What `row` says of `field`, and at which of its places.
    pub(crate) fn find<'a>(&'a self, field: Field, row: &'a Map<String, Value>) -> Option<(Cow<'a, Value>, usize)> {
        let places = self.places[field as usize].iter().enumerate();
        let found = places.filter_map(|(place, path)| Some((at(row, path)?, place))).next();
        found.or_else(|| Some((Cow::Borrowed(self.values[field as usize].as_ref()?), usize::MAX)))
    }
}

/// What stands at `path`: a key as it is, or keys of nested objects with dots between them. What is empty is not there.
pub(crate) fn at<'a>(row: &'a Map<String, Value>, path: &str) -> Option<Cow<'a, Value>> {
    if let Some(value) = row.get(path) {
        return says_something(value).then_some(Cow::Borrowed(value));
    }
    for (dot, _) in path.match_indices('.') {
        match row.get(&path[..dot]) {
            Some(Value::Object(inner)) => {
                if let Some(found) = at(inner, &path[dot + 1..]) {
                    return Some(found);
                }
            }
            // In tables, objects often stand as their JSON.
            Some(Value::String(text)) if text.starts_with('{') => {
                if let Ok(Value::Object(inner)) = serde_json::from_str(text)
                    && let Some(found) = at(&inner, &path[dot + 1..])
                {
                    return Some(Cow::Owned(found.into_owned()));
                }
            }
            _ => {}
        }
    }
    None
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The text of a string or a number.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
