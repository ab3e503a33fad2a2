//! Schemathesis against the admin API: requests that the document allows and requests that it does not, in their thousands.
//!
//! `ANBIQ_SCHEMATHESIS` names the program; where it is not set the test says that it was skipped.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` is written where it is used")]

#[path = "it/house.rs"]
mod house;

use std::path::Path;
use std::process::Command;

use house::House;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_as_its_document_says() {
    let Ok(program) = std::env::var("ANBIQ_SCHEMATHESIS") else {
        eprintln!("SKIPPED the admin API under schemathesis: ANBIQ_SCHEMATHESIS may hold the path of the program");
        return;
    };
    let house = House::new().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = std::env::var("ANBIQ_SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| "20".to_owned());
    let mut command = Command::new(program);
    // It leaves a cache where it runs.
    let elsewhere = tempfile::tempdir().unwrap();
    command
        .current_dir(elsewhere.path())
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .arg("run")
        .arg(folder.join("openapi.json"))
        .args(["--url", &house.base, "--checks", "all", "--mode", "all", "--seed", "1", "--no-color"])
        .args(["--max-examples", &examples, "--header", &format!("Authorization: Bearer {}", house.owner)]);
    // The server lives in this runtime and must not be kept waiting.
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    println!("{said}");
}
