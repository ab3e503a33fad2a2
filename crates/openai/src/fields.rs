use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A request that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// The field at fault, where it is one field.
    pub param: Option<String>,
    /// What is wrong with it.
    pub message: String,
}

impl InvalidRequest {
    fn of(param: &str, why: &serde_json::Error) -> Self {
        Self { param: Some(param.to_owned()), message: format!("invalid value for `{param}`: {why}") }
    }
}

/// Texts that end an answer: one, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum Stop {
    /// One text.
    One(String),
    /// Several texts.
    Several(Vec<String>),
}

impl Stop {
    /// The texts as a list.
    pub fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Several(texts) => texts,
        }
    }
}

/// What a stream carries besides text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamOptions {
    /// A last chunk with the usage, before `[DONE]`.
    #[serde(default)]
    pub include_usage: bool,
}

/// A request's fields, taken out one by one so that an error can name the one at fault.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, InvalidRequest> {
        let whole = |message: String| InvalidRequest { param: None, message };
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(whole("the request body is not a JSON object".to_owned())),
            Err(why) => Err(whole(format!("the request body is not valid JSON: {why}"))),
        }
    }

    /// The field `name`; `None` where it is absent or `null`.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, InvalidRequest> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|why| InvalidRequest::of(name, &why)),
        }
    }

    /// The field `name`, which must be there.
    pub(crate) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, InvalidRequest> {
        self.take(name)?.ok_or_else(|| InvalidRequest {
            param: Some(name.to_owned()),
            message: format!("missing required field `{name}`"),
        })
    }

    /// What was not taken.
    pub(crate) fn rest(mut self) -> Map<String, Value> {
        self.0.retain(|_, value| !value.is_null());
        self.0
    }
}
