//! What transformers computes, this engine computes; what this engine saves, it loads again.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anbiq_lm::{Config, Dtype, LmError, Network, score};
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

const CASES: [&str; 6] = ["tied", "untied-theta", "grouped", "head-dim", "llama3", "linear"];

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

/// A copy of the folder `tied` in which `change` has been done.
fn spoiled(change: impl FnOnce(&Path)) -> LmError {
    let place = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(folder("tied").join(file), place.path().join(file)).unwrap();
    }
    change(place.path());
    Network::load(place.path()).unwrap_err()
}

fn with_config(from: &str, to: &str) -> LmError {
    spoiled(|place| {
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
            spoiled(|place| fs::remove_file(place.join("config.json")).unwrap()),
            "model_file_unreadable",
            &["config.json"],
        ),
        (
            spoiled(|place| fs::remove_file(place.join("model.safetensors")).unwrap()),
            "model_file_unreadable",
            &["model.safetensors", "hint: a model folder holds"],
        ),
        (spoiled(weights(cut)), "model_tensor_wrong", &["tensor `", "ends at byte", "cut short"]),
        (spoiled(weights(|bytes| bytes[..5].to_vec())), "model_file_unreadable", &["shorter than it says"]),
        (spoiled(weights(|bytes| bytes[..50].to_vec())), "model_file_malformed", &["its header claims"]),
        (spoiled(weights(|_| b"\x05\0\0\0\0\0\0\0hello".to_vec())), "model_file_malformed", &["header cannot be read"]),
        (spoiled(weights(renamed)), "model_tensor_wrong", &["tensor `model.form.weight`", "has no place"]),
        (spoiled(weights(not_a_number)), "model_tensor_wrong", &["not finite"]),
        (
            with_config("\"intermediate_size\": 32", "\"intermediate_size\": 31"),
            "model_tensor_wrong",
            &["where config.json asks for ["],
        ),
        (
            with_config("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"),
            "model_tensor_wrong",
            &["tensor `lm_head.weight`", "is missing"],
        ),
        (
            with_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"),
            "model_tensor_wrong",
            &["tensor `model.layers.1."],
        ),
        (
            with_config("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\""),
            "model_unsupported",
            &["`hidden_act` `gelu`"],
        ),
        (with_config("\"mlp_bias\": false", "\"mlp_bias\": true"), "model_unsupported", &["`mlp_bias`"]),
        (
            with_config("\"attention_bias\": false", "\"attention_bias\": true"),
            "model_unsupported",
            &["`attention_bias`"],
        ),
        (with_config("\"llama\"", "\"qwen3\""), "model_unsupported", &["`model_type` `qwen3`", "hint: Llama-family"]),
        (
            with_config("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\""),
            "model_unsupported",
            &["rope type `yarn`"],
        ),
        (with_config("\"use_cache\": true", "\"sliding_window\": 8"), "model_unsupported", &["`sliding_window` 8"]),
        (
            with_config("\"hidden_size\": 24", "\"hidden_size\": \"24\""),
            "model_file_malformed",
            &["`hidden_size` should be"],
        ),
        (with_config("\"hidden_size\": 24,", ""), "model_file_malformed", &["`hidden_size` is missing"]),
        (
            with_config("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3"),
            "model_file_malformed",
            &["4 query heads cannot share 3 key heads"],
        ),
        (
            with_config("\"vocab_size\": 40", "\"vocab_size\": 2"),
            "model_file_malformed",
            &["token 2 is not among the 2"],
        ),
        (with_config("{", "["), "model_file_malformed", &["expected the config.json"]),
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
fn both_generations_of_rope_settings_are_read() {
    let read = |rope: &str| {
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
                 "num_hidden_layers": 1, "num_attention_heads": 2, {rope}}}"#
        );
        Config::parse(&text, Path::new("config.json")).unwrap()
    };
    let llama3 = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192"#;
    let old = read(&format!(r#""rope_theta": 5e5, "rope_scaling": {{"type": "llama3", {llama3}}}"#));
    let new = read(&format!(r#""rope_parameters": {{"rope_theta": 5e5, "rope_type": "llama3", {llama3}}}"#));
    assert_eq!(old, new);
    assert_eq!(old.rope_theta, 5e5);
    assert_ne!(old.inverse_frequencies(), read(r#""rope_theta": 5e5"#).inverse_frequencies());
    assert_eq!(read(r#""rope_theta": null"#).rope_theta, 1e4);
}
