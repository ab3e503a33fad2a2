//! Rows of nested values as Parquet, and back.
//!
//! A nested value becomes one column for each of its leaves. A level of definition says how deep a value is there, one of
//! repetition at which list it goes on (Melnik et al., *Dremel*, 2010). Every value may be absent, and lists have the three
//! levels that Parquet's `LIST` prescribes, as pyarrow writes and reads them.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::record::{Field, Row as Record};
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Number, Value};

/// Rows that are laid out in columns together: what is in memory of a file that is written.
const GROUP: usize = 4096;

/// The shape of a column.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Text,
    Number,
    List(Box<Shape>),
    Fields(Vec<(&'static str, Shape)>),
}

/// A column under way.
#[derive(Debug, Default)]
struct Leaf {
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    texts: Vec<ByteArray>,
    numbers: Vec<f64>,
}

/// Writes all rows that `next` gives, a few at a time, to `file`.
pub(super) fn write(
    file: &mut (impl Write + Send),
    shape: &Shape,
    next: &mut impl FnMut() -> Option<Vec<Value>>,
) -> std::io::Result<()> {
    let Shape::Fields(fields) = shape else { return Ok(()) };
    let columns: String = fields.iter().map(|(name, shape)| schema(name, shape)).collect();
    let written = || -> Result<(), ParquetError> {
        let schema = Arc::new(parse_message_type(&format!("message rows {{ {columns} }}"))?);
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
        let (mut rows, mut more) = (Vec::with_capacity(GROUP), true);
        while more {
            match next() {
                Some(values) => rows.extend(values),
                None => more = false,
            }
            if rows.len() >= GROUP || !more && !rows.is_empty() {
                group(&mut writer, fields, &rows)?;
                rows.clear();
            }
        }
        writer.close().map(drop)
    };
    written().map_err(std::io::Error::other)
}

fn group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    fields: &[(&'static str, Shape)],
    rows: &[Value],
) -> Result<(), ParquetError> {
    let mut leaves = Vec::new();
    for row in rows {
        let mut at = 0;
        for (name, shape) in fields {
            shred(shape, row.get(name), Level::default(), &mut leaves, &mut at);
        }
    }
    let mut group = writer.next_row_group()?;
    let mut leaves = leaves.into_iter();
    while let (Some(mut column), Some(leaf)) = (group.next_column()?, leaves.next()) {
        let levels = (Some(&leaf.definitions[..]), Some(&leaf.repetitions[..]));
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(texts) => texts.write_batch(&leaf.texts, levels.0, levels.1)?,
            ColumnWriter::DoubleColumnWriter(numbers) => numbers.write_batch(&leaf.numbers, levels.0, levels.1)?,
            _ => return Err(ParquetError::General("a column is of another kind than its values".to_owned())),
        };
        column.close()?;
    }
    group.close().map(drop)
}

fn schema(name: &str, shape: &Shape) -> String {
    match shape {
        Shape::Text => format!("optional binary {name} (STRING); "),
        Shape::Number => format!("optional double {name}; "),
        Shape::List(element) => {
            format!("optional group {name} (LIST) {{ repeated group list {{ {} }} }} ", schema("element", element))
        }
        Shape::Fields(fields) => {
            let inner: String = fields.iter().map(|(name, shape)| schema(name, shape)).collect();
            format!("optional group {name} {{ {inner} }} ")
        }
    }
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    /// What is there above it.
    defined: i16,
    /// The list at which this value goes on.
    repeated: i16,
    /// Lists above it.
    lists: i16,
}

/// Adds `value` to the leaves of `shape`, of which the first is `leaves[*at]`.
fn shred(shape: &Shape, value: Option<&Value>, level: Level, leaves: &mut Vec<Leaf>, at: &mut usize) {
    let value = value.filter(|value| !value.is_null());
    let inside = Level { defined: level.defined + 1, ..level };
    match shape {
        Shape::Text | Shape::Number => {
            if leaves.len() <= *at {
                leaves.resize_with(*at + 1, Leaf::default);
            }
            let leaf = &mut leaves[*at];
            *at += 1;
            leaf.repetitions.push(level.repeated);
            let there = match (shape, value) {
                (Shape::Number, Some(value)) => value.as_f64().map(|number| leaf.numbers.push(number)).is_some(),
                // What should be a text and is a value of another kind is written as its JSON.
                (_, Some(Value::String(text))) => {
                    leaf.texts.push(text.as_str().into());
                    true
                }
                (_, Some(other)) => {
                    leaf.texts.push(other.to_string().as_str().into());
                    true
                }
                (_, None) => false,
            };
            leaf.definitions.push(level.defined + i16::from(there));
        }
        Shape::Fields(fields) => {
            let level = if value.is_some() { inside } else { level };
            for (name, shape) in fields {
                shred(shape, value.and_then(|value| value.get(name)), level, leaves, at);
            }
        }
        Shape::List(element) => {
            let Some(items) = value.and_then(Value::as_array).filter(|items| !items.is_empty()) else {
                let level = if value.is_some_and(Value::is_array) { inside } else { level };
                return shred(element, None, level, leaves, at);
            };
            let first = *at;
            for (place, item) in items.iter().enumerate() {
                *at = first;
                let lists = level.lists + 1;
                let repeated = if place == 0 { level.repeated } else { lists };
                shred(element, Some(item), Level { defined: level.defined + 2, repeated, lists }, leaves, at);
            }
        }
    }
}

/// A row of a Parquet file as a JSON value.
pub(super) fn value(row: Record) -> Value {
    let fields = row.into_columns().into_iter().map(|(name, field)| (name, of_field(field)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn of_field(field: Field) -> Value {
    let real = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => truth.into(),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float(number) => real(number.into()),
        Field::Double(number) => real(number),
        Field::Str(text) => text.into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into(),
        Field::Group(row) => value(row),
        Field::ListInternal(list) => list.elements().iter().cloned().map(of_field).collect(),
        // Dates, decimals and maps stand in no form that is read.
        other => other.to_string().into(),
    }
}
