//! Terms and grants of an installation, and what every change of one needs.

use std::fs;
use std::path::Path;

use anbiq_domain::{Conditions, Grant, GrantId, Terms as TermsText, Timestamp};
use anbiq_journal::JournalError;
use anbiq_ledger::Ledger;
use anbiq_serve::Spool;
use anbiq_serve::admin::{Administrator, Record};
use anyhow::{Context, bail};

use super::Outcome;
use crate::args::{Grant as GrantArgs, Init, Terms};
use crate::site::Site;
use crate::talk::{self, Talk};

const CONFIGURATION: &str = include_str!("../../files/anbiq.toml");
const TERMS: &str = include_str!("../../files/terms.json");
const DAY: i64 = 24 * 3600 * 1000;

/// Writes a configuration with its terms, and makes the keys.
pub(crate) fn init(args: &Init, talk: Talk) -> anyhow::Result<Outcome> {
    let file = args.dir.join("anbiq.toml");
    if file.exists() {
        bail!("`{}` is there already\nhint: remove it, or choose another folder", file.display());
    }
    fs::create_dir_all(&args.dir).with_context(|| format!("cannot make `{}`", args.dir.display()))?;
    write(&file, &CONFIGURATION.replace("@JOURNAL@", &args.journal))?;
    write(&args.dir.join("terms.json"), TERMS)?;
    let site = Site::load(&file)?;
    let signer = site.signer()?;
    site.sketch_key()?;
    talk.say(&format!("wrote `{}`; set your teacher, its prices and its terms there", file.display()));
    talk.say(&format!("public key of the journal: {}", signer.public()));
    talk.say(&format!("hint: anbiq serve --config {}", file.display()));
    Ok(Outcome::Fine)
}

pub(crate) async fn terms(args: Terms, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Terms::Show { model, json, site } => {
            let ledger = Site::load(&site.config)?.ledger().await?;
            let terms = terms_of(&ledger, &model).await?;
            if json { talk::json(&terms)? } else { talk::data(&describe(&terms))? }
        }
        Terms::Accept { account, model, site } => {
            let office = Office::open(&site.config).await?;
            let terms = terms_of(&office.ledger, &model).await?.reference();
            let account = account.parse()?;
            office.administrator.accept_terms(&account, &terms, office.now()).await?;
            talk.say(&format!("account `{account}` accepted `{}` version {}", terms.id, terms.version));
            office.close().await?;
        }
    }
    Ok(Outcome::Fine)
}

pub(crate) async fn grant(args: GrantArgs, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        GrantArgs::Give { grant, account, model, purpose, max_student, max_tokens, days, site } => {
            let office = Office::open(&site.config).await?;
            let terms = terms_of(&office.ledger, &model).await?;
            let grant = Grant {
                id: grant.parse()?,
                account: account.parse()?,
                terms: terms.reference(),
                purpose,
                conditions: Conditions {
                    max_student_parameters: max_student.or(terms.conditions.max_student_parameters),
                    max_output_tokens: max_tokens.or(terms.conditions.max_output_tokens),
                    ..terms.conditions
                },
                given: office.now(),
                expires: days.map(|days| in_days(office.now(), days)),
            };
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
    }
    Ok(Outcome::Fine)
}

/// Where changes are made: the ledger, and the journal or, while a gateway writes that, its spool.
pub(super) struct Office {
    pub(super) site: Site,
    pub(super) ledger: Ledger,
    record: Record,
    pub(super) administrator: Administrator,
}

impl Office {
    /// Opens the installation; plans, prices and terms of its configuration are known from here on.
    pub(super) async fn open(config: &Path) -> anyhow::Result<Self> {
        let site = Site::load(config)?;
        let ledger = site.ledger().await?;
        let record = match site.journal() {
            Ok(journal) => Record::Journal(journal),
            Err(JournalError::Locked { .. }) => Record::Spool(Spool::new(site.spool())),
            Err(error) => return Err(error.into()),
        };
        let administrator = Administrator::new(ledger.clone(), record.clone(), &site.sketch_key()?);
        site.declare(&ledger, &administrator, site.now()).await?;
        Ok(Self { site, ledger, record, administrator })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.site.now()
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.ledger.close().await;
        drop(self.administrator);
        if let Record::Journal(journal) = self.record {
            tokio::task::spawn_blocking(|| journal.close()).await??;
        }
        Ok(())
    }
}

async fn terms_of(ledger: &Ledger, model: &str) -> anyhow::Result<TermsText> {
    ledger.terms_of_teacher(model).await?.with_context(|| {
        format!("the teacher `{model}` has no terms\nhint: name a file as `terms` of this model in the configuration")
    })
}

fn describe(terms: &TermsText) -> String {
    let conditions = &terms.conditions;
    let limit = |value: Option<u64>| value.map_or("no limit".to_owned(), |value| value.to_string());
    format!(
        "{} version {}, for `{}`\n  distillation            {:?}\n  largest student         {}\n  \
         completion tokens       {}\n  competing use           {}\n  text SHA-256            {}\n\n{}",
        terms.id,
        terms.version,
        terms.teacher,
        terms.distillation,
        limit(conditions.max_student_parameters),
        limit(conditions.max_output_tokens),
        if conditions.competing_use { "allowed" } else { "not allowed" },
        terms.text_digest(),
        terms.text,
    )
}

pub(super) fn in_days(now: Timestamp, days: u32) -> Timestamp {
    now.plus_milliseconds(i64::from(days) * DAY)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}
