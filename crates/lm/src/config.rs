use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::LmError;

/// The shape of a Llama-family network, as `config.json` of a Hugging Face folder gives it.
///
/// Llama 1 to 3, SmolLM and Mistral without a sliding window are the same computation with other numbers. Whatever
/// would need another computation is refused by name: a network that loads computes what its makers meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream, `d`.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads a layer.
    pub heads: usize,
    /// Key and value heads a layer; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; not always `hidden_size / heads`.
    pub head_dim: usize,
    /// Base of the rotary position frequencies.
    pub rope_theta: f64,
    /// How the frequencies are stretched for long contexts.
    pub rope_scaling: RopeScaling,
    /// Added to the mean square before its root.
    pub rms_norm_eps: f32,
    /// Does the output head share the embedding?
    pub tied: bool,
    /// Longest sequence, in tokens.
    pub max_positions: usize,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The tokens that end a text or a turn.
    pub eos: Vec<u32>,
    /// The token that fills up batches.
    pub pad: Option<u32>,
}

/// How rotary frequencies are stretched for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All by one factor (Chen et al. 2023).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// The low ones by a factor, the high ones not, smoothly between (Llama 3.1).
    Llama3 {
        /// The factor of the low frequencies.
        factor: f64,
        /// Waves longer than `original / low` are stretched in full.
        low: f64,
        /// Waves shorter than `original / high` are left alone.
        high: f64,
        /// Length of the context before stretching.
        original: f64,
    },
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no such configuration, or asks for something that is not computed here.
    pub fn read(path: &Path) -> Result<Self, LmError> {
        let text = fs::read_to_string(path).map_err(|source| LmError::read(path, source))?;
        Self::parse(&text, path)
    }

    /// Reads the text of a `config.json`; errors name `path`.
    ///
    /// # Errors
    ///
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, LmError> {
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| LmError::malformed(path, error.to_string(), "expected the config.json of a model"))?;
        let fields = Fields { fields: &fields, path };
        let family = fields.text("model_type")?.unwrap_or_default();
        if !matches!(family, "llama" | "mistral") {
            return Err(fields.unsupported(format!("`model_type` `{family}`")));
        }
        refuse_other_computations(&fields)?;

        let heads = fields.count("num_attention_heads", None)?;
        let hidden_size = fields.count("hidden_size", None)?;
        // Mistral's own default is 8, so its absence is not taken to mean as many as query heads.
        let kv_default = if family == "mistral" { None } else { Some(heads) };
        let (rope_theta, rope_scaling) = rope(&fields)?;
        let config = Self {
            vocab_size: fields.count("vocab_size", None)?,
            hidden_size,
            intermediate_size: fields.count("intermediate_size", None)?,
            layers: fields.count("num_hidden_layers", None)?,
            heads,
            kv_heads: fields.count("num_key_value_heads", kv_default)?,
            head_dim: fields.count("head_dim", Some(hidden_size / heads))?,
            rope_theta,
            rope_scaling,
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            max_positions: fields.count("max_position_embeddings", Some(2048))?,
            bos: fields.tokens("bos_token_id", Some(1))?.first().copied(),
            eos: fields.tokens("eos_token_id", Some(2))?,
            pad: fields.tokens("pad_token_id", None)?.first().copied(),
        };
        config.check().map_err(|problem| LmError::malformed(path, problem, "the numbers do not fit together"))?;
        Ok(config)
    }

    /// The text of a `config.json` that transformers (4 and 5), vLLM and llama.cpp read; `dtype` is the word that
    /// transformers uses for the type of the stored weights, such as `bfloat16`.
    pub fn to_json(&self, dtype: &str) -> String {
        let mut rope = json!({ "rope_theta": self.rope_theta, "rope_type": "default" });
        let mut scaling = Value::Null;
        match self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => scaling = json!({ "rope_type": "linear", "factor": factor }),
            RopeScaling::Llama3 { factor, low, high, original } => {
                scaling = json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low,
                    "high_freq_factor": high,
                    "original_max_position_embeddings": original as u64,
                });
            }
        }
        if let (Value::Object(rope), Value::Object(scaling)) = (&mut rope, &scaling) {
            rope.extend(scaling.clone());
        }
        let eos = match self.eos.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        // Both generations of the rope fields: transformers 5 reads the second, everything older the first.
        let fields = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos,
            "dtype": dtype,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_positions,
            "mlp_bias": false,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": self.pad,
            "pretraining_tp": 1,
            "rms_norm_eps": short(self.rms_norm_eps),
            "rope_parameters": rope,
            "rope_scaling": scaling,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        format!("{fields:#}\n")
    }

    /// Width of all query heads together.
    pub const fn query_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, or all value heads, together.
    pub const fn kv_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Radians a position for each of the `head_dim / 2` pairs of a head.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let frequency = |pair: usize| {
            let plain = self.rope_theta.powf(-2.0 * pair as f64 / self.head_dim as f64);
            self.rope_scaling.stretch(plain) as f32
        };
        (0..self.head_dim / 2).map(frequency).collect()
    }

    /// Says what does not fit together, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} query heads cannot share {} key heads evenly", self.heads, self.kv_heads));
        }
        if !self.head_dim.is_multiple_of(2) || self.head_dim == 0 {
            return Err(format!("rotary positions need an even `head_dim`, not {}", self.head_dim));
        }
        if !self.rope_theta.is_finite() || self.rope_theta <= 0.0 {
            return Err(format!("`rope_theta` {} is not positive", self.rope_theta));
        }
        if !self.rms_norm_eps.is_finite() || self.rms_norm_eps < 0.0 {
            return Err(format!("`rms_norm_eps` {} is not a small positive number", self.rms_norm_eps));
        }
        let special = self.eos.iter().chain(&self.bos);
        if let Some(token) = special.copied().find(|&token| token as usize >= self.vocab_size) {
            return Err(format!("token {token} is not among the {} of the vocabulary", self.vocab_size));
        }
        Ok(())
    }
}

