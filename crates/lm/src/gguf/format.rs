//! The container: a header, words with values, tensors with their places, numbers. Version 3, as
//! `docs/gguf.md` of ggml specifies it; lengths and offsets are checked against the file before anything is allocated.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use crate::LmError;

/// The value of a word.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    /// Values of one kind, none of them a list.
    List(Vec<Value>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// How the numbers of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    /// Blocks of 32 numbers: a scale in half precision, then 32 signed bytes.
    Q8_0,
    Bf16,
}

/// Numbers that share a scale.
pub(super) const BLOCK: usize = 32;

impl Kind {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    /// The kind of this code, or else its name in ggml.
    fn of(code: u32) -> Result<Self, String> {
        const NAMES: [&str; 40] = [
            "F32",
            "F16",
            "Q4_0",
            "Q4_1",
            "Q4_2",
            "Q4_3",
            "Q5_0",
            "Q5_1",
            "Q8_0",
            "Q8_1",
            "Q2_K",
            "Q3_K",
            "Q4_K",
            "Q5_K",
            "Q6_K",
            "Q8_K",
            "IQ2_XXS",
            "IQ2_XS",
            "IQ3_XXS",
            "IQ1_S",
            "IQ4_NL",
            "IQ3_S",
            "IQ2_S",
            "IQ4_XS",
            "I8",
            "I16",
            "I32",
            "I64",
            "F64",
            "IQ1_M",
            "BF16",
            "Q4_0_4_4",
            "Q4_0_4_8",
            "Q4_0_8_8",
            "TQ1_0",
            "TQ2_0",
            "IQ4_NL_4_4",
            "IQ4_NL_4_8",
            "IQ4_NL_8_8",
            "MXFP4",
        ];
        match code {
            0 => Ok(Self::F32),
            1 => Ok(Self::F16),
            8 => Ok(Self::Q8_0),
            30 => Ok(Self::Bf16),
            other => {
                let name = NAMES.get(other as usize).map(|&name| name.to_owned());
                Err(name.unwrap_or_else(|| format!("number {other}")))
            }
        }
    }

    /// Bytes of `count` numbers; for `Q8_0` a multiple of [`BLOCK`].
    pub(super) const fn bytes(self, count: u64) -> u64 {
        match self {
            Self::F32 => count.saturating_mul(4),
            Self::F16 | Self::Bf16 => count.saturating_mul(2),
            Self::Q8_0 => (count / BLOCK as u64).saturating_mul(BLOCK as u64 + 2),
        }
    }
}

/// A tensor and where it lies.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Rows first, as everywhere else here; the file has it the other way round.
    pub(super) shape: Vec<usize>,
    /// From the start of the file.
    pub(super) offset: u64,
}

impl Place {
    pub(super) fn count(&self) -> u64 {
        self.shape.iter().fold(1, |product, &length| product.saturating_mul(length as u64))
    }
}

/// What stands before the numbers.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) words: Vec<(String, Value)>,
    pub(super) places: Vec<Place>,
}

const MAGIC: [u8; 4] = *b"GGUF";
const VERSION: u32 = 3;
/// What numbers are aligned to where `general.alignment` does not say.
const ALIGNMENT: u64 = 32;
const HINT: &str = "the file may be cut short or damaged: fetch it again";

impl Head {
    /// Reads the head of `path`.
    pub(super) fn read(path: &Path) -> Result<Self, LmError> {
        let file = File::open(path).map_err(|source| LmError::read(path, source))?;
        let length = file.metadata().map_err(|source| LmError::read(path, source))?.len();
        let mut source = Source { path, file: BufReader::new(file), left: length };
        if source.bytes()? != MAGIC {
            return Err(LmError::malformed(path, "it does not begin as a GGUF file", "expected a model of llama.cpp"));
        }
        let version = u32::from_le_bytes(source.bytes()?);
        // Version 2 differs in nothing but big-endian files, which show as a version of another order of bytes.
        if version != VERSION && version != 2 {
            let feature = match version.swap_bytes() {
                2 | 3 => "big-endian GGUF".to_owned(),
                _ => format!("GGUF of version {version}"),
            };
            let hint = "convert the model anew with a current llama.cpp, for a little-endian machine";
            return Err(LmError::Unsupported { path: path.to_owned(), feature, hint });
        }
        let (tensors, words) = (source.length(24)?, source.length(13)?);
        let words = (0..words).map(|_| source.word()).collect::<Result<Vec<_>, _>>()?;
        let alignment = match words.iter().find(|(name, _)| name == "general.alignment") {
            None => ALIGNMENT,
            Some((_, Value::U32(alignment))) if alignment.is_power_of_two() => u64::from(*alignment),
            Some(_) => return Err(source.wrong("its `general.alignment` is no power of two")),
        };
        let mut places = (0..tensors).map(|_| source.place()).collect::<Result<Vec<_>, _>>()?;
        let start = (length - source.left).next_multiple_of(alignment);
        for place in &mut places {
            place.offset = place.offset.saturating_add(start);
            let end = place.offset.saturating_add(place.kind.bytes(place.count()));
            if end > length {
                let problem = format!("ends at byte {end} of a file of {length}");
                return Err(LmError::tensor(path, &place.name, problem, HINT));
            }
        }
        Ok(Self { words, places })
    }

