//! The official `openai` clients for Python and Node against the gateway, unchanged.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::process::Command;
use std::time::Duration;

use anbiq_domain::Money;
use anbiq_model::Request;
use anbiq_serve::Config;
use common::teacher::{TEACHER, Teacher};
use common::{House, Mock, Setup, Step, acme, answers, finished, money, text, usage};

/// The interpreter that has the client: `ANBIQ_PYTHON`, or else `python3`.
fn python() -> Option<Command> {
    let python = std::env::var("ANBIQ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_client =
        Command::new(&python).args(["-c", "import openai"]).output().is_ok_and(|output| output.status.success());
    has_client.then(|| {
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client.py"));
        command
    })
}

/// Node, where `ANBIQ_NODE_MODULES` names a folder that has the client.
fn node() -> Option<Command> {
    let modules = std::env::var("ANBIQ_NODE_MODULES").ok()?;
    let has_client = std::path::Path::new(&modules).join("openai").is_dir();
    let has_node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    (has_client && has_node).then(|| {
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client.mjs")).arg(modules);
        command
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_for_python_works() {
    match python() {
        Some(command) => works(command).await,
        None => {
            skip(
                "the_official_client_for_python_works: no Python with the package `openai`; ANBIQ_PYTHON may name one",
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_for_node_works() {
    match node() {
        Some(command) => works(command).await,
        None => {
            skip("the_official_client_for_node_works: ANBIQ_NODE_MODULES names no folder with the package `openai`");
        }
    }
}

fn skip(what: &str) {
    // Printed past the capture of the test runner, which would hide it.
    std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED {what}\n").as_bytes()).unwrap();
}

/// Runs a client's script, which says `ok` where everything was as the client expects it.
async fn works(mut command: Command) {
    let (_teacher, model) = Teacher::start().await;
    // With twins, since no client may notice them.
    let mut setup = Setup { more: vec![model], ..Setup::default() };
    setup.plan.twin.share = 0.5;
    let (house, busy) = (House::furnished(setup).await, busy().await);
    command.args([format!("{}/v1", house.base), house.key.clone(), "open".into(), "gone".into(), TEACHER.into()]);
    command.args([format!("{}/v1", busy.base), busy.key.clone()]);
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    let letting_go = async {
        // The held request goes on once another was refused for it.
        while !refused_for_being_busy(&busy).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        busy.mock.gate.add_permits(1);
        std::future::pending::<()>().await;
    };
    let output =
        tokio::select! { output = running => output.unwrap(), () = letting_go => unreachable!("it never ends") };
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim() == "ok", "{said}{failed}");
    assert_eq!(house.settled().await.reserved, Money::ZERO);
    assert_eq!(busy.settled().await.reserved, Money::ZERO);
}

/// A gateway where one request may be under way, and one that says `hold` stops after its first word.
async fn busy() -> House {
    let config = Config { max_in_flight_per_account: Some(1), ..Config::default() };
    let script = |request: &Request| {
        if request.prompt.last_text() != "hold" {
            return answers(request);
        }
        vec![Step::Do(text(0, "held", None)), Step::Gate, Step::Do(finished(0, 1)), Step::Do(usage(1, 1))]
    };
    let house = House::furnished(Setup { config, mock: Mock::new(script), ..Setup::default() }).await;
    // The most that a prompt of these scripts and 4 tokens can cost is below this, 100 tokens are above it.
    house.ledger.set_budget(&acme(), money("0.00025")).await.unwrap();
    house
}

async fn refused_for_being_busy(house: &House) -> bool {
    house.metrics("anbiq_refusals").await.iter().any(|line| line.contains("concurrency_limit_exceeded"))
}
