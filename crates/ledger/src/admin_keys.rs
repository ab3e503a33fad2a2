//! The keys of administrators, what else the admin API must remember, and what a configuration declared.

use std::fmt;
use std::str::FromStr;

use anbiq_domain::{AccountId, Digest, KeyId, Timestamp};
use anbiq_secret::Secret;
use serde::{Deserialize, Serialize};

use crate::keys::{self, Parts};
use crate::{Ledger, LedgerError, Page, id};

pub(crate) const TABLES: [&str; 3] = [
    "CREATE TABLE admin_keys (id TEXT PRIMARY KEY, role TEXT NOT NULL, account TEXT REFERENCES accounts (id), \
     note TEXT, hash TEXT NOT NULL, issued BIGINT NOT NULL, expires BIGINT, revoked BIGINT)",
    "CREATE TABLE claims (name TEXT PRIMARY KEY, claimed BIGINT NOT NULL)",
    "CREATE TABLE declarations (what TEXT PRIMARY KEY, digest TEXT NOT NULL)",
];

/// How long a claimed name is remembered: a day.
const CLAIM_MS: i64 = 24 * 3_600_000;

/// What the holder of an admin key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminRole {
    /// Read.
    Viewer,
    /// Read; open and close accounts, issue and revoke keys, set budgets.
    Operator,
    /// Read; issue terms, decide on grants, set prices and plans.
    Steward,
    /// Everything, admin keys included.
    Owner,
}

impl AdminRole {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Steward, Self::Owner];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Steward => "steward",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: write `viewer`, `operator`, `steward` or `owner`")]
pub struct AdminRoleError(String);

impl FromStr for AdminRole {
    type Err = AdminRoleError;

    fn from_str(text: &str) -> Result<Self, AdminRoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| AdminRoleError(text.to_owned()))
    }
}

/// An admin key to be issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAdminKey {
    /// What its holder may do.
    pub role: AdminRole,
    /// The only account that its holder sees; `None` for all.
    pub account: Option<AccountId>,
    /// Whose it is, in words.
    pub note: Option<String>,
    /// From when on it no longer holds.
    pub expires: Option<Timestamp>,
}

/// An admin key, without its secret half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdminKey {
    /// Its public half.
    pub id: KeyId,
    /// What its holder may do.
    pub role: AdminRole,
    /// The only account that its holder sees; `None` for all.
    pub account: Option<AccountId>,
    /// Whose it is, in words.
    pub note: Option<String>,
    /// When it was issued.
    pub issued: Timestamp,
    /// From when on it no longer holds.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// Which admin key was presented, and what its holder may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSession {
    /// With which key.
    pub key: KeyId,
    /// What its holder may do.
    pub role: AdminRole,
    /// The only account that its holder sees; `None` for all.
    pub account: Option<AccountId>,
}

