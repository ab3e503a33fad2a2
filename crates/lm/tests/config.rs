//! What a `config.json` asks for is computed, or refused by name.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

use anbiq_lm::{Config, Family, LmError, Network, RopeScaling, Variant};

/// A configuration of four layers with `fields` in place of the plain ones.
fn read(family: &str, fields: &str) -> Result<Config, LmError> {
    let plain = r#"{"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 4,
                    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
                    "bos_token_id": null, "eos_token_id": null, "pad_token_id": null}"#;
    let mut config: serde_json::Map<_, _> = serde_json::from_str(plain).unwrap();
    config.insert("model_type".into(), family.into());
    config.extend(serde_json::from_str::<serde_json::Map<_, _>>(&format!("{{{fields}}}")).unwrap());
    Config::parse(&serde_json::to_string(&config).unwrap(), Path::new("config.json"))
}

#[test]
fn layers_are_what_the_family_makes_of_its_fields() {
    // Family, fields, and for each of four layers the window (0 for none) and whether there are positions.
    let cases: &[(&str, &str, [usize; 4], [bool; 4])] = &[
        ("llama", "", [0; 4], [true; 4]),
        (
            "llama",
            r#""layer_types": ["full_attention", "full_attention", "full_attention", "full_attention"]"#,
            [0; 4],
            [true; 4],
        ),
        // Without the field Mistral has a window of 4096; `null` says that there is none.
        ("mistral", "", [4096; 4], [true; 4]),
        ("mistral", r#""sliding_window": null"#, [0; 4], [true; 4]),
        ("mistral", r#""sliding_window": 9, "use_sliding_window": true"#, [9; 4], [true; 4]),
        ("qwen2", r#""sliding_window": 9, "max_window_layers": 0"#, [0; 4], [true; 4]),
        ("qwen2", r#""use_sliding_window": true"#, [0; 4], [true; 4]),
        ("qwen2", r#""use_sliding_window": true, "max_window_layers": 3"#, [0, 0, 0, 4096], [true; 4]),
        (
            "qwen3",
            r#""use_sliding_window": true, "max_window_layers": 1, "sliding_window": 9"#,
            [0, 9, 9, 9],
            [true; 4],
        ),
        (
            "qwen3",
            r#""use_sliding_window": true, "max_window_layers": 1, "sliding_window": 9,
               "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]"#,
            [9, 0, 9, 0],
            [true; 4],
        ),
        ("smollm3", "", [0; 4], [true, true, true, false]),
        ("smollm3", r#""no_rope_layer_interval": 2"#, [0; 4], [true, false, true, false]),
        (
            "smollm3",
            r#""no_rope_layers": [0, 1, 1, 1, 0], "no_rope_layer_interval": 2"#,
            [0; 4],
            [false, true, true, true],
        ),
        ("smollm3", r#""no_rope_layers": [1, 1, 1, 1]"#, [0; 4], [true; 4]),
        ("smollm3", r#""use_sliding_window": true, "sliding_window": 9"#, [0, 0, 0, 9], [true, true, true, false]),
        (
            "smollm3",
            r#""use_sliding_window": true, "sliding_window": 9,
               "layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention"]"#,
            [9, 0, 0, 0],
            [true, true, true, false],
        ),
    ];
    for (family, fields, windows, places) in cases {
        let config = read(family, fields).unwrap();
        let window = |index| Some(config.window(index)).filter(|window| *window != usize::MAX).unwrap_or(0);
        assert_eq!([0, 1, 2, 3].map(window), *windows, "{family} {fields}");
        assert_eq!([0, 1, 2, 3].map(|index| config.rotates(index)), *places, "{family} {fields}");
        let again = Config::parse(&config.to_json("float32"), Path::new("config.json")).unwrap();
        assert_eq!(again, config, "{family} {fields}");
    }
}

#[test]
fn what_is_absent_is_as_in_transformers() {
    let bare = |family: &str| {
        let text = format!(
            r#"{{"model_type": "{family}", "vocab_size": 130000, "hidden_size": 8, "intermediate_size": 8,
                 "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}}"#
        );
        let config = Config::parse(&text, Path::new("config.json")).unwrap();
        (config.head_dim, config.rope_theta, config.max_positions, config.tied, config.bos, config.eos, config.pad)
    };
    assert_eq!(bare("llama"), (4, 1e4, 2048, false, Some(1), vec![2], None));
    assert_eq!(bare("mistral"), (4, 1e4, 131_072, false, Some(1), vec![2], None));
    assert_eq!(bare("qwen2"), (4, 1e4, 32_768, false, None, vec![], None));
    assert_eq!(bare("qwen3"), (128, 1e4, 32_768, false, None, vec![], None));
    assert_eq!(bare("smollm3"), (4, 2e6, 32_768, true, Some(128_000), vec![128_001], Some(128_004)));
}

#[test]
fn rope_settings_of_both_generations_say_the_same() {
    let llama3 = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192"#;
    let yarn = r#""factor": 4.0, "original_max_position_embeddings": 32768"#;
    for (kind, settings) in [("default", ""), ("linear", r#""factor": 2.0"#), ("llama3", llama3), ("yarn", yarn)] {
        let comma = if settings.is_empty() { "" } else { "," };
        for word in ["type", "rope_type"] {
            let old = format!(r#""rope_theta": 5e5, "rope_scaling": {{"{word}": "{kind}"{comma} {settings}}}"#);
            let new = format!(r#""rope_parameters": {{"rope_theta": 5e5, "{word}": "{kind}"{comma} {settings}}}"#);
            let (old, new, both) = (read("qwen2", &old), read("qwen2", &new), read("qwen2", &format!("{old}, {new}")));
            let old = old.unwrap();
            assert_eq!(old, new.unwrap());
            assert_eq!(old, both.unwrap());
            assert_eq!(old.rope_theta, 5e5);
            assert_eq!(Config::parse(&old.to_json("float32"), Path::new("config.json")).unwrap(), old);
        }
    }
    assert_eq!(read("llama", r#""rope_theta": null"#).unwrap().rope_theta, 1e4);
}

#[test]
fn yarn_is_that_of_transformers() {
    let read =
        |fields: &str| read("qwen2", &format!(r#""max_position_embeddings": 4096, {fields}"#)).unwrap().rope_scaling;
    let plain = RopeScaling::Yarn {
        factor: 4.0,
        original: 4096.0,
        fast: 32.0,
        slow: 1.0,
        attention: (0.1 * 4_f64.ln() + 1.0) as f32,
        truncate: true,
    };
    // Without an original length the model's own is taken; one beside the settings comes before one among them.
    assert_eq!(read(r#""rope_scaling": {"type": "yarn", "factor": 4.0, "finetuned": true}"#), plain);
    let beside = read(
        r#""original_max_position_embeddings": 1024,
           "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}"#,
    );
    assert!(matches!(beside, RopeScaling::Yarn { original: 1024.0, .. }));
    let weighed = read(r#""rope_scaling": {"type": "yarn", "factor": 1.0, "mscale": 2.0, "mscale_all_dim": 3.0}"#);
    assert!(matches!(weighed, RopeScaling::Yarn { attention: 1.0, .. }));
    let given = read(r#""rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 2.0, "attention_factor": 0.5}"#);
    assert!(matches!(given, RopeScaling::Yarn { attention: 0.5, .. }));
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let cases: &[(&str, &str, &str, &[&str])] = &[
        (
            "gemma3_text",
            "",
            "model_unsupported",
            &["`model_type` `gemma3_text`", "hint: models of the types llama, mistral"],
        ),
        ("qwen3_moe", "", "model_unsupported", &["`model_type` `qwen3_moe`"]),
        ("mixtral", "", "model_unsupported", &["`model_type` `mixtral`"]),
        ("llama", r#""num_local_experts": 8"#, "model_unsupported", &["`num_local_experts` 8", "mixtures of experts"]),
        ("qwen2", r#""num_experts": 8"#, "model_unsupported", &["`num_experts` 8", "mixtures of experts"]),
        (
            "qwen2",
            r#""quantization_config": {"quant_method": "awq"}"#,
            "model_unsupported",
            &["`quantization_config` {\"quant_method\":\"awq\"}", "float32, float16 or bfloat16"],
        ),
        (
            "qwen2",
            r#""dual_chunk_attention_config": {"chunk_size": 1}"#,
            "model_unsupported",
            &["`dual_chunk_attention_config`"],
        ),
        ("qwen2", r#""use_mrope": true"#, "model_unsupported", &["`use_mrope`"]),
        ("llama", r#""rope_interleaved": true"#, "model_unsupported", &["`rope_interleaved`"]),
        ("qwen2", r#""is_causal": false"#, "model_unsupported", &["`is_causal` false"]),
        ("qwen2", r#""mlp_bias": true"#, "model_unsupported", &["`mlp_bias`"]),
        ("qwen3", r#""hidden_act": "gelu_pytorch_tanh""#, "model_unsupported", &["`hidden_act` `gelu_pytorch_tanh`"]),
        ("mistral", r#""attention_bias": true"#, "model_unsupported", &["`attention_bias`"]),
        (
            "mistral",
            r#""sliding_window": 9, "use_sliding_window": false"#,
            "model_unsupported",
            &["`use_sliding_window` false beside its `sliding_window`"],
        ),
        ("llama", r#""sliding_window": 8"#, "model_unsupported", &["`sliding_window` 8 in a `llama`"]),
        (
            "qwen3",
            r#""no_rope_layers": [1, 1, 1, 0]"#,
            "model_unsupported",
            &["`no_rope_layers` [1,1,1,0] in a `qwen3`"],
        ),
        ("llama", r#""partial_rotary_factor": 0.5"#, "model_unsupported", &["`partial_rotary_factor` 0.5"]),
        (
            "qwen2",
            r#""layer_types": ["full_attention", "full_attention", "chunked_attention", "full_attention"]"#,
            "model_unsupported",
            &["`layer_types` with \"chunked_attention\""],
        ),
        (
            "mistral",
            r#""layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"]"#,
            "model_unsupported",
            &["`layer_types` of its own in a `mistral`"],
        ),
        (
            "qwen2",
            r#""layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"]"#,
            "model_file_malformed",
            &["names `sliding_attention`, but no window is set"],
        ),
        (
            "qwen2",
            r#""layer_types": ["full_attention"]"#,
            "model_file_malformed",
            &["`layer_types` should be a list of 4 kinds"],
        ),
        (
            "smollm3",
            r#""no_rope_layers": [1, 1, 0]"#,
            "model_file_malformed",
            &["`no_rope_layers` should be a list of 0 and 1"],
        ),
        (
            "smollm3",
            r#""no_rope_layers": [1, 1, 2, 0]"#,
            "model_file_malformed",
            &["`no_rope_layers` should be a list of 0 and 1"],
        ),
        ("mistral", r#""sliding_window": 0"#, "model_file_malformed", &["a window of Some(0) tokens"]),
        (
            "llama",
            r#""rope_scaling": {"type": "dynamic", "factor": 2.0}"#,
            "model_unsupported",
            &["rope type `dynamic`", "hint: rotary positions of the types default, linear, llama3 and yarn"],
        ),
        ("llama", r#""rope_parameters": {"rope_type": "longrope"}"#, "model_unsupported", &["rope type `longrope`"]),
        (
            "qwen2",
            r#""rope_scaling": {"type": "default", "mrope_section": [1, 1]}"#,
            "model_unsupported",
            &["the rope setting `mrope_section` [1,1]"],
        ),
        (
            "llama",
            r#""rope_parameters": {"full_attention": {"rope_type": "default"}}"#,
            "model_unsupported",
            &["the rope setting `full_attention`"],
        ),
        ("llama", r#""rope_scaling": {"type": "yarn"}"#, "model_file_malformed", &["rope `yarn` lacks `factor`"]),
        (
            "llama",
            r#""rope_scaling": {"factor": 2.0}"#,
            "model_file_malformed",
            &["the rope settings lack `rope_type`"],
        ),
        (
            "llama",
            r#""rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}"#,
            "model_file_malformed",
            &["both the type `yarn` and the type `linear`"],
        ),
        (
            "llama",
            r#""rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}"#,
            "model_file_malformed",
            &["`rope_theta` is 10000 there and 1000000 among the rope settings", "hint: keep the one that is meant"],
        ),
        (
            "llama",
            r#""rope_scaling": {"type": "yarn", "factor": 0}"#,
            "model_file_malformed",
            &["rope `factor` 0 is not positive"],
        ),
        (
            "llama",
            r#""rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 2}"#,
            "model_file_malformed",
            &["rope `beta_fast` 1 is below `beta_slow` 2"],
        ),
        (
            "qwen2",
            r#""rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "rope_scaling": {"type": "yarn", "factor": 4.0}"#,
            "model_file_malformed",
            &["`rope_parameters` and `rope_scaling` say different things", "hint: keep the one that is meant"],
        ),
    ];
    for (family, fields, code, parts) in cases {
        let error = read(family, fields).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.code(), *code, "{text}");
        for part in *parts {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }
}

#[test]
fn a_family_cannot_have_what_its_files_cannot_say() {
    let plain = read("llama", "").unwrap();
    let one = || vec![false, true, false, false];
    let cases = [
        (Variant { window: Some(4), windowed: vec![true; 4], ..Variant::default() }, "a sliding window"),
        (Variant { window: Some(4), ..Variant::default() }, "does not fit the layers"),
        (Variant { windowed: one(), ..Variant::default() }, "does not fit the layers"),
        (Variant { unplaced: one(), ..Variant::default() }, "layers without rotary positions"),
        (
            Variant { family: Family::Mistral, window: Some(4), windowed: one(), ..Variant::default() },
            "a window in some layers only",
        ),
        (Variant { family: Family::Mistral, attention_bias: true, ..Variant::default() }, "`attention_bias`"),
        (Variant { family: Family::Qwen2, attention_bias: true, ..Variant::default() }, "`attention_bias`"),
        (Variant { family: Family::Qwen3, mlp_bias: true, ..Variant::default() }, "`mlp_bias`"),
        (Variant { family: Family::SmolLm3, unplaced: vec![true], ..Variant::default() }, "speaks of 1 layers"),
        (Variant { family: Family::SmolLm3, unplaced: vec![false; 4], ..Variant::default() }, "names no layer"),
    ];
    for (variant, words) in cases {
        let error = Network::random(Config { variant, ..plain.clone() }, 1).unwrap_err();
        assert_eq!(error.code(), "setting_invalid");
        assert!(error.to_string().contains(words), "`{words}` is not in: {error}");
    }
}
