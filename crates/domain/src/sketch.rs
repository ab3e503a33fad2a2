use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Keyed;

/// How many minimum hashes a sketch holds.
pub const MINHASHES: usize = 32;

/// What remains of a prompt when its text may not be kept: enough to compare, too little to read.
///
/// All hashes are keyed, so that nobody without the journal's sketch key can test a guess. The computation is
/// `anbiq_statistics::sketch`.
///
/// It is written as the base64 of [`Sketch::BYTES`] bytes. Together with [`crate::Client`] that makes at most 256 bytes of
/// an entry's JSON, names and quotes included. An object with a field for each, as the first journals have it, is read too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    /// Of the whole prompt, its case and white space evened out: equal prompts are equal.
    pub exact: Keyed,
    /// Of the prompt's first words: prompts from one template are mostly equal.
    pub opening: Keyed,
    /// Minimum hashes of its word shingles (Broder 1997): the share that agrees estimates the Jaccard index.
    pub minhash: [u32; MINHASHES],
    /// Length in words; written as at most 2^24 - 1, which no request body reaches.
    pub words: u32,
    /// What the prompt asks for, as bits of [`flags`], of which only the lowest 16 may be used.
    pub flags: u32,
}

impl Sketch {
    /// How many bytes it takes: two keyed hashes, the minimum hashes, three bytes of length and two of flags.
    pub const BYTES: usize = 8 + 8 + MINHASHES * 4 + 3 + 2;

    /// Its bytes, every number with its highest byte first.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let words = self.words.min(0xff_ffff).to_be_bytes();
        let flags = (self.flags as u16).to_be_bytes();
        let minhash = self.minhash.iter().flat_map(|value| value.to_be_bytes());
        let parts = [&self.exact.0.to_be_bytes()[..], &self.opening.0.to_be_bytes()[..]].concat();
        let mut bytes = [0; Self::BYTES];
        let all = parts.into_iter().chain(minhash).chain(words[1..].iter().copied()).chain(flags);
        for (place, byte) in bytes.iter_mut().zip(all) {
            *place = byte;
        }
        bytes
    }

    /// The sketch of [`Sketch::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut rest = bytes.iter().copied();
        let mut number =
            |length: usize| rest.by_ref().take(length).fold(0, |number, byte| number << 8 | u64::from(byte));
        let (exact, opening) = (Keyed(number(8)), Keyed(number(8)));
        let mut minhash = [0; MINHASHES];
        for value in &mut minhash {
            *value = number(4) as u32;
        }
        Self { exact, opening, minhash, words: number(3) as u32, flags: number(2) as u32 }
    }
}

/// Bits of [`Sketch::flags`].
pub mod flags {
    /// Asks for the reasoning to be written out.
    pub const REASONING: u32 = 1;
    /// Asks for a grade, a score or a comparison of answers.
    pub const GRADING: u32 = 1 << 1;
    /// Asks for further instructions, questions or data to be made up.
    pub const GENERATION: u32 = 1 << 2;
    /// Carries a system message.
    pub const SYSTEM: u32 = 1 << 3;
    /// Is part of a conversation of more than one turn.
    pub const MULTI_TURN: u32 = 1 << 4;
}

impl Serialize for Sketch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(self.to_bytes()))
    }
}

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Sketch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sketch: base64, or an object of the first format")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Sketch, E> {
                read_bytes(text).map(|bytes| Sketch::from_bytes(&bytes))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Sketch, M::Error> {
                First::deserialize(MapAccessDeserializer::new(map)).map(First::into)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// The bytes that `text` is the base64 of.
pub(crate) fn read_bytes<E: serde::de::Error, const N: usize>(text: &str) -> Result<[u8; N], E> {
    let bytes = STANDARD_NO_PAD.decode(text).map_err(E::custom)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| E::custom(format!("expected {N} bytes, got {}", bytes.len())))
}

/// How the first journals write a sketch.
#[derive(Deserialize)]
struct First {
    exact: Keyed,
    opening: Keyed,
    #[serde(deserialize_with = "read_minhash")]
    minhash: [u32; MINHASHES],
    words: u32,
    flags: u32,
}

impl From<First> for Sketch {
    fn from(First { exact, opening, minhash, words, flags }: First) -> Self {
        Self { exact, opening, minhash, words, flags }
    }
}

fn read_minhash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u32; MINHASHES], D::Error> {
    let mut bytes = [0; MINHASHES * 4];
    hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes).map_err(D::Error::custom)?;
    let mut minhash = [0; MINHASHES];
    for (value, chunk) in minhash.iter_mut().zip(bytes.chunks_exact(4)) {
        *value = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    Ok(minhash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Client;

    fn largest() -> Sketch {
        let most = Keyed(u64::MAX);
        Sketch { exact: most, opening: most, minhash: [u32::MAX; MINHASHES], words: u32::MAX, flags: 0xffff }
    }

    #[test]
    fn sketch_and_client_take_at_most_256_bytes_of_an_entry() {
        let client = Client { address: Keyed(u64::MAX), network: Keyed(u64::MAX), agent: Keyed(u64::MAX) };
        let (client, sketch) = (serde_json::to_string(&client).unwrap(), serde_json::to_string(&largest()).unwrap());
        let written = format!(r#""client":{client},"sketch":{sketch},"#);
        assert!(written.len() <= 256, "{} bytes: {written}", written.len());
    }

    #[test]
    fn the_first_form_is_still_read() {
        let minhash = "00000001".repeat(MINHASHES);
        let text =
            format!(r#"{{"exact":"000000000000000a","opening":"0b","minhash":"{minhash}","words":7,"flags":3}}"#);
        let sketch: Sketch = serde_json::from_str(&text).unwrap();
        let expected = Sketch { exact: Keyed(10), opening: Keyed(11), minhash: [1; MINHASHES], words: 7, flags: 3 };
        assert_eq!(sketch, expected);
        let client = r#"{"address":"01","network":"02","agent":"000000000000000f"}"#;
        let expected = Client { address: Keyed(1), network: Keyed(2), agent: Keyed(15) };
        assert_eq!(serde_json::from_str::<Client>(client).unwrap(), expected);
    }

    #[test]
    fn what_is_no_sketch_is_refused() {
        let whole = serde_json::to_string(&largest()).unwrap();
        for text in [r#""""#.to_owned(), whole.replacen('/', "", 4), whole.replacen('/', "!", 1), "7".to_owned()] {
            assert!(serde_json::from_str::<Sketch>(&text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_sketch_survives(exact: u64, opening: u64, minhash: [u32; MINHASHES], words in 0_u32..1 << 24, flags in 0_u32..1 << 16) {
            let sketch = Sketch { exact: Keyed(exact), opening: Keyed(opening), minhash, words, flags };
            let text = serde_json::to_string(&sketch).unwrap();
            prop_assert_eq!(serde_json::from_str::<Sketch>(&text).unwrap(), sketch);
        }
    }
}
