//! The signed statement: an in-toto Statement v1 in a DSSE envelope, signed with Ed25519.
//!
//! Both are formats that supply-chain tools read, so a dossier can be checked without this program: the envelope with any
//! DSSE verifier, the digests with `sha256sum`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use anbiq_domain::{Digest, JournalId};
use anbiq_journal::{PublicKey, SigningKey};

use crate::canonical;

/// The type of a dossier's statement.
pub const PREDICATE_TYPE: &str = "https://anbiq.dev/dossier/v1";
/// The type of what the envelope carries.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// What is sworn to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    /// About the journal that the dossier rests on.
    pub predicate: Predicate,
}

/// About the journal that a dossier rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// Which journal.
    pub journal: JournalId,
    /// How many records its root covers.
    pub size: u64,
    /// How many of them are disclosed.
    pub disclosed: u64,
    /// Name and version of the software.
    pub software: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: Sha256,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sha256 {
    sha256: Digest,
}

impl Statement {
    /// Over the file `manifest.json` and the journal's root.
    pub fn new(manifest: Digest, root: Digest, predicate: Predicate) -> Self {
        let subject = |name: String, sha256| Subject { name, digest: Sha256 { sha256 } };
        let journal = format!("journal:{}", predicate.journal);
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject: vec![subject("manifest.json".to_owned(), manifest), subject(journal, root)],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate,
        }
    }

    /// Digest of the manifest and root of the journal, if this is a statement about a dossier.
    pub fn subjects(&self) -> Option<(Digest, Digest)> {
        let [manifest, journal] = &self.subject[..] else { return None };
        let (manifest, root) = (manifest.digest.sha256, journal.digest.sha256);
        (*self == Self::new(manifest, root, self.predicate.clone())).then_some((manifest, root))
    }
}

/// A payload and who signed it (DSSE v1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// Why an envelope is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is not written as an envelope is.
    #[error("it is not a DSSE envelope as this program writes it")]
    Form,
    /// The signature is not by the key over the payload.
    #[error("its signature is not by that key over these bytes")]
    Signature,
    /// What is signed is not a statement about a dossier.
    #[error("what it signs is not a statement about a dossier")]
    Statement,
}

impl Envelope {
    /// Signs `statement`.
    pub fn sign(statement: &Statement, signer: &SigningKey) -> Result<Self, canonical::CanonicalError> {
        let payload = canonical::to_string(statement)?;
        let signature = signer.sign(&pae(PAYLOAD_TYPE, payload.as_bytes()));
        Ok(Self {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signature { keyid: signer.public().to_string(), sig: STANDARD.encode(signature) }],
        })
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        // Strings always have a JSON form.
        canonical::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads the file's text. Only the one spelling that [`Envelope::to_text`] writes is taken.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let envelope: Self = serde_json::from_str(text).map_err(|_| EnvelopeError::Form)?;
        if envelope.payload_type == PAYLOAD_TYPE && envelope.to_text() == text {
            Ok(envelope)
        } else {
            Err(EnvelopeError::Form)
        }
    }

    /// The statement, if `key` and nobody else signed it.
    pub fn verify(&self, key: &PublicKey) -> Result<Statement, EnvelopeError> {
        let payload = STANDARD.decode(&self.payload).map_err(|_| EnvelopeError::Form)?;
        let [signature] = &self.signatures[..] else { return Err(EnvelopeError::Form) };
        let bytes = STANDARD.decode(&signature.sig).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let bytes = bytes.ok_or(EnvelopeError::Form)?;
        if signature.keyid != key.to_string() || !key.verify(&pae(&self.payload_type, &payload), &bytes) {
            return Err(EnvelopeError::Signature);
        }
        self.claimed()
    }

    /// What the envelope claims, whoever signed it: only for finding out what is wrong.
    pub(crate) fn claimed(&self) -> Result<Statement, EnvelopeError> {
        let payload = STANDARD.decode(&self.payload).map_err(|_| EnvelopeError::Form)?;
        let statement: Statement = serde_json::from_slice(&payload).map_err(|_| EnvelopeError::Statement)?;
        statement.subjects().map(|_| statement.clone()).ok_or(EnvelopeError::Statement)
    }
}

/// The pre-authentication encoding of DSSE v1: what is really signed, so that a payload cannot pose as another type.
pub(crate) fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes([9; 32])
    }

    fn statement() -> Statement {
        let journal = JournalId::new("j").unwrap();
        let predicate = Predicate { journal, size: 5, disclosed: 2, software: "anbiq 0".to_owned() };
        Statement::new(Digest::of(b"manifest"), Digest::of(b"root"), predicate)
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The example of DSSE's protocol.md, and lengths that count bytes.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
        assert_eq!(pae("t", "é".as_bytes()), "DSSEv1 1 t 2 é".as_bytes());
    }

    #[test]
    fn a_statement_keeps_its_form() {
        insta::assert_snapshot!(canonical::to_string(&statement()).unwrap(), @r#"{"_type":"https://in-toto.io/Statement/v1","predicate":{"disclosed":2,"journal":"j","size":5,"software":"anbiq 0"},"predicateType":"https://anbiq.dev/dossier/v1","subject":[{"digest":{"sha256":"05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f"},"name":"manifest.json"},{"digest":{"sha256":"4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2"},"name":"journal:j"}]}"#);
    }

    #[test]
    fn no_other_bytes_are_taken() {
        let text = Envelope::sign(&statement(), &key()).unwrap().to_text();
        let taken = |text: &str| Envelope::parse(text).and_then(|envelope| envelope.verify(&key().public()));
        assert_eq!(taken(&text), Ok(statement()));
        for position in 0..text.len() {
            for flip in [1_u8, 0x20, 0x80] {
                let mut bytes = text.clone().into_bytes();
                bytes[position] ^= flip;
                assert!(String::from_utf8(bytes).map_or(true, |text| taken(&text).is_err()), "byte {position}");
            }
        }
        let stranger = SigningKey::from_bytes([1; 32]);
        let forged = Envelope::sign(&statement(), &stranger).unwrap().to_text();
        assert_eq!(taken(&forged), Err(EnvelopeError::Signature));
    }
}
