//! What is allowed, at which price, and whether it is twinned.

use std::sync::Arc;

use anbiq_domain::{
    ExchangeId, Grant, GrantId, GrantState, Message, Money, Permission, PriceClass, PriceList, Prompt, Terms, TermsRef,
    Timestamp, Usage,
};
use anbiq_ledger::{LedgerError, ReservationId, Session};
use anbiq_model::Model;

use crate::fields;
use crate::gateway::Inner;
use crate::rejection::Rejection;
use crate::request::Asked;

/// A request that may be answered; its money is reserved.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) id: ExchangeId,
    pub(crate) terms: Option<TermsRef>,
    pub(crate) price: Price,
    pub(crate) max_tokens: u32,
    pub(crate) served: Served,
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

/// Which draws are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// All of them.
    All(u32),
    /// One of several; the others are its twins.
    One {
        /// Which.
        index: u8,
        /// Of how many.
        draws: u8,
    },
}

impl Served {
    pub(crate) const fn draws(self) -> u32 {
        match self {
            Self::All(n) => n,
            Self::One { draws, .. } => draws as u32,
        }
    }

    /// The place among the answers of the draw `index`, where it is served.
    pub(crate) fn choice(self, index: u32) -> Option<u32> {
        match self {
            Self::All(_) => Some(index),
            Self::One { index: served, .. } => (u32::from(served) == index).then_some(0),
        }
    }

    /// The draws that are served, in the order of the answers.
    pub(crate) fn indices(self) -> std::ops::Range<u32> {
        match self {
            Self::All(n) => 0..n,
            Self::One { index, .. } => u32::from(index)..u32::from(index) + 1,
        }
    }
}

/// Admits `asked`, or says why not. `declared` is use that the customer itself calls distillation.
pub(crate) async fn admit(
    gateway: &Inner,
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
        prompt_tokens: prompt_bound(asked, model.abilities().context),
        completion_tokens: u64::from(asked.n) * u64::from(max_tokens),
        ..Usage::default()
    };
    let (reservation, reserved) = reserve(gateway, session, &mut price, most, declared, at).await?;
    let (id, served) = draw_lots(gateway, session, asked, model.as_ref(), at);
    let terms = terms.map(|terms| terms.reference());
    Ok(Admitted { model: Arc::clone(model), id, terms, price, max_tokens, served, reservation, reserved })
}

/// Tokens that are reserved for a part of a message that is no text, such as an image: servers count it by rules of
/// their own. What it takes beyond them is the provider's loss, since nobody is charged more than was reserved.
const PART_TOKENS: u64 = 1 << 16;

/// More tokens than the prompt of `asked` can have: no tokenizer here makes more tokens than bytes, and a chat template
/// adds a few to each message and each call, and a few to the whole. Tools and forms are told the model as text.
fn prompt_bound(asked: &Asked, context: Option<u32>) -> u64 {
    let message = |message: &Message| {
        let parts = message.other_kinds().count() as u64 * PART_TOKENS;
        8 + 16 * message.tool_calls.len() as u64 + message.bytes() as u64 + parts
    };
    if let (Prompt::Text(text), Some(embedding)) = (&asked.prompt, &asked.embedding) {
        // The context holds each text by itself.
        return 8 * (1 + embedding.inputs.len() as u64) + text.len() as u64;
    }
    let bound = match &asked.prompt {
        Prompt::Chat(messages) => 64 + messages.iter().map(message).sum::<u64>(),
        Prompt::Text(text) => 8 + text.len() as u64,
    };
    let bound = bound + fields::bytes(&asked.dialect);
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
    let free = PriceList { input: Money::ZERO, output: Money::ZERO, distillation_output: None };
    let list = gateway.ledger.prices(model).await?.unwrap_or(free);
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

/// The exchange's id, and by coins keyed on it whether it is twinned and which draw is served.
///
/// Neither depends on the answer, its length or the time it takes, and nothing in the answer shows it. A request for
/// several answers is not twinned, and neither is one whose draws would all be the same. A seed is passed on; since the
/// draws of one request use streams of their own, a repeated seed may show another draw.
fn draw_lots(
    gateway: &Inner,
    session: &Session,
    asked: &Asked,
    model: &dyn Model,
    at: Timestamp,
) -> (ExchangeId, Served) {
    let number = gateway.accounts().count(&session.account);
    let id = gateway.exchange_id(at, session.account.as_str(), number);
    let can_be = asked.n == 1 && asked.sampling.temperature > 0.0 && model.abilities().several;
    let chosen = number < u64::from(session.plan.twin_first) || falls_to(gateway, id, session.plan.twin_share);
    if !(can_be && chosen) {
        return (id, Served::All(asked.n));
    }
    let draws = gateway.config.twin.k;
    (id, Served::One { index: gateway.coin.choose(id, draws), draws })
}

fn falls_to(gateway: &Inner, id: ExchangeId, share: f64) -> bool {
    // 53 bits, as `Seeded::unit` does.
    let unit = (gateway.twin_hasher.hash("anbiq twin v1", id.as_bytes()).0 >> 11) as f64 / (1_u64 << 53) as f64;
    unit < share
}
