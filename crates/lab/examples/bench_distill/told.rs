//! What log-probabilities take: on the disk, and of whoever reads them.
//!
//! Three captures with 20 alternatives at each place. One is asked of the embedded teacher, by the program. One has texts of a generated corpus in that
//! teacher's tokens, with alternatives drawn as often as tokens come in it and probabilities that fall as a power of the rank; it is read by the program
//! as rows that hold everything themselves and again when it is shelved: once to see what filters take (`curate`), which looks at no log-probability, and
//! once to map them to the student's tokens (`--dry-run`). One has 150,000 different words whose frequency falls with their rank, as a large
//! vocabulary; of this one only the bytes are looked at.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anbiq_domain::Seeded;
use anbiq_lab::corpus::Corpus;
use anbiq_lm::Codec;
use serde_json::{Value, json};

use crate::rig::{Rig, peak_kib, status_kib, watched};
use crate::say;

/// Tokens that are named at each place.
const NAMED: usize = 20;

/// Words of the large vocabulary, and places of its capture.
const WORDS: usize = 150_000;
const WIDE: usize = 300_000;

/// What the program took.
struct Took {
    seconds: f64,
    peak: f64,
    anonymous: f64,
}

pub(crate) async fn told(program: &Path, tokens: usize) -> Result<(), Box<dyn Error>> {
    let rig = Rig::new(program, 400)?;
    asked(&rig)?;
    wide(&rig)?;
    spoken(&rig, tokens)?;
    let inline = fs::metadata(rig.path("inline.jsonl"))?.len();
    let took = run(&rig, &["distill", "convert", "inline.jsonl", "--to", "capture", "--out", "shelved.jsonl"]).await?;
    let (rows, shards) = sizes(&rig, "shelved.jsonl")?;
    let each = |bytes: u64| bytes as f64 / tokens as f64;
    say(&format!(
        "told      {tokens} tokens: {:.1} bytes each in rows; shelved {:.1}, and {:.1} of rows; shelving them {:.1} s, peak of memory {:.0} MB",
        each(inline),
        each(shards),
        each(rows),
        took.seconds,
        took.peak
    ))?;
    for name in ["inline", "shelved"] {
        fs::write(rig.path("recipe.toml"), recipe(&format!("{name}.jsonl"), ""))?;
        for words in [&["distill", "curate", "recipe.toml"][..], &["distill", "run", "recipe.toml", "--dry-run"]] {
            let Took { seconds, peak, anonymous } = run(&rig, words).await?;
            say(&format!(
                "told      {name:<8} {:<24} {seconds:>6.1} s, peak of memory {peak:>5.0} MB, {anonymous:>5.0} MB without mapped files",
                words[1..].join(" ").replace(" recipe.toml", ""),
            ))?;
        }
    }
    Ok(())
}

/// Asks the embedded teacher.
fn asked(rig: &Rig) -> Result<(), Box<dyn Error>> {
    let ask =
        format!("[capture.ask]\nprompts = \"prompts.jsonl\"\nmax_tokens = 64\nlogprobs = {NAMED}\nceiling = \"100\"\n");
    fs::write(rig.path("ask.toml"), recipe("asked.jsonl", &ask))?;
    rig.done(&rig.command(&["distill", "capture", "ask.toml"]).output()?)?;
    let mut tokens = 0;
    for line in fs::read_to_string(rig.path("asked.jsonl"))?.lines() {
        let row: Value = serde_json::from_str(line)?;
        let answers = row["told"]["answers"].as_array().ok_or("a row names no shards")?;
        tokens += answers.iter().filter_map(|answer| answer[2].as_u64()).sum::<u64>();
    }
    let (_, shards) = sizes(rig, "asked.jsonl")?;
    say(&format!(
        "told      {tokens} tokens of the embedded teacher: {:.1} bytes each",
        shards as f64 / tokens as f64
    ))?;
    Ok(())
}

/// Writes a capture of words and shelves it.
fn wide(rig: &Rig) -> Result<(), Box<dyn Error>> {
    let mut random = Seeded::new(1).fork("wide");
    let mut letters = |least: usize, most: usize| -> String {
        let length = least + random.below(most + 1 - least);
        (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
    };
    let syllables: Vec<String> = (0..400).map(|_| letters(2, 4)).collect();
    let mut words = std::collections::HashSet::new();
    let mut all = Vec::with_capacity(WORDS);
    while all.len() < WORDS {
        let space = if random.below(2) == 0 { " " } else { "" };
        let parts: String = (0..1 + random.below(3)).map(|_| syllables[random.below(400)].as_str()).collect();
        let word = format!("{space}{parts}");
        if words.insert(word.clone()) {
            all.push(json!(word).to_string());
        }
    }
    let weights: Vec<f64> = (1..=WORDS).map(|rank| 1.0 / rank as f64).collect();
    let mut file = BufWriter::new(File::create(rig.path("wide-inline.jsonl"))?);
    let mut draws = Draws::new(&weights, 2);
    for _ in 0..WIDE / 100 {
        let own: Vec<usize> = (0..100).map(|_| draws.draw()).collect();
        row(&mut file, "Go on.", "as it is", &own, &all, &mut draws)?;
    }
    file.into_inner()?;
    rig.done(
        &rig.command(&["distill", "convert", "wide-inline.jsonl", "--to", "capture", "--out", "wide.jsonl"])
            .output()?,
    )?;
    let (_, shards) = sizes(rig, "wide.jsonl")?;
    say(&format!("told      {WIDE} tokens of a vocabulary of {WORDS}: {:.1} bytes each", shards as f64 / WIDE as f64))?;
    Ok(())
}

/// Writes a capture of `count` tokens of the embedded teacher.
fn spoken(rig: &Rig, count: usize) -> Result<(), Box<dyn Error>> {
    let codec = Codec::load(&rig.path("teacher"))?;
    let size = codec.tokenizer.size();
    let spelt: Vec<String> = (0..size as u32)
        .map(|token| {
            let bytes = codec.tokenizer.bytes(token);
            std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), |text| json!(text)).to_string()
        })
        .collect();
    let mut weights = vec![0.1; size];
    for document in Corpus::new(3).training().take(2_000) {
        for token in codec.tokenizer.encode(&document.answer, false)? {
            weights[token as usize] += 1.0;
        }
    }
    let mut draws = Draws::new(&weights, 3);
    let mut file = BufWriter::new(File::create(rig.path("inline.jsonl"))?);
    let (mut written, mut seed) = (0, 10);
    while written < count {
        for document in Corpus::new(seed).training() {
            let tokens = codec.tokenizer.encode(&document.answer, false)?;
            let own: Vec<usize> = tokens.iter().chain(codec.eos.first()).map(|&token| token as usize).collect();
            row(&mut file, &format!("Number {written} of {seed}."), &document.answer, &own, &spelt, &mut draws)?;
            written += own.len();
            if written >= count {
                break;
            }
        }
        seed += 1;
    }
    file.into_inner()?;
    Ok(())
}

