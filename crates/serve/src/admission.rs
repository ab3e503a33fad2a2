//! What is allowed, at which price, and whether it is twinned.

use std::sync::Arc;

use anbiq_domain::{
    ExchangeId, Grant, GrantId, Message, Permission, PriceClass, PriceList, Prompt, Terms, TermsRef, Timestamp, Usage,
};
use anbiq_ledger::{Cost, LedgerError, Reserve, Session, Way};
use anbiq_model::{Model, Request};
use serde_json::{Map, Value};

use crate::fields;
use crate::gateway::{Inner, Shared};
use crate::rate::Taken;
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
        prompt_tokens: input_bound(asked, model.abilities().context),
        completion_tokens: u64::from(asked.n) * u64::from(max_tokens),
        ..Usage::default()
    };
    let prices = ways(session, asked, teacher.prices.unwrap_or_default(), &grants, declared)?;
    let taken = gateway.take_tokens(session, most.total(), at)?;
    let ways: Vec<Way> =
        prices.iter().map(|price| Way { grant: price.grant.clone(), most: price.cost_of(most) }).collect();
    let id = gateway.exchange_id(at, &session.account);
    let way = gateway.ledger.reserve(Reserve {
        exchange: id,
        account: session.account.clone(),
        key: Some(session.root.clone()),
        ways: ways.clone(),
        at,
        ttl_ms: lifetime(gateway, at),
    });
    let way = way.await.map_err(|error| Rejection::unpaid(error, at))?;
    let (Some(price), Some(way)) = (prices.into_iter().nth(way), ways.get(way)) else {
        return Err(Rejection::unavailable("ledger_unavailable", "the accounts are not available"));
    };
    let number = gateway.accounts().count(&session.account);
    let most = price.list.cost(most, PriceClass::Standard);
    let written = gateway.planted.answering(session, asked, model, max_tokens);
    let candidate = || Candidate { session, asked, model, id, number, max_tokens, most, at };
    // Twins of words that are fixed would be one text.
    let lot = if written.is_some() { Lot::Alone } else { twins::draw_lots(gateway, &candidate()) };
    let mixed = |seed| if session.plan.twin.covers(&asked.model) { twins::mix_seed(gateway, id, seed) } else { seed };
    let seed = asked.sampling.seed.map(mixed);
    let terms = terms.map(Terms::reference);
    let model = written.unwrap_or_else(|| Arc::clone(model));
    Ok(Admitted { model, id, terms, price, max_tokens, lot, seed, reserved: way.most, taken })
}

/// As [`prompt_bound`], for a request that may be for vectors.
fn input_bound(asked: &Asked, context: Option<u32>) -> u64 {
    if let (Prompt::Text(text), Some(embedding)) = (&asked.prompt, &asked.embedding) {
        // The context holds each text by itself.
        return 8 * (1 + embedding.inputs.len() as u64) + text.len() as u64;
    }
    prompt_bound(&asked.prompt, &asked.dialect, context)
}

/// The most that the completions of `request` can use, none of them twins.
pub(crate) fn most_of(request: &Request, context: Option<u32>) -> Usage {
    Usage {
        prompt_tokens: prompt_bound(&request.prompt, &request.dialect, context),
        completion_tokens: u64::from(request.n) * u64::from(request.max_tokens),
        ..Usage::default()
    }
}

/// Tokens that are reserved for a part of a message that is no text, such as an image: servers count it by rules of
/// their own. What it takes beyond them is the provider's loss, since nobody is charged more than was reserved.
const PART_TOKENS: u64 = 1 << 16;

/// More tokens than `prompt` can have: no tokenizer here makes more tokens than bytes, and a chat template
/// adds a few to each message and each call, and a few to the whole. Tools and forms are told the model as text.
fn prompt_bound(prompt: &Prompt, dialect: &Map<String, Value>, context: Option<u32>) -> u64 {
    let message = |message: &Message| {
        let parts = message.other_kinds().count() as u64 * PART_TOKENS;
        8 + 16 * message.tool_calls.len() as u64 + message.bytes() as u64 + parts
    };
    let bound = match prompt {
        Prompt::Chat(messages) => 64 + messages.iter().map(message).sum::<u64>(),
        Prompt::Text(text) => 8 + text.len() as u64,
    };
    let bound = bound + fields::bytes(dialect);
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
        let (class, list) = grant.conditions.price(list);
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
