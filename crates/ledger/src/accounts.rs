//! Plans, accounts and keys.

use anbiq_domain::{AccountId, Digest, KeyId, TermsRef, Timestamp};
use anbiq_secret::Secret;

use crate::key::{self, Parts};
use crate::{Account, Ledger, LedgerError, NewAccount, Plan, Session, from_json, id, to_json};

impl Ledger {
    /// Makes a plan, or changes it for all accounts that are on it.
    pub async fn put_plan(&self, plan: &Plan) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        sqlx::query("INSERT INTO plans (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body")
            .bind(plan.id.as_str())
            .bind(to_json("plan", plan)?)
            .execute(&mut *change)
            .await?;
        Ok(change.commit().await?)
    }

    /// Opens an account, without a budget limit.
    pub async fn open_account(&self, account: &NewAccount) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        let opened = sqlx::query(
            "INSERT INTO accounts (id, plan, payment, opened, spent, reserved) \
             SELECT $1, id, $2, $3, 0, 0 FROM plans WHERE id = $4 ON CONFLICT (id) DO NOTHING",
        )
        .bind(account.id.as_str())
        .bind(account.payment.as_deref())
        .bind(account.opened.milliseconds())
        .bind(account.plan.as_str())
        .execute(&mut *change)
        .await?;
        if opened.rows_affected() == 1 {
            return Ok(change.commit().await?);
        }
        let exists: Option<(String,)> = sqlx::query_as("SELECT id FROM accounts WHERE id = $1")
            .bind(account.id.as_str())
            .fetch_optional(&mut *change)
            .await?;
        Err(match exists {
            Some(_) => LedgerError::AccountExists(account.id.clone()),
            None => LedgerError::UnknownPlan(account.plan.clone()),
        })
    }

    /// The account `account`, where there is one.
    pub async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        let row: Option<(String, Option<String>, i64, Option<i64>)> =
            sqlx::query_as("SELECT plan, payment, opened, closed FROM accounts WHERE id = $1")
                .bind(account.as_str())
                .fetch_optional(&self.readers)
                .await?;
        row.map(|(plan, payment, opened, closed)| {
            Ok(Account {
                id: account.clone(),
                plan: id("plan id", &plan)?,
                payment,
                opened: Timestamp::from_milliseconds(opened),
                closed: closed.map(Timestamp::from_milliseconds),
            })
        })
        .transpose()
    }

    /// Closes an account: its keys no longer hold and nothing more is reserved; what is under way is still settled.
    pub async fn close_account(&self, account: &AccountId, now: Timestamp) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        let closed = sqlx::query("UPDATE accounts SET closed = COALESCE(closed, $1) WHERE id = $2")
            .bind(now.milliseconds())
            .bind(account.as_str())
            .execute(&mut *change)
            .await?;
        if closed.rows_affected() == 0 {
            return Err(LedgerError::UnknownAccount(account.clone()));
        }
        Ok(change.commit().await?)
    }

    /// Issues a key. The whole key is given out here and never again: only a hash of its secret half is stored.
    pub async fn issue_key(
        &self,
        account: &AccountId,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(KeyId, Secret<String>), LedgerError> {
        let (public, secret, whole) = key::draw(key::ACCOUNT)?;
        let mut change = self.administer().await?;
        let issued = sqlx::query(
            "INSERT INTO api_keys (id, account, hash, issued, expires) \
             SELECT $1, id, $2, $3, $4 FROM accounts WHERE id = $5",
        )
        .bind(public.as_str())
        .bind(key::hash(&self.pepper, secret.expose()).to_string())
        .bind(now.milliseconds())
        .bind(expires.map(Timestamp::milliseconds))
        .bind(account.as_str())
        .execute(&mut *change)
        .await?;
        if issued.rows_affected() == 0 {
            return Err(LedgerError::UnknownAccount(account.clone()));
        }
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
        if revoked.rows_affected() == 0 {
            return Err(LedgerError::UnknownKey(key.clone()));
        }
        Ok(change.commit().await?)
    }

    /// Whose key is `presented`?
    ///
    /// A malformed, an unknown and a wrong key take the same work and give the same answer, so that nobody can search
    /// for public halves. That a key was revoked or has expired is told only to one who knows its secret.
    ///
    /// # Errors
    ///
    /// `invalid_api_key`, `key_revoked`, `key_expired`, `account_closed`, or the database fails.
    pub async fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Session, LedgerError> {
        let parsed = Parts::parse(key::ACCOUNT, presented);
        let well_formed = parsed.is_some();
        let parts = parsed.unwrap_or(Parts::NOBODY);
        let hash = key::hash(&self.pepper, parts.secret);
        let entry = (parts.public.to_owned(), hash);
        let holder = self.remembered(|kept| &mut kept.keys, entry, self.key_holder(parts.public, hash)).await?;
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
        Ok(holder.session)
    }

    /// Whose key has this public half and this hash of its secret half?
    async fn key_holder(&self, public: &str, hash: Digest) -> Result<KeyHolder, LedgerError> {
        let row: Option<KeyRow> = sqlx::query_as(
            "SELECT api_keys.hash, api_keys.account, api_keys.expires, api_keys.revoked, accounts.closed, plans.body \
             FROM api_keys JOIN accounts ON accounts.id = api_keys.account JOIN plans ON plans.id = accounts.plan \
             WHERE api_keys.id = $1",
        )
        .bind(public)
        .fetch_optional(&self.readers)
        .await?;
        let stored = row.as_ref().and_then(|row| row.0.parse().ok()).unwrap_or(Digest::from_bytes([0; 32]));
        let equal = anbiq_secret::equal(hash.as_bytes(), stored.as_bytes());
        let Some((_, account, expires, revoked, closed, plan)) = row.filter(|_| equal) else {
            return Err(LedgerError::InvalidKey);
        };
        let account: AccountId = id("account id", &account)?;
        let accepted = self.all_accepted(&account).await?;
        Ok(KeyHolder {
            expires: expires.map(Timestamp::from_milliseconds),
            revoked: revoked.is_some(),
            closed: closed.is_some(),
            session: Session { account, key: id("key id", public)?, plan: from_json("plan", &plan)?, accepted },
        })
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
#[derive(Clone)]
pub(crate) struct KeyHolder {
    expires: Option<Timestamp>,
    revoked: bool,
    closed: bool,
    session: Session,
}

/// Hash, account, end, revocation, closing of the account, plan.
type KeyRow = (String, String, Option<i64>, Option<i64>, Option<i64>, String);
