//! Budgets: reserve, settle, release, expire.
//!
//! Whatever changes more than one row here has the ledger to itself while it does: the changes of all programs come one
//! after the other, and none meets another in the middle. The statements do not rest on that alone: each looks at its
//! conditions in the moment of the change.

use std::collections::BTreeMap;
use std::fmt;

use anbiq_domain::{AccountId, GrantId, Money, Timestamp};
use serde::Serialize;
use sqlx::AnyConnection;

use crate::writer::{Change, Writer};
use crate::{Ledger, LedgerError, Who};

/// Money held for one request under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReservationId(String);

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A budget and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BudgetState {
    /// All that may be spent; `None` for no limit.
    pub limit: Option<Money>,
    /// Charged so far.
    pub spent: Money,
    /// Held by requests under way.
    pub reserved: Money,
}

/// The most that one request may hold: a million dollars. It keeps every sum far from the end of 64 bits.
const LARGEST: Money = Money::from_dollars(1_000_000);

/// How long a closed reservation is remembered, so that closing it twice is noticed: a day.
const MEMORY_MS: i64 = 24 * 3_600_000;

/// Reservations expired in one transaction.
const BATCH: i64 = 500;

impl Ledger {
    /// Sets the limit of an account's budget. What was spent stays spent: a limit below it stops the account.
    pub async fn set_budget(&self, account: &AccountId, limit: Money) -> Result<(), LedgerError> {
        if limit < Money::ZERO {
            return Err(LedgerError::OutOfRange("a budget below zero"));
        }
        // Budgets are not remembered, so the generation need not count this.
        let set = sqlx::query("UPDATE accounts SET budget = $1 WHERE id = $2")
            .bind(limit.nanos())
            .bind(account.as_str())
            .execute(&self.writers)
            .await?;
        if set.rows_affected() == 1 { Ok(()) } else { Err(LedgerError::UnknownAccount(account.clone())) }
    }

