//! Rows of JSON lines, of one JSON list, or of a Parquet file, one after the other.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::{is_parquet, table};
use crate::DistillError;
use crate::data::Lines;

/// The largest file that may be one JSON list: all of it is in memory, several times as large.
const LARGEST_LIST: u64 = 1 << 30;

/// What is read.
pub(super) struct Input {
    path: PathBuf,
    rows: Rows,
    /// Rows that were read.
    place: usize,
}

enum Rows {
    Lines(Lines<Value>),
    List(std::vec::IntoIter<Value>),
    Table(RowIter<'static>),
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, DistillError> {
        let file = || File::open(path).map_err(DistillError::read(path));
        let rows = if is_parquet(path) {
            let reader = SerializedFileReader::new(file()?).map_err(|error| unreadable(path, 0, &error))?;
            Rows::Table(reader.into_iter())
        } else if begins_a_list(file()?).map_err(DistillError::read(path))? {
            let length = file()?.metadata().map_err(DistillError::read(path))?.len();
            if length > LARGEST_LIST {
                let problem = "one JSON list of more than 1 GiB: write one value a line".to_owned();
                return Err(DistillError::Row { path: path.to_owned(), line: 1, problem });
            }
            let list: Vec<Value> = crate::data::read_json(path)?;
            Rows::List(list.into_iter())
        } else {
            Rows::Lines(Lines::open(path)?)
        };
        Ok(Self { path: path.to_owned(), rows, place: 0 })
    }

    pub(super) fn next(&mut self) -> Option<Result<Value, DistillError>> {
        self.place += 1;
        match &mut self.rows {
            Rows::Lines(lines) => lines.next(),
            Rows::List(list) => list.next().map(Ok),
            Rows::Table(rows) => Some(match rows.next()? {
                Ok(row) => Ok(table::value(row)),
                Err(error) => Err(unreadable(&self.path, self.place, &error)),
            }),
        }
    }

    /// The row that was read last is not what it should be.
    pub(super) fn wrong(&self, problem: String) -> DistillError {
        let line = match &self.rows {
            Rows::Lines(lines) => lines.line(),
            Rows::List(_) | Rows::Table(_) => self.place,
        };
        DistillError::Row { path: self.path.clone(), line, problem }
    }
}

fn begins_a_list(file: File) -> std::io::Result<bool> {
    for byte in std::io::BufReader::new(file).bytes() {
        let byte = byte?;
        if !byte.is_ascii_whitespace() {
            return Ok(byte == b'[');
        }
    }
    Ok(false)
}

fn unreadable(path: &Path, line: usize, error: &parquet::errors::ParquetError) -> DistillError {
    DistillError::Row { path: path.to_owned(), line, problem: error.to_string() }
}
