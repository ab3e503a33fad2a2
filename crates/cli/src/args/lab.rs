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
    /// Compare `watch` with other detectors on composed traffic: who finds the operator, and whom else do they accuse?
    Watch {
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many seeds.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// Fewer and smaller worlds.
        #[arg(long)]
        quick: bool,
        /// Also a campaign over 25,000 accounts; takes minutes and 2 GB of memory.
        #[arg(long)]
        large: bool,
        /// Neither looks at several moments nor runs without each kind of evidence.
        #[arg(long)]
        brief: bool,
        /// Folder with real arrival times and prompts: `watch/conv_2023.csv`, `watch/code_2023.csv`, `watch/prompts_dev.jsonl`.
        #[arg(long, value_name = "DIR", env = "ANBIQ_DATA")]
        data: Option<PathBuf>,
        /// Write the standings as a page that opens offline.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}
