//! The keys of those who administer over HTTP.

use anbiq_domain::KeyId;
use anbiq_ledger::{AdminKey, NewAdminKey};

use super::Outcome;
use super::admin::{Office, in_days};
use super::customers::{all, list};
use crate::args::{Admin, AdminKeys};
use crate::site::Site;
use crate::talk::{self, Talk};

pub(crate) async fn run(args: Admin, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Admin::Key(args) => key(args, talk).await?,
        Admin::Openapi => talk::json(&anbiq_desk::openapi())?,
    }
    Ok(Outcome::Fine)
}

async fn key(args: AdminKeys, talk: Talk) -> anyhow::Result<()> {
    match args {
        AdminKeys::Issue { role, account, note, days, site } => {
            let office = Office::open(&site.config).await?;
            let new = NewAdminKey {
                role: role.parse()?,
                account: account.map(|account| account.parse()).transpose()?,
                note,
                expires: days.map(|days| in_days(office.now(), days)),
            };
            let (id, key) = office.administrator.issue_admin_key(&new, office.now()).await?;
            talk.say(&format!("admin key `{id}`; it is shown this once:"));
            talk::data(key.expose())?;
            office.close().await
        }
        AdminKeys::List { json, site } => {
            let ledger = Site::load(&site.config)?.ledger().await?;
            let keys = all(async |page| ledger.admin_keys(&page).await, |key: &AdminKey| key.id.to_string()).await?;
            if json { talk::json(&keys) } else { talk::data(&list(&keys, describe)) }
        }
        AdminKeys::Revoke { key, site } => {
            let office = Office::open(&site.config).await?;
            let key: KeyId = key.parse()?;
            office.administrator.revoke_admin_key(&key, office.now()).await?;
            talk.say(&format!("revoked admin key `{key}`"));
            office.close().await
        }
    }
}

fn describe(key: &AdminKey) -> String {
    let AdminKey { id, role, account, note, expires, revoked, .. } = key;
    let of = account.as_ref().map_or("every account".to_owned(), |account| format!("account {account}"));
    let state = match (revoked, expires) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => format!("until {at}"),
        (None, None) => "without end".to_owned(),
    };
    let note = note.as_ref().map_or(String::new(), |note| format!("  {note}"));
    format!("{id}  {role}  {of}  {state}{note}")
}
