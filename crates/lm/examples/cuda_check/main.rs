//! A card beside the processor: the same scores, losses, gradients and steps; and how fast they are.
//!
//! `cargo run --release -p anbiq-lm --features cuda --example cuda_check -- check [GOLDEN]` compares every family of models
//! in `golden/` and says for each how far the card is from the processor.
//! `cuda_check bench SIZE ROWS DEVICE SECONDS` trains a network of `6m` or `110m` parameters on so many sequences of 256 tokens a
//! step, on `cpu`, `cuda` or `cuda-tf32`, and says tokens a second; `torch_train.py` beside this does the same with PyTorch.
//!
//! Without a card, or built without the feature, it says so and ends well. With `emulator.cpp` beside this it runs where there is
//! no card: see `README.md`.

#![expect(clippy::print_stdout, reason = "it prints tables")]

mod bench;
// The networks that `bench_engine` measures, so that the figures of both are of the same ones.
#[path = "../bench_engine/network.rs"]
mod network;

use std::path::{Path, PathBuf};

use anbiq_domain::Seeded;
use anbiq_lm::lora::{Adapter, Shape};
use anbiq_lm::score::Likeliest;
use anbiq_lm::train::{self, Divergence, Example, Hardware, Pair, Preference, Trainer};
use anbiq_lm::{LmError, Network, Scorer, score};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// How far apart losses and gradients may be, as a part of the largest number.
const BOUND: f64 = 1e-4;

/// Among the comparisons of a family the one of several steps, for which a hundred times the bound holds.
const STEPS: usize = 5;

fn main() -> Fallible<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["bench", size, rows, device, seconds] => bench::run(size, rows.parse()?, device, seconds.parse()?),
        ["check", golden] => check(Path::new(golden)),
        _ => check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")),
    }
}

fn check(golden: &Path) -> Fallible<()> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(golden)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    folders.retain(|folder| folder.join("config.json").exists());
    folders.sort();
    let first = Network::load(&folders[0])?;
    // It is kept, since opening a card that nobody uses takes longer.
    let _open = match Scorer::new(&first, Hardware::Cuda, 1) {
        Ok(scorer) => scorer,
        Err(error) => {
            println!("left out, since there is no card: {error}");
            return Ok(());
        }
    };
    println!("largest difference, as a part of the largest number (log-probabilities: in nats)");
    println!(
        "{:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "logprobs", "loss", "gradient", "taught", "gradient", "5 steps", "adapter", "pairs"
    );
    let (mut worst, mut rounded): (f64, f64) = (0.0, 0.0);
    for folder in &folders {
        let network = Network::load(folder)?;
        rounded = worse(rounded, tf32(&network)?);
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let differences = family(&network)?;
        print!("{name:<16}");
        differences.iter().for_each(|difference| print!(" {difference:>9.1e}"));
        println!();
        // AdamW makes a step of full size of a gradient that is nothing but rounding, such as that of a key's bias.
        worst =
            differences.iter().enumerate().map(|(at, d)| if at == STEPS { d / 100.0 } else { *d }).fold(worst, worse);
    }
    let all = divergences(&Network::load(&golden.join("untied-theta"))?)?;
    worst = worse(worst, all);
    let windowed = Network::load(&golden.join("qwen3-bias"))?;
    repeats(&windowed)?;
    println!("with TF32 gradients differ by up to {rounded:.1e}");
    println!("worst: {worst:.1e}, bound {BOUND:.0e}");
    if worst < BOUND { Ok(()) } else { Err("the card is too far from the processor".into()) }
}

/// NaN is worse than anything.
fn worse(one: f64, other: f64) -> f64 {
    if one.is_nan() || other.is_nan() { f64::NAN } else { one.max(other) }
}

