//! Captures of DistillKit: whole sequences of a teacher's tokens, with its likeliest tokens at each place, compressed.
//!
//! The form is that of DistillKit as of commit `a61c2e7` (`compression/monotonic_logprobs.py`, `bitpack.py`,
//! `sample_logits_vllm.py`): Parquet files with the columns `input_ids`, `compressed_logprobs` and `bytepacked_indices`, and beside
//! them `compression_config.yaml`. Row `i` of a sequence is of the token `i + 1`. A row's log-probabilities, largest first, are
//! the first ones as they are, then a sum of powers whose coefficients stand there, with what that leaves rounded in bins;
//! perhaps as differences from one to the next. The older form (`packed_indices`, `coeffs`) holds logits less their mean, from
//! which no probability can be told, and is refused.

use std::fs;
use std::path::Path;

use anbiq_domain::{Answer, Finish, Message, Prompt, Role, Usage};
use anbiq_lm::Codec;
use half::{bf16, f16};
use serde_json::Value;

use crate::DistillError;
use crate::capture::{Row, Token};
use crate::data::Asked;

/// The file that says how a capture is compressed.
const CONFIG: &str = "compression_config.yaml";

/// A kind of number, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F16,
    Bf16,
    F32,
    F64,
}

/// A term of the sum, by the rank of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    Power(i32),
    Root,
    Exponential,
}

/// What the sum leaves of some ranks, rounded to a few bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bin {
    scale: Kind,
    bits: u32,
    count: usize,
}

/// How a capture is compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Config {
    /// Tokens of the vocabulary.
    d: u64,
    /// Tokens that are named at each place.
    k: usize,
    exact: usize,
    exact_kind: Kind,
    terms: Vec<Term>,
    term_kind: Kind,
    bins: Vec<Bin>,
    /// Are they differences, each from the one before?
    differences: bool,
    /// Do ranks go from 0 to 1?
    unit_ranks: bool,
}

/// Reads sequences as rows of a capture.
#[derive(Debug)]
pub(super) struct Unpacker {
    config: Config,
    codec: Codec,
    /// The tokens before an answer, by the teacher's chat template.
    header: Vec<u32>,
    /// The tokenizer writes the token that begins a text by itself.
    begins: bool,
}

impl Unpacker {
    /// For the capture `data`, with the tokenizer of its teacher in `tokenizer`.
    pub(super) fn load(data: &Path, tokenizer: &Path) -> Result<Self, DistillError> {
        let path = data.with_file_name(CONFIG);
        let text = fs::read_to_string(&path).map_err(DistillError::read(&path))?;
        let config =
            Config::parse(&text).map_err(|(line, problem)| DistillError::Row { path: path.clone(), line, problem })?;
        let codec = Codec::load(tokenizer)?;
        let header = header(&codec).unwrap_or_default();
        let begins = codec.tokenizer.encode("a", true)?.first().copied() == codec.bos && codec.bos.is_some();
        Ok(Self { config, codec, header, begins })
    }

    /// The answers of a sequence: what follows the teacher's mark of an answer, up to the token that ends it. A sequence without
    /// such marks is one text, of which all but the first token is learnt from.
    pub(super) fn rows(&self, value: &Value, every_turn: bool) -> Result<Vec<Row>, String> {
        if value.get("compressed_logprobs").is_none() {
            return Err("it has logits less their mean, DistillKit's older form: no probability can be told from them"
                .to_owned());
        }
        let ids = numbers(&value["input_ids"]).ok_or("`input_ids` is no list of numbers of tokens")?;
        let lists = |name: &str| {
            let places =
                value[name].as_array().map(|places| places.iter().map(numbers::<u8>).collect::<Option<Vec<_>>>());
            places.flatten().ok_or_else(|| format!("`{name}` is no list of lists of bytes"))
        };
        let (logprobs, indices) = (lists("compressed_logprobs")?, lists("bytepacked_indices")?);
        if logprobs.len() != indices.len() || logprobs.len() + 1 < ids.len() {
            return Err(format!("it has {} tokens, and {} places", ids.len(), logprobs.len()));
        }
        let mut starts: Vec<usize> = if self.header.is_empty() {
            Vec::new()
        } else {
            let found = ids.windows(self.header.len()).enumerate().filter(|(_, window)| *window == self.header);
            found.map(|(place, _)| place + self.header.len()).filter(|&start| start < ids.len()).collect()
        };
        if starts.is_empty() {
            starts.extend((ids.len() > 1).then_some(1));
        } else if !every_turn {
            starts.drain(..starts.len() - 1);
        }
        let rows = starts.into_iter().map(|start| self.row(&ids, &logprobs, &indices, start));
        rows.filter_map(Result::transpose).collect()
    }

