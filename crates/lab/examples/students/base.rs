//! What all students share: the teacher, its answers, and a base that was lightly trained on the corpus.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anbiq_domain::{AccountId, Answer, ExchangeId, Finish, Prompt, Seeded, Timestamp, TwinMode};
use anbiq_lab::corpus::{Corpus, Document};
use anbiq_lab::teacher::write_teacher;
use anbiq_lm::train::{Config as Training, Example, Trainer, epochs};
use anbiq_lm::{Codec, Config, Dtype, Local, LocalOptions, Network};
use anbiq_model::{Abilities, Generation, Model, ModelError, Request, Sampling, ScoreRequest, Scored, collect};
use anbiq_trace::{Collected, State, TwinItem};
use anbiq_watermark::Mark;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{Failure, Options};

/// Tokens that the base is trained on.
const BASE_TOKENS: usize = 1_500_000;
/// Longest answer, in tokens.
const LONGEST: u32 = 96;
/// Threads of everything. Another number gives other rounding.
pub(super) const THREADS: usize = 1;

/// What was asked of the teacher and what it said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Drawn {
    pub(super) prompt: Prompt,
    pub(super) answers: Vec<Answer>,
}

#[derive(Debug)]
pub(super) struct Base {
    pub(super) corpus: Corpus,
    pub(super) codec: Codec,
    pub(super) network: Network,
    pub(super) teacher: Remembering,
    teacher_folder: PathBuf,
    /// Pairs whose coins were tossed once, the harvest of all suspects.
    pub(super) items: Collected,
    /// A third draw for the same prompts, which was never served.
    pub(super) fresh: Vec<Drawn>,
}

impl Base {
    pub(super) async fn make(options: &Options) -> Result<Self, Failure> {
        let dir = &options.dir;
        std::fs::create_dir_all(dir)?;
        let folder = dir.join("teacher");
        // Several parts may be made side by side in one folder, and must not write under each other's hands.
        if !folder.join("README.md").is_file() {
            write_teacher(&folder)?;
        }
        let corpus = Corpus::new(11);
        let codec = Codec::load(&folder)?;
        let network = base(dir, &corpus, &codec)?;
        let teacher = open(&folder, None)?;
        let prompts: Vec<Prompt> = open_ended(&corpus, "harvest").take(options.pairs).map(|d| d.prompt()).collect();
        let drawn = draw(&teacher, &prompts, 3, 0, &dir.join(format!("drawn-{}.jsonl", options.pairs))).await?;
        let items = pairs(&drawn, &mut Seeded::new(5).fork("coins"))?;
        let fresh =
            drawn.iter().map(|drawn| Drawn { answers: vec![drawn.answers[2].clone()], ..drawn.clone() }).collect();
        Ok(Self { corpus, codec, network, teacher: Remembering::new(teacher), teacher_folder: folder, items, fresh })
    }

    /// A prompt with an answer, as a student learns it.
    pub(super) fn example(&self, prompt: &Prompt, answer: &Answer) -> Result<Example, Failure> {
        let (tokens, first_target) = self.codec.example(prompt, answer)?;
        Ok(Example { tokens, first_target, teacher: None })
    }

    /// `count` documents that no teacher wrote.
    pub(super) fn other_text(&self, seed: u64, count: usize) -> Result<Vec<Example>, Failure> {
        let mut random = Seeded::new(seed).fork("other text");
        let one = |_| {
            let document = self.corpus.any(&mut random);
            self.example(&document.prompt(), &Answer::new(document.answer.clone(), Finish::Stop))
        };
        (0..count).map(one).collect()
    }

    /// The base, trained on `examples` for some epochs.
    pub(super) fn train(&self, examples: &[Example], rounds: u32, seed: u64) -> Result<Network, Failure> {
        let batches = epochs(examples, rounds, 1024, seed);
        let total_steps = batches.len() as u64;
        let config = Training {
            learning_rate: 2e-3,
            warmup_steps: (total_steps / 20).max(1),
            total_steps,
            batch_tokens: 1024,
            threads: THREADS,
            seed,
            ..Training::default()
        };
        let mut trainer = Trainer::new(self.network.clone(), config)?;
        for batch in batches {
            trainer.step(&batch)?;
        }
        Ok(trainer.into_network()?)
    }

    /// The teacher once more, for a test that takes it whole.
    pub(super) fn another_teacher(&self) -> Result<Local, Failure> {
        open(&self.teacher_folder, None)
    }

    /// A student as a model that can be asked.
    pub(super) fn model(&self, network: Network, name: &str) -> Result<Local, Failure> {
        Ok(Local::from_parts(network, Codec::load(&self.teacher_folder)?, name, local())?)
    }
}

fn local() -> LocalOptions {
    LocalOptions { threads: THREADS, seed: Some(1), ..LocalOptions::default() }
}

fn open(folder: &Path, mark: Option<Mark>) -> Result<Local, Failure> {
    let model = Local::open(folder, "teacher", local())?;
    Ok(match mark {
        Some(mark) => model.marked(mark),
        None => model,
    })
}

/// The teacher, marking its answers.
pub(super) fn marked_teacher(dir: &Path, mark: Mark) -> Result<Local, Failure> {
    open(&dir.join("teacher"), Some(mark))
}

