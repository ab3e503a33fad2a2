//! How the student learns.

use anbiq_lm::lora;
use anbiq_lm::train::{Divergence, Hardware, Measure};
use serde::{Deserialize, Serialize};

/// The first stage: on the corpus, prompts and answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainPart {
    /// How often the corpus is read.
    pub epochs: u32,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Tokens a step.
    pub batch_tokens: usize,
}

/// The second stage: on the answers of the teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainPart {
    /// How often the answers are read.
    pub epochs: u32,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Tokens a step.
    pub batch_tokens: usize,
    /// How much of the loss is divergence from the teacher's log-probabilities where they are known, 0 to 1.
    pub kl_weight: f64,
    /// Which divergence.
    pub divergence: Apart,
    /// Of `jsd` (default 0.5) how much of the mixture is the teacher.
    pub beta: Option<f64>,
    /// Of `skew-kl` and `skew-reverse-kl` (default 0.1) how much of the other distribution is mixed in.
    pub alpha: Option<f64>,
    /// Both distributions are taken to the power of one over it before they are compared.
    pub temperature: f64,
    /// What all stages train on: `cpu`, `cuda` or `cuda-tf32`.
    #[serde(skip_serializing_if = "Hardware::is_cpu")]
    pub device: Hardware,
    /// Keep less of each step in memory and compute it again instead (activation checkpointing): for long samples. It changes nothing that
    /// is learnt.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub activation_checkpointing: bool,
    /// Learn from the log-probabilities of answers that the student cuts into other tokens than its teacher too, carried over by spans
    /// of bytes; otherwise from their texts alone.
    pub spans: bool,
    /// Train adapters of low rank and leave the student's base as it is.
    pub lora: Option<lora::Shape>,
    /// Pull the student's hidden states to those of the teacher too, by the teacher's weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_states: Option<HiddenPart>,
    /// Learn from the student's own answers too, judged by the teacher's weights.
    pub on_policy: Option<OnPolicyPart>,
    /// After that, prefer the teacher's answers to the student's own. It needs nothing of the teacher but texts.
    pub preference: Option<PreferencePart>,
}

/// Learning from what the teacher thinks on the way: the residual stream that comes out of some of the student's layers is pulled to that
/// of the teacher's, at each token of prompt and answer (Sanh et al. 2019, DistilBERT; Jiao et al. 2020, TinyBERT). Where the two are not equally wide
/// a learned matrix for each pair of layers makes them so; it is no part of the student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HiddenPart {
    /// What the mean distance of the states is multiplied by before it is added to the loss.
    #[serde(default = "whole")]
    pub weight: f64,
    /// How far two states are from each other: `cosine` or `mean-square`.
    #[serde(default)]
    pub measure: Measure,
    /// Pairs of a student's and a teacher's layer, counted from 1; without them every layer of the student with the teacher's at the
    /// same share of its depth.
    pub layers: Option<Vec<(usize, usize)>>,
}

/// Learning from the student's own answers (Agarwal et al. 2024, GKD): of the steps a share takes the prompts of its batch,
/// lets the student as it is then answer them, and pulls it to what the teacher says at each place, by the divergence of
/// `[train]`. The steps beside them learn from the captured answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnPolicyPart {
    /// The share of such steps, above 0 and at most 1.
    #[serde(default = "half")]
    pub share: f64,
    /// Sampling temperature of the student's answers.
    #[serde(default = "warm")]
    pub temperature: f32,
    /// Longest answer of the student, in tokens.
    pub max_tokens: u32,
    /// The likeliest tokens at each place that the teacher is asked for; all others count as one.
    #[serde(default = "many")]
    pub alternatives: usize,
}

/// Learning from pairs of a teacher's answer and one of the student's own to the same prompt, drawn once before (SODA), by
/// direct preference optimisation (Rafailov et al. 2023).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreferencePart {
    /// How often the pairs are read.
    pub epochs: u32,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The larger, the nearer the student stays to what it was.
    pub beta: f64,
    /// How much of the cross-entropy of the teacher's answers is added to the loss.
    pub likelihood: f64,
    /// Sampling temperature of the student's answers.
    pub temperature: f32,
    /// Longest answer of the student, in tokens.
    pub max_tokens: u32,
}

/// A divergence from the teacher, by the word of the recipe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Apart {
    /// [`Divergence::ForwardKl`].
    #[default]
    ForwardKl,
    /// [`Divergence::ReverseKl`].
    ReverseKl,
    /// [`Divergence::JensenShannon`].
    Jsd,
    /// [`Divergence::SkewKl`].
    SkewKl,
    /// [`Divergence::SkewReverseKl`].
    SkewReverseKl,
    /// [`Divergence::TotalVariation`].
    Tvd,
}

