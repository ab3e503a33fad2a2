//! What is a teacher worth to a student that cuts text into other tokens?
//!
//! `cargo run --release -p anbiq-distill --example spans [--seeds 3] [--teacher-documents 6000] [--documents 1500] [--epochs 6] [--dir DIR]`
//!
//! Two teachers of the same shape learn from the same documents of a generated corpus, one with a vocabulary of 500 tokens and one with
//! the student's own of 800. Both say what they find likeliest (20 tokens a place) in the same other documents. From these, and from
//! the same beginning, students learn the texts alone (`texts`), the texts with what the teacher of the same tokens says (`same tokens`),
//! and with what the other one says, carried over by spans of bytes (`spans`). Printed are losses on held-out documents, in nats a token
//! of the student, and the share of what the same tokens gain that spans gain too.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::fs;
use std::path::{Path, PathBuf};

use anbiq_distill::capture::Bytes;
use anbiq_distill::data::{Asked, Document};
use anbiq_distill::{Mapping, Recipe, Report, Row, Surroundings, Token, run};
use anbiq_domain::{Answer, Finish, Usage};
use anbiq_lab::corpus::{Corpus, write_jsonl};
use anbiq_lm::{Codec, Network, SPECIALS, Tokenizer, score};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct Options {
    seeds: u64,
    teacher_documents: usize,
    documents: usize,
    epochs: u32,
    dir: PathBuf,
}

/// Documents that all are measured on.
const HELD_OUT: usize = 300;

/// Tokens that a teacher names at each place.
const NAMED: usize = 20;

const CONTEXT: usize = 192;

#[tokio::main]
async fn main() -> Fallible<()> {
    let options = options()?;
    println!(
        "{:<6} {:>9} {:>9} {:>9} {:>12} {:>9} {:>8}  answers by spans, mass",
        "seed", "teacher A", "teacher B", "texts", "same tokens", "spans", "share"
    );
    for seed in 1..=options.seeds {
        one(&options, seed).await?;
    }
    Ok(())
}

async fn one(options: &Options, seed: u64) -> Fallible<()> {
    let dir = options.dir.join(format!("seed-{seed}"));
    fs::create_dir_all(&dir)?;
    let corpus = Corpus::new(seed);
    let mut all = corpus.training();
    let taught: Vec<_> = all.by_ref().take(options.teacher_documents).collect();
    let lesson: Vec<_> = all.take(options.documents).collect();
    write_jsonl(&dir.join("teacher.jsonl"), taught.iter())?;
    write_jsonl(&dir.join("lesson.jsonl"), lesson.iter())?;
    write_jsonl(&dir.join("held-out.jsonl"), corpus.held_out().take(HELD_OUT))?;
    let documents = read(&dir.join("teacher.jsonl"))?;
    for (name, size) in [("a", 500), ("b", 800)] {
        let texts = documents.iter().flat_map(|document| {
            let said = document.prompt();
            let answer = document.answer.clone().unwrap_or_default();
            [said.canonical(), answer]
        });
        let folder = dir.join(format!("tokenizer-{name}"));
        fs::create_dir_all(&folder)?;
        Codec::plain(Tokenizer::train_bpe(texts, size, &SPECIALS)?, CONTEXT)?.save(&folder)?;
    }
    let mut teachers = Vec::new();
    for name in ["a", "b"] {
        let report = made(&dir, seed, &teacher(name)).await?;
        teachers.push(report.column("student").and_then(|column| column.held_out_loss).unwrap_or(f64::NAN));
        tell(&dir, name)?;
    }
    let texts = made(&dir, seed, &student("texts", "b", options.epochs, "kl_weight = 0.0")).await?;
    let same = made(&dir, seed, &student("same", "b", options.epochs, "kl_weight = 0.7")).await?;
    let spans = made(&dir, seed, &student("spans", "a", options.epochs, "kl_weight = 0.7\nspans = true")).await?;
    let loss = |report: &Report| report.column("student").and_then(|column| column.held_out_loss).unwrap_or(f64::NAN);
    let (without, with, across) = (loss(&texts), loss(&same), loss(&spans));
    let Mapping { spans, mass, .. } = spans.capture.map(|capture| capture.mapping).unwrap_or_default();
    println!(
        "{seed:<6} {:>9.3} {:>9.3} {without:>9.4} {with:>12.4} {across:>9.4} {:>6.0} %  {spans}, {:.1} %",
        teachers[0],
        teachers[1],
        100.0 * (without - across) / (without - with),
        100.0 * mass
    );
    Ok(())
}

