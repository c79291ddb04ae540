use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The bytes that a pool holds, those in use included, of as many as it may; and how often there were none left.
#[derive(Debug)]
pub(super) struct Quota {
    max: usize,
    held: AtomicUsize,
    refused: AtomicU64,
}

impl Quota {
    pub(super) const fn new(max: usize) -> Self {
        Self { max, held: AtomicUsize::new(0), refused: AtomicU64::new(0) }
    }

    /// Bytes that may be held.
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Holds as many bytes more, if it may.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.max);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Holds as many bytes less, which were taken.
    pub(super) fn give(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "what is given was taken");
    }

    /// Counts that there was nothing left for somebody.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_may_be_whoever_takes_it() {
        let quota = Quota::new(100);
        let taken: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| (0..100).filter(|_| quota.take(3)).count()));
            threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
        });
        assert_eq!((taken, quota.held()), (33, 99));
        assert!(quota.take(1) && !quota.take(1) && !quota.take(usize::MAX));
        quota.give(40);
        assert!(quota.take(40) && quota.held() == quota.max());
    }
}