/// Prompts whose answers differ from draw to draw.
pub(super) fn open_ended<'c>(corpus: &'c Corpus, label: &str) -> impl Iterator<Item = Document> + 'c {
    let mut random = Seeded::new(12).fork(label);
    std::iter::repeat_with(move || corpus.any(&mut random)).filter(|document| !document.kind.is_checkable())
}

/// `n` answers to each of `prompts`; kept in `file`.
pub(super) async fn draw(
    teacher: &Local,
    prompts: &[Prompt],
    n: u32,
    seed: u64,
    file: &Path,
) -> Result<Vec<Drawn>, Failure> {
    if let Ok(text) = std::fs::read_to_string(file) {
        let lines: Result<Vec<Drawn>, _> = text.lines().map(serde_json::from_str).collect();
        return Ok(lines?);
    }
    let one = |(place, prompt): (u64, Prompt)| async move {
        let sampling = Sampling { seed: Some((seed << 32) | place), ..Sampling::default() };
        let request = Request { n, sampling, ..Request::new(prompt.clone(), LONGEST) };
        let (answers, _) = collect(teacher.generate(request).await?, n).await?;
        Ok::<Drawn, ModelError>(Drawn { prompt, answers })
    };
    let drawn: Vec<Drawn> =
        stream::iter((0_u64..).zip(prompts.iter().cloned()).map(one)).buffered(24).try_collect().await?;
    let lines: Result<Vec<String>, _> = drawn.iter().map(serde_json::to_string).collect();
    std::fs::write(file, lines?.join("\n") + "\n")?;
    Ok(drawn)
}

/// The first two answers of each as a pair, of which a coin serves one. Equal ones say nothing.
pub(super) fn pairs(drawn: &[Drawn], coins: &mut Seeded) -> Result<Collected, Failure> {
    let account = AccountId::new("harvester")?;
    let mut collected = Collected::default();
    for (index, Drawn { prompt, answers }) in (0_u64..).zip(drawn) {
        let at = Timestamp::from_milliseconds(i64::try_from(index)?);
        let (exchange, served) = (ExchangeId::fresh(at, coins), u8::from(coins.chance(0.5)));
        if answers[0] == answers[1] {
            collected.left_out.equal_draws += 1;
            continue;
        }
        collected.items.push(TwinItem {
            index,
            exchange,
            at,
            account: account.clone(),
            operator: None,
            slices: Vec::new(),
            prompt: prompt.clone(),
            mode: TwinMode::Together,
            draws: [answers[0].clone(), answers[1].clone()],
            served,
            state: State::Complete,
        });
    }
    Ok(collected)
}

fn base(dir: &Path, corpus: &Corpus, codec: &Codec) -> Result<Network, Failure> {
    let folder = dir.join("base");
    if folder.join("model.safetensors").is_file() {
        return Ok(Network::load(&folder)?);
    }
    let shape: Config = Config {
        hidden_size: 64,
        intermediate_size: 176,
        layers: 3,
        heads: 4,
        kv_heads: 4,
        head_dim: 16,
        ..Network::load(&dir.join("teacher"))?.config
    };
    let total_steps = (BASE_TOKENS / 2048) as u64;
    let config = Training {
        learning_rate: 4e-3,
        warmup_steps: total_steps / 20,
        total_steps,
        threads: THREADS,
        ..Training::default()
    };
    let mut trainer = Trainer::new(Network::random(shape, 3)?, config)?;
    let mut documents = corpus.training();
    let mut tokens = 0;
    while tokens < BASE_TOKENS {
        let (mut batch, mut size) = (Vec::new(), 0);
        while size < 2048 {
            let Some(document) = documents.next() else { break };
            let answer = Answer::new(document.answer.clone(), Finish::Stop);
            let (sequence, _) = codec.example(&document.prompt(), &answer)?;
            size += sequence.len();
            batch.push(Example { tokens: sequence, first_target: 1, teacher: None });
        }
        tokens += size;
        trainer.step(&batch)?;
    }
    let network = trainer.into_network()?;
    network.save(&folder, Dtype::F32)?;
    Ok(network)
}

/// The teacher, which scores each text once: it is asked the same for every student.
#[derive(Debug)]
pub(super) struct Remembering {
    model: Local,
    scores: Mutex<HashMap<String, Scored>>,
}

impl Remembering {
    fn new(model: Local) -> Self {
        Self { model, scores: Mutex::default() }
    }

    pub(super) fn local(&self) -> &Local {
        &self.model
    }
}

#[async_trait::async_trait]
impl Model for Remembering {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn abilities(&self) -> Abilities {
        self.model.abilities()
    }

    async fn generate(&self, request: Request) -> Result<Generation, ModelError> {
        self.model.generate(request).await
    }

    async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        let key = |request: &ScoreRequest| format!("{}\0{}", request.prompt.canonical(), request.answer.text);
        let known = |key: &String| self.scores.lock().ok().and_then(|scores| scores.get(key).cloned());
        let all: Option<Vec<Scored>> = requests.iter().map(|request| known(&key(request))).collect();
        if let Some(all) = all {
            return Ok(all);
        }
        let scored = self.model.score(requests).await?;
        if let Ok(mut scores) = self.scores.lock() {
            scores.extend(requests.iter().map(key).zip(scored.iter().cloned()));
        }
        Ok(scored)
    }
}
