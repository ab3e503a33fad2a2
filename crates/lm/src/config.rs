use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::LmError;

/// The shape of a network, as `config.json` of a Hugging Face folder gives it.
///
/// All families of [`Family`] are one computation, Llama's, with the additions that [`Variant`] names. Whatever would
/// need another computation is refused by name: a network that loads computes what its makers meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where it departs from Llama.
    pub variant: Variant,
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

/// Where a network departs from plain Llama; the default is nowhere.
///
/// Lists by layer are empty where they would say the same of every layer: no window, rotary positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variant {
    /// The family in whose form it is written; it also decides on Qwen2's biases and on Qwen3's norms of queries and keys.
    pub family: Family,
    /// Do all four projections of attention have biases (Llama, Qwen3, SmolLM3)?
    pub attention_bias: bool,
    /// Do the three projections of the feed-forward part have biases (Llama, SmolLM3)?
    pub mlp_bias: bool,
    /// How many tokens a layer with a sliding window sees, the newest included (Beltagy et al. 2020).
    pub window: Option<usize>,
    /// Which layers see only the window.
    pub windowed: Vec<bool>,
    /// Which layers leave out the rotary positions (NoPE, Kazemnejad et al. 2023).
    pub unplaced: Vec<bool>,
}

/// A family of networks: the `model_type` of its `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Llama 1 to 3, SmolLM 1 and 2 and many others.
    #[default]
    Llama,
    /// Mistral 7B and its like; every layer may see a window only.
    Mistral,
    /// Qwen2 and Qwen2.5: biases of queries, keys and values; some layers may see a window only.
    Qwen2,
    /// Qwen3 without experts: the heads of queries and keys are normed before they are turned.
    Qwen3,
    /// SmolLM3: some layers leave out the rotary positions.
    SmolLm3,
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
    /// The low ones by a factor, the high ones not, along a ramp over the pairs of a head between; cosines and sines are
    /// multiplied by a number that makes attention a little sharper (YaRN, Peng et al. 2023).
    Yarn {
        /// The factor of the low frequencies.
        factor: f64,
        /// Length of the context before stretching.
        original: f64,
        /// Pairs that turn more often than this within `original` are left alone.
        fast: f64,
        /// Pairs that turn less often than this within `original` are stretched in full.
        slow: f64,
        /// What cosines and sines are multiplied by.
        attention: f32,
        /// Are the ends of the ramp rounded outwards to whole pairs?
        truncate: bool,
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
        let word = fields.text("model_type")?.unwrap_or_default();
        let Some(family) = Family::ALL.into_iter().find(|family| family.word() == word) else {
            return Err(fields.unsupported(format!("`model_type` `{word}`"), HINT_FAMILY));
        };
        refuse_other_computations(&fields, family)?;

        let heads = fields.count("num_attention_heads", None)?;
        let hidden_size = fields.count("hidden_size", None)?;
        let layers = fields.count("num_hidden_layers", None)?;
        // Mistral's own default is 8, so its absence is not taken to mean as many as query heads.
        let kv_default = if family == Family::Mistral { None } else { Some(heads) };
        let head_default = if family == Family::Qwen3 { 128 } else { hidden_size / heads };
        let absent = family.defaults();
        let max_positions = fields.count("max_position_embeddings", Some(absent.max_positions))?;
        let (rope_theta, rope_scaling) = rope(&fields, absent.rope_theta, max_positions)?;
        let config = Self {
            variant: variant(&fields, family, layers)?,
            vocab_size: fields.count("vocab_size", None)?,
            hidden_size,
            intermediate_size: fields.count("intermediate_size", None)?,
            layers,
            heads,
            kv_heads: fields.count("num_key_value_heads", kv_default)?,
            head_dim: fields.count("head_dim", Some(head_default))?,
            rope_theta,
            rope_scaling,
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            tied: fields.flag("tie_word_embeddings")?.unwrap_or(family == Family::SmolLm3),
            max_positions,
            bos: fields.tokens("bos_token_id", absent.bos)?.first().copied(),
            eos: fields.tokens("eos_token_id", absent.eos)?,
            pad: fields.tokens("pad_token_id", absent.pad)?.first().copied(),
        };
        config.check().map_err(|problem| LmError::malformed(path, problem, "the numbers do not fit together"))?;
        Ok(config)
    }

    /// The text of a `config.json` in the form of the network's family, which transformers (4 and 5), vLLM and llama.cpp
    /// read; `dtype` is the word that transformers uses for the type of the stored weights, such as `bfloat16`.
    pub fn to_json(&self, dtype: &str) -> String {
        let scaling = self.rope_scaling.to_json();
        let mut rope = json!({ "rope_theta": self.rope_theta, "rope_type": "default" });
        if let (Value::Object(rope), Value::Object(scaling)) = (&mut rope, &scaling) {
            rope.extend(scaling.clone());
        }
        let eos = match self.eos.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        // Both generations of the rope fields: transformers 5 reads the second, everything older the first.
        let mut fields = json!({
            "architectures": [self.variant.family.architecture()],
            "model_type": self.variant.family.word(),
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
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": self.pad,
            "rms_norm_eps": short(self.rms_norm_eps),
            "rope_parameters": rope,
            "rope_scaling": scaling,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        if let (Value::Object(fields), Value::Object(own)) = (&mut fields, self.variant.to_json(self.layers)) {
            fields.extend(own);
        }
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
            self.rope_scaling.stretch(plain, pair, self) as f32
        };
        (0..self.head_dim / 2).map(frequency).collect()
    }

    /// What the cosines and sines of rotary positions are multiplied by.
    pub const fn rotary_scale(&self) -> f32 {
        match self.rope_scaling {
            RopeScaling::Yarn { attention, .. } => attention,
            _ => 1.0,
        }
    }

    /// How many tokens layer `index` sees, the newest included; `usize::MAX` where it sees all.
    pub fn window(&self, index: usize) -> usize {
        let windowed = self.variant.windowed.get(index).copied().unwrap_or(false);
        self.variant.window.filter(|_| windowed).unwrap_or(usize::MAX)
    }

    /// Does layer `index` use rotary positions?
    pub fn rotates(&self, index: usize) -> bool {
        !self.variant.unplaced.get(index).copied().unwrap_or(false)
    }

    /// Do the projections of queries, keys and values have biases?
    pub const fn qkv_bias(&self) -> bool {
        self.variant.attention_bias || matches!(self.variant.family, Family::Qwen2)
    }

    /// Are the heads of queries and keys normed?
    pub const fn qk_norm(&self) -> bool {
        matches!(self.variant.family, Family::Qwen3)
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
        self.rope_scaling.check(self.rope_theta)?;
        self.variant.check(self.layers)?;
        let special = self.eos.iter().chain(&self.bos);
        if let Some(token) = special.copied().find(|&token| token as usize >= self.vocab_size) {
            return Err(format!("token {token} is not among the {} of the vocabulary", self.vocab_size));
        }
        Ok(())
    }
}

