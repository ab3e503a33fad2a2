use anbiq_domain::{Permission, Terms, TermsId};
use serde::Deserialize;

use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::fields::{ConditionsBody, ModelName, Positive, Text};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTerms {
    id: TermsId,
    version: Positive,
    teacher: ModelName,
    distillation: Permission,
    #[serde(default)]
    conditions: ConditionsBody,
    text: Text,
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let page = call.page::<TermsId>()?;
    let found = desk.0.ledger.all_terms(&page.0).await?;
    page.reply(found, |terms| terms.id.to_string())
}

pub(crate) async fn issue(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let body: NewTerms = call.body()?;
    let terms = Terms {
        id: body.id,
        version: body.version.0,
        teacher: body.teacher.0,
        distillation: body.distillation,
        conditions: body.conditions.into(),
        expires: None,
        source: None,
        text: body.text.0,
    };
    call.administrator(&desk).issue_terms(&terms, call.at).await?;
    let reply = shown(&desk, &terms.id, Some(terms.version)).await?;
    Ok(reply.at(&format!("/terms/{}/versions/{}", terms.id, terms.version)))
}

pub(crate) async fn get(desk: Desk, call: Call) -> Result<Reply, Problem> {
    shown(&desk, &call.path("terms", Code::UnknownTerms)?, None).await
}

pub(crate) async fn version(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let terms = call.path("terms", Code::UnknownTerms)?;
    let Positive(version) = call.path("version", Code::UnknownTerms)?;
    shown(&desk, &terms, Some(version)).await
}

async fn shown(desk: &Desk, terms: &TermsId, version: Option<u32>) -> Result<Reply, Problem> {
    let found = desk.0.ledger.terms(terms, version).await?;
    let absent = || Problem::new(Code::UnknownTerms, format!("there are no such terms `{terms}`"));
    Reply::of(&found.ok_or_else(absent)?)
}
