use anbiq_ledger::{Budget, BudgetUse, Holder, Measure, Unit};
use serde::Deserialize;
use serde_json::json;

use super::accounts::there;
use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::fields::{BudgetCursor, Count, Dollars, Period, Whose};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoneyLimit {
    limit: Dollars,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenLimit {
    limit: Count,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (page, holder) = (call.page::<BudgetCursor>()?, call.parameter::<Whose>("holder")?);
    let holder = holder.map(|Whose(holder)| holder);
    let found = desk.0.ledger.budgets(holder.as_ref(), call.at, &page.0).await?;
    page.reply(found, BudgetUse::cursor)
}

pub(crate) async fn of_account(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (account, page) = (call.account()?, call.page::<BudgetCursor>()?);
    there(&desk, &account).await?;
    let found = desk.0.ledger.budgets(Some(&Holder::Account(account)), call.at, &page.0).await?;
    page.reply(found, BudgetUse::cursor)
}

pub(crate) async fn set_money(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let MoneyLimit { limit: Dollars(limit) } = call.body()?;
    set(&desk, &call, Measure::Money(limit)).await
}

pub(crate) async fn set_tokens(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let TokenLimit { limit: Count(limit) } = call.body()?;
    set(&desk, &call, Measure::Tokens(limit)).await
}

pub(crate) async fn remove_money(desk: Desk, call: Call) -> Result<Reply, Problem> {
    remove(&desk, &call, Unit::Money).await
}

pub(crate) async fn remove_tokens(desk: Desk, call: Call) -> Result<Reply, Problem> {
    remove(&desk, &call, Unit::Tokens).await
}

async fn set(desk: &Desk, call: &Call, limit: Measure) -> Result<Reply, Problem> {
    let (Whose(holder), Period(window)) = named(call)?;
    let budget = Budget { holder, window, limit };
    call.administrator(desk).put_budget(&budget, call.at).await?;
    Reply::of(&budget)
}

async fn remove(desk: &Desk, call: &Call, unit: Unit) -> Result<Reply, Problem> {
    let (Whose(holder), Period(window)) = named(call)?;
    call.administrator(desk).remove_budget(&holder, unit, window, call.at).await?;
    Reply::of(&json!({ "holder": holder, "window": window, "unit": unit }))
}

fn named(call: &Call) -> Result<(Whose, Period), Problem> {
    Ok((call.path("holder", Code::UnknownBudget)?, call.path("window", Code::UnknownBudget)?))
}
