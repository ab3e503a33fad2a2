//! What is allowed, at which price, and whether it is twinned.

use std::sync::Arc;

use anbiq_domain::{
    ExchangeId, Grant, GrantId, Permission, PriceClass, PriceList, Prompt, Terms, TermsRef, Timestamp, Usage,
};
use anbiq_ledger::{Cost, LedgerError, ReservationId, Reserve, Session, Way};
use anbiq_model::Model;

use crate::gateway::{Inner, Shared};
use crate::rate::Taken;
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
    pub(crate) reserved: Cost,
    /// What it took off the account's rate of tokens.
    pub(crate) taken: Taken,
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
    if !session.scopes.allow_model(&asked.model) {
        let message = format!("this API key is not good for the model `{}`", asked.model);
        return Err(Rejection::forbidden("model_not_allowed", message));
    }
    asked.check(model.abilities())?;
    let teacher = gateway.ledger.teacher(session, &asked.model).await?;
    let terms = teacher.terms.as_ref();
    check_terms(session, terms)?;
    let grants = grants(session, terms, declared, at)?;
    let max_tokens = check_plan(session, asked, model.abilities().context)?;
    let most = Usage {
        prompt_tokens: prompt_bound(&asked.prompt, model.abilities().context),
        completion_tokens: u64::from(asked.n) * u64::from(max_tokens),
        ..Usage::default()
    };
    let prices = ways(session, asked, teacher.prices.unwrap_or_default(), &grants, declared)?;
    let taken = gateway.take_tokens(session, most.total(), at)?;
    let ways: Vec<Way> =
        prices.iter().map(|price| Way { grant: price.grant.clone(), most: price.cost_of(most) }).collect();
    let reserved = gateway.ledger.reserve(Reserve {
        account: session.account.clone(),
        key: Some(session.root.clone()),
        ways: ways.clone(),
        at,
        ttl_ms: lifetime(gateway, at),
    });
    let reserved = reserved.await.map_err(|error| Rejection::unpaid(error, at))?;
    let (Some(price), Some(way)) = (prices.into_iter().nth(reserved.way), ways.get(reserved.way)) else {
        return Err(Rejection::unavailable("ledger_unavailable", "the accounts are not available"));
    };
    let (id, served) = draw_lots(gateway, session, asked, model.as_ref(), at);
    let terms = terms.map(Terms::reference);
    let (model, reservation) = (Arc::clone(model), reserved.id);
    Ok(Admitted { model, id, terms, price, max_tokens, served, reservation, reserved: way.most, taken })
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

/// The grants that the request may be made under, the newest first.
///
/// Use that is declared as distillation needs whatever the terms ask for it. Use that is not falls back to the ordinary
/// price where no grant holds any more.
fn grants<'a>(
    session: &'a Session,
    terms: Option<&Terms>,
    declared: bool,
    at: Timestamp,
) -> Result<Vec<&'a Grant>, Rejection> {
    let Some(terms) = terms else { return Ok(Vec::new()) };
    let of_terms = || session.grants.iter().filter(|granted| granted.grant.terms.id == terms.id);
    let ended = |grant: &Grant| grant.expires.is_some_and(|end| at >= end);
    let holding = of_terms().filter(|granted| !granted.revoked && !ended(&granted.grant));
    let holding: Vec<&Grant> = holding.map(|granted| &granted.grant).collect();
    if !declared || !holding.is_empty() {
        return Ok(holding);
    }
    if let Some(last) = of_terms().next() {
        let id = last.grant.id.clone();
        return Err(if last.revoked { LedgerError::GrantRevoked(id) } else { LedgerError::GrantExpired(id) }.into());
    }
    match terms.permission(at) {
        Permission::Allowed | Permission::Conditions => Ok(Vec::new()),
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

/// How the request may be paid: under each of the grants, and at the ordinary price where none of them suffices any more
/// and its use is not declared.
fn ways(
    session: &Session,
    asked: &Asked,
    list: PriceList,
    grants: &[&Grant],
    declared: bool,
) -> Result<Vec<Price>, Rejection> {
    let granted = |grant: &&Grant| {
        let (class, own) = grant.conditions.price();
        // A price of its own stands in the place of that of distillation.
        let class = if own.is_some() { PriceClass::Distillation } else { class };
        let list = PriceList { distillation_output: own.or(list.distillation_output), ..list };
        Price { list, class, grant: Some(grant.id.clone()) }
    };
    let mut ways: Vec<Price> = grants.iter().map(granted).collect();
    if declared && !ways.is_empty() {
        return Ok(ways);
    }
    match check_logprobs(session, asked) {
        Ok(()) => ways.push(Price { list, class: PriceClass::Standard, grant: None }),
        Err(refused) if ways.is_empty() => return Err(refused),
        Err(_) => {}
    }
    Ok(ways)
}

/// Applies the plan's limits; gives the longest answer, in tokens.
fn check_plan(session: &Session, asked: &Asked, context: Option<u32>) -> Result<u32, Rejection> {
    let plan = &session.plan;
    if asked.n > plan.max_n {
        return Err(Rejection::value("n", format!("`n` is at most {} on the plan `{}`", plan.max_n, plan.id)));
    }
    if let Some(tokens) = asked.max_tokens.filter(|tokens| *tokens > plan.max_tokens) {
        let message = format!("`max_tokens` is at most {} on the plan `{}`, not {tokens}", plan.max_tokens, plan.id);
        return Err(Rejection::value("max_tokens", message));
    }
    let most = asked.max_tokens.unwrap_or(plan.max_tokens);
    Ok(context.map_or(most, |context| most.min(context)))
}

/// Log-probabilities make distillation much easier, so a plan may keep them back; a grant opens them.
fn check_logprobs(session: &Session, asked: &Asked) -> Result<(), Rejection> {
    let plan = &session.plan;
    let (param, message) = match (asked.logprobs, plan.max_logprobs) {
        (Some(_), None) => ("logprobs", format!("the plan `{}` gives no log-probabilities", plan.id)),
        (Some(logprobs), Some(most)) if logprobs > most => {
            let field = asked.logprobs_field();
            (field, format!("`{field}` is at most {most} on the plan `{}`", plan.id))
        }
        _ => return Ok(()),
    };
    let refused = Rejection::forbidden("logprobs_not_allowed", message);
    Err(Rejection { param: Some(param.to_owned()), ..refused })
}

impl Price {
    /// What `usage` costs at this price.
    pub(crate) fn cost_of(&self, usage: Usage) -> Cost {
        Cost {
            money: self.list.cost(usage, self.class),
            tokens: usage.total(),
            completion_tokens: usage.completion_tokens,
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
