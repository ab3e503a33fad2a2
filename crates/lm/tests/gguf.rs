//! What is written as GGUF is read again, and llama.cpp computes the same from it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anbiq_domain::{Prompt, Seeded};
use anbiq_lm::gguf::{self, Storage};
use anbiq_lm::train::{Config as Training, Example, Trainer};
use anbiq_lm::{
    Codec, Config, Family, LmError, Local, LocalOptions, Network, RopeScaling, SPECIALS, Tokenizer, Variant, score,
};
use anbiq_model::{Event, Model, Request, Sampling};
use serde::Deserialize;
use serde_json::{Value, json};

const TEXTS: [&str; 4] = [
    "the old mill by the river and the old bridge past the mill",
    "seven plus two is nine; nine plus one is ten; ten plus two is twelve",
    "القارب القديم والجسر القديم — naïve café",
    "a boat drifts past the old mill, and past the bridge, and on",
];

fn codec() -> Codec {
    let tokenizer = Tokenizer::train_bpe(TEXTS, 320, &SPECIALS).unwrap();
    Codec::plain(tokenizer, 160).unwrap()
}

/// The same tokens under each way to cut words that has a name, one of them with a token that begins every text.
fn codecs() -> Vec<(&'static str, Codec)> {
    let bytes =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let digits =
        json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes(true)]});
    let pattern = |numbers: &str| {
        let pattern = format!(
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|{numbers}| ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n]*\
             |\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
        );
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
    };
    let first = json!({"SpecialToken": {"id": "<|system|>", "type_id": 0}});
    let text = |id: &str, number: u8| json!({"Sequence": {"id": id, "type_id": number}});
    let begins = json!({
        "type": "TemplateProcessing",
        "single": [first, text("A", 0)],
        "pair": [first, text("A", 0), text("B", 1)],
        "special_tokens": {"<|system|>": {"id": "<|system|>", "ids": [1], "tokens": ["<|system|>"]}},
    });
    let changed = |change: &dyn Fn(&mut Value), bos: Option<u32>| {
        let folder = tempfile::tempdir().unwrap();
        let codec = codec();
        codec.tokenizer.save(folder.path()).unwrap();
        let path = folder.path().join("tokenizer.json");
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut file);
        std::fs::write(&path, file.to_string()).unwrap();
        Codec { tokenizer: Tokenizer::load(folder.path()).unwrap(), bos, ..codec }
    };
    vec![
        ("gpt-2", codec()),
        ("smollm", changed(&|file| file["pre_tokenizer"] = digits.clone(), None)),
        (
            "qwen2",
            changed(
                &|file| {
                    file["pre_tokenizer"] = pattern("\\p{N}");
                    file["normalizer"] = json!({"type": "NFC"});
                },
                None,
            ),
        ),
        (
            "llama-bpe",
            changed(
                &|file| {
                    file["pre_tokenizer"] = pattern("\\p{N}{1,3}");
                    file["model"]["ignore_merges"] = json!(true);
                    file["post_processor"] = begins.clone();
                },
                Some(1),
            ),
        ),
    ]
}

fn shape() -> Config {
    Config {
        variant: Variant::default(),
        vocab_size: codec().tokenizer.size(),
        hidden_size: 64,
        intermediate_size: 96,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tied: true,
        max_positions: 160,
        bos: None,
        eos: vec![0],
        pad: None,
    }
}

fn family(family: Family) -> Variant {
    Variant { family, ..Variant::default() }
}

