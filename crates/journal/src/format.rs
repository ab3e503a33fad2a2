use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use anbiq_domain::{JournalId, Timestamp};

use crate::disk::{Disk, read_whole, replace};
use crate::{JournalError, PublicKey, SigningKey};

/// The version of the format that is written; no other is read.
pub const FORMAT: u64 = 2;

/// Largest payload of a record: far above any answer, far below what a flipped bit in a length could ask for.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;

/// First bytes of a segment.
pub(crate) const MAGIC: &[u8; 16] = b"anbiq-journal 2\n";

/// Bytes before a frame's payload: its length and its checksum.
pub(crate) const FRAME_HEADER: usize = 8;

/// Set in the length of the first frame of a group. What is written in one go may reach the disk in any order, so only
/// a frame of a *later* group proves that one before it was whole once.
const BEGINS_GROUP: u32 = 1 << 31;

/// How the JSON of every entry begins; inside a payload its quotes would be escaped.
pub(crate) const ENTRY_START: &[u8] = b"{\"entry\":\"";

/// Appends the frame of `payload` to `bytes`; `begins` if it is the first of its group.
pub(crate) fn write_frame(payload: &[u8], begins: bool, bytes: &mut Vec<u8>) {
    // No payload is longer than `MAX_ENTRY_BYTES`.
    let length = payload.len() as u32 | if begins { BEGINS_GROUP } else { 0 };
    bytes.extend(length.to_le_bytes());
    bytes.extend(checksum(length, payload).to_le_bytes());
    bytes.extend(payload);
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHeader {
    pub(crate) length: usize,
    pub(crate) begins_group: bool,
    word: u32,
    checksum: u32,
}

impl FrameHeader {
    /// Is `payload` the one that this header was written for?
    pub(crate) fn fits(&self, payload: &[u8]) -> bool {
        checksum(self.word, payload) == self.checksum
    }
}

/// The header of a frame, or `None` where the length is impossible.
pub(crate) fn read_frame_header(header: [u8; FRAME_HEADER]) -> Option<FrameHeader> {
    let [a, b, c, d, e, f, g, h] = header;
    let word = u32::from_le_bytes([a, b, c, d]);
    let length = (word & !BEGINS_GROUP) as usize;
    let header = FrameHeader {
        length,
        begins_group: word & BEGINS_GROUP != 0,
        word,
        checksum: u32::from_le_bytes([e, f, g, h]),
    };
    (1..=MAX_ENTRY_BYTES).contains(&length).then_some(header)
}

/// Covers the length too: otherwise a flipped mark of a group would go unseen.
fn checksum(word: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&word.to_le_bytes()), payload)
}

pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:08}.seg")
}

pub(crate) fn checkpoints_path(dir: &Path) -> PathBuf {
    dir.join("checkpoints.log")
}

pub(crate) fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// The number of the segment that is called `name`.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".seg")?.parse::<u32>().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// The number after the last segment's; an error where one after `first` is missing.
pub(crate) fn end_of_segments(disk: &dyn Disk, dir: &Path, first: u32) -> Result<u32, JournalError> {
    let names = disk.list(dir).map_err(|error| JournalError::io("list", dir, error))?;
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| segment_number(name)).filter(|number| *number >= first).collect();
    numbers.sort_unstable();
    for (expected, found) in (first..).zip(&numbers) {
        if expected != *found {
            let place = crate::Place { file: segment_name(expected), offset: 0, index: 0 };
            return Err(JournalError::Damaged { place, what: "the segment is missing".to_owned() });
        }
    }
    Ok(first + numbers.len() as u32)
}

/// `journal.json`: what a journal says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) format: u64,
    pub(crate) id: JournalId,
    pub(crate) public_key: PublicKey,
    pub(crate) created: Timestamp,
    /// By the key above over the other fields, so that none of them can be changed alone.
    signature: String,
}

impl Header {
    pub(crate) fn sign(id: JournalId, created: Timestamp, signer: &SigningKey) -> Self {
        let mut header = Self { format: FORMAT, id, public_key: signer.public(), created, signature: String::new() };
        header.signature = hex::encode(signer.sign(header.signed_text().as_bytes()));
        header
    }

    /// Writes the header so that it is there as a whole or not at all.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
        let path = Self::path(dir);
        replace(disk, dir, &path, self.text().as_bytes()).map_err(|error| JournalError::io("write", &path, error))
    }

    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, JournalError> {
        let not = |why: String| JournalError::NotAJournal { dir: dir.to_owned(), why };
        // No header of ours is longer than this; something else may be endless.
        let bytes = read_whole(disk, &Self::path(dir), 4096).map_err(|error| not(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| not(error.to_string()))?;
        let format = serde_json::from_str::<Version>(&text).map_err(|error| not(error.to_string()))?.format;
        if format != FORMAT {
            return Err(JournalError::OtherFormat { dir: dir.to_owned(), found: format });
        }
        let header: Self = serde_json::from_str(&text).map_err(|error| not(error.to_string()))?;
        let mut signature = [0; 64];
        let signed = hex::decode_to_slice(&header.signature, &mut signature).is_ok()
            // Hexadecimal digits may be written large too, but not by us.
            && hex::encode(signature) == header.signature
            && header.public_key.verify(header.signed_text().as_bytes(), &signature);
        if !signed || header.text() != text {
            return Err(not("it is not as it was signed".to_owned()));
        }
        Ok(header)
    }

    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("journal.json")
    }

    fn signed_text(&self) -> String {
        format!(
            "anbiq journal header\n{}\n{}\n{}\n{}\n",
            self.format,
            self.id,
            self.public_key,
            self.created.milliseconds()
        )
    }

    fn text(&self) -> String {
        // Numbers and strings always have a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// What every format has said and every later one will say.
#[derive(Deserialize)]
struct Version {
    format: u64,
}
