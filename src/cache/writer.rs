use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use metrics::{Counter, counter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::revoked::Revoked;
use super::tier::Guarded;
use super::{Entry, Key};

/// Entries that wait for one tier at most.
const CAPACITY: usize = 1024;
/// Bytes of them at most.
const MAX_BYTES: usize = 16 << 20;
/// Entries that are being written to one tier at a time.
const AT_ONCE: usize = 8;

/// Writes entries to a tier behind the backs of requests. What does not fit into its queue is dropped and counted: the
/// next one who computes it brings it again.
pub(super) struct Writer {
    /// `None` once it is closed.
    sender: Mutex<Option<mpsc::Sender<Write>>>,
    waiting: Arc<AtomicUsize>,
    dropped: Counter,
}

/// An entry on its way to a tier.
pub(super) struct Write {
    /// Its key.
    pub(super) key: Key,
    /// The entry.
    pub(super) entry: Arc<Entry>,
    /// How long it is to be kept from `now`.
    pub(super) keep: Duration,
    /// When it was handed over.
    pub(super) now: SystemTime,
}

impl Writer {
    /// Begins to write to a tier what is not `revoked` meanwhile.
    #[must_use]
    pub(super) fn start(tier: Arc<Guarded>, revoked: Arc<Revoked>, tasks: &mut JoinSet<()>) -> Self {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let waiting = Arc::new(AtomicUsize::new(0));
        let dropped = written(tier.name(), "dropped");
        tasks.spawn(write(receiver, tier, revoked, Arc::clone(&waiting)));
        Self { sender: Mutex::new(Some(sender)), waiting, dropped }
    }

    /// Hands an entry over.
    pub(super) fn push(&self, write: Write) {
        let weight = write.entry.weight();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else { return };
        if self.waiting.fetch_add(weight, Ordering::Relaxed) + weight > MAX_BYTES || sender.try_send(write).is_err() {
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
            self.dropped.increment(1);
        }
    }

    /// Takes nothing more. What waits is written; then the task ends.
    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

async fn write(receiver: mpsc::Receiver<Write>, tier: Arc<Guarded>, revoked: Arc<Revoked>, waiting: Arc<AtomicUsize>) {
    let stored = written(tier.name(), "stored");
    let (tier, revoked, waiting, stored) = (&tier, &revoked, &waiting, &stored);
    let writes = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    writes
        .for_each_concurrent(AT_ONCE, |Write { key, entry, keep, now }| async move {
            if !revoked.covers(&entry) {
                match tier.put(&key, &entry, keep, now).await {
                    Ok(()) => stored.increment(1),
                    Err(error) => written(tier.name(), error.outcome()).increment(1),
                }
            }
            waiting.fetch_sub(entry.weight(), Ordering::Relaxed);
        })
        .await;
}

fn written(tier: &'static str, outcome: &'static str) -> Counter {
    counter!("saccade_cache_writes_total", "tier" => tier, "outcome" => outcome)
}
