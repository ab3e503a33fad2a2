//! The endpoint `/v1/embeddings`.
//!
//! What is asked goes the way of every request; its price is that of its prompt's tokens. The journal keeps the texts
//! where the plan says so, and always a commitment to the bytes of all vectors, but never the vectors: they say no more
//! than the texts and would be many times as long.

use anbiq_domain::{Prompt, Route};
use anbiq_model::{EmbedRequest, Embedded, Inputs, Sampling};
use anbiq_openai::{
    Embedding, EmbeddingInput, EmbeddingRequest, EmbeddingResponse, EmbeddingUsage, EncodingFormat, Usage, Vector,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::answer::Form;
use crate::rejection::Rejection;
use crate::request::Asked;

/// Most texts of one request, as OpenAI has it.
const TEXTS: usize = 2048;

/// Most numbers a vector.
const DIMENSIONS: u32 = 1 << 16;

/// Reads a request.
pub(crate) fn asked(request: EmbeddingRequest) -> Result<Asked, Rejection> {
    let EmbeddingRequest { model, input, encoding_format, dimensions, other } = request;
    if input.is_empty() {
        return Err(Rejection::value("input", "`input` is empty, or a text of it is"));
    }
    if input.len() > TEXTS {
        return Err(Rejection::value("input", format!("`input` has more than {TEXTS} texts")));
    }
    if dimensions.is_some_and(|dimensions| !(1..=DIMENSIONS).contains(&dimensions)) {
        return Err(Rejection::value("dimensions", format!("`dimensions` is between 1 and {DIMENSIONS}")));
    }
    if other.get("stream").is_some_and(|stream| *stream == true) {
        return Err(Rejection::unsupported("stream", "embeddings are not streamed"));
    }
    let prompt = Prompt::Text(as_text(&input));
    let inputs = match input {
        EmbeddingInput::Text(text) => Inputs::Texts(vec![text]),
        EmbeddingInput::Texts(texts) => Inputs::Texts(texts),
        EmbeddingInput::Tokens(tokens) => Inputs::Tokens(vec![tokens]),
        EmbeddingInput::TokenLists(lists) => Inputs::Tokens(lists),
    };
    Ok(Asked {
        route: Route::Embeddings,
        form: Form::Embedding(encoding_format.unwrap_or_default()),
        model,
        prompt,
        // There is nothing to be drawn, so nothing is drawn twice.
        n: 0,
        max_tokens: Some(0),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: None },
        stop: Vec::new(),
        logprobs: None,
        stream: false,
        include_usage: true,
        dialect: Map::new(),
        embedding: Some(EmbedRequest { inputs, dimensions }),
    })
}

/// One text as it is; several, and tokens, as JSON without spaces.
fn as_text(input: &EmbeddingInput) -> String {
    match input {
        EmbeddingInput::Text(text) => text.clone(),
        EmbeddingInput::Texts(texts) => match texts.as_slice() {
            [text] => text.clone(),
            _ => Value::from(texts.clone()).to_string(),
        },
        EmbeddingInput::Tokens(tokens) => Value::from(tokens.clone()).to_string(),
        EmbeddingInput::TokenLists(lists) => Value::from(lists.clone()).to_string(),
    }
}

/// The whole answer.
pub(crate) fn response(model: &str, encoding: EncodingFormat, embedded: &Embedded, usage: Usage) -> EmbeddingResponse {
    let encode = |vector: &Vec<f32>| match encoding {
        EncodingFormat::Float => Vector::Float(vector.clone()),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    };
    let object = "embedding".to_owned();
    let one = |(index, vector)| Embedding { object: object.clone(), index, embedding: encode(vector) };
    EmbeddingResponse {
        object: "list".to_owned(),
        data: (0..).zip(&embedded.vectors).map(one).collect(),
        model: model.to_owned(),
        usage: EmbeddingUsage { prompt_tokens: usage.prompt_tokens, total_tokens: usage.total_tokens },
    }
}
