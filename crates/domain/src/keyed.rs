use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

/// A keyed 64-bit hash of something that is compared but not shown: an address, a client, a prompt.
///
/// Equal values under one key are equal things; without the key a value says nothing and cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Keyed(pub u64);

/// Makes [`Keyed`] values: HMAC-SHA-256 (RFC 2104), truncated, with a label that keeps kinds of things apart.
#[derive(Clone)]
pub struct KeyedHasher(Hmac<Sha256>);

impl KeyedHasher {
    /// A hasher under `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        // A 32-byte key is no longer than SHA-256's block, so HMAC takes it as it is.
        Self(Hmac::new(&(*key).into_block()))
    }

    /// The hash of `value` among things of kind `label`.
    pub fn hash(&self, label: &str, value: &[u8]) -> Keyed {
        first(&self.bytes(label, value))
    }

    /// All 32 bytes of the keyed hash: for deriving further keys.
    pub fn bytes(&self, label: &str, value: &[u8]) -> [u8; 32] {
        let mut growing = self.growing(label);
        growing.add(value);
        growing.0.finalize().into_bytes().into()
    }

    /// The hash of a value of kind `label` that is not whole yet.
    pub fn growing(&self, label: &str) -> GrowingHash {
        let mut mac = self.0.clone();
        mac.update(label.as_bytes());
        mac.update(&[0]);
        GrowingHash(mac)
    }
}

/// A keyed hash of what comes piece by piece; it has a value after every piece.
#[derive(Clone)]
pub struct GrowingHash(Hmac<Sha256>);

impl GrowingHash {
    /// Adds what comes next.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was added, as [`KeyedHasher::hash`] gives it.
    pub fn value(&self) -> Keyed {
        let bytes: [u8; 32] = self.0.clone().finalize().into_bytes().into();
        first(&bytes)
    }
}

fn first(bytes: &[u8; 32]) -> Keyed {
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    Keyed(u64::from_le_bytes(first))
}

impl fmt::Debug for GrowingHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrowingHash(..)")
    }
}

trait IntoBlock {
    fn into_block(self) -> hmac::digest::Key<Hmac<Sha256>>;
}

impl IntoBlock for [u8; 32] {
    fn into_block(self) -> hmac::digest::Key<Hmac<Sha256>> {
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(&self);
        block
    }
}

impl fmt::Debug for KeyedHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedHasher(..)")
    }
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyed({self})")
    }
}

impl fmt::Display for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Keyed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Keyed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}
