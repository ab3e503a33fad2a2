//! How much of what a teacher knows more than a student with few labels does distilling give it?
//!
//! `cargo run --release -p anbiq-distill --example gap [--seeds 1,2,3] [--prompts 4000] [--labels 200] [--epochs 8] [--label-epochs 40]
//! [--documents 1500] [--tasks 500] [--kinds sorting,word_problem] [--hidden 0] [--dir DIR]`
//!
//! The teacher is the embedded one of the demonstration (3.4 million parameters), the task the generated corpus's questions with
//! right answers, of two kinds in turn that it answers nearly all (`--kinds` takes others). A student of 0.9 million parameters reads some other texts of the corpus (`base`). From there
//! it learns from a few right answers (`labels`), or from the teacher's answers to many prompts, whose right answers nobody
//! tells it, with the likeliest tokens at each place (`distilled`). All of it is one `anbiq distill` recipe a seed, and the figures are those of its
//! report: right answers to tasks and the loss on their right answers, with no prompt that was trained on among them. The
//! seed chooses texts, labels, prompts and tasks, and where the student begins; the teacher is the same each time.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anbiq_distill::{Gap, Interval, Recipe, Report, Surroundings, run};
use anbiq_domain::Seeded;
use anbiq_lab::corpus::{Corpus, Document, Kind, write_jsonl};
use anbiq_lab::teacher::write_teacher;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What is tried.
struct Options {
    seeds: Vec<u64>,
    /// Prompts whose answers the teacher gives.
    prompts: usize,
    /// Right answers that a student without a teacher has.
    labels: usize,
    epochs: u32,
    label_epochs: u32,
    /// Which tasks, by their names.
    kinds: Vec<Kind>,
    /// How much hidden states count in the loss; not at all where it is 0.
    hidden: f64,
    /// Texts that are no tasks, from which every student knows the language.
    documents: usize,
    tasks: usize,
    dir: PathBuf,
}

/// What the project set itself, as a part of the gap.
const REACH: f64 = 0.8;

#[tokio::main]
async fn main() -> Fallible<()> {
    let options = options()?;
    let mut closed = Vec::new();
    for &seed in &options.seeds {
        let begun = Instant::now();
        let report = one(&options, seed).await?;
        show(seed, &report, begun);
        closed.push(report.gaps.iter().find(|gap| gap.measure == "tasks").map_or(f64::NAN, |gap| gap.closed));
    }
    let mean = closed.iter().sum::<f64>() / closed.len() as f64;
    let reached = closed.iter().filter(|closed| **closed >= REACH).count();
    println!(
        "gap in right answers closed by {:.1} % on average; {reached} of {} seeds reach {:.0} %",
        100.0 * mean,
        closed.len(),
        100.0 * REACH
    );
    Ok(())
}

async fn one(options: &Options, seed: u64) -> Fallible<Report> {
    let dir = options.dir.join(format!("seed-{seed}"));
    fs::create_dir_all(&dir)?;
    write_teacher(&dir.join("teacher"))?;
    material(&dir, options, seed)?;
    let recipe = format!(
        "seed = {seed}\nout = \"distilled\"\n[teacher]\nname = \"teacher\"\nfolder = \"teacher\"\nbasis = \"our own\"\n\
         prices = {{ input = \"0\", output = \"0\" }}\n[corpus]\npath = \"texts.jsonl\"\n[capture]\nsource = \"answers.jsonl\"\n\
         [capture.ask]\nprompts = \"prompts.jsonl\"\nmax_tokens = 96\ntemperature = 0.0\nlogprobs = 20\nceiling = \"1\"\n\
         [student]\nname = \"distilled\"\ntokenizer = \"teacher\"\nhidden_size = 128\nlayers = 4\nheads = 4\n\
         intermediate_size = 288\ncontext = 256\n[train]\nepochs = {epochs}\nlearning_rate = 2e-3\nbatch_tokens = 2048\nkl_weight = 0.8\n\
         [evaluate]\nheld_out = \"tasks.jsonl\"\nmost_held_out = {tasks}\ntasks = \"tasks.jsonl\"\nmost_tasks = {tasks}\nmax_tokens = 96\n\
         scratch = false\nlabels = \"labels.jsonl\"\nlabel_epochs = {label_epochs}\n{hidden}",
        hidden = if options.hidden > 0.0 {
            format!("[train.hidden_states]\nweight = {}\n", options.hidden)
        } else {
            String::new()
        },
        epochs = options.epochs,
        label_epochs = options.label_epochs,
        tasks = options.tasks,
    );
    let recipe = Recipe::parse(&recipe, &dir.join("recipe.toml"))?;
    Ok(run(&recipe, &Surroundings::default()).await?)
}

