//! `anbiq distill`: from a recipe to a student.

use std::sync::{Arc, Mutex, PoisonError};

use anbiq_distill::{Asking, Progress, Recipe, Report, Surroundings};
use anbiq_domain::{Clock, SystemClock};
use anyhow::Context;

use super::Outcome;
use crate::args::Distill;
use crate::talk::{self, Step, Talk};

pub(crate) async fn run(args: Distill, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Distill::Run { recipe, dry_run: true, json } => {
            let recipe = Recipe::load(&recipe)?;
            let estimate =
                tokio::task::spawn_blocking(move || anbiq_distill::estimate(&recipe, &Surroundings::default()))
                    .await??;
            if json { talk::json(&estimate)? } else { talk::data(&anbiq_distill::render_estimate(&estimate))? }
        }
        Distill::Run { recipe, dry_run: false, json } => {
            let report = distill(&Recipe::load(&recipe)?, Arc::new(SystemClock), talk).await?;
            if json { talk::json(&report)? } else { talk::data(&anbiq_distill::render_text(&report))? }
        }
        Distill::Export { model, format, out } => {
            let to = out.clone();
            tokio::task::spawn_blocking(move || anbiq_distill::export(&model, format, &to)).await??;
            talk.say(&format!("written as {format}: {}", out.display()));
        }
        Distill::Capture { recipe, json } => {
            let asking = anbiq_distill::capture(&Recipe::load(&recipe)?, &surroundings(Arc::new(SystemClock), talk))
                .await?
                .context("the recipe has no `[capture.ask]`: there is nobody to ask")?;
            if json { talk::json(&asking)? } else { talk::data(&describe(&asking))? }
        }
    }
    Ok(Outcome::Fine)
}

fn describe(asking: &Asking) -> String {
    let Asking { requests, reused, answered, refused, retries, cost, .. } = asking;
    let mut text = format!(
        "{requests} answers wanted: {reused} were there, {answered} came, {refused} were refused ({retries} further \
         tries); {cost} dollars in all"
    );
    if let Some(why) = &asking.stopped {
        text.push_str(&format!("\nstopped before the end: {why}"));
    }
    text
}

/// Runs `recipe`, with a bar for each stage.
pub(crate) async fn distill(recipe: &Recipe, clock: Arc<dyn Clock>, talk: Talk) -> anyhow::Result<Report> {
    Ok(anbiq_distill::run(recipe, &surroundings(clock, talk)).await?)
}

fn surroundings(clock: Arc<dyn Clock>, talk: Talk) -> Surroundings {
    Surroundings { clock, progress: Arc::new(Bars { talk, step: Mutex::new(None) }), ..Surroundings::default() }
}

/// Shows the stages of a run, one after the other.
struct Bars {
    talk: Talk,
    step: Mutex<Option<Step>>,
}

impl Bars {
    fn with(&self, act: impl FnOnce(&mut Option<Step>)) {
        act(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bars {
    fn stage(&self, name: &str, total: Option<u64>) {
        self.with(|step| {
            if let Some(before) = step.replace(self.talk.step(name, total.unwrap_or(0))) {
                before.finish("");
            }
        });
    }

    fn advance(&self, steps: u64) {
        self.with(|step| {
            if let Some(step) = step {
                step.advance(steps);
            }
        });
    }

    fn note(&self, text: &str) {
        self.talk.say(&format!("  {text}"));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.with(|step| {
            if let Some(last) = step.take() {
                last.finish("");
            }
        });
    }
}
