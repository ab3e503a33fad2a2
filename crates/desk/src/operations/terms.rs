use std::str::FromStr;

use anbiq_domain::{Permission, Terms, TermsId, TermsRef};
use anbiq_ledger::IssuedTerms;
use serde::Deserialize;

use crate::Desk;
use crate::dispatch::{Call, Page, Reply};
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

/// The last terms of a page, as `id@version`.
struct Cursor(TermsRef);

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .rsplit_once('@')
            .and_then(|(id, version)| Some((id.parse().ok()?, version.parse::<Positive>().ok()?.0)));
        let (id, version) = parts.ok_or_else(|| "not a cursor: take the `next` of the page before".to_owned())?;
        Ok(Self(TermsRef { id, version }))
    }
}

pub(crate) async fn list(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let page: Page<Cursor> = call.page()?;
    let found = desk.0.ledger.all_terms(page.after.as_ref().map(|cursor| &cursor.0), page.ask).await?;
    page.reply(found, |IssuedTerms { terms, .. }| format!("{}@{}", terms.id, terms.version))
}

pub(crate) async fn issue(desk: Desk, call: Call) -> Result<Reply, Problem> {
    let body: NewTerms = call.body()?;
    let terms = Terms {
        id: body.id,
        version: body.version.0,
        teacher: body.teacher.0,
        distillation: body.distillation,
        conditions: body.conditions.into(),
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
    let found = desk.0.ledger.issued_terms(terms, version).await?;
    let absent = || Problem::new(Code::UnknownTerms, format!("there are no such terms `{terms}`"));
    Reply::of(&found.ok_or_else(absent)?)
}
