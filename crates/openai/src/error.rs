use serde::{Deserialize, Deserializer, Serialize};

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ApiError,
}

/// An error in OpenAI's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What happened, for a person.
    pub message: String,
    /// Its kind, such as `invalid_request_error`.
    #[serde(rename = "type", default, deserialize_with = "text_or_null")]
    pub kind: String,
    /// The field at fault.
    #[serde(default)]
    pub param: Option<String>,
    /// Its stable code. Some servers write a number here; it is read as text.
    #[serde(default, deserialize_with = "text_or_number")]
    pub code: Option<String>,
}

impl ErrorEnvelope {
    /// Reads the error in `body`: in the envelope, or bare as older servers write it.
    pub fn parse(body: &[u8]) -> Option<ApiError> {
        let enveloped = serde_json::from_slice::<Self>(body).map(|envelope| envelope.error);
        enveloped.or_else(|_| serde_json::from_slice(body)).ok()
    }
}

/// Azure writes null where it has no kind.
fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        Text(String),
        Number(i64),
    }
    Ok(Option::<Code>::deserialize(deserializer)?.map(|code| match code {
        Code::Text(text) => text,
        Code::Number(number) => number.to_string(),
    }))
}
