//! What there is, a page at a time: each list is in the order of its keys and begins after one of them.

use anbiq_domain::{
    AccountId, Grant, GrantId, GrantState, KeyId, PlanId, PriceList, Terms, TermsId, TermsRef, Timestamp,
};
use serde::Serialize;

use crate::budget::to_u64;
use crate::{Account, Ledger, LedgerError, Plan, from_json, id};

/// An API key, without its secret half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    /// Its public half.
    pub id: KeyId,
    /// Whose.
    pub account: AccountId,
    /// When it was issued.
    pub issued: Timestamp,
    /// From when on it no longer holds.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// Terms, and when they were issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IssuedTerms {
    /// All of them.
    #[serde(flatten)]
    pub terms: Terms,
    /// When.
    pub issued: Timestamp,
}

/// That an account accepted terms: the version that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acceptance {
    /// Who.
    pub account: AccountId,
    /// What.
    pub terms: TermsRef,
    /// When.
    pub accepted: Timestamp,
}

/// A grant and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrantRecord {
    /// All of it.
    #[serde(flatten)]
    pub grant: Grant,
    /// Whether it holds.
    pub state: GrantState,
    /// Completion tokens settled under it.
    pub used: u64,
    /// Completion tokens held by requests under way.
    pub reserved: u64,
    /// When it was taken back.
    pub revoked: Option<Timestamp>,
}

/// The prices of a model that were set last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelPrices {
    /// Which model.
    pub model: String,
    /// Since when.
    pub since: Timestamp,
    /// What it costs, per million tokens.
    pub prices: PriceList,
}

impl Ledger {
    /// At most `limit` plans, those after `after`.
    pub async fn plans(&self, after: Option<&PlanId>, limit: u32) -> Result<Vec<Plan>, LedgerError> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT body FROM plans WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.map_or("", PlanId::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.into_iter().map(|(body,)| from_json("plan", &body)).collect()
    }

    /// The plan `plan`, where there is one.
    pub async fn plan(&self, plan: &PlanId) -> Result<Option<Plan>, LedgerError> {
        let row: Option<(String,)> = sqlx::query_as("SELECT body FROM plans WHERE id = $1")
            .bind(plan.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|(body,)| from_json("plan", &body)).transpose()
    }

