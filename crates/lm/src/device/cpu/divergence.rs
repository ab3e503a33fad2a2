//! Divergences of a student from its teacher at one place, over a few classes, with their way back.

use crate::train::Divergence;

/// What the loss of a target with a teacher is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    /// How much of it is divergence, 0 to 1; the rest is cross-entropy.
    pub(crate) share: f32,
    /// Which divergence.
    pub(crate) divergence: Divergence,
    /// Both distributions are taken to the power of one over it.
    pub(crate) temperature: f64,
}

impl Aim {
    /// Is it the forward divergence of the distributions as they are?
    pub(crate) fn is_plain(&self) -> bool {
        self.divergence == Divergence::ForwardKl && self.temperature == 1.0
    }
}

/// The classes of one place; used again and again.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// Log-probabilities of the teacher.
    pub(crate) teacher: Vec<f64>,
    /// Log-probabilities of the student; [`Classes::compare`] leaves the gradient in their place.
    pub(crate) student: Vec<f64>,
    /// Exponentials of the student's logits of the teacher's tokens.
    pub(crate) taken: Vec<f32>,
}

impl Classes {
    /// The divergence in nats. In the place of the student's log-probabilities it leaves the gradient, with respect to
    /// them before they were normalised, of the divergence times the square of the temperature: Hinton et al. (2015)
    /// multiply by that, since the gradient shrinks with it.
    ///
    /// With Q the student's probabilities after the temperature T and D' the derivative of the divergence by them, that is
    /// `T Q (D' - sum Q D')`; it sums to zero.
    pub(crate) fn compare(&mut self, divergence: Divergence, temperature: f64) -> f64 {
        let Self { teacher, student, .. } = self;
        temper(teacher, temperature);
        temper(student, temperature);
        let mut sum = 0.0;
        let mut value = 0.0;
        for (&log_p, log_q) in teacher.iter().zip(student.iter()) {
            let (p, q) = (log_p.exp(), log_q.exp());
            let (part, slope) = terms(divergence, (p, log_p), (q, *log_q));
            value += part;
            sum += q * slope;
        }
        for (&log_p, log_q) in teacher.iter().zip(student.iter_mut()) {
            let q = log_q.exp();
            let (_, slope) = terms(divergence, (log_p.exp(), log_p), (q, *log_q));
            *log_q = temperature * q * (slope - sum);
        }
        value
    }
}

/// What one class adds to the divergence, and the derivative by the student's probability, but for what is the same in
/// every class.
fn terms(divergence: Divergence, (p, log_p): (f64, f64), (q, log_q): (f64, f64)) -> (f64, f64) {
    // Nothing of nothing is nothing.
    let times = |factor: f64, log: f64| if factor > 0.0 { factor * log } else { 0.0 };
    let mixture = |share: f64| (share * p + (1.0 - share) * q).max(f64::MIN_POSITIVE);
    match divergence {
        // The derivative is -p/q; q times it is what counts.
        Divergence::ForwardKl => (times(p, log_p - log_q), -(log_p - log_q).exp()),
        Divergence::ReverseKl => (times(q, log_q - log_p), log_q - log_p),
        Divergence::JensenShannon { beta } => {
            let log_m = mixture(beta).ln();
            let value = beta * times(p, log_p - log_m) + (1.0 - beta) * times(q, log_q - log_m);
            (value, (1.0 - beta) * (log_q - log_m))
        }
        Divergence::SkewKl { alpha } => {
            let m = mixture(alpha);
            (times(p, log_p - m.ln()), -(1.0 - alpha) * p / m)
        }
        Divergence::SkewReverseKl { alpha } => {
            let m = mixture(1.0 - alpha);
            (times(q, log_q - m.ln()), log_q - m.ln() - alpha * q / m)
        }
        Divergence::TotalVariation => (0.5 * (p - q).abs(), 0.5 * if q > p { 1.0 } else { -1.0 }),
    }
}

/// Divides log-probabilities by the temperature and makes their probabilities add up to 1.
fn temper(logs: &mut [f64], temperature: f64) {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max) / temperature;
    let sum: f64 = logs.iter().map(|log| (log / temperature - largest).exp()).sum();
    let shift = largest + sum.ln();
    logs.iter_mut().for_each(|log| *log = *log / temperature - shift);
}
