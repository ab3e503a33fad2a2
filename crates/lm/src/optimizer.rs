use std::ops::Range;
use std::thread;

use crate::kernel::{self, AdamStep};

/// Largest stretch of numbers that is summed on its own. It is fixed, so that the norm of a gradient does not depend on
/// the number of threads.
const STRETCH: usize = 1 << 16;

/// AdamW (Loshchilov and Hutter 2019) over the flat buffers, with the gradient clipped to a norm.
#[derive(Debug)]
pub(crate) struct Optimizer {
    first: Vec<f32>,
    second: Vec<f32>,
    stretches: Vec<Stretch>,
    steps: i32,
}

/// What one step is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) rate: f64,
    pub(crate) decay: f64,
    pub(crate) betas: (f64, f64),
    pub(crate) clip: f64,
}

impl Settings {
    /// The move number `moves`, counted from 1, along a gradient of the norm `norm`.
    pub(crate) fn at(&self, moves: i32, norm: f64) -> AdamStep {
        let (beta1, beta2) = self.betas;
        AdamStep {
            scale: (self.clip / (norm + 1e-6)).min(1.0) as f32,
            rate: self.rate as f32,
            decay: (self.rate * self.decay) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            unbias1: (1.0 / (1.0 - beta1.powi(moves))) as f32,
            unbias2: (1.0 / (1.0 - beta2.powi(moves))) as f32,
            epsilon: 1e-8,
        }
    }
}

/// Some numbers that are moved alike.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    pub(crate) range: Range<usize>,
    /// Matrices are pulled towards zero, norms are not.
    pub(crate) decays: bool,
}

impl Optimizer {
    /// For `size` numbers; those of `matrices` decay.
    pub(crate) fn new(size: usize, matrices: Vec<Range<usize>>) -> Self {
        let mut stretches = Vec::new();
        let mut cut = |range: Range<usize>, decays| {
            let starts = range.clone().step_by(STRETCH);
            stretches.extend(starts.map(|start| Stretch { range: start..range.end.min(start + STRETCH), decays }));
        };
        let mut end = 0;
        for matrix in matrices {
            cut(end..matrix.start, false);
            end = matrix.end;
            cut(matrix, true);
        }
        cut(end..size, false);
        Self { first: vec![0.0; size], second: vec![0.0; size], stretches, steps: 0 }
    }

    /// How many numbers it moves.
    pub(crate) fn size(&self) -> usize {
        self.first.len()
    }

    /// How often weights were moved, and both moments.
    pub(crate) fn state(&self) -> (i32, &[f32], &[f32]) {
        (self.steps, &self.first, &self.second)
    }

    /// What is moved alike, in the order of the numbers; none is longer than 65,536.
    #[cfg(feature = "cuda")]
    pub(crate) fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// Goes on from a [`Optimizer::state`] of the same size.
    pub(crate) fn set_state(&mut self, steps: i32, first: Vec<f32>, second: Vec<f32>) {
        (self.steps, self.first, self.second) = (steps, first, second);
    }

    /// Adds the gradients up and moves the weights against the sum. Gives the norm of the sum before clipping; where it
    /// is not finite nothing is moved.
    pub(crate) fn step(&mut self, weights: &mut [f32], gradients: &mut [&mut [f32]], settings: &Settings) -> f64 {
        let threads = gradients.len();
        let Some((sum, others)) = gradients.split_first_mut() else { return 0.0 };
        let groups: Vec<&[Stretch]> = self.stretches.chunks(self.stretches.len().div_ceil(threads).max(1)).collect();

        let parts = split(sum, &groups);
        let others: Vec<&[f32]> = others.iter().map(|other| &**other).collect();
        let work = parts.into_iter().zip(&groups);
        let squares = side_by_side(work, |(part, group)| merge(part, group, &others));
        let norm = squares.into_iter().flatten().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return norm;
        }

        self.steps = self.steps.saturating_add(1);
        let step = settings.at(self.steps, norm);
        let moments = split(&mut self.first, &groups).into_iter().zip(split(&mut self.second, &groups));
        let work = split(weights, &groups).into_iter().zip(moments).zip(&groups);
        let gradient = &**sum;
        side_by_side(work, |((weights, (first, second)), group)| {
            let offset = group.first().map_or(0, |stretch| stretch.range.start);
            for Stretch { range, decays } in group.iter() {
                let here = range.start - offset..range.end - offset;
                let step = AdamStep { decay: if *decays { step.decay } else { 0.0 }, ..step };
                let (weights, gradient) = (&mut weights[here.clone()], &gradient[range.clone()]);
                kernel::adam(&step, weights, gradient, &mut first[here.clone()], &mut second[here]);
            }
        });
        norm
    }
}

/// Adds to `part`, which covers the stretches of `group`, the same part of `others`; gives each stretch's sum of squares.
fn merge(part: &mut [f32], group: &[Stretch], others: &[&[f32]]) -> Vec<f64> {
    let offset = group.first().map_or(0, |stretch| stretch.range.start);
    let square = |Stretch { range, .. }: &Stretch| {
        let part = &mut part[range.start - offset..range.end - offset];
        match others.split_last() {
            None => kernel::merge(part, None),
            Some((last, rest)) => {
                for other in rest {
                    kernel::add(part, &other[range.clone()]);
                }
                kernel::merge(part, Some(&last[range.clone()]))
            }
        }
    };
    group.iter().map(square).collect()
}

/// Cuts a buffer into the parts that the groups cover; together they cover all of it.
fn split<'data>(mut data: &'data mut [f32], groups: &[&[Stretch]]) -> Vec<&'data mut [f32]> {
    let mut parts = Vec::with_capacity(groups.len());
    for group in groups {
        let (part, rest) = data.split_at_mut(group.iter().map(|stretch| stretch.range.len()).sum());
        parts.push(part);
        data = rest;
    }
    parts
}

/// Does each piece of work in a thread of its own, the last one in this thread; results come in the order of the work.
pub(crate) fn side_by_side<W: Send, R: Send>(
    work: impl Iterator<Item = W>,
    job: impl FnMut(W) -> R + Send + Clone,
) -> Vec<R> {
    let mut work: Vec<W> = work.collect();
    let Some(last) = work.pop() else { return Vec::new() };
    thread::scope(|scope| {
        let spawn = |work: W| {
            let mut job = job.clone();
            scope.spawn(move || job(work))
        };
        let handles: Vec<_> = work.into_iter().map(spawn).collect();
        let last = job.clone()(last);
        let mut results: Vec<R> = Vec::with_capacity(handles.len() + 1);
        for handle in handles {
            match handle.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results.push(last);
        results
    })
}
