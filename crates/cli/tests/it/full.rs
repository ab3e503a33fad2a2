//! What a gateway does when there is no more room: on the disk, and for connections.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use anbiq_lab::load::server::{self, Pace, SILENT, WHOLE};
use anbiq_lab::load::{Generator, Load};
use anbiq_lab::mock::Mock;
use anbiq_secret::Secret;
use futures::StreamExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

/// The memory that a process has, in KiB.
fn resident(gateway: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// As many streams as can be open here: both ends of both connections of a stream are files, of this process or of the
/// gateway.
fn most_streams() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let files = limit.maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap());
    let most = (files.saturating_sub(1_000) / 2).min(10_000);
    if most < 10_000 {
        let said = format!("{most} silent streams instead of 10000: a process may have {files} files open here\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_silent_streams_leave_room_for_an_answer() {
    let streams = most_streams();
    let (url, serving) = server::bind(Pace::default()).await.unwrap();
    tokio::spawn(serving);
    let (place, key) = furnish(&url);
    let model = |name: &str| {
        format!("\n[[model]]\nname = \"{name}\"\nurl = \"{url}\"\nprices = {{ input = \"0.50\", output = \"2.00\" }}\n")
    };
    let room = "[serve]\nmax_in_flight = 20000\n";
    let text = place.read("anbiq.toml").replace("[serve]\n", room) + &model(SILENT) + &model(WHOLE);
    place.write("anbiq.toml", &text);
    assert_eq!(place.run("account open rich --plan standard --budget 1000").code, 0);
    let rich = Secret::new(place.run("key issue rich").out.trim().to_owned());
    let gateway = Served::start(&place, "serve", &[]);
    let before = resident(&gateway);

    let load = Load {
        base_url: format!("http://{}/v1", gateway.doors[0]),
        key: Some(rich),
        model: SILENT.to_owned(),
        stream: true,
        rate: 1.0,
        count: 1,
        in_flight: 1,
        patience: Duration::from_secs(120),
    };
    let generator = Generator::default();
    let opening = futures::stream::iter(0..streams).map(|_| generator.open(&load)).buffer_unordered(64);
    let open: Vec<_> = opening.collect().await;
    let failed: BTreeSet<&String> = open.iter().filter_map(|opened| opened.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}: {}", gateway.said());
    let each = (resident(&gateway) - before) / streams as u64;
    assert!(each < 80, "{each} KiB for each silent stream");
    let whole = r#"{"model": "whole", "messages": [{"role": "user", "content": "is there room?"}]}"#;
    let headers = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
    assert_eq!(outcome(&ask(&gateway.doors[0], "POST /v1/chat/completions", &headers, whole)), "200 ");

    drop(open);
    let begun = Instant::now();
    while !ask(&gateway.doors[1], "GET /metrics", "", "").contains("\nanbiq_requests_in_flight 0\n") {
        assert!(begun.elapsed() < Duration::from_secs(120), "streams are kept that nobody reads: {}", gateway.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    gateway.signal("-TERM");
    let (code, said) = gateway.ended();
    assert_eq!(code, 0, "{said}");
    let shown = place.run("journal show journal").out;
    let outcomes = ["cancelled", "completed"].map(|name| shown.matches(&format!(r#""outcome":"{name}""#)).count());
    assert_eq!(outcomes, [streams, 1]);
    let budget = place.run("account budget rich").out;
    assert!(budget.contains(r#""reserved": "0.00""#), "{budget}");
}
