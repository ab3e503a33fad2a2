//! The norms of the heads of queries and keys, before they are turned (Henry et al. 2020; as Qwen3 has them).

use crate::Config;
use crate::device::{HeadNorms, Kind};
use crate::kernel::{rms_norm, rms_norm_backward};

/// Norms every head of the queries and keys in the rows of `qkv`. `plain`, `[rows, (heads + kv_heads) * head_dim]`, takes
/// what they were before, and `inverse`, `[rows, heads + kv_heads]`, what the way back needs.
pub(crate) fn norm_heads(
    config: &Config,
    scales: &HeadNorms<'_, [f32]>,
    qkv: &mut [f32],
    plain: &mut [f32],
    inverse: &mut [f32],
) {
    let (queries, keys) = (config.query_size(), config.kv_size());
    let rows = qkv.chunks_exact_mut(queries + 2 * keys).zip(plain.chunks_exact_mut(queries + keys));
    for ((row, plain), inverse) in rows.zip(inverse.chunks_exact_mut(config.heads + config.kv_heads)) {
        plain.copy_from_slice(&row[..queries + keys]);
        let ((q, k), (q_plain, k_plain)) = (row[..queries + keys].split_at_mut(queries), plain.split_at(queries));
        let (q_inverse, k_inverse) = inverse.split_at_mut(config.heads);
        rms_norm(q_plain, scales.queries, config.rms_norm_eps, q, q_inverse);
        rms_norm(k_plain, scales.keys, config.rms_norm_eps, k, k_inverse);
    }
}

/// The way back through [`norm_heads`] for one kind of heads: turns their part of `d_qkv` into its gradient before the norm and
/// adds to the gradient of the norm's `scale`. `spare` is room.
pub(super) fn norm_heads_backward(
    config: &Config,
    kind: Kind,
    scale: &[f32],
    (plain, inverse): (&[f32], &[f32]),
    d_qkv: &mut [f32],
    spare: &mut Vec<f32>,
    d_scale: &mut [f32],
) {
    let (queries, keys) = (config.query_size(), config.kv_size());
    let (part, heads) = match kind {
        Kind::Queries => (0..queries, 0..config.heads),
        Kind::Keys => (queries..queries + keys, config.heads..config.heads + config.kv_heads),
    };
    let rows = d_qkv.chunks_exact_mut(queries + 2 * keys).zip(plain.chunks_exact(queries + keys));
    for ((d_row, plain), inverse) in rows.zip(inverse.chunks_exact(config.heads + config.kv_heads)) {
        let d_row = &mut d_row[part.clone()];
        spare.clear();
        spare.extend_from_slice(d_row);
        d_row.fill(0.0);
        rms_norm_backward(&plain[part.clone()], scale, &inverse[heads.clone()], spare, d_row, d_scale);
    }
}
