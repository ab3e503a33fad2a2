//! Changes that an administrator makes: first in the ledger, then in the journal.
//!
//! Both must succeed for a change to be reported as made. Where the journal fails after the ledger, the error says so
//! and what to do; the gateway already acts on the ledger then.

use anbiq_domain::{AccountId, Entry, Grant, GrantId, KeyedHasher, PriceList, Terms, TermsRef, Timestamp};
use anbiq_journal::{Journal, TextKeys};
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

    /// Destroys the key of `account`'s sealed texts, for ever; false where it has none.
    ///
    /// # Errors
    /// The key cannot be destroyed, or it is and the journal fails.
    pub async fn forget_texts(&self, account: &AccountId, keys: &TextKeys, at: Timestamp) -> Result<bool, ServeError> {
        let Some(key) = keys.forget(account)? else { return Ok(false) };
        let entry = Entry::TextsForgotten { at, account: account.clone(), key };
        let hint = "the key is destroyed; only the journal does not say when";
        self.record(&entry, || format!("that the texts of `{account}` are forgotten"), hint).await.map(|()| true)
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
