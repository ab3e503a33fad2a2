//! Softmax, whole and causal, and its way back.

use super::dispatch::{LANES, dispatched, exp, sum_of};

dispatched! {
    /// Turns a row of logits into `exp(logit - largest)`; gives the largest logit and the sum.
    fn exponentials(row: &mut [f32]) -> (f32, f32) {
        shifted_exponentials(row)
    }

    /// The sum of a row.
    fn sum(row: &[f32]) -> f32 {
        sum_of(row, row, |x, _| x)
    }

    /// Turns attention scores into probabilities. Row `i` of `scores` may see the last `window` of its first
    /// `first + i + 1` columns; the others become 0. `logsums` takes the logarithm of each row's sum, for the way back.
    fn causal_softmax(scores: &mut [f32], cols: usize, first: usize, window: usize, logsums: &mut [f32]) {
        for (index, (row, logsum)) in scores.chunks_exact_mut(cols).zip(logsums).enumerate() {
            let seen = only_seen(row, first + index + 1, window);
            let (largest, sum) = shifted_exponentials(seen);
            let scale = 1.0 / sum;
            for value in seen {
                *value *= scale;
            }
            *logsum = largest + sum.ln();
        }
    }

    /// The same probabilities again, from the same scores and the logarithms that [`causal_softmax`] kept.
    fn causal_softmax_again(scores: &mut [f32], cols: usize, first: usize, window: usize, logsums: &[f32]) {
        for (index, (row, &logsum)) in scores.chunks_exact_mut(cols).zip(logsums).enumerate() {
            for value in only_seen(row, first + index + 1, window) {
                *value = exp(*value - logsum);
            }
        }
    }

    /// The way back through a softmax: turns the gradient of the probabilities into that of the scores, both `cols`
    /// wide; `shared` holds for each row the inner product of probabilities and gradient.
    fn score_gradient(gradient: &mut [f32], probabilities: &[f32], cols: usize, shared: &[f32]) {
        let rows = gradient.chunks_exact_mut(cols).zip(probabilities.chunks_exact(cols));
        for ((gradient, probabilities), &shared) in rows.zip(shared) {
            for (gradient, &probability) in gradient.iter_mut().zip(probabilities) {
                *gradient = probability * (*gradient - shared);
            }
        }
    }
}

/// The last `window` of the first `end` columns; the others become 0.
#[inline(always)]
fn only_seen(row: &mut [f32], end: usize, window: usize) -> &mut [f32] {
    let (seen, later) = row.split_at_mut(end);
    let (earlier, seen) = seen.split_at_mut(end.saturating_sub(window));
    earlier.fill(0.0);
    later.fill(0.0);
    seen
}

#[inline(always)]
fn shifted_exponentials(row: &mut [f32]) -> (f32, f32) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for lane in 0..LANES {
            // A plain comparison vectorises; `f32::max` also orders NaN, which costs.
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    let largest = lanes.iter().copied().fold(tail, f32::max);
    let mut sums = [0.0; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            sums[lane] += chunk[lane];
        }
    }
    let mut tail = 0.0;
    for value in chunks.into_remainder() {
        *value = exp(*value - largest);
        tail += *value;
    }
    (largest, sums.iter().sum::<f32>() + tail)
}
