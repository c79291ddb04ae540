use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::breaker::{Breaker, Policy};
use super::{Entry, Key, Tag, Wrong};
use crate::clock;
use crate::offload::{LARGE, offload};
use crate::telemetry::EverySecond;

/// A place that keeps entries. It may forget any of them at any time, and needs to keep no time itself: [`Guarded`] gives
/// every call its limit, and drops the future of one that takes longer.
#[async_trait]
pub trait Tier: Send + Sync + 'static {
    /// What metrics and log lines call it.
    fn name(&self) -> &'static str;

    /// Finds an entry. `now` is for [`Entry::decode`].
    ///
    /// # Errors
    /// [`Error`]; not that there is none.
    async fn get(&self, key: &Key, now: SystemTime) -> Result<Option<Arc<Entry>>, Error>;

    /// Keeps an entry, in place of another one of its key, for `keep` from `now` if it has room, and not much longer.
    ///
    /// # Errors
    /// [`Error`].
    async fn put(&self, key: &Key, entry: &Arc<Entry>, keep: Duration, now: SystemTime) -> Result<(), Error>;

    /// Forgets an entry, if it is there.
    ///
    /// # Errors
    /// [`Error`].
    async fn remove(&self, key: &Key) -> Result<(), Error>;

    /// Forgets all entries with a tag, and says how many there were.
    ///
    /// # Errors
    /// [`Error`], with some of them forgotten.
    async fn remove_tagged(&self, tag: &Tag) -> Result<u64, Error>;

    /// Told when so many calls failed that it is left alone for a while: what they went over may be broken.
    fn give_up(&self) {}

    /// Bytes and entries that it holds, where it knows.
    fn size(&self) -> Option<Size> {
        None
    }
}

/// What a tier holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes, as the tier counts them for its bound.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

/// Why a tier did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, refuses, or broke off.
    #[error("{0}")]
    Unavailable(String),
    /// It gave something that is no entry for the key.
    #[error("what it holds cannot be used: {0}")]
    Wrong(#[from] Wrong),
    /// It is left alone for a while, because it failed before.
    #[error("it failed before and is left alone for a while")]
    Open,
    /// It took longer than its limit.
    #[error("it took too long")]
    TimedOut,
}

impl Error {
    /// What metrics call it.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "error",
            Self::Wrong(_) => "wrong",
            Self::Open => "open",
            Self::TimedOut => "timeout",
        }
    }
}

/// How long calls of a tier may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Finding an entry, while a request waits.
    pub get: Duration,
    /// Keeping or forgetting one, for which nobody waits.
    pub put: Duration,
    /// Forgetting all that have a tag.
    pub sweep: Duration,
}

/// A tier with a limit for each call and a [`Breaker`] around it.
pub struct Guarded {
    tier: Box<dyn Tier>,
    limits: Limits,
    breaker: Mutex<Breaker>,
    failing: EverySecond,
    open: Gauge,
    gets: Histogram,
    puts: Histogram,
}

impl Guarded {
    /// Guards a tier.
    #[must_use]
    pub fn new(tier: Box<dyn Tier>, limits: Limits, policy: Policy) -> Self {
        let name = tier.name();
        let seconds = |what| histogram!("saccade_cache_tier_seconds", "tier" => name, "operation" => what);
        let open = gauge!("saccade_cache_breaker_open", "tier" => name);
        open.set(0.0);
        Self {
            limits,
            breaker: Mutex::new(Breaker::new(policy)),
            failing: EverySecond::new(),
            open,
            gets: seconds("get"),
            puts: seconds("put"),
            tier,
        }
    }

    /// See [`Tier::name`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.tier.name()
    }

    /// See [`Tier::size`].
    #[must_use]
    pub fn size(&self) -> Option<Size> {
        self.tier.size()
    }

    /// See [`Tier::get`]. What is no entry is removed.
    ///
    /// # Errors
    /// [`Error`], after the limit at the latest.
    pub async fn get(&self, key: &Key, now: SystemTime) -> Result<Option<Arc<Entry>>, Error> {
        let found = self.call(self.limits.get, Some(&self.gets), self.tier.get(key, now)).await;
        if matches!(found, Err(Error::Wrong(_))) {
            let _ = self.call(self.limits.get, None, self.tier.remove(key)).await;
        }
        found
    }

    /// See [`Tier::put`].
    ///
    /// # Errors
    /// [`Error`], after the limit at the latest.
    pub async fn put(&self, key: &Key, entry: &Arc<Entry>, keep: Duration, now: SystemTime) -> Result<(), Error> {
        self.call(self.limits.put, Some(&self.puts), self.tier.put(key, entry, keep, now)).await
    }

    /// See [`Tier::remove_tagged`].
    ///
    /// # Errors
    /// [`Error`], after the limit at the latest.
    pub async fn remove_tagged(&self, tag: &Tag) -> Result<u64, Error> {
        self.call(self.limits.sweep, None, self.tier.remove_tagged(tag)).await
    }

    async fn call<T>(
        &self,
        limit: Duration,
        seconds: Option<&Histogram>,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let begun = clock::now();
        if !self.breaker(|breaker| breaker.allow(begun)) {
            return Err(Error::Open);
        }
        // A request that goes away meanwhile says nothing about the tier; its trial, if it was one, ends by itself.
        let done = tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::TimedOut));
        let now = clock::now();
        if let Some(seconds) = seconds {
            seconds.record(now.saturating_duration_since(begun));
        }
        match &done {
            // It answered, whatever it was.
            Ok(_) | Err(Error::Wrong(_)) => self.breaker(|breaker| breaker.succeeded()),
            Err(error) => {
                let is_left_alone = self.breaker(|breaker| {
                    breaker.failed(now);
                    breaker.is_open()
                });
                if is_left_alone {
                    self.tier.give_up();
                }
                if let Some(suppressed) = self.failing.pass(now) {
                    tracing::warn!(tier = self.name(), %error, suppressed, "a tier of the cache failed");
                }
            }
        }
        done
    }

    fn breaker<T>(&self, step: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = breaker.is_open();
        let done = step(&mut breaker);
        if breaker.is_open() != was_open {
            self.open.set(if was_open { 0.0 } else { 1.0 });
        }
        done
    }
}

/// Has libraries that ask for the process' own cryptography use the same as everything else.
pub(super) fn use_crypto() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Requests that a tier answered, by outcome. The outcomes of [`Error`] are counted where they happen, which is seldom.
pub(super) struct Count {
    tier: &'static str,
    pub(super) hit: Counter,
    pub(super) stale: Counter,
    pub(super) miss: Counter,
}

impl Count {
    pub(super) fn new(tier: &'static str) -> Self {
        let of = |outcome| requests(tier, outcome);
        Self { tier, hit: of("hit"), stale: of("stale"), miss: of("miss") }
    }

    pub(super) fn failed(&self, error: &Error) {
        requests(self.tier, error.outcome()).increment(1);
    }
}

/// Requests that a tier answered in one way.
pub(super) fn requests(tier: &'static str, outcome: &'static str) -> Counter {
    counter!("saccade_cache_requests_total", "tier" => tier, "outcome" => outcome)
}
/// [`Entry::encode`], where much is done elsewhere.
pub(super) async fn encode(key: &Key, entry: &Arc<Entry>) -> Bytes {
    let (key, entry) = (*key, Arc::clone(entry));
    offload(entry.value().len() > LARGE, move || entry.encode(&key)).await
}
