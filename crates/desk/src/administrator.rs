//! Changes that an administrator makes: first in the ledger, then in the journal.
//!
//! Both must succeed for a change to be reported as made. Where the journal fails after the ledger, the error says so
//! and what to do; the gateway already acts on the ledger then.

use anbiq_domain::{
    AccountId, Administration, Conditions, Entry, Grant, GrantId, Hand, KeyId, KeyedHasher, Money, OperatorId, PlanId,
    PriceList, Terms, TermsRef, Timestamp, UserId, Window,
};
use anbiq_journal::{Journal, Spool, TextKeys};
use anbiq_ledger::{Budget, Holder, Ledger, Measure, NewAccount, NewAdminKey, NewKey, Plan, Unit, User};
use anbiq_secret::Secret;

use crate::{DeskError, Unwritten};

/// Where changes are written down.
#[derive(Debug, Clone)]
pub enum Record {
    /// In the journal itself: this program is its writer.
    Journal(Journal),
    /// In the spool of the gateway that is its writer, which takes them from there within a second.
    Spool(Spool),
}

/// Who may change ledger and journal together.
#[derive(Debug, Clone)]
pub struct Administrator {
    ledger: Ledger,
    record: Record,
    hasher: KeyedHasher,
    hand: Hand,
}

impl Administrator {
    /// An administrator of `ledger` at the console, whose changes go to `record`; means of payment are hashed under
    /// `sketch_key`.
    pub fn new(ledger: Ledger, record: Record, sketch_key: &[u8; 32]) -> Self {
        Self { ledger, record, hasher: KeyedHasher::new(sketch_key), hand: Hand::Console }
    }

    /// The same, where the changes are by `hand`.
    #[must_use]
    pub fn by(&self, hand: Hand) -> Self {
        Self { hand, ..self.clone() }
    }

    /// Makes a plan, or changes it for all accounts that are on it.
    ///
    /// # Errors
    /// The ledger or the journal fails; so it is with every change below.
    pub async fn put_plan(&self, plan: &Plan, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.put_plan(plan).await?;
        let done = Done { action: "plan.put", subject: plan.id.as_str(), at, hint: "put the same plan again" };
        self.record(done, None, None).await
    }

    /// Opens an account, without a budget limit.
    pub async fn open_account(&self, account: &NewAccount) -> Result<(), DeskError> {
        self.ledger.open_account(account).await?;
        let payment = account.payment.as_ref().map(|means| self.hasher.hash("payment", means.as_bytes()));
        let entry = Entry::AccountOpened {
            at: account.opened,
            account: account.id.clone(),
            plan: account.plan.clone(),
            payment,
        };
        let hint = "the account can be used; `watch` knows it from its first exchange on, without its means of payment";
        let done = Done { action: "account.open", subject: account.id.as_str(), at: account.opened, hint };
        self.record(done, Some(entry), None).await
    }

    /// Closes an account: its keys no longer hold, and nothing more is reserved.
    pub async fn close_account(&self, account: &AccountId, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.close_account(account, at).await?;
        let done = Done { action: "account.close", subject: account.as_str(), at, hint: "close it again" };
        self.record(done, None, None).await
    }

    /// Destroys the key of `account`'s sealed texts, for ever; false where it has none.
    pub async fn forget_texts(&self, account: &AccountId, keys: &TextKeys, at: Timestamp) -> Result<bool, DeskError> {
        let Some(key) = keys.forget(account)? else { return Ok(false) };
        let entry = Entry::TextsForgotten { at, account: account.clone(), key };
        let hint = "the key is destroyed; only the journal does not say when";
        let done = Done { action: "account.forget", subject: account.as_str(), at, hint };
        self.record(done, Some(entry), None).await.map(|()| true)
    }

    /// Sets all the money that an account may spend.
    pub async fn set_budget(&self, account: &AccountId, limit: Money, at: Timestamp) -> Result<(), DeskError> {
        let holder = Holder::Account(account.clone());
        self.put_budget(&Budget { holder, window: Window::Total, limit: Measure::Money(limit) }, at).await
    }

    /// Puts an account on another plan.
    pub async fn set_plan(&self, account: &AccountId, plan: &PlanId, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.set_plan(account, plan).await?;
        let done = Done { action: "account.plan", subject: account.as_str(), at, hint: "set the same plan again" };
        self.record(done, None, Some(format!("plan {plan}"))).await
    }

    /// Declares of which operator an account is.
    pub async fn set_operator(
        &self,
        account: &AccountId,
        operator: Option<&OperatorId>,
        at: Timestamp,
    ) -> Result<(), DeskError> {
        self.ledger.set_operator(account, operator, at).await?;
        let hint = "set the same operator again";
        let done = Done { action: "account.operator", subject: account.as_str(), at, hint };
        let whose = operator.map_or("no operator".to_owned(), |operator| format!("operator {operator}"));
        self.record(done, None, Some(whose)).await
    }

