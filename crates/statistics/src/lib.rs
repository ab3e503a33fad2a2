//! Exact and sequential tests, e-values, multiple testing and sketches.
//!
//! Everything here is a pure function of its arguments. A test names its null hypothesis and what is random in it.
//! A p-value is exact or an upper bound of the exact one, up to a relative rounding error of 10^-11, so
//! `P(p <= a) <= a` holds for every `a` under the null hypothesis. An e-value has expectation at most 1 under it.

pub mod coincidence;
pub mod conformal;
pub mod detector;
pub mod ebh;
pub mod evalue;
pub mod holm;
pub mod permutation;
pub mod proportion;
pub mod sign;
pub mod signed_rank;
pub mod siphash;
pub mod sketch;
pub mod special;
pub mod two_samples;

/// Where p-values stop. Below it floating-point numbers lose digits and then become 0, and a p-value is never 0.
pub const SMALLEST_P: f64 = 1e-300;
