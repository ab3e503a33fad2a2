//! What transformers computes, this engine computes; what this engine saves, it loads again.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anbiq_lm::train::{Config as Training, Example, Trainer};
use anbiq_lm::{Dtype, LmError, Network, score};
use safetensors::{Dtype as FileType, SafeTensors};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    sequences: Vec<Sequence>,
}

#[derive(Deserialize)]
struct Sequence {
    tokens: Vec<u32>,
    places: Vec<usize>,
    logits: Vec<Vec<f32>>,
}

const CASES: [&str; 18] = [
    "tied",
    "untied-theta",
    "grouped",
    "head-dim",
    "llama3",
    "linear",
    "smollm2",
    "llama-bias",
    "llama-yarn",
    "mistral",
    "mistral-full",
    "qwen2",
    "qwen2-yarn",
    "qwen2-window",
    "qwen3",
    "qwen3-bias",
    "smollm3",
    "smollm3-window",
];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(case)
}

/// The largest difference of log-probabilities from what transformers gave.
fn difference(network: &Network, case: &str) -> f32 {
    let golden: Golden = serde_json::from_str(&fs::read_to_string(folder(case).join("golden.json")).unwrap()).unwrap();
    // Something must follow the last token for its distribution to be asked for.
    let texts: Vec<Vec<u32>> =
        golden.sequences.iter().map(|sequence| [sequence.tokens.as_slice(), &[0]].concat()).collect();
    let sequences: Vec<(&[u32], usize)> = texts.iter().map(|tokens| (tokens.as_slice(), 1)).collect();
    let worst = Mutex::new((0.0_f32, 0));
    let visit = |sequence: usize, place: usize, logprobs: &[f32]| {
        let golden = &golden.sequences[sequence];
        let Some(row) = golden.places.iter().position(|&at| at == place) else { return };
        let logits = &golden.logits[row];
        let shift = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln() as f32;
        let mut worst = worst.lock().unwrap();
        for (&logit, &logprob) in logits.iter().zip(logprobs) {
            worst.0 = worst.0.max((logit - shift - logprob).abs());
        }
        worst.1 += 1;
    };
    score::distributions(network, &sequences, 2, &visit).unwrap();
    let (worst, places) = worst.into_inner().unwrap();
    assert_eq!(places, 1 + 5 + 10);
    worst
}

#[test]
fn logits_equal_those_of_transformers() {
    for case in CASES {
        let network = Network::load(&folder(case)).unwrap();
        let worst = difference(&network, case);
        assert!(worst < 2e-5, "{case}: {worst}");
    }
}

#[test]
fn a_saved_network_loads_again() {
    for case in CASES {
        let network = Network::load(&folder(case)).unwrap();
        for (dtype, bound) in [(Dtype::F32, 2e-5), (Dtype::F16, 0.05), (Dtype::Bf16, 0.5)] {
            let place = tempfile::tempdir().unwrap();
            network.save(place.path(), dtype).unwrap();
            let again = Network::load(place.path()).unwrap();
            assert_eq!(again.config, network.config, "{case}");
            assert_eq!(again.parameters(), network.parameters());
            let worst = difference(&again, case);
            assert!(worst < bound, "{case} {dtype:?}: {worst}");
            let first = fs::read(place.path().join("model.safetensors")).unwrap();
            again.save(place.path(), dtype).unwrap();
            assert_eq!(first, fs::read(place.path().join("model.safetensors")).unwrap());
        }
    }
}

/// Every tensor of a folder: its type, its shape and its bytes.
fn tensors(folder: &Path) -> BTreeMap<String, (FileType, Vec<usize>, Vec<u8>)> {
    let mut tensors = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = fs::read(path).unwrap();
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            tensors.insert(name, (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()));
        }
    }
    tensors
}

#[test]
fn a_folder_is_written_back_in_its_own_form() {
    for case in CASES {
        let network = Network::load(&folder(case)).unwrap();
        let before = tensors(&folder(case));
        let dtype = match before.values().next().unwrap().0 {
            FileType::F16 => Dtype::F16,
            FileType::BF16 => Dtype::Bf16,
            _ => Dtype::F32,
        };
        let place = tempfile::tempdir().unwrap();
        network.save(place.path(), dtype).unwrap();
        assert!(tensors(place.path()) == before, "{case}: tensors differ");
        let fields = |folder: &Path| -> serde_json::Value {
            serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
        };
        let (before, after) = (fields(&folder(case)), fields(place.path()));
        for name in
            ["architectures", "model_type", "attention_bias", "mlp_bias", "use_sliding_window", "no_rope_layers"]
        {
            assert_eq!(after.get(name), before.get(name), "{case}: {name}");
        }
        if before.get("layer_types").is_some() {
            assert_eq!(after["layer_types"], before["layer_types"], "{case}");
        }
    }
}

