//! Does a student learn more from its own answers, judged by the teacher, than from the teacher's?
//!
//! `cargo run --release -p anbiq-distill --example on_policy [--seeds 1,2,3] [--steps 300] [--beginning 600] [--beginning-epochs 20]
//! [--teacher-epochs 40] [--digits 2] [--dir DIR]`
//!
//! Sums that are worked out digit by digit, so that an early mistake is carried on, with an exact checker. The teacher is
//! trained on many of them, once for all seeds, since that takes most of the time; the student first on a few (`--beginning`). Then, from this same beginning and with the same prompts, batches and
//! number of steps, it learns from the teacher's answers alone (`sft`), from these with the teacher's probabilities
//! (`off-policy`), or from its own answers judged by the teacher (`on-policy`, by the reverse divergence, half and all of the
//! steps, and in a third as many steps; Agarwal et al. 2024). Every student is an `anbiq distill` recipe; the figures are those of its report: right
//! answers on sums that no model was trained on, and how near the student is to its teacher.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anbiq_distill::{Recipe, Report, Surroundings, run};
use anbiq_domain::Seeded;
use anbiq_lm::{Codec, SPECIALS, Tokenizer};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What is tried.
struct Options {
    seeds: Vec<u64>,
    steps: u64,
    beginning: usize,
    beginning_epochs: u64,
    teacher_epochs: u64,
    digits: u32,
    dir: PathBuf,
}

/// Sums that the teacher learns from, those whose prompts both are asked, and those that both are measured on.
const TEACHER: usize = 12_000;
const PROMPTS: usize = 2_000;
const TASKS: usize = 400;

/// Tokens of a batch of the student.
const BATCH: usize = 1_024;

#[tokio::main]
async fn main() -> Fallible<()> {
    let options = options()?;
    println!(
        "{:<6} {:<22} {:>8} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "seed", "student", "right", "KL", "agree", "steps", "own", "seconds"
    );
    fs::create_dir_all(&options.dir)?;
    let taken = teachers_material(&options)?;
    let begun = Instant::now();
    let teacher =
        Student { name: "teacher", width: 128, layers: 4, corpus: "teacher.jsonl", epochs: options.teacher_epochs };
    // What it is measured on is sums that it was not trained on, and so is what the students are.
    let report = made(&options.dir, 1, &teacher.recipe(1, "", "tokenizer")).await?;
    show(0, "teacher", &report, begun);
    for &seed in &options.seeds {
        one(&options, seed, taken.clone()).await?;
    }
    println!(
        "right: of {TASKS} sums that nobody was trained on; KL: teacher to student, nats a token of held-out sums"
    );
    Ok(())
}

async fn one(options: &Options, seed: u64, taken: BTreeSet<(u64, u64)>) -> Fallible<()> {
    let dir = options.dir.join(format!("seed-{seed}"));
    fs::create_dir_all(&dir)?;
    material(&dir, options, seed, taken)?;
    let begun = Instant::now();
    let student =
        Student { name: "begun", width: 64, layers: 2, corpus: "beginning.jsonl", epochs: options.beginning_epochs };
    let report = made(
        &dir,
        seed,
        &student.recipe(
            seed,
            "[teacher]\nname = \"teacher\"\nfolder = \"../teacher\"\nbasis = \"our own\"\n",
            "../tokenizer",
        ),
    )
    .await?;
    show(seed, "student, begun", &report, begun);
    // The teacher's own answers, likeliest first: one a prompt, with its probabilities.
    let epochs = |steps: u64| epochs(&options.dir.join("tokenizer"), &dir, steps);
    let (all, third) = (epochs(options.steps)?, epochs(options.steps.div_ceil(3))?);
    let own = |share: &str| {
        format!("divergence = \"reverse-kl\"\nkl_weight = 1.0\n[train.on_policy]\nshare = {share}\nmax_tokens = 48\n")
    };
    let ways = [
        ("sft", all, "kl_weight = 0.0\n".to_owned()),
        ("off-policy", all, "kl_weight = 1.0\n".to_owned()),
        ("off-policy, reverse", all, "kl_weight = 1.0\ndivergence = \"reverse-kl\"\n".to_owned()),
        ("on-policy, half", all, own("0.5")),
        ("on-policy, all", all, own("1.0")),
        ("on-policy, a third", third, own("1.0")),
    ];
    for (name, epochs, train) in ways {
        let begun = Instant::now();
        let text = format!(
            "{}[train]\nepochs = {epochs}\nlearning_rate = 5e-4\nbatch_tokens = {BATCH}\n{train}",
            going_on(name)
        );
        show(seed, name, &made(&dir, seed, &text).await?, begun);
    }
    Ok(())
}

