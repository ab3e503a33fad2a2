//! `anbiq trace identity`: whom a suspect takes itself for.

use anbiq_trace::identity::{Answered, bank, compare, render_identity};
use serde_json::json;

use super::{Written, read_roles};
use crate::args::{IdentityCompare, TraceIdentity};
use crate::commands::Outcome;
use crate::site::json_lines;
use crate::talk;

pub(super) fn run(args: &TraceIdentity) -> anyhow::Result<Outcome> {
    match args {
        TraceIdentity::Questions => questions(),
        TraceIdentity::Compare(args) => answers(args),
    }
}

fn questions() -> anyhow::Result<Outcome> {
    let line = |question: anbiq_trace::identity::Question| {
        json!({"cluster": question.cluster, "language": question.language, "prompt": question.prompt}).to_string()
    };
    talk::data(&bank().into_iter().map(line).collect::<Vec<_>>().join("\n"))?;
    Ok(Outcome::Fine)
}

fn answers(args: &IdentityCompare) -> anyhow::Result<Outcome> {
    let parts = read_roles(&args.roles)?;
    let mut answered = Answered::new(&args.names);
    for path in &args.answers {
        json_lines(path, "an object with `model`, `prompt` and `output`", |line: Written| {
            answered.add(&line.model, &line.prompt, &line.output);
            Ok(())
        })?;
    }
    let report = compare(&answered, &parts)?;
    talk::report(&report, args.output.json, args.output.out.as_deref(), render_identity)?;
    Ok(Outcome::Fine)
}
