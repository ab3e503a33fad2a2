//! `anbiq trace`: by a signed plan, and the style of given answers.

use std::fs;
use std::process::Stdio;

use anbiq_evidence::signed::Signed;
use anbiq_journal::SigningKey;
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::gateway::{Running, ask, key};
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

/// A gateway in front of the teacher with some twinned exchanges in its journal, and a copy of the teacher as a suspect, which
/// cannot have seen what was served.
pub(crate) async fn served() -> Place {
    let place = Place::gateway();
    assert_eq!(place.run("account open acme --plan standard --budget 1.00").code, 0);
    let key = key(&place, "acme");
    assert_eq!(place.run("terms accept acme teacher").code, 0);
    let gateway = Running::start(&place);
    let client = gateway.client(&key);
    for number in 0..30 {
        client.chat(&ask(&format!("Tell me of number {number}.")), &[]).await.unwrap();
    }
    assert_eq!(gateway.stop(), 0);
    fs::create_dir(place.path("suspect")).unwrap();
    for file in fs::read_dir(place.path("teacher")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), place.path("suspect").join(file.file_name())).unwrap();
    }
    place
}

fn copy(place: &Place, from: &str, to: &str) {
    let done = std::process::Command::new("cp").arg("-r").arg(place.path(from)).arg(place.path(to)).status().unwrap();
    assert!(done.success());
}

