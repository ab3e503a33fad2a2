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
    /// Find out by asking what the teacher can tell, and what of it a capture would use; costs some twenty short answers.
    Probe {
        /// The recipe.
        recipe: PathBuf,
        /// What was found, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask the teacher only; the answers go to the recipe's capture file.
    Capture {
        /// The recipe.
        recipe: PathBuf,
        /// Ask only for a random share of the answers (0.01 where none is given), but for 200 at least, and say what all of them will cost.
        #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "0.01", value_parser = share)]
        pilot: Option<f64>,
        /// The report as JSON.
        #[arg(long)]
        json: bool,
    },
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a share lies above 0 and is at most 1".to_owned())
}
