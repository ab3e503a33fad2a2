use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anbiq_domain::Seeded;
use safetensors::tensor::{Dtype as FileType, Metadata, TensorInfo, View};
use serde::Deserialize;

use crate::{Config, LmError, gguf};

/// A network: its shape and its numbers.
#[derive(Debug, Clone)]
pub struct Network {
    /// The shape.
    pub config: Config,
    /// The numbers.
    pub weights: Weights,
}

/// The type of numbers in a saved file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats: nothing is lost.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a 32-bit float; what most published models use.
    Bf16,
}

impl Network {
    /// Reads a Hugging Face folder: `config.json` with `model.safetensors`, or with shards and
    /// `model.safetensors.index.json`. Half-precision numbers are widened to 32 bits. A file `*.gguf` is read as
    /// [`gguf::read`](crate::gguf::read) does.
    ///
    /// # Errors
    ///
    /// A file is missing, cut short or malformed; a tensor is missing, has another shape than the configuration says
    /// or belongs to a computation that is not done here.
    pub fn load(folder: &Path) -> Result<Self, LmError> {
        if gguf::is_gguf(folder) {
            return gguf::read_network(folder);
        }
        let config = Config::read(&folder.join("config.json"))?;
        let mut weights = Weights::zeros(&config);
        let layout = Arc::clone(&weights.layout);
        let mut places: BTreeMap<&str, &Tensor> =
            layout.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let mut second_head = None;
        for path in weight_files(folder)? {
            let mut file = TensorFile::open(&path)?;
            for (name, info) in file.tensors() {
                match places.remove(name.as_str()) {
                    Some(place) => file.read(place, &info, &mut weights.data[place.range.clone()])?,
                    None if config.tied && name == HEAD => second_head = Some((path.clone(), info)),
                    None if name.ends_with(".rotary_emb.inv_freq") => {}
                    None => {
                        return Err(LmError::tensor(
                            &path,
                            &name,
                            "has no place in a network of this shape",
                            HINT_FAMILY,
                        ));
                    }
                }
            }
        }
        if let Some(missing) = places.keys().next() {
            return Err(LmError::tensor(folder, missing, "is missing", HINT_FETCH));
        }
        if let Some((path, info)) = second_head {
            same_as_embedding(&path, &info, &config, &weights)?;
        }
        Ok(Self { config, weights })
    }

    /// A network that knows nothing yet: normal deviates of standard deviation 0.02, those that write to the residual
    /// stream divided by the root of twice the number of layers (Radford et al. 2019), norms of 1, biases of 0.
    ///
    /// # Errors
    ///
    /// The numbers of `config` do not fit together.
    pub fn random(config: Config, seed: u64) -> Result<Self, LmError> {
        config.check().map_err(|problem| LmError::Setting { name: "config", problem })?;
        let mut weights = Weights::zeros(&config);
        let mut random = Seeded::new(seed).fork("weights");
        let deep = 0.02 / (2.0 * config.layers as f64).sqrt();
        for tensor in &weights.layout.tensors {
            let values = &mut weights.data[tensor.range.clone()];
            if tensor.shape.len() == 1 {
                values.fill(if tensor.name.ends_with(".bias") { 0.0 } else { 1.0 });
                continue;
            }
            let writes = tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight");
            let deviation = if writes { deep } else { 0.02 };
            values.fill_with(|| (random.normal() * deviation) as f32);
        }
        Ok(Self { config, weights })
    }

    /// Writes `config.json` and `model.safetensors` into `folder`, which is made if need be, so that transformers,
    /// vLLM and llama.cpp load them unchanged. The same network gives the same bytes.
    ///
    /// # Errors
    ///
    /// A file cannot be written. An older model in the folder is replaced only once the new one is complete.
    pub fn save(&self, folder: &Path, dtype: Dtype) -> Result<(), LmError> {
        fs::create_dir_all(folder).map_err(|source| LmError::write(folder, source))?;
        let stored = |tensor: &Tensor| Stored {
            dtype,
            shape: tensor.shape.clone(),
            values: &self.weights.data[tensor.range.clone()],
        };
        let tensors: Vec<_> = self.weights.layout.tensors.iter().map(|tensor| (&tensor.name, stored(tensor))).collect();
        // transformers before version 5 refuses a file that does not name its format.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let path = folder.join("model.safetensors");
        let new = folder.join("model.safetensors.new");
        safetensors::serialize_to_file(tensors, Some(metadata), &new)
            .map_err(|error| LmError::write(&path, std::io::Error::other(error)))?;
        fs::rename(&new, &path).map_err(|source| LmError::write(&path, source))?;
        let path = folder.join("config.json");
        fs::write(&path, self.config.to_json(dtype.word())).map_err(|source| LmError::write(&path, source))
    }

