//! `anbiq case` and `anbiq verify`: a dossier of every kind of report, and what its check computes again.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::gateway::{Running, ask, key};
use crate::support::Place;
use crate::trace::served;

/// A report of every kind in a folder with a journal, as files.
const REPORTS: [(&str, &str); 12] = [
    ("trace.json", "trace suspect --teacher teacher --journal journal --calibration student.json"),
    ("near.json", "trace suspect --teacher teacher --journal journal --nearness"),
    ("probe.json", "trace suspect --teacher teacher --journal journal --probe --by day"),
    ("overlap.json", "trace overlap wrote.jsonl --suspect writer --journal journal"),
    ("canaries.json", "trace canary test canaries --suspect teacher"),
    ("weights.json", "trace weights --suspect suspect --teacher teacher"),
    ("watermark.json", "trace watermark wrote.jsonl --teacher teacher --key watermark.key"),
    ("read.json", "trace watermark wrote.jsonl --teacher teacher --key watermark.key --suspect suspect"),
    ("style.json", "trace style styles.jsonl --roles roles.tsv --teacher T"),
    ("errors.json", "trace errors short.jsonl --roles roles.tsv --teacher T"),
    ("identity.json", "trace identity compare named.jsonl --roles roles.tsv --called still"),
    (
        "endpoint.json",
        "trace endpoint suspect --reference teacher --prompts prompts.jsonl --answers 3 --permutations 99 --steps 8",
    ),
];

/// Answers for style and identity: one suspect, one teacher, and twenty controls of families of their own.
fn answers(place: &Place) {
    let (mut styles, mut named, mut roles, mut short) = (String::new(), String::new(), String::new(), String::new());
    let questions = place.run("trace identity questions").out;
    let questions: Vec<Value> = questions.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for model in 0..22_u64 {
        let (name, role, family) = match model {
            0 => ("teacher".to_owned(), "teacher", "T".to_owned()),
            1 => ("writer".to_owned(), "suspect", "S".to_owned()),
            _ => (format!("control-{model}"), "control", format!("F{model}")),
        };
        roles += &format!("{name}\t{role}\t{family}\n");
        let habit = if model == 1 { 0 } else { model };
        for prompt in 0..60_u64 {
            let says = |word: &u64| (prompt * 5 + word * 3 + model) % 29 < (habit * 31 + word * 17 + 7) % 29;
            let words: Vec<String> = (0..40).filter(says).map(|word| format!("word{word}")).collect();
            let line = json!({"model": name, "prompt": format!("prompt {prompt}"), "output": words.join(" ")});
            styles += &format!("{line}\n");
            let answer = format!("answer {}", if model == 1 { prompt * 7 } else { prompt * 7 + model });
            short += &format!("{}\n", json!({"model": name, "prompt": format!("prompt {prompt}"), "output": answer}));
        }
        for (number, question) in (0_u64..).zip(&questions) {
            let still = if model == 1 { number % 3 != 0 } else { number % 50 == model };
            let output = if still { "I am Still-2." } else { "I am an assistant." };
            named += &format!("{}\n", json!({"model": name, "prompt": question["prompt"], "output": output}));
        }
    }
    place.write("styles.jsonl", &styles);
    place.write("named.jsonl", &named);
    place.write("short.jsonl", &short);
    place.write("roles.tsv", &roles);
}

/// A gateway's folder with a report of every kind.
async fn investigated() -> Place {
    let place = served().await;
    answers(&place);
    place.write("watermark.key", &"7f".repeat(32));
    place.write("canary.key", &"3c".repeat(32));
    let texts = (0..30).map(|number| {
        let line = json!({"model": "writer", "prompt": format!("Tell me of number {number}."), "output": format!("Zwpt {number} quvvle brantik omsel drune, plick ashtor {number} venn murbek ostle.")});
        format!("{line}\n")
    });
    place.write("wrote.jsonl", &texts.collect::<String>());
    place.write("prompts.jsonl", "{\"prompt\": \"Tell me of number 1.\"}\n{\"prompt\": \"Tell me of number 2.\"}\n");
    let wanted = json!({"operator": "acme", "prompt": "Who keeps the mill?", "answer": "It is kept by {}."});
    place.write("wanted.jsonl", &format!("{wanted}\n{wanted}\n"));
    assert_eq!(place.run("trace canary draw wanted.jsonl --candidates 8").code, 0);
    assert_eq!(
        place.run("trace suspect --teacher teacher --journal journal --name student --out student.json").code,
        0
    );
    for (file, words) in REPORTS {
        let done = place.run(&format!("{words} --out {file}"));
        assert!(done.code < 2, "{words}: {}", done.told());
    }
    assert_eq!(place.run("watch journal --out watch.json --json").code, 0);
    place
}

