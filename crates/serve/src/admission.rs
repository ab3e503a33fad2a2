//! What is allowed, at which price, and whether it is twinned.

use std::sync::Arc;

use anbiq_domain::{
    ExchangeId, Grant, GrantId, GrantState, Money, Permission, PriceClass, PriceList, Prompt, Terms, TermsRef,
    Timestamp, Usage,
};
use anbiq_ledger::{LedgerError, ReservationId, Session};
use anbiq_model::{Model, Request};

use crate::gateway::{Inner, Shared};
use crate::rejection::Rejection;
use crate::request::Asked;
use crate::twins::{self, Candidate, Lot};

/// A request that may be answered; its money is reserved.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) id: ExchangeId,
    pub(crate) terms: Option<TermsRef>,
    pub(crate) price: Price,
    pub(crate) max_tokens: u32,
    pub(crate) lot: Lot,
    /// Passed on in place of the customer's seed, where there is one.
    pub(crate) seed: Option<u64>,
    pub(crate) reservation: ReservationId,
    pub(crate) reserved: Money,
}

/// At which price, and under which grant.
#[derive(Debug, Clone)]
pub(crate) struct Price {
    pub(crate) list: PriceList,
    pub(crate) class: PriceClass,
    pub(crate) grant: Option<GrantId>,
}

/// Admits `asked`, or says why not. `declared` is use that the customer itself calls distillation.
pub(crate) async fn admit(
    gateway: &Shared,
    session: &Session,
    asked: &Asked,
    declared: bool,
    at: Timestamp,
) -> Result<Admitted, Rejection> {
    let model = gateway.models.get(&asked.model).ok_or_else(|| {
        let message = format!("the model `{}` does not exist", asked.model);
        Rejection::not_found("model_not_found", Some("model"), message)
    })?;
    asked.check(model.abilities())?;
    let terms = gateway.ledger.terms_of_teacher(&asked.model).await?;
    check_terms(session, terms.as_ref())?;
    let grant = grant_of(gateway, session, terms.as_ref(), declared, at).await?;
    let max_tokens = check_plan(session, asked, grant.is_some(), model.abilities().context)?;
    let mut price = price(gateway, &asked.model, grant).await?;
    let most = Usage {
        prompt_tokens: prompt_bound(&asked.prompt, model.abilities().context),
        completion_tokens: u64::from(asked.n) * u64::from(max_tokens),
        twin_tokens: 0,
    };
    let (reservation, reserved) = reserve(gateway, session, &mut price, most, declared, at).await?;
    let number = gateway.accounts().count(&session.account);
    let id = gateway.exchange_id(at, session.account.as_str(), number);
    let most = price.list.cost(most, PriceClass::Standard);
    let lot = twins::draw_lots(gateway, &Candidate { session, asked, id, number, max_tokens, most, at });
    let mixed = |seed| if session.plan.twin.covers(&asked.model) { twins::mix_seed(gateway, id, seed) } else { seed };
    let seed = asked.sampling.seed.map(mixed);
    let terms = terms.map(|terms| terms.reference());
    Ok(Admitted { model: Arc::clone(model), id, terms, price, max_tokens, lot, seed, reservation, reserved })
}

/// The most that the completions of `request` can use, none of them twins.
pub(crate) fn most_of(request: &Request, context: Option<u32>) -> Usage {
    Usage {
        prompt_tokens: prompt_bound(&request.prompt, context),
        completion_tokens: u64::from(request.n) * u64::from(request.max_tokens),
        ..Usage::default()
    }
}

/// More tokens than `prompt` can have: no tokenizer here makes more tokens than bytes, and a chat template adds a few
/// to each message and a few to the whole.
fn prompt_bound(prompt: &Prompt, context: Option<u32>) -> u64 {
    let bound = match prompt {
        Prompt::Chat(messages) => 64 + messages.iter().map(|message| 8 + message.content.len() as u64).sum::<u64>(),
        Prompt::Text(text) => 8 + text.len() as u64,
    };
    context.map_or(bound, |context| bound.min(context.into()))
}

/// Has the account accepted the teacher's terms as they are now?
fn check_terms(session: &Session, terms: Option<&Terms>) -> Result<(), Rejection> {
    let Some(current) = terms.map(Terms::reference) else { return Ok(()) };
    if session.accepted.contains(&current) {
        return Ok(());
    }
    let message = format!("accept version {} of the terms `{}` first", current.version, current.id);
    Err(Rejection::forbidden("terms_not_accepted", message))
}