    /// Sets a budget, or changes its limit.
    pub async fn put_budget(&self, budget: &Budget, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.put_budget(budget).await?;
        let holder = budget.holder.to_string();
        let done = Done { action: "budget.set", subject: &holder, at, hint: "set the same budget again" };
        self.record(done, None, Some(format!("{} for window {}", budget.limit, budget.window))).await
    }

    /// Takes a budget away, with what is remembered of it.
    pub async fn remove_budget(
        &self,
        holder: &Holder,
        unit: Unit,
        window: Window,
        at: Timestamp,
    ) -> Result<(), DeskError> {
        self.ledger.remove_budget(holder, unit, window).await?;
        let whose = holder.to_string();
        let hint = "set the budget and remove it again";
        let done = Done { action: "budget.remove", subject: &whose, at, hint };
        self.record(done, None, Some(format!("{} for window {window}", unit.as_str()))).await
    }

    /// Adds a user to an account.
    pub async fn add_user(&self, user: &User) -> Result<(), DeskError> {
        self.ledger.add_user(user).await?;
        let hint = "remove the user and add them again";
        let done = Done { action: "user.add", subject: user.id.as_str(), at: user.added, hint };
        self.record(done, None, Some(format!("account {}", user.account))).await
    }

    /// Removes a user from an account and revokes the keys of that user; says how many there were.
    pub async fn remove_user(&self, account: &AccountId, user: &UserId, at: Timestamp) -> Result<u64, DeskError> {
        let revoked = self.ledger.remove_user(account, user, at).await?;
        let hint = "the user is removed, and their keys do not hold";
        let done = Done { action: "user.remove", subject: user.as_str(), at, hint };
        self.record(done, None, Some(format!("account {account}, {revoked} keys"))).await?;
        Ok(revoked)
    }

    /// Issues a key of an account, which is given out here and never again.
    pub async fn issue_key(&self, new: &NewKey) -> Result<(KeyId, Secret<String>), DeskError> {
        let (id, key) = self.ledger.issue(new).await?;
        let hint = "the key holds but was not given out: revoke it and issue another";
        let done = Done { action: "key.issue", subject: id.as_str(), at: new.issued, hint };
        self.record(done, None, Some(format!("account {}", new.account))).await?;
        Ok((id, key))
    }

    /// Issues a key that takes the place of `old`, which holds for `grace_ms` milliseconds more.
    pub async fn rotate_key(
        &self,
        old: &KeyId,
        grace_ms: i64,
        at: Timestamp,
    ) -> Result<(KeyId, Secret<String>), DeskError> {
        let (id, key) = self.ledger.rotate_key(old, grace_ms, at).await?;
        let hint = "the new key holds but was not given out: revoke it and rotate again";
        let done = Done { action: "key.rotate", subject: id.as_str(), at, hint };
        self.record(done, None, Some(format!("in the place of {old}"))).await?;
        Ok((id, key))
    }

    /// Revokes a key at once. Doing it again journals it again and changes nothing.
    pub async fn revoke_key(&self, key: &KeyId, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.revoke_key(key, at).await?;
        let done = Done { action: "key.revoke", subject: key.as_str(), at, hint: "revoke it again" };
        self.record(done, None, None).await
    }

    /// Issues an admin key, which is given out here and never again.
    pub async fn issue_admin_key(
        &self,
        new: &NewAdminKey,
        at: Timestamp,
    ) -> Result<(KeyId, Secret<String>), DeskError> {
        let (id, key) = self.ledger.issue_admin_key(new, at).await?;
        let of = new.account.as_ref().map_or(String::new(), |account| format!(", account {account} only"));
        let hint = "the key holds but was not given out: revoke it and issue another";
        let done = Done { action: "admin_key.issue", subject: id.as_str(), at, hint };
        self.record(done, None, Some(format!("{}{of}", new.role))).await?;
        Ok((id, key))
    }

    /// Revokes an admin key at once. Doing it again journals it again and changes nothing.
    pub async fn revoke_admin_key(&self, key: &KeyId, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.revoke_admin_key(key, at).await?;
        let done = Done { action: "admin_key.revoke", subject: key.as_str(), at, hint: "revoke it again" };
        self.record(done, None, None).await
    }

    /// Issues terms. Issuing the same again journals them again and changes nothing.
    pub async fn issue_terms(&self, terms: &Terms, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.put_terms(terms, at).await?;
        let entry = Entry::TermsIssued { at, terms: terms.clone() };
        let hint = "issue the same terms again";
        let done = Done { action: "terms.issue", subject: terms.id.as_str(), at, hint };
        self.record(done, Some(entry), Some(format!("version {}", terms.version))).await
    }

    /// Sets the prices of `model`.
    pub async fn set_prices(&self, model: &str, prices: PriceList, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.put_prices(model, prices, at).await?;
        let entry = Entry::PricesSet { at, model: model.to_owned(), prices };
        let done = Done { action: "prices.set", subject: model, at, hint: "set the same prices again" };
        self.record(done, Some(entry), None).await
    }

