use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Lets one log line a second through and counts the others.
///
/// ```
/// use saccade::{clock, telemetry::EverySecond};
///
/// static LATE: EverySecond = EverySecond::new();
/// if let Some(suppressed) = LATE.pass(clock::now()) {
///     tracing::warn!(suppressed, "a frame came too late");
/// }
/// ```
#[derive(Debug)]
pub struct EverySecond {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl EverySecond {
    /// One for each place that logs, usually a `static`.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { last: None, suppressed: 0 }) }
    }

    /// Whether a line may be written now; if so, how many were suppressed since the last.
    #[must_use]
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < SECOND) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

impl Default for EverySecond {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_passes_and_says_how_many_did_not() {
        let gate = EverySecond::new();
        let start = crate::clock::now();
        let at = |millis| gate.pass(start + Duration::from_millis(millis));
        assert_eq!(at(0), Some(0));
        assert_eq!((at(1), at(999)), (None, None));
        assert_eq!(at(1000), Some(2));
        assert_eq!(at(1999), None);
        assert_eq!(at(5000), Some(1));
    }
}
