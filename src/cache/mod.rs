//! Answers that were computed before: what a picture showed to a model, by what was asked.
//!
//! What enters: a [`Key`] over everything that an answer depends on, and how to compute it. What leaves: the answer, from
//! the fastest of its tiers that has it, or computed, once for all who ask at the same time. Everything runs on Tokio's
//! workers. A leaf: it knows neither pictures nor models nor HTTP, and keeps answers alone.
//!
//! Tiers are looked through in order, the process' [`memory`] first. Each has a time limit and a breaker, and none ever
//! fails a request: what it does not give in time is taken as absent. What a later tier gives goes up into those before it,
//! and what was computed goes into all of them, behind the request's back. Bytes from outside the process are checked
//! before anything is believed of them.
//!
//! An entry counts for its time to live. For a while after that it is still given out, once more computed meanwhile; one
//! that is asked for often is computed again before its time is over, so that nobody waits.

mod breaker;
mod bucket;
mod disk;
mod entry;
mod flight;
mod hot;
mod key;
mod memory;
mod redis;
mod revoked;
mod tier;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics::{Counter, counter, gauge};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::clock;
use crate::offload::{LARGE, offload};

pub use breaker::{Breaker, Policy};
pub use bucket::{Bucket, Settings as BucketSettings};
pub use disk::Disk;
pub use entry::{Age, Entry, Etag, MAX_TAGS, Wrong};
pub use key::{Key, Tag};
pub use redis::{Redis, Settings as RedisSettings};
pub use tier::{Error as TierError, Guarded, Limits, Size, Tier};

use flight::{Flights, Landing, Pilot, Seat};
use memory::Memory;
use revoked::Revoked;
use tier::{Count, requests};
use writer::{Write, Writer};

/// Share of an entry's time to live after which it is in the last part of its life.
const LATE: f64 = 0.8;
/// How often what has been put off is done.
const UPKEEP: Duration = Duration::from_secs(5);

/// Tells the wall-clock time, which processes that share a tier have in common.
pub type Wall = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What a cache may do.
#[derive(Clone)]
pub struct Settings {
    /// Bytes of entries in this process.
    pub max_bytes: u64,
    /// Bytes of the value of one entry; larger ones are not kept.
    pub max_entry_bytes: usize,
    /// How long an entry counts.
    pub ttl: Duration,
    /// How long it is given out beyond that, while it is computed anew.
    pub stale: Duration,
    /// Hits in the last fifth of an entry's life after which it is computed anew before its end; 0: never.
    pub refresh_hits: u32,
    /// Computations for entries rather than for requests, at a time.
    pub refreshes: usize,
    /// How long one of those may take.
    pub refresh_limit: Duration,
    /// Keys that the next process is told of, those asked for most; 0: none.
    pub hot_keys: usize,
    /// The time.
    pub wall: Wall,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_entry_bytes: 1 << 20,
            ttl: Duration::from_secs(300),
            stale: Duration::from_secs(60),
            refresh_hits: 3,
            refreshes: 2,
            refresh_limit: Duration::from_secs(30),
            hot_keys: 1024,
            wall: Arc::new(clock::wall),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it is found by.
    pub key: Key,
    /// What is good enough.
    pub reuse: Reuse,
    /// Until when somebody else's computation of the same is waited for.
    pub deadline: Instant,
}

/// Which entries are good enough for who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Whatever the cache holds to be.
    Any,
    /// Those that began to be computed less long ago than this.
    Younger(Duration),
    /// None: it is to be computed, and kept for others.
    Renew,
    /// None, and nothing of it is to be kept.
    Nothing,
}

/// For whom something is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A request waits for it.
    Request,
    /// Nobody waits: it goes behind everything else.
    Refresh,
}

/// What was computed.
#[derive(Debug, Clone)]
pub struct Computed {
    /// The answer.
    pub value: Bytes,
    /// What it is, as `Content-Type` says it.
    pub media_type: &'static str,
    /// What it is to be forgotten by.
    pub tags: Vec<Tag>,
    /// Whether it may be kept.
    pub keep: bool,
}

