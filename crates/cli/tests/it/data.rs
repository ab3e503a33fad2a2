//! Captures go into the forms of other tools and come back, and every filter says what it takes.

use serde_json::{Value, json};

use crate::support::Place;

/// Two answers of a conversation with what is awkward in texts, and one to a single question.
const CAPTURE: &str = r#"{"prompt": {"chat": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say \"hi\",\nplease. مرحبا"}]}, "answers": [{"text": "hi", "finish": "stop"}, {"text": "", "finish": "stop"}]}
{"prompt": "What is 2+2?", "answers": [{"text": "Four.\n", "finish": "length"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
"#;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn convert(place: &Place, words: &str) -> Value {
    let done = place.run(&format!("distill convert {words} --json"));
    assert_eq!(done.code, 0, "{}", done.err);
    serde_json::from_str(&done.out).unwrap()
}

/// What was asked and answered, in the order of the rows.
fn said(place: &Place, file: &str) -> Vec<(Value, String)> {
    let mut said = Vec::new();
    for row in lines(&place.read(file)) {
        let prompt = match &row["prompt"] {
            Value::String(words) => json!([{ "role": "user", "content": words }]),
            prompt => prompt["chat"].clone(),
        };
        for answer in row["answers"].as_array().unwrap() {
            said.push((prompt.clone(), answer["text"].as_str().unwrap().to_owned()));
        }
    }
    said
}

#[test]
fn a_capture_comes_back_from_every_form() {
    let place = Place::empty();
    place.write("answers.jsonl", CAPTURE);
    let before = said(&place, "answers.jsonl");
    assert_eq!(before.len(), 3);
    for form in ["messages", "prompt-completion", "sharegpt", "alpaca"] {
        for ending in ["jsonl", "parquet"] {
            let file = format!("{form}.{ending}");
            let out = convert(&place, &format!("answers.jsonl --to {form} --out {file}"));
            assert_eq!(out, json!({ "read": 2, "written": 3, "unanswered": 0, "unfit": 0 }), "{file}");
            let back = convert(&place, &format!("{file} --to capture --out back.jsonl"));
            assert_eq!((&back["read"], &back["written"]), (&json!(3), &json!(3)), "{file}");
            assert_eq!(said(&place, "back.jsonl"), before, "{file}");
        }
    }
    let first = &lines(&place.read("messages.jsonl"))[0];
    assert_eq!(first["messages"][2], json!({ "role": "assistant", "content": "hi" }));
    let first = &lines(&place.read("sharegpt.jsonl"))[2];
    assert_eq!(
        first,
        &json!({ "conversations": [{ "from": "human", "value": "What is 2+2?" }, { "from": "gpt", "value": "Four.\n" }] })
    );
}

#[test]
fn what_others_write_becomes_a_capture() {
    let place = Place::empty();
    // One list, other names of roles, an input beside the instruction, empty fields, parts of a text.
    place.write(
        "list.json",
        r#"[{"instruction": "Add.", "input": "2 and 2", "output": "4"},
            {"conversations": [{"from": "user", "value": "A"}, {"from": "chatgpt", "value": "B"}, {"from": "human", "value": "C"}, {"from": "gpt", "value": "D"}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "E"}], "name": null}, {"role": "assistant", "content": "F"}]},
            {"messages": [{"role": "user", "content": "nobody answers"}]},
            {"prompt": "Once", "completion": " upon a time"}]"#,
    );
    let found = convert(&place, "list.json --to capture --out capture.jsonl");
    assert_eq!(found, json!({ "read": 5, "written": 4, "unanswered": 1, "unfit": 0 }));
    let rows = lines(&place.read("capture.jsonl"));
    assert_eq!(rows[0]["prompt"]["chat"][0]["content"], "Add.\n\n2 and 2");
    assert_eq!(rows[1]["prompt"]["chat"].as_array().unwrap().len(), 3);
    assert_eq!((&rows[2]["prompt"]["chat"][0]["content"], &rows[2]["answers"][0]["text"]), (&json!("E"), &json!("F")));
    assert_eq!(rows[3]["prompt"], json!({ "text": "Once" }));
    assert_eq!(convert(&place, "list.json --to capture --every-turn --out all.jsonl")["written"], 5);

    // What cannot be is said, with its place, and nothing is left that looks whole.
    for (text, says) in [
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n{\"text\": \"b\"}\n",
            "line 2: its fields are of no known form",
        ),
        ("{\"conversations\": [{\"from\": \"narrator\", \"value\": \"a\"}]}\n", "line 1: a turn is from \"narrator\""),
        ("{\"messages\": 7}\n", "line 1: it has no list of messages"),
    ] {
        place.write("bad.jsonl", text);
        let done = place.run("distill convert bad.jsonl --to messages --out none.parquet");
        assert_eq!(done.code, 2);
        assert!(done.err.contains(says), "{}", done.err);
        assert!(!place.path("none.parquet").exists());
    }
    let done = place.run("distill convert list.json --to axolotl --out a.jsonl");
    assert!(done.err.contains("give `--tokenizer`"), "{}", done.err);
}

