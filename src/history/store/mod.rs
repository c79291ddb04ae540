//! Where history is kept: one SQLite file, or a PostgreSQL database.
//!
//! Every call has a time limit. Inserting what is there already changes nothing, so that a batch of which nobody knows
//! whether it was kept may be inserted again.

mod postgres;
mod queries;
mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::query::{Events, Point, Points, Stats, TooMany};
use super::record::{Event, Record};
use crate::secret::Secret;

/// How long a connection may take, and one is waited for.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// How long opening may take, migrations included.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long a batch may take.
const INSERT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const READ_LIMIT: Duration = Duration::from_secs(15);
/// How long a step of cleaning may take.
const CLEAN_LIMIT: Duration = Duration::from_secs(30);

/// Which store.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A file of SQLite, which is made where it is missing.
    Sqlite(PathBuf),
    /// A database of PostgreSQL.
    Postgres {
        /// `postgres://USER@HOST:PORT/DATABASE?…`, which may have a password in it.
        url: Secret,
        /// The password, where it is not in the URL.
        password: Option<Secret>,
    },
}

impl Target {
    /// What a URL names: `sqlite:` with a path, `postgres:` or `postgresql:`.
    ///
    /// # Errors
    /// A sentence that says what is wrong, and shows nothing of the URL.
    pub fn parse(url: &str, password: Option<Secret>) -> Result<Self, &'static str> {
        if let Some(rest) = url.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() || path.ends_with('/') || path.starts_with(':') || path.contains(['?', '\0']) {
                return Err("after sqlite: there is to be a file's name, as in sqlite:///var/lib/saccade/history.db");
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            postgres::options(url, None)
                .map_err(|_| "it is no URL of PostgreSQL: postgres://USER@HOST:PORT/DATABASE")?;
            return Ok(Self::Postgres { url: Secret::new(url.to_owned()), password });
        }
        Err("it has to begin with sqlite: or postgres://")
    }
}

/// Nothing that is secret.
impl fmt::Debug for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres { .. } => "PostgreSQL",
        })
    }
}

/// Why a store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or has no time: trying again may help.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// It does not take this record, and never will.
    #[error("the store does not take it: {0}")]
    Refused(String),
    /// What was asked has too long an answer.
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        // Class 22 of SQLSTATE is about data, 23 about constraints; SQLite's own codes are 18 to 20.
        let of_data = error.as_database_error().and_then(|error| error.code()).is_some_and(|code| {
            (code.len() == 5 && (code.starts_with("22") || code.starts_with("23")))
                || code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18..=20) && code < 5000)
        });
        match error {
            sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } => Self::Refused(error.to_string()),
            _ if of_data => Self::Refused(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// An open store. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Store {
    /// A file.
    Sqlite(sqlite::Store),
    /// A database.
    Postgres(postgres::Store),
}

impl Store {
    /// Connects, and brings the tables up to date.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn open(target: &Target) -> Result<Self, Error> {
        let opening = async {
            match target {
                Target::Sqlite(path) => sqlite::Store::open(path).await.map(Self::Sqlite),
                Target::Postgres { url, password } => {
                    postgres::Store::open(url, password.as_ref()).await.map(Self::Postgres)
                }
            }
        };
        within(OPEN_LIMIT, opening).await
    }

    /// Keeps records, all of them or none. Those that are there already stay as they are.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Refused`].
    pub(super) async fn insert(&self, records: &[Record]) -> Result<(), Error> {
        let inserting = async {
            match self {
                Self::Sqlite(store) => store.insert(records).await,
                Self::Postgres(store) => store.insert(records).await,
            }
        };
        within(INSERT_LIMIT, inserting).await
    }

    /// Forgets what is older than this moment, a part of it. Says whether there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn clean(&self, before_ms: i64) -> Result<bool, Error> {
        let cleaning = async {
            match self {
                Self::Sqlite(store) => store.clean(before_ms).await,
                Self::Postgres(store) => store.clean(before_ms).await,
            }
        };
        within(CLEAN_LIMIT, cleaning).await
    }

    /// The first `limit` events that were asked for.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn events(&self, query: &Events, limit: u32) -> Result<Vec<Event>, Error> {
        let reading = async {
            match self {
                Self::Sqlite(store) => queries::sqlite::events(store.readers(), query, limit).await,
                Self::Postgres(store) => queries::postgres::events(store.pool(), query, limit).await,
            }
        };
        within(READ_LIMIT, async { Ok(reading.await?) }).await
    }

    /// The points that were asked for.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::TooMany`].
    pub(super) async fn stats(&self, query: &Stats) -> Result<Vec<Point>, Error> {
        let mut points = Points::new(query);
        let reading = async {
            match self {
                Self::Sqlite(store) => queries::sqlite::minutes(store.readers(), query, &mut points).await,
                Self::Postgres(store) => queries::postgres::minutes(store.pool(), query, &mut points).await,
            }
        };
        within(READ_LIMIT, reading).await?;
        Ok(points.finish())
    }

    /// Closes its connections, as far as they close in time.
    pub(super) async fn close(&self) {
        let closing = async {
            match self {
                Self::Sqlite(store) => store.close().await,
                Self::Postgres(store) => store.pool().close().await,
            }
        };
        let _ = timeout(CONNECT_LIMIT, closing).await;
    }
}

/// The future is on the heap, which keeps those of its callers small.
async fn within<'a, T>(limit: Duration, doing: impl Future<Output = Result<T, Error>> + Send + 'a) -> Result<T, Error> {
    let doing: BoxFuture<'a, Result<T, Error>> = Box::pin(doing);
    timeout(limit, doing).await.unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer within {limit:?}"))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_store() {
        for (url, path) in [
            ("sqlite:///var/lib/history.db", "/var/lib/history.db"),
            ("sqlite:history.db", "history.db"),
            ("sqlite://folder/history.db", "folder/history.db"),
        ] {
            assert!(Target::parse(url, None).unwrap() == Target::Sqlite(path.into()), "{url}");
        }
        let target = Target::parse("postgres://me:hunter2@db.example:5433/history", None).unwrap();
        assert_eq!(format!("{target:?}"), "PostgreSQL");
        for nonsense in [
            "",
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:///folder/",
            "mysql://db",
            "postgres://me@:x/",
            "history.db",
        ] {
            assert!(Target::parse(nonsense, None).is_err(), "{nonsense}");
        }
    }
}
