//! Causal attention within each sequence, by tiles of rows: the scores of a whole sequence are never held at once. Where a
//! layer sees a window only, a tile begins at the first row that its first row sees, so what no row sees is not computed.

use std::ops::Range;

use super::{Scratch, room};
use crate::Config;
use crate::device::Attended;
use crate::kernel::{View, ViewMut, Write, causal_softmax, causal_softmax_again, dot_rows, multiply, score_gradient};

/// Rows of one tile.
const TILE: usize = 64;

/// One tile of one head: rows `start..end` look at rows `first..end`.
struct Tile {
    head: usize,
    start: usize,
    end: usize,
    /// Where its queries begin in the rows of queries, keys and values.
    q: usize,
    /// Where its keys begin.
    k: usize,
    /// Where its values begin.
    v: usize,
    /// The first row that it looks at.
    first: usize,
}

impl Tile {
    const fn rows(&self) -> usize {
        self.end - self.start
    }

    const fn seen(&self) -> usize {
        self.end - self.first
    }
}

/// Attends: `context` becomes, for each row and head, the mean of the values under the softmax of the scores. A row sees
/// the last `window` rows of its sequence up to itself.
pub(super) fn forward(
    config: &Config,
    window: usize,
    spans: &[Range<usize>],
    qkv: &[f32],
    context: &mut [f32],
    logsums: &mut [f32],
    scratch: &mut Scratch,
) {
    let scores = &mut scratch.scores;
    let (hd, width, step) = (config.head_dim, config.query_size(), config.query_size() + 2 * config.kv_size());
    let rows = logsums.len() / config.heads;
    for tile in tiles(config, window, spans) {
        let (count, seen) = (tile.rows(), tile.seen());
        let scores = room(scores, count * seen);
        let keys = View::strided(&qkv[tile.k..], seen, hd, step);
        let values = View::strided(&qkv[tile.v..], seen, hd, step);
        let queries = View::strided(&qkv[tile.q..], count, hd, step);
        multiply(ViewMut::new(scores, count, seen), Write::Over, scale(hd), queries, keys.transposed());
        let logsums = &mut logsums[tile.head * rows..][tile.start..tile.end];
        causal_softmax(scores, seen, tile.start - tile.first, window, logsums);
        let out = ViewMut::strided(&mut context[tile.start * width + tile.head * hd..], count, hd, width);
        multiply(out, Write::Over, 1.0, View::new(scores, count, seen), values);
    }
}

/// The way back: the gradient of queries, keys and values. The probabilities are computed again rather than kept, which
/// costs less than reading them from memory would (Dao et al. 2022).
pub(super) fn backward(
    config: &Config,
    window: usize,
    spans: &[Range<usize>],
    from: &Attended<'_, [f32]>,
    d_context: &[f32],
    d_qkv: &mut [f32],
    scratch: &mut Scratch,
) {
    let (hd, width, step) = (config.head_dim, config.query_size(), config.query_size() + 2 * config.kv_size());
    let rows = from.logsums.len() / config.heads;
    let Scratch { scores, d_scores, shared, .. } = scratch;
    d_qkv.fill(0.0);
    let shared = room(shared, TILE);
    for tile in tiles(config, window, spans) {
        let (count, seen) = (tile.rows(), tile.seen());
        let (scores, d_scores) = (room(scores, count * seen), room(d_scores, count * seen));
        let keys = View::strided(&from.qkv[tile.k..], seen, hd, step);
        let values = View::strided(&from.qkv[tile.v..], seen, hd, step);
        let queries = View::strided(&from.qkv[tile.q..], count, hd, step);
        let at = tile.start * width + tile.head * hd;
        let d_out = View::strided(&d_context[at..], count, hd, width);

        multiply(ViewMut::new(scores, count, seen), Write::Over, scale(hd), queries, keys.transposed());
        let logsums = &from.logsums[tile.head * rows..][tile.start..tile.end];
        causal_softmax_again(scores, seen, tile.start - tile.first, window, logsums);
        let probabilities = View::new(scores, count, seen);
        let d_values = ViewMut::strided(&mut d_qkv[tile.v..], seen, hd, step);
        multiply(d_values, Write::Add, 1.0, probabilities.transposed(), d_out);

        multiply(ViewMut::new(d_scores, count, seen), Write::Over, 1.0, d_out, values.transposed());
        dot_rows(&from.context[at..], &d_context[at..], hd, width, &mut shared[..count]);
        score_gradient(d_scores, scores, seen, &shared[..count]);
        let d_scores = View::new(d_scores, count, seen);
        multiply(ViewMut::strided(&mut d_qkv[tile.q..], count, hd, step), Write::Over, scale(hd), d_scores, keys);
        let d_keys = ViewMut::strided(&mut d_qkv[tile.k..], seen, hd, step);
        multiply(d_keys, Write::Add, scale(hd), d_scores.transposed(), queries);
    }
}

fn tiles<'a>(config: &'a Config, window: usize, spans: &'a [Range<usize>]) -> impl Iterator<Item = Tile> + 'a {
    let (hd, group) = (config.head_dim, config.heads / config.kv_heads);
    let (queries, keys) = (config.query_size(), config.kv_size());
    let step = queries + 2 * keys;
    let heads = spans.iter().flat_map(move |span| (0..config.heads).map(move |head| (span, head)));
    heads.flat_map(move |(span, head)| {
        span.clone().step_by(TILE).map(move |start| {
            let first = span.start.max((start + 1).saturating_sub(window));
            let k = first * step + queries + head / group * hd;
            Tile { head, start, end: span.end.min(start + TILE), q: start * step + head * hd, k, v: k + keys, first }
        })
    })
}

fn scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}
