//! `anbiq trace canary`: answers with a secret in them, drawn before they are served, and a suspect that ranks them later.

use std::path::{Path, PathBuf};

use anbiq_domain::{Clock, Digest, Entry, SystemClock};
use anbiq_evidence::signed::Signed;
use anbiq_journal::{PublicKey, Reader, SigningKey};
use anbiq_serve::{PlantedAnswer, PlantedDraw};
use anbiq_trace::canary::{self, CanaryKey, Draw, Served, Wanted, Witness, render_canaries};
use anbiq_trace::{Config, Strength};
use anyhow::{Context, ensure};

use super::asked::{How, Named};
use super::{Opening, grouped};
use crate::args::{CanaryDraw, CanaryTest, TraceCanary};
use crate::commands::Outcome;
use crate::commands::admin::Office;
use crate::commands::watch::{refuse_import, refuse_imported};
use crate::site::{json_lines, keep, read_json, secret_file, text_keys, write_new};
use crate::talk::{self, Talk};

/// What is signed, in the folder of a draw.
pub(crate) const DRAW: &str = "draw.json";
/// What is to be served.
const SERVED: &str = "served.jsonl";

pub(super) async fn run(args: &TraceCanary, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        TraceCanary::Draw(args) => draw(args, talk).await,
        TraceCanary::Test(args) => test(args, talk).await,
    }
}

async fn draw(args: &CanaryDraw, talk: Talk) -> anyhow::Result<Outcome> {
    let out = &args.out;
    ensure!(
        !out.exists(),
        "`{}` is there already\nhint: a draw is never made again; choose another name with `--out`",
        out.display()
    );
    let mut wanted: Vec<Wanted> = Vec::new();
    json_lines(&args.wanted, "an object with `operator`, `prompt` and `answer`", |line| {
        wanted.push(line);
        Ok(())
    })?;
    // Whatever is wrong with the installation is said before anything is drawn.
    let office = match &args.config {
        Some(config) => Some(Office::open(config).await?),
        None => None,
    };
    let key = CanaryKey::new(&secret_file(&args.key)?);
    let draw = Draw::fix(wanted, args.candidates, &key, SystemClock.now())?;
    let served = draw.served(&key)?;
    let signed = Signed::sign(&draw, canary::KIND, &SigningKey::load_or_create(&args.signer)?)?;
    let lines = served.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make `{}`", out.display()))?;
    write_new(&out.join(DRAW), &(serde_json::to_string_pretty(&signed)? + "\n"))?;
    if let Some(office) = office {
        let (at, drawn) = (draw.made_at, draw.told(signed.digest()));
        office.tell(&Entry::CanariesDrawn { at, drawn }).await?;
        office.close().await?;
        talk.say("the journal is told of the draw");
    }
    // Nothing can be served before the journal knows of it.
    write_new(&out.join(SERVED), &(lines.join("\n") + "\n"))?;
    talk::data(&format!(
        "draw       {}\nsigned by  {}\ncanaries   {}, {} versions of each\n",
        signed.digest(),
        signed.signer(),
        served.len(),
        draw.candidates
    ))?;
    let how = match &args.config {
        Some(config) => {
            format!("set `canaries = [\"{}\"]` in `{}` and start the gateway anew", out.display(), config.display())
        }
        None => format!("hand the digest to somebody else, then serve what `{}` holds", out.join(SERVED).display()),
    };
    talk.say(&format!("hint: {how}; keep `{}` secret until the test", args.key.display()));
    Ok(Outcome::Fine)
}

async fn test(args: &CanaryTest, talk: Talk) -> anyhow::Result<Outcome> {
    let path = if args.draw.is_dir() { args.draw.join(DRAW) } else { args.draw.clone() };
    let signed: Signed = read_json(&path)?;
    let signer = args.signer.as_deref().map(str::parse::<PublicKey>).transpose()?;
    let draw: Draw = signed
        .open(canary::KIND, signer.as_ref())
        .with_context(|| format!("the draw `{}` is not taken", path.display()))?;
    ensure!(args.key.exists(), "there is no key `{}`", args.key.display());
    let key = CanaryKey::new(&secret_file(&args.key)?);
    let suspect = Named::new(&args.suspect, args.name.as_deref(), &args.remote).open(How::Likelihood)?;
    let witness =
        args.journal.as_deref().map(|journal| witness(args, journal, &draw, signed.digest(), &key)).transpose()?;
    let mut step = talk.step(&format!("asking `{}`", suspect.name()), 0);
    let mut progress = |done, total| step.reach_of(done, total);
    let from = (signed.digest(), signed.signer().to_string());
    let report = canary::test(&draw, from, &key, suspect.as_ref(), witness, &Config::default(), &mut progress).await?;
    step.finish(report.strength.in_words());
    talk::report(&report, args.output.json, args.output.out.as_deref(), render_canaries)?;
    Ok(Outcome::found(report.strength == Strength::Established))
}

/// What the journal shows of the draw.
fn witness(args: &CanaryTest, journal: &Path, draw: &Draw, digest: Digest, key: &CanaryKey) -> anyhow::Result<Witness> {
    refuse_import(journal)?;
    let operators = match &args.operators {
        Some(path) => {
            let found = read_json(path)?;
            refuse_imported(&found, path)?;
            grouped(&found)
        }
        None => Vec::new(),
    };
    let cannot = || format!("cannot read the journal `{}`", journal.display());
    let reader = Reader::open(journal).with_context(cannot)?;
    let keys = args.secrets.as_deref().map(text_keys);
    let (mut opening, mut damage) = (Opening::new(keys.as_ref()), None);
    let records = reader.entries()?;
    let entries =
        records.map_while(|record| keep(record.map(|record| (record.index, opening.entry(record))), &mut damage));
    let found = Witness::of(draw, digest, key, reader.id().as_str(), entries, &operators);
    damage.map_or(Ok(()), Err).with_context(cannot)?;
    Ok(found?)
}

/// The draws in these folders, as a gateway serves them.
pub(crate) fn planted(folders: &[PathBuf]) -> anyhow::Result<Vec<PlantedDraw>> {
    let one = |folder: &PathBuf| {
        let (path, served) = (folder.join(DRAW), folder.join(SERVED));
        let signed: Signed = read_json(&path)?;
        let taken = signed.open(canary::KIND, None);
        let draw: Draw = taken.with_context(|| format!("the draw `{}` is not taken", path.display()))?;
        let mut answers = Vec::new();
        json_lines(&served, "a canary that was drawn", |line: Served| {
            let of = draw.canaries.get(line.canary as usize);
            ensure!(
                of.is_some_and(|wanted| wanted.is_of(&line)),
                "`{}` holds canary {}, which is not of the draw `{}`",
                served.display(),
                line.canary,
                path.display()
            );
            answers.push(PlantedAnswer { operator: line.operator, prompt: line.prompt, answer: line.answer });
            Ok(())
        })?;
        Ok(PlantedDraw { draw: signed.digest(), answers })
    };
    folders.iter().map(one).collect()
}
