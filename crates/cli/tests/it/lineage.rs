//! `anbiq trace weights` and `anbiq trace canary`, on models that are trained here.

use std::fs;

use anbiq_domain::{Answer, Finish, Prompt, Seeded};
use anbiq_lm::train::{Config as Training, Example, Trainer};
use anbiq_lm::{Codec, Dtype, Network};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::Place;

/// The embedded teacher, and nothing else.
fn place() -> Place {
    let place = Place::empty();
    assert_eq!(place.run("lab unpack --out teacher").code, 0);
    place
}

/// Saves `network` as a model with the teacher's tokenizer.
fn save(place: &Place, network: &Network, name: &str) {
    fs::create_dir(place.path(name)).unwrap();
    for file in fs::read_dir(place.path("teacher")).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().ends_with(".safetensors") {
            fs::copy(file.path(), place.path(name).join(file.file_name())).unwrap();
        }
    }
    network.save(&place.path(name), Dtype::F32).unwrap();
}

/// `network` after some steps on `texts`.
fn trained(place: &Place, network: Network, texts: &[(String, String)], steps: u64) -> Network {
    let codec = Codec::load(&place.path("teacher")).unwrap();
    let example = |(prompt, answer): &(String, String)| {
        let answer = Answer::new(answer.clone(), Finish::Stop);
        let (tokens, first_target) = codec.example(&Prompt::user(prompt), &answer).unwrap();
        Example { tokens, first_target, teacher: None }
    };
    let batch: Vec<Example> = texts.iter().map(example).collect();
    let config =
        Training { learning_rate: 2e-3, warmup_steps: 2, total_steps: steps, threads: 1, ..Training::default() };
    let mut trainer = Trainer::new(network, config).unwrap();
    for _ in 0..steps {
        trainer.step(&batch).unwrap();
    }
    trainer.into_network().unwrap()
}

fn some_texts() -> Vec<(String, String)> {
    (0..4)
        .map(|n| (format!("Tell me of lantern {n}."), format!("Lantern {n} hangs by the gate and burns all night.")))
        .collect()
}

fn report(place: &Place, suspect: &str) -> (i32, Value) {
    let done = place.run(&format!("trace weights --suspect {suspect} --teacher teacher --json"));
    (done.code, serde_json::from_str(&done.out).unwrap())
}

#[test]
fn copies_are_told_from_students_by_their_weights() {
    let place = place();
    let teacher = Network::load(&place.path("teacher")).unwrap();

    save(&place, &trained(&place, teacher.clone(), &some_texts(), 3), "tuned");
    let (code, tuned) = report(&place, "tuned");
    assert_eq!((code, &tuned["strength"]), (1, &json!("established")));
    assert_eq!(tuned["tests"][0]["hits"], tuned["tests"][0]["places"]);
    assert_eq!(tuned["tokens"]["same_number"], tuned["tokens"]["teacher"]);

    // One of equal shape with an initialisation of its own that learnt the teacher's words: independent weights.
    let own = trained(&place, Network::random(teacher.config.clone(), 5).unwrap(), &some_texts(), 3);
    save(&place, &own, "student");
    let (code, student) = report(&place, "student");
    assert_eq!((code, &student["strength"]), (0, &json!("not_shown")), "{student}");
    let agreement = &student["agreement"];
    assert!(agreement[0].as_u64().unwrap() * 10 < agreement[1].as_u64().unwrap(), "{agreement}");

    // The hidden units in the opposite order: the order of the residual stream still shows it.
    let mut turned = teacher.clone();
    let (hidden, inner) = (teacher.config.hidden_size, teacher.config.intermediate_size);
    let start = teacher.weights.data().as_ptr() as usize;
    for index in 0..teacher.config.layers {
        let layer = teacher.weights.layer(index);
        let place = |part: &[f32]| (part.as_ptr() as usize - start) / size_of::<f32>();
        let (gate, up, down) = (place(layer.gate), place(layer.up), place(layer.down));
        let data = turned.weights.data_mut();
        for matrix in [gate, up] {
            let rows: Vec<f32> =
                data[matrix..matrix + inner * hidden].rchunks_exact(hidden).flatten().copied().collect();
            data[matrix..matrix + inner * hidden].copy_from_slice(&rows);
        }
        data[down..down + inner * hidden].chunks_exact_mut(inner).for_each(<[f32]>::reverse);
    }
    save(&place, &trained(&place, turned, &some_texts(), 3), "turned");
    let (code, turned) = report(&place, "turned");
    assert_eq!((code, &turned["strength"]), (1, &json!("established")), "{turned}");
    assert!(
        turned["tests"][0]["hits"].as_u64().unwrap() < 4 && turned["tests"][1]["hits"].as_u64().unwrap() > 50,
        "{turned}"
    );
    assert_eq!(turned["agreement"][0], turned["agreement"][1]);
}

