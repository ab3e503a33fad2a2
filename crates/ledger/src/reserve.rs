//! What a request costs: reserve, settle, release, expire.
//!
//! Whatever changes more than one row here has the ledger to itself while it does: the changes of all programs come one
//! after the other, and none meets another in the middle. The statements do not rest on that alone: each looks at its
//! conditions in the moment of the change.

use anbiq_domain::{AccountId, ExchangeId, GrantId, JournalId, KeyId, Money, Timestamp};
use serde::{Deserialize, Serialize};

use crate::budget::{Budget, Holder, Measure, Row, Shortfall, Unit, WINDOW_MEMORY_MS};
use crate::connection::Connection;
use crate::writer::{Change, Writer};
use crate::{Ledger, LedgerError, Who, to_i64, to_u64};

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
    /// Which exchange it becomes: what is held goes by its id, so that whoever reads of it in the journal finds it.
    pub exchange: ExchangeId,
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

/// Where the journal says what an exchange cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// Which journal.
    pub journal: JournalId,
    /// The number of its entry.
    pub entry: u64,
}

/// What a journal says of an exchange, for a charge that may have been lost.
#[derive(Debug, Clone)]
pub struct Booked {
    /// Which exchange.
    pub exchange: ExchangeId,
    /// Whose.
    pub account: AccountId,
    /// Made with which key.
    pub key: KeyId,
    /// Under which grant.
    pub grant: Option<GrantId>,
    /// When.
    pub at: Timestamp,
    /// What it cost.
    pub actual: Cost,
    /// Where it says so.
    pub booking: Booking,
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
    /// tried; no other refusal is got round. Gives which of the ways it is paid.
    ///
    /// # Errors
    ///
    /// `insufficient_budget` and its like, `account_closed`, `grant_used_up`, `grant_expired`, `grant_revoked`, something
    /// unknown, or the database fails.
    pub async fn reserve(&self, reserve: Reserve) -> Result<usize, LedgerError> {
        for Way { most, .. } in &reserve.ways {
            most.check()?;
        }
        let mut unclaimed = Unclaimed { budgets: &self.budgets, id: Some(reserve.exchange) };
        let made = self.budgets.make(Change::Reserve(reserve)).await;
        // Where the database failed it may have been made all the same; where it was refused there is nothing to let go.
        if made.as_ref().err().is_none_or(|error| error.who() != Who::Database) {
            unclaimed.id = None;
        }
        made
    }

    /// Charges what an exchange really cost, as the journal has it at `booking`, and lets the rest of what was held go. It
    /// counts in the windows in which the request was made.
    ///
    /// What was served is owed: the actual cost is charged even after the reservation expired, and even where it is
    /// more than was held, which does not happen to a caller that holds the most a request can cost.
    ///
    /// Every reservation that is begun after the first poll of this finds the rest let go. In a SQLite file the charge is made
    /// and not yet on disk when this returns. What the machine then forgets as it loses power, the journal brings back: see
    /// [`Ledger::make_good`].
    ///
    /// # Errors
    ///
    /// `reservation_closed` where it was settled or released before (nothing is charged twice) or never made, or the
    /// database fails.
    pub async fn settle(&self, exchange: ExchangeId, actual: Cost, booking: Booking) -> Result<(), LedgerError> {
        actual.check()?;
        self.budgets.end(Finish { exchange, end: Some((actual, booking)) }).await.map(drop)
    }

    /// Lets go of what is held for an exchange: nothing was served.
    ///
    /// # Errors
    ///
    /// As [`Ledger::settle`].
    pub async fn release(&self, exchange: ExchangeId) -> Result<(), LedgerError> {
        self.budgets.end(Finish { exchange, end: None }).await.map(drop)
    }

    /// Lets go of what is held for an exchange, and charges what the journal says it cost, unless that was done. Where
    /// nothing is known of it any more it is charged without having been reserved, which may pass a budget: it was served.
    /// To be called with each entry from [`Ledger::charged_before`] on, and with each exchange of [`Ledger::held`]. Says
    /// whether anything was charged.
    ///
    /// # Errors
    ///
    /// `unknown_account`, or the database fails.
    pub async fn make_good(&self, booked: Booked) -> Result<bool, LedgerError> {
        booked.actual.check()?;
        self.budgets.make(Change::MakeGood(booked)).await.map(|charged| charged > 0)
    }

