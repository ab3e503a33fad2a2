//! Examples from documents and answers, and the stages that learn from them.

use std::path::Path;
use std::time::Instant;

use anbiq_domain::Digest;
use anbiq_lm::lora::{self, Adapter};
use anbiq_lm::train::{self, Divergence, Example, Trainer};
use anbiq_lm::{Codec, Network};
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::capture::{Alphabet, Sample};
use crate::data::{Document, Lines};
use crate::progress::Progress;
use crate::store::Store;

/// Examples to learn from.
#[derive(Debug, Default)]
pub(crate) struct Set {
    pub(crate) examples: Vec<Example>,
    /// Tokens of all of them, once.
    pub(crate) tokens: u64,
    /// Examples that were cut to the student's context.
    pub(crate) cut: u64,
    /// Examples left out: the prompt alone fills the context.
    pub(crate) too_long: u64,
}

impl Set {
    /// Adds a sequence whose loss counts from `first_target` on.
    fn push(&mut self, context: usize, mut example: Example, keep_from: usize) {
        if keep_from >= context {
            self.too_long += 1;
            return;
        }
        if example.tokens.len() > context {
            self.cut += 1;
            example.tokens.truncate(context);
            let targets = example.targets();
            if let Some(teacher) = &mut example.teacher {
                teacher.truncate(targets);
            }
        }
        if example.targets() > 0 {
            self.tokens += example.tokens.len() as u64;
            self.examples.push(example);
        }
    }

    pub(crate) fn sequences(&self) -> Vec<(&[u32], usize)> {
        self.examples.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect()
    }

    fn digest(&self) -> Digest {
        let mut digest = Digest::of(b"anbiq set v1");
        for example in &self.examples {
            let mut bytes = Vec::with_capacity(example.tokens.len() * 4 + 16);
            bytes.extend((example.first_target as u64).to_le_bytes());
            bytes.extend((example.tokens.len() as u64).to_le_bytes());
            bytes.extend(example.tokens.iter().flat_map(|token| token.to_le_bytes()));
            for place in example.teacher.iter().flatten() {
                bytes.extend((place.len() as u64).to_le_bytes());
                for (token, logprob) in place {
                    bytes.extend(token.to_le_bytes());
                    bytes.extend(logprob.to_le_bytes());
                }
            }
            digest = Digest::of_parts(&[digest.as_bytes(), &bytes]);
        }
        digest
    }
}

/// A corpus that is read on from where the last reader stopped, and from the start again at its end.
pub(crate) struct CorpusReader<'a> {
    path: &'a Path,
    lines: Lines<Document>,
}

/// Where the loss counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    Everywhere,
    OnAnswers,
}

impl<'a> CorpusReader<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self, DistillError> {
        Ok(Self { path, lines: Lines::open(path)? })
    }

    /// The next documents, about `tokens` of them, or all that are left where that is not said. With `again` it goes on
    /// from the start of the corpus until there are so many.
    pub(crate) fn take(
        &mut self,
        codec: &Codec,
        tokens: Option<u64>,
        loss: Loss,
        again: bool,
    ) -> Result<Set, DistillError> {
        let mut set = Set::default();
        let limit = tokens.unwrap_or(u64::MAX);
        let mut before = None;
        while set.tokens < limit {
            let Some(document) = self.lines.next() else {
                // A second pass without a token would be followed by a third.
                if !again || before == Some(set.tokens) {
                    break;
                }
                before = Some(set.tokens);
                self.lines = Lines::open(self.path)?;
                continue;
            };
            add_document(&mut set, codec, &document?, loss)?;
        }
        Ok(set)
    }
}

/// At most `most` documents of a file, to measure on.
pub(crate) fn documents(path: &Path, codec: &Codec, most: usize) -> Result<Set, DistillError> {
    let mut set = Set::default();
    for document in Lines::<Document>::open(path)?.take(most) {
        add_document(&mut set, codec, &document?, Loss::OnAnswers)?;
    }
    Ok(set)
}

fn add_document(set: &mut Set, codec: &Codec, document: &Document, loss: Loss) -> Result<(), DistillError> {
    let Some(answer) = document.full_answer() else { return Ok(()) };
    let (tokens, first) = codec.example(&document.prompt(), &answer)?;
    let first_target = if loss == Loss::Everywhere { 1 } else { first };
    set.push(codec.context, Example { tokens, first_target, teacher: None }, first);
    Ok(())
}

/// What became of the teacher's log-probabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    /// Answers with log-probabilities in the student's own tokens.
    pub mapped: u64,
    /// Answers whose tokens the student cuts differently: only their text is learnt from.
    pub differing: u64,
    /// Answers without log-probabilities.
    pub without: u64,
    /// Share of the told probability that found a token of the student.
    pub mass: f64,
}

/// Examples of answers, with the teacher's log-probabilities where their bytes prove that they fit.
pub(crate) fn answers(samples: &[Sample], codec: &Codec) -> Result<(Set, Mapping), DistillError> {
    let alphabet = Alphabet::of(codec);
    let (mut set, mut mapping) = (Set::default(), Mapping::default());
    let (mut told, mut found) = (0.0, 0.0);
    for sample in samples {
        let (tokens, first_target) = codec.example(&sample.prompt, &sample.answer)?;
        let mapped =
            sample.logprobs.as_ref().map(|tokens_told| alphabet.map(codec, tokens_told, &tokens[first_target..]));
        let teacher = match mapped {
            None => {
                mapping.without += 1;
                None
            }
            Some(None) => {
                mapping.differing += 1;
                None
            }
            Some(Some(mapped)) => {
                mapping.mapped += 1;
                told += mapped.told;
                found += mapped.found;
                Some(mapped.places)
            }
        };
        set.push(codec.context, Example { tokens, first_target, teacher }, first_target);
    }
    mapping.mass = if told > 0.0 { found / told } else { 0.0 };
    Ok((set, mapping))
}

