use std::time::{Duration, Instant};

/// When a [`Breaker`] opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failures one after another that open it.
    pub failures: u32,
    /// How long it stays open the first time; it doubles with each trial that fails.
    pub pause: Duration,
    /// How long it stays open at most.
    pub longest: Duration,
    /// How long a trial may take to say how it went; then the next one may be made.
    pub trial: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            trial: Duration::from_secs(10),
        }
    }
}

/// Keeps calls away from what fails, and tries it now and then. A state machine without I/O: it is told the time.
///
/// Closed, every call may be made, and successes forgive failures. Open, none may until its pause is over. Then one may,
/// the trial: if it succeeds, all may; if it fails, or says nothing in time, the next pause is twice as long.
#[derive(Debug)]
pub struct Breaker {
    policy: Policy,
    state: State,
    pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Trial { until: Instant },
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub const fn new(policy: Policy) -> Self {
        Self { policy, state: State::Closed { failures: 0 }, pause: policy.pause }
    }

    /// Whether a call may be made now. Who is told so says how it went: [`Self::succeeded`] or [`Self::failed`].
    pub fn allow(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } | State::Trial { until } if now < until => false,
            State::Open { .. } | State::Trial { .. } => {
                self.state = State::Trial { until: now + self.policy.trial };
                true
            }
        }
    }

    /// A call succeeded. One that was made before it opened changes nothing.
    pub const fn succeeded(&mut self) {
        if matches!(self.state, State::Open { .. }) {
            return;
        }
        self.state = State::Closed { failures: 0 };
        self.pause = self.policy.pause;
    }

    /// A call failed, or took too long.
    pub fn failed(&mut self, now: Instant) {
        match &mut self.state {
            State::Open { .. } => {}
            State::Closed { failures } => {
                *failures += 1;
                if *failures >= self.policy.failures {
                    self.state = State::Open { until: now + self.pause };
                }
            }
            State::Trial { .. } => {
                self.pause = (self.pause * 2).min(self.policy.longest);
                self.state = State::Open { until: now + self.pause };
            }
        }
    }

    /// Whether calls are kept away, but for a trial.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const POLICY: Policy = Policy {
        failures: 3,
        pause: Duration::from_secs(1),
        longest: Duration::from_secs(3),
        trial: Duration::from_secs(5),
    };

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(POLICY);
        (0..3).for_each(|_| breaker.failed(now));
        breaker
    }

    #[test]
    fn failures_one_after_another_open_it_and_a_success_between_forgives() {
        let (mut breaker, now) = (Breaker::new(POLICY), clock::now());
        for _ in 0..5 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
            assert!(!breaker.is_open());
        }
        (0..3).for_each(|_| breaker.failed(now));
        assert!(breaker.is_open() && !breaker.allow(now));
    }

    #[test]
    fn one_trial_is_made_after_the_pause_and_decides() {
        let start = clock::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut breaker = opened(start);
        assert!(!breaker.allow(at(999)));
        assert!(breaker.allow(at(1000)) && !breaker.allow(at(1000)) && breaker.is_open());
        breaker.failed(at(1000));
        // Twice as long, then three seconds and never longer.
        assert!(!breaker.allow(at(2999)) && breaker.allow(at(3000)));
        breaker.failed(at(3000));
        assert!(!breaker.allow(at(5999)) && breaker.allow(at(6000)));
        breaker.failed(at(6000));
        assert!(!breaker.allow(at(8999)) && breaker.allow(at(9000)));
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.allow(at(9000)) && breaker.allow(at(9000)));
        // It begins anew.
        (0..3).for_each(|_| breaker.failed(at(9000)));
        assert!(!breaker.allow(at(9999)) && breaker.allow(at(10_000)));
    }

    #[test]
    fn a_trial_that_says_nothing_is_followed_by_another() {
        let start = clock::now();
        let mut breaker = opened(start);
        assert!(breaker.allow(start + Duration::from_secs(1)));
        assert!(!breaker.allow(start + Duration::from_millis(5999)));
        assert!(breaker.allow(start + Duration::from_secs(6)));
    }

    #[test]
    fn a_late_success_does_not_close_it() {
        let start = clock::now();
        let mut breaker = opened(start);
        breaker.succeeded();
        assert!(breaker.is_open() && !breaker.allow(start));
    }

    proptest! {
        /// Whatever happens, it is never open for longer than the longest pause or trial.
        #[test]
        fn it_always_lets_a_call_through_in_time(steps in proptest::collection::vec((0_u64..4000, 0_u8..3), 1..200)) {
            let (mut breaker, mut now) = (Breaker::new(POLICY), clock::now());
            for (wait, what) in steps {
                now += Duration::from_millis(wait);
                match what {
                    0 => { breaker.allow(now); }
                    1 => breaker.failed(now),
                    _ => breaker.succeeded(),
                }
                prop_assert!(breaker.pause <= POLICY.longest);
                if let State::Open { until } = breaker.state {
                    prop_assert!(until <= now + POLICY.longest);
                }
                if let State::Trial { until } = breaker.state {
                    prop_assert!(until <= now + POLICY.trial);
                }
            }
            prop_assert!(breaker.allow(now + POLICY.longest.max(POLICY.trial)));
        }
    }
}