    /// At most `limit` accounts, those after `after`.
    pub async fn accounts(&self, after: Option<&AccountId>, limit: u32) -> Result<Vec<Account>, LedgerError> {
        let rows: Vec<AccountRow> =
            sqlx::query_as("SELECT id, plan, payment, opened, closed FROM accounts WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(after.map_or("", AccountId::as_str))
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
        let account = |(account, plan, payment, opened, closed): AccountRow| {
            Ok(Account {
                id: id("account id", &account)?,
                plan: id("plan id", &plan)?,
                payment,
                opened: Timestamp::from_milliseconds(opened),
                closed: closed.map(Timestamp::from_milliseconds),
            })
        };
        rows.into_iter().map(account).collect()
    }

    /// At most `limit` keys of `account`, those after `after`; the revoked and expired ones too.
    pub async fn keys(
        &self,
        account: &AccountId,
        after: Option<&KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKey>, LedgerError> {
        let rows: Vec<ApiKeyRow> = sqlx::query_as(
            "SELECT id, account, issued, expires, revoked FROM api_keys WHERE account = $1 AND id > $2 \
             ORDER BY id LIMIT $3",
        )
        .bind(account.as_str())
        .bind(after.map_or("", KeyId::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(api_key).collect()
    }

    /// The API key `key`, where there is one.
    pub async fn key(&self, key: &KeyId) -> Result<Option<ApiKey>, LedgerError> {
        let row: Option<ApiKeyRow> =
            sqlx::query_as("SELECT id, account, issued, expires, revoked FROM api_keys WHERE id = $1")
                .bind(key.as_str())
                .fetch_optional(&self.readers)
                .await?;
        row.map(api_key).transpose()
    }

    /// At most `limit` terms, every version of each, those after `after`.
    pub async fn all_terms(&self, after: Option<&TermsRef>, limit: u32) -> Result<Vec<IssuedTerms>, LedgerError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT body, issued FROM terms WHERE id > $1 OR (id = $1 AND version > $2) ORDER BY id, version LIMIT $3",
        )
        .bind(after.map_or("", |after| after.id.as_str()))
        .bind(after.map_or(0, |after| i64::from(after.version)))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(issued_terms).collect()
    }

    /// The terms `terms` in a version, counted from 1, or in the last one, and when they were issued.
    pub async fn issued_terms(
        &self,
        terms: &TermsId,
        version: Option<u32>,
    ) -> Result<Option<IssuedTerms>, LedgerError> {
        let row: Option<(String, i64)> = sqlx::query_as(
            "SELECT body, issued FROM terms WHERE id = $1 AND ($2 = 0 OR version = $2) ORDER BY version DESC LIMIT 1",
        )
        .bind(terms.as_str())
        .bind(i64::from(version.unwrap_or(0)))
        .fetch_optional(&self.readers)
        .await?;
        row.map(issued_terms).transpose()
    }

    /// At most `limit` acceptances of `account`, those of terms after `after`.
    pub async fn acceptances(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Acceptance>, LedgerError> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT terms, version, accepted FROM acceptances WHERE account = $1 AND terms > $2 ORDER BY terms LIMIT $3",
        )
        .bind(account.as_str())
        .bind(after.unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        let acceptance = |(terms, version, accepted): (String, i64, i64)| {
            let terms = crate::terms::reference(&terms, version)?;
            Ok(Acceptance { account: account.clone(), terms, accepted: Timestamp::from_milliseconds(accepted) })
        };
        rows.into_iter().map(acceptance).collect()
    }

    /// At most `limit` grants of `account`, or of all where it is `None`, those after `after`, as they are at `now`.
    pub async fn grants(
        &self,
        account: Option<&AccountId>,
        after: Option<&GrantId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<GrantRecord>, LedgerError> {
        let rows: Vec<GrantRow> = sqlx::query_as(
            "SELECT body, used, reserved, revoked FROM grants WHERE ($1 = '' OR account = $1) AND id > $2 \
             ORDER BY id LIMIT $3",
        )
        .bind(account.map_or("", AccountId::as_str))
        .bind(after.map_or("", GrantId::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|row| grant(row, now)).collect()
    }

    /// The grant `which` as it is at `now`, where there is one.
    pub async fn grant(&self, which: &GrantId, now: Timestamp) -> Result<Option<GrantRecord>, LedgerError> {
        let row: Option<GrantRow> = sqlx::query_as("SELECT body, used, reserved, revoked FROM grants WHERE id = $1")
            .bind(which.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| grant(row, now)).transpose()
    }

    /// At most `limit` models with their present prices, those after `after`.
    pub async fn all_prices(&self, after: Option<&str>, limit: u32) -> Result<Vec<ModelPrices>, LedgerError> {
        let rows: Vec<(String, i64, String)> = sqlx::query_as(
            "SELECT model, since, body FROM prices WHERE model > $1 AND since = \
             (SELECT MAX(later.since) FROM prices AS later WHERE later.model = prices.model) ORDER BY model LIMIT $2",
        )
        .bind(after.unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(model_prices).collect()
    }

    /// The present prices of `model` and since when they hold.
    pub async fn prices_since(&self, model: &str) -> Result<Option<ModelPrices>, LedgerError> {
        let row: Option<(String, i64, String)> =
            sqlx::query_as("SELECT model, since, body FROM prices WHERE model = $1 ORDER BY since DESC LIMIT 1")
                .bind(model)
                .fetch_optional(&self.readers)
                .await?;
        row.map(model_prices).transpose()
    }
}

/// Id, plan, means of payment, opening, closing.
type AccountRow = (String, String, Option<String>, i64, Option<i64>);

/// Id, account, issue, end, revocation.
type ApiKeyRow = (String, String, i64, Option<i64>, Option<i64>);

fn api_key((key, account, issued, expires, revoked): ApiKeyRow) -> Result<ApiKey, LedgerError> {
    Ok(ApiKey {
        id: id("key id", &key)?,
        account: id("account id", &account)?,
        issued: Timestamp::from_milliseconds(issued),
        expires: expires.map(Timestamp::from_milliseconds),
        revoked: revoked.map(Timestamp::from_milliseconds),
    })
}

fn issued_terms((body, issued): (String, i64)) -> Result<IssuedTerms, LedgerError> {
    Ok(IssuedTerms { terms: from_json("terms", &body)?, issued: Timestamp::from_milliseconds(issued) })
}

/// Body, tokens used, tokens reserved, revocation.
type GrantRow = (String, i64, i64, Option<i64>);

fn grant((body, used, reserved, revoked): GrantRow, now: Timestamp) -> Result<GrantRecord, LedgerError> {
    let grant: Grant = from_json("grant", &body)?;
    let used = to_u64(used);
    let state = if revoked.is_some() { GrantState::Revoked } else { grant.state(now, used) };
    let revoked = revoked.map(Timestamp::from_milliseconds);
    Ok(GrantRecord { grant, state, used, reserved: to_u64(reserved), revoked })
}

fn model_prices((model, since, body): (String, i64, String)) -> Result<ModelPrices, LedgerError> {
    Ok(ModelPrices { model, since: Timestamp::from_milliseconds(since), prices: from_json("price list", &body)? })
}
