use super::answers::Answers;
use crate::gaps::dot;

/// A word counts if it stands in at least one in twenty answers of the reference, every family weighing the same.
/// Rarer words are what the prompts are about.
const COMMON: f64 = 0.05;

/// How often each model uses each of the words that are common with any of them.
#[derive(Debug)]
pub(super) struct Shares {
    width: usize,
    /// Row by row: the share of the model's answers that hold the word.
    values: Vec<f64>,
}

/// A reference model: its row, and what it weighs.
pub(super) type Weighted = (usize, f64);

impl Shares {
    pub(super) fn of(answers: &Answers, rows: &[usize], prompts: &[u32]) -> Self {
        let least = COMMON * prompts.len() as f64;
        let common = |row: usize| {
            let counts = answers.counts(row, prompts).into_iter().enumerate();
            counts.filter(|(_, count)| f64::from(*count) >= least).map(|(place, _)| place).collect::<Vec<_>>()
        };
        let mut kept: Vec<usize> = rows.iter().flat_map(|row| common(*row)).collect();
        kept.sort_unstable();
        kept.dedup();
        let share = |count: u32| f64::from(count) / prompts.len() as f64;
        let values = rows.iter().flat_map(|row| {
            let counts = answers.counts(*row, prompts);
            kept.iter().map(|place| share(counts[*place])).collect::<Vec<_>>()
        });
        Self { width: kept.len(), values: values.collect() }
    }

    pub(super) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.width..(row + 1) * self.width]
    }
}

/// Where models are points: shares after the arcsine of the root, which gives them the same sampling noise whatever their
/// size; centred on the reference; and with the directions damped in which the models of the reference differ much from each
/// other, such as length. A direction with `k` times the average deviation is divided by `1 + k`.
#[derive(Debug)]
pub(super) struct Space<'shares> {
    shares: &'shares Shares,
    words: Vec<usize>,
    centre: Vec<f64>,
    /// Directions of length 1, and by how much of itself each is shortened.
    damped: Vec<(Vec<f64>, f64)>,
}

impl<'shares> Space<'shares> {
    /// `reference` weighs 1 together.
    pub(super) fn of(shares: &'shares Shares, reference: &[Weighted]) -> Self {
        let mean = |word: usize| reference.iter().map(|(row, weight)| weight * shares.row(*row)[word]).sum::<f64>();
        let words: Vec<usize> = (0..shares.width).filter(|word| mean(*word) >= COMMON).collect();
        let mut space = Self { shares, centre: vec![0.0; words.len()], words, damped: Vec::new() };
        let mut centre = space.centre.clone();
        for (row, weight) in reference {
            space.plain(*row).iter().zip(&mut centre).for_each(|(value, mean)| *mean += weight * value);
        }
        space.centre = centre;
        let scaled = |(row, weight): &Weighted| scale(space.plain(*row), weight.sqrt());
        let points: Vec<Vec<f64>> = reference.iter().map(scaled).collect();
        space.damped = directions(&points);
        space
    }

    /// The model's point, brought to length 1.
    pub(super) fn point(&self, row: usize) -> Vec<f64> {
        let plain = self.plain(row);
        let mut point = plain.clone();
        for (direction, shortened) in &self.damped {
            let along = shortened * dot(&plain, direction);
            point.iter_mut().zip(direction).for_each(|(value, axis)| *value -= along * axis);
        }
        let length = dot(&point, &point).sqrt();
        if length > 0.0 { scale(point, 1.0 / length) } else { point }
    }

    fn plain(&self, row: usize) -> Vec<f64> {
        let shares = self.shares.row(row);
        let angle = |(word, centre): (&usize, &f64)| shares[*word].clamp(0.0, 1.0).sqrt().asin() - centre;
        self.words.iter().zip(&self.centre).map(angle).collect()
    }
}

/// The principal directions of `points`, from the small matrix of their products.
fn directions(points: &[Vec<f64>]) -> Vec<(Vec<f64>, f64)> {
    let products = points.iter().map(|one| points.iter().map(|other| dot(one, other)).collect()).collect();
    let (values, vectors) = eigen(products);
    let deviations: Vec<f64> = values.iter().map(|value| value.max(0.0).sqrt()).collect();
    let average = deviations.iter().sum::<f64>() / deviations.len().max(1) as f64;
    let mut found = Vec::new();
    for (deviation, vector) in deviations.iter().zip(&vectors) {
        // Directions that are only rounding errors have no length to divide by.
        if *deviation > 1e-6 * average {
            let mut direction = vec![0.0; points[0].len()];
            for (point, weight) in points.iter().zip(vector) {
                direction.iter_mut().zip(point).for_each(|(axis, value)| *axis += weight * value / deviation);
            }
            let ratio = deviation / average;
            found.push((direction, ratio / (1.0 + ratio)));
        }
    }
    found
}

/// Eigenvalues and eigenvectors of a symmetric matrix by Jacobi's rotations (Golub and Van Loan 2013, section 8.5).
fn eigen(mut matrix: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.len();
    let mut vectors: Vec<Vec<f64>> =
        (0..size).map(|i| (0..size).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).collect();
    let all: f64 = matrix.iter().flatten().map(|value| value * value).sum();
    for _ in 0..60 {
        let off: f64 = (0..size).map(|i| (0..i).map(|j| matrix[i][j] * matrix[i][j]).sum::<f64>()).sum();
        if off <= 1e-24 * all {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut matrix, &mut vectors, p, q);
            }
        }
    }
    ((0..size).map(|i| matrix[i][i]).collect(), vectors)
}

/// Makes the element at `p`, `q` zero. `vectors` holds an eigenvector in each row.
fn rotate(matrix: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    let off = matrix[p][q];
    if off == 0.0 {
        return;
    }
    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * off);
    let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let turn = |a: f64, b: f64| (cosine * a - sine * b, sine * a + cosine * b);
    for row in matrix.iter_mut() {
        (row[p], row[q]) = turn(row[p], row[q]);
    }
    for rows in [matrix, vectors] {
        let (before, after) = rows.split_at_mut(q);
        for (one, other) in before[p].iter_mut().zip(&mut after[0]) {
            (*one, *other) = turn(*one, *other);
        }
    }
}

fn scale(mut point: Vec<f64>, by: f64) -> Vec<f64> {
    point.iter_mut().for_each(|value| *value *= by);
    point
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    #[test]
    fn eigenvectors_give_the_matrix_back() {
        let mut random = Seeded::new(5);
        let size = 9;
        let half: Vec<Vec<f64>> = (0..size).map(|_| (0..size).map(|_| random.normal()).collect()).collect();
        let matrix: Vec<Vec<f64>> = (0..size).map(|i| (0..size).map(|j| half[i][j] + half[j][i]).collect()).collect();
        let (values, vectors) = eigen(matrix.clone());
        for i in 0..size {
            for j in 0..size {
                let again: f64 = (0..size).map(|k| values[k] * vectors[k][i] * vectors[k][j]).sum();
                assert!((again - matrix[i][j]).abs() < 1e-9, "{i} {j}: {again} for {}", matrix[i][j]);
            }
        }
    }
}
