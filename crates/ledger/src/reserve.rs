//! What a request costs: reserve, settle, release, expire.
//!
//! Whatever changes more than one row here has the ledger to itself while it does: the changes of all programs come one
//! after the other, and none meets another in the middle. The statements do not rest on that alone: each looks at its
//! conditions in the moment of the change.

use std::fmt;

use anbiq_domain::{AccountId, GrantId, KeyId, Money, Timestamp};
use serde::{Deserialize, Serialize};

use crate::budget::{Budget, Holder, Measure, Row, Shortfall, Unit, WINDOW_MEMORY_MS};
use crate::connection::Connection;
use crate::writer::{Change, Writer};
use crate::{Ledger, LedgerError, Who, to_i64};

/// What is held for one request under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReservationId(String);

#[cfg(test)]
impl ReservationId {
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request costs, or can cost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// In money.
    pub money: Money,
    /// Tokens of prompt and answers: they count against budgets in tokens.
    pub tokens: u64,
    /// Tokens of answers alone: they count against the volume of a grant.
    pub completion_tokens: u64,
}

/// A request for which something is to be held.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// Whose.
    pub account: AccountId,
    /// Made with which key; of a row of rotations the first one, as [`crate::Session::root`] says. `None` for no key.
    pub key: Option<KeyId>,
    /// How it may be paid, best first: the first way counts whose grant suffices.
    pub ways: Vec<Way>,
    /// When.
    pub at: Timestamp,
    /// For how long, in milliseconds.
    pub ttl_ms: i64,
}

/// One way to pay for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Under which grant.
    pub grant: Option<GrantId>,
    /// The most that it can cost then.
    pub most: Cost,
}

/// What was reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// By which it is settled.
    pub id: ReservationId,
    /// Which of the ways to pay.
    pub way: usize,
}

/// The most money that one request may hold: a million dollars. It keeps every sum far from the end of 64 bits.
const LARGEST: Money = Money::from_dollars(1_000_000);

/// How long an expired reservation is remembered, so that what was served after all is charged: a day.
const MEMORY_MS: i64 = 24 * 3_600_000;

/// Reservations expired in one transaction.
const BATCH: i64 = 500;

impl Ledger {
    /// Holds the most that a request can cost, against every budget that it counts for: those of its key, its account and
    /// the operator of that, in the windows of its moment; and against the volume of its grant. All or nothing.
    ///
    /// An account without a limit is recorded all the same. Where the grant of one way no longer suffices the next way is
    /// tried; no other refusal is got round.
    ///
    /// # Errors
    ///
    /// `insufficient_budget` and its like, `account_closed`, `grant_used_up`, `grant_expired`, `grant_revoked`, something
    /// unknown, or the database fails.
    pub async fn reserve(&self, reserve: Reserve) -> Result<Reserved, LedgerError> {
        for Way { most, .. } in &reserve.ways {
            most.check()?;
        }
        let id = fresh_reservation(reserve.at)?;
        let mut unclaimed = Unclaimed { budgets: &self.budgets, id: Some(id.clone()) };
        let made = self.budgets.make(Change::Reserve(Holding { id: id.clone(), reserve })).await;
        // Where the database failed it may have been made all the same; where it was refused there is nothing to let go.
        if made.as_ref().err().is_none_or(|error| error.who() != Who::Database) {
            unclaimed.id = None;
        }
        made.map(|way| Reserved { id, way })
    }

    /// Charges what a request really cost and lets the rest go. It counts in the windows in which the request was made.
    ///
    /// What was served is owed: the actual cost is charged even after the reservation expired, and even where it is
    /// more than was held, which does not happen to a caller that holds the most a request can cost.
    ///
    /// # Errors
    ///
    /// `reservation_closed` where it was settled or released before (nothing is charged twice) or never made, or the
    /// database fails.
    pub async fn settle(&self, reservation: &ReservationId, actual: Cost) -> Result<(), LedgerError> {
        actual.check()?;
        self.budgets.make(Change::Finish(Finish { id: reservation.clone(), actual })).await.map(drop)
    }

    /// Lets a reservation go: nothing was served.
    ///
    /// # Errors
    ///
    /// As [`Ledger::settle`].
    pub async fn release(&self, reservation: &ReservationId) -> Result<(), LedgerError> {
        self.settle(reservation, Cost::default()).await
    }

