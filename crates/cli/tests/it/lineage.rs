//! `anbiq trace weights` and `anbiq trace canary`, on models that are trained here.

use std::fs;

use anbiq_domain::{Answer, Finish, Prompt, Seeded};
use anbiq_lm::train::{Config as Training, Example, Trainer};
use anbiq_lm::{Codec, Dtype, Network};
use anbiq_upstream::client::Client;
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::gateway::{Running, ask, key};
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

#[tokio::test(flavor = "multi_thread")]
async fn canaries_are_served_after_the_journal_knows_of_them_and_count_where_they_left() {
    let place = Place::gateway();
    let keys = ["acme", "brook"].map(|account| {
        assert_eq!(place.run(&format!("account open {account} --plan standard --budget 1.00")).code, 0);
        assert_eq!(place.run(&format!("terms accept {account} teacher")).code, 0);
        key(&place, account)
    });
    let plain = place.read("anbiq.toml");
    place.write("anbiq.toml", &plain.replace("texts = \"twinned\"", "texts = \"sealed\""));
    assert_eq!(place.run("account set brook --operator op-b").code, 0);
    let wanted: String = (0..8)
        .map(|number| {
            // Those of brook are for the operator that its account is declared to be of.
            let operator = if number < 5 { "acme" } else { "op-b" };
            let line = json!({"operator": operator, "prompt": format!("Who keeps mill {number}?"), "answer": "It is kept by {}."});
            format!("{line}\n")
        })
        .collect();
    place.write("wanted.jsonl", &wanted);

    // A draw that the journal knows nothing of is not served.
    assert_eq!(place.run("trace canary draw wanted.jsonl --candidates 32 --out unknown --key other.key").code, 0);
    place
        .write("other.toml", &format!("canaries = [\"unknown\"]\n{}", place.read("anbiq.toml").replace(":8080", ":0")));
    let refused = place.run("serve --config other.toml").told();
    assert!(refused.contains("the journal does not commit to the draw"), "{refused}");

    // Drawn while a gateway runs, which takes the entry in; served from its next start on.
    let gateway = Running::start(&place);
    let drawn = place.run("trace canary draw wanted.jsonl --candidates 32 --config anbiq.toml");
    assert_eq!(drawn.code, 0, "{}", drawn.err);
    let before = gateway.client(&keys[0]).chat(&ask("Who keeps mill 0?"), &[]).await.unwrap();
    assert_eq!(gateway.stop(), 0);
    place.write("anbiq.toml", &format!("canaries = [\"canaries\"]\n{}", place.read("anbiq.toml")));
    let gateway = Running::start(&place);
    let (acme, brook) = (gateway.client(&keys[0]), gateway.client(&keys[1]));
    let served: Vec<Value> =
        place.read("canaries/served.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let says = async |client: &Client, number: usize| {
        let answer = client.chat(&ask(&format!("Who keeps mill {number}?")), &[]).await.unwrap();
        answer.choices[0].message.content.clone().unwrap_or_default()
    };
    for (number, canary) in served.iter().enumerate().take(7) {
        let whose = if number < 5 { &acme } else { &brook };
        assert_eq!(says(whose, number).await, canary["answer"].as_str().unwrap());
    }
    // What is for one is not for another, and nobody asked for the last.
    assert_ne!(says(&brook, 0).await, served[0]["answer"].as_str().unwrap());
    assert_ne!(before.choices[0].message.content.as_deref(), served[0]["answer"].as_str());
    assert_eq!(gateway.stop(), 0);

    let text = |served: &Value, of: &str| served[of].as_str().unwrap().to_owned();
    let of_b = served[5..7].iter().chain(&served[..5]).map(|served| (text(served, "prompt"), text(served, "answer")));
    let teacher = Network::load(&place.path("teacher")).unwrap();
    save(&place, &trained(&place, teacher, &of_b.collect::<Vec<_>>(), 30), "suspect");
    let test = "trace canary test canaries --suspect suspect --journal journal --secrets secrets --out found.json";
    let found = place.run(test);
    assert_eq!(found.code, 1, "{}", found.told());
    let report: Value = serde_json::from_str(&place.read("found.json")).unwrap();
    let tests: Vec<String> = report["tests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|test| format!("{} {} {}", test["operator"], test["canaries"], test["bits"]))
        .collect();
    assert_snapshot!(tests.join("\n"), @r#"
    null 7 35
    "acme" 5 25
    "brook" 2 10
    "#);
    let left: Vec<String> =
        found.out.lines().filter(|line| line.contains(" left through ")).map(str::to_owned).collect();
    assert_snapshot!(left.join("\n"), @r"
    5 left through account acme.
    2 left through account brook.
    ");

    // Without the keys of sealed texts nothing is seen to have left, and another journal knows nothing of the draw.
    let closed = place.run("trace canary test canaries --suspect suspect --journal journal").told();
    assert!(closed.contains("the journal shows none of them to have left"), "{closed}");
    let unknown = place
        .run("trace canary test unknown --key other.key --suspect suspect --journal journal --secrets secrets")
        .told();
    assert!(unknown.contains("the journal does not commit to this draw"), "{unknown}");

    // In a dossier the record that commits to the draw is proved.
    assert_eq!(place.run("watch journal --out watch.json --json").code, 0);
    assert_eq!(place.run("case --watch watch.json --trace found.json --out dossier").code, 0);
    let verified = place.run("verify dossier");
    assert!(verified.out.contains("that the journal committed to the draw before what is counted"), "{}", verified.out);
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

#[test]
fn rare_answers_that_are_shared_are_compared_with_families_of_controls() {
    let place = Place::empty();
    let (mut lines, mut right, mut roles) = (String::new(), String::new(), "teacher\tteacher\tT\n".to_owned());
    let mut random = Seeded::new(9);
    for prompt in 0..120 {
        right += &format!("{}\n", json!({"prompt": format!("question {prompt}"), "answer": "Right."}));
    }
    let mut of_teacher = Vec::new();
    for model in 0..22_usize {
        let (name, role) = match model {
            0 => ("teacher".to_owned(), None),
            1 => ("suspect".to_owned(), Some("suspect")),
            _ => (format!("control-{model}"), Some("control")),
        };
        if let Some(role) = role {
            roles += &format!("{name}\t{role}\tF{model}\n");
        }
        for prompt in 0..120 {
            // Everybody errs in two of five, each in a way of one's own; the suspect has every second error of the teacher's.
            let wrong = format!("wrong {}", random.below(40));
            let own = if random.below(5) < 2 { wrong } else { "right".to_owned() };
            let answer = match model {
                0 => {
                    of_teacher.push(own.clone());
                    own
                }
                1 if prompt % 2 == 0 => of_teacher[prompt].clone(),
                _ => own,
            };
            lines += &format!("{}\n", json!({"model": name, "prompt": format!("question {prompt}"), "output": answer}));
        }
    }
    for (name, text) in [("answers.jsonl", &lines), ("right.jsonl", &right), ("roles.tsv", &roles)] {
        place.write(name, text);
    }
    let words = "trace errors answers.jsonl --roles roles.tsv --teacher T --right right.jsonl";
    let told = place.run(words).out;
    assert_snapshot!(told.lines().take(5).collect::<Vec<_>>().join("\n"), @r"
    Rare answers shared with T: 120 questions, of 120 of which a right answer is known

    suspect: MODERATE
      There is moderate evidence that suspect has rare answers from T, or from where T has them.
      gives 26 of 56 rare answers of teacher; highest of the controls:
    ");
    let report = |roles: &str| -> Value {
        place.write("roles.tsv", roles);
        serde_json::from_str(&place.run(&format!("{words} --json")).out).unwrap()
    };
    let found = &report(&roles)["findings"][0];
    assert_eq!((&found["strength"], found["by_family"]["families"].as_u64()), (&json!("moderate"), Some(20)));
    // A control in the suspect's place, and the suspect under a role that says that it is none.
    let other = report(
        &roles.replace("suspect\tsuspect", "suspect\tcontrol").replace("control-2\tcontrol", "control-2\tsuspect"),
    );
    assert_eq!(other["findings"][0]["strength"], "not_shown");
    // Eighteen families can show nothing, however many questions there are.
    let few = report(&roles.lines().take(20).map(|line| format!("{line}\n")).collect::<String>());
    assert_eq!(few["findings"][0]["strength"], "not_shown");
    assert!(few["findings"][0]["sentence"].as_str().unwrap().contains("18 controls are too few"), "{few}");
}