fn teacher(name: &str) -> String {
    format!(
        "out = \"teacher-{name}\"\n[corpus]\npath = \"teacher.jsonl\"\n[student]\nname = \"teacher-{name}\"\n\
         tokenizer = \"tokenizer-{name}\"\nhidden_size = 128\nlayers = 4\nheads = 4\nintermediate_size = 344\ncontext = {CONTEXT}\n\
         [pretrain]\nepochs = 2\nbatch_tokens = 2048\n{EVALUATE}"
    )
}

fn student(name: &str, teacher: &str, epochs: u32, train: &str) -> String {
    format!(
        "out = \"{name}\"\n[teacher]\nname = \"teacher-{teacher}\"\nbasis = \"our own\"\n[capture]\nsource = \"told-{teacher}.jsonl\"\n\
         [student]\nname = \"{name}\"\ntokenizer = \"tokenizer-b\"\nhidden_size = 64\nlayers = 2\nheads = 4\nintermediate_size = 172\n\
         context = {CONTEXT}\n[train]\nepochs = {epochs}\nlearning_rate = 3e-3\nbatch_tokens = 1024\n{train}\n{EVALUATE}"
    )
}

const EVALUATE: &str =
    "[evaluate]\nheld_out = \"held-out.jsonl\"\nmost_held_out = 300\ncapture_share = 0.0\nscratch = false\n";

async fn made(dir: &Path, seed: u64, text: &str) -> Fallible<Report> {
    let recipe = Recipe::parse(&format!("seed = {seed}\n{text}"), &dir.join("recipe.toml"))?;
    Ok(run(&recipe, &Surroundings::default()).await?)
}

/// Writes what the teacher finds likeliest at each token of the lesson, as a capture of it.
fn tell(dir: &Path, name: &str) -> Fallible<()> {
    let (network, codec) =
        (Network::load(&dir.join(format!("teacher-{name}")))?, Codec::load(&dir.join(format!("teacher-{name}")))?);
    let (mut rows, mut sequences) = (Vec::new(), Vec::new());
    for document in read(&dir.join("lesson.jsonl"))? {
        let Some(answer) = document.answer.clone() else { continue };
        let answer = Answer::new(answer, Finish::Stop);
        let (tokens, first) = codec.example(&document.prompt(), &answer)?;
        if tokens.len() <= CONTEXT {
            sequences.push((tokens, first));
            rows.push((document.prompt(), answer));
        }
    }
    let borrowed: Vec<(&[u32], usize)> = sequences.iter().map(|(tokens, first)| (tokens.as_slice(), *first)).collect();
    let likeliest = score::likeliest(&network, &borrowed, NAMED, 2)?;
    let own = score::score(&network, &borrowed, 2)?;
    let bytes = |token: u32| Bytes::from(codec.tokenizer.bytes(token).to_vec());
    let rows = rows.into_iter().zip(&sequences).zip(likeliest.iter().zip(&own)).map(
        |(((prompt, answer), (tokens, first)), (places, own))| {
            let told =
                tokens[*first..].iter().zip(places).zip(&own.logprobs).map(|((&token, place), &logprob)| Token {
                    bytes: bytes(token),
                    logprob,
                    top: place.iter().map(|&(other, logprob)| (bytes(other), logprob)).collect(),
                });
            Row {
                id: None,
                exchange: None,
                prompt: Asked::Prompt(prompt),
                answers: vec![answer],
                told: None,
                logprobs: vec![told.collect()],
                usage: Usage::default(),
                batch: false,
            }
        },
    );
    write_jsonl(&dir.join(format!("told-{name}.jsonl")), rows)?;
    Ok(())
}

fn read(path: &Path) -> Fallible<Vec<Document>> {
    fs::read_to_string(path)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn options() -> Fallible<Options> {
    let mut options = Options {
        seeds: 3,
        teacher_documents: 6_000,
        documents: 1_500,
        epochs: 6,
        dir: std::env::temp_dir().join(format!("anbiq-spans-{}", std::process::id())),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
        match word.as_str() {
            "--seeds" => options.seeds = value.parse()?,
            "--teacher-documents" => options.teacher_documents = value.parse()?,
            "--documents" => options.documents = value.parse()?,
            "--epochs" => options.epochs = value.parse()?,
            "--dir" => options.dir = value.into(),
            _ => return Err(format!("`{word}` is not known").into()),
        }
    }
    Ok(options)
}
