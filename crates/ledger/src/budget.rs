//! Budgets: who may spend how much money and how many tokens in which time.
//!
//! An account's money for all time stands in its own row, since every request changes it; every other budget has rows of
//! its own, one for each window of time that something was spent in.

use std::fmt;

use anbiq_domain::{AccountId, KeyId, Money, OperatorId, Timestamp, Window};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

use crate::{Ledger, LedgerError, Page, to_i64, to_u64};

/// The budget of an account for all time, in money, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BudgetState {
    /// All that may be spent; `None` for no limit.
    pub limit: Option<Money>,
    /// Charged so far.
    pub spent: Money,
    /// Held by requests under way.
    pub reserved: Money,
}

/// So much may be spent by somebody in each window of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// By whom.
    pub holder: Holder,
    /// In which time.
    pub window: Window,
    /// How much at most.
    pub limit: Measure,
}

/// Whose budget it is. What a request costs counts for its key, the account of that and the operator of that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// One key, and all keys that follow it by rotation.
    Key(KeyId),
    /// One account.
    Account(AccountId),
    /// All accounts that are declared to be of one operator.
    Operator(OperatorId),
}

/// An amount of what a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Money.
    Money(Money),
    /// Tokens of prompts and answers together.
    Tokens(u64),
}

/// Which kind of amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Money.
    Money,
    /// Tokens of prompts and answers together.
    Tokens,
}

/// A budget, and what became of it in the window of some moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BudgetUse {
    /// Which budget.
    #[serde(flatten)]
    pub budget: Budget,
    /// Charged in this window.
    pub spent: Measure,
    /// Held by requests that began in this window and are under way.
    pub reserved: Measure,
    /// When the window ends; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<Timestamp>,
}

/// A budget that does not hold what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Which budget.
    pub budget: Budget,
    /// Charged so far, in this window.
    pub spent: Measure,
    /// Held by requests under way.
    pub reserved: Measure,
    /// What was to be reserved.
    pub asked: Measure,
    /// When a new window begins, in which it would be held; absent where there is none.
    pub resets: Option<Timestamp>,
}

/// How long a window is remembered after its end, where nothing of it is open any more: 35 days.
pub(crate) const WINDOW_MEMORY_MS: i64 = 35 * 24 * 3_600_000;

impl Ledger {
    /// Sets a budget, or changes its limit. It counts what is spent from when it is first set; what was spent stays spent,
    /// so that a limit below it stops its holder until the window ends.
    ///
    /// # Errors
    ///
    /// The holder is unknown, the limit is out of range, or the database fails.
    pub async fn put_budget(&self, budget: &Budget) -> Result<(), LedgerError> {
        let limit = budget.limit.count()?;
        let mut change = self.backend.begin_alone(&self.writers).await?;
        let row = Row::of(&mut change, &budget.holder, budget.limit.unit(), budget.window).await?;
        if let Some(account) = row.account() {
            set_account_limit(&mut change, account, Some(limit)).await?;
        } else {
            sqlx::query(
                "INSERT INTO budgets (holder, unit, period, ceiling) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (holder, unit, period) DO UPDATE SET ceiling = excluded.ceiling",
            )
            .bind(row.holder)
            .bind(row.unit.as_str())
            .bind(row.period)
            .bind(limit)
            .execute(&mut *change)
            .await?;
        }
        Ok(change.commit().await?)
    }

    /// Takes a budget away, with what is remembered of it. An account's money for all time is counted on, without limit.
    ///
    /// # Errors
    ///
    /// `unknown_budget` where there is none, the holder is unknown, or the database fails.
    pub async fn remove_budget(&self, holder: &Holder, unit: Unit, window: Window) -> Result<(), LedgerError> {
        let unknown = || LedgerError::UnknownBudget(holder.clone(), unit, window);
        let mut change = self.backend.begin_alone(&self.writers).await?;
        let row = Row::of(&mut change, holder, unit, window).await?;
        if let Some(account) = row.account() {
            if !set_account_limit(&mut change, account, None).await? {
                return Err(unknown());
            }
        } else {
            let mut removed = 0;
            for table in [
                "DELETE FROM budget_windows WHERE holder = $1 AND unit = $2 AND period = $3",
                "DELETE FROM budgets WHERE holder = $1 AND unit = $2 AND period = $3",
            ] {
                let query = sqlx::query(table).bind(row.holder.as_str()).bind(row.unit.as_str());
                removed = query.bind(row.period.as_str()).execute(&mut *change).await?.rows_affected();
            }
            if removed == 0 {
                return Err(unknown());
            }
        }
        Ok(change.commit().await?)
    }

