//! One way to put a statement to either database: over a pooled connection, or to a SQLite file in this very thread.
//!
//! What every request changes is a few statements of some microseconds each. Handed to a thread of the driver and back, one
//! by one, each of them costs the machine many times that; so the task that changes budgets holds the file itself.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::task::{Context, Poll, Waker};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, OpenFlags, Row, ffi};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Any, AnyConnection, AssertSqlSafe, FromRow};

use crate::PATIENCE;
use crate::backend::Backend;

/// Statements that are kept ready.
const PREPARED: usize = 64;

/// Where statements go.
pub(crate) enum Connection<'c> {
    /// Over the driver of either database.
    Pooled(&'c mut AnyConnection),
    /// To a file, in this thread: no statement waits, but for the lock of the file.
    Here(&'c mut rusqlite::Connection),
}

/// What stands for `$1`, `$2` and so on in a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'v> {
    Number(i64),
    Text(&'v str),
    NoNumber,
    NoText,
}

/// A row as a tuple of numbers and texts.
pub(crate) trait Columns:
    for<'r> FromRow<'r, AnyRow> + for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error> + Send + Unpin
{
}

impl<T> Columns for T where
    T: for<'r> FromRow<'r, AnyRow> + for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error> + Send + Unpin
{
}

impl Connection<'_> {
    /// Makes a change; says how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        match self {
            Self::Pooled(connection) => Ok(query(sql, values).execute(&mut **connection).await?.rows_affected()),
            Self::Here(file) => Ok(ready(file, sql, values)?.raw_execute().map_err(failed)? as u64),
        }
    }

    /// The row that a statement gives, where it gives one.
    pub(crate) async fn row<T: Columns>(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<T>, sqlx::Error> {
        match self {
            Self::Pooled(connection) => {
                let row = query(sql, values).fetch_optional(&mut **connection).await?;
                row.as_ref().map(T::from_row).transpose()
            }
            Self::Here(file) => {
                let mut statement = ready(file, sql, values)?;
                let mut rows = statement.raw_query();
                let row = rows.next().map_err(failed)?.map(T::try_from).transpose().map_err(failed)?;
                // A change that gives back what it changed is done when it has given all.
                while rows.next().map_err(failed)?.is_some() {}
                Ok(row)
            }
        }
    }

    /// All rows that a statement gives.
    pub(crate) async fn rows<T: Columns>(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<T>, sqlx::Error> {
        match self {
            Self::Pooled(connection) => {
                let rows = query(sql, values).fetch_all(&mut **connection).await?;
                rows.iter().map(T::from_row).collect()
            }
            Self::Here(file) => {
                let mut statement = ready(file, sql, values)?;
                let mut rows = statement.raw_query();
                let mut all = Vec::new();
                while let Some(row) = rows.next().map_err(failed)? {
                    all.push(T::try_from(row).map_err(failed)?);
                }
                Ok(all)
            }
        }
    }
}

/// The SQLite file that `url` names, opened for use in one thread; nothing where it names no file.
pub(crate) fn open(url: &str, backend: Backend) -> Result<Option<rusqlite::Connection>, sqlx::Error> {
    if backend != Backend::Sqlite || url.contains(":memory:") {
        return Ok(None);
    }
    let options = SqliteConnectOptions::from_str(url)?;
    let path: &Path = options.get_filename();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
    file.busy_timeout(PATIENCE).map_err(failed)?;
    file.set_prepared_statement_cache_capacity(PREPARED);
    for setting in backend.settings() {
        file.execute_batch(setting).map_err(failed)?;
    }
    Ok(Some(file))
}

/// What comes of `future`, if it never waits: statements to a file do not.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// An error of the file as the driver would say it.
pub(crate) fn failed(error: rusqlite::Error) -> sqlx::Error {
    match error {
        rusqlite::Error::SqliteFailure(..) => sqlx::Error::Database(Box::new(Failure(error))),
        other => sqlx::Error::Decode(Box::new(other)),
    }
}

type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

fn query<'q>(sql: &'static str, values: &[Value<'_>]) -> Query<'q> {
    values.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, value| match *value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text.to_owned()),
        Value::NoNumber => query.bind(None::<i64>),
        Value::NoText => query.bind(None::<String>),
    })
}

/// A statement with its values. SQLite numbers `$1` and its like by where they first stand, not by their name.
fn ready<'f>(
    file: &'f rusqlite::Connection,
    sql: &str,
    values: &[Value<'_>],
) -> Result<CachedStatement<'f>, sqlx::Error> {
    let mut statement = file.prepare_cached(sql).map_err(failed)?;
    for place in 1..=statement.parameter_count() {
        let name = statement.parameter_name(place).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
        let value = name.and_then(|number| values.get(number.checked_sub(1)?)).copied();
        let value = value.ok_or_else(|| failed(rusqlite::Error::InvalidParameterCount(place, values.len())))?;
        statement.raw_bind_parameter(place, value).map_err(failed)?;
    }
    Ok(statement)
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::NoNumber | Self::NoText => ValueRef::Null,
        }))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text)
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::NoNumber, Self::Number)
    }
}

impl<'v> From<Option<&'v str>> for Value<'v> {
    fn from(text: Option<&'v str>) -> Self {
        text.map_or(Self::NoText, Self::Text)
    }
}

/// What SQLite refuses, in the form in which the driver gives it.
#[derive(Debug)]
struct Failure(rusqlite::Error);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl DatabaseError for Failure {
    fn message(&self) -> &str {
        match &self.0 {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message,
            _ => "SQLite failed",
        }
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        let error = self.0.sqlite_error()?;
        Some(error.extended_code.to_string().into())
    }

    fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        match self.0.sqlite_error().map(|error| error.extended_code) {
            Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => ErrorKind::UniqueViolation,
            _ => ErrorKind::Other,
        }
    }
}
