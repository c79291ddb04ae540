use std::time::Duration;

/// Share of a measurement above the estimate that is believed at once.
const RISE: f64 = 1.0 / 8.0;
/// Share of a measurement below it.
const FALL: f64 = 1.0 / 2.0;
/// How fast the deviation follows.
const SPREAD: f64 = 1.0 / 8.0;
/// How fast buckets that are not run come back to the proportion in which all were measured.
const FOLLOW: f64 = 1.0 / 16.0;

/// A running estimate of how long one run takes.
///
/// It rises slowly and falls fast, so that a single hiccup does not make every frame look late: while frames are
/// given back there are few new measurements to correct it.
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

    /// Takes a measurement into account.
    pub fn update(&mut self, measured: Duration) {
        let error = measured.as_secs_f64() - self.mean;
        self.mean += error * if error > 0.0 { RISE } else { FALL };
        // A hiccup counts as twice the estimate: how long it took says nothing of the next run.
        self.deviation += (error.abs().min(self.mean) - self.deviation) * SPREAD;
    }
}

/// What a run costs in each bucket, as measured: the buckets are the batch sizes that the model is run in.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs(Vec<Bucket>);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    size: usize,
    estimate: Estimate,
    /// Its time when all buckets were measured together, in seconds.
    first: f64,
}

impl Costs {
    /// From the time of one run in each bucket. Sizes rise and begin with 1.
    #[must_use]
    pub fn new(measured: &[(usize, Duration)]) -> Self {
        debug_assert!(measured.first().is_some_and(|(size, _)| *size == 1), "a single frame can always be run");
        debug_assert!(measured.is_sorted_by(|a, b| a.0 < b.0), "sizes rise");
        let bucket = |(size, time): &(usize, Duration)| Bucket {
            size: *size,
            estimate: Estimate::new(*time),
            first: time.as_secs_f64(),
        };
        Self(measured.iter().map(bucket).collect())
    }

    /// The buckets, smallest first.
    pub fn sizes(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.0.iter().map(|bucket| bucket.size)
    }

    /// The buckets and their estimates, smallest first.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, Estimate)> + '_ {
        self.0.iter().map(|bucket| (bucket.size, bucket.estimate))
    }

    /// Time of a single frame.
    #[must_use]
    pub fn single(&self) -> Duration {
        self.0.first().map_or(Duration::ZERO, |bucket| bucket.estimate.get())
    }

    /// Time of a run in this bucket.
    #[must_use]
    pub fn of(&self, size: usize) -> Duration {
        self.0.iter().find(|bucket| bucket.size == size).map_or_else(Duration::default, |bucket| bucket.estimate.get())
    }

    /// Takes a run's time into account. The buckets that were not run follow half of the way, since it may be the machine
    /// that has become faster or slower, and slowly come back to the proportion in which all were measured, so that a
    /// single bad time is not held against a bucket for ever.
    pub fn update(&mut self, size: usize, took: Duration) {
        let Some(run) = self.0.iter_mut().find(|bucket| bucket.size == size) else { return };
        let before = run.estimate.mean;
        run.estimate.update(took);
        let Bucket { first, estimate, .. } = *run;
        if first <= 0.0 || before <= 0.0 {
            return;
        }
        let half = (estimate.mean / before).sqrt();
        for other in self.0.iter_mut().filter(|bucket| bucket.size != size) {
            let expected = estimate.mean * other.first / first;
            let mean = other.estimate.mean * half;
            other.estimate.mean = mean + (expected - mean) * FOLLOW;
        }
    }

    /// Leaves out the buckets from this size on; a single frame stays.
    pub fn cut(&mut self, size: usize) {
        self.0.retain(|bucket| bucket.size < size.max(2));
    }
}
