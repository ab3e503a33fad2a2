use anbiq_domain::Seeded;
use anbiq_statistics::special::normal_quantile;

use super::Method;
use crate::compose::{Class, Stream};
use crate::embed::{Embedding, WIDTH, distance};

/// Features that approximate the kernel (Rahimi and Recht 2007).
const FEATURES: usize = 128;
/// Prompts of the population that are looked at.
const POPULATION: usize = 6_000;
/// Share of pairs of the population's prompts that count as alike.
const ALIKE: f64 = 0.001;

/// The population that an account is compared with: what chatting accounts of a world of its own ask.
#[derive(Debug)]
pub(crate) struct Reference {
    mean: [f64; WIDTH],
    /// The lower triangle of Cholesky's factor of the covariance.
    factor: Vec<[f64; WIDTH]>,
    waves: Vec<(Embedding, f32)>,
    features: Vec<f64>,
    square: f64,
    /// Squared distance below which two prompts are alike.
    alike: f32,
}

impl Reference {
    /// The population of `stream`.
    pub(crate) fn of(stream: &Stream, seed: u64) -> Self {
        let mut random = Seeded::new(seed).fork("reference");
        let chat = stream.parties.iter().filter(|party| party.class == Class::Chat);
        let mut prompts: Vec<&Embedding> = chat.flat_map(|party| &party.window).collect();
        random.shuffle(&mut prompts);
        prompts.truncate(POPULATION);
        let n = prompts.len().max(1) as f64;
        let mut mean = [0.0; WIDTH];
        for prompt in &prompts {
            mean.iter_mut().zip(*prompt).for_each(|(sum, value)| *sum += f64::from(*value) / n);
        }
        let mut distances: Vec<f32> = (0..20_000)
            .filter_map(|_| Some(distance(random.pick(&prompts)?, random.pick(&prompts)?)))
            .filter(|distance| *distance > 0.0)
            .collect();
        distances.sort_by(f32::total_cmp);
        let at = |share: f64| distances.get((share * distances.len() as f64) as usize).copied().unwrap_or(1.0);
        let bandwidth = at(0.5).sqrt();
        let waves: Vec<(Embedding, f32)> = (0..FEATURES)
            .map(|_| {
                let mut wave = [0.0; WIDTH];
                wave.iter_mut().for_each(|value| *value = random.normal() as f32 / bandwidth);
                (wave, (std::f64::consts::TAU * random.unit()) as f32)
            })
            .collect();
        let mut this =
            Self { mean, factor: Vec::new(), waves, features: vec![0.0; FEATURES], square: 0.0, alike: at(ALIKE) };
        this.factor = factored(&prompts, &this.mean);
        for prompt in &prompts {
            let features: Vec<f64> = this.features_of(prompt).collect();
            this.features.iter_mut().zip(features).for_each(|(sum, value)| *sum += value / n);
        }
        this.square = this.features.iter().map(|value| value * value).sum();
        this
    }

    /// How suspicious a window of prompts is to `method`.
    pub(super) fn score(&self, method: Method, window: &[Embedding]) -> f64 {
        match method {
            Method::Prada => not_normal(&nearest(window)),
            Method::Seat => {
                let near = nearest(window);
                near.iter().filter(|distance| **distance < f64::from(self.alike)).count() as f64 / near.len() as f64
            }
            Method::Mahalanobis => self.mahalanobis(window),
            Method::Mmd => self.discrepancy(window),
            Method::Anbiq | Method::Volume | Method::Linkage => f64::NEG_INFINITY,
        }
    }

    fn features_of(&self, prompt: &Embedding) -> impl Iterator<Item = f64> {
        let scale = (2.0 / FEATURES as f64).sqrt();
        self.waves.iter().map(move |(wave, phase)| {
            let angle: f32 = wave.iter().zip(prompt).map(|(a, b)| a * b).sum::<f32>() + phase;
            scale * f64::from(angle.cos())
        })
    }

    /// The number of prompts times the unbiased estimate of the squared discrepancy.
    fn discrepancy(&self, window: &[Embedding]) -> f64 {
        let n = window.len() as f64;
        let (mut sum, mut squares) = (vec![0.0; FEATURES], 0.0);
        for prompt in window {
            for (sum, value) in sum.iter_mut().zip(self.features_of(prompt)) {
                *sum += value;
                squares += value * value;
            }
        }
        let all: f64 = sum.iter().map(|value| value * value).sum();
        let cross: f64 = sum.iter().zip(&self.features).map(|(a, b)| a * b).sum::<f64>() / n;
        n * ((all - squares) / (n * (n - 1.0)) - 2.0 * cross + self.square)
    }

    fn mahalanobis(&self, window: &[Embedding]) -> f64 {
        let n = window.len() as f64;
        let mut solved = [0.0; WIDTH];
        for row in 0..WIDTH {
            let mean = window.iter().map(|prompt| f64::from(prompt[row])).sum::<f64>() / n;
            let before: f64 = (0..row).map(|column| self.factor[row][column] * solved[column]).sum();
            solved[row] = (mean - self.mean[row] - before) / self.factor[row][row];
        }
        n * solved.iter().map(|value| value * value).sum::<f64>()
    }
}

/// Cholesky's factor of the covariance of `prompts`, with a ridge.
fn factored(prompts: &[&Embedding], mean: &[f64; WIDTH]) -> Vec<[f64; WIDTH]> {
    let n = prompts.len().max(2) as f64;
    let mut covariance = vec![[0.0; WIDTH]; WIDTH];
    for prompt in prompts {
        for row in 0..WIDTH {
            let value = f64::from(prompt[row]) - mean[row];
            for column in 0..=row {
                covariance[row][column] += value * (f64::from(prompt[column]) - mean[column]) / (n - 1.0);
            }
        }
    }
    let mut factor = vec![[0.0; WIDTH]; WIDTH];
    for row in 0..WIDTH {
        for column in 0..=row {
            let done: f64 = (0..column).map(|place| factor[row][place] * factor[column][place]).sum();
            let left = covariance[row][column] - done;
            factor[row][column] =
                if row == column { (left + 1e-4).max(1e-6).sqrt() } else { left / factor[column][column] };
        }
    }
    factor
}

/// For each prompt but the first, the squared distance to the nearest one before.
fn nearest(window: &[Embedding]) -> Vec<f64> {
    let before = |place: usize| window[..place].iter().map(move |other| distance(&window[place], other));
    (1..window.len()).map(|place| before(place).fold(f32::INFINITY, f32::min).into()).collect()
}

/// One less the statistic of Shapiro and Francia (1972) of the distances: 0 where they are normal.
fn not_normal(squares: &[f64]) -> f64 {
    let mut distances: Vec<f64> = squares.iter().map(|square| square.sqrt()).collect();
    distances.sort_by(f64::total_cmp);
    let n = distances.len() as f64;
    let mean = distances.iter().sum::<f64>() / n;
    let (mut cross, mut expected, mut spread) = (0.0, 0.0, 0.0);
    for (place, distance) in distances.iter().enumerate() {
        let quantile = normal_quantile((place as f64 + 0.625) / (n + 0.25));
        cross += quantile * (distance - mean);
        expected += quantile * quantile;
        spread += (distance - mean).powi(2);
    }
    // All at one distance is as far from normal as can be.
    if spread <= 1e-12 { 1.0 } else { 1.0 - cross * cross / (expected * spread) }
}
