//! Rows of a log, one after the other, whatever its size: JSON lines, JSON arrays, objects that wrap an array, CSV, Parquet.
//!
//! No row is kept beyond its turn, and none longer than the bound is ever held: it is passed over and counted.

use std::io::{self, BufRead, Read};

use csv_core::ReadRecordResult;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::source::Source;
use crate::table::Table;

/// How far a log is looked into before its syntax is told.
const PEEK: usize = 1 << 20;
/// Lines that are tried before a log is taken for one large value.
const PEEK_LINES: usize = 5;
/// Keys of objects that do nothing but wrap an array of rows.
pub(crate) const WRAPPERS: [&str; 8] =
    ["data", "records", "Records", "logEvents", "resourceSpans", "value", "result", "spans"];

/// One row, or why it is none.
pub(crate) type Row = Result<Map<String, Value>, Fault>;

/// The rows of one log.
pub(crate) struct Rows {
    bytes: Bytes,
    syntax: Syntax,
    most: usize,
    /// Rows so far, good and bad.
    pub(crate) read: u64,
    /// Rows that came out of one value.
    unpacked: std::vec::IntoIter<Value>,
}

enum Syntax {
    /// A value a line.
    Lines,
    /// Values one after the other, over lines; those of arrays and wrappers are taken apart.
    Stream(Vec<Context>),
    /// A header and records.
    Csv(Box<Csv>),
    /// Columns.
    Table(Box<Table>),
}

#[derive(Debug, PartialEq)]
enum Context {
    Top,
    /// Inside an array whose elements are rows.
    Array,
    /// Inside an object that may turn out to be a wrapper.
    Object {
        wraps: bool,
    },
}

impl Rows {
    /// The rows of `source`, none longer than `most` bytes.
    pub(crate) fn new(mut source: Source, most: usize) -> io::Result<Self> {
        if let Some(path) = &source.table {
            let syntax = Syntax::Table(Box::new(Table::open(path)?));
            let bytes = Bytes { peeked: Vec::new(), at: 0, source };
            return Ok(Self { bytes, syntax, most, read: 0, unpacked: Vec::new().into_iter() });
        }
        let mut peeked = Vec::new();
        // What cannot be read here cannot be read later either, and is said then.
        let mut limited = (&mut source).take(PEEK as u64);
        let mut lines = 0;
        while lines < PEEK_LINES {
            match limited.read_until(b'\n', &mut peeked) {
                Ok(0) | Err(_) => break,
                Ok(_) => lines += 1,
            }
        }
        let begin = if peeked.starts_with(&[0xef, 0xbb, 0xbf]) { 3 } else { 0 };
        let peeked = peeked.split_off(begin);
        let syntax = Syntax::of(&peeked);
        let bytes = Bytes { peeked, at: 0, source };
        Ok(Self { bytes, syntax, most, read: 0, unpacked: Vec::new().into_iter() })
    }

    /// The log itself.
    pub(crate) const fn source(&mut self) -> &mut Source {
        &mut self.bytes.source
    }

    /// The next row; an error where the log cannot be read further.
    pub(crate) fn next(&mut self) -> io::Result<Option<Row>> {
        if let Some(value) = self.unpacked.next() {
            self.read += 1;
            return Ok(Some(object(value)));
        }
        let row = match &mut self.syntax {
            Syntax::Lines => line(&mut self.bytes, self.most)?,
            Syntax::Stream(contexts) => stream(&mut self.bytes, contexts, self.most)?,
            Syntax::Csv(csv) => csv.record(&mut self.bytes, self.most)?,
            Syntax::Table(table) => table.next()?.map(Ok),
        };
        let row = match row {
            Some(Ok(mut row)) => match unwrap(&mut row) {
                Some(inside) => {
                    self.unpacked = inside.into_iter();
                    return self.next();
                }
                None => Some(Ok(row)),
            },
            other => other,
        };
        self.read += u64::from(row.is_some());
        Ok(row)
    }
}