impl Variant {
    /// Says what the family cannot express, if anything.
    fn check(&self, layers: usize) -> Result<(), String> {
        let word = self.family.word();
        for (list, name) in [(&self.windowed, "windowed"), (&self.unplaced, "unplaced")] {
            if !list.is_empty() && list.len() != layers {
                return Err(format!("`{name}` speaks of {} layers, not of {layers}", list.len()));
            }
            if !list.is_empty() && !list.contains(&true) {
                return Err(format!("`{name}` names no layer; leave it empty"));
            }
        }
        if self.window == Some(0) || self.window.is_some() != self.windowed.contains(&true) {
            return Err(format!("a window of {:?} tokens does not fit the layers that have one", self.window));
        }
        let impossible = match self.family {
            Family::Llama => (self.window.is_some(), "a sliding window"),
            Family::Mistral => (self.windowed.contains(&false), "a window in some layers only"),
            Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 => (false, ""),
        };
        let biased = matches!(self.family, Family::Mistral | Family::Qwen2) && self.attention_bias;
        let mlp_biased = !matches!(self.family, Family::Llama | Family::SmolLm3) && self.mlp_bias;
        let unplaced = self.family != Family::SmolLm3 && !self.unplaced.is_empty();
        let faults = [
            impossible,
            (biased, "`attention_bias`"),
            (mlp_biased, "`mlp_bias`"),
            (unplaced, "layers without rotary positions"),
        ];
        match faults.into_iter().find(|(fault, _)| *fault) {
            Some((_, what)) => Err(format!("a network of the family `{word}` cannot have {what}")),
            None => Ok(()),
        }
    }