/// A student that learns from a corpus alone.
struct Student {
    name: &'static str,
    width: usize,
    layers: usize,
    corpus: &'static str,
    epochs: u64,
}

impl Student {
    fn recipe(&self, seed: u64, teacher: &str, tokenizer: &str) -> String {
        let Self { name, width, layers, corpus, epochs } = self;
        let ffn = width * 8 / 3;
        format!(
            "seed = {seed}\nout = \"{name}\"\n{teacher}[corpus]\npath = \"{corpus}\"\n[student]\nname = \"{name}\"\n\
             tokenizer = \"{tokenizer}\"\nhidden_size = {width}\nlayers = {layers}\nheads = 4\nintermediate_size = {ffn}\n\
             context = 80\n[pretrain]\nepochs = {epochs}\nbatch_tokens = 2048\n{EVALUATE}"
        )
    }
}

/// The recipe of a student that goes on from its beginning, up to `[train]`.
fn going_on(name: &str) -> String {
    let out = name.replace([' ', ','], "-");
    format!(
        "out = \"{out}\"\n[teacher]\nname = \"teacher\"\nfolder = \"../teacher\"\nbasis = \"our own\"\n\
         prices = {{ input = \"0\", output = \"0\" }}\n[capture]\nsource = \"answers.jsonl\"\n[capture.ask]\n\
         prompts = \"prompts.jsonl\"\nmax_tokens = 48\ntemperature = 0.0\nlogprobs = 20\nceiling = \"1\"\n\
         [student]\nname = \"{out}\"\ninit = \"begun\"\ncontext = 80\n{EVALUATE}"
    )
}

const EVALUATE: &str = "[evaluate]\nheld_out = \"tasks.jsonl\"\ntasks = \"tasks.jsonl\"\nmost_tasks = 400\nmax_tokens = 48\ncapture_share = 0.0\nscratch = false\n";

async fn made(dir: &Path, seed: u64, text: &str) -> Fallible<Report> {
    let text = if text.starts_with("seed") { text.to_owned() } else { format!("seed = {seed}\n{text}") };
    let recipe = Recipe::parse(&text, &dir.join("recipe.toml"))?;
    Ok(run(&recipe, &Surroundings::default()).await?)
}

fn show(seed: u64, name: &str, report: &Report, begun: Instant) {
    // The teacher itself is the student of its own recipe.
    let Some(column) = report.column("student") else { return };
    let right = column.tasks.map_or(0.0, |tasks| 100.0 * tasks.share());
    let near = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let last = report.stages.last();
    println!(
        "{seed:<6} {name:<22} {right:>7.1}% {:>9} {:>9} {:>9} {:>8} {:>8.0}",
        near(column.agreement.map(|agreement| agreement.kl)),
        near(column.agreement.map(|agreement| agreement.top1)),
        last.map_or(0, |stage| stage.steps),
        last.map_or(0, |stage| stage.own_steps),
        begun.elapsed().as_secs_f64()
    );
}

/// Epochs over the prompts that make about so many steps.
fn epochs(tokenizer: &Path, dir: &Path, steps: u64) -> Fallible<u64> {
    let codec = Codec::load(tokenizer)?;
    let mut tokens = 0;
    for line in fs::read_to_string(dir.join("prompts.jsonl"))?.lines() {
        let task: serde_json::Value = serde_json::from_str(line)?;
        let text = |field: &str| task[field].as_str().unwrap_or_default().to_owned();
        tokens += codec.tokenizer.encode(&(text("prompt") + &text("answer")), false)?.len() + 4;
    }
    Ok((steps * BATCH as u64).div_ceil(tokens as u64).max(1))
}

