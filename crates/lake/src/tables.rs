//! What questions are asked about: files of one set of columns, and the views over them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anbiq_domain::Imported;
use anbiq_journal::{Reader, sealed_schema};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::FileMetaData;
use datafusion::parquet::file::reader::{FileReader as _, SerializedFileReader};
use datafusion::parquet::schema::types::SchemaDescriptor;
use serde::Serialize;
use tempfile::TempDir;

use crate::{LakeError, imported};

/// The column that says where a row is from; a journal's own files have none.
pub(crate) const SOURCE: &str = "source";

/// Journals and imported logs, as files that an engine reads.
///
/// What is written for this (entries that are not sealed yet, imported rows) lies in a folder of its own until the sources
/// are dropped. The sealed files are read where they lie, and none is read whose bytes are not those that the journal signed.
#[derive(Debug)]
pub struct Sources {
    scratch: TempDir,
    pub(crate) files: Vec<PathBuf>,
    /// The journals, in the order in which they were named.
    pub journals: Vec<JournalSource>,
    /// The imports, in the order in which they were named.
    pub imported: Vec<ImportedSource>,
    /// What whoever reads an answer has to know of where it comes from.
    pub notes: Vec<String>,
}

/// How far a journal is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalSource {
    /// Its folder, or the one sealed file.
    pub path: PathBuf,
    /// Its id.
    pub journal: String,
    /// The first entry that is read.
    pub from: u64,
    /// The entry after the last one that is read from sealed files.
    pub sealed_to: u64,
    /// The entry after the last one that is read.
    pub to: u64,
}

/// An import that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedSource {
    /// Its folder.
    pub path: PathBuf,
    /// Its rows.
    pub rows: u64,
}

impl Sources {
    /// None yet. What has to be written goes to a new folder in `scratch`, or in the system's folder for such things.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(scratch: Option<&Path>) -> Result<Self, LakeError> {
        let parent = scratch.map_or_else(std::env::temp_dir, Path::to_owned);
        let made = tempfile::Builder::new().prefix("anbiq-lake-").tempdir_in(&parent);
        let scratch = made.map_err(LakeError::io("make a folder in", parent))?;
        Ok(Self { scratch, files: Vec::new(), journals: Vec::new(), imported: Vec::new(), notes: Vec::new() })
    }

    /// Adds the journal at `path`: a folder with all that it holds at this moment, or one sealed file by itself.
    ///
    /// # Errors
    /// It is no journal, it is damaged, or it cannot be read.
    pub fn journal(&mut self, path: &Path) -> Result<(), LakeError> {
        if path.is_file() {
            return self.sealed_file(path);
        }
        let reader = Reader::open(path)?;
        let snapshot =
            reader.snapshot(&self.scratch.path().join(format!("journal-{}.parquet", self.journals.len())))?;
        self.note_missing_columns(&snapshot.sealed)?;
        if let Some(torn) = &snapshot.torn {
            self.notes.push(format!(
                "`{}` ends in {} bytes that are no entry: a write that was not finished",
                path.display(),
                torn.bytes
            ));
        }
        self.files.extend(snapshot.sealed);
        self.files.extend(snapshot.tail);
        self.journals.push(JournalSource {
            path: path.to_owned(),
            journal: reader.id().to_string(),
            from: snapshot.from,
            sealed_to: snapshot.sealed_to,
            to: snapshot.to,
        });
        Ok(())
    }

    /// Adds the rows of the import at `path`, which are written to a file in the columns of a journal.
    ///
    /// # Errors
    /// The rows cannot be read, or the file cannot be written.
    pub fn imported<E>(
        &mut self,
        path: &Path,
        rows: impl IntoIterator<Item = Result<Imported, E>>,
    ) -> Result<(), LakeError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let file = self.scratch.path().join(format!("imported-{}.parquet", self.imported.len()));
        let rows = imported::write(&file, &schema()?, rows)?;
        self.files.push(file);
        self.imported.push(ImportedSource { path: path.to_owned(), rows });
        Ok(())
    }

    /// Is there nothing to ask about?
    pub const fn is_empty(&self) -> bool {
        self.journals.is_empty() && self.imported.is_empty()
    }

    /// A table has at least one file, if one without rows.
    pub(crate) fn fill(&mut self) -> Result<(), LakeError> {
        if self.files.is_empty() {
            let file = self.scratch.path().join("nothing.parquet");
            imported::write(&file, &schema()?, std::iter::empty::<Result<Imported, std::io::Error>>())?;
            self.files.push(file);
        }
        Ok(())
    }

    /// Where what was written lies, and where an engine may put what does not fit its memory.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn sealed_file(&mut self, path: &Path) -> Result<(), LakeError> {
        let not_sealed = |reason: String| LakeError::NotSealed { path: path.to_owned(), reason };
        let metadata = metadata(path).map_err(|error| not_sealed(error.to_string()))?;
        let said = |key: &str| -> Option<String> {
            let pairs = metadata.key_value_metadata()?;
            pairs.iter().find(|pair| pair.key == key)?.value.clone()
        };
        let number = |key: &str| said(key).and_then(|text| text.parse::<u64>().ok());
        let (Some(journal), Some(from), Some(count)) =
            (said("anbiq.journal"), number("anbiq.first"), number("anbiq.count"))
        else {
            return Err(not_sealed("it does not say of which journal it is".to_owned()));
        };
        let path = std::path::absolute(path).map_err(LakeError::io("find", path))?;
        self.note_missing_columns(std::slice::from_ref(&path))?;
        self.notes.push(format!(
            "`{}` was read as it is: `anbiq journal verify` says whether it is as it was signed",
            path.display()
        ));
        self.files.push(path.clone());
        self.journals.push(JournalSource { path, journal, from, sealed_to: from + count, to: from + count });
        Ok(())
    }

    /// Files that an earlier version sealed lack what was added since; there it reads as nothing.
    fn note_missing_columns(&mut self, files: &[PathBuf]) -> Result<(), LakeError> {
        let wanted = schema()?;
        let mut missing = std::collections::BTreeMap::<String, usize>::new();
        for file in files {
            let metadata = metadata(file).map_err(|error| engine(&error))?;
            let columns = metadata.schema_descr();
            let has = |name: &str| columns.columns().iter().any(|column| column.name() == name);
            for field in wanted.fields().iter().filter(|field| field.name() != SOURCE && !has(field.name())) {
                *missing.entry(field.name().clone()).or_default() += 1;
            }
        }
        for (column, count) in missing {
            self.notes.push(format!(
                "{count} of {} sealed files were written before there was a column `{column}`, which is empty for them",
                files.len()
            ));
        }
        Ok(())
    }
}

/// The columns of `entries`: a journal's, and where a row is from. All of them may be empty, since older files and imported logs
/// have not all of them.
pub(crate) fn schema() -> Result<SchemaRef, LakeError> {
    let columns = sealed_schema().map(SchemaDescriptor::new).map_err(|error| engine(&error))?;
    let schema = parquet_to_arrow_schema(&columns, None).map_err(|error| engine(&error))?;
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let fields: Vec<Field> = fields.chain([Field::new(SOURCE, DataType::Utf8, true)]).collect();
    Ok(Arc::new(Schema::new(fields)))
}

fn metadata(path: &Path) -> Result<FileMetaData, ParquetError> {
    let file = File::open(path)?;
    Ok(SerializedFileReader::new(file)?.metadata().file_metadata().clone())
}

pub(crate) fn engine(error: &impl std::fmt::Display) -> LakeError {
    LakeError::Engine { reason: error.to_string() }
}
