//! How many bits the encoder may spend, from the picture's size and the transport's estimate, and which pictures are worth
//! them.

use std::time::{Duration, Instant};

/// What is given up where the path carries too little for each picture to be decent: from which share of the bits that
/// the format deserves on, and what. Fewer pictures first, since each of them keeps its detail; smaller ones then.
const ECONOMIES: [(f64, Economy); 3] = [
    (0.30, Economy { encode_every: 2, half_size: false }),
    (0.15, Economy { encode_every: 3, half_size: false }),
    (0.08, Economy { encode_every: 3, half_size: true }),
];
/// Bits have to be so many times those from which on something is given up before it is taken back.
const TAKEN_BACK: f64 = 1.25;
/// Pictures are simple that take less than this share of the bits that they may; it is looked at for so long.
const SIMPLE: f64 = 0.5;
const WINDOW: Duration = Duration::from_secs(1);
/// How long they have to be few, and enough again, before anything changes: a picture of another size is a keyframe.
const PATIENCE: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1_500)];

/// What a stream gives up for want of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Economy {
    /// One in so many pictures is encoded.
    pub encode_every: u32,
    /// Pictures have half the width and height.
    pub half_size: bool,
}

impl Economy {
    /// Nothing is given up.
    pub const NONE: Self = Self { encode_every: 1, half_size: false };
}

/// Bounds of the bitrate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Bits a second below which video is not worth sending (100 000).
    pub min_bps: u32,
    /// Bits a second that are never exceeded (12 000 000).
    pub max_bps: u32,
    /// Share of the estimate that the video takes (0.85); the rest is for packet headers, retransmissions and results.
    pub share: f64,
    /// Bits a second that a path is taken to carry before anything is known of it (1 500 000).
    pub assumed_bps: u32,
    /// Relative change below which the encoder is left alone (0.08).
    pub hysteresis: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_bps: 100_000, max_bps: 12_000_000, share: 0.85, assumed_bps: 1_500_000, hysteresis: 0.08 }
    }
}

/// Chooses the encoder's bitrate.
///
/// Without an estimate it is what the format deserves, or what is assumed of the path; with one, it follows the estimate
/// up to twice of that.
#[derive(Debug, Clone)]
pub struct RateControl {
    config: Config,
    format_bps: u32,
    estimate_bps: Option<u64>,
    current_bps: u32,
    /// How many of [`ECONOMIES`] are in force.
    economies: usize,
    /// Another number of them would do, and since when.
    other: Option<(usize, Instant)>,
    /// Since when bytes are summed up, and how many there are.
    window: Option<(Instant, usize)>,
    /// Bits a second that the last window took.
    spent_bps: Option<f64>,
}

