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
    /// Write a capture in a form of other tools, or theirs as a capture: messages, prompt-completion, sharegpt, alpaca, axolotl; distillkit is read only.
    Convert {
        /// What to read: JSON lines, one JSON list, or a Parquet file.
        data: PathBuf,
        /// The form to write: capture, messages, prompt-completion (TRL), sharegpt, alpaca, or axolotl (with log-probabilities).
        #[arg(long, value_name = "FORM")]
        to: anbiq_distill::Form,
        /// The form of what is read; told by its fields where it is not given.
        #[arg(long, value_name = "FORM")]
        from: Option<anbiq_distill::Form>,
        /// The file to write; one that ends in .parquet is a Parquet file.
        #[arg(short, long, value_name = "PATH")]
        out: PathBuf,
        /// A Hugging Face folder: log-probabilities are written for its tokens, and the tokens of a DistillKit capture are read by it.
        #[arg(long, value_name = "DIR")]
        tokenizer: Option<PathBuf>,
        /// Make a row of every answer of a conversation, not of the last one only.
        #[arg(long)]
        every_turn: bool,
        /// How many rows were read, written and left out, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what each filter of the recipe's `[curate]` takes of its capture, in its turn and by itself; trains nothing unless it is to measure.
    Curate {
        /// The recipe.
        recipe: PathBuf,
        /// Measure what each filter is worth: small students learn with it and without it, and are compared on text that was held out.
        #[arg(long)]
        measure: bool,
        /// Students of each kind, with seeds of their own.
        #[arg(long, value_name = "N", default_value_t = 3, requires = "measure", value_parser = clap::value_parser!(u64).range(1..=20))]
        seeds: u64,
        /// The counts and examples, or what was measured, as JSON.
        #[arg(long)]
        json: bool,
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
        /// Ask only for a random share of the answers (0.01 where none is given), but for 200 at least, and for more where the band is wider than 5 %, and say what all of them will cost.
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
