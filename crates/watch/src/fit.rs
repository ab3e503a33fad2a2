//! The small models that turn a comparison into nats.

/// `ln(a (a+1) ... (a+n-1))`: the rising factorial that Dirichlet-multinomial probabilities are made of.
fn ln_rising(a: f64, n: u32) -> f64 {
    (0..n).map(|i| (a + f64::from(i)).ln()).sum()
}

/// Counts up to which [`Habitat`] has the logarithms at hand.
const AT_HAND: usize = 4_096;

/// What accounts in general draw from: a Dirichlet prior on distributions over cells.
#[derive(Debug)]
pub(crate) struct Habitat {
    /// Mean share of each cell, never 0.
    base: Vec<f64>,
    /// Total weight: small where every account has its own habits, large where all are alike.
    alpha: f64,
    /// [`ln_rising`] of `alpha` for every small count.
    rising: Vec<f64>,
}

impl Habitat {
    /// Of the accounts whose counts are `rows`, sorted by cell, among `cells` cells.
    pub(crate) fn fit(rows: &[Vec<(usize, u32)>], cells: usize) -> Self {
        let base = base_rates(rows, cells);
        let alpha = fit_alpha(rows, &base);
        Self::new(base, alpha)
    }

    fn new(base: Vec<f64>, alpha: f64) -> Self {
        let mut sum = 0.0;
        let steps = (0..AT_HAND).map(|n| {
            let before = sum;
            sum += (alpha + n as f64).ln();
            before
        });
        Self { base, alpha, rising: steps.collect() }
    }

    fn rising(&self, n: u32) -> f64 {
        self.rising.get(n as usize).copied().unwrap_or_else(|| ln_rising(self.alpha, n))
    }

    /// Log Bayes factor that two rows of counts come from one distribution rather than from two.
    ///
    /// Both hypotheses put the same Dirichlet prior on a distribution over cells (Minka 2000). It weighs by rarity by itself: a
    /// shared cell that everybody uses says nothing. `a` and `b` hold `(cell, count)` sorted by cell.
    pub(crate) fn same_distribution(&self, a: &[(usize, u32)], b: &[(usize, u32)]) -> f64 {
        let total = |row: &[(usize, u32)]| row.iter().map(|(_, count)| count).sum::<u32>();
        let (all_a, all_b) = (total(a), total(b));
        let mut nats = self.rising(all_b) - (self.rising(all_a + all_b) - self.rising(all_a));
        let (mut i, mut j) = (0, 0);
        while let (Some((cell_a, n)), Some((cell_b, m))) = (a.get(i), b.get(j)) {
            match cell_a.cmp(cell_b) {
                std::cmp::Ordering::Less => i += 1,
                std::cmp::Ordering::Greater => j += 1,
                std::cmp::Ordering::Equal => {
                    let weight = self.alpha * self.base[*cell_a];
                    nats += ln_rising(weight + f64::from(*n), *m) - ln_rising(weight, *m);
                    i += 1;
                    j += 1;
                }
            }
        }
        nats
    }
}

/// The mean over accounts of how much of each goes to each cell, never 0.
fn base_rates(rows: &[Vec<(usize, u32)>], cells: usize) -> Vec<f64> {
    let floor = 0.01 / cells.max(1) as f64;
    let mut rates = vec![floor; cells];
    let used = rows.iter().filter(|row| !row.is_empty()).count().max(1) as f64;
    for row in rows {
        let all: u32 = row.iter().map(|(_, count)| count).sum();
        for (cell, count) in row {
            rates[*cell] += 0.99 * f64::from(*count) / f64::from(all) / used;
        }
    }
    rates
}

/// The total prior weight under which `rows` are most probable, from a grid: small where every account has its own
/// habits, large where all are alike.
fn fit_alpha(rows: &[Vec<(usize, u32)>], base: &[f64]) -> f64 {
    let likelihood = |alpha: f64| -> f64 {
        rows.iter()
            .map(|row| {
                let all = row.iter().map(|(_, count)| count).sum();
                let cells: f64 = row.iter().map(|(cell, count)| ln_rising(alpha * base[*cell], *count)).sum();
                cells - ln_rising(alpha, all)
            })
            .sum()
    };
    let grid = (-2..=20).map(|step| 2_f64.powf(f64::from(step) / 2.0));
    grid.map(|alpha| (alpha, likelihood(alpha))).max_by(|a, b| a.1.total_cmp(&b.1)).map_or(1.0, |best| best.0)
}

/// A calibration `slope x score + offset` of scores to log-likelihood ratios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Calibration {
    slope: f64,
    offset: f64,
}