    /// Lets go of every reservation whose time has passed at `now`, and says how many there were.
    ///
    /// Expired reservations are forgotten a day later, windows of budgets 35 days after their end.
    pub async fn expire(&self, now: Timestamp) -> Result<u64, LedgerError> {
        let mut total = 0;
        loop {
            let expired = self.expire_some(now).await?;
            total += expired;
            if expired < BATCH.unsigned_abs() {
                break;
            }
        }
        for (forget, memory) in [
            ("DELETE FROM lapsed WHERE expires <= $1", MEMORY_MS),
            ("DELETE FROM budget_windows WHERE ends <= $1 AND reserved = 0", WINDOW_MEMORY_MS),
        ] {
            let before = now.plus_milliseconds(-memory).milliseconds();
            sqlx::query(forget).bind(before).execute(&self.writers).await?;
        }
        Ok(total)
    }

    async fn expire_some(&self, now: Timestamp) -> Result<u64, LedgerError> {
        let mut change = self.backend.begin_alone(&self.writers).await?;
        let rows: Vec<(String,)> = sqlx::query_as("SELECT id FROM holds WHERE expires <= $1 ORDER BY expires LIMIT $2")
            .bind(now.milliseconds())
            .bind(BATCH)
            .fetch_all(&mut *change)
            .await?;
        let mut count = 0;
        for (id,) in rows {
            let Some(held) = Held::take(&mut Connection::Pooled(&mut change), &id).await? else { continue };
            sqlx::query("INSERT INTO lapsed (id, account, grant_id, windows, expires) VALUES ($1, $2, $3, $4, $5)")
                .bind(id.as_str())
                .bind(held.account.as_str())
                .bind(held.grant.as_deref())
                .bind(held.windows_text())
                .bind(now.milliseconds())
                .execute(&mut *change)
                .await?;
            held.give_back(&mut Connection::Pooled(&mut change), Cost::default()).await?;
            count += 1;
        }
        change.commit().await?;
        Ok(count)
    }
}

impl Cost {
    fn check(&self) -> Result<(), LedgerError> {
        if self.money < Money::ZERO || self.money > LARGEST {
            return Err(LedgerError::OutOfRange("this amount"));
        }
        to_i64(self.tokens)?;
        to_i64(self.completion_tokens).map(drop)
    }

    /// As the tables count it. Checked before, it always fits.
    fn of(&self, unit: Unit) -> i64 {
        match unit {
            Unit::Money => self.money.nanos(),
            Unit::Tokens => self.tokens.cast_signed(),
        }
    }
}

/// A reservation to be made.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) id: ReservationId,
    reserve: Reserve,
}

