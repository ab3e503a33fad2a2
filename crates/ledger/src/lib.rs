//! Accounts, keys, plans, terms, grants and budgets: what is owed and allowed.
//!
//! A [`Ledger`] is a database, SQLite or PostgreSQL. Every change is one transaction that is on disk when the call returns.
//! Only what requests change in a SQLite file may be forgotten when the machine loses power: reservations, with the requests
//! they were made for, and charges, which the journal brings back ([`Ledger::make_good`]).
//! What a request can cost is reserved before it leaves ([`Ledger::reserve`]), settled after ([`Ledger::settle`]), and an
//! abandoned reservation expires ([`Ledger::expire`]); at every moment `spent + reserved` stays within the limit of every
//! budget, in money or tokens, of a key, an account or an operator, in every window of time.
//! Time is always an argument: the ledger has no clock.

mod accounts;
mod admin_keys;
mod backend;
mod budget;
mod cache;
mod connection;
mod error;
mod grants;
mod keys;
mod reserve;
mod schema;
mod terms;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anbiq_domain::{AccountId, OperatorId, PlanId, PriceList, Terms, TextPolicy, Timestamp, TwinMode, UserId};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor, Transaction};

use backend::Backend;
use cache::Cache;
use writer::Writer;

pub use admin_keys::{AdminKey, AdminRole, AdminSession, NewAdminKey};
pub use budget::{Budget, BudgetState, BudgetUse, Holder, Measure, Shortfall, Unit};
pub use error::{LedgerError, Who};
pub use grants::GrantRecord;
pub use keys::{Granted, KeyState, NewKey, Scope, Scopes, Session, public_part};
pub use reserve::{Booked, Booking, Cost, Reserve, Way};

/// The ledger. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    backend: Backend,
    /// Makes the changes of budgets, in batches.
    budgets: Writer,
    writers: AnyPool,
    readers: AnyPool,
    /// The file, where it is one, for looks that are too short to be handed to anybody.
    looker: Option<Arc<Mutex<rusqlite::Connection>>>,
    cache: Arc<Cache>,
    pepper: [u8; 32],
}

/// The limits of the accounts that are on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Which plan.
    pub id: PlanId,
    /// What the journal keeps of texts.
    pub text_policy: TextPolicy,
    /// Which exchanges are twinned, and how.
    #[serde(flatten)]
    pub twin: TwinPlan,
    /// Most alternatives a token whose log-probabilities are given; `None` for no log-probabilities.
    pub max_logprobs: Option<u8>,
    /// Most answers a request.
    pub max_n: u32,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
    /// Most requests a minute; `None` for no limit.
    pub requests_per_minute: Option<u32>,
    /// Most requests a day, by the calendar in UTC; `None` for no limit.
    #[serde(default)]
    pub requests_per_day: Option<u32>,
    /// Most tokens a minute, of prompts and answers together; `None` for no limit.
    #[serde(default)]
    pub tokens_per_minute: Option<u32>,
    /// Most requests under way; `None` for as many as the gateway lets one account have.
    #[serde(default)]
    pub max_in_flight: Option<u32>,
    /// Largest request body, in bytes; `None` for the gateway's own limit.
    #[serde(default)]
    pub max_body_bytes: Option<u64>,
}

impl Plan {
    /// A plan with the limits that a configuration has where it does not say: four answers of 4,096 tokens a request,
    /// no log-probabilities, no twins, no texts kept, no rates.
    pub const fn new(id: PlanId) -> Self {
        Self {
            id,
            text_policy: TextPolicy::Off,
            twin: TwinPlan { mode: TwinMode::Together, share: 0.0, first: 0, k: None, models: None },
            max_logprobs: None,
            max_n: 4,
            max_tokens: 4096,
            requests_per_minute: None,
            requests_per_day: None,
            tokens_per_minute: None,
            max_in_flight: None,
            max_body_bytes: None,
        }
    }
}

