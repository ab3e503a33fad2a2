//! Scoring: how probable given tokens are, and how two networks compare.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::graph::{self, Pack, Tape};
use crate::kernel;
use crate::optimizer::side_by_side;
use crate::{LmError, Network};

/// Rows that pass through the network together.
const ROWS: usize = 512;

/// The probability of one sequence's targets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SequenceScore {
    /// Natural logarithms of the targets' probabilities, in order.
    pub logprobs: Vec<f32>,
    /// Is each target the likeliest token at its place?
    pub greedy: Vec<bool>,
}

impl SequenceScore {
    /// The logarithm of the probability of all targets together.
    pub fn total(&self) -> f64 {
        self.logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
    }
}

/// The likeliest tokens at one place with their log-probabilities, likeliest first.
pub type Likeliest = Vec<(u32, f32)>;

/// How near a student is to its teacher, over all targets of some sequences.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// Mean of KL(teacher || student) over the whole vocabulary, in nats.
    pub kl: f64,
    /// Share of the places at which both find the same token likeliest.
    pub top1: f64,
    /// Places.
    pub positions: u64,
}

/// Scores `tokens[first_target..]` of each `(tokens, first_target)`.
///
/// # Errors
///
/// A sequence is too long, holds an unknown token, or its first target is not at least 1 and below its length.
pub fn score(network: &Network, sequences: &[(&[u32], usize)], threads: usize) -> Result<Vec<SequenceScore>, LmError> {
    check(network, sequences)?;
    let parts = over_packs(sequences, threads, |tape: &mut Tapes, pack| {
        let mut scores = Vec::with_capacity(pack.targets.len());
        let tape = tape.first(network);
        run(network, pack, tape);
        graph::logits(network, pack, tape, |target, row| {
            let logit = row[target.token as usize];
            let (largest, sum) = kernel::exponentials(row);
            scores.push((target.sequence, logit - largest - sum.ln(), logit >= largest));
        });
        scores
    });
    let mut all = vec![SequenceScore::default(); sequences.len()];
    for (sequence, logprob, greedy) in parts.into_iter().flatten() {
        all[sequence].logprobs.push(logprob);
        all[sequence].greedy.push(greedy);
    }
    Ok(all)
}

/// The mean loss over all targets, in nats: the cross-entropy on text that was held out.
///
/// # Errors
///
/// As [`score`].
pub fn mean_loss(network: &Network, sequences: &[(&[u32], usize)], threads: usize) -> Result<f64, LmError> {
    let scores = score(network, sequences, threads)?;
    let targets: usize = scores.iter().map(|score| score.logprobs.len()).sum();
    Ok(-scores.iter().map(SequenceScore::total).sum::<f64>() / targets.max(1) as f64)
}

/// Calls `visit(sequence, place, logprobs)` with the log-probabilities of the whole vocabulary at each target, from
/// several threads; the places of one sequence come in order.
///
/// # Errors
///
/// As [`score`].
pub fn distributions(
    network: &Network,
    sequences: &[(&[u32], usize)],
    threads: usize,
    visit: &(dyn Fn(usize, usize, &[f32]) + Sync),
) -> Result<(), LmError> {
    check(network, sequences)?;
    over_packs(sequences, threads, |tape: &mut Tapes, pack| {
        let tape = tape.first(network);
        run(network, pack, tape);
        let mut logprobs = Vec::new();
        graph::logits(network, pack, tape, |target, row| {
            normalise(row, &mut logprobs);
            visit(target.sequence, target.place, &logprobs);
        });
    });
    Ok(())
}

/// The `k` likeliest tokens at each target with their log-probabilities, likeliest first: what a student learns from.
///
/// # Errors
///
/// As [`score`].
pub fn likeliest(
    network: &Network,
    sequences: &[(&[u32], usize)],
    k: usize,
    threads: usize,
) -> Result<Vec<Vec<Likeliest>>, LmError> {
    told(network, sequences, threads, |logprobs, _| top(logprobs, k))
}

