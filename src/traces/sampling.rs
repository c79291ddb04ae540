use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Traces of requests and set-ups a second in the long run, whatever callers want.
const PER_SECOND: f64 = 20.0;
/// Such traces at once.
const BURST: f64 = 40.0;

/// What is traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Share of the sessions whose set-up is traced where their caller says nothing of that, 0 to 1.
    pub ratio: f64,
    /// Frames a second, of all sessions together, that are traced at most; 0 for none.
    pub frames_per_s: u32,
}

/// Whether something of this probability is the case.
pub(super) fn happens(probability: f64) -> bool {
    probability >= 1.0 || fraction() < probability
}

/// A random number of 0 to 1, without 1.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0
}

/// A bucket of tokens.
pub(super) struct Allowance(Mutex<(f64, Instant)>);

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new((BURST, now)))
    }

    pub(super) fn take(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, at) = *state;
        let tokens = (tokens + now.saturating_duration_since(at).as_secs_f64() * PER_SECOND).min(BURST);
        let is_there = tokens >= 1.0;
        *state = (if is_there { tokens - 1.0 } else { tokens }, at.max(now));
        is_there
    }
}

/// Lets something through so many times a second on average, at times that nobody can foresee: what comes in step with
/// others would be chosen always or never.
pub(super) struct Pace {
    period: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Option<Self> {
        let period = Duration::from_secs(1).checked_div(per_second)?;
        Some(Self { period, next: Mutex::default() })
    }

    /// Whether it is time. A thread that would have to wait to learn that goes on without.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut next = match self.next.try_lock() {
            Ok(next) => next,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return false,
        };
        if next.is_some_and(|next| now < next) {
            return false;
        }
        *next = Some(now + self.period.mul_f64(0.5 + fraction()));
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn frames_are_chosen_at_the_pace_on_average_and_no_faster_than_twice_that() {
        let start = crate::clock::now();
        let pace = Pace::new(4).unwrap();
        let due: Vec<u64> = (0..60_000).filter(|millis| pace.is_due(start + Duration::from_millis(*millis))).collect();
        assert!((200..=280).contains(&due.len()), "{}", due.len());
        assert!(due.windows(2).all(|pair| (125..=376).contains(&(pair[1] - pair[0]))));
        assert!(Pace::new(0).is_none());
    }

    #[test]
    fn chance_keeps_its_share() {
        let hits = (0..4000).filter(|_| happens(0.25)).count();
        assert!((800..1200).contains(&hits), "{hits}");
        assert!(happens(1.0) && !happens(0.0));
    }
}
