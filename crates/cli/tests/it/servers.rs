//! `anbiq trace` of models behind servers: what they say there is what their weights say.

use std::fs;
use std::sync::Arc;

use anbiq_domain::{Message, Prompt};
use anbiq_lm::score::score;
use anbiq_lm::{Local, LocalOptions};
use anbiq_model::{Model, Request, Sampling, collect};
use anbiq_openai::{ChatMessage, ChatRequest};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::support::Place;
use crate::trace::served;

/// A model that is served as vLLM serves one, as far as a trace asks.
#[derive(Clone)]
struct Server {
    local: Arc<Local>,
    /// It repeats texts with their log-probabilities.
    echo: bool,
    /// It gives log-probabilities of conversations.
    conversations: bool,
}

impl Server {
    /// Its base URL.
    async fn start(place: &Place, folder: &str, echo: bool, conversations: bool) -> String {
        let options = LocalOptions { threads: 1, ..LocalOptions::default() };
        let local = Arc::new(Local::open(&place.path(folder), folder, options).unwrap());
        let router = Router::new()
            .route("/v1/completions", post(completions))
            .route("/v1/chat/completions", post(conversations_of))
            .with_state(Self { local, echo, conversations });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        format!("http://{address}/v1")
    }

    fn tokens(&self, text: &str) -> Vec<u32> {
        self.local.codec().tokenizer.encode(text, true).unwrap()
    }

    /// The tokens of a text, with the log-probability of each but the first and whether it is the likeliest.
    fn scored(&self, text: &str) -> (Vec<u32>, Vec<(f32, bool)>) {
        let tokens = self.tokens(text);
        let scored = score(self.local.network(), &[(&tokens, 1)], 1).unwrap().remove(0);
        (tokens, scored.logprobs.into_iter().zip(scored.greedy).collect())
    }

    async fn goes_on(&self, text: String, body: &Value) -> String {
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let tokens = body["max_tokens"].as_u64().unwrap() as u32;
        let request = Request { sampling, ..Request::new(Prompt::Text(text), tokens) };
        let generation = self.local.generate(request).await.unwrap();
        collect(generation, 1).await.unwrap().0.remove(0).text
    }
}

fn refused() -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": {"message": "not here"}}))).into_response()
}

async fn completions(State(server): State<Server>, Json(body): Json<Value>) -> Response {
    let text = body["prompt"].as_str().unwrap().to_owned();
    if body["echo"] != true {
        let answer =
            json!({"index": 0, "text": server.goes_on(text, &body).await, "finish_reason": "length", "logprobs": null});
        let usage = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2});
        return Json(json!({"choices": [answer], "usage": usage})).into_response();
    }
    if !server.echo {
        return refused();
    }
    let (tokens, scored) = server.scored(&text);
    let bytes = |token: &u32| server.local.codec().tokenizer.bytes(*token).to_vec();
    let texts: Vec<String> = tokens.iter().map(|token| String::from_utf8_lossy(&bytes(token)).into_owned()).collect();
    let mut offset = 0;
    let offsets: Vec<usize> = texts.iter().map(|text| (offset, offset += text.chars().count()).0).collect();
    let logprobs: Vec<Option<f32>> = std::iter::once(None).chain(scored.iter().map(|one| Some(one.0))).collect();
    let logprobs = json!({"tokens": texts, "token_logprobs": logprobs, "text_offset": offsets, "top_logprobs": null});
    let answer = json!({"index": 0, "text": text, "finish_reason": "length", "logprobs": logprobs});
    Json(json!({"choices": [answer]})).into_response()
}

