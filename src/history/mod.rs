//! History: events, and what each session did minute by minute, kept in SQLite or PostgreSQL.
//!
//! What enters: the messages of sessions' `events` channels and the facts of their results, through [`Recorder`], which
//! never waits: its queue has [`QUEUE_CAPACITY`] places, and what does not fit is dropped and counted. What leaves:
//! lists of events and sums of minutes, through [`Reader`]. One task writes, in batches; while the store does not answer
//! it writes to a bounded spool on disk, and catches up in order when the store is back, after a restart, too. Nothing
//! here touches live media, and no failure leaves this module but as an answer to whoever reads.
//!
//! A leaf: it knows nothing of sessions and of HTTP.

pub mod export;
pub mod instant;
mod latency;
mod minutes;
pub mod query;
mod record;
mod spool;
mod store;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use metrics::{counter, gauge, histogram};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use crate::clock;
use crate::queue::Fifo;

pub use latency::Latencies;
pub use minutes::{Facts, MINUTE_MS, Minutes};
pub use query::{Cursor, Events, Group, Order, Point, Stats};
pub use record::{Counts, Event, LineCounts, Minute, Record, Source, ZoneCounts};
use store::Store;
pub use store::{Error, Target};

/// Records that wait for the writer; at 30 sessions with an event a second each, that is minutes.
pub const QUEUE_CAPACITY: usize = 8192;
/// What ending may take: writing what waits, to the store or to the spool.
const END_LIMIT: Duration = Duration::from_secs(4);

/// What is kept, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The store.
    pub target: Target,
    /// How long records are kept.
    pub retention: Duration,
    /// Folder of the spool; without one, what the store does not take is lost.
    pub spool: Option<PathBuf>,
    /// Bytes that the spool may have.
    pub spool_bytes: u64,
}

/// A running history.
#[derive(Debug)]
pub struct History {
    recorder: Recorder,
    reader: Reader,
    stop: watch::Sender<bool>,
    writer: JoinHandle<()>,
}

impl History {
    /// Starts the writer, which connects to the store by itself. It needs Tokio.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let queue = Arc::new(Queue { records: Fifo::new("history", QUEUE_CAPACITY), is_batch: Notify::new() });
        let reader = Reader::default();
        let (stop, stopped) = watch::channel(false);
        let writer = tokio::spawn(writer::run(settings, Arc::clone(&queue), reader.clone(), stopped));
        Self { recorder: Recorder { queue }, reader, stop, writer }
    }

    /// Where records go.
    #[must_use]
    pub const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Where they come from.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Writes what waits, and ends. What neither store nor spool take in time is lost.
    pub async fn end(mut self) {
        self.stop.send_replace(true);
        if timeout_at((clock::now() + END_LIMIT).into(), &mut self.writer).await.is_err() {
            tracing::warn!("history was not written to its end in time");
            self.writer.abort();
        }
    }
}

/// Records on their way to the writer.
#[derive(Debug)]
struct Queue {
    records: Fifo<Record>,
    /// There are enough for a batch.
    is_batch: Notify,
}

/// Takes records, and never waits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: Arc<Queue>,
}

impl Recorder {
    /// Records what a session does from now on.
    #[must_use]
    pub fn session(&self, source: Source) -> Session {
        Session { minutes: Minutes::new(source.clone()), source, recorder: self.clone() }
    }

    /// Hands a record to the writer. Where there is no room, it is dropped and counted.
    pub fn record(&self, record: Record) {
        if self.queue.records.push(record).is_err() {
            dropped("queue_full", 1);
        } else if self.queue.records.len() >= writer::BATCH {
            self.queue.is_batch.notify_one();
        }
    }
}

/// Records of one session. What is left of its last minute is recorded when it is dropped.
#[derive(Debug)]
pub struct Session {
    source: Source,
    minutes: Minutes,
    recorder: Recorder,
}

impl Session {
    /// Takes a message of the `events` channel.
    pub fn event(&mut self, now: SystemTime, json: &str) {
        let now_ms = instant::millis(now);
        match Event::new(&self.source, now_ms, json) {
            Some(event) => self.recorder.record(Record::Event(event)),
            None => dropped("no_event", 1),
        }
        let over = self.minutes.event(now_ms, json);
        self.keep(over);
    }

    /// Takes what a result says.
    pub fn result(&mut self, now: SystemTime, facts: &Facts) {
        let over = self.minutes.result(instant::millis(now), facts);
        self.keep(over);
    }

    /// Looks at the time: a minute ends also where nothing comes.
    pub fn tick(&mut self, now: SystemTime) {
        let over = self.minutes.tick(instant::millis(now));
        self.keep(over);
    }

    fn keep(&self, minutes: Vec<Minute>) {
        for minute in minutes {
            self.recorder.record(Record::Minute(minute));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let rest = self.minutes.end();
        self.keep(rest);
    }
}

/// Answers what is asked of the history. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    /// The store, once it was there.
    store: Arc<RwLock<Option<Store>>>,
}

impl Reader {
    /// The first `limit` events that were asked for.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the store does not answer.
    pub async fn events(&self, query: &Events, limit: u32) -> Result<Vec<Event>, Error> {
        let begin = clock::now();
        let found = self.store()?.events(query, limit).await;
        Self::measured("events", begin, found)
    }

    /// The points that were asked for.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the store does not answer, [`Error::TooMany`].
    pub async fn stats(&self, query: &Stats) -> Result<Vec<Point>, Error> {
        let begin = clock::now();
        let found = self.store()?.stats(query).await;
        Self::measured("stats", begin, found)
    }

    /// Whether the store was reached since the server started.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.store().is_ok()
    }

    fn measured<T>(operation: &'static str, begin: std::time::Instant, found: Result<T, Error>) -> Result<T, Error> {
        took(operation, begin);
        if let Err(Error::Unavailable(reason)) = &found {
            failed(operation);
            tracing::debug!(operation, %reason, "the history could not be read");
        }
        found
    }

    fn store(&self) -> Result<Store, Error> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner).clone();
        store.ok_or_else(|| Error::Unavailable("it was not reached yet".to_owned()))
    }

    fn set(&self, store: Store) -> Option<Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner).replace(store)
    }
}

fn dropped(reason: &'static str, records: u64) {
    counter!("saccade_history_dropped_total", "reason" => reason).increment(records);
}

fn written(to: &'static str, records: usize) {
    counter!("saccade_history_records_total", "to" => to).increment(records as u64);
}

fn failed(operation: &'static str) {
    counter!("saccade_history_failures_total", "operation" => operation).increment(1);
}

fn took(operation: &'static str, begin: std::time::Instant) {
    histogram!("saccade_history_store_seconds", "operation" => operation)
        .record(clock::now().saturating_duration_since(begin));
}

fn is_up(up: bool) {
    gauge!("saccade_history_up").set(if up { 1.0 } else { 0.0 });
}

#[expect(clippy::cast_precision_loss, reason = "bytes on a disk")]
fn spooled(bytes: u64) {
    gauge!("saccade_history_spool_bytes").set(bytes as f64);
}