impl Ledger {
    /// Issues an admin key. The whole key is given out here and never again.
    ///
    /// # Errors
    ///
    /// `unknown_account`, or the database fails.
    pub async fn issue_admin_key(
        &self,
        new: &NewAdminKey,
        now: Timestamp,
    ) -> Result<(KeyId, Secret<String>), LedgerError> {
        if let Some(account) = &new.account
            && self.account(account).await?.is_none()
        {
            return Err(LedgerError::UnknownAccount(account.clone()));
        }
        let (public, secret, whole) = keys::draw(keys::ADMIN)?;
        sqlx::query(
            "INSERT INTO admin_keys (id, role, account, note, hash, issued, expires) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(public.as_str())
        .bind(new.role.as_str())
        .bind(new.account.as_ref().map(AccountId::as_str))
        .bind(new.note.as_deref())
        .bind(keys::hash(&self.pepper, secret.expose()).to_string())
        .bind(now.milliseconds())
        .bind(new.expires.map(Timestamp::milliseconds))
        .execute(&self.writers)
        .await?;
        Ok((public, whole))
    }

    /// All admin keys, by their public halves; the cursor is a public half.
    pub async fn admin_keys(&self, page: &Page) -> Result<Vec<AdminKey>, LedgerError> {
        let rows: Vec<AdminKeyRow> = sqlx::query_as(
            "SELECT id, role, account, note, issued, expires, revoked FROM admin_keys WHERE id > $1 ORDER BY id LIMIT $2",
        )
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(admin_key).collect()
    }

    /// The admin key `key`, where there is one.
    pub async fn admin_key(&self, key: &KeyId) -> Result<Option<AdminKey>, LedgerError> {
        let row: Option<AdminKeyRow> =
            sqlx::query_as("SELECT id, role, account, note, issued, expires, revoked FROM admin_keys WHERE id = $1")
                .bind(key.as_str())
                .fetch_optional(&self.readers)
                .await?;
        row.map(admin_key).transpose()
    }

    /// Revokes an admin key at once; doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// `unknown_key`, or the database fails.
    pub async fn revoke_admin_key(&self, key: &KeyId, now: Timestamp) -> Result<(), LedgerError> {
        let revoked = sqlx::query("UPDATE admin_keys SET revoked = COALESCE(revoked, $1) WHERE id = $2")
            .bind(now.milliseconds())
            .bind(key.as_str())
            .execute(&self.writers)
            .await?;
        if revoked.rows_affected() == 1 { Ok(()) } else { Err(LedgerError::UnknownKey(key.clone())) }
    }

    /// Whose admin key is `presented`? Nothing of it is remembered: a revocation holds from the next call on.
    ///
    /// As with [`Ledger::authenticate`], what is malformed, unknown or wrong takes the same work and gives one answer.
    ///
    /// # Errors
    ///
    /// `invalid_api_key`, `key_revoked`, `key_expired`, or the database fails.
    pub async fn authenticate_admin(&self, presented: &str, now: Timestamp) -> Result<AdminSession, LedgerError> {
        let parsed = Parts::parse(keys::ADMIN, presented);
        let well_formed = parsed.is_some();
        let parts = parsed.unwrap_or(Parts::NOBODY);
        let hash = keys::hash(&self.pepper, parts.secret);
        let row: Option<(String,)> = sqlx::query_as("SELECT hash FROM admin_keys WHERE id = $1")
            .bind(parts.public)
            .fetch_optional(&self.readers)
            .await?;
        let stored = row.and_then(|(stored,)| stored.parse().ok()).unwrap_or(Digest::from_bytes([0; 32]));
        let equal = anbiq_secret::equal(hash.as_bytes(), stored.as_bytes());
        if !(equal && well_formed) {
            return Err(LedgerError::InvalidKey);
        }
        let found = self.admin_key(&id("key id", parts.public)?).await?.ok_or(LedgerError::InvalidKey)?;
        if found.revoked.is_some() {
            return Err(LedgerError::KeyRevoked);
        }
        if found.expires.is_some_and(|end| now >= end) {
            return Err(LedgerError::KeyExpired);
        }
        Ok(AdminSession { key: found.id, role: found.role, account: found.account })
    }

    /// Claims `name`, which nobody else gets for a day: whoever repeats a request is told so by `false`.
    pub async fn claim(&self, name: &str, now: Timestamp) -> Result<bool, LedgerError> {
        let mut change = self.writers.begin().await?;
        sqlx::query("DELETE FROM claims WHERE claimed <= $1")
            .bind(now.plus_milliseconds(-CLAIM_MS).milliseconds())
            .execute(&mut *change)
            .await?;
        let claimed = sqlx::query("INSERT INTO claims (name, claimed) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(now.milliseconds())
            .execute(&mut *change)
            .await?;
        change.commit().await?;
        Ok(claimed.rows_affected() == 1)
    }

    /// Lets a claimed name go: what it stood for was not done.
    pub async fn unclaim(&self, name: &str) -> Result<(), LedgerError> {
        sqlx::query("DELETE FROM claims WHERE name = $1").bind(name).execute(&self.writers).await?;
        Ok(())
    }

    /// The digest of what a configuration last declared about `what`, such as `plan standard`.
    pub async fn declared(&self, what: &str) -> Result<Option<Digest>, LedgerError> {
        let row: Option<(String,)> = sqlx::query_as("SELECT digest FROM declarations WHERE what = $1")
            .bind(what)
            .fetch_optional(&self.readers)
            .await?;
        row.map(|(digest,)| id("digest", &digest)).transpose()
    }

    /// Remembers what a configuration declared, so that the same declaration does not undo a later change.
    pub async fn declare(&self, what: &str, digest: Digest) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO declarations (what, digest) VALUES ($1, $2) \
             ON CONFLICT (what) DO UPDATE SET digest = excluded.digest",
        )
        .bind(what)
        .bind(digest.to_string())
        .execute(&self.writers)
        .await?;
        Ok(())
    }
}

/// Id, role, account, note, issue, end, revocation.
type AdminKeyRow = (String, String, Option<String>, Option<String>, i64, Option<i64>, Option<i64>);

fn admin_key((key, role, account, note, issued, expires, revoked): AdminKeyRow) -> Result<AdminKey, LedgerError> {
    Ok(AdminKey {
        id: id("key id", &key)?,
        role: id("role", &role)?,
        account: account.map(|account| id("account id", &account)).transpose()?,
        note,
        issued: Timestamp::from_milliseconds(issued),
        expires: expires.map(Timestamp::from_milliseconds),
        revoked: revoked.map(Timestamp::from_milliseconds),
    })
}