/// How a stage learns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) epochs: u32,
    pub(crate) learning_rate: f64,
    pub(crate) batch_tokens: usize,
    pub(crate) kl_weight: f64,
    pub(crate) divergence: Divergence,
    pub(crate) temperature: f64,
    pub(crate) lora: Option<lora::Shape>,
    pub(crate) seed: u64,
    pub(crate) threads: usize,
}

/// What a stage did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Which.
    pub name: String,
    /// The digest of everything that it depends on.
    pub key: Digest,
    /// Was it taken from the store? Its times are then those of the run that did the work.
    pub reused: bool,
    /// Sequences, each once.
    pub examples: u64,
    /// Sequences that were cut to the context.
    pub cut: u64,
    /// Sequences that were left out, since their prompt alone fills the context.
    pub too_long: u64,
    /// Tokens that passed through the network, all epochs together.
    pub tokens: u64,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Steps that were left out, since their gradient was not finite.
    pub skipped: u64,
    /// Mean loss over the first tenth of the steps, in nats a target.
    pub first_loss: f64,
    /// Mean loss over the last tenth.
    pub last_loss: f64,
    /// Seconds on the wall.
    pub wall_seconds: f64,
    /// Seconds of processors, where the system says.
    pub cpu_seconds: Option<f64>,
}

/// Trains `network` on `set`, or takes the result from the store.
pub(crate) fn stage(
    store: &Store,
    origin: &Digest,
    network: Network,
    codec: &Codec,
    set: &Set,
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<(Network, Stage), DistillError> {
    let key = key(origin, set, plan)?;
    if let Some((network, stage)) = store.find(plan.name, &key)? {
        progress.note(&format!("{}: taken from the store", plan.name));
        return Ok((network, Stage { reused: true, ..stage }));
    }
    let (network, adapter, stage) = learn(network, set, plan, key, progress)?;
    store.keep(&network, adapter.as_ref(), codec, &stage)?;
    Ok((network, stage))
}

/// Everything that the result of a stage depends on.
fn key(origin: &Digest, set: &Set, plan: &Plan) -> Result<Digest, DistillError> {
    let plan = serde_json::to_string(plan).map_err(|error| DistillError::Interrupted(error.to_string()))?;
    let software = concat!("anbiq ", env!("CARGO_PKG_VERSION"));
    let set = set.digest();
    let parts: [&[u8]; 5] =
        [b"anbiq stage v1\0", software.as_bytes(), origin.as_bytes(), set.as_bytes(), plan.as_bytes()];
    Ok(Digest::of_parts(&parts))
}

fn learn(
    network: Network,
    set: &Set,
    plan: &Plan,
    key: Digest,
    progress: &dyn Progress,
) -> Result<(Network, Option<Adapter>, Stage), DistillError> {
    let (wall, cpu) = (Instant::now(), crate::cost::cpu_seconds());
    let batches = train::epochs(&set.examples, plan.epochs, plan.batch_tokens, plan.seed);
    let total: u64 = batches.iter().flatten().map(|example| example.tokens.len() as u64).sum();
    progress.stage(plan.name, Some(total));
    let steps = batches.len() as u64;
    let settings = train::Config {
        learning_rate: plan.learning_rate,
        warmup_steps: (steps / 10).clamp(1, 100),
        total_steps: steps,
        batch_tokens: plan.batch_tokens,
        kl_weight: plan.kl_weight,
        divergence: plan.divergence,
        temperature: plan.temperature,
        threads: plan.threads,
        seed: plan.seed,
        ..train::Config::default()
    };
    let mut trainer = match &plan.lora {
        None => Trainer::new(network, settings)?,
        Some(shape) => {
            let adapter = Adapter::new(&network, shape.clone(), plan.seed)?;
            Trainer::with_adapter(network, adapter, settings)?
        }
    };
    let (mut losses, mut skipped) = (Vec::with_capacity(batches.len()), 0);
    for batch in &batches {
        let step = trainer.step(batch)?;
        skipped += u64::from(!step.applied);
        losses.push(step.loss);
        progress.advance(batch.iter().map(|example| example.tokens.len() as u64).sum());
    }
    let tenth = (losses.len() / 10).max(1);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    let stage = Stage {
        name: plan.name.to_owned(),
        key,
        reused: false,
        examples: set.examples.len() as u64,
        cut: set.cut,
        too_long: set.too_long,
        tokens: total,
        steps,
        skipped,
        first_loss: mean(&losses[..tenth.min(losses.len())]),
        last_loss: mean(&losses[losses.len().saturating_sub(tenth)..]),
        wall_seconds: wall.elapsed().as_secs_f64(),
        cpu_seconds: crate::cost::cpu_since(cpu),
    };
    let adapter = trainer.adapter().cloned();
    Ok((trainer.into_network(), adapter, stage))
}

/// Seconds that a token takes to learn from, measured on one batch of `set`.
pub(crate) fn seconds_a_token(network: Network, set: &Set, plan: &Plan) -> Result<Option<f64>, DistillError> {
    let batches = train::epochs(&set.examples, 1, plan.batch_tokens, plan.seed);
    let Some(batch) = batches.first() else { return Ok(None) };
    let settings = train::Config { threads: plan.threads, ..train::Config::default() };
    let mut trainer = Trainer::new(network, settings)?;
    // The first step touches all memory for the first time.
    trainer.step(batch)?;
    let wall = Instant::now();
    let step = trainer.step(batch)?;
    Ok(Some(wall.elapsed().as_secs_f64() / step.rows.max(1) as f64))
}
