use std::time::Duration;

use crate::estimate::Estimate;

/// How fast buckets that are not run come back to the proportion in which all were measured.
const FOLLOW: f64 = 1.0 / 16.0;

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
        let before = run.estimate.get().as_secs_f64();
        run.estimate.update(took);
        let (first, mean) = (run.first, run.estimate.get().as_secs_f64());
        if first <= 0.0 || before <= 0.0 {
            return;
        }
        let half = (mean / before).sqrt();
        for other in self.0.iter_mut().filter(|bucket| bucket.size != size) {
            let expected = mean * other.first / first;
            let followed = other.estimate.get().as_secs_f64() * half;
            other.estimate =
                other.estimate.moved_to(Duration::from_secs_f64(followed + (expected - followed) * FOLLOW));
        }
    }

    /// Leaves out the buckets from this size on; a single frame stays.
    pub fn cut(&mut self, size: usize) {
        self.0.retain(|bucket| bucket.size < size.max(2));
    }
}
