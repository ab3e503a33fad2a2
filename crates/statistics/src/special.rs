//! Special functions that tests are made of.

use std::f64::consts::{PI, SQRT_2};

/// Iterations after which a continued fraction or series is taken as it is; reached only far outside of sane input.
const MOST_TERMS: usize = 100_000;

/// Natural logarithm of the gamma function for `x > 0`; NaN for others. Relative error below 10^-14.
///
/// Lanczos (1964) with g = 7 and nine terms; below 1/2 by the reflection formula.
pub fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x.is_nan() || x <= 0.0 {
        return f64::NAN;
    }
    if x < 0.5 {
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = COEFFICIENTS
        .iter()
        .zip(1_u32..)
        .fold(0.999_999_999_999_809_9, |sum, (coefficient, place)| sum + coefficient / (x + f64::from(place)));
    let base = x + 7.5;
    0.5 * (2.0 * PI).ln() + (x + 0.5) * base.ln() - base + sum.ln()
}

/// The regularised incomplete beta function I_x(a, b) for `a, b > 0` and `x` in 0..=1; NaN for others.
///
/// Continued fraction DLMF 8.17.22, evaluated by Lentz's method (1976) as modified by Thompson and Barnett (1986).
pub fn betainc(a: f64, b: f64, x: f64) -> f64 {
    if a.is_nan() || b.is_nan() || a <= 0.0 || b <= 0.0 || !(0.0..=1.0).contains(&x) {
        return f64::NAN;
    }
    if x == 0.0 || x == 1.0 {
        return x;
    }
    let front = ln_beta_front(a, b, x).exp();
    // The fraction converges fast below the mean; above it the mirror image does.
    if x <= (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(a, b, x) / a
    } else {
        1.0 - front * beta_fraction(b, a, 1.0 - x) / b
    }
}

/// ln(x^a (1 - x)^b / B(a, b)).
fn ln_beta_front(a: f64, b: f64, x: f64) -> f64 {
    if a.min(b) < STIRLING_FROM {
        return a * x.ln() + b * (-x).ln_1p() - (ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b));
    }
    // Terms as large as ln_gamma(a) cancel, and their last digits with them: what is left is written out (Loader 2000).
    let n = a + b;
    let rest = 0.5 * (a * (b / n) / (2.0 * PI)).ln() + stirling_rest(n) - stirling_rest(a) - stirling_rest(b);
    let off = x * n - a;
    a * (off / a).ln_1p() + b * (-off / b).ln_1p() + rest
}

/// ln(x^a e^-x / gamma(a)).
fn ln_gamma_front(a: f64, x: f64) -> f64 {
    if a < STIRLING_FROM {
        return a * x.ln() - x - ln_gamma(a);
    }
    let off = (x - a) / a;
    -a * (off - off.ln_1p()) + 0.5 * (a / (2.0 * PI)).ln() - stirling_rest(a)
}

/// From here on four terms of the series have all digits.
const STIRLING_FROM: f64 = 100.0;

/// What Stirling's formula lacks of ln_gamma(`x`), for large `x` (DLMF 5.11.1).
fn stirling_rest(x: f64) -> f64 {
    let square = x * x;
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / x
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let mut lentz = Lentz::new(1.0, 1.0 - (a + b) * x / (a + 1.0));
    for term in 1..MOST_TERMS {
        let m = term as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        lentz.step(even, 1.0);
        if lentz.step(odd, 1.0) {
            break;
        }
    }
    lentz.value
}

/// Lentz's evaluation of a continued fraction from its first term on.
struct Lentz {
    c: f64,
    d: f64,
    value: f64,
}

impl Lentz {
    const TINY: f64 = 1e-300;

    fn new(c: f64, first: f64) -> Self {
        let d = 1.0 / Self::away_from_zero(first);
        Self { c, d, value: d }
    }

    /// Takes in one more level with this numerator and denominator; true once the value stands.
    fn step(&mut self, numerator: f64, denominator: f64) -> bool {
        self.d = 1.0 / Self::away_from_zero(denominator + numerator * self.d);
        self.c = Self::away_from_zero(denominator + numerator / self.c);
        let factor = self.c * self.d;
        self.value *= factor;
        (factor - 1.0).abs() < 1e-15
    }

    fn away_from_zero(value: f64) -> f64 {
        if value.abs() < Self::TINY { Self::TINY } else { value }
    }
}

