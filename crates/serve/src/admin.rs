//! Changes that an administrator makes: first in the ledger, then in the journal.
//!
//! Both must succeed for a change to be reported as made. Where the journal fails after the ledger, the error says so
//! and what to do; the gateway already acts on the ledger then.

use anbiq_domain::{AccountId, Conditions, Entry, Grant, GrantId, KeyedHasher, PriceList, Terms, TermsRef, Timestamp};
use anbiq_journal::Journal;
use anbiq_ledger::{Ledger, NewAccount};

use crate::spool::Spool;
use crate::{ServeError, Unwritten};

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
}

impl Administrator {
    /// An administrator of `ledger` whose changes go to `record`; means of payment are hashed under `sketch_key`.
    pub fn new(ledger: Ledger, record: Record, sketch_key: &[u8; 32]) -> Self {
        Self { ledger, record, hasher: KeyedHasher::new(sketch_key) }
    }

    /// Opens an account, without a budget limit.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn open_account(&self, account: &NewAccount) -> Result<(), ServeError> {
        self.ledger.open_account(account).await?;
        let payment = account.payment.as_ref().map(|means| self.hasher.hash("payment", means.as_bytes()));
        let entry = Entry::AccountOpened {
            at: account.opened,
            account: account.id.clone(),
            plan: account.plan.clone(),
            payment,
        };
        let hint = "the account can be used; `watch` knows it from its first exchange on, without its means of payment";
        self.record(&entry, || format!("account `{}`", account.id), hint).await
    }

    /// Issues terms. Issuing the same again journals them again and changes nothing.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn issue_terms(&self, terms: &Terms, at: Timestamp) -> Result<(), ServeError> {
        self.ledger.put_terms(terms, at).await?;
        let entry = Entry::TermsIssued { at, terms: terms.clone() };
        self.record(&entry, || format!("terms `{}`", terms.id), "issue the same terms again").await
    }

    /// Sets the prices of `model`.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn set_prices(&self, model: &str, prices: PriceList, at: Timestamp) -> Result<(), ServeError> {
        self.ledger.put_prices(model, prices, at).await?;
        let entry = Entry::PricesSet { at, model: model.to_owned(), prices };
        self.record(&entry, || format!("the price of `{model}`"), "set the same prices again").await
    }

    /// Records that `account` accepted `terms`.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn accept_terms(&self, account: &AccountId, terms: &TermsRef, at: Timestamp) -> Result<(), ServeError> {
        self.ledger.accept_terms(account, terms, at).await?;
        let entry = Entry::TermsAccepted { at, account: account.clone(), terms: terms.clone() };
        self.record(&entry, || format!("the acceptance by `{account}`"), "accept the same terms again").await
    }

    /// Gives a grant.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn give_grant(&self, grant: &Grant) -> Result<(), ServeError> {
        self.ledger.give_grant(grant).await?;
        let entry = Entry::GrantGiven { grant: grant.clone() };
        self.record(&entry, || format!("grant `{}`", grant.id), "revoke it and give one under another name").await
    }

    /// Asks for a grant.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn ask_grant(&self, grant: &Grant) -> Result<(), ServeError> {
        self.ledger.ask_grant(grant).await?;
        let entry = Entry::GrantAsked { grant: grant.clone() };
        self.record(&entry, || format!("grant `{}`", grant.id), "revoke it and ask under another name").await
    }

    /// Approves a grant that was asked for, under `conditions` and until `expires` where they are given, and gives it as it
    /// holds from `at` on.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn approve_grant(
        &self,
        grant: &GrantId,
        conditions: Option<&Conditions>,
        expires: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<Grant, ServeError> {
        let grant = self.ledger.approve_grant(grant, conditions, expires, at).await?;
        let entry = Entry::GrantGiven { grant: grant.clone() };
        let hint = "revoke it and give one under another name";
        self.record(&entry, || format!("grant `{}`", grant.id), hint).await?;
        Ok(grant)
    }

    /// Refuses a grant that was asked for.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn refuse_grant(&self, grant: &GrantId, reason: &str, at: Timestamp) -> Result<(), ServeError> {
        self.ledger.refuse_grant(grant, reason, at).await?;
        let entry = Entry::GrantRefused { at, grant: grant.clone(), reason: reason.to_owned() };
        self.record(&entry, || format!("the refusal of `{grant}`"), "revoke it, which is journalled").await
    }

    /// Takes a grant back. Doing it again journals it again and changes nothing.
    ///
    /// # Errors
    /// The ledger or the journal fails.
    pub async fn revoke_grant(&self, grant: &GrantId, at: Timestamp) -> Result<(), ServeError> {
        self.ledger.revoke_grant(grant, at).await?;
        let entry = Entry::GrantRevoked { at, grant: grant.clone() };
        self.record(&entry, || format!("the revocation of `{grant}`"), "revoke it again").await
    }

    async fn record(
        &self,
        entry: &Entry,
        change: impl FnOnce() -> String,
        hint: &'static str,
    ) -> Result<(), ServeError> {
        let written = match &self.record {
            Record::Journal(journal) => journal.append(entry).await.map(drop).map_err(Unwritten::Journal),
            Record::Spool(spool) => spool.leave(entry).map_err(Unwritten::Spool),
        };
        written.map_err(|source| ServeError::Unjournalled { change: change(), hint, source })
    }
}
