//! What a gateway does when there is no more room: on the disk, and for connections.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;

use anbiq_lab::mock::Mock;

use crate::drain::furnish;
use crate::served::{Served, ask};
use crate::support::Place;

/// What came of a request: its status, and the code of its error.
fn outcome(answer: &str) -> String {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let code = answer.split_once(r#""code":""#).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
    format!("{status} {code}")
}

fn chat(gateway: &Served, key: &str, words: &str) -> String {
    let headers = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
    let body = format!(r#"{{"model": "teacher", "messages": [{{"role": "user", "content": "{words}"}}]}}"#);
    ask(&gateway.doors[0], "POST /v1/chat/completions", &headers, &body)
}

fn ready(gateway: &Served) -> String {
    outcome(&ask(&gateway.doors[1], "GET /readyz", "", ""))
}

/// No file of the gateway may grow beyond `bytes`, which to a program is as if the disk were full.
fn limit(gateway: &Served, bytes: &str) {
    let arguments = ["--pid".to_owned(), gateway.id().to_string(), format!("--fsize={bytes}:")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}

fn missing(tool: &str) -> bool {
    let missing = Command::new(tool).arg("--help").output().is_err();
    if missing {
        let said = format!("SKIPPED a full disk: there is no `{tool}`\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
    missing
}

fn largest(place: &Place, folder: &str) -> u64 {
    let files = std::fs::read_dir(place.path(folder)).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_charges_nothing_until_there_is_room() {
    if missing("prlimit") {
        return;
    }
    let mock = Mock::start().await.unwrap();
    let (place, key) = furnish(&mock.base_url);
    let text = place.read("anbiq.toml").replace("id = \"standard\"", "id = \"standard\"\ntexts = \"plain\"");
    place.write("anbiq.toml", &text);
    // The system ends a program that passes the limit, unless that lets it be.
    let mut command = Command::new("env");
    command.args(["--ignore-signal=XFSZ", env!("CARGO_BIN_EXE_anbiq"), "serve"]).current_dir(place.path(""));
    let gateway = Served::of(command, &[]);
    // The journal is the largest file, so that it is the first to have no room.
    assert_eq!(outcome(&chat(&gateway, &key, &"words ".repeat(40_000))), "200 ");
    let mut answered = 1;
    for (round, bytes) in [(largest(&place, "journal") + 300).to_string(), "1000".to_owned()].iter().enumerate() {
        limit(&gateway, bytes);
        let refused: BTreeSet<String> =
            (0..6).map(|number| outcome(&chat(&gateway, &key, &format!("{number} {}", "x".repeat(900))))).collect();
        let expected = ["503 journal_unavailable", "503 ledger_unavailable"][round];
        assert_eq!(refused, BTreeSet::from([expected.to_owned()]), "{bytes}: {}", gateway.said());
        limit(&gateway, "unlimited");
        assert_eq!(outcome(&chat(&gateway, &key, "there is room")), "200 ", "{}", gateway.said());
        assert_eq!(ready(&gateway), "200 ");
        answered += 1;
    }
    gateway.signal("-TERM");
    let (code, said) = gateway.ended();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("journal_disk_full"), "{said}");
    assert_eq!(place.run("journal verify journal").code, 0);
    let shown = place.run("journal show journal").out;
    assert_eq!(shown.matches(r#""outcome":"completed""#).count(), answered, "{shown}");
    let budget = place.run("account budget acme").out;
    assert!(budget.contains(r#""reserved": "0.00""#), "{budget}");
}
