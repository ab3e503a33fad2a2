//! `anbiq demo`: strings the other commands together into one whole case, and checks that it comes out as it should.

mod expected;
mod stage;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anbiq_domain::TwinMode;
use anbiq_lab::world::{Scale, World, WorldConfig};
use anbiq_trace::{Config, Report as Trace};
use anyhow::{Context, bail};

use super::{Outcome, case, distill, trace, watch};
use crate::args::{Demo, Language};
use crate::site::{Site, open_local};
use crate::talk::{self, Talk};
use stage::Stage;

/// The students of the case, in the order in which they are trained and traced.
const STUDENTS: [&str; 3] = ["suspect", "licensed", "innocent"];

pub(crate) async fn run(args: Demo, talk: Talk) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let folder = Folder::make(&args.out)?;
    let scale = if args.quick { Scale::Quick } else { Scale::Full };

    talk.say("1. A teacher is served, and accounts use it");
    let world = World::compose(&WorldConfig { traces: traces(&args), ..WorldConfig::new(args.seed, scale) })?;
    let stage = Stage::set(&folder, &world, args.seed, scale).await?;
    let harvests = stage.play(world.clone(), talk).await?;
    harvests.write(&folder)?;

    talk.say("2. Who is behind these accounts?");
    let mut findings = watch::watch(&folder.at("journal"), &watch::standard(args.seed))?;
    findings.notes.push(format!("The traffic is composed: {}.", world.composed_from));
    save(&folder.at("watch.json"), &findings)?;
    talk::data(&anbiq_watch::render_text(&findings))?;

    talk.say("3. Students are trained: from the harvest, under the grant, and from the corpus alone");
    let mut students = Vec::new();
    for name in STUDENTS {
        let recipe = stage.recipe(&folder, &world, name)?;
        let report = distill::distill(&recipe, stage.clock(), talk).await?;
        talk::data(&anbiq_distill::render_text(&report))?;
        students.push(folder.at("students").join(name).join("report.json"));
    }

    talk.say("4. Was it trained on this teacher's served answers, and on whose?");
    let verdicts = verdicts(&folder, &findings, talk).await?;

    talk.say("5. The dossier");
    let site = Site::load(&folder.at("anbiq.toml"))?;
    let traces = STUDENTS.map(|name| folder.at(&format!("trace-{name}.json")));
    let dossier = folder.at("dossier");
    let watch = folder.at("watch.json");
    let from = case::Sources {
        watch: &watch,
        traces: &traces,
        calibrations: &[],
        plans: &[],
        draws: &[],
        students: &students,
    };
    let written = case::write_dossier(&site, &from, Language::En, &dossier, talk)?;
    let verified = anbiq_verify::check(&dossier, None)?;
    talk.say(&format!("  {} files, {} records proved", written.files, verified.folder.records));
    talk.say(&format!("  with one byte of a copy changed: {}", expected::broken_by_one_byte(&dossier)?));

    expected::check(&world, &findings, &verdicts)?;
    talk.say(&format!(
        "The case came out as it should, in {:.0} s. Open `{}`; check it with `anbiq verify {}`",
        started.elapsed().as_secs_f64(),
        dossier.join("dossier.html").display(),
        dossier.display()
    ));
    Ok(Outcome::Fine)
}

/// Traces every student against all that was served, by the operators that `watch` found.
async fn verdicts(folder: &Folder, findings: &anbiq_watch::Report, talk: Talk) -> anyhow::Result<Vec<Trace>> {
    let collected = trace::collect(&folder.at("journal"), trace::grouped(findings), TwinMode::Together, None)?.0;
    let teacher = open_local(&folder.at("teacher"), "still")?;
    let mut verdicts = Vec::new();
    for name in STUDENTS {
        let suspect = open_local(&folder.at("students").join(name), name)?;
        let verdict = trace::trace(&collected, &suspect, &teacher, &[], &Config::default(), talk).await?;
        save(&folder.at(&format!("trace-{name}.json")), &verdict)?;
        talk::data(&anbiq_trace::render_text(&verdict))?;
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// The folder of real traces: the one that was named, or the one beside the working directory.
fn traces(args: &Demo) -> Option<PathBuf> {
    args.data.clone().or_else(|| Some(PathBuf::from("../shared/data"))).filter(|folder| folder.is_dir())
}

fn save(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(value)?)
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// The folder that the demonstration leaves behind.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    fn make(path: &Path) -> anyhow::Result<Self> {
        let taken = std::fs::read_dir(path).is_ok_and(|mut listing| listing.next().is_some());
        if taken {
            bail!("`{}` is not empty\nhint: remove it, or choose another folder with `--out`", path.display());
        }
        for part in ["captures", "recipes", "students"] {
            let part = path.join(part);
            std::fs::create_dir_all(&part).with_context(|| format!("cannot make `{}`", part.display()))?;
        }
        Ok(Self(path.to_owned()))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
