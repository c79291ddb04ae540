//! History in PostgreSQL: tables in partitions of one day (UTC), so that what is too old goes by dropping a partition.

use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use super::sqlite::migrator;
use super::{CONNECT_LIMIT, Error, queries};
use crate::history::instant::{DAY_MS, date};
use crate::history::record::Record;
use crate::secret::Secret;

/// Connections at most: one writes, the others read.
const CONNECTIONS: u32 = 4;
/// An idle connection is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// Tables that have partitions; each name begins with `saccade_`.
const TABLES: [&str; 2] = ["events", "minutes"];
/// Several servers may share a database; one at a time makes and drops partitions.
const LOCK: i64 = 0x5acc_ade0;

/// The steps from an empty database to today's tables.
const MIGRATIONS: [(i64, &str, &str); 1] = [(
    1,
    "events and minutes",
    r#"CREATE TABLE saccade_events (
        id TEXT COLLATE "C" NOT NULL, time_ms BIGINT NOT NULL, session TEXT NOT NULL, camera TEXT, kind TEXT NOT NULL,
        zone TEXT, line TEXT, rule TEXT, class TEXT, object_id BIGINT, json TEXT NOT NULL, PRIMARY KEY (time_ms, id)
    ) PARTITION BY RANGE (time_ms);
    CREATE INDEX saccade_events_session ON saccade_events (session, time_ms, id);
    CREATE INDEX saccade_events_kind ON saccade_events (kind, time_ms, id);
    CREATE INDEX saccade_events_zone ON saccade_events (zone, time_ms, id) WHERE zone IS NOT NULL;
    CREATE TABLE saccade_minutes (
        id TEXT COLLATE "C" NOT NULL, time_ms BIGINT NOT NULL, session TEXT NOT NULL, camera TEXT,
        model TEXT COLLATE "C" NOT NULL, frames BIGINT NOT NULL, results BIGINT NOT NULL, met BIGINT NOT NULL,
        objects BIGINT NOT NULL, counts TEXT NOT NULL, PRIMARY KEY (time_ms, id)
    ) PARTITION BY RANGE (time_ms);
    CREATE INDEX saccade_minutes_session ON saccade_minutes (session, time_ms);"#,
)];

/// An open database.
#[derive(Debug, Clone)]
pub(in crate::history) struct Store {
    pool: PgPool,
    /// Days that have partitions.
    days: Arc<Mutex<BTreeSet<i64>>>,
}

/// What a URL says, with the password that it leaves out.
pub(super) fn options(url: &str, password: Option<&Secret>) -> Result<PgConnectOptions, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?;
    let options = match password {
        Some(password) => options.password(password.expose()),
        None => options,
    };
    let limits =
        [("statement_timeout", "14000"), ("lock_timeout", "3000"), ("idle_in_transaction_session_timeout", "30000")];
    Ok(options.application_name("saccade").options(limits).disable_statement_logging())
}

impl Store {
    pub(super) async fn open(url: &Secret, password: Option<&Secret>) -> Result<Self, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT_LIMIT)
            .idle_timeout(IDLE_LIMIT)
            .connect_with(options(url.expose(), password)?)
            .await?;
        migrator(&MIGRATIONS).run(&pool).await?;
        Ok(Self { pool, days: Arc::default() })
    }

    pub(super) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) async fn insert(&self, records: &[Record]) -> Result<(), Error> {
        let days: BTreeSet<i64> = records.iter().map(|record| record.time_ms().div_euclid(DAY_MS)).collect();
        let missing: Vec<i64> = days.difference(&self.days()).copied().collect();
        if !missing.is_empty() {
            self.make_partitions(&missing).await?;
            self.days().extend(missing);
        }
        let inserted = self.insert_into_partitions(records).await;
        if inserted.is_err() {
            // Somebody may have dropped one.
            self.days().clear();
        }
        inserted
    }

    async fn insert_into_partitions(&self, records: &[Record]) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        queries::postgres::insert(&mut transaction, records).await?;
        Ok(transaction.commit().await?)
    }

    async fn make_partitions(&self, days: &[i64]) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
        for day in days {
            for table in TABLES {
                let (from, to) = (day * DAY_MS, (day + 1) * DAY_MS);
                let make = format!(
                    "CREATE TABLE IF NOT EXISTS {} PARTITION OF saccade_{table} FOR VALUES FROM ({from}) TO ({to})",
                    partition(table, *day)
                );
                sqlx::query(AssertSqlSafe(make)).execute(&mut *transaction).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    /// Drops the partitions of whole days that are too old, one at a time.
    pub(super) async fn clean(&self, before_ms: i64) -> Result<bool, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
        for table in TABLES {
            let oldest = partition(table, before_ms.div_euclid(DAY_MS));
            let old = sqlx::query(
                "SELECT child.relname::text FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid \
                 WHERE inhparent = to_regclass($1) AND child.relname::text COLLATE \"C\" < $2 ORDER BY 1 LIMIT 1",
            );
            let parent = format!("saccade_{table}");
            let Some(row) = old.bind(parent.clone()).bind(oldest).fetch_optional(&mut *transaction).await? else {
                continue;
            };
            let name: String = row.try_get(0)?;
            let is_ours = name.strip_prefix(&*parent).and_then(|rest| rest.strip_prefix('_'));
            if is_ours.is_none_or(|day| day.len() != 8 || !day.bytes().all(|byte| byte.is_ascii_digit())) {
                continue;
            }
            sqlx::query(AssertSqlSafe(format!("DROP TABLE {name}"))).execute(&mut *transaction).await?;
            transaction.commit().await?;
            self.days().clear();
            return Ok(true);
        }
        Ok(false)
    }

    fn days(&self) -> std::sync::MutexGuard<'_, BTreeSet<i64>> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of the partition of a day, counted from 1970: names are in the order of their days.
fn partition(table: &str, day: i64) -> String {
    let (year, month, day) = date(day);
    format!("saccade_{table}_{year:04}{month:02}{day:02}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_by_their_day() {
        assert_eq!(partition("events", 0), "saccade_events_19700101");
        assert_eq!(partition("events", 20_779), "saccade_events_20261122");
    }
}