impl Holding {
    /// Makes it, and says which way it is paid; the inner error is a refusal, which leaves nothing behind.
    pub(crate) async fn apply(&self, change: &mut Connection<'_>) -> Result<Result<usize, LedgerError>, sqlx::Error> {
        let mut refused = LedgerError::OutOfRange("a request that cannot be paid");
        for (number, way) in self.reserve.ways.iter().enumerate() {
            match self.try_way(change, way).await? {
                Ok(()) => return Ok(Ok(number)),
                Err(error) if error.is_of_grant() => refused = error,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Err(refused))
    }

    /// The transaction goes on with the changes of others, so it is not the end of it that undoes what a refusal leaves.
    async fn try_way(&self, change: &mut Connection<'_>, way: &Way) -> Result<Result<(), LedgerError>, sqlx::Error> {
        let Reserve { account, at, ttl_ms, .. } = &self.reserve;
        let mut held = Held::nothing(account, way);
        let limited = match self.hold_money(change, way.most.money).await? {
            Ok(limited) => limited,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(operator) = limited
            && let Err(error) = self.hold_windows(change, operator.as_deref(), way.most, &mut held).await?
        {
            held.undo(change).await?;
            return Ok(Err(error));
        }
        if let Some(grant) = &way.grant
            && !self.hold_volume(change, grant, way.most.completion_tokens).await?
        {
            held.undo(change).await?;
            return Ok(Err(why_no_volume(change, account, grant, *at).await?));
        }
        change
            .execute(
                "INSERT INTO holds (id, account, money, grant_id, granted, windows, expires) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    self.id.0.as_str().into(),
                    account.as_str().into(),
                    held.money.into(),
                    held.grant.as_deref().into(),
                    held.granted.into(),
                    held.windows_text().as_deref().into(),
                    at.plus_milliseconds(*ttl_ms).milliseconds().into(),
                ],
            )
            .await?;
        Ok(Ok(()))
    }

    /// Holds money of the account for all time. Where anybody concerned has further budgets, gives the account's operator.
    async fn hold_money(
        &self,
        change: &mut Connection<'_>,
        most: Money,
    ) -> Result<Result<Option<Option<String>>, LedgerError>, sqlx::Error> {
        let account = &self.reserve.account;
        // One statement does it for those who have no further budgets, and they are the most.
        let held: Option<(Option<String>, i64)> = change
            .row(
                "UPDATE accounts SET reserved = reserved + $1 \
                 WHERE id = $2 AND closed IS NULL AND (budget IS NULL OR $1 <= budget - spent - reserved) \
                 RETURNING operator, (SELECT COUNT(*) FROM budgets \
                 WHERE budgets.holder IN ('account:' || $2, 'key:' || $3, 'operator:' || accounts.operator))",
                &[
                    most.nanos().into(),
                    account.as_str().into(),
                    self.reserve.key.as_ref().map_or("", KeyId::as_str).into(),
                ],
            )
            .await?;
        Ok(match held {
            None => Err(why_no_money(change, account, most).await?),
            Some((_, 0)) => Ok(None),
            Some((operator, _)) => Ok(Some(operator)),
        })
    }

    async fn hold_windows(
        &self,
        change: &mut Connection<'_>,
        operator: Option<&str>,
        most: Cost,
        held: &mut Held,
    ) -> Result<Result<(), LedgerError>, sqlx::Error> {
        let budgets: Vec<(String, String, String, i64)> = change
            .rows(
                "SELECT holder, unit, period, ceiling FROM budgets \
                 WHERE holder IN ('account:' || $1, 'key:' || $2, 'operator:' || $3) ORDER BY holder, unit, period",
                &[
                    self.reserve.account.as_str().into(),
                    self.reserve.key.as_ref().map_or("", KeyId::as_str).into(),
                    operator.unwrap_or_default().into(),
                ],
            )
            .await?;
        for (holder, unit, period, ceiling) in budgets {
            let read = || {
                let row = Row { holder, unit: Unit::read(&unit)?, period };
                Ok((row.window()?, row))
            };
            let (window, row) = match read() {
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            let (began, ends) = window.around(self.reserve.at);
            let amount = most.of(row.unit);
            if !hold_window(change, &row, began, ends, amount).await? {
                let spent = spent_in(change, &row, began).await?;
                return Ok(Err(shortfall(&row, ceiling, spent, amount, ends)));
            }
            held.windows.push(HeldWindow {
                holder: row.holder,
                unit: row.unit,
                period: row.period,
                began: began.milliseconds(),
                amount,
            });
        }
        Ok(Ok(()))
    }

    async fn hold_volume(
        &self,
        change: &mut Connection<'_>,
        grant: &GrantId,
        tokens: u64,
    ) -> Result<bool, sqlx::Error> {
        let held = change
            .execute(
                "UPDATE grants SET reserved = reserved + $1 \
                 WHERE id = $2 AND account = $3 AND state = 'given' AND revoked IS NULL \
                 AND (expires IS NULL OR expires > $4) AND (volume IS NULL OR $1 <= volume - used - reserved)",
                &[
                    tokens.cast_signed().into(),
                    grant.as_str().into(),
                    self.reserve.account.as_str().into(),
                    self.reserve.at.milliseconds().into(),
                ],
            )
            .await?;
        Ok(held == 1)
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
            self.budgets.leave(Change::Finish(Finish { id, actual: Cost::default() }));
        }
    }
}

/// A reservation to be closed.
#[derive(Debug)]
pub(crate) struct Finish {
    id: ReservationId,
    actual: Cost,
}

impl Finish {
    /// Makes it; the inner error is a refusal, which leaves nothing behind.
    pub(crate) async fn apply(&self, change: &mut Connection<'_>) -> Result<Result<(), LedgerError>, sqlx::Error> {
        let held = match Held::take(change, &self.id.0).await? {
            Some(held) => Some(held),
            None => Held::take_lapsed(change, &self.id.0).await?,
        };
        let Some(held) = held else { return Ok(Err(LedgerError::ReservationClosed(self.id.clone()))) };
        held.give_back(change, self.actual).await?;
        Ok(Ok(()))
    }
}

/// What a reservation holds.
struct Held {
    account: String,
    money: i64,
    grant: Option<String>,
    granted: i64,
    windows: Vec<HeldWindow>,
}

/// What it holds of one budget.
#[derive(Debug, Serialize, Deserialize)]
struct HeldWindow {
    holder: String,
    unit: Unit,
    period: String,
    began: i64,
    amount: i64,
}

type HeldRow = (String, i64, Option<String>, i64, Option<String>);

impl Held {
    /// What a reservation holds that holds nothing of further budgets yet.
    fn nothing(account: &AccountId, way: &Way) -> Self {
        Self {
            account: account.as_str().to_owned(),
            money: way.most.money.nanos(),
            grant: way.grant.as_ref().map(|grant| grant.as_str().to_owned()),
            granted: way.grant.as_ref().map_or(0, |_| way.most.completion_tokens.cast_signed()),
            windows: Vec::new(),
        }
    }

