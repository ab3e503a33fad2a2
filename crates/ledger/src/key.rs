//! API keys: their grammar, and what is kept of them.

use anbiq_domain::{Digest, KeyId};
use anbiq_secret::Secret;

use crate::LedgerError;

const PREFIX: &str = "sk-anbiq-";
const PUBLIC: usize = 12;
const SECRET: usize = 48;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key taken apart.
pub(crate) struct Parts<'key> {
    pub(crate) public: &'key str,
    pub(crate) secret: &'key str,
}

impl<'key> Parts<'key> {
    /// Reads `sk-anbiq-<12 public>-<48 secret>`, both in base 62.
    pub(crate) fn parse(presented: &'key str) -> Option<Self> {
        let (public, secret) = presented.strip_prefix(PREFIX)?.split_once('-')?;
        let base62 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fits = public.len() == PUBLIC && secret.len() == SECRET && base62(public) && base62(secret);
        fits.then_some(Self { public, secret })
    }
}

/// The public part of a presented key, where it has the form of one; whether there is such a key is another question.
pub fn public_part(presented: &str) -> Option<&str> {
    Parts::parse(presented).map(|parts| parts.public)
}

/// Draws a key from the operating system: its public half, its secret half, and the whole.
pub(crate) fn draw() -> Result<(KeyId, Secret<String>, Secret<String>), LedgerError> {
    let public = base62(PUBLIC)?;
    let secret = base62(SECRET)?;
    let whole = [PREFIX, public.expose(), "-", secret.expose()].concat();
    let id = KeyId::new(public.expose().clone()).map_err(|_| LedgerError::Random)?;
    Ok((id, secret, Secret::new(whole)))
}

/// What is kept of a secret. It holds 285 random bits, so a fast hash is enough; the pepper keeps the hashes of one
/// ledger from being compared with those of another.
pub(crate) fn hash(pepper: &[u8; 32], secret: &str) -> Digest {
    Digest::of_parts(&[pepper, secret.as_bytes()])
}

fn base62(length: usize) -> Result<Secret<String>, LedgerError> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes).map_err(|_| LedgerError::Random)?;
        // Bytes of 248 and above would favour the first digits.
        let digits = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(BASE62[usize::from(byte % 62)]));
        text.extend(digits.take(length - text.len()));
    }
    bytes.fill(0);
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_grammar() {
        let (id, secret, whole) = draw().unwrap();
        let parts = Parts::parse(whole.expose()).unwrap();
        assert_eq!((parts.public, parts.secret), (id.as_str(), secret.expose().as_str()));
        let public = "a".repeat(12);
        let long = "b".repeat(48);
        for wrong in [
            String::new(),
            "sk-anbiq-".to_owned(),
            format!("sk-anbiq-{public}-{long}b"),
            format!("sk-anbiq-{public}{long}"),
            format!("sk-other-{public}-{long}"),
            format!("sk-anbiq-{public}-{}é", "b".repeat(46)),
            format!(" sk-anbiq-{public}-{long}"),
            format!("sk-anbiq-{public}' --{}", "b".repeat(44)),
        ] {
            assert!(Parts::parse(&wrong).is_none(), "{wrong}");
        }
    }
}
