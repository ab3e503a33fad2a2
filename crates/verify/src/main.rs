//! `anbiq-verify DOSSIER [--key KEY] [--json]`: what `anbiq verify` does, as a binary that can do nothing else.
//!
//! Exit code 0: the dossier holds; 1: it is broken; 2: it could not be checked.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: anbiq-verify DOSSIER [--key KEY] [--json]";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(mut words: impl Iterator<Item = String>) -> Result<bool, Box<dyn std::error::Error>> {
    let (mut dossier, mut key, mut as_json) = (None, None, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--key" => key = Some(words.next().ok_or(USAGE)?),
            "--help" | "-h" => {
                writeln!(std::io::stdout(), "{USAGE}")?;
                return Ok(true);
            }
            option if option.starts_with('-') => return Err(USAGE.into()),
            _ if dossier.is_none() => dossier = Some(PathBuf::from(word)),
            _ => return Err(USAGE.into()),
        }
    }
    let said = anbiq_verify::run(&dossier.ok_or(USAGE)?, key.as_deref(), as_json)?;
    writeln!(std::io::stdout(), "{}", said.text.trim_end_matches('\n'))?;
    Ok(said.holds)
}
