//! The recipe: one TOML file that says everything.

mod train;

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use anbiq_domain::{AccountId, Digest, Money, PriceList};
use anbiq_lm::Precision;
use serde::{Deserialize, Serialize};

use crate::curate::{Language, Script};
use crate::{DistillError, Format};

pub use train::{Apart, OnPolicyPart, PreferencePart, PretrainPart, TrainPart};

/// How to make a student. Relative paths are relative to the folder of the recipe.
///
/// Without `[capture]` the student is trained on the corpus alone, and no teacher's terms are asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Fixes every random choice.
    #[serde(default = "one")]
    pub seed: u64,
    /// Folder of the finished student.
    pub out: PathBuf,
    /// Folder of finished stages, which several recipes may share.
    #[serde(default = "default_store")]
    pub store: PathBuf,
    /// Threads; the same number gives the same bits. Absent: all processors.
    pub threads: Option<usize>,
    /// How long a stage learns before it writes down where it is, in seconds: a run that is killed loses so much at most, and
    /// the same command goes on from there to the same bits. 0 is after every step.
    #[serde(default = "one_minute")]
    pub checkpoint_seconds: u64,
    /// Whose answers are learnt from.
    pub teacher: Option<TeacherPart>,
    /// The answers.
    pub capture: Option<CapturePart>,
    /// Which answers are left out.
    #[serde(default)]
    pub curate: CuratePart,
    /// Documents to learn the language from.
    pub corpus: Option<CorpusPart>,
    /// The student.
    pub student: StudentPart,
    /// The first stage: on the corpus.
    #[serde(default)]
    pub pretrain: PretrainPart,
    /// The second stage: on the answers.
    #[serde(default)]
    pub train: TrainPart,
    /// What to measure at the end.
    #[serde(default)]
    pub evaluate: EvaluatePart,
    /// In which other forms to write the student.
    #[serde(default)]
    pub export: ExportPart,
    /// What the paths were made relative to.
    #[serde(skip)]
    folder: PathBuf,
}

/// Whose answers are learnt from, and by what right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherPart {
    /// Its name.
    pub name: String,
    /// Its terms, as a JSON file. Absent: not known.
    pub terms: Option<PathBuf>,
    /// The account that holds the grant.
    pub account: Option<AccountId>,
    /// A grant, as a JSON file.
    pub grant: Option<PathBuf>,
    /// A written permission; its hash goes into the student's card.
    pub permission: Option<PathBuf>,
    /// By what right, in words, where the terms do not say. `none: <why>` trains against the terms, and says so in the
    /// card and in the report.
    pub basis: Option<String>,
    /// What it costs, per million tokens.
    pub prices: Option<PriceList>,
    /// Its weights, where they are at hand: a Hugging Face folder to compare the student with.
    pub folder: Option<PathBuf>,
    /// How its weights are held while it answers from them.
    #[serde(default)]
    pub weights: Precision,
}

/// The answers of the teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturePart {
    /// The file of answers, one [`crate::capture::Row`] a line.
    pub source: PathBuf,
    /// How to ask for those that are not in it yet.
    pub ask: Option<AskPart>,
}

/// How to ask a teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskPart {
    /// Base URL of an OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`. Absent: the teacher's folder.
    pub url: Option<String>,
    /// The name that the server knows the teacher by, if it is another.
    pub model: Option<String>,
    /// The environment variable that holds the server's key.
    pub key_env: Option<String>,
    /// The prompts, one a line.
    pub prompts: PathBuf,
    /// Answers a prompt.
    #[serde(default = "one_u32")]
    pub answers: u32,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature.
    #[serde(default = "one_f32")]
    pub temperature: f32,
    /// Log-probabilities of this many alternatives a token, or of as many as there are to be had (`"best"`).
    pub logprobs: Option<Logprobs>,
    /// The most money to spend, over all runs that write this file.
    pub ceiling: Money,
    /// Most requests under way. How many really are is found by trying: more while all goes well, half after a refusal.
    #[serde(default = "sixty_four")]
    pub concurrency: usize,
    /// Most requests in any minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Most tokens in any minute, of prompts and answers together; a request counts with the most that it can take until
    /// its answer tells how many it took.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Ask in batches, which servers answer within a day and for less; `{}` for the usual ones.
    pub batch: Option<BatchPart>,
    /// Longest wait for one answer, in seconds.
    #[serde(default = "two_minutes")]
    pub timeout_seconds: u64,
}

