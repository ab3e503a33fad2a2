//! The local transformer: load a Hugging Face folder, generate, score, train.
//!
//! The Llama family, written out by hand on single-threaded matrix products: measured on two cores it trains faster
//! than the frameworks and needs a fifth of their memory. Numbers are 32-bit floats throughout.

mod codec;
mod config;
mod decode;
mod engine;
mod error;
mod graph;
mod kernel;
mod local;
mod optimizer;
mod sampler;
pub mod score;
mod tokenizer;
pub mod train;
mod weights;

pub use codec::{Codec, SPECIALS};
pub use config::{Config, Family, RopeScaling, Variant};
pub use error::LmError;
pub use local::{Local, LocalOptions};
pub use tokenizer::Tokenizer;
pub use weights::{Dtype, Layer, Network, Weights};
