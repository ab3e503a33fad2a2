//! Canaries: answers with a secret in them that was drawn uniformly from many, and served to chosen operators.
//!
//! Of each canary there are `candidates` versions that differ in a made-up name alone. A key that is committed to beforehand
//! makes the names and chooses the one that is served. Later a suspect scores all versions of each. If it never saw the
//! served one, its rank among them is uniform, exactly, whatever the suspect: the test of exposure of Carlini et al. (2019)
//! with a random choice that is committed to, as Zhang et al. (2024) ask for.

use std::fmt::Write;

use anbiq_domain::{Answer, Digest, Finish, KeyedHasher, Prompt, Timestamp};
use anbiq_model::{Model, ScoreRequest};
use anbiq_statistics::{SMALLEST_P, holm};
use serde::{Deserialize, Serialize};

use crate::text::{list, p_value};
use crate::{Config, Strength, TraceError, score};

/// The version of both forms.
const FORMAT: u32 = 1;

/// The kind of document that a draw is signed as.
pub const KIND: &str = "application/vnd.anbiq.canary-draw+json";

/// Where the secret goes.
pub const PLACE: &str = "{}";

/// Most versions of a canary, and so most bits that it can tell.
pub const MOST_CANDIDATES: u32 = 65_536;

/// An answer to be served with a secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// To whom it is served.
    pub operator: String,
    /// What is asked.
    pub prompt: String,
    /// What is answered, with `{}` where the secret goes.
    pub answer: String,
}

/// What is fixed and signed before any canary is served. It names no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draw {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// When it was made, by the clock of whoever made it: a signature does not prove it.
    pub made_at: Timestamp,
    /// Versions of each canary: a power of two.
    pub candidates: u32,
    /// A digest that fits this key alone and says nothing of it.
    pub key: Digest,
    /// The canaries, of which each has its place as its number.
    pub canaries: Vec<Wanted>,
}

/// One canary as it is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Its number.
    pub canary: u32,
    /// To whom.
    pub operator: String,
    /// What is asked.
    pub prompt: String,
    /// What is answered.
    pub answer: String,
}

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
    /// The canaries.
    pub ranks: Vec<Rank>,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// What is random under it.
    pub random: String,
    /// How the p-values are made.
    pub tests_in_words: String,
    /// What else could explain it.
    pub rival_explanations: Vec<String>,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

/// The key of a draw: makes the secrets and chooses among them.
#[derive(Debug, Clone)]
pub struct CanaryKey(KeyedHasher);

impl CanaryKey {
    /// From 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(KeyedHasher::new(key))
    }

    /// What may be handed out before anything is served.
    pub fn commitment(&self) -> Digest {
        Digest::of_parts(&[b"anbiq canary key v1\0", &self.0.bytes("commitment", b"anbiq canary key v1")])
    }

    /// The version of canary `number` that is served, of `candidates`, a power of two.
    fn choice(&self, number: u32, candidates: u32) -> u32 {
        let bytes = self.0.bytes("canary choice", &number.to_le_bytes());
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) % candidates.max(1)
    }

    /// A made-up name: three words of five letters, 48 bits.
    fn secret(&self, number: u32, version: u32) -> String {
        const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
        const VOWELS: &[u8; 4] = b"aiou";
        let place = u64::from(number) << 32 | u64::from(version);
        let bytes = self.0.bytes("canary secret", &place.to_le_bytes());
        let word = |bytes: &[u8]| {
            let letter = |place: usize, byte: u8| match place % 2 {
                0 => CONSONANTS[usize::from(byte) % CONSONANTS.len()],
                _ => VOWELS[usize::from(byte) % VOWELS.len()],
            };
            bytes.iter().enumerate().map(|(place, byte)| char::from(letter(place, *byte))).collect::<String>()
        };
        bytes.chunks_exact(5).take(3).map(word).collect::<Vec<_>>().join("-")
    }
}

