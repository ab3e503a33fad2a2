use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Digest;

/// The one source of random choices: a ChaCha8 stream that is the same on every machine and in every version.
///
/// Every random choice in Anbiq that is not a secret goes through a `Seeded`, so that the same seed gives the
/// same bytes. Independent streams are made with [`Seeded::fork`] rather than by adding to a seed.
#[derive(Debug, Clone)]
pub struct Seeded(ChaCha8Rng);

impl Seeded {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// An independent stream for the part of the work called `label`; drawing from it leaves `self` as it was.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        let seed = Digest::of_parts(&[b"anbiq fork v1\0", &self.0.get_seed(), label.as_bytes()]);
        Self(ChaCha8Rng::from_seed(*seed.as_bytes()))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Uniform in `0..limit`, and 0 for a `limit` of 0 (Lemire's multiplication, bias below 2^-64 x `limit`).
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)`, with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// True with probability `probability`.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A standard normal deviate (Box and Muller 1958; the second of the pair is thrown away).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// An exponential deviate with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// One of `items`, or `None` where there are none.
    pub fn pick<'items, T>(&mut self, items: &'items [T]) -> Option<&'items T> {
        items.get(self.below(items.len()))
    }

    /// Puts `items` in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_stream_for_ever() {
        let mut random = Seeded::new(42);
        // These words were printed once and must never change: models, corpora and journals depend on them.
        assert_eq!([random.bits(), random.bits()], [12_578_764_544_318_200_737, 17_529_487_244_874_322_312]);
        let mut fork = random.fork("corpus");
        assert_ne!(fork.bits(), random.bits());
        assert_eq!(random.fork("corpus").bits(), Seeded::new(42).fork("corpus").bits());
    }

    #[test]
    fn moments_are_right() {
        let mut random = Seeded::new(7);
        let draws: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02);
        assert!((0..1000).all(|_| random.below(3) < 3 && random.unit() < 1.0));
    }
}
