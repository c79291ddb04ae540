//! History in one file of SQLite, with a write-ahead log: readers and the writer do not wait for each other.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqlStr};

use super::{CONNECT_LIMIT, Error, queries};
use crate::history::record::Record;

/// How long a lock of another process is waited for.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// Connections that read.
const READERS: u32 = 3;
/// Rows that are deleted in one transaction, so that the writer is let in between.
const CLEAN_ROWS: i64 = 2_000;
/// Pages given back to the file system after that.
const CLEAN_PAGES: u32 = 2_000;

/// The steps from an empty file to today's tables.
const MIGRATIONS: [(i64, &str, &str); 1] = [(
    1,
    "events and minutes",
    "CREATE TABLE saccade_events (
        id TEXT NOT NULL, time_ms INTEGER NOT NULL, session TEXT NOT NULL, camera TEXT, kind TEXT NOT NULL, zone TEXT,
        line TEXT, rule TEXT, class TEXT, object_id INTEGER, json TEXT NOT NULL
    );
    CREATE UNIQUE INDEX saccade_events_time ON saccade_events (time_ms, id);
    CREATE INDEX saccade_events_session ON saccade_events (session, time_ms, id);
    CREATE INDEX saccade_events_kind ON saccade_events (kind, time_ms, id);
    CREATE INDEX saccade_events_zone ON saccade_events (zone, time_ms, id) WHERE zone IS NOT NULL;
    CREATE TABLE saccade_minutes (
        id TEXT NOT NULL, time_ms INTEGER NOT NULL, session TEXT NOT NULL, camera TEXT, model TEXT NOT NULL,
        frames INTEGER NOT NULL, results INTEGER NOT NULL, met INTEGER NOT NULL, objects INTEGER NOT NULL,
        counts TEXT NOT NULL
    );
    CREATE UNIQUE INDEX saccade_minutes_time ON saccade_minutes (time_ms, id);
    CREATE INDEX saccade_minutes_session ON saccade_minutes (session, time_ms);",
)];

/// An open file.
#[derive(Debug, Clone)]
pub(in crate::history) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    pub(super) async fn open(path: &Path) -> Result<Self, Error> {
        let unavailable = |error: std::io::Error| Error::Unavailable(error.to_string());
        // SQLite gives its files beside it the same permissions.
        let file = path.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder)?;
            }
            OpenOptions::new().append(true).create(true).mode(0o600).open(&file).map(drop)
        });
        made.await.map_err(|error| Error::Unavailable(error.to_string()))?.map_err(unavailable)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .busy_timeout(BUSY_LIMIT)
            .pragma("journal_size_limit", "16777216")
            .disable_statement_logging();
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(CONNECT_LIMIT);
        let writer = pool(1).connect_with(options.clone()).await?;
        let store = Self { writer, readers: pool(READERS).connect_lazy_with(options.pragma("query_only", "on")) };
        migrator(&MIGRATIONS).run(&store.writer).await?;
        Ok(store)
    }

    pub(super) const fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(super) async fn insert(&self, records: &[Record]) -> Result<(), Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        queries::sqlite::insert(&mut transaction, records).await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn clean(&self, before_ms: i64) -> Result<bool, Error> {
        let mut more = false;
        for delete in [
            "DELETE FROM saccade_events WHERE rowid IN (SELECT rowid FROM saccade_events WHERE time_ms < ? LIMIT ?)",
            "DELETE FROM saccade_minutes WHERE rowid IN (SELECT rowid FROM saccade_minutes WHERE time_ms < ? LIMIT ?)",
        ] {
            let done = sqlx::query(delete).bind(before_ms).bind(CLEAN_ROWS).execute(&self.writer).await?;
            more |= done.rows_affected() == CLEAN_ROWS.unsigned_abs();
        }
        let vacuum = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({CLEAN_PAGES})"));
        sqlx::query(vacuum).fetch_all(&self.writer).await?;
        Ok(more)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// The steps as the library wants them.
pub(super) fn migrator(steps: &[(i64, &'static str, &'static str)]) -> Migrator {
    let step = |(version, description, sql): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*description).into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    let mut migrator = Migrator::with_migrations(steps.iter().map(step).collect());
    migrator.dangerous_set_table_name("_saccade_migrations");
    migrator
}