/// One of each thing that is written.
fn shapes() -> Vec<(&'static str, Config)> {
    let yarn =
        |attention| RopeScaling::Yarn { factor: 4.0, original: 40.0, fast: 32.0, slow: 1.0, attention, truncate: true };
    let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 64.0 };
    let biased = Variant { attention_bias: true, mlp_bias: true, ..Variant::default() };
    let window = Variant { window: Some(160), windowed: vec![true; 4], ..family(Family::Mistral) };
    let unplaced = Variant { unplaced: vec![false, false, false, true], ..family(Family::SmolLm3) };
    vec![
        ("llama", shape()),
        ("llama-bias", Config { variant: biased, tied: false, kv_heads: 4, ..shape() }),
        ("llama-head-dim", Config { head_dim: 24, kv_heads: 1, rope_theta: 5e5, ..shape() }),
        ("llama-linear", Config { rope_scaling: RopeScaling::Linear { factor: 4.0 }, ..shape() }),
        ("llama-llama3", Config { rope_scaling: llama3, ..shape() }),
        ("llama-yarn", Config { rope_scaling: yarn(1.25), ..shape() }),
        ("mistral", Config { variant: window, tied: false, ..shape() }),
        ("qwen2", Config { variant: family(Family::Qwen2), rope_theta: 1e6, ..shape() }),
        ("qwen2-yarn", Config { variant: family(Family::Qwen2), rope_scaling: yarn(0.9), ..shape() }),
        ("qwen3", Config { variant: family(Family::Qwen3), head_dim: 24, rms_norm_eps: 1e-6, ..shape() }),
        ("smollm3", Config { variant: unplaced, ..shape() }),
    ]
}

/// A network in which every number counts, norms and biases too.
fn random(config: Config) -> Network {
    let mut network = Network::random(config, 7).unwrap();
    let mut random = Seeded::new(11);
    for weight in network.weights.data_mut() {
        let norm = *weight == 1.0;
        *weight += (random.normal() * if norm { 0.2 } else { 0.16 }) as f32;
    }
    // llama.cpp says nothing of tokens that are part of a character, so none of them is to be said.
    let (vocab, d) = (network.config.vocab_size, network.config.hidden_size);
    let rows = if network.config.tied { 0 } else { network.weights.data().len() - vocab * d };
    let codec = codec();
    for token in 0..vocab {
        let whole = std::str::from_utf8(codec.tokenizer.bytes(token as u32)).is_ok();
        if !whole || codec.tokenizer.is_special(token as u32) {
            network.weights.data_mut()[rows + token * d..][..d].fill(0.0);
        }
    }
    network
}

/// A network that knows some texts by heart: it is sure of what it says.
fn taught() -> Network {
    let codec = codec();
    let examples: Vec<Example> = TEXTS
        .iter()
        .map(|text| {
            let mut tokens = vec![codec.tokenizer.id("<|user|>").unwrap()];
            tokens.extend(codec.tokenizer.encode(&[*text; 3].join(" "), false).unwrap());
            tokens.truncate(120);
            Example { tokens, first_target: 1, teacher: None }
        })
        .collect();
    let settings = Training { learning_rate: 4e-3, total_steps: 120, warmup_steps: 10, ..Training::default() };
    let mut trainer = Trainer::new(Network::random(shape(), 3).unwrap(), settings).unwrap();
    for _ in 0..120 {
        trainer.step(&examples).unwrap();
    }
    trainer.into_network().unwrap()
}

/// The log-probabilities at every place of some tokens.
fn distributions(network: &Network) -> Vec<f32> {
    let tokens: Vec<u32> = (0..100).map(|place| (place * place * 7 + 3) % 300).collect();
    let all = std::sync::Mutex::new(Vec::new());
    score::distributions(network, &[(&tokens, 1)], 1, &|_, _, row: &[f32]| all.lock().unwrap().extend_from_slice(row))
        .unwrap();
    all.into_inner().unwrap()
}

