//! The coin that chooses which twin is served.
//!
//! The coin must be fair, secret beforehand and checkable afterwards. So it is a pseudo-random function of the
//! exchange's id under a key that the journal commits to *before* the first exchange it decides, and that the
//! operator reveals only in a dossier. Anybody can then recompute every choice.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Digest, ExchangeId, KeyedHasher};

/// The secret key of one epoch's coins.
#[derive(Clone, PartialEq, Eq)]
pub struct CoinKey([u8; 32]);

/// What the journal says about a coin key before using it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCommitment {
    /// Number of the epoch, counted from 0 within one journal.
    pub epoch: u32,
    /// [`CoinKey::commitment`] of its key.
    pub commitment: Digest,
}

impl CoinKey {
    /// Takes over 32 secret random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes; only a dossier reveals them.
    pub const fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash that commits to this key.
    pub fn commitment(&self) -> Digest {
        Digest::of_parts(&[b"anbiq coin key v1\0", &self.0])
    }

    /// Which of `draws` completions of `exchange` is served: uniform on `0..draws`, and 0 for `draws` of 0 or 1.
    ///
    /// The first eight bytes of HMAC-SHA-256 are scaled by multiplication; the bias is below 2^-56 for any
    /// `draws` that fits a byte.
    pub fn choose(&self, exchange: ExchangeId, draws: u8) -> u8 {
        let word = KeyedHasher::new(&self.0).hash("anbiq coin v1", exchange.as_bytes()).0;
        let scaled = (u128::from(word) * u128::from(draws)) >> 64;
        // Below `draws`, so it fits a byte.
        scaled as u8
    }

    /// The salt under which the text of draw `index` of `exchange` is committed to.
    ///
    /// Short answers could be guessed from a bare hash; a salted one says nothing until the salt is disclosed.
    pub fn salt(&self, exchange: ExchangeId, index: u8) -> [u8; 16] {
        let mut value = [0; 17];
        value[..16].copy_from_slice(exchange.as_bytes());
        value[16] = index;
        let bytes = KeyedHasher::new(&self.0).bytes("anbiq salt v1", &value);
        let mut salt = [0; 16];
        salt.copy_from_slice(&bytes[..16]);
        salt
    }
}

impl fmt::Debug for CoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CoinKey(..)")
    }
}

/// The salted commitment to a text.
pub fn commit_text(salt: &[u8; 16], text: &str) -> Digest {
    commit_bytes(salt, text.as_bytes())
}

/// The salted commitment to bytes: of a text's bytes the same as to the text.
pub fn commit_bytes(salt: &[u8; 16], bytes: &[u8]) -> Digest {
    Digest::of_parts(&[b"anbiq text v1\0", salt, bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seeded, Timestamp};

    #[test]
    fn the_coin_is_fair_and_repeatable() {
        let key = CoinKey::from_bytes([7; 32]);
        let mut random = Seeded::new(3);
        for draws in [1_u8, 2, 3, 8] {
            let mut counts = vec![0_u32; usize::from(draws)];
            for _ in 0..20_000 {
                let exchange = ExchangeId::fresh(Timestamp::from_milliseconds(5), &mut random);
                let choice = key.choose(exchange, draws);
                assert_eq!(choice, key.choose(exchange, draws));
                counts[usize::from(choice)] += 1;
            }
            let expected = 20_000.0 / f64::from(draws);
            for count in counts {
                assert!((f64::from(count) - expected).abs() < 5.0 * expected.sqrt(), "{draws} draws: {count}");
            }
        }
        assert_eq!(key.choose(ExchangeId::fresh(Timestamp::from_milliseconds(5), &mut random), 0), 0);
    }

    #[test]
    fn salts_differ_by_exchange_and_draw() {
        let key = CoinKey::from_bytes([7; 32]);
        let mut random = Seeded::new(3);
        let one = ExchangeId::fresh(Timestamp::from_milliseconds(5), &mut random);
        let two = ExchangeId::fresh(Timestamp::from_milliseconds(5), &mut random);
        assert_ne!(key.salt(one, 0), key.salt(one, 1));
        assert_ne!(key.salt(one, 0), key.salt(two, 0));
        assert_ne!(commit_text(&key.salt(one, 0), "a"), commit_text(&key.salt(one, 1), "a"));
    }
}
