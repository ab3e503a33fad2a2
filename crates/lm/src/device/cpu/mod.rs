//! The processor: memory is the program's own, and the arithmetic is that of [`kernel`], in the calling thread.

mod attention;
mod divergence;
mod heads;
mod losses;

use std::ops::Range;

pub(crate) use divergence::Aim;
pub(crate) use heads::norm_heads;

use super::{Angles, Attended, Device, HeadNorms, Kind, Laid, Loss, Question, Stretch, Way};
use crate::Config;
use crate::graph::Pack;
use crate::kernel::{self, View, ViewMut, Write};
use crate::score::{self, Likeliest};

/// The processor, one thread of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu;

/// Buffers for what is computed on the way.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Attention scores of one tile.
    scores: Vec<f32>,
    /// Gradient of `scores`.
    d_scores: Vec<f32>,
    /// Inner products of attention's output and its gradient.
    shared: Vec<f32>,
    /// Gradient of the heads of one row.
    spare: Vec<f32>,
    /// Logits and exponentials of a teacher's tokens.
    taken: Vec<f32>,
    classes: divergence::Classes,
    /// Log-probabilities of one row.
    logprobs: Vec<f32>,
    loss: Loss,
}

impl Stretch for [f32] {
    #[inline]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn part(&self, range: Range<usize>) -> &Self {
        &self[range]
    }

    #[inline]
    fn part_mut(&mut self, range: Range<usize>) -> &mut Self {
        &mut self[range]
    }
}

impl Device for Cpu {
    type Slice = [f32];
    type Buffer = Vec<f32>;
    type Laid = ();
    type Scratch = Scratch;

    /// Measured on two cores: fewer make the gradient buffers travel through memory more often, more push the activations out
    /// of the cache.
    fn pack_rows(&self) -> usize {
        512
    }

    fn logit_rows(&self, _: usize) -> usize {
        128
    }

