//! The ranks of canaries, their tests, and the report.

use std::fmt::Write;

use anbiq_domain::Digest;
use anbiq_statistics::{SMALLEST_P, holm};
use serde::{Deserialize, Serialize};

use super::{Draw, Witness};
use crate::text::{list, p_value};
use crate::{Kind, Strength};

/// The version of the report's form.
const FORMAT: u32 = 1;

/// The rank of one canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rank {
    /// Its number.
    pub canary: u32,
    /// To whom it was served.
    pub operator: String,
    /// The place of the served version among all, 1 for the likeliest; equal ones rank before it.
    pub rank: u32,
    /// How often the versions can be halved such that it stays among the likeliest half.
    pub bits: u32,
}

/// The test of some canaries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryTest {
    /// Served to this operator; all of them where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// How many.
    pub canaries: u64,
    /// Sum of their bits.
    pub bits: u64,
    /// P(so many bits, or more), exact.
    pub p_value: f64,
    /// After Holm's adjustment over all tests.
    pub p_holm: f64,
    /// What it shows.
    pub strength: Strength,
}

/// What the canaries show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryReport {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The model in question.
    pub suspect: String,
    /// SHA-256 of the canonical JSON of what was fixed.
    pub draw: Digest,
    /// The public key that signed it.
    pub signer: String,
    /// Versions of each canary.
    pub candidates: u32,
    /// All canaries first, then those of each operator.
    pub tests: Vec<CanaryTest>,
    /// By the smallest adjusted p-value.
    pub strength: Strength,
    /// What the journal shows of the draw; absent where no journal was asked, and then nothing shows that the draw came before
    /// what was served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Witness>,
    /// The canaries.
    pub ranks: Vec<Rank>,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// How often it says so of somebody to whom it does not apply: by its construction, and as far as it was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// What is random under it.
    pub random: String,
    /// How the p-values are made.
    pub tests_in_words: String,
    /// What else could explain it.
    pub rival_explanations: Vec<String>,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

/// How often `candidates` versions can be halved such that the one of this `rank` stays among the likeliest half.
pub(super) fn bits(candidates: u32, rank: u32) -> u32 {
    // In a report from elsewhere anything may stand.
    (candidates / rank.max(1)).max(1).ilog2()
}

/// The test of all canaries, and of those of each operator where there are several: of the operators that they left through
/// where a journal shows that, otherwise of those that they were for.
fn tests(candidates: u32, ranks: &[Rank], journal: Option<&Witness>) -> Vec<CanaryTest> {
    let of = |rank| operators(rank, journal);
    let mut operators: Vec<&str> = ranks.iter().flat_map(of).collect();
    operators.sort_unstable();
    operators.dedup();
    let several = operators.len() > 1;
    let groups = std::iter::once(None).chain(operators.into_iter().filter(|_| several).map(Some));
    let most = candidates.max(1).ilog2();
    let mut tests: Vec<CanaryTest> = groups
        .map(|operator| {
            let own = ranks.iter().filter(|rank| operator.is_none_or(|operator| of(rank).contains(&operator)));
            let bits: Vec<u32> = own.map(|rank| rank.bits).collect();
            let sum = bits.iter().map(|bits| u64::from(*bits)).sum();
            let p_value = upper_tail(sum, bits.len(), most);
            let strength = Strength::of_p_value(p_value);
            let operator = operator.map(str::to_owned);
            CanaryTest { operator, canaries: bits.len() as u64, bits: sum, p_value, p_holm: p_value, strength }
        })
        .collect();
    let p_values: Vec<f64> = tests.iter().map(|test| test.p_value).collect();
    for (test, adjusted) in tests.iter_mut().zip(holm::adjust(&p_values)) {
        (test.p_holm, test.strength) = (adjusted, Strength::of_p_value(adjusted));
    }
    tests
}

/// The operators that a canary left through, where a journal shows that; otherwise the one that it was for.
fn operators<'report>(rank: &'report Rank, journal: Option<&'report Witness>) -> Vec<&'report str> {
    match journal {
        Some(journal) => journal.operators_of(rank.canary),
        None => vec![rank.operator.as_str()],
    }
}

fn strongest(tests: &[CanaryTest]) -> Strength {
    tests.iter().map(|test| test.strength).max().unwrap_or(Strength::NotShown)
}

impl CanaryReport {
    /// All that follows from the ranks, computed again.
    pub(crate) fn again(&self) -> Self {
        let rank = |rank: &Rank| Rank { bits: bits(self.candidates, rank.rank), ..rank.clone() };
        let ranks: Vec<Rank> = self.ranks.iter().map(rank).collect();
        let tests = tests(self.candidates, &ranks, self.journal.as_ref());
        Self { strength: strongest(&tests), tests, ranks, ..self.clone() }
    }
}

pub(super) fn of(
    draw: &Draw,
    digest: Digest,
    signer: String,
    suspect: &str,
    ranks: Vec<Rank>,
    journal: Option<Witness>,
) -> CanaryReport {
    let tests = tests(draw.candidates, &ranks, journal.as_ref());
    let how = if journal.is_some() { format!("{TESTS} {LEFT}") } else { TESTS.to_owned() };
    CanaryReport {
        format: FORMAT,
        software: crate::plan::SOFTWARE.to_owned(),
        suspect: suspect.to_owned(),
        draw: digest,
        signer,
        candidates: draw.candidates,
        strength: strongest(&tests),
        tests,
        ranks,
        null_hypothesis: NULL_HYPOTHESIS.to_owned(),
        error_rate: Kind::Canaries.error_rate().to_owned(),
        random: RANDOM.to_owned(),
        journal,
        tests_in_words: how,
        rival_explanations: RIVAL_EXPLANATIONS.map(str::to_owned).to_vec(),
        does_not_show: DOES_NOT_SHOW.map(str::to_owned).to_vec(),
    }
}