    /// The answer that begins at `start`; `None` where there is none, or no text.
    fn row(&self, ids: &[u32], logprobs: &[Vec<u8>], indices: &[Vec<u8>], start: usize) -> Result<Option<Row>, String> {
        let end = ids[start..].iter().position(|id| self.codec.eos.contains(id)).map(|end| start + end);
        let (told, body) = (start..end.map_or(ids.len(), |end| end + 1), start..end.unwrap_or(ids.len()));
        let before = if self.begins && ids.first() == self.codec.bos.as_ref() { &ids[1..start] } else { &ids[..start] };
        let (Some(prompt), Some(text)) = (self.text(before, true), self.text(&ids[body], false)) else {
            return Ok(None);
        };
        if text.is_empty() {
            return Ok(None);
        }
        let token = |place: usize| -> Result<Token, String> {
            let named = self.config.place(&logprobs[place - 1], &indices[place - 1])?;
            let bytes = |id: u32| self.codec.tokenizer.bytes(id).to_vec().into();
            let own = named.iter().find(|(id, _)| *id == ids[place]);
            // A token that is none of the named ones is no likelier than the last of them.
            let logprob = own.or(named.last()).map_or(0.0, |(_, logprob)| *logprob);
            let top = named.iter().filter(|(id, _)| !self.codec.tokenizer.bytes(*id).is_empty());
            Ok(Token {
                bytes: bytes(ids[place]),
                logprob,
                top: top.map(|&(id, logprob)| (bytes(id), logprob)).collect(),
            })
        };
        let usage = Usage { prompt_tokens: start as u64, completion_tokens: told.len() as u64, ..Usage::default() };
        Ok(Some(Row {
            id: None,
            exchange: None,
            prompt: Asked::Prompt(Prompt::Text(prompt)),
            answers: vec![Answer::new(text, if end.is_some() { Finish::Stop } else { Finish::Length })],
            logprobs: vec![told.map(token).collect::<Result<_, _>>()?],
            told: None,
            usage,
            batch: false,
        }))
    }

    /// The text of tokens, the names of special ones included; `None` where it is none.
    fn text(&self, ids: &[u32], first: bool) -> Option<String> {
        let mut bytes = Vec::new();
        for &id in ids {
            let more = self.codec.tokenizer.bytes(id);
            bytes.extend_from_slice(if first && bytes.is_empty() {
                self.codec.tokenizer.first_bytes(id)
            } else {
                more
            });
        }
        String::from_utf8(bytes).ok()
    }
}

/// What the chat template writes between a question and its answer.
fn header(codec: &Codec) -> Option<Vec<u32>> {
    let talk = [Message::new(Role::User, "x")];
    let template = codec.template.as_ref()?;
    let (without, with) = (template.render(&talk, false).ok()?, template.render(&talk, true).ok()?);
    codec.tokenizer.encode(with.strip_prefix(&without)?, false).ok()
}

fn numbers<T: TryFrom<u64>>(value: &Value) -> Option<Vec<T>> {
    value.as_array()?.iter().map(|number| T::try_from(number.as_u64()?).ok()).collect()
}

