//! The teacher of the demonstration: a small Llama-architecture model, trained on the generated corpus by this crate.
//!
//! Training takes half an hour on two quiet cores, so its result is embedded; [`train_teacher`] made it.

use std::fmt::Write as _;
use std::path::Path;

use anbiq_domain::{Answer, Finish};
use anbiq_lm::score::mean_loss;
use anbiq_lm::train::{self, Example, StepReport, Trainer};
use anbiq_lm::{Codec, Config, Dtype, Network, RopeScaling, SPECIALS, Tokenizer, Variant};

use crate::LabError;
use crate::corpus::{Corpus, Document};

/// Documents that the tokenizer is trained on.
const TOKENIZER_DOCUMENTS: usize = 20_000;

/// Held-out documents that the loss is measured on.
const HELD_OUT_DOCUMENTS: usize = 1_000;

/// The files of the embedded teacher, a Hugging Face folder, with their names.
pub const EMBEDDED: [(&str, &[u8]); 6] = [
    ("config.json", include_bytes!("../teacher/config.json")),
    ("generation_config.json", include_bytes!("../teacher/generation_config.json")),
    ("model.safetensors", include_bytes!("../teacher/model.safetensors")),
    ("tokenizer.json", include_bytes!("../teacher/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../teacher/tokenizer_config.json")),
    ("README.md", include_bytes!("../teacher/README.md")),
];

/// Writes the embedded teacher into `folder`, which is made if need be.
///
/// # Errors
/// Where a file cannot be written.
pub fn write_teacher(folder: &Path) -> Result<(), LabError> {
    std::fs::create_dir_all(folder).map_err(|source| LabError::write(folder, source))?;
    for (name, bytes) in EMBEDDED {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| LabError::write(&path, source))?;
    }
    Ok(())
}

/// What kind of teacher to train.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TeacherConfig {
    /// Seed of the corpus, the weights and the order.
    pub seed: u64,
    /// Tokens to train on, prompts included.
    pub tokens: u64,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads a layer.
    pub heads: usize,
    /// Width of the feed-forward layers.
    pub ffn: usize,
    /// Longest conversation, in tokens.
    pub context: usize,
    /// Tokens a step.
    pub batch_tokens: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Threads. Another number of threads gives other rounding and so other weights.
    pub threads: usize,
}

impl Default for TeacherConfig {
    /// The embedded teacher.
    fn default() -> Self {
        Self {
            seed: 1,
            tokens: 12_000_000,
            vocab: 1536,
            hidden: 224,
            layers: 5,
            heads: 7,
            ffn: 608,
            context: 512,
            batch_tokens: 2048,
            learning_rate: 2.5e-3,
            threads: 2,
        }
    }
}

/// How far the training is.
#[derive(Debug, Clone, Copy)]
pub struct TeacherProgress<'run> {
    /// Tokens that it has seen.
    pub tokens: u64,
    /// Tokens that it will see.
    pub of: u64,
    /// The step just made.
    pub step: StepReport,
    /// The network as it is now, for checkpoints.
    pub network: &'run Network,
}

/// What came of the training.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct TeacherReport {
    /// Numbers in the network.
    pub parameters: u64,
    /// Tokens that it was trained on.
    pub tokens: u64,
    /// Steps.
    pub steps: u64,
    /// Mean loss on the answers of held-out documents, in nats a token.
    pub held_out_loss: f64,
    /// Tokens that this mean is over.
    pub held_out_tokens: u64,
}