/// The `k` likeliest tokens at each target, and the target itself where it is none of them: what a teacher says of a text
/// that it did not write. Without the target nobody knew how wrong an unlikely one is.
///
/// # Errors
///
/// As [`score`].
pub fn judge(
    network: &Network,
    sequences: &[(&[u32], usize)],
    k: usize,
    threads: usize,
) -> Result<Vec<Vec<Likeliest>>, LmError> {
    told(network, sequences, threads, |logprobs, target| {
        let mut place = top(logprobs, k);
        if place.iter().all(|&(token, _)| token != target) {
            place.push((target, logprobs[target as usize]));
        }
        place
    })
}

/// What `tell` makes of the log-probabilities of the whole vocabulary at each target.
fn told(
    network: &Network,
    sequences: &[(&[u32], usize)],
    threads: usize,
    tell: impl Fn(&[f32], u32) -> Likeliest + Sync,
) -> Result<Vec<Vec<Likeliest>>, LmError> {
    check(network, sequences)?;
    let parts = over_packs(sequences, threads, |tape: &mut Tapes, pack| {
        let mut places = Vec::with_capacity(pack.targets.len());
        let tape = tape.first(network);
        run(network, pack, tape);
        let mut logprobs = Vec::new();
        graph::logits(network, pack, tape, |target, row| {
            normalise(row, &mut logprobs);
            places.push((target.sequence, tell(&logprobs, target.token)));
        });
        places
    });
    let mut all = vec![Vec::new(); sequences.len()];
    for (sequence, place) in parts.into_iter().flatten() {
        all[sequence].push(place);
    }
    Ok(all)
}

/// Compares a student with its teacher at every target.
///
/// # Errors
///
/// As [`score`]; also where the two have different vocabularies.
pub fn compare(
    teacher: &Network,
    student: &Network,
    sequences: &[(&[u32], usize)],
    threads: usize,
) -> Result<Agreement, LmError> {
    let places = of_two(teacher, student, sequences, threads)?;
    let kl: f64 = places.iter().map(|place| place.kl).sum();
    let same = places.iter().filter(|place| place.same_top).count();
    let count = places.len().max(1) as f64;
    Ok(Agreement { kl: kl / count, top1: same as f64 / count, positions: places.len() as u64 })
}

/// KL(teacher || student) over the whole vocabulary at every target of each sequence, in nats.
///
/// # Errors
///
/// As [`compare`].
pub fn divergences(
    teacher: &Network,
    student: &Network,
    sequences: &[(&[u32], usize)],
    threads: usize,
) -> Result<Vec<Vec<f64>>, LmError> {
    let mut all = vec![Vec::new(); sequences.len()];
    for place in of_two(teacher, student, sequences, threads)? {
        all[place.sequence].push(place.kl);
    }
    Ok(all)
}

/// Two networks at one target.
struct OfTwo {
    sequence: usize,
    /// KL(teacher || student), in nats.
    kl: f64,
    /// Do both find the same token likeliest?
    same_top: bool,
}

/// Both networks at every target, in the order of the sequences.
fn of_two(
    teacher: &Network,
    student: &Network,
    sequences: &[(&[u32], usize)],
    threads: usize,
) -> Result<Vec<OfTwo>, LmError> {
    if teacher.config.vocab_size != student.config.vocab_size {
        let (theirs, ours) = (teacher.config.vocab_size, student.config.vocab_size);
        let problem = format!("the teacher has {theirs} tokens and the student {ours}: they cannot be compared");
        return Err(LmError::Setting { name: "vocab_size", problem });
    }
    check(teacher, sequences)?;
    check(student, sequences)?;
    let parts = over_packs(sequences, threads, |tapes: &mut Tapes, pack| {
        let mut places = Vec::with_capacity(pack.targets.len());
        let (p_tape, q_tape) = tapes.both(teacher, student);
        run(teacher, pack, p_tape);
        run(student, pack, q_tape);
        let (mut p, mut q) = (Vec::new(), Vec::new());
        let mut targets = pack.targets.iter();
        graph::logits_of_two((teacher, p_tape), (student, q_tape), pack, |p_row, q_row| {
            normalise(p_row, &mut p);
            normalise(q_row, &mut q);
            let kl = p.iter().zip(&q).map(|(&p, &q)| f64::from(p).exp() * f64::from(p - q)).sum::<f64>();
            if let Some(target) = targets.next() {
                places.push(OfTwo { sequence: target.sequence, kl, same_top: largest(&p) == largest(&q) });
            }
        });
        places
    });
    Ok(parts.into_iter().flatten().collect())
}

