use std::time::Duration;

/// How long to wait before the next try: twice as long each time, up to a bound, and less by chance, so that cameras that
/// were lost together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// The next wait; `chance` is a random number, 0..1.
    pub(super) fn wait(&mut self, chance: f64) -> Duration {
        let most = self.next.min(self.longest);
        self.next = (most * 2).min(self.longest);
        most.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// The next wait is the shortest again.
    pub(super) const fn reset(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(60));
        let waits: Vec<_> = (0..9).map(|_| backoff.wait(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.wait(0.0), seconds(30));
        backoff.reset();
        assert_eq!(backoff.wait(0.5), seconds(1).mul_f64(0.75));
    }

    #[test]
    fn a_shortest_wait_that_is_the_longest_stays() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(5));
        assert!((0..3).all(|_| backoff.wait(1.0) == Duration::from_secs(5)));
    }
}