async fn conversations_of(State(server): State<Server>, Json(body): Json<Value>) -> Response {
    let asked = ChatRequest::parse(&serde_json::to_vec(&body).unwrap()).unwrap();
    let mut messages: Vec<Message> = asked.messages.into_iter().map(ChatMessage::into_message).collect();
    let last = (body["continue_final_message"] == true).then(|| messages.pop().unwrap().content);
    let before = server.local.codec().template.as_ref().unwrap().render(&messages, true).unwrap();
    let text = before + &last.unwrap_or_default();
    let rows = match (body["prompt_logprobs"].is_number(), server.conversations) {
        (true, false) => return refused(),
        (false, _) => Value::Null,
        (true, true) => {
            let rows = server.scored(&text).1.into_iter().map(|(logprob, likeliest)| {
                json!({"5": {"logprob": logprob, "rank": if likeliest { 1 } else { 2 }, "decoded_token": ""}})
            });
            json!(std::iter::once(Value::Null).chain(rows).collect::<Vec<_>>())
        }
    };
    let tokens = server.tokens(&text).len();
    let said = server.goes_on(text, &body).await;
    let answer = json!({"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "length"});
    let usage = json!({"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1});
    Json(json!({"id": "", "object": "chat.completion", "created": 1, "model": "m", "choices": [answer], "prompt_logprobs": rows, "usage": usage}))
        .into_response()
}

/// The gaps of all rows of a report: of the suspect, and of the teacher.
fn gaps(report: &str) -> Vec<(f64, f64)> {
    let report: Value = serde_json::from_str(report).unwrap();
    let gap = |row: &Value| Some((row["gaps"]["suspect"].as_f64()?, row["gaps"]["teacher"].as_f64()?));
    report["rows"].as_array().unwrap().iter().filter_map(gap).collect()
}

fn apart(one: &[(f64, f64)], other: &[(f64, f64)]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one.0 - other.0).abs()).fold(0.0, f64::max)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_behind_a_server_is_traced_as_its_folder_is() {
    let place = served().await;
    // Longer answers are of no use to these questions.
    fs::create_dir(place.path("form")).unwrap();
    fs::copy(place.path("teacher/tokenizer_config.json"), place.path("form/tokenizer_config.json")).unwrap();
    let traced = |suspect: &str, more: &str| {
        place.run(&format!("trace {suspect} --teacher teacher --journal journal --json {more}"))
    };
    let folder = gaps(&traced("suspect", "").out);
    assert!(folder.len() >= 20);

    // By what it repeats, in the form that is given: the very log-probabilities.
    let echoes = Server::start(&place, "suspect", true, false).await;
    let done = traced(&format!("{echoes}#suspect"), "--template suspect=form");
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(apart(&folder, &gaps(&done.out)) < 1e-3);
    assert!(done.out.contains("answered as suspect at its server is that model: nobody asked"), "{}", done.out);

    // By its conversations, which leave out the token that ends an answer: seldom is that one a surprise.
    let talks = Server::start(&place, "suspect", false, true).await;
    let done = traced(&talks, "--model suspect");
    assert_eq!(done.code, 0, "{}", done.err);
    let found = gaps(&done.out);
    let near = folder.iter().zip(&found).filter(|(one, other)| (one.0 - other.0).abs() < 3.0).count();
    assert!(found.len() == folder.len() && 2 * near > found.len(), "{near} of {}", found.len());

    // Nothing of the kind: that is said, and by how it goes on it can be traced.
    let silent = Server::start(&place, "suspect", false, false).await;
    insta::assert_snapshot!(traced(&silent, "--model suspect").told(), @r"
    exit 2
    error: model `suspect` failed to score: the server gives no log-probabilities of a conversation (`prompt_logprobs`), and to ask it for those of a text (`echo`) the model's chat template must be known
    hint: `--template` says how the model of a server writes a conversation; without log-probabilities there is `--probe`
    ");
    insta::assert_snapshot!(traced(&silent, "--model suspect --template form").told(), @r"
    exit 2
    error: model `suspect` failed to score: the server gives no log-probabilities of given text, neither by `echo` nor by `prompt_logprobs`
    hint: `--template` says how the model of a server writes a conversation; without log-probabilities there is `--probe`
    ");
    let by_text = traced(&silent, "--model suspect --template form --probe --places 3");
    let by_talk = traced(&silent, "--model suspect --probe --places 3");
    assert_eq!((by_text.code, by_talk.code), (0, 0), "{}{}", by_text.err, by_talk.err);
    let (by_text, by_talk) = (gaps(&by_text.out), gaps(&by_talk.out));
    assert!(apart(&by_text, &by_talk) < 1e-9, "either way the model is given the same text");
    assert!(by_text.iter().any(|gap| gap.0 != 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_names_a_server_its_form_and_what_is_probed() {
    let place = served().await;
    let silent = Server::start(&place, "suspect", false, false).await;
    let done = place.run(&format!(
        "trace plan {silent}#suspect --teacher teacher --journal journal --template suspect --probe --places 2 --by day"
    ));
    assert_eq!(done.code, 0, "{}", done.err);
    let run = place.run("trace run plan.json --out results");
    assert_eq!(run.code, 0, "{}", run.err);
    let report = place.read("results/trace-probe-suspect.json");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["protocol"]["statistic"], "probe");
    assert_eq!(report["protocol"]["servers"], json!([{"model": "suspect"}]));

    // Another form would be another question.
    let words = fs::read_to_string(place.path("suspect/tokenizer_config.json")).unwrap();
    place.write("suspect/tokenizer_config.json", &words.replace("<|end|>", "<|other|>"));
    let refused = place.run("trace run plan.json --out again").err;
    assert!(refused.contains("this is not what was planned: `suspect/template"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_collected_once_and_compared() {
    let place = served().await;
    let silent = Server::start(&place, "suspect", false, false).await;
    let asked = format!("trace ask {silent}#suspect --journal journal --max-tokens 24 --out answers.jsonl");
    let first = place.run(&asked);
    assert_eq!(first.code, 0, "{}", first.err);
    let lines = place.read("answers.jsonl").lines().count();
    assert!(lines >= 20);
    assert_eq!(first.out, format!("{lines} answers, 0 questions refused, 0 were there already\n"));
    let again = place.run(&asked);
    assert_eq!(again.out, format!("0 answers, 0 questions refused, {lines} were there already\n"));
    let done = place.run("trace overlap answers.jsonl --suspect suspect --journal journal");
    assert_eq!(done.code, 0, "{}", done.err);
    // The coins are new in every run: one in twenty of them looks like something, one in a million like proof.
    assert!(done.out.contains("Verdict: ") && !done.out.contains("Verdict: ESTABLISHED"), "{}", done.out);
}
