use std::ops::RangeInclusive;
use std::time::Duration;

/// Waits between tries: each twice as long as the one before, up to a bound, and a random share of up to half less, so that
/// those that failed together do not try again together.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    range: RangeInclusive<Duration>,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(range: RangeInclusive<Duration>) -> Self {
        Self { next: *range.start(), range }
    }

    /// The next wait; `chance` is 0..=1.
    pub(super) fn wait(&mut self, chance: f64) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(*self.range.end());
        full.mul_f64(1.0 - chance / 2.0)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.next = *self.range.start();
    }
}

/// A random number, 0..=1; a half where the system gives none.
pub(super) fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_anew() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second..=second * 5);
        let waits: Vec<_> = (0..5).map(|_| backoff.wait(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!((backoff.wait(1.0), backoff.wait(0.5)), (second * 5 / 2, second * 15 / 4));
        backoff.reset();
        assert_eq!(backoff.wait(0.0), second);
        assert!((0.0..=1.0).contains(&chance()));
    }
}
