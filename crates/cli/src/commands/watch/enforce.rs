//! `anbiq watch enforce` and `release`: what is done about an operator, through the ledger.
//!
//! Nothing is done by itself. What is done rests on the journal as it is now, never on a file of findings, and needs a campaign at
//! the stage *act* whose accounts are linked by several independent kinds of evidence. It is made of what the ledger has anyway: its
//! accounts are declared to be of one operator, and that operator gets a budget. So it can be taken back without a trace but in
//! the journal, where both stand.

use std::collections::BTreeSet;

use anbiq_domain::{AccountId, OperatorId, Window};
use anbiq_ledger::{Account, Budget, Holder, Ledger, Measure as Amount, Page, Unit};
use anbiq_watch::{Operator, Stage};
use anyhow::{Context, bail, ensure};

use super::{config, watch};
use crate::args::{How, Measure};
use crate::commands::Outcome;
use crate::commands::admin::Office;
use crate::commands::customers::all;
use crate::site::Site;
use crate::talk::Talk;

/// The windows of the budgets by which operators are slowed down, held and refused, always in tokens.
const WINDOWS: [Window; 3] = [Window::Day, Window::Week, Window::Total];
/// Kinds of evidence that must link an operator's accounts.
const KINDS: usize = 2;

pub(super) async fn run(measure: &Measure, talk: Talk) -> anyhow::Result<Outcome> {
    match measure {
        Measure::Enforce { operator, how, tokens, reason, dry_run, method, site } => {
            let id: OperatorId = operator.parse()?;
            let journal = Site::load(&site.config)?.config.journal.path;
            let report = watch(&journal, &config(method))?;
            let found = report.operators.iter().find(|found| found.id == id);
            let found = found.with_context(|| format!("the journal shows no operator `{id}`"))?;
            let kinds = may_be_acted_on(found)?;
            let accounts: Vec<AccountId> = found.accounts.iter().map(|member| member.account.clone()).collect();
            let slow = tokens.unwrap_or(0);
            let (limit, window, words) = match how {
                How::Slow => (slow, Window::Day, format!("slowed down to {slow} tokens a day")),
                How::Hold => (0, Window::Week, "held for review".to_owned()),
                How::Refuse => (0, Window::Total, "refused".to_owned()),
            };
            let said = format!(
                "{words}: {} accounts, linked by {}",
                accounts.len(),
                kinds.iter().copied().collect::<Vec<_>>().join(", ")
            );
            if *dry_run {
                talk.say(&format!("operator `{id}` would be {said}"));
                return Ok(Outcome::Fine);
            }
            let office = Office::open(&site.config).await?;
            free_for(&office.ledger, &accounts, &id).await?;
            for account in &accounts {
                office.administrator.set_operator(account, Some(&id), office.now()).await?;
            }
            // One measure takes the place of the one before.
            lift(&office, &id).await?;
            let budget = Budget { holder: Holder::Operator(id.clone()), window, limit: Amount::Tokens(limit) };
            office.administrator.put_budget(&budget, office.now()).await?;
            let detail = format!("{said}; {reason}");
            office.administrator.measure("watch.enforce", &id, detail, office.now()).await?;
            talk.say(&format!("operator `{id}` is {said}"));
            office.close().await?;
        }
        Measure::Release { operator, reason, site } => {
            let id: OperatorId = operator.parse()?;
            let office = Office::open(&site.config).await?;
            let accounts = declared(&office.ledger, &id).await?;
            ensure!(!accounts.is_empty(), "nothing was done about an operator `{id}`");
            lift(&office, &id).await?;
            for account in &accounts {
                office.administrator.set_operator(&account.id, None, office.now()).await?;
            }
            let said = format!("{} accounts", accounts.len());
            let detail = format!("{said}; {reason}");
            office.administrator.measure("watch.release", &id, detail, office.now()).await?;
            talk.say(&format!("operator `{id}` is released: {said}"));
            office.close().await?;
        }
    }
    Ok(Outcome::Fine)
}

/// The kinds of evidence that link the accounts of `operator`, where something may be done about it.
fn may_be_acted_on(operator: &Operator) -> anyhow::Result<BTreeSet<&'static str>> {
    let stage = operator.alarm.as_ref().map_or(Stage::Watch, |alarm| alarm.stage);
    if stage != Stage::Act {
        bail!(
            "operator `{}` is at the stage `{}`\nhint: something is only done about a campaign at the stage `act`",
            operator.id,
            stage.name()
        );
    }
    // What holds most accounts, not what a pair of them happens to share.
    let kinds: BTreeSet<&str> = operator
        .accounts
        .iter()
        .flat_map(|member| member.reasons.iter().map(|reason| reason.channel.family()))
        .collect();
    let most = |kind: &&str| {
        let with = operator
            .accounts
            .iter()
            .filter(|member| member.reasons.iter().any(|reason| reason.channel.family() == *kind));
        2 * with.count() > operator.accounts.len()
    };
    let kinds: BTreeSet<&str> = kinds.into_iter().filter(most).collect();
    ensure!(kinds.len() >= KINDS, "the accounts of `{}` are not linked by {KINDS} kinds of evidence", operator.id);
    Ok(kinds)
}

/// Is each of `accounts` there, and of no other operator?
async fn free_for(ledger: &Ledger, accounts: &[AccountId], id: &OperatorId) -> anyhow::Result<()> {
    for account in accounts {
        let known = ledger.account(account).await?.with_context(|| format!("the ledger has no account `{account}`"))?;
        if let Some(other) = known.operator.filter(|other| other != id) {
            bail!(
                "account `{account}` is declared to be of operator `{other}`\nhint: anbiq account set {account} --no-operator, if that is wrong"
            );
        }
    }
    Ok(())
}

/// Takes away the budgets by which `operator` is slowed down, held or refused.
async fn lift(office: &Office, operator: &OperatorId) -> anyhow::Result<()> {
    let holder = Holder::Operator(operator.clone());
    let held = office.ledger.budgets(Some(&holder), office.now(), &Page::default()).await?;
    for budget in held.into_iter().map(|held| held.budget) {
        if budget.limit.unit() == Unit::Tokens && WINDOWS.contains(&budget.window) {
            office.administrator.remove_budget(&holder, Unit::Tokens, budget.window, office.now()).await?;
        }
    }
    Ok(())
}

/// The accounts that are declared to be of `operator`.
async fn declared(ledger: &Ledger, operator: &OperatorId) -> anyhow::Result<Vec<Account>> {
    all(async |page| ledger.accounts(Some(operator), &page).await, |account: &Account| account.id.to_string()).await
}
