//! `anbiq trace plan` and `anbiq trace power`: what will be tested, and what it can show, before any model is asked.

use std::fmt::Write as _;
use std::path::Path;

use anbiq_domain::{Clock, SystemClock, TwinMode};
use anbiq_evidence::signed::Signed;
use anbiq_journal::SigningKey;
use anbiq_trace::plan::{self, ModelRole, Plan, StylePlan, TwinsPlan};
use anbiq_trace::power::{self, Needed};
use anbiq_trace::{Config, Power};
use anyhow::ensure;

use super::asked::{Asked, Named};
use super::{operators, planned, read_answers, say_closed};
use crate::args::{Modes, TracePlan, TracePower};
use crate::commands::Outcome;
use crate::commands::watch::refuse_import;
use crate::site::{text_keys, write_new};
use crate::talk::{self, Talk};

/// Writes and signs a plan. No model is loaded or asked.
pub(super) fn write(args: &TracePlan, talk: Talk) -> anyhow::Result<Outcome> {
    ensure!(
        !args.out.exists(),
        "`{}` is there already\nhint: a plan is never written over; choose another name with `--out`",
        args.out.display()
    );
    let mut plan = Plan {
        format: plan::FORMAT,
        software: plan::SOFTWARE.to_owned(),
        made_at: SystemClock.now(),
        stopping_rule: plan::STOPPING_RULE.to_owned(),
        seeds: plan::SEEDS.to_owned(),
        journal: None,
        models: Vec::new(),
        twins: Vec::new(),
        style: style(args)?,
        wanted: None,
    };
    if let (Some(suspect), Some(teacher), Some(journal)) = (&args.suspect, &args.teacher, &args.journal) {
        twins(args, suspect, teacher, journal, &mut plan, talk)?;
    }
    let signer = SigningKey::load_or_create(&args.key)?;
    let signed = Signed::sign(&plan, plan::KIND, &signer)?;
    write_new(&args.out, &(serde_json::to_string_pretty(&signed)? + "\n"))?;
    talk::data(&describe(&plan, &signed))?;
    talk.say(&format!(
        "hint: hand the digest to somebody else before `anbiq trace run {}`: a signature does not say when",
        args.out.display()
    ));
    Ok(Outcome::Fine)
}

fn style(args: &TracePlan) -> anyhow::Result<Option<StylePlan>> {
    let (Some(roles), Some(family)) = (&args.roles, &args.family) else { return Ok(None) };
    let parts = super::read_roles(roles)?;
    let files = planned::answers(&args.answers)?;
    // What cannot be read now cannot be read later. Nothing is compared.
    read_answers(&args.answers)?;
    Ok(Some(StylePlan::of(files, parts, family)))
}

fn twins(
    args: &TracePlan,
    suspect: &str,
    teacher: &str,
    journal: &Path,
    plan: &mut Plan,
    talk: Talk,
) -> anyhow::Result<()> {
    refuse_import(journal)?;
    let named = |place: &str, name| Named::new(place, name, &args.remote);
    let (suspect, teacher) = (named(suspect, args.name.as_deref()), named(teacher, None));
    let controls: Vec<Named> = args.control.iter().map(|control| named(control, None)).collect();
    let controls = || controls.iter().map(|control| (ModelRole::Control, control));
    let models = || [(ModelRole::Suspect, &suspect), (ModelRole::Teacher, &teacher)].into_iter().chain(controls());
    let asking = Asked::of(&args.asking);
    let config = asking.config(&models().map(|(_, model)| model).collect::<Vec<_>>())?;
    for (role, model) in models() {
        plan.models.push(model.planned(role)?);
    }
    let names: Vec<String> = controls().map(|(_, control)| control.name.clone()).collect();
    // The journal may grow meanwhile: what is collected ends where this did.
    let state = planned::journal(journal, u64::MAX)?;
    let keys = args.secrets.as_deref().map(text_keys);
    let modes = match args.mode {
        Modes::Together => vec![TwinMode::Together],
        Modes::Deferred => vec![TwinMode::Deferred],
        Modes::Both => vec![TwinMode::Together, TwinMode::Deferred],
    };
    let mut settings = Config { tests: modes.len(), ..config };
    for mode in modes {
        let operators = operators(args.operators.as_deref(), journal, mode, keys.as_ref())?;
        let (collected, closed) = super::collect_by(journal, operators, mode, &asking.by, keys.as_ref(), state.size)?;
        say_closed(closed, keys.is_some(), talk);
        settings.alternative =
            super::alternative(&args.calibration, &collected, &suspect.name, &teacher.name, &names, &settings)?;
        plan.twins.push(TwinsPlan::of(&collected, &suspect.name, &teacher.name, &names, &settings)?);
    }
    plan.journal = Some(state);
    if let (Some(share), Some(first)) = (args.effect, plan.twins.first()) {
        plan.wanted = Some(needed(share, first.power.level)?);
    }
    Ok(())
}

