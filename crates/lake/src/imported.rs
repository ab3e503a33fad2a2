//! Rows of imported logs, in the columns of a journal.
//!
//! They stay what they are: each says in a column of its own that it was imported, and there is no leaf, since nobody signed it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anbiq_domain::{Imported, ImportedExchange, MINHASHES, Money, RequestFacts, Timestamp};
use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Int64Array, StringArray, TimestampMillisecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;

use crate::LakeError;
use crate::tables::{SOURCE, engine};

/// Rows that are held at a time.
const HELD: usize = 8192;

/// Writes `rows` to the new file `path` and says how many there were.
pub(crate) fn write<E>(
    path: &Path,
    table: &SchemaRef,
    rows: impl IntoIterator<Item = Result<Imported, E>>,
) -> Result<u64, LakeError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let fields: Vec<_> = COLUMNS.iter().filter_map(|(name, _)| table.field_with_name(name).ok().cloned()).collect();
    let schema = Arc::new(Schema::new(fields));
    let file = File::create_new(path).map_err(LakeError::io("create", path))?;
    let level = ZstdLevel::try_new(1).map_err(|error| engine(&error))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let mut writer =
        ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(|error| engine(&error))?;
    let (mut held, mut index) = (Vec::with_capacity(HELD), 0);
    for row in rows {
        held.push(Row { index, row: row.map_err(|error| LakeError::Imported(Box::new(error)))? });
        index += 1;
        if held.len() == HELD {
            writer.write(&batch(&schema, &held)?).map_err(|error| engine(&error))?;
            held.clear();
        }
    }
    writer.write(&batch(&schema, &held)?).map_err(|error| engine(&error))?;
    writer.close().map_err(|error| engine(&error))?;
    Ok(index)
}

struct Row {
    index: u64,
    row: Imported,
}

/// What stands in one column of a row.
enum Cells {
    Text(fn(&Row) -> Option<String>),
    Number(fn(&Row) -> Option<i64>),
    /// Counts, and hashes.
    Bits(fn(&Row) -> Option<u64>),
    Real(fn(&Row) -> Option<f32>),
    Flag(fn(&Row) -> Option<bool>),
    Time(fn(&Row) -> Option<i64>),
    Bytes(fn(&Row) -> Option<Vec<u8>>),
}

/// The columns that a log can fill, by the names that they have in a journal.
const COLUMNS: &[(&str, Cells)] = &[
    ("index", Cells::Bits(|row| Some(row.index))),
    ("entry", Cells::Text(|row| Some(row.kind().to_owned()))),
    ("at", Cells::Time(Row::at)),
    ("account", Cells::Text(|row| Some(row.account().to_owned()))),
    ("model", Cells::Text(|row| row.exchange()?.model.clone())),
    ("route", Cells::Text(|row| serde_json::to_value(row.request()?.route).ok()?.as_str().map(str::to_owned))),
    ("stream", Cells::Flag(|row| Some(row.request()?.stream))),
    ("temperature", Cells::Real(|row| Some(row.request()?.temperature))),
    ("top_p", Cells::Real(|row| Some(row.request()?.top_p))),
    ("max_tokens", Cells::Number(|row| Some(row.request()?.max_tokens.into()))),
    ("n", Cells::Number(|row| Some(row.request()?.n.into()))),
    ("logprobs", Cells::Number(|row| row.request()?.logprobs.map(i64::from))),
    ("messages", Cells::Number(|row| Some(row.request()?.messages.into()))),
    ("prompt_tokens", Cells::Number(|row| row.exchange()?.usage.map(|usage| number(usage.prompt_tokens)))),
    ("cached_tokens", Cells::Number(|row| row.exchange()?.usage.map(|usage| number(usage.cached_tokens)))),
    ("completion_tokens", Cells::Number(|row| row.exchange()?.usage.map(|usage| number(usage.completion_tokens)))),
    ("cost_nanodollars", Cells::Number(|row| row.exchange()?.cost.map(Money::nanos))),
    // A log that does not say that a model failed does not say either that it did not.
    ("outcome", Cells::Text(|row| row.exchange()?.failed.then(|| "failed".to_owned()))),
    ("client_address", Cells::Bits(|row| row.exchange()?.address.map(|hash| hash.0))),
    ("client_network", Cells::Bits(|row| row.exchange()?.network.map(|hash| hash.0))),
    ("client_agent", Cells::Bits(|row| row.exchange()?.agent.map(|hash| hash.0))),
    ("sketch_exact", Cells::Bits(|row| row.exchange()?.sketch.as_ref().map(|sketch| sketch.exact.0))),
    ("sketch_opening", Cells::Bits(|row| row.exchange()?.sketch.as_ref().map(|sketch| sketch.opening.0))),
    ("sketch_minhash", Cells::Bytes(|row| row.exchange()?.sketch.as_ref().map(|sketch| bytes(&sketch.minhash)))),
    ("sketch_words", Cells::Number(|row| row.exchange()?.sketch.as_ref().map(|sketch| sketch.words.into()))),
    ("sketch_flags", Cells::Number(|row| row.exchange()?.sketch.as_ref().map(|sketch| sketch.flags.into()))),
    ("payment", Cells::Bits(Row::payment)),
    (SOURCE, Cells::Text(|_| Some("imported".to_owned()))),
];