/// Trains a teacher and writes it into `folder`, as a Hugging Face folder in half precision.
///
/// # Errors
/// Where the configuration makes no sense or a file cannot be written.
pub fn train_teacher(
    config: &TeacherConfig,
    folder: &Path,
    progress: &mut dyn FnMut(&TeacherProgress<'_>),
) -> Result<TeacherReport, LabError> {
    let corpus = Corpus::new(config.seed);
    let codec = codec(config, &corpus)?;
    let shape = shape(config, &codec);
    let mut trainer = Trainer::new(Network::random(shape, config.seed)?, training(config))?;
    let mut examples = corpus.training().map(|document| whole(&codec, &document));
    let (mut tokens, mut steps) = (0, 0);
    while tokens < config.tokens {
        let batch = batch(&mut examples, config.batch_tokens)?;
        let step = trainer.step(&batch)?;
        tokens += step.rows;
        steps = step.step;
        progress(&TeacherProgress { tokens, of: config.tokens, step, network: trainer.network()? });
    }
    let network = trainer.into_network()?;
    network.save(folder, Dtype::F16)?;
    codec.save(folder)?;
    // What is reported holds of what is on disk, which is a little coarser than what was trained.
    let stored = Network::load(folder)?;
    let (held_out_loss, held_out_tokens) = held_out(&stored, &codec, &corpus, config.threads)?;
    let report = TeacherReport { parameters: stored.parameters(), tokens, steps, held_out_loss, held_out_tokens };
    let path = folder.join("README.md");
    std::fs::write(&path, card(config, &report)).map_err(|source| LabError::write(&path, source))?;
    Ok(report)
}

fn codec(config: &TeacherConfig, corpus: &Corpus) -> Result<Codec, LabError> {
    let texts = corpus.training().take(TOKENIZER_DOCUMENTS).flat_map(|document| [document.prompt, document.answer]);
    let tokenizer = Tokenizer::train_bpe(texts, config.vocab, &SPECIALS)?;
    Ok(Codec::plain(tokenizer, config.context)?)
}

fn shape(config: &TeacherConfig, codec: &Codec) -> Config {
    Config {
        variant: Variant::default(),
        vocab_size: codec.tokenizer.size(),
        hidden_size: config.hidden,
        intermediate_size: config.ffn,
        layers: config.layers,
        heads: config.heads,
        kv_heads: config.heads,
        head_dim: config.hidden / config.heads.max(1),
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tied: true,
        max_positions: config.context,
        bos: codec.bos,
        eos: codec.eos.clone(),
        pad: codec.eos.first().copied(),
    }
}

fn training(config: &TeacherConfig) -> train::Config {
    let total_steps = config.tokens / config.batch_tokens.max(1) as u64;
    train::Config {
        learning_rate: config.learning_rate,
        warmup_steps: (total_steps / 20).max(1),
        total_steps,
        batch_tokens: config.batch_tokens,
        threads: config.threads,
        seed: config.seed,
        ..train::Config::default()
    }
}

/// A document as a whole, prompt and answer: a teacher learns its language from both.
fn whole(codec: &Codec, document: &Document) -> Result<Example, LabError> {
    let (tokens, _) = tokens(codec, document)?;
    Ok(Example { tokens, first_target: 1, teacher: None })
}

/// The tokens of a document and the place of its answer.
fn tokens(codec: &Codec, document: &Document) -> Result<(Vec<u32>, usize), LabError> {
    let answer = Answer::new(document.answer.clone(), Finish::Stop);
    Ok(codec.example(&document.prompt(), &answer)?)
}

/// As many examples as make about `size` tokens.
fn batch(examples: &mut dyn Iterator<Item = Result<Example, LabError>>, size: usize) -> Result<Vec<Example>, LabError> {
    let mut batch = Vec::new();
    let mut tokens = 0;
    for example in examples {
        let example = example?;
        tokens += example.tokens.len();
        batch.push(example);
        if tokens >= size {
            break;
        }
    }
    Ok(batch)
}

fn held_out(network: &Network, codec: &Codec, corpus: &Corpus, threads: usize) -> Result<(f64, u64), LabError> {
    let documents = corpus.held_out().take(HELD_OUT_DOCUMENTS);
    let sequences: Vec<(Vec<u32>, usize)> =
        documents.map(|document| tokens(codec, &document)).collect::<Result<_, _>>()?;
    let borrowed: Vec<(&[u32], usize)> = sequences.iter().map(|(tokens, first)| (tokens.as_slice(), *first)).collect();
    let targets: usize = borrowed.iter().map(|(tokens, first)| tokens.len() - first).sum();
    Ok((mean_loss(network, &borrowed, threads)?, targets as u64))
}

/// The model's card.
fn card(config: &TeacherConfig, report: &TeacherReport) -> String {
    let TeacherConfig {
        seed,
        tokens,
        vocab,
        hidden,
        layers,
        heads,
        ffn,
        context,
        batch_tokens,
        learning_rate,
        threads,
    } = config;
    let mut card = String::new();
    let _ = write!(
        card,
        "---\nlicense: mit\nlibrary_name: transformers\n---\n\n\
         # The teacher of the demonstration\n\n\
         A model of the Llama architecture with {parameters} parameters ({layers} layers, width {hidden}, {heads} heads, \
         feed-forward {ffn}, vocabulary {vocab}, context {context}), trained from nothing on the generated corpus of \
         `anbiq-lab`: stories, descriptions, letters, small talk and tasks with right answers, all of a small language \
         of about 900 words. It knows nothing else.\n\n\
         It was made with\n\n\
         ```\nanbiq lab teacher --seed {seed} --tokens {tokens} --out crates/lab/teacher\n```\n\n\
         which trains for {steps} steps of about {batch_tokens} tokens with AdamW (learning rate {learning_rate}, \
         warm-up over a twentieth, then a cosine to a tenth) on {threads} threads and stores it in half precision. The \
         same machine and number of threads give the same bytes.\n\n\
         Loss on the answers of held-out documents: {loss:.4} nats a token, over {held_out} tokens.\n",
        parameters = report.parameters,
        steps = report.steps,
        loss = report.held_out_loss,
        held_out = report.held_out_tokens,
    );
    card
}
