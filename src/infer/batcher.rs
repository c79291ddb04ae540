//! Which waiting frame a free instance takes next. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// A session that got no result for this long gets one even if it will be late, so that it sees something while the
/// model is slower than its budget.
pub const STARVATION: Duration = Duration::from_secs(1);

/// A frame (or picture) that waits for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Whose it is; handed back in the [`Choice`].
    pub key: usize,
    /// When its result is due.
    pub deadline: Instant,
    /// When its session last got a result, or joined; none: it runs however late it is.
    pub last_result: Option<Instant>,
}

/// What to do with a waiting frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Run it.
    Run(usize),
    /// Give it back: it can't be done in time.
    Late(usize),
}

/// The most urgent of the waiting frames and what to do with it. `estimate` is how long one takes from preprocessing
/// to detections.
#[must_use]
pub fn choose(now: Instant, estimate: Duration, waiting: &[Waiting]) -> Option<Choice> {
    let first = waiting.iter().min_by_key(|waiting| waiting.deadline)?;
    Some(if is_late(now, estimate, first) { Choice::Late(first.key) } else { Choice::Run(first.key) })
}

/// Whether a frame is to be given back rather than run.
#[must_use]
pub fn is_late(now: Instant, estimate: Duration, waiting: &Waiting) -> bool {
    let starving = waiting.last_result.is_none_or(|last| now.saturating_duration_since(last) >= STARVATION);
    now + estimate > waiting.deadline && !starving
}

/// A running estimate of how long one frame takes.
///
/// It rises slowly and falls fast, so that a single hiccup does not make every frame look late: while frames are
/// given back there are few new measurements to correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate(Duration);

impl Estimate {
    /// Starts from a first measurement.
    #[must_use]
    pub const fn new(first: Duration) -> Self {
        Self(first)
    }

    /// The estimate.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Takes a measurement into account.
    pub fn update(&mut self, measured: Duration) {
        self.0 = if measured < self.0 { (self.0 + measured) / 2 } else { self.0 + (measured - self.0) / 8 };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_earliest_deadline_goes_first_whatever_the_order() {
        let now = clock::now();
        let waiting = [(0, 50), (1, 20), (2, 90)].map(|(key, left)| Waiting {
            key,
            deadline: now + left * MS,
            last_result: Some(now),
        });
        assert_eq!(choose(now, 10 * MS, &waiting), Some(Choice::Run(1)));
        assert_eq!(choose(now, 10 * MS, &[]), None);
    }

    #[test]
    fn a_frame_that_cannot_make_it_is_late_and_one_that_just_can_is_not() {
        let now = clock::now();
        let waiting = Waiting { key: 7, deadline: now + 20 * MS, last_result: Some(now) };
        assert_eq!(choose(now, 20 * MS, &[waiting]), Some(Choice::Run(7)));
        assert_eq!(choose(now, 21 * MS, &[waiting]), Some(Choice::Late(7)));
        assert_eq!(choose(now + 30 * MS, Duration::ZERO, &[waiting]), Some(Choice::Late(7)));
    }

    #[test]
    fn a_session_without_results_for_a_second_is_served_late() {
        let start = clock::now();
        let waiting = |now| Waiting { key: 0, deadline: now + 10 * MS, last_result: Some(start) };
        let almost = start + STARVATION - MS;
        assert_eq!(choose(almost, 500 * MS, &[waiting(almost)]), Some(Choice::Late(0)));
        let then = start + STARVATION;
        assert_eq!(choose(then, 500 * MS, &[waiting(then)]), Some(Choice::Run(0)));
        let offline = Waiting { key: 1, deadline: start, last_result: None };
        assert_eq!(choose(then, 500 * MS, &[offline]), Some(Choice::Run(1)));
    }

    #[test]
    fn a_hiccup_moves_the_estimate_little_and_it_recovers_fast() {
        let mut estimate = Estimate::new(20 * MS);
        estimate.update(820 * MS);
        assert_eq!(estimate.get(), 120 * MS);
        for _ in 0..5 {
            estimate.update(20 * MS);
        }
        assert!(estimate.get() < 25 * MS, "{estimate:?}");
        for _ in 0..100 {
            estimate.update(50 * MS);
        }
        assert!(estimate.get() > 49 * MS, "{estimate:?}");
    }

    proptest! {
        #[test]
        fn nothing_more_urgent_is_passed_over(
            lefts in prop::collection::vec(0u32..300, 1..20), estimate in 0u32..100, age in 0u32..2000,
        ) {
            let start = clock::now();
            let now = start + age * MS;
            let waiting = lefts.iter().enumerate().map(|(key, left)| Waiting {
                key, deadline: now + *left * MS, last_result: Some(start),
            }).collect::<Vec<_>>();
            let least = *lefts.iter().min().unwrap();
            match choose(now, estimate * MS, &waiting).unwrap() {
                Choice::Run(key) => {
                    prop_assert_eq!(lefts[key], least);
                    prop_assert!(least >= estimate || age >= 1000);
                }
                Choice::Late(key) => {
                    prop_assert_eq!(lefts[key], least);
                    prop_assert!(least < estimate && age < 1000);
                }
            }
        }
    }
}