impl RopeScaling {
    fn stretch(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let waves = original * frequency / std::f64::consts::TAU;
                if waves > high {
                    frequency
                } else if waves < low {
                    frequency / factor
                } else {
                    let share = (waves - low) / (high - low);
                    (1.0 - share) * frequency / factor + share * frequency
                }
            }
        }
    }
}

/// The shortest decimal of `value`, which as a 64-bit float would show as `0.000009999999747378752`.
fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn refuse_other_computations(fields: &Fields<'_>) -> Result<(), LmError> {
    for name in ["hidden_act", "hidden_activation"] {
        if let Some(other) = fields.text(name)?.filter(|act| !matches!(*act, "silu" | "swish")) {
            return Err(fields.unsupported(format!("`{name}` `{other}`")));
        }
    }
    for name in ["attention_bias", "mlp_bias", "qkv_bias", "use_qk_norm", "use_sliding_window", "qk_layernorm"] {
        if fields.flag(name)?.unwrap_or(false) {
            return Err(fields.unsupported(format!("`{name}`")));
        }
    }
    for name in ["quantization_config", "no_rope_layers", "num_local_experts", "logit_scale", "final_logit_softcapping"]
    {
        if let Some(value) = fields.get(name) {
            return Err(fields.unsupported(format!("`{name}` {value}")));
        }
    }
    if let Some(window) = fields.get("sliding_window") {
        return Err(fields.unsupported(format!("`sliding_window` {window}")));
    }
    if let Some(Value::Array(kinds)) = fields.get("layer_types")
        && let Some(other) = kinds.iter().find(|kind| kind.as_str() != Some("full_attention"))
    {
        return Err(fields.unsupported(format!("`layer_types` with {other}")));
    }
    if let Some(part) = fields.number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
        return Err(fields.unsupported(format!("`partial_rotary_factor` {part}")));
    }
    Ok(())
}

