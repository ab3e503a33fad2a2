//! Several hypotheses at once: no false one among all with probability 1 - a (Holm 1979).

/// Holm's adjusted p-values, in the order given: one at most `a` rejects its hypothesis at family-wise level `a`,
/// whatever the dependence between the tests. NaN counts as 1.
pub fn adjust(p_values: &[f64]) -> Vec<f64> {
    let clean = |index: usize| if p_values[index].is_nan() { 1.0 } else { p_values[index] };
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| clean(a).total_cmp(&clean(b)));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (place, index) in order.into_iter().enumerate() {
        largest = largest.max((p_values.len() - place) as f64 * clean(index)).min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_adjustments_come_out() {
        for (p_values, expected) in [
            (&[][..], &[][..]),
            (&[0.03], &[0.03]),
            // As R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
            (&[0.01, 0.04, 0.03, 0.005], &[0.03, 0.06, 0.06, 0.02]),
            (&[0.9, f64::NAN, 0.2], &[1.0, 1.0, 0.6]),
        ] {
            let adjusted = adjust(p_values);
            assert_eq!(adjusted.len(), expected.len());
            assert!(adjusted.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{adjusted:?}");
        }
    }
}
