//! An answer, row by row.

use std::fs::File;
use std::path::Path;

use anbiq_domain::Timestamp;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit,
    TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchReader as _};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use futures::StreamExt as _;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::tables::engine;
use crate::{LakeError, Settings};

/// The rows that answer a question, some thousand in memory at a time.
pub struct Answer {
    columns: Vec<String>,
    rows: Rows,
    deadline: Instant,
    settings: Settings,
}

/// Where rows come from.
enum Rows {
    /// The engine, as it finds them.
    Stream(SendableRecordBatchStream),
    /// A file, which holds all of them.
    File(ParquetRecordBatchReader),
}

/// What stands in one column of one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Nothing.
    Null,
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A whole number without a sign.
    Count(u64),
    /// Any other number.
    Real(f64),
    /// A text; days and moments too, as RFC 3339 has them.
    Text(String),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Flag(flag) => flag.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Count(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Answer {
    pub(crate) fn new(stream: SendableRecordBatchStream, deadline: Instant, settings: Settings) -> Self {
        let columns = stream.schema().fields().iter().map(|field| field.name().clone()).collect();
        Self { columns, rows: Rows::Stream(stream), deadline, settings }
    }

    /// The same answer, once all its rows are there, from the empty file `file`.
    pub(crate) async fn kept(mut self, file: File) -> Result<Self, LakeError> {
        self.write(&file).await?;
        let rows = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
        self.rows = Rows::File(rows.map_err(|error| engine(&error))?);
        Ok(self)
    }

    /// The names of its columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The next rows; `None` after the last ones.
    ///
    /// # Errors
    /// The engine failed, its memory did not suffice, or its time is up.
    pub async fn rows(&mut self) -> Result<Option<Vec<Vec<Cell>>>, LakeError> {
        let Some(batch) = self.batch().await? else { return Ok(None) };
        let mut rows = vec![Vec::with_capacity(batch.num_columns()); batch.num_rows()];
        for column in batch.columns() {
            for (row, cell) in rows.iter_mut().zip(cells(column)?) {
                row.push(cell);
            }
        }
        Ok(Some(rows))
    }

    /// Writes all rows to the new Parquet file `path`, and says how many there were.
    ///
    /// # Errors
    /// As [`Answer::rows`]; or the file is there already, or cannot be written.
    pub async fn write_parquet(mut self, path: &Path) -> Result<u64, LakeError> {
        let file = File::create_new(path).map_err(LakeError::io("create", path))?;
        self.write(&file).await
    }

    async fn write(&mut self, file: &File) -> Result<u64, LakeError> {
        let level = ZstdLevel::try_new(3).map_err(|error| engine(&error))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let file = file.try_clone().map_err(|error| engine(&error))?;
        let mut writer =
            ArrowWriter::try_new(file, self.rows.schema(), Some(properties)).map_err(|error| engine(&error))?;
        let mut rows = 0;
        while let Some(batch) = self.batch().await? {
            rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(|error| engine(&error))?;
        }
        writer.close().map_err(|error| engine(&error))?;
        Ok(rows)
    }

    async fn batch(&mut self) -> Result<Option<RecordBatch>, LakeError> {
        match &mut self.rows {
            Rows::Stream(stream) => {
                let next = timeout_at(self.deadline, stream.next()).await.map_err(|_| self.settings.late())?;
                next.transpose().map_err(|error| self.settings.failed(&error))
            }
            Rows::File(reader) => reader.next().transpose().map_err(|error| engine(&error)),
        }
    }
}

impl Rows {
    fn schema(&self) -> SchemaRef {
        match self {
            Self::Stream(stream) => stream.schema(),
            Self::File(reader) => reader.schema(),
        }
    }
}

fn cells(column: &ArrayRef) -> Result<Vec<Cell>, LakeError> {
    let some = |row: usize, cell: &dyn Fn(usize) -> Cell| if column.is_null(row) { Cell::Null } else { cell(row) };
    let all = |cell: &dyn Fn(usize) -> Cell| Ok((0..column.len()).map(|row| some(row, cell)).collect());
    macro_rules! number {
        ($kind:ty, $cell:path, $to:ty) => {{
            let numbers = column.as_primitive::<$kind>();
            all(&|row| $cell(<$to>::from(numbers.value(row))))
        }};
    }
    match column.data_type() {
        DataType::Boolean => all(&|row| Cell::Flag(column.as_boolean().value(row))),
        DataType::Int8 => number!(Int8Type, Cell::Whole, i64),
        DataType::Int16 => number!(Int16Type, Cell::Whole, i64),
        DataType::Int32 => number!(Int32Type, Cell::Whole, i64),
        DataType::Int64 => number!(Int64Type, Cell::Whole, i64),
        DataType::UInt8 => number!(UInt8Type, Cell::Count, u64),
        DataType::UInt16 => number!(UInt16Type, Cell::Count, u64),
        DataType::UInt32 => number!(UInt32Type, Cell::Count, u64),
        DataType::UInt64 => number!(UInt64Type, Cell::Count, u64),
        DataType::Float32 => number!(Float32Type, Cell::Real, f64),
        DataType::Float64 => number!(Float64Type, Cell::Real, f64),
        DataType::Utf8 => all(&|row| Cell::Text(column.as_string::<i32>().value(row).to_owned())),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let times = column.as_primitive::<TimestampMillisecondType>();
            all(&|row| Cell::Text(Timestamp::from_milliseconds(times.value(row)).to_string()))
        }
        _ => {
            let options = FormatOptions::default();
            let shown = ArrayFormatter::try_new(column, &options).map_err(|error| engine(&error))?;
            all(&|row| Cell::Text(shown.value(row).to_string()))
        }
    }
}
