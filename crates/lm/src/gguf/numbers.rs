//! Numbers to bytes and back.

use super::format::{BLOCK, Kind};

/// The bytes of `values`.
///
/// `Q8_0` is ggml's: in each block of 32 the number of largest size becomes 127, the others in proportion, rounded away
/// from zero at halves; the scale is kept in half precision.
pub(super) fn encode(kind: Kind, values: &[f32]) -> Vec<u8> {
    match kind {
        Kind::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Kind::F16 => values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect(),
        Kind::Bf16 => values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        Kind::Q8_0 => {
            let mut bytes = Vec::with_capacity(values.len() / BLOCK * (BLOCK + 2));
            for block in values.chunks_exact(BLOCK) {
                let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                let scale = largest / 127.0;
                let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                bytes.extend(half::f16::from_f32(scale).to_le_bytes());
                bytes.extend(block.iter().map(|value| ((value * inverse).round() as i8).to_le_bytes()[0]));
            }
            bytes
        }
    }
}

/// The numbers of `bytes`, as many as there is room for.
pub(super) fn decode(kind: Kind, bytes: &[u8], into: &mut [f32]) {
    match kind {
        Kind::F32 => {
            for (value, bytes) in into.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        Kind::F16 => {
            for (value, bytes) in into.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        Kind::Bf16 => {
            for (value, bytes) in into.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        Kind::Q8_0 => {
            for (values, bytes) in into.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK + 2)) {
                let scale = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                for (value, &byte) in values.iter_mut().zip(&bytes[2..]) {
                    *value = scale * f32::from(i8::from_le_bytes([byte]));
                }
            }
        }
    }
}

/// llama.cpp turns neighbours of a head where Hugging Face turns its halves. Row `2 j + i` of a head is there what is
/// row `i head_dim / 2 + j` here, in the families whose rotary positions it computes so.
pub(super) fn to_neighbours(rows: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(head_dim * width) {
        for row in 0..head_dim {
            let from = (row % 2) * (head_dim / 2) + row / 2;
            out.extend_from_slice(&head[from * width..][..width]);
        }
    }
    out
}

/// The way back from [`to_neighbours`].
pub(super) fn to_halves(rows: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(head_dim * width) {
        for row in 0..head_dim {
            let from = 2 * (row % (head_dim / 2)) + row / (head_dim / 2);
            out.extend_from_slice(&head[from * width..][..width]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_neighbours_and_back() {
        let rows: Vec<f32> = (0..24).map(|number| number as f32).collect();
        let there = to_neighbours(&rows, 6, 2);
        assert_eq!(there[..12], [0.0, 1.0, 6.0, 7.0, 2.0, 3.0, 8.0, 9.0, 4.0, 5.0, 10.0, 11.0]);
        assert_eq!(to_halves(&there, 6, 2), rows);
    }

    #[test]
    fn blocks_keep_what_they_can() {
        let values: Vec<f32> = (0..64).map(|number| (number as f32 - 20.5) * 0.37).collect();
        let bytes = encode(Kind::Q8_0, &values);
        assert_eq!(bytes.len(), 2 * 34);
        let mut again = vec![0.0; 64];
        decode(Kind::Q8_0, &bytes, &mut again);
        for (block, again) in values.chunks(32).zip(again.chunks(32)) {
            // Half a step, and what the scale loses in half precision.
            let bound = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs())) * (0.5 / 127.0 + 0.0005);
            assert!(block.iter().zip(again).all(|(value, again)| (value - again).abs() <= bound));
        }
        // A second time nothing is lost.
        let mut twice = vec![0.0; 64];
        decode(Kind::Q8_0, &encode(Kind::Q8_0, &again), &mut twice);
        assert_eq!(encode(Kind::Q8_0, &twice), encode(Kind::Q8_0, &again));
        assert_eq!(encode(Kind::Q8_0, &[0.0; 32]), vec![0; 34]);
    }
}