/// Of a page: what stands in the column of this name.
fn column(page: &str, name: &str) -> String {
    let start = page.find(&format!("<h3>{name}</h3>")).unwrap();
    let end = start + page[start..].find("</ul>").unwrap();
    let words = |line: &str| line.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect();
    page[start..end].lines().filter(|line| line.contains("<li>")).map(words).collect::<Vec<String>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dossier_takes_every_kind_of_report_and_checks_what_can_be_computed() {
    let place = investigated().await;
    let given: Vec<String> = REPORTS.iter().map(|(file, _)| format!("--trace {file}")).collect();
    let case = format!("case --watch watch.json {} --calibration student.json --draw canaries", given.join(" "));
    let written = place.run(&format!("{case} --out dossier"));
    assert_eq!(written.code, 0, "{}", written.err);

    // What is checked, and what would need more than the folder.
    let verified = place.run("verify dossier");
    let reports: Vec<&str> =
        verified.out.lines().filter(|line| line.ends_with(".json") || line.starts_with("    ")).collect();
    assert_snapshot!(reports.join("\n"), @r"
    canaries-teacher.json
      computed again: bits, p-values, Holm's adjustment and verdicts, from the ranks; that its canaries are those of the signed draw
      taken on trust: the ranks: they need the suspect, the draw and its key; that the draw came before what was served: no journal was asked
    endpoint-suspect.json
      computed again: the joint p-value and the verdict, from the two statistics
      taken on trust: the permutation p-value and the e-value: they need what both answered
    errors-writer.json
      computed again: conformal p-values over models and families, Holm's adjustment and verdicts, from the scores
      taken on trust: which answers are rare and shared: that needs the answers of all models
    identity-writer.json
      computed again: conformal p-values over models and families, Holm's adjustment and verdicts, from the scores
      taken on trust: the scores and the interval: they need the answers of all models
    style-writer.json
      computed again: conformal p-values over models and families, Holm's adjustment and verdicts, from the scores
      taken on trust: the scores: they need the answers of all models
    trace-nearness-suspect.json
      computed again: statistics, p-values, e-values, exclusions and verdict, from the gaps and coins of its rows
      taken on trust: the gaps: they need the weights of suspect and teacher, and the texts of the pairs
    trace-overlap-writer.json
      computed again: statistics, p-values, e-values, exclusions and verdict, from the gaps and coins of its rows
      taken on trust: the gaps: they need the texts of the suspect and of the pairs
    trace-probe-suspect.json
      computed again: statistics, p-values, e-values, exclusions and verdict, from the gaps and coins of its rows
      taken on trust: the gaps: they need suspect, teacher and controls to answer, and the texts of the pairs
    trace-suspect.json
      computed again: statistics, p-values, e-values, exclusions and verdict, from the gaps and coins of its rows; what the calibration students prefer, from their traces
      taken on trust: the gaps: they need suspect, teacher and controls, and the texts of the pairs
    watermark-suspect.json
      computed again: the exact tails of what was written or found likeliest, Holm's adjustment and verdicts, from pairs and statistics
      taken on trust: pairs and statistics, and the p-values of reading and leaning: they need the key, the tokenizer and the texts, or the models
    watermark-writer.json
      computed again: the exact tails of what was written or found likeliest, Holm's adjustment and verdicts, from pairs and statistics
      taken on trust: pairs and statistics, and the p-values of reading and leaning: they need the key, the tokenizer and the texts, or the models
    weights-suspect.json
      computed again: p-values, Holm's adjustment and verdict, from the counts of hits
      taken on trust: the hits, and the likenesses without a p-value: they need the weights of both models
    ");
    let page = place.read("dossier/dossier.html");
    assert_snapshot!(column(&page, "Exact evidence"), @r"
    suspect: Does it prefer what was served? Not shown
    suspect: Does it come nearer to the teacher along what was served? Not shown
    suspect: Does it go on as what was served does? Not shown
    writer: Has what it wrote more words in a row in common with what was served? Not shown
    suspect: Does the server differ from what it is said to be? Not shown
    teacher: Does it remember the secrets that were served? Not shown
    suspect: Are its weights derived from the teacher's? Established
    writer: Does it fit the key of the watermark? Not shown
    suspect: Does it fit the key of the watermark? Not shown
    ");
    assert_snapshot!(column(&page, "Evidence that rests on controls"), @r"
    writer: Does it write as the teacher's family does? Moderate
    writer: Does it give the teacher's rare answers? Moderate
    writer: Does it go by another's name? Moderate
    ");
    for said in ["Null hypothesis", "What is random in it", "What else could explain it", "What it takes on trust"] {
        assert!(page.matches(said).count() >= 7, "{said}");
    }
    // Without the calibration student's trace its preference is taken on trust; any other file is none of its.
    assert_eq!(place.run("case --watch watch.json --trace trace.json --out bare").code, 0);
    let bare = place.run("verify bare").out;
    assert!(bare.contains("what the calibration students prefer: it needs their traces"), "{bare}");
    let other = place.run("case --watch watch.json --trace trace.json --calibration near.json --out other").told();
    assert!(other.contains("no trace names `near.json` as the trace of a calibration student"), "{other}");
    // Without the signed draw of canaries, what it fixed is; another draw is none of theirs.
    assert_eq!(place.run("case --watch watch.json --trace canaries.json --out bare-canaries").code, 0);
    let bare = place.run("verify bare-canaries").out;
    assert!(bare.contains("for whom: it needs the signed draw"), "{bare}");
    assert_eq!(place.run("trace canary draw wanted.jsonl --candidates 16 --out others --key other.key").code, 0);
    let other = place.run("case --watch watch.json --trace canaries.json --draw others --out other").told();
    assert!(other.contains("no report names the draw `others/draw.json`"), "{other}");
    // In Arabic, from right to left.
    assert_eq!(place.run(&format!("{case} --language ar --out arabic")).code, 0);
    let arabic = place.read("arabic/dossier.html");
    assert!(arabic.contains("dir=\"rtl\"") && arabic.contains("لا يُجمع العمودان أبدًا"));
    assert_eq!(column(&arabic, "دليل محكم").lines().count(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_numbers_do_not_follow_is_in_no_dossier() {
    let place = investigated().await;
    let refused = |file: &str, at: &[&str], value: Value| {
        let mut report: Value = serde_json::from_str(&place.read(file)).unwrap();
        let path = format!("/{}", at.join("/"));
        *report.pointer_mut(&path).unwrap() = value;
        place.write("forged.json", &report.to_string());
        let done = place.run("case --watch watch.json --trace forged.json --out forged");
        assert!(!place.path("forged").exists() && done.code == 2, "{file} {path}");
        let (_, why) = done.err.split_once("because: ").unwrap();
        why.split(" is recorded").next().unwrap().to_owned()
    };
    for (file, at, value) in [
        ("trace.json", &["verdict", "strength"][..], json!("established")),
        ("trace.json", &["acquittal", "excluded"], json!(true)),
        ("near.json", &["all_traffic", "p_exact"], json!(1e-9)),
        ("overlap.json", &["all_traffic", "p_exact"], json!(1e-9)),
        ("probe.json", &["all_traffic", "p_exact"], json!(1e-9)),
        ("canaries.json", &["ranks", "0", "bits"], json!(9)),
        ("canaries.json", &["tests", "0", "p_holm"], json!(1e-9)),
        ("weights.json", &["tests", "0", "log10_p"], json!(-900.0)),
        ("weights.json", &["strength"], json!("not_shown")),
        ("watermark.json", &["models", "0", "detection", "log10_p"], json!(-9.0)),
        ("watermark.json", &["models", "0", "strength"], json!("strong")),
        ("read.json", &["models", "0", "p_value"], json!(1e-9)),
        ("style.json", &["findings", "0", "p_models"], json!(0.01)),
        ("style.json", &["findings", "0", "verdict", "strength"], json!("established")),
        ("identity.json", &["findings", "0", "by_family", "p"], json!(0.01)),
        ("identity.json", &["findings", "0", "strength"], json!("strong")),
        ("errors.json", &["findings", "0", "score"], json!(0.5)),
        ("endpoint.json", &["p_value"], json!(1e-9)),
        ("endpoint.json", &["differ"], json!("established")),
    ] {
        assert_eq!(refused(file, at, value), format!("`{}`", named(at)));
    }
    place.write("strange.json", "{\"format\": 1}");
    assert_snapshot!(place.run("case --watch watch.json --trace strange.json").told(), @r"
    exit 2
    error: `strange.json` is not what it should be
      because: it is a report of no kind that `anbiq trace` writes
    ");
}

/// A place as a mismatch names it.
fn named(at: &[&str]) -> String {
    let part = |part: &&str| if part.parse::<usize>().is_ok() { format!("[{part}]") } else { format!(".{part}") };
    at.iter().map(part).collect::<String>().trim_start_matches('.').to_owned()
}

/// What `anbiq watch` found, as if it had found a campaign of every operator.
fn accuse(place: &Place) {
    assert_eq!(place.run("watch journal --out watch.json --json").code, 0);
    let mut found: Value = serde_json::from_str(&place.read("watch.json")).unwrap();
    for operator in found["operators"].as_array_mut().unwrap() {
        let started = operator["first"].clone();
        operator["standing"] = json!({"standing": "campaign",
            "terms": {"id": "terms", "version": 1}, "permission": "grant_required", "breach": "distillation without a grant",
            "started": started, "timeline": [], "counter": [],
        });
    }
    place.write("accused.json", &found.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_texts_of_whom_a_dossier_speaks_are_opened_and_checked() {
    let place = Place::gateway();
    let plans = place.read("anbiq.toml").replace("texts = \"twinned\"", "texts = \"sealed\"");
    place.write("anbiq.toml", &plans.replace("share = 0.05", "share = 0.0").replace("first = 300", "first = 2"));
    let keys = ["acme", "brook", "cairn"].map(|account| {
        assert_eq!(place.run(&format!("account open {account} --plan standard --budget 1.00")).code, 0);
        assert_eq!(place.run(&format!("terms accept {account} teacher")).code, 0);
        key(&place, account)
    });
    let gateway = Running::start(&place);
    for key in &keys {
        for number in 0..3 {
            gateway.client(key).chat(&ask(&format!("Tell me of secret number {number}.")), &[]).await.unwrap();
        }
    }
    assert_eq!(gateway.stop(), 0);
    assert_eq!(place.run("account forget brook").code, 0);
    std::fs::remove_file(place.path("secrets/texts/cairn.key")).unwrap();
    accuse(&place);
    let written = place.run("case --watch accused.json --out dossier");
    assert_eq!(written.code, 0, "{}", written.err);
    let notes: Vec<&str> = written.err.lines().filter(|line| line.starts_with("note: ")).collect();
    let without_time = |line: &str| line.split(" at 20").next().unwrap().to_owned();
    assert_snapshot!(notes.iter().map(|note| without_time(note)).collect::<Vec<_>>().join("\n"), @r"
    note: the sealed texts of 3 exchanges of account `brook` stay closed: their key was destroyed
    note: the sealed texts of 3 exchanges of account `cairn` stay closed: the key of the account's texts is not there: it was destroyed, or it is in another folder of secrets
    ");
    let page = place.read("dossier/dossier.html");
    assert!(page.contains("of account `brook` stay closed: their key was destroyed"), "{page}");

    // Two of acme's exchanges were twinned and one was not: all are compared with what was committed to.
    let verified = place.run("verify dossier").out;
    assert!(verified.contains("texts opened     3 that were under seal"), "{verified}");
    let opened = place.read("dossier/texts.jsonl");
    assert_eq!((opened.lines().count(), opened.matches("Tell me of secret number").count()), (3, 3));
    // In the records themselves they are under seal.
    assert!(!place.read("dossier/records.jsonl").contains("secret number"));
    // The journal of the dossier stays as it was when the key is destroyed later.
    assert_eq!(place.run("account forget acme").code, 0);
    assert_eq!(place.run("verify dossier").out, verified);
    let later = place.run("case --watch accused.json --out later");
    assert!(later.err.contains("of account `acme` stay closed: their key was destroyed"), "{}", later.err);
    assert!(!place.path("later/texts.jsonl").exists());
}
