//! Plans, operators, accounts and their users.

use anbiq_domain::{AccountId, OperatorId, PlanId, Timestamp, UserId};

use crate::{Account, Ledger, LedgerError, NewAccount, Page, Plan, User, finish, from_json, id, to_json};

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

    /// The plan `plan`, where there is one.
    pub async fn plan(&self, plan: &PlanId) -> Result<Option<Plan>, LedgerError> {
        let row: Option<(String,)> = sqlx::query_as("SELECT body FROM plans WHERE id = $1")
            .bind(plan.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|(body,)| from_json("plan", &body)).transpose()
    }

    /// All plans, by name; the cursor is the name of a plan.
    pub async fn plans(&self, page: &Page) -> Result<Vec<Plan>, LedgerError> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT body FROM plans WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(page.after())
            .bind(page.limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|(body,)| from_json("plan", body)).collect()
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
        let row: Option<AccountRow> =
            sqlx::query_as("SELECT id, plan, operator, payment, opened, closed FROM accounts WHERE id = $1")
                .bind(account.as_str())
                .fetch_optional(&self.readers)
                .await?;
        row.map(Account::read).transpose()
    }

    /// All accounts, or those of one operator, by name; the cursor is the name of an account.
    pub async fn accounts(&self, operator: Option<&OperatorId>, page: &Page) -> Result<Vec<Account>, LedgerError> {
        let rows: Vec<AccountRow> = sqlx::query_as(
            "SELECT id, plan, operator, payment, opened, closed FROM accounts \
             WHERE ($1 = '' OR operator = $1) AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(operator.map_or("", OperatorId::as_str))
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(Account::read).collect()
    }

    /// Puts an account on another plan.
    pub async fn set_plan(&self, account: &AccountId, plan: &PlanId) -> Result<(), LedgerError> {
        if self.plan(plan).await?.is_none() {
            return Err(LedgerError::UnknownPlan(plan.clone()));
        }
        let mut change = self.administer().await?;
        let set = sqlx::query("UPDATE accounts SET plan = $1 WHERE id = $2")
            .bind(plan.as_str())
            .bind(account.as_str())
            .execute(&mut *change)
            .await?;
        finish(change, set.rows_affected(), || LedgerError::UnknownAccount(account.clone())).await
    }

    /// Declares that an account is of `operator`, who is made where there is none, or of nobody. What it costs counts for
    /// the budgets of its operator from the next request on.
    pub async fn set_operator(
        &self,
        account: &AccountId,
        operator: Option<&OperatorId>,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        if let Some(operator) = operator {
            sqlx::query("INSERT INTO operators (id, declared) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
                .bind(operator.as_str())
                .bind(now.milliseconds())
                .execute(&mut *change)
                .await?;
        }
        let set = sqlx::query("UPDATE accounts SET operator = $1 WHERE id = $2")
            .bind(operator.map(OperatorId::as_str))
            .bind(account.as_str())
            .execute(&mut *change)
            .await?;
        finish(change, set.rows_affected(), || LedgerError::UnknownAccount(account.clone())).await
    }

    /// The operators that were declared, by name; the cursor is the name of an operator.
    pub async fn operators(&self, page: &Page) -> Result<Vec<OperatorId>, LedgerError> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT id FROM operators WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(page.after())
            .bind(page.limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|(name,)| id("operator id", name)).collect()
    }

    /// Closes an account: its keys no longer hold and nothing more is reserved; what is under way is still settled.
    pub async fn close_account(&self, account: &AccountId, now: Timestamp) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        let closed = sqlx::query("UPDATE accounts SET closed = COALESCE(closed, $1) WHERE id = $2")
            .bind(now.milliseconds())
            .bind(account.as_str())
            .execute(&mut *change)
            .await?;
        finish(change, closed.rows_affected(), || LedgerError::UnknownAccount(account.clone())).await
    }

    /// Adds a user to an account. One that was removed may be added again.
    ///
    /// # Errors
    ///
    /// `user_exists`, `unknown_account`, or the database fails.
    pub async fn add_user(&self, user: &User) -> Result<(), LedgerError> {
        let mut change = self.administer().await?;
        let added = sqlx::query(
            "INSERT INTO users (account, id, name, added) SELECT id, $1, $2, $3 FROM accounts WHERE id = $4 \
             ON CONFLICT (account, id) DO UPDATE SET name = excluded.name, added = excluded.added, removed = NULL \
             WHERE users.removed IS NOT NULL",
        )
        .bind(user.id.as_str())
        .bind(user.name.as_deref())
        .bind(user.added.milliseconds())
        .bind(user.account.as_str())
        .execute(&mut *change)
        .await?;
        if added.rows_affected() == 1 {
            return Ok(change.commit().await?);
        }
        change.rollback().await?;
        Err(match self.account(&user.account).await? {
            Some(_) => LedgerError::UserExists(user.id.clone()),
            None => LedgerError::UnknownAccount(user.account.clone()),
        })
    }

    /// Removes a user from an account and revokes the keys of that user, all at once; says how many there were.
    pub async fn remove_user(&self, account: &AccountId, user: &UserId, now: Timestamp) -> Result<u64, LedgerError> {
        let mut change = self.administer().await?;
        let removed = sqlx::query("UPDATE users SET removed = $1 WHERE account = $2 AND id = $3 AND removed IS NULL")
            .bind(now.milliseconds())
            .bind(account.as_str())
            .bind(user.as_str())
            .execute(&mut *change)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(LedgerError::UnknownUser(user.clone()));
        }
        let revoked =
            sqlx::query("UPDATE api_keys SET revoked = $1 WHERE account = $2 AND user_id = $3 AND revoked IS NULL")
                .bind(now.milliseconds())
                .bind(account.as_str())
                .bind(user.as_str())
                .execute(&mut *change)
                .await?;
        change.commit().await?;
        Ok(revoked.rows_affected())
    }

    /// The users of an account that were not removed, by name; the cursor is the name of a user.
    pub async fn users(&self, account: &AccountId, page: &Page) -> Result<Vec<User>, LedgerError> {
        let rows: Vec<(String, Option<String>, i64)> = sqlx::query_as(
            "SELECT id, name, added FROM users WHERE account = $1 AND id > $2 AND removed IS NULL ORDER BY id LIMIT $3",
        )
        .bind(account.as_str())
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.readers)
        .await?;
        let user = |(user, name, added): (String, _, _)| {
            let added = Timestamp::from_milliseconds(added);
            Ok(User { account: account.clone(), id: id("user id", &user)?, name, added })
        };
        rows.into_iter().map(user).collect()
    }
}

/// Name, plan, operator, means of payment, opening, closing.
type AccountRow = (String, String, Option<String>, Option<String>, i64, Option<i64>);

impl Account {
    fn read((name, plan, operator, payment, opened, closed): AccountRow) -> Result<Self, LedgerError> {
        Ok(Self {
            id: id("account id", &name)?,
            plan: id("plan id", &plan)?,
            operator: operator.map(|operator| id("operator id", &operator)).transpose()?,
            payment,
            opened: Timestamp::from_milliseconds(opened),
            closed: closed.map(Timestamp::from_milliseconds),
        })
    }
}