/// How many alternatives a token are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of alternatives, or \"best\"")]
pub enum Logprobs {
    /// So many.
    Top(u8),
    /// As many as the teacher gives, up to 20.
    Best(Best),
}

/// The word for as many as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Best {
    /// `best`
    Best,
}

impl Logprobs {
    /// So many; `None` for as many as there are.
    pub fn most(self) -> Option<u8> {
        match self {
            Self::Top(most) => Some(most),
            Self::Best(_) => None,
        }
    }
}

/// Which answers are left out. Empty ones always are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CuratePart {
    /// Keep answers that were cut off at their largest length.
    pub keep_truncated: bool,
    /// Keep an answer that was given to the same prompt before.
    pub keep_duplicates: bool,
    /// The fewest words of an answer.
    pub least_words: Option<usize>,
    /// The most words of an answer.
    pub most_words: Option<usize>,
    /// The script of which nine tenths of an answer's letters must be.
    pub script: Option<Script>,
    /// The language that answers are in (`eng`, `fra`, `arb`...); those that are surely in another are left out.
    pub language: Option<Language>,
    /// A regular expression that each answer must match somewhere.
    pub matches: Option<String>,
    /// A regular expression that no answer may match anywhere.
    pub lacks: Option<String>,
    /// Leave out answers that begin by declining, in English.
    pub drop_refusals: bool,
    /// A schema of JSON (a file) that each answer must fit.
    pub json_schema: Option<PathBuf>,
    /// Tasks with one right answer (a file of [`crate::data::Document`]s): other answers to their prompts are left out.
    pub expected: Option<PathBuf>,
    /// Leave out prompts and answers that have so many words in a row in common with what `[evaluate]` measures on.
    pub contamination: Option<usize>,
    /// Leave out an answer of whose pairs of words this share (a Jaccard index) stands in an earlier one.
    pub near_duplicates: Option<f64>,
}

/// Documents to learn the language from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusPart {
    /// The file, one [`crate::data::Document`] a line.
    pub path: PathBuf,
    /// Use only so many tokens of it.
    pub tokens: Option<u64>,
}

/// The student: its shape, or the folder of a model to start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentPart {
    /// Its name.
    pub name: String,
    /// A Hugging Face folder to start from; its shape and tokenizer are taken too.
    pub init: Option<PathBuf>,
    /// The folder of the tokenizer, for a student that starts from nothing.
    pub tokenizer: Option<PathBuf>,
    /// Width of the residual stream.
    pub hidden_size: Option<usize>,
    /// Layers.
    pub layers: Option<usize>,
    /// Query heads a layer.
    pub heads: Option<usize>,
    /// Key and value heads a layer; as many as query heads where absent.
    pub kv_heads: Option<usize>,
    /// Width of the feed-forward layers.
    pub intermediate_size: Option<usize>,
    /// Longest prompt and answer together, in tokens.
    #[serde(default = "default_context")]
    pub context: usize,
}

/// How to ask in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchPart {
    /// Most requests in one batch.
    pub size: usize,
    /// Longest pause between two questions after a batch, in milliseconds.
    pub poll_ms: u64,
    /// How long to wait for one batch, in hours.
    pub hours: u64,
}

impl Default for BatchPart {
    fn default() -> Self {
        Self { size: 5_000, poll_ms: 60_000, hours: 25 }
    }
}

/// In which forms to write the student beside its Hugging Face folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportPart {
    /// `gguf-f16` and its like are files in the folder `out`, `hf-bf16` and its like folders in it.
    pub formats: Vec<Format>,
}

