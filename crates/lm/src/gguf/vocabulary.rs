//! Tokenizer, chat template and special tokens as words of a GGUF file, and back.
//!
//! Byte-level BPE only (llama.cpp calls it `gpt2`). llama.cpp does not read how a text is cut into words before it is
//! merged: it knows some ways by name. A tokenizer whose way has no name here is refused.

use std::collections::BTreeMap;
use std::path::Path;

use anbiq_model::template::ChatTemplate;
use serde_json::{Map, Value as Json, json};

use super::Words;
use super::format::Value;
use super::shape::HINT_FOLDER;
use crate::tokenizer::{added_token, byte_pairs};
use crate::{Codec, LmError, Tokenizer};

/// A way to cut a text into words that llama.cpp has a name for.
#[derive(Debug, Clone, Copy)]
struct Cut {
    name: &'static str,
    /// Other names of the same way.
    aliases: &'static [&'static str],
    kind: Kind,
    /// Is a word that is a token taken whole, whatever the merges say?
    whole_words: bool,
    /// Do its tokenizers compose characters first (NFC)? llama.cpp leaves texts as they are.
    composes: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// As GPT-2 does; with `digits` every digit is a word of its own.
    Gpt2 { digits: bool },
    /// By a pattern.
    Pattern(&'static str),
}

const CUTS: [Cut; 4] = [
    Cut { name: "gpt-2", aliases: &[], kind: Kind::Gpt2 { digits: false }, whole_words: false, composes: false },
    Cut { name: "smollm", aliases: &[], kind: Kind::Gpt2 { digits: true }, whole_words: false, composes: false },
    Cut {
        name: "llama-bpe",
        aliases: &["llama3", "llama-v3"],
        kind: Kind::Pattern(
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+\
             |\\s+(?!\\S)|\\s+",
        ),
        whole_words: true,
        composes: false,
    },
    Cut {
        name: "qwen2",
        aliases: &[],
        kind: Kind::Pattern(
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+\
             |\\s+(?!\\S)|\\s+",
        ),
        whole_words: false,
        composes: true,
    },
];

impl Cut {
    /// The pre-tokenizer in the form of `tokenizer.json`.
    fn to_json(self) -> Json {
        let bytes = |regex: bool| byte_level(regex);
        match self.kind {
            Kind::Gpt2 { digits: false } => bytes(true),
            Kind::Gpt2 { digits: true } => json!({
                "type": "Sequence",
                "pretokenizers": [{ "type": "Digits", "individual_digits": true }, bytes(true)],
            }),
            Kind::Pattern(pattern) => json!({
                "type": "Sequence",
                "pretokenizers": [
                    { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
                    bytes(false),
                ],
            }),
        }
    }

    /// Is it what `pre_tokenizer` of a `tokenizer.json` says?
    fn says(self, pre_tokenizer: &Json) -> bool {
        let mut given = pre_tokenizer.clone();
        match given.get_mut("pretokenizers").and_then(Json::as_array_mut) {
            Some(parts) => parts.iter_mut().for_each(without_offsets),
            None => without_offsets(&mut given),
        }
        given == self.to_json()
    }
}

fn byte_level(regex: bool) -> Json {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex })
}

/// Forgets what concerns offsets and not tokens, and says what is meant where nothing is said.
fn without_offsets(part: &mut Json) {
    if part["type"] == "ByteLevel" {
        part["trim_offsets"] = json!(false);
        if part["use_regex"].is_null() {
            part["use_regex"] = json!(true);
        }
    }
}

/// The kinds of tokens in `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER: i32 = 4;
const UNUSED: i32 = 5;