    /// The fields of `config.json` that only this family has.
    fn to_json(&self, layers: usize) -> Value {
        let windowed = |index: usize| self.windowed.get(index).copied().unwrap_or(false);
        let kind = |index: usize| if windowed(index) { SLIDING } else { FULL };
        let kinds: Vec<&str> = (0..layers).map(kind).collect();
        match self.family {
            Family::Llama => json!({
                "attention_bias": self.attention_bias,
                "mlp_bias": self.mlp_bias,
                "pretraining_tp": 1,
            }),
            Family::Mistral => json!({ "sliding_window": self.window }),
            Family::Qwen2 | Family::Qwen3 => {
                // Readers that do not know `layer_types` take the layers from here on to have the window.
                let first = (0..layers).find(|&index| windowed(index)).unwrap_or(layers);
                let mut fields = json!({
                    "layer_types": kinds,
                    "max_window_layers": first,
                    "sliding_window": self.window,
                    "use_sliding_window": self.window.is_some(),
                });
                if self.family == Family::Qwen3 {
                    fields["attention_bias"] = json!(self.attention_bias);
                }
                fields
            }
            Family::SmolLm3 => {
                let placed = |index: usize| !self.unplaced.get(index).copied().unwrap_or(false);
                let placed: Vec<u8> = (0..layers).map(|index| u8::from(placed(index))).collect();
                json!({
                    "attention_bias": self.attention_bias,
                    "layer_types": kinds,
                    "mlp_bias": self.mlp_bias,
                    "no_rope_layers": placed,
                    "sliding_window": self.window,
                    "use_sliding_window": self.window.is_some(),
                })
            }
        }
    }
}

/// What a family's networks have where `config.json` does not say.
struct Absent {
    rope_theta: f64,
    max_positions: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3, Self::SmolLm3];

    /// Its `model_type`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::SmolLm3 => "smollm3",
        }
    }

    /// The name that transformers has for it.
    const fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
        }
    }

    /// The defaults of transformers 5.
    const fn defaults(self) -> Absent {
        let plain = Absent { rope_theta: 10_000.0, max_positions: 32_768, bos: None, eos: None, pad: None };
        match self {
            Self::Llama => Absent { max_positions: 2048, bos: Some(1), eos: Some(2), ..plain },
            Self::Mistral => Absent { max_positions: 131_072, bos: Some(1), eos: Some(2), ..plain },
            Self::Qwen2 | Self::Qwen3 => plain,
            Self::SmolLm3 => {
                Absent { rope_theta: 2e6, bos: Some(128_000), eos: Some(128_001), pad: Some(128_004), ..plain }
            }
        }
    }
}

