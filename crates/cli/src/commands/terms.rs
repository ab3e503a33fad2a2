//! Terms and grants of an installation, and the built-in registry of terms.

use anbiq_domain::{
    AccountId, Conditions, Grant, GrantId, GrantState, Judgement, KnownTerms, PriceClass, Purpose, Reason, Ruling,
    Source, Student, Terms as TermsText, Timestamp, known_terms,
};
use anbiq_ledger::{GrantRecord, Ledger, LedgerError};
use anyhow::Context;

use super::Outcome;
use super::admin::{Office, in_days};
use super::customers::{all, ledger, list, seconds};
use crate::args::{self, Grant as GrantArgs, Permits, Terms};
use crate::site::Site;
use crate::talk::{self, Talk};

pub(crate) async fn terms(args: Terms, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Terms::Show { model, json, site } => {
            let terms = terms_of(&ledger(&site.config).await?, &model).await?;
            if json { talk::json(&terms)? } else { talk::data(&describe(&terms))? }
        }
        Terms::Check { teacher, known, account, student, json, site } => {
            let judgement = if known {
                judge_known(&teacher, &student.described())?
            } else {
                judge(&site, &teacher, account.as_deref(), &student.described()).await?
            };
            if json {
                talk::json(&judgement)?;
            } else {
                talk::data(&tell(&judgement))?;
            }
            return Ok(Outcome::found(judgement.ruling != Ruling::Allowed));
        }
        Terms::Accept { account, model, site } => {
            let office = Office::open(&site.config).await?;
            let terms = terms_of(&office.ledger, &model).await?.reference();
            let account = account.parse()?;
            office.administrator.accept_terms(&account, &terms, office.now()).await?;
            talk.say(&format!("account `{account}` accepted `{}` version {}", terms.id, terms.version));
            office.close().await?;
        }
        Terms::Known { name: None, json } => {
            let all = known_terms();
            let line = |one: &KnownTerms| {
                let permission = permission_word(one.distillation);
                format!("{:<22} {permission:<14} {}: {}", one.name, one.provider, one.of)
            };
            if json {
                talk::json(&all)?;
            } else {
                talk::data(&list(&all, line))?;
            }
            talk.say("hint: facts in our own words, no legal advice; `unknown` is what nobody here has read");
        }
        Terms::Known { name: Some(name), json } => {
            let one = known(&name)?;
            if json { talk::json(&one)? } else { talk::data(&describe_known(&one))? }
        }
    }
    Ok(Outcome::Fine)
}

