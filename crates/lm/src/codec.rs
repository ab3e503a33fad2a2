use std::path::Path;

use anbiq_domain::{Answer, Finish, Prompt};
use anbiq_model::template::{ChatTemplate, PLAIN, TemplateError};
use anbiq_model::{Fault, ModelError};
use serde_json::{Value, json};

use crate::{LmError, Tokenizer, gguf};

/// The special tokens of the models that this project trains itself: the end of a turn, then one for each role.
pub const SPECIALS: [&str; 5] = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"];

/// Prompts and answers to tokens: everything about a model that is not its network.
#[derive(Debug)]
pub struct Codec {
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// Conversations to text; base models have none.
    pub template: Option<ChatTemplate>,
    /// The tokens that end an answer; the first is the one that answers are trained and scored with.
    pub eos: Vec<u32>,
    /// The token that begins a text, where the model has one.
    pub bos: Option<u32>,
    /// Longest prompt and answer together, in tokens.
    pub context: usize,
}

impl Codec {
    /// The codec of a model that this project trains: messages are written as `<|role|>content<|end|>`.
    ///
    /// # Errors
    ///
    /// `tokenizer` was not trained with [`SPECIALS`].
    pub fn plain(tokenizer: Tokenizer, context: usize) -> Result<Self, LmError> {
        let setting = |problem: String| LmError::Setting { name: "tokenizer", problem };
        if let Some(missing) = SPECIALS.into_iter().find(|special| tokenizer.id(special).is_none()) {
            return Err(setting(format!("it has no token `{missing}`")));
        }
        let template = ChatTemplate::new(PLAIN, "", SPECIALS[0]).map_err(|error| setting(error.to_string()))?;
        let eos = tokenizer.id(SPECIALS[0]).into_iter().collect();
        Ok(Self { tokenizer, template: Some(template), eos, bos: None, context })
    }

