use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use moka::future::Cache;

use super::tier::{Error, Size, Tier};
use super::{Entry, Key, Tag};

/// The tier in this process: bounded by bytes, least useful entries out first (TinyLFU: seldom asked for and long ago).
pub(super) struct Memory {
    slots: Cache<Key, Arc<Slot>>,
}

/// An entry and how often it was asked for.
pub(super) struct Slot {
    /// The entry.
    pub(super) entry: Arc<Entry>,
    hits: AtomicU32,
    late: AtomicU32,
}

impl Slot {
    /// Counts a hit. Gives how many there were in the last part of its life, where this is one: `is_late`.
    pub(super) fn hit(&self, is_late: bool) -> u32 {
        self.hits.fetch_add(1, Ordering::Relaxed);
        if is_late { self.late.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 }
    }
}

impl Memory {
    /// For `max_bytes` of entries, none of which is kept for longer than `keep`.
    #[must_use]
    pub(super) fn new(max_bytes: u64, keep: Duration) -> Self {
        let slots = Cache::builder()
            .name("results")
            .max_capacity(max_bytes)
            .weigher(|_, slot: &Arc<Slot>| u32::try_from(slot.entry.weight()).unwrap_or(u32::MAX))
            .time_to_live(keep)
            .build();
        Self { slots }
    }

    /// The entry of a key with its counts.
    pub(super) async fn find(&self, key: &Key) -> Option<Arc<Slot>> {
        self.slots.get(key).await
    }

    /// Keeps an entry; half of the hits of the one that it replaces count for it.
    pub(super) async fn keep(&self, key: &Key, entry: &Arc<Entry>) {
        let hits = self.slots.get(key).await.map_or(0, |slot| slot.hits.load(Ordering::Relaxed) / 2);
        let slot = Slot { entry: Arc::clone(entry), hits: AtomicU32::new(hits), late: AtomicU32::new(0) };
        self.slots.insert(*key, Arc::new(slot)).await;
    }

    /// The keys that were asked for most, the first of them most often; those that nobody asked for again are left out.
    #[must_use]
    pub(super) fn hottest(&self, count: usize) -> Vec<Key> {
        let mut keys: Vec<(u32, Key)> = self
            .slots
            .iter()
            .map(|(key, slot)| (slot.hits.load(Ordering::Relaxed), *key))
            .filter(|(hits, _)| *hits > 0)
            .collect();
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.truncate(count);
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Lets go of all entries, and tells how many there were.
    pub(super) async fn empty(&self) -> u64 {
        self.upkeep().await;
        let entries = self.slots.entry_count();
        if entries > 0 {
            self.slots.invalidate_all();
            self.upkeep().await;
        }
        entries
    }

    /// Does what has been put off, such as letting go of what is out of date.
    pub(super) async fn upkeep(&self) {
        self.slots.run_pending_tasks().await;
    }
}

#[async_trait]
impl Tier for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn get(&self, key: &Key, _now: SystemTime) -> Result<Option<Arc<Entry>>, Error> {
        Ok(self.find(key).await.map(|slot| Arc::clone(&slot.entry)))
    }

    /// All entries are kept for as long as [`Memory::new`] says.
    async fn put(&self, key: &Key, entry: &Arc<Entry>, _keep: Duration, _now: SystemTime) -> Result<(), Error> {
        self.keep(key, entry).await;
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        self.slots.invalidate(key).await;
        Ok(())
    }

    async fn remove_tagged(&self, tag: &Tag) -> Result<u64, Error> {
        let tagged = self.slots.iter().filter(|(_, slot)| slot.entry.tags().contains(tag));
        let keys: Vec<Key> = tagged.map(|(key, _)| *key).collect();
        for key in &keys {
            self.slots.invalidate(key).await;
        }
        Ok(keys.len() as u64)
    }

    fn size(&self) -> Option<Size> {
        Some(Size { bytes: self.slots.weighted_size(), entries: self.slots.entry_count() })
    }
}