/// The words of `codec`, for a network of `vocab_size` logits.
pub(super) fn to_words(codec: &Codec, pad: Option<u32>, vocab_size: usize) -> Result<Vec<(String, Value)>, LmError> {
    let file = codec.tokenizer.to_json()?;
    let refuse = |feature: String| Err(LmError::Inexpressible { feature, hint: HINT_FOLDER });
    let model = &file["model"];
    if model["type"] != "BPE" || file["decoder"]["type"] != "ByteLevel" {
        return refuse(format!("a tokenizer of the type `{}` that is not byte-level BPE", model["type"]));
    }
    for name in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        if !model[name].is_null() && model[name] != "" {
            return refuse(format!("a tokenizer with `{name}` {}", model[name]));
        }
    }
    if model["byte_fallback"] == true {
        return refuse("a tokenizer with `byte_fallback`".into());
    }
    let Some(cut) = CUTS.into_iter().find(|cut| cut.says(&file["pre_tokenizer"])) else {
        return refuse(format!("a tokenizer that cuts words by `{}`", file["pre_tokenizer"]));
    };
    if (model["ignore_merges"] == true) != cut.whole_words {
        return refuse(format!("`ignore_merges` {} in a tokenizer of the kind `{}`", model["ignore_merges"], cut.name));
    }
    let composes = file["normalizer"]["type"] == "NFC";
    let rewrites = !file["normalizer"].is_null() && !composes;
    if rewrites || composes && !cut.composes {
        return refuse(format!("a tokenizer that first rewrites texts by `{}`", file["normalizer"]));
    }
    let (adds_bos, adds_eos) = adds(codec)?;

    let (names, kinds) = tokens(&file, vocab_size)?;
    let mut merges = Vec::new();
    for merge in model["merges"].as_array().into_iter().flatten() {
        merges.push(match (merge.as_str(), &merge[0], &merge[1]) {
            (Some(merge), _, _) => merge.to_owned(),
            (None, Json::String(first), Json::String(second)) => format!("{first} {second}"),
            _ => return refuse(format!("the merge `{merge}`")),
        });
    }
    let texts = |texts: Vec<String>| Value::List(texts.into_iter().map(Value::Text).collect());
    let mut words = Vec::new();
    let mut put = |name: &str, value| words.push((format!("tokenizer.{name}"), value));
    put("ggml.model", Value::Text("gpt2".into()));
    put("ggml.pre", Value::Text(cut.name.into()));
    put("ggml.tokens", texts(names));
    put("ggml.token_type", Value::List(kinds.into_iter().map(Value::I32).collect()));
    put("ggml.merges", texts(merges));
    if let Some(bos) = codec.bos {
        put("ggml.bos_token_id", Value::U32(bos));
    }
    if codec.eos.len() > ENDS.len() {
        return refuse(format!("{} tokens that end an answer", codec.eos.len()));
    }
    for (name, &token) in ENDS.into_iter().zip(&codec.eos) {
        put(name, Value::U32(token));
    }
    if let Some(pad) = pad.or(codec.eos.first().copied()) {
        put("ggml.padding_token_id", Value::U32(pad));
    }
    put("ggml.add_bos_token", Value::Bool(adds_bos));
    put("ggml.add_eos_token", Value::Bool(adds_eos));
    if let Some(template) = &codec.template {
        put("chat_template", Value::Text(template.source().to_owned()));
    }
    Ok(words)
}

/// Under these names llama.cpp looks for tokens that end an answer.
const ENDS: [&str; 3] = ["ggml.eos_token_id", "ggml.eot_token_id", "ggml.eom_token_id"];

/// Does the tokenizer put a token before every text, and after?
fn adds(codec: &Codec) -> Result<(bool, bool), LmError> {
    let (plain, put) = (codec.tokenizer.encode("a", false)?, codec.tokenizer.encode("a", true)?);
    let (bos, eos) = (codec.bos, codec.eos.first().copied());
    for (first, last) in [(None, None), (bos, None), (None, eos), (bos, eos)] {
        let expected: Vec<u32> = first.into_iter().chain(plain.iter().copied()).chain(last).collect();
        if expected == put {
            return Ok((first.is_some(), last.is_some()));
        }
    }
    let feature = "a tokenizer that puts other tokens around texts than the first and the last".into();
    Err(LmError::Inexpressible { feature, hint: HINT_FOLDER })
}

/// Every token as it is written, with its kind.
fn tokens(file: &Json, vocab_size: usize) -> Result<(Vec<String>, Vec<i32>), LmError> {
    let mut all: BTreeMap<usize, (String, i32)> = BTreeMap::new();
    let id = |id: &Json| id.as_u64().and_then(|id| usize::try_from(id).ok()).unwrap_or(usize::MAX);
    for (name, number) in file["model"]["vocab"].as_object().into_iter().flatten() {
        all.insert(id(number), (name.clone(), NORMAL));
    }
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let name = token["content"].as_str().unwrap_or_default();
        for trait_ in ["single_word", "lstrip", "rstrip"] {
            if token[trait_] == true {
                let feature = format!("the token `{name}` with `{trait_}`");
                return Err(LmError::Inexpressible { feature, hint: HINT_FOLDER });
            }
        }
        let kind = if token["special"] == true { CONTROL } else { USER };
        all.insert(id(&token["id"]), (name.to_owned(), kind));
    }
    if let Some((&last, _)) = all.last_key_value().filter(|(last, _)| **last >= vocab_size) {
        let problem = format!("it has a token {last}, the network has {vocab_size} logits");
        return Err(LmError::Setting { name: "tokenizer", problem });
    }
    let unused = |id: usize| (format!("[PAD{id}]"), UNUSED);
    Ok((0..vocab_size).map(|id| all.remove(&id).unwrap_or_else(|| unused(id))).unzip())
}

/// The tokens that end an answer.
pub(super) fn ends(words: &Words<'_>) -> Result<Vec<u32>, LmError> {
    let mut ends = Vec::new();
    for name in ENDS {
        let token = words.count(&format!("tokenizer.{name}"))?.and_then(|token| u32::try_from(token).ok());
        if let Some(token) = token.filter(|token| !ends.contains(token)) {
            ends.push(token);
        }
    }
    Ok(ends)
}

