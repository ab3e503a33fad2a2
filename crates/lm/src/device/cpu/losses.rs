//! The loss at one place, and its gradient in the place of the logits.

use super::Scratch;
use super::divergence::{Aim, Classes};
use crate::device::{Loss, Question, Teacher};
use crate::kernel::{exponentials, scale, sum};

/// Answers a question; `row` has the logits and takes their gradient.
pub(super) fn answer(row: &mut [f32], question: &Question<'_>, aim: &Aim, scratch: &mut Scratch) {
    let (token, weight) = (question.token as usize, question.weight);
    let Scratch { loss, taken, classes, .. } = scratch;
    match question.teacher.filter(|known| !known.is_empty()) {
        None => predict(row, token, weight, loss),
        Some(known) if aim.is_plain() && known.len() < row.len() => {
            imitate(row, token, known, aim.share, weight, taken, loss);
        }
        Some(known) => approach(row, token, known, aim, weight, classes, loss),
    }
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