    /// Writes the head; the numbers of each tensor are to follow in the order of `places`, each padded to
    /// [`padding`]. Offsets are made here.
    pub(super) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.places.len() as u64).to_le_bytes());
        bytes.extend((self.words.len() as u64).to_le_bytes());
        for (name, value) in &self.words {
            put_text(&mut bytes, name);
            bytes.extend(value.code().to_le_bytes());
            value.put(&mut bytes);
        }
        let mut offset = 0_u64;
        for place in &self.places {
            put_text(&mut bytes, &place.name);
            bytes.extend((place.shape.len() as u32).to_le_bytes());
            place.shape.iter().rev().for_each(|&length| bytes.extend((length as u64).to_le_bytes()));
            bytes.extend(place.kind.code().to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset = (offset + place.kind.bytes(place.count())).next_multiple_of(ALIGNMENT);
        }
        bytes.resize(bytes.len() + padding(bytes.len()), 0);
        out.write_all(&bytes)
    }
}

/// How many zeros follow `length` bytes.
pub(super) const fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT as usize) - length
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Value {
    const fn code(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::List(_) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::U8(value) => bytes.push(*value),
            Self::I8(value) => bytes.extend(value.to_le_bytes()),
            Self::U16(value) => bytes.extend(value.to_le_bytes()),
            Self::I16(value) => bytes.extend(value.to_le_bytes()),
            Self::U32(value) => bytes.extend(value.to_le_bytes()),
            Self::I32(value) => bytes.extend(value.to_le_bytes()),
            Self::F32(value) => bytes.extend(value.to_le_bytes()),
            Self::Bool(value) => bytes.push(u8::from(*value)),
            Self::Text(value) => put_text(bytes, value),
            Self::List(values) => {
                // The kind of an empty list is of no consequence.
                bytes.extend(values.first().map_or(8, Self::code).to_le_bytes());
                bytes.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| value.put(bytes));
            }
            Self::U64(value) => bytes.extend(value.to_le_bytes()),
            Self::I64(value) => bytes.extend(value.to_le_bytes()),
            Self::F64(value) => bytes.extend(value.to_le_bytes()),
        }
    }
}

/// A file that is read from front to back, and how many bytes are left of it.
struct Source<'path> {
    path: &'path Path,
    file: BufReader<File>,
    left: u64,
}

impl Source<'_> {
    fn wrong(&self, problem: impl Into<String>) -> LmError {
        LmError::malformed(self.path, problem, HINT)
    }

    fn take(&mut self, into: &mut [u8]) -> Result<(), LmError> {
        self.file.read_exact(into).map_err(|source| LmError::read(self.path, source))?;
        self.left = self.left.saturating_sub(into.len() as u64);
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], LmError> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    /// A number of things of at least `least` bytes each: no more than the rest of the file can hold.
    fn length(&mut self, least: u64) -> Result<u64, LmError> {
        let length = u64::from_le_bytes(self.bytes()?);
        if length.saturating_mul(least) > self.left {
            return Err(self.wrong(format!("it claims {length} entries where {} bytes are left", self.left)));
        }
        Ok(length)
    }

    fn text(&mut self) -> Result<String, LmError> {
        let length = self.length(1)?;
        let mut bytes = vec![0; length as usize];
        self.take(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.wrong("a text in its head is not UTF-8"))
    }

    fn word(&mut self) -> Result<(String, Value), LmError> {
        let name = self.text()?;
        let code = u32::from_le_bytes(self.bytes()?);
        if code != 9 {
            let value = self.value(code, &name)?;
            return Ok((name, value));
        }
        let code = u32::from_le_bytes(self.bytes()?);
        let length = self.length(1)?;
        let values = (0..length).map(|_| self.value(code, &name)).collect::<Result<_, _>>()?;
        Ok((name, Value::List(values)))
    }

    fn value(&mut self, code: u32, name: &str) -> Result<Value, LmError> {
        Ok(match code {
            0 => Value::U8(u8::from_le_bytes(self.bytes()?)),
            1 => Value::I8(i8::from_le_bytes(self.bytes()?)),
            2 => Value::U16(u16::from_le_bytes(self.bytes()?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes()?)),
            4 => Value::U32(u32::from_le_bytes(self.bytes()?)),
            5 => Value::I32(i32::from_le_bytes(self.bytes()?)),
            6 => Value::F32(f32::from_le_bytes(self.bytes()?)),
            7 => Value::Bool(self.bytes::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            10 => Value::U64(u64::from_le_bytes(self.bytes()?)),
            11 => Value::I64(i64::from_le_bytes(self.bytes()?)),
            12 => Value::F64(f64::from_le_bytes(self.bytes()?)),
            other => return Err(self.wrong(format!("`{name}` has a value of the unknown kind {other}"))),
        })
    }

    fn place(&mut self) -> Result<Place, LmError> {
        let name = self.text()?;
        let dimensions = u32::from_le_bytes(self.bytes()?);
        if !(1..=4).contains(&dimensions) {
            return Err(LmError::tensor(self.path, &name, format!("has {dimensions} dimensions"), HINT));
        }
        let mut shape = Vec::with_capacity(4);
        for _ in 0..dimensions {
            let length = u64::from_le_bytes(self.bytes()?);
            shape.push(usize::try_from(length).unwrap_or(usize::MAX));
        }
        let row = shape[0];
        shape.reverse();
        let code = u32::from_le_bytes(self.bytes()?);
        let offset = u64::from_le_bytes(self.bytes()?);
        let kind = Kind::of(code).map_err(|kind| {
            let hint = "models in F32, F16, BF16 and Q8_0 are read: convert it, or serve it with llama.cpp and use that as \
                        an upstream";
            LmError::tensor(self.path, &name, format!("is stored as {kind}, which is not read here"), hint)
        })?;
        if kind == Kind::Q8_0 && !row.is_multiple_of(BLOCK) {
            return Err(LmError::tensor(self.path, &name, format!("has blocks of {BLOCK} in rows of {row}"), HINT));
        }
        Ok(Place { name, kind, shape, offset })
    }
}
