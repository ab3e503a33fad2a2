//! One module a command; each returns what the exit code says.

mod admin;
mod admin_key;
mod case;
mod config;
mod customers;
mod demo;
mod distill;
mod import;
mod journal;
mod lab;
mod lake;
mod serve;
mod terms;
mod trace;
mod twins;
mod watch;

use clap::CommandFactory;

use crate::args::{Cli, Command, LogFormat};
use crate::talk::Talk;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to report.
    Fine,
    /// A campaign, an established verdict, a broken dossier.
    Found,
}

impl Outcome {
    const fn found(found: bool) -> Self {
        if found { Self::Found } else { Self::Fine }
    }
}

pub(crate) async fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let talk = Talk::new(cli.quiet, cli.log_format == LogFormat::Json);
    match cli.command {
        Command::Demo(args) => demo::run(args, talk).await,
        Command::Init(args) => admin::init(&args, talk),
        Command::Serve(args) => serve::run(&args, talk).await,
        Command::Admin(args) => admin_key::run(args, talk).await,
        Command::Config(args) => config::run(args, talk),
        Command::Account(args) => customers::account(args, talk).await,
        Command::Key(args) => customers::key(args, talk).await,
        Command::User(args) => customers::user(args, talk).await,
        Command::Budget(args) => customers::budget(args, talk).await,
        Command::Terms(args) => terms::terms(args, talk).await,
        Command::Grant(args) => terms::grant(args, talk).await,
        Command::Journal(args) => journal::run(args, talk),
        Command::Twins(args) => twins::run(args),
        Command::Import(args) => import::run(&args, talk),
        Command::Watch(args) => watch::run(&args, talk).await,
        Command::Lake(args) => lake::run(*args, talk).await,
        Command::Distill(args) => distill::run(args, talk).await,
        Command::Trace(args) => trace::run(&args, talk).await,
        Command::Case(args) => case::write(&args, talk),
        Command::Verify(args) => case::verify(&args),
        Command::Lab(args) => lab::run(args, talk).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "anbiq", &mut std::io::stdout());
            Ok(Outcome::Fine)
        }
    }
}
