//! The generated corpus: texts with real entropy and tasks with right answers, by seed.
//!
//! A demonstration needs a teacher whose sampled answers differ and whose ability can be measured, on a machine
//! without network or licensed data. So the corpus is a language of its own: a grammar over common English words
//! (`language.txt`) that writes stories, descriptions, letters and talk with roughly one nat of free choice a token,
//! always about what the prompt names; and tasks such as arithmetic in words, whose answers can be checked.

mod grammar;
mod number;
mod open;
mod tasks;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anbiq_domain::{Digest, Message, Prompt, Role, Seeded};
use serde::{Deserialize, Serialize};

use crate::LabError;
use grammar::Grammar;
use open::Text;
use tasks::Task;

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A story about a hero, an act and a thing.
    Story,
    /// A place, a person or a thing in words.
    Description,
    /// A letter or a note.
    Letter,
    /// Small talk, sometimes of several turns.
    Chat,
    /// A sum, a difference or a product in words.
    Arithmetic,
    /// Arithmetic with its steps written out.
    Reasoning,
    /// A little story with numbers, answered step by step.
    WordProblem,
    /// The larger or smaller of two numbers.
    Comparison,
    /// The opposite of a word.
    Opposite,
    /// The length of a list.
    Counting,
    /// Words in the order of the alphabet.
    Sorting,
    /// The label of a review.
    Sentiment,
    /// One field of an order.
    Extraction,
    /// A delivery note for an order.
    Delivery,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::Story,
        Self::Description,
        Self::Letter,
        Self::Chat,
        Self::Arithmetic,
        Self::Reasoning,
        Self::WordProblem,
        Self::Comparison,
        Self::Opposite,
        Self::Counting,
        Self::Sorting,
        Self::Sentiment,
        Self::Extraction,
        Self::Delivery,
    ];

    /// The kinds that have right answers.
    pub fn checkable() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_checkable())
    }

    /// Has it right answers?
    pub const fn is_checkable(self) -> bool {
        !matches!(self, Self::Story | Self::Description | Self::Letter | Self::Chat)
    }

    /// Its share of the corpus, in hundredths of the documents.
    const fn share(self) -> usize {
        match self {
            Self::Story => 24,
            Self::Description => 14,
            Self::Letter | Self::Chat => 8,
            Self::Arithmetic => 10,
            Self::Reasoning => 9,
            Self::WordProblem | Self::Sentiment | Self::Delivery => 5,
            Self::Comparison | Self::Sorting | Self::Extraction => 3,
            Self::Opposite => 2,
            Self::Counting => 1,
        }
    }

    /// What a system message for it may say.
    const fn instruction(self) -> &'static str {
        match self {
            Self::Story => "You tell stories.",
            Self::Description | Self::Letter => "You are a writer.",
            Self::Chat => "You are a friendly assistant.",
            Self::Sentiment => "You label reviews.",
            Self::Delivery => "You write delivery notes.",
            Self::Extraction => "You read orders.",
            _ => "You answer questions.",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Story => "story",
            Self::Description => "description",
            Self::Letter => "letter",
            Self::Chat => "chat",
            Self::Arithmetic => "arithmetic",
            Self::Reasoning => "reasoning",
            Self::WordProblem => "word problem",
            Self::Comparison => "comparison",
            Self::Opposite => "opposite",
            Self::Counting => "counting",
            Self::Sorting => "sorting",
            Self::Sentiment => "sentiment",
            Self::Extraction => "extraction",
            Self::Delivery => "delivery",
        };
        f.pad(name)
    }
}

/// A prompt with an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// What it is.
    pub kind: Kind,
    /// What was said before the prompt: a system message, earlier turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Message>,
    /// What the user says.
    pub prompt: String,
    /// One good answer.
    pub answer: String,
    /// How a right answer ends, where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

impl Document {
    /// The conversation up to the answer.
    pub fn prompt(&self) -> Prompt {
        Prompt::Chat(self.messages())
    }

    /// The messages of the conversation up to the answer.
    pub fn messages(&self) -> Vec<Message> {
        let mut messages = self.history.clone();
        messages.push(Message::new(Role::User, self.prompt.clone()));
        messages
    }

    /// Is `answer` right? `None` where there is no single right answer.
    ///
    /// A right answer ends with the expected words, whatever their case and the final full stop.
    pub fn is_right(&self, answer: &str) -> Option<bool> {
        let expected = plain(self.expected.as_deref()?);
        let answer = plain(answer);
        let is_part = |last: char| last.is_alphanumeric() || last == '-';
        Some(answer.strip_suffix(&expected).is_some_and(|before| !before.ends_with(is_part)))
    }
}

fn plain(text: &str) -> String {
    text.trim().trim_end_matches(['.', '!', '?']).to_lowercase()
}

/// One document in sixteen, chosen by its prompt, is held out: no training stream contains it, whatever its seed.
fn is_held_out(prompt: &str) -> bool {
    Digest::of(prompt.as_bytes()).as_bytes()[0] < 16
}

/// A source of documents.
#[derive(Debug, Clone)]
pub struct Corpus {
    seed: u64,
    grammar: Grammar,
}

impl Corpus {
    /// The corpus of `seed`. The language is always the same; the seed chooses which documents are written in it.
    pub fn new(seed: u64) -> Self {
        Self { seed, grammar: Grammar::parse(include_str!("language.txt")) }
    }