impl Kind {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "float16" => Self::F16,
            "bfloat16" => Self::Bf16,
            "float32" => Self::F32,
            "float64" => Self::F64,
            _ => return None,
        })
    }

    const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// `bytes` are as many as such a number has.
    fn read(self, bytes: &[u8]) -> f64 {
        let mut word = [0; 8];
        word[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
        let bits = u64::from_le_bytes(word);
        match self {
            Self::F16 => f16::from_bits(bits as u16).to_f64(),
            Self::Bf16 => bf16::from_bits(bits as u16).to_f64(),
            Self::F32 => f32::from_bits(bits as u32).into(),
            Self::F64 => f64::from_bits(bits),
        }
    }

    /// The nearest number of this kind.
    fn round(self, number: f64) -> f64 {
        match self {
            Self::F16 => f16::from_f64(number).to_f64(),
            Self::Bf16 => bf16::from_f64(number).to_f64(),
            Self::F32 => f64::from(number as f32),
            Self::F64 => number,
        }
    }
}

impl Term {
    fn at(self, rank: f64) -> f64 {
        match self {
            Self::Power(power) => rank.powi(power),
            Self::Root => rank.sqrt(),
            Self::Exponential => rank.exp(),
        }
    }
}

impl Config {
    /// The tokens that a place names, with their log-probabilities, likeliest first.
    fn place(&self, logprobs: &[u8], indices: &[u8]) -> Result<Vec<(u32, f32)>, String> {
        let values =
            self.values(logprobs).ok_or("`compressed_logprobs` has fewer bytes than its configuration says")?;
        let width = u64::BITS - (self.d - 1).leading_zeros();
        let mut ids = Bits::new(indices);
        let ids: Option<Vec<u64>> = (0..self.k).map(|_| ids.next(width)).collect();
        let ids = ids.ok_or("`bytepacked_indices` has fewer bytes than its configuration says")?;
        // What a server did not name is written as no number.
        let named = ids.into_iter().zip(values).filter(|(id, value)| value.is_finite() && *id < self.d);
        Ok(named.map(|(id, value)| (id as u32, value.min(0.0) as f32)).collect())
    }

    fn values(&self, bytes: &[u8]) -> Option<Vec<f64>> {
        let mut rest = bytes;
        let mut take = |count: usize| -> Option<&[u8]> {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            Some(head)
        };
        let mut read = |kind: Kind| take(kind.bytes()).map(|bytes| kind.read(bytes));
        let mut values: Vec<f64> = (0..self.exact).map(|_| read(self.exact_kind)).collect::<Option<_>>()?;
        let coefficients: Vec<f64> = self.terms.iter().map(|_| read(self.term_kind)).collect::<Option<_>>()?;
        let count = self.k - self.exact;
        let mut rests = Vec::with_capacity(count);
        for bin in &self.bins {
            let scale = bin.scale.read(take(bin.scale.bytes())?);
            let mut bits = Bits::new(take((bin.count * bin.bits as usize).div_ceil(8))?);
            for _ in 0..bin.count {
                let number = bits.next(bin.bits)? as f64;
                let centred = if bin.bits == 1 { 2.0 * number - 1.0 } else { number - 2_f64.powi(bin.bits as i32 - 1) };
                rests.push(centred * scale);
            }
        }
        rests.resize(count, 0.0);
        for (place, rest) in rests.into_iter().enumerate() {
            let rank = if self.unit_ranks { place as f64 / (count - 1).max(1) as f64 } else { place as f64 };
            // As it was fitted: every product has the precision of the terms.
            let kind = self.term_kind;
            let products = self
                .terms
                .iter()
                .zip(&coefficients)
                .map(|(term, by)| kind.round(kind.round(term.at(kind.round(rank))) * by));
            let fit = kind.round(products.sum());
            values.push(fit + self.exact_kind.round(rest));
        }
        if self.differences {
            let mut sum = 0.0;
            for value in &mut values {
                sum += *value;
                *value = self.exact_kind.round(sum);
            }
        }
        Some(values)
    }

