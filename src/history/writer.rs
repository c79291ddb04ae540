//! The one task that writes: to the store in batches, or else to the spool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::instant;
use super::record::Record;
use super::spool::{Oldest, Spool};
use super::store::{Error, Store};
use super::{Queue, Reader, Settings, dropped, failed, is_up, spooled, took, written};
use crate::clock;

/// Records that are written together at most.
pub(super) const BATCH: usize = 500;
/// Longest that a record waits for others.
const FLUSH: Duration = Duration::from_millis(500);
/// First and longest wait before a store that failed is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Longest that catching up goes on while others wait.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Longest that a batch may take once the server stops; then it goes to the spool.
const LAST_INSERT: Duration = Duration::from_millis(1500);
/// How often old records are looked for.
const CLEAN_PERIOD: Duration = Duration::from_secs(3600);
/// Between two steps of cleaning.
const CLEAN_PAUSE: Duration = Duration::from_secs(1);

/// Writes until it is told to stop; then it writes what waits, and ends.
pub(super) async fn run(settings: Settings, queue: Arc<Queue>, reader: Reader, mut stopped: watch::Receiver<bool>) {
    let mut writer = Writer::new(settings, reader, stopped.clone()).await;
    loop {
        writer.catch_up().await;
        let stopping = tokio::select! {
            () = queue.is_batch.notified() => false,
            () = tokio::time::sleep(FLUSH) => false,
            _ = stopped.wait_for(|stop| *stop) => true,
        };
        loop {
            let batch: Vec<Record> = std::iter::from_fn(|| queue.records.pop()).take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            writer.deliver(batch).await;
        }
        if stopping {
            break;
        }
        writer.clean().await;
    }
    if let Some(store) = writer.store {
        store.close().await;
    }
}

struct Writer {
    settings: Settings,
    reader: Reader,
    stopped: watch::Receiver<bool>,
    /// `None` while it has to be opened.
    store: Option<Store>,
    /// Not before then is a store that failed tried again.
    retry_at: Instant,
    backoff: Duration,
    spool: Option<Spool>,
    clean_at: Instant,
}

impl Writer {
    async fn new(settings: Settings, reader: Reader, stopped: watch::Receiver<bool>) -> Self {
        let (folder, max_bytes) = (settings.spool.clone(), settings.spool_bytes);
        let opening = tokio::task::spawn_blocking(move || folder.map(|folder| Spool::open(&folder, max_bytes)));
        let spool = match opening.await.ok().flatten() {
            Some(Ok(spool)) => Some(spool),
            Some(Err(error)) => {
                tracing::warn!(%error, "history has no spool: what the store does not take will be lost");
                None
            }
            None => None,
        };
        let now = clock::now();
        is_up(false);
        spooled(spool.as_ref().map_or(0, Spool::bytes));
        Self { settings, reader, stopped, store: None, retry_at: now, backoff: BACKOFF.0, spool, clean_at: now }
    }

    /// Keeps a batch, in the store where that answers and nothing waits before it.
    async fn deliver(&mut self, batch: Vec<Record>) {
        if self.spool.as_ref().is_none_or(Spool::is_empty) && self.insert(&batch).await.is_ok() {
            written("store", batch.len());
        } else {
            self.put_aside(batch).await;
        }
    }

    async fn put_aside(&mut self, batch: Vec<Record>) {
        let records = batch.len();
        match self.with_spool(move |spool| spool.append(&batch)).await {
            Some(Ok(lost)) => {
                written("spool", records);
                dropped("spool_full", lost);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the history's spool cannot be written");
                dropped("spool_failed", records as u64);
            }
            None => dropped("no_spool", records as u64),
        }
    }