pub(crate) async fn grant(args: GrantArgs, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        GrantArgs::Ask { grant, account, model, purpose, permits, site } => {
            let office = Office::open(&site.config).await?;
            let grant = new_grant(&office, grant, &account, &model, purpose, &permits).await?;
            office.administrator.ask_grant(&grant).await?;
            talk.say(&format!("account `{account}` asks for grant `{}`, which permits nothing yet", grant.id));
            talk.say(&format!("hint: anbiq grant approve {0}, or anbiq grant refuse {0} --reason WHY", grant.id));
            office.close().await?;
        }
        GrantArgs::Approve { grant, permits, site } => {
            let office = Office::open(&site.config).await?;
            let asked = recorded(&office.ledger, &grant, office.now()).await?.grant;
            let conditions = permits.over(asked.conditions.clone())?;
            let expires = permits.days.map(|days| in_days(office.now(), days));
            let given = office.administrator.approve_grant(&asked.id, Some(&conditions), expires, office.now()).await?;
            talk.say(&format!("approved grant `{}` of account `{}`", given.id, given.account));
            talk::json(&given)?;
            office.close().await?;
        }
        GrantArgs::Refuse { grant, reason, site } => {
            let office = Office::open(&site.config).await?;
            let grant: GrantId = grant.parse()?;
            office.administrator.refuse_grant(&grant, &reason, office.now()).await?;
            talk.say(&format!("refused grant `{grant}`"));
            office.close().await?;
        }
        GrantArgs::Give { grant, account, model, purpose, permits, site } => {
            let office = Office::open(&site.config).await?;
            let grant = new_grant(&office, grant, &account, &model, purpose, &permits).await?;
            office.administrator.give_grant(&grant).await?;
            talk::json(&grant)?;
            office.close().await?;
        }
        GrantArgs::Revoke { grant, site } => {
            let office = Office::open(&site.config).await?;
            let grant: GrantId = grant.parse()?;
            office.administrator.revoke_grant(&grant, office.now()).await?;
            talk.say(&format!("revoked grant `{grant}`"));
            office.close().await?;
        }
        GrantArgs::List { account, json, site } => {
            let site = Site::load(&site.config)?;
            let ledger = site.ledger().await?;
            let account = account.map(|account| account.parse::<AccountId>()).transpose()?;
            let grants = all(
                async |page| ledger.grants(account.as_ref(), site.now(), &page).await,
                |one: &GrantRecord| one.grant.id.to_string(),
            );
            let grants = grants.await?;
            if json { talk::json(&grants)? } else { talk::data(&list(&grants, grant_line))? }
        }
        GrantArgs::Show { grant, json, site } => {
            let site = Site::load(&site.config)?;
            let record = recorded(&site.ledger().await?, &grant, site.now()).await?;
            if json { talk::json(&record)? } else { talk::data(&describe_grant(&record))? }
        }
    }
    Ok(Outcome::Fine)
}

impl args::Described {
    fn described(&self) -> Student {
        let competing = if self.competing { Some(true) } else { self.not_competing.then_some(false) };
        let purpose = self.purpose.map(|purpose| match purpose {
            args::Purpose::Research => Purpose::Research,
            args::Purpose::Education => Purpose::Education,
            args::Purpose::Classification => Purpose::Classification,
            args::Purpose::Internal => Purpose::Internal,
            args::Purpose::Product => Purpose::Product,
        });
        Student { parameters: self.parameters, output_tokens: self.tokens, competing, purpose, name: self.name.clone() }
    }
}

impl Permits {
    /// `conditions`, with those changed that are given here.
    fn over(&self, conditions: Conditions) -> anyhow::Result<Conditions> {
        let class = self.price_class.map(|class| match class {
            args::PriceClass::Standard => PriceClass::Standard,
            args::PriceClass::Distillation => PriceClass::Distillation,
            args::PriceClass::Batch => PriceClass::Batch,
        });
        let price = self.price.as_ref().map(|price| price.parse()).transpose()?;
        Ok(Conditions {
            max_student_parameters: self.max_student.or(conditions.max_student_parameters),
            max_output_tokens: self.max_tokens.or(conditions.max_output_tokens),
            competing_use: self.competing || conditions.competing_use,
            price_class: class.or(conditions.price_class),
            output_price: price.or(conditions.output_price),
            beyond_terms: self.beyond_terms.clone().or(conditions.beyond_terms),
            ..conditions
        })
    }
}

/// What the terms of a teacher of this installation say; with `account` also by what its grants permit.
async fn judge(
    site: &args::Site,
    teacher: &str,
    account: Option<&str>,
    student: &Student,
) -> anyhow::Result<Judgement> {
    let site = Site::load(&site.config)?;
    let ledger = site.ledger().await?;
    let terms = terms_of(&ledger, teacher).await?;
    let judgement = terms.judge(student, site.now());
    let Some(account) = account else { return Ok(judgement) };
    let account: AccountId = account.parse()?;
    let Some((grant, GrantState::Active, _)) = ledger.grant_of(&account, &terms.id, site.now()).await? else {
        return Ok(judgement);
    };
    Ok(by_grant(&grant, student).unwrap_or(judgement))
}