/// Which exchanges of a plan's accounts are twinned, and how.
///
/// It is stored flat within its plan, so that plans from before the mode could be chosen are read as they were meant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TwinPlan {
    /// When the twins are drawn.
    #[serde(default, rename = "twin_mode")]
    pub mode: TwinMode,
    /// Share of exchanges that are twinned, from 0 to 1.
    #[serde(default, rename = "twin_share")]
    pub share: f64,
    /// The first so many exchanges of an account are always twinned.
    #[serde(default, rename = "twin_first")]
    pub first: u32,
    /// Completions of a twinned exchange, the served one among them: 2 to 16; the gateway's own number where it is absent.
    #[serde(default, rename = "twin_k")]
    pub k: Option<u8>,
    /// Only exchanges with these models; with all of them where it is absent.
    #[serde(default, rename = "twin_models")]
    pub models: Option<Vec<String>>,
}

impl TwinPlan {
    /// May exchanges with `model` be twinned?
    pub fn covers(&self, model: &str) -> bool {
        let named = self.models.as_ref().is_none_or(|models| models.iter().any(|name| name == model));
        named && (self.share > 0.0 || self.first > 0)
    }
}

/// An account to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// Its name.
    pub id: AccountId,
    /// On which plan.
    pub plan: PlanId,
    /// The means of payment, where the provider knows it.
    pub payment: Option<String>,
    /// When it is opened.
    pub opened: Timestamp,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Its name.
    pub id: AccountId,
    /// On which plan.
    pub plan: PlanId,
    /// Of which operator it is declared to be.
    pub operator: Option<OperatorId>,
    /// The means of payment, where the provider knows it.
    pub payment: Option<String>,
    /// When it was opened.
    pub opened: Timestamp,
    /// When it was closed.
    pub closed: Option<Timestamp>,
}

/// Somebody who uses an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Of which account.
    pub account: AccountId,
    /// As the account's holder names them.
    pub id: UserId,
    /// Who that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When they were added.
    pub added: Timestamp,
}

/// What holds of a model for everybody who asks it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Teacher {
    /// Its terms as they were issued last, where it has any.
    pub terms: Option<Terms>,
    /// Its prices as they were set last, where they were set.
    pub prices: Option<PriceList>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it begins: behind the item that has this cursor. Absent for the beginning.
    pub after: Option<String>,
    /// Most items; at most 1,000 are given.
    pub limit: u32,
}

impl Page {
    fn after(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }

    fn limit(&self) -> i64 {
        i64::from(self.limit.min(1000))
    }
}

impl Default for Page {
    /// The first hundred.
    fn default() -> Self {
        Self { after: None, limit: 100 }
    }
}

/// Longest wait for a connection, and for SQLite's lock while another program holds it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Ledger {
    /// Opens the ledger at `url`, such as `sqlite:ledger.db` or `postgres://anbiq@db.example/ledger`. A SQLite file and
    /// the tables are made where there are none; a PostgreSQL database must be there.
    ///
    /// # Errors
    ///
    /// The address is of no known kind, the database cannot be reached or opened, or it has another version.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        let backend = Backend::of(url).ok_or_else(|| LedgerError::Address(backend::shown(url)))?;
        let url = backend.address(url);
        sqlx::any::install_default_drivers();
        if backend == Backend::Postgres {
            reach(&url).await?;
        }
        let writers = pool(&url, backend, backend.writers()).await?;
        schema::migrate(&writers, backend).await?;
        // Every connection to `:memory:` is a database of its own.
        let readers = if url.contains(":memory:") { writers.clone() } else { pool(&url, backend, 4).await? };
        let pepper = pepper(&writers).await?;
        let open = || connection::open(&url, backend);
        let files = open()?.zip(open()?).map(<[_; 2]>::from);
        let budgets = Writer::start(writers.clone(), backend, files)?;
        let looker = open()?.map(|file| Arc::new(Mutex::new(file)));
        Ok(Self { backend, budgets, writers, readers, looker, cache: Arc::default(), pepper })
    }

    /// Opens the ledger in the SQLite file `path`; a new file can be read by its owner only.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`].
    pub async fn open_file(path: &Path) -> Result<Self, LedgerError> {
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map_err(|source| LedgerError::File { path: path.display().to_string(), source })?;
        let name = path.to_str().ok_or_else(|| LedgerError::Address(path.display().to_string()))?;
        let escaped = name.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        Self::open(&["sqlite:", &escaped].concat()).await
    }

    /// Ends all connections; SQLite then folds its write-ahead log into the file. Calls under way finish first.
    pub async fn close(self) {
        self.budgets.close().await;
        self.readers.close().await;
        self.writers.close().await;
    }

    /// Begins an administrative change. It counts the generation up, so that what any program remembers of the ledger
    /// is forgotten when the change is committed.
    async fn administer(&self) -> Result<Transaction<'static, Any>, LedgerError> {
        let mut change = self.writers.begin().await?;
        sqlx::query("UPDATE settings SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE name = 'generation'")
            .execute(&mut *change)
            .await?;
        Ok(change)
    }
}

