//! The small models that turn a comparison into nats.

use anbiq_statistics::special::ln_gamma;

use crate::link::POPULATION;

/// `ln(a (a+1) ... (a+n-1))`: the rising factorial that Dirichlet-multinomial probabilities are made of.
fn ln_rising(a: f64, n: u32) -> f64 {
    if n > 12 { ln_gamma(a + f64::from(n)) - ln_gamma(a) } else { (0..n).map(|i| (a + f64::from(i)).ln()).sum() }
}

/// Counts up to which [`Habitat`] has the logarithms at hand.
const AT_HAND: usize = 4_096;
/// How closely accounts keep to habits of their own: total weights of Dirichlet priors, from an application with one template to
/// somebody who may ask anything.
const SCALES: [f64; 8] = [0.5, 2.0, 8.0, 32.0, 128.0, 512.0, 2_048.0, 8_192.0];
/// Means around which accounts vary: of those who converse and of those who do not.
const BASES: usize = 2;
/// Ways in which accounts may vary: each scale around each mean. All scales of the first mean come first.
const WAYS: usize = BASES * SCALES.len();
/// Ways that are kept: the widest around each mean, for what many accounts ask together, and the commonest others.
const KEPT: usize = 8;
/// Least share of a way.
const LEAST: f64 = 0.005;

/// Log probabilities of some counts, way by way.
type Likelihoods = [f64; KEPT];

/// Counts `(cell, count)`, sorted by cell.
pub(crate) type Row = [(usize, u32)];

/// What a comparison of a row with any other needs of it alone.
#[derive(Debug, Default)]
pub(crate) struct Told {
    likelihoods: Likelihoods,
    /// The log probability of the row, whatever its way.
    ln_all: f64,
    /// For each of its cells [`ln_rising`] of its weight in each way.
    cells: Vec<Likelihoods>,
    total: u32,
}

/// What accounts in general draw from: a mixture of Dirichlet priors on distributions over cells. With a single one, two accounts
/// that ask of everything would speak against each other only because they share little; and with a single mean, two people would
/// speak for each other only because both ask what people ask and programs do not.
#[derive(Debug)]
pub(crate) struct Habitat {
    /// Mean shares of each cell, never 0.
    bases: [Vec<f64>; BASES],
    /// The ways: for each its mean and its scale, by place.
    ways: [(usize, usize); KEPT],
    /// Logarithm of the share of each way.
    ln_shares: Likelihoods,
    /// [`ln_rising`] of each scale for every small count.
    rising: [Vec<f64>; SCALES.len()],
}

impl Habitat {
    /// Of the accounts whose counts are `rows`, each with whether it converses, among `cells` cells. The shares of the ways are those
    /// under which the rows are most probable (by expectation maximisation).
    pub(crate) fn fit(rows: &[(Vec<(usize, u32)>, bool)], cells: usize) -> Self {
        let all: Vec<&Row> = rows.iter().map(|row| &row.0[..]).filter(|row| !row.is_empty()).collect();
        let base = |converses: bool| {
            let kept = rows.iter().filter(|row| row.1 == converses && !row.0.is_empty());
            let kept: Vec<&Row> = kept.map(|row| &row.0[..]).collect();
            // Few accounts are no mean of a kind.
            base_rates(if kept.len() < POPULATION { &all } else { &kept }, cells)
        };
        let mut this = Self::new([base(false), base(true)]);
        let ways: [(usize, usize); WAYS] = std::array::from_fn(|way| (way / SCALES.len(), way % SCALES.len()));
        let known: Vec<[f64; WAYS]> = all.iter().map(|row| ways.map(|way| this.likelihood(row, way))).collect();
        let mut shares = [1.0 / WAYS as f64; WAYS];
        for _ in 0..20 {
            let mut sums = [LEAST; WAYS];
            for likelihoods in &known {
                let joint: [f64; WAYS] = std::array::from_fn(|way| likelihoods[way] + shares[way].ln());
                let all = ln_sum(&joint);
                sums.iter_mut().zip(joint).for_each(|(sum, one)| *sum += (one - all).exp());
            }
            let all: f64 = sums.iter().sum();
            shares = sums.map(|sum| (sum / all).max(LEAST));
        }
        let mut order: [usize; WAYS] = std::array::from_fn(|way| way);
        let widest = |way: usize| ways[way].1 + 1 == SCALES.len();
        order.sort_by(|a, b| widest(*b).cmp(&widest(*a)).then(shares[*b].total_cmp(&shares[*a])).then(a.cmp(b)));
        let kept: f64 = order[..KEPT].iter().map(|way| shares[*way]).sum();
        this.ways = std::array::from_fn(|place| ways[order[place]]);
        this.ln_shares = std::array::from_fn(|place| (shares[order[place]] / kept).ln());
        this
    }

