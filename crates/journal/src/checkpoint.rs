//! Signed roots: what the journal swears to.
//!
//! A checkpoint is a signed note (C2SP `signed-note` and `tlog-checkpoint`), so that witnesses and verifiers of
//! transparency logs can read it:
//!
//! ```text
//! journal-7
//! 1024
//! Xcnaeacy...=
//!
//! — journal-7 x08go/ZJ...=
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use anbiq_domain::{Digest, JournalId};

use crate::{JournalError, PublicKey, SigningKey};

/// A journal's root at one size, signed.
#[derive(Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which journal.
    pub origin: JournalId,
    /// How many records the root covers.
    pub size: u64,
    /// Root of the Merkle tree over them.
    pub root: Digest,
    key_id: [u8; 4],
    signature: [u8; 64],
}

impl Checkpoint {
    /// Signs the root of the first `size` records of the journal `origin`.
    pub fn sign(origin: JournalId, size: u64, root: Digest, signer: &SigningKey) -> Self {
        let key_id = signer.public().note_id(origin.as_str());
        let signature = signer.sign(body(&origin, size, &root).as_bytes());
        Self { origin, size, root, key_id, signature }
    }

    /// The signed note.
    pub fn to_note(&self) -> String {
        let body = body(&self.origin, self.size, &self.root);
        format!("{body}\n{}", signature_line(self.origin.as_str(), self.key_id, &self.signature))
    }

    /// Did `key` sign this?
    pub fn signed_by(&self, key: &PublicKey) -> bool {
        let body = body(&self.origin, self.size, &self.root);
        self.key_id == key.note_id(self.origin.as_str()) && key.verify(body.as_bytes(), &self.signature)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({} {} {})", self.origin, self.size, self.root.short())
    }
}

/// Reads a checkpoint and checks that `key` signed it.
///
/// Only the exact bytes that [`Checkpoint::to_note`] writes are taken: one signature, no extension lines, no other
/// spelling of a number.
pub fn parse_and_verify(note: &str, key: &PublicKey) -> Result<Checkpoint, JournalError> {
    let checkpoint = parse(note)?;
    if !checkpoint.signed_by(key) {
        return Err(JournalError::BadNote("the signature is not by the journal's key over these lines"));
    }
    Ok(checkpoint)
}

fn parse(note: &str) -> Result<Checkpoint, JournalError> {
    let bad = JournalError::BadNote;
    let lines: Vec<&str> = note.split('\n').collect();
    let [origin, size, root, "", signature, ""] = lines[..] else {
        return Err(bad("expected origin, size, root, an empty line and one signature"));
    };
    let root: [u8; 32] = decode(root).ok_or(bad("the root is not the base64 of 32 bytes"))?;
    let (name, blob) = signature
        .strip_prefix("\u{2014} ")
        .and_then(|rest| rest.split_once(' '))
        .ok_or(bad("the signature line does not begin with a dash and a name"))?;
    let blob: [u8; 68] = decode(blob).ok_or(bad("the signature is not the base64 of 68 bytes"))?;
    let (mut key_id, mut signature) = ([0; 4], [0; 64]);
    key_id.copy_from_slice(&blob[..4]);
    signature.copy_from_slice(&blob[4..]);
    let checkpoint = Checkpoint {
        origin: JournalId::new(origin).map_err(|_| bad("the origin is not the id of a journal"))?,
        size: size.parse().map_err(|_| bad("the size is not a number"))?,
        root: Digest::from_bytes(root),
        key_id,
        signature,
    };
    if name != origin || checkpoint.to_note() != note {
        return Err(bad("it is not written the one way a checkpoint is written"));
    }
    Ok(checkpoint)
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn body(origin: &JournalId, size: u64, root: &Digest) -> String {
    format!("{origin}\n{size}\n{}\n", STANDARD.encode(root.as_bytes()))
}

fn signature_line(name: &str, key_id: [u8; 4], signature: &[u8; 64]) -> String {
    let blob = [&key_id[..], &signature[..]].concat();
    format!("\u{2014} {name} {}\n", STANDARD.encode(blob))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        // The key of the example in the documentation of Go's golang.org/x/mod/sumdb/note.
        let typed = STANDARD.decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").unwrap();
        SigningKey::from_bytes(typed[1..].try_into().unwrap())
    }

    #[test]
    fn a_note_is_signed_as_the_reference_implementation_signs_it() {
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let public = key().public();
        assert_eq!(
            public.verifier_key("PeterNeumann"),
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        );
        assert_eq!(
            signature_line("PeterNeumann", public.note_id("PeterNeumann"), &key().sign(text.as_bytes())),
            "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
    }

    #[test]
    fn a_checkpoint_keeps_its_form() {
        let origin = JournalId::new("PeterNeumann").unwrap();
        let checkpoint = Checkpoint::sign(origin, 8, Digest::of(b"root"), &key());
        insta::assert_snapshot!(checkpoint.to_note(), @"
        PeterNeumann
        8
        SBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=

        — PeterNeumann x08go9TuMN0LIimJyQWtghqP/v5G8AfVtcWcpaNTWTu+mgM8WDTjKjYUz0+zUab5lup+SwEv/dLSWNQfnBKsYqMn6ww=
        ");
        assert_eq!(parse_and_verify(&checkpoint.to_note(), &key().public()).unwrap(), checkpoint);
    }

    #[test]
    fn no_other_bytes_are_taken() {
        let origin = JournalId::new("a").unwrap();
        let note = Checkpoint::sign(origin, 10, Digest::of(b"root"), &key()).to_note();
        for position in 0..note.len() {
            for flip in [1_u8, 0x20, 0x80] {
                let mut bytes = note.clone().into_bytes();
                bytes[position] ^= flip;
                let taken = String::from_utf8(bytes).is_ok_and(|text| parse_and_verify(&text, &key().public()).is_ok());
                assert!(!taken, "byte {position} with {flip:#x}");
            }
        }
        for other in [note.replace("10\n", "010\n"), note.replace("10\n", "+10\n"), format!("{note}\n"), String::new()]
        {
            assert!(parse_and_verify(&other, &key().public()).is_err(), "{other}");
        }
        let stranger = SigningKey::from_bytes([1; 32]).public();
        assert!(parse_and_verify(&note, &stranger).is_err());
    }
}
