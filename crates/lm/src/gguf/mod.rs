//! Models as one file in the form of llama.cpp (GGUF, version 3).
//!
//! [`write()`] writes a network with its tokenizer, chat template and special tokens; [`read()`] reads one. What llama.cpp would
//! compute otherwise is refused by name on the way out, what this engine would on the way in:
//!
//! | | written | read |
//! |---|---|---|
//! | numbers | [`Storage`]: F32, F16, Q8_0 | F32, F16, BF16, Q8_0 |
//! | families | Llama and Mistral as `llama`, Qwen2, Qwen3, SmolLM3 | `llama`, `qwen2`, `qwen3`, `smollm3` |
//! | not | a sliding window shorter than the context; biases in Qwen3 and SmolLM3; YaRN with bounds of its own | experts, other rope types, any word of the architecture that is not known here |
//! | tokenizers | byte-level BPE cut as GPT-2, SmolLM, Llama 3 or Qwen2 does | the same |
//!
//! Norms and biases are always F32. A matrix whose rows are no multiple of 32 is F16 where Q8_0 is asked for. Qwen's
//! tokenizers compose characters first (NFC); llama.cpp does not, as with every model converted for it.

mod format;
mod numbers;
mod shape;
mod vocabulary;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::{Codec, Config, LmError, Network, Weights};
use format::{BLOCK, Head, Kind, Place, Value, padding};
use shape::{Architecture, HINT_OTHER};

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit floats: nothing is lost.
    F32,
    /// IEEE half precision.
    F16,
    /// Eight bits a number, and a scale for each 32.
    Q8_0,
}

impl Storage {
    /// Its kind for a matrix with rows of `width`.
    const fn kind(self, width: usize) -> Kind {
        match self {
            Self::F32 => Kind::F32,
            Self::Q8_0 if width.is_multiple_of(BLOCK) => Kind::Q8_0,
            Self::F16 | Self::Q8_0 => Kind::F16,
        }
    }

    /// The number that `general.file_type` has for it.
    const fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }
}

/// Is `path` the name of such a file?
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Writes `network` with `codec` as the file `path`; `about` are texts such as `general.name`, for people. The same model
/// gives the same bytes.
///
/// # Errors
///
/// [`LmError::Inexpressible`] where llama.cpp would compute another thing; a number does not fit half precision; the file
/// cannot be written. An older file is replaced only once the new one is complete.
pub fn write(
    path: &Path,
    network: &Network,
    codec: &Codec,
    storage: Storage,
    about: &[(&str, &str)],
) -> Result<(), LmError> {
    let config = &network.config;
    let architecture = Architecture::of(config)?;
    let text = |text: &str| Value::Text(text.to_owned());
    let mut words = vec![
        ("general.architecture".to_owned(), text(architecture.word)),
        ("general.type".to_owned(), text("model")),
        ("general.file_type".to_owned(), Value::U32(storage.file_type())),
        ("general.quantization_version".to_owned(), Value::U32(2)),
    ];
    words.extend(about.iter().map(|(name, value)| ((*name).to_owned(), text(value))));
    words.extend(shape::to_words(config, architecture));
    words.extend(vocabulary::to_words(codec, config.pad, config.vocab_size)?);

    let mut tensors: Vec<(Place, Numbers<'_>)> = Vec::new();
    for (name, shape, values) in network.weights.tensors() {
        let kind = if shape.len() == 1 { Kind::F32 } else { storage.kind(shape[1]) };
        let place = Place { name: theirs(name), kind, shape: shape.to_vec(), offset: 0 };
        let turned = architecture.neighbours && is_turned(name);
        tensors.push((place, Numbers { values: values.into(), turned }));
    }
    if let Some(divisors) = shape::divisors(config) {
        let place = Place { name: DIVISORS.into(), kind: Kind::F32, shape: vec![divisors.len()], offset: 0 };
        tensors.push((place, Numbers { values: divisors.into(), turned: false }));
    }
    for (place, numbers) in &tensors {
        let too_large = numbers.values.iter().find(|value| value.abs() >= 65_520.0);
        if let Some(value) = too_large.filter(|_| place.kind == Kind::F16) {
            let feature = format!("the number {value} of `{}` in half precision", place.name);
            return Err(LmError::Inexpressible { feature, hint: "write it as F32" });
        }
    }
    let head = Head { words, places: tensors.iter().map(|(place, _)| place.clone()).collect() };
    let new = path.with_extension("gguf.new");
    let written = (|| {
        let mut out = BufWriter::new(File::create(&new)?);
        head.write(&mut out)?;
        for (place, numbers) in &tensors {
            let bytes = numbers.bytes(place, config);
            out.write_all(&bytes)?;
            out.write_all(&[0; 32][..padding(bytes.len())])?;
        }
        out.flush()?;
        fs::rename(&new, path)
    })();
    written.map_err(|source| LmError::write(path, source))
}

/// Numbers on their way into a file; converted when their turn comes, so that no second copy of the model is held.
struct Numbers<'weights> {
    values: std::borrow::Cow<'weights, [f32]>,
    turned: bool,
}