    /// Records that `account` accepted `terms`.
    pub async fn accept_terms(&self, account: &AccountId, terms: &TermsRef, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.accept_terms(account, terms, at).await?;
        let entry = Entry::TermsAccepted { at, account: account.clone(), terms: terms.clone() };
        let hint = "accept the same terms again";
        let done = Done { action: "terms.accept", subject: account.as_str(), at, hint };
        self.record(done, Some(entry), Some(format!("{} version {}", terms.id, terms.version))).await
    }

    /// Gives a grant.
    pub async fn give_grant(&self, grant: &Grant) -> Result<(), DeskError> {
        self.ledger.give_grant(grant).await?;
        let entry = Entry::GrantGiven { grant: grant.clone() };
        let hint = "revoke it and give one under another name";
        let done = Done { action: "grant.give", subject: grant.id.as_str(), at: grant.given, hint };
        self.record(done, Some(entry), None).await
    }

    /// Asks for a grant.
    pub async fn ask_grant(&self, grant: &Grant) -> Result<(), DeskError> {
        self.ledger.ask_grant(grant).await?;
        let entry = Entry::GrantAsked { grant: grant.clone() };
        let hint = "revoke it and ask under another name";
        let done = Done { action: "grant.ask", subject: grant.id.as_str(), at: grant.given, hint };
        self.record(done, Some(entry), None).await
    }

    /// Approves a grant that was asked for, under `conditions` and until `expires` where they are given, and gives it as it
    /// holds from `at` on.
    pub async fn approve_grant(
        &self,
        grant: &GrantId,
        conditions: Option<&Conditions>,
        expires: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<Grant, DeskError> {
        let grant = self.ledger.approve_grant(grant, conditions, expires, at).await?;
        let entry = Entry::GrantGiven { grant: grant.clone() };
        let hint = "revoke it and give one under another name";
        let done = Done { action: "grant.approve", subject: grant.id.as_str(), at, hint };
        self.record(done, Some(entry), None).await?;
        Ok(grant)
    }

    /// Refuses a grant that was asked for.
    pub async fn refuse_grant(&self, grant: &GrantId, reason: &str, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.refuse_grant(grant, reason, at).await?;
        let entry = Entry::GrantRefused { at, grant: grant.clone(), reason: reason.to_owned() };
        let hint = "revoke it, which is journalled";
        let done = Done { action: "grant.refuse", subject: grant.as_str(), at, hint };
        self.record(done, Some(entry), None).await
    }

    /// Takes a grant back. Doing it again journals it again and changes nothing.
    pub async fn revoke_grant(&self, grant: &GrantId, at: Timestamp) -> Result<(), DeskError> {
        self.ledger.revoke_grant(grant, at).await?;
        let entry = Entry::GrantRevoked { at, grant: grant.clone() };
        let done = Done { action: "grant.revoke", subject: grant.as_str(), at, hint: "revoke it again" };
        self.record(done, Some(entry), None).await
    }

    /// Writes down what was done about an operator that `watch` found, or that it was taken back: `action` is `watch.enforce` or
    /// `watch.release`. The changes themselves are written down where they are made.
    pub async fn measure(
        &self,
        action: &'static str,
        operator: &OperatorId,
        detail: String,
        at: Timestamp,
    ) -> Result<(), DeskError> {
        let done = Done { action, subject: operator.as_str(), at, hint: "do the same again" };
        self.record(done, None, Some(detail)).await
    }

    /// Writes down that the configuration was read again, and what that changed.
    pub async fn reloaded(&self, changes: &str, at: Timestamp) -> Result<(), DeskError> {
        let done = Done { action: "configuration.reload", subject: "configuration", at, hint: "reload again" };
        self.record(done, None, Some(changes.to_owned())).await
    }

    /// Journals what was done: by `entry`, where readers of the journal need its contents, and whose hand it was. Of the
    /// console there is no more to say than the entry does.
    async fn record(&self, done: Done<'_>, entry: Option<Entry>, detail: Option<String>) -> Result<(), DeskError> {
        let Done { action, subject, at, hint } = done;
        let signed = (entry.is_none() || self.hand != Hand::Console).then(|| {
            let (by, action, subject) = (self.hand.clone(), action.to_owned(), subject.to_owned());
            Entry::Administered(Administration { at, by, action, subject, detail })
        });
        for entry in entry.iter().chain(&signed) {
            let written = match &self.record {
                Record::Journal(journal) => journal.append(entry).await.map(drop).map_err(Unwritten::Journal),
                Record::Spool(spool) => spool.leave(entry).map_err(Unwritten::Spool),
            };
            written.map_err(|source| DeskError::Unjournalled {
                change: format!("`{action}` of `{subject}`"),
                hint,
                source,
            })?;
        }
        Ok(())
    }
}

/// A change that the ledger has.
struct Done<'a> {
    action: &'static str,
    subject: &'a str,
    at: Timestamp,
    /// What to do where the journal does not take it.
    hint: &'static str,
}