#[test]
fn log_probabilities_are_written_by_the_numbers_of_tokens() {
    let place = Place::empty();
    assert_eq!(place.run("lab unpack --out teacher").code, 0);
    place.write("prompts.jsonl", "{\"prompt\": \"Tell me of a fox.\"}\n{\"prompt\": \"Tell me of a lamp.\"}\n");
    place.write(
        "recipe.toml",
        r#"
out = "student"
[teacher]
name = "still"
folder = "teacher"
basis = "a test"
prices = { input = "0.50", output = "2.00" }
[capture]
source = "answers.jsonl"
[capture.ask]
prompts = "prompts.jsonl"
max_tokens = 12
temperature = 0.0
ceiling = "1"
logprobs = 3
[student]
name = "student"
init = "teacher"
[curate]
keep_truncated = true
language = "eng"
lacks = "[a-z]"
"#,
    );
    assert_eq!(place.run("distill capture recipe.toml").code, 0);
    let found = convert(&place, "answers.jsonl --to axolotl --tokenizer teacher --out kd.jsonl");
    assert_eq!((&found["written"], &found["unfit"]), (&json!(2), &json!(0)), "{found}");
    for row in lines(&place.read("kd.jsonl")) {
        assert_eq!(row["messages"].as_array().unwrap().len(), 2);
        let places = row["logprobs"].as_array().unwrap();
        assert!(places.len() >= 2);
        for place in places.iter().filter(|place| !place.as_array().unwrap().is_empty()) {
            let numbers: Vec<f64> =
                place.as_array().unwrap().iter().map(|one| one["logprob"].as_f64().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a >= b) && numbers[0] <= 0.0, "{numbers:?}");
            assert!(place[0]["token"].as_str().unwrap().starts_with("token_id:"));
        }
    }
    let found = convert(&place, "answers.jsonl --to axolotl --tokenizer teacher --out kd.parquet");
    assert_eq!(found["written"], 2);
    assert_eq!(convert(&place, "kd.parquet --to messages --out plain.jsonl")["written"], 2);

    let done = place.run("distill curate recipe.toml --json");
    assert_eq!(done.code, 0, "{}", done.err);
    let effects: Value = serde_json::from_str(&done.out).unwrap();
    let pattern =
        effects["filters"].as_array().unwrap().iter().find(|filter| filter["filter"] == "matches, lacks").unwrap();
    assert_eq!(effects["curated"]["answers"], 2);
    assert_eq!(pattern["alone"], effects["curated"]["patterns"]);
    assert!(pattern["alone"] == 2 && pattern["example"]["prompt"] == "Tell me of a fox.", "{effects}");
    let text = place.run("distill curate recipe.toml").out;
    assert!(text.contains("filter") && text.contains("matches, lacks takes"), "{text}");
}

#[test]
fn what_a_filter_is_worth_is_measured_on_small_students() {
    let place = Place::empty();
    assert_eq!(place.run("lab unpack --out teacher").code, 0);
    // Two answers to each question, of which one says nothing of it.
    let rows = (0..240).flat_map(|number| {
        let (colour, beast) = (["red", "grey", "black"][number % 3], ["fox", "owl", "hare", "ox"][number % 4]);
        let told = format!("The {colour} {beast} of house {number} sleeps under the old mill by the river.");
        [told, "I'm sorry, but I can't help with that request.".to_owned()].map(|answer| {
            let messages = json!([{"role": "user", "content": format!("Tell me of the {colour} {beast} of house {number}.")}, {"role": "assistant", "content": answer}]);
            json!({"messages": messages}).to_string() + "\n"
        })
    });
    place.write("rows.jsonl", &rows.collect::<String>());
    assert_eq!(convert(&place, "rows.jsonl --to capture --out capture.jsonl")["written"], 480);
    place.write(
        "recipe.toml",
        "out = \"student\"\n[teacher]\nname = \"still\"\nbasis = \"a test\"\n[capture]\nsource = \"capture.jsonl\"\n\
         [student]\nname = \"student\"\ninit = \"teacher\"\n[curate]\ndrop_refusals = true\nlanguage = \"eng\"\n",
    );
    let measure = "distill curate recipe.toml --measure --seeds 1";
    let done = place.run(&format!("{measure} --json"));
    assert_eq!(done.code, 0, "{}", done.err);
    let worths: Value = serde_json::from_str(&done.out).unwrap();
    // The language takes nothing that is not a refusal, so no student is trained for it.
    let filters = worths["filters"].as_array().unwrap();
    assert_eq!(filters.len(), 1, "{worths}");
    assert_eq!(filters[0]["filter"], "drop_refusals");
    let held_out = worths["held_out"].as_u64().unwrap();
    assert_eq!(
        filters[0]["takes"].as_u64().unwrap(),
        240 - held_out,
        "no student learns from a prompt that is held out"
    );
    let gain = filters[0]["equal"]["gain"].as_f64().unwrap();
    assert!(gain > 0.01 && filters[0]["equal"]["interval"]["low"].as_f64().unwrap() > 0.0, "{worths}");
    assert!(filters[0]["all"]["tokens"].as_u64() > filters[0]["equal"]["tokens"].as_u64());

    // Again nothing is trained, and the same is said.
    let again = place.run(measure);
    assert!(again.err.matches("taken from the store").count() >= 3, "{}", again.err);
    assert!(again.out.contains("drop_refusals"), "{}", again.out);
}

