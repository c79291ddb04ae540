use std::sync::atomic::{AtomicU32, Ordering};

/// Requests for each retry.
const REQUESTS: u32 = 5;
/// Retries that may be saved up.
const MOST: u32 = 10;

/// How many requests may be sent again: one in five, so that what fails under load is not asked for twice as much.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Budget {
    /// With all that may be saved up.
    pub(super) const fn full() -> Self {
        Self(AtomicU32::new(MOST * REQUESTS))
    }

    /// A request is sent.
    pub(super) fn earn(&self) {
        let more = |saved: u32| Some((saved + 1).min(MOST * REQUESTS));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether one may be sent again.
    pub(super) fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(REQUESTS)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_five_may_be_sent_again() {
        let budget = Budget::full();
        assert_eq!((0..20).filter(|_| budget.spend()).count(), MOST as usize);
        (0..4).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        (0..1000).for_each(|_| budget.earn());
        assert_eq!((0..20).filter(|_| budget.spend()).count(), MOST as usize);
    }
}