/// A sum of two numbers with what is carried at each digit, last digit first.
fn sum(a: u64, b: u64, digits: u32) -> (String, String, String) {
    let (mut carry, mut work) = (0, String::new());
    for place in 0..digits {
        let digit = |number: u64| number / 10_u64.pow(place) % 10;
        let total = digit(a) + digit(b) + carry;
        let _ = write!(work, "{}+{}+{carry}={total} ", digit(a), digit(b));
        carry = total / 10;
    }
    (format!("{a}+{b}"), format!("{work}so {}", a + b), (a + b).to_string())
}

/// Two numbers of at most so many digits that were not taken before.
fn fresh(random: &mut Seeded, digits: u32, taken: &mut BTreeSet<(u64, u64)>) -> (u64, u64) {
    let limit = 10_usize.pow(digits);
    loop {
        let pair = (random.below(limit) as u64, random.below(limit) as u64);
        if taken.insert(pair) {
            return pair;
        }
    }
}

/// The files that the teacher is made of; gives what it is trained on.
fn teachers_material(options: &Options) -> Fallible<BTreeSet<(u64, u64)>> {
    let Options { dir, digits, beginning, .. } = options;
    let (digits, wanted) = (*digits, TEACHER + beginning + PROMPTS + 2 * TASKS);
    if 100_usize.pow(digits) < 2 * wanted {
        return Err("there are too few sums of so few digits".into());
    }
    let (mut random, mut taken) = (Seeded::new(0).fork("the teacher's sums"), BTreeSet::new());
    let own: Vec<_> = (0..TEACHER).map(|_| fresh(&mut random, digits, &mut taken)).collect();
    let tasks: Vec<_> = (0..TASKS).map(|_| fresh(&mut random, digits, &mut taken)).collect();
    let texts = write(&dir.join("teacher.jsonl"), &own, digits)?;
    write(&dir.join("tasks.jsonl"), &tasks, digits)?;
    // Every token is one character: how a sum is cut into tokens must not depend on its digits.
    let tokenizer = Tokenizer::train_bpe(texts.iter().map(String::as_str), 256 + SPECIALS.len(), &SPECIALS)?;
    fs::create_dir_all(dir.join("tokenizer"))?;
    Codec::plain(tokenizer, 80)?.save(&dir.join("tokenizer"))?;
    Ok(taken)
}

/// The files of one seed: no sum stands in two of them, or in what the teacher was trained on.
fn material(dir: &Path, options: &Options, seed: u64, mut taken: BTreeSet<(u64, u64)>) -> Fallible<()> {
    let mut random = Seeded::new(seed).fork("sums");
    for (name, count) in [("beginning", options.beginning), ("prompts", PROMPTS), ("tasks", TASKS)] {
        let sums: Vec<_> = (0..count).map(|_| fresh(&mut random, options.digits, &mut taken)).collect();
        write(&dir.join(format!("{name}.jsonl")), &sums, options.digits)?;
    }
    Ok(())
}

/// Writes sums with their answers; gives all texts.
fn write(path: &Path, sums: &[(u64, u64)], digits: u32) -> Fallible<Vec<String>> {
    let (mut text, mut all) = (String::new(), Vec::new());
    for &(a, b) in sums {
        let (prompt, answer, expected) = sum(a, b, digits);
        let line = serde_json::json!({ "prompt": &prompt, "answer": &answer, "expected": expected });
        let _ = writeln!(text, "{line}");
        all.extend([prompt, answer]);
    }
    fs::write(path, text)?;
    Ok(all)
}

fn options() -> Fallible<Options> {
    let mut options = Options {
        seeds: vec![1, 2, 3],
        steps: 300,
        beginning: 600,
        beginning_epochs: 20,
        teacher_epochs: 12,
        digits: 3,
        dir: std::env::temp_dir().join(format!("anbiq-on-policy-{}", std::process::id())),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
        match word.as_str() {
            "--seeds" => options.seeds = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--steps" => options.steps = value.parse()?,
            "--beginning" => options.beginning = value.parse()?,
            "--beginning-epochs" => options.beginning_epochs = value.parse()?,
            "--teacher-epochs" => options.teacher_epochs = value.parse()?,
            "--digits" => options.digits = value.parse()?,
            "--dir" => options.dir = value.into(),
            _ => return Err(format!("`{word}` is not known").into()),
        }
    }
    Ok(options)
}
