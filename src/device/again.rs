//! When a GPU is tried again that software took over from.

use std::ops::Add;
use std::time::Duration;

use super::Error;

/// First wait before a GPU that had no room, or failed, is tried again. It doubles each time.
const RETRY: Duration = Duration::from_secs(10);
const MAX_RETRY: Duration = Duration::from_mins(5);

/// Width and height of pictures, as far as they are known.
pub type Size = Option<(u32, u32)>;

/// Why software does what a GPU was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The GPU is lost.
    Lost,
    /// It has no room.
    Full,
    /// It failed, and may do better later.
    Failed,
    /// It does not do it, or not for such pictures.
    Unsupported,
    /// What was to be done is broken.
    Broken,
}

impl Reason {
    /// What a GPU's error says.
    #[must_use]
    pub const fn of(error: &Error) -> Self {
        match error {
            Error::Lost(_) => Self::Lost,
            Error::OutOfMemory | Error::Exhausted(_) => Self::Full,
            Error::Size(_) | Error::Bounds | Error::Failed(_) => Self::Failed,
        }
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
            Self::Broken => "broken",
        }
    }
}

/// When a GPU is tried again, by a clock whose times are `T`: after a while if it had no room or failed, at once when
/// pictures of another size come than those it does not do, and never when it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again<T> {
    until: Until<T>,
    /// Before the next try, if it is for time.
    wait: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until<T> {
    Never,
    /// Pictures of another size than this come.
    OtherSize(Size),
    Time(T),
}

impl<T: Copy + PartialOrd + Add<Duration, Output = T>> Again<T> {
    /// For a GPU that was not to be had before the first picture: with that one, if it may be later.
    #[must_use]
    pub const fn with_the_first(reason: Reason) -> Self {
        let until = match reason {
            Reason::Lost | Reason::Unsupported => Until::Never,
            Reason::Full | Reason::Failed | Reason::Broken => Until::OtherSize(None),
        };
        Self { until, wait: RETRY }
    }

    /// For a GPU that gave up at `now` on a picture of this size.
    #[must_use]
    pub fn after(reason: Reason, now: T, size: Size) -> Self {
        Self { until: until(reason, now + RETRY, size), wait: RETRY }
    }

    /// It was tried at `now` on a picture of this size, and gave up again.
    pub fn put_off(&mut self, reason: Reason, now: T, size: Size) {
        self.wait = (self.wait * 2).min(MAX_RETRY);
        self.until = until(reason, now + self.wait, size);
    }

    /// Whether it is time for a picture of the size that `size` gives.
    pub fn is_due(&self, now: T, size: impl FnOnce() -> Size) -> bool {
        match self.until {
            Until::Never => false,
            Until::OtherSize(other) => size() != other,
            Until::Time(time) => now >= time,
        }
    }
}

fn until<T>(reason: Reason, time: T, size: Size) -> Until<T> {
    match reason {
        Reason::Lost => Until::Never,
        Reason::Unsupported => Until::OtherSize(size),
        Reason::Full | Reason::Failed | Reason::Broken => Until::Time(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const SMALL: Size = Some((64, 48));
    const LARGE: Size = Some((640, 480));

    #[test]
    fn waits_double_up_to_a_bound() {
        let mut again = Again::after(Reason::Full, 5 * S, SMALL);
        assert!(!again.is_due(14 * S, || LARGE) && again.is_due(15 * S, || SMALL));
        let mut now = 15 * S;
        for wait in [20, 40, 80, 160, 300, 300] {
            again.put_off(Reason::Failed, now, SMALL);
            assert!(!again.is_due(now + (wait - 1) * S, || SMALL), "{wait}");
            now += wait * S;
            assert!(again.is_due(now, || SMALL), "{wait}");
        }
        assert_eq!(Again::after(Reason::Full, now, SMALL), Again::after(Reason::Broken, now, LARGE), "it begins anew");
    }

    #[test]
    fn another_size_is_another_chance_and_a_lost_gpu_none() {
        let unsupported = Again::after(Reason::Unsupported, S, SMALL);
        assert!(!unsupported.is_due(1_000 * S, || SMALL) && unsupported.is_due(S, || LARGE));
        let mut again = Again::after(Reason::Full, S, SMALL);
        again.put_off(Reason::Lost, S, SMALL);
        assert!(!again.is_due(1_000 * S, || LARGE));
    }

    #[test]
    fn what_was_not_to_be_had_at_first_is_tried_with_the_first_picture() {
        for (reason, due) in [
            (Reason::Lost, false),
            (Reason::Unsupported, false),
            (Reason::Full, true),
            (Reason::Failed, true),
            (Reason::Broken, true),
        ] {
            assert_eq!(Again::with_the_first(reason).is_due(Duration::ZERO, || SMALL), due, "{reason:?}");
        }
    }
}
