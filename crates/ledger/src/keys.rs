//! API keys: their grammar, what is kept of them, and whom they let in.

use std::sync::Arc;

use anbiq_domain::{AccountId, Digest, Grant, KeyId, OperatorId, TermsRef, Timestamp, UserId};
use anbiq_secret::Secret;
use serde::{Deserialize, Serialize};

use crate::{Ledger, LedgerError, Page, Plan, finish, from_json, id, to_json};

/// A key to be issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Whose.
    pub account: AccountId,
    /// What its holder calls it.
    pub name: Option<String>,
    /// For which user of the account.
    pub user: Option<UserId>,
    /// What it is good for.
    pub scopes: Scopes,
    /// From when on it no longer holds.
    pub expires: Option<Timestamp>,
    /// When it is issued.
    pub issued: Timestamp,
}

/// A key, without its secret, which nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyState {
    /// Its public half.
    pub id: KeyId,
    /// Whose.
    pub account: AccountId,
    /// What its holder calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For which user of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// What it is good for.
    pub scopes: Scopes,
    /// The first key of the row of rotations that it is in: itself where it follows none.
    pub root: KeyId,
    /// When it was issued.
    pub issued: Timestamp,
    /// From when on it no longer holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

/// What a key is good for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scopes {
    /// The endpoints; all where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Scope>>,
    /// The models; all where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
}

/// An endpoint that a key may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/responses`
    Responses,
    /// `/v1/models`
    Models,
}

impl Scopes {
    /// Is the key good for this endpoint?
    pub fn allow(&self, route: Scope) -> bool {
        self.routes.as_ref().is_none_or(|routes| routes.contains(&route))
    }

    /// Is the key good for this model?
    pub fn allow_model(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|one| one == model))
    }
}

impl Scope {
    /// Every one of them.
    pub const ALL: [Self; 5] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses, Self::Models];

    /// Such as `chat`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Models => "models",
        }
    }
}

/// Whose key was presented, and what holds for it; all of it as of one moment after it was presented.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Whose.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// The first key of the row of rotations that it is in: the budgets of that count what it costs.
    pub root: KeyId,
    /// Of which user of the account.
    pub user: Option<UserId>,
    /// Of which operator the account is declared to be.
    pub operator: Option<OperatorId>,
    /// What the key is good for.
    pub scopes: Scopes,
    /// The plan the account is on.
    pub plan: Plan,
    /// The terms it has accepted: of each the last version.
    pub accepted: Vec<TermsRef>,
    /// The grants that it was given, the newest first; at most a hundred.
    pub grants: Vec<Granted>,
    pub(crate) generation: i64,
}

/// A grant as a request meets it. How much of it is left is seen only when something is reserved.
#[derive(Debug, Clone, PartialEq)]
pub struct Granted {
    /// The grant.
    pub grant: Grant,
    /// Was it taken back?
    pub revoked: bool,
}