    /// Reads the tokenizer, the chat template and the special tokens of a Hugging Face folder, or of a file `*.gguf`.
    ///
    /// # Errors
    ///
    /// A file is missing or is not what it should be, or nothing says which token ends an answer.
    pub fn load(folder: &Path) -> Result<Self, LmError> {
        if gguf::is_gguf(folder) {
            return gguf::read_codec(folder);
        }
        let tokenizer = Tokenizer::load(folder)?;
        let template = ChatTemplate::load(folder).map_err(|error| template_error(folder, error))?;
        let config = read_json(&folder.join("config.json"))?.unwrap_or_default();
        let generation = read_json(&folder.join("generation_config.json"))?.unwrap_or_default();
        let words = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();

        // The tokenizer's own end comes first: in chat models it ends a turn, while the configuration may name the
        // end of a document before it.
        let mut eos = Vec::new();
        let named = tokenizer.id(&token_name(&words["eos_token"])).into_iter();
        for token in named.chain(token_ids(&generation["eos_token_id"])).chain(token_ids(&config["eos_token_id"])) {
            if !eos.contains(&token) {
                eos.push(token);
            }
        }
        if eos.is_empty() {
            let hint = "set `eos_token` in tokenizer_config.json or `eos_token_id` in generation_config.json";
            return Err(LmError::malformed(folder, "no token is named that ends an answer", hint));
        }
        let bos = tokenizer.id(&token_name(&words["bos_token"]));
        let bos = bos.or_else(|| token_ids(&config["bos_token_id"]).first().copied());
        let context = config["max_position_embeddings"].as_u64().unwrap_or(2048);
        Ok(Self { tokenizer, template, eos, bos, context: usize::try_from(context).unwrap_or(usize::MAX) })
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` so that transformers, vLLM and
    /// llama.cpp load them.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), LmError> {
        self.tokenizer.save(folder)?;
        let name = |token: Option<u32>| match token {
            Some(token) => json!(String::from_utf8_lossy(self.tokenizer.bytes(token))),
            None => Value::Null,
        };
        let end = self.eos.first().copied();
        let words = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.context,
            "bos_token": name(self.bos),
            "eos_token": name(end),
            "pad_token": name(end),
            "unk_token": null,
            "clean_up_tokenization_spaces": false,
            "chat_template": self.template.as_ref().map(ChatTemplate::source),
        });
        let generation = json!({
            "bos_token_id": self.bos,
            "eos_token_id": if let [only] = self.eos[..] { json!(only) } else { json!(self.eos) },
            "pad_token_id": end,
            "do_sample": true,
        });
        for (file, value) in [("tokenizer_config.json", words), ("generation_config.json", generation)] {
            let path = folder.join(file);
            let text = format!("{value:#}\n");
            std::fs::write(&path, text).map_err(|source| LmError::write(&path, source))?;
        }
        Ok(())
    }

    /// The tokens that a model goes on from. A text is taken as it is, after the token that begins one where the
    /// model has such a token.
    ///
    /// # Errors
    ///
    /// The chat template refuses the conversation, there is none, or nothing is left to go on from.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, ModelError> {
        let mut tokens = match prompt {
            Prompt::Text(text) => self.tokenizer.encode(text, true)?,
            Prompt::Chat(messages) => {
                let missing =
                    || request("no_chat_template", "this model has no chat template: it only completes texts");
                let template = self.template.as_ref().ok_or_else(missing)?;
                let text = template.render(messages, true).map_err(|error| request(error.code(), error.to_string()))?;
                self.tokenizer.encode(&text, false)?
            }
        };
        if tokens.is_empty() {
            tokens.extend(self.bos);
        }
        if tokens.is_empty() { Err(request("empty_prompt", "the prompt is empty")) } else { Ok(tokens) }
    }

    /// The tokens of an answer, with the end token where the answer came to its end.
    ///
    /// # Errors
    ///
    /// The tokenizer has no token for something in it.
    pub fn encode_answer(&self, answer: &Answer) -> Result<Vec<u32>, ModelError> {
        let mut tokens = self.tokenizer.encode(&answer.text, false)?;
        if answer.finish == Finish::Stop {
            tokens.extend(self.eos.first());
        }
        Ok(tokens)
    }

    /// The tokens of a prompt with its answer, and the place of the answer's first token: what to train on or score.
    ///
    /// # Errors
    ///
    /// As [`Codec::encode_prompt`] and [`Codec::encode_answer`].
    pub fn example(&self, prompt: &Prompt, answer: &Answer) -> Result<(Vec<u32>, usize), ModelError> {
        let mut tokens = self.encode_prompt(prompt)?;
        let first_target = tokens.len();
        tokens.extend(self.encode_answer(answer)?);
        Ok((tokens, first_target))
    }
}

fn request(code: &'static str, message: impl Into<String>) -> ModelError {
    ModelError::new(Fault::Request, code, message)
}

fn template_error(folder: &Path, error: TemplateError) -> LmError {
    match error {
        TemplateError::Read { path, source } => LmError::read(Path::new(&path), source),
        other => LmError::malformed(folder, other.to_string(), "mend `chat_template` or remove it"),
    }
}

fn read_json(path: &Path) -> Result<Option<Value>, LmError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LmError::read(path, source)),
    };
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|error| LmError::malformed(path, error.to_string(), "expected a JSON object"))
}

/// A special token is written as a string or as an object with `content`.
fn token_name(token: &Value) -> String {
    token.as_str().or_else(|| token["content"].as_str()).unwrap_or_default().to_owned()
}

/// Token numbers are written as one number or as several.
fn token_ids(ids: &Value) -> Vec<u32> {
    let one = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    match ids {
        Value::Array(several) => several.iter().filter_map(one).collect(),
        id => one(id).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use anbiq_domain::{Message, Role};

    use super::*;

    fn codec() -> Codec {
        let tokenizer = Tokenizer::train_bpe(["one two three one two three"], 280, &SPECIALS).unwrap();
        Codec::plain(tokenizer, 64).unwrap()
    }

    #[test]
    fn an_example_is_prompt_and_answer() {
        let codec = codec();
        let answer = |finish| Answer::new("three", finish);
        let (tokens, first) = codec.example(&Prompt::user("one two"), &answer(Finish::Stop)).unwrap();
        assert_eq!(
            String::from_utf8(tokens.iter().flat_map(|&token| codec.tokenizer.bytes(token)).copied().collect())
                .unwrap(),
            "<|user|>one two<|end|><|assistant|>three<|end|>"
        );
        assert_eq!(codec.tokenizer.decode(&tokens[first..]), "three");
        let (cut, _) = codec.example(&Prompt::user("one two"), &answer(Finish::Length)).unwrap();
        assert_eq!(cut, tokens[..tokens.len() - 1]);
        let (text, first) = codec.example(&Prompt::Text("one".into()), &answer(Finish::Length)).unwrap();
        assert_eq!(text[..first], codec.tokenizer.encode("one", false).unwrap());
        assert_eq!(codec.encode_prompt(&Prompt::Text(String::new())).unwrap_err().code, "empty_prompt");
    }

    #[test]
    fn a_codec_survives_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let codec = codec();
        codec.save(folder.path()).unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"max_position_embeddings": 64, "eos_token_id": [7, 0]}"#)
            .unwrap();
        let again = Codec::load(folder.path()).unwrap();
        let talk = Prompt::Chat(vec![Message::new(Role::System, "two")]);
        assert_eq!(again.encode_prompt(&talk).unwrap(), codec.encode_prompt(&talk).unwrap());
        assert_eq!((again.eos, again.bos, again.context), (vec![0, 7], None, 64));
    }

    #[test]
    fn a_base_model_does_not_chat() {
        let codec = Codec { template: None, ..codec() };
        assert_eq!(codec.encode_prompt(&Prompt::user("hi")).unwrap_err().code, "no_chat_template");
    }
}
