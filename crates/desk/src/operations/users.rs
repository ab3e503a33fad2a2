use anbiq_domain::UserId;
use anbiq_ledger::User;
use serde::Deserialize;
use serde_json::json;

use super::accounts::{open_there, there};
use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::fields::Line;
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    id: UserId,
    name: Option<Line>,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, page) = (call.account()?, call.page::<UserId>()?);
    there(&desk, &account).await?;
    let found = desk.0.ledger.users(&account, &page.0).await?;
    page.reply(found, |user| user.id.to_string())
}

pub(crate) async fn add(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, NewUser { id, name }) = (call.account()?, call.body()?);
    open_there(&desk, &account).await?;
    let user = User { account, id, name: name.map(|line| line.0), added: call.at };
    call.administrator(&desk).add_user(&user).await?;
    Reply::of(&user)
}

pub(crate) async fn remove(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, user): (_, UserId) = (call.account()?, call.path("user", Code::UnknownUser)?);
    there(&desk, &account).await?;
    let revoked = call.administrator(&desk).remove_user(&account, &user, call.at).await?;
    Reply::of(&json!({ "account": account, "user": user, "revoked_keys": revoked }))
}