/// Flips a bit in the middle of a file.
fn touch(place: &Place, name: &str) {
    let mut bytes = fs::read(place.path(name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(place.path(name), bytes).unwrap();
}

/// What is said, without what differs from run to run.
fn without_digests(text: &str) -> String {
    let word = |word: &str| {
        let plain = word.trim_matches([',', ';', '.', '`', '"']);
        let digest = plain.len() == 64 && plain.chars().all(|letter| letter.is_ascii_hexdigit());
        if digest { word.replace(plain, "DIGEST") } else { word.to_owned() }
    };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_followed_or_refused() {
    let place = served().await;
    let plan = "trace plan suspect --teacher teacher --journal journal --effect 0.7";
    let planned = place.run(plan);
    assert_eq!(planned.code, 0, "{}", planned.err);
    assert!(planned.out.contains("suspect    suspect at suspect, 6 files"), "{}", planned.out);
    assert!(planned.out.contains("a win rate of 0.7 needs about"), "{}", planned.out);
    assert!(place.run(plan).err.contains("`plan.json` is there already"));
    let signed: Value = serde_json::from_str(&place.read("plan.json")).unwrap();

    // As planned, and reported though nothing is shown; without a plan the report says that there was none.
    let run = place.run("trace run plan.json --out results");
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains(&format!("Fixed by plan {}", signed["sha256"].as_str().unwrap())), "{}", run.out);
    assert!(run.out.contains("Verdict: NOT SHOWN"), "{}", run.out);
    let report: Value = serde_json::from_str(&place.read("results/trace-suspect.json")).unwrap();
    assert_eq!(report["plan"]["plan"], signed["sha256"]);
    assert_eq!(report["plan"]["signer"], signed["keyid"]);
    assert_eq!(report["plan"]["begun_before"], 0);
    assert_eq!(place.read("results/plan.json"), place.read("plan.json"));
    let unplanned = place.run("trace suspect --teacher teacher --journal journal");
    assert!(unplanned.out.contains("Not fixed beforehand"), "{}", unplanned.out);
    assert!(place.run("trace run plan.json --out results").err.contains("`results` is there already"));

    // By nearness, and beside a calibration student: one of them excludes nothing.
    let near = place.run("trace suspect --teacher teacher --journal journal --nearness --json --out near.json");
    assert_eq!(near.code, 0, "{}", near.err);
    let near: Value = serde_json::from_str(&near.out).unwrap();
    assert_eq!(near["protocol"]["statistic"], "nearness");
    // A copy of the teacher is as near along either draw.
    assert!(near["all_traffic"]["p_exact"].as_f64().unwrap() > 0.01, "{}", near["all_traffic"]);
    let student = "trace suspect --teacher teacher --journal journal --name student --out student.json";
    assert_eq!(place.run(student).code, 0);
    let beside = place.run("trace suspect --teacher teacher --journal journal --calibration student.json");
    assert!(
        beside.out.contains("To be excluded: It was trained on the served answers as 1 calibration"),
        "{}",
        beside.told()
    );
    assert!(beside.out.contains("Verdict: NOT SHOWN"), "{}", beside.out);
    let other = place.run("trace suspect --teacher teacher --journal journal --calibration near.json").told();
    assert!(other.contains("the calibration student `suspect` cannot be compared with"), "{other}");

    // A plan that was changed, or signed by somebody else.
    let refused = |words: &str| without_digests(&place.run(words).told());
    place.write("changed.json", &place.read("plan.json").replace("\"attempts\": 3", "\"attempts\": 4"));
    assert_snapshot!(refused("trace run changed.json"), @r#"
    exit 2
    error: the plan `changed.json` is not taken
      because: it was changed: its digest is DIGEST, and DIGEST was written into it
    "#);
    let other = SigningKey::from_bytes([7; 32]);
    let stranger = other.public();
    assert_snapshot!(refused(&format!("trace run plan.json --key {stranger}")), @r#"
    exit 2
    error: the plan `plan.json` is not taken
      because: it was signed by DIGEST, not by DIGEST
    "#);
    let resigned = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut document = signed["document"].clone();
        change(&mut document);
        let again = Signed::sign(&document, anbiq_trace::plan::KIND, &other).unwrap();
        place.write(name, &serde_json::to_string(&again).unwrap());
    };
    resigned("version.json", &|plan| plan["software"] = json!("anbiq 0.0.9"));
    assert_snapshot!(refused("trace run version.json"), @r#"
    exit 2
    error: this is not what was planned: `software` is "anbiq 0.0.9" in the plan, and now "anbiq 0.1.0"
    "#);
    resigned("settings.json", &|plan| plan["twins"][0]["protocol"]["minimum_items"] = json!(5));
    assert_snapshot!(refused("trace run settings.json"), @r#"
    exit 2
    error: this is not what was planned: `twins.protocol.minimum_items` is 5 in the plan, and now 20
    "#);

    // Another suspect, more files of it, none.
    copy(&place, "suspect", "other");
    touch(&place, "other/model.safetensors");
    assert_snapshot!(refused("trace run plan.json --suspect other"), @r#"
    exit 2
    error: this is not what was planned: `suspect/model.safetensors` is "DIGEST" in the plan, and now "DIGEST"
    "#);
    copy(&place, "suspect", "more");
    place.write("more/adapter.json", "{}");
    assert_snapshot!(refused("trace run plan.json --suspect more"), @r#"
    exit 2
    error: this is not what was planned: `suspect/adapter.json` is missing in the plan, and now DIGEST
    "#);
    fs::remove_file(place.path("more/adapter.json")).unwrap();
    fs::remove_file(place.path("more/tokenizer.json")).unwrap();
    assert_snapshot!(refused("trace run plan.json --suspect more"), @r#"
    exit 2
    error: this is not what was planned: `suspect/tokenizer.json` is DIGEST in the plan, and now missing
    "#);
    // Moved, it is the same.
    copy(&place, "suspect", "moved");
    assert_eq!(place.run("trace run plan.json --suspect moved").code, 0);

    // The journal as it was before its end, and another one.
    copy(&place, "journal", "shorter");
    let segment = fs::read_dir(place.path("shorter")).unwrap().map(|file| file.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "seg")).max().unwrap();
    fs::remove_file(segment).unwrap();
    let shorter = place.run("trace run plan.json --journal shorter").told();
    assert!(
        shorter.contains("not what was planned: `journal.size` is") && shorter.contains("(it is shorter)"),
        "{shorter}"
    );

    // All refusals came before anything was asked, so only the two whole runs count.
    let begun = |text: &str| text.lines().filter(|line| line.contains("\"begun\"")).count();
    assert_eq!(begun(&place.read("plan.runs.jsonl")), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_broken_off_is_remembered_and_a_dossier_carries_the_plan() {
    let place = served().await;
    assert_eq!(place.run("trace plan suspect --teacher teacher --journal journal --key secrets/signing.key").code, 0);
    let mut child =
        place.command("trace run plan.json --out results").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !place.path("plan.runs.jsonl").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Killed between the begin and the end: nothing of it is there but the record that it was begun.
    let finished = place.path("results").exists();
    assert!(!finished, "the run was over before it could be killed");
    let again = place.run("trace run plan.json --out results");
    assert!(again.out.contains("It had been begun once before."), "{}", again.told());

    assert_eq!(place.run("watch journal --out watch.json --json").code, 0);
    let case = "case --watch watch.json --trace results/trace-suspect.json --out dossier";
    assert!(place.run(case).err.contains("a trace names the plan"), "{}", place.run(case).err);
    let written = place.run(&format!("{case} --plan plan.json"));
    assert_eq!(written.code, 0, "{}", written.err);
    let verified = place.run("verify dossier");
    let said = anbiq_verify::run(&place.path("dossier"), None, false).unwrap();
    assert_eq!((verified.code, verified.out.trim()), (0, said.text.trim()));
    assert!(place.read("dossier/dossier.json").contains("plan of the trace of suspect"));
    assert!(
        fs::read_dir(place.path("dossier"))
            .unwrap()
            .any(|file| { file.unwrap().file_name().to_string_lossy().starts_with("plan-") })
    );
    // A report that is not what its plan says.
    let report = place.read("results/trace-suspect.json").replace("\"tests\": \"One-sided", "\"tests\": \"One sided");
    place.write("reworded.json", &report);
    let refused = place.run("case --watch watch.json --trace reworded.json --plan plan.json --out other");
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("`protocol.tests` is"), "{}", refused.err);
}

#[test]
fn power_is_said_before_anything_is_asked() {
    let place = Place::empty();
    assert_snapshot!(place.run("trace power --effect 0.6 --hypotheses 5 --pairs 1000").out, @r#"
    pairs needed for p below 2.0e-7
    win rate   with 50 %   with 90 %
    0.6              438         687
    Differences have heavier tails than these numbers assume, which costs up to half as many pairs again.
    1000 pairs: they establish a win rate of about 0.566 with 50 % probability, of 0.583 with 90 %
    "#);
    assert_snapshot!(place.run("trace power --effect 0.5").told(), @r#"
    exit 2
    error: an effect is a share above 0.5, at which the suspect prefers neither, and at most 1; got 0.5
    "#);
}

#[test]
fn style_is_planned_too() {
    let place = place();
    let planned = place.run("trace plan --answers answers.jsonl --roles roles.tsv --family T");
    assert_eq!(planned.code, 0, "{}", planned.err);
    let run = place.run("trace run plan.json --json --out results");
    assert_eq!(run.code, 0, "{}", run.err);
    let report: Value = serde_json::from_str(&place.read("results/style.json")).unwrap();
    let signed: Value = serde_json::from_str(&place.read("plan.json")).unwrap();
    assert_eq!(report["plan"]["plan"], signed["sha256"]);
    place.write("answers.jsonl", &answers().replacen("word3", "word4", 1));
    let told = without_digests(&place.run("trace run plan.json").told());
    assert_snapshot!(told, @r#"
    exit 2
    error: this is not what was planned: `answers.jsonl` is "DIGEST" in the plan, and now "DIGEST"
    "#);
}

#[test]
fn an_endpoint_is_what_it_is_said_to_be_or_not() {
    let place = Place::gateway();
    // The same network, drawing otherwise: half of its last layer's weights are other ones.
    copy(&place, "teacher", "swapped");
    let mut bytes = fs::read(place.path("swapped/model.safetensors")).unwrap();
    let middle = bytes.len() / 2;
    // Numbers of two bytes, so none of them becomes another number.
    let start = middle - middle % 2 + bytes.len() % 2;
    for chunk in bytes[start..].chunks_exact_mut(64) {
        chunk.reverse();
        chunk.chunks_exact_mut(2).for_each(|number| number.swap(0, 1));
    }
    fs::write(place.path("swapped/model.safetensors"), bytes).unwrap();
    place.write(
        "prompts.jsonl",
        &(0..6).map(|n| format!("{{\"prompt\": \"Tell me of number {n}.\"}}\n")).collect::<String>(),
    );
    let words = "--reference teacher --prompts prompts.jsonl --answers 6 --permutations 999 --steps 60";
    let same = place.run(&format!("trace endpoint teacher {words}"));
    assert_eq!(same.code, 0, "{}", same.told());
    assert!(same.out.contains("It is not shown that they differ."), "{}", same.out);
    let swapped = place.run(&format!("trace endpoint swapped {words}"));
    assert!(swapped.out.contains("They differ: "), "{} {}", swapped.out, swapped.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_answers_are_seen_by_whoever_holds_the_key() {
    let place = Place::gateway();
    assert_eq!(place.run("account open acme --plan standard --budget 1.00").code, 0);
    let key = key(&place, "acme");
    assert_eq!(place.run("terms accept acme teacher").code, 0);
    let plain = place.read("anbiq.toml");
    place.write("anbiq.toml", &plain.replace("[[model]]\n", "[[model]]\nwatermark = { window = 1 }\n"));
    let gateway = Running::start(&place);
    let client = gateway.client(&key);
    let (mut marked, mut others) = (String::new(), String::new());
    // The same words in another order would not do: inside of each the choices stand that were marked.
    let unmarked: Vec<&str> = include_str!("../../../../README.md").split_whitespace().collect();
    // The key is drawn anew in every run, and of 80 answers one key in some hundred shows less than is asked for below.
    for number in 0..240 {
        let prompt = format!("Tell me of number {number}.");
        let answer = client.chat(&ask(&prompt), &[]).await.unwrap();
        let text = answer.choices[0].message.content.clone().unwrap_or_default();
        let line =
            |model: &str, text: &str| json!({"model": model, "prompt": prompt, "output": text}).to_string() + "\n";
        marked += &line("marked", &text);
        let from = 20 * number;
        others += &line("other", &unmarked[from..from + 20].join(" "));
    }
    assert_eq!(gateway.stop(), 0);
    place.write("answers.jsonl", &(marked + &others));

    // The journal committed to the key with every answer.
    let segments =
        fs::read_dir(place.path("journal")).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap_or_default());
    let journal: Vec<String> = segments.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
    let commitment =
        journal.iter().find_map(|text| text.split_once("watermark ").map(|(_, rest)| rest[..64].to_owned()));
    let commitment = commitment.unwrap();
    let words = "trace watermark answers.jsonl --teacher teacher --key secrets/watermark.key --window 1";
    let found = place.run(&format!("{words} --commitment {commitment} --out found.json"));
    let report: Value = serde_json::from_str(&place.read("found.json")).unwrap();
    let p = |place: usize| report["models"][place]["p_holm"].as_f64().unwrap();
    // The second fails under one key of 100,000.
    assert!(p(0) < 1e-6 && p(1) > 1e-5, "{}{}", found.out, found.err);
    assert_eq!((found.code, &report["commitment"]), (1, &json!(commitment)));

    // Another key is another commitment, whatever it would show.
    let told = place.run(&format!("{words} --scheme green --commitment {commitment}")).told();
    assert!(told.contains("is not to this key, scheme and window"), "{told}");
    place.write("anbiq.toml", &plain.replace("[[model]]\n", "[[model]]\nwatermark = { window = 9 }\n"));
    assert!(place.run("config check").out.contains("a window of 9 tokens cannot be"));

    // While it reads, a model that was never trained on marked text shows nothing, marked or not.
    let line = place.read("answers.jsonl").lines().take(30).collect::<Vec<_>>().join("\n");
    place.write("read.jsonl", &line);
    for more in ["", " --marked"] {
        let read = place.run(&format!("trace watermark read.jsonl --teacher teacher --key secrets/watermark.key --window 2 --suspect teacher{more}"));
        assert_eq!(read.code, 0, "{}{}", read.out, read.err);
    }
}
