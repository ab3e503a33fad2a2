//! Attention of one new position over everything before it.

use std::ops::Range;

use super::dispatch::{dispatched, exp};

/// How many positions of the keys lie side by side: enough independent sums to keep the adders busy.
pub(crate) const KEY_BLOCK: usize = 64;

dispatched! {
    /// Attention of one position (Vaswani et al. 2017; grouped heads: Ainslie et al. 2023): `query` holds its heads one
    /// after the other, `out` takes their results in the same order, and the positions from `start` to before `end`,
    /// itself the last, are seen.
    ///
    /// `keys` and `values` hold `capacity` positions for each of the `kv_heads`, which the query heads share evenly. The
    /// keys of a head lie in blocks of [`KEY_BLOCK`] positions, in each block `head_dim` rows of one number a position;
    /// the values lie position by position. `scores` is room for `capacity` numbers.
    fn attend(
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        capacity: usize,
        start: usize,
        end: usize,
        head_dim: usize,
        kv_heads: usize,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let group = query.len() / (head_dim * kv_heads);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let heads = query.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
        for (head, (query, out)) in heads.enumerate() {
            let place = head / group * head_dim * capacity;
            let keys = &keys[place..place + head_dim * capacity];
            let values = &values[place..place + head_dim * capacity];
            score(query, scale, keys, start..end, scores);
            let sum = exponentials(&mut scores[start..end]);
            weigh(&scores[start..end], &values[start * head_dim..], 1.0 / sum, out);
        }
    }
}

#[inline(always)]
fn score(query: &[f32], scale: f32, keys: &[f32], seen: Range<usize>, scores: &mut [f32]) {
    let blocks = keys.chunks_exact(KEY_BLOCK * query.len()).zip(scores.chunks_exact_mut(KEY_BLOCK));
    for (keys, scores) in blocks.take(seen.end.div_ceil(KEY_BLOCK)).skip(seen.start / KEY_BLOCK) {
        let mut sums = [0.0; KEY_BLOCK];
        for (row, &query) in keys.chunks_exact(KEY_BLOCK).zip(query) {
            for (sum, &key) in sums.iter_mut().zip(row) {
                *sum += query * key;
            }
        }
        for (score, sum) in scores.iter_mut().zip(sums) {
            *score = sum * scale;
        }
    }
}

/// Turns scores into `exp(score - largest)` and gives their sum.
#[inline(always)]
fn exponentials(scores: &mut [f32]) -> f32 {
    let mut largest = f32::NEG_INFINITY;
    for &score in scores.iter() {
        largest = if score > largest { score } else { largest };
    }
    let mut sums = [0.0; 16];
    let mut chunks = scores.chunks_exact_mut(16);
    for chunk in &mut chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp(*score - largest);
            *sum += *score;
        }
    }
    let mut tail = 0.0;
    for score in chunks.into_remainder() {
        *score = exp(*score - largest);
        tail += *score;
    }
    sums.iter().sum::<f32>() + tail
}

#[inline(always)]
fn weigh(weights: &[f32], values: &[f32], scale: f32, out: &mut [f32]) {
    match out.len() {
        32 => weigh_fixed::<32>(weights, values, scale, out),
        64 => weigh_fixed::<64>(weights, values, scale, out),
        128 => weigh_fixed::<128>(weights, values, scale, out),
        width => {
            out.fill(0.0);
            for (value, &weight) in values.chunks_exact(width).zip(weights) {
                for (out, &value) in out.iter_mut().zip(value) {
                    *out += weight * value;
                }
            }
            for out in out {
                *out *= scale;
            }
        }
    }
}

/// The usual widths keep their sums in registers.
#[inline(always)]
fn weigh_fixed<const WIDTH: usize>(weights: &[f32], values: &[f32], scale: f32, out: &mut [f32]) {
    let mut sums = [0.0; WIDTH];
    for (value, &weight) in values.chunks_exact(WIDTH).zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(value) {
            *sum += weight * value;
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum * scale;
    }
}
