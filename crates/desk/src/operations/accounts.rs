use anbiq_domain::{AccountId, OperatorId, PlanId, TermsId, TermsRef, Timestamp};
use anbiq_ledger::NewAccount;
use serde::{Deserialize, Serialize};

use crate::Desk;
use crate::dispatch::{Call, Reply, no_account};
use crate::fields::{Dollars, Line, Positive};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccountBody {
    id: AccountId,
    plan: PlanId,
    payment: Option<Line>,
    budget: Option<Dollars>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountChange {
    plan: PlanId,
    operator: Option<OperatorId>,
}

/// That an account accepted terms: the version that counts.
#[derive(Serialize)]
struct Acceptance {
    terms: TermsRef,
    accepted: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBudget {
    limit: Dollars,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsRefBody {
    id: TermsId,
    version: Positive,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let page = call.page::<AccountId>()?;
    let found = match &call.caller.account {
        None => desk.0.ledger.accounts(None, &page.0).await?,
        Some(own) if page.0.after.as_deref().is_none_or(|after| after < own.as_str()) => {
            desk.0.ledger.account(own).await?.into_iter().collect()
        }
        Some(_) => Vec::new(),
    };
    page.reply(found, |account| account.id.to_string())
}

pub(crate) async fn open(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let NewAccountBody { id, plan, payment, budget } = call.body()?;
    let account = NewAccount { id, plan, payment: payment.map(|line| line.0), opened: call.at };
    let administrator = call.administrator(&desk);
    let opened = administrator.open_account(&account).await;
    opened.map_err(|error| Problem::from(error).of_body("/plan"))?;
    if let Some(Dollars(limit)) = budget {
        administrator.set_budget(&account.id, limit, call.at).await?;
    }
    Ok(shown(&desk, &account.id).await?.at(&format!("/accounts/{}", account.id)))
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    shown(&desk, &call.account()?).await
}

pub(crate) async fn change(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, AccountChange { plan, operator }) = (call.account()?, call.body()?);
    call.may_replace(&desk).await?;
    let before = desk.0.ledger.account(&account).await?.ok_or_else(|| no_account(&account))?;
    let administrator = call.administrator(&desk);
    if before.plan != plan {
        let set = administrator.set_plan(&account, &plan, call.at).await;
        set.map_err(|error| Problem::from(error).of_body("/plan"))?;
    }
    if before.operator != operator {
        administrator.set_operator(&account, operator.as_ref(), call.at).await?;
    }
    shown(&desk, &account).await
}

pub(crate) async fn close(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let account = call.account()?;
    call.administrator(&desk).close_account(&account, call.at).await?;
    shown(&desk, &account).await
}

pub(crate) async fn budget(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let account = call.account()?;
    let budget = desk.0.ledger.budget(&account).await?.ok_or_else(|| no_account(&account))?;
    Reply::of(&budget)
}

pub(crate) async fn set_budget(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, NewBudget { limit: Dollars(limit) }) = (call.account()?, call.body()?);
    call.may_replace(&desk).await?;
    call.administrator(&desk).set_budget(&account, limit, call.at).await?;
    budget(desk, call).await
}

pub(crate) async fn acceptances(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let account = call.account()?;
    there(&desk, &account).await?;
    let found = desk.0.ledger.acceptances(&account).await?;
    let items: Vec<_> = found.into_iter().map(|(terms, accepted)| Acceptance { terms, accepted }).collect();
    Reply::of(&serde_json::json!({ "items": items }))
}

pub(crate) async fn accept(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, TermsRefBody { id, version: Positive(version) }) = (call.account()?, call.body()?);
    there(&desk, &account).await?;
    let terms = TermsRef { id, version };
    let accepted = call.administrator(&desk).accept_terms(&account, &terms, call.at).await;
    accepted.map_err(|error| Problem::from(error).of_body("/id"))?;
    Reply::of(&Acceptance { terms, accepted: call.at })
}

/// Is there such an account?
pub(crate) async fn there(desk: &Desk, account: &AccountId) -> Result<(), Problem> {
    desk.0.ledger.account(account).await?.map(drop).ok_or_else(|| no_account(account))
}

/// As [`there`], of an account that something is to be made for.
pub(crate) async fn open_there(desk: &Desk, account: &AccountId) -> Result<(), Problem> {
    let found = desk.0.ledger.account(account).await?.ok_or_else(|| no_account(account))?;
    match found.closed {
        None => Ok(()),
        Some(_) => Err(Problem::new(Code::AccountClosed, format!("account `{account}` is closed"))),
    }
}

async fn shown(desk: &Desk, account: &AccountId) -> Result<Reply, Problem> {
    Reply::of(&desk.0.ledger.account(account).await?.ok_or_else(|| no_account(account))?)
}
