//! Grants: asked for, given or refused, used up, revoked.
//!
//! A grant that is asked for permits nothing. What it permits is counted where requests reserve (`reserve.rs`).

use anbiq_domain::{AccountId, Conditions, Grant, GrantId, GrantState, Permission, Reason, Terms, TermsId, Timestamp};
use serde::Serialize;

use crate::{Ledger, LedgerError, Page, finish, from_json, to_i64, to_json, to_u64};

/// A grant and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrantRecord {
    /// All of it; of one that is asked for, as it is asked for.
    #[serde(flatten)]
    pub grant: Grant,
    /// How it stands.
    pub state: GrantState,
    /// Completion tokens that were taken under it.
    pub used: u64,
    /// Completion tokens that requests under way hold of it.
    pub reserved: u64,
    /// When it was asked for, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Timestamp>,
    /// When it was taken back, or refused.
    pub revoked: Option<Timestamp>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Ledger {
    /// Asks for a grant, which permits nothing until it is approved; `given` is when it is asked for.
    ///
    /// # Errors
    ///
    /// `unknown_terms`, `unknown_account`, `grant_exists`, or the database fails.
    pub async fn ask_grant(&self, grant: &Grant) -> Result<(), LedgerError> {
        self.put_grant(grant, "asked", Some(grant.given)).await
    }

    /// Gives a grant that nobody asked for.
    ///
    /// # Errors
    ///
    /// As [`Ledger::ask_grant`], and `grant_beyond_terms` where it permits more than its terms and does not say why.
    pub async fn give_grant(&self, grant: &Grant) -> Result<(), LedgerError> {
        self.put_grant(grant, "given", None).await
    }

    /// Approves a grant that was asked for, under `conditions` where those differ from what was asked for; gives it as it
    /// holds from `now` on.
    ///
    /// # Errors
    ///
    /// `unknown_grant`, `grant_not_asked` where it was decided already, `grant_beyond_terms`, or the database fails.
    pub async fn approve_grant(
        &self,
        grant: &GrantId,
        conditions: Option<&Conditions>,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Grant, LedgerError> {
        let asked = self.asked_grant(grant).await?;
        let conditions = conditions.unwrap_or(&asked.conditions).clone();
        let approved = Grant { conditions, given: now, expires: expires.or(asked.expires), ..asked };
        self.check_terms(&approved).await?;
        let mut change = self.administer().await?;
        let set = sqlx::query(
            "UPDATE grants SET state = 'given', body = $1, given = $2, expires = $3, volume = $4 \
             WHERE id = $5 AND state = 'asked'",
        )
        .bind(to_json("grant", &approved)?)
        .bind(now.milliseconds())
        .bind(approved.expires.map(Timestamp::milliseconds))
        .bind(volume(&approved)?)
        .bind(grant.as_str())
        .execute(&mut *change)
        .await?;
        finish(change, set.rows_affected(), || LedgerError::GrantNotAsked(grant.clone())).await?;
        Ok(approved)
    }

    /// Refuses a grant that was asked for.
    ///
    /// # Errors
    ///
    /// `unknown_grant`, `grant_not_asked` where it was decided already, or the database fails.
    pub async fn refuse_grant(&self, grant: &GrantId, reason: &str, now: Timestamp) -> Result<(), LedgerError> {
        self.asked_grant(grant).await?;
        let mut change = self.administer().await?;
        let set = sqlx::query(
            "UPDATE grants SET state = 'refused', reason = $1, revoked = $2 WHERE id = $3 AND state = 'asked'",
        )
        .bind(reason)
        .bind(now.milliseconds())
        .bind(grant.as_str())
        .execute(&mut *change)
        .await?;
        finish(change, set.rows_affected(), || LedgerError::GrantNotAsked(grant.clone())).await
    }

    /// Takes a grant back, or a request for one; doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// `unknown_grant`, or the database fails.
    pub async fn revoke_grant(&self, grant: &GrantId, now: Timestamp) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        let revoked = sqlx::query("UPDATE grants SET revoked = COALESCE(revoked, $1) WHERE id = $2")
            .bind(now.milliseconds())
            .bind(grant.as_str())
            .execute(&mut *change)
            .await?;
        finish(change, revoked.rows_affected(), || LedgerError::UnknownGrant(grant.clone())).await
    }

    /// The grant `grant` as it stands at `now`, where there is one.
    pub async fn grant(&self, grant: &GrantId, now: Timestamp) -> Result<Option<GrantRecord>, LedgerError> {
        self.budgets.flush().await?;
        let row: Option<GrantRow> =
            sqlx::query_as("SELECT body, state, revoked, used, reserved, asked, reason FROM grants WHERE id = $1")
                .bind(grant.as_str())
                .fetch_optional(&self.readers)
                .await?;
        row.map(|row| GrantRecord::read(row, now)).transpose()
    }

    /// All grants as they stand at `now`, or those of one account, by name; the cursor is the name of a grant.
    pub async fn grants(
        &self,
        account: Option<&AccountId>,
        now: Timestamp,
        page: &Page,
    ) -> Result<Vec<GrantRecord>, LedgerError> {
        self.budgets.flush().await?;
        let rows: Vec<GrantRow> = sqlx::query_as(
            "SELECT body, state, revoked, used, reserved, asked, reason FROM grants \
             WHERE ($1 = '' OR account = $1) AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(account.map_or("", AccountId::as_str))
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|row| GrantRecord::read(row, now)).collect()
    }

    /// The grant of `account` under the terms `terms`, its state at `now`, and the tokens settled under it.
    ///
    /// Of several grants the active one counts, else the one given last.
    pub async fn grant_of(
        &self,
        account: &AccountId,
        terms: &TermsId,
        now: Timestamp,
    ) -> Result<Option<(Grant, GrantState, u64)>, LedgerError> {
        let rows: Vec<GrantRow> = sqlx::query_as(
            "SELECT body, state, revoked, used, reserved, asked, reason FROM grants \
             WHERE account = $1 AND terms = $2 AND state = 'given' ORDER BY given DESC, id LIMIT 100",
        )
        .bind(account.as_str())
        .bind(terms.as_str())
        .fetch_all(&self.readers)
        .await?;
        let mut first = None;
        for row in rows {
            let GrantRecord { grant, state, used, .. } = GrantRecord::read(row, now)?;
            if state == GrantState::Active {
                return Ok(Some((grant, state, used)));
            }
            first.get_or_insert((grant, state, used));
        }
        Ok(first)
    }

    async fn put_grant(&self, grant: &Grant, state: &str, asked: Option<Timestamp>) -> Result<(), LedgerError> {
        if state == "given" {
            self.check_terms(grant).await?;
        } else {
            self.terms_of(grant).await?;
        }
        let mut change = self.administer().await?;
        let put = sqlx::query(
            "INSERT INTO grants (id, account, terms, body, given, expires, volume, used, reserved, state, asked) \
             SELECT $1, id, $2, $3, $4, $5, $6, 0, 0, $7, $8 FROM accounts WHERE id = $9 ON CONFLICT (id) DO NOTHING",
        )
        .bind(grant.id.as_str())
        .bind(grant.terms.id.as_str())
        .bind(to_json("grant", grant)?)
        .bind(grant.given.milliseconds())
        .bind(grant.expires.map(Timestamp::milliseconds))
        .bind(volume(grant)?)
        .bind(state)
        .bind(asked.map(Timestamp::milliseconds))
        .bind(grant.account.as_str())
        .execute(&mut *change)
        .await?;
        if put.rows_affected() == 1 {
            return Ok(change.commit().await?);
        }
        change.rollback().await?;
        Err(match self.account(&grant.account).await? {
            Some(_) => LedgerError::GrantExists(grant.id.clone()),
            None => LedgerError::UnknownAccount(grant.account.clone()),
        })
    }

    async fn asked_grant(&self, grant: &GrantId) -> Result<Grant, LedgerError> {
        let record = self.grant(grant, Timestamp::default()).await?;
        let record = record.ok_or_else(|| LedgerError::UnknownGrant(grant.clone()))?;
        if record.state == GrantState::Asked {
            Ok(record.grant)
        } else {
            Err(LedgerError::GrantNotAsked(grant.clone()))
        }
    }

    async fn terms_of(&self, grant: &Grant) -> Result<Terms, LedgerError> {
        let terms = self.terms(&grant.terms.id, Some(grant.terms.version)).await?;
        terms.ok_or_else(|| LedgerError::UnknownTerms(grant.terms.clone()))
    }

    /// Does a grant that permits more than its terms say why?
    async fn check_terms(&self, grant: &Grant) -> Result<(), LedgerError> {
        let terms = self.terms_of(grant).await?;
        let mut beyond = grant.conditions.beyond(&terms.conditions);
        if terms.distillation == Permission::Forbidden {
            let words = "distillation, which the terms forbid".to_owned();
            beyond.push(Reason { code: "distillation_forbidden".to_owned(), words });
        }
        if beyond.is_empty() || grant.conditions.beyond_terms.is_some() {
            return Ok(());
        }
        let words: Vec<String> = beyond.into_iter().map(|reason| reason.words).collect();
        Err(LedgerError::GrantBeyondTerms(grant.id.clone(), words.join("; ")))
    }
}

fn volume(grant: &Grant) -> Result<Option<i64>, LedgerError> {
    grant.conditions.max_output_tokens.map(to_i64).transpose()
}

/// Grant, state, end by decision, tokens used and reserved, when it was asked for, why it was refused.
type GrantRow = (String, String, Option<i64>, i64, i64, Option<i64>, Option<String>);

impl GrantRecord {
    fn read(
        (body, state, revoked, used, reserved, asked, refused): GrantRow,
        now: Timestamp,
    ) -> Result<Self, LedgerError> {
        let grant: Grant = from_json("grant", &body)?;
        let state = match (state.as_str(), revoked) {
            ("refused", _) => GrantState::Refused,
            (_, Some(_)) => GrantState::Revoked,
            ("asked", None) => GrantState::Asked,
            (_, None) => grant.state(now, to_u64(used)),
        };
        let moment = |milliseconds: Option<i64>| milliseconds.map(Timestamp::from_milliseconds);
        let (asked, revoked) = (moment(asked), moment(revoked));
        Ok(Self { grant, state, used: to_u64(used), reserved: to_u64(reserved), asked, revoked, refused })
    }
}
