//! A journal as tables: its sealed files, and what is not sealed yet in a file of the same columns.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::file::writer::SerializedFileWriter;

use crate::columns::{self, Row};
use crate::sealed::{GROUP_BYTES, GROUP_ROWS, SealedFile, checked, io_error};
use crate::{Bookmark, JournalError, Reader, Torn};

/// Everything that a journal held at one moment, as Parquet files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its sealed files, oldest first; the bytes of each were compared with what the signed list says of them.
    pub sealed: Vec<PathBuf>,
    /// Index of the first record: those before it were deleted.
    pub from: u64,
    /// The index after the last sealed record.
    pub sealed_to: u64,
    /// The index after the last record.
    pub to: u64,
    /// The records from `sealed_to` on, where there are any. Nobody signed this file.
    pub tail: Option<PathBuf>,
    /// The torn end of the journal, if it has one: its bytes are in no file.
    pub torn: Option<Torn>,
}

impl Reader {
    /// The journal as it is now. What is not sealed is written to the file `tail`, in the columns of a sealed one, some
    /// thousand records in memory at a time; the file must be absent.
    ///
    /// # Errors
    /// The journal is damaged, a sealed file is not as it was signed, or `tail` cannot be written.
    pub fn snapshot(&self, tail: &Path) -> Result<Snapshot, JournalError> {
        let list = self.list()?;
        for file in &list.files {
            checked(self.disk(), self.dir(), file)?;
        }
        let from = list.gone().size();
        let sealed_to = list.files.last().map_or(from, SealedFile::end);
        let mut snapshot = Snapshot {
            sealed: list.files.iter().map(|file| self.dir().join(file.name())).collect(),
            from,
            sealed_to,
            to: sealed_to,
            tail: None,
            torn: None,
        };
        let unsealed = Bookmark { index: sealed_to, segment: list.next_segment(), offset: 0 };
        self.write_from(unsealed, tail, &mut snapshot)?;
        Ok(snapshot)
    }

    fn write_from(&self, bookmark: Bookmark, path: &Path, snapshot: &mut Snapshot) -> Result<(), JournalError> {
        let failed = |error| JournalError::io("write", path, io_error(error));
        let mut entries = self.entries_from(bookmark)?;
        let mut next = entries.next().transpose()?;
        snapshot.torn = entries.torn().cloned();
        if next.is_none() {
            return Ok(());
        }
        let file = File::create_new(path).map_err(|error| JournalError::io("create", path, error))?;
        let (schema, properties) = (columns::schema().map_err(failed)?, columns::properties().map_err(failed)?);
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(failed)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(record) = next {
            snapshot.to = record.index + 1;
            bytes += record.payload.len();
            rows.push(Row { index: record.index, payload: record.payload, entry: record.entry });
            next = entries.next().transpose()?;
            if rows.len() >= GROUP_ROWS || bytes >= GROUP_BYTES || next.is_none() {
                columns::write(writer.next_row_group().map_err(failed)?, &rows).map_err(failed)?;
                (rows, bytes) = (Vec::new(), 0);
            }
        }
        writer.close().map_err(failed)?;
        snapshot.torn = entries.torn().cloned();
        snapshot.tail = Some(path.to_owned());
        Ok(())
    }
}