/// The codec that the words say.
pub(super) fn from_words(words: &Words<'_>, path: &Path, context: usize) -> Result<Codec, LmError> {
    let text = |name: &str| words.text(&format!("tokenizer.{name}"));
    let model = text("ggml.model")?.unwrap_or_default();
    if model != "gpt2" {
        return Err(words.unsupported(format!("a tokenizer of the kind `{model}`"), HINT_TOKENIZER));
    }
    let pre = text("ggml.pre")?.unwrap_or("default");
    let Some(cut) = CUTS.into_iter().find(|cut| cut.name == pre || cut.aliases.contains(&pre)) else {
        return Err(words.unsupported(format!("a tokenizer that cuts words as `{pre}`"), HINT_TOKENIZER));
    };
    if words.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(false) {
        return Err(words.unsupported("a tokenizer that puts a space before texts".into(), HINT_TOKENIZER));
    }
    let names = words.texts("tokenizer.ggml.tokens")?;
    let kinds = match words.get("tokenizer.ggml.token_type") {
        Some(Value::List(kinds)) if kinds.len() == names.len() => kinds.as_slice(),
        None => &[],
        Some(_) => return Err(words.wrong("`tokenizer.ggml.token_type` does not speak of every token".into())),
    };
    let (mut vocabulary, mut added) = (Map::new(), Vec::new());
    for (id, name) in names.iter().enumerate() {
        let kind = match kinds.get(id) {
            None => NORMAL,
            Some(Value::I32(kind)) => *kind,
            Some(_) => return Err(words.wrong("`tokenizer.ggml.token_type` is not a list of whole numbers".into())),
        };
        match kind {
            NORMAL => {}
            CONTROL | UNKNOWN => added.push(added_token(id, name)),
            USER => {
                let mut token = added_token(id, name);
                token["special"] = json!(false);
                added.push(token);
            }
            UNUSED => continue,
            other => return Err(words.unsupported(format!("the token `{name}` of the kind {other}"), HINT_TOKENIZER)),
        }
        if vocabulary.insert((*name).to_owned(), json!(id)).is_some() {
            return Err(words.wrong(format!("the token `{name}` is there twice")));
        }
    }
    let mut merges = Vec::new();
    for merge in words.texts("tokenizer.ggml.merges")? {
        let pair = merge.split_once(' ').filter(|(_, second)| !second.contains(' '));
        let (first, second) = pair.ok_or_else(|| words.wrong(format!("`{merge}` is no merge")))?;
        merges.push(json!([first, second]));
    }
    let bos = words.count("tokenizer.ggml.bos_token_id")?.and_then(|bos| u32::try_from(bos).ok());
    let eos = ends(words)?;
    let named = |token: Option<u32>| token.and_then(|token| names.get(token as usize)).copied().unwrap_or_default();
    let (first, last) = (named(bos), named(eos.first().copied()));
    // What llama.cpp takes to be meant where the file does not say.
    let adds_bos = words.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(cut.name == "llama-bpe");
    let adds_eos = words.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": if cut.composes { json!({ "type": "NFC" }) } else { Json::Null },
        "pre_tokenizer": cut.to_json(),
        "post_processor": around((adds_bos, first, bos), (adds_eos, last, eos.first().copied())),
        "decoder": byte_level(true),
        "model": byte_pairs(&vocabulary, &json!(merges), cut.whole_words),
    });
    let tokenizer = Tokenizer::parse(file.to_string().as_bytes());
    let tokenizer = tokenizer.map_err(|problem| LmError::malformed(path, problem, HINT_TOKENIZER))?;
    let template = text("chat_template")?.map(|source| ChatTemplate::new(source, first, last)).transpose();
    let template = template
        .map_err(|error| LmError::malformed(path, error.to_string(), "mend `tokenizer.chat_template` or remove it"))?;
    if eos.is_empty() {
        return Err(words.wrong("no token is named that ends an answer".into()));
    }
    Ok(Codec { tokenizer, template, eos, bos, context })
}

/// What puts tokens around a text: whether, the name, the number, of the first and of the last.
fn around(first: (bool, &str, Option<u32>), last: (bool, &str, Option<u32>)) -> Json {
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let (mut single, mut special) = (vec![text], Map::new());
    for (at_start, (puts, name, id)) in [(true, first), (false, last)] {
        let Some(id) = id.filter(|_| puts) else { continue };
        let token = json!({ "SpecialToken": { "id": name, "type_id": 0 } });
        if at_start {
            single.insert(0, token);
        } else {
            single.push(token);
        }
        special.insert(name.to_owned(), json!({ "id": name, "ids": [id], "tokens": [name] }));
    }
    if special.is_empty() {
        return Json::Null;
    }
    let mut pair = single.clone();
    pair.push(json!({ "Sequence": { "id": "B", "type_id": 1 } }));
    json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special })
}

const HINT_TOKENIZER: &str = "byte-level BPE of the kinds gpt-2, smollm, llama-bpe and qwen2 is read here; fetch the model as a \
                              Hugging Face folder";
