use anbiq_domain::{PlanId, TextPolicy, TwinMode};
use anbiq_ledger::{Plan, TwinPlan};
use serde::Deserialize;

use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::fields::{Byte, ModelName, Positive, Small};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPlan {
    text_policy: TextPolicy,
    #[serde(default)]
    twin_mode: TwinMode,
    twin_share: f64,
    twin_first: Small,
    twin_k: Option<Byte>,
    twin_models: Option<Vec<ModelName>>,
    max_logprobs: Option<Byte>,
    max_n: Positive,
    max_tokens: Positive,
    requests_per_minute: Option<Positive>,
    requests_per_day: Option<Positive>,
    tokens_per_minute: Option<Positive>,
    max_in_flight: Option<Positive>,
    max_body_bytes: Option<Positive>,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let page = call.page::<PlanId>()?;
    let found = desk.0.ledger.plans(&page.0).await?;
    page.reply(found, |plan| plan.id.to_string())
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let plan: PlanId = call.path("plan", Code::UnknownPlan)?;
    let absent = || Problem::new(Code::UnknownPlan, format!("there is no plan `{plan}`"));
    Reply::of(&desk.0.ledger.plan(&plan).await?.ok_or_else(absent)?)
}

pub(crate) async fn put(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (id, body): (PlanId, NewPlan) = (call.path("plan", Code::UnknownPlan)?, call.body()?);
    if !(0.0..=1.0).contains(&body.twin_share) {
        let what = "a share is between 0 and 1";
        return Err(Problem::new(Code::InvalidBody, what).at("/twin_share", what));
    }
    if body.twin_k.is_some_and(|Byte(k)| !(2..=16).contains(&k)) {
        let what = "a twinned exchange has 2 to 16 completions";
        return Err(Problem::new(Code::InvalidBody, what).at("/twin_k", what));
    }
    let number = |positive: Option<Positive>| positive.map(|Positive(number)| number);
    let plan = Plan {
        id,
        text_policy: body.text_policy,
        twin: TwinPlan {
            mode: body.twin_mode,
            share: body.twin_share,
            first: body.twin_first.0,
            k: body.twin_k.map(|Byte(k)| k),
            models: body.twin_models.map(|models| models.into_iter().map(|model| model.0).collect()),
        },
        max_logprobs: body.max_logprobs.map(|most| most.0),
        max_n: body.max_n.0,
        max_tokens: body.max_tokens.0,
        requests_per_minute: number(body.requests_per_minute),
        requests_per_day: number(body.requests_per_day),
        tokens_per_minute: number(body.tokens_per_minute),
        max_in_flight: number(body.max_in_flight),
        max_body_bytes: number(body.max_body_bytes).map(u64::from),
    };
    call.may_replace(&desk).await?;
    call.administrator(&desk).put_plan(&plan, call.at).await?;
    Reply::of(&plan)
}
