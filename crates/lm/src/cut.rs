//! Networks cut in depth.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::weights::{Tensor, Weights};
use crate::{Config, LmError, Network};

/// What the names of a layer's tensors begin with.
const LAYERS: &str = "model.layers.";

impl Network {
    /// This network with some of its layers only, `keep` of them, counted from 1 and in their order: the beginning of a student
    /// that is cut in depth from its teacher (Sanh et al. 2019).
    ///
    /// # Errors
    ///
    /// A layer is not there, or they are not in their order.
    pub fn with_layers(&self, keep: &[usize]) -> Result<Self, LmError> {
        let most = self.config.layers;
        let rising = keep.windows(2).all(|pair| pair[0] < pair[1]);
        if keep.is_empty() || !rising || keep.iter().any(|layer| !(1..=most).contains(layer)) {
            let problem = format!("{keep:?} are not some of the layers 1 to {most}, each once and in their order");
            return Err(LmError::Setting { name: "layers", problem });
        }
        let of_kept =
            |flags: &[bool]| keep.iter().filter_map(|layer| flags.get(layer - 1)).copied().collect::<Vec<bool>>();
        let mut config = Config { layers: keep.len(), ..self.config.clone() };
        config.variant.windowed = of_kept(&self.config.variant.windowed);
        config.variant.unplaced = of_kept(&self.config.variant.unplaced);
        config.check().map_err(|problem| LmError::Setting { name: "layers", problem })?;
        let mut weights = Weights::zeros(&config);
        let known: BTreeMap<&str, &Tensor> =
            self.weights.layout().tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let places: Vec<(String, Range<usize>)> =
            weights.layout().tensors.iter().map(|tensor| (was(&tensor.name, keep), tensor.range.clone())).collect();
        for (name, place) in places {
            if let Some(from) = known.get(name.as_str()) {
                weights.data_mut()[place].copy_from_slice(&self.weights.data()[from.range.clone()]);
            }
        }
        Ok(Self { config, weights })
    }

    /// `count` of `layers` layers, the first and the last among them and the others evenly between, counted from 1.
    pub fn evenly(layers: usize, count: usize) -> Vec<usize> {
        let between = count.saturating_sub(1).max(1);
        let evenly = |place: usize| 1 + (2 * place * layers.saturating_sub(1) + between) / (2 * between);
        (0..count).map(evenly).collect()
    }
}

/// The name that a tensor of a network of the layers `keep` had before.
fn was(name: &str, keep: &[usize]) -> String {
    let layer = name.strip_prefix(LAYERS).and_then(|rest| rest.split_once('.'));
    let own = layer.and_then(|(layer, rest)| Some((keep.get(layer.parse::<usize>().ok()?)?, rest)));
    own.map_or_else(|| name.to_owned(), |(layer, rest)| format!("{LAYERS}{}.{rest}", layer - 1))
}