    /// The budget of `account`, where there is such an account.
    pub async fn budget(&self, account: &AccountId) -> Result<Option<BudgetState>, LedgerError> {
        let row: Option<(Option<i64>, i64, i64)> =
            sqlx::query_as("SELECT budget, spent, reserved FROM accounts WHERE id = $1")
                .bind(account.as_str())
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.map(|(limit, spent, reserved)| BudgetState {
            limit: limit.map(Money::from_nanos),
            spent: Money::from_nanos(spent),
            reserved: Money::from_nanos(reserved),
        }))
    }

    /// Holds `amount`, the most that a request can cost, and the most tokens it can take under a grant, for `ttl_ms`
    /// milliseconds. All or nothing: where the grant's volume does not suffice, no money is held.
    ///
    /// An account without a limit is recorded all the same.
    ///
    /// # Errors
    ///
    /// `insufficient_budget`, `account_closed`, `grant_used_up`, `grant_expired`, `grant_revoked`, something unknown,
    /// or the database fails.
    pub async fn reserve(
        &self,
        account: &AccountId,
        amount: Money,
        grant: Option<(GrantId, u64)>,
        now: Timestamp,
        ttl_ms: i64,
    ) -> Result<ReservationId, LedgerError> {
        if amount < Money::ZERO || amount > LARGEST {
            return Err(LedgerError::OutOfRange("this amount"));
        }
        let reserve = Reserve {
            id: fresh_reservation()?,
            account: account.clone(),
            amount,
            tokens: grant.as_ref().map_or(Ok(0), |(_, tokens)| to_i64(*tokens))?,
            grant: grant.map(|(grant, _)| grant),
            now,
            expires: now.plus_milliseconds(ttl_ms),
        };
        let id = reserve.id.clone();
        let mut unclaimed = Unclaimed { budgets: &self.budgets, id: Some(id.clone()) };
        let made = self.budgets.make(Change::Reserve(reserve)).await;
        // Where the database failed it may have been made all the same; where it was refused there is nothing to let go.
        if made.as_ref().err().is_none_or(|error| error.who() != Who::Database) {
            unclaimed.id = None;
        }
        made.map(|()| id)
    }

    /// Charges at `now` what a request really cost and lets the rest go; `tokens` count against its grant.
    ///
    /// What was served is owed: the actual amount is charged even after the reservation expired, and even where it is
    /// more than was held, which does not happen to a caller that holds the most a request can cost.
    ///
    /// # Errors
    ///
    /// `reservation_closed` where it was settled or released before (nothing is charged twice),
    /// `unknown_reservation`, or the database fails.
    pub async fn settle(
        &self,
        reservation: &ReservationId,
        actual: Money,
        tokens: u64,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        if actual < Money::ZERO || actual > LARGEST {
            return Err(LedgerError::OutOfRange("this amount"));
        }
        let finish =
            Finish { id: reservation.clone(), state: "settled", spent: actual, used: to_i64(tokens)?, now: Some(now) };
        self.budgets.make(Change::Finish(finish)).await
    }

    /// Lets a reservation go: nothing was served.
    ///
    /// # Errors
    ///
    /// As [`Ledger::settle`].
    pub async fn release(&self, reservation: &ReservationId) -> Result<(), LedgerError> {
        self.budgets.make(Change::Finish(Finish::release(reservation.clone()))).await
    }

    /// Lets go of every reservation whose time has passed at `now`, and says how many there were.
    ///
    /// Closed reservations are forgotten a day later.
    pub async fn expire(&self, now: Timestamp) -> Result<u64, LedgerError> {
        let mut total = 0;
        loop {
            let expired = self.expire_some(now).await?;
            total += expired;
            if expired < BATCH.unsigned_abs() {
                break;
            }
        }
        sqlx::query("DELETE FROM reservations WHERE state <> 'held' AND expires <= $1")
            .bind(now.plus_milliseconds(-MEMORY_MS).milliseconds())
            .execute(&self.writers)
            .await?;
        Ok(total)
    }

    async fn expire_some(&self, now: Timestamp) -> Result<u64, LedgerError> {
        let mut change = self.backend.begin_alone(&self.writers).await?;
        let rows: Vec<HeldRow> = sqlx::query_as(
            // The state is asked for twice, since of a row that it waited for PostgreSQL looks only at the outer condition
            // again: it may be settled by then.
            "UPDATE reservations SET state = 'expired' WHERE state = 'held' AND id IN \
             (SELECT id FROM reservations WHERE state = 'held' AND expires <= $1 ORDER BY expires LIMIT $2) \
             RETURNING account, amount, grant_id, tokens",
        )
        .bind(now.milliseconds())
        .bind(BATCH)
        .fetch_all(&mut *change)
        .await?;
        let mut money = BTreeMap::<String, i64>::new();
        let mut volume = BTreeMap::<String, i64>::new();
        let count = rows.len() as u64;
        for held in rows.into_iter().map(Held::from) {
            *money.entry(held.account).or_default() += held.amount;
            if let Some(grant) = held.grant {
                *volume.entry(grant).or_default() += held.tokens;
            }
        }
        for (account, amount) in money {
            give_back(&mut change, &account, amount, 0).await?;
        }
        for (grant, tokens) in volume {
            give_volume_back(&mut change, &grant, tokens, 0).await?;
        }
        change.commit().await?;
        Ok(count)
    }
}

/// A reservation to be made.
#[derive(Debug)]
pub(crate) struct Reserve {
    pub(crate) id: ReservationId,
    account: AccountId,
    amount: Money,
    grant: Option<GrantId>,
    tokens: i64,
    now: Timestamp,
    expires: Timestamp,
}

