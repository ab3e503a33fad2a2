use anbiq_domain::{AccountId, Conditions, Grant, GrantId, TermsId, TermsRef};
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

/// What is asked for, for the account of the path.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantRequest {
    id: GrantId,
    terms: TermsRefBody,
    purpose: Line,
    #[serde(default)]
    conditions: ConditionsBody,
    expires: Option<Moment>,
}

/// As what a grant is approved; what is absent is as it was asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    conditions: Option<ConditionsBody>,
    expires: Option<Moment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    reason: Line,
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
    let NewGrant { id, account, terms, purpose, conditions, expires } = call.body()?;
    open_there(&desk, &account).await.map_err(|problem| problem.of_body("/account"))?;
    let grant = GrantRequest { id, terms, purpose, conditions, expires }.of(account, &call);
    let given = call.administrator(&desk).give_grant(&grant).await;
    given.map_err(|error| Problem::from(error).of_body("/terms"))?;
    made(&desk, &call, &grant.id).await
}

pub(crate) async fn ask(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, request): (_, GrantRequest) = (call.account()?, call.body()?);
    open_there(&desk, &account).await?;
    let grant = request.of(account, &call);
    let asked = call.administrator(&desk).ask_grant(&grant).await;
    asked.map_err(|error| Problem::from(error).of_body("/terms"))?;
    made(&desk, &call, &grant.id).await
}

pub(crate) async fn approve(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let grant = call.path("grant", Code::UnknownGrant)?;
    let Approval { conditions, expires } = call.body()?;
    let (conditions, expires) = (conditions.map(Conditions::from), expires.map(|moment| moment.0));
    call.administrator(&desk).approve_grant(&grant, conditions.as_ref(), expires, call.at).await?;
    get(desk, call).await
}

pub(crate) async fn refuse(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let grant = call.path("grant", Code::UnknownGrant)?;
    let Refusal { reason } = call.body()?;
    call.administrator(&desk).refuse_grant(&grant, &reason.0, call.at).await?;
    get(desk, call).await
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

impl GrantRequest {
    fn of(self, account: AccountId, call: &Call) -> Grant {
        Grant {
            id: self.id,
            account,
            terms: TermsRef { id: self.terms.id, version: self.terms.version.0 },
            purpose: self.purpose.0,
            conditions: self.conditions.into(),
            given: call.at,
            expires: self.expires.map(|moment| moment.0),
        }
    }
}

async fn made(desk: &Desk, call: &Call, grant: &GrantId) -> Result<Reply, Problem> {
    Ok(Reply::of(&found(desk, call, grant).await?)?.at(&format!("/grants/{grant}")))
}

/// The grant `grant`, where it is of an account that the caller sees.
async fn found(desk: &Desk, call: &Call, grant: &GrantId) -> Result<GrantRecord, Problem> {
    let found = desk.0.ledger.grant(grant, call.at).await?.filter(|record| call.sees(&record.grant.account));
    found.ok_or_else(|| Problem::new(Code::UnknownGrant, format!("there is no grant `{grant}`")))
}
