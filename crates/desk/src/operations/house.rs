use anbiq_domain::{Hand, Timestamp};
use anbiq_journal::State;
use anbiq_ledger::AdminKey;
use serde_json::{Value, json};

use crate::dispatch::{Call, Reply};
use crate::problem::{Code, Problem};
use crate::{Desk, ReloadError, openapi};

pub(crate) async fn me(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let absent = || Problem::new(Code::InvalidAdminKey, Code::InvalidAdminKey.title());
    let key: AdminKey = desk.0.ledger.admin_key(&call.caller.key).await?.ok_or_else(absent)?;
    Reply::of(&json!({ "key": key, "now": call.at }))
}

pub(crate) async fn document(_: Desk, _: Call) -> Result<Reply, Problem> {
    Reply::of(&openapi())
}

pub(crate) async fn problems(_: Desk, _: Call) -> Result<Reply, Problem> {
    Reply::of(&json!({ "items": Code::ALL.iter().map(|code| kind(*code)).collect::<Vec<_>>() }))
}

pub(crate) async fn problem(_: Desk, call: Call) -> Result<Reply, Problem> {
    let name: String = call.path("code", Code::UnknownProblem)?;
    let absent = || Problem::new(Code::UnknownProblem, format!("there is no problem `{name}`"));
    Reply::of(&kind(Code::named(&name).ok_or_else(absent)?))
}

fn kind(code: Code) -> Value {
    json!({ "type": code.address(), "code": code.name(), "status": code.status(), "title": code.title() })
}

pub(crate) async fn journal(desk: Desk, _: Call) -> Result<Reply, Problem> {
    let journal = &desk.0.journal;
    let State { entries, root, last_checkpoint } = journal.state().await.map_err(|error| {
        tracing::error!(code = error.code(), %error, "the journal does not say how far it has come");
        Problem::new(Code::JournalFailed, Code::JournalFailed.title())
    })?;
    let checkpoint =
        last_checkpoint.map(|last| json!({ "size": last.size, "root": last.root, "note": last.to_note() }));
    Reply::of(&json!({
        "journal": journal.id(),
        "public_key": journal.public_key().to_string(),
        "entries": entries,
        "root": root,
        "last_checkpoint": checkpoint,
    }))
}

pub(crate) async fn models(desk: Desk, _: Call) -> Result<Reply, Problem> {
    let mut items = Vec::with_capacity(desk.0.models.len());
    for facts in &desk.0.models {
        let prices = desk.0.ledger.prices(&facts.model).await?;
        let terms = desk.0.ledger.terms_of_teacher(&facts.model).await?.map(|terms| terms.reference());
        items.push(json!({
            "model": facts.model,
            "embedded": facts.embedded,
            "servers": facts.servers,
            "prices": prices,
            "terms": terms,
        }));
    }
    Reply::of(&json!({ "items": items }))
}

pub(crate) async fn reload(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let reloaded = desk.0.reload.reload(Hand::AdminKey(call.caller.key.clone())).await;
    let reloaded = reloaded.map_err(|error| match error {
        ReloadError::Invalid(what) => Problem::new(Code::InvalidConfiguration, what),
        ReloadError::Failed(what) => Problem::new(Code::ReloadFailed, what),
    })?;
    let at: Timestamp = call.at;
    Reply::of(&json!({ "at": at, "changed": reloaded }))
}
