//! What is shown and checked before a student is trained.

use serde_json::Value;

use crate::support::Place;

const ANSWERS: &str = r#"{"prompt": "Tell me of a fox.", "answers": [{"text": "A fox sat by the mill.\nIt was red.", "finish": "stop"}]}
{"prompt": {"chat": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And of a lamp."}]}, "answers": [{"text": "It burns.", "finish": "stop"}]}
"#;

fn place() -> Place {
    let place = Place::empty();
    assert_eq!(place.run("lab unpack --out teacher").code, 0);
    place.write("answers.jsonl", ANSWERS);
    place
}

/// A recipe for a student of `init`; `more` goes into its parts.
fn recipe(place: &Place, init: &str, teacher: &str, more: &str) {
    let text = format!(
        "out = \"student\"\n[teacher]\nname = \"still\"\nbasis = \"a test\"\n{teacher}\n[capture]\nsource = \"answers.jsonl\"\n\
         [evaluate]\ncapture_share = 0.0\n[student]\nname = \"student\"\ninit = \"{init}\"\n{more}"
    );
    place.write("recipe.toml", &text);
}

/// What a dry run says of the samples.
fn dry_run(place: &Place) -> String {
    let done = place.run("distill run recipe.toml --dry-run");
    assert_eq!(done.code, 0, "{}", done.err);
    done.out.split_once("samples ").map(|(_, said)| format!("samples {said}")).unwrap()
}

#[test]
fn a_dry_run_shows_samples_and_what_the_loss_counts_of_them() {
    let place = place();
    recipe(&place, "teacher", "", "");
    insta::assert_snapshot!(dry_run(&place), @r"
    samples    2; all end with `<|end|>`, and the loss counts it
    template   ends an answer with the same token
    teacher    not known how it ends: nothing is told of that place

    sample 1: the loss counts what stands in [brackets]
      <|user|>Tell me of a fox.<|end|><|assistant|>[A][ fox][ s][at][ by][ the][ mill][.][\n][It][ was][ red][.][<|end|>]

    sample 2: the loss counts what stands in [brackets]
      <|system|>Be brief.<|end|><|user|>And of a lamp.<|end|><|assistant|>[It][ b][ur][n][s][.][<|end|>]
    ");

    // What does not fit is left out and said; kept, it is cut, and has no end.
    let long = format!(
        "{{\"prompt\": \"And then?\", \"answers\": [{{\"text\": \"{}\", \"finish\": \"stop\"}}]}}\n",
        "on and ".repeat(200)
    );
    place.write("answers.jsonl", &(ANSWERS.to_owned() + &long));
    insta::assert_snapshot!(warned(&dry_run(&place)), @r"
    samples    2; all end with `<|end|>`, and the loss counts it
    warning    1 of 3 answers do not fit the student's context of 256 tokens and are left out: raise `context` in `[student]`, or keep them cut with `keep_truncated`
    ");
    recipe(&place, "teacher", "", "[curate]\nkeep_truncated = true\n");
    insta::assert_snapshot!(warned(&dry_run(&place)), @"samples    3; 2 end with `<|end|>`, and the loss counts it");

    // Before there is an answer the prompts are shown.
    place.write("prompts.jsonl", "{\"prompt\": \"Tell me of a fox.\"}\n");
    let ask = "prices = { input = \"1\", output = \"1\" }\n[capture.ask]\nurl = \"http://127.0.0.1:9/v1\"\nprompts = \"prompts.jsonl\"\n\
               max_tokens = 20\nceiling = \"1\"";
    recipe(&place, "teacher", ask, "");
    let text = place.read("recipe.toml").replace("[capture]\nsource = \"answers.jsonl\"\n", "");
    place.write("recipe.toml", &text.replace("[capture.ask]", "[capture]\nsource = \"none.jsonl\"\n[capture.ask]"));
    insta::assert_snapshot!(dry_run(&place), @r"
    samples    no answer is there yet; each will end with `<|end|>`
    template   ends an answer with the same token
    teacher    not known how it ends: nothing is told of that place

    sample 1: the loss counts what stands in [brackets]
      <|user|>Tell me of a fox.<|end|><|assistant|>[no answer yet]
    ");
}

#[test]
fn a_student_that_would_not_stop_is_not_trained() {
    let place = place();
    // A base whose template ends a turn with another token than the one that answers are trained to end with.
    assert_eq!(place.run("lab unpack --out other").code, 0);
    let words = place.read("other/tokenizer_config.json");
    let mut parsed: Value = serde_json::from_str(&words).unwrap();
    parsed["eos_token"] = "<|tool|>".into();
    place.write("other/tokenizer_config.json", &parsed.to_string());
    for file in ["other/config.json", "other/generation_config.json"] {
        let mut parsed: Value = serde_json::from_str(&place.read(file)).unwrap();
        parsed["eos_token_id"] = 4.into();
        place.write(file, &parsed.to_string());
    }
    recipe(&place, "other", "", "");
    for words in ["distill run recipe.toml --dry-run", "distill run recipe.toml"] {
        let done = place.run(words);
        insta::allow_duplicates! { insta::assert_snapshot!(done.told(), @r"
        exit 2
        error: the student's chat template ends an answer with `<|end|>`, which is not inside the loss: `<|tool|>` is, and neither stops for the other
        hint: set `eos_token` to `<|end|>` in tokenizer_config.json of the student's folder
        ") }
        assert!(!place.path("student").exists() && !place.path("store").exists(), "nothing was trained");
    }

    // A teacher whose word counts, and who ends its answers with another token.
    let told = |end: &str| {
        let end = serde_json::json!({ "bytes": end, "logprob": -0.01, "top": [[end, -0.01], ["b", -6.0]] });
        let first = serde_json::json!({ "bytes": "A", "logprob": -0.1, "top": [["A", -0.1]] });
        let answer = serde_json::json!({ "text": "A", "finish": "stop" });
        let row = serde_json::json!({ "prompt": "A letter.", "answers": [answer], "logprobs": [[first, end]] });
        place.write("answers.jsonl", &format!("{row}\n"));
    };
    told("<|tool|>");
    recipe(&place, "teacher", "", "");
    insta::assert_snapshot!(place.run("distill run recipe.toml --dry-run").told(), @r"
    exit 2
    error: the teacher ends its answers with another token: `<|end|>` has a probability of 0.0025 (rather `<|tool|>`)
    hint: name the teacher's token as `eos_token` in tokenizer_config.json of the student's folder, or set `kl_weight = 0` and leave out `[train.on_policy]`: a student that is pulled away from `<|end|>` never stops
    ");
    assert!(!place.path("student").exists());
    // Where only the texts are learnt from it is said and no more.
    recipe(&place, "teacher", "", "[train]\nkl_weight = 0.0\n");
    insta::assert_snapshot!(warned(&dry_run(&place)), @r"
    samples    1; all end with `<|end|>`, and the loss counts it
    warning    the teacher ends its answers with another token: `<|end|>` has a probability of 0.0025 (rather `<|tool|>`)
    ");
    told("<|end|>");
    recipe(&place, "teacher", "", "");
    assert!(dry_run(&place).contains(
        "teacher    ends with it with a probability of 0.990, at the ends of 1 answers, by what its server tells"
    ));

    // By its weights: it would go on where the answers end.
    place.write(
        "answers.jsonl",
        "{\"prompt\": \"Tell me of a fox.\", \"answers\": [{\"text\": \"A fox sat by the\", \"finish\": \"stop\"}]}\n",
    );
    recipe(&place, "teacher", "folder = \"teacher\"", "[train.on_policy]\nmax_tokens = 8\n");
    assert!(
        warned(&dry_run(&place))
            .contains("warning    the teacher goes on where these answers end: `<|end|>` has a probability of 0.00")
    );
}

/// What is said of the samples and what may go wrong.
fn warned(said: &str) -> String {
    let lines = said.lines().filter(|line| line.starts_with("samples") || line.starts_with("warning"));
    lines.collect::<Vec<_>>().join("\n")
}
