//! Chores of the repository that are too long for the tests.
//!
//! `cargo xtask seeds [--quick] SEED...` plays the demonstration once for each seed and says what came of it.
//!
//! `cargo xtask bench serve [--rates 1000,2000,4000] [--seconds 10] [--json FILE] ...` measures what the gateway adds to a
//! request; `crates/lab/examples/bench_serve` says how, and what else can be set. `cargo xtask bench journal [DIR]`
//! measures how many exchanges a second a journal takes, `cargo xtask bench sketch` how long a sketch takes.
//! `cargo xtask bench import [ROWS] [DIR]` measures how many rows of a log are imported in a second, and in how much memory.
//! `cargo xtask bench lake [EXCHANGES] [DIR] [MIB]` measures how long each named question takes, and in how much memory.
//! `cargo xtask bench distill [--requests N] [--rows N] [faults] [ceiling] [estimate] [rate]` measures how a capture bears
//! faults, kills, limits and size; `crates/lab/examples/bench_distill` says how.
//! `cargo xtask bench engine [--python PATH] [--only train|generate] [--size 6m|110m] [--rounds N] ...` lets the engine take turns
//! with PyTorch, transformers and llama.cpp; `crates/lm/examples/bench_engine` says how.
//! `cargo xtask bench on-policy [--seeds 1,2,3] [--steps N] ...` compares students that learn from a teacher's answers with students
//! that learn from their own; `crates/distill/examples/on_policy.rs` says how.
//! `cargo xtask bench gap [--seeds 1,2,3] ...` says how much of the distance between a student with few labels and its teacher distilling
//! closes; `crates/distill/examples/gap.rs` says how. `cargo xtask bench signals [--seeds 1,2,3] ...` compares what may be stored of a teacher's word;
//! `crates/lab/examples/signals.rs` says how.
//! `cargo xtask bench spans [--seeds N] ...` says what a teacher is worth to a student of other tokens; `crates/distill/examples/spans.rs`
//! says how.
//! `cargo xtask bench watch [--quick] [--large] [--brief] [--seed N] [--seeds K] [--data DIR]` shows whom `watch` and others find and accuse.
//! `cargo xtask bench follow [--people N] [--days D] [--seed N] [--data DIR]` measures what looks cost `watch --follow`, and its memory.
//! `cargo xtask bench honest [--people N] [--days D] [--seed N] [--campaign N] [--copies N] [--rounds N] [--data DIR] [--folder DIR]` follows
//! months of honest traffic of any volume and says whom `watch` accuses, and what that costs; `crates/arena/examples/honest_months.rs` says how.
//! `cargo xtask bench trace [DIR]` measures how well the style of answers tells students from others, on data that is not
//! in the repository, and how much text a second is looked at for a watermark.
//!
//! `cargo xtask fuzz [TARGET] [--seconds N] [--seed S]` feeds mutated inputs to whatever reads what strangers write;
//! `crates/lab/examples/fuzz` says what each target promises.
//!
//! `cargo xtask prove journal [--points 10000] [--seed 1]` crashes a journal on a simulated disk at so many points; the
//! tests do it at some hundred.
//!
//! `cargo xtask prove lake [--exchanges N]` builds the program with its engine for SQL and its cluster, and asks every named
//! question of both: against answers that are worked out without SQL, and with an executor killed in the middle.
//!
//! `cargo xtask prove alarms [--worlds 200] [--streams 1000] [--seed 1]` simulates honest streams and counts false alarms.
//!
//! `cargo xtask students [--short] [--minutes M] ...` trains many tiny students, innocent and not, and says what the exact tests
//! show of them; `crates/lab/examples/students` says how, and what else can be set.
//!
//! `cargo xtask parity` shows how far losses, gradients and adapters are from what PyTorch computes, and how many chat templates
//! come out otherwise than in transformers; with `ANBIQ_TEMPLATES=FOLDER` published ones too (`crates/model/golden/README.md`).

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