impl Reserve {
    /// Makes it; the inner error is a refusal, which leaves nothing behind.
    pub(crate) async fn apply(&self, change: &mut AnyConnection) -> Result<Result<(), LedgerError>, sqlx::Error> {
        let held = sqlx::query(
            "UPDATE accounts SET reserved = reserved + $1 \
             WHERE id = $2 AND closed IS NULL AND (budget IS NULL OR $1 <= budget - spent - reserved)",
        )
        .bind(self.amount.nanos())
        .bind(self.account.as_str())
        .execute(&mut *change)
        .await?;
        if held.rows_affected() == 0 {
            return Ok(Err(why_no_money(change, &self.account, self.amount).await?));
        }
        if let Some(grant) = &self.grant {
            let held = sqlx::query(
                "UPDATE grants SET reserved = reserved + $1 WHERE id = $2 AND account = $3 AND revoked IS NULL \
                 AND (expires IS NULL OR expires > $4) AND (volume IS NULL OR $1 <= volume - used - reserved)",
            )
            .bind(self.tokens)
            .bind(grant.as_str())
            .bind(self.account.as_str())
            .bind(self.now.milliseconds())
            .execute(&mut *change)
            .await?;
            if held.rows_affected() == 0 {
                // The transaction goes on with the changes of others, so it is not the end of it that undoes this.
                give_back(change, self.account.as_str(), self.amount.nanos(), 0).await?;
                return Ok(Err(why_no_volume(change, &self.account, grant, self.now).await?));
            }
        }
        sqlx::query(
            "INSERT INTO reservations (id, account, amount, grant_id, tokens, expires, state) \
             VALUES ($1, $2, $3, $4, $5, $6, 'held')",
        )
        .bind(self.id.0.as_str())
        .bind(self.account.as_str())
        .bind(self.amount.nanos())
        .bind(self.grant.as_ref().map(GrantId::as_str))
        .bind(self.tokens)
        .bind(self.expires.milliseconds())
        .execute(&mut *change)
        .await?;
        Ok(Ok(()))
    }
}

/// A reservation that its caller does not know of yet. Should the caller go away before it is answered, nobody would
/// ever close it, so it is let go; where that finds no room in the queue, it expires.
struct Unclaimed<'ledger> {
    budgets: &'ledger Writer,
    id: Option<ReservationId>,
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            // The queue keeps its order: it is made first, if it is.
            self.budgets.leave(Change::Finish(Finish::release(id)));
        }
    }
}

/// A reservation to be closed.
#[derive(Debug)]
pub(crate) struct Finish {
    id: ReservationId,
    /// What it becomes.
    state: &'static str,
    spent: Money,
    used: i64,
    /// From when on it is remembered; where there is no such moment, from its end.
    now: Option<Timestamp>,
}

impl Finish {
    /// Nothing was served.
    pub(crate) const fn release(id: ReservationId) -> Self {
        Self { id, state: "released", spent: Money::ZERO, used: 0, now: None }
    }

    /// Makes it; the inner error is a refusal, which leaves nothing behind.
    pub(crate) async fn apply(&self, change: &mut AnyConnection) -> Result<Result<(), LedgerError>, sqlx::Error> {
        let mut closed = close(change, &self.id, "held", self.state, self.now).await?;
        if closed.is_none() {
            // What an expired one held was given back when it expired.
            closed = close(change, &self.id, "expired", self.state, self.now).await?.map(|held| Held {
                amount: 0,
                tokens: 0,
                ..held
            });
        }
        let Some(held) = closed else {
            let known: Option<(String,)> = sqlx::query_as("SELECT state FROM reservations WHERE id = $1")
                .bind(self.id.0.as_str())
                .fetch_optional(&mut *change)
                .await?;
            return Ok(Err(match known {
                Some(_) => LedgerError::ReservationClosed(self.id.clone()),
                None => LedgerError::UnknownReservation(self.id.clone()),
            }));
        };
        give_back(change, &held.account, held.amount, self.spent.nanos()).await?;
        if let Some(grant) = &held.grant {
            give_volume_back(change, grant, held.tokens, self.used).await?;
        }
        Ok(Ok(()))
    }
}

/// What a reservation held.
struct Held {
    account: String,
    amount: i64,
    grant: Option<String>,
    tokens: i64,
}