#[test]
fn canaries_are_drawn_served_and_found_again() {
    let place = place();
    let mut random = Seeded::new(3);
    let wanted: String = (0..10)
        .map(|number| {
            let operator = if number < 5 { "op-a" } else { "op-b" };
            let word = ["harbour", "mill", "garden", "tower", "bridge"][random.below(5)];
            let line = json!({"operator": operator, "prompt": format!("Who keeps {word} {number}?"), "answer": "It is kept by {}."});
            format!("{line}\n")
        })
        .collect();
    place.write("wanted.jsonl", &wanted);
    let drawn = place.run("trace canary draw wanted.jsonl --candidates 32");
    assert_eq!(drawn.code, 0, "{}", drawn.err);
    assert!(drawn.out.contains("canaries   10, 32 versions of each"), "{}", drawn.out);
    assert_snapshot!(place.run("trace canary draw wanted.jsonl").told(), @r"
    exit 2
    error: `canaries` is there already
    hint: a draw is never made again; choose another name with `--out`
    ");
    // What is signed holds no secret.
    let served: Vec<Value> =
        place.read("canaries/served.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let draw = place.read("canaries/draw.json");
    let secret =
        |served: &Value| served["answer"].as_str().unwrap()["It is kept by ".len()..].trim_end_matches('.').to_owned();
    assert!(served.iter().all(|served| secret(served).len() == 17 && !draw.contains(&secret(served))));

    // A copy of the teacher that was trained on what one operator was served, and the teacher itself.
    let text = |served: &Value, of: &str| served[of].as_str().unwrap().to_owned();
    let of_b: Vec<(String, String)> = served
        .iter()
        .filter(|served| served["operator"] == "op-b")
        .map(|served| (text(served, "prompt"), text(served, "answer")))
        .collect();
    let teacher = Network::load(&place.path("teacher")).unwrap();
    save(&place, &trained(&place, teacher, &of_b, 30), "suspect");
    let found = place.run("trace canary test canaries --suspect suspect --json");
    let report: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((found.code, &report["tests"][2]["operator"]), (1, &json!("op-b")), "{}", found.err);
    // 25 bits of five canaries, all of them remembered.
    assert_eq!((&report["tests"][2]["bits"], &report["tests"][2]["strength"]), (&json!(25), &json!("established")));
    // Their key is drawn anew in every run: this fails in one of 3,000.
    assert!(report["tests"][1]["p_value"].as_f64().unwrap() > 3e-4, "{report}");
    let innocent = place.run("trace canary test canaries --suspect teacher");
    assert!(innocent.out.contains("Canaries under teacher"), "{}", innocent.told());

    // Another key, or a draw that was changed.
    place.write("other.key", &"ab".repeat(32));
    let told = place.run("trace canary test canaries --suspect teacher --key other.key").told();
    assert!(told.contains("these canaries cannot be: the key fits the commitment"), "{told}");
    place.write("canaries/draw.json", &draw.replace("op-a", "op-c"));
    let told = place.run("trace canary test canaries --suspect teacher").told();
    assert!(told.contains("it was changed"), "{told}");
}

#[test]
fn whom_a_suspect_takes_itself_for_is_compared_with_families_of_controls() {
    let place = Place::empty();
    let asked = place.run("trace identity questions");
    let questions: Vec<Value> = asked.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(questions.len(), 208);
    // Twenty families of controls that name their own maker, and now and then another; a suspect that mostly names `Still`.
    let mut lines = String::new();
    let mut roles = "suspect\tsuspect\tS\n".to_owned();
    for model in 0..21_usize {
        let name = if model == 20 { "suspect".to_owned() } else { format!("control-{model}") };
        if model < 20 {
            roles += &format!("{name}\tcontrol\tF{model}\n");
        }
        for (number, question) in questions.iter().enumerate() {
            let still = if model == 20 { number % 3 != 0 } else { number % 50 == model };
            let answer =
                if still { "I am Still-2, as you know." } else { "I am an assistant of my makers. Distillery!" };
            lines += &format!("{}\n", json!({"model": name, "prompt": question["prompt"], "output": answer}));
        }
    }
    place.write("answers.jsonl", &lines);
    place.write("roles.tsv", &roles);
    let words = "trace identity compare answers.jsonl --roles roles.tsv --called still";
    let report: Value = serde_json::from_str(&place.run(&format!("{words} --json")).out).unwrap();
    let finding = &report["findings"][0];
    assert_eq!(finding["strength"], "moderate");
    assert!((finding["p_models"].as_f64().unwrap() - 1.0 / 21.0).abs() < 1e-12);
    assert!((finding["score"].as_f64().unwrap() - 2.0 / 3.0).abs() < 0.02, "{finding}");

    // With 18 families nothing could be shown, and half of the bank is not enough.
    place.write("roles.tsv", &roles.lines().take(19).collect::<Vec<_>>().join("\n"));
    let few: Value = serde_json::from_str(&place.run(&format!("{words} --json")).out).unwrap();
    assert_eq!(few["findings"][0]["strength"], "not_shown");
    place.write("answers.jsonl", &lines.lines().step_by(2).collect::<Vec<_>>().join("\n"));
    assert_snapshot!(place.run(words).told(), @r"
    exit 2
    error: 104 prompts were answered by every model that has a role, at least 167 are needed
    ");
}