/// What a grant that holds says about a student; nothing where it does not permit it.
fn by_grant(grant: &Grant, student: &Student) -> Option<Judgement> {
    let conditions = &grant.conditions;
    if !conditions.broken_by(student).is_empty() {
        return None;
    }
    let open = conditions.open_about(student);
    let ruling = if open.is_empty() { Ruling::Allowed } else { Ruling::Unknown };
    let words = format!("grant `{}` permits it, for: {}", grant.id, grant.purpose);
    let permits = Reason { code: "granted".to_owned(), words };
    let reasons = if open.is_empty() { vec![permits] } else { open };
    Some(Judgement { ruling, reasons, duties: conditions.duties() })
}

fn judge_known(name: &str, student: &Student) -> anyhow::Result<Judgement> {
    Ok(known(name)?.judge(student, Timestamp::default())?)
}

fn known(name: &str) -> anyhow::Result<KnownTerms> {
    KnownTerms::find(name)
        .with_context(|| format!("the registry does not know `{name}`\nhint: `anbiq terms known` lists what it knows"))
}

async fn terms_of(ledger: &Ledger, model: &str) -> anyhow::Result<TermsText> {
    ledger.terms_of_teacher(model).await?.with_context(|| {
        format!("the teacher `{model}` has no terms\nhint: name a file as `terms` of this model in the configuration")
    })
}

/// A grant under the terms of a teacher as they are now; where nothing else is said it is as wide as those.
async fn new_grant(
    office: &Office,
    grant: String,
    account: &str,
    model: &str,
    purpose: String,
    permits: &Permits,
) -> anyhow::Result<Grant> {
    let terms = terms_of(&office.ledger, model).await?;
    Ok(Grant {
        id: grant.parse()?,
        account: account.parse()?,
        terms: terms.reference(),
        purpose,
        conditions: permits.over(terms.conditions)?,
        given: office.now(),
        expires: permits.days.map(|days| in_days(office.now(), days)),
    })
}

async fn recorded(ledger: &Ledger, grant: &str, now: Timestamp) -> anyhow::Result<GrantRecord> {
    let grant: GrantId = grant.parse()?;
    Ok(ledger.grant(&grant, now).await?.ok_or(LedgerError::UnknownGrant(grant))?)
}

fn describe(terms: &TermsText) -> String {
    let mut rows = vec![("distillation", permission_word(terms.distillation).to_owned())];
    rows.extend(condition_rows(&terms.conditions));
    rows.extend(terms.expires.map(|end| ("hold until", seconds(end).to_string())));
    rows.extend(terms.source.as_ref().map(|source| ("read", describe_source(source))));
    rows.push(("text SHA-256", terms.text_digest().to_string()));
    let head = format!("{} version {}, for `{}`", terms.id, terms.version, terms.teacher);
    format!("{head}\n{}\n\n{}", table(&rows), terms.text)
}

fn describe_known(one: &KnownTerms) -> String {
    let mut rows = vec![("distillation", permission_word(one.distillation).to_owned())];
    match &one.source {
        Some(source) => {
            rows.extend(condition_rows(&one.conditions));
            rows.push(("read", describe_source(source)));
        }
        None => rows.push(("read", "no primary text was read: read it yourself, or ask".to_owned())),
    }
    let note = if one.note.is_empty() { String::new() } else { format!("\n\n{}", one.note) };
    format!("{}, of {}: {}\n{}{note}\n\nNot legal advice.", one.name, one.provider, one.of, table(&rows))
}

fn describe_source(source: &Source) -> String {
    let mut text = format!("{} on {}", source.url, source.read);
    if let Some(place) = &source.place {
        text.push_str(&format!(", {place}"));
    }
    if let Some(effective) = &source.effective {
        text.push_str(&format!(", in force from {effective}"));
    }
    if let Some(digest) = source.sha256 {
        text.push_str(&format!(", SHA-256 {digest}"));
    }
    text
}

