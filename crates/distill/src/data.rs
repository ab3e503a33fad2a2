//! Files of one JSON value a line: documents, prompts, tasks.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anbiq_domain::{Answer, Finish, Message, Prompt, Role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::DistillError;

/// Longest line of a data file: a limit against a file that is none.
const LONGEST_LINE: usize = 64 << 20;

/// A prompt with a good answer, a task with its only right answer, or a bare prompt. Further fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// What was said before the prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Message>,
    /// What is asked.
    pub prompt: Asked,
    /// A good answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// How a right answer ends, where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

impl Default for Document {
    fn default() -> Self {
        Self { history: Vec::new(), prompt: Asked::Words(String::new()), answer: None, expected: None }
    }
}

/// A prompt in a data file: the words of a user, or a whole [`Prompt`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a text, `{\"chat\": [...]}` or `{\"text\": \"...\"}`")]
pub enum Asked {
    /// One message by the user.
    Words(String),
    /// A conversation, or a text to go on with.
    Prompt(Prompt),
}

impl Document {
    /// What the model is asked.
    pub fn prompt(&self) -> Prompt {
        let mut messages = self.history.clone();
        match &self.prompt {
            Asked::Words(words) => messages.push(Message::new(Role::User, words.clone())),
            Asked::Prompt(Prompt::Chat(more)) => messages.extend(more.iter().cloned()),
            Asked::Prompt(text) => return text.clone(),
        }
        Prompt::Chat(messages)
    }

    /// The good answer, in full.
    pub(crate) fn full_answer(&self) -> Option<Answer> {
        self.answer.clone().map(|text| Answer::new(text, Finish::Stop))
    }

    /// Is `answer` right, or is no single answer?
    pub(crate) fn accepts(&self, answer: &str) -> bool {
        self.is_right(answer).unwrap_or(true)
    }

    /// Is `answer` right? `None` where there is no single right answer.
    ///
    /// A right answer ends with the expected words, whatever their case and the final full stop: a model that guesses
    /// every number on the way is not right.
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

/// Reads the file `path` line by line; blank lines are skipped.
pub(crate) struct Lines<T> {
    path: PathBuf,
    reader: BufReader<File>,
    line: usize,
    offset: u64,
    text: Vec<u8>,
    /// A last line without its end is none: whoever wrote it was killed.
    torn_is_none: bool,
    kind: std::marker::PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(crate) fn open(path: &Path) -> Result<Self, DistillError> {
        let file = File::open(path).map_err(DistillError::read(path))?;
        let reader = BufReader::with_capacity(1 << 16, file);
        let (path, kind) = (path.to_owned(), std::marker::PhantomData);
        Ok(Self { path, reader, line: 0, offset: 0, text: Vec::new(), torn_is_none: false, kind })
    }

    /// Of a file that somebody appends to: a last line without its end does not count.
    pub(crate) fn open_appended(path: &Path) -> Result<Self, DistillError> {
        Ok(Self { torn_is_none: true, ..Self::open(path)? })
    }

    /// The number of the line that was read last, from 1.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// Where the next line begins, in bytes; blank lines may stand there before it.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The line that was read last, as it stands.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    fn read(&mut self) -> Result<Option<T>, DistillError> {
        let Self { text, .. } = self;
        loop {
            text.clear();
            self.line += 1;
            let mut limited = std::io::Read::take(&mut self.reader, LONGEST_LINE as u64);
            let length = limited.read_until(b'\n', text).map_err(DistillError::read(&self.path))?;
            self.offset += length as u64;
            let wrong = |problem: String| DistillError::Row { path: self.path.clone(), line: self.line, problem };
            if length == 0 || self.torn_is_none && !text.ends_with(b"\n") {
                return Ok(None);
            }
            if length == LONGEST_LINE {
                return Err(wrong("the line is too long: is this a file of one JSON value a line?".to_owned()));
            }
            if !text.trim_ascii().is_empty() {
                return serde_json::from_slice(text).map(Some).map_err(|error| wrong(error.to_string()));
            }
        }
    }
}

impl<T: DeserializeOwned> Iterator for Lines<T> {
    type Item = Result<T, DistillError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Reads a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, DistillError> {
    let text = std::fs::read(path).map_err(DistillError::read(path))?;
    serde_json::from_slice(&text).map_err(|error| DistillError::Row {
        path: path.to_owned(),
        line: error.line(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_in_all_their_forms() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("documents.jsonl");
        let lines = r#"{"kind": "story", "prompt": "Hi", "answer": "Ho"}

{"history": [{"role": "system", "content": "S"}], "prompt": "Hi"}
{"prompt": {"text": "Once"}}
{"prompt": 7}"#;
        std::fs::write(&path, lines).unwrap();
        let mut read = Lines::<Document>::open(&path).unwrap();
        assert_eq!(read.next().unwrap().unwrap().prompt(), Prompt::user("Hi"));
        let Prompt::Chat(messages) = read.next().unwrap().unwrap().prompt() else { panic!("a conversation") };
        assert_eq!(messages.len(), 2);
        assert_eq!(read.next().unwrap().unwrap().prompt(), Prompt::Text("Once".into()));
        let error = read.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("line 5: expected a text"), "{error}");
        assert!(read.next().is_none());
    }

    #[test]
    fn a_right_answer_ends_with_the_expected_words() {
        let task = |expected: &str| Document {
            history: Vec::new(),
            prompt: Asked::Words(String::new()),
            answer: None,
            expected: Some(expected.to_owned()),
        };
        for (expected, answer, right) in [
            ("seven", "It is Seven.", true),
            ("seven", "twenty-seven", false),
            ("seven", "seven, or eight", false),
            ("7", "17", false),
            ("7", "it is 7!", true),
        ] {
            assert_eq!(task(expected).is_right(answer), Some(right), "{answer}");
        }
    }
}
