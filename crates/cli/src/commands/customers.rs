//! Accounts, users, keys and budgets of an installation.

use std::path::Path;

use anbiq_domain::{AccountId, KeyId, Money, OperatorId, Timestamp};
use anbiq_ledger::{
    Account as AccountState, Budget as Limit, BudgetUse, Holder as Whose, KeyState, Ledger, LedgerError, Measure,
    NewAccount, NewKey, Page, Scopes, Unit as LimitUnit, User as Person,
};
use anyhow::Context;

use super::Outcome;
use super::admin::{Office, in_days};
use crate::args::{Account, Budget, Holder, Key, Scope, Unit, User};
use crate::site::Site;
use crate::talk::{self, Talk};

pub(crate) async fn account(args: Account, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Account::Open { account, plan, payment, budget, operator, site } => {
            let office = Office::open(&site.config).await?;
            let account = NewAccount { id: account.parse()?, plan: plan.parse()?, payment, opened: office.now() };
            let limit = budget.map(|budget| budget.parse::<Money>()).transpose()?;
            let operator = operator.map(|operator| operator.parse::<OperatorId>()).transpose()?;
            office.administrator.open_account(&account).await?;
            if operator.is_some() {
                office.administrator.set_operator(&account.id, operator.as_ref(), office.now()).await?;
            }
            if let Some(limit) = limit {
                office.administrator.set_budget(&account.id, limit, office.now()).await?;
            }
            talk.say(&format!("opened account `{}` on plan `{}`", account.id, account.plan));
            office.close().await?;
        }
        Account::Set { account, plan, operator, no_operator, site } => {
            let office = Office::open(&site.config).await?;
            let account: AccountId = account.parse()?;
            if let Some(plan) = plan {
                office.administrator.set_plan(&account, &plan.parse()?, office.now()).await?;
                talk.say(&format!("account `{account}` is on plan `{plan}`"));
            }
            let operator = operator.map(|operator| operator.parse::<OperatorId>()).transpose()?;
            if operator.is_some() || no_operator {
                office.administrator.set_operator(&account, operator.as_ref(), office.now()).await?;
                let whose = operator.map_or("no operator".to_owned(), |operator| format!("operator `{operator}`"));
                talk.say(&format!("account `{account}` belongs to {whose}"));
            }
            office.close().await?;
        }
        Account::List { operator, json, site } => {
            let ledger = ledger(&site.config).await?;
            let operator = operator.map(|operator| operator.parse::<OperatorId>()).transpose()?;
            let accounts = all(
                async |page| ledger.accounts(operator.as_ref(), &page).await,
                |account: &AccountState| account.id.to_string(),
            );
            let accounts = accounts.await?;
            if json { talk::json(&accounts)? } else { talk::data(&list(&accounts, describe_account))? }
        }
        Account::Close { account, site } => {
            let office = Office::open(&site.config).await?;
            let account: AccountId = account.parse()?;
            office.administrator.close_account(&account, office.now()).await?;
            talk.say(&format!("closed account `{account}`"));
            office.close().await?;
        }
        Account::Forget { account, site } => {
            let office = Office::open(&site.config).await?;
            let account: AccountId = account.parse()?;
            let forgotten = office.administrator.forget_texts(&account, &office.site.text_keys(), office.now()).await?;
            talk.say(&if forgotten {
                format!("destroyed the key of `{account}`: nobody can read its sealed texts again")
            } else {
                format!("account `{account}` has no key of sealed texts: there is nothing to destroy")
            });
            office.close().await?;
        }
        Account::Budget { account, limit, site } => {
            let account: AccountId = account.parse()?;
            if let Some(limit) = limit {
                let office = Office::open(&site.config).await?;
                office.administrator.set_budget(&account, limit.parse()?, office.now()).await?;
                office.close().await?;
            }
            let ledger = ledger(&site.config).await?;
            let budget = ledger.budget(&account).await?.ok_or(LedgerError::UnknownAccount(account))?;
            talk::json(&budget)?;
        }
    }
    Ok(Outcome::Fine)
}

