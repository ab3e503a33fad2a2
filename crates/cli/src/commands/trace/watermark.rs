//! `anbiq trace watermark`: do texts, or a model that reads some, fit the key of a watermark?

use std::collections::BTreeMap;

use anbiq_domain::{Answer, Digest, Finish, Prompt};
use anbiq_lm::score::likeliest;
use anbiq_lm::{Codec, Local, Network};
use anbiq_trace::Strength;
use anbiq_trace::radioactivity::{Fit, Mode, Radioactivity, render_radioactivity};
use anbiq_watermark::{Leaning, Mark, Reading, Tally};
use anyhow::{Context, ensure};

use super::Written;
use crate::args::TraceWatermark;
use crate::commands::Outcome;
use crate::config::WatermarkConfig;
use crate::site::{json_lines, local, secret_file};
use crate::talk::{self, Talk};

/// Texts that a model reads at a time.
const BATCH: usize = 64;

/// Tokens of a place whose probabilities are compared with the teacher's.
const LIKELIEST: usize = 32;

pub(super) fn run(args: &TraceWatermark, talk: Talk) -> anyhow::Result<Outcome> {
    let mark = mark(args)?;
    let (mode, fits) = match &args.suspect {
        None => (Mode::Closed, written(args, &mark)?),
        Some(suspect) => {
            let suspect = local(suspect, &super::asked::folder_name(&suspect.display().to_string(), None))?;
            let mode = if args.marked { Mode::ReadingMarked } else { Mode::ReadingUnmarked };
            (mode, vec![read(args, &mark, &suspect, talk)?])
        }
    };
    let report = Radioactivity::of(&mark, args.commitment.is_some(), mode, fits);
    talk::report(&report, args.output.json, args.output.out.as_deref(), render_radioactivity)?;
    Ok(Outcome::found(report.models.iter().any(|fit| fit.strength == Strength::Established)))
}

/// The watermark, which must be the one that was committed to where that is known.
fn mark(args: &TraceWatermark) -> anyhow::Result<Mark> {
    ensure!(args.key.exists(), "there is no key `{}`", args.key.display());
    let config = WatermarkConfig { scheme: args.scheme, window: args.window, share: args.share, bias: args.bias };
    let mark = config.mark(&secret_file(&args.key)?)?;
    if let Some(text) = &args.commitment {
        let given: Digest = text.parse().context("`--commitment` is not what it should be")?;
        ensure!(
            given == mark.commitment(),
            "the commitment {given} is not to this key, scheme and window: they make {}\nhint: a key that was not committed \
             to before proves nothing",
            mark.commitment()
        );
    }
    Ok(mark)
}

/// Calls `each` for every line of the files.
fn lines(args: &TraceWatermark, mut each: impl FnMut(Written) -> anyhow::Result<()>) -> anyhow::Result<()> {
    args.texts.iter().try_for_each(|path| json_lines(path, "an object with `model`, `prompt` and `output`", &mut each))
}

/// What each model wrote.
fn written(args: &TraceWatermark, mark: &Mark) -> anyhow::Result<Vec<Fit>> {
    let codec = codec(args)?;
    let mut tallies: BTreeMap<String, (u64, Tally<'_>)> = BTreeMap::new();
    lines(args, |line| {
        let (texts, tally) = tallies.entry(line.model).or_insert_with(|| (0, Tally::new(mark)));
        *texts += 1;
        tally.text(&codec.tokenizer.encode(&line.output, false)?);
        Ok(())
    })?;
    let fit =
        |(model, (texts, tally)): (String, (u64, Tally<'_>))| Fit::of(model, texts, Some(tally.detect()), None, None);
    Ok(tallies.into_iter().map(fit).collect())
}

/// What says what a token of the teacher is.
fn codec(args: &TraceWatermark) -> anyhow::Result<Codec> {
    let teacher = &args.teacher;
    Codec::load(teacher).with_context(|| format!("cannot load the tokenizer of `{}`", teacher.display()))
}

/// What `suspect` finds likely while it reads.
fn read(args: &TraceWatermark, mark: &Mark, suspect: &Local, talk: Talk) -> anyhow::Result<Fit> {
    ensure!(
        suspect.codec().tokenizer.is_alike(&codec(args)?.tokenizer),
        "the suspect has another tokenizer than the teacher, so it does not say which token it finds likeliest\nhint: have it \
         answer prompts, and give its answers without `--suspect`"
    );
    let mut texts = Vec::new();
    lines(args, |line| {
        let answer = Answer::new(line.output, Finish::Length);
        texts.push(suspect.codec().example(&Prompt::user(line.prompt), &answer)?);
        Ok(())
    })?;
    let context = suspect.network().config.max_positions;
    texts.retain(|(tokens, first)| *first < tokens.len() && tokens.len() <= context);
    let (mut tally, mut reading, mut leaning) = (Tally::new(mark), Reading::new(mark), Leaning::new(mark));
    let reference = reference(args)?;
    let seen = if args.marked { 1 } else { LIKELIEST };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut step = talk.step("reading", texts.len() as u64);
    for batch in texts.chunks(BATCH) {
        let borrowed: Vec<(&[u32], usize)> = batch.iter().map(|(tokens, first)| (tokens.as_slice(), *first)).collect();
        let says = likeliest(suspect.network(), &borrowed, seen, threads)?;
        if let Some(reference) = &reference {
            let theirs = likeliest(reference, &borrowed, seen, threads)?;
            for ((tokens, first), (says, theirs)) in batch.iter().zip(says.iter().zip(&theirs)) {
                for (place, (own, theirs)) in (*first..).zip(says.iter().zip(theirs)) {
                    leaning.place(&tokens[*first..place], own, theirs);
                }
            }
        }
        for ((tokens, first), says) in batch.iter().zip(&says) {
            let says: Vec<u32> = says.iter().map(|says| top(says)).collect();
            if args.marked {
                reading.text(tokens, *first, &says);
                continue;
            }
            for (place, token) in (*first..).zip(says) {
                // A window is of the answer alone, as it is where answers are marked.
                tally.pair(&tokens[*first..place], token);
            }
        }
        step.advance(batch.len() as u64);
    }
    step.finish("read");
    let (name, count) = (anbiq_model::Model::name(suspect), texts.len() as u64);
    Ok(match args.marked {
        true => Fit::of(name, count, None, Some(reading.read()), None),
        false => Fit::of(name, count, Some(tally.detect()), None, reference.map(|_| leaning.lean())),
    })
}

/// The teacher without its mark, beside which a suspect's lean is seen; `None` where its folder has no weights, or marked text
/// is read.
fn reference(args: &TraceWatermark) -> anyhow::Result<Option<Network>> {
    let weights =
        ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| args.teacher.join(name).exists());
    if args.marked || !weights {
        return Ok(None);
    }
    let teacher = &args.teacher;
    Network::load(teacher).map(Some).with_context(|| format!("cannot load the model `{}`", teacher.display()))
}

fn top(says: &[(u32, f32)]) -> u32 {
    says.first().map_or(0, |(token, _)| *token)
}
