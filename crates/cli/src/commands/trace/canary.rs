//! `anbiq trace canary`: answers with a secret in them, drawn before they are served, and a suspect that ranks them later.

use anbiq_domain::{Clock, SystemClock};
use anbiq_evidence::signed::Signed;
use anbiq_journal::{PublicKey, SigningKey};
use anbiq_trace::canary::{self, CanaryKey, Draw, Wanted, render_canaries};
use anbiq_trace::{Config, Strength};
use anyhow::{Context, ensure};

use super::open;
use crate::args::{CanaryDraw, CanaryTest, TraceCanary};
use crate::commands::Outcome;
use crate::site::{json_lines, read_json, secret_file, write_new};
use crate::talk::{self, Talk};

/// What is signed, in the folder of a draw.
const DRAW: &str = "draw.json";
/// What is to be served.
const SERVED: &str = "served.jsonl";

pub(super) async fn run(args: &TraceCanary, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        TraceCanary::Draw(args) => draw(args, talk),
        TraceCanary::Test(args) => test(args, talk).await,
    }
}

fn draw(args: &CanaryDraw, talk: Talk) -> anyhow::Result<Outcome> {
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
    let key = CanaryKey::new(&secret_file(&args.key)?);
    let draw = Draw::fix(wanted, args.candidates, &key, SystemClock.now())?;
    let served = draw.served(&key)?;
    let signed = Signed::sign(&draw, canary::KIND, &SigningKey::load_or_create(&args.signer)?)?;
    let lines = served.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make `{}`", out.display()))?;
    write_new(&out.join(DRAW), &(serde_json::to_string_pretty(&signed)? + "\n"))?;
    write_new(&out.join(SERVED), &(lines.join("\n") + "\n"))?;
    talk::data(&format!(
        "draw       {}\nsigned by  {}\ncanaries   {}, {} versions of each\n",
        signed.digest(),
        signed.signer(),
        served.len(),
        draw.candidates
    ))?;
    talk.say(&format!(
        "hint: hand the digest to somebody else, then serve what `{}` holds; keep `{}` secret until the test",
        out.join(SERVED).display(),
        args.key.display()
    ));
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
    let suspect =
        open(&args.suspect, args.name.as_deref(), args.remote.model.as_deref(), args.remote.key_env.as_deref())?;
    let mut step = talk.step(&format!("asking `{}`", suspect.name()), 0);
    let mut progress = |done, total| step.reach_of(done, total);
    let from = (signed.digest(), signed.signer().to_string());
    let report = canary::test(&draw, from, &key, suspect.as_ref(), &Config::default(), &mut progress).await?;
    step.finish(report.strength.in_words());
    talk::report(&report, args.output.json, args.output.out.as_deref(), render_canaries)?;
    Ok(Outcome::found(report.strength == Strength::Established))
}
