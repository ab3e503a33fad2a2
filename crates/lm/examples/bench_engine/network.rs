//! The networks that are measured.

use anbiq_lm::{Config, LmError, Network, RopeScaling, Variant};

/// The network of a size, for sequences of `length` tokens.
pub(crate) fn network(size: &str, length: usize) -> Result<Network, LmError> {
    let (vocab_size, hidden_size, intermediate_size, layers, heads) =
        if size == "6m" { (4096, 256, 704, 6, 8) } else { (16_384, 768, 2048, 14, 12) };
    let config = Config {
        variant: Variant::default(),
        vocab_size,
        hidden_size,
        intermediate_size,
        layers,
        heads,
        kv_heads: heads,
        head_dim: hidden_size / heads,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tied: true,
        max_positions: length.max(512),
        bos: None,
        eos: vec![0],
        pad: None,
    };
    Network::random(config, 1)
}