impl Draw {
    /// Fixes a draw of `canaries`.
    ///
    /// # Errors
    ///
    /// There is none, `candidates` is no power of two from 2 to [`MOST_CANDIDATES`], or an answer has not one place for the
    /// secret.
    pub fn fix(
        canaries: Vec<Wanted>,
        candidates: u32,
        key: &CanaryKey,
        made_at: Timestamp,
    ) -> Result<Self, TraceError> {
        let draw = Self {
            format: FORMAT,
            software: crate::plan::SOFTWARE.to_owned(),
            made_at,
            candidates,
            key: key.commitment(),
            canaries,
        };
        draw.check()?;
        Ok(draw)
    }

    fn check(&self) -> Result<(), TraceError> {
        let wrong = |what: String| Err(TraceError::Canaries { what });
        if !self.candidates.is_power_of_two() || !(2..=MOST_CANDIDATES).contains(&self.candidates) {
            return wrong(format!("{} versions are no power of two from 2 to {MOST_CANDIDATES}", self.candidates));
        }
        if self.canaries.is_empty() {
            return wrong("there is none".to_owned());
        }
        match self.canaries.iter().position(|canary| canary.answer.matches(PLACE).count() != 1) {
            Some(place) => wrong(format!("the answer of number {place} has not one `{PLACE}` for its secret")),
            None => Ok(()),
        }
    }

    /// What is served.
    ///
    /// # Errors
    ///
    /// `key` is not the one that was committed to.
    pub fn served(&self, key: &CanaryKey) -> Result<Vec<Served>, TraceError> {
        self.check_key(key)?;
        let served = |(number, wanted): (u32, &Wanted)| Served {
            canary: number,
            operator: wanted.operator.clone(),
            prompt: wanted.prompt.clone(),
            answer: wanted.version(key, number, key.choice(number, self.candidates)),
        };
        Ok((0..).zip(&self.canaries).map(served).collect())
    }

    fn check_key(&self, key: &CanaryKey) -> Result<(), TraceError> {
        let (wanted, found) = (self.key, key.commitment());
        if wanted == found {
            return Ok(());
        }
        Err(TraceError::Canaries { what: format!("the key fits the commitment {found}, not {wanted}") })
    }
}

impl Wanted {
    fn version(&self, key: &CanaryKey, number: u32, version: u32) -> String {
        self.answer.replacen(PLACE, &key.secret(number, version), 1)
    }
}

