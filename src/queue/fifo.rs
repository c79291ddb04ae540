use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Depth;

/// The queue was full; the item comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// A bounded first-in, first-out queue that refuses what does not fit, so that the producer decides what is lost.
#[derive(Debug)]
pub struct Fifo<T> {
    items: Mutex<VecDeque<T>>,
    capacity: usize,
    depth: Depth,
}

impl<T> Fifo<T> {
    /// A queue for `capacity` items. `name` is what metrics call it and its like.
    #[must_use]
    pub fn new(name: &'static str, capacity: usize) -> Self {
        Self { items: Mutex::new(VecDeque::with_capacity(capacity)), capacity, depth: Depth::new(name) }
    }

    /// Adds an item at the end.
    ///
    /// # Errors
    /// [`Full`] gives the item back when `capacity` items wait already.
    pub fn push(&self, item: T) -> Result<(), Full<T>> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() == self.capacity {
            return Err(Full(item));
        }
        items.push_back(item);
        self.depth.set(items.len());
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&self) -> Option<T> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let item = items.pop_front();
        self.depth.set(items.len());
        item
    }

    /// Empties the queue and says how many items that were.
    pub fn clear(&self) -> usize {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = items.len();
        items.clear();
        self.depth.set(0);
        dropped
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_item_back_and_keeps_its_order() {
        let queue = Fifo::new("test", 2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(Full(3))));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.push(4), Ok(()));
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.clear(), 2);
        assert!(queue.is_empty());
    }
}