fn worst(one: &Network, other: &Network) -> f32 {
    let pairs = distributions(one).into_iter().zip(distributions(other));
    pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

fn halved(network: &Network) -> Network {
    let mut network = network.clone();
    network.weights.data_mut().iter_mut().for_each(|weight| *weight = half::f16::from_f32(*weight).to_f32());
    network
}

#[test]
fn what_was_written_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    let codec = codec();
    for (name, config) in shapes() {
        let network = random(config);
        let path = place.path().join(format!("{name}.gguf"));
        gguf::write(&path, &network, &codec, Storage::F32, &[("general.name", name)]).unwrap();
        let (again, words) = gguf::read(&path).unwrap();
        // Bit by bit where nothing is rounded: a Mistral is read as a Llama, YaRN's number is divided and multiplied.
        let bound = if name.ends_with("yarn") { 1e-5 } else { 0.0 };
        assert!(worst(&network, &again) <= bound, "{name}: {}", worst(&network, &again));
        assert_eq!(network.weights.data(), again.weights.data(), "{name}");
        if !name.ends_with("yarn") && name != "mistral" {
            assert_eq!(Config { pad: None, ..again.config.clone() }, network.config);
        }
        let text = Prompt::Text("the old café; nine".into());
        assert_eq!(words.encode_prompt(&text).unwrap(), codec.encode_prompt(&text).unwrap());
        assert_eq!(
            words.encode_prompt(&Prompt::user("past")).unwrap(),
            codec.encode_prompt(&Prompt::user("past")).unwrap()
        );
        assert_eq!((words.eos, words.bos, words.context), (vec![0], None, 160));

        // The same bytes again, and through the loaders of folders.
        let first = std::fs::read(&path).unwrap();
        gguf::write(
            &path,
            &Network::load(&path).unwrap(),
            &Codec::load(&path).unwrap(),
            Storage::F32,
            &[("general.name", name)],
        )
        .unwrap();
        if !name.ends_with("yarn") {
            assert!(first == std::fs::read(&path).unwrap(), "{name}");
        }

        gguf::write(&path, &halved(&network), &codec, Storage::F16, &[]).unwrap();
        let again = Network::load(&path).unwrap();
        assert!(worst(&halved(&network), &again) <= bound, "{name} f16: {}", worst(&network, &again));

        gguf::write(&path, &network, &codec, Storage::Q8_0, &[]).unwrap();
        let eight = Network::load(&path).unwrap();
        let lost = worst(&network, &eight);
        assert!(lost > 0.0 && lost < 1.0, "{name} q8_0: {lost}");
        gguf::write(&path, &eight, &codec, Storage::Q8_0, &[]).unwrap();
        assert!(worst(&eight, &Network::load(&path).unwrap()) < 0.01, "{name}: a second rounding loses more");
    }
}