impl Ledger {
    /// Issues a key that is good for everything. The whole key is given out here and never again: only a hash of its
    /// secret half is stored.
    ///
    /// # Errors
    ///
    /// As [`Ledger::issue`].
    pub async fn issue_key(
        &self,
        account: &AccountId,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(KeyId, Secret<String>), LedgerError> {
        let account = account.clone();
        self.issue(&NewKey { account, name: None, user: None, scopes: Scopes::default(), expires, issued: now }).await
    }

    /// Issues a key. The whole key is given out here and never again: only a hash of its secret half is stored.
    ///
    /// # Errors
    ///
    /// `unknown_account`, `unknown_user`, no random bytes, or the database fails.
    pub async fn issue(&self, new: &NewKey) -> Result<(KeyId, Secret<String>), LedgerError> {
        let (public, secret, whole) = draw(ACCOUNT)?;
        let mut change = self.administer().await?;
        let issued = sqlx::query(
            "INSERT INTO api_keys (id, account, hash, issued, expires, name, user_id, scopes, root) \
             SELECT $1, id, $2, $3, $4, $5, $6, $7, $1 FROM accounts WHERE id = $8 AND ($9 = '' OR EXISTS \
             (SELECT 1 FROM users WHERE users.account = accounts.id AND users.id = $9 AND users.removed IS NULL))",
        )
        .bind(public.as_str())
        .bind(hash(&self.pepper, secret.expose()).to_string())
        .bind(new.issued.milliseconds())
        .bind(new.expires.map(Timestamp::milliseconds))
        .bind(new.name.as_deref())
        .bind(new.user.as_ref().map(UserId::as_str))
        .bind(to_json("scopes", &new.scopes)?)
        .bind(new.account.as_str())
        .bind(new.user.as_ref().map_or("", UserId::as_str))
        .execute(&mut *change)
        .await?;
        if issued.rows_affected() == 1 {
            change.commit().await?;
            return Ok((public, whole));
        }
        change.rollback().await?;
        Err(match (self.account(&new.account).await?, &new.user) {
            (Some(_), Some(user)) => LedgerError::UnknownUser(user.clone()),
            _ => LedgerError::UnknownAccount(new.account.clone()),
        })
    }

    /// Issues a key that takes the place of `old`: with its name, user, scopes, end and budgets. The old one holds for
    /// `grace_ms` milliseconds more.
    ///
    /// # Errors
    ///
    /// `unknown_key`, `key_revoked` or `key_expired` where the old one does not hold, no random bytes, or the database
    /// fails.
    pub async fn rotate_key(
        &self,
        old: &KeyId,
        grace_ms: i64,
        now: Timestamp,
    ) -> Result<(KeyId, Secret<String>), LedgerError> {
        let (public, secret, whole) = draw(ACCOUNT)?;
        let before = self.key(old).await?.ok_or_else(|| LedgerError::UnknownKey(old.clone()))?;
        let mut change = self.administer().await?;
        let issued = sqlx::query(
            "INSERT INTO api_keys (id, account, hash, issued, expires, name, user_id, scopes, root) \
             SELECT $1, account, $2, $3, expires, name, user_id, scopes, COALESCE(root, id) FROM api_keys \
             WHERE id = $4 AND revoked IS NULL AND (expires IS NULL OR expires > $3)",
        )
        .bind(public.as_str())
        .bind(hash(&self.pepper, secret.expose()).to_string())
        .bind(now.milliseconds())
        .bind(old.as_str())
        .execute(&mut *change)
        .await?;
        if issued.rows_affected() == 0 {
            let revoked = before.revoked.is_some() || before.expires.is_none_or(|end| end > now);
            return Err(if revoked { LedgerError::KeyRevoked } else { LedgerError::KeyExpired });
        }
        sqlx::query("UPDATE api_keys SET expires = $1 WHERE id = $2 AND (expires IS NULL OR expires > $1)")
            .bind(now.plus_milliseconds(grace_ms.max(0)).milliseconds())
            .bind(old.as_str())
            .execute(&mut *change)
            .await?;
        change.commit().await?;
        Ok((public, whole))
    }

    /// Revokes a key at once; doing it again changes nothing.
    pub async fn revoke_key(&self, key: &KeyId, now: Timestamp) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        let revoked = sqlx::query("UPDATE api_keys SET revoked = COALESCE(revoked, $1) WHERE id = $2")
            .bind(now.milliseconds())
            .bind(key.as_str())
            .execute(&mut *change)
            .await?;
        finish(change, revoked.rows_affected(), || LedgerError::UnknownKey(key.clone())).await
    }

    /// The key with this public half, where there is one.
    pub async fn key(&self, key: &KeyId) -> Result<Option<KeyState>, LedgerError> {
        let row: Option<KeyStateRow> = sqlx::query_as(
            "SELECT id, account, name, user_id, scopes, root, issued, expires, revoked FROM api_keys WHERE id = $1",
        )
        .bind(key.as_str())
        .fetch_optional(&self.readers)
        .await?;
        row.map(KeyState::read).transpose()
    }