impl Syntax {
    fn of(peeked: &[u8]) -> Self {
        let first = peeked.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'[') {
            return Self::Stream(vec![Context::Top]);
        }
        let lines = || peeked.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let head = lines().next().unwrap_or_default().trim_ascii();
        let is_object = |line: &[u8]| line.starts_with(b"{") && serde_json::from_slice::<Value>(line).is_ok();
        // Where the first line is damaged a later one tells, unless all are lines of one value: those are mostly indented,
        // and the first of them leaves something open.
        let open = head.last().is_some_and(|last| b"{[,:".contains(last));
        if is_object(head) || (!open && lines().any(is_object)) {
            return Self::Lines;
        }
        if first == Some(&b'{') {
            return Self::Stream(vec![Context::Top]);
        }
        let count = |delimiter: u8| head.iter().filter(|byte| **byte == delimiter).count();
        match b",;\t".iter().copied().max_by_key(|delimiter| count(*delimiter)).filter(|best| count(*best) > 0) {
            Some(delimiter) => Self::Csv(Box::new(Csv::new(delimiter))),
            None => Self::Lines,
        }
    }
}

fn object(value: Value) -> Row {
    match value {
        Value::Object(row) => Ok(row),
        _ => Err(Fault::NotAnObject),
    }
}

fn parse(text: &[u8]) -> Row {
    serde_json::from_slice(text).map_or(Err(Fault::NotJson), object)
}

/// The rows inside an object that wraps them.
fn unwrap(row: &mut Map<String, Value>) -> Option<Vec<Value>> {
    WRAPPERS.iter().find_map(|key| match row.get_mut(*key) {
        Some(Value::Array(inside)) if inside.first().is_some_and(Value::is_object) => Some(std::mem::take(inside)),
        _ => None,
    })
}

/// What was looked at already, and then the log.
struct Bytes {
    peeked: Vec<u8>,
    at: usize,
    source: Source,
}

impl Bytes {
    fn chunk(&mut self) -> io::Result<&[u8]> {
        if self.at < self.peeked.len() { Ok(&self.peeked[self.at..]) } else { self.source.fill_buf() }
    }

    fn consume(&mut self, amount: usize) {
        if self.at < self.peeked.len() {
            self.at += amount;
        } else {
            self.source.consume(amount);
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.chunk()?.first().copied())
    }

    /// The next byte that is no white space and not in `also`.
    fn skip(&mut self, also: &[u8]) -> io::Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() && !also.contains(&byte) {
                return Ok(Some(byte));
            }
            self.consume(1);
        }
        Ok(None)
    }
}

/// Bytes of one row, up to a bound.
struct Held {
    bytes: Vec<u8>,
    most: usize,
    over: bool,
}

impl Held {
    const fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, over: false }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.over || self.bytes.len() + bytes.len() > self.most {
            self.over = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn row(&self) -> Row {
        if self.over { Err(Fault::TooLong) } else { parse(&self.bytes) }
    }
}