impl Row {
    /// As a journal calls it.
    const fn kind(&self) -> &'static str {
        match &self.row {
            Imported::Account { .. } => "account_opened",
            Imported::Exchange(_) => "exchange",
            Imported::Refused { .. } => "refused",
        }
    }

    fn at(&self) -> Option<i64> {
        match &self.row {
            Imported::Account { opened, .. } => opened.map(Timestamp::milliseconds),
            Imported::Exchange(exchange) => Some(exchange.at.milliseconds()),
            Imported::Refused { at, .. } => Some(at.milliseconds()),
        }
    }

    fn account(&self) -> &str {
        match &self.row {
            Imported::Account { account, .. } | Imported::Refused { account, .. } => account.as_str(),
            Imported::Exchange(exchange) => exchange.account.as_str(),
        }
    }

    fn exchange(&self) -> Option<&ImportedExchange> {
        match &self.row {
            Imported::Exchange(exchange) => Some(exchange),
            _ => None,
        }
    }

    fn request(&self) -> Option<&RequestFacts> {
        self.exchange()?.request.as_ref()
    }

    fn payment(&self) -> Option<u64> {
        match &self.row {
            Imported::Account { payment, .. } => payment.map(|hash| hash.0),
            _ => None,
        }
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn bytes(minhash: &[u32; MINHASHES]) -> Vec<u8> {
    minhash.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn batch(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch, LakeError> {
    let columns = COLUMNS.iter().map(|(_, cells)| cells.array(rows)).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| engine(&error))
}

impl Cells {
    fn array(&self, rows: &[Row]) -> ArrayRef {
        match self {
            Self::Text(cell) => Arc::new(rows.iter().map(cell).collect::<StringArray>()),
            Self::Number(cell) => Arc::new(rows.iter().map(cell).collect::<Int64Array>()),
            Self::Bits(cell) => Arc::new(rows.iter().map(cell).collect::<UInt64Array>()),
            Self::Real(cell) => Arc::new(rows.iter().map(cell).collect::<Float32Array>()),
            Self::Flag(cell) => Arc::new(rows.iter().map(cell).collect::<BooleanArray>()),
            Self::Time(cell) => {
                Arc::new(rows.iter().map(cell).collect::<TimestampMillisecondArray>().with_timezone("UTC"))
            }
            Self::Bytes(cell) => Arc::new(rows.iter().map(cell).collect::<BinaryArray>()),
        }
    }
}
