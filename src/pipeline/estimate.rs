use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Deviations above the mean that a stage is taken to need.
const MARGIN: u64 = 2;

/// A running estimate of how long a stage takes for a frame: an exponentially weighted mean and mean deviation, as a TCP
/// round trip's (RFC 6298 section 2).
///
/// It follows a faster run at once and a slower one gradually: one slow frame, such as the first, must not make every
/// later one count as late, since a late frame never gets that far and would never correct it.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    /// Mean and deviation in microseconds, in the upper and the lower half. Where two threads write at once, one of the
    /// runs does not count.
    packed: AtomicU64,
}

impl Estimate {
    /// From a mean that was measured before.
    pub(super) fn starting_at(mean: Duration) -> Self {
        let estimate = Self::default();
        estimate.write(mean.as_micros().min(u128::from(u32::MAX)) as u64, 0);
        estimate
    }

    /// Takes a run into account.
    pub(super) fn learn(&self, took: Duration) {
        let took = took.as_micros().min(u128::from(u32::MAX)) as u64;
        let (mean, deviation) = self.read();
        let (mean, deviation) = if took < mean {
            (took, deviation - (deviation.saturating_sub(mean - took)) / 4)
        } else {
            let above = took - mean;
            (
                mean + above / 8,
                if above > deviation {
                    deviation + (above - deviation) / 8
                } else {
                    deviation - (deviation - above) / 4
                },
            )
        };
        self.write(mean, deviation);
    }

    /// The mean.
    pub(super) fn mean(&self) -> Duration {
        Duration::from_micros(self.read().0)
    }

    /// What most runs do not exceed: the mean and [`MARGIN`] deviations.
    pub(super) fn upper(&self) -> Duration {
        let (mean, deviation) = self.read();
        Duration::from_micros(mean + MARGIN * deviation)
    }

    /// The work of a frame has changed by this factor: pictures of another size come.
    pub(super) fn scale(&self, factor: f64) {
        let (mean, deviation) = self.read();
        let scaled = |value: u64| (value as f64 * factor) as u64;
        self.write(scaled(mean), scaled(deviation));
    }

    fn read(&self) -> (u64, u64) {
        let packed = self.packed.load(Ordering::Relaxed);
        (packed >> 32, packed & u64::from(u32::MAX))
    }

    fn write(&self, mean: u64, deviation: u64) {
        let half = |value: u64| value.min(u64::from(u32::MAX));
        self.packed.store(half(mean) << 32 | half(deviation), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_follows_faster_runs_at_once_and_slower_ones_gradually() {
        let estimate = Estimate::default();
        estimate.learn(80 * MS);
        assert_eq!(estimate.mean(), 10 * MS);
        estimate.learn(3 * MS);
        assert_eq!(estimate.mean(), 3 * MS);
        for _ in 0..100 {
            estimate.learn(20 * MS);
        }
        assert!(estimate.mean() > 19 * MS && estimate.upper() < 24 * MS, "{estimate:?}");
    }

    #[test]
    fn what_varies_needs_more_than_its_mean() {
        let (steady, jumpy) = (Estimate::default(), Estimate::default());
        for run in 0..200 {
            steady.learn(10 * MS);
            jumpy.learn(if run % 4 == 0 { 30 * MS } else { 8 * MS });
        }
        assert!(steady.upper() - steady.mean() < MS);
        assert!(jumpy.upper() > jumpy.mean() + MS, "{jumpy:?}");
    }

    #[test]
    fn four_times_the_pixels_take_four_times_as_long() {
        let estimate = Estimate::default();
        for _ in 0..100 {
            estimate.learn(4 * MS);
        }
        estimate.scale(4.0);
        assert!(estimate.mean() > 15 * MS && estimate.mean() <= 16 * MS, "{estimate:?}");
    }
}
