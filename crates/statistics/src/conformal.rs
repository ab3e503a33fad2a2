//! A model among controls.

/// The conformal p-value of `score` among `controls` (Vovk, Gammerman and Shafer 2005): its rank from above, over one more
/// than the controls. It is never below `1 / (controls + 1)`.
///
/// H0: the score and those of the controls are exchangeable. Random is the draw of the *models*; the number of prompts
/// behind each score plays no part. Controls that are not a number count as large.
pub fn p_value(score: f64, controls: &[f64]) -> f64 {
    let below = controls.iter().filter(|control| **control < score).count();
    (1 + controls.len() - below) as f64 / (1 + controls.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_as_defined() {
        assert_eq!(p_value(1.0, &[]), 1.0);
        assert_eq!(p_value(5.0, &[1.0, 2.0, 3.0]), 0.25);
        assert_eq!(p_value(2.0, &[1.0, 2.0, 3.0]), 0.75);
        assert_eq!(p_value(f64::NAN, &[1.0]), 1.0);
        assert_eq!(p_value(5.0, &[1.0, f64::NAN]), 2.0 / 3.0);
    }
}
