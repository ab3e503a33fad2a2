//! The output head: logits, loss and their gradient, some rows at a time. The logits of all rows are never held.

use super::divergence::{Aim, Classes};
use super::{Pack, Sink, Tape, Target, room};
use crate::Network;
use crate::kernel::{View, ViewMut, Write, exponentials, multiply, scale, sum};

/// Rows whose logits are held at once.
const CHUNK: usize = 128;

/// A teacher's likeliest tokens at one place with their log-probabilities; the rest of its mass is one class.
pub(crate) type Teacher<'data> = &'data [(u32, f32)];

/// Sums over targets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loss {
    /// What is minimised.
    pub(crate) mixed: f64,
    /// Cross-entropy with the targets.
    pub(crate) cross_entropy: f64,
    /// Divergence from the teacher, over the targets that have one.
    pub(crate) divergence: f64,
    /// Targets.
    pub(crate) targets: u64,
    /// Targets with a teacher.
    pub(crate) taught: u64,
}

impl Loss {
    pub(crate) fn add(&mut self, other: &Self) {
        self.mixed += other.mixed;
        self.cross_entropy += other.cross_entropy;
        self.divergence += other.divergence;
        self.targets += other.targets;
        self.taught += other.taught;
    }
}

/// The loss at the picked rows, and its gradient: that of the picked rows goes to the tape, that of the head to `gradient`
/// if it wants it. `weight` says what the gradient of a target weighs, which may be below 0; where a target has a teacher,
/// `aim` says what of it goes to which divergence. The sums of the [`Loss`] are not weighed.
pub(crate) fn loss<'data>(
    network: &Network,
    pack: &Pack,
    tape: &mut Tape,
    teacher: impl Fn(&Target) -> Option<Teacher<'data>>,
    aim: &Aim,
    weight: impl Fn(&Target) -> f32,
    gradient: &mut dyn Sink,
) -> Loss {
    let (d, vocab) = (network.config.hidden_size, network.config.vocab_size);
    let matrix = View::new(network.weights.output(), vocab, d);
    room(&mut tape.d_normed, pack.targets.len() * d);
    let mut total = Loss::default();
    for (chunk, targets) in pack.targets.chunks(CHUNK).enumerate() {
        let (at, count) = (chunk * CHUNK * d, targets.len());
        let logits = room(&mut tape.logits, count * vocab);
        let normed = View::new(&tape.normed[at..], count, d);
        multiply(ViewMut::new(logits, count, vocab), Write::Over, 1.0, normed, matrix.transposed());
        for (row, target) in logits.chunks_exact_mut(vocab).zip(targets) {
            let (token, weight) = (target.token as usize, weight(target));
            match teacher(target).filter(|known| !known.is_empty()) {
                None => predict(row, token, weight, &mut total),
                Some(known) if aim.is_plain() && known.len() < vocab => {
                    imitate(row, token, known, aim.share, weight, &mut tape.taken, &mut total);
                }
                Some(known) => approach(row, token, known, aim, weight, &mut tape.classes, &mut total),
            }
        }
        let d_logits = View::new(logits, count, vocab);
        multiply(ViewMut::new(&mut tape.d_normed[at..], count, d), Write::Over, 1.0, d_logits, matrix);
        if let Some(d_matrix) = gradient.head() {
            multiply(ViewMut::new(d_matrix, vocab, d), Write::Add, 1.0, d_logits.transposed(), normed);
        }
    }
    total
}

/// Calls `visit` with the logits of each picked row, which it may change.
pub(crate) fn logits(network: &Network, pack: &Pack, tape: &mut Tape, mut visit: impl FnMut(&Target, &mut [f32])) {
    let vocab = network.config.vocab_size;
    for (chunk, targets) in pack.targets.chunks(CHUNK).enumerate() {
        let logits = rows_of_logits(network, tape, chunk * CHUNK, targets.len());
        for (row, target) in logits.chunks_exact_mut(vocab).zip(targets) {
            visit(target, row);
        }
    }
}

/// Calls `visit` with the logits that two networks of one vocabulary give at each picked row.
pub(crate) fn logits_of_two(
    (one, one_tape): (&Network, &mut Tape),
    (two, two_tape): (&Network, &mut Tape),
    pack: &Pack,
    mut visit: impl FnMut(&mut [f32], &mut [f32]),
) {
    let vocab = one.config.vocab_size;
    for chunk in (0..pack.targets.len()).step_by(CHUNK) {
        let count = CHUNK.min(pack.targets.len() - chunk);
        let (first, second) =
            (rows_of_logits(one, one_tape, chunk, count), rows_of_logits(two, two_tape, chunk, count));
        first.chunks_exact_mut(vocab).zip(second.chunks_exact_mut(vocab)).for_each(|(one, two)| visit(one, two));
    }
}

/// The logits of `count` picked rows from `first` on.
fn rows_of_logits<'tape>(network: &Network, tape: &'tape mut Tape, first: usize, count: usize) -> &'tape mut [f32] {
    let (d, vocab) = (network.config.hidden_size, network.config.vocab_size);
    let logits = room(&mut tape.logits, count * vocab);
    let matrix = View::new(network.weights.output(), vocab, d).transposed();
    let normed = View::new(&tape.normed[first * d..], count, d);
    multiply(ViewMut::new(logits, count, vocab), Write::Over, 1.0, normed, matrix);
    logits
}

/// Cross-entropy: turns logits into their gradient.
fn predict(row: &mut [f32], target: usize, weight: f32, total: &mut Loss) {
    let logit = row[target];
    let (largest, sum) = exponentials(row);
    let loss = f64::from(largest - logit + sum.ln());
    scale(row, weight / sum);
    row[target] -= weight;
    total.mixed += loss;
    total.cross_entropy += loss;
    total.targets += 1;
}

