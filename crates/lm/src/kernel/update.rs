//! The optimiser's loops over flat buffers.

use super::dispatch::dispatched;

/// One step of AdamW for one stretch of numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamStep {
    /// Multiplies the gradient first: clipping.
    pub(crate) scale: f32,
    /// The learning rate.
    pub(crate) rate: f32,
    /// How much of each number is taken away beforehand: learning rate times weight decay, or 0.
    pub(crate) decay: f32,
    /// How much of the first moment is kept.
    pub(crate) beta1: f32,
    /// How much of the second moment is kept.
    pub(crate) beta2: f32,
    /// `1 / (1 - beta1^t)`.
    pub(crate) unbias1: f32,
    /// `1 / (1 - beta2^t)`.
    pub(crate) unbias2: f32,
    /// Keeps the division finite.
    pub(crate) epsilon: f32,
}

dispatched! {
    /// Moves `weights` by one step (Loshchilov and Hutter 2019).
    fn adam(step: &AdamStep, weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let AdamStep { scale, rate, decay, beta1, beta2, unbias1, unbias2, epsilon } = *step;
        for (((weight, &gradient), first), second) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = gradient * scale;
            *first = beta1 * *first + (1.0 - beta1) * g;
            *second = beta2 * *second + (1.0 - beta2) * (g * g);
            let direction = *first * unbias1 / ((*second * unbias2).sqrt() + epsilon);
            *weight -= *weight * decay + rate * direction;
        }
    }

    /// Adds `other` to `gradient`, where there is another, and gives the sum of squares of the result.
    fn merge(gradient: &mut [f32], other: Option<&[f32]>) -> f64 {
        if let Some(other) = other {
            for (gradient, &other) in gradient.iter_mut().zip(other) {
                *gradient += other;
            }
        }
        // Short stretches in 32 bits, their sums in 64: exact enough and it vectorises.
        gradient.chunks(1024).map(|part| f64::from(super::dispatch::sum_of(part, part, |x, y| x * y))).sum()
    }
}