/// All comparisons for one family.
fn family(network: &Network) -> Fallible<Vec<f64>> {
    let examples = examples(network, None);
    let sequences: Vec<(&[u32], usize)> =
        examples.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect();
    let mut differences = vec![scores(network, &sequences)?];
    let settings = |device| train::Config { device, warmup_steps: 0, clip_norm: 0.5, ..train::Config::default() };
    let trainer = |device| Trainer::new(network.clone(), settings(device));

    differences.extend(step(&trainer, &examples)?);
    let teacher = Network::random(network.config.clone(), 7)?;
    let taught = self::examples(network, Some(&score::likeliest(&teacher, &sequences, 8, 2)?));
    differences.extend(step(&trainer, &taught)?);

    let (mut cpu, mut cuda) = (trainer(Hardware::Cpu)?, trainer(Hardware::Cuda)?);
    for _ in 0..5 {
        cpu.step(&taught)?;
        cuda.step(&taught)?;
    }
    differences.push(moved(network, cpu.into_network()?.weights.data(), cuda.into_network()?.weights.data()));

    let adapter = Adapter::new(network, Shape::default(), 3)?;
    let adapted = |device| {
        let mut trainer = Trainer::with_adapter(network.clone(), adapter.clone(), settings(device))?;
        let mut losses = Vec::new();
        for _ in 0..4 {
            losses.push(trainer.step(&taught)?.loss as f32);
        }
        Ok::<_, LmError>(losses)
    };
    differences.push(apart(&adapted(Hardware::Cpu)?, &adapted(Hardware::Cuda)?));

    let pairs: Vec<(Example, Example)> = examples.chunks_exact(2).map(|two| (two[0].clone(), two[1].clone())).collect();
    let pairs = Pair::under(network, pairs, 2)?;
    let pairs: Vec<&Pair> = pairs.iter().collect();
    let preferring = |device| {
        let mut trainer = trainer(device)?;
        trainer.prefer(&pairs, &Preference::default())?;
        Ok::<_, LmError>(trainer.gradient()?.into_owned())
    };
    differences.push(apart(&preferring(Hardware::Cpu)?, &preferring(Hardware::Cuda)?));
    Ok(differences)
}

/// Log-probabilities of all tokens at every place, and of the targets.
fn scores(network: &Network, sequences: &[(&[u32], usize)]) -> Fallible<f64> {
    let scorer = |hardware| Scorer::new(network, hardware, 2);
    let (cpu, cuda) = (scorer(Hardware::Cpu)?, scorer(Hardware::Cuda)?);
    let mut worst: f64 = 0.0;
    for (own, other) in cpu.score(sequences)?.iter().zip(cuda.score(sequences)?) {
        for (own, other) in own.logprobs.iter().zip(&other.logprobs) {
            worst = worse(worst, f64::from((own - other).abs()));
        }
    }
    let vocab = network.config.vocab_size;
    let all = |scorer: &Scorer<'_>| {
        let mut places: Vec<Likeliest> = scorer.likeliest(sequences, vocab)?.into_iter().flatten().collect();
        places.iter_mut().for_each(|place| place.sort_by_key(|&(token, _)| token));
        Ok::<_, LmError>(places)
    };
    for (own, other) in all(&cpu)?.iter().flatten().zip(all(&cuda)?.iter().flatten()) {
        let difference = if own.0 == other.0 { f64::from((own.1 - other.1).abs()) } else { f64::NAN };
        worst = worse(worst, difference);
    }
    Ok(worst)
}

/// Loss and gradient of one step.
fn step(trainer: &impl Fn(Hardware) -> Result<Trainer, LmError>, examples: &[Example]) -> Fallible<[f64; 2]> {
    let (mut cpu, mut cuda) = (trainer(Hardware::Cpu)?, trainer(Hardware::Cuda)?);
    let (own, other) = (cpu.step(examples)?, cuda.step(examples)?);
    let parts =
        |report: &train::StepReport| [report.loss as f32, report.cross_entropy as f32, report.divergence as f32];
    Ok([apart(&parts(&own), &parts(&other)), apart(&cpu.gradient()?, &cuda.gradient()?)])
}

/// The gradient where what goes into products is rounded; there is no bound for it.
fn tf32(network: &Network) -> Fallible<f64> {
    let gradient = |device| {
        let mut trainer = Trainer::new(network.clone(), train::Config { device, ..train::Config::default() })?;
        trainer.step(&examples(network, None))?;
        Ok::<_, LmError>(trainer.gradient()?.into_owned())
    };
    Ok(apart(&gradient(Hardware::Cpu)?, &gradient(Hardware::CudaTf32)?))
}