    /// How many numbers it has; a shared head counts once.
    pub fn parameters(&self) -> u64 {
        self.weights.data.len() as u64
    }
}

impl Dtype {
    const fn word(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    const fn file_type(self) -> FileType {
        match self {
            Self::F32 => FileType::F32,
            Self::F16 => FileType::F16,
            Self::Bf16 => FileType::BF16,
        }
    }
}

/// All numbers of a network in one flat buffer, with an index.
///
/// Gradients and the optimiser's moments have the same layout, so that clipping and updating are loops over one slice.
/// Matrices are `[outputs, inputs]`, row by row, as in the file.
#[derive(Debug, Clone)]
pub struct Weights {
    layout: Arc<Layout>,
    data: Vec<f32>,
}

/// One value for each tensor of a layer; `d` is the width of the residual stream. Biases and norms of heads are empty
/// where the network has none.
#[derive(Debug, Clone)]
pub struct Layer<T> {
    /// Scale of the norm before attention, `[d]`.
    pub attn_norm: T,
    /// Query projection, `[heads * head_dim, d]`.
    pub q: T,
    /// Key projection, `[kv_heads * head_dim, d]`.
    pub k: T,
    /// Value projection, `[kv_heads * head_dim, d]`.
    pub v: T,
    /// Bias of the queries, `[heads * head_dim]`.
    pub q_bias: T,
    /// Bias of the keys, `[kv_heads * head_dim]`.
    pub k_bias: T,
    /// Bias of the values, `[kv_heads * head_dim]`.
    pub v_bias: T,
    /// Scale of the norm of each head of the queries, `[head_dim]`.
    pub q_norm: T,
    /// Scale of the norm of each head of the keys, `[head_dim]`.
    pub k_norm: T,
    /// Output projection of attention, `[d, heads * head_dim]`.
    pub o: T,
    /// Bias of the output projection, `[d]`.
    pub o_bias: T,
    /// Scale of the norm before the feed-forward part, `[d]`.
    pub mlp_norm: T,
    /// Gate projection, `[ffn, d]`.
    pub gate: T,
    /// Up projection, `[ffn, d]`.
    pub up: T,
    /// Bias of the gate, `[ffn]`.
    pub gate_bias: T,
    /// Bias of the up projection, `[ffn]`.
    pub up_bias: T,
    /// Down projection, `[d, ffn]`.
    pub down: T,
    /// Bias of the down projection, `[d]`.
    pub down_bias: T,
}

impl<T> Layer<T> {
    /// What `job` makes of each tensor.
    pub(crate) fn map<'a, U>(&'a self, job: impl Fn(&'a T) -> U) -> Layer<U> {
        Layer {
            attn_norm: job(&self.attn_norm),
            q: job(&self.q),
            k: job(&self.k),
            v: job(&self.v),
            q_bias: job(&self.q_bias),
            k_bias: job(&self.k_bias),
            v_bias: job(&self.v_bias),
            q_norm: job(&self.q_norm),
            k_norm: job(&self.k_norm),
            o: job(&self.o),
            o_bias: job(&self.o_bias),
            mlp_norm: job(&self.mlp_norm),
            gate: job(&self.gate),
            up: job(&self.up),
            gate_bias: job(&self.gate_bias),
            up_bias: job(&self.up_bias),
            down: job(&self.down),
            down_bias: job(&self.down_bias),
        }
    }
}

impl Weights {
    /// All zeros, in the shape of `config`.
    pub fn zeros(config: &Config) -> Self {
        let layout = Layout::of(config);
        let data = vec![0.0; layout.size];
        Self { layout: Arc::new(layout), data }
    }

    /// All zeros, in the shape of `self`.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        Self { layout: Arc::clone(&self.layout), data: vec![0.0; self.data.len()] }
    }

