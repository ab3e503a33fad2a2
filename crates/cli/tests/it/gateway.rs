//! A gateway as an operator of models runs it: keys, terms, grants, answers, and what the journal says afterwards.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anbiq_domain::Role;
use anbiq_openai::{ChatMessage, ChatRequest};
use anbiq_secret::Secret;
use anbiq_upstream::client::{Client, ClientConfig, ClientError};

use crate::support::Place;

/// A running gateway; stops when dropped.
pub(crate) struct Running {
    child: Child,
    url: String,
    /// Where it is administered; empty for nowhere.
    pub(crate) admin: String,
}

impl Running {
    pub(crate) fn start(place: &Place) -> Self {
        let text = place.read("anbiq.toml").replace("127.0.0.1:8080", "127.0.0.1:0");
        place.write("anbiq.toml", &text);
        let mut child = place.command("serve").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = || {
            let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("http://"))).unwrap().unwrap();
            let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
            url.trim_end_matches(';').to_owned()
        };
        let url = address();
        let admin = if text.contains("\nadmin_listen") { address() } else { String::new() };
        // Somebody must read on, or the gateway would wait for its reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, admin }
    }

    pub(crate) fn client(&self, key: &str) -> Client {
        Client::new(ClientConfig::new(self.url.clone(), Some(Secret::new(key.to_owned())))).unwrap()
    }

    /// Where it listens, up to and with `/v1`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends it a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let arguments = [format!("-{name}"), self.child.id().to_string()];
        assert!(std::process::Command::new("kill").args(arguments).status().unwrap().success());
    }

    pub(crate) fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Running {
    /// As a power cut or the system's killer would: without a word.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ask(words: &str) -> ChatRequest {
    ChatRequest {
        model: "teacher".to_owned(),
        messages: vec![ChatMessage::new(Role::User, words)],
        max_tokens: Some(24),
        ..ChatRequest::default()
    }
}

pub(crate) fn key(place: &Place, account: &str) -> String {
    let issued = place.run(&format!("key issue {account}"));
    assert_eq!(issued.code, 0, "{}", issued.err);
    issued.out.trim().to_owned()
}

fn code(result: Result<impl Sized, ClientError>) -> String {
    result.err().map_or_else(|| "answered".to_owned(), |error| error.code.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_gateway() {
    let place = Place::gateway();
    assert_eq!(place.run("account open acme --plan standard --budget 1.00").code, 0);
    assert_eq!(place.run("account open poor --plan standard --budget 0.000001").code, 0);
    let (acme, poor) = (key(&place, "acme"), key(&place, "poor"));
    assert!(acme.starts_with("sk-anbiq-"), "{acme}");

    let gateway = Running::start(&place);
    let (acme, poor) = (gateway.client(&acme), gateway.client(&poor));
    let request = ask("What is two plus two?");
    assert_eq!(code(acme.chat(&request, &[]).await), "terms_not_accepted");
    assert_eq!(code(gateway.client("sk-anbiq-nonsense").chat(&request, &[]).await), "invalid_api_key");

    // While the gateway runs, its administrator goes on working.
    for account in ["acme", "poor"] {
        let accepted = place.run(&format!("terms accept {account} teacher"));
        assert_eq!(accepted.code, 0, "{}", accepted.err);
    }
    let answer = acme.chat(&request, &[]).await.unwrap();
    assert!(answer.usage.is_some_and(|usage| usage.completion_tokens > 0));
    assert_eq!(code(poor.chat(&request, &[]).await), "insufficient_quota");
    let purpose = [("x-anbiq-purpose".to_owned(), "distillation".to_owned())];
    assert_eq!(code(acme.chat(&request, &purpose).await), "grant_required");

    let late = place.run("grant give late --account acme --model teacher --purpose tests --days 0");
    assert_eq!(late.code, 0, "{}", late.err);
    assert_eq!(code(acme.chat(&request, &purpose).await), "grant_expired");

    let second = key(&place, "acme");
    let public = second.split('-').nth(2).unwrap().to_owned();
    assert_eq!(code(gateway.client(&second).chat(&request, &[]).await), "answered");
    assert_eq!(place.run(&format!("key revoke {public}")).code, 0);
    assert_eq!(code(gateway.client(&second).chat(&request, &[]).await), "key_revoked");

    assert_eq!(gateway.stop(), 0);
    let verified = place.run("journal verify journal");
    assert_eq!(verified.code, 0, "{}", verified.err);
    assert!(verified.out.contains("every byte is whole and signed"), "{}", verified.out);
    let shown = place.run("journal show journal").out;
    let exchanges = shown.lines().filter(|line| line.contains(r#""entry":"exchange""#)).count();
    assert_eq!(exchanges, 2, "{shown}");
    for entry in ["terms_accepted", "grant_given", "coins_committed", "closed"] {
        assert!(shown.contains(&format!(r#""entry":"{entry}""#)), "{entry}");
    }
    assert!(!shown.contains(&second), "no secret stands in the journal");

    // Both were twinned, and a gateway that stops in good order waits for the slower draws.
    let cost: serde_json::Value = serde_json::from_str(&place.run("twins cost journal --json").out).unwrap();
    let row = &cost.as_array().unwrap()[..];
    assert_eq!((row.len(), &row[0]["model"], &row[0]["mode"]), (1, &"teacher".into(), &"together".into()));
    assert_eq!((row[0]["exchanges"].as_u64(), row[0]["twins"].as_u64()), (Some(2), Some(2)), "{shown}");
    assert!(row[0]["tokens"].as_u64() > Some(0) && row[0]["cost"] != "0.00", "{cost}");
    let table = place.run("twins cost journal").out;
    assert!(table.starts_with("day ") && table.contains("together "), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_as_one_file_is_served_like_its_folder() {
    let place = Place::gateway();
    assert_eq!(place.run("account open acme --plan standard --budget 1.00").code, 0);
    assert_eq!(place.run("terms accept acme teacher").code, 0);
    let acme = key(&place, "acme");
    let mut answers = Vec::new();
    for format in ["folder", "gguf-f32", "gguf-q8_0"] {
        if format != "folder" {
            let file = format!("{format}.gguf");
            let exported = place.run(&format!("distill export teacher --format {format} --out {file}"));
            assert_eq!((exported.code, exported.err), (0, format!("written as {format}: {file}\n")));
            let from = if answers.len() == 1 { "teacher" } else { "gguf-f32.gguf" };
            let text =
                place.read("anbiq.toml").replace(&format!("folder = \"{from}\""), &format!("folder = \"{file}\""));
            place.write("anbiq.toml", &text);
        }
        assert_eq!(place.run("config check").code, 0, "{format}");
        let gateway = Running::start(&place);
        let greedy = ChatRequest { temperature: Some(0.0), ..ask("What is two plus two?") };
        let answer = gateway.client(&acme).chat(&greedy, &[]).await.unwrap();
        answers.push(answer.choices[0].message.content.clone().unwrap_or_default());
        assert_eq!(gateway.stop(), 0);
    }
    assert!(!answers[0].is_empty());
    assert_eq!(answers[0], answers[1]);
    std::fs::remove_file(place.path("gguf-q8_0.gguf")).unwrap();
    assert!(place.run("config check").out.contains("there is no"), "a file that is gone");
}
