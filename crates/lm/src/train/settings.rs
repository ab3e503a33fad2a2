//! How to train, and towards what.

use std::f64::consts::PI;

use crate::LmError;
use crate::graph::Keep;

/// How far a student is from its teacher at one place, P being the teacher's distribution and Q the student's.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Divergence {
    /// KL(P || Q): the student must give mass to all that the teacher gives mass to (Hinton et al. 2015).
    #[default]
    ForwardKl,
    /// KL(Q || P): the student must not say what the teacher would not (Gu et al. 2024, MiniLLM).
    ReverseKl,
    /// `beta KL(P || M) + (1 - beta) KL(Q || M)` with `M = beta P + (1 - beta) Q` (Agarwal et al. 2024, GKD). Divided by
    /// `beta` it approaches the forward divergence as that goes to 0, divided by `1 - beta` the reverse as it goes to 1.
    JensenShannon {
        /// Between 0 and 1.
        beta: f64,
    },
    /// `KL(P || alpha P + (1 - alpha) Q)`, whose gradient stays small where Q is (Ko et al. 2024, DistiLLM).
    SkewKl {
        /// From 0, the forward divergence, to below 1.
        alpha: f64,
    },
    /// `KL(Q || (1 - alpha) P + alpha Q)` (Ko et al. 2024, DistiLLM).
    SkewReverseKl {
        /// From 0, the reverse divergence, to below 1.
        alpha: f64,
    },
    /// Half the sum of all differences (Wen et al. 2023).
    TotalVariation,
}

impl Divergence {
    fn check(self) -> Result<(), LmError> {
        let (name, number, good) = match self {
            Self::JensenShannon { beta } => ("beta", beta, beta > 0.0 && beta < 1.0),
            Self::SkewKl { alpha } | Self::SkewReverseKl { alpha } => ("alpha", alpha, (0.0..1.0).contains(&alpha)),
            Self::ForwardKl | Self::ReverseKl | Self::TotalVariation => return Ok(()),
        };
        if good {
            return Ok(());
        }
        let range = if name == "beta" { "above 0 and below 1" } else { "at least 0 and below 1" };
        Err(LmError::Setting { name, problem: format!("{number} is not {range}") })
    }
}

/// What to train on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hardware {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA card, by CUDA, with products of 32-bit floats. It is there in builds with the feature `cuda`.
    Cuda,
    /// The same with what goes into matrix products rounded to TF32, 10 bits behind the point: several times as fast where a
    /// network is large, and about a thousandth off.
    CudaTf32,
}

impl Hardware {
    /// Its word in a recipe.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CudaTf32 => "cuda-tf32",
        }
    }

    /// Opens it for networks of a shape and closes it again: whoever has other work to do first learns in time that it is not
    /// there.
    ///
    /// # Errors
    ///
    /// It is not there, or does not compute this shape.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "the processor computes any shape"))]
    pub fn find(self, shape: &crate::Config) -> Result<(), LmError> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            card => crate::device::Cuda::open(card, shape).map(drop),
            #[cfg(not(feature = "cuda"))]
            card => Err(LmError::not_built_in(card.word())),
        }
    }

    /// Is it the processor?
    pub fn is_cpu(&self) -> bool {
        *self == Self::Cpu
    }
}

/// How to train.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: u64,
    /// The step at which the learning rate has fallen, along a cosine, to a tenth.
    pub total_steps: u64,
    /// How fast matrices are pulled towards zero.
    pub weight_decay: f64,
    /// How much of the first and second moment is kept at each step.
    pub betas: (f64, f64),
    /// Longest gradient.
    pub clip_norm: f64,
    /// Tokens a step, about: what [`epochs`] packs.
    pub batch_tokens: usize,
    /// How much of the loss is divergence from the teacher where it is known, 0 to 1; the rest is cross-entropy.
    pub kl_weight: f64,
    /// Which divergence.
    pub divergence: Divergence,
    /// Both distributions are taken to the power of one over it before they are compared, and the divergence is
    /// multiplied by its square. Where the teacher does not name every token the others count as one.
    pub temperature: f64,
    /// Threads. The same number of threads gives the same bits.
    pub threads: usize,
    /// What to train on. Checkpoints from before there was a choice are the processor's.
    #[serde(skip_serializing_if = "Hardware::is_cpu")]
    pub device: Hardware,
    /// Keep only what goes into each layer and compute the rest again on the way back (activation checkpointing, Chen et al.
    /// 2016): less memory and more time, the same bits.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub activation_checkpointing: bool,
    /// Shuffles the examples.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            learning_rate: 2e-3,
            warmup_steps: 50,
            total_steps: 1000,
            weight_decay: 0.05,
            betas: (0.9, 0.98),
            clip_norm: 1.0,
            batch_tokens: 2048,
            kl_weight: 0.5,
            divergence: Divergence::default(),
            temperature: 1.0,
            threads: 1,
            device: Hardware::Cpu,
            activation_checkpointing: false,
            seed: 0,
        }
    }
}

impl Config {
    /// The learning rate of step `step`, counted from 0: linear warm-up, then a cosine down to a tenth
    /// (Loshchilov and Hutter 2017).
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        self.learning_rate * (0.1 + 0.45 * (1.0 + (PI * done).cos()))
    }

    pub(super) fn keep(&self) -> Keep {
        if self.activation_checkpointing { Keep::Inputs } else { Keep::Everything }
    }

    pub(super) fn check(&self) -> Result<(), LmError> {
        let wrong = |name, problem: String| Err(LmError::Setting { name, problem });
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.learning_rate) {
            return wrong("learning_rate", format!("{} is not positive", self.learning_rate));
        }
        if !self.weight_decay.is_finite() || self.weight_decay < 0.0 {
            return wrong("weight_decay", format!("{} is negative", self.weight_decay));
        }
        if ![self.betas.0, self.betas.1].iter().all(|beta| (0.0..1.0).contains(beta)) {
            return wrong("betas", format!("{:?} are not both at least 0 and below 1", self.betas));
        }
        if !positive(self.clip_norm) {
            return wrong("clip_norm", format!("{} is not positive", self.clip_norm));
        }
        if !(0.0..=1.0).contains(&self.kl_weight) {
            return wrong("kl_weight", format!("{} is not between 0 and 1", self.kl_weight));
        }
        self.divergence.check()?;
        if !positive(self.temperature) {
            return wrong("temperature", format!("{} is not positive", self.temperature));
        }
        if !(1..=1024).contains(&self.threads) {
            return wrong("threads", format!("{} is not between 1 and 1024", self.threads));
        }
        Ok(())
    }
}
