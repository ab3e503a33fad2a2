use anbiq_domain::PriceList;
use serde::Deserialize;

use crate::Desk;
use crate::dispatch::{Call, Page, Reply};
use crate::fields::{Dollars, ModelName};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    input: Dollars,
    output: Dollars,
    distillation_output: Option<Dollars>,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let page: Page<ModelName> = call.page()?;
    let found = desk.0.ledger.all_prices(page.after.as_ref().map(|name| name.0.as_str()), page.ask).await?;
    page.reply(found, |prices| prices.model.clone())
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let ModelName(model) = call.path("model", Code::UnknownModel)?;
    let absent = || Problem::new(Code::UnknownModel, format!("the model `{model}` has no prices"));
    Reply::of(&desk.0.ledger.prices_since(&model).await?.ok_or_else(absent)?)
}

pub(crate) async fn set(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let (ModelName(model), body): (_, Prices) = (call.path("model", Code::UnknownModel)?, call.body()?);
    let prices = PriceList {
        input: body.input.0,
        output: body.output.0,
        distillation_output: body.distillation_output.map(|price| price.0),
    };
    call.may_replace(&desk).await?;
    call.administrator(&desk).set_prices(&model, prices, call.at).await?;
    get(desk, call).await
}
