//! How the weights of a model that answers are held.

use crate::Network;

/// How the weights of a model that answers are held. Sums, activations, keys and values are 32-bit floats either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As 32-bit floats: nothing is lost.
    #[default]
    F32,
    /// As 8-bit integers with one scale for each row of a matrix, the largest number of the row being 127 or -127. A quarter
    /// of the bytes travels through memory for each token; the model becomes a slightly other one, and is scored as that.
    Int8,
}

/// The largest number that a row is scaled to.
const MOST: f32 = 127.0;

impl Precision {
    /// Gives every matrix that is multiplied with the numbers that it will be computed with, so that scoring and answering
    /// speak of the same model. Norms, biases and an embedding with a head beside it stay as they are.
    pub fn round(self, network: &mut Network) {
        if self == Self::F32 {
            return;
        }
        let tied = network.config.tied;
        for (name, shape, numbers) in network.weights.tensors_mut() {
            let &[_, inputs] = shape else { continue };
            if !tied && name == EMBEDDING {
                continue;
            }
            for row in numbers.chunks_exact_mut(inputs) {
                let scale = scale(row);
                row.iter_mut().for_each(|number| *number = f32::from(integer(*number, scale)) * scale);
            }
        }
    }
}

/// What the integers of a row are multiplied with.
pub(crate) fn scale(row: &[f32]) -> f32 {
    row.iter().fold(0.0_f32, |largest, number| largest.max(number.abs())) / MOST
}

/// The integer that stands for `number`.
pub(crate) fn integer(number: f32, scale: f32) -> i8 {
    if scale > 0.0 { (number / scale).round().clamp(-MOST, MOST) as i8 } else { 0 }
}

const EMBEDDING: &str = "model.embed_tokens.weight";
