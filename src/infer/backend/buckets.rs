use std::time::Duration;

use super::select::{Candidate, Opener};
use crate::clock;
use crate::infer::error::Error;
use crate::infer::runner::Runner;

/// Timed runs of a bucket and of the one before it, in turns.
const TURNS: u32 = 3;
/// Frames a second that a bucket has to gain on the one before it, as a factor, to be kept.
const GAIN: f64 = 1.1;
/// When this time is over, no larger bucket is measured.
const LIMIT: Duration = Duration::from_millis(250);

/// The batch sizes that pay, each with the time of a run; and why there are no larger ones.
pub(super) struct Grown {
    pub(super) buckets: Vec<(usize, Duration)>,
    pub(super) reason: Option<String>,
}

impl Opener {
    /// Measures larger batches one after the other, as long as each gives more frames a second than the one before, and
    /// leaves those that do in the runner. `single` is the time of one frame.
    pub(super) fn grow(&self, runner: &mut Runner, candidate: Candidate, single: Duration) -> Grown {
        let mut grown = Grown { buckets: vec![(1, single)], reason: None };
        let started = clock::now();
        for size in self.manifest.batching.buckets().into_iter().skip(1) {
            let size = size as usize;
            if !self.graph(candidate.precision).takes_batches() {
                grown.reason = Some("batches: the graph takes one picture a run".to_owned());
                tracing::info!(model = self.manifest.id(), "the model's graph takes one picture a run: no batches");
                break;
            }
            let left = LIMIT.saturating_sub(clock::now() - started);
            let tried = self.try_bucket(runner, candidate, &mut grown.buckets, size, left);
            if let Some(reason) = tried.unwrap_or_else(|error| Some(error.to_string())) {
                grown.reason = Some(format!("batches of {size}: {reason}"));
                runner.drop_bucket(size);
                break;
            }
        }
        grown
    }

    /// Adds a bucket; otherwise says why it does not pay.
    fn try_bucket(
        &self,
        runner: &mut Runner,
        candidate: Candidate,
        buckets: &mut Vec<(usize, Duration)>,
        size: usize,
        left: Duration,
    ) -> Result<Option<String>, Error> {
        let single = buckets.first().map_or(Duration::MAX, |(_, time)| *time);
        let Some((last, best)) = buckets.last_mut() else { return Ok(None) };
        #[expect(clippy::cast_precision_loss, reason = "a batch")]
        let (times, each) = (size as f64 / *last as f64, |size: usize, time: Duration| time.div_f64(size as f64));
        // Once to warm it up and once to time it.
        if best.mul_f64(2.0 * times) > left {
            return Ok(Some("not measured, since that would take too long".to_owned()));
        }
        runner.add_bucket(size, self.open_bucket(candidate, size)?);
        runner.time(size, 1)?;
        let (started, mut time) = (clock::now(), Duration::MAX);
        for _ in 0..TURNS {
            *best = runner.time(*last, 1)?.min(*best);
            time = runner.time(size, 1)?.min(time);
            if clock::now() - started > left {
                break;
            }
        }
        let max_delay = self.manifest.batching.max_delay;
        if time.saturating_sub(single) > max_delay {
            return Ok(Some(format!("{time:.1?}, beyond a frame's own and {max_delay:.0?}")));
        }
        if each(*last, *best) < each(size, time).mul_f64(GAIN) {
            return Ok(Some(format!("{time:.1?}, against {best:.1?} for {last}")));
        }
        buckets.push((size, time));
        Ok(None)
    }
}