    /// All keys, or those of one account, by their public halves; the cursor is a public half.
    pub async fn keys(&self, account: Option<&AccountId>, page: &Page) -> Result<Vec<KeyState>, LedgerError> {
        let rows: Vec<KeyStateRow> = sqlx::query_as(
            "SELECT id, account, name, user_id, scopes, root, issued, expires, revoked FROM api_keys \
             WHERE ($1 = '' OR account = $1) AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(account.map_or("", AccountId::as_str))
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(KeyState::read).collect()
    }

    /// Whose key is `presented`, and what holds for it?
    ///
    /// This is the one look of a request: what it needs of a model besides, [`Ledger::teacher`] tells as of the same
    /// moment. A malformed, an unknown and a wrong key take the same work and give the same answer, so that nobody can
    /// search for public halves. That a key was revoked or has expired is told only to one who knows its secret.
    ///
    /// # Errors
    ///
    /// `invalid_api_key`, `key_revoked`, `key_expired`, `account_closed`, or the database fails.
    pub async fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Session, LedgerError> {
        let parsed = Parts::parse(ACCOUNT, presented);
        let well_formed = parsed.is_some();
        let parts = parsed.unwrap_or(Parts::NOBODY);
        let hash = hash(&self.pepper, parts.secret);
        let generation = self.generation().await?;
        let read = self.key_holder(parts.public, hash);
        let key = (parts.public.to_owned(), hash);
        let holder = self.remembered(generation, |kept| &mut kept.keys, key, read).await?;
        if !well_formed {
            return Err(LedgerError::InvalidKey);
        }
        if holder.revoked {
            return Err(LedgerError::KeyRevoked);
        }
        if holder.expires.is_some_and(|end| now >= end) {
            return Err(LedgerError::KeyExpired);
        }
        if holder.closed {
            return Err(LedgerError::AccountClosed);
        }
        Ok(Session { generation, ..holder.session.clone() })
    }

    /// Whose key has this public half and this hash of its secret half?
    async fn key_holder(&self, public: &str, hash: Digest) -> Result<Arc<KeyHolder>, LedgerError> {
        let row: Option<KeyRow> = sqlx::query_as(
            "SELECT api_keys.hash, api_keys.account, api_keys.expires, api_keys.revoked, accounts.closed, plans.body, \
             accounts.operator, api_keys.user_id, api_keys.scopes, api_keys.root \
             FROM api_keys JOIN accounts ON accounts.id = api_keys.account JOIN plans ON plans.id = accounts.plan \
             WHERE api_keys.id = $1",
        )
        .bind(public)
        .fetch_optional(&self.readers)
        .await?;
        let stored = row.as_ref().and_then(|row| row.0.parse().ok()).unwrap_or(Digest::from_bytes([0; 32]));
        let equal = anbiq_secret::equal(hash.as_bytes(), stored.as_bytes());
        let Some((_, account, expires, revoked, closed, plan, operator, user, scopes, root)) = row.filter(|_| equal)
        else {
            return Err(LedgerError::InvalidKey);
        };
        let account: AccountId = id("account id", &account)?;
        let session = Session {
            key: id("key id", public)?,
            root: id("key id", root.as_deref().unwrap_or(public))?,
            user: user.map(|user| id("user id", &user)).transpose()?,
            operator: operator.map(|operator| id("operator id", &operator)).transpose()?,
            scopes: scopes.map(|scopes| from_json("scopes", &scopes)).transpose()?.unwrap_or_default(),
            plan: from_json("plan", &plan)?,
            accepted: self.all_accepted(&account).await?,
            grants: self.all_granted(&account).await?,
            account,
            generation: 0,
        };
        Ok(Arc::new(KeyHolder {
            expires: expires.map(Timestamp::from_milliseconds),
            revoked: revoked.is_some(),
            closed: closed.is_some(),
            session,
        }))
    }

    async fn all_accepted(&self, account: &AccountId) -> Result<Vec<TermsRef>, LedgerError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT terms, version FROM acceptances WHERE account = $1 ORDER BY terms")
                .bind(account.as_str())
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter().map(|(terms, version)| crate::terms::reference(&terms, version)).collect()
    }
}

/// A key, its account, and whether they still hold.
pub(crate) struct KeyHolder {
    expires: Option<Timestamp>,
    revoked: bool,
    closed: bool,
    session: Session,
}

