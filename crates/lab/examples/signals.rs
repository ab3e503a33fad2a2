//! What is a teacher's word worth, whole, in part and in drawn tokens?
//!
//! `cargo run --release -p anbiq-lab --example signals [--seeds 1,2,3] [--tokens 300000] [--places 8000] [--epochs 60] [--temper 2.5]`
//!
//! The teacher is the embedded one of the demonstration, the texts are stories, letters and talk of the generated corpus, and a
//! student is a network of 0.2 million numbers that begins at random. Two questions, each with the same students, texts and steps:
//!
//! `equal tokens`: every text is read once, with its own tokens as targets (`text`), or with all that the teacher says at each place
//! (`teacher`); and again with half of the texts (`teacher, half`). Told is the loss on other texts (Hinton et al. 2015).
//!
//! `signals`: at each of a few fixed places one target is stored, and read until it is learnt: a drawn token (`hard`), the whole
//! distribution (`full`), its twenty likeliest tokens made to add up to one (`top-20 alone`) or with one class for all others (`top-20, rest`), these
//! with twelve tokens drawn from the others (`top-20, 12 drawn`), or drawn tokens only. So that the tail is heavy the teacher's
//! distribution is flattened by a temperature. Told are KL(teacher || student) at places of other texts, the calibration error in
//! expectation under the teacher, and the share of what the whole distribution gains over hard labels (Anshumann et al. 2025).

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::collections::BTreeMap;
use std::sync::Mutex;

use anbiq_domain::{Answer, Finish, Seeded};
use anbiq_lab::corpus::Corpus;
use anbiq_lab::teacher::write_teacher;
use anbiq_lm::score::{self, Likeliest};
use anbiq_lm::train::{Config as Training, Example, Trainer, epochs};
use anbiq_lm::{Codec, Config, Network};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct Options {
    seeds: Vec<u64>,
    /// Tokens that are read once.
    tokens: usize,
    /// Places that are read until they are learnt.
    places: usize,
    epochs: u32,
    temper: f64,
    threads: usize,
}

/// Tokens a step.
const BATCH: usize = 1_024;

/// Tokens that are measured on.
const HELD_OUT: usize = 20_000;

/// Tokens that are named.
const TOP: usize = 20;

struct Teacher {
    network: Network,
    codec: Codec,
}

fn main() -> Fallible<()> {
    let options = options()?;
    let dir = tempfile::tempdir()?;
    write_teacher(dir.path())?;
    let teacher = Teacher { network: Network::load(dir.path())?, codec: Codec::load(dir.path())? };
    equal_tokens(&teacher, &options)?;
    signals(&teacher, &options)
}

/// Texts of about so many tokens, which no tasks are.
fn texts(
    codec: &Codec,
    documents: impl Iterator<Item = anbiq_lab::corpus::Document>,
    tokens: usize,
) -> Fallible<Vec<Example>> {
    let (mut examples, mut have) = (Vec::new(), 0);
    for document in documents.filter(|document| !document.kind.is_checkable()) {
        if have >= tokens {
            break;
        }
        let answer = Answer::new(document.answer.clone(), Finish::Stop);
        let (tokens, first_target) = codec.example(&document.prompt(), &answer)?;
        if tokens.len() <= codec.context {
            have += tokens.len() - first_target;
            examples.push(Example { tokens, first_target, teacher: None });
        }
    }
    Ok(examples)
}

fn sequences(examples: &[Example]) -> Vec<(&[u32], usize)> {
    examples.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect()
}

fn student(teacher: &Network, seed: u64) -> Fallible<Network> {
    let shape = Config {
        hidden_size: 64,
        intermediate_size: 160,
        layers: 2,
        heads: 4,
        kv_heads: 4,
        head_dim: 16,
        ..teacher.config.clone()
    };
    Ok(Network::random(shape, seed)?)
}

fn training(steps: usize, options: &Options) -> Training {
    Training {
        learning_rate: 4e-3,
        warmup_steps: (steps / 20).max(1) as u64,
        total_steps: steps as u64,
        batch_tokens: BATCH,
        kl_weight: 1.0,
        threads: options.threads,
        ..Training::default()
    }
}

/// What the teacher says at each target of some texts, made into what is learnt from by `signal`.
fn told(
    teacher: &Network,
    examples: &[Example],
    temper: f64,
    threads: usize,
    signal: &(dyn Fn(usize, usize, &[f64]) -> Likeliest + Sync),
) -> Fallible<Vec<Example>> {
    let places: Vec<Mutex<Vec<Likeliest>>> = examples.iter().map(|_| Mutex::default()).collect();
    score::distributions(teacher, &sequences(examples), threads, &|sequence, place, logprobs| {
        let probabilities = flattened(logprobs, temper);
        if let Ok(mut places) = places[sequence].lock() {
            places.push(signal(sequence, place, &probabilities));
        }
    })?;
    let with = |(example, places): (&Example, Mutex<Vec<Likeliest>>)| Example {
        teacher: Some(places.into_inner().unwrap_or_default()),
        ..example.clone()
    };
    Ok(examples.iter().zip(places).map(with).collect())
}

