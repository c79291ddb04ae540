use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Depth;

/// A queue of one where the newest wins: putting into a full mailbox replaces what is there and counts it as
/// superseded. Under overload, latency stays that of one item.
#[derive(Debug)]
pub struct Mailbox<T> {
    slot: Mutex<Option<T>>,
    superseded: AtomicU64,
    depth: Depth,
}

impl<T> Mailbox<T> {
    /// An empty one. `name` is what metrics call it and its like.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { slot: Mutex::new(None), superseded: AtomicU64::new(0), depth: Depth::new(name) }
    }

    /// Puts an item in and returns the one it replaced.
    pub fn put(&self, item: T) -> Option<T> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = slot.replace(item);
        self.depth.set(1);
        drop(slot);
        if replaced.is_some() {
            self.superseded.fetch_add(1, Ordering::Relaxed);
        }
        replaced
    }

    /// Takes the item out.
    pub fn take(&self) -> Option<T> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        self.depth.set(0);
        slot.take()
    }

    /// Takes the item out if it is as `wanted`.
    pub fn take_if(&self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let item = slot.take_if(|item| wanted(item));
        if item.is_some() {
            self.depth.set(0);
        }
        item
    }

    /// Looks at the item without taking it.
    pub fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }

    /// Items replaced before anyone took them.
    pub fn superseded(&self) -> u64 {
        self.superseded.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wins_and_the_old_one_is_counted() {
        let mailbox = Mailbox::new("test");
        assert_eq!(mailbox.put(1), None);
        assert_eq!(mailbox.put(2), Some(1));
        assert_eq!(mailbox.peek(|item| *item), Some(2));
        assert_eq!(mailbox.take_if(|item| *item == 1), None);
        assert_eq!(mailbox.take(), Some(2));
        assert_eq!(mailbox.take(), None);
        assert_eq!(mailbox.put(3), None);
        assert_eq!(mailbox.superseded(), 1);
    }
}