impl Numbers<'_> {
    fn bytes(&self, place: &Place, config: &Config) -> Vec<u8> {
        let width = place.shape.get(1).copied().unwrap_or(1);
        match self.turned {
            true => numbers::encode(place.kind, &numbers::to_neighbours(&self.values, config.head_dim, width)),
            false => numbers::encode(place.kind, &self.values),
        }
    }
}

/// Reads the model of the file `path`.
///
/// # Errors
///
/// The file cannot be read, is damaged, or asks for what is not computed here, which the error names.
pub fn read(path: &Path) -> Result<(Network, Codec), LmError> {
    let head = Head::read(path)?;
    let network = network(path, &head)?;
    let codec = vocabulary::from_words(&head.words(path), path, network.config.max_positions)?;
    Ok((network, codec))
}

/// Reads the network of the file `path`.
pub(crate) fn read_network(path: &Path) -> Result<Network, LmError> {
    network(path, &Head::read(path)?)
}

/// Reads everything but the network of the file `path`.
pub(crate) fn read_codec(path: &Path) -> Result<Codec, LmError> {
    let head = Head::read(path)?;
    let words = head.words(path);
    let name = format!("{}.context_length", words.text("general.architecture")?.unwrap_or_default());
    let context = words.count(&name)?.unwrap_or(2048);
    vocabulary::from_words(&words, path, context)
}

fn network(path: &Path, head: &Head) -> Result<Network, LmError> {
    let mut file = File::open(path).map_err(|source| LmError::read(path, source))?;
    let mut places: BTreeMap<&str, &Place> = head.places.iter().map(|place| (place.name.as_str(), place)).collect();
    let embedding = places.get(EMBEDDING).copied();
    let embedding = embedding.ok_or_else(|| LmError::tensor(path, EMBEDDING, "is missing", HINT_DAMAGED))?;
    let divisors = match places.remove(DIVISORS) {
        Some(place) => {
            let mut divisors = vec![0.0; place.count() as usize];
            read_numbers(&mut file, path, place, &mut divisors)?;
            Some(divisors)
        }
        None => None,
    };
    let words = head.words(path);
    let has = |name: &str| places.contains_key(name);
    let (config, architecture) = shape::from_words(&words, path, has, embedding.shape[0], divisors.as_deref())?;
    let mut weights = Weights::zeros(&config);
    let head_dim = config.head_dim;
    for (name, shape, values) in weights.tensors_mut() {
        let wanted = theirs(name);
        let place = places.remove(wanted.as_str());
        let place = place.ok_or_else(|| LmError::tensor(path, &wanted, "is missing", HINT_DAMAGED))?;
        if place.shape != shape {
            let problem = format!("has shape {:?} where the file's words ask for {shape:?}", place.shape);
            return Err(LmError::tensor(path, &wanted, problem, HINT_DAMAGED));
        }
        read_numbers(&mut file, path, place, values)?;
        if architecture.neighbours && is_turned(name) {
            let width = shape.get(1).copied().unwrap_or(1);
            values.copy_from_slice(&numbers::to_halves(values, head_dim, width));
        }
    }
    if let Some((name, _)) = places.first_key_value() {
        return Err(LmError::tensor(path, name, "has no place in a network of this shape", HINT_OTHER));
    }
    Ok(Network { config, weights })
}