const USAGE: &str = "usage: cargo xtask seeds [--quick] SEED... | bench serve [OPTION...] | bench journal [DIR] | bench sketch \
                     | bench import [ROWS] [DIR] | bench lake [EXCHANGES] [DIR] [MIB] | bench watch [OPTION...] | bench follow [OPTION...] | bench honest [OPTION...] | bench distill [OPTION...] | bench engine [OPTION...] | bench on-policy [OPTION...] | bench gap [OPTION...] | bench signals [OPTION...] | bench spans [OPTION...] | bench trace [DIR] | prove journal [--points N] [--seed S] | prove alarms [OPTION...] | prove lake [--exchanges N] \
                     | fuzz [TARGET] [--seconds N] [--seed S] | parity | students [--short] [--minutes M] [OPTION...]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((verb, rest)) if verb == "seeds" => seeds(rest),
        Some((verb, rest)) if verb == "bench" => bench(rest),
        Some((verb, rest)) if verb == "fuzz" => fuzz(rest),
        Some((verb, rest)) if verb == "prove" => prove(rest),
        Some((verb, [])) if verb == "parity" => parity(),
        Some((verb, rest)) if verb == "students" => students(rest),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Plays the demonstration for each seed; true if the case came out as it should every time.
fn seeds(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let quick = words.iter().any(|word| word == "--quick");
    let seeds = words.iter().filter(|word| !word.starts_with("--")).map(|word| word.parse());
    let seeds = seeds.collect::<Result<Vec<u64>, _>>().map_err(|_| USAGE)?;
    if seeds.is_empty() {
        return Err(USAGE.into());
    }
    let program = build()?;
    let mut all = true;
    let mut out = std::io::stdout();
    for seed in seeds {
        let folder = Path::new("target").join(format!("demo-{seed}"));
        // What an earlier call left is of no use; that there is nothing is fine.
        let _ = std::fs::remove_dir_all(&folder);
        let mut command = Command::new(&program);
        command.args(["demo", "--seed", &seed.to_string(), "--out"]).arg(&folder).stdout(Stdio::null());
        if quick {
            command.arg("--quick");
        }
        let started = Instant::now();
        let came_out = command.status()?.success();
        let word = if came_out { "as it should" } else { "NOT AS IT SHOULD" };
        writeln!(out, "seed {seed}: {word}, {:.0} s", started.elapsed().as_secs_f64())?;
        all &= came_out;
    }
    Ok(all)
}

/// Runs a benchmark to its end; true if it came to one.
fn bench(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let (what, rest) = words.split_first().ok_or(USAGE)?;
    match what.as_str() {
        "serve" => {
            let mut command = roomy();
            command.args(example("anbiq-lab", "bench_serve"));
            if !rest.iter().any(|word| word == "--program") {
                command.arg("--program").arg(build()?);
            }
            Ok(command.args(rest).status()?.success())
        }
        "journal" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-journal", "append_rate")).args(rest).status()?.success())
        }
        "sketch" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-statistics", "sketch_rate")).args(rest).status()?.success())
        }
        "import" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-import", "import_rate")).args(rest).status()?.success())
        }
        "lake" => {
            let mut command = Command::new("cargo");
            command.args(["run", "--release", "--locked", "--package", "anbiq-lake", "--features", "local"]);
            Ok(command.args(["--example", "lake_rate", "--"]).args(rest).status()?.success())
        }
        "distill" => {
            let mut command = Command::new("cargo");
            command.args(example("anbiq-lab", "bench_distill")).arg("--program").arg(build()?);
            Ok(command.args(rest).status()?.success())
        }
        "engine" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-lm", "bench_engine")).args(rest).status()?.success())
        }
        "on-policy" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-distill", "on_policy")).args(rest).status()?.success())
        }
        "gap" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-distill", "gap")).args(rest).status()?.success())
        }
        "signals" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-lab", "signals")).args(rest).status()?.success())
        }
        "spans" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-distill", "spans")).args(rest).status()?.success())
        }
        "watch" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-arena", "standings")).args(rest).status()?.success())
        }
        "follow" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-arena", "follow_cost")).args(rest).status()?.success())
        }
        "honest" => {
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-arena", "honest_months")).args(rest).status()?.success())
        }
        "trace" => {
            let mut command = Command::new("cargo");
            let style = command.args(example("anbiq-trace", "style_figures")).args(rest).status()?.success();
            let mut command = Command::new("cargo");
            Ok(command.args(example("anbiq-lab", "watermark_rate")).status()?.success() && style)
        }
        _ => Err(USAGE.into()),
    }
}

