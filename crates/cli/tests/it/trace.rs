//! `anbiq trace style`: given answers, and who is who.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::Place;

/// Ten models that answer sixty prompts with their own words; those of `suspect` are mostly `teacher`'s.
fn answers() -> String {
    let mut lines = String::new();
    for model in 0..10_u64 {
        let (name, habit) = match model {
            0 => ("teacher".to_owned(), 0),
            1 => ("suspect".to_owned(), 0),
            _ => (format!("control-{model}"), model),
        };
        for prompt in 0..60_u64 {
            let says = |word: &u64| {
                let mixed = (habit * 31 + word * 17 + 7) % 13;
                (prompt * 5 + word * 3 + model) % 13 < mixed
            };
            let words: Vec<String> = (0..30).filter(says).map(|word| format!("word{word}")).collect();
            let line = json!({"model": name, "prompt": format!("prompt {prompt}"), "output": words.join(" ")});
            lines += &format!("{line}\n");
        }
    }
    lines
}

fn place() -> Place {
    let place = Place::empty();
    place.write("answers.jsonl", &answers());
    let controls = (2..10).map(|model| format!("control-{model}\tcontrol\tF{model}\n"));
    let who = ["teacher\tteacher\tT\n".to_owned(), "suspect\tsuspect\tS\n".to_owned()];
    place.write("roles.tsv", &who.into_iter().chain(controls).collect::<String>());
    place
}

#[test]
fn eight_controls_are_too_few_for_style_to_show_anything() {
    let place = place();
    let done = place.run("trace style answers.jsonl --roles roles.tsv --teacher T --json --out style.json");
    let report: Value = serde_json::from_str(&place.read("style.json")).unwrap();
    assert!(done.told().starts_with("exit 0"), "{}", done.told());
    let finding = &report["findings"][0];
    assert_eq!((&finding["suspect"], &finding["verdict"]["strength"]), (&json!("suspect"), &json!("not_shown")));
    assert_eq!(finding["closeness"][0]["model"], "teacher");
    // One of nine: more prompts could not make it less.
    assert!((finding["p_models"].as_f64().unwrap() - 1.0 / 9.0).abs() < 1e-12);
}

#[test]
fn what_is_wrong_with_answers_and_roles_is_said() {
    let place = place();
    let refused = |words: &str| place.run(words).told();
    assert_snapshot!(refused("trace"), @r#"
    exit 2
    error: the following required arguments were not provided:
      --teacher <TEACHER>
      --journal <JOURNAL>
      <SUSPECT>

    Usage: anbiq trace --teacher <TEACHER> --journal <JOURNAL> <SUSPECT>

    For more information, try '--help'.
    "#);
    assert_snapshot!(refused("trace style answers.jsonl.xz --roles roles.tsv --teacher T"), @r#"
    exit 2
    error: `answers.jsonl.xz` is compressed
    hint: unpack it and hand it over by standard input, as `-`
    "#);
    assert_snapshot!(refused("trace style answers.jsonl --roles roles.tsv --teacher nobody"), @r#"
    exit 2
    error: no model has the role `teacher` in the family `nobody` for the suspect `suspect`, whose own family `S` is left out
    "#);
    place.write("roles.tsv", "suspect\tsuspicious\tS\n");
    assert_snapshot!(refused("trace style answers.jsonl --roles roles.tsv --teacher T"), @r#"
    exit 2
    error: roles, line 1: `suspicious` is none of `suspect`, `teacher` and `control`
    "#);
    place.write("roles.tsv", "stranger\tsuspect\tS\n");
    assert_snapshot!(refused("trace style answers.jsonl --roles roles.tsv --teacher T"), @r#"
    exit 2
    error: model `stranger` has a role, but no answer in the files
    "#);
    place.write("answers.jsonl", "{\"model\": \"m\"}\n");
    assert_snapshot!(refused("trace style answers.jsonl --roles roles.tsv --teacher T"), @r#"
    exit 2
    error: `answers.jsonl`, line 1: not an object with `model`, `prompt` and `output`: missing field `prompt` at line 1 column 14
    "#);
}
