//! The student before it has learnt anything.

use std::path::Path;

use anbiq_domain::Digest;
use anbiq_lm::{Codec, Config, Network, RopeScaling, Variant};

use crate::DistillError;
use crate::recipe::{Recipe, StudentPart};

/// A network with its tokenizer, and a digest of where it began.
#[derive(Debug)]
pub(crate) struct Student {
    pub(crate) network: Network,
    pub(crate) codec: Codec,
    pub(crate) origin: Digest,
}

impl Student {
    /// Begins the student of `recipe`: from its `init`, or from nothing.
    pub(crate) fn begin(recipe: &Recipe) -> Result<Self, DistillError> {
        let part = &recipe.student;
        match &part.init {
            Some(folder) => {
                let network = cut(Network::load(folder)?, part.layers)?;
                let mut codec = Codec::load(folder)?;
                codec.context = part.context.min(network.config.max_positions);
                let bytes: Vec<u8> = network.weights.data().iter().flat_map(|number| number.to_le_bytes()).collect();
                let shape = network.config.to_json("float32");
                let origin = Digest::of_parts(&[b"init\0", shape.as_bytes(), b"\0", &bytes]);
                Ok(Self { network, codec, origin })
            }
            None => {
                let codec = codec(part)?;
                let config = shape(part, &codec);
                let network = Network::random(config, recipe.seed)?;
                let shape = network.config.to_json("float32");
                let origin = Digest::of_parts(&[b"random\0", &recipe.seed.to_le_bytes(), shape.as_bytes()]);
                Ok(Self { network, codec, origin })
            }
        }
    }
}

/// Keeps so many of the layers.
fn cut(network: Network, layers: Option<usize>) -> Result<Network, DistillError> {
    let most = network.config.layers;
    match layers {
        None => Ok(network),
        Some(layers) if layers > most => {
            let problem = format!("`[student]`: `init` has {most} layers, and {layers} of them are to be kept");
            Err(DistillError::Nothing(problem))
        }
        Some(layers) => Ok(network.with_layers(&Network::evenly(most, layers))?),
    }
}

fn codec(part: &StudentPart) -> Result<Codec, DistillError> {
    let folder = part.tokenizer.as_deref().unwrap_or(Path::new("."));
    Ok(Codec { context: part.context, ..Codec::load(folder)? })
}

/// The shape that the recipe gives; what it does not give is as in Llama 2.
pub(crate) fn shape(part: &StudentPart, codec: &Codec) -> Config {
    let hidden_size = part.hidden_size.unwrap_or(1);
    let heads = part.heads.unwrap_or(1);
    Config {
        variant: Variant::default(),
        vocab_size: codec.tokenizer.size(),
        hidden_size,
        intermediate_size: part.intermediate_size.unwrap_or(1),
        layers: part.layers.unwrap_or(1),
        heads,
        kv_heads: part.kv_heads.unwrap_or(heads),
        head_dim: hidden_size / heads,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tied: true,
        max_positions: part.context,
        bos: codec.bos,
        eos: codec.eos.clone(),
        pad: codec.eos.first().copied(),
    }
}