impl RateControl {
    /// For pictures of the given size at `fps` pictures a second.
    #[must_use]
    pub fn new(config: Config, width: u32, height: u32, fps: f64) -> Self {
        let format_bps = for_format(width, height, fps);
        let mut control = Self {
            config,
            format_bps,
            estimate_bps: None,
            current_bps: 0,
            economies: 0,
            other: None,
            window: None,
            spent_bps: None,
        };
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

    /// Nobody measures the path any more. Returns the new bitrate if it differs enough to matter.
    pub fn forget_estimate(&mut self) -> Option<u32> {
        self.estimate_bps = None;
        self.follow()
    }

    /// A picture was encoded with so many bytes.
    pub fn handle_encoded(&mut self, now: Instant, bytes: usize) {
        let (since, sum) = self.window.map_or((now, 0), |(since, sum)| (since, sum + bytes));
        let age = now.saturating_duration_since(since);
        self.window = if age < WINDOW { Some((since, sum)) } else { Some((now, 0)) };
        if age >= WINDOW {
            self.spent_bps = Some(sum as f64 * 8.0 / age.as_secs_f64());
        }
    }

    /// What to give up. Nothing where nobody measures the path.
    pub fn economy(&mut self, now: Instant) -> Economy {
        let fit = self.fitting();
        if fit == self.economies {
            self.other = None;
        } else {
            let since = match self.other {
                Some((other, since)) if (other > self.economies) == (fit > self.economies) => since,
                _ => now,
            };
            self.other = Some((fit, since));
            if now >= since + PATIENCE[usize::from(fit < self.economies)] {
                (self.economies, self.other) = (fit, None);
            }
        }
        self.economies.checked_sub(1).map_or(Economy::NONE, |last| ECONOMIES[last].1)
    }

    /// How many economies the bits ask for.
    fn fitting(&self) -> usize {
        if self.estimate_bps.is_none() {
            return 0;
        }
        // What is simple takes fewer bits than it may: it is decent as it is, and may be tried with more pictures.
        if self.spent_bps.is_some_and(|spent| spent < f64::from(self.current_bps) * SIMPLE) {
            return self.economies.saturating_sub(1);
        }
        let share = f64::from(self.current_bps) / f64::from(self.format_bps.max(1));
        let keeps =
            |(index, limit): (usize, f64)| share < if index < self.economies { limit * TAKEN_BACK } else { limit };
        ECONOMIES.iter().map(|(limit, _)| *limit).enumerate().take_while(|&each| keeps(each)).count()
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
        let wanted = self
            .estimate_bps
            .map_or(self.format_bps.min(self.config.assumed_bps), |bps| (bps as f64 * self.config.share) as u32);
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
        assert_eq!(start(1_280, 720, 30.0), 1_500_000);
        assert!(start(640, 480, 15.0) < start(640, 480, 30.0));
        assert_eq!(start(16, 16, 1.0), 100_000);
    }

    #[test]
    fn pictures_are_given_up_before_their_size_is() {
        let (start, mut control) = (crate::clock::now(), control());
        let at = |control: &mut RateControl, bps: u64, seconds: u64| {
            control.handle_estimate(bps);
            control.economy(start + Duration::from_secs(seconds));
            control.economy(start + Duration::from_millis(seconds * 1_000 + 400))
        };
        assert_eq!(at(&mut control, 1_500_000, 0), Economy::NONE);
        assert_eq!(at(&mut control, 400_000, 1), Economy { encode_every: 2, half_size: false });
        assert_eq!(at(&mut control, 200_000, 2), Economy { encode_every: 3, half_size: false });
        assert_eq!(at(&mut control, 110_000, 3), Economy { encode_every: 3, half_size: true });
        // What was given up comes back later, and at more bits.
        assert_eq!(at(&mut control, 150_000, 4), Economy { encode_every: 3, half_size: true });
        assert_eq!(at(&mut control, 250_000, 5), Economy { encode_every: 3, half_size: true });
        assert_eq!(at(&mut control, 250_000, 7), Economy { encode_every: 3, half_size: false });
        assert_eq!(at(&mut control, 3_000_000, 8), Economy { encode_every: 3, half_size: false });
        assert_eq!(at(&mut control, 3_000_000, 10), Economy::NONE);
    }

    #[test]
    fn simple_pictures_come_back_though_the_path_shows_little() {
        let (start, mut control) = (crate::clock::now(), control());
        control.handle_estimate(200_000);
        let mut economies = Vec::new();
        for frame in 0..300 {
            let now = start + Duration::from_millis(frame * 33);
            // A fifth of what they may take, from the fifth second on.
            control.handle_encoded(now, if frame < 150 { 700 } else { 140 });
            let economy = control.economy(now);
            if economies.last() != Some(&economy) {
                economies.push(economy);
            }
        }
        let less = Economy { encode_every: 2, half_size: false };
        let least = Economy { encode_every: 3, half_size: false };
        assert_eq!(economies, [Economy::NONE, least, less, Economy::NONE]);
    }

    #[test]
    fn a_path_that_nobody_measures_any_more_is_assumed_again() {
        let mut control = control();
        assert_eq!(control.handle_estimate(200_000), Some(170_000));
        assert_eq!(control.forget_estimate(), Some(1_500_000));
        assert_eq!(control.forget_estimate(), None);
    }

    #[test]
    fn a_moment_of_few_bits_changes_nothing() {
        let (start, mut control) = (crate::clock::now(), control());
        for millisecond in 0..5_000 {
            let few = millisecond % 500 < 300;
            control.handle_estimate(if few { 110_000 } else { 1_500_000 });
            assert_eq!(control.economy(start + Duration::from_millis(millisecond)), Economy::NONE);
        }
    }

    #[test]
    fn nothing_is_given_up_where_nobody_measures() {
        let mut control = RateControl::new(Config::default(), 3_840, 2_160, 30.0);
        let now = crate::clock::now();
        assert_eq!(control.economy(now), Economy::NONE);
        assert_eq!(control.economy(now + Duration::from_secs(60)), Economy::NONE);
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
