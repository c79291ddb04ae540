use crate::media::MediaTime;

/// Ticks of the RTP clock a second.
const CLOCK: i64 = MediaTime::CLOCK_RATE as i64;
/// Longest distance between pictures that an encoder is told, in ticks: longer pauses say nothing about the rate.
const MAX_STEP: i64 = CLOCK / 4;
/// How much of a distance goes into the average.
const WEIGHT: f64 = 0.15;

/// The rate at which pictures come, by their RTP timestamps.
///
/// Encoders are opened for a rate and share their bitrate out among as many pictures a second: at another rate they have to
/// be told another bitrate.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    fps: f64,
    last: Option<MediaTime>,
    ticks: i64,
    step: f64,
}

impl Pace {
    /// For an encoder that is opened for so many pictures a second.
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    pub(super) fn new(fps: f64) -> Self {
        let fps = fps.clamp(1.0, 240.0);
        Self { fps, last: None, ticks: 0, step: CLOCK as f64 / fps }
    }

    /// Moves on to the next picture.
    #[expect(clippy::cast_precision_loss, reason = "steps are below a quarter of a second")]
    pub(super) fn advance(&mut self, time: MediaTime) {
        let Some(last) = self.last.replace(time) else { return };
        let step = i64::from(time.0.wrapping_sub(last.0).cast_signed()).clamp(1, MAX_STEP);
        self.ticks += step;
        self.step += (step as f64 - self.step) * WEIGHT;
    }

    /// Pictures a second that the encoder is opened for, 1..240.
    pub(super) const fn fps(&self) -> f64 {
        self.fps
    }

    /// Time of the picture in hand on a clock that never wraps.
    pub(super) const fn ticks(&self) -> i64 {
        self.ticks
    }

    /// Average distance of pictures in ticks, 375..90,000.
    pub(super) const fn step(&self) -> f64 {
        self.step
    }

    /// The bitrate to tell an encoder, so that `bps` comes out at the measured rate of pictures.
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    pub(super) fn told(&self, bps: f64) -> f64 {
        bps * self.fps * self.step / CLOCK as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_as_many_pictures_get_twice_the_bits() {
        let mut pace = Pace::new(30.0);
        assert!((pace.told(600_000.0) - 600_000.0).abs() < 1.0);
        // The clock wraps on the way.
        for index in 0..100_u32 {
            pace.advance(MediaTime(u32::MAX - 100_000).after(std::time::Duration::from_millis(1_000) / 15 * index));
        }
        assert!((pace.told(600_000.0) - 1_200_000.0).abs() < 1_000.0, "{}", pace.told(600_000.0));
        assert_eq!(pace.ticks(), 99 * 6_000);
    }

    #[test]
    fn pauses_and_steps_back_say_nothing() {
        let mut pace = Pace::new(30.0);
        pace.advance(MediaTime(0));
        pace.advance(MediaTime(90_000 * 60));
        assert_eq!(pace.ticks(), MAX_STEP);
        pace.advance(MediaTime(0));
        assert_eq!(pace.ticks(), MAX_STEP + 1);
        assert!(pace.step() < 6_000.0, "{}", pace.step());
    }
}
