//! Norms, rotations and gates.

use super::dispatch::{dispatched, exp, sum_of};

dispatched! {
    /// Root-mean-square norm of each row of `x` (Zhang and Sennrich 2019): `out = x * inverse * scale`, where `inverse`,
    /// one number a row, is kept for the way back.
    fn rms_norm(x: &[f32], scale: &[f32], epsilon: f32, out: &mut [f32], inverse: &mut [f32]) {
        let width = scale.len();
        for ((x, out), inverse) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(inverse) {
            let square = sum_of(x, x, |a, b| a * b);
            let r = 1.0 / (square / width as f32 + epsilon).sqrt();
            for ((out, &x), &scale) in out.iter_mut().zip(x).zip(scale) {
                *out = x * r * scale;
            }
            *inverse = r;
        }
    }

    /// The way back through [`rms_norm`]: adds to `dx` and `dscale`.
    fn rms_norm_backward(x: &[f32], scale: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32], dscale: &mut [f32]) {
        let width = scale.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (((x, dy), dx), &r) in rows.zip(inverse) {
            for ((dscale, &x), &dy) in dscale.iter_mut().zip(x).zip(dy) {
                *dscale += dy * x * r;
            }
            // `dx` must be read for the sum below, so the product with the scale is formed twice instead of stored.
            let mut lanes = [0.0; 16];
            let mut tail = 0.0;
            let whole = width - width % 16;
            for start in (0..whole).step_by(16) {
                let (x, dy, scale) = (&x[start..start + 16], &dy[start..start + 16], &scale[start..start + 16]);
                for lane in 0..16 {
                    lanes[lane] += dy[lane] * scale[lane] * x[lane];
                }
            }
            for at in whole..width {
                tail += dy[at] * scale[at] * x[at];
            }
            let shared = (lanes.iter().sum::<f32>() + tail) * r * r * r / width as f32;
            for (((dx, &x), &dy), &scale) in dx.iter_mut().zip(x).zip(dy).zip(scale) {
                *dx += dy * scale * r - x * shared;
            }
        }
    }

    /// Rotary positions (Su et al. 2021) in the "rotate half" order of Hugging Face: turns `heads` heads of width
    /// `2 * half` at the start of each row of `x`. Row `i` has position `positions[i]`; `cosines` and `sines` hold `half`
    /// numbers a position.
    fn rotate(x: &mut [f32], row_step: usize, heads: usize, half: usize, positions: &[u32], cosines: &[f32], sines: &[f32]) {
        for (row, &position) in x.chunks_mut(row_step).zip(positions) {
            let at = position as usize * half;
            let (cosines, sines) = (&cosines[at..at + half], &sines[at..at + half]);
            for head in row.chunks_exact_mut(2 * half).take(heads) {
                let (low, high) = head.split_at_mut(half);
                for (((low, high), &cosine), &sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
                    (*low, *high) = (*low * cosine - *high * sine, *high * cosine + *low * sine);
                }
            }
        }
    }

    /// The way back through [`rotate`]: turns the other way.
    fn rotate_back(x: &mut [f32], row_step: usize, heads: usize, half: usize, positions: &[u32], cosines: &[f32], sines: &[f32]) {
        for (row, &position) in x.chunks_mut(row_step).zip(positions) {
            let at = position as usize * half;
            let (cosines, sines) = (&cosines[at..at + half], &sines[at..at + half]);
            for head in row.chunks_exact_mut(2 * half).take(heads) {
                let (low, high) = head.split_at_mut(half);
                for (((low, high), &cosine), &sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
                    (*low, *high) = (*low * cosine + *high * sine, *high * cosine - *low * sine);
                }
            }
        }
    }

    /// The gated unit (Shazeer 2020): rows of `gate_up` hold `width` gates, then `width` values;
    /// `out = gate * sigmoid(gate) * value`.
    fn silu_gate(gate_up: &[f32], width: usize, out: &mut [f32]) {
        for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate / (1.0 + exp(-gate)) * up;
            }
        }
    }

    /// The way back through [`silu_gate`]: turns `gate_up` into its gradient and `d_out` back into the unit's output,
    /// which the gradient of the next matrix needs.
    fn silu_gate_backward(gate_up: &mut [f32], width: usize, d_out: &mut [f32]) {
        for (row, d_out) in gate_up.chunks_exact_mut(2 * width).zip(d_out.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at_mut(width);
            for ((d_out, gate), up) in d_out.iter_mut().zip(gate).zip(up) {
                let sigmoid = 1.0 / (1.0 + exp(-*gate));
                let silu = *gate * sigmoid;
                let (d, g, u) = (*d_out, *gate, *up);
                *d_out = silu * u;
                *gate = d * u * sigmoid * (1.0 + g * (1.0 - sigmoid));
                *up = d * silu;
            }
        }
    }

    /// Adds `x` to `sum`.
    fn add(sum: &mut [f32], x: &[f32]) {
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    }

    /// Adds `row` to each row of `x`; an empty one stands for none.
    fn add_to_rows(x: &mut [f32], row: &[f32]) {
        if row.is_empty() {
            return;
        }
        for x in x.chunks_exact_mut(row.len()) {
            for (x, &row) in x.iter_mut().zip(row) {
                *x += row;
            }
        }
    }

    /// Adds the rows of `x` to `sum`: the way back through [`add_to_rows`].
    fn sum_rows(sum: &mut [f32], x: &[f32]) {
        if sum.is_empty() {
            return;
        }
        for x in x.chunks_exact(sum.len()) {
            for (sum, &x) in sum.iter_mut().zip(x) {
                *sum += x;
            }
        }
    }

    /// Multiplies every number of `row` by `factor`.
    fn scale(row: &mut [f32], factor: f32) {
        for value in row {
            *value *= factor;
        }
    }

    /// The products of matching rows: `out[i]` is the inner product of the `i`-th rows of `a` and `b`, each `width` wide
    /// and `step` apart.
    fn dot_rows(a: &[f32], b: &[f32], width: usize, step: usize, out: &mut [f32]) {
        for ((a, b), out) in a.chunks(step).zip(b.chunks(step)).zip(out) {
            *out = sum_of(&a[..width], &b[..width], |x, y| x * y);
        }
    }
}
