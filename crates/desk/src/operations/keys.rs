use anbiq_domain::KeyId;
use anbiq_ledger::ApiKey;
use serde::Deserialize;
use serde_json::json;

use super::accounts::{open_there, there};
use crate::Desk;
use crate::dispatch::{Call, Page, Reply};
use crate::fields::Moment;
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    expires: Option<Moment>,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, page): (_, Page<KeyId>) = (call.account()?, call.page()?);
    there(&desk, &account).await?;
    let found = desk.0.ledger.keys(&account, page.after.as_ref(), page.ask).await?;
    page.reply(found, |key| key.id.to_string())
}

pub(crate) async fn issue(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, NewKey { expires }) = (call.account()?, call.body()?);
    open_there(&desk, &account).await?;
    let expires = expires.map(|moment| moment.0);
    let (id, secret) = call.administrator(&desk).issue_key(&account, expires, call.at).await?;
    let location = format!("/accounts/{account}/keys/{id}");
    let key = ApiKey { id, account, issued: call.at, expires, revoked: None };
    Ok(Reply::of(&json!({ "key": key, "secret": secret.expose() }))?.at(&location))
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    Reply::of(&found(&desk, &call).await?)
}

pub(crate) async fn revoke(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let key = found(&desk, &call).await?;
    call.administrator(&desk).revoke_key(&key.id, call.at).await?;
    get(desk, call).await
}

/// The key of the path, where it is of the account of the path.
async fn found(desk: &Desk, call: &Call) -> Result<ApiKey, Problem> {
    let (account, key): (_, KeyId) = (call.account()?, call.path("key", Code::UnknownKey)?);
    there(desk, &account).await?;
    let found = desk.0.ledger.key(&key).await?.filter(|key| key.account == account);
    found.ok_or_else(|| Problem::new(Code::UnknownKey, format!("there is no key `{key}` of account `{account}`")))
}
