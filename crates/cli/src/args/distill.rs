//! From a recipe to a student.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Distill {
    /// Run a recipe from the terms to the student.
    Run {
        /// The recipe.
        recipe: PathBuf,
        /// Only say what it would take: tokens, money, bytes, hours.
        #[arg(long)]
        dry_run: bool,
        /// The report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a student, or another model, in another form: as a file for llama.cpp or as a Hugging Face folder.
    Export {
        /// A Hugging Face folder, or a file *.gguf.
        model: PathBuf,
        /// gguf-f32, gguf-f16 or gguf-q8_0 for llama.cpp; hf-f32, hf-f16 or hf-bf16 for a Hugging Face folder.
        #[arg(long)]
        format: anbiq_distill::Format,
        /// The file or the folder to write.
        #[arg(short, long, value_name = "PATH")]
        out: PathBuf,
    },
    /// Ask the teacher only; the answers go to the recipe's capture file.
    Capture {
        /// The recipe.
        recipe: PathBuf,
        /// The report as JSON.
        #[arg(long)]
        json: bool,
    },
}