/// Why something could not be computed.
#[derive(Debug, Clone)]
pub struct Failure<E> {
    /// What who asked is told.
    pub error: E,
    /// Whether all who asked for the same are told so, since it would be the same for each: a picture that is none. Otherwise
    /// the next of them tries.
    pub shared: bool,
}

/// Computes an answer.
pub type Compute<E> = Box<dyn FnOnce(Purpose) -> BoxFuture<'static, Result<Computed, Failure<E>>> + Send>;

/// An answer and where it came from.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer.
    pub entry: Arc<Entry>,
    /// Where it came from.
    pub outcome: Outcome,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From this tier, within its time.
    Hit(&'static str),
    /// From this tier, past its time; it is being computed anew.
    Stale(&'static str),
    /// It was computed.
    Miss,
    /// Somebody else had it computed at the same time.
    Joined,
    /// It was computed, and the cache had nothing to do with it.
    Bypassed,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error<E> {
    /// It could not be computed.
    Failed(E),
    /// Somebody else's computation did not end before the deadline.
    Late,
}

/// What [`Cache::forget`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Entries that each tier removed, in the order of the tiers.
    pub removed: Vec<(&'static str, u64)>,
    /// Tiers that could not remove all of them. This process does not give them out; others that share the tier may.
    pub failed: Vec<&'static str>,
}

/// Answers, with errors `E` of those who compute them. [`Cache::close`] ends its tasks.
pub struct Cache<E>(Arc<Inner<E>>);

struct Inner<E> {
    settings: Settings,
    memory: Memory,
    memory_count: Count,
    lower: Vec<Lower>,
    flights: Flights<E>,
    revoked: Arc<Revoked>,
    refreshes: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
    count: Totals,
}

/// A tier outside of memory.
struct Lower {
    tier: Arc<Guarded>,
    writer: Writer,
    count: Count,
}

/// Requests by what became of them.
struct Totals {
    hit: Counter,
    stale: Counter,
    miss: Counter,
    joined: Counter,
    bypassed: Counter,
    late: Counter,
    failed: Counter,
}

impl<E> Clone for Cache<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> fmt::Debug for Cache<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lower: Vec<_> = self.0.lower.iter().map(|lower| lower.tier.name()).collect();
        out.debug_struct("Cache").field("lower", &lower).finish_non_exhaustive()
    }
}

