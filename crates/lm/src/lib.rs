//! The local transformer: load a Hugging Face folder, generate, score, train.
//!
//! Llama and its relatives, written out by hand on single-threaded matrix products: measured on two cores it trains faster
//! than the frameworks and needs a fifth of their memory. Numbers are 32-bit floats throughout, but for the weights of a model that
//! answers with [`Precision::Int8`].
//!
//! What runs, trains and is written back in its own form, by the `model_type` of `config.json`:
//!
//! | `model_type` | models | beyond Llama 2 |
//! |---|---|---|
//! | `llama` | Llama 1 to 3, SmolLM 1 and 2, TinyLlama and others | `attention_bias`, `mlp_bias` |
//! | `mistral` | Mistral 7B and Nemo | sliding window in every layer |
//! | `qwen2` | Qwen2 and Qwen2.5, also the coders and R1's distilled ones | biases of queries, keys and values; sliding window by `layer_types` or `max_window_layers` |
//! | `qwen3` | Qwen3 without experts | norms of the heads of queries and keys; `attention_bias`; sliding window as Qwen2 |
//! | `smollm3` | SmolLM3 | layers without rotary positions (`no_rope_layers`, `no_rope_layer_interval`); biases as Llama; sliding window by `layer_types` |
//!
//! All of them with grouped heads, a `head_dim` of its own, a shared or an own output head, weights in `float32`, `float16`
//! or `bfloat16`, in shards or not, and both generations of rotary settings (`rope_theta` with `rope_scaling`, and
//! `rope_parameters`) of the types `default`, `linear`, `llama3` and `yarn`. For each of these `golden/` has a small network
//! with the logits that transformers gives for it.
//!
//! What would need another computation is refused by name: other activations, mixtures of experts, quantised weights, other
//! rotary types (`dynamic`, `longrope`, sections of several axes), unknown kinds of attention, a file that says two things.
//! A model is also one file `*.gguf`, in the form of llama.cpp: see [`gguf`].
//!
//! With the feature `cuda` networks are trained and score on an NVIDIA card too: [`train::Hardware`], [`Scorer`]. The graph of the
//! computation is the same code.
//!
//! A window limits what a layer looks at, not the keys and values that are kept for it.

mod codec;
mod config;
mod cut;
mod decode;
mod device;
mod engine;
mod error;
pub mod gguf;
mod graph;
mod kernel;
mod local;
pub mod lora;
mod optimizer;
mod precision;
pub mod sample;
mod sampler;
pub mod score;
mod scorer;
mod tokenizer;
pub mod train;
mod weights;

pub use codec::{Codec, SPECIALS};
pub use config::{Config, Family, RopeScaling, Variant};
pub use error::LmError;
pub use local::{Local, LocalOptions, Nearness};
pub use precision::Precision;
pub use scorer::Scorer;
pub use tokenizer::Tokenizer;
pub use weights::{Dtype, Layer, Network, Weights};
