//! What differs between the databases: how one is reached, set up and locked. Everything else is one SQL text.

use sqlx::{Any, AnyPool, Transaction};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// The database that `url` names, if it is a known one.
    pub(crate) fn of(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// `url` as it is connected to: a SQLite file is made where there is none.
    pub(crate) fn address(self, url: &str) -> String {
        if self == Self::Postgres || url.contains("mode=") {
            return url.to_owned();
        }
        let separator = if url.contains('?') { "&" } else { "?" };
        [url, separator, "mode=rwc"].concat()
    }

    /// Connections that write. SQLite has one writer at a time: a pool of one connection is a fair queue of bounded
    /// wait in front of it, where several connections would poll for the lock.
    pub(crate) const fn writers(self) -> u32 {
        match self {
            Self::Sqlite => 1,
            Self::Postgres => 4,
        }
    }

    /// Set on every connection: what is committed must be on disk, and no wait is without end.
    pub(crate) const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 10000",
                // Of a new file. What a request changes are a few rows, and whole pages of them are written.
                "PRAGMA page_size = 1024",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ],
            Self::Postgres => &[
                // A server that waits for a standby as well goes on doing so.
                "SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') = 'off'",
                // A statement that waited for a row must look at it again, not fail.
                "SET default_transaction_isolation = 'read committed'",
                "SET lock_timeout = '10s'",
                "SET statement_timeout = '30s'",
                // The locks of a program that vanished in the middle of a change come free.
                "SET idle_in_transaction_session_timeout = '30s'",
            ],
        }
    }

    /// Begins a transaction that has the ledger to itself among all that begin in this way, in every program.
    pub(crate) async fn begin_alone(self, pool: &AnyPool) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match self {
            // The write lock is taken before anything is read.
            Self::Sqlite => pool.begin_with("BEGIN IMMEDIATE").await,
            Self::Postgres => {
                let mut change = pool.begin().await?;
                // One lock for each schema; it comes free with the end of the transaction.
                sqlx::query("SELECT pg_advisory_xact_lock(hashtext('anbiq-ledger'), hashtext(current_schema()))")
                    .execute(&mut *change)
                    .await?;
                Ok(change)
            }
        }
    }
}

/// `url` as an error may show it: without user, password and parameters.
pub(crate) fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return anbiq_secret::redact_url(url) };
    // A password with one of these in it that is not escaped would be taken for the end of the address.
    let ambiguous = rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@'));
    if ambiguous { [scheme, "://..."].concat() } else { anbiq_secret::redact_url(url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, says) in [
            ("postgres://anbiq:hunter2@db/ledger", "postgres://db/ledger"),
            ("postgres://db/ledger?user=anbiq&password=hunter2", "postgres://db/ledger"),
            ("postgres://anbiq:hunter2/@db/ledger", "postgres://..."),
            ("postgres://anbiq:#hunter2@db/ledger", "postgres://..."),
            ("postgres://db/ledger?password=hunter2@", "postgres://..."),
            ("ledger.db", "ledger.db"),
        ] {
            assert_eq!(shown(url), says);
        }
    }
}
