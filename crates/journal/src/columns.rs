//! The columns of a sealed file: what an analyst asks for, beside the bytes that are hashed.
//!
//! They say nothing that the leaf does not say; whoever doubts one reads the leaf.

use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};

use anbiq_domain::{Entry, Exchange};

/// The column of the bytes that are hashed, which comes first.
pub(crate) const LEAF: &str = "leaf";

/// One row before it is laid out in columns.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) index: u64,
    pub(crate) payload: Vec<u8>,
    pub(crate) entry: Entry,
}

/// What stands in one column of one row.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Flag(bool),
    Number(i64),
    Real(f32),
    Bytes(Vec<u8>),
}

/// A column: its definition in Parquet's own words, and what it holds of a row.
struct Column(&'static str, fn(&Row) -> Option<Cell>);

/// All columns after the leaf. New ones come last: whoever reads by position goes on reading.
const COLUMNS: &[Column] = &[
    Column("required int64 index (INTEGER(64,false))", |row| Some(Cell::Number(row.index as i64))),
    Column("required binary entry (UTF8)", |row| Some(Cell::Bytes(kind(&row.payload).to_vec()))),
    Column("required int64 at (TIMESTAMP_MILLIS)", |row| Some(Cell::Number(row.entry.at().milliseconds()))),
    Column("optional binary account (UTF8)", |row| account(&row.entry).map(text)),
    Column("optional binary exchange (UTF8)", |row| of(row, |exchange| text(&exchange.id.to_string()))),
    Column("optional binary key (UTF8)", |row| of(row, |exchange| text(exchange.key.as_str()))),
    Column("optional binary model (UTF8)", |row| of(row, |exchange| text(&exchange.model))),
    Column("optional binary route (UTF8)", |row| of(row, |exchange| text(&word(&exchange.request.route)))),
    Column("optional boolean stream", |row| of(row, |exchange| Cell::Flag(exchange.request.stream))),
    Column("optional int64 duration_ms (INTEGER(64,false))", |row| count(row, |exchange| exchange.duration_ms)),
    Column("optional float temperature", |row| of(row, |exchange| Cell::Real(exchange.request.temperature))),
    Column("optional float top_p", |row| of(row, |exchange| Cell::Real(exchange.request.top_p))),
    Column("optional int64 max_tokens", |row| count(row, |exchange| exchange.request.max_tokens.into())),
    Column("optional int64 n", |row| count(row, |exchange| exchange.request.n.into())),
    Column("optional int64 logprobs", |row| {
        exchange(row).and_then(|exchange| exchange.request.logprobs).map(|asked| Cell::Number(asked.into()))
    }),
    Column("optional int64 messages", |row| count(row, |exchange| exchange.request.messages.into())),
    Column("optional int64 prompt_tokens", |row| count(row, |exchange| exchange.usage.prompt_tokens)),
    Column("optional int64 completion_tokens", |row| count(row, |exchange| exchange.usage.completion_tokens)),
    Column("optional int64 twin_tokens", |row| count(row, |exchange| exchange.usage.twin_tokens)),
    Column("optional int64 cost_nanodollars", |row| of(row, |exchange| Cell::Number(exchange.cost.nanos()))),
    Column("optional binary outcome (UTF8)", |row| of(row, |exchange| text(exchange.outcome.as_str()))),
    Column("optional binary error_code (UTF8)", |row| error_code(&row.entry).map(text)),
    Column("optional binary terms (UTF8)", |row| {
        exchange(row).and_then(|exchange| exchange.terms.as_ref()).map(|terms| text(terms.id.as_str()))
    }),
    Column("optional int64 terms_version", |row| {
        exchange(row).and_then(|exchange| exchange.terms.as_ref()).map(|terms| Cell::Number(terms.version.into()))
    }),
    Column("optional binary grant (UTF8)", |row| {
        exchange(row).and_then(|exchange| exchange.grant.as_ref()).map(|grant| text(grant.as_str()))
    }),
    Column("optional int64 client_address (INTEGER(64,false))", |row| count(row, |one| one.client.address.0)),
    Column("optional int64 client_network (INTEGER(64,false))", |row| count(row, |one| one.client.network.0)),
    Column("optional int64 client_agent (INTEGER(64,false))", |row| count(row, |one| one.client.agent.0)),
    Column("optional int64 sketch_exact (INTEGER(64,false))", |row| count(row, |one| one.sketch.exact.0)),
    Column("optional int64 sketch_opening (INTEGER(64,false))", |row| count(row, |one| one.sketch.opening.0)),
    Column("optional binary sketch_minhash", |row| of(row, |exchange| Cell::Bytes(minhash(exchange)))),
    Column("optional int64 sketch_words", |row| count(row, |exchange| exchange.sketch.words.into())),
    Column("optional int64 sketch_flags", |row| count(row, |exchange| exchange.sketch.flags.into())),
    Column("optional int64 draws", |row| count(row, |exchange| exchange.draws.texts.len() as u64)),
    Column("optional int64 twin_epoch", |row| {
        exchange(row).and_then(|exchange| exchange.draws.twinning).map(|twin| Cell::Number(twin.epoch.into()))
    }),
    Column("optional int64 twin_served", |row| {
        exchange(row).and_then(|exchange| exchange.draws.twinning).map(|twin| Cell::Number(twin.served.into()))
    }),
    Column("optional binary texts (UTF8)", |row| of(row, |exchange| text(texts(exchange)))),
    Column("optional int64 cached_tokens", |row| count(row, |exchange| exchange.usage.cached_tokens)),
    Column("optional int64 payment (INTEGER(64,false))", |row| payment(&row.entry)),
];

/// The schema of a sealed file, in Parquet's own words. Files that were sealed by earlier versions lack its last columns.
///
/// # Errors
/// None that a caller could cause: the definitions are constants.
pub fn schema() -> Result<TypePtr> {
    let definitions: Vec<String> = COLUMNS.iter().map(|column| format!("  {};\n", column.0)).collect();
    let message = format!("message anbiq_journal {{\n  required binary {LEAF};\n{}}}", definitions.concat());
    parse_message_type(&message).map(Arc::new)
}

/// How a sealed file is written: small, and with bounds that let a query skip what it does not want.
pub(crate) fn properties() -> Result<WriterProperties> {
    let leaf = || ColumnPath::from(LEAF);
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by(concat!("anbiq ", env!("CARGO_PKG_VERSION")).to_owned())
        // No two leaves are the same, and nobody looks for one by its bytes.
        .set_column_dictionary_enabled(leaf(), false)
        .set_column_statistics_enabled(leaf(), EnabledStatistics::None)
        .build())
}

