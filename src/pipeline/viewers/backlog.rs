use std::time::{Duration, Instant};

/// Time that what was sent may need to get through, beyond which more would only wait on the way.
const LONGEST: Duration = Duration::from_millis(500);

/// What a path is taken to carry, as a multiple of its estimate: that follows what is sent, and lags behind a stream whose
/// bitrate rises.
const SLACK: f64 = 1.5;

/// How far a viewer's path is behind: what was sent, less what the path has carried since. Where nothing tells of the
/// path, it counts as wide enough.
#[derive(Debug)]
pub(super) struct Backlog {
    bits: f64,
    at: Instant,
}

impl Backlog {
    pub(super) const fn new(now: Instant) -> Self {
        Self { bits: 0.0, at: now }
    }

    /// Whether so many more bytes would be through in time on a path of this bandwidth, in bits a second. A single frame
    /// always is, however large.
    pub(super) fn takes(&mut self, now: Instant, bytes: usize, bandwidth: Option<u32>) -> bool {
        let Some(bandwidth) = bandwidth else { return true };
        self.carry(now, bandwidth);
        let bits = bytes as f64 * 8.0;
        if self.bits > 0.0 && self.bits + bits > f64::from(bandwidth) * SLACK * LONGEST.as_secs_f64() {
            return false;
        }
        self.bits += bits;
        true
    }

    /// Whether the path has carried everything.
    pub(super) fn is_clear(&mut self, now: Instant, bandwidth: Option<u32>) -> bool {
        let Some(bandwidth) = bandwidth else { return true };
        self.carry(now, bandwidth);
        self.bits <= 0.0
    }

    fn carry(&mut self, now: Instant, bandwidth: u32) {
        let carried = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(bandwidth) * SLACK;
        self.bits = (self.bits - carried).max(0.0);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thought to carry a megabit a second.
    const PATH: Option<u32> = Some(666_667);

    #[test]
    fn a_path_that_is_wide_enough_takes_everything() {
        let mut now = crate::clock::now();
        let mut backlog = Backlog::new(now);
        // 0.9 Mbit/s at 30 frames a second, a keyframe of a third of a second's bits among them.
        for number in 0..300 {
            let bytes = if number % 100 == 50 { 40_000 } else { 3_750 };
            assert!(backlog.takes(now, bytes, PATH), "{number}");
            now += Duration::from_millis(33);
        }
    }

    #[test]
    fn a_narrow_path_takes_what_it_can_carry() {
        let (start, mut taken) = (crate::clock::now(), 0);
        let mut backlog = Backlog::new(start);
        for number in 0..1000_u32 {
            let now = start + Duration::from_millis(10) * number;
            taken += u32::from(backlog.takes(now, 12_500, PATH));
        }
        // Ten seconds carry 10 Mbit, and half a megabit is under way.
        assert!((95..=106).contains(&taken), "{taken}");
        assert!(!backlog.is_clear(start + Duration::from_secs(10), PATH));
        assert!(backlog.is_clear(start + Duration::from_secs(11), PATH));
    }

    #[test]
    fn one_frame_is_taken_however_large() {
        let now = crate::clock::now();
        let mut backlog = Backlog::new(now);
        assert!(backlog.takes(now, 10_000_000, PATH));
        assert!(!backlog.takes(now, 1, PATH));
    }

    #[test]
    fn a_path_that_nobody_measured_takes_everything() {
        let now = crate::clock::now();
        let mut backlog = Backlog::new(now);
        assert!((0..100).all(|_| backlog.takes(now, 1_000_000, None)));
        assert!(backlog.is_clear(now, None));
    }
}