impl RopeScaling {
    /// The frequency of a pair of a head, which is `frequency` without stretching.
    fn stretch(self, frequency: f64, pair: usize, config: &Config) -> f64 {
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
            Self::Yarn { factor, original, fast, slow, truncate, .. } => {
                let place = |times: f64| yarn_place(config, original, times);
                let (low, high) = match truncate {
                    true => (place(fast).floor(), place(slow).ceil()),
                    false => (place(fast), place(slow)),
                };
                let (low, high) = (low.max(0.0), high.min(config.head_dim as f64 - 1.0));
                // As transformers: a ramp without a length is given one.
                let high = if low == high { high + 0.001 } else { high };
                let share = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                share * frequency / factor + (1.0 - share) * frequency
            }
        }
    }

    fn check(self, theta: f64) -> Result<(), String> {
        let positive = |numbers: &[(f64, &str)]| {
            let wrong = numbers.iter().find(|(number, _)| !number.is_finite() || *number <= 0.0);
            wrong.map_or(Ok(()), |(number, name)| Err(format!("rope `{name}` {number} is not positive")))
        };
        match self {
            Self::None => Ok(()),
            Self::Linear { factor } => positive(&[(factor, "factor")]),
            Self::Llama3 { factor, low, high, original } => {
                positive(&[(factor, "factor"), (low, "low_freq_factor"), (original, ORIGINAL)])?;
                if high > low {
                    Ok(())
                } else {
                    Err(format!("rope `high_freq_factor` {high} is not above `low_freq_factor` {low}"))
                }
            }
            Self::Yarn { factor, original, fast, slow, attention, .. } => {
                positive(&[
                    (factor, "factor"),
                    (original, ORIGINAL),
                    (fast, "beta_fast"),
                    (slow, "beta_slow"),
                    (f64::from(attention), "attention_factor"),
                ])?;
                if theta <= 1.0 {
                    return Err(format!("rope `yarn` needs a `rope_theta` above 1, not {theta}"));
                }
                if fast >= slow { Ok(()) } else { Err(format!("rope `beta_fast` {fast} is below `beta_slow` {slow}")) }
            }
        }
    }

    /// The form of transformers 4: `null` or an object without the base.
    fn to_json(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            Self::Llama3 { factor, low, high, original } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                ORIGINAL: original as u64,
            }),
            Self::Yarn { factor, original, fast, slow, attention, truncate } => {
                let mut fields = json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "beta_fast": fast,
                    "beta_slow": slow,
                    ORIGINAL: original as u64,
                });
                // What follows from the rest is left out: not every reader knows these.
                if attention != sharpness(factor, 1.0) as f32 {
                    fields["attention_factor"] = json!(short(attention));
                }
                if !truncate {
                    fields["truncate"] = json!(false);
                }
                fields
            }
        }
    }
}

/// Which pair of a head, as a fraction, turns `times` times within `original` tokens.
fn yarn_place(config: &Config, original: f64, times: f64) -> f64 {
    let turns = (original / (times * std::f64::consts::TAU)).ln();
    config.head_dim as f64 * turns / (2.0 * config.rope_theta.ln())
}

