//! The tables. One SQL text for SQLite and PostgreSQL: only TEXT and BIGINT, `$1` parameters, no dialect.
//!
//! Money is in nano-dollars, time in milliseconds since 1970, a composite value is its JSON.

use sqlx::AnyPool;

use crate::LedgerError;
use crate::backend::Backend;

/// Version of the tables after all of the steps.
pub(crate) const VERSION: i64 = STEPS.len() as i64;

/// What leads from each version to the next, beginning with the empty database. A step that was released never changes.
const STEPS: [&[&str]; 3] = [
    &TABLES,
    // Programs that do not count it up must not change what others remember.
    &["INSERT INTO settings (name, value) VALUES ('generation', '0')"],
    &crate::admin_keys::TABLES,
];

const TABLES: [&str; 11] = [
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE plans (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE prices (model TEXT NOT NULL, since BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (model, since))",
    "CREATE TABLE terms (id TEXT NOT NULL, version BIGINT NOT NULL, teacher TEXT NOT NULL, issued BIGINT NOT NULL, \
     body TEXT NOT NULL, PRIMARY KEY (id, version))",
    "CREATE TABLE accounts (id TEXT PRIMARY KEY, plan TEXT NOT NULL REFERENCES plans (id), payment TEXT, \
     opened BIGINT NOT NULL, closed BIGINT, budget BIGINT, spent BIGINT NOT NULL, reserved BIGINT NOT NULL)",
    "CREATE TABLE api_keys (id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts (id), hash TEXT NOT NULL, \
     issued BIGINT NOT NULL, expires BIGINT, revoked BIGINT)",
    "CREATE TABLE acceptances (account TEXT NOT NULL REFERENCES accounts (id), terms TEXT NOT NULL, \
     version BIGINT NOT NULL, accepted BIGINT NOT NULL, PRIMARY KEY (account, terms), \
     FOREIGN KEY (terms, version) REFERENCES terms (id, version))",
    "CREATE TABLE grants (id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts (id), terms TEXT NOT NULL, \
     body TEXT NOT NULL, given BIGINT NOT NULL, expires BIGINT, revoked BIGINT, volume BIGINT, used BIGINT NOT NULL, \
     reserved BIGINT NOT NULL)",
    "CREATE INDEX grants_of_account ON grants (account, terms)",
    "CREATE TABLE reservations (id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts (id), \
     amount BIGINT NOT NULL, grant_id TEXT REFERENCES grants (id), tokens BIGINT NOT NULL, expires BIGINT NOT NULL, \
     state TEXT NOT NULL)",
    "CREATE INDEX reservations_by_end ON reservations (state, expires)",
];

/// Makes the tables where there are none, and refuses those of another version.
///
/// Programs that open a new ledger at the same time take turns.
pub(crate) async fn migrate(pool: &AnyPool, backend: Backend) -> Result<(), LedgerError> {
    let mut change = backend.begin_alone(pool).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)")
        .execute(&mut *change)
        .await?;
    sqlx::query("INSERT INTO schema_version (id, version) VALUES (1, 0) ON CONFLICT (id) DO NOTHING")
        .execute(&mut *change)
        .await?;
    let (found,): (i64,) =
        sqlx::query_as("SELECT version FROM schema_version WHERE id = 1").fetch_one(&mut *change).await?;
    let steps = usize::try_from(found).ok().and_then(|found| STEPS.get(found..));
    let steps = steps.ok_or(LedgerError::Version { found, known: VERSION })?;
    for step in steps {
        for statement in *step {
            sqlx::query(*statement).execute(&mut *change).await?;
        }
    }
    sqlx::query("UPDATE schema_version SET version = $1 WHERE id = 1 AND version <> $1")
        .bind(VERSION)
        .execute(&mut *change)
        .await?;
    Ok(change.commit().await?)
}
