//! The binary `anbiq`: arguments, configuration and glue.

mod args;
mod commands;
mod config;
mod notify;
mod site;
mod talk;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::commands::Outcome;

/// A request is hundreds of small allocations, and its buffers are larger than what the system's allocator keeps at hand
/// for a thread: with this one the gateway takes some 15 % less processor at 3,000 requests a second. Without huge pages
/// (`no_thp`), for they would cost 15 MiB at rest and 20 KiB a silent stream.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 0 is fine, 1 a finding, 2 a failure.
fn main() -> ExitCode {
    let cli = args::Cli::parse();
    listen(&cli);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if cfg!(feature = "lake") {
        // Plans of queries are trees that are walked deep; what is not used of a stack costs nothing.
        builder.thread_stack_size(32 << 20);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(Box::pin(commands::run(cli))) {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::from(1),
        // Whoever read our output has what they wanted: `anbiq journal show | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Logs go to standard error; `ANBIQ_LOG` says which.
fn listen(cli: &args::Cli) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = EnvFilter::try_from_env("ANBIQ_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log_format {
        args::LogFormat::Text => log.with_ansi(colours).init(),
        args::LogFormat::Json => log.json().with_span_list(false).init(),
    }
}

/// The error, what caused it, and last its hints; each is said once.
fn failed(error: &anyhow::Error) -> ExitCode {
    let (mut said, mut hints) = (Vec::<String>::new(), Vec::<String>::new());
    for cause in error.chain() {
        let words = cause.to_string();
        let (hinted, told): (Vec<&str>, Vec<&str>) = words.lines().partition(|line| line.starts_with("hint: "));
        let told = told.join("\n");
        // A transparent error repeats its cause.
        if said.last().is_none_or(|last| !last.contains(&told)) {
            said.push(told);
        }
        for hint in hinted {
            if !hints.iter().any(|known| known == hint) {
                hints.push(hint.to_owned());
            }
        }
    }
    let hints: String = hints.iter().map(|hint| format!("\n{hint}")).collect();
    let _ = writeln!(std::io::stderr(), "error: {}{hints}", said.join("\n  because: "));
    ExitCode::from(2)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    error.chain().any(|cause| kind(cause) == Some(std::io::ErrorKind::BrokenPipe))
}
