//! Whole runs with tiny models.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anbiq_domain::{
    AccountId, Conditions, Digest, Grant, GrantId, ManualClock, Money, Permission, Terms, TermsId, Timestamp,
};
use anbiq_lm::{Codec, SPECIALS, Tokenizer};
use anbiq_upstream::{Client, ClientConfig};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::data::Lines;
use crate::terms::Right;
use crate::told::Shelf;
use crate::{
    DistillError, Endpoint, Recipe, Report, Row, Surroundings, capture, estimate, render_estimate, render_text, run,
};

const COLOURS: [&str; 6] = ["red", "green", "blue", "white", "black", "grey"];
const THINGS: [&str; 7] = ["boat", "house", "bird", "stone", "coat", "door", "lamp"];

/// A prompt and its only right answer.
fn task(number: usize) -> (String, String) {
    let (colour, thing) = (COLOURS[number % 6], THINGS[number / 6 % 7]);
    let size = ["big", "small", "old"][number / 42 % 3];
    (format!("Which colour has the {size} {colour} {thing}?"), format!("The {size} {thing} is {colour}."))
}

/// A folder with a tokenizer, a corpus, tasks and prompts.
fn workshop() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<(String, String)> = (0..126).map(task).collect();
    let tokenizer =
        Tokenizer::train_bpe(all.iter().flat_map(|(prompt, answer)| [prompt, answer]), 340, &SPECIALS).unwrap();
    fs::create_dir(dir.path().join("tokenizer")).unwrap();
    Codec::plain(tokenizer, 64).unwrap().save(&dir.path().join("tokenizer")).unwrap();
    let write = |name: &str, range: std::ops::Range<usize>| {
        let line = |number: usize| {
            let (prompt, answer) = &all[number * 5 % 126];
            json!({ "prompt": prompt, "answer": answer, "expected": answer, "kind": "colour" }).to_string() + "\n"
        };
        fs::write(dir.path().join(name), range.map(line).collect::<String>()).unwrap();
    };
    write("corpus.jsonl", 0..100);
    write("held-out.jsonl", 100..126);
    write("tasks.jsonl", 100..112);
    write("prompts.jsonl", 0..40);
    dir
}

fn recipe(dir: &TempDir, out: &str, more: &str) -> Recipe {
    let text = format!(
        r#"
out = "{out}"
threads = 1
{more}
[corpus]
path = "corpus.jsonl"
tokens = 1500
[student]
name = "{out}"
tokenizer = "tokenizer"
hidden_size = 32
layers = 1
heads = 2
kv_heads = 1
intermediate_size = 64
context = 64
[pretrain]
epochs = 6
batch_tokens = 256
[train]
epochs = 20
learning_rate = 4e-3
batch_tokens = 128
kl_weight = 0.5
[evaluate]
held_out = "held-out.jsonl"
tasks = "tasks.jsonl"
max_tokens = 12
capture_share = 0.2
"#
    );
    Recipe::parse(&text, &dir.path().join("recipe.toml")).unwrap()
}

const ASK: &str = r#"
[capture]
source = "answers.jsonl"
[capture.ask]
prompts = "prompts.jsonl"
answers = 2
max_tokens = 20
logprobs = 5
ceiling = "1.00"
timeout_seconds = 20
"#;

const TEACHER: &str = r#"
[teacher]
name = "big"
folder = "teacher"
prices = { input = "1.00", output = "4.00", distillation_output = "2.00" }
"#;

fn terms(distillation: Permission) -> Terms {
    let conditions = Conditions { attribution: Some("Built with big".to_owned()), ..Conditions::default() };
    let id = TermsId::new("big-terms").unwrap();
    Terms { conditions, ..Terms::new(id, 3, "big", distillation, "...") }
}

fn write_json(path: PathBuf, value: &impl serde::Serialize) {
    fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
}

fn around() -> Surroundings {
    Surroundings { clock: Arc::new(ManualClock::at(Timestamp::from_milliseconds(1_000))), ..Surroundings::default() }
}

async fn teacher(dir: &TempDir) -> Report {
    let mut teacher = recipe(dir, "teacher", "");
    teacher.student.hidden_size = Some(64);
    teacher.pretrain.epochs = 60;
    run(&teacher, &around()).await.unwrap()
}

