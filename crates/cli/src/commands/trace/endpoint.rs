//! `anbiq trace endpoint`: is a server the model that it is said to be?

use anbiq_domain::Prompt;
use anbiq_trace::Strength;
use anbiq_trace::endpoint::{Comparison, compare, render_endpoint};
use anyhow::ensure;
use serde::Deserialize;

use super::asked::{How, Named};
use crate::args::TraceEndpoint;
use crate::commands::Outcome;
use crate::site::json_lines;
use crate::talk::{self, Talk};

#[derive(Debug, Deserialize)]
struct Line {
    prompt: String,
}

pub(super) async fn run(args: &TraceEndpoint, talk: Talk) -> anyhow::Result<Outcome> {
    let prompts = prompts(args)?;
    let comparison = Comparison {
        answers: args.answers,
        steps: args.steps,
        permutations: args.permutations,
        seed: args.seed,
        ..Comparison::default()
    };
    ensure!(!prompts.is_empty() || comparison.steps > 0, "there is nothing to ask\nhint: give prompts by `--prompts`");
    let opened = |place: &str, name| Named::new(place, name, &args.remote).open(How::Likelihood);
    let endpoint = opened(&args.endpoint, args.name.as_deref())?;
    let reference = opened(&args.reference, None)?;
    let mut step = talk.step("asking both", 0);
    let mut progress = |done, total| step.reach_of(done, total);
    let report = compare(endpoint.as_ref(), reference.as_ref(), &prompts, &comparison, &mut progress).await?;
    step.finish("asked");
    talk::report(&report, args.output.json, args.output.out.as_deref(), render_endpoint)?;
    Ok(Outcome::found(report.differ >= Strength::Strong))
}

fn prompts(args: &TraceEndpoint) -> anyhow::Result<Vec<Prompt>> {
    let Some(path) = &args.prompts else { return Ok(Vec::new()) };
    let mut prompts = Vec::new();
    json_lines(path, "an object with `prompt`", |line: Line| {
        prompts.push(Prompt::user(line.prompt));
        Ok(())
    })?;
    Ok(prompts)
}
