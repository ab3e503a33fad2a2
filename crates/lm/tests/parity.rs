//! Losses and gradients equal those of PyTorch. `cargo xtask parity` shows by how much they differ.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "the table is what `cargo xtask parity` shows")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use anbiq_lm::lora::{Adapter, Shape, Target};
use anbiq_lm::train::{
    Config as Training, Divergence, Example, Guide, HiddenStates, Measure, Pair, Preference, Trainer,
};
use anbiq_lm::{Network, score};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Golden {
    sequences: Vec<Sequence>,
    teachers: BTreeMap<String, Vec<Vec<score::Likeliest>>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Sequence {
    tokens: Vec<u32>,
    first_target: usize,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    divergence: String,
    number: Option<f64>,
    teacher: String,
    temperature: f64,
    share: f64,
    loss: f64,
    apart: f64,
}

impl Case {
    fn divergence(&self) -> Divergence {
        let number = self.number.unwrap_or_default();
        match self.divergence.as_str() {
            "forward-kl" => Divergence::ForwardKl,
            "reverse-kl" => Divergence::ReverseKl,
            "jensen-shannon" => Divergence::JensenShannon { beta: number },
            "skew-kl" => Divergence::SkewKl { alpha: number },
            "skew-reverse-kl" => Divergence::SkewReverseKl { alpha: number },
            other => {
                assert_eq!(other, "total-variation");
                Divergence::TotalVariation
            }
        }
    }
}

/// What the project promises.
const BOUND: f64 = 1e-5;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The largest difference, as a part of the largest number.
fn apart(own: &[f32], golden: &[f32]) -> f64 {
    assert_eq!(own.len(), golden.len());
    let largest = golden.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let differences = own.iter().zip(golden).map(|(own, golden)| f64::from((own - golden).abs()));
    differences.fold(0.0, f64::max) / f64::from(largest)
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data().to_vec();
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn losses_and_gradients_equal_those_of_pytorch() {
    let folder = golden().join("losses");
    let golden: Golden = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let gradients = fs::read(folder.join("gradients.safetensors")).unwrap();
    let gradients = SafeTensors::deserialize(&gradients).unwrap();
    let network = Network::load(&self::golden().join("untied-theta")).unwrap();
    let d = network.config.hidden_size;
    let mut worst = BTreeMap::new();
    println!(
        "{:<18} {:<8} {:>4} {:>6}   {:>8} {:>8} {:>8}",
        "divergence", "teacher", "T", "share", "loss", "head", "norm"
    );
    for case in &golden.cases {
        let examples: Vec<Example> = golden
            .sequences
            .iter()
            .zip(&golden.teachers[&case.teacher])
            .map(|(sequence, places)| Example {
                tokens: sequence.tokens.clone(),
                first_target: sequence.first_target,
                teacher: Some(places.clone()),
            })
            .collect();
        let settings = Training {
            divergence: case.divergence(),
            temperature: case.temperature,
            kl_weight: case.share,
            clip_norm: 1e30,
            ..Training::default()
        };
        let mut trainer = Trainer::new(network.clone(), settings).unwrap();
        let step = trainer.step(&examples).unwrap();
        let gradient = trainer.gradient().unwrap().into_owned();
        let (rest, head) = gradient.split_at(gradient.len() - network.weights.output().len());
        let relative = |own: f64, golden: f64| (own - golden).abs() / golden.abs();
        let differences = [
            relative(step.loss, case.loss).max(relative(step.divergence, case.apart)),
            apart(head, &numbers(&gradients, &format!("{} head", case.name))),
            apart(&rest[rest.len() - d..], &numbers(&gradients, &format!("{} norm", case.name))),
        ];
        let [loss, head, norm] = differences;
        println!(
            "{:<18} {:<8} {:>4} {:>6}   {loss:>8.1e} {head:>8.1e} {norm:>8.1e}",
            case.divergence, case.teacher, case.temperature, case.share
        );
        worst.insert(case.name.clone(), differences.into_iter().fold(0.0, f64::max));
    }
    println!("`top`: eight tokens and one class for the others, some places without a teacher; `all`: every token");
    let beyond: Vec<_> = worst.iter().filter(|(_, difference)| **difference > BOUND).collect();
    assert!(beyond.is_empty(), "beyond {BOUND:.0e}: {beyond:?}");
}

#[derive(Deserialize)]
struct Preferences {
    pairs: Vec<Preferred>,
    cases: Vec<PreferenceCase>,
}

#[derive(Deserialize)]
struct Preferred {
    chosen: Sequence,
    rejected: Sequence,
    reference: f64,
}

#[derive(Deserialize)]
struct PreferenceCase {
    name: String,
    beta: f64,
    likelihood: f64,
    loss: f64,
    margin: f64,
}

#[test]
fn preferences_and_their_gradients_equal_those_of_pytorch() {
    let folder = golden().join("preference");
    let golden: Preferences = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let gradients = fs::read(folder.join("gradients.safetensors")).unwrap();
    let gradients = SafeTensors::deserialize(&gradients).unwrap();
    let network = Network::load(&self::golden().join("untied-theta")).unwrap();
    let example = |sequence: &Sequence| Example {
        tokens: sequence.tokens.clone(),
        first_target: sequence.first_target,
        teacher: None,
    };
    let pairs: Vec<Pair> = golden
        .pairs
        .iter()
        .map(|pair| Pair {
            chosen: example(&pair.chosen),
            rejected: example(&pair.rejected),
            reference: pair.reference,
        })
        .collect();
    let pairs: Vec<&Pair> = pairs.iter().collect();
    for case in &golden.cases {
        for threads in [1, 2] {
            let settings = Training { threads, clip_norm: 1e30, ..Training::default() };
            let mut trainer = Trainer::new(network.clone(), settings).unwrap();
            let how = Preference { beta: case.beta, likelihood: case.likelihood };
            let step = trainer.prefer(&pairs, &how).unwrap();
            let mut marked = network.clone();
            marked.weights.data_mut().copy_from_slice(&trainer.gradient().unwrap());
            let of = |name: &str, own: &[f32]| apart(own, &numbers(&gradients, &format!("{} {name}", case.name)));
            let relative = |own: f64, golden: f64| (own - golden).abs() / golden.abs();
            let loss = relative(step.loss, case.loss).max(relative(step.margin, case.margin));
            let gradient = of("head", marked.weights.output())
                .max(of("norm", marked.weights.norm()))
                .max(of("down", marked.weights.layer(0).down));
            println!(
                "preference, beta {}, likelihood {}, {threads} threads: loss {loss:.1e}, gradient {gradient:.1e}",
                case.beta, case.likelihood
            );
            assert!(loss < BOUND && gradient < BOUND, "{}", case.name);
        }
    }
}

#[derive(Deserialize)]
struct Hidden {
    sequences: Vec<Sequence>,
    cases: Vec<HiddenCase>,
}

#[derive(Deserialize)]
struct HiddenCase {
    name: String,
    teacher: String,
    measure: Measure,
    weight: f64,
    layers: Vec<(usize, usize)>,
    cross_entropy: f64,
    states: f64,
}

#[test]
fn hidden_states_and_their_gradients_equal_those_of_pytorch() {
    let folder = golden().join("hidden");
    let golden: Hidden = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let file = fs::read(folder.join("numbers.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let network = Network::load(&self::golden().join("untied-theta")).unwrap();
    let example = |sequence: &Sequence| Example {
        tokens: sequence.tokens.clone(),
        first_target: sequence.first_target,
        teacher: None,
    };
    let examples: Vec<Example> = golden.sequences.iter().map(example).collect();
    for case in &golden.cases {
        let teacher = Arc::new(Network::load(&self::golden().join(&case.teacher)).unwrap());
        let how = HiddenStates { weight: case.weight, measure: case.measure, layers: case.layers.clone() };
        let mut guide = Guide::new(Arc::clone(&teacher), &network.config, how, 1).unwrap();
        let wider = teacher.config.hidden_size != network.config.hidden_size;
        assert_eq!(guide.projection().is_empty(), !wider);
        if wider {
            guide = guide.with_projection(numbers(&file, &format!("{} projection", case.name))).unwrap();
        }
        for threads in [1, 2] {
            let settings = Training { threads, clip_norm: 1e30, ..Training::default() };
            let mut trainer = Trainer::new(network.clone(), settings).unwrap().guided(guide.clone()).unwrap();
            let step = trainer.step(&examples).unwrap();
            let mut marked = network.clone();
            marked.weights.data_mut().copy_from_slice(&trainer.gradient().unwrap());
            let of = |name: &str, own: &[f32]| apart(own, &numbers(&file, &format!("{} {name}", case.name)));
            let relative = |own: f64, golden: f64| (own - golden).abs() / golden.abs();
            let whole = case.cross_entropy + case.weight * case.states;
            let loss = relative(step.loss, whole)
                .max(relative(step.states, case.states))
                .max(relative(step.cross_entropy, case.cross_entropy));
            let gradient = of("embed", marked.weights.embed())
                .max(of("down", marked.weights.layer(0).down))
                .max(of("head", marked.weights.output()));
            let projection = trainer.projection_gradient().unwrap();
            let projected = if wider { of("d_projection", projection) } else { 0.0 };
            println!(
                "hidden states, {}, {threads} threads: loss {loss:.1e}, gradient {gradient:.1e}, projection {projected:.1e}",
                case.name
            );
            assert!(loss < BOUND && gradient < BOUND && projected < BOUND, "{}", case.name);
            assert_eq!(trainer.guide().unwrap().projection() != guide.projection(), wider, "it learns");
        }
    }
}

#[derive(Deserialize)]
struct Adapted {
    sequences: Vec<Sequence>,
    loss: f64,
    logits: Vec<Vec<f32>>,
}

fn adapted() -> (Network, Adapter, Adapted) {
    let network = Network::load(&golden().join("untied-theta")).unwrap();
    let adapter = Adapter::load(&golden().join("lora"), &network.config).unwrap();
    let golden = serde_json::from_slice(&fs::read(golden().join("lora/golden.json")).unwrap()).unwrap();
    (network, adapter, golden)
}

/// The largest difference of log-probabilities at the places that `logits` speaks of.
fn furthest(network: &Network, tokens: &[u32], logits: &[Vec<f32>]) -> f32 {
    let tokens = [tokens, &[0]].concat();
    let worst = Mutex::new(0.0_f32);
    let visit = |_: usize, place: usize, own: &[f32]| {
        let golden = &logits[place];
        let shift = golden.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln() as f32;
        let differences = own.iter().zip(golden).map(|(own, logit)| (logit - shift - own).abs());
        let mut worst = worst.lock().unwrap();
        *worst = differences.fold(*worst, f32::max);
    };
    score::distributions(network, &[(&tokens, 1)], 1, &visit).unwrap();
    worst.into_inner().unwrap()
}

#[test]
fn adapters_equal_those_of_peft() {
    let (network, adapter, golden) = adapted();
    assert_eq!(
        *adapter.shape(),
        Shape { rank: 3, alpha: 7.0, targets: vec![Target::QProj, Target::VProj, Target::DownProj] }
    );
    let mut merged = network.clone();
    adapter.merge(&mut merged);
    let logits = furthest(&merged, &golden.sequences[0].tokens, &golden.logits);
    assert!(logits < 2e-5 && furthest(&network, &golden.sequences[0].tokens, &golden.logits) > 0.1, "{logits}");

    let examples: Vec<Example> = golden
        .sequences
        .iter()
        .map(|sequence| Example { tokens: sequence.tokens.clone(), first_target: sequence.first_target, teacher: None })
        .collect();
    let file = fs::read(self::golden().join("lora/gradients.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let mut known = Vec::new();
    for layer in 0..network.config.layers {
        for part in ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"] {
            for which in ["A", "B"] {
                known.extend(numbers(
                    &file,
                    &format!("base_model.model.model.layers.{layer}.{part}.lora_{which}.weight"),
                ));
            }
        }
    }
    for threads in [1, 2] {
        let settings = Training { threads, clip_norm: 1e30, ..Training::default() };
        let mut trainer = Trainer::with_adapter(network.clone(), adapter.clone(), settings).unwrap();
        let step = trainer.step(&examples).unwrap();
        let loss = (step.loss - golden.loss).abs() / golden.loss;
        let gradient = apart(&trainer.gradient().unwrap(), &known);
        println!(
            "adapter, {threads} threads: loss {loss:.1e}, gradient {gradient:.1e}, log-probabilities {logits:.1e} (absolute)"
        );
        assert!(loss < BOUND && gradient < BOUND);
        // The base stays, but for what the adapter says.
        let mut again = network.clone();
        trainer.adapter().unwrap().unwrap().merge(&mut again);
        assert_ne!(trainer.adapter().unwrap().unwrap().data(), adapter.data());
        assert_eq!(again.weights.data(), trainer.network().unwrap().weights.data());
        assert_eq!(again.weights.embed(), network.weights.embed());
    }
}

#[test]
fn a_trained_adapter_survives_its_folder() {
    let (network, _, golden) = adapted();
    let shape = Shape { rank: 4, ..Shape::default() };
    let adapter = Adapter::new(&network, shape, 5).unwrap();
    let example = |sequence: &Sequence| Example { tokens: sequence.tokens.clone(), first_target: 1, teacher: None };
    let examples: Vec<Example> = golden.sequences.iter().map(example).collect();
    let train = || {
        let settings = Training { learning_rate: 2e-2, warmup_steps: 5, total_steps: 60, ..Training::default() };
        let mut trainer = Trainer::with_adapter(network.clone(), adapter.clone(), settings).unwrap();
        let losses: Vec<f64> = (0..60).map(|_| trainer.step(&examples).unwrap().loss).collect();
        let adapter = trainer.adapter().unwrap().unwrap().clone();
        (losses, adapter, trainer.into_network().unwrap())
    };
    let (losses, trained, merged) = train();
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
    assert_eq!(train().1.data(), trained.data(), "the same again");

    let place = tempfile::tempdir().unwrap();
    trained.save(place.path(), "untied-theta").unwrap();
    let again = Adapter::load(place.path(), &network.config).unwrap();
    assert_eq!((again.data(), again.shape()), (trained.data(), trained.shape()));
    let mut loaded = network.clone();
    again.merge(&mut loaded);
    assert_eq!(loaded.weights.data(), merged.weights.data());

    let path = place.path().join("adapter_config.json");
    let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (name, value, says) in [
        ("use_dora", Value::Bool(true), "`use_dora` true"),
        ("bias", "all".into(), "`bias` \"all\""),
        ("peft_type", "IA3".into(), "`peft_type` \"IA3\""),
        ("rank_pattern", serde_json::json!({"q_proj": 2}), "`rank_pattern`"),
        ("r", Value::Null, "`r` is missing"),
        ("r", 5.into(), "has shape"),
    ] {
        let mut changed = config.clone();
        changed[name] = value;
        fs::write(&path, changed.to_string()).unwrap();
        let error = Adapter::load(place.path(), &network.config).unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    fs::write(&path, config.to_string()).unwrap();
    let other = Network::load(&self::golden().join("qwen3")).unwrap();
    assert_eq!(Adapter::load(place.path(), &other.config).unwrap_err().code(), "model_tensor_wrong");
    for shape in [Shape { rank: 0, ..Shape::default() }, Shape { targets: vec![], ..Shape::default() }] {
        assert_eq!(Adapter::new(&network, shape, 1).unwrap_err().code(), "setting_invalid");
    }

    let Some(python) = std::env::var_os("ANBIQ_PEFT_PYTHON") else {
        eprintln!("skipped: ANBIQ_PEFT_PYTHON does not name a Python that has torch, transformers and peft");
        return;
    };
    let script = self::golden().join("make_lora.py");
    let output = Command::new(python).arg(script).arg(place.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let logits: Vec<Vec<f32>> = serde_json::from_slice(&output.stdout).unwrap();
    let worst = furthest(&merged, &golden.sequences[0].tokens, &logits);
    println!("adapter, loaded by PEFT: log-probabilities {worst:.1e} (absolute)");
    assert!(worst < 1e-4, "{worst}");
}
