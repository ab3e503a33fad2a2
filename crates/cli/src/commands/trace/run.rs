//! `anbiq trace run`: all tests of a signed plan, and nothing else.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anbiq_domain::{Clock, Digest, SystemClock, Timestamp};
use anbiq_journal::PublicKey;
use anbiq_model::Model;
use anbiq_trace::plan::{Fixed, JournalState, ModelRole, Plan, PlannedModel, StylePlan, TwinsPlan, differs, same};
use anbiq_trace::style::StyleReport;
use anbiq_trace::{Collected, Report, Strength};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::asked::{How, Named, nearness};
use super::{collect_by, file_name, planned, read_answers, say_closed};
use crate::args::TraceRun;
use crate::commands::Outcome;
use crate::site::text_keys;
use crate::talk::{self, Talk};

/// What a test of a plan found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Twins(Box<Report>),
    Style(Box<StyleReport>),
}

pub(super) async fn run(args: &TraceRun, talk: Talk) -> anyhow::Result<Outcome> {
    if let Some(out) = args.out.as_deref().filter(|out| out.exists()) {
        bail!("`{}` is there already\nhint: choose another folder with `--out`, or move it away first", out.display());
    }
    let key = args.key.as_deref().map(str::parse::<PublicKey>).transpose()?;
    let (plan, signed) = planned::read(&args.plan, key.as_ref())?;
    plan.check_version()?;
    let collected = twins(args, &plan, talk)?;
    let models = models(args, &plan)?;
    let answers = plan.style.as_ref().map(check_answers).transpose()?;

    // Nothing was asked so far; from here on it counts as a run.
    let record = RunRecord::of(&args.plan, signed.digest());
    let fixed = Fixed {
        plan: signed.digest(),
        signer: signed.signer().to_string(),
        signature: signed.signature().to_owned(),
        made_at: plan.made_at,
        begun_before: record.begin()?,
    };
    let mut found = Vec::new();
    for (test, collected) in plan.twins.iter().zip(&collected) {
        found.push(Found::Twins(Box::new(trace(test, collected, &models, &fixed, talk).await?)));
    }
    if let (Some(style), Some(answers)) = (&plan.style, &answers) {
        let report = anbiq_trace::style::compare(answers, &style.parts, &style.accused)?;
        found.push(Found::Style(Box::new(StyleReport { plan: Some(fixed), ..report })));
    }
    if let Some(out) = &args.out {
        write(out, &args.plan, &found)?;
    }
    record.append("ended")?;
    if args.json {
        talk::json(&found)?;
    } else {
        talk::data(&found.iter().map(Found::in_words).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(Outcome::found(found.iter().any(Found::established)))
}

/// The pairs of every planned twin test.
fn twins(args: &TraceRun, plan: &Plan, talk: Talk) -> anyhow::Result<Vec<Collected>> {
    let Some(state) = &plan.journal else {
        ensure!(plan.twins.is_empty(), "the plan has twin tests, but no journal");
        return Ok(Vec::new());
    };
    let journal = args.journal.clone().unwrap_or_else(|| PathBuf::from(&state.place));
    check_journal(&journal, state)?;
    let keys = args.secrets.as_deref().map(text_keys);
    let names: Vec<&str> = plan.models.iter().map(|model| model.name.as_str()).collect();
    let [suspect, teacher, controls @ ..] = &names[..] else { bail!("the plan names no suspect and no teacher") };
    let controls: Vec<String> = controls.iter().map(|&name| name.to_owned()).collect();
    let mut all = Vec::new();
    for test in &plan.twins {
        let (operators, mode, by) = (test.protocol.operators.clone(), test.protocol.mode, &test.settings.by);
        let (collected, closed) = collect_by(&journal, operators, mode, by, keys.as_ref(), state.size)?;
        say_closed(closed, keys.is_some(), talk);
        test.check(&collected, suspect, teacher, &controls)?;
        all.push(collected);
    }
    Ok(all)
}

/// A journal may have grown since, but its beginning must be the planned one.
fn check_journal(place: &Path, planned: &JournalState) -> anyhow::Result<()> {
    let now = planned::journal(place, planned.size)?;
    same("journal.id", &planned.id, &now.id)?;
    same("journal.key", &planned.key, &now.key)?;
    if now.first > planned.first {
        return Err(
            differs("journal.first", &planned.first, &format!("{} (older entries were deleted)", now.first)).into()
        );
    }
    if now.size != planned.size {
        return Err(differs("journal.size", &planned.size, &format!("{} (it is shorter)", now.size)).into());
    }
    Ok(same("journal.root", &planned.root, &now.root)?)
}

/// The planned models, in the plan's order, loaded or connected.
fn models(args: &TraceRun, plan: &Plan) -> anyhow::Result<Vec<Arc<dyn Model>>> {
    let mut elsewhere = args.control.iter();
    // All twin tests of a plan ask in one way.
    let first = plan.twins.first().map(|test| &test.settings);
    let how = first.map_or(How::Likelihood, |settings| How::planned(settings.statistic, settings.places));
    let mut open = |planned: &PlannedModel| -> anyhow::Result<Arc<dyn Model>> {
        let now = match planned.role {
            ModelRole::Suspect => args.suspect.as_ref(),
            ModelRole::Teacher => args.teacher.as_ref(),
            ModelRole::Control => elsewhere.next(),
        };
        if planned.asked_as.is_some() {
            ensure!(now.is_none(), "`{}` is planned behind a URL: it cannot be elsewhere", planned.name);
            return Named::at_server(planned)?.open(how);
        }
        let place = now.cloned().unwrap_or_else(|| PathBuf::from(&planned.place));
        check_files(&planned.name, planned, &place)?;
        if planned.role == ModelRole::Suspect && how == How::Nearness {
            let teacher = plan.model(ModelRole::Teacher).map(|teacher| PathBuf::from(&teacher.place));
            let teacher = args.teacher.clone().or(teacher).unwrap_or_default();
            return nearness(&place, &planned.name, &teacher);
        }
        Named::folder(&planned.name, &place).open(how)
    };
    plan.models.iter().map(&mut open).collect()
}

fn check_files(of: &str, planned: &PlannedModel, place: &Path) -> anyhow::Result<()> {
    let found = planned::files_of(place)?;
    let at = |name: &str| format!("{of}/{name}");
    for file in &planned.files {
        match found.iter().find(|other| other.name == file.name) {
            Some(other) => same(&at(&file.name), &file.sha256, &other.sha256)?,
            // A model that is one file may have another name elsewhere.
            None if planned.files.len() == 1 && found.len() == 1 => {
                same(&at(&file.name), &file.sha256, &found[0].sha256)?;
                return Ok(());
            }
            None => return Err(differs(at(&file.name), &file.sha256, &"missing").into()),
        }
    }
    match found.iter().find(|other| planned.files.iter().all(|file| file.name != other.name)) {
        Some(other) => Err(differs(at(&other.name), &"missing", &other.sha256).into()),
        None => Ok(()),
    }
}

fn check_answers(style: &StylePlan) -> anyhow::Result<anbiq_trace::style::Answers> {
    let files: Vec<PathBuf> = style.answers.iter().map(|file| PathBuf::from(&file.name)).collect();
    let now = planned::answers(&files)?;
    for (planned, now) in style.answers.iter().zip(&now) {
        same(&planned.name, &planned.sha256, &now.sha256)?;
    }
    same("style", style, &StylePlan::of(now, style.parts.clone(), &style.accused))?;
    read_answers(&files)
}

async fn trace(
    test: &TwinsPlan,
    collected: &Collected,
    models: &[Arc<dyn Model>],
    fixed: &Fixed,
    talk: Talk,
) -> anyhow::Result<Report> {
    let borrowed: Vec<&dyn Model> = models.iter().map(AsRef::as_ref).collect();
    let [suspect, teacher, controls @ ..] = &borrowed[..] else { bail!("the plan names no suspect and no teacher") };
    let mut step = talk.step(&format!("tracing `{}`", suspect.name()), 0);
    let mut progress = |done, total| step.reach_of(done, total);
    let run = anbiq_trace::run_planned(collected, *suspect, *teacher, controls, test, fixed.clone(), &mut progress);
    let report = run.await?;
    step.finish(report.verdict.strength.in_words());
    Ok(report)
}

impl Found {
    fn in_words(&self) -> String {
        match self {
            Self::Twins(report) => anbiq_trace::render_text(report),
            Self::Style(report) => anbiq_trace::style::render_style(report),
        }
    }

    fn established(&self) -> bool {
        matches!(self, Self::Twins(report) if report.verdict.strength == Strength::Established)
    }

    /// The name of its file, and the JSON in it.
    fn file(&self) -> anyhow::Result<(String, Vec<u8>)> {
        Ok(match self {
            Self::Twins(report) => (file_name(report), serde_json::to_vec_pretty(report)?),
            Self::Style(report) => ("style.json".to_owned(), serde_json::to_vec_pretty(report)?),
        })
    }
}

/// The reports and the plan in the new folder `out`: all of them or none.
fn write(out: &Path, plan: &Path, found: &[Found]) -> anyhow::Result<()> {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let temporary = out.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let cannot = || format!("cannot write `{}`", out.display());
    std::fs::create_dir_all(&temporary).with_context(cannot)?;
    std::fs::copy(plan, temporary.join("plan.json")).with_context(cannot)?;
    for report in found {
        let (file, bytes) = report.file()?;
        std::fs::write(temporary.join(file), bytes).with_context(cannot)?;
    }
    std::fs::rename(&temporary, out).with_context(cannot)
}

/// The file beside a plan that says when it was begun and when that ended. It is no proof, since it can be deleted; it keeps
/// whoever means well from forgetting a run that was broken off.
struct RunRecord {
    path: PathBuf,
    plan: Digest,
}

#[derive(Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    what: String,
    plan: Digest,
}

impl RunRecord {
    fn of(plan: &Path, digest: Digest) -> Self {
        Self { path: plan.with_extension("runs.jsonl"), plan: digest }
    }

    /// Notes that the plan is begun, and says how often it was before.
    fn begin(&self) -> anyhow::Result<u32> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", self.path.display())),
        };
        // A line that a crash cut off counts, since something was begun.
        let ours = |line: &&str| {
            serde_json::from_str::<Line>(line).map_or(true, |line| line.plan == self.plan && line.what == "begun")
        };
        let before = text.lines().filter(ours).count();
        self.append("begun")?;
        Ok(u32::try_from(before).unwrap_or(u32::MAX))
    }

    fn append(&self, what: &str) -> anyhow::Result<()> {
        let line = Line { at: SystemClock.now(), what: what.to_owned(), plan: self.plan };
        let file = OpenOptions::new().append(true).create(true).open(&self.path);
        let mut file = file.with_context(|| format!("cannot write `{}`", self.path.display()))?;
        writeln!(file, "{}", serde_json::to_string(&line)?)?;
        Ok(file.sync_all()?)
    }
}