fn needed(share: f64, level: f64) -> anyhow::Result<Needed> {
    ensure!(
        share > 0.5 && share <= 1.0,
        "an effect is a share above 0.5, at which the suspect prefers neither, and at most 1; got {share}"
    );
    Ok(power::needed(share, level))
}

fn describe(plan: &Plan, signed: &Signed) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = lines(&mut text, plan, signed);
    text
}

fn lines(text: &mut String, plan: &Plan, signed: &Signed) -> std::fmt::Result {
    writeln!(text, "plan       {}", signed.digest())?;
    writeln!(text, "signed by  {}, {}", signed.signer(), plan.made_at)?;
    for model in &plan.models {
        let role = match model.role {
            ModelRole::Suspect => "suspect",
            ModelRole::Teacher => "teacher",
            ModelRole::Control => "control",
        };
        let known = match (&model.asked_as, model.files.len()) {
            (Some(asked_as), _) => format!("asked as `{asked_as}`; that it stays the same model is not shown"),
            (None, 1) => "1 file".to_owned(),
            (None, files) => format!("{files} files"),
        };
        writeln!(text, "{role:<10} {} at {}, {known}", model.name, model.place)?;
    }
    if let Some(journal) = &plan.journal {
        writeln!(text, "journal    {}, {} entries, root {}", journal.id, journal.size, journal.root)?;
    }
    for test in &plan.twins {
        let (protocol, power) = (&test.protocol, &test.power);
        let mode = protocol.mode.as_str();
        writeln!(text, "twins      {} pairs ({mode}), {} left out", protocol.pairs, test.left_out.total())?;
        writeln!(text, "power      {}", shows(power))?;
    }
    if let Some(wanted) = &plan.wanted {
        writeln!(text, "wanted     {}", wants(wanted))?;
        let pairs = plan.twins.iter().map(|test| test.protocol.pairs as u64).max().unwrap_or(0);
        if pairs < wanted.at_90 {
            writeln!(text, "           there are {pairs}: an effect of this size may well not be shown")?;
        }
    }
    if let Some(style) = &plan.style {
        writeln!(text, "style      {} models against {}, at most moderate", style.parts.len(), style.accused)?;
    }
    Ok(())
}

fn shows(power: &Power) -> String {
    match (power.win_rate_at_50, power.win_rate_at_90) {
        (Some(half), Some(most)) => {
            format!("they establish a win rate of about {half:.3} with 50 % probability, of {most:.3} with 90 %")
        }
        _ => "they are too few to establish anything".to_owned(),
    }
}

fn wants(needed: &Needed) -> String {
    let Needed { win_rate, at_50, at_90 } = needed;
    format!("a win rate of {win_rate} needs about {at_50} pairs with 50 % probability, {at_90} with 90 %")
}

/// How many pairs show which effect.
pub(super) fn power(args: &TracePower) -> anyhow::Result<Outcome> {
    ensure!(args.level > 0.0 && args.level < 0.5, "a level is a probability above 0 and below 0.5, got {}", args.level);
    let mut power = power::of(args.pairs.unwrap_or(0), args.level, args.hypotheses);
    if let Some(share) = args.effect {
        power.needed = vec![needed(share, power.level)?];
    }
    if args.json {
        talk::json(&power)?;
        return Ok(Outcome::Fine);
    }
    let mut text = format!("pairs needed for p below {:.1e}\n", power.level);
    text += "win rate   with 50 %   with 90 %\n";
    for Needed { win_rate, at_50, at_90 } in &power.needed {
        let _ = writeln!(text, "{win_rate:<8} {at_50:>11} {at_90:>11}");
    }
    text += "Differences have heavier tails than these numbers assume, which costs up to half as many pairs again.\n";
    if let Some(pairs) = args.pairs {
        let _ = writeln!(text, "{pairs} pairs: {}", shows(&power));
    }
    talk::data(&text)?;
    Ok(Outcome::Fine)
}
