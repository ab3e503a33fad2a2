//! The recipe: one TOML file that says everything.

mod ask;
mod curate;
mod evaluate;
mod student;
mod train;

use std::path::{Path, PathBuf};

use anbiq_domain::Digest;
use anbiq_lm::Precision;
use serde::{Deserialize, Serialize};

use crate::DistillError;

pub use ask::{AskPart, BatchPart, Best, CapturePart, Logprobs, TeacherPart};
pub use curate::CuratePart;
pub use evaluate::EvaluatePart;
pub use student::{CorpusPart, ExportPart, StudentPart};
pub use train::{Apart, HiddenPart, OnPolicyPart, PreferencePart, PretrainPart, TrainPart};

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

const fn one() -> u64 {
    1
}
const fn one_minute() -> u64 {
    60
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
        self.student.check()?;
        self.evaluate.check()?;
        self.curate.check()?;
        self.train.check()?;
        if self.train.lora.is_some() && self.student.init.is_none() {
            return fail("`[train.lora]` adapts a model: give `init` in `[student]`");
        }
        if self.train.lora.is_some() && self.student.layers.is_some() {
            return fail("`[train.lora]` adapts `init` as it is: leave out `layers` in `[student]`");
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
        let ask = self.capture.as_ref().and_then(|capture| capture.ask.as_ref());
        ask.map_or(Ok(()), |ask| ask.check(teacher)).map_err(str::to_owned)
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
        if train.hidden_states.is_some() && !(weights && self.capture.is_some()) {
            return Some(
                "`[train.hidden_states]` needs `[capture]` and the teacher's `folder`: no server tells of hidden states",
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
            ("[student]", "[train.hidden_states]\nweight = 1.0\n[student]", "no server tells of hidden states"),
            (
                "[capture]",
                "folder = \"t\"\n[train.hidden_states]\nweight = -1.0\n[capture]",
                "`[train.hidden_states]`: `weight` must be positive",
            ),
            (
                "[capture]",
                "folder = \"t\"\n[train]\ndevice = \"cuda\"\n[train.hidden_states]\nweight = 1.0\n[capture]",
                "`device = \"cpu\"` only",
            ),
            (
                "[capture]",
                "folder = \"t\"\n[train.hidden_states]\nmeasure = \"angle\"\n[capture]",
                "unknown variant `angle`",
            ),
            ("tokenizer = \"teacher\"", "init = \"teacher\"", "`init` alone, or with the number of `layers` to keep"),
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
