//! Canaries: answers with a secret in them that was drawn uniformly from many, and served to chosen operators.
//!
//! Of each canary there are `candidates` versions that differ in a made-up name alone. A key that is committed to beforehand
//! makes the names and chooses the one that is served. Later a suspect scores all versions of each. If it never saw the
//! served one, its rank among them is uniform, exactly, whatever the suspect: the test of exposure of Carlini et al. (2019)
//! with a random choice that is committed to, as Zhang et al. (2024) ask for.

mod left;
mod report;

use anbiq_domain::{Answer, CanariesDrawn, Digest, Finish, KeyedHasher, Prompt, Timestamp};
use anbiq_model::{Model, ScoreRequest};
use serde::{Deserialize, Serialize};

use crate::{Config, TraceError, score};

pub use left::{Left, Witness};
pub use report::{CanaryReport, CanaryTest, Rank, render_canaries};

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

    /// What the journal is told of it before anything is served; `digest` is that of its canonical JSON.
    pub fn told(&self, digest: Digest) -> CanariesDrawn {
        let canaries = self.canaries.len() as u64;
        CanariesDrawn { draw: digest, key: self.key, canaries, candidates: self.candidates }
    }

    /// The secret that was drawn for canary `number`.
    fn secret(&self, key: &CanaryKey, number: u32) -> String {
        key.secret(number, key.choice(number, self.candidates))
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
    /// Is `served` some version of it?
    pub fn is_of(&self, served: &Served) -> bool {
        let around = self.answer.split_once(PLACE);
        let same = (&self.operator, &self.prompt) == (&served.operator, &served.prompt);
        same && around.is_some_and(|(before, after)| {
            served.answer.strip_prefix(before).is_some_and(|rest| rest.strip_suffix(after).is_some())
        })
    }

    fn version(&self, key: &CanaryKey, number: u32, version: u32) -> String {
        self.answer.replacen(PLACE, &key.secret(number, version), 1)
    }
}

/// Has `suspect` score every version of the canaries of `draw`, which `digest` and `signer` name, and ranks the served ones:
/// of all of them, or of those that the journal shows to have left.
///
/// # Errors
///
/// The key is another one; none has left; the suspect cannot score given text, or keeps failing.
pub async fn test(
    draw: &Draw,
    (digest, signer): (Digest, String),
    key: &CanaryKey,
    suspect: &dyn Model,
    witness: Option<Witness>,
    config: &Config,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<CanaryReport, TraceError> {
    draw.check()?;
    draw.check_key(key)?;
    let counts = |number: u32| witness.as_ref().is_none_or(|witness| witness.has(number));
    let counted: Vec<(u32, &Wanted)> = (0..).zip(&draw.canaries).filter(|(number, _)| counts(*number)).collect();
    if counted.is_empty() {
        return Err(TraceError::Canaries { what: "the journal shows none of them to have left".to_owned() });
    }
    let mut ranks = Vec::with_capacity(counted.len());
    for (done, (number, wanted)) in (1..).zip(&counted) {
        let number = *number;
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
        ranks.push(Rank { canary: number, operator, rank, bits: report::bits(draw.candidates, rank) });
        progress(done, counted.len() as u64);
    }
    Ok(report::of(draw, digest, signer, suspect.name(), ranks, witness))
}

#[cfg(test)]
mod tests {
    use super::*;

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