/// Two conversations and a text, as DistillKit's sampler lays them out; `crates/distill/golden/distillkit/make.py` made them.
#[test]
fn a_capture_of_distillkit_is_read_with_its_probabilities() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../distill/golden/distillkit");
    let (data, tokenizer) = (golden.join("capture.parquet"), golden.display().to_string());
    let place = Place::empty();
    let words = format!("{} --tokenizer {tokenizer} --to", data.display());
    let found = convert(&place, &format!("{words} capture --out capture.jsonl"));
    assert_eq!(found, json!({ "read": 3, "written": 3, "unanswered": 0, "unfit": 0 }));
    let rows = lines(&place.read("capture.jsonl"));
    let said: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row["prompt"]["text"].as_str().unwrap(), row["answers"][0]["text"].as_str().unwrap()))
        .collect();
    assert_eq!(said[0], ("<|user|>Which colour has the boat?<|end|><|assistant|>", "The boat is red."));
    assert_eq!(said[1].1, "It is\n\u{e9}blouissant!");
    assert_eq!(said[2].0.to_owned() + said[2].1, "No one speaks here; the text goes on");
    assert_eq!(convert(&place, &format!("{words} capture --every-turn --out all.jsonl"))["written"], 4);

    // Each place names twenty tokens, and the one that the teacher wrote comes first.
    for row in &rows {
        assert_eq!(row["told"]["answers"][0][2], row["usage"]["completion_tokens"]);
    }
    // They fit the tokens of a student of the same tokenizer, the token at the end included.
    let found = convert(&place, &format!("capture.jsonl --tokenizer {tokenizer} --to axolotl --out kd.jsonl"));
    assert_eq!((&found["written"], &found["unfit"]), (&json!(3), &json!(0)));
    let told = lines(&place.read("kd.jsonl"));
    for token in told.iter().flat_map(|row| row["logprobs"].as_array().unwrap()) {
        assert_eq!(token.as_array().unwrap().len(), 20);
    }
    let first = &told[0];
    assert_eq!(first["logprobs"].as_array().unwrap().last().unwrap()[0]["token"], "token_id:0");

    let done = place.run(&format!("distill convert {} --to capture --out none.jsonl", data.display()));
    assert!(done.err.contains("give `--tokenizer`, the folder of its teacher"), "{}", done.err);
    let done = place.run("distill convert capture.jsonl --to distillkit --out none.parquet");
    assert!(done.err.contains("is read and not written"), "{}", done.err);
}

/// Reads every file with pyarrow and with datasets, and gives the rows as JSON lines.
const READ: &str = r#"
import json, sys
try:
    import datasets, pyarrow.parquet
except ImportError as error:
    print("missing", error)
    sys.exit(0)
datasets.disable_progress_bars()
for path in sys.argv[1:]:
    kind = "parquet" if path.endswith(".parquet") else "json"
    rows = datasets.load_dataset(kind, data_files=path, split="train", cache_dir=sys.argv[1] + ".cache").to_list()
    if kind == "parquet":
        assert rows == pyarrow.parquet.read_table(path).to_pylist(), path
    print(json.dumps(rows))
"#;

/// Without the fields that are empty: a table has every column in every row.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there = fields.iter().filter(|(_, field)| !field.is_null());
            there.map(|(name, field)| (name.clone(), bare(field))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        other => other.clone(),
    }
}

#[test]
fn what_is_written_is_read_by_pyarrow_and_datasets() {
    let Some(python) = std::env::var_os("ANBIQ_PYTHON") else {
        eprintln!("skipped: ANBIQ_PYTHON does not name a Python that has pyarrow and datasets");
        return;
    };
    let place = Place::empty();
    place.write("answers.jsonl", CAPTURE);
    let forms = ["messages", "prompt-completion", "sharegpt", "alpaca"];
    let files: Vec<String> =
        forms.iter().flat_map(|form| ["jsonl", "parquet"].map(|ending| format!("{form}.{ending}"))).collect();
    for file in &files {
        let form = file.split('.').next().unwrap();
        convert(&place, &format!("answers.jsonl --to {form} --out {file}"));
    }
    let mut command = std::process::Command::new(python);
    command.args(["-c", READ]).args(files.iter().map(|file| place.path(file)));
    let output = command.env("HF_HUB_OFFLINE", "1").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    if said.starts_with("missing") {
        eprintln!("skipped: the Python of ANBIQ_PYTHON says {said}");
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Vec<Value> = lines(&said);
    assert_eq!(read.len(), files.len());
    for (file, rows) in files.iter().zip(read) {
        let plain = lines(&place.read(&file.replace("parquet", "jsonl")));
        assert_eq!(bare(&rows), bare(&plain.into()), "{file}");
    }
}
