use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Keyed;

/// How many minimum hashes a sketch holds.
pub const MINHASHES: usize = 32;

/// What remains of a prompt when its text may not be kept: enough to compare, too little to read.
///
/// All hashes are keyed, so that nobody without the journal's sketch key can test a guess. The computation is
/// `anbiq_statistics::sketch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    /// Of the whole prompt, its case and white space evened out: equal prompts are equal.
    pub exact: Keyed,
    /// Of the prompt's first words: prompts from one template are mostly equal.
    pub opening: Keyed,
    /// Minimum hashes of its word shingles (Broder 1997): the share that agrees estimates the Jaccard index.
    #[serde(serialize_with = "write_minhash", deserialize_with = "read_minhash")]
    pub minhash: [u32; MINHASHES],
    /// Length in words.
    pub words: u32,
    /// What the prompt asks for, as bits of [`flags`].
    pub flags: u32,
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

fn write_minhash<S: Serializer>(minhash: &[u32; MINHASHES], serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = [0; MINHASHES * 4];
    for (chunk, value) in bytes.chunks_exact_mut(4).zip(minhash) {
        chunk.copy_from_slice(&value.to_be_bytes());
    }
    serializer.serialize_str(&hex::encode(bytes))
}

fn read_minhash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u32; MINHASHES], D::Error> {
    let mut bytes = [0; MINHASHES * 4];
    hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes).map_err(serde::de::Error::custom)?;
    let mut minhash = [0; MINHASHES];
    for (value, chunk) in minhash.iter_mut().zip(bytes.chunks_exact(4)) {
        *value = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    Ok(minhash)
}