/// What to measure at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluatePart {
    /// Documents that nobody was trained on.
    pub held_out: Option<PathBuf>,
    /// Use only so many of them.
    pub most_held_out: usize,
    /// Tasks with one right answer.
    pub tasks: Option<PathBuf>,
    /// Use only so many of them.
    pub most_tasks: usize,
    /// Longest answer to a task, in tokens.
    pub max_tokens: u32,
    /// Share of the capture's prompts that is kept from training to measure on.
    pub capture_share: f64,
    /// Compare with a student that saw the corpus instead of the answers, for equally many tokens.
    pub scratch: bool,
    /// Compare with the student as it was before it saw an answer, where it was trained before.
    pub base: bool,
    /// Compare with a student that learnt from these labels alone: documents with their answers, from no teacher.
    pub labels: Option<PathBuf>,
    /// How often the labels are read; as often as the answers are where absent.
    pub label_epochs: Option<u32>,
    /// What an hour of a processor of this machine costs, to price the students' answers.
    pub cpu_hour: Option<Money>,
}

impl Default for EvaluatePart {
    fn default() -> Self {
        Self {
            held_out: None,
            most_held_out: 200,
            tasks: None,
            most_tasks: 200,
            max_tokens: 64,
            capture_share: 0.05,
            scratch: true,
            base: true,
            labels: None,
            label_epochs: None,
            cpu_hour: None,
        }
    }
}

const fn one() -> u64 {
    1
}
const fn one_u32() -> u32 {
    1
}
const fn one_f32() -> f32 {
    1.0
}
const fn sixty_four() -> usize {
    64
}
const fn one_minute() -> u64 {
    60
}
const fn two_minutes() -> u64 {
    120
}
const fn default_context() -> usize {
    256
}
fn default_store() -> PathBuf {
    "store".into()
}

impl Recipe {
    /// Reads and checks the recipe `path`, and makes its paths absolute or relative to the working directory.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no such TOML (the error names line and key), or contradicts itself.
    pub fn load(path: &Path) -> Result<Self, DistillError> {
        let text = std::fs::read_to_string(path).map_err(DistillError::read(path))?;
        Self::parse(&text, path)
    }