/// The files of one seed. No prompt of a task stands in another one of them, nor in what the teacher was trained on.
fn material(dir: &Path, options: &Options, seed: u64) -> Fallible<()> {
    let corpus = Corpus::new(Seeded::new(seed).fork("gap").bits());
    let texts = corpus.training().filter(|document| !document.kind.is_checkable()).take(options.documents);
    write_jsonl(&dir.join("texts.jsonl"), texts)?;
    let of_kind = |document: &Document| options.kinds.contains(&document.kind);
    let tasks: Vec<Document> = different(corpus.tasks().filter(of_kind), options.tasks);
    let asked: BTreeSet<&str> = tasks.iter().map(|task| task.prompt.as_str()).collect();
    let mut random = Seeded::new(seed).fork("tasks to learn from");
    let fresh = options.kinds.iter().cycle().map(|&kind| corpus.document(kind, &mut random));
    let fresh = fresh.filter(|task| !asked.contains(task.prompt.as_str()));
    let lesson: Vec<Document> = fresh.take(options.labels + options.prompts).collect();
    let (labels, prompts) = lesson.split_at(options.labels);
    write_jsonl(&dir.join("labels.jsonl"), labels.iter())?;
    // What a prompt's right answer is must not be seen by whoever is to be taught by the teacher alone.
    let bare = |document: &Document| serde_json::json!({ "history": document.history, "prompt": document.prompt });
    write_jsonl(&dir.join("prompts.jsonl"), prompts.iter().map(bare))?;
    Ok(write_jsonl(&dir.join("tasks.jsonl"), tasks.iter())?)
}

/// The first `count` documents with prompts of their own.
fn different(documents: impl Iterator<Item = Document>, count: usize) -> Vec<Document> {
    let mut seen = BTreeSet::new();
    // Some kinds have few prompts: the limit keeps a count that is too large from hanging.
    documents.take(100 * count).filter(|document| seen.insert(document.prompt.clone())).take(count).collect()
}

fn show(seed: u64, report: &Report, begun: Instant) {
    println!("seed {seed}: {} parameters, {:.0} s", report.parameters, begun.elapsed().as_secs_f64());
    println!("  {:<10} {:>10} {:>18} {:>8} {:>18}", "", "right", "95 %", "loss", "95 %");
    for (name, column) in [("teacher", "teacher"), ("base", "base"), ("labels", "labels"), ("distilled", "student")] {
        let Some(column) = report.column(column) else { continue };
        let (tasks, loss) = (column.tasks, column.held_out_loss);
        println!(
            "  {name:<10} {:>10} {:>18} {:>8} {:>18}",
            tasks.map_or("-".to_owned(), |tasks| format!("{}/{}", tasks.right, tasks.asked)),
            band(column.intervals.tasks, 100.0),
            loss.map_or("-".to_owned(), |loss| format!("{loss:.3}")),
            band(column.intervals.held_out_loss, 1.0)
        );
    }
    for gap in &report.gaps {
        let Gap { measure, closed, interval, .. } = gap;
        println!("  gap closed, {measure}: {:.1} % ({})", 100.0 * closed, band(*interval, 100.0));
    }
}

fn band(interval: Option<Interval>, times: f64) -> String {
    interval.map_or("-".to_owned(), |Interval { low, high }| format!("{:.3} to {:.3}", times * low, times * high))
}

fn options() -> Fallible<Options> {
    let mut options = Options {
        seeds: vec![1, 2, 3],
        prompts: 4_000,
        labels: 200,
        epochs: 8,
        label_epochs: 40,
        kinds: vec![Kind::Sorting, Kind::WordProblem],
        hidden: 0.0,
        documents: 1_500,
        tasks: 500,
        dir: std::env::temp_dir().join(format!("anbiq-gap-{}", std::process::id())),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
        match word.as_str() {
            "--seeds" => options.seeds = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--prompts" => options.prompts = value.parse()?,
            "--labels" => options.labels = value.parse()?,
            "--epochs" => options.epochs = value.parse()?,
            "--label-epochs" => options.label_epochs = value.parse()?,
            "--documents" => options.documents = value.parse()?,
            "--tasks" => options.tasks = value.parse()?,
            "--hidden" => options.hidden = value.parse()?,
            "--kinds" => {
                let kind = |name: &str| serde_json::from_value(serde_json::Value::from(name));
                options.kinds = value.split(',').map(kind).collect::<Result<_, _>>()?;
            }
            "--dir" => options.dir = value.into(),
            _ => return Err(format!("`{word}` is not known").into()),
        }
    }
    Ok(options)
}