/// Feeds the fuzz targets; true if every promise was kept.
fn fuzz(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let mut command = Command::new("cargo");
    Ok(command
        .args(["run", "--locked", "--package", "anbiq-lab", "--example", "fuzz", "--"])
        .args(words)
        .status()?
        .success())
}

/// Crashes the journal at many points; true if it held at all of them. Or counts the false alarms of honest streams, or asks
/// questions in SQL.
fn prove(words: &[String]) -> Result<bool, Box<dyn Error>> {
    if let Some((_, rest)) = words.split_first().filter(|(what, _)| *what == "lake") {
        return lake(rest);
    }
    if let Some((_, rest)) = words.split_first().filter(|(what, _)| *what == "alarms") {
        let mut command = Command::new("cargo");
        return Ok(command.args(example("anbiq-statistics", "alarm_null")).args(rest).status()?.success());
    }
    let Some((_, mut rest)) = words.split_first().filter(|(what, _)| *what == "journal") else {
        return Err(USAGE.into());
    };
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--package", "anbiq-journal", "--lib", "--"]);
    command.args(["--exact", "proof::long", "--ignored", "--nocapture"]);
    while let [name, value, others @ ..] = rest {
        let variable = match name.as_str() {
            "--points" => "ANBIQ_PROVE_POINTS",
            "--seed" => "ANBIQ_PROVE_SEED",
            _ => return Err(USAGE.into()),
        };
        value.parse::<u64>().map_err(|_| USAGE)?;
        command.env(variable, value);
        rest = others;
    }
    if rest.is_empty() { Ok(command.status()?.success()) } else { Err(USAGE.into()) }
}

/// Asks every named question of DataFusion and of Ballista; true if all answers are as they are worked out without them.
fn lake(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--package", "anbiq-cli"]);
    // What is not ours is built as quickly as it can be: there is much of it, and little to do for it.
    command.args(["--features", "anbiq-cli/cluster", "--config", "profile.dev.package.\"*\".opt-level=0"]);
    command.args(["--", "lake"]);
    match words {
        [] => {}
        [name, value] if name == "--exchanges" => {
            value.parse::<usize>().map_err(|_| USAGE)?;
            command.env("ANBIQ_PROVE_EXCHANGES", value);
        }
        _ => return Err(USAGE.into()),
    }
    Ok(command.status()?.success())
}

/// Compares with PyTorch and transformers; true if nothing differs by more than it may.
fn parity() -> Result<bool, Box<dyn Error>> {
    let mut same = true;
    for (package, test) in [("anbiq-lm", "parity"), ("anbiq-model", "templates")] {
        let mut command = Command::new("cargo");
        command.args(["test", "--locked", "--quiet", "--package", package, "--test", test, "--"]);
        same &= command.args(["--nocapture", "--test-threads", "1"]).status()?.success();
    }
    Ok(same)
}

/// Trains students and asks the exact tests about them; true if that came to its end.
fn students(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let mut command = Command::new("cargo");
    Ok(command.args(example("anbiq-lab", "students")).args(words).status()?.success())
}

/// `cargo` where as many files may be open as the system allows: every stream of the benchmark is a few sockets.
fn roomy() -> Command {
    let mut command = Command::new("sh");
    // Only some may go beyond the hard limit; all may go up to it.
    command.args(["-c", r#"ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"; exec cargo "$@""#, "cargo"]);
    command
}

fn example<'a>(package: &'a str, name: &'a str) -> [&'a str; 8] {
    ["run", "--release", "--locked", "--package", package, "--example", name, "--"]
}

/// Builds the program and says where it is.
fn build() -> Result<PathBuf, Box<dyn Error>> {
    let built = Command::new("cargo").args(["build", "--release", "--locked", "--package", "anbiq-cli"]).status()?;
    if !built.success() {
        return Err("the program does not build".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(target.join("release/anbiq"))
}