/// Writes `rows` as one row group.
pub(crate) fn write<W: std::io::Write + Send>(mut group: SerializedRowGroupWriter<'_, W>, rows: &[Row]) -> Result<()> {
    let leaf = |row: &Row| Some(Cell::Bytes(row.payload.clone()));
    write_column(next(&mut group)?, true, rows.iter().map(leaf))?;
    for Column(definition, cell) in COLUMNS {
        write_column(next(&mut group)?, definition.starts_with("required"), rows.iter().map(cell))?;
    }
    group.close().map(drop)
}

fn next<'group, W: std::io::Write + Send>(
    group: &'group mut SerializedRowGroupWriter<'_, W>,
) -> Result<SerializedColumnWriter<'group>> {
    group.next_column()?.ok_or_else(|| ParquetError::General("a column is missing".to_owned()))
}

fn write_column(
    mut column: SerializedColumnWriter<'_>,
    required: bool,
    cells: impl Iterator<Item = Option<Cell>>,
) -> Result<()> {
    let (mut flags, mut numbers, mut reals, mut bytes, mut levels) = (vec![], vec![], vec![], vec![], vec![]);
    for cell in cells {
        levels.push(i16::from(cell.is_some()));
        match cell {
            Some(Cell::Flag(flag)) => flags.push(flag),
            Some(Cell::Number(number)) => numbers.push(number),
            Some(Cell::Real(real)) => reals.push(real),
            Some(Cell::Bytes(one)) => bytes.push(ByteArray::from(one)),
            None => {}
        }
    }
    let levels = (!required).then_some(&levels[..]);
    match column.untyped() {
        ColumnWriter::BoolColumnWriter(writer) => writer.write_batch(&flags, levels, None)?,
        ColumnWriter::Int64ColumnWriter(writer) => writer.write_batch(&numbers, levels, None)?,
        ColumnWriter::FloatColumnWriter(writer) => writer.write_batch(&reals, levels, None)?,
        ColumnWriter::ByteArrayColumnWriter(writer) => writer.write_batch(&bytes, levels, None)?,
        _ => return Err(ParquetError::General("a column has a type that none should have".to_owned())),
    };
    column.close()
}

/// The word that an entry's JSON begins with.
fn kind(payload: &[u8]) -> &[u8] {
    let rest = payload.strip_prefix(crate::format::ENTRY_START).unwrap_or_default();
    rest.split(|byte| *byte == b'"').next().unwrap_or_default()
}

fn exchange(row: &Row) -> Option<&Exchange> {
    match &row.entry {
        Entry::Exchange(exchange) => Some(exchange),
        _ => None,
    }
}

fn of(row: &Row, cell: impl FnOnce(&Exchange) -> Cell) -> Option<Cell> {
    exchange(row).map(cell)
}

fn count(row: &Row, number: impl FnOnce(&Exchange) -> u64) -> Option<Cell> {
    // The same 64 bits; where they are a hash the column says that it has no sign.
    exchange(row).map(|exchange| Cell::Number(number(exchange) as i64))
}

fn text(words: &str) -> Cell {
    Cell::Bytes(words.as_bytes().to_vec())
}

/// The word that a plain enum is written as.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn account(entry: &Entry) -> Option<&str> {
    match entry {
        Entry::Exchange(exchange) => Some(exchange.account.as_str()),
        Entry::Refused(refusal) => Some(refusal.account.as_str()),
        Entry::AccountOpened { account, .. }
        | Entry::TermsAccepted { account, .. }
        | Entry::TextsForgotten { account, .. } => Some(account.as_str()),
        Entry::GrantGiven { grant } => Some(grant.account.as_str()),
        _ => None,
    }
}

fn payment(entry: &Entry) -> Option<Cell> {
    match entry {
        // The 64 bits of a hash; the column says that it has no sign.
        Entry::AccountOpened { payment, .. } => payment.map(|payment| Cell::Number(payment.0 as i64)),
        _ => None,
    }
}

fn error_code(entry: &Entry) -> Option<&str> {
    match entry {
        Entry::Exchange(exchange) => exchange.outcome.code(),
        Entry::Refused(refusal) => Some(&refusal.code),
        _ => None,
    }
}

fn minhash(exchange: &Exchange) -> Vec<u8> {
    exchange.sketch.minhash.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn texts(exchange: &Exchange) -> &'static str {
    match (&exchange.texts, &exchange.sealed) {
        (Some(_), _) => "plain",
        (None, Some(_)) => "sealed",
        (None, None) => "none",
    }
}