pub(crate) async fn key(args: Key, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Key::Issue { account, days, name, user, scope, model, site } => {
            let office = Office::open(&site.config).await?;
            let new = NewKey {
                account: account.parse()?,
                name,
                user: user.map(|user| user.parse()).transpose()?,
                scopes: Scopes {
                    routes: (!scope.is_empty()).then(|| scope.into_iter().map(route).collect()),
                    models: (!model.is_empty()).then_some(model),
                },
                expires: days.map(|days| in_days(office.now(), days)),
                issued: office.now(),
            };
            let (id, key) = office.administrator.issue_key(&new).await?;
            talk.say(&format!("key `{id}`; it is shown this once:"));
            talk::data(key.expose())?;
            office.close().await?;
        }
        Key::Rotate { key, grace, site } => {
            let office = Office::open(&site.config).await?;
            let old: KeyId = key.parse()?;
            let grace = milliseconds(&grace)?;
            let (id, key) = office.administrator.rotate_key(&old, grace, office.now()).await?;
            let end = office.now().plus_milliseconds(grace);
            talk.say(&format!("key `{id}` takes the place of `{old}`, which holds until {}", seconds(end)));
            talk.say("it is shown this once:");
            talk::data(key.expose())?;
            office.close().await?;
        }
        Key::List { account, json, site } => {
            let ledger = ledger(&site.config).await?;
            let account = known(&ledger, &account).await?;
            let keys =
                all(async |page| ledger.keys(Some(&account), &page).await, |key: &KeyState| key.id.to_string()).await?;
            if json { talk::json(&keys)? } else { talk::data(&list(&keys, describe_key))? }
        }
        Key::Revoke { key, site } => {
            let office = Office::open(&site.config).await?;
            let key: KeyId = key.parse()?;
            office.administrator.revoke_key(&key, office.now()).await?;
            talk.say(&format!("revoked key `{key}`"));
            office.close().await?;
        }
    }
    Ok(Outcome::Fine)
}

pub(crate) async fn user(args: User, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        User::Add { account, user, name, site } => {
            let office = Office::open(&site.config).await?;
            let user = Person { account: account.parse()?, id: user.parse()?, name, added: office.now() };
            office.administrator.add_user(&user).await?;
            talk.say(&format!("added user `{}` to account `{}`", user.id, user.account));
            office.close().await?;
        }
        User::Remove { account, user, site } => {
            let office = Office::open(&site.config).await?;
            let administrator = &office.administrator;
            let revoked = administrator.remove_user(&account.parse()?, &user.parse()?, office.now()).await?;
            talk.say(&format!("removed user `{user}` from account `{account}`, and revoked {revoked} keys"));
            office.close().await?;
        }
        User::List { account, json, site } => {
            let ledger = ledger(&site.config).await?;
            let account = known(&ledger, &account).await?;
            let users =
                all(async |page| ledger.users(&account, &page).await, |user: &Person| user.id.to_string()).await?;
            let line = |user: &Person| format!("{:<24} {}", user.id.as_str(), user.name.as_deref().unwrap_or("-"));
            if json { talk::json(&users)? } else { talk::data(&list(&users, line))? }
        }
    }
    Ok(Outcome::Fine)
}

pub(crate) async fn budget(args: Budget, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Budget::Set { holder, window, money, tokens, site } => {
            let limit = match (money, tokens) {
                (Some(money), _) => Measure::Money(money.parse()?),
                (None, tokens) => Measure::Tokens(tokens.unwrap_or_default()),
            };
            let budget = Limit { holder: whose(holder)?, window: window.parse()?, limit };
            let office = Office::open(&site.config).await?;
            office.administrator.put_budget(&budget, office.now()).await?;
            talk.say(&format!("`{}` may spend {} for window `{}`", budget.holder, budget.limit, budget.window));
            office.close().await?;
        }
        Budget::Remove { holder, window, unit, site } => {
            let (holder, window) = (whose(holder)?, window.parse()?);
            let unit = match unit {
                Unit::Money => LimitUnit::Money,
                Unit::Tokens => LimitUnit::Tokens,
            };
            let office = Office::open(&site.config).await?;
            office.administrator.remove_budget(&holder, unit, window, office.now()).await?;
            talk.say(&format!("removed the budget of `{holder}` in {} for window `{window}`", unit.as_str()));
            office.close().await?;
        }
        Budget::List { account, key, operator, json, site } => {
            let site = Site::load(&site.config)?;
            let ledger = site.ledger().await?;
            let named = account.is_some() || key.is_some() || operator.is_some();
            let holder = named.then(|| whose(Holder { account, key, operator })).transpose()?;
            let uses = all(async |page| ledger.budgets(holder.as_ref(), site.now(), &page).await, BudgetUse::cursor);
            let uses = uses.await?;
            if json { talk::json(&uses)? } else { talk::data(&list(&uses, describe_budget))? }
        }
    }
    Ok(Outcome::Fine)
}

