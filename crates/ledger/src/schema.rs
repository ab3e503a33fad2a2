//! The tables. One SQL text for SQLite and PostgreSQL: only TEXT and BIGINT, `$1` parameters, no dialect.
//!
//! Money is in nano-dollars, time in milliseconds since 1970, a composite value is its JSON.

use sqlx::AnyPool;

use crate::LedgerError;
use crate::backend::Backend;

/// Version of the tables after all of the steps.
pub(crate) const VERSION: i64 = STEPS.len() as i64;

/// What leads from each version to the next, beginning with the empty database. A step that was released never changes.
const STEPS: [&[&str]; 6] = [
    &TABLES,
    // Programs that do not count it up must not change what others remember.
    &["INSERT INTO settings (name, value) VALUES ('generation', '0')"],
    &BUDGETS,
    &crate::admin_keys::TABLES,
    // `asked`, `refused` or `given`; a decision against it is a revocation with a reason.
    &[
        "ALTER TABLE grants ADD COLUMN state TEXT NOT NULL DEFAULT 'given'",
        "ALTER TABLE grants ADD COLUMN asked BIGINT",
        "ALTER TABLE grants ADD COLUMN reason TEXT",
    ],
    &CHARGES,
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

/// Users, scopes of keys, operators, and budgets for a time. Reservations move to tables that write fewer pages: a closed
/// one is gone at once, ids rise with time, and there is no further index, since few are open at a time.
const BUDGETS: [&str; 16] = [
    "CREATE TABLE operators (id TEXT PRIMARY KEY, declared BIGINT NOT NULL)",
    "ALTER TABLE accounts ADD COLUMN operator TEXT REFERENCES operators (id)",
    "CREATE INDEX accounts_of_operator ON accounts (operator)",
    "CREATE TABLE users (account TEXT NOT NULL REFERENCES accounts (id), id TEXT NOT NULL, name TEXT, \
     added BIGINT NOT NULL, removed BIGINT, PRIMARY KEY (account, id))",
    "ALTER TABLE api_keys ADD COLUMN name TEXT",
    "ALTER TABLE api_keys ADD COLUMN user_id TEXT",
    "ALTER TABLE api_keys ADD COLUMN scopes TEXT",
    // The first key of a row of rotations: what one of them spends counts for all.
    "ALTER TABLE api_keys ADD COLUMN root TEXT",
    "CREATE INDEX keys_of_account ON api_keys (account)",
    // `unit` is `money` or `tokens`, `holder` is `key:`, `account:` or `operator:` and a name.
    "CREATE TABLE budgets (holder TEXT NOT NULL, unit TEXT NOT NULL, period TEXT NOT NULL, ceiling BIGINT NOT NULL, \
     PRIMARY KEY (holder, unit, period))",
    "CREATE TABLE budget_windows (holder TEXT NOT NULL, unit TEXT NOT NULL, period TEXT NOT NULL, \
     began BIGINT NOT NULL, ends BIGINT, spent BIGINT NOT NULL, reserved BIGINT NOT NULL, \
     PRIMARY KEY (holder, unit, period, began))",
    "CREATE TABLE holds (id TEXT PRIMARY KEY, account TEXT NOT NULL, money BIGINT NOT NULL, grant_id TEXT, \
     granted BIGINT NOT NULL, windows TEXT, expires BIGINT NOT NULL)",
    // Holds that expired. What was served after all is charged for a day.
    "CREATE TABLE lapsed (id TEXT PRIMARY KEY, account TEXT NOT NULL, grant_id TEXT, windows TEXT, \
     expires BIGINT NOT NULL)",
    "INSERT INTO holds (id, account, money, grant_id, granted, expires) \
     SELECT id, account, amount, grant_id, tokens, expires FROM reservations WHERE state = 'held'",
    "INSERT INTO lapsed (id, account, grant_id, expires) \
     SELECT id, account, grant_id, expires FROM reservations WHERE state = 'expired'",
    "DROP TABLE reservations",
];

/// What is held goes by the id of the exchange, and is remembered until its charge is certain: after a crash the journal says
/// what is missing. `state` is `open`, `lapsed` (it expired; what was served after all is charged for a day) or `charged`.
const CHARGES: [&str; 5] = [
    "ALTER TABLE holds ADD COLUMN state TEXT NOT NULL DEFAULT 'open'",
    "ALTER TABLE holds ADD COLUMN journal TEXT",
    "ALTER TABLE holds ADD COLUMN entry BIGINT",
    // Nobody can name those that expired earlier any more.
    "DROP TABLE lapsed",
    "CREATE TABLE charged (journal TEXT PRIMARY KEY, entries BIGINT NOT NULL)",
];

/// Makes the tables where there are none, and refuses those of another version.
///
/// Programs that open a new ledger at the same time take turns.
pub(crate) async fn migrate(pool: &AnyPool, backend: Backend) -> Result<(), LedgerError> {
    bring_to(pool, backend, VERSION).await
}

/// Takes the steps that lead to `version`, no higher than [`VERSION`].
pub(crate) async fn bring_to(pool: &AnyPool, backend: Backend, version: i64) -> Result<(), LedgerError> {
    let mut change = backend.begin_alone(pool).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)")
        .execute(&mut *change)
        .await?;
    sqlx::query("INSERT INTO schema_version (id, version) VALUES (1, 0) ON CONFLICT (id) DO NOTHING")
        .execute(&mut *change)
        .await?;
    let (found,): (i64,) =
        sqlx::query_as("SELECT version FROM schema_version WHERE id = 1").fetch_one(&mut *change).await?;
    let index = |version: i64| usize::try_from(version).ok();
    let steps = index(found).zip(index(version)).and_then(|(found, version)| STEPS.get(found..version));
    let steps = steps.ok_or(LedgerError::Version { found, known: version })?;
    for step in steps {
        for statement in *step {
            sqlx::query(*statement).execute(&mut *change).await?;
        }
    }
    sqlx::query("UPDATE schema_version SET version = $1 WHERE id = 1 AND version <> $1")
        .bind(version)
        .execute(&mut *change)
        .await?;
    Ok(change.commit().await?)
}