    /// Reads the text of a recipe as if it stood in `path`.
    ///
    /// # Errors
    ///
    /// As [`Recipe::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, DistillError> {
        let wrong = |problem: String| DistillError::Recipe { path: path.to_owned(), problem };
        let mut recipe: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        recipe.check().map_err(wrong)?;
        recipe.anchor(path.parent().unwrap_or(Path::new("")));
        Ok(recipe)
    }

    /// How many threads to use.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn check(&self) -> Result<(), String> {
        let fail = |problem: &str| Err(problem.to_owned());
        if self.capture.is_some() && self.teacher.is_none() {
            return fail("`[capture]` needs `[teacher]`: whose answers are they, and under which terms?");
        }
        if self.capture.is_none() && self.corpus.is_none() {
            return fail("there is nothing to train on: add `[capture]` or `[corpus]`");
        }
        let student = &self.student;
        let shape = [student.hidden_size, student.layers, student.heads, student.intermediate_size];
        match (&student.init, &student.tokenizer) {
            (Some(_), None) if shape.iter().all(Option::is_none) && student.kv_heads.is_none() => {}
            (None, Some(_)) if shape.iter().all(|number| number.is_some_and(|number| number > 0)) => {}
            _ => {
                return fail(
                    "`[student]`: give either `init`, or `tokenizer`, `hidden_size`, `layers`, `heads` and \
                     `intermediate_size`",
                );
            }
        }
        if let (Some(hidden), Some(heads)) = (student.hidden_size, student.heads)
            && hidden % heads != 0
        {
            return fail("`[student]`: `hidden_size` must be a multiple of `heads`");
        }
        if student.context < 8 {
            return fail("`[student]`: `context` must be at least 8 tokens");
        }
        if !(0.0..=0.5).contains(&self.evaluate.capture_share) {
            return fail("`[evaluate]`: `capture_share` must lie between 0 and 0.5");
        }
        if self.curate.near_duplicates.is_some_and(|least| !(least > 0.0 && least <= 1.0)) {
            return fail("`[curate]`: `near_duplicates` must lie above 0 and be at most 1");
        }
        for pattern in [&self.curate.matches, &self.curate.lacks].into_iter().flatten() {
            regex::Regex::new(pattern).map_err(|error| format!("`[curate]`: {error}"))?;
        }
        if self.curate.contamination == Some(0) {
            return fail("`[curate]`: `contamination` is at least 1 word");
        }
        self.train.check()?;
        if self.train.lora.is_some() && student.init.is_none() {
            return fail("`[train.lora]` adapts a model: give `init` in `[student]`");
        }
        if self.train.lora.is_some() && self.corpus.is_some() && self.pretrain.epochs > 0 {
            return fail("`[train.lora]` adapts `init` as it is: set `epochs = 0` in `[pretrain]`");
        }
        if let Some(wrong) = self.wrong_teacher() {
            return fail(wrong);
        }
        if self.threads == Some(0) || self.train.batch_tokens == 0 || self.pretrain.batch_tokens == 0 {
            return fail("`threads` and `batch_tokens` must be at least 1");
        }
        let Some(teacher) = &self.teacher else { return Ok(()) };
        if teacher.grant.is_some() && teacher.account.is_none() {
            return fail("`[teacher]`: a `grant` is given to an `account`: say which one is yours");
        }
        if let Some(ask) = self.capture.as_ref().and_then(|capture| capture.ask.as_ref()) {
            if teacher.prices.is_none() {
                return fail("`[capture.ask]`: a ceiling needs the teacher's `prices` to count against");
            }
            if ask.url.is_none() && teacher.folder.is_none() {
                return fail("`[capture.ask]`: give `url`, or the teacher's `folder`");
            }
            if ask.batch.is_some() && ask.url.is_none() {
                return fail("`[capture.ask]`: `batch` needs `url`: a model in the process has no batches");
            }
            if ask.batch.is_some_and(|batch| batch.size == 0 || batch.size > 50_000 || batch.poll_ms == 0) {
                return fail("`[capture.ask.batch]`: `size` lies between 1 and 50,000, and `poll_ms` is at least 1");
            }
            if ask.answers == 0 || ask.max_tokens == 0 || ask.concurrency == 0 || ask.timeout_seconds == 0 {
                return fail("`[capture.ask]`: `answers`, `max_tokens`, `concurrency` and the time-out are at least 1");
            }
        }
        Ok(())
    }

    /// What the ways of learning want of a teacher that is not there.
    fn wrong_teacher(&self) -> Option<&'static str> {
        let (train, teacher) = (&self.train, self.teacher.as_ref());
        let weights = teacher.is_some_and(|teacher| teacher.folder.is_some());
        if train.on_policy.is_some() && !(weights && self.capture.is_some()) {
            return Some(
                "`[train.on_policy]` needs `[capture]` for its prompts and the teacher's `folder` to judge by",
            );
        }
        if train.preference.is_some() && self.capture.is_none() {
            return Some("`[train.preference]` needs `[capture]`: which answers are preferred?");
        }
        let unused = teacher.is_some_and(|teacher| teacher.weights != Precision::F32) && !weights;
        unused.then_some("`[teacher]`: `weights` says how those in `folder` are held")
    }

    /// The digest of everything that the recipe says. Paths count relative to its folder, so that the same recipe has
    /// the same digest on another machine.
    pub fn digest(&self) -> Digest {
        let mut plain = self.clone();
        for path in plain.paths() {
            if let Ok(relative) = path.strip_prefix(&self.folder) {
                *path = relative.to_owned();
            }
        }
        // A recipe was read as TOML, so it has a JSON form too.
        Digest::of(&serde_json::to_vec(&plain).unwrap_or_default())
    }

    fn anchor(&mut self, folder: &Path) {
        folder.clone_into(&mut self.folder);
        for path in self.paths() {
            *path = folder.join(&*path);
        }
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![&mut self.out, &mut self.store];
        if let Some(teacher) = &mut self.teacher {
            let papers = [&mut teacher.terms, &mut teacher.grant, &mut teacher.permission, &mut teacher.folder];
            paths.extend(papers.into_iter().flatten());
        }
        if let Some(capture) = &mut self.capture {
            paths.push(&mut capture.source);
            paths.extend(capture.ask.as_mut().map(|ask| &mut ask.prompts));
        }
        paths.extend([&mut self.curate.json_schema, &mut self.curate.expected].into_iter().flatten());
        paths.extend(self.corpus.as_mut().map(|corpus| &mut corpus.path));
        paths.extend([&mut self.student.init, &mut self.student.tokenizer].into_iter().flatten());
        paths.extend(
            [&mut self.evaluate.held_out, &mut self.evaluate.tasks, &mut self.evaluate.labels].into_iter().flatten(),
        );
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
out = "student"

[teacher]
name = "big"
terms = "terms.json"
prices = { input = "0.50", output = "2.00" }

[capture]
source = "answers.jsonl"

[student]
name = "small"
tokenizer = "teacher"
hidden_size = 64
layers = 2
heads = 4
intermediate_size = 128
"#;

    #[test]
    fn a_good_recipe_is_read_and_anchored() {
        let recipe = Recipe::parse(GOOD, Path::new("/a/recipe.toml")).unwrap();
        assert_eq!(recipe.out, Path::new("/a/student"));
        assert_eq!(recipe.capture.as_ref().unwrap().source, Path::new("/a/answers.jsonl"));
        assert_eq!((recipe.train.epochs, recipe.seed), (3, 1));
        assert_eq!(recipe.digest(), Recipe::parse(GOOD, Path::new("elsewhere/r.toml")).unwrap().digest());
        let other = GOOD.replace("layers = 2", "layers = 3");
        assert_ne!(recipe.digest(), Recipe::parse(&other, Path::new("/a/recipe.toml")).unwrap().digest());
    }

    #[test]
    fn a_bad_recipe_says_where_and_why() {
        for (change, with, says) in [
            ("name = \"big\"", "nme = \"big\"", "line 5"),
            ("name = \"big\"", "nme = \"big\"", "unknown field `nme`"),
            ("hidden_size = 64", "hidden_size = 66", "multiple of `heads`"),
            ("heads = 4", "", "give either `init`"),
            ("[capture]\nsource = \"answers.jsonl\"", "", "nothing to train on"),
            ("\"0.50\"", "\"cheap\"", "not an amount of money"),
            ("[student]", "[curate]\nmatches = \"(\"\n[student]", "regex parse error"),
            ("[student]", "[curate]\nlanguage = \"xx\"\n[student]", "no language that can be told"),
            ("[student]", "[train]\nbeta = 0.3\n[student]", "`beta` is of `divergence = \"jsd\"` only"),
            ("[student]", "[train]\nalpha = 0.3\n[student]", "`alpha` is of"),
            ("[student]", "[train]\ndivergence = \"jsd\"\nbeta = 1.0\n[student]", "the ends are `forward-kl`"),
            ("[student]", "[train]\ndivergence = \"hinge\"\n[student]", "unknown variant `hinge`"),
            ("[student]", "[train]\ntemperature = 0.0\n[student]", "`temperature` must be positive"),
            ("[student]", "[train.lora]\nrank = 4\n[student]", "give `init` in `[student]`"),
            ("[student]", "[train.preference]\nbeta = 0.0\n[student]", "`beta` must be positive"),
            ("[student]", "[train.on_policy]\nmax_tokens = 9\n[student]", "the teacher's `folder` to judge by"),
            (
                "[capture]",
                "folder = \"t\"\n[train.on_policy]\nshare = 1.5\nmax_tokens = 9\n[capture]",
                "`share` must lie",
            ),
            ("[capture]", "weights = \"int8\"\n[capture]", "how those in `folder` are held"),
            ("[student]", "[export]\nformats = [\"gguf-q4_k\"]\n[student]", "`gguf-q4_k` is not a form of a model"),
            ("[capture]", "grant = \"g.json\"\n[capture]", "say which one is yours"),
            ("[student]", "[capture.ask]\nprompts = \"p\"\nmax_tokens = 5\nceiling = \"1\"\n[student]", "give `url`"),
        ] {
            let error = Recipe::parse(&GOOD.replacen(change, with, 1), Path::new("r.toml")).unwrap_err();
            assert_eq!(error.code(), "recipe_invalid");
            assert!(error.to_string().contains(says), "{says}: {error}");
        }
    }
}