/// The grant that the request is made under, if it is made under one.
///
/// Use that is declared as distillation needs whatever the terms ask for it. Use that is not falls back to the ordinary
/// price where a grant no longer holds.
async fn grant_of(
    gateway: &Inner,
    session: &Session,
    terms: Option<&Terms>,
    declared: bool,
    at: Timestamp,
) -> Result<Option<Grant>, Rejection> {
    let Some(terms) = terms else { return Ok(None) };
    match gateway.ledger.grant_of(&session.account, &terms.id, at).await? {
        Some((grant, GrantState::Active, _)) => return Ok(Some(grant)),
        Some((grant, state, _)) if declared => return Err(lapsed(&grant, state)),
        _ => {}
    }
    match terms.distillation {
        _ if !declared => Ok(None),
        Permission::Allowed => Ok(None),
        Permission::Forbidden => {
            let message = format!("the terms `{}` forbid distillation", terms.id);
            Err(Rejection::forbidden("distillation_forbidden", message))
        }
        Permission::GrantRequired | Permission::Unknown => {
            let message = format!("distillation needs a grant under the terms `{}`", terms.id);
            Err(Rejection::forbidden("grant_required", message))
        }
    }
}

fn lapsed(grant: &Grant, state: GrantState) -> Rejection {
    match state {
        GrantState::Revoked => LedgerError::GrantRevoked(grant.id.clone()).into(),
        GrantState::UsedUp => LedgerError::GrantUsedUp(grant.id.clone()).into(),
        GrantState::Expired | GrantState::Active => LedgerError::GrantExpired(grant.id.clone()).into(),
    }
}

/// Applies the plan's limits; gives the longest answer, in tokens.
fn check_plan(session: &Session, asked: &Asked, granted: bool, context: Option<u32>) -> Result<u32, Rejection> {
    let plan = &session.plan;
    if asked.n > plan.max_n {
        return Err(Rejection::value("n", format!("`n` is at most {} on the plan `{}`", plan.max_n, plan.id)));
    }
    // Log-probabilities make distillation much easier, so a plan may keep them back; a grant opens them.
    if let Some(logprobs) = asked.logprobs.filter(|_| !granted) {
        match plan.max_logprobs {
            None => {
                let message = format!("the plan `{}` gives no log-probabilities", plan.id);
                let refused = Rejection::forbidden("logprobs_not_allowed", message);
                return Err(Rejection { param: Some("logprobs".to_owned()), ..refused });
            }
            Some(most) if logprobs > most => {
                let field = asked.logprobs_field();
                let message = format!("`{field}` is at most {most} on the plan `{}`", plan.id);
                let refused = Rejection::forbidden("logprobs_not_allowed", message);
                return Err(Rejection { param: Some(field.to_owned()), ..refused });
            }
            Some(_) => {}
        }
    }
    if let Some(tokens) = asked.max_tokens.filter(|tokens| *tokens > plan.max_tokens) {
        let message = format!("`max_tokens` is at most {} on the plan `{}`, not {tokens}", plan.max_tokens, plan.id);
        return Err(Rejection::value("max_tokens", message));
    }
    let most = asked.max_tokens.unwrap_or(plan.max_tokens);
    Ok(context.map_or(most, |context| most.min(context)))
}

async fn price(gateway: &Inner, model: &str, grant: Option<Grant>) -> Result<Price, Rejection> {
    let list = gateway.ledger.prices(model).await?.unwrap_or(PriceList::FREE);
    let class = if grant.is_some() { PriceClass::Distillation } else { PriceClass::Standard };
    Ok(Price { list, class, grant: grant.map(|grant| grant.id) })
}

/// Reserves the most that the request can cost: its twins cost the customer nothing.
///
/// Where what is left of the grant cannot hold it, undeclared use falls back to the ordinary price.
async fn reserve(
    gateway: &Inner,
    session: &Session,
    price: &mut Price,
    most: Usage,
    declared: bool,
    at: Timestamp,
) -> Result<(ReservationId, Money), Rejection> {
    loop {
        let amount = price.list.cost(most, price.class);
        let volume = price.grant.clone().map(|grant| (grant, most.completion_tokens));
        let granted = volume.is_some();
        match gateway.ledger.reserve(&session.account, amount, volume, at, lifetime(gateway, at)).await {
            Ok(reservation) => return Ok((reservation, amount)),
            Err(LedgerError::GrantUsedUp(_) | LedgerError::GrantExpired(_) | LedgerError::GrantRevoked(_))
                if granted && !declared =>
            {
                price.class = PriceClass::Standard;
                price.grant = None;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long a reservation lives after the moment `at`.
///
/// A simulated moment may be far from the gateway's own, by which reservations expire.
fn lifetime(gateway: &Inner, at: Timestamp) -> i64 {
    let ttl = i64::try_from(gateway.config.reservation_ttl_ms).unwrap_or(i64::MAX);
    gateway.clock.now().since(at).saturating_add(ttl)
}
