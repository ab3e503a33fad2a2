use anbiq_domain::{KeyId, UserId};
use anbiq_ledger::{KeyState, Scope, Scopes};
use anbiq_secret::Secret;
use serde::Deserialize;
use serde_json::json;

use super::accounts::{open_there, there};
use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::fields::{Grace, Line, ModelName, Moment};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: Option<Line>,
    user: Option<UserId>,
    #[serde(default)]
    scopes: ScopesBody,
    expires: Option<Moment>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopesBody {
    routes: Option<Vec<Scope>>,
    models: Option<Vec<ModelName>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    grace_ms: Grace,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, page) = (call.account()?, call.page::<KeyId>()?);
    there(&desk, &account).await?;
    let found = desk.0.ledger.keys(Some(&account), &page.0).await?;
    page.reply(found, |key| key.id.to_string())
}

pub(crate) async fn issue(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, NewKey { name, user, scopes, expires }) = (call.account()?, call.body()?);
    open_there(&desk, &account).await?;
    let new = anbiq_ledger::NewKey {
        account,
        name: name.map(|line| line.0),
        user,
        scopes: Scopes {
            routes: scopes.routes,
            models: scopes.models.map(|models| models.into_iter().map(|model| model.0).collect()),
        },
        expires: expires.map(|moment| moment.0),
        issued: call.at,
    };
    let issued = call.administrator(&desk).issue_key(&new).await;
    let (id, secret) = issued.map_err(|error| Problem::from(error).of_body("/user"))?;
    given(&desk, &id, &secret).await
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    Reply::of(&found(&desk, &call).await?)
}

pub(crate) async fn rotate(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (old, Rotation { grace_ms: Grace(grace_ms) }) = (found(&desk, &call).await?, call.body()?);
    let (id, secret) = call.administrator(&desk).rotate_key(&old.id, grace_ms, call.at).await?;
    given(&desk, &id, &secret).await
}

pub(crate) async fn revoke(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let key = found(&desk, &call).await?;
    call.administrator(&desk).revoke_key(&key.id, call.at).await?;
    get(desk, call).await
}

/// The key of the path, where it is of the account of the path.
async fn found(desk: &Desk, call: &Call) -> Result<KeyState, Problem> {
    let (account, key): (_, KeyId) = (call.account()?, call.path("key", Code::UnknownKey)?);
    there(desk, &account).await?;
    let found = desk.0.ledger.key(&key).await?.filter(|key| key.account == account);
    found.ok_or_else(|| Problem::new(Code::UnknownKey, format!("there is no key `{key}` of account `{account}`")))
}

/// A new key, with its secret, which is shown here and never again.
async fn given(desk: &Desk, key: &KeyId, secret: &Secret<String>) -> Result<Reply, Problem> {
    let absent = || Problem::new(Code::UnknownKey, format!("there is no key `{key}`"));
    let key = desk.0.ledger.key(key).await?.ok_or_else(absent)?;
    let location = format!("/accounts/{}/keys/{}", key.account, key.id);
    Ok(Reply::of(&json!({ "key": key, "secret": secret.expose() }))?.at(&location))
}