/// Probabilities to the power of one over `temper`.
fn flattened(logprobs: &[f32], temper: f64) -> Vec<f64> {
    let powers: Vec<f64> = logprobs.iter().map(|&logprob| (f64::from(logprob) / temper).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn whole(probabilities: &[f64]) -> Likeliest {
    probabilities.iter().enumerate().map(|(token, &p)| (token as u32, p.ln() as f32)).collect()
}

fn equal_tokens(teacher: &Teacher, options: &Options) -> Fallible<()> {
    println!("equal tokens: loss on other texts, nats a token");
    println!(
        "{:<6} {:>9} {:>9} {:>9} {:>14} {:>12}",
        "seed", "teacher", "text", "taught", "taught, half", "gap closed"
    );
    for &seed in &options.seeds {
        let corpus = Corpus::new(Seeded::new(seed).fork("signals").bits());
        let lesson = texts(&teacher.codec, corpus.training(), options.tokens)?;
        let held_out = texts(&teacher.codec, corpus.held_out(), HELD_OUT)?;
        let loss = |network: &Network| score::mean_loss(network, &sequences(&held_out), options.threads);
        let learn = |lesson: &[Example], taught: bool| -> Fallible<f64> {
            let batches = epochs(lesson, 1, BATCH, seed);
            let mut trainer = Trainer::new(student(&teacher.network, seed)?, training(batches.len(), options))?;
            for batch in batches {
                let batch: Vec<Example> = batch.into_iter().cloned().collect();
                // The whole distributions of all texts at once would not fit into memory.
                let batch = match taught {
                    true => told(&teacher.network, &batch, 1.0, options.threads, &|_, _, p| whole(p))?,
                    false => batch,
                };
                trainer.step(&batch)?;
            }
            Ok(loss(trainer.network()?)?)
        };
        let (best, text) = (loss(&teacher.network)?, learn(&lesson, false)?);
        let (taught, half) = (learn(&lesson, true)?, learn(&lesson[..lesson.len() / 2], true)?);
        println!(
            "{seed:<6} {best:>9.3} {text:>9.3} {taught:>9.3} {half:>14.3} {:>11.1}%",
            100.0 * (text - taught) / (text - best)
        );
    }
    Ok(())
}

/// How near a student is to its teacher.
#[derive(Debug, Clone, Copy, Default)]
struct Near {
    kl: f64,
    ece: f64,
}

type Signal = dyn Fn(&[f64], &mut Seeded) -> Likeliest + Sync;

fn signals(teacher: &Teacher, options: &Options) -> Fallible<()> {
    let ways: [(&str, &Signal); 7] = [
        ("hard", &|p, random| drawn(p, 1, 1.0, random)),
        ("full", &|p, _| whole(p)),
        ("top-20 alone", &|p, _| {
            let top = top(p);
            let mass: f64 = top.iter().map(|&(_, p)| p).sum();
            logarithms(top.into_iter().map(|(token, p)| (token, p / mass)))
        }),
        ("top-20, rest", &|p, _| logarithms(top(p).into_iter())),
        ("top-20, 12 drawn", &|p, random| {
            let top = top(p);
            let mut others = p.to_vec();
            top.iter().for_each(|&(token, _)| others[token as usize] = 0.0);
            let rest: f64 = others.iter().sum();
            let tail = drawn(&others, 12, rest, random);
            logarithms(top.into_iter()).into_iter().chain(tail).collect()
        }),
        ("12 drawn", &|p, random| drawn(p, 12, 1.0, random)),
        ("50 drawn", &|p, random| drawn(p, 50, 1.0, random)),
    ];
    println!("\nsignals: {} places, {} epochs, temperature {}", options.places, options.epochs, options.temper);
    println!("{:<6} {:<18} {:>7} {:>8} {:>8} {:>12}", "seed", "stored", "named", "KL", "ECE", "of the gain");
    for &seed in &options.seeds {
        let corpus = Corpus::new(Seeded::new(seed).fork("signals").bits());
        let lesson = texts(&teacher.codec, corpus.training(), options.places)?;
        let held_out = texts(&teacher.codec, corpus.held_out(), HELD_OUT / 4)?;
        let mut found: Vec<(&str, f64, Near)> = Vec::new();
        for (name, signal) in ways {
            let random = Seeded::new(seed).fork(name);
            let signal =
                |sequence: usize, place: usize, p: &[f64]| signal(p, &mut random.fork(&format!("{sequence} {place}")));
            let lesson = told(&teacher.network, &lesson, options.temper, options.threads, &signal)?;
            let lists = lesson.iter().flat_map(|example| example.teacher.iter().flatten());
            let (sum, count) = lists.fold((0, 0), |(sum, count), list| (sum + list.len(), count + 1));
            let batches = epochs(&lesson, options.epochs, BATCH, seed);
            let mut trainer = Trainer::new(student(&teacher.network, seed)?, training(batches.len(), options))?;
            for batch in batches {
                trainer.step(&batch)?;
            }
            let near = near(&teacher.network, trainer.network()?, &held_out, options)?;
            found.push((name, sum as f64 / count as f64, near));
        }
        let kl = |name: &str| found.iter().find(|(known, ..)| *known == name).map_or(f64::NAN, |(.., near)| near.kl);
        let (hard, full) = (kl("hard"), kl("full"));
        for (name, named, Near { kl, ece }) in &found {
            let gain = 100.0 * (hard - kl) / (hard - full);
            println!("{seed:<6} {name:<18} {named:>7.1} {kl:>8.4} {ece:>8.4} {gain:>11.1}%");
        }
    }
    Ok(())
}

fn top(probabilities: &[f64]) -> Vec<(u32, f64)> {
    let mut all: Vec<(u32, f64)> = probabilities.iter().enumerate().map(|(token, &p)| (token as u32, p)).collect();
    all.sort_by(|one, two| two.1.total_cmp(&one.1));
    all.truncate(TOP);
    all
}

fn logarithms(named: impl Iterator<Item = (u32, f64)>) -> Likeliest {
    named.map(|(token, p)| (token, p.ln() as f32)).collect()
}

/// `count` tokens drawn by `weights`, each with its share of `mass`.
fn drawn(weights: &[f64], count: u32, mass: f64, random: &mut Seeded) -> Likeliest {
    let sum: f64 = weights.iter().sum();
    let mut times = BTreeMap::<u32, u32>::new();
    for _ in 0..count {
        let mut ticket = random.unit() * sum;
        let token = weights.iter().position(|weight| {
            ticket -= weight;
            ticket < 0.0
        });
        *times.entry(token.unwrap_or_default() as u32).or_default() += 1;
    }
    logarithms(times.into_iter().map(|(token, times)| (token, mass * f64::from(times) / f64::from(count))))
}

/// KL(teacher || student) and calibration over ten bins of what the student is surest of, in expectation under the teacher.
fn near(teacher: &Network, student: &Network, held_out: &[Example], options: &Options) -> Fallible<Near> {
    let said = told(teacher, held_out, options.temper, options.threads, &|_, _, p| whole(p))?;
    let sums = Mutex::new((0.0, 0_u32, [(0.0, 0.0); 10]));
    score::distributions(student, &sequences(held_out), options.threads, &|sequence, place, logprobs| {
        let Some(list) = said[sequence].teacher.as_ref().and_then(|places| places.get(place)) else { return };
        let kl: f64 = list
            .iter()
            .map(|&(token, logprob)| {
                f64::from(logprob).exp() * (f64::from(logprob) - f64::from(logprobs[token as usize]))
            })
            .sum();
        let best = (0..logprobs.len()).max_by(|&one, &two| logprobs[one].total_cmp(&logprobs[two])).unwrap_or_default();
        let (sure, right) = (f64::from(logprobs[best]).exp(), f64::from(list[best].1).exp());
        if let Ok(mut sums) = sums.lock() {
            sums.0 += kl;
            sums.1 += 1;
            let bin = &mut sums.2[((sure * 10.0) as usize).min(9)];
            *bin = (bin.0 + sure, bin.1 + right);
        }
    })?;
    let (kl, count, bins) = sums.into_inner().unwrap_or_default();
    let ece = bins.iter().map(|(sure, right)| (sure - right).abs()).sum::<f64>();
    Ok(Near { kl: kl / f64::from(count), ece: ece / f64::from(count) })
}

fn options() -> Fallible<Options> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options =
        Options { seeds: vec![1, 2, 3], tokens: 300_000, places: 8_000, epochs: 60, temper: 2.5, threads };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
        match word.as_str() {
            "--seeds" => options.seeds = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--tokens" => options.tokens = value.parse()?,
            "--places" => options.places = value.parse()?,
            "--epochs" => options.epochs = value.parse()?,
            "--temper" => options.temper = value.parse()?,
            _ => return Err(format!("`{word}` is not known").into()),
        }
    }
    Ok(options)
}
