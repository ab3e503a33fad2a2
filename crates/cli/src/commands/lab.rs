//! `anbiq lab`: corpora and teachers for tests and demonstrations.

use anbiq_arena::{Plan, contest};
use anbiq_lab::corpus::{Corpus, Sizes};
use anbiq_lab::teacher::{TeacherConfig, train_teacher};

use anyhow::Context;

use super::Outcome;
use crate::args::Lab;
use crate::talk::{self, Talk};

pub(crate) async fn run(args: Lab, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Lab::Teacher { out, seed, tokens } => {
            let config = TeacherConfig { seed, tokens, ..TeacherConfig::default() };
            let mut step = talk.step("training the teacher", tokens);
            let train = move || {
                let report = train_teacher(&config, &out, &mut |progress| step.reach(progress.tokens));
                step.finish(&out.display().to_string());
                report
            };
            talk::json(&tokio::task::spawn_blocking(train).await??)?;
        }
        Lab::Corpus { out, seed, documents } => {
            let sizes = Sizes { corpus: documents, held_out: documents / 10, tasks: documents / 10 };
            Corpus::new(seed).write_files(&out, sizes)?;
            talk.say(&format!("wrote {documents} documents to `{}`", out.display()));
        }
        Lab::Watch { seed, seeds, quick, large, brief, data, out, json } => {
            let plan = Plan { seed, seeds, quick, large, brief, data };
            let tell = talk;
            let standings = tokio::task::spawn_blocking(move || contest(&plan, &mut |words| tell.say(words))).await??;
            if let Some(out) = out {
                std::fs::write(&out, anbiq_arena::page(&standings))
                    .with_context(|| format!("cannot write `{}`", out.display()))?;
            }
            talk::report(&standings, json, None, anbiq_arena::render_text)?;
        }
        Lab::Unpack { out } => {
            anbiq_lab::teacher::write_teacher(&out)?;
            talk.say(&format!("wrote the embedded teacher to `{}`", out.display()));
        }
    }
    Ok(Outcome::Fine)
}
