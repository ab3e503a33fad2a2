//! A log-probability in 16 bits.
//!
//! With `y` for the negative of a log-probability, from 0 to 128 nats, its code is `round(65535 ln(1 + y / a) / ln(1 + 128 / a))`,
//! `a` = 0.01: logarithmic companding, as the μ-law of telephony is. The largest error is `7.3e-5 (a + y)` nats: of a token with a probability of
//! 0.999 one part in a million of that, of one with 0.5 fifty, of one with 1e-9 one and a half in a thousand. Half precision errs
//! by up to `4.9e-4 y`: three to six times as much for all that is less likely than 0.99, and less only for what is likelier than 0.998, where both
//! err by less than a millionth. Of what is likely, which weighs most in every loss, this keeps most.
//!
//! Exactly 0 stays 0. What is above 0 is no log-probability and counts as 0; what is below -128 counts as -128. A code that was read and is
//! written again is the same code, so a capture may be shelved as often as it is gone on with.

use std::sync::LazyLock;

/// Where the code turns from even steps to even ratios, in nats.
const KNEE: f64 = 0.01;

/// The largest that there is a code for, in nats.
const MOST: f64 = 128.0;

/// What each code stands for: a pure function of the code that takes longer than to look it up.
static MEANINGS: LazyLock<Vec<f32>> = LazyLock::new(|| (0..=u16::MAX).map(meaning).collect());

/// The nearest code of a log-probability in nats; what is no number is as unlikely as can be.
pub(crate) fn encode(logprob: f32) -> u16 {
    let y = if logprob.is_nan() { MOST } else { (-f64::from(logprob)).clamp(0.0, MOST) };
    (f64::from(u16::MAX) * (y / KNEE).ln_1p() / (MOST / KNEE).ln_1p()).round() as u16
}

/// The log-probability that a code stands for, in nats.
pub(crate) fn decode(code: u16) -> f32 {
    MEANINGS.get(usize::from(code)).copied().unwrap_or_default()
}

fn meaning(code: u16) -> f32 {
    // What is added to a zero has no sign.
    0.0 - (KNEE * (f64::from(code) / f64::from(u16::MAX) * (MOST / KNEE).ln_1p()).exp_m1()) as f32
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_code_is_read_as_what_it_was_written_for() {
        for code in 0..=u16::MAX {
            assert_eq!(encode(decode(code)), code);
        }
        assert_eq!((encode(0.0), decode(0).to_bits()), (0, 0.0_f32.to_bits()));
        for (strange, code) in [
            (-0.0, 0),
            (1e-4, 0),
            (7.0, 0),
            (-128.0, u16::MAX),
            (-9999.0, u16::MAX),
            (f32::NEG_INFINITY, u16::MAX),
            (f32::NAN, u16::MAX),
        ] {
            assert_eq!(encode(strange), code, "{strange}");
        }
    }

    proptest! {
        /// The error that is written above; and half precision's is larger wherever a place has something to say.
        #[test]
        fn the_error_is_small_everywhere(y in prop_oneof![0.0..0.02_f32, 0.02..2.0_f32, 2.0..128.0_f32]) {
            let error = f64::from((decode(encode(-y)) + y).abs());
            // Half of the last bit of the number itself besides.
            let own = f64::from(y) * 6e-8;
            prop_assert!(error <= 7.3e-5 * (KNEE + f64::from(y)) + own, "{y} {error}");
        }
    }

    #[test]
    fn half_precision_errs_more_of_all_but_the_surest() {
        // The mean square of the error over probabilities that are spread evenly, and their logarithms.
        let root = |of: &dyn Fn(f32) -> f32, points: &[f32]| {
            let sum: f64 = points.iter().map(|&point| f64::from(of(point) - point).powi(2)).sum();
            (sum / points.len() as f64).sqrt()
        };
        let half = |point: f32| f16::from_f32(point).to_f32();
        let own = |point: f32| decode(encode(point));
        let even: Vec<f32> = (1..10_000).map(|step| (step as f32 / 10_000.0).ln()).collect();
        let wide: Vec<f32> = (1..10_000).map(|step| step as f32 * -0.002).collect();
        for points in [even, wide] {
            let (half, own) = (root(&half, &points), root(&own, &points));
            assert!(own * 3.0 < half, "{own} {half}");
        }
        assert!(half(-1e-4) + 1e-4 < 1e-6 && own(-1e-4) + 1e-4 < 1e-6);
    }
}
