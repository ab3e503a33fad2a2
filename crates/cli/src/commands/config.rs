//! `anbiq config`: is a configuration of any use, before a gateway is started with it?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anbiq_domain::Terms;
use anbiq_lm::gguf;
use anyhow::Context;
use serde::Serialize;

use super::Outcome;
use crate::args;
use crate::config::{Config, ModelConfig};
use crate::site::{read_json, server_key};
use crate::talk::{self, Talk};

/// What a check found.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    problems: Vec<String>,
}

pub(crate) fn run(command: args::Config, talk: Talk) -> anyhow::Result<Outcome> {
    match command {
        args::Config::Check { file, site, json } => check(file.as_deref().unwrap_or(&site.config), json, talk),
        args::Config::Schema => {
            talk::json(&schemars::schema_for!(Config))?;
            Ok(Outcome::Fine)
        }
    }
}

/// 0 where all is well, 1 where something is wrong, 2 where the file cannot be read at all.
fn check(path: &Path, json: bool, talk: Talk) -> anyhow::Result<Outcome> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the configuration `{}`", path.display()))?;
    let problems = match Config::examine(&text, path) {
        Err(unreadable) => vec![unreadable],
        Ok((config, mut problems)) => {
            problems.extend(outside(&config));
            problems
        }
    };
    let found = !problems.is_empty();
    let report = Report { file: path, problems };
    if json {
        talk::json(&report)?;
    } else if found {
        talk::data(&report.problems.join("\n"))?;
    } else {
        talk.say(&format!("`{}` is fine", path.display()));
    }
    Ok(Outcome::found(found))
}

/// What is wrong with what the configuration refers to: files, variables, addresses.
fn outside(config: &Config) -> Vec<String> {
    let mut problems: Vec<String> = config.serve.check().err().map(|why| why.to_string()).into_iter().collect();
    if let Some(variable) = &config.ledger.url_env
        && std::env::var_os(variable).is_none_or(|url| url.is_empty())
    {
        problems.push(format!("ledger: the environment variable `{variable}` holds no URL"));
    }
    for model in &config.models {
        problems.extend(of_model(config, model).into_iter().map(|why| format!("model `{}`: {why}", model.name)));
    }
    for name in ["signing.key", "sketch.key"] {
        problems.extend(unguarded(&config.secrets.join(name)));
    }
    problems
}

fn of_model(config: &Config, model: &ModelConfig) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(file) = model.folder.as_ref().filter(|path| gguf::is_gguf(path)) {
        if !file.is_file() {
            problems.push(format!("there is no `{}`", file.display()));
        }
    } else if let Some(folder) = &model.folder {
        for name in ["config.json", "tokenizer.json"] {
            if !folder.join(name).is_file() {
                problems.push(format!("there is no `{}`", folder.join(name).display()));
            }
        }
    }
    if let Some(path) = &model.terms {
        problems.extend(read_json::<Terms>(path).err().map(|why| format!("{why:#}")));
    }
    // What is wrong with the list itself is said elsewhere.
    let reach = config.reach().unwrap_or_default();
    for server in model.servers() {
        problems.extend(reach.check(&server.url).err().map(|why| why.to_string()));
        problems.extend(
            server_key(server.key_env.as_deref(), server.key_file.as_deref()).err().map(|why| format!("{why:#}")),
        );
        problems.extend(server.key_file.as_deref().and_then(unguarded));
    }
    problems
}

/// A file with a secret that others can read, if it is there.
fn unguarded(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        let path = path.display();
        format!("everybody on this machine may read `{path}`\nhint: chmod 600 {path}")
    })
}
