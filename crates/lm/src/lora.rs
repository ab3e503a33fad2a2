//! Adapters of low rank (LoRA, Hu et al. 2022): small matrices that are trained in the place of the large ones.
//!
//! A projection `W` with an adapter computes as `W + alpha / rank * B A`, with `A` of `[rank, inputs]` and `B` of
//! `[outputs, rank]`. `B` begins as zeros, so that training begins at the base. Adapters are written and read in the form
//! of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::path::Path;

use anbiq_domain::Seeded;
use serde_json::{Value, json};

use crate::device::{Cpu, Device, Stretch};
use crate::graph::{Linear, Norm, Sink};
use crate::kernel::{View, ViewMut, Write};
use crate::weights::{Stored, Tensor, TensorFile};
use crate::{Config, Dtype, LmError, Network, Weights};

/// The shape of an adapter.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Rows of `A`: how many directions each projection may move in.
    pub rank: usize,
    /// What the product of the two is multiplied by, times the rank.
    pub alpha: f64,
    /// Which projections have one.
    pub targets: Vec<Target>,
}

/// A kind of projection, one in each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// Attention's output.
    OProj,
    /// Gate of the feed-forward part.
    GateProj,
    /// Its other input.
    UpProj,
    /// Its output.
    DownProj,
}

impl Default for Shape {
    /// Rank 8 with `alpha` 16 on every projection.
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, targets: Target::ALL.to_vec() }
    }
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];

    /// Its name in PEFT and in Hugging Face folders.
    pub const fn word(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }

    /// As a part of what it is computed.
    const fn within(self) -> Linear {
        match self {
            Self::QProj | Self::KProj | Self::VProj => Linear::Qkv,
            Self::OProj => Linear::O,
            Self::GateProj | Self::UpProj => Linear::GateUp,
            Self::DownProj => Linear::Down,
        }
    }

    /// Of the tensor `name`, such as `model.layers.0.self_attn.q_proj.weight`.
    fn of(name: &str) -> Option<Self> {
        let module = name.strip_suffix(".weight")?.rsplit('.').next()?;
        Self::ALL.into_iter().find(|target| target.word() == module)
    }
}

/// An adapter of a network.
#[derive(Debug, Clone)]
pub struct Adapter {
    shape: Shape,
    parts: Vec<Part>,
    data: Vec<f32>,
}

/// The two matrices of one projection.
#[derive(Debug, Clone)]
struct Part {
    /// The name of the projection, as the network's file has it.
    name: String,
    /// In which layer it is.
    layer: usize,
    /// As a part of what it is computed there.
    within: Linear,
    /// Its first output among those of `within`.
    from: usize,
    /// Where the projection lies among the weights.
    place: Range<usize>,
    outputs: usize,
    inputs: usize,
    /// Where `A` lies, `[rank, inputs]`.
    a: Range<usize>,
    /// Where `B` lies, `[outputs, rank]`.
    b: Range<usize>,
}

impl Adapter {
    /// An adapter that changes nothing yet: `A` uniform within the inverse root of the inputs (as PEFT begins), `B` zeros.
    ///
    /// # Errors
    ///
    /// The shape makes no sense.
    pub fn new(network: &Network, shape: Shape, seed: u64) -> Result<Self, LmError> {
        let mut adapter = Self::zeros(&network.weights, shape)?;
        let mut random = Seeded::new(seed).fork("adapter");
        for part in &adapter.parts {
            let bound = 1.0 / (part.inputs as f64).sqrt();
            adapter.data[part.a.clone()].fill_with(|| ((2.0 * random.unit() - 1.0) * bound) as f32);
        }
        Ok(adapter)
    }

