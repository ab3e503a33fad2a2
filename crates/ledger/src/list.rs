//! Grants, a page at a time.

use anbiq_domain::{AccountId, Grant, GrantId, GrantState, Timestamp};
use serde::Serialize;

use crate::{Ledger, LedgerError, Page, from_json, to_u64};

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

impl Ledger {
    /// All grants, or those of one account, as they are at `now`, by name; the cursor is the name of a grant.
    pub async fn grants(
        &self,
        account: Option<&AccountId>,
        now: Timestamp,
        page: &Page,
    ) -> Result<Vec<GrantRecord>, LedgerError> {
        let rows: Vec<GrantRow> = sqlx::query_as(
            "SELECT body, used, reserved, revoked FROM grants WHERE ($1 = '' OR account = $1) AND id > $2 \
             ORDER BY id LIMIT $3",
        )
        .bind(account.map_or("", AccountId::as_str))
        .bind(page.after())
        .bind(page.limit())
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