/// The regularised upper incomplete gamma function Q(a, x) for `a > 0`, `x >= 0`; NaN for others.
///
/// Series DLMF 8.11.4 below `a + 1`, continued fraction DLMF 8.9.2 above it, so that small tails keep their digits.
pub fn gammaincc(a: f64, x: f64) -> f64 {
    if a.is_nan() || x.is_nan() || a <= 0.0 || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let front = ln_gamma_front(a, x).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for place in 1..MOST_TERMS {
            term *= x / (a + place as f64);
            sum += term;
            if term < sum * 1e-16 {
                break;
            }
        }
        return 1.0 - front * sum;
    }
    front * gamma_fraction(a, x)
}

/// Natural logarithm of [`gammaincc`]: goes on where that is 0.
pub fn ln_gammaincc(a: f64, x: f64) -> f64 {
    if a > 0.0 && x > a + 1.0 && x.is_finite() {
        return ln_gamma_front(a, x) + gamma_fraction(a, x).ln();
    }
    gammaincc(a, x).ln()
}

/// Q(a, x) over its front, for `x` above `a + 1`.
fn gamma_fraction(a: f64, x: f64) -> f64 {
    let start = x + 1.0 - a;
    let mut lentz = Lentz::new(1.0 / Lentz::TINY, start);
    for place in 1..MOST_TERMS {
        let n = place as f64;
        if lentz.step(-n * (n - a), start + 2.0 * n) {
            break;
        }
    }
    lentz.value
}

/// P(Z <= z) of a standard normal Z; tails keep their digits.
pub fn normal_cdf(z: f64) -> f64 {
    let tail = 0.5 * gammaincc(0.5, 0.5 * z * z);
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// The z with P(Z <= z) = `p` of a standard normal Z; infinite at 0 and 1, NaN outside of 0..=1.
///
/// Acklam's rational approximation (2003) and two of Halley's steps.
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 {
        return f64::NEG_INFINITY;
    }
    if p == 1.0 {
        return f64::INFINITY;
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let mut z = acklam(p);
    for _ in 0..2 {
        // Relative error times p over the density.
        let step = (normal_cdf(z) - p) * (2.0 * PI).sqrt() * (0.5 * z * z).exp();
        z -= step / (1.0 + 0.5 * z * step);
    }
    z
}

/// Acklam's approximation for `p` up to 1/2; relative error 1.2 x 10^-9.
fn acklam(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
    if p < 0.024_25 {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&C, q) / polynomial(&D, q)
    } else {
        let q = p - 0.5;
        q * polynomial(&A, q * q) / polynomial(&B, q * q)
    }
}

/// Horner's scheme, highest power first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// P(X >= `successes`) of X ~ Binomial(`trials`, `probability`); NaN for a probability outside of 0..=1.
pub fn binomial_upper_tail(successes: u64, trials: u64, probability: f64) -> f64 {
    if !(0.0..=1.0).contains(&probability) {
        return f64::NAN;
    }
    if successes == 0 {
        return 1.0;
    }
    if successes > trials {
        return 0.0;
    }
    if probability == 0.0 || probability == 1.0 {
        return probability;
    }
    betainc(successes as f64, (trials - successes) as f64 + 1.0, probability)
}

/// Natural logarithm of [`binomial_upper_tail`]: goes on where that is 0.
pub fn ln_binomial_upper_tail(successes: u64, trials: u64, probability: f64) -> f64 {
    let (a, b) = (successes as f64, trials.saturating_sub(successes) as f64 + 1.0);
    let far = probability > 0.0 && probability < 1.0 && successes > 0 && successes <= trials;
    if far && probability <= (a + 1.0) / (a + b + 2.0) {
        return ln_beta_front(a, b, probability) + (beta_fraction(a, b, probability) / a).ln();
    }
    binomial_upper_tail(successes, trials, probability).ln()
}