/// YaRN's factor of cosines and sines, `weight` being 1 in the paper.
fn sharpness(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// The shortest decimal of `value`, which as a 64-bit float would show as `0.000009999999747378752`.
fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Refuses fields that ask for another computation than that of the family. Fields that transformers ignores in this
/// family, but that mean something in another, are refused as well: whoever wrote them meant something.
fn refuse_other_computations(fields: &Fields<'_>, family: Family) -> Result<(), LmError> {
    for name in ["hidden_act", "hidden_activation"] {
        if let Some(other) = fields.text(name)?.filter(|act| !matches!(*act, "silu" | "swish")) {
            return Err(fields.unsupported(format!("`{name}` `{other}`"), HINT_FAMILY));
        }
    }
    let foreign: &[&str] = match family {
        Family::Llama => &["use_sliding_window"],
        Family::Mistral => &["attention_bias", "mlp_bias"],
        Family::Qwen2 | Family::Qwen3 => &["mlp_bias"],
        Family::SmolLm3 => &[],
    };
    const NEVER: [&str; 6] =
        ["qkv_bias", "use_qk_norm", "qk_layernorm", "use_mrope", "rope_interleaved", "use_bidirectional_attention"];
    for name in NEVER.iter().chain(foreign) {
        if fields.flag(name)?.unwrap_or(false) {
            return Err(fields.unsupported(format!("`{name}`"), HINT_FAMILY));
        }
    }
    if fields.flag("is_causal")? == Some(false) {
        return Err(fields.unsupported("`is_causal` false".into(), HINT_FAMILY));
    }
    for (name, hint) in [
        ("quantization_config", "fetch the model with weights in float32, float16 or bfloat16"),
        ("compression_config", "fetch the model with weights in float32, float16 or bfloat16"),
        ("num_local_experts", HINT_EXPERTS),
        ("num_experts", HINT_EXPERTS),
        ("n_routed_experts", HINT_EXPERTS),
        ("dual_chunk_attention_config", "remove it to read contexts up to `max_position_embeddings` without it"),
        ("logit_scale", HINT_FAMILY),
        ("final_logit_softcapping", HINT_FAMILY),
        ("attn_logit_softcapping", HINT_FAMILY),
    ] {
        if let Some(value) = fields.get(name) {
            return Err(fields.unsupported(format!("`{name}` {value}"), hint));
        }
    }
    let foreign: &[&str] = match family {
        Family::Llama => &["sliding_window", "no_rope_layers"],
        Family::SmolLm3 => &[],
        _ => &["no_rope_layers"],
    };
    for name in foreign {
        if let Some(value) = fields.get(name) {
            return Err(fields.unsupported(format!("`{name}` {value} in a `{}`", family.word()), HINT_FAMILY));
        }
    }
    if let Some(part) = fields.number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
        return Err(fields.unsupported(format!("`partial_rotary_factor` {part}"), HINT_FAMILY));
    }
    Ok(())
}

fn variant(fields: &Fields<'_>, family: Family, layers: usize) -> Result<Variant, LmError> {
    let flag = |name: &str| fields.flag(name).map(|flag| flag.unwrap_or(false));
    let unplaced = match family {
        Family::SmolLm3 => unplaced(fields, layers)?,
        _ => vec![false; layers],
    };
    let window = match family {
        Family::Llama => None,
        // The one family that has a window unless `null` says that it has none.
        Family::Mistral if fields.fields.contains_key("sliding_window") => fields.whole("sliding_window")?,
        Family::Mistral => Some(4096),
        _ if !flag("use_sliding_window")? => None,
        Family::SmolLm3 => fields.whole("sliding_window")?,
        Family::Qwen2 | Family::Qwen3 => match fields.fields.contains_key("sliding_window") {
            true => fields.whole("sliding_window")?,
            false => Some(4096),
        },
    };
    // Mistral does not read it, so it may only say what is so anyway.
    if family == Family::Mistral && fields.flag("use_sliding_window")?.is_some_and(|used| used != window.is_some()) {
        let feature = format!("`use_sliding_window` {} beside its `sliding_window`", window.is_none());
        return Err(fields.unsupported(feature, HINT_CONFIG));
    }
    let implied: Vec<bool> = match (window, family) {
        (None, _) | (_, Family::Llama) => vec![false; layers],
        (_, Family::Mistral) => vec![true; layers],
        (_, Family::SmolLm3) => unplaced.clone(),
        (_, Family::Qwen2 | Family::Qwen3) => {
            let first = fields.whole("max_window_layers")?.unwrap_or(28);
            (0..layers).map(|index| index >= first).collect()
        }
    };
    let windowed = match layer_types(fields, layers)? {
        // Llama and Mistral do not read the list; it may be there as long as it says what they do.
        Some(listed) if matches!(family, Family::Llama | Family::Mistral) && listed != implied => {
            return Err(fields.unsupported(format!("`layer_types` of its own in a `{}`", family.word()), HINT_FAMILY));
        }
        Some(listed) if window.is_none() && listed.contains(&true) => {
            let problem = format!("`layer_types` names `{SLIDING}`, but no window is set");
            return Err(LmError::malformed(fields.path, problem, HINT_CONFIG));
        }
        Some(listed) => listed,
        None => implied,
    };
    let listed = |list: Vec<bool>| if list.contains(&true) { list } else { Vec::new() };
    Ok(Variant {
        family,
        // Qwen2's are its own and not a setting.
        attention_bias: family != Family::Qwen2 && flag("attention_bias")?,
        mlp_bias: flag("mlp_bias")?,
        window: window.filter(|_| windowed.contains(&true)),
        windowed: listed(windowed),
        unplaced: listed(unplaced),
    })
}