fn read_numbers(file: &mut File, path: &Path, place: &Place, into: &mut [f32]) -> Result<(), LmError> {
    let mut bytes = vec![0; place.kind.bytes(place.count()) as usize];
    let read = file.seek(SeekFrom::Start(place.offset)).and_then(|_| file.read_exact(&mut bytes));
    read.map_err(|source| LmError::read(path, source))?;
    numbers::decode(place.kind, &bytes, into);
    if into.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(LmError::tensor(path, &place.name, "holds numbers that are not finite", HINT_DAMAGED))
    }
}

/// What llama.cpp calls a tensor.
fn theirs(name: &str) -> String {
    const PARTS: [(&str, &str); 11] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    match name {
        "model.embed_tokens.weight" => return EMBEDDING.into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let renamed = name.strip_prefix("model.layers.").and_then(|rest| {
        let (layer, rest) = rest.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (_, own) = PARTS.iter().find(|(ours, _)| *ours == part)?;
        Some(format!("blk.{layer}.{own}.{kind}"))
    });
    renamed.unwrap_or_else(|| name.to_owned())
}

/// Is it one of the projections whose rows rotary positions turn?
fn is_turned(name: &str) -> bool {
    name.contains("self_attn.q_proj") || name.contains("self_attn.k_proj")
}

const EMBEDDING: &str = "token_embd.weight";
const DIVISORS: &str = "rope_freqs.weight";
const HINT_DAMAGED: &str = "the file may be damaged: fetch or write it again";

impl Head {
    fn words<'head>(&'head self, path: &'head Path) -> Words<'head> {
        Words { words: &self.words, path }
    }
}

/// The words of a file; those of the wrong kind are errors that name the file.
struct Words<'file> {
    words: &'file [(String, Value)],
    path: &'file Path,
}

impl<'file> Words<'file> {
    fn all(&self) -> impl Iterator<Item = (&'file str, &'file Value)> {
        self.words.iter().map(|(name, value)| (name.as_str(), value))
    }

    fn get(&self, name: &str) -> Option<&'file Value> {
        self.words.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Result<Option<&'file str>, LmError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(format!("`{name}` is not a text"))),
        }
    }

    /// A list of texts; none where there is no such word.
    fn texts(&self, name: &str) -> Result<Vec<&'file str>, LmError> {
        let wrong = || self.wrong(format!("`{name}` is not a list of texts"));
        let list = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::List(list)) => list,
            Some(_) => return Err(wrong()),
        };
        list.iter().map(|value| if let Value::Text(text) = value { Ok(text.as_str()) } else { Err(wrong()) }).collect()
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, LmError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(format!("`{name}` is neither true nor false"))),
        }
    }

    fn count(&self, name: &str) -> Result<Option<usize>, LmError> {
        let count = match self.get(name) {
            None => return Ok(None),
            Some(&Value::U8(count)) => Some(u64::from(count)),
            Some(&Value::U16(count)) => Some(u64::from(count)),
            Some(&Value::U32(count)) => Some(u64::from(count)),
            Some(&Value::U64(count)) => Some(count),
            Some(&Value::I32(count)) => u64::try_from(count).ok(),
            Some(&Value::I64(count)) => u64::try_from(count).ok(),
            // By layer, where some differ.
            Some(Value::List(list)) => match list.first() {
                Some(first) if list.iter().all(|other| other == first) => {
                    let one = [(name.to_owned(), first.clone())];
                    return Words { words: &one, path: self.path }.count(name);
                }
                _ => {
                    let feature = format!("`{name}` that differs from layer to layer");
                    return Err(self.unsupported(feature, HINT_OTHER));
                }
            },
            Some(_) => None,
        };
        let count = count.and_then(|count| usize::try_from(count).ok());
        count.map(Some).ok_or_else(|| self.wrong(format!("`{name}` is not a whole number")))
    }

    fn number(&self, name: &str) -> Result<Option<f64>, LmError> {
        match self.get(name) {
            None => Ok(None),
            Some(&Value::F32(number)) => Ok(Some(f64::from(number))),
            Some(&Value::F64(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong(format!("`{name}` is not a number"))),
        }
    }

    fn wrong(&self, problem: String) -> LmError {
        LmError::malformed(self.path, problem, HINT_DAMAGED)
    }

    fn unsupported(&self, feature: String, hint: &'static str) -> LmError {
        LmError::Unsupported { path: self.path.to_owned(), feature, hint }
    }
}