/// P(|Z| >= |z|) of a standard normal Z.
pub fn normal_two_sided(z: f64) -> f64 {
    gammaincc(0.5, (z / SQRT_2).powi(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(actual: f64, expected: f64, relative: f64) {
        assert!((actual - expected).abs() <= relative * expected.abs(), "{actual:e} for {expected:e}");
    }

    #[test]
    fn known_values_come_out() {
        // From mpmath 1.3 with 30 digits.
        near(ln_gamma(0.1), 2.252_712_651_734_206, 1e-14);
        near(ln_gamma(0.5), 0.572_364_942_924_700_1, 1e-14);
        near(ln_gamma(10.0), 12.801_827_480_081_469, 1e-14);
        near(ln_gamma(1000.5), 5_908.674_175_848_677, 1e-14);
        near(betainc(2.0, 3.0, 0.4), 0.5248, 1e-13);
        near(betainc(0.5, 0.5, 0.1), 0.204_832_764_699_133_45, 1e-13);
        near(betainc(60.0, 41.0, 0.5), 0.028_443_966_820_490_392, 1e-12);
        near(gammaincc(0.5, 2.0), 0.045_500_263_896_358_41, 1e-13);
        near(gammaincc(3.0, 1.0), 0.919_698_602_928_605_8, 1e-13);
        near(gammaincc(5.0, 50.0), 5.449_701_982_920_529e-17, 1e-12);
        near(gammaincc(100.0, 150.0), 5.924_540_335_483_916e-6, 1e-12);
        near(gammaincc(5_000.0, 5_400.0), 1.720_663_196_323_986_8e-8, 1e-12);
        near(gammaincc(1e6, 1.006e6), 1.059_739_735_284_381_3e-9, 1e-11);
        near(ln_gammaincc(1e6, 1.06e6), -1_736.105_453_435_893_9, 1e-13);
        near(ln_gammaincc(3.0, 1.0), 0.919_698_602_928_605_8_f64.ln(), 1e-12);
        near(ln_binomial_upper_tail(2_700, 10_000, 0.25), -12.923_730_947_126_257, 1e-13);
        near(ln_binomial_upper_tail(253_000, 1_000_000, 0.25), -26.802_778_728_236_397, 1e-12);
        near(ln_binomial_upper_tail(300_000, 1_000_000, 0.25), -6_406.999_360_161_147, 1e-13);
        near(ln_binomial_upper_tail(1, 3, 0.9), 0.999_f64.ln(), 1e-12);
        near(normal_cdf(-1.959_963_984_540_054), 0.025, 1e-13);
        near(normal_cdf(-10.0), 7.619_853_024_160_527e-24, 1e-12);
        near(normal_two_sided(3.0), 0.002_699_796_063_260_188_8, 1e-12);
    }

    #[test]
    fn the_quantile_undoes_the_distribution() {
        for p in [1e-250, 1e-20, 1e-6, 0.001, 0.024, 0.025, 0.3, 0.5] {
            near(normal_cdf(normal_quantile(p)), p, 1e-11);
        }
        near(normal_quantile(0.975), 1.959_963_984_540_054, 1e-13);
        near(normal_quantile(1e-6), -4.753_424_308_822_899, 1e-12);
    }

    #[test]
    fn gamma_tails_agree_with_their_sums() {
        // Of a whole number of exponential variables: the tail of Poisson's distribution.
        for n in [1_u32, 2, 10, 99, 100, 101, 140] {
            for x in [0.1, 1.0, 20.0, 99.0, 100.0, 130.0, 300.0] {
                let terms = (0..n).map(|k| (f64::from(k) * f64::ln(x) - x - ln_gamma(f64::from(k) + 1.0)).exp());
                near(gammaincc(f64::from(n), x), terms.sum(), 1e-11);
            }
        }
    }

    #[test]
    fn binomial_tails_agree_with_their_sums() {
        for trials in [1_u64, 2, 7, 40] {
            for probability in [0.1, 0.5, 0.83] {
                let mut tail = 0.0;
                for successes in (0..=trials).rev() {
                    let choose = ln_gamma(trials as f64 + 1.0)
                        - ln_gamma(successes as f64 + 1.0)
                        - ln_gamma((trials - successes) as f64 + 1.0);
                    tail += (choose
                        + successes as f64 * f64::ln(probability)
                        + (trials - successes) as f64 * f64::ln(1.0 - probability))
                    .exp();
                    near(binomial_upper_tail(successes, trials, probability), tail, 1e-11);
                }
            }
        }
        assert_eq!(binomial_upper_tail(3, 2, 0.5), 0.0);
        near(binomial_upper_tail(1000, 1000, 0.5), 0.5_f64.powi(1000), 1e-11);
    }
}