/// Hash, account, end, revocation, closing of the account, plan, operator, user, scopes, first of the row.
type KeyRow = (
    String,
    String,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// Public half, account, name, user, scopes, first of the row, issue, end, revocation.
type KeyStateRow =
    (String, String, Option<String>, Option<String>, Option<String>, Option<String>, i64, Option<i64>, Option<i64>);

impl KeyState {
    fn read(
        (key, account, name, user, scopes, root, issued, expires, revoked): KeyStateRow,
    ) -> Result<Self, LedgerError> {
        Ok(Self {
            root: id("key id", root.as_deref().unwrap_or(&key))?,
            id: id("key id", &key)?,
            account: id("account id", &account)?,
            name,
            user: user.map(|user| id("user id", &user)).transpose()?,
            scopes: scopes.map(|scopes| from_json("scopes", &scopes)).transpose()?.unwrap_or_default(),
            issued: Timestamp::from_milliseconds(issued),
            expires: expires.map(Timestamp::from_milliseconds),
            revoked: revoked.map(Timestamp::from_milliseconds),
        })
    }
}

/// How the key of an account begins.
pub(crate) const ACCOUNT: &str = "sk-anbiq-";
/// How the key of an administrator begins.
pub(crate) const ADMIN: &str = "ak-anbiq-";
const PUBLIC: usize = 12;
const SECRET: usize = 48;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key taken apart.
pub(crate) struct Parts<'key> {
    pub(crate) public: &'key str,
    pub(crate) secret: &'key str,
}

impl<'key> Parts<'key> {
    /// Stands in for a key that is malformed, so that it takes the same work.
    pub(crate) const NOBODY: Parts<'static> =
        Parts { public: "000000000000", secret: "000000000000000000000000000000000000000000000000" };

    /// Reads `<prefix><12 public>-<48 secret>`, both in base 62.
    pub(crate) fn parse(prefix: &str, presented: &'key str) -> Option<Self> {
        let (public, secret) = presented.strip_prefix(prefix)?.split_once('-')?;
        let base62 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fits = public.len() == PUBLIC && secret.len() == SECRET && base62(public) && base62(secret);
        fits.then_some(Self { public, secret })
    }
}

/// The public part of a presented key of an account, where it has the form of one; whether there is such a key is another
/// question.
pub fn public_part(presented: &str) -> Option<&str> {
    Parts::parse(ACCOUNT, presented).map(|parts| parts.public)
}

/// Draws a key that begins with `prefix` from the operating system: its public half, its secret half, and the whole.
pub(crate) fn draw(prefix: &str) -> Result<(KeyId, Secret<String>, Secret<String>), LedgerError> {
    let public = base62(PUBLIC)?;
    let secret = base62(SECRET)?;
    let whole = [prefix, public.expose(), "-", secret.expose()].concat();
    let id = KeyId::new(public.expose().clone()).map_err(|_| LedgerError::Random)?;
    Ok((id, secret, Secret::new(whole)))
}

/// What is kept of a secret. It holds 285 random bits, so a fast hash is enough; the pepper keeps the hashes of one
/// ledger from being compared with those of another.
pub(crate) fn hash(pepper: &[u8; 32], secret: &str) -> Digest {
    Digest::of_parts(&[pepper, secret.as_bytes()])
}

fn base62(length: usize) -> Result<Secret<String>, LedgerError> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes).map_err(|_| LedgerError::Random)?;
        // Bytes of 248 and above would favour the first digits.
        let digits = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(BASE62[usize::from(byte % 62)]));
        text.extend(digits.take(length - text.len()));
    }
    bytes.fill(0);
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_grammar() {
        let (id, secret, whole) = draw(ACCOUNT).unwrap();
        let parts = Parts::parse(ACCOUNT, whole.expose()).unwrap();
        assert_eq!((parts.public, parts.secret), (id.as_str(), secret.expose().as_str()));
        let public = "a".repeat(12);
        let long = "b".repeat(48);
        for wrong in [
            String::new(),
            "sk-anbiq-".to_owned(),
            format!("sk-anbiq-{public}-{long}b"),
            format!("sk-anbiq-{public}{long}"),
            format!("sk-other-{public}-{long}"),
            format!("{ADMIN}{public}-{long}"),
            format!("sk-anbiq-{public}-{}é", "b".repeat(46)),
            format!(" sk-anbiq-{public}-{long}"),
            format!("sk-anbiq-{public}' --{}", "b".repeat(44)),
        ] {
            assert!(Parts::parse(ACCOUNT, &wrong).is_none(), "{wrong}");
        }
    }
}
