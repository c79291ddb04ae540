use std::time::Duration;

use crate::media::MediaTime;

/// Ticks of the RTP clock (90 kHz) since the first frame, without wrapping. Whole, so that sixty frames of 3000 ticks
/// are two seconds to the tick.
pub(super) type Ticks = u64;

/// The longest pause that counts: the time between two frames further apart is that of a stream that began anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Frames that come out of order are at most this far behind.
const LATEST: Duration = Duration::from_secs(1);

/// Turns media time, which wraps and jumps, into time that only goes on.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    last: Option<MediaTime>,
    now: Ticks,
}

impl Timeline {
    /// The time at `media`. It stands still for a frame that comes late, and for the first of a stream that began anew:
    /// how long that took, nobody knows.
    pub(super) fn advance(&mut self, media: MediaTime) -> Ticks {
        let last = *self.last.get_or_insert(media);
        if media.is_newer_than(last) {
            let step = Ticks::from(media.0.wrapping_sub(last.0));
            self.now += if step <= ticks(LONGEST_PAUSE) { step } else { 0 };
        } else if ticks(LATEST) >= Ticks::from(last.0.wrapping_sub(media.0)) {
            return self.now;
        }
        self.last = Some(media);
        self.now
    }
}

/// To the nearest tick.
pub(super) fn ticks(duration: Duration) -> Ticks {
    let ticks = (duration.as_nanos() * u128::from(MediaTime::CLOCK_RATE) + 500_000_000) / 1_000_000_000;
    Ticks::try_from(ticks).unwrap_or(Ticks::MAX)
}

pub(super) fn duration(ticks: Ticks) -> Duration {
    let rate = Ticks::from(MediaTime::CLOCK_RATE);
    Duration::from_secs(ticks / rate) + Duration::from_nanos(ticks % rate * 1_000_000_000 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_over_the_wrap() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.advance(MediaTime(u32::MAX - 2_999)), 0);
        assert_eq!(timeline.advance(MediaTime(0)), 3_000);
        assert_eq!(timeline.advance(MediaTime(3_000)), 6_000);
    }

    #[test]
    fn a_late_frame_and_a_new_stream_take_no_time() {
        let mut timeline = Timeline::default();
        for (media, now) in [(900_000, 0), (903_000, 3_000), (900_000, 3_000), (906_000, 6_000)] {
            assert_eq!(timeline.advance(MediaTime(media)), now, "{media}");
        }
        for (media, now) in [(10, 6_000), (3_010, 9_000), (2_000_000_000, 9_000), (2_000_003_000, 12_000)] {
            assert_eq!(timeline.advance(MediaTime(media)), now, "{media}");
        }
        assert_eq!(timeline.advance(MediaTime(2_000_003_000 + 20 * 90_000)), 12_000 + 20 * 90_000);
    }

    #[test]
    fn ticks_and_durations_are_each_other() {
        let day = Duration::from_secs(86_400);
        assert_eq!((ticks(day), duration(ticks(day))), (7_776_000_000, day));
        assert_eq!(duration(3_000), Duration::from_nanos(33_333_333));
        assert_eq!(ticks(duration(3_000)), 3_000);
        assert_eq!(ticks(Duration::MAX), Ticks::MAX);
    }
}
