//! What tests and demonstrations are made of.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Train a teacher on the generated corpus.
    Teacher {
        /// Folder of the teacher.
        #[arg(short, long, default_value = "teacher")]
        out: PathBuf,
        /// Fixes corpus and weights.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Training tokens.
        #[arg(long, default_value_t = 12_000_000)]
        tokens: u64,
    },
    /// Write the generated corpus: documents, held-out documents and checkable tasks.
    Corpus {
        /// Folder of the files.
        #[arg(short, long, default_value = "corpus")]
        out: PathBuf,
        /// Fixes every document.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Documents.
        #[arg(long, default_value_t = 10_000)]
        documents: usize,
    },
    /// Write the embedded teacher as a Hugging Face folder.
    Unpack {
        /// Folder of the teacher.
        #[arg(short, long, default_value = "teacher")]
        out: PathBuf,
    },
}
