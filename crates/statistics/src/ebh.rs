//! Several hypotheses at once by their e-values (Wang and Ramdas 2022).

/// Which hypotheses the e-BH procedure rejects, in ascending order of their place: the expected share of false ones among
/// them is at most `alpha`, whatever the dependence between the e-values. Takes natural logarithms of e-values; NaN counts
/// as no evidence.
pub fn reject(ln_e: &[f64], alpha: f64) -> Vec<usize> {
    let clean = |index: usize| if ln_e[index].is_nan() { f64::NEG_INFINITY } else { ln_e[index] };
    let mut order: Vec<usize> = (0..ln_e.len()).collect();
    order.sort_by(|&a, &b| clean(b).total_cmp(&clean(a)));
    let enough = |count: usize| clean(order[count - 1]) >= (ln_e.len() as f64 / (count as f64 * alpha)).ln();
    let count = (1..=ln_e.len()).rev().find(|&count| enough(count)).unwrap_or(0);
    order.truncate(count);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_as_defined() {
        let ln = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<_>>();
        assert_eq!(reject(&[], 0.05), [0_usize; 0]);
        assert_eq!(reject(&ln(&[19.0]), 0.05), [0_usize; 0]);
        assert_eq!(reject(&ln(&[21.0]), 0.05), [0]);
        // Thresholds for three at 0.05: 60, 30, 20.
        assert_eq!(reject(&ln(&[25.0, 1.0, 31.0]), 0.05), [0_usize; 0]);
        assert_eq!(reject(&ln(&[31.0, 1.0, 35.0]), 0.05), [0, 2]);
        assert_eq!(reject(&ln(&[61.0, 1.0, 2.0]), 0.05), [0]);
        assert_eq!(reject(&[f64::NAN, f64::INFINITY], 0.05), [1]);
    }
}