    /// The exchanges for which something is held, or was until it expired, by whatever gateway.
    pub async fn held(&self) -> Result<Vec<ExchangeId>, LedgerError> {
        self.budgets.flush().await?;
        let ids: Vec<(String,)> =
            sqlx::query_as("SELECT id FROM holds WHERE state <> 'charged'").fetch_all(&self.readers).await?;
        // Before they had the exchange's id they had one of their own kind, which no journal knows.
        Ok(ids.iter().filter_map(|(id,)| id.parse().ok()).collect())
    }

    /// The entries of the journal before this one are charged, if the ledger knows the journal.
    pub async fn charged_before(&self, journal: &JournalId) -> Result<Option<u64>, LedgerError> {
        let row: Option<(i64,)> = sqlx::query_as("SELECT entries FROM charged WHERE journal = $1")
            .bind(journal.as_str())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|(entries,)| to_u64(entries)))
    }

    /// Remembers that every exchange of the journal before entry `before` is charged: no less than was said earlier.
    ///
    /// Where the ledger did not know the journal, it is on disk when this returns that it does.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub async fn all_charged(&self, journal: &JournalId, before: u64) -> Result<(), LedgerError> {
        to_i64(before)?;
        let booking = Booking { journal: journal.clone(), entry: before };
        self.budgets.make(Change::AllCharged(booking)).await.map(drop)
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
            ("DELETE FROM holds WHERE state = 'lapsed' AND expires <= $1", MEMORY_MS),
            ("DELETE FROM budget_windows WHERE ends <= $1 AND reserved = 0", WINDOW_MEMORY_MS),
        ] {
            let before = now.plus_milliseconds(-memory).milliseconds();
            sqlx::query(forget).bind(before).execute(&self.writers).await?;
        }
        Ok(total)
    }

    async fn expire_some(&self, now: Timestamp) -> Result<u64, LedgerError> {
        let mut change = self.backend.begin_alone(&self.writers).await?;
        let over = "SELECT id FROM holds WHERE state = 'open' AND expires <= $1 ORDER BY expires LIMIT $2";
        let rows: Vec<(String,)> =
            sqlx::query_as(over).bind(now.milliseconds()).bind(BATCH).fetch_all(&mut *change).await?;
        let mut count = 0;
        for (id,) in rows {
            let mut connection = Connection::Pooled(&mut change);
            let Some(held) = Held::lapse(&mut connection, &id, now).await? else { continue };
            held.give_back(&mut connection, Cost::default()).await?;
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

impl Reserve {
    /// Makes it, and says which way it is paid; the inner error is a refusal, which leaves nothing behind.
    pub(crate) async fn apply(&self, change: &mut Connection<'_>) -> Result<Result<usize, LedgerError>, sqlx::Error> {
        let mut refused = LedgerError::OutOfRange("a request that cannot be paid");
        for (number, way) in self.ways.iter().enumerate() {
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
        let Self { account, at, ttl_ms, .. } = self;
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
        held.insert(change, &self.exchange.to_string(), at.plus_milliseconds(*ttl_ms)).await?;
        Ok(Ok(()))
    }

    /// Holds money of the account for all time. Where anybody concerned has further budgets, gives the account's operator.
    async fn hold_money(
        &self,
        change: &mut Connection<'_>,
        most: Money,
    ) -> Result<Result<Option<Option<String>>, LedgerError>, sqlx::Error> {
        let account = &self.account;
        // One statement does it for those who have no further budgets, and they are the most.
        let held: Option<(Option<String>, i64)> = change
            .row(
                "UPDATE accounts SET reserved = reserved + $1 \
                 WHERE id = $2 AND closed IS NULL AND (budget IS NULL OR $1 <= budget - spent - reserved) \
                 RETURNING operator, (SELECT COUNT(*) FROM budgets \
                 WHERE budgets.holder IN ('account:' || $2, 'key:' || $3, 'operator:' || accounts.operator))",
                &[most.nanos().into(), account.as_str().into(), self.key.as_ref().map_or("", KeyId::as_str).into()],
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
        let Self { account, key, at, .. } = self;
        for (row, ceiling) in budgets_of(change, account, key.as_ref().map(KeyId::as_str), operator).await? {
            let window = match row.window() {
                Ok(window) => window,
                Err(error) => return Ok(Err(error)),
            };
            let (began, ends) = window.around(*at);
            let amount = most.of(row.unit);
            if !hold_window(change, &row, began, ends, amount).await? {
                let spent = spent_in(change, &row, began).await?;
                return Ok(Err(shortfall(&row, ceiling, spent, amount, ends)));
            }
            held.windows.push(HeldWindow::of(row, began, amount));
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
                    self.account.as_str().into(),
                    self.at.milliseconds().into(),
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
    id: Option<ExchangeId>,
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if let Some(exchange) = self.id.take() {
            // The queue keeps its order: it is made first, if it is.
            self.budgets.leave(Change::Finish(Finish { exchange, end: None }));
        }
    }
}

/// A reservation to be closed.
#[derive(Debug)]
pub(crate) struct Finish {
    exchange: ExchangeId,
    /// What is charged, and where the journal says so; `None` where nothing was served.
    end: Option<(Cost, Booking)>,
}

impl Finish {
    /// Makes it; the inner error is a refusal, which leaves nothing behind.
    pub(crate) async fn apply(&self, change: &mut Connection<'_>) -> Result<Result<(), LedgerError>, sqlx::Error> {
        let id = self.exchange.to_string();
        let (held, actual) = match &self.end {
            None => (Held::take(change, &id).await?, Cost::default()),
            Some((actual, booking)) => (Held::charge(change, &id, booking).await?, *actual),
        };
        let Some(held) = held else { return Ok(Err(LedgerError::ReservationClosed(self.exchange))) };
        held.give_back(change, actual).await?;
        Ok(Ok(()))
    }
}

impl Booked {
    /// Charges it, unless that was done; says whether there was anything to charge.
    pub(crate) async fn apply(&self, change: &mut Connection<'_>) -> Result<Result<bool, LedgerError>, sqlx::Error> {
        let id = self.exchange.to_string();
        let free = self.actual == Cost::default();
        let known: Option<(String,)> =
            change.row("SELECT state FROM holds WHERE id = $1", &[id.as_str().into()]).await?;
        if known.as_ref().is_some_and(|(state,)| state == "charged") || (known.is_none() && free) {
            return Ok(Ok(false));
        }
        if known.is_none()
            && let Err(error) = self.hold_nothing(change, &id).await?
        {
            return Ok(Err(error));
        }
        let end = (!free).then(|| (self.actual, self.booking.clone()));
        let finished = Finish { exchange: self.exchange, end }.apply(change).await?;
        Ok(finished.map(|()| !free))
    }

    /// What a reservation would have left that holds nothing, so that everything it counts for is charged.
    async fn hold_nothing(
        &self,
        change: &mut Connection<'_>,
        id: &str,
    ) -> Result<Result<(), LedgerError>, sqlx::Error> {
        let account: Option<(Option<String>, Option<String>)> = change
            .row(
                "SELECT operator, (SELECT COALESCE(root, id) FROM api_keys WHERE id = $1) FROM accounts WHERE id = $2",
                &[self.key.as_str().into(), self.account.as_str().into()],
            )
            .await?;
        let Some((operator, root)) = account else {
            return Ok(Err(LedgerError::UnknownAccount(self.account.clone())));
        };
        let mut held = Held::nothing(&self.account, &Way { grant: self.grant.clone(), most: Cost::default() });
        let budgets = budgets_of(change, &self.account, root.as_deref(), operator.as_deref()).await?;
        for (row, _) in budgets {
            let window = match row.window() {
                Ok(window) => window,
                Err(error) => return Ok(Err(error)),
            };
            let (began, ends) = window.around(self.at);
            open_window(change, &row, began, ends).await?;
            held.windows.push(HeldWindow::of(row, began, 0));
        }
        held.insert(change, id, self.at).await?;
        Ok(Ok(()))
    }
}

/// What a reservation holds.
#[derive(Default)]
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

impl HeldWindow {
    fn of(row: Row, began: Timestamp, amount: i64) -> Self {
        Self { holder: row.holder, unit: row.unit, period: row.period, began: began.milliseconds(), amount }
    }

    fn emptied(&self) -> Self {
        Self { amount: 0, holder: self.holder.clone(), period: self.period.clone(), ..*self }
    }
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

    /// Takes a reservation out of the table; `None` where there is none that may be closed.
    async fn take(change: &mut Connection<'_>, id: &str) -> Result<Option<Self>, sqlx::Error> {
        let taken = "DELETE FROM holds WHERE id = $1 AND state <> 'charged' \
                     RETURNING account, money, grant_id, granted, windows";
        change.row(taken, &[id.into()]).await?.map(Self::read).transpose()
    }

    /// Marks one as charged, and leaves it until its charge is certain; `None` where there is none that may be closed.
    async fn charge(change: &mut Connection<'_>, id: &str, booking: &Booking) -> Result<Option<Self>, sqlx::Error> {
        let charged = "UPDATE holds SET state = 'charged', journal = $2, entry = $3 \
                       WHERE id = $1 AND state <> 'charged' \
                       RETURNING account, money, grant_id, granted, windows";
        let values = [id.into(), booking.journal.as_str().into(), booking.entry.cast_signed().into()];
        change.row(charged, &values).await?.map(Self::read).transpose()
    }

    /// Marks an open one as expired at `now`: it holds nothing any more. Gives what it held.
    async fn lapse(change: &mut Connection<'_>, id: &str, now: Timestamp) -> Result<Option<Self>, sqlx::Error> {
        let open = "SELECT account, money, grant_id, granted, windows FROM holds WHERE id = $1 AND state = 'open'";
        let Some(held) = change.row(open, &[id.into()]).await?.map(Self::read).transpose()? else { return Ok(None) };
        let nothing = Self { windows: held.windows.iter().map(HeldWindow::emptied).collect(), ..Self::default() };
        change
            .execute(
                "UPDATE holds SET state = 'lapsed', money = 0, granted = 0, windows = $1, expires = $2 WHERE id = $3",
                &[nothing.windows_text().as_deref().into(), now.milliseconds().into(), id.into()],
            )
            .await?;
        Ok(Some(held))
    }

    /// Puts it into the table.
    async fn insert(&self, change: &mut Connection<'_>, id: &str, expires: Timestamp) -> Result<(), sqlx::Error> {
        change
            .execute(
                "INSERT INTO holds (id, account, money, grant_id, granted, windows, expires, state) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 'open')",
                &[
                    id.into(),
                    self.account.as_str().into(),
                    self.money.into(),
                    self.grant.as_deref().into(),
                    self.granted.into(),
                    self.windows_text().as_deref().into(),
                    expires.milliseconds().into(),
                ],
            )
            .await?;
        Ok(())
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

/// The budgets that a request counts for, besides the account's money for all time, and their limits.
async fn budgets_of(
    change: &mut Connection<'_>,
    account: &AccountId,
    key: Option<&str>,
    operator: Option<&str>,
) -> Result<Vec<(Row, i64)>, sqlx::Error> {
    let budgets: Vec<(String, String, String, i64)> = change
        .rows(
            "SELECT holder, unit, period, ceiling FROM budgets \
             WHERE holder IN ('account:' || $1, 'key:' || $2, 'operator:' || $3) ORDER BY holder, unit, period",
            &[account.as_str().into(), key.unwrap_or_default().into(), operator.unwrap_or_default().into()],
        )
        .await?;
    let row = |(holder, unit, period, ceiling): (String, String, String, i64)| {
        let unit = Unit::read(&unit).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok((Row { holder, unit, period }, ceiling))
    };
    budgets.into_iter().map(row).collect()
}

/// Makes a row of a window in which something is to be counted, where there is none.
async fn open_window(
    change: &mut Connection<'_>,
    row: &Row,
    began: Timestamp,
    ends: Option<Timestamp>,
) -> Result<(), sqlx::Error> {
    change
        .execute(
            "INSERT INTO budget_windows (holder, unit, period, began, ends, spent, reserved) \
             VALUES ($1, $2, $3, $4, $5, 0, 0) ON CONFLICT (holder, unit, period, began) DO NOTHING",
            &[
                row.holder.as_str().into(),
                row.unit.as_str().into(),
                row.period.as_str().into(),
                began.milliseconds().into(),
                ends.map(Timestamp::milliseconds).into(),
            ],
        )
        .await?;
    Ok(())
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

impl Booking {
    /// Remembers that everything before it is charged, and forgets what was kept to make that good. Says whether the journal is
    /// a new one.
    pub(crate) async fn apply(&self, change: &mut Connection<'_>) -> Result<bool, sqlx::Error> {
        let values = [self.journal.as_str().into(), self.entry.cast_signed().into()];
        let further = "UPDATE charged SET entries = $2 WHERE journal = $1 AND entries < $2";
        let new = "INSERT INTO charged (journal, entries) VALUES ($1, $2) ON CONFLICT (journal) DO NOTHING";
        let is_new = change.execute(further, &values).await? == 0 && change.execute(new, &values).await? == 1;
        let certain = "DELETE FROM holds WHERE state = 'charged' AND journal = $1 AND entry < $2";
        change.execute(certain, &values).await?;
        Ok(is_new)
    }
}
