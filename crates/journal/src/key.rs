use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;

use ed25519_dalek::Signer as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use anbiq_domain::Digest;
use anbiq_secret::Secret;

use crate::JournalError;

/// The private key that signs checkpoints and statements (Ed25519, RFC 8032). Does not show itself; wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

/// The public key that checks signatures; written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

/// A text that is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 public key: expected 64 hexadecimal digits of a point on the curve")]
pub struct PublicKeyError;

impl SigningKey {
    /// A fresh key from the operating system's random bytes.
    pub fn generate() -> Result<Self, JournalError> {
        let mut seed = Secret::new([0; 32]);
        // `getrandom` fails only where the system has no source of randomness at all.
        let filled = fill(&mut seed);
        filled.map_err(|error| JournalError::BadKey { path: "(fresh)".into(), why: error.to_string() })?;
        Ok(Self::from_bytes(*seed.expose()))
    }

    /// Takes over the 32 secret bytes of a key.
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// Reads the key file at `path`, or makes a fresh key and writes it there, readable by its owner alone.
    ///
    /// The file holds 64 hexadecimal digits. Of two processes that start at once, both get the same key.
    pub fn load_or_create(path: &Path) -> Result<Self, JournalError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &Secret::new(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(JournalError::io("read", path, error)),
        }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    fn parse(path: &Path, text: &Secret<String>) -> Result<Self, JournalError> {
        let mut seed = [0; 32];
        hex::decode_to_slice(text.expose().trim_end(), &mut seed).map_err(|_| JournalError::BadKey {
            path: path.to_owned(),
            why: "expected 64 hexadecimal digits".to_owned(),
        })?;
        warn_of_open_permissions(path);
        Ok(Self::from_bytes(seed))
    }

    fn create(path: &Path) -> Result<Self, JournalError> {
        let key = Self::generate()?;
        let text = Secret::new(format!("{}\n", hex::encode(key.0.to_bytes())));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(path).and_then(|mut file| {
            file.write_all(text.expose().as_bytes())?;
            file.sync_all()
        });
        match written {
            Ok(()) => Ok(key),
            // Somebody else was faster: take theirs.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::load_or_create(path),
            Err(error) => Err(JournalError::io("write", path, error)),
        }
    }
}

pub(crate) fn fill(seed: &mut Secret<[u8; 32]>) -> Result<(), getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    *seed = Secret::new(bytes);
    Ok(())
}

#[cfg(unix)]
fn warn_of_open_permissions(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "the signing key can be read by others; hint: chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_of_open_permissions(_path: &Path) {}

impl PublicKey {
    /// Takes over the 32 bytes of a key; `None` where they are not a point on the curve.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        ed25519_dalek::VerifyingKey::from_bytes(bytes).ok().map(Self)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Did this key sign `message`? Weak keys and malleable signatures are refused.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }

    /// The key as other tools for signed notes want it: `<name>+<key id>+<base64>` (C2SP signed-note).
    pub fn verifier_key(&self, name: &str) -> String {
        use base64::Engine as _;
        let mut typed = vec![ED25519];
        typed.extend(self.as_bytes());
        let encoded = base64::engine::general_purpose::STANDARD.encode(typed);
        format!("{name}+{}+{encoded}", hex::encode(self.note_id(name)))
    }

    /// The first four bytes of `SHA-256(name, newline, type, key)`: what a note calls this key.
    pub(crate) fn note_id(&self, name: &str) -> [u8; 4] {
        let hash = Digest::of_parts(&[name.as_bytes(), b"\n", &[ED25519], self.as_bytes()]);
        let mut id = [0; 4];
        id.copy_from_slice(&hash.as_bytes()[..4]);
        id
    }
}

/// The signature type of Ed25519 in signed notes.
const ED25519: u8 = 1;

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| PublicKeyError)?;
        Self::from_bytes(&bytes).ok_or(PublicKeyError)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let mut bytes = [0; 32];
        hex::decode_to_slice(seed, &mut bytes).unwrap();
        let key = SigningKey::from_bytes(bytes);
        assert_eq!(key.public().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = key.sign(b"");
        assert_eq!(
            hex::encode(signature),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
        assert!(key.public().verify(b"", &signature));
        assert!(!key.public().verify(b"x", &signature));
        assert!(!format!("{key:?}").contains(seed));
    }

    #[test]
    fn a_key_file_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let made = SigningKey::load_or_create(&path).unwrap();
        assert_eq!(SigningKey::load_or_create(&path).unwrap().public(), made.public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "nonsense").unwrap();
        let error = SigningKey::load_or_create(&path).unwrap_err();
        assert_eq!(error.code(), "journal_bad_key");
        assert!(!error.to_string().contains("nonsense"));
    }
}
