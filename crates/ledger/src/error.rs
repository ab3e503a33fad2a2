use std::sync::Arc;

use anbiq_domain::{AccountId, ExchangeId, GrantId, KeyId, OperatorId, PlanId, TermsRef, UserId, Window};

use crate::{Holder, Measure, Shortfall, Unit};

/// Who has to act when the ledger refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The holder of the account: another key, more budget, a new grant.
    Customer,
    /// Whoever administers the ledger named something that does not exist, or that exists already.
    Operator,
    /// The database or its disk.
    Database,
}

/// What the ledger refuses.
///
/// [`LedgerError::code`] is stable, [`LedgerError::who`] has to act, [`LedgerError::retryable`] says whether the same
/// call may succeed later without anybody acting.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A key that is malformed, unknown or has a wrong secret; which of them is not said.
    #[error("this API key is not valid")]
    InvalidKey,
    /// A key that was revoked.
    #[error("this API key was revoked")]
    KeyRevoked,
    /// A key whose end has come.
    #[error("this API key has expired")]
    KeyExpired,
    /// An account that was closed.
    #[error("the account is closed")]
    AccountClosed,
    /// A budget does not hold what was asked for.
    #[error("{0}")]
    InsufficientBudget(Box<Shortfall>),
    /// A grant whose remaining volume does not hold what was asked for.
    #[error("the volume of grant `{0}` is used up")]
    GrantUsedUp(GrantId),
    /// A grant whose end has come.
    #[error("grant `{0}` has expired")]
    GrantExpired(GrantId),
    /// A grant that was taken back.
    #[error("grant `{0}` was revoked")]
    GrantRevoked(GrantId),

    /// No such plan.
    #[error("there is no plan `{0}`")]
    UnknownPlan(PlanId),
    /// No such account.
    #[error("there is no account `{0}`")]
    UnknownAccount(AccountId),
    /// No such key.
    #[error("there is no key `{0}`")]
    UnknownKey(KeyId),
    /// No such operator was declared.
    #[error(
        "there is no operator `{0}`\nhint: an account is declared to be of an operator when it is opened, or later"
    )]
    UnknownOperator(OperatorId),
    /// The account has no such user, or no longer.
    #[error("there is no user `{0}` of this account")]
    UnknownUser(UserId),
    /// The account has such a user.
    #[error("there is a user `{0}` of this account already")]
    UserExists(UserId),
    /// No such budget.
    #[error("there is no budget of `{0}` in {what} for `{2}`", what = .1.as_str())]
    UnknownBudget(Holder, Unit, Window),
    /// No such terms in that version.
    #[error("there are no terms `{}` of version {}", .0.id, .0.version)]
    UnknownTerms(TermsRef),
    /// The account has no such grant.
    #[error("there is no grant `{0}` of this account")]
    UnknownGrant(GrantId),
    /// An account of that name exists already.
    #[error("account `{0}` exists already")]
    AccountExists(AccountId),
    /// A grant of that name exists already.
    #[error("grant `{0}` exists already")]
    GrantExists(GrantId),
    /// A grant that was decided already.
    #[error("grant `{0}` is not asked for: it was given, refused or revoked")]
    GrantNotAsked(GrantId),
    /// A grant that permits more than its terms do, and does not say why.
    #[error(
        "grant `{0}` permits more than its terms: {1}\nhint: say why it goes beyond them, and the journal keeps the reason"
    )]
    GrantBeyondTerms(GrantId, String),
    /// The words of issued terms cannot change.
    #[error("terms `{}` of version {} were issued with other contents\nhint: a change is a new version", .0.id, .0.version)]
    TermsChanged(TermsRef),
    /// The reservation was settled or released before, or there never was one; nothing was changed.
    #[error("nothing is reserved for exchange `{0}` any more")]
    ReservationClosed(ExchangeId),
    /// An amount below zero, or larger than any one request may hold.
    #[error("{0} is out of range for one request")]
    OutOfRange(&'static str),
    /// A URL that names no database that is supported.
    #[error(
        "`{0}` is not the address of a ledger\nhint: write `sqlite:` and the path of a file, or `postgres://`, host and database"
    )]
    Address(String),

    /// The database was written by another version of this software.
    #[error("the ledger has schema version {found}; this program knows version {known}")]
    Version {
        /// In the database.
        found: i64,
        /// In this program.
        known: i64,
    },
    /// The server of the database does not answer, or lets nobody in.
    #[error("cannot reach the ledger at `{url}`: {source}")]
    Unreachable {
        /// Where, without user and password.
        url: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The database is in use by others for too long, or too many changes wait for it.
    #[error("the ledger is busy")]
    Busy(#[source] Arc<sqlx::Error>),
    /// The database failed.
    #[error("the ledger's database failed: {0}")]
    Database(#[source] Arc<sqlx::Error>),
    /// Something stored cannot be read.
    #[error("the ledger holds an unreadable {what}: {reason}")]
    Damaged {
        /// What kind of thing.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The database file cannot be made.
    #[error("cannot create the ledger `{path}`: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system started no thread.
    #[error("the ledger cannot start its thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
}

impl LedgerError {
    /// A stable name of what happened, such as `insufficient_budget`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidKey => "invalid_api_key",
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => "key_expired",
            Self::AccountClosed => "account_closed",
            Self::InsufficientBudget(short) => match (&short.budget.holder, short.budget.window, short.budget.limit) {
                (Holder::Account(_), Window::Total, Measure::Money(_)) => "insufficient_budget",
                (Holder::Account(_), ..) => "account_budget_exceeded",
                (Holder::Key(_), ..) => "key_budget_exceeded",
                (Holder::Operator(_), ..) => "operator_budget_exceeded",
            },
            Self::GrantUsedUp(_) => "grant_used_up",
            Self::GrantExpired(_) => "grant_expired",
            Self::GrantRevoked(_) => "grant_revoked",
            Self::UnknownPlan(_) => "unknown_plan",
            Self::UnknownAccount(_) => "unknown_account",
            Self::UnknownKey(_) => "unknown_key",
            Self::UnknownOperator(_) => "unknown_operator",
            Self::UnknownUser(_) => "unknown_user",
            Self::UserExists(_) => "user_exists",
            Self::UnknownBudget(..) => "unknown_budget",
            Self::UnknownTerms(_) => "unknown_terms",
            Self::UnknownGrant(_) => "unknown_grant",
            Self::AccountExists(_) => "account_exists",
            Self::GrantExists(_) => "grant_exists",
            Self::GrantNotAsked(_) => "grant_not_asked",
            Self::GrantBeyondTerms(..) => "grant_beyond_terms",
            Self::TermsChanged(_) => "terms_changed",
            Self::ReservationClosed(_) => "reservation_closed",
            Self::OutOfRange(_) => "amount_out_of_range",
            Self::Address(_) => "ledger_address",
            Self::Version { .. } => "ledger_version",
            Self::Unreachable { .. } => "ledger_unreachable",
            Self::Busy(_) => "ledger_busy",
            Self::Database(_) => "ledger_failed",
            Self::Damaged { .. } => "ledger_damaged",
            Self::File { .. } => "ledger_file",
            Self::Thread(_) => "no_thread",
            Self::Random => "no_random_bytes",
        }
    }

    /// Who has to act.
    pub const fn who(&self) -> Who {
        match self {
            Self::InvalidKey
            | Self::KeyRevoked
            | Self::KeyExpired
            | Self::AccountClosed
            | Self::InsufficientBudget(_)
            | Self::GrantUsedUp(_)
            | Self::GrantExpired(_)
            | Self::GrantRevoked(_) => Who::Customer,
            Self::UnknownPlan(_)
            | Self::UnknownAccount(_)
            | Self::UnknownKey(_)
            | Self::UnknownOperator(_)
            | Self::UnknownUser(_)
            | Self::UserExists(_)
            | Self::UnknownBudget(..)
            | Self::UnknownTerms(_)
            | Self::UnknownGrant(_)
            | Self::AccountExists(_)
            | Self::GrantExists(_)
            | Self::GrantNotAsked(_)
            | Self::GrantBeyondTerms(..)
            | Self::TermsChanged(_)
            | Self::ReservationClosed(_)
            | Self::OutOfRange(_)
            | Self::Address(_) => Who::Operator,
            Self::Version { .. }
            | Self::Unreachable { .. }
            | Self::Busy(_)
            | Self::Database(_)
            | Self::Damaged { .. }
            | Self::File { .. }
            | Self::Thread(_)
            | Self::Random => Who::Database,
        }
    }

    /// May the same call succeed later without anybody acting? A budget may: what other requests hold comes free.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy(_) | Self::Database(_) => true,
            Self::InsufficientBudget(short) => short.only_reserved(),
            _ => false,
        }
    }
}

impl LedgerError {
    /// Is it a grant that no longer holds?
    pub(crate) const fn is_of_grant(&self) -> bool {
        matches!(self, Self::GrantUsedUp(_) | Self::GrantExpired(_) | Self::GrantRevoked(_))
    }

    /// Does `error` say that others are in the way?
    pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::PoolTimedOut => true,
            // SQLite: 5 is SQLITE_BUSY, 517 SQLITE_BUSY_SNAPSHOT. PostgreSQL: a deadlock, a failed serialisation, a lock
            // that was waited for too long.
            sqlx::Error::Database(inner) => {
                inner.code().is_some_and(|code| matches!(code.as_ref(), "5" | "517" | "40P01" | "40001" | "55P03"))
            }
            _ => false,
        }
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        Arc::new(error).into()
    }
}

/// Many changes may fail for one reason.
impl From<Arc<sqlx::Error>> for LedgerError {
    fn from(error: Arc<sqlx::Error>) -> Self {
        if Self::is_busy(&error) { Self::Busy(error) } else { Self::Database(error) }
    }
}