    fn zeros(weights: &Weights, shape: Shape) -> Result<Self, LmError> {
        let wrong = |name, problem: String| Err(LmError::Setting { name, problem });
        if !(1..=4096).contains(&shape.rank) {
            return wrong("rank", format!("{} is not between 1 and 4096", shape.rank));
        }
        if !shape.alpha.is_finite() || shape.alpha <= 0.0 {
            return wrong("alpha", format!("{} is not positive", shape.alpha));
        }
        if shape.targets.is_empty() {
            return wrong("targets", "no projection is named".into());
        }
        let (mut parts, mut size, mut place) = (Vec::new(), 0, 0);
        let mut before = (None, 0);
        for (name, dimensions, values) in weights.tensors() {
            let here = place..place + values.len();
            place = here.end;
            let &[outputs, inputs] = dimensions else { continue };
            let (Some(target), Some(layer)) = (Target::of(name), layer_of(name)) else { continue };
            // Projections that are computed as one lie one after the other.
            let joint = Some((layer, target.within()));
            let from = if before.0 == joint { before.1 } else { 0 };
            before = (joint, from + outputs);
            if !shape.targets.contains(&target) {
                continue;
            }
            let a = size..size + shape.rank * inputs;
            let b = a.end..a.end + outputs * shape.rank;
            size = b.end;
            let within = target.within();
            parts.push(Part { name: name.to_owned(), layer, within, from, place: here, outputs, inputs, a, b });
        }
        Ok(Self { shape, parts, data: vec![0.0; size] })
    }

    /// Its shape.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How many numbers it has.
    pub fn parameters(&self) -> u64 {
        self.data.len() as u64
    }

    /// Every number: `A` and `B` of each projection, in the order of the network's tensors.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The same adapter with other numbers, in the order of [`Adapter::data`].
    ///
    /// # Errors
    ///
    /// There are more or fewer of them.
    pub fn with_data(&self, data: Vec<f32>) -> Result<Self, LmError> {
        if data.len() == self.data.len() {
            return Ok(Self { data, ..self.clone() });
        }
        let problem = format!("{} numbers are given for an adapter of {}", data.len(), self.data.len());
        Err(LmError::Setting { name: "data", problem })
    }

    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// What the product of the two matrices is multiplied by.
    fn scale(&self) -> f32 {
        (self.shape.alpha / self.shape.rank as f64) as f32
    }

    /// The projections that have an adapter, one after the other, as they are in `weights`.
    pub(crate) fn base(&self, weights: &Weights) -> Vec<f32> {
        self.parts.iter().flat_map(|part| &weights.data()[part.place.clone()]).copied().collect()
    }

    /// Writes into `weights` what `base`, made by [`Adapter::base`], computes with the adapter.
    pub(crate) fn apply(&self, base: &[f32], weights: &mut Weights) {
        self.apply_on(&Cpu, &self.data, base, weights.data_mut());
    }

    /// The same on any device, where `numbers` are the adapter's.
    pub(crate) fn apply_on<D: Device>(&self, device: &D, numbers: &D::Slice, base: &D::Slice, weights: &mut D::Slice) {
        let mut at = 0;
        for part in &self.parts {
            let matrix = weights.part_mut(part.place.clone());
            device.copy(base.part(at..at + part.place.len()), matrix);
            at += part.place.len();
            let (a, b) = self.matrices::<D>(part, numbers);
            device.multiply(ViewMut::new(matrix, part.outputs, part.inputs), Write::Add, self.scale(), b, a);
        }
    }