impl<E: Clone + Send + Sync + 'static> Cache<E> {
    /// Starts a cache on the current Tokio runtime, with these tiers below memory, the fastest first. What the last process
    /// was asked for most is read from them meanwhile.
    #[must_use]
    pub fn start(settings: Settings, tiers: Vec<Guarded>) -> Self {
        let revoked = Arc::new(Revoked::default());
        let mut tasks = JoinSet::new();
        let lower = tiers.into_iter().map(|tier| {
            let (count, tier) = (Count::new(tier.name()), Arc::new(tier));
            let writer = Writer::start(Arc::clone(&tier), Arc::clone(&revoked), &mut tasks);
            Lower { tier, writer, count }
        });
        let lower = lower.collect();
        let inner = Arc::new(Inner {
            memory: Memory::new(settings.max_bytes, settings.ttl + settings.stale),
            memory_count: Count::new("memory"),
            lower,
            flights: Flights::default(),
            revoked,
            refreshes: Arc::new(Semaphore::new(settings.refreshes)),
            tasks: Mutex::new(tasks),
            count: Totals::new(),
            settings,
        });
        let upkeep = upkeep(Arc::downgrade(&inner));
        let warm = Arc::clone(&inner);
        inner.spawn(upkeep);
        inner.spawn(async move { warm.reload_hot().await });
        Self(inner)
    }

    /// Finds an answer, or has it computed: by who asked first, while all others who ask for the same wait. If who computes
    /// goes away, one of those who wait takes over, with its own `compute`.
    ///
    /// # Errors
    /// [`Error`]; tiers that fail are no reason.
    pub async fn get_or_compute(&self, ask: Ask, compute: Compute<E>) -> Result<Answer, Error<E>> {
        let inner = &self.0;
        let answer = match ask.reuse {
            Reuse::Nothing => inner
                .compute(compute, Purpose::Request)
                .await
                .map(|(entry, _)| Answer { entry, outcome: Outcome::Bypassed }),
            Reuse::Renew => inner.renew(&ask.key, compute, Purpose::Request).await,
            Reuse::Any | Reuse::Younger(_) => {
                let answer = inner.find_or_compute(&ask, compute).await;
                inner.count.tell(&answer);
                return answer;
            }
        };
        let answer = answer.map_err(|failure| Error::Failed(failure.error));
        inner.count.tell(&answer);
        answer
    }

    /// Forgets everything with a tag, in all tiers, and what is being computed with it.
    pub async fn forget(&self, tag: &Tag) -> Forgotten {
        let inner = &self.0;
        let lifetime = inner.settings.ttl + inner.settings.stale;
        inner.revoked.revoke(tag, (inner.settings.wall)(), lifetime);
        let mut forgotten = Forgotten::default();
        if let Ok(removed) = Tier::remove_tagged(&inner.memory, tag).await {
            forgotten.removed.push((inner.memory.name(), removed));
        }
        let sweeps = inner.lower.iter().map(|lower| lower.tier.remove_tagged(tag));
        for (lower, removed) in inner.lower.iter().zip(futures_util::future::join_all(sweeps).await) {
            match removed {
                Ok(removed) => forgotten.removed.push((lower.tier.name(), removed)),
                Err(_) => forgotten.failed.push(lower.tier.name()),
            }
        }
        let removed = forgotten.removed.iter().map(|(_, removed)| removed).sum();
        counter!("saccade_cache_forgotten_total").increment(removed);
        forgotten
    }

    /// Lets go of everything that is in this process' memory; other tiers keep theirs. Tells how many entries that were.
    pub async fn empty_memory(&self) -> u64 {
        let entries = self.0.memory.empty().await;
        counter!("saccade_cache_forgotten_total").increment(entries);
        entries
    }

    /// What each tier holds, where it knows, memory first.
    pub async fn sizes(&self) -> Vec<(&'static str, Size)> {
        self.0.memory.upkeep().await;
        self.0.sizes()
    }

    /// Computations that are under way for requests or entries.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.flights.len()
    }

    /// Leaves the next process what this one was asked for most, writes what waits to be written, and ends all tasks, until
    /// the deadline at the latest. What is asked of it afterwards is answered from memory or computed.
    pub async fn close(&self, deadline: Instant) {
        let inner = &self.0;
        inner.leave_hot();
        inner.refreshes.close();
        inner.lower.iter().for_each(|lower| lower.writer.close());
        let mut tasks = std::mem::take(&mut *inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout_at(deadline.into(), ended).await;
        tasks.shutdown().await;
    }
}

