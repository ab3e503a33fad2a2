//! Rows of a Parquet file, in its own order, one row group after the other.

use std::fs::File;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use serde_json::{Map, Number, Value};

/// The bytes with which such a file begins.
pub(crate) const MAGIC: &[u8] = b"PAR1";

/// The rows of a Parquet file.
pub(crate) struct Table(RowIter<'static>);

impl Table {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let reader = SerializedFileReader::new(File::open(path)?).map_err(io::Error::other)?;
        Ok(Self(reader.into_iter()))
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Map<String, Value>>> {
        self.0.next().transpose().map(|record| record.map(object)).map_err(io::Error::other)
    }
}

fn object(record: Record) -> Map<String, Value> {
    record.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect()
}

fn value(field: Field) -> Value {
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => truth.into(),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) | Field::Date(number) | Field::TimeMillis(number) => number.into(),
        // Moments are told apart by their size.
        Field::Long(number)
        | Field::TimeMicros(number)
        | Field::TimestampMillis(number)
        | Field::TimestampMicros(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float16(number) => float(number.to_f64()),
        Field::Float(number) => float(number.into()),
        Field::Double(number) => float(number),
        Field::Str(text) => text.into(),
        // Older writers do not say which bytes are text.
        Field::Bytes(bytes) => {
            std::str::from_utf8(bytes.data()).map_or_else(|_| STANDARD.encode(bytes.data()), str::to_owned).into()
        }
        Field::Group(record) => Value::Object(object(record)),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => {
            let name = |field: &Field| match field {
                Field::Str(text) => text.clone(),
                other => other.to_string(),
            };
            let entries = map.entries().iter().map(|(key, inner)| (name(key), value(inner.clone())));
            Value::Object(entries.collect())
        }
        other @ Field::Decimal(_) => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rows_of_a_table_are_objects() {
        let schema =
            "message log { REQUIRED INT64 at (TIMESTAMP(MICROS, true)); REQUIRED BYTE_ARRAY account (STRING); }";
        let folder = tempfile::tempdir().unwrap();
        for compression in [Compression::SNAPPY, Compression::UNCOMPRESSED] {
            let path = folder.path().join("log.parquet");
            let properties = WriterProperties::builder().set_compression(compression).build();
            let schema = Arc::new(parse_message_type(schema).unwrap());
            let mut file =
                SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties)).unwrap();
            for group in 0..2 {
                let mut groups = file.next_row_group().unwrap();
                let mut column = groups.next_column().unwrap().unwrap();
                column.typed::<Int64Type>().write_batch(&[1_772_409_600_000_000 + group], None, None).unwrap();
                column.close().unwrap();
                let mut column = groups.next_column().unwrap().unwrap();
                column.typed::<ByteArrayType>().write_batch(&[ByteArray::from("acme")], None, None).unwrap();
                column.close().unwrap();
                groups.close().unwrap();
            }
            file.close().unwrap();
            let mut table = Table::open(&path).unwrap();
            let row = |at: i64| Some(json!({"at": at, "account": "acme"}).as_object().unwrap().clone());
            assert_eq!(table.next().unwrap(), row(1_772_409_600_000_000));
            assert_eq!(table.next().unwrap(), row(1_772_409_600_000_001));
            assert_eq!(table.next().unwrap(), None);
        }
    }
}
