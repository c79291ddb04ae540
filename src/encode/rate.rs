//! How many bits the encoder may spend, from the picture's size and the transport's estimate.

/// Bounds of the bitrate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Bits a second below which video is not worth sending (100 000).
    pub min_bps: u32,
    /// Bits a second that are never exceeded (12 000 000).
    pub max_bps: u32,
    /// Share of the estimate that the video takes (0.85); the rest is for packet headers, retransmissions and results.
    pub share: f64,
    /// Relative change below which the encoder is left alone (0.08).
    pub hysteresis: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_bps: 100_000, max_bps: 12_000_000, share: 0.85, hysteresis: 0.08 }
    }
}

/// Chooses the encoder's bitrate.
///
/// Without an estimate it is what the format deserves; with one, it follows the estimate up to twice of that.
#[derive(Debug, Clone)]
pub struct RateControl {
    config: Config,
    format_bps: u32,
    estimate_bps: Option<u64>,
    current_bps: u32,
}

impl RateControl {
    /// For pictures of the given size at `fps` pictures a second.
    #[must_use]
    pub fn new(config: Config, width: u32, height: u32, fps: f64) -> Self {
        let mut control =
            Self { config, format_bps: for_format(width, height, fps), estimate_bps: None, current_bps: 0 };
        control.current_bps = control.wanted();
        control
    }

    /// The bitrate to encode with, in bits a second.
    #[must_use]
    pub const fn bitrate(&self) -> u32 {
        self.current_bps
    }

    /// The pictures' size or rate has changed. Returns the new bitrate if it differs enough to matter.
    pub fn handle_format(&mut self, width: u32, height: u32, fps: f64) -> Option<u32> {
        self.format_bps = for_format(width, height, fps);
        self.follow()
    }

    /// The transport estimates that `bps` bits a second get through. Returns the new bitrate if it differs enough to
    /// matter.
    pub fn handle_estimate(&mut self, bps: u64) -> Option<u32> {
        self.estimate_bps = Some(bps);
        self.follow()
    }

    fn follow(&mut self) -> Option<u32> {
        let wanted = self.wanted();
        let change = (f64::from(wanted) - f64::from(self.current_bps)).abs() / f64::from(self.current_bps.max(1));
        // The bounds are reached exactly, however small the last step.
        let at_bound = wanted == self.config.min_bps || wanted == self.ceiling();
        if wanted == self.current_bps || (change < self.config.hysteresis && !at_bound) {
            return None;
        }
        self.current_bps = wanted;
        Some(wanted)
    }

    fn wanted(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a float saturates, and is clamped"
        )]
        let wanted = self.estimate_bps.map_or(self.format_bps, |bps| (bps as f64 * self.config.share) as u32);
        wanted.clamp(self.config.min_bps, self.ceiling())
    }

    fn ceiling(&self) -> u32 {
        self.format_bps.saturating_mul(2).clamp(self.config.min_bps, self.config.max_bps)
    }
}

/// Bits a second that give a decent picture with the fast settings of live encoding: 1.5 Mbit/s for 640x480 at 30
/// pictures a second; larger pictures need fewer bits a pixel, and faster ones fewer a picture.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
fn for_format(width: u32, height: u32, fps: f64) -> u32 {
    let pixels = f64::from(width) * f64::from(height) / (640.0 * 480.0);
    let rate = fps.clamp(1.0, 120.0) / 30.0;
    (1_500_000.0 * pixels.powf(0.75) * rate.sqrt()) as u32
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn control() -> RateControl {
        RateControl::new(Config::default(), 640, 480, 30.0)
    }

    #[test]
    fn the_start_depends_on_size_and_rate() {
        let start = |width, height, fps| RateControl::new(Config::default(), width, height, fps).bitrate();
        assert_eq!(start(640, 480, 30.0), 1_500_000);
        assert!((3_000_000..4_000_000).contains(&start(1_280, 720, 30.0)));
        assert!(start(640, 480, 15.0) < start(640, 480, 30.0));
        assert_eq!(start(16, 16, 1.0), 100_000);
        assert_eq!(start(u32::MAX, u32::MAX, 120.0), 12_000_000);
    }

    #[test]
    fn it_follows_the_estimate_within_its_bounds() {
        let mut control = control();
        assert_eq!(control.handle_estimate(1_000_000), Some(850_000));
        assert_eq!(control.handle_estimate(10), Some(100_000));
        assert_eq!(control.handle_estimate(u64::MAX), Some(3_000_000));
        assert_eq!(control.handle_estimate(u64::MAX - 1), None);
    }

    #[test]
    fn small_changes_do_nothing_until_they_add_up() {
        let mut control = control();
        control.handle_estimate(1_000_000);
        for bps in [1_030_000, 970_000, 1_060_000, 940_000] {
            assert_eq!(control.handle_estimate(bps), None);
        }
        assert_eq!(control.handle_estimate(1_100_000), Some(935_000));
        // The ceiling is reached even by a step that would be too small elsewhere.
        control.handle_estimate(3_400_000);
        assert_eq!(control.handle_estimate(4_000_000), Some(3_000_000));
    }

    #[test]
    fn a_new_format_moves_the_ceiling() {
        let mut control = control();
        control.handle_estimate(20_000_000);
        assert_eq!(control.bitrate(), 3_000_000);
        assert!(control.handle_format(1_280, 720, 30.0).unwrap() > 6_000_000);
        assert_eq!(control.handle_format(320, 240, 30.0), Some(control.bitrate()));
        assert!(control.bitrate() < 1_100_000);
    }
}