impl TrainPart {
    /// The divergence with its number.
    pub fn divergence(&self) -> Divergence {
        let (beta, alpha) = (self.beta.unwrap_or(0.5), self.alpha.unwrap_or(0.1));
        match self.divergence {
            Apart::ForwardKl => Divergence::ForwardKl,
            Apart::ReverseKl => Divergence::ReverseKl,
            Apart::Jsd => Divergence::JensenShannon { beta },
            Apart::SkewKl => Divergence::SkewKl { alpha },
            Apart::SkewReverseKl => Divergence::SkewReverseKl { alpha },
            Apart::Tvd => Divergence::TotalVariation,
        }
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let skew = matches!(self.divergence, Apart::SkewKl | Apart::SkewReverseKl);
        if !(0.0..=1.0).contains(&self.kl_weight) {
            return Err("`[train]`: `kl_weight` must lie between 0 and 1");
        }
        if self.beta.is_some() && self.divergence != Apart::Jsd {
            return Err("`[train]`: `beta` is of `divergence = \"jsd\"` only");
        }
        if self.alpha.is_some() && !skew {
            return Err("`[train]`: `alpha` is of `divergence = \"skew-kl\"` and `\"skew-reverse-kl\"` only");
        }
        if self.beta.is_some_and(|beta| !(beta > 0.0 && beta < 1.0)) {
            return Err("`[train]`: `beta` must lie between 0 and 1; the ends are `forward-kl` and `reverse-kl`");
        }
        if self.alpha.is_some_and(|alpha| !(0.0..1.0).contains(&alpha)) {
            return Err("`[train]`: `alpha` must be at least 0 and below 1");
        }
        if !self.temperature.is_finite() || self.temperature <= 0.0 {
            return Err("`[train]`: `temperature` must be positive");
        }
        if let Some(hidden) = &self.hidden_states {
            if !hidden.weight.is_finite() || hidden.weight <= 0.0 {
                return Err("`[train.hidden_states]`: `weight` must be positive");
            }
            if !self.device.is_cpu() {
                return Err("`[train.hidden_states]`: states are matched on `device = \"cpu\"` only");
            }
        }
        let warm = |temperature: f32| temperature.is_finite() && temperature >= 0.0;
        if let Some(own) = &self.on_policy {
            if !(own.share > 0.0 && own.share <= 1.0) {
                return Err("`[train.on_policy]`: `share` must lie above 0 and be at most 1");
            }
            if !warm(own.temperature) || own.max_tokens == 0 || own.alternatives == 0 {
                return Err(
                    "`[train.on_policy]`: `temperature` is at least 0, `max_tokens` and `alternatives` at least 1",
                );
            }
        }
        let Some(preference) = &self.preference else { return Ok(()) };
        if !preference.beta.is_finite() || preference.beta <= 0.0 {
            return Err("`[train.preference]`: `beta` must be positive");
        }
        if !preference.likelihood.is_finite() || preference.likelihood < 0.0 {
            return Err("`[train.preference]`: `likelihood` must be at least 0");
        }
        if !warm(preference.temperature) || preference.max_tokens == 0 || preference.epochs == 0 {
            return Err("`[train.preference]`: `temperature` is at least 0, `max_tokens` and `epochs` at least 1");
        }
        if self.lora.is_some() {
            return Err(
                "`[train.preference]` changes the weights that `[train.lora]` leaves as they are: give one of them",
            );
        }
        Ok(())
    }
}

impl Default for PretrainPart {
    fn default() -> Self {
        Self { epochs: 1, learning_rate: 3e-3, batch_tokens: 2048 }
    }
}

impl Default for TrainPart {
    fn default() -> Self {
        Self {
            epochs: 3,
            learning_rate: 1e-3,
            batch_tokens: 2048,
            kl_weight: 0.5,
            divergence: Apart::default(),
            beta: None,
            alpha: None,
            temperature: 1.0,
            device: Hardware::Cpu,
            activation_checkpointing: false,
            spans: false,
            lora: None,
            hidden_states: None,
            on_policy: None,
            preference: None,
        }
    }
}

impl Default for PreferencePart {
    fn default() -> Self {
        Self { epochs: 1, learning_rate: 2e-4, beta: 0.1, likelihood: 0.2, temperature: 1.0, max_tokens: 256 }
    }
}

const fn whole() -> f64 {
    1.0
}
const fn half() -> f64 {
    0.5
}
const fn warm() -> f32 {
    1.0
}
const fn many() -> usize {
    64
}