    fn room<'b>(&self, buffer: &'b mut Vec<f32>, length: usize) -> &'b mut [f32] {
        room(buffer, length)
    }

    fn put(&self, numbers: &[f32], to: &mut [f32]) {
        to.copy_from_slice(numbers);
    }

    fn visit(&self, numbers: &mut [f32], visit: impl FnOnce(&mut [f32])) {
        visit(numbers);
    }

    fn lay(&self, _: &Pack, (): &mut ()) {}

    fn copy(&self, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn clear(&self, to: &mut [f32]) {
        to.fill(0.0);
    }

    fn multiply(&self, out: ViewMut<'_>, write: Write, scale: f32, left: View<'_>, right: View<'_>) {
        kernel::multiply(out, write, scale, left, right);
    }

    fn embed(&self, laid: Laid<'_, Self>, table: &[f32], width: usize, out: &mut [f32]) {
        for (row, &token) in out.chunks_exact_mut(width).zip(&laid.pack.tokens) {
            row.copy_from_slice(&table[token as usize * width..][..width]);
        }
    }

    fn embed_backward(&self, laid: Laid<'_, Self>, x: &[f32], width: usize, d_table: &mut [f32]) {
        for (row, &token) in x.chunks_exact(width).zip(&laid.pack.tokens) {
            kernel::add(&mut d_table[token as usize * width..][..width], row);
        }
    }

    fn pick(&self, laid: Laid<'_, Self>, x: &[f32], width: usize, out: &mut [f32]) {
        for (row, target) in out.chunks_exact_mut(width).zip(&laid.pack.targets) {
            row.copy_from_slice(&x[target.row * width..][..width]);
        }
    }

    fn unpick(&self, laid: Laid<'_, Self>, picked: &[f32], width: usize, out: &mut [f32]) {
        for (row, target) in picked.chunks_exact(width).zip(&laid.pack.targets) {
            out[target.row * width..][..width].copy_from_slice(row);
        }
    }

    fn rms_norm(&self, x: &[f32], scale: &[f32], epsilon: f32, out: &mut [f32], inverse: &mut [f32]) {
        kernel::rms_norm(x, scale, epsilon, out, inverse);
    }

    fn rms_norm_backward(
        &self,
        x: &[f32],
        scale: &[f32],
        inverse: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        d_scale: &mut [f32],
        _: &mut Scratch,
    ) {
        kernel::rms_norm_backward(x, scale, inverse, dy, dx, d_scale);
    }

    fn norm_heads(
        &self,
        config: &Config,
        scales: &HeadNorms<'_, [f32]>,
        qkv: &mut [f32],
        plain: &mut [f32],
        inverse: &mut [f32],
    ) {
        norm_heads(config, scales, qkv, plain, inverse);
    }

    fn norm_heads_backward(
        &self,
        config: &Config,
        kind: Kind,
        scale: &[f32],
        before: (&[f32], &[f32]),
        d_qkv: &mut [f32],
        d_scale: &mut [f32],
        scratch: &mut Scratch,
    ) {
        heads::norm_heads_backward(config, kind, scale, before, d_qkv, &mut scratch.spare, d_scale);
    }

    fn rotate(
        &self,
        laid: Laid<'_, Self>,
        x: &mut [f32],
        row_step: usize,
        heads: usize,
        angles: &Angles<'_, [f32]>,
        way: Way,
    ) {
        let turn = if way == Way::There { kernel::rotate } else { kernel::rotate_back };
        turn(x, row_step, heads, angles.half, &laid.pack.positions, angles.cosines, angles.sines);
    }

    fn attend(
        &self,
        config: &Config,
        window: usize,
        laid: Laid<'_, Self>,
        qkv: &[f32],
        context: &mut [f32],
        logsums: &mut [f32],
        scratch: &mut Scratch,
    ) {
        attention::forward(config, window, &laid.pack.spans, qkv, context, logsums, scratch);
    }

    fn attend_backward(
        &self,
        config: &Config,
        window: usize,
        laid: Laid<'_, Self>,
        from: &Attended<'_, [f32]>,
        d_context: &[f32],
        d_qkv: &mut [f32],
        scratch: &mut Scratch,
    ) {
        attention::backward(config, window, &laid.pack.spans, from, d_context, d_qkv, scratch);
    }

    fn silu_gate(&self, gate_up: &[f32], width: usize, out: &mut [f32]) {
        kernel::silu_gate(gate_up, width, out);
    }

    fn silu_gate_backward(&self, gate_up: &mut [f32], width: usize, d_out: &mut [f32]) {
        kernel::silu_gate_backward(gate_up, width, d_out);
    }

    fn add_to_rows(&self, x: &mut [f32], row: &[f32]) {
        kernel::add_to_rows(x, row);
    }

    fn sum_rows(&self, sum: &mut [f32], x: &[f32], _: &mut Scratch) {
        kernel::sum_rows(sum, x);
    }

    fn begin_losses(&self, _: usize, scratch: &mut Scratch) {
        scratch.loss = Loss::default();
    }

    fn losses(&self, logits: &mut [f32], vocab: usize, questions: &[Question<'_>], aim: &Aim, scratch: &mut Scratch) {
        for (row, question) in logits.chunks_exact_mut(vocab).zip(questions) {
            losses::answer(row, question, aim, scratch);
        }
    }

    fn lost(&self, scratch: &mut Scratch) -> Loss {
        scratch.loss
    }

    fn logprobs(
        &self,
        logits: &mut [f32],
        vocab: usize,
        tokens: &[u32],
        _: &mut Scratch,
        mut each: impl FnMut(f32, bool),
    ) {
        for (row, &token) in logits.chunks_exact_mut(vocab).zip(tokens) {
            let logit = row[token as usize];
            let (largest, sum) = kernel::exponentials(row);
            each(logit - largest - sum.ln(), logit >= largest);
        }
    }

    fn top(&self, logits: &mut [f32], vocab: usize, k: usize, scratch: &mut Scratch, mut each: impl FnMut(Likeliest)) {
        for row in logits.chunks_exact_mut(vocab) {
            score::normalise(row, &mut scratch.logprobs);
            each(score::top(&scratch.logprobs, k));
        }
    }
}

/// The first `length` numbers of a buffer that only ever grows; what stands in them is left over from before.
fn room(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}