fn check(network: &Network, sequences: &[(&[u32], usize)]) -> Result<(), LmError> {
    let mut numbered = sequences.iter().enumerate();
    numbered.try_for_each(|(index, (tokens, first))| graph::check(&network.config, index, tokens, *first))
}

/// The tapes of one thread, for up to two networks.
#[derive(Default)]
struct Tapes(Option<Tape>, Option<Tape>);

impl Tapes {
    fn first(&mut self, network: &Network) -> &mut Tape {
        self.0.get_or_insert_with(|| Tape::new(&network.config))
    }

    fn both(&mut self, one: &Network, two: &Network) -> (&mut Tape, &mut Tape) {
        let Self(first, second) = self;
        let first = first.get_or_insert_with(|| Tape::new(&one.config));
        (first, second.get_or_insert_with(|| Tape::new(&two.config)))
    }
}

fn run(network: &Network, pack: &Pack, tape: &mut Tape) {
    graph::forward(network, pack, tape, false);
    graph::pick(network, pack, tape);
}

/// Packs the sequences in their order and does `job` for each pack, `threads` at a time. The packs do not depend on the
/// number of threads, and the results come in the order of the sequences.
fn over_packs<R: Send>(
    sequences: &[(&[u32], usize)],
    threads: usize,
    job: impl Fn(&mut Tapes, &Pack) -> R + Sync,
) -> Vec<R> {
    let mut packs: Vec<Vec<usize>> = Vec::new();
    let mut rows = ROWS;
    for (index, (tokens, _)) in sequences.iter().enumerate() {
        if rows + tokens.len() > ROWS {
            packs.push(Vec::new());
            rows = 0;
        }
        rows += tokens.len();
        if let Some(pack) = packs.last_mut() {
            pack.push(index);
        }
    }
    let next = AtomicUsize::new(0);
    let results = side_by_side(0..threads.clamp(1, packs.len().max(1)), |_| {
        let (mut tapes, mut pack, mut results) = (Tapes::default(), Pack::default(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(indices) = packs.get(number) else { return results };
            pack.clear();
            for &index in indices {
                let (tokens, first_target) = sequences[index];
                pack.push(index, tokens, first_target);
            }
            results.push((number, job(&mut tapes, &pack)));
        }
    });
    let mut results: Vec<(usize, R)> = results.into_iter().flatten().collect();
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The log-probability of `token` by the logits `row`, which are used up.
pub(crate) fn logprob(row: &mut [f32], token: u32) -> f32 {
    let logit = row[token as usize];
    let (largest, sum) = kernel::exponentials(row);
    logit - largest - sum.ln()
}

/// Logits to log-probabilities.
fn normalise(row: &mut [f32], logprobs: &mut Vec<f32>) {
    logprobs.clear();
    logprobs.extend_from_slice(row);
    let (largest, sum) = kernel::exponentials(row);
    let shift = largest + sum.ln();
    logprobs.iter_mut().for_each(|logprob| *logprob -= shift);
}

/// The index of the largest number, the first among equals.
fn largest(row: &[f32]) -> usize {
    let first = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
    (0..row.len()).fold(0, first)
}

/// The `k` largest numbers with their indices, largest first, among equals the first one first.
fn top(row: &[f32], k: usize) -> Likeliest {
    let mut all: Vec<(u32, f32)> = (0_u32..).zip(row.iter().copied()).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < all.len() {
        all.select_nth_unstable_by(k, order);
        all.truncate(k);
    }
    all.sort_by(order);
    all
}
