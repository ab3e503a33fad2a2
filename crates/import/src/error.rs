use std::io;
use std::path::PathBuf;

/// Why something could not be imported or read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file of the system failed.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A compressed log ends before its end, or is damaged.
    #[error(
        "`{name}` is damaged or ends early: {reason}\nhint: get the file again, or take what can be read of it with `--partial`"
    )]
    Damaged {
        /// The file's name.
        name: String,
        /// In words, without anything of its content.
        reason: String,
    },
    /// The format of a log could not be told.
    #[error(
        "the format of `{name}` could not be told from its first rows\nhint: name it with `--format`; known are {known}"
    )]
    FormatUnknown {
        /// The file's name.
        name: String,
        /// The formats that there are.
        known: String,
    },
    /// No row of any log could be used.
    #[error("no row of `{name}` tells of an exchange{why}\nhint: `anbiq import --check {name}` says what was found")]
    NoRows {
        /// The first file's name.
        name: String,
        /// The commonest fault, in words.
        why: String,
    },
    /// A log holds sums, not exchanges.
    #[error(
        "`{name}` holds sums over time, not exchanges: watch cannot read it\nhint: `anbiq import --check {name}` adds them up; for watch, take a log of single requests"
    )]
    Aggregates {
        /// The file's name.
        name: String,
    },
    /// A column mapping makes no sense.
    #[error("the mapping is not usable: {reason}")]
    Mapping {
        /// In words.
        reason: String,
    },
    /// A field was named that is none.
    #[error("`{name}` is no field\nhint: fields are {known}")]
    FieldUnknown {
        /// As it was named.
        name: String,
        /// The fields that there are.
        known: String,
    },
    /// The folder of the result is there already.
    #[error("`{}` is there already\nhint: name another folder, or remove that one", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A folder holds no finished import.
    #[error("`{}` holds no finished import: {reason}", path.display())]
    NotImported {
        /// The folder.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// The rows of an import are not those that its manifest speaks of.
    #[error("the rows of `{}` are not as they were written: {reason}\nhint: import the logs again", path.display())]
    Changed {
        /// The folder.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// Imports under several keys cannot be compared.
    #[error(
        "`{}` was imported under another key than the first\nhint: hashes and sketches of one key only can be compared; import both with the same `--key`",
        path.display()
    )]
    KeysDiffer {
        /// The second folder.
        path: PathBuf,
    },
    /// More files have to be read side by side than is allowed.
    #[error(
        "{files} files would have to be read side by side, at most {most}\nhint: join the files of one table into one, or import day by day"
    )]
    TooManyFiles {
        /// How many.
        files: usize,
        /// How many may.
        most: usize,
    },
}

impl ImportError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "import_io",
            Self::Damaged { .. } => "import_source_damaged",
            Self::FormatUnknown { .. } => "import_format_unknown",
            Self::NoRows { .. } => "import_no_rows",
            Self::Aggregates { .. } => "import_aggregates_only",
            Self::Mapping { .. } => "import_mapping_invalid",
            Self::FieldUnknown { .. } => "import_field_unknown",
            Self::Exists { .. } => "import_exists",
            Self::NotImported { .. } => "import_not_found",
            Self::Changed { .. } => "import_changed",
            Self::KeysDiffer { .. } => "import_keys_differ",
            Self::TooManyFiles { .. } => "import_too_many_files",
        }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