    /// With the first ways, alike.
    fn new(bases: [Vec<f64>; BASES]) -> Self {
        let rising = SCALES.map(|scale| {
            let mut sum = 0.0;
            let steps = (0..AT_HAND).map(|n| {
                let before = sum;
                sum += (scale + n as f64).ln();
                before
            });
            steps.collect()
        });
        let ways = std::array::from_fn(|way| (way / SCALES.len(), way % SCALES.len()));
        Self { bases, ways, ln_shares: [(1.0 / KEPT as f64).ln(); KEPT], rising }
    }

    /// The log probability of a row in one way.
    fn likelihood(&self, row: &Row, (base, scale): (usize, usize)) -> f64 {
        let of = |(cell, count): &(usize, u32)| ln_rising(SCALES[scale] * self.bases[base][*cell], *count);
        row.iter().map(of).sum::<f64>() - self.rising_of(scale, row.iter().map(|(_, count)| count).sum())
    }

    /// The weight of a cell in each way.
    fn weights(&self, cell: usize) -> Likelihoods {
        self.ways.map(|(base, scale)| SCALES[scale] * self.bases[base][cell])
    }

    /// [`ln_rising`] of the total weight of a way.
    fn rising(&self, way: usize, n: u32) -> f64 {
        self.rising_of(self.ways[way].1, n)
    }

    fn rising_of(&self, scale: usize, n: u32) -> f64 {
        self.rising[scale].get(n as usize).copied().unwrap_or_else(|| ln_rising(SCALES[scale], n))
    }

    fn joint(&self, likelihoods: &Likelihoods) -> Likelihoods {
        let mut joint = self.ln_shares;
        joint.iter_mut().zip(likelihoods).for_each(|(sum, one)| *sum += one);
        joint
    }

    fn cells(&self, row: &Row) -> Vec<Likelihoods> {
        row.iter().map(|(cell, count)| self.weights(*cell).map(|weight| ln_rising(weight, *count))).collect()
    }

    fn likelihoods_of(&self, cells: &[Likelihoods], all: u32) -> Likelihoods {
        let mut likelihoods = [0.0; KEPT];
        for (place, likelihood) in likelihoods.iter_mut().enumerate() {
            *likelihood = cells.iter().map(|cell| cell[place]).sum::<f64>() - self.rising(place, all);
        }
        likelihoods
    }

    /// What is needed of a row to compare it.
    pub(crate) fn told(&self, row: &Row) -> Told {
        let (cells, total) = (self.cells(row), row.iter().map(|(_, count)| count).sum());
        let likelihoods = self.likelihoods_of(&cells, total);
        Told { likelihoods, ln_all: ln_sum(&self.joint(&likelihoods)), cells, total }
    }

    /// Log Bayes factor that two rows of counts come from one distribution rather than from two (Minka 2000).
    ///
    /// It weighs by rarity by itself: a shared cell that everybody uses says nothing. Each row comes with what is
    /// [`Habitat::told`] of it.
    pub(crate) fn same_distribution(&self, a: (&Row, &Told), b: (&Row, &Told)) -> f64 {
        let mut together = self.joint(&a.1.likelihoods);
        for (place, sum) in together.iter_mut().enumerate() {
            *sum += b.1.likelihoods[place] + self.rising(place, b.1.total) + self.rising(place, a.1.total)
                - self.rising(place, a.1.total + b.1.total);
        }
        let (mut i, mut j) = (0, 0);
        while let (Some((cell_a, n)), Some((cell_b, m))) = (a.0.get(i), b.0.get(j)) {
            match cell_a.cmp(cell_b) {
                std::cmp::Ordering::Less => i += 1,
                std::cmp::Ordering::Greater => j += 1,
                std::cmp::Ordering::Equal => {
                    let weights = self.weights(*cell_a);
                    for ((sum, weight), alone) in together.iter_mut().zip(weights).zip(b.1.cells[j]) {
                        *sum += ln_rising(weight + f64::from(*n), *m) - alone;
                    }
                    i += 1;
                    j += 1;
                }
            }
        }
        ln_sum(&together) - a.1.ln_all - b.1.ln_all
    }
}

/// The logarithm of the sum of the exponentials.
fn ln_sum(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + values.iter().map(|value| (value - largest).exp()).sum::<f64>().ln()
}

/// The log-likelihood ratio of what only a `share` of operators does, where those who do give `nats`: it speaks for, and hardly
/// against.
pub(crate) fn optional(share: f64, nats: f64) -> f64 {
    let for_it = share.ln() + nats;
    let without = (1.0 - share).ln();
    let largest = for_it.max(without);
    largest + ((for_it - largest).exp() + (without - largest).exp()).ln()
}

