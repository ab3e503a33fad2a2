use anbiq_domain::{AccountId, Grant, GrantId, TermsId, TermsRef};
use anbiq_ledger::GrantRecord;
use serde::Deserialize;

use super::accounts::open_there;
use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::fields::{ConditionsBody, Line, Moment, Positive};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    id: GrantId,
    account: AccountId,
    terms: TermsRefBody,
    purpose: Line,
    #[serde(default)]
    conditions: ConditionsBody,
    expires: Option<Moment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsRefBody {
    id: TermsId,
    version: Positive,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (page, of): (_, Option<AccountId>) = (call.page::<GrantId>()?, call.parameter("account")?);
    if of.as_ref().is_some_and(|account| !call.sees(account)) {
        return page.reply(Vec::<GrantRecord>::new(), |_| String::new());
    }
    let of = of.as_ref().or(call.caller.account.as_ref());
    let found = desk.0.ledger.grants(of, call.at, &page.0).await?;
    page.reply(found, |record| record.grant.id.to_string())
}

pub(crate) async fn give(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let body: NewGrant = call.body()?;
    open_there(&desk, &body.account).await.map_err(|problem| problem.of_body("/account"))?;
    let grant = Grant {
        id: body.id,
        account: body.account,
        terms: TermsRef { id: body.terms.id, version: body.terms.version.0 },
        purpose: body.purpose.0,
        conditions: body.conditions.into(),
        given: call.at,
        expires: body.expires.map(|moment| moment.0),
    };
    let given = call.administrator(&desk).give_grant(&grant).await;
    given.map_err(|error| Problem::from(error).of_body("/terms"))?;
    Ok(Reply::of(&found(&desk, &call, &grant.id).await?)?.at(&format!("/grants/{}", grant.id)))
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let grant = call.path("grant", Code::UnknownGrant)?;
    Reply::of(&found(&desk, &call, &grant).await?)
}

pub(crate) async fn revoke(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let grant = call.path("grant", Code::UnknownGrant)?;
    call.administrator(&desk).revoke_grant(&grant, call.at).await?;
    get(desk, call).await
}

/// The grant `grant`, where it is of an account that the caller sees.
async fn found(desk: &Desk, call: &Call, grant: &GrantId) -> Result<GrantRecord, Problem> {
    let found = desk.0.ledger.grant(grant, call.at).await?.filter(|record| call.sees(&record.grant.account));
    found.ok_or_else(|| Problem::new(Code::UnknownGrant, format!("there is no grant `{grant}`")))
}