impl Calibration {
    /// Logistic regression of *same or not* on the score, both classes weighing alike (Brümmer and du Preez 2006),
    /// drawn towards the prior slope `prior` by a ridge so that few examples change little. The slope is kept in `0..=1`:
    /// a calibration may distrust a score but never turn or magnify it.
    pub(crate) fn fit(same: &[f64], other: &[f64], prior: f64) -> Self {
        let mut this = Self { slope: prior, offset: 0.0 };
        if same.len() < 8 || other.len() < 8 {
            return this;
        }
        const RIDGE: f64 = 0.02;
        for _ in 0..50 {
            let (mut g, mut h) = ([0.0; 2], [[0.0; 2]; 2]);
            for (scores, label) in [(same, 1.0), (other, 0.0)] {
                let weight = 0.5 / scores.len() as f64;
                for &score in scores {
                    let p = logistic(this.slope * score + this.offset);
                    let x = [score, 1.0];
                    for r in 0..2 {
                        g[r] += weight * (label - p) * x[r];
                        for c in 0..2 {
                            h[r][c] += weight * p * (1.0 - p) * x[r] * x[c];
                        }
                    }
                }
            }
            g[0] -= RIDGE * (this.slope - prior);
            g[1] -= RIDGE * this.offset;
            h[0][0] += RIDGE;
            h[1][1] += RIDGE;
            let determinant = h[0][0] * h[1][1] - h[0][1] * h[1][0];
            let step =
                [(g[0] * h[1][1] - g[1] * h[0][1]) / determinant, (g[1] * h[0][0] - g[0] * h[1][0]) / determinant];
            this.slope = (this.slope + step[0].clamp(-0.25, 0.25)).clamp(0.0, 1.0);
            this.offset += step[1].clamp(-1.0, 1.0);
            if step[0].abs() + step[1].abs() < 1e-9 {
                break;
            }
        }
        this
    }

    pub(crate) fn apply(self, score: f64) -> f64 {
        self.slope * score + self.offset
    }
}

/// `1 / (1 + e^-x)`
pub(crate) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Log-likelihood ratio that two measurements are of one thing: the two-covariance model of speaker verification
/// (Brümmer and de Villiers 2010) in one dimension. `between` and `within` are variances.
pub(crate) fn two_covariance(x: f64, y: f64, mean: f64, between: f64, within: f64) -> f64 {
    let (x, y, total) = (x - mean, y - mean, between + within);
    let determinant = total * total - between * between;
    if determinant <= 0.0 || total <= 0.0 {
        return 0.0;
    }
    let joint = (total * (x * x + y * y) - 2.0 * between * x * y) / determinant + determinant.ln();
    let apart = (x * x + y * y) / total + 2.0 * total.ln();
    0.5 * (apart - joint)
}

/// Four decimals: what a report shows is not below the last bits of a logarithm.
pub(crate) fn tidy(value: f64) -> f64 {
    (value * 1e4).round() / 1e4 + 0.0
}

/// Mean and variance; the variance of fewer than two values is 0.
pub(crate) fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() < 2 { 0.0 } else { squares / (n - 1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_what_is_rare_weighs_more() {
        let habitat = Habitat::new(vec![0.9, 0.05, 0.05], 2.0);
        let common = habitat.same_distribution(&[(0, 5)], &[(0, 5)]);
        let rare = habitat.same_distribution(&[(1, 5)], &[(1, 5)]);
        let apart = habitat.same_distribution(&[(1, 5)], &[(2, 5)]);
        assert!(rare > common && common > 0.0 && apart < 0.0, "{rare} {common} {apart}");
        // The factor does not depend on which of the two comes first.
        let (a, b) = ([(0, 3), (1, 1)], [(1, 4), (2, 2)]);
        let (ab, ba) = (habitat.same_distribution(&a, &b), habitat.same_distribution(&b, &a));
        assert!((ab - ba).abs() < 1e-9);
    }

    #[test]
    fn a_useless_score_is_calibrated_to_nothing() {
        let scores: Vec<f64> = (0..100).map(|i| f64::from(i) / 10.0).collect();
        let useless = Calibration::fit(&scores, &scores, 0.5);
        assert!(useless.apply(5.0).abs() < 0.6, "{useless:?}");
        let shifted: Vec<f64> = scores.iter().map(|score| score + 8.0).collect();
        let useful = Calibration::fit(&shifted, &scores, 0.5);
        assert!(useful.apply(16.0) > 1.0 && useful.apply(0.0) < -1.0, "{useful:?}");
    }

    #[test]
    fn near_and_rare_measurements_are_of_one_thing() {
        let near = two_covariance(3.0, 3.1, 0.0, 1.0, 0.1);
        let common = two_covariance(0.0, 0.1, 0.0, 1.0, 0.1);
        let far = two_covariance(-1.0, 1.5, 0.0, 1.0, 0.1);
        assert!(near > common && common > 0.0 && far < 0.0);
    }
}