/// P(the bits of `canaries` canaries add up to `sum` or more): each has `b` bits with probability `2^-(b + 1)`, and the
/// `most` with `2^-most`. All terms are positive, so no digits cancel.
fn upper_tail(sum: u64, canaries: usize, most: u32) -> f64 {
    let one: Vec<f64> =
        (0..=most).map(|bits| 0.5_f64.powi(if bits < most { bits as i32 + 1 } else { bits as i32 })).collect();
    let mut all = vec![1.0];
    for _ in 0..canaries {
        let mut next = vec![0.0; all.len() + most as usize];
        for (place, so_far) in all.iter().enumerate() {
            for (next, one) in next[place..].iter_mut().zip(&one) {
                *next += so_far * one;
            }
        }
        all = next;
    }
    let from = usize::try_from(sum).unwrap_or(usize::MAX).min(all.len());
    // From the smallest term up.
    all[from..].iter().rev().sum::<f64>().clamp(SMALLEST_P, 1.0)
}

const NULL_HYPOTHESIS: &str = "The suspect's training is independent of which version of each canary was served. For an operator: the \
    same, for the canaries that were served to it.";

const RANDOM: &str = "The choice of the served versions alone, uniform among all of each canary under a key that was committed to \
    before. The versions and the suspect are taken as given. The keyed function (HMAC-SHA-256) is taken for a random one.";

const TESTS: &str = "A suspect scores every version of each canary. Bits of a canary: how often the versions can be halved such that the \
    served one stays among the likeliest half; equally likely ones count before it. The p-value is the exact tail of their sum. \
    Holm's adjustment over all canaries together and those of each operator.";

const LEFT: &str = "Only canaries count that the journal shows to have left word for word after it committed to the draw. Whether one leaves \
    depends on what was asked, and not on which version was drawn.";

const RIVAL_EXPLANATIONS: [&str; 3] = [
    "Reposting: the served canaries were published or passed on, and the suspect was trained on that copy.",
    "A key or a list of served canaries that became known.",
    "A common third model that learnt from the same canaries.",
];

const DOES_NOT_SHOW: [&str; 2] = [
    "How much else of what was served the suspect was trained on.",
    "Innocence: a canary that was seen once, or filtered out, may not be remembered.",
];

/// The report for a person at a terminal.
pub fn render_canaries(report: &CanaryReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &CanaryReport) -> std::fmt::Result {
    writeln!(text, "Canaries under {}", report.suspect)?;
    writeln!(text, "Drawn as {}, signed by {}: {} versions of each", report.draw, report.signer, report.candidates)?;
    witness(text, report)?;
    writeln!(text)?;
    writeln!(text, "{:<28} {:>8} {:>6} {:>9} {:>10}  shows", "served to", "canaries", "bits", "p", "p (Holm)")?;
    for test in &report.tests {
        let name = test.operator.as_deref().unwrap_or("all");
        let (p, holm, shows) = (p_value(test.p_value), p_value(test.p_holm), test.strength.in_words());
        writeln!(text, "{name:<28} {:>8} {:>6} {p:>9} {holm:>10}  {shows}", test.canaries, test.bits)?;
    }
    writeln!(text)?;
    writeln!(text, "Null hypothesis: {}", report.null_hypothesis)?;
    writeln!(text, "Error rate: {}", report.error_rate)?;
    writeln!(text, "What is random in it: {}", report.random)?;
    writeln!(text, "Tests: {}", report.tests_in_words)?;
    list(text, "What else could explain it", &report.rival_explanations)?;
    list(text, "What it does not show", &report.does_not_show)
}

fn witness(text: &mut String, report: &CanaryReport) -> std::fmt::Result {
    let Some(journal) = &report.journal else {
        return writeln!(text, "No journal was asked: nothing shows that the draw came before what was served.");
    };
    let Witness { committed_at, read, closed, reworded, .. } = journal;
    writeln!(
        text,
        "The journal {} committed to it in entry {committed_at}, before all that is counted.",
        journal.journal
    )?;
    writeln!(text, "Of {} exchanges after that the texts of {read} were read; {closed} stay closed.", read + closed)?;
    if *reworded > 0 {
        writeln!(text, "{reworded} answers hold a secret in other words, and do not count.")?;
    }
    for (account, operator, canaries) in journal.accounts() {
        let of = if account == operator { String::new() } else { format!(", of operator {operator}") };
        writeln!(text, "{canaries} left through account {account}{of}.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_counts_all_outcomes() {
        // Three canaries of 8 versions: every rank of each, counted.
        for sum in 0..=10 {
            let ranks = || 1..=8_u32;
            let bits = |rank: u32| u64::from((8 / rank).ilog2());
            let outcomes =
                ranks().flat_map(|a| ranks().flat_map(move |b| ranks().map(move |c| bits(a) + bits(b) + bits(c))));
            let exact = outcomes.filter(|total| *total >= sum).count() as f64 / 512.0;
            let found = upper_tail(sum, 3, 3);
            assert!((found - exact.max(SMALLEST_P)).abs() < 1e-15, "{sum}: {found} {exact}");
        }
        assert_eq!(upper_tail(8 * 20, 20, 8), 0.5_f64.powi(160));
    }
}
