use std::fmt;
use std::time::Duration;

/// A point on a video stream's RTP clock (90 kHz, RFC 3551 section 5), modulo 2³².
///
/// It is ordered only by wrapping distance, so there is no `Ord`: use [`MediaTime::is_newer_than`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MediaTime(pub u32);

impl MediaTime {
    /// Ticks a second of every video codec's RTP clock.
    pub const CLOCK_RATE: u32 = 90_000;

    /// Whether this point lies after `other`, less than half the number range away.
    #[must_use]
    pub const fn is_newer_than(self, other: Self) -> bool {
        let ahead = self.0.wrapping_sub(other.0);
        ahead != 0 && ahead < 1 << 31
    }

    /// Time from `earlier` to this point, wrap-around included.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let ticks = u64::from(self.0.wrapping_sub(earlier.0));
        Duration::from_nanos(ticks * 1_000_000_000 / u64::from(Self::CLOCK_RATE))
    }

    /// This point and `duration` more, to the nearest tick.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the RTP clock wraps")]
    pub fn after(self, duration: Duration) -> Self {
        let ticks = (duration.as_nanos() * u128::from(Self::CLOCK_RATE) + 500_000_000) / 1_000_000_000;
        Self(self.0.wrapping_add(ticks as u32))
    }
}

impl fmt::Display for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_distance_survive_the_wrap() {
        let before = MediaTime(u32::MAX - 1_499);
        let after = before.after(Duration::from_millis(1_000) / 30);
        assert_eq!(after, MediaTime(1_500));
        assert!(after.is_newer_than(before) && !before.is_newer_than(after) && !after.is_newer_than(after));
        assert_eq!(after.since(before), Duration::from_nanos(33_333_333));
    }
}
