use std::time::{Duration, Instant};

/// What failures weigh together at which an endpoint is left alone.
const MOST: u32 = 12;
/// How long it is left alone at first; twice as long after each try that fails.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long it is left alone at most.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How a request failed that says something of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody is there, or nobody who can.
    Gone,
    /// There was no answer in time, which may have been short.
    Late,
}

impl Failure {
    const fn weight(self) -> u32 {
        match self {
            Self::Gone => 4,
            Self::Late => 1,
        }
    }
}

/// Whether an endpoint is asked. After some failures on end it is not, until a probe of its own succeeds: no live request
/// has to find out.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    weight: u32,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    probe_at: Instant,
    wait: Duration,
}

impl Breaker {
    /// Open, and to be probed at once: nothing is known yet.
    pub(super) const fn unknown(now: Instant) -> Self {
        Self { weight: 0, open: Some(Open { probe_at: now, wait: FIRST_WAIT }) }
    }

    /// Whether requests are sent.
    pub(super) const fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// Whether it is to be probed.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.open.is_some_and(|open| now >= open.probe_at)
    }

    /// A request or a probe succeeded. True: the endpoint is back.
    pub(super) fn succeed(&mut self) -> bool {
        self.weight = 0;
        self.open.take().is_some()
    }

    /// A request failed. True: the endpoint is left alone from now on.
    pub(super) fn fail(&mut self, now: Instant, failure: Failure) -> bool {
        self.weight = self.weight.saturating_add(failure.weight());
        if self.open.is_some() || self.weight < MOST {
            return false;
        }
        self.open = Some(Open { probe_at: now + FIRST_WAIT, wait: FIRST_WAIT });
        true
    }

    /// A probe failed. True: the endpoint is left alone from now on.
    pub(super) fn fail_probe(&mut self, now: Instant) -> bool {
        let wait = self.open.map_or(FIRST_WAIT, |open| (open.wait * 2).min(LAST_WAIT));
        self.open.replace(Open { probe_at: now + wait, wait }).is_none()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn failures_on_end_open_it_and_one_success_between_them_does_not() {
        let (mut breaker, now) = (Breaker::default(), clock::now());
        assert!(!breaker.fail(now, Failure::Gone) && !breaker.fail(now, Failure::Gone));
        assert!(!breaker.succeed(), "it was not open");
        assert!(!breaker.fail(now, Failure::Gone) && !breaker.fail(now, Failure::Gone) && breaker.is_closed());
        assert!(breaker.fail(now, Failure::Gone) && !breaker.is_closed());
        assert!(!breaker.fail(now, Failure::Gone), "only once");
        let mut late = Breaker::default();
        let opened = (0..).find(|_| late.fail(now, Failure::Late));
        assert_eq!(opened, Some(11));
    }

    #[test]
    fn it_is_probed_less_and_less_often_and_closes_with_the_first_success() {
        let (mut breaker, mut now) = (Breaker::unknown(clock::now()), clock::now() + FIRST_WAIT);
        assert!(breaker.is_due(now) && !breaker.is_closed());
        let mut waits = Vec::new();
        for _ in 0..6 {
            let failed = now;
            assert!(!breaker.fail_probe(failed), "it was open");
            while !breaker.is_due(now) {
                now += Duration::from_millis(250);
            }
            waits.push((now - failed).as_millis());
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 5000, 5000]);
        assert!(breaker.succeed() && breaker.is_closed() && !breaker.is_due(now));
        assert!(breaker.fail_probe(now) && !breaker.is_closed());
    }
}