/// `no_rope_layers`, in which 0 marks a layer without rotary positions; without it every `no_rope_layer_interval`-th is.
fn unplaced(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, LmError> {
    let Some(value) = fields.get("no_rope_layers") else {
        let interval = fields.count("no_rope_layer_interval", Some(4))?;
        return Ok((1..=layers).map(|number| number.is_multiple_of(interval)).collect());
    };
    let wrong = || fields.wrong("no_rope_layers", "a list of 0 and 1, one for each layer", value);
    let list = value.as_array().filter(|list| list.len() >= layers).ok_or_else(wrong)?;
    let places = list.iter().take(layers).map(|place| match place.as_u64() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(wrong()),
    });
    places.collect()
}

/// Which layers `layer_types` gives a window, if it is there.
fn layer_types(fields: &Fields<'_>, layers: usize) -> Result<Option<Vec<bool>>, LmError> {
    let Some(value) = fields.get("layer_types") else { return Ok(None) };
    let wrong = || fields.wrong("layer_types", &format!("a list of {layers} kinds of attention"), value);
    let kinds = value.as_array().filter(|kinds| kinds.len() == layers).ok_or_else(wrong)?;
    let kinds = kinds.iter().map(|kind| match kind.as_str() {
        Some(FULL) => Ok(false),
        Some(SLIDING) => Ok(true),
        _ => Err(fields.unsupported(format!("`layer_types` with {kind}"), HINT_FAMILY)),
    });
    kinds.collect::<Result<_, _>>().map(Some)
}

/// Reads the rotary settings of either generation: `rope_theta` with `rope_scaling`, or `rope_parameters`. Where both are
/// there they must say the same, since programs differ in which one they read.
fn rope(fields: &Fields<'_>, theta: f64, positions: usize) -> Result<(f64, RopeScaling), LmError> {
    let empty = Map::new();
    let table = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::Object(table)) => Ok(Some(table)),
        Some(other) => Err(fields.wrong(name, "an object", other)),
    };
    let read = |table| rope_table(fields, table, theta, positions);
    match (table("rope_parameters")?, table("rope_scaling")?) {
        (Some(new), Some(old)) => {
            let (new, old) = (read(new)?, read(old)?);
            if new == old {
                return Ok(new);
            }
            let problem = "`rope_parameters` and `rope_scaling` say different things";
            Err(LmError::malformed(fields.path, problem, HINT_TWICE))
        }
        (Some(table), None) | (None, Some(table)) => read(table),
        (None, None) => read(&empty),
    }
}