    /// Takes an open reservation out of the tables; `None` where it is not open.
    async fn take(change: &mut Connection<'_>, id: &str) -> Result<Option<Self>, sqlx::Error> {
        let taken = "DELETE FROM holds WHERE id = $1 RETURNING account, money, grant_id, granted, windows";
        let row: Option<HeldRow> = change.row(taken, &[id.into()]).await?;
        row.map(Self::read).transpose()
    }

    /// Takes an expired one out of them: what it held was given back when it expired.
    async fn take_lapsed(change: &mut Connection<'_>, id: &str) -> Result<Option<Self>, sqlx::Error> {
        let taken = "DELETE FROM lapsed WHERE id = $1 RETURNING account, grant_id, windows";
        let row: Option<(String, Option<String>, Option<String>)> = change.row(taken, &[id.into()]).await?;
        let Some((account, grant, windows)) = row else { return Ok(None) };
        let mut held = Self::read((account, 0, grant, 0, windows))?;
        held.windows.iter_mut().for_each(|window| window.amount = 0);
        Ok(Some(held))
    }

    fn read((account, money, grant, granted, windows): HeldRow) -> Result<Self, sqlx::Error> {
        let windows = windows.map(|text| serde_json::from_str(&text)).transpose();
        let windows = windows.map_err(|error| sqlx::Error::Decode(Box::new(error)))?.unwrap_or_default();
        Ok(Self { account, money, grant, granted, windows })
    }

    fn windows_text(&self) -> Option<String> {
        // Strings and numbers always have a JSON form.
        (!self.windows.is_empty()).then(|| serde_json::to_string(&self.windows).unwrap_or_default())
    }

    /// Gives back what it holds of money and budgets, before the grant was asked.
    async fn undo(self, change: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        Self { grant: None, ..self }.give_back(change, Cost::default()).await
    }

