use anbiq_domain::{AccountId, KeyId};
use anbiq_ledger::{AdminKey, AdminRole, NewAdminKey};
use serde::Deserialize;
use serde_json::json;

use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::fields::{Line, Moment};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAdminKeyBody {
    role: AdminRole,
    account: Option<AccountId>,
    note: Option<Line>,
    expires: Option<Moment>,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let page = call.page::<KeyId>()?;
    let found = desk.0.ledger.admin_keys(&page.0).await?;
    page.reply(found, |key| key.id.to_string())
}

pub(crate) async fn issue(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let NewAdminKeyBody { role, account, note, expires } = call.body()?;
    let expires = expires.map(|moment| moment.0);
    let new = NewAdminKey { role, account, note: note.map(|line| line.0), expires };
    let issued = call.administrator(&desk).issue_admin_key(&new, call.at).await;
    let (id, secret) = issued.map_err(|error| Problem::from(error).of_body("/account"))?;
    let location = format!("/admin-keys/{id}");
    let NewAdminKey { role, account, note, expires } = new;
    let key = AdminKey { id, role, account, note, issued: call.at, expires, revoked: None };
    Ok(Reply::of(&json!({ "key": key, "secret": secret.expose() }))?.at(&location))
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let key: KeyId = call.path("key", Code::UnknownKey)?;
    let absent = || Problem::new(Code::UnknownKey, format!("there is no admin key `{key}`"));
    Reply::of(&desk.0.ledger.admin_key(&key).await?.ok_or_else(absent)?)
}

pub(crate) async fn revoke(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let key: KeyId = call.path("key", Code::UnknownKey)?;
    call.administrator(&desk).revoke_admin_key(&key, call.at).await?;
    get(desk, call).await
}