fn rope_table(
    fields: &Fields<'_>,
    table: &Map<String, Value>,
    theta: f64,
    positions: usize,
) -> Result<(f64, RopeScaling), LmError> {
    const KNOWN: [&str; 15] = [
        "rope_type",
        "type",
        "rope_theta",
        "partial_rotary_factor",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        ORIGINAL,
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
        // A remark of some makers; it changes nothing.
        "finetuned",
    ];
    let inner = Fields { fields: table, path: fields.path };
    if let Some((name, value)) = table.iter().find(|(name, value)| !value.is_null() && !KNOWN.contains(&name.as_str()))
    {
        return Err(fields.unsupported(format!("the rope setting `{name}` {value}"), HINT_ROPE));
    }
    if let Some(part) = inner.number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
        return Err(fields.unsupported(format!("`partial_rotary_factor` {part}"), HINT_FAMILY));
    }
    let theta = match (inner.number("rope_theta")?, fields.number("rope_theta")?) {
        (Some(one), Some(other)) if one != other => {
            let problem = format!("`rope_theta` is {other} there and {one} among the rope settings");
            return Err(LmError::malformed(fields.path, problem, HINT_TWICE));
        }
        (inner, outer) => inner.or(outer).unwrap_or(theta),
    };
    let kind = match (inner.text("rope_type")?, inner.text("type")?) {
        (Some(one), Some(other)) if one != other => {
            let problem = format!("the rope settings have both the type `{one}` and the type `{other}`");
            return Err(LmError::malformed(fields.path, problem, HINT_TWICE));
        }
        (None, None) if inner.get("factor").is_some() => {
            return Err(LmError::malformed(fields.path, "the rope settings lack `rope_type`", HINT_CONFIG));
        }
        (new, old) => new.or(old).unwrap_or("default"),
    };
    let need = |name: &str| {
        inner
            .number(name)?
            .ok_or_else(|| LmError::malformed(fields.path, format!("rope `{kind}` lacks `{name}`"), HINT_CONFIG))
    };
    // The order in which transformers looks for it.
    let original = || match fields.whole(ORIGINAL)? {
        Some(original) => Ok(original as f64),
        None => Ok(inner.whole(ORIGINAL)?.unwrap_or(positions) as f64),
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: need("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: need("factor")?,
            low: need("low_freq_factor")?,
            high: need("high_freq_factor")?,
            original: original()?,
        },
        "yarn" => {
            let given = |name: &str| Ok::<_, LmError>(inner.number(name)?.filter(|number| *number != 0.0));
            let factor = need("factor")?;
            let attention = match (inner.number("attention_factor")?, given("mscale")?, given("mscale_all_dim")?) {
                (Some(attention), _, _) => attention,
                (None, Some(one), Some(all)) => sharpness(factor, one) / sharpness(factor, all),
                (None, _, _) => sharpness(factor, 1.0),
            };
            RopeScaling::Yarn {
                factor,
                original: original()?,
                fast: given("beta_fast")?.unwrap_or(32.0),
                slow: given("beta_slow")?.unwrap_or(1.0),
                attention: attention as f32,
                truncate: inner.flag("truncate")?.unwrap_or(true),
            }
        }
        other => return Err(fields.unsupported(format!("rope type `{other}`"), HINT_ROPE)),
    };
    Ok((theta, scaling))
}

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";
const ORIGINAL: &str = "original_max_position_embeddings";
const HINT_CONFIG: &str = "compare it with the config.json that the model's makers publish";
const HINT_FAMILY: &str = "models of the types llama, mistral, qwen2, qwen3 and smollm3 run here; serve others with vLLM \
                           or llama.cpp and use them as an upstream";
const HINT_TWICE: &str = "keep the one that is meant";
const HINT_EXPERTS: &str = "mixtures of experts do not run here; serve them with vLLM or llama.cpp and use them as an \
                            upstream";
const HINT_ROPE: &str = "rotary positions of the types default, linear, llama3 and yarn are computed here; where makers \
                         tell to add another for long texts only, leave it out";

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

    /// A count, which may be 0.
    fn whole(&self, name: &str) -> Result<Option<usize>, LmError> {
        let whole = |value: &Value| {
            let whole = value.as_u64().and_then(|whole| usize::try_from(whole).ok());
            whole.ok_or_else(|| self.wrong(name, "a whole number", value))
        };
        self.get(name).map(whole).transpose()
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

    fn unsupported(&self, feature: String, hint: &'static str) -> LmError {
        LmError::Unsupported { path: self.path.to_owned(), feature, hint }
    }
}
