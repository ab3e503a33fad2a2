//! Matching the hidden states of a teacher.

use std::sync::Arc;

use anbiq_domain::Seeded;

use crate::device::Cpu;
use crate::graph::{Guided, Measure, Model};
use crate::optimizer::{Optimizer, Settings};
use crate::{Config, LmError, Network};

/// How a student's hidden states are matched with its teacher's: what comes out of some of its layers is pulled to what comes
/// out of some of the teacher's, at every token of a sequence.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HiddenStates {
    /// What the mean of the measure, over tokens and pairs of layers, is multiplied by before it is added to the loss.
    pub weight: f64,
    /// How far two states are from each other.
    pub measure: Measure,
    /// Pairs of a student's and a teacher's layer, counted from 1.
    pub layers: Vec<(usize, usize)>,
}

impl HiddenStates {
    /// Every layer of a student of `student` layers with that of a teacher of `teacher` layers at the same share of its depth,
    /// as TinyBERT does (Jiao et al. 2020).
    pub fn evenly(student: usize, teacher: usize) -> Vec<(usize, usize)> {
        // To the nearest one.
        (1..=student).map(|layer| (layer, ((2 * layer * teacher + student) / (2 * student.max(1))).max(1))).collect()
    }
}

impl HiddenStates {
    /// Says why two networks of these shapes cannot be matched so, if they cannot.
    ///
    /// # Errors
    ///
    /// The weight is not positive, or a layer is not there.
    pub fn check(&self, student: &Config, teacher: &Config) -> Result<(), LmError> {
        let wrong = |problem: String| Err(LmError::Setting { name: "hidden_states", problem });
        if !self.weight.is_finite() || self.weight <= 0.0 {
            return wrong(format!("its weight {} is not positive", self.weight));
        }
        if self.layers.is_empty() {
            return wrong("no layers are matched".to_owned());
        }
        for &(own, theirs) in &self.layers {
            for (whose, layer, most) in [("student", own, student.layers), ("teacher", theirs, teacher.layers)] {
                if !(1..=most).contains(&layer) {
                    return wrong(format!("the {whose} has the layers 1 to {most}, and no layer {layer}"));
                }
            }
        }
        Ok(())
    }
}

/// A teacher to match, and the learned projection of states that are not as wide as its own. The projection serves training
/// only: no student has it.
#[derive(Debug, Clone)]
pub struct Guide {
    teacher: Arc<Network>,
    how: HiddenStates,
    /// A matrix `[teacher's width, student's width]` for each pair of layers; none where both are equally wide.
    projection: Vec<f32>,
}

impl Guide {
    /// Guides a student of the shape `student` by `teacher`. Where one is wider than the other the projection begins at
    /// random, by `seed`.
    ///
    /// # Errors
    ///
    /// As [`HiddenStates::check`].
    pub fn new(teacher: Arc<Network>, student: &Config, how: HiddenStates, seed: u64) -> Result<Self, LmError> {
        how.check(student, &teacher.config)?;
        let (narrow, wide) = (student.hidden_size, teacher.config.hidden_size);
        let count = if narrow == wide { 0 } else { how.layers.len() * narrow * wide };
        let mut random = Seeded::new(seed).fork("projection");
        // Its result is about as large as what goes in.
        let deviation = 1.0 / (narrow as f64).sqrt();
        let projection = (0..count).map(|_| (random.normal() * deviation) as f32).collect();
        Ok(Self { teacher, how, projection })
    }

    /// How it guides.
    pub fn how(&self) -> &HiddenStates {
        &self.how
    }

    /// The numbers of the projection: matrices `[teacher's width, student's width]`, one for each pair of layers.
    pub fn projection(&self) -> &[f32] {
        &self.projection
    }

    /// The same with another projection; `None` where it does not have as many numbers.
    pub fn with_projection(self, projection: Vec<f32>) -> Option<Self> {
        (projection.len() == self.projection.len()).then_some(Self { projection, ..self })
    }

    /// The shape of the teacher, whose tokens the student's must be.
    pub(super) fn teacher(&self) -> &Config {
        &self.teacher.config
    }

    pub(super) fn on_processor(&self) -> Guided<'_, Cpu> {
        Guided {
            model: Model::of(&self.teacher),
            projection: &self.projection,
            layers: &self.how.layers,
            measure: self.how.measure,
        }
    }
}

/// A guide whose projection learns.
#[derive(Debug)]
pub(super) struct Guiding {
    pub(super) guide: Guide,
    pub(super) optimizer: Optimizer,
}

impl Guiding {
    pub(super) fn new(guide: Guide) -> Self {
        let size = guide.projection.len();
        let optimizer = Optimizer::new(size, std::iter::once(0..size).collect());
        Self { guide, optimizer }
    }

    /// Moves the projection against the sum of `gradients`, which is clipped by itself.
    pub(super) fn step(&mut self, gradients: &mut [&mut [f32]], settings: &Settings) {
        if !self.guide.projection.is_empty() {
            self.optimizer.step(&mut self.guide.projection, gradients, settings);
        }
    }

    /// Goes on from numbers and an [`Optimizer::state`] of as many.
    pub(super) fn go_on(&mut self, numbers: Vec<f32>, (moves, first, second): (i32, Vec<f32>, Vec<f32>)) {
        self.guide.projection = numbers;
        self.optimizer.set_state(moves, first, second);
    }
}
