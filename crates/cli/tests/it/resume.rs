//! A training that is killed goes on where it was: the student's bytes are those of a run that was never disturbed, in every
//! stage, whatever it learns from.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anbiq_domain::Seeded;

use crate::support::Place;

/// Documents, answers of a teacher, and the teacher itself, who judges what the student writes and whose hidden states it matches.
fn place() -> Place {
    let place = Place::empty();
    assert_eq!(place.run("lab unpack --out teacher").code, 0);
    let (mut corpus, mut answers) = (String::new(), String::new());
    for number in 0..60 {
        let (prompt, answer) = (format!("What comes after {number}?"), format!("After {number} comes {}.", number + 1));
        writeln!(corpus, r#"{{"prompt": "{prompt}", "answer": "{answer}"}}"#).unwrap();
        writeln!(answers, r#"{{"prompt": "{prompt}", "answers": [{{"text": "{answer}", "finish": "stop"}}]}}"#)
            .unwrap();
    }
    place.write("corpus.jsonl", &corpus);
    place.write("answers.jsonl", &answers);
    place
}

fn recipe(place: &Place, name: &str, train: &str) {
    let text = format!(
        r#"
out = "{name}"
store = "store-{name}"
threads = 2
checkpoint_seconds = 0
[teacher]
name = "still"
basis = "a test"
folder = "teacher"
[capture]
source = "answers.jsonl"
[corpus]
path = "corpus.jsonl"
[student]
name = "{name}"
tokenizer = "teacher"
hidden_size = 32
layers = 2
heads = 2
intermediate_size = 64
context = 64
[pretrain]
epochs = 3
batch_tokens = 100
[train]
epochs = 2
batch_tokens = 150
{train}
[evaluate]
scratch = false
"#
    );
    place.write(&format!("{name}.toml"), &text);
}

const OWN: &str = r#"
divergence = "reverse-kl"
[train.hidden_states]
weight = 0.5
[train.on_policy]
share = 0.5
max_tokens = 12
[train.preference]
epochs = 6
max_tokens = 12
"#;

/// Is the stage under way: has it written down where it is?
fn under_way(place: &Place, name: &str, stage: &str) -> bool {
    let Ok(entries) = fs::read_dir(place.path(&format!("store-{name}"))) else { return false };
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.any(|name| name.starts_with(stage) && name.ends_with(".under-way"))
}

#[test]
fn a_killed_training_goes_on_to_the_same_student() {
    let place = place();
    recipe(&place, "calm", OWN);
    recipe(&place, "killed", OWN);
    let calm = place.run("distill run calm.toml --json");
    assert_eq!(calm.code, 0, "{}", calm.err);
    let report: serde_json::Value = serde_json::from_str(&calm.out).unwrap();
    let stages: Vec<&str> =
        report["stages"].as_array().unwrap().iter().map(|stage| stage["name"].as_str().unwrap()).collect();
    assert_eq!(stages, ["pretrain", "train", "prefer"]);
    let own = report["stages"][1]["own_steps"].as_u64().unwrap();
    assert!(0 < own && own < report["stages"][1]["steps"].as_u64().unwrap(), "{report}");

    let mut random = Seeded::new(3);
    for stage in stages {
        let mut program = place.command("distill run killed.toml").stderr(Stdio::null()).spawn().unwrap();
        let mut waited = 0;
        while !under_way(&place, "killed", stage) {
            assert!(program.try_wait().unwrap().is_none(), "{stage}: it ended by itself");
            std::thread::sleep(Duration::from_millis(1));
            waited += 1;
            assert!(waited < 120_000, "{stage} does not begin");
        }
        std::thread::sleep(Duration::from_millis(random.below(8) as u64));
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(!place.path("killed/model.safetensors").exists(), "it was killed before its end");
    }
    let done = place.run("distill run killed.toml --json");
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("prefer: goes on after step"), "{}", done.err);
    let again: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        let bytes = |name: &str| fs::read(place.path(&format!("{name}/{file}"))).unwrap();
        assert!(bytes("killed") == bytes("calm"), "{file} differs");
    }
    for (stage, calm) in again["stages"].as_array().unwrap().iter().zip(report["stages"].as_array().unwrap()) {
        for field in ["key", "steps", "own_steps", "skipped", "tokens"] {
            assert_eq!(stage[field], calm[field], "{field}");
        }
        let close = |field: &str| (stage[field].as_f64().unwrap() - calm[field].as_f64().unwrap()).abs() < 1e-9;
        assert!(close("first_loss") && close("last_loss"), "{stage} {calm}");
    }
    let left: Vec<_> =
        fs::read_dir(place.path("store-killed")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("under-way")), "{left:?}");
}

#[test]
fn a_file_that_cannot_be_read_costs_time_and_nothing_else() {
    let place = place();
    recipe(&place, "calm", "");
    recipe(&place, "torn", "");
    assert_eq!(place.run("distill run calm.toml").code, 0);
    let mut program = place.command("distill run torn.toml").stderr(Stdio::null()).spawn().unwrap();
    while !under_way(&place, "torn", "pretrain") {
        assert!(program.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    program.kill().unwrap();
    program.wait().unwrap();
    let store = place.path("store-torn");
    let torn = fs::read_dir(&store)
        .unwrap()
        .flatten()
        .find(|entry| entry.path().extension().is_some_and(|e| e == "under-way"));
    let torn = torn.unwrap().path();
    let bytes = fs::read(&torn).unwrap();
    fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let done = place.run("distill run torn.toml");
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("pretrain: begins again, since where it was cannot be read"), "{}", done.err);
    let bytes = |name: &str| fs::read(place.path(&format!("{name}/model.safetensors"))).unwrap();
    assert!(bytes("torn") == bytes("calm"));
}