fn row(
    to: &mut impl Write,
    prompt: &str,
    answer: &str,
    own: &[usize],
    spelt: &[String],
    draws: &mut Draws,
) -> Result<(), Box<dyn Error>> {
    let (prompt, answer, last) = (json!(prompt), json!(answer), own.len() - 1);
    write!(to, "{{\"prompt\":{prompt},\"answers\":[{{\"text\":{answer},\"finish\":\"stop\"}}],\"logprobs\":[[")?;
    for (place, &token) in own.iter().enumerate() {
        let named = draws.place(token);
        let own = named.iter().find(|(other, _)| *other == token).map_or(-9.5, |(_, logprob)| *logprob);
        write!(to, "{{\"bytes\":{},\"logprob\":{own},\"top\":[", spelt[token])?;
        for (rank, (other, logprob)) in named.iter().enumerate() {
            write!(to, "{}[{},{logprob}]", if rank == 0 { "" } else { "," }, spelt[*other])?;
        }
        write!(to, "]}}{}", if place == last { "" } else { "," })?;
    }
    writeln!(to, "]],\"usage\":{{\"prompt_tokens\":8,\"completion_tokens\":{}}}}}", own.len())?;
    Ok(())
}

/// Draws of tokens as often as they weigh.
struct Draws {
    random: Seeded,
    sums: Vec<f64>,
}

impl Draws {
    fn new(weights: &[f64], seed: u64) -> Self {
        let mut sum = 0.0;
        let sums = weights.iter().map(|weight| {
            sum += weight;
            sum
        });
        Self { sums: sums.collect(), random: Seeded::new(seed).fork("draws") }
    }

    fn draw(&mut self) -> usize {
        let at = self.random.unit() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum < at).min(self.sums.len() - 1)
    }

    /// The tokens that are named at a place: nineteen times in twenty the one that was chosen is one of them.
    fn place(&mut self, own: usize) -> Vec<(usize, f32)> {
        let sharp = 0.7 + 2.0 * self.random.unit();
        let weights: Vec<f64> = (1..=60).map(|rank| f64::from(rank).powf(-sharp)).collect();
        let sum: f64 = weights.iter().sum();
        let mut named: Vec<usize> = Vec::with_capacity(NAMED);
        named.extend((self.random.below(20) > 0).then_some(own));
        while named.len() < NAMED {
            let other = self.draw();
            if other != own && !named.contains(&other) {
                named.push(other);
            }
        }
        if self.random.below(4) == 0 {
            named.swap(0, 1);
        }
        named.into_iter().zip(weights).map(|(token, weight)| (token, (weight / sum).ln() as f32)).collect()
    }
}

fn recipe(source: &str, ask: &str) -> String {
    format!(
        "out = \"student\"\n[teacher]\nname = \"still\"\nfolder = \"teacher\"\nbasis = \"a benchmark\"\n\
         prices = {{ input = \"0.50\", output = \"2.00\" }}\n[capture]\nsource = \"{source}\"\n{ask}\
         [student]\nname = \"student\"\ninit = \"teacher\"\n[evaluate]\ncapture_share = 0.0\n"
    )
}

/// Bytes of the rows and of the shards of a capture.
fn sizes(rig: &Rig, capture: &str) -> std::io::Result<(u64, u64)> {
    let mut shards = 0;
    for file in fs::read_dir(rig.path("."))? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("{capture}.")) && name.ends_with(".told") {
            shards += file.metadata()?.len();
        }
    }
    Ok((fs::metadata(rig.path(capture))?.len(), shards))
}

async fn run(rig: &Rig, words: &[&str]) -> Result<Took, Box<dyn Error>> {
    let begun = Instant::now();
    let log = File::create(rig.path("log"))?;
    let program = rig.command(words).stdout(Stdio::null()).stderr(log).spawn()?;
    let (mut peak, mut anonymous) = (0, 0);
    let outcome = watched(program, Duration::from_millis(5), |pid| {
        peak = peak.max(peak_kib(pid));
        anonymous = anonymous.max(status_kib(pid, "RssAnon:"));
    })
    .await?;
    if !outcome.success() {
        return Err(format!("{}: {}", words.join(" "), fs::read_to_string(rig.path("log"))?).into());
    }
    let megabytes = |kib: u64| kib as f64 * 1024.0 / 1e6;
    Ok(Took { seconds: begun.elapsed().as_secs_f64(), peak: megabytes(peak), anonymous: megabytes(anonymous) })
}
