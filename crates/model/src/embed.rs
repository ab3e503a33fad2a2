use crate::{Fault, ModelError};

/// Texts that are to become vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedRequest {
    /// The texts.
    pub inputs: Inputs,
    /// Numbers a vector, where the model can choose; as many as it has where absent.
    pub dimensions: Option<u32>,
}

/// Texts, as text or as the numbers of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// As text.
    Texts(Vec<String>),
    /// As the model's own tokens.
    Tokens(Vec<Vec<u32>>),
}

impl Inputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(lists) => lists.len(),
        }
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Vectors, in the order of the texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One of each text; all of the same length.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub prompt_tokens: u64,
}

impl Embedded {
    /// The bytes of all numbers: each vector in turn, each number as IEEE 754 binary32 in little-endian order.
    pub fn bytes(&self) -> Vec<u8> {
        self.vectors.iter().flatten().flat_map(|number| number.to_le_bytes()).collect()
    }
}

/// The error of a model that makes no vectors.
pub(crate) fn unable() -> ModelError {
    ModelError::new(Fault::Request, "embedding_unsupported", "this model gives no embeddings")
}
