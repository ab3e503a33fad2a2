//! `anbiq distill`: from a recipe to a student.

use std::sync::{Arc, Mutex, PoisonError};

use anbiq_distill::{Asking, Conversion, Converted, Forecast, Progress, Recipe, Report, Signal, Surroundings, Tier};
use anbiq_domain::{Clock, SystemClock};
use anbiq_upstream::Scores;
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
        Distill::Convert { data, to, from, out, tokenizer, every_turn, json } => {
            let conversion = Conversion { from, to, tokenizer, every_turn };
            let place = out.clone();
            let converted =
                tokio::task::spawn_blocking(move || anbiq_distill::convert(&data, &out, &conversion)).await??;
            if json {
                talk::json(&converted)?;
            } else {
                let Converted { read, written, unanswered, unfit } = converted;
                talk.say(&format!(
                    "{read} rows read, {written} written as {to} to {}; left out: {unanswered} without an answer, {unfit} answers \
                     that the form cannot hold",
                    place.display()
                ));
            }
        }
        Distill::Curate { recipe, measure: true, seeds, json } => {
            let (recipe, around) = (Recipe::load(&recipe)?, surroundings(Arc::new(SystemClock), talk));
            let measured = move || anbiq_distill::worths(&recipe, seeds, around.progress.as_ref());
            let worths = tokio::task::spawn_blocking(measured).await??.context(NOTHING_TO_CURATE)?;
            if json { talk::json(&worths)? } else { talk::data(&anbiq_distill::render_worths(&worths))? }
        }
        Distill::Curate { recipe, measure: false, json, .. } => {
            let recipe = Recipe::load(&recipe)?;
            let effects = tokio::task::spawn_blocking(move || anbiq_distill::effects(&recipe)).await??;
            let effects = effects.context(NOTHING_TO_CURATE)?;
            if json { talk::json(&effects)? } else { talk::data(&anbiq_distill::render_effects(&effects))? }
        }
        Distill::Probe { recipe, json } => {
            let (recipe, around) = (Recipe::load(&recipe)?, surroundings(Arc::new(SystemClock), talk));
            let signal = anbiq_distill::probe(&recipe, &around).await?.context(NOBODY)?;
            if json { talk::json(&signal)? } else { talk::data(&tell(&signal))? }
        }
        Distill::Capture { recipe, pilot, json } => {
            let (recipe, around) = (Recipe::load(&recipe)?, surroundings(Arc::new(SystemClock), talk));
            let (asking, forecast) = match pilot {
                Some(share) => anbiq_distill::pilot(&recipe, &around, share).await?,
                None => anbiq_distill::capture(&recipe, &around).await?.map(|asking| (asking, None)),
            }
            .context(NOBODY)?;
            match (json, &forecast) {
                (true, None) if pilot.is_none() => talk::json(&asking)?,
                (true, _) => talk::json(&serde_json::json!({ "asking": asking, "forecast": forecast }))?,
                (false, _) => talk::data(&describe(&asking, forecast.as_ref()))?,
            }
        }
    }
    Ok(Outcome::Fine)
}

const NOTHING_TO_CURATE: &str = "the recipe has no `[capture]`: there is nothing to curate";

const NOBODY: &str = "the recipe has no `[capture.ask]`: there is nobody to ask";

/// What a teacher can tell, in a few lines.
fn tell(signal: &Signal) -> String {
    let can = &signal.can;
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let tokens = match can.logprobs {
        None => "none".to_owned(),
        Some(0) => "of each token that it wrote".to_owned(),
        Some(most) => {
            format!("of the {most} likeliest tokens{}", if can.token_bytes { ", with their bytes" } else { "" })
        }
    };
    let given = match can.scoring {
        None => "none",
        Some(Scores::Echo) => "by `echo`",
        Some(Scores::PromptLogprobs) => "by `prompt_logprobs`",
    };
    let seeds = can.seeds.map_or("cannot be told: all answers were the same".to_owned(), yes);
    let tier = match signal.tier {
        Tier::Text => "its answers",
        Tier::Chosen => "its answers, with the probability of each token",
        Tier::Top => "its answers, with the likeliest tokens at each place",
        Tier::Given => "its answers, with the likeliest tokens at each place; of given text too",
    };
    let mut text = format!(
        "log-probabilities  {tokens}\n  of given text    {given}\ntoken numbers      {}\nseveral answers    {}\nseeds \
         are kept     {seeds}\ntokens counted     {}, in streams {}\nIdempotency-Key    {}\nthe teacher tells  {tier}",
        yes(can.token_ids),
        yes(can.several),
        yes(can.usage),
        yes(can.usage_in_streams),
        yes(can.replays),
    );
    for lost in &signal.lost {
        text.push_str(&format!("\n  lost             {lost}"));
    }
    text.push_str(&format!("\nasked with {} requests", can.requests));
    text
}

fn describe(asking: &Asking, forecast: Option<&Forecast>) -> String {
    let Asking { requests, reused, answered, replayed, refused, retries, cost, lost, lost_tries, .. } = asking;
    let mut text = format!(
        "{requests} answers wanted: {reused} were there, {answered} came, {refused} were refused ({retries} further \
         tries)\n${cost} in all"
    );
    if *lost_tries > 0 {
        text.push_str(&format!(", and at most ${lost} for {lost_tries} that never arrived"));
    }
    if *replayed > 0 {
        text.push_str(&format!("; {replayed} were given again without a charge"));
    }
    if let Some(why) = &asking.stopped {
        text.push_str(&format!("\nstopped before the end: {why}"));
    }
    if let Some(forecast) = forecast {
        text.push_str(&format!("\n{}", anbiq_distill::render_forecast(forecast)));
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

    fn learnt(&self, tokens: u64, loss: f64) {
        self.with(|step| {
            if let Some(step) = step {
                step.learn(tokens, loss);
            }
        });
    }

    fn note(&self, text: &str) {
        text.lines().for_each(|line| self.talk.say(format!("  {line}").trim_end()));
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