/// The mean over accounts of how much of each goes to each cell, never 0.
fn base_rates(rows: &[&Row], cells: usize) -> Vec<f64> {
    let floor = 0.01 / cells.max(1) as f64;
    let mut rates = vec![floor; cells];
    let used = rows.len().max(1) as f64;
    for row in rows {
        let all: u32 = row.iter().map(|(_, count)| count).sum();
        for (cell, count) in *row {
            rates[*cell] += 0.99 * f64::from(*count) / f64::from(all) / used;
        }
    }
    rates
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

/// Nats that chance gives `seen` or more where `expected` are: Chernoff's bound on a Poisson tail.
pub(crate) fn chance(seen: f64, expected: f64) -> f64 {
    if seen <= expected { 0.0 } else { seen * (seen / expected).ln() - seen + expected }
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
        let habitat = Habitat::new([vec![0.9, 0.05, 0.05], vec![0.9, 0.05, 0.05]]);
        let same = |a: &Row, b: &Row| habitat.same_distribution((a, &habitat.told(a)), (b, &habitat.told(b)));
        let (common, rare) = (same(&[(0, 5)], &[(0, 5)]), same(&[(1, 5)], &[(1, 5)]));
        let apart = same(&[(1, 5)], &[(2, 5)]);
        assert!(rare > common && common > 0.0 && apart < 0.0, "{rare} {common} {apart}");
        // The factor does not depend on which of the two comes first.
        let (a, b) = ([(0, 3), (1, 1)], [(1, 4), (2, 2)]);
        assert!((same(&a, &b) - same(&b, &a)).abs() < 1e-9);
    }

    /// Of two hypotheses with all of their draws enumerated, the probabilities of the data add up to one.
    #[test]
    fn likelihoods_are_probabilities_of_sequences() {
        let habitat = Habitat::new([vec![0.5, 0.3, 0.2], vec![0.1, 0.2, 0.7]]);
        let mut sums = [0.0; KEPT];
        for sequence in 0..81_u32 {
            let mut counts = [0; 3];
            (0..4).for_each(|place| counts[(sequence / 3_u32.pow(place) % 3) as usize] += 1);
            let row: Vec<(usize, u32)> = counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
            sums.iter_mut().zip(habitat.told(&row).likelihoods).for_each(|(sum, ln)| *sum += ln.exp());
        }
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-9), "{sums:?}");
    }

    #[test]
    fn accounts_that_ask_of_everything_do_not_speak_against_each_other() {
        let cells = 400;
        let loner = |place: usize| vec![(place, 30)];
        let broad = |start: usize| (0..30).map(|step| (start + 5 * step, 1)).collect::<Vec<_>>();
        let rows: Vec<_> = (0..40).map(loner).chain((0..40).map(|place| broad(place % 5 + 40))).collect();
        let rows: Vec<_> = rows.into_iter().map(|row| (row, false)).collect();
        let habitat = Habitat::fit(&rows, cells);
        let same = |a: &Row, b: &Row| habitat.same_distribution((a, &habitat.told(a)), (b, &habitat.told(b)));
        assert!(same(&broad(41), &broad(42)) > -3.0 && same(&loner(1), &loner(2)) < -3.0);
    }

    /// Programs have a kind of prompt each; people ask of one large stock. What people have in common as people links none of them,
    /// and what few of them share besides does.
    #[test]
    fn people_are_compared_with_people() {
        let mut random = anbiq_domain::Seeded::new(7);
        let cells = 1_000;
        let mut row = |draw: &mut dyn FnMut(&mut anbiq_domain::Seeded) -> usize| {
            let mut counts = std::collections::BTreeMap::new();
            (0..60).for_each(|_| *counts.entry(draw(&mut random)).or_insert(0_u32) += 1);
            counts.into_iter().collect::<Vec<_>>()
        };
        let mut rows: Vec<_> = (0..60).map(|place| (row(&mut |_| place), false)).collect();
        rows.extend((0..60).map(|_| (row(&mut |random| 100 + random.below(600)), true)));
        let hiding = |random: &mut anbiq_domain::Seeded| {
            if random.chance(0.2) { 800 + random.below(20) } else { 100 + random.below(600) }
        };
        rows.extend((0..12).map(|_| (row(&mut |random| hiding(random)), true)));
        let habitat = Habitat::fit(&rows, cells);
        let pool = |rows: &[(Vec<(usize, u32)>, bool)]| {
            let mut counts = std::collections::BTreeMap::new();
            rows.iter().flat_map(|row| &row.0).for_each(|(cell, count)| *counts.entry(*cell).or_insert(0) += count);
            counts.into_iter().collect::<Vec<_>>()
        };
        let same = |a: &Row, b: &Row| habitat.same_distribution((a, &habitat.told(a)), (b, &habitat.told(b)));
        let people = same(&pool(&rows[60..66]), &pool(&rows[66..72]));
        let hidden = same(&pool(&rows[120..126]), &pool(&rows[126..132]));
        assert!(people < 1.0 && hidden > 5.0, "{people} {hidden}");
    }

    #[test]
    fn what_is_optional_hardly_speaks_against() {
        assert!((optional(0.5, 0.0)).abs() < 1e-12);
        assert!(optional(0.7, -50.0) > -1.21 && optional(0.7, 50.0) > 49.0);
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