    /// Opens the store where that is due, and gives it what was put aside.
    async fn catch_up(&mut self) {
        let limit = clock::now() + CATCH_UP;
        while self.is_open().await && self.spool.as_ref().is_some_and(|spool| !spool.is_empty()) && clock::now() < limit
        {
            let oldest = match self.with_spool(Spool::oldest).await {
                Some(Ok(Some(oldest))) => oldest,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the history's spool cannot be read");
                    self.set_down();
                    return;
                }
                _ => return,
            };
            for batch in oldest.records.chunks(BATCH) {
                if self.insert(batch).await.is_err() {
                    return;
                }
            }
            self.forget(oldest).await;
        }
    }

    async fn forget(&mut self, oldest: Oldest) {
        let (records, damaged) = (oldest.records.len(), oldest.damaged);
        match self.with_spool(move |spool| spool.remove(&oldest)).await {
            Some(Ok(())) => {
                written("store", records);
                dropped("damaged", damaged);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a file of the history's spool cannot be removed");
                self.set_down();
            }
            None => {}
        }
    }

    /// Keeps records in the store. Those that it refuses for what is in them are dropped, so that they hold up no others.
    async fn insert(&mut self, records: &[Record]) -> Result<(), ()> {
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            if !self.is_open().await {
                return Err(());
            }
            let Some(store) = self.store.clone() else { return Err(()) };
            let begin = clock::now();
            let inserted = self.unless_stopped(LAST_INSERT, store.insert(part)).await;
            took("insert", begin);
            let inserted = inserted.unwrap_or_else(|| Err(Error::Unavailable("the server stops".to_owned())));
            match inserted {
                Ok(()) => {}
                Err(Error::Refused(reason)) if part.len() == 1 => {
                    tracing::warn!(%reason, "a record of history was dropped");
                    dropped("refused", 1);
                }
                Err(Error::Refused(_)) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) => {
                    failed("insert");
                    tracing::warn!(%error, "history is put aside until its store answers");
                    self.set_down();
                    return Err(());
                }
            }
        }
        Ok(())
    }

    /// Whether the store is open; opens it where that is due.
    async fn is_open(&mut self) -> bool {
        if self.store.is_some() {
            return true;
        }
        if clock::now() < self.retry_at || *self.stopped.borrow() {
            return false;
        }
        let begin = clock::now();
        let opened = self.unless_stopped(Duration::ZERO, Store::open(&self.settings.target)).await;
        took("open", begin);
        match opened {
            None => false,
            Some(Ok(store)) => {
                tracing::info!(store = ?self.settings.target, "history is kept");
                if let Some(before) = self.reader.set(store.clone()) {
                    before.close().await;
                }
                self.store = Some(store);
                self.backoff = BACKOFF.0;
                is_up(true);
                true
            }
            Some(Err(error)) => {
                failed("open");
                tracing::warn!(store = ?self.settings.target, %error, "the store of history does not open");
                self.set_down();
                false
            }
        }
    }

    /// The store is opened anew after a while. Readers keep the one that they have until then.
    fn set_down(&mut self) {
        self.store = None;
        self.retry_at = clock::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
        is_up(false);
    }

    /// Forgets a part of what is too old, where that is due.
    async fn clean(&mut self) {
        let now = clock::now();
        let Some(store) = self.store.clone().filter(|_| now >= self.clean_at) else { return };
        let retention = i64::try_from(self.settings.retention.as_millis()).unwrap_or(i64::MAX);
        let before = instant::millis(clock::wall()).saturating_sub(retention);
        let Some(cleaned) = self.unless_stopped(Duration::ZERO, store.clean(before)).await else { return };
        took("clean", now);
        let pause = match cleaned {
            Ok(true) => CLEAN_PAUSE,
            Ok(false) => CLEAN_PERIOD,
            Err(error) => {
                failed("clean");
                tracing::warn!(%error, "old history could not be removed");
                CLEAN_PERIOD / 60
            }
        };
        self.clean_at = clock::now() + pause;
    }

    /// Waits for something to be done, but not for longer than `limit` once the server stops.
    async fn unless_stopped<T>(&self, limit: Duration, doing: impl Future<Output = T>) -> Option<T> {
        let mut stopped = self.stopped.clone();
        let late = async {
            let _ = stopped.wait_for(|stop| *stop).await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            biased;
            done = doing => Some(done),
            () = late => None,
        }
    }

    /// Does something with the spool that may block.
    async fn with_spool<T: Send + 'static>(
        &mut self,
        doing: impl FnOnce(&mut Spool) -> T + Send + 'static,
    ) -> Option<T> {
        let mut spool = self.spool.take()?;
        let done = tokio::task::spawn_blocking(move || {
            let done = doing(&mut spool);
            (spool, done)
        });
        let (spool, done) = done.await.inspect_err(|error| tracing::error!(%error, "the history's spool")).ok()?;
        spooled(spool.bytes());
        self.spool = Some(spool);
        Some(done)
    }
}
