//! The small binary by its arguments and exit codes. What it says of whole and of changed dossiers is tested where dossiers are
//! made, with `anbiq verify`, which is the same function.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::process::Command;

fn told(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_anbiq-verify")).args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    format!("exit {}\n{}{}", output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_cannot_be_checked_is_said() {
    insta::assert_snapshot!(told(&["nowhere"]), @r"
    exit 2
    error: there is no folder `nowhere`
    ");
    insta::assert_snapshot!(told(&[]), @r"
    exit 2
    error: usage: anbiq-verify DOSSIER [--key KEY] [--json]
    ");
    insta::assert_snapshot!(told(&["dossier", "--fast"]), @r"
    exit 2
    error: usage: anbiq-verify DOSSIER [--key KEY] [--json]
    ");
    assert!(told(&["dossier", "--key", "abc"]).starts_with("exit 2\nerror: "));
    let empty = tempfile::tempdir().unwrap();
    let told = told(&[empty.path().to_str().unwrap(), "--json"]);
    assert!(told.starts_with("exit 1\n{") && told.contains("\"file\""), "{told}");
}
