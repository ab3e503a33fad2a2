//! Changes that are found by betting: e-detectors.
//!
//! Somebody bets against the null hypothesis as in [`evalue`](crate::evalue), but does not know since when it is wrong. So a
//! new bettor starts at every step, and what counts is the sum of all their fortunes (Shin, Ramdas and Rinaldo 2024, the
//! Shiryaev-Roberts type).
//!
//! Under the null hypothesis the expected sum after `t` steps is at most `t`, at every stopping time, whatever depends on
//! whatever. Hence P(it reaches `c` within `t` steps) <= t / c, and the mean number of steps until it does is at least `c`.
//! Where the values of many streams go through the e-BH procedure at level `a`, the expected share of false ones among those
//! it rejects is at most `a` times the number of steps, at every stopping time (Dandapanthula and Ramdas 2025).

/// The sum of the fortunes of bettors of whom one starts at every step with a fortune of 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Detector {
    /// The logarithm of one more than the sum: 0 before the first step, and finite always.
    ln_1p: f64,
}

impl Detector {
    /// Nobody has bet.
    pub const fn new() -> Self {
        Self { ln_1p: 0.0 }
    }

    /// One more step, whose e-value has the natural logarithm `ln_e`: its expectation is at most 1 under the null hypothesis,
    /// given all that was before. NaN counts as no evidence.
    pub fn push(&mut self, ln_e: f64) {
        let ln = self.ln_1p + if ln_e.is_nan() { 0.0 } else { ln_e };
        self.ln_1p = if ln > 30.0 { ln + (-ln).exp() } else { ln.exp().ln_1p() };
    }

    /// The natural logarithm of the sum; minus infinity before the first step.
    pub fn ln_value(&self) -> f64 {
        if self.ln_1p > 30.0 { self.ln_1p } else { self.ln_1p.exp_m1().ln() }
    }

    /// All of its state, for [`Detector::resume`].
    pub const fn state(&self) -> f64 {
        self.ln_1p
    }

    /// As it was when [`Detector::state`] was taken; anything that is no such state counts as nothing seen.
    pub fn resume(state: f64) -> Self {
        Self { ln_1p: if state >= 0.0 { state } else { 0.0 } }
    }
}