fn line(bytes: &mut Bytes, most: usize) -> io::Result<Option<Row>> {
    loop {
        let mut held = Held::new(most);
        let mut any = false;
        loop {
            let chunk = bytes.chunk()?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = memchr::memchr(b'\n', chunk);
            let taken = end.map_or(chunk.len(), |end| end + 1);
            held.push(&chunk[..taken]);
            bytes.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        if held.over || !held.bytes.trim_ascii().is_empty() {
            return Ok(Some(held.row()));
        }
    }
}

fn stream(bytes: &mut Bytes, contexts: &mut Vec<Context>, most: usize) -> io::Result<Option<Row>> {
    let mut held = Held::new(most);
    loop {
        let Some(byte) = bytes.skip(b",")? else {
            let cut = contexts.len() > 1;
            contexts.truncate(1);
            return Ok(cut.then_some(Err(Fault::EndsEarly)));
        };
        match (contexts.last(), byte) {
            (Some(Context::Object { wraps }), b'}') => {
                let wraps = *wraps;
                held.push(b"}");
                bytes.consume(1);
                contexts.pop();
                if !wraps {
                    return Ok(Some(held.row()));
                }
                held = Held::new(most);
            }
            (Some(Context::Object { .. }), _) => member(bytes, contexts, &mut held)?,
            (Some(Context::Array), b']') => {
                bytes.consume(1);
                contexts.pop();
            }
            (Some(Context::Top), b'[') => {
                bytes.consume(1);
                contexts.push(Context::Array);
            }
            (Some(Context::Top), b'{') => {
                bytes.consume(1);
                held = Held::new(most);
                held.push(b"{");
                contexts.push(Context::Object { wraps: false });
            }
            _ => {
                let mut held = Held::new(most);
                return Ok(Some(if value(bytes, &mut held)? { held.row() } else { Err(Fault::EndsEarly) }));
            }
        }
    }
}

/// One member of an object: copied, or entered where it is an array of rows.
fn member(bytes: &mut Bytes, contexts: &mut Vec<Context>, held: &mut Held) -> io::Result<()> {
    if held.bytes.len() > 1 {
        held.push(b",");
    }
    let mut key = Held::new(64);
    // What is no key makes no row; it is copied and found out when the row is parsed.
    value(bytes, &mut key)?;
    held.push(&key.bytes);
    held.over |= key.over;
    if bytes.skip(b"")? != Some(b':') {
        return Ok(());
    }
    bytes.consume(1);
    held.push(b":");
    let name = key.bytes.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\"")).unwrap_or_default();
    if bytes.skip(b"")? == Some(b'[') && WRAPPERS.iter().any(|wrapper| wrapper.as_bytes() == name) {
        bytes.consume(1);
        if bytes.skip(b"")? == Some(b'{') {
            if let Some(Context::Object { wraps }) = contexts.last_mut() {
                *wraps = true;
            }
            contexts.push(Context::Array);
            return Ok(());
        }
        held.push(b"[");
        return rest(bytes, held, 1).map(|_| ());
    }
    value(bytes, held).map(|_| ())
}

/// Copies one value; false where the log ends inside it.
fn value(bytes: &mut Bytes, held: &mut Held) -> io::Result<bool> {
    match bytes.peek()? {
        Some(b'{' | b'[' | b'"') => rest(bytes, held, 0),
        Some(first) => {
            // A number, a word, or what should not be here: never nothing, so that every call gets further.
            held.push(&[first]);
            bytes.consume(1);
            while let Some(byte) = bytes.peek()? {
                if byte.is_ascii_whitespace() || b",:]}".contains(&byte) {
                    break;
                }
                held.push(&[byte]);
                bytes.consume(1);
            }
            Ok(true)
        }
        None => Ok(false),
    }
}

/// Copies up to the end of `depth` open brackets, or of the string that begins here; false where the log ends before.
fn rest(bytes: &mut Bytes, held: &mut Held, mut depth: usize) -> io::Result<bool> {
    let (mut quoted, mut escaped) = (false, false);
    loop {
        let chunk = bytes.chunk()?;
        if chunk.is_empty() {
            return Ok(false);
        }
        let mut taken = 0;
        let mut done = false;
        for byte in chunk {
            taken += 1;
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => {
                    quoted = !quoted;
                    done = !quoted && depth == 0;
                }
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => {
                    depth = depth.saturating_sub(1);
                    done = depth == 0;
                }
                _ => {}
            }
            if done {
                break;
            }
        }
        held.push(&chunk[..taken]);
        bytes.consume(taken);
        if done {
            return Ok(true);
        }
    }
}

/// Records of RFC 4180 under a header.
struct Csv {
    reader: csv_core::Reader,
    header: Option<Vec<String>>,
    output: Vec<u8>,
    ends: Vec<usize>,
}

impl Csv {
    fn new(delimiter: u8) -> Self {
        let reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        Self { reader, header: None, output: vec![0; 1 << 12], ends: vec![0; 64] }
    }

    fn record(&mut self, bytes: &mut Bytes, most: usize) -> io::Result<Option<Row>> {
        loop {
            let Some(fields) = self.fields(bytes, most)? else { return Ok(None) };
            let fields = match fields {
                Ok(fields) => fields,
                Err(fault) => return Ok(Some(Err(fault))),
            };
            let Some(header) = &self.header else {
                self.header = Some(fields);
                continue;
            };
            if fields.len() != header.len() {
                return Ok(Some(Err(Fault::NotAnObject)));
            }
            let row = header.iter().cloned().zip(fields.into_iter().map(Value::String)).collect();
            return Ok(Some(Ok(row)));
        }
    }