    /// Every number.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Every number, to change.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The embedding, `[vocab, d]`.
    pub fn embed(&self) -> &[f32] {
        &self.data[self.layout.embed.clone()]
    }

    /// The embedding, to change.
    pub fn embed_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.layout.embed.clone()]
    }

    /// The tensors of layer `index`, which must exist.
    pub fn layer(&self, index: usize) -> Layer<&[f32]> {
        self.layout.layers[index].map(|range| &self.data[range.clone()])
    }

    /// Query, key and value projection of layer `index` as one matrix, `[(heads + 2 kv_heads) * head_dim, d]`.
    pub fn qkv(&self, index: usize) -> &[f32] {
        &self.data[self.layout.qkv(index)]
    }

    /// Gate and up projection of layer `index` as one matrix, `[2 ffn, d]`.
    pub fn gate_up(&self, index: usize) -> &[f32] {
        &self.data[self.layout.gate_up(index)]
    }

    /// The biases of queries, keys and values of layer `index` in a row; empty where there are none.
    pub fn qkv_bias(&self, index: usize) -> &[f32] {
        &self.data[self.layout.qkv_bias(index)]
    }

    /// The biases of gate and up projection of layer `index` in a row; empty where there are none.
    pub fn gate_up_bias(&self, index: usize) -> &[f32] {
        &self.data[self.layout.gate_up_bias(index)]
    }

    /// Scale of the last norm, `[d]`.
    pub fn norm(&self) -> &[f32] {
        &self.data[self.layout.norm.clone()]
    }

    /// The output head where it does not share the embedding, `[vocab, d]`.
    pub fn head(&self) -> Option<&[f32]> {
        self.layout.head.clone().map(|range| &self.data[range])
    }

    /// What the last hidden state is multiplied with: the head, or else the embedding, `[vocab, d]`.
    pub fn output(&self) -> &[f32] {
        &self.data[self.layout.output().clone()]
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Every tensor: its name in a Hugging Face file, its shape and its numbers.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        let tensors = self.layout.tensors.iter();
        tensors.map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice(), &self.data[tensor.range.clone()]))
    }

    /// The same, with numbers to change.
    pub(crate) fn tensors_mut(&mut self) -> impl Iterator<Item = (&str, &[usize], &mut [f32])> {
        // They lie one after the other, without gaps.
        let mut rest = self.data.as_mut_slice();
        self.layout.tensors.iter().map(move |tensor| {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(tensor.range.len());
            rest = others;
            (tensor.name.as_str(), tensor.shape.as_slice(), own)
        })
    }

    /// Where the matrices lie, which weight decay applies to; the rest are norms and biases.
    pub(crate) fn matrices(&self) -> Vec<Range<usize>> {
        let matrices = self.layout.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
        matrices.map(|tensor| tensor.range.clone()).collect()
    }
}

/// Where each tensor lies in the flat buffer.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) embed: Range<usize>,
    pub(crate) layers: Vec<Layer<Range<usize>>>,
    pub(crate) norm: Range<usize>,
    head: Option<Range<usize>>,
    size: usize,
}

#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