/// Commits a change that was made, or says why it was not.
async fn finish(
    change: Transaction<'static, Any>,
    rows: u64,
    otherwise: impl FnOnce() -> LedgerError,
) -> Result<(), LedgerError> {
    if rows == 0 { Err(otherwise()) } else { Ok(change.commit().await?) }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger(..)")
    }
}

/// Connects once. A pool would go on trying until its patience ends, and then say only that it waited.
async fn reach(url: &str) -> Result<(), LedgerError> {
    let unreachable = |source| LedgerError::Unreachable { url: backend::shown(url), source };
    let connecting = AnyConnection::connect(url);
    let connected = tokio::time::timeout(PATIENCE, connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    connected.map_err(unreachable)?.close().await.map_err(unreachable)
}

async fn pool(url: &str, backend: Backend, connections: u32) -> Result<AnyPool, LedgerError> {
    let options = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        // A file does not hang up; a server may, and is asked before each use.
        .test_before_acquire(backend == Backend::Postgres)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for setting in backend.settings() {
                    connection.execute(*setting).await?;
                }
                Ok(())
            })
        });
    Ok(options.connect(url).await?)
}

/// The ledger's own random bytes, drawn when it is first opened.
async fn pepper(pool: &AnyPool) -> Result<[u8; 32], LedgerError> {
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|_| LedgerError::Random)?;
    sqlx::query("INSERT INTO settings (name, value) VALUES ('pepper', $1) ON CONFLICT (name) DO NOTHING")
        .bind(hex::encode(fresh))
        .execute(pool)
        .await?;
    let (kept,): (String,) = sqlx::query_as("SELECT value FROM settings WHERE name = 'pepper'").fetch_one(pool).await?;
    let mut pepper = [0; 32];
    hex::decode_to_slice(&kept, &mut pepper)
        .map_err(|error| LedgerError::Damaged { what: "pepper", reason: error.to_string() })?;
    Ok(pepper)
}

/// Reads a value that is stored as JSON.
fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, body: &str) -> Result<T, LedgerError> {
    serde_json::from_str(body).map_err(|error| LedgerError::Damaged { what, reason: error.to_string() })
}

fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(|error| LedgerError::Damaged { what, reason: error.to_string() })
}

/// Reads an id that is stored as text.
fn id<T: std::str::FromStr<Err: std::fmt::Display>>(what: &'static str, text: &str) -> Result<T, LedgerError> {
    text.parse().map_err(|error: T::Err| LedgerError::Damaged { what, reason: error.to_string() })
}

/// Tokens as the database holds them.
fn to_i64(tokens: u64) -> Result<i64, LedgerError> {
    // Far above any request and any grant, and far from the end of 64 bits.
    i64::try_from(tokens).ok().filter(|tokens| *tokens <= 1 << 53).ok_or(LedgerError::OutOfRange("this many tokens"))
}

fn to_u64(tokens: i64) -> u64 {
    u64::try_from(tokens).unwrap_or(0)
}