    /// Reads what DistillKit writes: YAML of one level, and lists of words or of one more level. An error names its line.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let fields = fields(text)?;
        let wrong =
            |name: &str, what: &str| (fields.get(name).map_or(1, |field| field.line), format!("`{name}` is {what}"));
        let word = |name: &str| {
            fields.get(name).map(|field| field.word.as_str()).filter(|word| !word.is_empty() && *word != "null")
        };
        let number = |name: &str| {
            let word = word(name).ok_or_else(|| wrong(name, "not given"))?;
            word.parse::<u64>().map_err(|_| wrong(name, "no number"))
        };
        let kind = |name: &str| match word(name) {
            None => Ok(Kind::F32),
            Some(word) => Kind::parse(word).ok_or_else(|| wrong(name, "no kind of number that is known")),
        };
        let truth = |name: &str, otherwise: bool| match word(name) {
            None => Ok(otherwise),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(wrong(name, "neither `true` nor `false`")),
        };
        let items = |name: &str| fields.get(name).map_or(&[][..], |field| field.items.as_slice());
        let terms = items("polynomial_terms").iter().map(|item| match item.word.as_str() {
            "sqrt" => Ok(Term::Root),
            "exp" => Ok(Term::Exponential),
            word => {
                word.parse().map(Term::Power).map_err(|_| (item.line, format!("`{word}` is no term that is known")))
            }
        });
        let bins = items("residual_bins").iter().map(|item| {
            let wrong = || (item.line, "a bin has `scale_dtype`, `element_bits` and `num_elements`".to_owned());
            let word = |name: &str| item.fields.iter().find(|(own, _)| own == name).map(|(_, word)| word.as_str());
            let scale = word("scale_dtype").and_then(Kind::parse).ok_or_else(wrong)?;
            let bits = word("element_bits").and_then(|word| word.parse().ok()).filter(|bits| (1..=64).contains(bits));
            let count = word("num_elements")
                .and_then(|word| word.parse().ok())
                .filter(|&count: &usize| count > 0 && count <= MOST);
            Ok(Bin { scale, bits: bits.ok_or_else(wrong)?, count: count.ok_or_else(wrong)? })
        });
        let config = Self {
            d: number("d")?,
            k: number("k")? as usize,
            exact: number("exact_k")? as usize,
            exact_kind: kind("exact_dtype")?,
            terms: terms.collect::<Result<_, _>>()?,
            term_kind: kind("term_dtype")?,
            bins: bins.collect::<Result<_, _>>()?,
            differences: truth("delta_encoding", true)?,
            unit_ranks: truth("normalize_t", false)?,
        };
        let binned: usize = config.bins.iter().map(|bin| bin.count).sum();
        if config.d < 2
            || config.k == 0
            || config.k > MOST
            || config.exact > config.k
            || binned > config.k - config.exact
        {
            return Err((1, "`k` is at least 1 and at most 65,536, and holds `exact_k` and all bins".to_owned()));
        }
        Ok(config)
    }
}

/// Tokens at a place, at most.
const MOST: usize = 1 << 16;

/// A field of a YAML file: a word, or items.
#[derive(Debug, Default)]
struct YamlField {
    line: usize,
    word: String,
    items: Vec<Item>,
}

/// An item of a list: a word, or fields.
#[derive(Debug)]
struct Item {
    line: usize,
    word: String,
    fields: Vec<(String, String)>,
}

