use std::time::Instant;

/// Bytes that may come at once where a second's worth is less: a large keyframe.
const LEAST_BURST: f64 = (1 << 20) as f64;

/// Bounds the bits a second of one track by a token bucket (RFC 2697 calls it a committed burst).
#[derive(Debug)]
pub(super) struct Allowance {
    bytes_a_second: f64,
    burst: f64,
    left: f64,
    at: Option<Instant>,
}

impl Allowance {
    pub(super) fn new(bits_a_second: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a bitrate")]
        let bytes_a_second = bits_a_second as f64 / 8.0;
        let burst = bytes_a_second.max(LEAST_BURST);
        Self { bytes_a_second, burst, left: burst, at: None }
    }

    /// Whether so many bytes may come now; what may not counts for nothing.
    pub(super) fn takes(&mut self, now: Instant, bytes: usize) -> bool {
        let passed = self.at.replace(now).map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.left = passed.mul_add(self.bytes_a_second, self.left).min(self.burst);
        #[expect(clippy::cast_precision_loss, reason = "a packet")]
        let bytes = bytes as f64;
        let takes = bytes <= self.left;
        if takes {
            self.left -= bytes;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_comes_within_the_rate_is_taken_and_no_more_than_that_of_what_comes_faster() {
        let start = crate::clock::now();
        // 1 Mbit/s in packets of 1000 bytes is one each 8 ms.
        let taken = |every: u64| {
            let mut allowance = Allowance::new(1_000_000);
            let packets = 60_000 / every;
            let at = |packet: u64| start + Duration::from_millis(packet * every);
            (0..packets).filter(|packet| allowance.takes(at(*packet), 1_000)).count() as f64 / packets as f64
        };
        assert!((taken(8) - 1.0).abs() < 1e-9);
        // What may come at once is eight seconds' worth here, and is used up first.
        let most = (60.0 * 125_000.0 + LEAST_BURST) / (1_000.0 * 60_000.0);
        assert!((taken(1) - most).abs() < 0.001, "{} instead of {most}", taken(1));
    }
}
