//! What the baselines compare prompts by: a random projection of hashed character trigrams.
//!
//! A neural embedding would serve them better by some points; what they do to specialised customers is the same with both.

/// Numbers of an embedding.
pub(crate) const WIDTH: usize = 64;
/// Characters that enter it.
const CHARACTERS: usize = 400;

/// A prompt in space: a vector of about unit length.
pub(crate) type Embedding = [f32; WIDTH];

/// The embedding of a text.
pub(crate) fn embed(text: &str) -> Embedding {
    let mut sums = [0_i32; WIDTH];
    let mut last = [0_u64; 3];
    for (place, character) in text.chars().flat_map(char::to_lowercase).take(CHARACTERS).enumerate() {
        last = [last[1], last[2], u64::from(character)];
        if place < 2 {
            continue;
        }
        let bits = mixed(last[0] << 42 ^ last[1] << 21 ^ last[2]);
        for (place, sum) in sums.iter_mut().enumerate() {
            *sum += 1 - 2 * (bits >> place & 1) as i32;
        }
    }
    let length = sums.iter().map(|sum| (sum * sum) as f32).sum::<f32>().sqrt().max(1.0);
    sums.map(|sum| sum as f32 / length)
}

/// The finisher of SplitMix64.
fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// The squared distance of two embeddings.
pub(crate) fn distance(a: &Embedding, b: &Embedding) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
