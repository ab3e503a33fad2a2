//! The output head: logits, loss and their gradient, some rows at a time. The logits of all rows are never held.

use super::{Model, Pack, Sink, Tape, Target};
use crate::device::{Aim, Device, Question, Stretch, Teacher};
use crate::kernel::{View, ViewMut, Write};
use crate::score::Likeliest;

/// The loss at the picked rows, whose sums [`Device::lost`] has then, and its gradient: that of the picked rows goes to the
/// tape, that of the head to `gradient` if it wants it. `weight` says what the gradient of a target weighs, which may be
/// below 0; where a target has a teacher, `aim` says what of it goes to which divergence.
#[expect(clippy::too_many_arguments, reason = "what is computed, and what is asked of it")]
pub(crate) fn loss<'data, D: Device>(
    device: &D,
    model: &Model<'_, D>,
    pack: &Pack,
    tape: &mut Tape<D>,
    teacher: impl Fn(&Target) -> Option<Teacher<'data>>,
    aim: &Aim,
    weight: impl Fn(&Target) -> f32,
    gradient: &mut dyn Sink<D>,
) {
    let (d, vocab) = (model.config.hidden_size, model.config.vocab_size);
    let matrix = View::new(model.output(), vocab, d);
    let ask = |target: &Target| Question { token: target.token, weight: weight(target), teacher: teacher(target) };
    let questions: Vec<Question<'_>> = pack.targets.iter().map(ask).collect();
    device.room(&mut tape.d_normed, questions.len() * d);
    device.begin_losses(questions.len(), &mut tape.scratch);
    let rows = device.logit_rows(vocab);
    for (chunk, questions) in questions.chunks(rows).enumerate() {
        let (at, count) = (chunk * rows * d, questions.len());
        let here = at..at + count * d;
        let logits = device.room(&mut tape.logits, count * vocab);
        let normed = View::new(tape.normed.part(here.clone()), count, d);
        device.multiply(ViewMut::new(logits, count, vocab), Write::Over, 1.0, normed, matrix.transposed());
        device.losses(logits, vocab, questions, aim, &mut tape.scratch);
        let d_logits = View::new(&*logits, count, vocab);
        let d_normed = ViewMut::new(tape.d_normed.part_mut(here), count, d);
        device.multiply(d_normed, Write::Over, 1.0, d_logits, matrix);
        if let Some(d_matrix) = gradient.head() {
            device.multiply(ViewMut::new(d_matrix, vocab, d), Write::Add, 1.0, d_logits.transposed(), normed);
        }
    }
}

/// Calls `visit` with the logits of each picked row, which it may change.
pub(crate) fn logits<D: Device>(
    device: &D,
    model: &Model<'_, D>,
    pack: &Pack,
    tape: &mut Tape<D>,
    mut visit: impl FnMut(&Target, &mut [f32]),
) {
    let vocab = model.config.vocab_size;
    let rows = device.logit_rows(vocab);
    for (chunk, targets) in pack.targets.chunks(rows).enumerate() {
        let logits = rows_of_logits(device, model, tape, chunk * rows, targets.len());
        device.visit(logits, |logits| {
            for (row, target) in logits.chunks_exact_mut(vocab).zip(targets) {
                visit(target, row);
            }
        });
    }
}

/// Calls `visit` with the log-probability of each target, and whether it is the likeliest token at its place.
pub(crate) fn logprobs<D: Device>(
    device: &D,
    model: &Model<'_, D>,
    pack: &Pack,
    tape: &mut Tape<D>,
    mut visit: impl FnMut(&Target, f32, bool),
) {
    let vocab = model.config.vocab_size;
    let rows = device.logit_rows(vocab);
    for (chunk, targets) in pack.targets.chunks(rows).enumerate() {
        let tokens: Vec<u32> = targets.iter().map(|target| target.token).collect();
        rows_of_logits(device, model, tape, chunk * rows, targets.len());
        let logits = device.room(&mut tape.logits, targets.len() * vocab);
        let mut targets = targets.iter();
        device.logprobs(logits, vocab, &tokens, &mut tape.scratch, |logprob, likeliest| {
            if let Some(target) = targets.next() {
                visit(target, logprob, likeliest);
            }
        });
    }
}

/// Calls `visit` with the `k` likeliest tokens at each target.
pub(crate) fn top<D: Device>(
    device: &D,
    model: &Model<'_, D>,
    pack: &Pack,
    tape: &mut Tape<D>,
    k: usize,
    mut visit: impl FnMut(&Target, Likeliest),
) {
    let vocab = model.config.vocab_size;
    let rows = device.logit_rows(vocab);
    for (chunk, targets) in pack.targets.chunks(rows).enumerate() {
        rows_of_logits(device, model, tape, chunk * rows, targets.len());
        let logits = device.room(&mut tape.logits, targets.len() * vocab);
        let mut targets = targets.iter();
        device.top(logits, vocab, k, &mut tape.scratch, |place| {
            if let Some(target) = targets.next() {
                visit(target, place);
            }
        });
    }
}

/// Calls `visit` with the logits that two networks of one vocabulary give at each picked row.
pub(crate) fn logits_of_two<D: Device>(
    device: &D,
    (one, one_tape): (&Model<'_, D>, &mut Tape<D>),
    (two, two_tape): (&Model<'_, D>, &mut Tape<D>),
    pack: &Pack,
    mut visit: impl FnMut(&mut [f32], &mut [f32]),
) {
    let vocab = one.config.vocab_size;
    let rows = device.logit_rows(vocab);
    for chunk in (0..pack.targets.len()).step_by(rows) {
        let count = rows.min(pack.targets.len() - chunk);
        let first = rows_of_logits(device, one, one_tape, chunk, count);
        let second = rows_of_logits(device, two, two_tape, chunk, count);
        device.visit(first, |first| {
            device.visit(second, |second| {
                let both = first.chunks_exact_mut(vocab).zip(second.chunks_exact_mut(vocab));
                both.for_each(|(one, two)| visit(one, two));
            });
        });
    }
}

/// The logits of `count` picked rows from `first` on.
fn rows_of_logits<'tape, D: Device>(
    device: &D,
    model: &Model<'_, D>,
    tape: &'tape mut Tape<D>,
    first: usize,
    count: usize,
) -> &'tape mut D::Slice {
    let (d, vocab) = (model.config.hidden_size, model.config.vocab_size);
    let logits = device.room(&mut tape.logits, count * vocab);
    let matrix = View::new(model.output(), vocab, d).transposed();
    let normed = View::new(tape.normed.part(first * d..(first + count) * d), count, d);
    device.multiply(ViewMut::new(logits, count, vocab), Write::Over, 1.0, normed, matrix);
    logits
}