impl<E: Clone + Send + Sync + 'static> Inner<E> {
    async fn find_or_compute(self: &Arc<Self>, ask: &Ask, compute: Compute<E>) -> Result<Answer, Error<E>> {
        if let Some((entry, age, hits)) = self.in_memory(ask).await {
            let is_due = self.settings.refresh_hits > 0 && hits >= self.settings.refresh_hits;
            let outcome = self.memory_count.found(age, "memory");
            if age == Age::Stale || is_due {
                self.refresh(ask.key, compute, if age == Age::Stale { "stale" } else { "ahead" });
            }
            return Ok(Answer { entry, outcome });
        }
        self.memory_count.miss.increment(1);
        loop {
            let pilot = match self.flights.board(&ask.key) {
                Seat::Pilot(pilot) => pilot,
                Seat::Passenger(passenger) => match passenger.wait(ask.deadline).await {
                    Landing::Done(Ok(entry)) => return Ok(Answer { entry, outcome: Outcome::Joined }),
                    Landing::Done(Err(error)) => return Err(Error::Failed(error)),
                    Landing::Deserted => continue,
                    Landing::Late => return Err(Error::Late),
                },
            };
            return self.lead(ask, pilot, compute).await;
        }
    }

    /// Looks in the lower tiers, then computes, for all who wait.
    async fn lead(self: &Arc<Self>, ask: &Ask, pilot: Pilot<E>, compute: Compute<E>) -> Result<Answer, Error<E>> {
        // Somebody may have finished between the look into memory and the seat.
        if let Some((entry, Age::Fresh, _)) = self.in_memory(ask).await {
            pilot.land(Ok(Arc::clone(&entry)));
            return Ok(Answer { entry, outcome: Outcome::Hit("memory") });
        }
        if let Some((entry, age, outcome)) = self.below(ask).await {
            pilot.land(Ok(Arc::clone(&entry)));
            if age == Age::Stale {
                self.refresh(ask.key, compute, "stale");
            }
            return Ok(Answer { entry, outcome });
        }
        match self.renew(&ask.key, compute, Purpose::Request).await {
            Ok(answer) => {
                pilot.land(Ok(Arc::clone(&answer.entry)));
                Ok(answer)
            }
            Err(failure) => {
                if failure.shared {
                    pilot.land(Err(failure.error.clone()));
                }
                Err(Error::Failed(failure.error))
            }
        }
    }

    /// The entry in memory that is good enough, its age, and how often it was asked for in the last part of its life.
    async fn in_memory(&self, ask: &Ask) -> Option<(Arc<Entry>, Age, u32)> {
        let slot = self.memory.find(&ask.key).await?;
        let age = self.judge(ask, &slot.entry)?;
        let late = self.settings.ttl.min(slot.entry.ttl()).mul_f64(LATE);
        let hits = slot.hit(slot.entry.elapsed((self.settings.wall)()) >= late);
        Some((Arc::clone(&slot.entry), age, hits))
    }

    /// The first entry of the lower tiers that is good enough; the tiers above it get it, too.
    async fn below(&self, ask: &Ask) -> Option<(Arc<Entry>, Age, Outcome)> {
        for (index, lower) in self.lower.iter().enumerate() {
            let found = match lower.tier.get(&ask.key, (self.settings.wall)()).await {
                Ok(found) => found,
                Err(error) => {
                    lower.count.failed(&error);
                    continue;
                }
            };
            let Some((entry, age)) = found.and_then(|entry| self.judge(ask, &entry).map(|age| (entry, age))) else {
                lower.count.miss.increment(1);
                continue;
            };
            let outcome = lower.count.found(age, lower.tier.name());
            self.memory.keep(&ask.key, &entry).await;
            self.write(&self.lower[..index], &ask.key, &entry);
            return Some((entry, age, outcome));
        }
        None
    }

    /// How old an entry is, if it is good enough.
    fn judge(&self, ask: &Ask, entry: &Entry) -> Option<Age> {
        let now = (self.settings.wall)();
        let age = entry.age(now, self.settings.ttl, self.settings.stale);
        let is_young = match ask.reuse {
            Reuse::Younger(limit) => age == Age::Fresh && entry.elapsed(now) < limit,
            _ => true,
        };
        (age != Age::Expired && is_young && !self.revoked.covers(entry)).then_some(age)
    }

    /// Computes and keeps.
    async fn renew(&self, key: &Key, compute: Compute<E>, purpose: Purpose) -> Result<Answer, Failure<E>> {
        let (entry, keep) = self.compute(compute, purpose).await?;
        if keep && entry.value().len() <= self.settings.max_entry_bytes && !self.revoked.covers(&entry) {
            self.memory.keep(key, &entry).await;
            self.write(&self.lower, key, &entry);
        }
        Ok(Answer { entry, outcome: Outcome::Miss })
    }

    async fn compute(&self, compute: Compute<E>, purpose: Purpose) -> Result<(Arc<Entry>, bool), Failure<E>> {
        let begun = (self.settings.wall)();
        let computed = compute(purpose).await?;
        let is_large = computed.value.len() > LARGE;
        let (Computed { value, media_type, tags, keep }, ttl) = (computed, self.settings.ttl);
        let make = move || Entry::new(value, media_type, &tags, begun, ttl);
        Ok((Arc::new(offload(is_large, make).await), keep))
    }

    /// Hands an entry to tiers, for as long as it may be used.
    fn write(&self, tiers: &[Lower], key: &Key, entry: &Arc<Entry>) {
        let kept = self.settings.ttl.min(entry.ttl()) + self.settings.stale;
        let now = (self.settings.wall)();
        let keep = kept.saturating_sub(entry.elapsed(now));
        if keep.is_zero() {
            return;
        }
        for lower in tiers {
            lower.writer.push(Write { key: *key, entry: Arc::clone(entry), keep, now });
        }
    }

    /// Computes an entry anew without anybody waiting, unless it is being computed already or too many others are.
    fn refresh(self: &Arc<Self>, key: Key, compute: Compute<E>, reason: &'static str) {
        let counted = move |outcome: &'static str| {
            counter!("saccade_cache_refreshes_total", "reason" => reason, "outcome" => outcome).increment(1);
        };
        let Seat::Pilot(pilot) = self.flights.board(&key) else { return };
        let Ok(permit) = Arc::clone(&self.refreshes).try_acquire_owned() else { return counted("dropped") };
        let inner = Arc::clone(self);
        self.spawn(async move {
            let done = inner.renew(&key, compute, Purpose::Refresh);
            match tokio::time::timeout(inner.settings.refresh_limit, done).await {
                Ok(Ok(answer)) => {
                    pilot.land(Ok(answer.entry));
                    counted("done");
                }
                Ok(Err(_)) => counted("failed"),
                Err(_) => counted("late"),
            }
            drop(permit);
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn sizes(&self) -> Vec<(&'static str, Size)> {
        let memory = self.memory.size().map(|size| ("memory", size));
        let lower = self.lower.iter().filter_map(|lower| Some((lower.tier.name(), lower.tier.size()?)));
        memory.into_iter().chain(lower).collect()
    }
}

/// Does what has been put off, now and then, until the cache is gone.
async fn upkeep<E: Clone + Send + Sync + 'static>(inner: std::sync::Weak<Inner<E>>) {
    let mut timer = tokio::time::interval(UPKEEP);
    for round in 1_u32.. {
        timer.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.refreshes.is_closed() {
            return;
        }
        inner.memory.upkeep().await;
        if round.is_multiple_of(hot::EVERY) {
            inner.leave_hot();
        }
        for (tier, size) in inner.sizes() {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            let [bytes, entries] = [size.bytes as f64, size.entries as f64];
            gauge!("saccade_cache_bytes", "tier" => tier).set(bytes);
            gauge!("saccade_cache_entries", "tier" => tier).set(entries);
        }
    }
}

impl Count {
    /// Counts an entry that was found.
    fn found(&self, age: Age, tier: &'static str) -> Outcome {
        if age == Age::Fresh {
            self.hit.increment(1);
            Outcome::Hit(tier)
        } else {
            self.stale.increment(1);
            Outcome::Stale(tier)
        }
    }
}

impl Totals {
    fn new() -> Self {
        let of = |outcome| requests("all", outcome);
        Self {
            hit: of("hit"),
            stale: of("stale"),
            miss: of("miss"),
            joined: of("joined"),
            bypassed: of("bypassed"),
            late: of("late"),
            failed: of("failed"),
        }
    }

    fn tell<E>(&self, answer: &Result<Answer, Error<E>>) {
        let counter = match answer {
            Ok(answer) => match answer.outcome {
                Outcome::Hit(_) => &self.hit,
                Outcome::Stale(_) => &self.stale,
                Outcome::Miss => &self.miss,
                Outcome::Joined => &self.joined,
                Outcome::Bypassed => &self.bypassed,
            },
            Err(Error::Late) => &self.late,
            Err(Error::Failed(_)) => &self.failed,
        };
        counter.increment(1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
