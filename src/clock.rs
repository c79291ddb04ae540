//! The only caller of `now()`. Everything else takes the time as an argument, so that tests can make it up.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Monotonic time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that asks for monotonic time")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of Tokio's timers, which tests may pause.
#[cfg(test)]
pub fn timers() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Wall-clock time, for what people read; never for measuring.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that asks for wall-clock time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Time that the processors have worked for this process, all threads together.
#[must_use]
pub fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}
