use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use metrics::counter;

use super::writer::Write;
use super::{Ask, Entry, Inner, Key, Reuse};
use crate::clock;

/// Rounds of upkeep from one time that the hottest keys are written down to the next: a minute.
pub(super) const EVERY: u32 = 12;
/// How long they count: what was asked for longer ago says little.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Entries that are read at a time.
const AT_ONCE: usize = 16;
/// How long reading them may take altogether.
const LIMIT: Duration = Duration::from_secs(10);
const MEDIA_TYPE: &str = "application/x-saccade-keys";

/// The keys that were asked for most are an entry of the lower tiers themselves, under a key that no request has. Processes
/// that share a tier share it, and the last one who writes counts.
fn place() -> Key {
    Key::of(&[b"the hottest keys", b"1"])
}

impl<E: Clone + Send + Sync + 'static> Inner<E> {
    /// Writes down what was asked for most.
    pub(super) fn leave_hot(&self) {
        if self.lower.is_empty() {
            return;
        }
        let keys = self.memory.hottest(self.settings.hot_keys);
        if keys.is_empty() {
            return;
        }
        let value: Vec<u8> = keys.iter().flat_map(|key| *key.as_bytes()).collect();
        let now = (self.settings.wall)();
        let entry = Arc::new(Entry::new(value.into(), MEDIA_TYPE, &[], now, KEPT));
        for lower in &self.lower {
            lower.writer.push(Write { key: place(), entry: Arc::clone(&entry), keep: KEPT, now });
        }
    }

    /// Reads from the lower tiers what was asked for most before. What they no longer have is left out: a key alone does
    /// not say what to compute.
    pub(super) async fn reload_hot(&self) {
        let warmed = |outcome| counter!("saccade_cache_warmed_total", "source" => "hot", "outcome" => outcome);
        let (loaded, absent) = (warmed("loaded"), warmed("absent"));
        let reload = async {
            let keys = self.hot_keys().await;
            stream::iter(keys)
                .for_each_concurrent(AT_ONCE, |key| {
                    let (loaded, absent) = (&loaded, &absent);
                    async move {
                        let ask = Ask { key, reuse: Reuse::Any, deadline: clock::now() };
                        if self.reload(&ask).await { loaded.increment(1) } else { absent.increment(1) }
                    }
                })
                .await;
        };
        if tokio::time::timeout(LIMIT, reload).await.is_err() {
            tracing::warn!("the tiers of the cache are slow: what was asked for most is not all in memory");
        }
    }

    /// Puts an entry of the lower tiers into memory, without counting a request.
    async fn reload(&self, ask: &Ask) -> bool {
        for lower in &self.lower {
            let found = lower.tier.get(&ask.key, (self.settings.wall)()).await;
            if let Ok(Some(entry)) = found
                && self.judge(ask, &entry).is_some()
            {
                self.memory.keep(&ask.key, &entry).await;
                return true;
            }
        }
        false
    }

    async fn hot_keys(&self) -> Vec<Key> {
        let now = (self.settings.wall)();
        for lower in &self.lower {
            if let Ok(Some(entry)) = lower.tier.get(&place(), now).await
                && entry.media_type() == MEDIA_TYPE
                && entry.elapsed(now) < KEPT
            {
                return read(entry.value(), self.settings.hot_keys);
            }
        }
        Vec::new()
    }
}

fn read(value: &Bytes, count: usize) -> Vec<Key> {
    let (keys, _) = value.as_chunks::<{ Key::BYTES }>();
    keys.iter().take(count).map(|key| Key::from_bytes(*key)).collect()
}
