use anbiq_domain::PriceList;
use serde::Deserialize;
use serde_json::json;

use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::fields::{Dollars, ModelName, Percent};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    input: Dollars,
    cached_input: Option<Dollars>,
    output: Dollars,
    distillation_output: Option<Dollars>,
    batch_percent: Option<Percent>,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let page = call.page::<ModelName>()?;
    let found = desk.0.ledger.price_lists(&page.0).await?;
    let found: Vec<_> = found.into_iter().map(|(model, prices)| json!({ "model": model, "prices": prices })).collect();
    page.reply(found, |one| one["model"].as_str().unwrap_or_default().to_owned())
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let ModelName(model) = call.path("model", Code::UnknownModel)?;
    let absent = || Problem::new(Code::UnknownModel, format!("the model `{model}` has no prices"));
    let prices = desk.0.ledger.prices(&model).await?.ok_or_else(absent)?;
    Reply::of(&json!({ "model": model, "prices": prices }))
}

pub(crate) async fn history(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let ModelName(model) = call.path("model", Code::UnknownModel)?;
    let found = desk.0.ledger.price_history(&model).await?;
    if found.is_empty() {
        return Err(Problem::new(Code::UnknownModel, format!("the model `{model}` has no prices")));
    }
    let items: Vec<_> = found.into_iter().map(|(since, prices)| json!({ "since": since, "prices": prices })).collect();
    Reply::of(&json!({ "items": items }))
}

pub(crate) async fn set(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (ModelName(model), body): (_, Prices) = (call.path("model", Code::UnknownModel)?, call.body()?);
    let dollars = |dollars: Option<Dollars>| dollars.map(|Dollars(money)| money);
    let prices = PriceList {
        input: body.input.0,
        cached_input: dollars(body.cached_input),
        output: body.output.0,
        distillation_output: dollars(body.distillation_output),
        batch_percent: body.batch_percent.map(|Percent(percent)| percent),
    };
    call.may_replace(&desk).await?;
    call.administrator(&desk).set_prices(&model, prices, call.at).await?;
    get(desk, call).await
}