    /// Lets go of what it holds, and charges `actual`.
    async fn give_back(&self, change: &mut Connection<'_>, actual: Cost) -> Result<(), sqlx::Error> {
        change
            .execute(
                "UPDATE accounts SET reserved = reserved - $1, spent = spent + $2 WHERE id = $3",
                &[self.money.into(), actual.money.nanos().into(), self.account.as_str().into()],
            )
            .await?;
        for window in &self.windows {
            // Where the budget was taken away meanwhile there is no such row.
            change
                .execute(
                    "UPDATE budget_windows SET reserved = reserved - $1, spent = spent + $2 \
                     WHERE holder = $3 AND unit = $4 AND period = $5 AND began = $6",
                    &[
                        window.amount.into(),
                        actual.of(window.unit).into(),
                        window.holder.as_str().into(),
                        window.unit.as_str().into(),
                        window.period.as_str().into(),
                        window.began.into(),
                    ],
                )
                .await?;
        }
        if let Some(grant) = &self.grant {
            change
                .execute(
                    "UPDATE grants SET reserved = reserved - $1, used = used + $2 WHERE id = $3",
                    &[self.granted.into(), actual.completion_tokens.cast_signed().into(), grant.as_str().into()],
                )
                .await?;
        }
        Ok(())
    }
}

/// Holds `amount` of a budget in one of its windows; false where it does not hold that much.
async fn hold_window(
    change: &mut Connection<'_>,
    row: &Row,
    began: Timestamp,
    ends: Option<Timestamp>,
    amount: i64,
) -> Result<bool, sqlx::Error> {
    let held = change
        .execute(
            "INSERT INTO budget_windows (holder, unit, period, began, ends, spent, reserved) \
             SELECT holder, unit, period, $1, $2, 0, $3 FROM budgets \
             WHERE holder = $4 AND unit = $5 AND period = $6 AND $3 <= ceiling \
             ON CONFLICT (holder, unit, period, began) DO UPDATE SET reserved = budget_windows.reserved + excluded.reserved \
             WHERE excluded.reserved <= (SELECT ceiling FROM budgets WHERE budgets.holder = excluded.holder \
             AND budgets.unit = excluded.unit AND budgets.period = excluded.period) \
             - budget_windows.spent - budget_windows.reserved",
            &[
                began.milliseconds().into(),
                ends.map(Timestamp::milliseconds).into(),
                amount.into(),
                row.holder.as_str().into(),
                row.unit.as_str().into(),
                row.period.as_str().into(),
            ],
        )
        .await?;
    Ok(held == 1)
}

/// What is spent and what is reserved of a budget in one of its windows.
async fn spent_in(change: &mut Connection<'_>, row: &Row, began: Timestamp) -> Result<(i64, i64), sqlx::Error> {
    let found: Option<(i64, i64)> = change
        .row(
            "SELECT spent, reserved FROM budget_windows WHERE holder = $1 AND unit = $2 AND period = $3 AND began = $4",
            &[
                row.holder.as_str().into(),
                row.unit.as_str().into(),
                row.period.as_str().into(),
                began.milliseconds().into(),
            ],
        )
        .await?;
    Ok(found.unwrap_or_default())
}

fn shortfall(row: &Row, ceiling: i64, spent: (i64, i64), asked: i64, ends: Option<Timestamp>) -> LedgerError {
    let read = || {
        let budget = Budget { holder: row.read_holder()?, window: row.window()?, limit: row.unit.measure(ceiling) };
        Ok(LedgerError::InsufficientBudget(Box::new(Shortfall {
            budget,
            spent: row.unit.measure(spent.0),
            reserved: row.unit.measure(spent.1),
            asked: row.unit.measure(asked),
            // What is more than the limit will never be held.
            resets: ends.filter(|_| asked <= ceiling),
        })))
    };
    read().unwrap_or_else(|error| error)
}

async fn why_no_money(
    change: &mut Connection<'_>,
    account: &AccountId,
    asked: Money,
) -> Result<LedgerError, sqlx::Error> {
    let row: Option<(Option<i64>, Option<i64>, i64, i64)> = change
        .row("SELECT closed, budget, spent, reserved FROM accounts WHERE id = $1", &[account.as_str().into()])
        .await?;
    let money = |nanos| Measure::Money(Money::from_nanos(nanos));
    Ok(match row {
        None => LedgerError::UnknownAccount(account.clone()),
        Some((Some(_), ..)) => LedgerError::AccountClosed,
        Some((None, limit, spent, reserved)) => LedgerError::InsufficientBudget(Box::new(Shortfall {
            budget: Budget {
                holder: Holder::Account(account.clone()),
                window: anbiq_domain::Window::Total,
                limit: limit.map_or(Measure::Money(Money::MAX), money),
            },
            spent: money(spent),
            reserved: money(reserved),
            asked: Measure::Money(asked),
            resets: None,
        })),
    })
}

async fn why_no_volume(
    change: &mut Connection<'_>,
    account: &AccountId,
    grant: &GrantId,
    now: Timestamp,
) -> Result<LedgerError, sqlx::Error> {
    let row: Option<(Option<i64>, Option<i64>)> = change
        .row(
            "SELECT revoked, expires FROM grants WHERE id = $1 AND account = $2 AND state = 'given'",
            &[grant.as_str().into(), account.as_str().into()],
        )
        .await?;
    Ok(match row {
        None => LedgerError::UnknownGrant(grant.clone()),
        Some((Some(_), _)) => LedgerError::GrantRevoked(grant.clone()),
        Some((None, Some(end))) if now.milliseconds() >= end => LedgerError::GrantExpired(grant.clone()),
        Some(_) => LedgerError::GrantUsedUp(grant.clone()),
    })
}

/// An id that rises with time, so that new rows stand beside each other.
fn fresh_reservation(at: Timestamp) -> Result<ReservationId, LedgerError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes[6..]).map_err(|_| LedgerError::Random)?;
    let milliseconds = at.milliseconds().cast_unsigned().to_be_bytes();
    bytes[..6].copy_from_slice(&milliseconds[2..]);
    Ok(ReservationId(hex::encode(bytes)))
}