fn condition_rows(conditions: &Conditions) -> Vec<(&'static str, String)> {
    let number = |value: Option<u64>| value.map_or("no limit".to_owned(), |value| value.to_string());
    let mut rows = vec![("largest student", number(conditions.largest_student()))];
    if let Some(percent) = conditions.max_student_percent {
        rows.push(("  of the teacher", format!("{percent} %")));
    }
    rows.push(("completion tokens", number(conditions.max_output_tokens)));
    rows.push(("competing use", if conditions.competing_use { "allowed" } else { "not allowed" }.to_owned()));
    if !conditions.purposes.is_empty() {
        let purposes: Vec<_> = conditions.purposes.iter().map(|purpose| purpose.as_str()).collect();
        rows.push(("purposes", purposes.join(", ")));
    }
    rows.extend(conditions.output_price.map(|price| ("price", format!("${price} a million completion tokens"))));
    rows.extend(conditions.price_class.map(|class| ("price class", format!("{class:?}").to_lowercase())));
    rows.extend(conditions.duties().into_iter().map(|duty| ("duty", duty)));
    rows.extend(conditions.beyond_terms.clone().map(|reason| ("beyond its terms", reason)));
    rows
}

fn table(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("  {name:<22}  {value}")).collect::<Vec<_>>().join("\n")
}

fn tell(judgement: &Judgement) -> String {
    let mut lines = vec![
        match judgement.ruling {
            Ruling::Allowed => "allowed",
            Ruling::GrantRequired => "needs a grant",
            Ruling::Forbidden => "forbidden",
            Ruling::Unknown => "unknown",
        }
        .to_owned(),
    ];
    lines.extend(judgement.reasons.iter().map(|reason| format!("  because  {}", reason.words)));
    lines.extend(judgement.duties.iter().map(|duty| format!("  duty     {duty}")));
    lines.join("\n")
}

const fn permission_word(permission: anbiq_domain::Permission) -> &'static str {
    match permission {
        anbiq_domain::Permission::Allowed => "allowed",
        anbiq_domain::Permission::Conditions => "conditions",
        anbiq_domain::Permission::GrantRequired => "needs a grant",
        anbiq_domain::Permission::Forbidden => "forbidden",
        anbiq_domain::Permission::Unknown => "unknown",
    }
}

const fn state_word(state: GrantState) -> &'static str {
    match state {
        GrantState::Asked => "asked",
        GrantState::Refused => "refused",
        GrantState::Active => "active",
        GrantState::Expired => "expired",
        GrantState::Revoked => "revoked",
        GrantState::UsedUp => "used up",
    }
}

fn volume(record: &GrantRecord) -> String {
    let GrantRecord { grant, used, reserved, .. } = record;
    let of = grant.conditions.max_output_tokens.map_or(String::new(), |most| format!(" of {most}"));
    let held = if *reserved == 0 { String::new() } else { format!(", {reserved} held") };
    format!("{used}{of} tokens{held}")
}

fn grant_line(record: &GrantRecord) -> String {
    let (id, account) = (record.grant.id.as_str(), record.grant.account.as_str());
    format!("{id:<20} {:<8} {account:<20} {}", state_word(record.state), volume(record))
}

fn describe_grant(record: &GrantRecord) -> String {
    let grant = &record.grant;
    let mut rows = vec![
        ("state", state_word(record.state).to_owned()),
        ("terms", format!("{} version {}", grant.terms.id, grant.terms.version)),
        ("purpose", grant.purpose.clone()),
        ("used", volume(record)),
    ];
    rows.extend(condition_rows(&grant.conditions));
    rows.extend(record.asked.map(|at| ("asked for", seconds(at).to_string())));
    if !matches!(record.state, GrantState::Asked | GrantState::Refused) {
        rows.push(("given", seconds(grant.given).to_string()));
    }
    rows.extend(grant.expires.map(|end| ("holds until", seconds(end).to_string())));
    rows.extend(record.refused.clone().map(|reason| ("refused", reason)));
    format!("grant {} of {}\n{}", grant.id, grant.account, table(&rows))
}
