//! Puts a question to the engine.

use std::time::Duration;

use anbiq_import::Import;
use anbiq_lake::{Engine, Lake, LakeError, Question, Settings, Sources};
use anyhow::Context;

use super::form;
use crate::args::Asked;
use crate::commands::watch::refuse_import;
use crate::talk::{self, Talk};

pub(super) async fn ask(question: &Question, asked: &Asked, talk: Talk) -> anyhow::Result<()> {
    let sources = sources(asked)?;
    let engine = asked.cluster.clone().map_or(Engine::Local, |url| Engine::Cluster { url });
    let settings = Settings {
        engine,
        memory: asked.memory << 20,
        parts: asked.parts,
        timeout: Duration::from_secs(asked.timeout),
    };
    let lake = Lake::open(settings, sources).await?;
    let mut answer = lake.ask(question).await?;
    match &asked.parquet {
        Some(path) => {
            let rows = answer.write_parquet(path).await?;
            talk.say(&format!("{rows} rows written to `{}`", path.display()));
        }
        None if asked.json => form::json(&mut answer, question, &lake, asked.cluster.is_some()).await?,
        None if asked.csv => form::csv(&mut answer).await?,
        None => form::text(&mut answer, talk).await?,
    }
    form::say_of_what(lake.sources(), talk);
    Ok(())
}

pub(super) async fn tables(json: bool) -> anyhow::Result<()> {
    let lake = Lake::open(Settings::default(), Sources::new(None)?).await?;
    let tables = lake.tables().await?;
    if json { talk::json(&form::tables_as_json(&tables)) } else { talk::data(&form::tables_in_words(&tables)) }
}

/// Everything that is asked about.
fn sources(asked: &Asked) -> anyhow::Result<Sources> {
    let mut sources = Sources::new(asked.scratch.as_deref())?;
    for journal in &asked.journal {
        refuse_import(journal)?;
        sources.journal(journal).with_context(|| format!("cannot read the journal `{}`", journal.display()))?;
    }
    if !asked.imported.is_empty() {
        for (import, folder) in Import::open_all(&asked.imported)?.iter().zip(&asked.imported) {
            sources.imported(folder, import.rows()?)?;
        }
    }
    if sources.is_empty() {
        return Err(LakeError::Empty.into());
    }
    if !sources.journals.is_empty() && !sources.imported.is_empty() {
        sources.notes.push(
            "hashes (prompts, templates, networks, addresses, programs, payments) of a journal and of an import are equal for \
             equal things only if both were made under one key"
                .to_owned(),
        );
    }
    Ok(sources)
}