/// Reads the rotary settings of either generation: `rope_theta` with `rope_scaling`, or `rope_parameters`.
fn rope(fields: &Fields<'_>) -> Result<(f64, RopeScaling), LmError> {
    let empty = Map::new();
    let table = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::Object(table)) => Ok(Some(table)),
        Some(other) => Err(fields.wrong(name, "an object", other)),
    };
    let parameters = table("rope_parameters")?;
    let chosen = match parameters {
        Some(parameters) => Some(parameters),
        None => table("rope_scaling")?,
    };
    let inner = Fields { fields: chosen.unwrap_or(&empty), path: fields.path };
    if let Some(part) = inner.number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
        return Err(fields.unsupported(format!("`partial_rotary_factor` {part}")));
    }
    let theta = match inner.number("rope_theta")? {
        Some(theta) => theta,
        None => fields.number("rope_theta")?.unwrap_or(10_000.0),
    };
    let kind = match inner.text("rope_type")? {
        Some(kind) => kind,
        None => inner.text("type")?.unwrap_or("default"),
    };
    let need = |name: &str| {
        inner
            .number(name)?
            .ok_or_else(|| LmError::malformed(fields.path, format!("rope `{kind}` lacks `{name}`"), HINT_CONFIG))
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: need("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: need("factor")?,
            low: need("low_freq_factor")?,
            high: need("high_freq_factor")?,
            original: need("original_max_position_embeddings")?,
        },
        other => return Err(fields.unsupported(format!("rope type `{other}`"))),
    };
    Ok((theta, scaling))
}

const HINT_CONFIG: &str = "compare it with the config.json that the model's makers publish";
const HINT_FAMILY: &str = "Llama-family models (model_type llama, or mistral without a sliding window) run here; serve \
                           others with vLLM or llama.cpp and use them as an upstream";

/// A JSON object whose wrong fields are errors that name the file. `null` counts as absent.
struct Fields<'file> {
    fields: &'file Map<String, Value>,
    path: &'file Path,
}

impl<'file> Fields<'file> {
    fn get(&self, name: &str) -> Option<&'file Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&'file str>, LmError> {
        self.get(name).map(|value| value.as_str().ok_or_else(|| self.wrong(name, "a text", value))).transpose()
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, LmError> {
        self.get(name).map(|value| value.as_bool().ok_or_else(|| self.wrong(name, "true or false", value))).transpose()
    }

    fn number(&self, name: &str) -> Result<Option<f64>, LmError> {
        self.get(name).map(|value| value.as_f64().ok_or_else(|| self.wrong(name, "a number", value))).transpose()
    }

    /// A count of at least 1.
    fn count(&self, name: &str, default: Option<usize>) -> Result<usize, LmError> {
        match self.get(name) {
            Some(value) => {
                let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
                count.ok_or_else(|| self.wrong(name, "a positive whole number", value))
            }
            None => default
                .filter(|count| *count > 0)
                .ok_or_else(|| LmError::malformed(self.path, format!("`{name}` is missing"), HINT_CONFIG)),
        }
    }

    /// One token, a list of them, or none where it is `null`; `default` where it is absent.
    fn tokens(&self, name: &str, default: Option<u32>) -> Result<Vec<u32>, LmError> {
        let token = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.wrong(name, "a token id", value))
        };
        match self.fields.get(name) {
            None => Ok(default.into_iter().collect()),
            Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(several)) => several.iter().map(token).collect(),
            // Llama 2 configurations write -1 for "no padding".
            Some(value) if value.as_i64() == Some(-1) => Ok(Vec::new()),
            Some(value) => Ok(vec![token(value)?]),
        }
    }

    fn wrong(&self, name: &str, expected: &str, value: &Value) -> LmError {
        LmError::malformed(self.path, format!("`{name}` should be {expected}, not {value}"), HINT_CONFIG)
    }

    fn unsupported(&self, feature: String) -> LmError {
        LmError::Unsupported { path: self.path.to_owned(), feature, hint: HINT_FAMILY }
    }
}