impl Layout {
    fn of(config: &Config) -> Self {
        let (d, ffn) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.query_size(), config.kv_size());
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut size = 0;
        let mut place = |name: String, shape: &[usize]| {
            let range = size..size + shape.iter().product::<usize>();
            size = range.end;
            // What the network does not have takes no room and has no name.
            if !range.is_empty() {
                tensors.push(Tensor { name, shape: shape.to_vec(), range: range.clone() });
            }
            range
        };
        let embed = place("model.embed_tokens.weight".into(), &[config.vocab_size, d]);
        let mut layers = Vec::with_capacity(config.layers);
        let or_none = |has: bool, length: usize| if has { length } else { 0 };
        let (biased, o_biased) = (config.qkv_bias(), or_none(config.variant.attention_bias, d));
        let (q_biased, kv_biased) = (or_none(biased, queries), or_none(biased, keys));
        let normed = or_none(config.qk_norm(), config.head_dim);
        let (ffn_biased, down_biased) = (or_none(config.variant.mlp_bias, ffn), or_none(config.variant.mlp_bias, d));
        for index in 0..config.layers {
            let name = |part: &str| format!("model.layers.{index}.{part}.weight");
            let bias = |part: &str| format!("model.layers.{index}.{part}.bias");
            // The order matters: q, k, v and gate, up are used as one matrix each, and so are their biases.
            layers.push(Layer {
                attn_norm: place(name("input_layernorm"), &[d]),
                q: place(name("self_attn.q_proj"), &[queries, d]),
                k: place(name("self_attn.k_proj"), &[keys, d]),
                v: place(name("self_attn.v_proj"), &[keys, d]),
                q_bias: place(bias("self_attn.q_proj"), &[q_biased]),
                k_bias: place(bias("self_attn.k_proj"), &[kv_biased]),
                v_bias: place(bias("self_attn.v_proj"), &[kv_biased]),
                q_norm: place(name("self_attn.q_norm"), &[normed]),
                k_norm: place(name("self_attn.k_norm"), &[normed]),
                o: place(name("self_attn.o_proj"), &[d, queries]),
                o_bias: place(bias("self_attn.o_proj"), &[o_biased]),
                mlp_norm: place(name("post_attention_layernorm"), &[d]),
                gate: place(name("mlp.gate_proj"), &[ffn, d]),
                up: place(name("mlp.up_proj"), &[ffn, d]),
                gate_bias: place(bias("mlp.gate_proj"), &[ffn_biased]),
                up_bias: place(bias("mlp.up_proj"), &[ffn_biased]),
                down: place(name("mlp.down_proj"), &[d, ffn]),
                down_bias: place(bias("mlp.down_proj"), &[down_biased]),
            });
        }
        let norm = place("model.norm.weight".into(), &[d]);
        let head = if config.tied { None } else { Some(place(HEAD.into(), &[config.vocab_size, d])) };
        Self { tensors, embed, layers, norm, head, size }
    }

    /// What the last hidden state is multiplied with: the head, or else the embedding.
    pub(crate) fn output(&self) -> &Range<usize> {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    pub(crate) fn qkv(&self, index: usize) -> Range<usize> {
        self.layers[index].q.start..self.layers[index].v.end
    }

    pub(crate) fn gate_up(&self, index: usize) -> Range<usize> {
        self.layers[index].gate.start..self.layers[index].up.end
    }

    pub(crate) fn qkv_bias(&self, index: usize) -> Range<usize> {
        self.layers[index].q_bias.start..self.layers[index].v_bias.end
    }

    pub(crate) fn gate_up_bias(&self, index: usize) -> Range<usize> {
        self.layers[index].gate_bias.start..self.layers[index].up_bias.end
    }
}

/// A tensor on its way into a file; converted when its turn comes, so that no second copy of the model is held.
pub(crate) struct Stored<'weights> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: &'weights [f32],
}

impl View for Stored<'_> {
    fn dtype(&self) -> FileType {
        self.dtype.file_type()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = match self.dtype {
            Dtype::F32 => self.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Dtype::F16 => self.values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect(),
            Dtype::Bf16 => self.values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        };
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.values.len() * if self.dtype == Dtype::F32 { 4 } else { 2 }
    }
}

/// An open safetensors file. Tensors are read one at a time: a memory map would need `unsafe`, and the whole file at
/// once would need twice the memory.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    /// Where the numbers begin.
    start: u64,
    metadata: Metadata,
    buffer: Vec<u8>,
}

impl TensorFile {
    pub(crate) fn open(path: &Path) -> Result<Self, LmError> {
        let failed = |source| LmError::read(path, source);
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut word = [0; 8];
        file.read_exact(&mut word).map_err(failed)?;
        let header_length = u64::from_le_bytes(word);
        let start = header_length.saturating_add(8);
        // The bound is the format's own.
        if header_length > 100_000_000 || start > length {
            let problem = format!("its header claims {header_length} bytes of the file's {length}");
            return Err(LmError::malformed(path, problem, HINT_FETCH));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| LmError::malformed(path, format!("its header cannot be read: {error}"), HINT_FETCH))?;
        let mut tensors: Vec<(String, TensorInfo)> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        if let Some((name, info)) = tensors.iter().find(|(_, info)| start + info.data_offsets.1 as u64 > length) {
            let problem = format!("ends at byte {} of a file of {length}", start + info.data_offsets.1 as u64);
            return Err(LmError::tensor(path, name, problem, HINT_FETCH));
        }
        Ok(Self { path: path.to_owned(), file, start, metadata, buffer: Vec::new() })
    }

