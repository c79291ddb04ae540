use std::time::{Duration, Instant};

/// How many messages a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Messages a second in the long run.
    pub per_second: u32,
    /// Messages at once; one at least.
    pub burst: u32,
}

impl Default for Rate {
    /// 20 a second; 100 at once, since an offer and its candidates come in a burst.
    fn default() -> Self {
        Self { per_second: 20, burst: 100 }
    }
}

/// A token bucket: what a peer may still send.
#[derive(Debug, Clone)]
pub struct Allowance {
    rate: Rate,
    left: f64,
    at: Instant,
}

impl Allowance {
    /// A full one.
    #[must_use]
    pub fn new(now: Instant, rate: Rate) -> Self {
        Self { rate, left: most(rate), at: now }
    }

    /// Takes the place of one message; false if there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(self.rate.per_second);
        self.at = now;
        self.left = (self.left + earned).min(most(self.rate));
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// How long it takes until there is a place again, if none is taken meanwhile; counted from the last [`take`].
    ///
    /// [`take`]: Self::take
    #[must_use]
    pub fn wait(&self) -> Duration {
        Duration::from_secs_f64((1.0 - self.left).max(0.0) / f64::from(self.rate.per_second.max(1)))
    }
}

fn most(rate: Rate) -> f64 {
    f64::from(rate.burst.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_a_burst_and_a_rate() {
        let start = crate::clock::now();
        let mut allowance = Allowance::new(start, Rate { per_second: 10, burst: 3 });
        let taken = |allowance: &mut Allowance, ms: u64| allowance.take(start + Duration::from_millis(ms));
        assert_eq!([0, 0, 0, 0].map(|ms| taken(&mut allowance, ms)), [true, true, true, false]);
        assert_eq!(allowance.wait(), Duration::from_millis(100));
        assert_eq!([99, 101, 102].map(|ms| taken(&mut allowance, ms)), [false, true, false]);
        assert_eq!([60_000, 60_000, 60_000, 60_000].map(|ms| taken(&mut allowance, ms)), [true, true, true, false]);
    }
}