    /// Sets the limit of an account's money for all time. What was spent stays spent: a limit below it stops the account.
    ///
    /// # Errors
    ///
    /// As [`Ledger::put_budget`].
    pub async fn set_budget(&self, account: &AccountId, limit: Money) -> Result<(), LedgerError> {
        let holder = Holder::Account(account.clone());
        self.put_budget(&Budget { holder, window: Window::Total, limit: Measure::Money(limit) }).await
    }

    /// The money of `account` for all time, where there is such an account.
    pub async fn budget(&self, account: &AccountId) -> Result<Option<BudgetState>, LedgerError> {
        self.budgets.flush().await?;
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

    /// All budgets of `holder`, or of everybody, as they stand in the windows of `now`: ordered by holder, unit and window.
    ///
    /// The cursor of a page is [`BudgetUse::cursor`] of the last one of the page before.
    pub async fn budgets(
        &self,
        holder: Option<&Holder>,
        now: Timestamp,
        page: &Page,
    ) -> Result<Vec<BudgetUse>, LedgerError> {
        self.budgets.flush().await?;
        let holder = match holder {
            None => None,
            Some(holder) => Some(self.stored_holder(holder).await?),
        };
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT holder, unit, period, ceiling FROM \
             (SELECT holder, unit, period, ceiling FROM budgets UNION ALL \
              SELECT 'account:' || id, 'money', 'total', budget FROM accounts WHERE budget IS NOT NULL) AS every \
             WHERE ($1 = '' OR holder = $1) AND holder || ' ' || unit || ' ' || period > $2 \
             ORDER BY holder || ' ' || unit || ' ' || period LIMIT $3",
        )
        .bind(holder.unwrap_or_default())
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.readers)
        .await?;
        let mut uses = Vec::with_capacity(rows.len());
        for (holder, unit, period, ceiling) in rows {
            uses.push(self.use_of(Row { holder, unit: Unit::read(&unit)?, period }, ceiling, now).await?);
        }
        Ok(uses)
    }

    async fn use_of(&self, row: Row, ceiling: i64, now: Timestamp) -> Result<BudgetUse, LedgerError> {
        let (window, holder) = (row.window()?, Holder::read(&row.holder)?);
        let (began, ends) = window.around(now);
        let found: Option<(i64, i64)> = if let Some(account) = row.account() {
            sqlx::query_as("SELECT spent, reserved FROM accounts WHERE id = $1")
                .bind(account)
                .fetch_optional(&self.readers)
                .await?
        } else {
            sqlx::query_as(
                "SELECT spent, reserved FROM budget_windows \
                 WHERE holder = $1 AND unit = $2 AND period = $3 AND began = $4",
            )
            .bind(row.holder.as_str())
            .bind(row.unit.as_str())
            .bind(row.period.as_str())
            .bind(began.milliseconds())
            .fetch_optional(&self.readers)
            .await?
        };
        let (spent, reserved) = found.unwrap_or_default();
        Ok(BudgetUse {
            budget: Budget { holder, window, limit: row.unit.measure(ceiling) },
            spent: row.unit.measure(spent),
            reserved: row.unit.measure(reserved),
            ends,
        })
    }

    /// The holder as the tables name it: of a key, the first of its row of rotations.
    async fn stored_holder(&self, holder: &Holder) -> Result<String, LedgerError> {
        let mut connection = self.readers.acquire().await?;
        stored(&mut connection, holder).await
    }
}

impl BudgetUse {
    /// Its place in the order of [`Ledger::budgets`].
    pub fn cursor(&self) -> String {
        format!("{} {} {}", self.budget.holder, self.budget.limit.unit().as_str(), self.budget.window)
    }
}

impl Holder {
    fn read(text: &str) -> Result<Self, LedgerError> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "key" => Ok(Self::Key(crate::id("budget", name)?)),
            "account" => Ok(Self::Account(crate::id("budget", name)?)),
            "operator" => Ok(Self::Operator(crate::id("budget", name)?)),
            _ => Err(LedgerError::Damaged { what: "budget", reason: format!("`{text}` is no holder") }),
        }
    }

    /// `key`, `account` or `operator`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Account(_) => "account",
            Self::Operator(_) => "operator",
        }
    }
}

impl fmt::Display for Holder {
    /// Such as `account:acme`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Key(key) => key.as_str(),
            Self::Account(account) => account.as_str(),
            Self::Operator(operator) => operator.as_str(),
        };
        write!(f, "{}:{name}", self.kind())
    }
}

impl Measure {
    /// Of which kind it is.
    pub const fn unit(self) -> Unit {
        match self {
            Self::Money(_) => Unit::Money,
            Self::Tokens(_) => Unit::Tokens,
        }
    }