#[cfg(not(feature = "cuda"))]
#[tokio::test]
async fn a_card_that_is_not_there_is_missed_before_anything_is_done() {
    let dir = workshop();
    let mut recipe = recipe(&dir, "elsewhere", "");
    recipe.train.device = serde_json::from_str("\"cuda-tf32\"").unwrap();
    let error = run(&recipe, &around()).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"
    device `cuda-tf32`: this program was built without it
    hint: build it with `--features cuda`, or train with device = "cpu"
    "#);
    assert!(!dir.path().join("elsewhere").exists());
    // What was written before there was a choice means the same as before.
    assert!(!serde_json::to_string(&self::recipe(&dir, "here", "").train).unwrap().contains("device"));
}

#[cfg(feature = "cuda")]
#[tokio::test]
async fn a_card_teaches_as_the_processor_does() {
    let dir = workshop();
    let part = |out: &str, device: &str| {
        let mut recipe = recipe(&dir, out, "");
        recipe.pretrain.epochs = 2;
        recipe.train.device = serde_json::from_value(device.into()).unwrap();
        recipe
    };
    let card = match run(&part("card", "cuda"), &around()).await {
        Ok(report) => report,
        Err(error) if error.to_string().starts_with("device") => {
            eprintln!("skipped: there is no card: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let processor = run(&part("processor", "cpu"), &around()).await.unwrap();
    let [own, other] = [&card, &processor].map(|report| &report.stages[0]);
    assert_ne!(own.key, other.key);
    assert_eq!((own.steps, own.tokens), (other.steps, other.tokens));
    for (own, other) in [(own.first_loss, other.first_loss), (own.last_loss, other.last_loss)] {
        assert!((own / other - 1.0).abs() < 1e-3, "{own} {other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_student_is_distilled_from_a_local_teacher() {
    let dir = workshop();
    let alone = teacher(&dir).await;
    assert_eq!((alone.clearance.right, alone.capture.is_none()), (Right::NoTeacher, true));
    assert_eq!(alone.evaluation.len(), 1);

    write_json(dir.path().join("terms.json"), &terms(Permission::GrantRequired));
    let grant = Grant {
        id: GrantId::new("g-1").unwrap(),
        account: AccountId::new("acme").unwrap(),
        terms: terms(Permission::GrantRequired).reference(),
        purpose: "a shop".to_owned(),
        conditions: Conditions { max_output_tokens: Some(10_000), ..Conditions::default() },
        given: Timestamp::from_milliseconds(0),
        expires: Some(Timestamp::from_milliseconds(2_000)),
    };
    write_json(dir.path().join("grant.json"), &grant);
    let papers = format!("{TEACHER}terms = \"terms.json\"\ngrant = \"grant.json\"\naccount = \"acme\"\n");
    let recipe_one = recipe(&dir, "small", &format!("{papers}{ASK}"));

    let before = estimate(&recipe_one, &around()).unwrap();
    assert_eq!((before.requests, before.most_completion_tokens, before.captured_tokens), (80, 1_600, 0));
    assert!(before.most_money > Money::ZERO && before.hours.low > 0.0, "{}", render_estimate(&before));

    let report = run(&recipe_one, &around()).await.unwrap();
    let captured = report.capture.as_ref().unwrap();
    assert_eq!(captured.asking.as_ref().unwrap().answered, 80);
    assert!(captured.usage.completion_tokens <= before.most_completion_tokens);
    assert_eq!(report.cost.price, captured.asking.as_ref().map(|asking| asking.cost));
    assert!(report.cost.price.unwrap() <= before.most_money);
    // A sampled answer is not always cut into the tokens that the tokenizer would cut its text into.
    assert!(captured.mapping.differing < captured.mapping.mapped / 4 && captured.mapping.without == 0);
    assert!(captured.mapping.mapped > 20 && captured.mapping.mass > 0.99, "{:?}", captured.mapping);
    assert_eq!(report.clearance.right, Right::Permitted);
    let names: Vec<&str> = report.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["pretrain", "scratch", "train"]);
    assert!(report.stages.iter().all(|stage| stage.last_loss < stage.first_loss && stage.skipped == 0));
    let (scratch, student) = (report.column("scratch").unwrap(), report.column("student").unwrap());
    // So small a task shows no difference between the two; that both learnt it, it does.
    for column in [scratch, student] {
        assert!(column.agreement.unwrap().kl < 0.5 && column.teacher_loss < Some(1.2), "{}", render_text(&report));
    }
    assert_eq!(report.column("teacher").unwrap().tasks.unwrap().asked, 12);
    assert_eq!(anbiq_lm::Network::load(&report.folder).unwrap().parameters(), report.parameters);
    let card = fs::read_to_string(report.folder.join("README.md")).unwrap();
    for words in ["**Built with big**", "grant `g-1` to `acme` for: a shop", "- distillation", "version 3"] {
        assert!(card.contains(words), "{words} in {card}");
    }
    let saved: Report = serde_json::from_slice(&fs::read(report.folder.join("report.json")).unwrap()).unwrap();
    assert_eq!(
        (saved.clearance, saved.capture, saved.recipe),
        (report.clearance.clone(), report.capture.clone(), report.recipe)
    );

    // The same again: nothing is asked or trained twice, and the bytes are the same.
    let model = |report: &Report| Digest::of(&fs::read(report.folder.join("model.safetensors")).unwrap());
    let first = model(&report);
    let again = run(&recipe_one, &around()).await.unwrap();
    assert!(again.stages.iter().all(|stage| stage.reused));
    assert_eq!(again.capture.as_ref().unwrap().asking.as_ref().unwrap().reused, 80);
    assert_eq!(model(&again), first);

    // What is shelved is learnt from as what stands in rows: to the bit, so nothing is trained anew.
    let (source, inline) = (dir.path().join("answers.jsonl"), dir.path().join("inline.jsonl"));
    let mut shelf = Shelf::of(&source);
    let mut lines = String::new();
    for row in Lines::<Row>::open(&source).unwrap() {
        let mut row = row.unwrap();
        assert!(row.told.is_some() && row.logprobs.is_empty());
        shelf.fill(&mut row).unwrap();
        lines += &(serde_json::to_string(&row).unwrap() + "\n");
    }
    fs::write(&inline, lines).unwrap();
    let papers_only = recipe(&dir, "small", &format!("{papers}[capture]\nsource = \"inline.jsonl\"\n"));
    let unshelved = run(&papers_only, &around()).await.unwrap();
    assert!(unshelved.stages.iter().all(|stage| stage.reused));
    assert_eq!(unshelved.capture.unwrap().mapping, report.capture.as_ref().unwrap().mapping);
    run(&recipe_one, &around()).await.unwrap();

    // In other forms it is the same student, and its card goes with it.
    let file = dir.path().join("small.gguf");
    crate::export(&report.folder, "gguf-f32".parse().unwrap(), &file).unwrap();
    let student = anbiq_lm::Network::load(&report.folder).unwrap();
    assert_eq!(anbiq_lm::Network::load(&file).unwrap().weights.data(), student.weights.data());
    let bytes = fs::read(&file).unwrap();
    let says = |words: &str| bytes.windows(words.len()).any(|window| window == words.as_bytes());
    assert!(says("**Built with big**") && says("general.name"));
    // The card says how quick the student was when it was last measured.
    let card = fs::read_to_string(report.folder.join("README.md")).unwrap();
    let folder = dir.path().join("half");
    crate::export(&report.folder, "hf-bf16".parse().unwrap(), &folder).unwrap();
    assert_eq!(fs::read_to_string(folder.join("README.md")).unwrap(), card);
    assert!("gguf-q4".parse::<crate::Format>().unwrap_err().contains("gguf-q8_0"));

    // Adapted from it, with another divergence: the base stays, and the adapter is in a folder of its own.
    let mut adapted = recipe(&dir, "adapted", &format!("{papers}{ASK}"));
    adapted.student = toml::from_str(&format!("name = \"adapted\"\ninit = {:?}", report.folder)).unwrap();
    adapted.pretrain.epochs = 0;
    adapted.train =
        toml::from_str("divergence = \"reverse-kl\"\ntemperature = 1.5\nepochs = 1\nlora = { rank = 2 }").unwrap();
    adapted.export.formats = vec!["gguf-q8_0".parse().unwrap(), "hf-f16".parse().unwrap()];
    for _ in 0..2 {
        let report = run(&adapted, &around()).await.unwrap();
        let merged = anbiq_lm::Network::load(&report.folder).unwrap();
        let adapter = anbiq_lm::lora::Adapter::load(&report.folder.join("adapter"), &merged.config).unwrap();
        let mut again = student.clone();
        adapter.merge(&mut again);
        assert_eq!((again.weights.data(), adapter.shape().rank), (merged.weights.data(), 2));
        assert_ne!(merged.weights.data(), student.weights.data());
        assert_eq!(merged.weights.embed(), student.weights.embed());
        assert!(report.folder.join("adapted.q8_0.gguf").exists() && report.folder.join("hf-f16/README.md").exists());
        fs::remove_dir_all(&report.folder).unwrap();
    }

    // Another student of the same beginning shares it.
    let mut recipe_two = recipe(&dir, "other", &format!("{papers}{ASK}"));
    recipe_two.train.learning_rate = 5e-4;
    let other = run(&recipe_two, &around()).await.unwrap();
    let reused: Vec<bool> = other.stages.iter().map(|stage| stage.reused).collect();
    assert_eq!(reused, [true, false, false]);
    assert_ne!(model(&other), first);

    // From nothing but the store removed, the same bytes come again.
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    assert_eq!(model(&run(&recipe_one, &around()).await.unwrap()), first);

    // After its end the grant no longer holds.
    let late = Surroundings { clock: Arc::new(ManualClock::at(Timestamp::from_milliseconds(2_000))), ..around() };
    assert_eq!(run(&recipe_one, &late).await.unwrap_err().code(), "grant_expired");
}

#[tokio::test]
async fn against_the_terms_only_who_says_so() {
    let dir = workshop();
    write_json(dir.path().join("terms.json"), &terms(Permission::Forbidden));
    let row = |number: usize| {
        let (prompt, answer) = task(number);
        json!({ "prompt": prompt, "answers": [{ "text": answer, "finish": "stop" }] }).to_string() + "\n"
    };
    fs::write(dir.path().join("harvest.jsonl"), (0..40).map(row).collect::<String>()).unwrap();
    let teacher = "[teacher]\nname = \"big\"\nterms = \"terms.json\"\n";
    let capture = "[capture]\nsource = \"harvest.jsonl\"\n";
    let refused = run(&recipe(&dir, "thief", &format!("{teacher}{capture}")), &around()).await.unwrap_err();
    assert_eq!(refused.code(), "distillation_forbidden");
    assert!(!dir.path().join("thief").exists() && !dir.path().join("store").exists(), "nothing was trained");

    let stated = format!("{teacher}basis = \"none: red-team exercise\"\n{capture}");
    let report = run(&recipe(&dir, "thief", &stated), &around()).await.unwrap();
    assert_eq!(report.clearance.right, Right::NotPermitted);
    assert!(render_text(&report).contains("NOT PERMITTED BY THE TERMS (none: red-team exercise)"));
    let captured = report.capture.as_ref().unwrap();
    assert_eq!((captured.uncounted, report.cost.price), (40, None), "the student's tokenizer counts, and nobody pays");
    assert!(captured.usage.completion_tokens > 100);
    let card = fs::read_to_string(report.folder.join("README.md")).unwrap();
    assert!(card.contains("not permitted by the terms of the teacher"), "{card}");
}

/// A server that answers every prompt with one text of its own, and fails as it is told.
#[derive(Default)]
struct Mock {
    /// Every so many requests are refused with 429.
    busy: u64,
    requests: AtomicU64,
    answered: AtomicU64,
    purposes: AtomicU64,
}

async fn answer(State(mock): State<Arc<Mock>>, headers: axum::http::HeaderMap, Json(body): Json<Value>) -> Response {
    let number = mock.requests.fetch_add(1, Ordering::SeqCst) + 1;
    if headers.get("x-anbiq-purpose").is_some_and(|purpose| purpose == "distillation") {
        mock.purposes.fetch_add(1, Ordering::SeqCst);
    }
    if mock.busy > 0 && number % mock.busy == 0 {
        let error = json!({ "error": { "message": "slow down", "code": "rate_limit_exceeded" } });
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")], Json(error)).into_response();
    }
    if number % 67 == 66 {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    mock.answered.fetch_add(1, Ordering::SeqCst);
    let text = format!("{} {}", body["messages"][0]["content"].as_str().unwrap(), body["seed"].as_i64().unwrap());
    Json(json!({
        "id": "x", "object": "chat.completion", "created": 0, "model": "big",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30 },
    }))
    .into_response()
}

async fn serve(mock: &Arc<Mock>) -> Surroundings {
    let router =
        axum::Router::new().route("/v1/chat/completions", axum::routing::post(answer)).with_state(Arc::clone(mock));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let client = Client::new(ClientConfig::new(format!("http://{address}/v1"), None)).unwrap();
    Surroundings { endpoint: Some(Endpoint::Http { client, model: "big".to_owned() }), ..around() }
}

fn asking(dir: &TempDir, ceiling: &str) -> Recipe {
    let ask = ASK.replace("1.00", ceiling).replace("answers = 2", "answers = 5").replace("logprobs = 5\n", "");
    recipe(dir, "student", &format!("{TEACHER}basis = \"a test\"\n{ask}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_capture_goes_on_exactly() {
    let calm = workshop();
    let mock = Arc::new(Mock::default());
    let done = capture(&asking(&calm, "1.00"), &serve(&mock).await).await.unwrap().unwrap();
    assert_eq!((done.requests, done.answered, done.reused, done.refused), (200, 200, 0, 0));
    assert_eq!(mock.purposes.load(Ordering::SeqCst), mock.requests.load(Ordering::SeqCst), "it says what it is for");
    let wanted = fs::read(calm.path().join("answers.jsonl")).unwrap();

    let dir = workshop();
    let mock = Arc::new(Mock { busy: 9, ..Mock::default() });
    let around = serve(&mock).await;
    let (recipe, path) = (asking(&dir, "1.00"), dir.path().join("answers.jsonl"));
    for stop_at in [30, 90] {
        // Dropped in the middle of what it does, as by a kill; and a line is torn.
        let watch = async {
            while mock.answered.load(Ordering::SeqCst) < stop_at {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { _ = capture(&recipe, &around) => panic!("not before the end"), () = watch => {} }
        // What was given to the disk is still written.
        fs::File::open(dir.path().join("answers.jsonl.lock")).unwrap().lock().unwrap();
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"id\": \"00");
        fs::write(&path, torn).unwrap();
    }
    let rest = capture(&recipe, &around).await.unwrap().unwrap();
    assert_eq!((rest.reused + rest.answered, rest.stopped.as_deref()), (200, None));
    assert!(rest.reused >= 40, "{rest:?}");
    assert_eq!(fs::read(&path).unwrap(), wanted, "the same bytes as without faults");
    // Whatever was answered is either in the file or counted as lost.
    let prices = recipe.teacher.as_ref().unwrap().prices.unwrap();
    let each = prices.cost(
        anbiq_domain::Usage { prompt_tokens: 10, completion_tokens: 20, ..Default::default() },
        Default::default(),
    );
    let answered = mock.answered.load(Ordering::SeqCst) as i64;
    assert_eq!(rest.cost.nanos(), 200 * each.nanos());
    assert!(rest.lost.nanos() >= (answered - 200) * each.nanos(), "{answered} answered, {rest:?}");
    // Once more: nothing is asked.
    let requests = mock.requests.load(Ordering::SeqCst);
    assert_eq!(capture(&recipe, &around).await.unwrap().unwrap().reused, 200);
    assert_eq!(mock.requests.load(Ordering::SeqCst), requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ceiling_is_never_passed() {
    let dir = workshop();
    let mock = Arc::new(Mock { busy: 7, ..Mock::default() });
    let around = serve(&mock).await;
    let (recipe, path) = (asking(&dir, "0.005"), dir.path().join("answers.jsonl"));
    for _ in 0..2 {
        let done = capture(&recipe, &around).await.unwrap().unwrap();
        assert!(done.stopped.as_ref().unwrap().starts_with("the ceiling of $0.005"), "{done:?}");
        assert!(done.cost + done.lost <= "0.005".parse().unwrap(), "{done:?}");
        assert!(done.cost > "0.0045".parse().unwrap(), "{done:?}");
    }
    assert_eq!(rows(&path), mock.answered.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_key_that_is_refused_ends_the_capture() {
    let dir = workshop();
    let refuse = || async { (StatusCode::UNAUTHORIZED, Json(json!({ "error": { "message": "no such key" } }))) };
    let router = axum::Router::new().route("/v1/chat/completions", axum::routing::post(refuse));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(ClientConfig::new(format!("http://{}/v1", listener.local_addr().unwrap()), None)).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let around = Surroundings { endpoint: Some(Endpoint::Http { client, model: "big".to_owned() }), ..around() };
    let error = capture(&asking(&dir, "1.00"), &around).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("teacher_refused", false));
    assert!(matches!(&error, DistillError::Teacher(inner) if inner.message == "no such key"), "{error}");
}

fn rows(path: &Path) -> u64 {
    Lines::<Row>::open(path).unwrap().map(|row| row.unwrap().answers.len() as u64).sum()
}
