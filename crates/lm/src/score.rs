//! Scoring: how probable given tokens are, and how two networks compare.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::device::{Cpu, Device};
use crate::graph::{self, Model, Pack, Tape};
use crate::kernel;
use crate::optimizer::side_by_side;
use crate::{Config, LmError, Network};

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
    check(&network.config, sequences)?;
    Ok(score_on(&Cpu, &Model::of(network), sequences, threads))
}

/// As [`score`], for sequences that passed [`check`], wherever the network is.
pub(crate) fn score_on<D: Device>(
    device: &D,
    model: &Model<'_, D>,
    sequences: &[(&[u32], usize)],
    threads: usize,
) -> Vec<SequenceScore> {
    let parts = over_packs(device, sequences, threads, |tapes: &mut Tapes<D>, pack| {
        let mut scores = Vec::with_capacity(pack.targets.len());
        let tape = tapes.first(model);
        run(device, model, pack, tape);
        graph::logprobs(device, model, pack, tape, |target, logprob, likeliest| {
            scores.push((target.sequence, logprob, likeliest));
        });
        scores
    });
    let mut all = vec![SequenceScore::default(); sequences.len()];
    for (sequence, logprob, greedy) in parts.into_iter().flatten() {
        all[sequence].logprobs.push(logprob);
        all[sequence].greedy.push(greedy);
    }
    all
}

/// The mean loss over all targets, in nats: the cross-entropy on text that was held out.
///
/// # Errors
///
/// As [`score`].
pub fn mean_loss(network: &Network, sequences: &[(&[u32], usize)], threads: usize) -> Result<f64, LmError> {
    Ok(mean(&score(network, sequences, threads)?))
}

/// The mean loss over all targets of some scores.
pub(crate) fn mean(scores: &[SequenceScore]) -> f64 {
    let targets: usize = scores.iter().map(|score| score.logprobs.len()).sum();
    -scores.iter().map(SequenceScore::total).sum::<f64>() / targets.max(1) as f64
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
    check(&network.config, sequences)?;
    let model = Model::of(network);
    over_packs(&Cpu, sequences, threads, |tapes: &mut Tapes<Cpu>, pack| {
        let tape = tapes.first(&model);
        run(&Cpu, &model, pack, tape);
        let mut logprobs = Vec::new();
        graph::logits(&Cpu, &model, pack, tape, |target, row| {
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
    check(&network.config, sequences)?;
    Ok(likeliest_on(&Cpu, &Model::of(network), sequences, k, threads))
}

/// As [`likeliest`], for sequences that passed [`check`], wherever the network is.
pub(crate) fn likeliest_on<D: Device>(
    device: &D,
    model: &Model<'_, D>,
    sequences: &[(&[u32], usize)],
    k: usize,
    threads: usize,
) -> Vec<Vec<Likeliest>> {
    let parts = over_packs(device, sequences, threads, |tapes: &mut Tapes<D>, pack| {
        let mut places = Vec::with_capacity(pack.targets.len());
        let tape = tapes.first(model);
        run(device, model, pack, tape);
        graph::top(device, model, pack, tape, k, |target, place| places.push((target.sequence, place)));
        places
    });
    by_sequence(parts, sequences.len())
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
    check(&network.config, sequences)?;
    let model = Model::of(network);
    let parts = over_packs(&Cpu, sequences, threads, |tapes: &mut Tapes<Cpu>, pack| {
        let mut places = Vec::with_capacity(pack.targets.len());
        let tape = tapes.first(&model);
        run(&Cpu, &model, pack, tape);
        let mut logprobs = Vec::new();
        graph::logits(&Cpu, &model, pack, tape, |target, row| {
            normalise(row, &mut logprobs);
            let mut place = top(&logprobs, k);
            if place.iter().all(|&(token, _)| token != target.token) {
                place.push((target.token, logprobs[target.token as usize]));
            }
            places.push((target.sequence, place));
        });
        places
    });
    Ok(by_sequence(parts, sequences.len()))
}

/// What was said of places, which come in the order of `count` sequences.
fn by_sequence(parts: Vec<Vec<(usize, Likeliest)>>, count: usize) -> Vec<Vec<Likeliest>> {
    let mut all = vec![Vec::new(); count];
    for (sequence, place) in parts.into_iter().flatten() {
        all[sequence].push(place);
    }
    all
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
    check(&teacher.config, sequences)?;
    check(&student.config, sequences)?;
    let (teacher, student) = (Model::of(teacher), Model::of(student));
    let parts = over_packs(&Cpu, sequences, threads, |tapes: &mut Tapes<Cpu>, pack| {
        let mut places = Vec::with_capacity(pack.targets.len());
        let (p_tape, q_tape) = tapes.both(&teacher, &student);
        run(&Cpu, &teacher, pack, p_tape);
        run(&Cpu, &student, pack, q_tape);
        let (mut p, mut q) = (Vec::new(), Vec::new());
        let mut targets = pack.targets.iter();
        graph::logits_of_two(&Cpu, (&teacher, p_tape), (&student, q_tape), pack, |p_row, q_row| {
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

/// Says why a network of this shape cannot score some sequences, if it cannot.
pub(crate) fn check(config: &Config, sequences: &[(&[u32], usize)]) -> Result<(), LmError> {
    let mut numbered = sequences.iter().enumerate();
    numbered.try_for_each(|(index, (tokens, first))| graph::check(config, index, tokens, *first))
}

/// The tapes of one thread, for up to two networks.
struct Tapes<D: Device>(Option<Tape<D>>, Option<Tape<D>>);

impl<D: Device> Tapes<D> {
    fn first(&mut self, model: &Model<'_, D>) -> &mut Tape<D> {
        self.0.get_or_insert_with(|| Tape::new(model.config))
    }

    fn both(&mut self, one: &Model<'_, D>, two: &Model<'_, D>) -> (&mut Tape<D>, &mut Tape<D>) {
        let Self(first, second) = self;
        let first = first.get_or_insert_with(|| Tape::new(one.config));
        (first, second.get_or_insert_with(|| Tape::new(two.config)))
    }
}

fn run<D: Device>(device: &D, model: &Model<'_, D>, pack: &Pack, tape: &mut Tape<D>) {
    graph::forward(device, model, pack, tape, graph::Keep::Nothing);
    graph::pick(device, model, pack, tape);
}

/// Packs the sequences in their order and does `job` for each pack, `threads` at a time. The packs do not depend on the
/// number of threads, and the results come in the order of the sequences.
fn over_packs<D: Device, R: Send>(
    device: &D,
    sequences: &[(&[u32], usize)],
    threads: usize,
    job: impl Fn(&mut Tapes<D>, &Pack) -> R + Sync,
) -> Vec<R> {
    let most = device.pack_rows();
    let mut packs: Vec<Vec<usize>> = Vec::new();
    let mut rows = most;
    for (index, (tokens, _)) in sequences.iter().enumerate() {
        if rows + tokens.len() > most {
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
        let (mut tapes, mut pack, mut results) = (Tapes(None, None), Pack::default(), Vec::new());
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

/// Logits to log-probabilities.
pub(crate) fn normalise(row: &mut [f32], logprobs: &mut Vec<f32>) {
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
pub(crate) fn top(row: &[f32], k: usize) -> Likeliest {
    let mut all: Vec<(u32, f32)> = (0_u32..).zip(row.iter().copied()).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < all.len() {
        all.select_nth_unstable_by(k, order);
        all.truncate(k);
    }
    all.sort_by(order);
    all
}