    fn matrices<'a, D: Device>(&self, part: &Part, numbers: &'a D::Slice) -> (View<'a, D::Slice>, View<'a, D::Slice>) {
        let a = View::new(numbers.part(part.a.clone()), self.shape.rank, part.inputs);
        let b = View::new(numbers.part(part.b.clone()), part.outputs, self.shape.rank);
        (a, b)
    }

    /// Takes gradients of the network's weights and adds to `gradient`, in the order of [`Adapter::data`], what follows for
    /// the adapter, whose `numbers` the device has.
    pub(crate) fn sink<'data, D: Device>(
        &'data self,
        device: &'data D,
        numbers: &'data D::Slice,
        gradient: &'data mut D::Slice,
        room: &'data mut D::Buffer,
    ) -> LowRank<'data, D> {
        LowRank { device, adapter: self, numbers, gradient, room }
    }

    /// Adds the adapter to the network for good.
    pub fn merge(&self, network: &mut Network) {
        let base = self.base(&network.weights);
        self.apply(&base, &mut network.weights);
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`, as PEFT does; `base` is the name or the
    /// folder of the network that it belongs to. The same adapter gives the same bytes.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn save(&self, folder: &Path, base: &str) -> Result<(), LmError> {
        fs::create_dir_all(folder).map_err(|source| LmError::write(folder, source))?;
        let rank = self.shape.rank;
        let mut tensors = Vec::new();
        for part in &self.parts {
            let stored = |range: &Range<usize>, shape: [usize; 2]| Stored {
                dtype: Dtype::F32,
                shape: shape.to_vec(),
                values: &self.data[range.clone()],
            };
            tensors.push((theirs(&part.name, 'A'), stored(&part.a, [rank, part.inputs])));
            tensors.push((theirs(&part.name, 'B'), stored(&part.b, [part.outputs, rank])));
        }
        let path = folder.join(WEIGHTS);
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file(tensors, Some(metadata), &path)
            .map_err(|error| LmError::write(&path, std::io::Error::other(error)))?;
        let words: Vec<&str> = self.shape.targets.iter().map(|target| target.word()).collect();
        let config = json!({
            "base_model_name_or_path": base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": self.shape.alpha,
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": rank,
            "target_modules": words,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
        });
        let path = folder.join(CONFIG);
        fs::write(&path, format!("{config:#}\n")).map_err(|source| LmError::write(&path, source))
    }

    /// Reads an adapter in the form of PEFT for a network of the shape `config`.
    ///
    /// # Errors
    ///
    /// A file is missing or malformed, the adapter belongs to another network, or it is of a kind that is not computed
    /// here, which the error names.
    pub fn load(folder: &Path, config: &Config) -> Result<Self, LmError> {
        let path = folder.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|source| LmError::read(&path, source))?;
        let fields: Value =
            serde_json::from_str(&text).map_err(|error| LmError::malformed(&path, error.to_string(), HINT_CONFIG))?;
        let unsupported =
            |feature: String| LmError::Unsupported { path: path.clone(), feature, hint: "merge it with PEFT first" };
        if fields["peft_type"] != "LORA" {
            return Err(unsupported(format!("`peft_type` {}", fields["peft_type"])));
        }
        if !fields["bias"].is_null() && fields["bias"] != "none" {
            return Err(unsupported(format!("`bias` {}", fields["bias"])));
        }
        for name in OTHER_KINDS {
            let value = &fields[name];
            let nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Object(entries) => entries.is_empty(),
                Value::Array(entries) => entries.is_empty(),
                _ => false,
            };
            if !nothing {
                return Err(unsupported(format!("`{name}` {value}")));
            }
        }
        let missing = |name: &str| LmError::malformed(&path, format!("`{name}` is missing"), HINT_CONFIG);
        let rank = fields["r"].as_u64().and_then(|rank| usize::try_from(rank).ok()).ok_or_else(|| missing("r"))?;
        let alpha = fields["lora_alpha"].as_f64().ok_or_else(|| missing("lora_alpha"))?;

        let weights_path = folder.join(WEIGHTS);
        let mut file = TensorFile::open(&weights_path)?;
        let infos = file.tensors();
        let known = |name: &str| {
            let name = name.strip_prefix(PREFIX)?;
            let name = name.strip_suffix(".lora_A.weight").or_else(|| name.strip_suffix(".lora_B.weight"))?;
            Target::of(&format!("{name}.weight"))
        };
        let mut targets: Vec<Target> = infos.iter().filter_map(|(name, _)| known(name)).collect();
        targets.sort_unstable();
        targets.dedup();
        let mut adapter = Self::zeros(&Weights::zeros(config), Shape { rank, alpha, targets })?;
        let mut places = BTreeMap::new();
        for part in &adapter.parts {
            places.insert(theirs(&part.name, 'A'), (vec![rank, part.inputs], part.a.clone()));
            places.insert(theirs(&part.name, 'B'), (vec![part.outputs, rank], part.b.clone()));
        }
        for (name, info) in infos {
            let Some((shape, range)) = places.remove(&name) else {
                let problem = "has no place in an adapter of this network";
                return Err(LmError::tensor(&weights_path, &name, problem, HINT_OTHER));
            };
            let place = Tensor { name, shape, range: range.clone() };
            file.read(&place, &info, &mut adapter.data[range])?;
        }
        match places.first_key_value() {
            Some((name, _)) => Err(LmError::tensor(&weights_path, name, "is missing", HINT_OTHER)),
            None => Ok(adapter),
        }
    }
}

/// The gradient of an adapter, without that of the weights that it adapts.
///
/// With `D` the gradient of what a projection made of `x`, that of the projection would be `D^T x`, and those of the adapter
/// `scale B^T D^T x` and `scale D^T x A^T`. Multiplied from the side on which the rank stands they cost as many operations
/// for each row as the adapter has numbers, not as many as the projection has.
pub(crate) struct LowRank<'data, D: Device> {
    device: &'data D,
    adapter: &'data Adapter,
    numbers: &'data D::Slice,
    gradient: &'data mut D::Slice,
    room: &'data mut D::Buffer,
}

impl<D: Device> LowRank<'_, D> {
    fn projection(&mut self, part: &Part, d_out: View<'_, D::Slice>, x: View<'_, D::Slice>, rows: usize) {
        let (device, rank, scale) = (self.device, self.adapter.shape.rank, self.adapter.scale());
        let (a, b) = self.adapter.matrices::<D>(part, self.numbers);
        let narrow = device.room(self.room, rows * rank);
        device.multiply(ViewMut::new(narrow, rows, rank), Write::Over, scale, d_out, b);
        let d_a = ViewMut::new(self.gradient.part_mut(part.a.clone()), rank, part.inputs);
        device.multiply(d_a, Write::Add, 1.0, View::new(&*narrow, rows, rank).transposed(), x);
        device.multiply(ViewMut::new(narrow, rows, rank), Write::Over, scale, x, a.transposed());
        let d_b = ViewMut::new(self.gradient.part_mut(part.b.clone()), part.outputs, rank);
        device.multiply(d_b, Write::Add, 1.0, d_out.transposed(), View::new(&*narrow, rows, rank));
    }
}

impl<D: Device> Sink<D> for LowRank<'_, D> {
    fn linear(&mut self, index: usize, which: Linear, d_out: &D::Slice, x: &D::Slice, rows: usize, _: &mut D::Scratch) {
        let (outputs, inputs) = (d_out.len() / rows, x.len() / rows);
        let adapter = self.adapter;
        for part in adapter.parts.iter().filter(|part| part.layer == index && part.within == which) {
            let d_out = View::strided(d_out.part(part.from..d_out.len()), rows, part.outputs, outputs);
            self.projection(part, d_out, View::new(x, rows, inputs), rows);
        }
    }

    fn scale(&mut self, _: Norm, size: usize) -> &mut D::Slice {
        // What is added here is never read.
        self.device.room(self.room, size)
    }

    fn embed(&mut self) -> Option<&mut D::Slice> {
        None
    }

    fn head(&mut self) -> Option<&mut D::Slice> {
        None
    }
}

/// The layer of the tensor `name`, such as `model.layers.0.self_attn.q_proj.weight`.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

/// What PEFT calls one of the two matrices of a projection.
fn theirs(name: &str, which: char) -> String {
    format!("{PREFIX}{}.lora_{which}.weight", name.trim_end_matches(".weight"))
}

const PREFIX: &str = "base_model.model.";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const HINT_CONFIG: &str = "expected the adapter_config.json of PEFT";
const HINT_OTHER: &str = "the adapter and the network come from different models";

/// Settings of PEFT under which an adapter computes something else.
const OTHER_KINDS: [&str; 18] = [
    "use_dora",
    "use_rslora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
];