#[test]
fn a_network_of_every_family_is_trained_and_keeps_its_form() {
    for case in CASES {
        let network = Network::load(&folder(case)).unwrap();
        let vocabulary = network.config.vocab_size as u32;
        let tokens = (0..100).map(|at| at * 7 % vocabulary).collect();
        let batch = [Example { tokens, first_target: 20, teacher: None }];
        let settings = Training { learning_rate: 3e-3, warmup_steps: 1, threads: 1, ..Training::default() };
        let mut trainer = Trainer::new(network, settings).unwrap();
        let losses: Vec<f64> = (0..12).map(|_| trainer.step(&batch).unwrap().loss).collect();
        assert!(losses[11] < 0.8 * losses[0], "{case}: {losses:?}");
        let (network, place) = (trainer.into_network().unwrap(), tempfile::tempdir().unwrap());
        network.save(place.path(), Dtype::F32).unwrap();
        let again = Network::load(place.path()).unwrap();
        assert_eq!(again.config, network.config, "{case}");
        assert!(again.weights.data() == network.weights.data(), "{case}");
        let names = |folder: &Path| tensors(folder).into_keys().collect::<Vec<_>>();
        assert_eq!(names(place.path()), names(&folder(case)), "{case}");
    }
}

#[test]
fn transformers_computes_the_same_from_what_was_saved() {
    let Some(python) = std::env::var_os("ANBIQ_PYTHON") else {
        eprintln!("skipped: ANBIQ_PYTHON does not name a Python that has torch and transformers");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(python);
    command.arg(folder("compare.py"));
    for case in CASES {
        let saved = place.path().join(case);
        Network::load(&folder(case)).unwrap().save(&saved, Dtype::F32).unwrap();
        command.arg(saved).arg(folder(case).join("golden.json"));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), CASES.len());
    for (case, line) in CASES.into_iter().zip(said.lines()) {
        let (family, worst) = line.split_once(' ').unwrap();
        assert_eq!(family, Network::load(&folder(case)).unwrap().config.variant.family.word());
        assert!(worst.parse::<f32>().unwrap() < 1e-4, "{case}: {worst}");
    }
}

/// What is said of a copy of the folder `case` in which `change` has been done.
fn spoiled(case: &str, change: impl FnOnce(&Path)) -> LmError {
    let place = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(folder(case).join(file), place.path().join(file)).unwrap();
    }
    change(place.path());
    Network::load(place.path()).unwrap_err()
}

fn with_config(case: &str, from: &str, to: &str) -> LmError {
    spoiled(case, |place| {
        let path = place.join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    })
}