type HeldRow = (String, i64, Option<String>, i64);

impl From<HeldRow> for Held {
    fn from((account, amount, grant, tokens): HeldRow) -> Self {
        Self { account, amount, grant, tokens }
    }
}

/// Moves a reservation from one state to another; `None` where it is not in that state.
async fn close(
    change: &mut AnyConnection,
    reservation: &ReservationId,
    from: &'static str,
    to: &'static str,
    now: Option<Timestamp>,
) -> Result<Option<Held>, sqlx::Error> {
    let row: Option<HeldRow> = sqlx::query_as(
        "UPDATE reservations SET state = $1, expires = COALESCE($2, expires) WHERE id = $3 AND state = $4 \
         RETURNING account, amount, grant_id, tokens",
    )
    .bind(to)
    .bind(now.map(Timestamp::milliseconds))
    .bind(reservation.0.as_str())
    .bind(from)
    .fetch_optional(&mut *change)
    .await?;
    Ok(row.map(Held::from))
}

async fn give_back(change: &mut AnyConnection, account: &str, held: i64, spent: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET reserved = reserved - $1, spent = spent + $2 WHERE id = $3")
        .bind(held)
        .bind(spent)
        .bind(account)
        .execute(&mut *change)
        .await?;
    Ok(())
}

async fn give_volume_back(change: &mut AnyConnection, grant: &str, held: i64, used: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE grants SET reserved = reserved - $1, used = used + $2 WHERE id = $3")
        .bind(held)
        .bind(used)
        .bind(grant)
        .execute(&mut *change)
        .await?;
    Ok(())
}

async fn why_no_money(
    change: &mut AnyConnection,
    account: &AccountId,
    asked: Money,
) -> Result<LedgerError, sqlx::Error> {
    let row: Option<(Option<i64>, Option<i64>, i64, i64)> =
        sqlx::query_as("SELECT closed, budget, spent, reserved FROM accounts WHERE id = $1")
            .bind(account.as_str())
            .fetch_optional(&mut *change)
            .await?;
    Ok(match row {
        None => LedgerError::UnknownAccount(account.clone()),
        Some((Some(_), ..)) => LedgerError::AccountClosed,
        Some((None, limit, spent, reserved)) => LedgerError::InsufficientBudget {
            limit: limit.map_or(Money::MAX, Money::from_nanos),
            spent: Money::from_nanos(spent),
            reserved: Money::from_nanos(reserved),
            asked,
        },
    })
}

async fn why_no_volume(
    change: &mut AnyConnection,
    account: &AccountId,
    grant: &GrantId,
    now: Timestamp,
) -> Result<LedgerError, sqlx::Error> {
    let row: Option<(Option<i64>, Option<i64>)> =
        sqlx::query_as("SELECT revoked, expires FROM grants WHERE id = $1 AND account = $2")
            .bind(grant.as_str())
            .bind(account.as_str())
            .fetch_optional(&mut *change)
            .await?;
    Ok(match row {
        None => LedgerError::UnknownGrant(grant.clone()),
        Some((Some(_), _)) => LedgerError::GrantRevoked(grant.clone()),
        Some((None, Some(end))) if now.milliseconds() >= end => LedgerError::GrantExpired(grant.clone()),
        Some(_) => LedgerError::GrantUsedUp(grant.clone()),
    })
}

fn fresh_reservation() -> Result<ReservationId, LedgerError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| LedgerError::Random)?;
    Ok(ReservationId(hex::encode(bytes)))
}

/// Tokens as the database holds them.
pub(crate) fn to_i64(tokens: u64) -> Result<i64, LedgerError> {
    // Far above any request and any grant, and far from the end of 64 bits.
    i64::try_from(tokens).ok().filter(|tokens| *tokens <= 1 << 53).ok_or(LedgerError::OutOfRange("this many tokens"))
}

pub(crate) fn to_u64(tokens: i64) -> u64 {
    u64::try_from(tokens).unwrap_or(0)
}
