use std::time::{Duration, Instant};

/// How long servers that are away are left alone at first; twice as long after each try that fails.
const FIRST: Duration = Duration::from_secs(2);
/// How long at most.
const LONGEST: Duration = Duration::from_secs(60);

/// When servers that were away are asked again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Again {
    /// None while they are being asked.
    at: Option<Instant>,
    wait: Duration,
}

impl Again {
    /// After a try that failed, and perhaps others `before` it. Servers that come back together with many that ask for them
    /// are not asked by all at once.
    pub(super) fn after(now: Instant, before: Option<Self>) -> Self {
        let wait = before.map_or(FIRST, |before| (before.wait * 2).min(LONGEST));
        let share = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
        Self { at: Some(now + wait.mul_f64(0.75 + 0.25 * share)), wait }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now >= at)
    }

    /// They are being asked.
    pub(super) const fn begin(&mut self) {
        self.at = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_wait_grows_to_a_minute_and_is_never_longer() {
        let now = clock::now();
        let mut again = Again::after(now, None);
        let mut waits = Vec::new();
        for _ in 0..7 {
            waits.push(again.wait.as_secs());
            assert!(!again.is_due(now + again.wait.mul_f64(0.74)) && again.is_due(now + again.wait));
            again.begin();
            assert!(!again.is_due(now + LONGEST), "once");
            again = Again::after(now, Some(again));
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
    }
}
