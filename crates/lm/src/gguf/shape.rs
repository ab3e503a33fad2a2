//! The shape of a network as words of a GGUF file, and back.

use std::path::Path;

use super::Words;
use super::format::Value;
use crate::{Config, Family, LmError, RopeScaling, Variant};

/// The name that llama.cpp has for a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Architecture {
    pub(super) word: &'static str,
    /// What it is read as here.
    pub(super) family: Family,
    /// Are neighbours of a head turned together, not its halves?
    pub(super) neighbours: bool,
}

const LLAMA: Architecture = Architecture { word: "llama", family: Family::Llama, neighbours: true };
const QWEN2: Architecture = Architecture { word: "qwen2", family: Family::Qwen2, neighbours: false };
const QWEN3: Architecture = Architecture { word: "qwen3", family: Family::Qwen3, neighbours: false };
const SMOLLM3: Architecture = Architecture { word: "smollm3", family: Family::SmolLm3, neighbours: true };

/// Every which layer of SmolLM3 has no rotary positions; llama.cpp knows no other number.
const UNPLACED: usize = 4;

/// The parameters of Llama 3's rope scaling (factor, low, high, original): llama.cpp keeps what follows from them only.
pub(super) const LLAMA3: &str = "anbiq.rope.llama3";

impl Architecture {
    /// The architecture as which llama.cpp computes a network of this shape, or what it would compute otherwise.
    pub(super) fn of(config: &Config) -> Result<Self, LmError> {
        let variant = &config.variant;
        let architecture = match variant.family {
            Family::Llama | Family::Mistral => LLAMA,
            Family::Qwen2 => QWEN2,
            Family::Qwen3 => QWEN3,
            Family::SmolLm3 => SMOLLM3,
        };
        let word = architecture.word;
        if let Some(window) = variant.window.filter(|&window| window < config.max_positions) {
            let feature = format!("a window of {window} tokens in a context of {}", config.max_positions);
            let hint = "llama.cpp ignores the window of this architecture; with `max_position_embeddings` no longer than the \
                        window nothing is lost";
            return Err(LmError::Inexpressible { feature, hint });
        }
        if word != LLAMA.word && (variant.attention_bias || variant.mlp_bias) {
            let feature = format!("biases of all projections in a `{word}`");
            return Err(LmError::Inexpressible { feature, hint: HINT_FOLDER });
        }
        let unplaced = |index: usize| (index + 1).is_multiple_of(UNPLACED);
        if word == SMOLLM3.word && (0..config.layers).any(|index| config.rotates(index) == unplaced(index)) {
            let feature = "a choice of layers without rotary positions that is not every fourth".into();
            return Err(LmError::Inexpressible { feature, hint: HINT_FOLDER });
        }
        if let RopeScaling::Yarn { fast, slow, truncate, .. } = config.rope_scaling
            && (fast != 32.0 || slow != 1.0 || !truncate)
        {
            let feature = format!("YaRN with `beta_fast` {fast}, `beta_slow` {slow}, `truncate` {truncate}");
            return Err(LmError::Inexpressible { feature, hint: "llama.cpp computes it with 32, 1 and true" });
        }
        Ok(architecture)
    }

    fn read(words: &Words<'_>) -> Result<Self, LmError> {
        let word = words.text("general.architecture")?.unwrap_or_default();
        let known = [LLAMA, QWEN2, QWEN3, SMOLLM3].into_iter().find(|known| known.word == word);
        known.ok_or_else(|| words.unsupported(format!("the architecture `{word}`"), HINT_ARCHITECTURE))
    }
}

