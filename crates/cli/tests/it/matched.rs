//! Students that learn what their teacher thinks on the way, and students that are cut from it.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use crate::support::Place;

fn place() -> Place {
    let place = Place::empty();
    assert_eq!(place.run("lab unpack --out teacher").code, 0);
    let mut answers = String::new();
    for number in 0..24 {
        let (prompt, answer) = (format!("What comes after {number}?"), format!("After {number} comes {}.", number + 1));
        writeln!(answers, r#"{{"prompt": "{prompt}", "answers": [{{"text": "{answer}", "finish": "stop"}}]}}"#)
            .unwrap();
    }
    place.write("answers.jsonl", &answers);
    place
}

const NARROW: &str =
    "tokenizer = \"teacher\"\nhidden_size = 32\nlayers = 2\nheads = 2\nintermediate_size = 64\ncontext = 64";

/// A recipe whose student begins as `student` says and learns as `train` says.
fn recipe(place: &Place, name: &str, teacher: &str, student: &str, train: &str) {
    let text = format!(
        "out = \"{name}\"\nthreads = 2\n[teacher]\nname = \"still\"\nbasis = \"a test\"\n{teacher}\n[capture]\nsource = \"answers.jsonl\"\n\
         [student]\nname = \"{name}\"\n{student}\n[train]\nepochs = 4\nbatch_tokens = 200\n{train}\n"
    );
    place.write(&format!("{name}.toml"), &text);
}

/// A run to its end: its report, and what was said.
fn run(place: &Place, name: &str) -> (Value, String) {
    let done = place.run(&format!("distill run {name}.toml --json"));
    assert_eq!(done.code, 0, "{}", done.err);
    (serde_json::from_str(&done.out).unwrap(), done.err)
}

fn column(report: &Value, model: &str) -> Value {
    report["evaluation"].as_array().unwrap().iter().find(|column| column["model"] == model).unwrap().clone()
}

#[test]
fn hidden_states_are_matched_through_a_projection_that_no_student_keeps() {
    let place = place();
    let teacher = "folder = \"teacher\"";
    recipe(&place, "plain", teacher, NARROW, "");
    recipe(&place, "matched", teacher, NARROW, "[train.hidden_states]\nweight = 2.0");
    recipe(
        &place,
        "chosen",
        teacher,
        NARROW,
        "[train.hidden_states]\nweight = 0.5\nmeasure = \"mean-square\"\nlayers = [[2, 5]]",
    );
    let (_, said) = run(&place, "plain");
    assert!(!said.contains("hidden states"), "{said}");
    let (report, said) = run(&place, "matched");
    let note = "hidden states: the student's layers are matched with the teacher's, 1 with 3, 2 with 5, through a learned projection from 32 to 224";
    assert!(said.contains(note), "{said}");
    let (_, said) = run(&place, "chosen");
    assert!(said.contains("with the teacher's, 2 with 5, through"), "{said}");
    let weights = |name: &str| fs::read(place.path(&format!("{name}/model.safetensors"))).unwrap();
    let [plain, matched, chosen] = ["plain", "matched", "chosen"].map(weights);
    // All three differ in numbers and in nothing else: as many bytes, and no tensor more.
    assert!(plain != matched && matched != chosen && plain != chosen);
    let header = |file: &[u8]| {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        String::from_utf8(file[8..8 + length].to_vec()).unwrap()
    };
    assert_eq!(header(&plain), header(&matched));
    assert!(!header(&matched).contains("projection"));
    // The same again is the same, and is taken from the store.
    let (again, said) = run(&place, "matched");
    assert!(said.contains("train: taken from the store"), "{said}");
    assert_eq!(again["stages"][0]["key"], report["stages"][0]["key"]);
}

#[test]
fn hidden_states_that_cannot_be_matched_are_refused_by_name() {
    let place = place();
    let hidden = "[train.hidden_states]\nweight = 1.0";
    // A server tells of none.
    recipe(&place, "student", "", NARROW, hidden);
    let done = place.run("distill run student.toml");
    assert!(done.code == 2 && done.err.contains("no server tells of hidden states"), "{}", done.err);
    // No such layer.
    let layers = format!("{hidden}\nlayers = [[2, 6]]");
    recipe(&place, "student", "folder = \"teacher\"", NARROW, &layers);
    for words in ["distill run student.toml --dry-run", "distill run student.toml"] {
        insta::allow_duplicates! { insta::assert_snapshot!(place.run(words).told(), @r"
        exit 2
        error: `[train.hidden_states]`: setting `hidden_states`: the teacher has the layers 1 to 5, and no layer 6
        hint: layers are counted from 1, the student's first
        ") }
    }
    // Other tokens.
    assert_eq!(place.run("lab unpack --out other").code, 0);
    place.write("other/tokenizer.json", &place.read("other/tokenizer.json").replace("<|tool|>", "<|tools|>"));
    recipe(&place, "student", "folder = \"other\"", NARROW, hidden);
    insta::assert_snapshot!(place.run("distill run student.toml").told(), @r"
    exit 2
    error: `[train.hidden_states]`: the teacher's tokens are not the student's, so no state of one belongs to one of the other
    hint: begin the student with the teacher's tokenizer, or leave `[train.hidden_states]` out
    ");
    assert!(!place.path("student").exists() && !place.path("store").exists(), "nothing was trained");
}

#[test]
fn a_student_is_cut_in_depth_from_its_teacher() {
    let place = place();
    let cut = "init = \"teacher\"\nlayers = 2";
    recipe(&place, "half", "folder = \"teacher\"", cut, "[train.hidden_states]\nweight = 1.0");
    place.write(
        "half.toml",
        &(place.read("half.toml")
            + "[evaluate]\ntasks = \"tasks.jsonl\"\nheld_out = \"tasks.jsonl\"\nmax_tokens = 8\nlabels = \"tasks.jsonl\"\n"),
    );
    place.write(
        "tasks.jsonl",
        "{\"prompt\": \"What comes after 2?\", \"answer\": \"After 2 comes 3.\", \"expected\": \"3\"}\n",
    );
    let (report, said) = run(&place, "half");
    // As wide as its teacher it needs no projection.
    assert!(said.contains("with the teacher's, 1 with 3, 2 with 5\n"), "{said}");
    let config: Value = serde_json::from_str(&place.read("half/config.json")).unwrap();
    assert_eq!(config["num_hidden_layers"], 2);
    let [teacher, base, labels, student] = ["teacher", "base", "labels", "student"].map(|model| column(&report, model));
    assert!(student["parameters"] == base["parameters"] && labels["parameters"] == base["parameters"]);
    assert!(student["parameters"].as_u64() < teacher["parameters"].as_u64());
    // The base is the cut teacher before it learnt anything.
    let loss = |column: &Value| column["held_out_loss"].as_f64().unwrap();
    assert!(loss(&student) < loss(&base), "{student} {base}");
    assert_eq!(base["tasks"]["asked"], 1);

    recipe(&place, "more", "", "init = \"teacher\"\nlayers = 6", "");
    let done = place.run("distill run more.toml");
    assert!(done.code == 2 && done.err.contains("`init` has 5 layers, and 6 of them are to be kept"), "{}", done.err);
    recipe(&place, "adapted", "", cut, "[train.lora]\nrank = 4");
    let done = place.run("distill run adapted.toml");
    assert!(done.code == 2 && done.err.contains("adapts `init` as it is"), "{}", done.err);
}