pub(super) async fn ledger(config: &Path) -> anyhow::Result<Ledger> {
    Site::load(config)?.ledger().await
}

async fn known(ledger: &Ledger, account: &str) -> anyhow::Result<AccountId> {
    let account: AccountId = account.parse()?;
    if ledger.account(&account).await?.is_none() {
        return Err(LedgerError::UnknownAccount(account).into());
    }
    Ok(account)
}

/// Every page of a list, one after the other.
pub(super) async fn all<T>(
    read: impl AsyncFn(Page) -> Result<Vec<T>, LedgerError>,
    cursor: impl Fn(&T) -> String,
) -> anyhow::Result<Vec<T>> {
    let mut every = Vec::new();
    loop {
        let page = Page { after: every.last().map(&cursor), limit: 1000 };
        let more = read(page).await?;
        if more.is_empty() {
            return Ok(every);
        }
        every.extend(more);
    }
}

fn whose(holder: Holder) -> anyhow::Result<Whose> {
    Ok(match (holder.account, holder.key, holder.operator) {
        (Some(account), ..) => Whose::Account(account.parse()?),
        (_, Some(key), _) => Whose::Key(key.parse()?),
        (_, _, operator) => Whose::Operator(operator.unwrap_or_default().parse()?),
    })
}

const fn route(scope: Scope) -> anbiq_ledger::Scope {
    match scope {
        Scope::Chat => anbiq_ledger::Scope::Chat,
        Scope::Completions => anbiq_ledger::Scope::Completions,
        Scope::Embeddings => anbiq_ledger::Scope::Embeddings,
        Scope::Responses => anbiq_ledger::Scope::Responses,
        Scope::Models => anbiq_ledger::Scope::Models,
    }
}

/// Reads a length of time such as `24h`.
fn milliseconds(text: &str) -> anyhow::Result<i64> {
    let wrong = || format!("`{text}` is no length of time: write a number and `s`, `m`, `h` or `d`, such as `24h`");
    let unit = text.chars().last().with_context(wrong)?;
    let factor = match unit {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 24 * 3_600_000,
        _ => anyhow::bail!(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().ok().with_context(wrong)?;
    Ok(i64::from(number) * factor)
}

pub(super) fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_milliseconds(at.milliseconds().div_euclid(1000) * 1000)
}

pub(super) fn list<T>(items: &[T], line: impl Fn(&T) -> String) -> String {
    if items.is_empty() { "none".to_owned() } else { items.iter().map(line).collect::<Vec<_>>().join("\n") }
}

fn describe_account(account: &AccountState) -> String {
    let operator = account.operator.as_ref().map_or("-", OperatorId::as_str);
    let state = account.closed.map_or("open".to_owned(), |at| format!("closed {}", seconds(at)));
    let (id, plan) = (account.id.as_str(), account.plan.as_str());
    format!("{id:<24} plan {plan:<12} operator {operator:<12} {state}")
}

fn describe_key(key: &KeyState) -> String {
    let KeyState { id, name, user, scopes, expires, revoked, .. } = key;
    let state = match (revoked, expires) {
        (Some(at), _) => format!("revoked {}", seconds(*at)),
        (None, Some(end)) => format!("until {}", seconds(*end)),
        (None, None) => "holds".to_owned(),
    };
    let routes = scopes
        .routes
        .as_ref()
        .map_or("all".to_owned(), |routes| routes.iter().map(|route| route.as_str()).collect::<Vec<_>>().join(","));
    let models = scopes.models.as_ref().map_or("all".to_owned(), |models| models.join(","));
    let mut text = format!("{id}  {state:<28} routes {routes}, models {models}");
    if let Some(user) = user {
        text.push_str(&format!(", user {user}"));
    }
    if let Some(name) = name {
        text.push_str(&format!(", \"{name}\""));
    }
    text
}

fn describe_budget(one: &BudgetUse) -> String {
    let BudgetUse { budget: Limit { holder, window, limit }, spent, reserved, ends } = one;
    let (whose, window) = (holder.to_string(), window.to_string());
    let until = ends.map_or(String::new(), |end| format!(", until {end}"));
    format!("{whose:<24} {window:<6} {spent} of {limit} spent, {reserved} reserved{until}")
}