#[test]
fn tokenizers_are_read_again() {
    let place = tempfile::tempdir().unwrap();
    for (name, codec) in codecs() {
        let path = place.path().join(format!("{name}.gguf"));
        gguf::write(&path, &Network::random(shape(), 1).unwrap(), &codec, Storage::F16, &[]).unwrap();
        let again = Codec::load(&path).unwrap();
        for text in [PROMPT, TEXTS[2], "<|user|>a<|end|>", "e\u{301} 1234567", ""] {
            let tokens = codec.tokenizer.encode(text, true).unwrap();
            assert_eq!(again.tokenizer.encode(text, true).unwrap(), tokens, "{name} {text}");
        }
        assert_eq!((again.bos, &again.eos), (codec.bos, &codec.eos), "{name}");
        let template = |codec: &Codec| codec.template.as_ref().unwrap().source().to_owned();
        assert_eq!(template(&again), template(&codec));
    }
    // A way to cut words that has no name is refused, not written as another.
    let (name, mut codec) = codecs().remove(1);
    assert_eq!(name, "smollm");
    let folder = place.path();
    codec.tokenizer.save(folder).unwrap();
    let path = folder.join("tokenizer.json");
    for (from, to, says) in [
        ("\"individual_digits\": true", "\"individual_digits\": false", "cuts words by"),
        (
            "\"ignore_merges\": false",
            "\"ignore_merges\": true",
            "`ignore_merges` true in a tokenizer of the kind `smollm`",
        ),
        ("\"rstrip\": false", "\"rstrip\": true", "the token `<|end|>` with `rstrip`"),
        ("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFKC\"}", "first rewrites texts"),
    ] {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        codec.tokenizer = Tokenizer::load(folder).unwrap();
        std::fs::write(&path, text).unwrap();
        let refused = folder.join("refused.gguf");
        let network = Network::random(shape(), 1).unwrap();
        let error = gguf::write(&refused, &network, &codec, Storage::F16, &[]).unwrap_err();
        assert_eq!(error.code(), "gguf_inexpressible");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("refused.gguf");
    let window = Variant { window: Some(20), windowed: vec![true; 4], ..family(Family::Mistral) };
    let biased = Variant { attention_bias: true, ..family(Family::Qwen3) };
    let unplaced = Variant { unplaced: vec![true, false, false, false], ..family(Family::SmolLm3) };
    let yarn = RopeScaling::Yarn { factor: 4.0, original: 40.0, fast: 16.0, slow: 1.0, attention: 1.0, truncate: true };
    for (config, says) in [
        (Config { variant: window, ..shape() }, "a window of 20 tokens in a context of 160"),
        (Config { variant: biased, ..shape() }, "biases of all projections in a `qwen3`"),
        (Config { variant: unplaced, ..shape() }, "not every fourth"),
        (Config { rope_scaling: yarn, ..shape() }, "YaRN with `beta_fast` 16"),
    ] {
        let network = Network::random(config, 1).unwrap();
        let error = gguf::write(&path, &network, &codec(), Storage::F16, &[]).unwrap_err();
        assert_eq!(error.code(), "gguf_inexpressible");
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut network = Network::random(shape(), 1).unwrap();
    network.weights.embed_mut()[5] = 1e5;
    let error = gguf::write(&path, &network, &codec(), Storage::F16, &[]).unwrap_err();
    assert!(error.to_string().contains("the number 100000 of `token_embd.weight` in half precision"), "{error}");
    let many = Codec { eos: vec![0, 1, 2, 3], ..codec() };
    let error = gguf::write(&path, &network, &many, Storage::F32, &[]).unwrap_err();
    assert!(error.to_string().contains("4 tokens that end an answer"), "{error}");
    assert!(!path.exists());
}

/// Replaces the first `from` in a file by as many bytes.
fn spoil(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_not_computed_here_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    let fresh = || gguf::write(&path, &random(shape()), &codec(), Storage::F16, &[]).unwrap();
    let said = || gguf::read(&path).unwrap_err();
    for (from, to, code, says) in [
        (&b"GGUF"[..], &b"GGML"[..], "model_file_malformed", "does not begin as a GGUF file"),
        (b"GGUF\x03", b"GGUF\x01", "model_unsupported", "GGUF of version 1"),
        (b"GGUF\x03\0\0\0", b"GGUF\0\0\0\x03", "model_unsupported", "big-endian"),
        (b"llama", b"gemma", "model_unsupported", "the architecture `gemma`"),
        (b"llama.rope.freq_base", b"llama.logit_scaling.", "model_unsupported", "`llama.logit_scaling.`"),
        (b"gpt2", b"bert", "model_unsupported", "a tokenizer of the kind `bert`"),
        (b"gpt-2", b"viking", "model_unsupported", "cuts words as `vikin`"),
        (b"blk.0.attn_q.", b"blk.0.attn_x.", "model_tensor_wrong", "`blk.0.attn_q.weight`"),
    ] {
        fresh();
        spoil(&path, from, &to[..from.len()]);
        let error = said();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    // The kind of a tensor follows its name, two dimensions and the place is next.
    fresh();
    let vocabulary = (shape().vocab_size as u64).to_le_bytes();
    let embedding = [&b"token_embd.weight\x02\0\0\0\x40\0\0\0\0\0\0\0"[..], &vocabulary].concat();
    spoil(&path, &[&embedding[..], &[1]].concat(), &[&embedding[..], &[12]].concat());
    assert!(said().to_string().contains("is stored as Q4_K, which is not read here"), "{}", said());
    // Cut at any place it is damaged, and says so.
    fresh();
    let whole = std::fs::read(&path).unwrap();
    for part in [3, 20, 100, 1000, 5000, 9000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..part]).unwrap();
        let code = said().code();
        assert!(
            ["model_file_malformed", "model_file_unreadable", "model_tensor_wrong"].contains(&code),
            "{part}: {code}"
        );
    }
    assert!(matches!(gguf::read(&place.path().join("none.gguf")), Err(LmError::File { .. })));
}

/// What llama.cpp said.
#[derive(Deserialize)]
struct Said {
    prompt: usize,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    tensors: usize,
    words: usize,
}

const PROMPT: &str = "They'll pay 12345 for CAFÉS,\n\n  as the old mill";
/// How one of the texts begins that a network was taught.
const KNOWN: &str = "the old mill";

/// What the engine says: the bytes of each token and its log-probability.
fn says(network: Network, codec: Codec, prompt: &str) -> Vec<(Vec<u8>, f32)> {
    let options = LocalOptions { threads: 1, ..LocalOptions::default() };
    let model = Local::from_parts(network, codec, "here", options).unwrap();
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let request = Request { sampling, logprobs: Some(0), ..Request::new(Prompt::Text(prompt.into()), 64) };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut generation = model.generate(request).await.unwrap();
        let mut entries = Vec::new();
        while let Some(event) = generation.recv().await {
            if let Event::Text { logprobs, .. } = event.unwrap() {
                entries.extend(logprobs.into_iter().map(|entry| (entry.bytes, entry.logprob)));
            }
        }
        entries
    })
}