    /// Every tensor in the order in which they lie in the file.
    pub(crate) fn tensors(&self) -> Vec<(String, TensorInfo)> {
        let tensors = self.metadata.tensors().into_iter();
        let mut tensors: Vec<_> = tensors.map(|(name, info)| (name, info.clone())).collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        tensors
    }

    /// What the file says of itself, by name.
    pub(crate) fn said(&self) -> HashMap<String, String> {
        self.metadata.metadata().clone().unwrap_or_default()
    }

    pub(crate) fn read(&mut self, place: &Tensor, info: &TensorInfo, into: &mut [f32]) -> Result<(), LmError> {
        let wrong = |problem: String, hint| LmError::tensor(&self.path, &place.name, problem, hint);
        if info.shape != place.shape {
            let problem = format!("has shape {:?} where config.json asks for {:?}", info.shape, place.shape);
            return Err(wrong(problem, "config.json and the weights come from different models"));
        }
        let width = match info.dtype {
            FileType::F32 => 4,
            FileType::F16 | FileType::BF16 => 2,
            other => {
                return Err(wrong(format!("has type {other:?}"), "save the model as float32, float16 or bfloat16"));
            }
        };
        let (start, end) = info.data_offsets;
        if end.checked_sub(start) != Some(into.len() * width) {
            let problem = format!("claims bytes {start} to {end} for {} numbers", into.len());
            return Err(wrong(problem, HINT_FETCH));
        }
        self.buffer.resize(end - start, 0);
        let read = self.file.seek(SeekFrom::Start(self.start + start as u64));
        read.and_then(|_| self.file.read_exact(&mut self.buffer))
            .map_err(|source| LmError::read(&self.path, source))?;
        match info.dtype {
            FileType::F32 => {
                for (value, bytes) in into.iter_mut().zip(self.buffer.chunks_exact(4)) {
                    *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
            FileType::F16 => {
                for (value, bytes) in into.iter_mut().zip(self.buffer.chunks_exact(2)) {
                    *value = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                }
            }
            _ => {
                for (value, bytes) in into.iter_mut().zip(self.buffer.chunks_exact(2)) {
                    *value = half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                }
            }
        }
        if into.iter().all(|value| value.is_finite()) {
            Ok(())
        } else {
            Err(LmError::tensor(&self.path, &place.name, "holds numbers that are not finite", HINT_FETCH))
        }
    }
}

/// The weight files of a folder: the single one, or the shards in the order of their names.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, LmError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    if single.exists() || !index.exists() {
        return Ok(vec![single]);
    }
    let text = fs::read_to_string(&index).map_err(|source| LmError::read(&index, source))?;
    let parsed: Index =
        serde_json::from_str(&text).map_err(|error| LmError::malformed(&index, error.to_string(), HINT_FETCH))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    // A shard is a plain file name: an index must not make us read elsewhere.
    if let Some(outside) = shards.iter().find(|shard| Path::new(shard).file_name() != Some(shard.as_ref())) {
        return Err(LmError::malformed(&index, format!("it names `{outside}`, not a file of this folder"), HINT_FETCH));
    }
    Ok(shards.into_iter().map(|shard| folder.join(shard)).collect())
}

/// Older software saved the head also where it shares the embedding. Where the two differ, programs differ in which one
/// they use.
fn same_as_embedding(path: &Path, info: &TensorInfo, config: &Config, weights: &Weights) -> Result<(), LmError> {
    let mut head = vec![0.0; weights.embed().len()];
    let shape = vec![config.vocab_size, config.hidden_size];
    let place = Tensor { name: HEAD.to_owned(), shape, range: 0..head.len() };
    TensorFile::open(path)?.read(&place, info, &mut head)?;
    if head == weights.embed() {
        return Ok(());
    }
    let problem = "is not the embedding, although `tie_word_embeddings` says so";
    Err(LmError::tensor(path, HEAD, problem, "set `tie_word_embeddings` to false if the model has a head of its own"))
}

/// The name of the output head.
const HEAD: &str = "lm_head.weight";
const HINT_FETCH: &str = "the file may be cut short or damaged: fetch or save the model again";
const HINT_FAMILY: &str = "biases and norms that the family of config.json does not have, and adapters, are not computed \
                           here: merge or serve them elsewhere";