    /// As the tables hold it.
    pub(crate) fn count(self) -> Result<i64, LedgerError> {
        match self {
            Self::Money(money) if money < Money::ZERO => Err(LedgerError::OutOfRange("a budget below zero")),
            Self::Money(money) => Ok(money.nanos()),
            Self::Tokens(tokens) => to_i64(tokens),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Money(money) => write!(f, "${money}"),
            Self::Tokens(tokens) => write!(f, "{tokens} tokens"),
        }
    }
}

impl Unit {
    /// `money` or `tokens`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Money => "money",
            Self::Tokens => "tokens",
        }
    }

    pub(crate) fn read(text: &str) -> Result<Self, LedgerError> {
        match text {
            "money" => Ok(Self::Money),
            "tokens" => Ok(Self::Tokens),
            _ => Err(LedgerError::Damaged { what: "budget", reason: format!("`{text}` is no unit") }),
        }
    }

    pub(crate) fn measure(self, count: i64) -> Measure {
        match self {
            Self::Money => Measure::Money(Money::from_nanos(count)),
            Self::Tokens => Measure::Tokens(to_u64(count)),
        }
    }
}

impl Shortfall {
    /// Would it be held if the requests under way cost nothing?
    pub fn only_reserved(&self) -> bool {
        let count = |measure: Measure| measure.count().unwrap_or(0);
        count(self.budget.limit).saturating_sub(count(self.spent)) >= count(self.asked)
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { budget: Budget { holder, window, limit }, spent, reserved, asked, .. } = self;
        let whose = match (holder, window, limit) {
            (Holder::Account(_), Window::Total, Measure::Money(_)) => "the",
            (Holder::Account(_), ..) => "the account's",
            (Holder::Key(_), ..) => "the key's",
            (Holder::Operator(_), ..) => "the operator's",
        };
        let time = match window {
            Window::Total => String::new(),
            Window::Month | Window::Week | Window::Day => format!(" a {window}"),
            Window::Hours(1) => " an hour".to_owned(),
            Window::Hours(hours) => format!(" in {hours} hours"),
        };
        write!(f, "{whose} budget of {limit}{time} does not hold {asked} more")?;
        // What the other accounts of an operator do is not for each of them to know.
        if matches!(holder, Holder::Operator(_)) { Ok(()) } else { write!(f, ": {spent} spent, {reserved} reserved") }
    }
}

/// Where a budget stands in the tables.
pub(crate) struct Row {
    pub(crate) holder: String,
    pub(crate) unit: Unit,
    pub(crate) period: String,
}

impl Row {
    async fn of(
        connection: &mut AnyConnection,
        holder: &Holder,
        unit: Unit,
        window: Window,
    ) -> Result<Self, LedgerError> {
        Ok(Self { holder: stored(connection, holder).await?, unit, period: window.to_string() })
    }

    /// The account in whose own row it stands, if it does.
    fn account(&self) -> Option<&str> {
        self.holder.strip_prefix("account:").filter(|_| self.unit == Unit::Money && self.period == "total")
    }

    pub(crate) fn read_holder(&self) -> Result<Holder, LedgerError> {
        Holder::read(&self.holder)
    }

    pub(crate) fn window(&self) -> Result<Window, LedgerError> {
        crate::id("window of a budget", &self.period)
    }
}

/// The name of a holder that exists.
async fn stored(connection: &mut AnyConnection, holder: &Holder) -> Result<String, LedgerError> {
    let (sql, name, unknown) = match holder {
        Holder::Key(key) => (
            "SELECT COALESCE(root, id) FROM api_keys WHERE id = $1",
            key.as_str(),
            LedgerError::UnknownKey(key.clone()),
        ),
        Holder::Account(account) => {
            ("SELECT id FROM accounts WHERE id = $1", account.as_str(), LedgerError::UnknownAccount(account.clone()))
        }
        Holder::Operator(operator) => (
            "SELECT id FROM operators WHERE id = $1",
            operator.as_str(),
            LedgerError::UnknownOperator(operator.clone()),
        ),
    };
    let row: Option<(String,)> = sqlx::query_as(sql).bind(name).fetch_optional(connection).await?;
    row.map(|(name,)| format!("{}:{name}", holder.kind())).ok_or(unknown)
}

/// Was there a change? There is none where a limit is taken away that is not there.
async fn set_account_limit(
    connection: &mut AnyConnection,
    account: &str,
    limit: Option<i64>,
) -> Result<bool, LedgerError> {
    let set = sqlx::query("UPDATE accounts SET budget = $1 WHERE id = $2 AND (budget IS NOT NULL OR $3 = 1)")
        .bind(limit)
        .bind(account)
        .bind(i64::from(limit.is_some()))
        .execute(connection)
        .await?;
    Ok(set.rows_affected() == 1)
}
