use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use anbiq_domain::{JournalId, Timestamp};

use crate::{JournalError, PublicKey, SigningKey};

/// The version of the format that is written; no other is read.
pub const FORMAT: u64 = 1;

/// Largest payload of a record: far above any answer, far below what a flipped bit in a length could ask for.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;

/// First bytes of a segment.
pub(crate) const MAGIC: &[u8; 16] = b"anbiq-journal 1\n";

/// Bytes before a frame's payload: its length and its checksum.
pub(crate) const FRAME_HEADER: usize = 8;

/// How the JSON of every entry begins; inside a payload its quotes would be escaped.
pub(crate) const ENTRY_START: &[u8] = b"{\"entry\":\"";

/// Appends the frame of `payload` to `bytes`.
pub(crate) fn write_frame(payload: &[u8], bytes: &mut Vec<u8>) {
    // No payload is longer than `MAX_ENTRY_BYTES`.
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(crc32c::crc32c(payload).to_le_bytes());
    bytes.extend(payload);
}

/// Length and checksum of a frame, or `None` where the length is impossible.
pub(crate) fn read_frame_header(header: [u8; FRAME_HEADER]) -> Option<(usize, u32)> {
    let [a, b, c, d, e, f, g, h] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    (1..=MAX_ENTRY_BYTES).contains(&length).then_some((length, u32::from_le_bytes([e, f, g, h])))
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

/// How many segments there are; an error where one is missing from the middle.
pub(crate) fn count_segments(dir: &Path) -> Result<u32, JournalError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| JournalError::io("list", dir, error))? {
        let name = entry.map_err(|error| JournalError::io("list", dir, error))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")).and_then(|stem| stem.parse::<u32>().ok());
        numbers.extend(number.filter(|number| segment_name(*number).as_str() == name.as_os_str()));
    }
    numbers.sort_unstable();
    for (expected, found) in (0..).zip(&numbers) {
        if expected != *found {
            let place = crate::Place { file: segment_name(expected), offset: 0, index: 0 };
            return Err(JournalError::Damaged { place, what: "the segment is missing".to_owned() });
        }
    }
    Ok(numbers.len() as u32)
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
    pub(crate) fn write(&self, dir: &Path) -> Result<(), JournalError> {
        let (path, temporary) = (Self::path(dir), dir.join("journal.json.new"));
        let written = std::fs::File::create(&temporary).and_then(|mut file| {
            file.write_all(self.text().as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| JournalError::io("write", &temporary, error))?;
        std::fs::rename(&temporary, &path).map_err(|error| JournalError::io("create", &path, error))
    }

    pub(crate) fn read(dir: &Path) -> Result<Self, JournalError> {
        let not = |why: String| JournalError::NotAJournal { dir: dir.to_owned(), why };
        let mut text = String::new();
        // No header of ours is longer than this; something else may be endless.
        let read = std::fs::File::open(Self::path(dir)).and_then(|file| file.take(4096).read_to_string(&mut text));
        read.map_err(|error| not(error.to_string()))?;
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