/// Every divergence at two temperatures, with some of the teacher's tokens and with all.
fn divergences(network: &Network) -> Fallible<f64> {
    let plain = examples(network, None);
    let sequences: Vec<(&[u32], usize)> =
        plain.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect();
    let teacher = Network::random(network.config.clone(), 7)?;
    println!("\n{:<34} {:>3} {:>4} {:>9} {:>9}", "divergence", "T", "", "loss", "gradient");
    let mut worst: f64 = 0.0;
    for divergence in [
        Divergence::ForwardKl,
        Divergence::ReverseKl,
        Divergence::JensenShannon { beta: 0.3 },
        Divergence::SkewKl { alpha: 0.1 },
        Divergence::SkewReverseKl { alpha: 0.1 },
        Divergence::TotalVariation,
    ] {
        for (temperature, k) in [(1.0, 8), (2.0, 8), (1.0, network.config.vocab_size), (2.0, network.config.vocab_size)]
        {
            let taught = examples(network, Some(&score::likeliest(&teacher, &sequences, k, 2)?));
            let trainer = |device| {
                let settings =
                    train::Config { device, divergence, temperature, kl_weight: 0.7, ..train::Config::default() };
                Trainer::new(network.clone(), settings)
            };
            let [loss, gradient] = step(&trainer, &taught)?;
            let (name, which) = (format!("{divergence:?}"), if k == 8 { "top" } else { "all" });
            println!("{name:<34} {temperature:>3} {which:>4} {loss:>9.1e} {gradient:>9.1e}");
            worst = worse(worst, worse(loss, gradient));
        }
    }
    Ok(worst)
}

/// The same training twice, once with a stop in between: the same bits.
fn repeats(network: &Network) -> Fallible<()> {
    let examples = examples(network, None);
    let trainer = || {
        Trainer::new(
            network.clone(),
            train::Config { device: Hardware::Cuda, warmup_steps: 0, ..train::Config::default() },
        )
    };
    let (mut one, mut other) = (trainer()?, trainer()?);
    let place = std::env::temp_dir().join(format!("anbiq-cuda-check-{}", std::process::id()));
    for number in 0..4 {
        one.step(&examples)?;
        other.step(&examples)?;
        if number == 1 {
            other.save(&place, "half way")?;
            other = trainer()?;
            assert_eq!(other.resume(&place)?, "half way");
        }
    }
    std::fs::remove_file(&place)?;
    let bits = |trainer: Trainer| {
        Ok::<Vec<u32>, LmError>(trainer.into_network()?.weights.data().iter().map(|number| number.to_bits()).collect())
    };
    let same = bits(one)? == bits(other)?;
    println!(
        "\nthe same steps again, with a stop and a resume in between: {}",
        if same { "the same bits" } else { "OTHER BITS" }
    );
    if same { Ok(()) } else { Err("the card does not repeat itself".into()) }
}

/// Sequences of several lengths, longer than tiles and windows; what a teacher says of them, if it does, is left out of one.
fn examples(network: &Network, said: Option<&[Vec<Likeliest>]>) -> Vec<Example> {
    let mut random = Seeded::new(11);
    let most = network.config.max_positions.min(150);
    let mut example = |index: usize, (length, first_target): (usize, usize)| Example {
        tokens: (0..length.min(most)).map(|_| random.below(network.config.vocab_size) as u32).collect(),
        first_target,
        teacher: said.filter(|_| index != 1).map(|said| said[index].clone()),
    };
    let shapes = [(150, 1), (70, 9), (33, 1), (2, 1), (65, 40), (20, 3)];
    shapes.into_iter().enumerate().map(|(index, shape)| example(index, shape)).collect()
}

/// The largest difference, as a part of the largest number.
fn apart(own: &[f32], other: &[f32]) -> f64 {
    let largest = own.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let difference = own.iter().zip(other).map(|(own, other)| f64::from((own - other).abs())).fold(0.0, worse);
    difference / f64::from(largest)
}

/// How far apart two trained networks are, as a part of how far they went.
fn moved(from: &Network, own: &[f32], other: &[f32]) -> f64 {
    let way = |to: &[f32]| -> Vec<f32> { to.iter().zip(from.weights.data()).map(|(to, from)| to - from).collect() };
    let (own, other) = (way(own), way(other));
    let square = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|number| number * number).sum::<f64>().sqrt();
    let apart = square(&mut own.iter().zip(&other).map(|(own, other)| f64::from(own - other)));
    apart / square(&mut own.iter().map(|&number| f64::from(number)))
}
