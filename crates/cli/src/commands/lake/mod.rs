//! `anbiq lake`: questions in SQL over journals and imported logs.
//!
//! The engine is optional to build. Without it the questions can be listed and read, and whoever asks one is told what to build.

#[cfg(feature = "lake")]
mod ask;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "lake")]
mod form;

use std::fmt::Write as _;

use anbiq_lake::{QUERIES, query};

use super::Outcome;
use crate::args::Lake;
use crate::talk::{self, Talk};

pub(crate) async fn run(args: Lake, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Lake::List { json: true } => talk::json(&QUERIES)?,
        Lake::List { json: false } => talk::data(&list()?)?,
        Lake::Show { name } => talk::data(query(&name)?.sql)?,
        Lake::Run { name, param, asked } => {
            let question = query(&name)?.with(&param)?;
            ask::ask(&question, &asked, talk).await?;
        }
        Lake::Sql { text, asked } => ask::ask(&anbiq_lake::Question::sql(text), &asked, talk).await?,
        Lake::Tables { json } => ask::tables(json).await?,
        scheduler @ Lake::Scheduler { .. } => cluster::scheduler(scheduler, talk).await?,
        executor @ Lake::Executor { .. } => cluster::executor(executor, talk).await?,
    }
    Ok(Outcome::Fine)
}

fn list() -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for query in QUERIES {
        writeln!(text, "{:<10} {}", query.name, query.answers)?;
        for parameter in query.parameters {
            let default = if parameter.default.is_empty() { "\"\"" } else { parameter.default };
            writeln!(text, "             {}={default}: {}", parameter.name, parameter.says)?;
        }
    }
    writeln!(text, "each of them")?;
    for parameter in anbiq_lake::COMMON {
        writeln!(text, "             {}={}: {}", parameter.name, parameter.default, parameter.says)?;
    }
    Ok(text)
}

/// Where the engine is not built in.
#[cfg(not(feature = "lake"))]
mod ask {
    use anbiq_lake::LakeError;

    use super::Talk;
    use crate::args::Asked;

    pub(super) async fn ask(_: &anbiq_lake::Question, _: &Asked, _: Talk) -> Result<(), LakeError> {
        Err(LakeError::not_built())
    }

    pub(super) async fn tables(_: bool) -> Result<(), LakeError> {
        Err(LakeError::not_built())
    }
}

/// Where the cluster is not built in.
#[cfg(not(feature = "cluster"))]
mod cluster {
    use anbiq_lake::LakeError;

    use super::Talk;
    use crate::args::Lake;

    pub(super) async fn scheduler(_: Lake, _: Talk) -> Result<(), LakeError> {
        Err(LakeError::no_cluster())
    }

    pub(super) async fn executor(_: Lake, _: Talk) -> Result<(), LakeError> {
        Err(LakeError::no_cluster())
    }
}
