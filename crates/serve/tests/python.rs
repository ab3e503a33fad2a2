//! The official `openai` client for Python against the gateway.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::process::Command;

use common::{House, Setup};

/// The interpreter that has the client: `ANBIQ_PYTHON`, or else `python3`.
fn python() -> Option<String> {
    let python = std::env::var("ANBIQ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_client =
        Command::new(&python).args(["-c", "import openai"]).output().is_ok_and(|output| output.status.success());
    has_client.then_some(python)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_works() {
    let Some(python) = python() else {
        // Printed past the capture of the test runner, which would hide it.
        let said =
            "SKIPPED the_official_client_works: no Python with the package `openai`; ANBIQ_PYTHON may name one\n";
        std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes()).unwrap();
        return;
    };
    // With twins, since no client may notice them.
    let mut setup = Setup::default();
    setup.plan.twin.share = 0.5;
    let house = House::furnished(setup).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client.py");
    let arguments = [script.to_owned(), format!("{}/v1", house.base), house.key.clone(), "open".into(), "gone".into()];
    let output =
        tokio::task::spawn_blocking(move || Command::new(python).args(arguments).output().unwrap()).await.unwrap();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim() == "ok", "{said}{failed}");
    assert_eq!(house.settled().await.reserved, anbiq_domain::Money::ZERO);
}
