use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::InvalidRequest;
use crate::fields::Fields;

/// The body of `POST /v1/embeddings`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbeddingRequest {
    /// Which model.
    pub model: String,
    /// What is to become vectors.
    pub input: EmbeddingInput,
    /// In which form the vectors are given; `float` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<EncodingFormat>,
    /// Numbers a vector, where the model can choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
    /// Every other field that is not `null`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl EmbeddingRequest {
    /// Reads a request body.
    ///
    /// # Errors
    /// The body is no JSON object, a required field is missing, or a known field has the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidRequest> {
        let mut fields = Fields::parse(body)?;
        Ok(Self {
            model: fields.need("model")?,
            input: fields.need("input")?,
            encoding_format: fields.take("encoding_format")?,
            dimensions: fields.take("dimensions")?,
            other: fields.rest(),
        })
    }
}

/// What is to become vectors: one text or several, as text or as the numbers of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string, a list of strings, a list of token numbers or a list of such lists")]
pub enum EmbeddingInput {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// The tokens of a text.
    Tokens(Vec<u32>),
    /// The tokens of several texts.
    TokenLists(Vec<Vec<u32>>),
}

impl EmbeddingInput {
    /// How many vectors it becomes.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Tokens(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::TokenLists(lists) => lists.len(),
        }
    }

    /// Is anything missing: is there no text, or one without any content?
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(tokens) => tokens.is_empty(),
            Self::Texts(texts) => texts.is_empty() || texts.iter().any(String::is_empty),
            Self::TokenLists(lists) => lists.is_empty() || lists.iter().any(Vec::is_empty),
        }
    }
}

/// The form of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// The base64 of the numbers, each as IEEE 754 binary32 in little-endian order.
    Base64,
}

/// The answer to [`EmbeddingRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingResponse {
    /// `list`
    #[serde(default)]
    pub object: String,
    /// The vectors, each with its place.
    pub data: Vec<Embedding>,
    /// Which model made them.
    #[serde(default)]
    pub model: String,
    /// Tokens of the texts.
    #[serde(default)]
    pub usage: EmbeddingUsage,
}

/// One vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// `embedding`
    #[serde(default)]
    pub object: String,
    /// Its place among the texts.
    pub index: u32,
    /// The vector.
    pub embedding: Vector,
}

/// A vector in either form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Vector {
    /// A list of numbers.
    Float(Vec<f32>),
    /// See [`EncodingFormat::Base64`].
    Base64(String),
}

/// Tokens of texts that became vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EmbeddingUsage {
    /// Of all texts.
    pub prompt_tokens: u64,
    /// The same.
    #[serde(default)]
    pub total_tokens: u64,
}
