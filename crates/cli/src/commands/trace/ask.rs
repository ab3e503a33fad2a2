//! `anbiq trace ask`: what a model answers, in the form that tests of given answers read.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anbiq_domain::{Prompt, TwinMode};
use anbiq_model::{Fault, Model, Request, Sampling, collect};
use anyhow::{Context, ensure};
use futures::{StreamExt, stream};
use serde::Deserialize;

use super::asked::{How, Named};
use super::{Written, say_closed};
use crate::args::TraceAsk;
use crate::commands::Outcome;
use crate::commands::watch::refuse_import;
use crate::site::{json_lines, text_keys};
use crate::talk::{self, Talk};

/// Questions that are asked at the same time.
const AT_ONCE: usize = 8;
/// Attempts at a question.
const ATTEMPTS: u32 = 4;

#[derive(Debug, Deserialize)]
struct Line {
    prompt: String,
}

pub(super) async fn run(args: &TraceAsk, talk: Talk) -> anyhow::Result<Outcome> {
    let named = Named::new(&args.model_at, args.name.as_deref(), &args.remote);
    let answered = answered(&args.out, &named.name)?;
    let mut asked = prompts(args, talk)?;
    let all = asked.len();
    asked.retain(|prompt| !answered.contains(prompt.last_text()));
    ensure!(
        all > 0,
        "there is nothing to ask\nhint: give questions by `--prompts`, or a journal with twins by `--journal`"
    );
    let model = named.open(How::Likelihood)?;
    let mut out = open(&args.out)?;
    let (mut refused, total) = (0, asked.len());
    let mut step = talk.step(&format!("asking `{}`", named.name), 0);
    let mut answers = stream::iter(asked.iter().map(|prompt| answer(model.as_ref(), prompt, args))).buffered(AT_ONCE);
    for (number, prompt) in asked.iter().enumerate() {
        match answers.next().await.transpose()?.flatten() {
            Some(output) => {
                let line = Written { model: named.name.clone(), prompt: prompt.last_text().to_owned(), output };
                writeln!(out, "{}", serde_json::to_string(&line)?)
                    .with_context(|| format!("cannot write `{}`", args.out.display()))?;
            }
            None => refused += 1,
        }
        step.reach_of(number as u64 + 1, total as u64);
    }
    out.sync_all().with_context(|| format!("cannot write `{}`", args.out.display()))?;
    step.finish("asked");
    let there = all - total;
    talk::data(&format!("{} answers, {refused} questions refused, {there} were there already\n", total - refused))?;
    Ok(Outcome::Fine)
}

/// The answer; `None` where the model refuses the question.
async fn answer(model: &dyn Model, prompt: &Prompt, args: &TraceAsk) -> anyhow::Result<Option<String>> {
    let sampling = Sampling { temperature: args.temperature, ..Sampling::default() };
    let request = Request { sampling, whole: true, ..Request::new(prompt.clone(), args.max_tokens) };
    let mut attempt = 1;
    loop {
        let answered = match model.generate(request.clone()).await {
            Ok(generation) => collect(generation, 1).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok((answers, _)) => return Ok(answers.into_iter().next().map(|answer| answer.text)),
            Err(error) if error.fault == Fault::Request => {
                tracing::warn!(code = error.code, %error, "a question was refused");
                return Ok(None);
            }
            Err(error) if error.retryable() && attempt < ATTEMPTS => {
                tokio::time::sleep(std::time::Duration::from_millis(500 << attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error).with_context(|| format!("`{}` does not answer", model.name())),
        }
    }
}

/// What is to be asked, each once.
fn prompts(args: &TraceAsk, talk: Talk) -> anyhow::Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for path in &args.prompts {
        json_lines(path, "an object with `prompt`", |line: Line| {
            prompts.push(Prompt::user(line.prompt));
            Ok(())
        })?;
    }
    if let Some(journal) = &args.journal {
        refuse_import(journal)?;
        let keys = args.secrets.as_deref().map(text_keys);
        for mode in [TwinMode::Together, TwinMode::Deferred] {
            let (collected, closed) = super::collect(journal, Vec::new(), mode, keys.as_ref())?;
            say_closed(closed, keys.is_some(), talk);
            prompts.extend(collected.items.into_iter().map(|item| item.prompt));
        }
    }
    let mut seen = HashSet::new();
    prompts.retain(|prompt| seen.insert(prompt.last_text().to_owned()));
    Ok(prompts)
}

/// What the file has of `model` already.
fn answered(path: &Path, model: &str) -> anyhow::Result<HashSet<String>> {
    let mut answered = HashSet::new();
    if path.exists() {
        json_lines(path, "an object with `model`, `prompt` and `output`", |line: Written| {
            if line.model == model {
                answered.insert(line.prompt);
            }
            Ok(())
        })?;
    }
    Ok(answered)
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.with_context(|| format!("cannot write `{}`", path.display()))
}
