use std::io;
use std::path::PathBuf;

use anbiq_journal::JournalError;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// The program was built without the engine.
    #[error(
        "this program was built without {engine}\nhint: `cargo build --release --package anbiq-cli --features {feature}` builds one that has it"
    )]
    NotBuilt {
        /// What is missing.
        engine: &'static str,
        /// What to build it with.
        feature: &'static str,
    },
    /// No query has this name.
    #[error("there is no query `{name}`\nhint: {known}")]
    QueryUnknown {
        /// As it was named.
        name: String,
        /// Those that there are, or the one that was meant.
        known: String,
    },
    /// A query has no such parameter.
    #[error("the query `{query}` has no parameter `{name}`\nhint: its parameters are {known}")]
    ParameterUnknown {
        /// Which query.
        query: &'static str,
        /// As it was named.
        name: String,
        /// Those that it has.
        known: String,
    },
    /// A parameter's value is not of its kind.
    #[error("`{value}` is no value for `{name}`, which is {kind}")]
    ParameterInvalid {
        /// Which parameter.
        name: String,
        /// As it was given.
        value: String,
        /// What it must be.
        kind: &'static str,
    },
    /// There is nothing to ask about.
    #[error("there is nothing to ask about\nhint: name a journal with `--journal`, or an import with `--imported`")]
    Empty,
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file is no sealed file of a journal.
    #[error(
        "`{}` is no sealed file of a journal: {reason}\nhint: name a journal's folder, or one of the Parquet files that `anbiq journal seal` makes",
        path.display()
    )]
    NotSealed {
        /// Which file.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// The rows of an import cannot be read.
    #[error("the imported rows cannot be read")]
    Imported(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    /// The SQL is not what the engine understands, or does more than read.
    #[error("the question cannot be asked: {reason}\nhint: `anbiq lake list` shows the tables and their columns")]
    Sql {
        /// What the engine says.
        reason: String,
    },
    /// The question takes more memory than it may, even with what was put on the disk.
    #[error(
        "the question takes more than the {limit} MiB that it may: {reason}\nhint: give it more with `--memory`, or ask about less with `--param since=` and `--param until=`"
    )]
    Memory {
        /// What it may take, in MiB.
        limit: u64,
        /// What the engine says.
        reason: String,
    },
    /// The answer did not come in time.
    #[error("there was no answer within {seconds} s\nhint: give it longer with `--timeout`")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// What should be the address of a scheduler is none.
    #[error("`{url}` is no address of a scheduler\nhint: one looks like `df://127.0.0.1:50050`")]
    ClusterUrl {
        /// As it was given.
        url: String,
    },
    /// Nobody answers at a scheduler's address.
    #[error(
        "no scheduler can be reached at `{url}`: {reason}\nhint: `anbiq lake scheduler` starts one, and `anbiq lake executor` those who work for it"
    )]
    Unreachable {
        /// The scheduler's address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The engine failed.
    #[error("the engine failed: {reason}")]
    Engine {
        /// What it says.
        reason: String,
    },
}

impl LakeError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotBuilt { .. } => "lake_not_built",
            Self::QueryUnknown { .. } => "lake_query_unknown",
            Self::ParameterUnknown { .. } => "lake_parameter_unknown",
            Self::ParameterInvalid { .. } => "lake_parameter_invalid",
            Self::Empty => "lake_empty",
            Self::Journal(error) => error.code(),
            Self::NotSealed { .. } => "lake_not_sealed",
            Self::Imported(_) => "lake_imported",
            Self::Io { .. } => "lake_io",
            Self::Sql { .. } => "lake_sql",
            Self::Memory { .. } => "lake_memory",
            Self::TimedOut { .. } => "lake_timed_out",
            Self::ClusterUrl { .. } => "lake_cluster_url",
            Self::Unreachable { .. } => "lake_scheduler_unreachable",
            Self::Engine { .. } => "lake_engine",
        }
    }

    /// The engine, which this program was built without.
    pub const fn not_built() -> Self {
        Self::NotBuilt { engine: "the engine for questions in SQL", feature: "lake" }
    }

    /// The cluster, which this program was built without.
    pub const fn no_cluster() -> Self {
        Self::NotBuilt { engine: "the cluster", feature: "cluster" }
    }

    #[cfg(feature = "local")]
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
