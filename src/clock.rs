//! The only caller of `now()`. Everything else takes the time as an argument, so that tests can make it up.

use std::time::{Instant, SystemTime};

/// Monotonic time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that asks for monotonic time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for what people read; never for measuring.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that asks for wall-clock time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