    fn fields(&mut self, bytes: &mut Bytes, most: usize) -> io::Result<Option<Result<Vec<String>, Fault>>> {
        let (mut written, mut ended, mut over) = (0, 0, false);
        loop {
            let input = bytes.chunk()?;
            let (result, read, wrote, ends) =
                self.reader.read_record(input, &mut self.output[written..], &mut self.ends[ended..]);
            bytes.consume(read);
            written += wrote;
            ended += ends;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record if over => return Ok(Some(Err(Fault::TooLong))),
                ReadRecordResult::Record => {
                    let starts = std::iter::once(0).chain(self.ends[..ended].iter().copied());
                    let fields = starts.zip(&self.ends[..ended]).map(|(start, end)| &self.output[start..*end]);
                    let fields: Result<_, _> =
                        fields.map(|field| std::str::from_utf8(field).map(str::to_owned)).collect();
                    return Ok(Some(fields.map_err(|_| Fault::NotJson)));
                }
                // What is beyond the bound is read over what is there: it is only passed over.
                ReadRecordResult::OutputFull if 2 * self.output.len() > most => (written, over) = (0, true),
                ReadRecordResult::OutputFull => self.output.resize(2 * self.output.len(), 0),
                ReadRecordResult::OutputEndsFull if 16 * self.ends.len() > most => (ended, over) = (0, true),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &[u8], most: usize) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, text).unwrap();
        let mut rows = Rows::new(Source::open(&path).unwrap(), most).unwrap();
        std::iter::from_fn(|| rows.next().unwrap()).collect()
    }

    fn good(rows: &[Row]) -> Vec<Value> {
        rows.iter().filter_map(|row| Some(Value::Object(row.as_ref().ok()?.clone()))).collect()
    }

    #[test]
    fn a_row_over_the_bound_is_passed_over_wherever_it_stands() {
        let (small, large) = (json!({"a": 1}), json!({"a": "x".repeat(5_000)}));
        let all = [&small, &large, &small].map(ToString::to_string);
        let table = format!("a,b\n1,2\n{},2\n1,2\n", "x".repeat(5_000));
        for text in
            [all.join("\n"), format!("[{}]", all.join(",")), format!("{{\n\"data\": [{}]}}", all.join(",\n")), table]
        {
            let rows = read(text.as_bytes(), 1_000);
            assert_eq!(rows.len(), 3, "{}", &text[..20]);
            assert!(rows[0].is_ok() && rows[1] == Err(Fault::TooLong) && rows[2].is_ok(), "{}", &text[..20]);
        }
    }

    #[test]
    fn what_is_cut_off_ends_early() {
        for (text, whole) in [("[{\"a\": 1}, {\"a\": ", 1), ("{\n\"data\": [{\"a\": 1},\n{\"a\": [", 1)] {
            let rows = read(text.as_bytes(), 1_000);
            assert_eq!(good(&rows).len(), whole, "{text}");
            assert_eq!(rows.last(), Some(&Err(Fault::EndsEarly)), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_come_to_an_end(text in proptest::collection::vec(any::<u8>(), 0..400), json in "[\\[\\]{}\",: a1\\\\\n]{0,200}") {
            let bound = text.len() + json.len() + 2;
            prop_assert!(read(&text, 64).len() <= bound);
            prop_assert!(read(json.as_bytes(), 64).len() <= bound);
        }

        #[test]
        fn the_same_rows_come_out_however_they_stand(texts in proptest::collection::vec("[a-z\"\\\\{}\\[\\],:\n\u{e9}]{0,12}", 1..20)) {
            let rows: Vec<Value> = texts.iter().map(|text| json!({"k": text, "inner": {"data": [text, {}]}})).collect();
            let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
            let array = serde_json::to_string_pretty(&rows).unwrap();
            let wrapped = serde_json::to_string_pretty(&json!({"object": "list", "records": rows, "more": [1, {}]})).unwrap();
            let one_after_another: String = rows.iter().map(|row| serde_json::to_string_pretty(row).unwrap()).collect();
            for text in [lines, array, wrapped, one_after_another] {
                prop_assert_eq!(&good(&read(text.as_bytes(), 10_000)), &rows);
            }
        }
    }
}