/// Has `suspect` score every version of every canary of `draw`, which `digest` and `signer` name, and ranks the served ones.
///
/// # Errors
///
/// The key is another one; the suspect cannot score given text, or keeps failing.
pub async fn test(
    draw: &Draw,
    (digest, signer): (Digest, String),
    key: &CanaryKey,
    suspect: &dyn Model,
    config: &Config,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<CanaryReport, TraceError> {
    draw.check()?;
    draw.check_key(key)?;
    let mut ranks = Vec::with_capacity(draw.canaries.len());
    for (number, wanted) in (0_u32..).zip(&draw.canaries) {
        let request = |version: u32| ScoreRequest {
            prompt: Prompt::user(&wanted.prompt),
            answer: Answer::new(wanted.version(key, number, version), Finish::Stop),
        };
        let requests: Vec<ScoreRequest> = (0..draw.candidates).map(request).collect();
        let scores = score::totals(suspect, &requests, config).await?;
        let served = scores[key.choice(number, draw.candidates) as usize];
        // What is not below the served one ranks before it, a score that is no number among them.
        let rank =
            scores.iter().filter(|&&score| !matches!(score.partial_cmp(&served), Some(std::cmp::Ordering::Less)));
        let rank = (rank.count() as u32).max(1);
        let operator = wanted.operator.clone();
        ranks.push(Rank { canary: number, operator, rank, bits: bits(draw.candidates, rank) });
        progress(u64::from(number) + 1, draw.canaries.len() as u64);
    }
    Ok(report(draw, digest, signer, suspect.name(), ranks))
}

/// How often `candidates` versions can be halved such that the one of this `rank` stays among the likeliest half.
fn bits(candidates: u32, rank: u32) -> u32 {
    // In a report from elsewhere anything may stand.
    (candidates / rank.max(1)).max(1).ilog2()
}

/// The test of all canaries, and of those of each operator where there are several.
fn tests(candidates: u32, ranks: &[Rank]) -> Vec<CanaryTest> {
    let mut operators: Vec<&String> = ranks.iter().map(|rank| &rank.operator).collect();
    operators.sort();
    operators.dedup();
    let several = operators.len() > 1;
    let groups = std::iter::once(None).chain(operators.into_iter().filter(|_| several).map(Some));
    let most = candidates.max(1).ilog2();
    let mut tests: Vec<CanaryTest> = groups
        .map(|operator| {
            let own = ranks.iter().filter(|rank| operator.is_none_or(|operator| rank.operator == *operator));
            let bits: Vec<u32> = own.map(|rank| rank.bits).collect();
            let sum = bits.iter().map(|bits| u64::from(*bits)).sum();
            let p_value = upper_tail(sum, bits.len(), most);
            let strength = Strength::of_p_value(p_value);
            let operator = operator.cloned();
            CanaryTest { operator, canaries: bits.len() as u64, bits: sum, p_value, p_holm: p_value, strength }
        })
        .collect();
    let p_values: Vec<f64> = tests.iter().map(|test| test.p_value).collect();
    for (test, adjusted) in tests.iter_mut().zip(holm::adjust(&p_values)) {
        (test.p_holm, test.strength) = (adjusted, Strength::of_p_value(adjusted));
    }
    tests
}

fn strongest(tests: &[CanaryTest]) -> Strength {
    tests.iter().map(|test| test.strength).max().unwrap_or(Strength::NotShown)
}

impl CanaryReport {
    /// All that follows from the ranks, computed again.
    pub(crate) fn again(&self) -> Self {
        let rank = |rank: &Rank| Rank { bits: bits(self.candidates, rank.rank), ..rank.clone() };
        let ranks: Vec<Rank> = self.ranks.iter().map(rank).collect();
        let tests = tests(self.candidates, &ranks);
        Self { strength: strongest(&tests), tests, ranks, ..self.clone() }
    }
}

fn report(draw: &Draw, digest: Digest, signer: String, suspect: &str, ranks: Vec<Rank>) -> CanaryReport {
    let tests = tests(draw.candidates, &ranks);
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
        random: RANDOM.to_owned(),
        tests_in_words: TESTS.to_owned(),
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
    writeln!(text)?;
    writeln!(text, "{:<28} {:>8} {:>6} {:>9} {:>10}  shows", "served to", "canaries", "bits", "p", "p (Holm)")?;
    for test in &report.tests {
        let name = test.operator.as_deref().unwrap_or("all");
        let (p, holm, shows) = (p_value(test.p_value), p_value(test.p_holm), test.strength.in_words());
        writeln!(text, "{name:<28} {:>8} {:>6} {p:>9} {holm:>10}  {shows}", test.canaries, test.bits)?;
    }
    writeln!(text)?;
    writeln!(text, "Null hypothesis: {}", report.null_hypothesis)?;
    writeln!(text, "What is random in it: {}", report.random)?;
    writeln!(text, "Tests: {}", report.tests_in_words)?;
    list(text, "What else could explain it", &report.rival_explanations)?;
    list(text, "What it does not show", &report.does_not_show)
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

    #[test]
    fn choices_are_uniform_and_secrets_differ() {
        let key = CanaryKey::new(&[3; 32]);
        let mut counts = [0; 16];
        (0..16_000).for_each(|number| counts[key.choice(number, 16) as usize] += 1);
        // Five standard deviations of a binomial count.
        assert!(counts.iter().all(|count: &i32| (count - 1000).abs() < 155), "{counts:?}");
        let secrets: std::collections::BTreeSet<String> = (0..4_096).map(|version| key.secret(7, version)).collect();
        assert_eq!(secrets.len(), 4_096);
        assert!(secrets.iter().all(|secret| secret.len() == 17));
    }
}
