//! Running estimates of how long something takes.
//!
//! A leaf: times come in, estimates leave; what is shared between threads waits for nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Share of a measurement above the estimate that is believed at once.
const RISE: f64 = 1.0 / 8.0;
/// Share of a measurement below it.
const FALL: f64 = 1.0 / 2.0;
/// How fast the deviation follows.
const SPREAD: f64 = 1.0 / 8.0;
/// What lies farther above the estimate than this many times the estimate counts as that far: how long a hiccup took says
/// nothing of the next run.
const HICCUP: f64 = 4.0;
/// Share of each measurement that goes into an [`Average`].
const WEIGHT: f64 = 1.0 / 64.0;

/// How long the next run may take: an exponentially weighted mean and mean deviation, as a TCP round trip's (RFC 6298
/// section 2).
///
/// It rises slowly, falls fast, and a single hiccup raises it by half at most: where what looks late is dropped unrun,
/// there are few new measurements to correct it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// In seconds.
    mean: f64,
    deviation: f64,
}

impl Estimate {
    /// Starts from a first measurement.
    #[must_use]
    pub const fn new(first: Duration) -> Self {
        Self { mean: first.as_secs_f64(), deviation: 0.0 }
    }

    /// The estimate.
    #[must_use]
    pub fn get(self) -> Duration {
        Duration::from_secs_f64(self.mean)
    }

    /// The estimate and the usual distance from it: few runs take longer.
    #[must_use]
    pub fn cautious(self) -> Duration {
        Duration::from_secs_f64(self.mean + self.deviation)
    }

    /// The estimate and twice the usual distance from it: hardly any run takes longer.
    #[must_use]
    pub fn upper(self) -> Duration {
        Duration::from_secs_f64(self.mean + 2.0 * self.deviation)
    }

    /// Takes a measurement into account.
    pub fn update(&mut self, measured: Duration) {
        let error = measured.as_secs_f64() - self.mean;
        let error = if self.mean > 0.0 { error.min(HICCUP * self.mean) } else { error };
        let spread = if self.mean > 0.0 { error.abs().min(self.mean) } else { 0.0 };
        self.mean += error * if error > 0.0 { RISE } else { FALL };
        self.deviation += (spread - self.deviation) * SPREAD;
    }

    /// With another mean, and as much deviation.
    #[must_use]
    pub const fn moved_to(self, mean: Duration) -> Self {
        Self { mean: mean.as_secs_f64(), ..self }
    }

    /// The work of a run has changed by this factor.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { mean: self.mean * factor, deviation: self.deviation * factor }
    }
}

/// An [`Estimate`] that several threads read and write. Where two write at once, one of the runs does not count.
#[derive(Debug, Default)]
pub struct SharedEstimate {
    /// Mean and deviation as [`f32`], in the upper and the lower half.
    packed: AtomicU64,
}

impl SharedEstimate {
    /// What it is now.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a packed pair")]
    pub fn get(&self) -> Estimate {
        let packed = self.packed.load(Ordering::Relaxed);
        let half = |bits: u64| f64::from(f32::from_bits(bits as u32));
        Estimate { mean: half(packed >> 32), deviation: half(packed) }
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        self.get().get()
    }

    /// What hardly any run exceeds.
    pub fn upper(&self) -> Duration {
        self.get().upper()
    }

    /// Takes a measurement into account.
    pub fn update(&self, measured: Duration) {
        let mut estimate = self.get();
        estimate.update(measured);
        self.set(estimate);
    }

    /// The work of a run has changed by this factor.
    pub fn scale(&self, factor: f64) {
        self.set(self.get().scaled(factor));
    }

    #[expect(clippy::cast_possible_truncation, reason = "seconds to seven digits are enough")]
    fn set(&self, Estimate { mean, deviation }: Estimate) {
        let bits = |value: f64| u64::from((value as f32).to_bits());
        self.packed.store(bits(mean) << 32 | bits(deviation), Ordering::Relaxed);
    }
}

/// What something costs in the long run: a mean that follows slower and faster runs alike. Several threads read and write
/// it; where two write at once, one of the runs does not count.
#[derive(Debug)]
pub struct Average {
    /// Seconds, as bits.
    mean: AtomicU64,
}

impl Average {
    /// Starts from what was measured before.
    #[must_use]
    pub fn new(first: Duration) -> Self {
        Self { mean: AtomicU64::new(first.as_secs_f64().to_bits()) }
    }

    /// The mean.
    pub fn get(&self) -> Duration {
        Duration::from_secs_f64(f64::from_bits(self.mean.load(Ordering::Relaxed)))
    }

    /// Takes a measurement into account.
    pub fn update(&self, measured: Duration) {
        let mean = f64::from_bits(self.mean.load(Ordering::Relaxed));
        let mean = mean + (measured.as_secs_f64() - mean) * WEIGHT;
        self.mean.store(mean.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(runs: impl IntoIterator<Item = Duration>) -> SharedEstimate {
        let estimate = SharedEstimate::default();
        runs.into_iter().for_each(|run| estimate.update(run));
        estimate
    }

    #[test]
    fn it_follows_faster_runs_quickly_and_slower_ones_gradually() {
        let estimate = after([80 * MS]);
        assert!(estimate.mean() <= 10 * MS, "the first run may be of a codec that sets itself up: {estimate:?}");
        (0..3).for_each(|_| estimate.update(2 * MS));
        assert!(estimate.mean() < 3 * MS + MS / 10, "{estimate:?}");
        (0..100).for_each(|_| estimate.update(20 * MS));
        assert!(estimate.mean() > 19 * MS && estimate.upper() < 24 * MS, "{estimate:?}");
    }

    #[test]
    fn a_hiccup_is_forgotten_at_once() {
        let estimate = after([5 * MS; 100]);
        estimate.update(1_000 * MS);
        assert!(estimate.upper() < 10 * MS, "{estimate:?}");
        let slower = after([5 * MS; 100]);
        (0..12).for_each(|_| slower.update(100 * MS));
        assert!(slower.mean() > 70 * MS, "what stays is no hiccup: {slower:?}");
    }

    #[test]
    fn what_varies_needs_more_than_its_mean() {
        let steady = after([10 * MS; 200]);
        let jumpy = after((0..200).map(|run| if run % 4 == 0 { 30 * MS } else { 8 * MS }));
        assert!(steady.upper() - steady.mean() < MS);
        assert!(jumpy.upper() > jumpy.mean() + MS, "{jumpy:?}");
    }

    #[test]
    fn four_times_the_pixels_take_four_times_as_long() {
        let estimate = after([4 * MS; 100]);
        estimate.scale(4.0);
        assert!(estimate.mean() > 15 * MS && estimate.mean() <= 16 * MS, "{estimate:?}");
    }

    #[test]
    fn an_average_does_not_prefer_fast_runs() {
        let average = Average::new(10 * MS);
        (0..1_000).for_each(|run| average.update(if run % 4 == 0 { 2 * MS } else { 20 * MS }));
        assert!(average.get() > 14 * MS && average.get() < 17 * MS, "{average:?}");
    }
}