    /// A document of `kind`.
    pub fn document(&self, kind: Kind, random: &mut Seeded) -> Document {
        let mut document = match kind {
            Kind::Story => text(kind, open::story(&self.grammar, random)),
            Kind::Description => text(kind, open::description(&self.grammar, random)),
            Kind::Letter => text(kind, open::letter(&self.grammar, random)),
            Kind::Chat => text(kind, open::chat(&self.grammar, random)),
            Kind::Arithmetic => task(kind, tasks::arithmetic(false, random)),
            Kind::Reasoning => task(kind, tasks::arithmetic(true, random)),
            Kind::WordProblem => task(kind, tasks::word_problem(&self.grammar, random)),
            Kind::Comparison => task(kind, tasks::comparison(random)),
            Kind::Opposite => task(kind, tasks::opposite(random)),
            Kind::Counting => task(kind, tasks::counting(&self.grammar, random)),
            Kind::Sorting => task(kind, tasks::sorting(&self.grammar, random)),
            Kind::Sentiment => task(kind, tasks::sentiment(&self.grammar, random)),
            Kind::Extraction => task(kind, tasks::extraction(&self.grammar, random)),
            Kind::Delivery => task(kind, tasks::delivery(&self.grammar, random)),
        };
        if random.chance(0.06) {
            document.history.insert(0, system(kind));
        }
        document
    }

    /// A document of any kind, each with its share.
    pub fn any(&self, random: &mut Seeded) -> Document {
        let total: usize = Kind::ALL.iter().map(|kind| kind.share()).sum();
        let mut ticket = random.below(total);
        for kind in Kind::ALL {
            match ticket.checked_sub(kind.share()) {
                Some(rest) => ticket = rest,
                None => return self.document(kind, random),
            }
        }
        self.document(Kind::Story, random)
    }

    /// Documents to train on, without end and without any held-out prompt.
    pub fn training(&self) -> impl Iterator<Item = Document> + '_ {
        self.stream("training").filter(|document| !is_held_out(&document.prompt))
    }

    /// Documents that no training stream contains, without end.
    pub fn held_out(&self) -> impl Iterator<Item = Document> + '_ {
        self.stream("held out").filter(|document| is_held_out(&document.prompt))
    }

    /// Held-out tasks, the checkable kinds in turn, without end.
    pub fn tasks(&self) -> impl Iterator<Item = Document> + '_ {
        let mut random = Seeded::new(self.seed).fork("tasks");
        let kinds: Vec<Kind> = Kind::checkable().collect();
        kinds.into_iter().cycle().filter_map(move |kind| {
            // Every kind has held-out prompts; the limit only keeps a broken grammar from hanging.
            (0..10_000).map(|_| self.document(kind, &mut random)).find(|document| is_held_out(&document.prompt))
        })
    }

    fn stream(&self, label: &str) -> impl Iterator<Item = Document> + '_ {
        let mut random = Seeded::new(self.seed).fork(label);
        std::iter::repeat_with(move || self.any(&mut random))
    }

    /// What somebody says to keep a talk going.
    pub(crate) fn follow_up(&self, random: &mut Seeded) -> String {
        open::follow_up(&self.grammar, random)
    }

    /// A review, without the question about it.
    pub(crate) fn review(&self, random: &mut Seeded) -> String {
        tasks::review(&self.grammar, random).1
    }

    /// What a shop's software sends that asks `ask` of every order.
    pub(crate) fn about_order(&self, ask: &str, random: &mut Seeded) -> String {
        tasks::about_order(&self.grammar, ask, random)
    }
}

/// The system message of an application that only asks for documents of `kind`.
pub(crate) fn system(kind: Kind) -> Message {
    Message::new(Role::System, kind.instruction())
}

fn text(kind: Kind, Text { history, prompt, answer }: Text) -> Document {
    Document { kind, history, prompt, answer, expected: None }
}

fn task(kind: Kind, Task { prompt, answer, expected }: Task) -> Document {
    Document { kind, history: Vec::new(), prompt, answer, expected: Some(expected) }
}

/// How many right answers there were, by kind and in all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Accuracy {
    /// Right answers and answers, by kind.
    pub kinds: BTreeMap<Kind, (u32, u32)>,
}

impl Accuracy {
    /// Counts an answer to a task.
    pub fn count(&mut self, task: &Document, answer: &str) {
        if let Some(right) = task.is_right(answer) {
            let (rights, all) = self.kinds.entry(task.kind).or_default();
            *rights += u32::from(right);
            *all += 1;
        }
    }

    /// The share of right answers, all kinds together; 0 where there are no answers.
    pub fn share(&self) -> f64 {
        let (rights, all) = self.kinds.values().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        if all == 0 { 0.0 } else { f64::from(rights) / f64::from(all) }
    }
}

/// How many documents [`Corpus::write_files`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// In `corpus.jsonl`.
    pub corpus: usize,
    /// In `held-out.jsonl`.
    pub held_out: usize,
    /// In `tasks.jsonl`.
    pub tasks: usize,
}

impl Corpus {
    /// Writes `corpus.jsonl`, `held-out.jsonl` and `tasks.jsonl` into `folder`, one [`Document`] a line.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write_files(&self, folder: &Path, sizes: Sizes) -> Result<(), LabError> {
        std::fs::create_dir_all(folder).map_err(|source| LabError::write(folder, source))?;
        write_jsonl(&folder.join("corpus.jsonl"), self.training().take(sizes.corpus))?;
        write_jsonl(&folder.join("held-out.jsonl"), self.held_out().take(sizes.held_out))?;
        write_jsonl(&folder.join("tasks.jsonl"), self.tasks().take(sizes.tasks))
    }
}

/// Writes one JSON value a line.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_jsonl<T: Serialize>(path: &Path, rows: impl Iterator<Item = T>) -> Result<(), LabError> {
    let failed = |source| LabError::write(path, source);
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    for row in rows {
        serde_json::to_writer(&mut file, &row).map_err(|error| failed(error.into()))?;
        file.write_all(b"\n").map_err(failed)?;
    }
    file.flush().map_err(failed)
}

#[cfg(test)]
mod tests;
