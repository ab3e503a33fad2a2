//! Hidden states: how far those of a student are from those of its teacher, and the way back from there.

use super::linear::{into_input, into_weight, linear};
use super::{Keep, Model, Pack, Tape, forward_seen};
use crate::device::{Device, Stretch};
use crate::kernel::Write;

/// How far a state is from its teacher's, at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// One less the cosine of the angle between them (Sanh et al. 2019, DistilBERT): how long they are does not matter.
    #[default]
    Cosine,
    /// The mean square of their differences (Jiao et al. 2020, TinyBERT).
    MeanSquare,
}

/// A teacher whose states are to be matched, as a device has it.
pub(crate) struct Guided<'a, D: Device> {
    pub(crate) model: Model<'a, D>,
    /// A matrix `[teacher's width, student's width]` for each pair of layers; empty where both are equally wide, and
    /// states are compared as they are.
    pub(crate) projection: &'a D::Slice,
    /// Pairs of a student's and a teacher's layer, counted from 1: the residual stream that comes out of them.
    pub(crate) layers: &'a [(usize, usize)],
    pub(crate) measure: Measure,
}

/// What matching the states of a pack takes and leaves, for one thread.
#[derive(Debug)]
pub(crate) struct Pulls<D: Device> {
    teacher: Option<Tape<D>>,
    /// The teacher's states of each pair, `[rows, teacher's width]`.
    targets: Vec<D::Buffer>,
    /// The gradients of the student's states of each pair, `[rows, student's width]`.
    gradients: Vec<D::Buffer>,
    /// The student's states as wide as the teacher's.
    projected: D::Buffer,
    numbers: Vec<f32>,
    /// The gradient of the projection.
    pub(crate) projection: D::Buffer,
    /// Sum of what [`Measure`] says, over rows and pairs.
    pub(crate) sum: f64,
}

impl<D: Device> Default for Pulls<D> {
    fn default() -> Self {
        Self {
            teacher: None,
            targets: Vec::new(),
            gradients: Vec::new(),
            projected: D::Buffer::default(),
            numbers: Vec::new(),
            projection: D::Buffer::default(),
            sum: 0.0,
        }
    }
}

impl<D: Device> Pulls<D> {
    pub(crate) fn begin(&mut self, device: &D, projection: usize) {
        device.clear(device.room(&mut self.projection, projection));
        self.sum = 0.0;
    }

    /// Compares the states of `pack`, which `student` has just passed through, with the teacher's at all rows. `weight` is what
    /// the gradient of each row and pair weighs.
    pub(crate) fn compare(
        &mut self,
        device: &D,
        student: &Model<'_, D>,
        (tape, pack): (&Tape<D>, &Pack),
        guided: &Guided<'_, D>,
        weight: f32,
    ) {
        let (rows, pairs) = (pack.rows(), guided.layers.len());
        let (narrow, wide) = (student.config.hidden_size, guided.model.config.hidden_size);
        self.targets.resize_with(pairs, D::Buffer::default);
        self.gradients.resize_with(pairs, D::Buffer::default);
        let Self { teacher, targets, gradients, projected, numbers, projection, sum } = self;
        let teacher = teacher.get_or_insert_with(|| Tape::new(guided.model.config));
        forward_seen(device, &guided.model, pack, teacher, Keep::Nothing, |layer, stream| {
            for (target, pair) in targets.iter_mut().zip(guided.layers) {
                if pair.1 == layer {
                    device.copy(stream, device.room(target, rows * wide));
                }
            }
        });
        for (index, &(layer, _)) in guided.layers.iter().enumerate() {
            let state = tape.state(student.config, layer, rows);
            let matrix = (guided.projection.len() > 0).then_some(index * narrow * wide..(index + 1) * narrow * wide);
            let own = device.room(projected, rows * wide);
            match &matrix {
                Some(range) => {
                    linear(device, own, wide, Write::Over, state, narrow, guided.projection.part(range.clone()));
                }
                None => device.copy(state, own),
            }
            numbers.clear();
            device.visit(own, |own| {
                device.visit(targets[index].part_mut(0..rows * wide), |target| {
                    numbers.resize(rows * wide, 0.0);
                    let places =
                        own.chunks_exact(wide).zip(target.chunks_exact(wide)).zip(numbers.chunks_exact_mut(wide));
                    for ((own, target), slope) in places {
                        *sum += guided.measure.at(own, target, weight, slope);
                    }
                });
            });
            device.put(numbers, own);
            let gradient = device.room(&mut gradients[index], rows * narrow);
            match matrix {
                Some(range) => {
                    into_input(device, gradient, narrow, own, wide, guided.projection.part(range.clone()));
                    into_weight(device, projection.part_mut(range), own, state, rows);
                }
                None => device.copy(own, gradient),
            }
        }
    }

    /// Adds to `stream`, the gradient of what comes out of layer `layer`, what [`Pulls::compare`] found there.
    pub(crate) fn add(&self, device: &D, layers: &[(usize, usize)], layer: usize, stream: &mut D::Slice) {
        for (gradient, _) in self.gradients.iter().zip(layers).filter(|(_, pair)| pair.0 == layer) {
            // As one long row.
            device.add_to_rows(stream, gradient.part(0..stream.len()));
        }
    }
}

impl Measure {
    /// How far `own` is from `target`; `slope` becomes the gradient of `own` times `weight`.
    fn at(self, own: &[f32], target: &[f32], weight: f32, slope: &mut [f32]) -> f64 {
        match self {
            Self::Cosine => {
                let dot =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
                // A state of nothing but zeros has no direction: it counts as being at right angles, and is not moved.
                let (squares, lengths) = (dot(own, own), (dot(own, own) * dot(target, target)).sqrt());
                if lengths < f64::MIN_POSITIVE {
                    slope.fill(0.0);
                    return 1.0;
                }
                let cosine = dot(own, target) / lengths;
                let (along, across) = ((cosine / squares) as f32, (1.0 / lengths) as f32);
                for ((slope, &own), &target) in slope.iter_mut().zip(own).zip(target) {
                    *slope = weight * (along * own - across * target);
                }
                1.0 - cosine
            }
            Self::MeanSquare => {
                let share = 1.0 / own.len() as f64;
                let step = 2.0 * weight * share as f32;
                let mut sum = 0.0;
                for ((slope, &own), &target) in slope.iter_mut().zip(own).zip(target) {
                    let apart = own - target;
                    *slope = step * apart;
                    sum += f64::from(apart) * f64::from(apart);
                }
                sum * share
            }
        }
    }
}