/// The words that say the shape.
pub(super) fn to_words(config: &Config, architecture: Architecture) -> Vec<(String, Value)> {
    let arch = architecture.word;
    let mut words = Vec::new();
    let mut put = |name: &str, value| words.push((format!("{arch}.{name}"), value));
    let count = |number: usize| Value::U32(u32::try_from(number).unwrap_or(u32::MAX));
    put("vocab_size", count(config.vocab_size));
    put("context_length", count(config.max_positions));
    put("embedding_length", count(config.hidden_size));
    put("block_count", count(config.layers));
    put("feed_forward_length", count(config.intermediate_size));
    put("attention.head_count", count(config.heads));
    put("attention.head_count_kv", count(config.kv_heads));
    put("attention.key_length", count(config.head_dim));
    put("attention.value_length", count(config.head_dim));
    put("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps));
    put("rope.dimension_count", count(config.head_dim));
    put("rope.freq_base", Value::F32(config.rope_theta as f32));
    match config.rope_scaling {
        RopeScaling::None => {}
        RopeScaling::Llama3 { factor, low, high, original } => {
            let numbers = [factor, low, high, original].map(Value::F64);
            words.push((LLAMA3.to_owned(), Value::List(numbers.to_vec())));
        }
        RopeScaling::Linear { factor } => {
            put("rope.scaling.type", Value::Text("linear".into()));
            put("rope.scaling.factor", Value::F32(factor as f32));
        }
        RopeScaling::Yarn { factor, original, attention, .. } => {
            put("rope.scaling.type", Value::Text("yarn".into()));
            put("rope.scaling.factor", Value::F32(factor as f32));
            put("rope.scaling.original_context_length", count(original as usize));
            // llama.cpp multiplies by its own number and by this one.
            put("rope.scaling.attn_factor", Value::F32(attention / own_sharpness(factor)));
        }
    }
    words
}

/// What llama.cpp multiplies cosines and sines by under YaRN.
fn own_sharpness(factor: f64) -> f32 {
    1.0 + 0.1 * (factor as f32).ln()
}

/// By what each frequency is divided, where llama.cpp wants a list of that: for Llama 3's rope scaling.
pub(super) fn divisors(config: &Config) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 { .. } = config.rope_scaling else { return None };
    let plain = Config { rope_scaling: RopeScaling::None, ..config.clone() };
    let pairs = plain.inverse_frequencies().into_iter().zip(config.inverse_frequencies());
    Some(pairs.map(|(plain, stretched)| plain / stretched).collect())
}

/// The shape that the words say, and the architecture. `has` tells whether a tensor is there, `divisors` the list of
/// Llama 3's rope scaling where the file has one.
pub(super) fn from_words(
    words: &Words<'_>,
    path: &Path,
    has: impl Fn(&str) -> bool,
    vocab_size: usize,
    divisors: Option<&[f32]>,
) -> Result<(Config, Architecture), LmError> {
    let architecture = Architecture::read(words)?;
    let arch = architecture.word;
    refuse_other_words(words, arch)?;
    let name = |part: &str| format!("{arch}.{part}");
    let need = |part: &str| {
        let count = words.count(&name(part))?.filter(|&count| count > 0);
        count.ok_or_else(|| words.wrong(format!("`{}` is missing", name(part))))
    };
    let (hidden_size, heads, layers) = (need("embedding_length")?, need("attention.head_count")?, need("block_count")?);
    let head_dim = words.count(&name("attention.key_length"))?.unwrap_or(hidden_size / heads);
    for part in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = words.count(&name(part))?.filter(|&other| other != head_dim) {
            return Err(words.unsupported(format!("`{}` {other} beside heads of {head_dim}", name(part)), HINT_OTHER));
        }
    }
    let max_positions = need("context_length")?;
    let window = words.count(&name("attention.sliding_window"))?;
    if let Some(window) = window.filter(|&window| window > 0 && window < max_positions) {
        // llama.cpp ignores it in these architectures, the model's makers did not.
        return Err(words.unsupported(format!("a sliding window of {window} tokens"), HINT_OTHER));
    }
    let rope_theta = words.number(&name("rope.freq_base"))?.unwrap_or(10_000.0);
    let token = |name: &str| Ok::<_, LmError>(words.count(name)?.and_then(|id| u32::try_from(id).ok()));
    let bos = token("tokenizer.ggml.bos_token_id")?;
    let eos = super::vocabulary::ends(words)?;
    let pad = token("tokenizer.ggml.padding_token_id")?;
    let unplaced = match architecture.family {
        Family::SmolLm3 => (1..=layers).map(|number| number.is_multiple_of(UNPLACED)).collect(),
        _ => Vec::new(),
    };
    let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
    let mut config = Config {
        variant: Variant {
            family: architecture.family,
            attention_bias: architecture.family == Family::Llama && biased("attn_output"),
            mlp_bias: architecture.family == Family::Llama && biased("ffn_down"),
            unplaced: if unplaced.contains(&true) { unplaced } else { Vec::new() },
            ..Variant::default()
        },
        vocab_size,
        hidden_size,
        intermediate_size: need("feed_forward_length")?,
        layers,
        heads,
        kv_heads: words.count(&name("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        rope_theta,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: words.number(&name("attention.layer_norm_rms_epsilon"))?.unwrap_or(1e-5) as f32,
        tied: !has("output.weight"),
        max_positions,
        bos,
        eos,
        pad,
    };
    config.rope_scaling = scaling(words, arch, &config, divisors)?;
    config.check().map_err(|problem| LmError::malformed(path, problem, HINT_NUMBERS))?;
    Ok((config, architecture))
}

fn scaling(words: &Words<'_>, arch: &str, config: &Config, divisors: Option<&[f32]>) -> Result<RopeScaling, LmError> {
    let name = |part: &str| format!("{arch}.rope.scaling.{part}");
    let kind = words.text(&name("type"))?.unwrap_or("none");
    let factor = words.number(&name("factor"))?.filter(|factor| *factor != 0.0);
    if divisors.is_some() && kind != "none" {
        return Err(words.unsupported(format!("rope type `{kind}` with `rope_freqs.weight`"), HINT_OTHER));
    }
    match (kind, divisors) {
        ("none", Some(divisors)) => llama3(words, config, divisors),
        ("none", None) => Ok(RopeScaling::None),
        ("linear", None) => Ok(factor
            .filter(|factor| *factor != 1.0)
            .map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor })),
        ("yarn", None) => {
            let factor = factor.ok_or_else(|| words.wrong(format!("`{}` is missing", name("factor"))))?;
            let original = words.count(&name("original_context_length"))?.unwrap_or(config.max_positions);
            let more = words.number(&name("attn_factor"))?.unwrap_or(1.0) as f32;
            Ok(RopeScaling::Yarn {
                factor,
                original: original as f64,
                fast: 32.0,
                slow: 1.0,
                attention: own_sharpness(factor) * more,
                truncate: true,
            })
        }
        (other, _) => Err(words.unsupported(format!("rope type `{other}`"), HINT_OTHER)),
    }
}

