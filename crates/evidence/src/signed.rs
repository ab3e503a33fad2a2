//! A document that people can read, with an Ed25519 signature over its canonical JSON.
//!
//! The signature is that of a DSSE envelope (v1) whose payload is the canonical JSON (RFC 8785) of the document: put in
//! base64 beside `payloadType` and `signatures` it is such an envelope, which any DSSE verifier checks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use anbiq_domain::Digest;
use anbiq_journal::{PublicKey, SigningKey};

use crate::canonical::{self, CanonicalError};
use crate::statement::pae;

/// A document with its digest and its signature. It keeps every member of the file, so that what was signed is what is
/// checked, also members that this version does not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Signed {
    document: Value,
    /// SHA-256 of the document's canonical JSON: what to hand to somebody else at once, since a signature does not say when.
    sha256: Digest,
    payload_type: String,
    /// Who signed it.
    keyid: PublicKey,
    /// The signature, in base64.
    sig: String,
}

/// A signed document that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// It is another kind of document.
    #[error("it is signed as `{found}`, not as `{wanted}`")]
    Kind {
        /// What it says to be.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Its digest is another one.
    #[error("it was changed: its digest is {found}, and {recorded} was written into it")]
    Digest {
        /// Of what stands there now.
        found: Digest,
        /// What it says.
        recorded: Digest,
    },
    /// The signature is not by that key over these bytes.
    #[error("its signature is not by {0} over these bytes: it was changed after it was signed")]
    Signature(Box<PublicKey>),
    /// Another key than the expected one signed it.
    #[error("it was signed by {found}, not by {expected}")]
    Signer {
        /// Who did.
        found: Box<PublicKey>,
        /// Who should have.
        expected: Box<PublicKey>,
    },
    /// What is signed is not what it should be.
    #[error("what is signed is not what it should be: {0}")]
    Form(String),
    /// It has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

impl SignedError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Kind { .. } => "signed_kind",
            Self::Digest { .. } => "signed_digest",
            Self::Signature(_) => "signed_signature",
            Self::Signer { .. } => "signed_signer",
            Self::Form(_) => "signed_form",
            Self::Canonical(_) => "signed_not_canonical",
        }
    }
}

impl Signed {
    /// Signs `document` as one of the kind `payload_type`.
    ///
    /// # Errors
    ///
    /// It has no canonical JSON.
    pub fn sign<T: Serialize>(document: &T, payload_type: &str, signer: &SigningKey) -> Result<Self, CanonicalError> {
        let payload = canonical::to_string(document)?;
        let document = serde_json::from_str(&payload).map_err(|error| CanonicalError::NotJson(error.to_string()))?;
        Ok(Self {
            document,
            sha256: Digest::of(payload.as_bytes()),
            payload_type: payload_type.to_owned(),
            keyid: signer.public(),
            sig: STANDARD.encode(signer.sign(&pae(payload_type, payload.as_bytes()))),
        })
    }

    /// The document, if it is as it was signed, as one of the kind `payload_type`, and by `expected` where that is given.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn open<T: DeserializeOwned>(
        &self,
        payload_type: &'static str,
        expected: Option<&PublicKey>,
    ) -> Result<T, SignedError> {
        if self.payload_type != payload_type {
            return Err(SignedError::Kind { found: self.payload_type.clone(), wanted: payload_type });
        }
        let payload = canonical::to_string(&self.document)?;
        let found = Digest::of(payload.as_bytes());
        if found != self.sha256 {
            return Err(SignedError::Digest { found, recorded: self.sha256 });
        }
        let signature = STANDARD.decode(&self.sig).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        if !signature.is_some_and(|signature| self.keyid.verify(&pae(payload_type, payload.as_bytes()), &signature)) {
            return Err(SignedError::Signature(Box::new(self.keyid)));
        }
        if let Some(&expected) = expected.filter(|expected| **expected != self.keyid) {
            return Err(SignedError::Signer { found: Box::new(self.keyid), expected: Box::new(expected) });
        }
        serde_json::from_str(&payload).map_err(|error| SignedError::Form(error.to_string()))
    }

    /// SHA-256 of the document's canonical JSON, as the file says; [`Signed::open`] checks it.
    pub const fn digest(&self) -> Digest {
        self.sha256
    }

    /// Who signed it.
    pub const fn signer(&self) -> PublicKey {
        self.keyid
    }

    /// The signature, in base64.
    pub fn signature(&self) -> &str {
        &self.sig
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KIND: &str = "application/vnd.anbiq.test+json";

    #[test]
    fn no_other_bytes_are_taken() {
        let key = SigningKey::from_bytes([3; 32]);
        let document = json!({"b": [1, 2.5], "a": "words"});
        // Long numbers survive being written and read.
        for place in 1..2_000 {
            let number = f64::from(place).sqrt() * 1e-7 / 13.0;
            let text = serde_json::to_string(&Signed::sign(&number, KIND, &key).unwrap()).unwrap();
            let read: Signed = serde_json::from_str(&text).unwrap();
            assert_eq!(read.open::<f64>(KIND, None).unwrap(), number);
        }
        let text = serde_json::to_string_pretty(&Signed::sign(&document, KIND, &key).unwrap()).unwrap();
        let taken =
            |text: &str| serde_json::from_str::<Signed>(text).ok().map(|signed| signed.open::<Value>(KIND, None));
        assert_eq!(taken(&text), Some(Ok(document)));
        // Another spelling of the same document is the same document.
        assert!(taken(&text.replace("2.5", "2.50")).is_some_and(|taken| taken.is_ok()));
        for (from, to) in [("words", "wordy"), ("2.5", "2.6"), ("\"b\"", "\"c\""), ("\"words\"", "\"words\", \"d\": 0")]
        {
            assert!(matches!(taken(&text.replace(from, to)), Some(Err(SignedError::Digest { .. }))), "{from}");
        }
        let signed: Signed = serde_json::from_str(&text).unwrap();
        let reworked = json!({"a": "others"});
        let sha256 = Digest::of(canonical::to_string(&reworked).unwrap().as_bytes());
        let forged = Signed { document: reworked, sha256, ..signed.clone() };
        assert!(matches!(forged.open::<Value>(KIND, None), Err(SignedError::Signature(_))));
        let stranger = SigningKey::from_bytes([4; 32]).public();
        assert!(matches!(signed.open::<Value>(KIND, Some(&stranger)), Err(SignedError::Signer { .. })));
        assert!(matches!(signed.open::<Value>("other", None), Err(SignedError::Kind { .. })));
    }
}