/// The fields of a YAML file of the shapes that a configuration has; no others are read.
fn fields(text: &str) -> Result<std::collections::HashMap<String, YamlField>, (usize, String)> {
    let mut fields = std::collections::HashMap::<String, YamlField>::new();
    let mut last = String::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        if line.is_empty() || line.starts_with('#') || line == "---" {
            continue;
        }
        let unreadable = || (number, format!("`{line}` is no line of a configuration of DistillKit"));
        let inner = line.trim_start();
        let pair = |text: &str| {
            let (name, word) = text.split_once(':')?;
            Some((name.trim().to_owned(), plain(word)))
        };
        if let Some(item) = inner.strip_prefix("- ") {
            let field = fields.get_mut(&last).ok_or_else(unreadable)?;
            let fields = pair(item).into_iter().collect();
            field.items.push(Item { line: number, word: plain(item), fields });
        } else if line.len() == inner.len() {
            let (name, word) = pair(line).ok_or_else(unreadable)?;
            let mut field = YamlField { line: number, ..YamlField::default() };
            match word.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
                Some(list) => {
                    let words = list.split(',').map(plain).filter(|word| !word.is_empty());
                    field.items = words.map(|word| Item { line: number, word, fields: Vec::new() }).collect();
                }
                None => field.word = word,
            }
            last.clone_from(&name);
            fields.insert(name, field);
        } else {
            let item = fields.get_mut(&last).and_then(|field| field.items.last_mut()).ok_or_else(unreadable)?;
            item.fields.push(pair(inner).ok_or_else(unreadable)?);
        }
    }
    Ok(fields)
}

fn plain(word: &str) -> String {
    word.trim().trim_matches(['"', '\'']).to_owned()
}

/// Numbers of some bits each, one after the other, the highest bit first.
struct Bits<'bytes> {
    bytes: &'bytes [u8],
    at: usize,
}

impl<'bytes> Bits<'bytes> {
    const fn new(bytes: &'bytes [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn next(&mut self, width: u32) -> Option<u64> {
        let mut number = 0;
        for at in self.at..self.at + width as usize {
            let byte = self.bytes.get(at / 8)?;
            number = number << 1 | u64::from(byte >> (7 - at % 8) & 1);
        }
        self.at += width as usize;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/distillkit");

    #[test]
    fn log_probabilities_come_back_as_near_as_they_were_kept() {
        let cases: Vec<Value> =
            serde_json::from_str(&fs::read_to_string(format!("{GOLDEN}/places.json")).unwrap()).unwrap();
        assert!(cases.len() >= 6);
        for case in cases {
            let (name, config) = (&case["name"], Config::parse(case["config"].as_str().unwrap()).unwrap());
            for place in case["places"].as_array().unwrap() {
                let bytes = |field: &str| numbers(&place[field]).unwrap();
                let named = config.place(&bytes("logprobs"), &bytes("indices")).unwrap();
                let ids: Vec<u32> = named.iter().map(|(id, _)| *id).collect();
                assert_eq!(ids, numbers::<u32>(&place["ids"]).unwrap(), "{name}");
                for ((_, value), kept) in named.iter().zip(place["decoded"].as_array().unwrap()) {
                    let kept = kept.as_f64().unwrap();
                    let near = case["near"].as_f64().unwrap();
                    assert!((f64::from(*value) - kept).abs() <= near * kept.abs().max(1.0), "{name}: {value} {kept}");
                }
                assert!(config.place(&bytes("logprobs")[1..], &bytes("indices")).unwrap_err().contains("fewer bytes"));
            }
        }
    }

    #[test]
    fn a_configuration_that_is_none_is_told_by_its_line() {
        let good = "d: 300\nk: 8\nexact_k: 8\nresidual_bins: []\n";
        assert_eq!(Config::parse(good).unwrap().k, 8);
        for (text, line, says) in [
            ("k: 8\n", 1, "`d` is not given"),
            ("d: 300\nk: many\nexact_k: 1\n", 2, "`k` is no number"),
            ("d: 300\nk: 8\nexact_k: 9\n", 1, "holds `exact_k`"),
            ("d: 300\nk: 8\nexact_k: 8\nexact_dtype: float8\n", 4, "no kind of number"),
            ("d: 300\nk: 8\nexact_k: 4\npolynomial_terms:\n- 0\n- cos\n", 6, "`cos` is no term"),
            ("d: 300\nk: 8\nexact_k: 4\nresidual_bins:\n- element_bits: 4\n", 5, "a bin has"),
            ("d: 300\n  k: 8\n", 2, "no line of a configuration"),
        ] {
            let (at, problem) = Config::parse(text).unwrap_err();
            assert!(at == line && problem.contains(says), "{at}: {problem}");
        }
    }
}