/// The natural logarithm of what one unit becomes when the share `stake` of it is bet on `score` being above `bound`, at
/// odds that are fair where its mean is `bound`: `1 + stake (score - bound) / bound`.
///
/// H0: given all that was before, the expectation of `score` is at most `bound`. Random is the score. It lies in `0..=1`; a
/// `bound` above 0 and a `stake` in `0..1` were fixed before it was seen, so nothing is ever lost altogether.
pub fn wager(score: f64, bound: f64, stake: f64) -> f64 {
    (stake * (score.clamp(0.0, 1.0) - bound) / bound).ln_1p()
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;
    use crate::ebh;

    const BOUND: f64 = 0.8;
    const STAKE: f64 = 0.5;

    #[test]
    fn the_expected_sum_after_t_steps_is_t() {
        // All outcomes of ten tosses that come up with the probability of the bound.
        for steps in 1..=10_u32 {
            let expected: f64 = (0_u32..1 << steps)
                .map(|tosses| {
                    let (mut detector, mut probability) = (Detector::new(), 1.0);
                    for step in 0..steps {
                        let up = tosses >> step & 1 == 1;
                        probability *= if up { BOUND } else { 1.0 - BOUND };
                        detector.push(wager(f64::from(u8::from(up)), BOUND, STAKE));
                    }
                    probability * detector.ln_value().exp()
                })
                .sum();
            assert!((expected / f64::from(steps) - 1.0).abs() < 1e-12, "{expected} after {steps}");
        }
    }

    #[test]
    fn it_is_the_sum_of_all_fortunes() {
        let ln_e: [f64; 5] = [0.3, -1.0, 40.0, -0.2, 2.0];
        let mut detector = Detector::new();
        for (last, step) in ln_e.iter().enumerate() {
            detector.push(*step);
            let sum: f64 = (0..=last).map(|first| ln_e[first..=last].iter().sum::<f64>().exp()).sum();
            assert!((detector.ln_value() - sum.ln()).abs() < 1e-12);
            assert_eq!(Detector::resume(detector.state()), detector);
        }
        let before = detector;
        detector.push(f64::NAN);
        assert!(detector.ln_value() >= before.ln_value());
    }

    /// Scores whose mean is `BOUND` given all before, though they depend on it in a nasty way.
    fn next(random: &mut Seeded, before: f64) -> f64 {
        let wide = if before > 0.9 { 0.2 } else { 0.05 };
        if random.chance(0.5) { BOUND + wide } else { BOUND - wide }
    }

    #[test]
    fn under_the_null_it_seldom_and_late_reaches_a_bound() {
        let mut random = Seeded::new(5);
        let (streams, most) = (2_000, 200);
        for c in [20.0_f64, 200.0, 2_000.0] {
            let (mut reached, mut steps) = (0.0, 0.0);
            for _ in 0..streams {
                let (mut detector, mut score) = (Detector::new(), BOUND);
                for _ in 0..most {
                    score = next(&mut random, score);
                    detector.push(wager(score, BOUND, STAKE));
                    steps += 1.0;
                    if detector.ln_value() >= c.ln() {
                        reached += 1.0;
                        break;
                    }
                }
            }
            let (share, bound) = (reached / f64::from(streams), f64::from(most) / c);
            assert!(share <= bound.min(1.0) + 4.0 * (share / f64::from(streams)).sqrt(), "{share} reach {c}");
            // Every alarm costs at least c steps on average.
            assert!(steps >= 0.9 * c * reached, "{steps} steps for {reached} alarms at {c}");
        }
    }

    #[test]
    fn among_many_streams_false_alarms_keep_their_share() {
        let mut random = Seeded::new(6);
        let (streams, changed, looks, share) = (40, 8, 100, 0.2);
        let level = share / looks as f64;
        for with_changes in [false, true] {
            let (mut worst, mut found, worlds) = (0.0_f64, 0_u32, 60_u32);
            let mut sums = vec![0.0; looks];
            for _ in 0..worlds {
                let mut detectors = vec![Detector::new(); streams];
                for (look, sum) in sums.iter_mut().enumerate() {
                    for (stream, detector) in detectors.iter_mut().enumerate() {
                        let bad = with_changes && stream < changed && look >= 20;
                        let score = if bad { 0.99 } else { next(&mut random, 0.0) };
                        detector.push(wager(score, BOUND, STAKE));
                    }
                    let ln: Vec<f64> = detectors.iter().map(Detector::ln_value).collect();
                    let rejected = ebh::reject(&ln, level);
                    let wrong = rejected.iter().filter(|stream| !with_changes || **stream >= changed).count();
                    *sum += wrong as f64 / rejected.len().max(1) as f64;
                    found += u32::from(look + 1 == looks && rejected.len() >= changed);
                }
            }
            sums.iter().for_each(|sum| worst = worst.max(sum / f64::from(worlds)));
            assert!(worst <= share, "{worst}");
            assert!(!with_changes || found == worlds, "{found}");
        }
    }

    #[test]
    fn a_change_is_found_soon() {
        let mut random = Seeded::new(7);
        let mut detector = Detector::new();
        for _ in 0..500 {
            detector.push(wager(next(&mut random, 0.0), BOUND, STAKE));
        }
        let steps = (1..)
            .find(|_| {
                detector.push(wager(1.0, BOUND, STAKE));
                detector.ln_value() >= f64::ln(1e6)
            })
            .unwrap();
        // ln 10^6 over ln 1.125, and no more, whatever was before.
        assert!(steps <= 118, "{steps}");
    }
}