#[test]
fn llama_cpp_says_the_same_from_what_was_written() {
    let Some(python) = std::env::var_os("ANBIQ_LLAMA_PYTHON") else {
        eprintln!("skipped: ANBIQ_LLAMA_PYTHON does not name a Python that has gguf and xllamacpp");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    // Of the network as it was before it was written: a file that says another thing would be read alike here and there.
    let mut files: Vec<(String, PathBuf, Network, Codec, f32)> = Vec::new();
    let mut put = |name: &str, network: Network, codec: Codec, storage, bound| {
        let path = place.path().join(format!("{name}.gguf"));
        gguf::write(&path, &network, &codec, storage, &[("general.name", name)]).unwrap();
        files.push((name.to_owned(), path, network, codec, bound));
    };
    for (name, config) in shapes() {
        put(name, random(config), codec(), Storage::F32, 1e-4);
    }
    for (name, codec) in codecs() {
        put(&format!("words-{name}"), random(shape()), codec, Storage::F32, 1e-4);
    }
    // llama.cpp rounds what it multiplies such matrices with to half precision or eight bits; the engine does not, and
    // here it does not round the matrices either. On a text that the network knows they say the same all the same; where
    // it is not sure, eight bits are too few for that.
    let taught = taught();
    put("taught-f32", taught.clone(), codec(), Storage::F32, 1e-4);
    put("taught-f16", taught.clone(), codec(), Storage::F16, 0.02);
    put("taught-q8_0", taught, codec(), Storage::Q8_0, 0.3);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/llama_cpp.py");
    for (name, path, network, codec, bound) in files {
        let prompt = if name.starts_with("taught") { KNOWN } else { PROMPT };
        let output = Command::new(&python).arg(&script).arg(prompt).arg(path).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let there: Said = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(there.prompt, codec.encode_prompt(&Prompt::Text(prompt.into())).unwrap().len(), "{name}");
        let bytes: Vec<Vec<u8>> = there.tokens.iter().map(|&token| codec.tokenizer.bytes(token).to_vec()).collect();
        let here = says(network, codec, prompt);
        assert_eq!(here.len(), 64, "{name}");
        assert_eq!(bytes, here.iter().map(|(bytes, _)| bytes.clone()).collect::<Vec<_>>(), "{name}");
        let pairs = here.iter().zip(&there.logprobs);
        let worst = pairs.map(|((_, here), there)| (here - there).abs()).fold(0.0, f32::max);
        let distinct: BTreeSet<&Vec<u8>> = bytes.iter().collect();
        let mean = here.iter().map(|(_, logprob)| logprob).sum::<f32>() / 64.0;
        eprintln!(
            "{name}: 64 tokens equal ({} of them different, {mean:.2} nats each), log-probabilities within {worst:.1e}",
            distinct.len()
        );
        assert!(worst < bound, "{name}: {worst}");
        assert!(there.tensors > 30 && there.words > 20, "{name}");
    }
}