/// A mixture of cross-entropy and the divergence from the teacher, KL(teacher || student), over the teacher's tokens and
/// one class for all others: turns logits into their gradient.
///
/// With p and q the probabilities of teacher and student, and r their mass on the other tokens, the gradient of the
/// divergence is `q_j - p_j` for a token of the teacher and `q_j (1 - r_p / r_q)` for any other.
fn imitate(
    row: &mut [f32],
    target: usize,
    teacher: Teacher<'_>,
    share: f32,
    weight: f32,
    taken: &mut Vec<f32>,
    total: &mut Loss,
) {
    // Keeps the ratio finite when the student has no mass left for the other tokens.
    const LEAST: f32 = 1e-12;
    let logit = row[target];
    taken.clear();
    taken.extend(teacher.iter().map(|&(token, _)| row[token as usize]));
    let (largest, _) = exponentials(row);

    // Log-probabilities rounded to a few digits may add up to a little more than 1.
    let mass: f32 = teacher.iter().map(|(_, logprob)| logprob.exp()).sum();
    let shift = if mass > 1.0 { mass.ln() } else { 0.0 };
    let teacher_rest = (1.0 - mass).max(0.0);
    let mut divergence = 0.0;
    let mut known = 0.0;
    for (&(token, logprob), taken) in teacher.iter().zip(taken.iter_mut()) {
        let logprob = logprob - shift;
        divergence += logprob.exp() * (logprob - (*taken - largest));
        *taken = std::mem::take(&mut row[token as usize]);
        known += *taken;
    }
    // Summing the others afresh is exact where one minus the teacher's tokens would cancel.
    let rest = sum(row);
    let whole = known + rest;
    let student_rest = (rest / whole).max(LEAST);
    divergence += (1.0 - teacher_rest) * whole.ln();
    if teacher_rest > 0.0 {
        divergence += teacher_rest * (teacher_rest / student_rest).ln();
    }
    let cross_entropy = largest - logit + whole.ln();

    scale(row, weight * (1.0 - share * teacher_rest / student_rest) / whole);
    for (&(token, logprob), &taken) in teacher.iter().zip(taken.iter()) {
        row[token as usize] = weight * (taken / whole - share * (logprob - shift).exp());
    }
    row[target] -= weight * (1.0 - share);

    total.mixed += f64::from((1.0 - share) * cross_entropy + share * divergence);
    total.cross_entropy += f64::from(cross_entropy);
    total.divergence += f64::from(divergence);
    total.targets += 1;
    total.taught += 1;
}

/// A mixture of cross-entropy and any divergence at any temperature, over the teacher's tokens and one class for all
/// others, unless the teacher names every token: turns logits into their gradient.
///
/// The temperature is applied to the classes. That is exact where every token is one; where the others are one class it
/// keeps what the two must have in common: they are as far apart as can be seen, and not at all where the classes agree.
///
/// With g the gradient by the logarithms of the classes and q the student's probabilities, the gradient of the divergence
/// is `g` for a token of the teacher and `g q_j / q` for one of the others, whose class has `g` and `q`.
fn approach(
    row: &mut [f32],
    target: usize,
    teacher: Teacher<'_>,
    aim: &Aim,
    weight: f32,
    classes: &mut Classes,
    total: &mut Loss,
) {
    // What log-probabilities of 32 bits cannot tell from nothing; a teacher whose tokens take all its mass has so much for
    // the others.
    const LEAST: f64 = 1e-7;
    let logit = row[target];
    let every_token = teacher.len() == row.len();
    let Classes { teacher: told, student: own, taken } = &mut *classes;
    told.clear();
    told.extend(teacher.iter().map(|&(_, logprob)| f64::from(logprob)));
    own.clear();
    own.extend(teacher.iter().map(|&(token, _)| f64::from(row[token as usize])));
    let (largest, _) = exponentials(row);
    taken.clear();
    taken.extend(teacher.iter().map(|&(token, _)| std::mem::take(&mut row[token as usize])));
    // Summing the others afresh is exact where one minus the teacher's tokens would cancel.
    let rest = if every_token { 0.0 } else { f64::from(sum(row)) };
    let whole = taken.iter().map(|&taken| f64::from(taken)).sum::<f64>() + rest;
    let (largest, logsum) = (f64::from(largest), whole.ln());
    own.iter_mut().for_each(|logit| *logit -= largest + logsum);
    // Keeps the logarithm finite.
    let student_rest = (rest / whole).max(1e-30);
    if !every_token {
        let mass: f64 = told.iter().map(|logprob| logprob.exp()).sum();
        told.push((1.0 - mass).max(LEAST).ln());
        own.push(student_rest.ln());
    }
    let cross_entropy = largest + logsum - f64::from(logit);
    let divergence = classes.compare(aim.divergence, aim.temperature);

    let (share, weighed) = (f64::from(aim.share), f64::from(weight));
    let Classes { student: slopes, taken, .. } = &*classes;
    if let Some(slope) = slopes.get(teacher.len()) {
        scale(row, (weighed * ((1.0 - share) + share * slope / student_rest) / whole) as f32);
    }
    for ((&(token, _), &taken), slope) in teacher.iter().zip(taken).zip(slopes) {
        row[token as usize] = (weighed * ((1.0 - share) * f64::from(taken) / whole + share * slope)) as f32;
    }
    row[target] -= weight * (1.0 - aim.share);

    total.mixed += (1.0 - share) * cross_entropy + share * aim.temperature.powi(2) * divergence;
    total.cross_entropy += cross_entropy;
    total.divergence += divergence;
    total.targets += 1;
    total.taught += 1;
}