#[test]
fn a_damaged_folder_is_refused_by_name() {
    let weights = |change: fn(Vec<u8>) -> Vec<u8>| {
        move |place: &Path| {
            let path = place.join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, change(bytes)).unwrap();
        }
    };
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 1);
        bytes
    };
    let renamed = |bytes: Vec<u8>| {
        let at = bytes.windows(10).position(|part| part == b"model.norm").unwrap();
        [&bytes[..at], b"model.form", &bytes[at + 10..]].concat()
    };
    let not_a_number = |mut bytes: Vec<u8>| {
        let end = bytes.len() - 4;
        bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    let cases: Vec<(LmError, &str, &[&str])> = vec![
        (
            spoiled("tied", |place| fs::remove_file(place.join("config.json")).unwrap()),
            "model_file_unreadable",
            &["config.json"],
        ),
        (
            spoiled("tied", |place| fs::remove_file(place.join("model.safetensors")).unwrap()),
            "model_file_unreadable",
            &["model.safetensors", "hint: a model folder holds"],
        ),
        (spoiled("tied", weights(cut)), "model_tensor_wrong", &["tensor `", "ends at byte", "cut short"]),
        (spoiled("tied", weights(|bytes| bytes[..5].to_vec())), "model_file_unreadable", &["shorter than it says"]),
        (spoiled("tied", weights(|bytes| bytes[..50].to_vec())), "model_file_malformed", &["its header claims"]),
        (
            spoiled("tied", weights(|_| b"\x05\0\0\0\0\0\0\0hello".to_vec())),
            "model_file_malformed",
            &["header cannot be read"],
        ),
        (spoiled("tied", weights(renamed)), "model_tensor_wrong", &["tensor `model.form.weight`", "has no place"]),
        (spoiled("tied", weights(not_a_number)), "model_tensor_wrong", &["not finite"]),
        (
            with_config("tied", "\"intermediate_size\": 32", "\"intermediate_size\": 31"),
            "model_tensor_wrong",
            &["where config.json asks for ["],
        ),
        (
            with_config("tied", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"),
            "model_tensor_wrong",
            &["tensor `lm_head.weight`", "is missing"],
        ),
        (
            with_config("tied", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"),
            "model_tensor_wrong",
            &["tensor `model.layers.1."],
        ),
        (
            with_config("tied", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\""),
            "model_unsupported",
            &["`hidden_act` `gelu`"],
        ),
        (
            with_config("tied", "\"mlp_bias\": false", "\"mlp_bias\": true"),
            "model_tensor_wrong",
            &["_proj.bias`", "is missing"],
        ),
        (
            with_config("tied", "\"attention_bias\": false", "\"attention_bias\": true"),
            "model_tensor_wrong",
            &["_proj.bias`", "is missing"],
        ),
        (
            with_config("llama-bias", "\"attention_bias\": true", "\"attention_bias\": false"),
            "model_tensor_wrong",
            &["_proj.bias`", "has no place", "that the family of config.json does not have"],
        ),
        (with_config("qwen3", "\"qwen3\"", "\"llama\""), "model_tensor_wrong", &["_norm.weight`", "has no place"]),
        (
            with_config("untied-theta", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"),
            "model_tensor_wrong",
            &["tensor `lm_head.weight`", "is not the embedding", "set `tie_word_embeddings` to false"],
        ),
        (
            with_config("tied", "\"hidden_size\": 24", "\"hidden_size\": \"24\""),
            "model_file_malformed",
            &["`hidden_size` should be"],
        ),
        (with_config("tied", "\"hidden_size\": 24,", ""), "model_file_malformed", &["`hidden_size` is missing"]),
        (
            with_config("tied", "\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3"),
            "model_file_malformed",
            &["4 query heads cannot share 3 key heads"],
        ),
        (
            with_config("tied", "\"vocab_size\": 40", "\"vocab_size\": 2"),
            "model_file_malformed",
            &["token 2 is not among the 2"],
        ),
        (with_config("tied", "{", "["), "model_file_malformed", &["expected the config.json"]),
    ];
    for (error, code, parts) in cases {
        let text = error.to_string();
        assert_eq!(error.code(), code, "{text}");
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }
}

#[test]
fn a_network_is_cut_in_depth() {
    for case in ["qwen3", "smollm3-window", "llama-bias"] {
        let whole = Network::load(&folder(case)).unwrap();
        let all: Vec<usize> = (1..=whole.config.layers).collect();
        let same = whole.with_layers(&all).unwrap();
        assert_eq!((same.weights.data(), &same.config), (whole.weights.data(), &whole.config), "{case}");
        let last = whole.config.layers;
        let cut = whole.with_layers(&[1, last]).unwrap();
        for (own, from) in [(0, 0), (1, last - 1)] {
            let (own_layer, from_layer) = (cut.weights.layer(own), whole.weights.layer(from));
            assert_eq!((own_layer.q, own_layer.down), (from_layer.q, from_layer.down));
            assert_eq!((own_layer.q_bias, own_layer.k_norm), (from_layer.q_bias, from_layer.k_norm));
            assert_eq!(cut.config.window(own), whole.config.window(from), "{case}");
            assert_eq!(cut.config.rotates(own), whole.config.rotates(from), "{case}");
        }
        assert_eq!((cut.weights.embed(), cut.weights.output()), (whole.weights.embed(), whole.weights.output()));
        let place = tempfile::tempdir().unwrap();
        cut.save(place.path(), Dtype::F32).unwrap();
        let again = Network::load(place.path()).unwrap();
        assert_eq!((again.weights.data(), again.config), (cut.weights.data(), cut.config), "{case}");
        for keep in [&[][..], &[0, 1], &[2, 1], &[1, 1], &[1, last + 1]] {
            assert_eq!(whole.with_layers(keep).unwrap_err().code(), "setting_invalid", "{keep:?}");
        }
    }
    let evenly: Vec<Vec<usize>> =
        [(12, 4), (5, 3), (5, 2), (6, 3), (4, 4), (3, 1)].map(|(layers, count)| Network::evenly(layers, count)).into();
    assert_eq!(evenly, [vec![1, 5, 8, 12], vec![1, 3, 5], vec![1, 5], vec![1, 4, 6], vec![1, 2, 3, 4], vec![1]]);
}
