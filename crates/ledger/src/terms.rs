//! Prices, and terms and their acceptance.

use std::sync::Arc;

use anbiq_domain::{AccountId, PriceList, Terms, TermsId, TermsRef, Timestamp};

use crate::{Granted, Ledger, LedgerError, Page, Session, Teacher, from_json, id, to_json};

impl Ledger {
    /// Sets the prices of `model` from `at` on; earlier ones are kept.
    pub async fn put_prices(&self, model: &str, prices: PriceList, at: Timestamp) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        sqlx::query(
            "INSERT INTO prices (model, since, body) VALUES ($1, $2, $3) \
             ON CONFLICT (model, since) DO UPDATE SET body = excluded.body",
        )
        .bind(model)
        .bind(at.milliseconds())
        .bind(to_json("price list", &prices)?)
        .execute(&mut *change)
        .await?;
        Ok(change.commit().await?)
    }

    /// What holds of `model` at the moment at which the session's key was presented, or later.
    pub async fn teacher(&self, session: &Session, model: &str) -> Result<Arc<Teacher>, LedgerError> {
        self.teacher_of(session.generation, model).await
    }

    async fn teacher_of(&self, generation: i64, model: &str) -> Result<Arc<Teacher>, LedgerError> {
        let read = async {
            let prices: Option<(String,)> =
                sqlx::query_as("SELECT body FROM prices WHERE model = $1 ORDER BY since DESC LIMIT 1")
                    .bind(model)
                    .fetch_optional(&self.readers)
                    .await?;
            let terms: Option<(String,)> =
                sqlx::query_as("SELECT body FROM terms WHERE teacher = $1 ORDER BY issued DESC, version DESC LIMIT 1")
                    .bind(model)
                    .fetch_optional(&self.readers)
                    .await?;
            Ok(Arc::new(Teacher {
                terms: terms.map(|(body,)| from_json("terms", &body)).transpose()?,
                prices: prices.map(|(body,)| from_json("price list", &body)).transpose()?,
            }))
        };
        self.remembered_name(generation, |kept| &mut kept.teachers, model, read).await
    }

    /// The prices that were set last.
    pub async fn prices(&self, model: &str) -> Result<Option<PriceList>, LedgerError> {
        Ok(self.teacher_of(self.generation().await?, model).await?.prices)
    }

    /// The price lists that hold, with the models they are of, by the names of those; the cursor is such a name.
    pub async fn price_lists(&self, page: &Page) -> Result<Vec<(String, PriceList)>, LedgerError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT model, body FROM prices WHERE model > $1 \
             AND since = (SELECT MAX(since) FROM prices AS last WHERE last.model = prices.model) ORDER BY model LIMIT $2",
        )
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|(model, body)| Ok((model, from_json("price list", &body)?))).collect()
    }

    /// All price lists of `model` with the moments from which they held, the newest first; at most a thousand.
    pub async fn price_history(&self, model: &str) -> Result<Vec<(Timestamp, PriceList)>, LedgerError> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT since, body FROM prices WHERE model = $1 ORDER BY since DESC LIMIT 1000")
                .bind(model)
                .fetch_all(&self.readers)
                .await?;
        let list =
            |(since, body): (i64, String)| Ok((Timestamp::from_milliseconds(since), from_json("price list", &body)?));
        rows.into_iter().map(list).collect()
    }

    /// Issues terms. Issuing the same again changes nothing.
    ///
    /// # Errors
    ///
    /// `terms_changed` where that version was issued with other contents.
    pub async fn put_terms(&self, terms: &Terms, at: Timestamp) -> Result<(), LedgerError> {
        let body = to_json("terms", terms)?;
        let mut change = self.administer().await?;
        sqlx::query(
            "INSERT INTO terms (id, version, teacher, issued, body) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (id, version) DO NOTHING",
        )
        .bind(terms.id.as_str())
        .bind(i64::from(terms.version))
        .bind(terms.teacher.as_str())
        .bind(at.milliseconds())
        .bind(body.as_str())
        .execute(&mut *change)
        .await?;
        let (kept,): (String,) = sqlx::query_as("SELECT body FROM terms WHERE id = $1 AND version = $2")
            .bind(terms.id.as_str())
            .bind(i64::from(terms.version))
            .fetch_one(&mut *change)
            .await?;
        if kept != body {
            return Err(LedgerError::TermsChanged(terms.reference()));
        }
        Ok(change.commit().await?)
    }

    /// The terms `terms` in a version, or in the last one.
    pub async fn terms(&self, terms: &TermsId, version: Option<u32>) -> Result<Option<Terms>, LedgerError> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT body FROM terms WHERE id = $1 AND ($2 = 0 OR version = $2) ORDER BY version DESC LIMIT 1",
        )
        .bind(terms.as_str())
        // Versions are counted from 1.
        .bind(i64::from(version.unwrap_or(0)))
        .fetch_optional(&self.readers)
        .await?;
        row.map(|(body,)| from_json("terms", &body)).transpose()
    }

    /// The terms of a teacher that were issued last.
    pub async fn terms_of_teacher(&self, model: &str) -> Result<Option<Terms>, LedgerError> {
        Ok(self.teacher_of(self.generation().await?, model).await?.terms.clone())
    }

    /// All terms in their last versions, by name; the cursor is the name of terms.
    pub async fn all_terms(&self, page: &Page) -> Result<Vec<Terms>, LedgerError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT body FROM terms WHERE id > $1 \
             AND version = (SELECT MAX(version) FROM terms AS last WHERE last.id = terms.id) ORDER BY id LIMIT $2",
        )
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|(body,)| from_json("terms", body)).collect()
    }

    /// Records that `account` accepted `terms`; the version accepted last counts.
    pub async fn accept_terms(&self, account: &AccountId, terms: &TermsRef, now: Timestamp) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        let accepted = sqlx::query(
            "INSERT INTO acceptances (account, terms, version, accepted) \
             SELECT accounts.id, terms.id, terms.version, $1 FROM accounts, terms \
             WHERE accounts.id = $2 AND terms.id = $3 AND terms.version = $4 \
             ON CONFLICT (account, terms) DO UPDATE SET version = excluded.version, accepted = excluded.accepted",
        )
        .bind(now.milliseconds())
        .bind(account.as_str())
        .bind(terms.id.as_str())
        .bind(i64::from(terms.version))
        .execute(&mut *change)
        .await?;
        if accepted.rows_affected() == 1 {
            return Ok(change.commit().await?);
        }
        change.rollback().await?;
        Err(match self.account(account).await? {
            Some(_) => LedgerError::UnknownTerms(terms.clone()),
            None => LedgerError::UnknownAccount(account.clone()),
        })
    }

    /// The version of `terms` that `account` accepted last.
    pub async fn accepted(&self, account: &AccountId, terms: &TermsId) -> Result<Option<TermsRef>, LedgerError> {
        let row: Option<(i64,)> = sqlx::query_as("SELECT version FROM acceptances WHERE account = $1 AND terms = $2")
            .bind(account.as_str())
            .bind(terms.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|(version,)| reference(terms.as_str(), version)).transpose()
    }

    /// What `account` accepted, and when: of all terms the version that it accepted last, by their names.
    pub async fn acceptances(&self, account: &AccountId) -> Result<Vec<(TermsRef, Timestamp)>, LedgerError> {
        let rows: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT terms, version, accepted FROM acceptances WHERE account = $1 ORDER BY terms")
                .bind(account.as_str())
                .fetch_all(&self.readers)
                .await?;
        let acceptance = |(terms, version, accepted): (String, i64, i64)| {
            Ok((reference(&terms, version)?, Timestamp::from_milliseconds(accepted)))
        };
        rows.into_iter().map(acceptance).collect()
    }
}

impl Ledger {
    /// The newest hundred grants of an account, under whatever terms.
    pub(crate) async fn all_granted(&self, account: &AccountId) -> Result<Vec<Granted>, LedgerError> {
        let rows: Vec<(String, Option<i64>)> = sqlx::query_as(
            "SELECT body, revoked FROM grants WHERE account = $1 AND state = 'given' ORDER BY given DESC, id LIMIT 100",
        )
        .bind(account.as_str())
        .fetch_all(&self.readers)
        .await?;
        let granted = |(body, revoked): (String, Option<i64>)| {
            Ok(Granted { grant: from_json("grant", &body)?, revoked: revoked.is_some() })
        };
        rows.into_iter().map(granted).collect()
    }
}

pub(crate) fn reference(terms: &str, version: i64) -> Result<TermsRef, LedgerError> {
    let version = u32::try_from(version)
        .map_err(|error| LedgerError::Damaged { what: "version of terms", reason: error.to_string() })?;
    Ok(TermsRef { id: id("terms id", terms)?, version })
}