/// Finds the rope scaling of Llama 3 that a list of divisors was made with: the one that the file names, or else that of
/// the published Llama models, whose factor shows in the list.
fn llama3(words: &Words<'_>, config: &Config, divisors: &[f32]) -> Result<RopeScaling, LmError> {
    let largest = divisors.iter().copied().fold(1.0_f32, f32::max);
    let scaling = match words.get(LLAMA3) {
        Some(Value::List(numbers)) => match numbers[..] {
            [Value::F64(factor), Value::F64(low), Value::F64(high), Value::F64(original)] => {
                RopeScaling::Llama3 { factor, low, high, original }
            }
            _ => return Err(words.wrong(format!("`{LLAMA3}` is not four numbers"))),
        },
        Some(_) => return Err(words.wrong(format!("`{LLAMA3}` is not four numbers"))),
        None => RopeScaling::Llama3 { factor: f64::from(largest), low: 1.0, high: 4.0, original: 8192.0 },
    };
    let own = self::divisors(&Config { rope_scaling: scaling, ..config.clone() }).unwrap_or_default();
    let same = own.len() == divisors.len()
        && own.iter().zip(divisors).all(|(own, given)| (own - given).abs() <= 1e-4 * given.abs());
    if same {
        Ok(scaling)
    } else {
        Err(words.unsupported("a `rope_freqs.weight` of another making".into(), HINT_OTHER))
    }
}

/// A word that is not known here might ask for another computation.
fn refuse_other_words(words: &Words<'_>, arch: &str) -> Result<(), LmError> {
    const READ: [&str; 20] = [
        "vocab_size",
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "attention.sliding_window",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.attn_factor",
        // Remarks that change nothing.
        "rope.scaling.finetuned",
        "tensor_data_layout",
        "use_parallel_residual",
    ];
    let prefix = format!("{arch}.");
    for (name, value) in words.all() {
        let Some(part) = name.strip_prefix(&prefix) else { continue };
        let nothing = matches!(value, Value::U32(0) | Value::I32(0) | Value::Bool(false) | Value::F32(0.0));
        if !READ.contains(&part) && !nothing {
            return Err(words.unsupported(format!("`{name}`"), HINT_OTHER));
        }
    }
    match words.count("split.count")? {
        Some(parts) if parts > 1 => {
            let hint = "join the parts with llama-gguf-split --merge";
            Err(words.unsupported(format!("a model in {parts} files"), hint))
        }
        _ => Ok(()),
    }
}

pub(super) const HINT_FOLDER: &str = "write it as a Hugging Face folder, which says all of it";
pub(super) const HINT_OTHER: &str = "serve it with llama.cpp and use that as an upstream";
const HINT_ARCHITECTURE: &str = "GGUF files of the architectures llama, qwen2, qwen3 and smollm3 run here; serve others with \
                                 llama.cpp and use that as an upstream";
const HINT_NUMBERS: &str = "the numbers do not fit together";
