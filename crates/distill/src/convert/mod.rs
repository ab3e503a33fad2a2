//! Captures in the forms of other tools, and theirs as captures.
//!
//! Log-probabilities that are shelved are read from their shards, and those of a capture that is written are shelved.
//!
//! Rows go through one by one: neither side is ever whole in memory, but for a file that is one JSON list.

mod distillkit;
mod form;
mod input;
mod table;

use std::io::Write;
use std::path::Path;

use anbiq_lm::Codec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::DistillError;
use crate::ask::replace;
use crate::capture::{Alphabet, Row};
use crate::told::{self, Shelf};
use distillkit::Unpacker;
use input::Input;

pub use form::Form;

/// What is to become what.
#[derive(Debug, Clone, Default)]
pub struct Conversion {
    /// The form of what is read; told by its fields where absent.
    pub from: Option<Form>,
    /// The form of what is written.
    pub to: Form,
    /// A Hugging Face folder with the tokenizer that log-probabilities are written for, or of which a capture of DistillKit has the
    /// tokens.
    pub tokenizer: Option<std::path::PathBuf>,
    /// Make a row of every answer of a conversation, not of the last one only.
    pub every_turn: bool,
}

/// What came of a conversion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Converted {
    /// Rows that were read.
    pub read: u64,
    /// Rows that were written.
    pub written: u64,
    /// Rows that end with no answer; they are left out.
    pub unanswered: u64,
    /// Answers that the form cannot hold: of several messages where it has one, without log-probabilities where it needs
    /// them, or cut into other tokens than the tokenizer's. They are left out.
    pub unfit: u64,
}

/// Writes `from` in another form to `to`. A name that ends in `.parquet` is a Parquet file, any other one JSON value a line;
/// what is read may also be one JSON list.
///
/// # Errors
/// A file cannot be read or written, a row is not of its form, or the form needs what is not there.
pub fn convert(from: &Path, to: &Path, conversion: &Conversion) -> Result<Converted, DistillError> {
    let told = match (conversion.to, &conversion.tokenizer) {
        (Form::Axolotl, None) => {
            return Err(DistillError::Nothing(
                "the form `axolotl` has numbers of tokens: give `--tokenizer`, the folder of the student's base"
                    .to_owned(),
            ));
        }
        (Form::Axolotl, Some(folder)) => Some(Told::load(folder)?),
        _ => None,
    };
    if conversion.to == Form::Distillkit {
        return Err(DistillError::Nothing("the form `distillkit` is read and not written".to_owned()));
    }
    if conversion.to == Form::Capture && is_parquet(to) {
        return Err(DistillError::Nothing("a capture is a file of JSON lines: give another name".to_owned()));
    }
    let mut converted = Converted::default();
    let (mut unpacker, mut shelf) = (None, Shelf::of(from));
    let mut input = Input::open(from)?;
    let mut rows = std::iter::from_fn(|| -> Option<Result<Vec<Value>, DistillError>> {
        let value = match input.next()? {
            Ok(value) => value,
            Err(error) => return Some(Err(error)),
        };
        converted.read += 1;
        let form = conversion.from.or_else(|| Form::of(&value));
        let rows = form.ok_or_else(|| "its fields are of no known form".to_owned());
        let rows = match rows {
            Ok(Form::Distillkit) => match unpacking(&mut unpacker, from, conversion) {
                Ok(unpacker) => unpacker.rows(&value, conversion.every_turn),
                Err(error) => return Some(Err(error)),
            },
            Ok(form) => form.rows(value, conversion.every_turn),
            Err(problem) => Err(problem),
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(problem) => return Some(Err(input.wrong(problem))),
        };
        converted.unanswered += u64::from(rows.is_empty());
        let mut values = Vec::new();
        for mut row in rows {
            if let Err(error) = shelf.fill(&mut row) {
                return Some(Err(error));
            }
            let (whole, unfit) = match (&told, conversion.to) {
                (Some(told), _) => told.values(&row),
                (None, form) => form.values(row),
            };
            values.extend(whole);
            converted.unfit += unfit;
        }
        converted.written += values.len() as u64;
        Some(Ok(values))
    });
    // What is begun is not left as if it were whole: the new file takes its place at the end.
    replace(to, |file| {
        let mut failed = None;
        let mut next = || match rows.next()? {
            Ok(values) => Some(values),
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        if let (true, Some(shape)) = (is_parquet(to), conversion.to.shape()) {
            table::write(file, &shape, &mut next)?;
        } else {
            while let Some(values) = next() {
                for value in values {
                    serde_json::to_writer(&mut *file, &value)?;
                    file.write_all(b"\n")?;
                }
            }
        }
        // It stops the replacement; what it says is said below.
        failed.map_or(Ok(()), |error| Err(std::io::Error::other(error)))
    })
    .map_err(own_error)?;
    if conversion.to == Form::Capture {
        told::shelve(to)?;
    }
    Ok(converted)
}

/// What reads the sequences of DistillKit, made when the first of them comes.
fn unpacking<'a>(
    unpacker: &'a mut Option<Unpacker>,
    from: &Path,
    conversion: &Conversion,
) -> Result<&'a Unpacker, DistillError> {
    if let Some(made) = unpacker {
        return Ok(made);
    }
    let Some(tokenizer) = &conversion.tokenizer else {
        let problem = "a capture of DistillKit has numbers of tokens: give `--tokenizer`, the folder of its teacher";
        return Err(DistillError::Nothing(problem.to_owned()));
    };
    Ok(unpacker.insert(Unpacker::load(from, tokenizer)?))
}

/// The error of a row that came through the writer as one of the file that was being written.
fn own_error(error: DistillError) -> DistillError {
    match error {
        DistillError::File { source, action, path } => match source.downcast::<DistillError>() {
            Ok(row) => row,
            Err(source) => DistillError::File { source, action, path },
        },
        other => other,
    }
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Log-probabilities in the tokens of one tokenizer.
struct Told {
    codec: Codec,
    alphabet: Alphabet,
}

impl Told {
    fn load(folder: &Path) -> Result<Self, DistillError> {
        let codec = Codec::load(folder)?;
        Ok(Self { alphabet: Alphabet::of(&codec), codec })
    }

    /// Each answer of `row` with the likeliest tokens of each of its places; how many have none that fit.
    fn values(&self, row: &Row) -> (Vec<Value>, u64) {
        let (mut values, mut unfit) = (Vec::new(), 0);
        for (place, answer) in row.answers.iter().enumerate() {
            let told = row.logprobs.get(place).filter(|told| !told.is_empty());
            let targets = self.codec.encode_answer(answer).ok();
            let mapped = told.zip(targets).and_then(|(told, targets)| self.alphabet.map(&self.codec, told, &targets));
            match mapped {
                Some(mapped) => values.push(form::axolotl(row, answer, &mapped.places)),
                None => unfit += 1,
            }
        }
        (values, unfit)
    }
}
