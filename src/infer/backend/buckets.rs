use std::fmt;
use std::time::Duration;

use super::select::{Candidate, Opener};
use crate::child::Stop;
use crate::infer::error::Error;
use crate::infer::manifest::Batching;
use crate::infer::runner::Runner;

/// Timed runs of a bucket and of the one before it, in turns.
const TURNS: u32 = 3;
/// Frames a second that a bucket has to gain on the one before it, as a factor, to be kept.
const GAIN: f64 = 1.1;
/// What a bucket may take beyond `max_delay` in its first turn, as a factor, before the other turns are left out.
const HOPELESS: f64 = 1.5;
/// What the runs of one model may take together, opening aside. A bucket that would go beyond this if a batch took as long
/// as its frames one by one is not measured.
const LIMIT: Duration = Duration::from_secs(5);

/// The batch sizes that pay, each with the time of a run; and why the others do not.
#[derive(Debug)]
pub(super) struct Grown {
    pub(super) buckets: Vec<(usize, Duration)>,
    pub(super) reasons: Vec<String>,
    /// Nothing was left out for want of time.
    pub(super) complete: bool,
}

/// Why a batch size is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// Measuring it would take this long at the worst.
    Unmeasured { would_take: Duration },
    /// A frame in it takes too much longer than alone.
    Slow { time: Duration, single: Duration, max_delay: Duration },
    /// It gives hardly more frames a second than the size before it.
    NoGain { time: Duration, last: usize, best: Duration },
    /// It does not run.
    Failed(Error),
}

/// Runs batches for a measurement.
trait Runs {
    /// Runs a batch of this size, after making ready for it if it is the first one, and says how long the run took.
    fn run(&mut self, size: usize) -> Result<Duration, Error>;

    /// No batch of this size will be run again.
    fn give_up(&mut self, size: usize);
}

struct Trial<'a> {
    opener: &'a Opener,
    candidate: Candidate,
    runner: &'a mut Runner,
    /// See [`Opener::open_bucket`].
    build: Option<&'a Stop>,
    /// The largest size that is open.
    opened: usize,
}

impl Runs for Trial<'_> {
    fn run(&mut self, size: usize) -> Result<Duration, Error> {
        if size > self.opened {
            self.runner.add_bucket(size, self.opener.open_bucket(self.candidate, size, self.build)?);
            self.opened = size;
        }
        self.runner.time(size, 1)
    }

    fn give_up(&mut self, size: usize) {
        self.runner.drop_bucket(size);
    }
}

impl Opener {
    /// Measures larger batches, and leaves those that pay in the runner. `single` is the time of one frame.
    pub(super) fn grow(
        &self,
        runner: &mut Runner,
        candidate: Candidate,
        single: Duration,
        build: Option<&Stop>,
    ) -> Grown {
        let (model, batching) = (self.manifest.id(), &self.manifest.batching);
        if batching.buckets().len() > 1 && !self.graph(candidate).takes_batches() {
            tracing::info!(model, "the model's graph takes one picture a run: no batches");
            let reasons = vec!["batches: the graph takes one picture a run".to_owned()];
            return Grown { buckets: vec![(1, single)], reasons, complete: true };
        }
        grow(&model, batching, single, &mut Trial { opener: self, candidate, runner, build, opened: 1 })
    }
}

/// One size after the other is measured, as long as each gives more frames a second than the last that did. Of the sizes
/// that a manifest lists, each is, since a graph may gain from a large one what it does not gain from a smaller one.
fn grow(model: &str, batching: &Batching, single: Duration, runs: &mut dyn Runs) -> Grown {
    let mut grown = Grown { buckets: vec![(1, single)], reasons: Vec::new(), complete: true };
    let listed = !batching.preferred.is_empty();
    let mut left = LIMIT;
    for size in batching.buckets().into_iter().skip(1) {
        let size = size as usize;
        let Err(refusal) = try_bucket(&mut grown.buckets, size, batching.max_delay, &mut left, runs) else { continue };
        runs.give_up(size);
        let reason = refusal.to_string();
        if listed || !matches!(refusal, Refusal::NoGain { .. }) {
            tracing::info!(model, size, reason, "a batch size is not used");
        }
        grown.reasons.push(format!("batches of {size}: {reason}"));
        grown.complete &= !matches!(refusal, Refusal::Unmeasured { .. });
        if !(listed && matches!(refusal, Refusal::NoGain { .. })) {
            break;
        }
    }
    grown
}

/// Adds a bucket, if it pays. `left` is what runs may take yet.
fn try_bucket(
    buckets: &mut Vec<(usize, Duration)>,
    size: usize,
    max_delay: Duration,
    left: &mut Duration,
    runs: &mut dyn Runs,
) -> Result<(), Refusal> {
    let single = buckets.first().map_or(Duration::MAX, |(_, time)| *time);
    let Some((last, best)) = buckets.last_mut() else { return Ok(()) };
    #[expect(clippy::cast_precision_loss, reason = "a batch")]
    let (times, each) = (size as f64 / *last as f64, |size: usize, time: Duration| time.div_f64(size as f64));
    // Once to warm it up and once in turn with the other.
    let would_take = best.mul_f64(2.0 * times + 1.0);
    if would_take > *left {
        return Err(Refusal::Unmeasured { would_take });
    }
    let mut run = |size| {
        let took = runs.run(size).map_err(Refusal::Failed)?;
        *left = left.saturating_sub(took);
        Ok((took, left.is_zero()))
    };
    run(size)?;
    let mut time = Duration::MAX;
    for _ in 0..TURNS {
        *best = run(*last)?.0.min(*best);
        let (took, is_over) = run(size)?;
        time = took.min(time);
        if is_over || time.saturating_sub(single) > max_delay.mul_f64(HOPELESS) {
            break;
        }
    }
    if time.saturating_sub(single) > max_delay {
        return Err(Refusal::Slow { time, single, max_delay });
    }
    if each(*last, *best) < each(size, time).mul_f64(GAIN) {
        return Err(Refusal::NoGain { time, last: *last, best: *best });
    }
    buckets.push((size, time));
    Ok(())
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmeasured { would_take } => {
                write!(out, "not measured, since that might take {would_take:.1?} of {LIMIT:.0?} for all sizes")
            }
            Self::Slow { time, single, max_delay } => {
                write!(
                    out,
                    "{time:.1?}, longer than the {single:.1?} of one frame by more than max_delay_ms, {max_delay:.0?}"
                )
            }
            Self::NoGain { time, last, best } => {
                write!(out, "{time:.1?}, hardly more frames a second than with {best:.1?} for {last}")
            }
            Self::Failed(error) => error.fmt(out),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::infer::manifest::Manifest;

    const MS: Duration = Duration::from_millis(1);

    /// A machine on which a batch takes this many milliseconds.
    struct Fake<F> {
        takes: F,
        ran: Vec<usize>,
        took: Duration,
        given_up: Vec<usize>,
    }

    impl<F: Fn(usize) -> u32> Runs for Fake<F> {
        fn run(&mut self, size: usize) -> Result<Duration, Error> {
            let took = (self.takes)(size) * MS;
            self.ran.push(size);
            self.took += took;
            Ok(took)
        }

        fn give_up(&mut self, size: usize) {
            self.given_up.push(size);
        }
    }

    /// The sizes that are kept, those that were run, and what was found.
    fn sizes(batching: &str, takes: impl Fn(usize) -> u32) -> (Vec<usize>, Vec<usize>, Grown) {
        let text = format!(
            "name = 'a'\nversion = '1'\nlicence = 'MIT'\n[input]\nsize = [64, 32]\n[output]\ndecoder = 'yunet'\n\
             [classes]\nnames = ['face']\n[batching]\n{batching}\n"
        );
        let batching = Manifest::parse(&text, |_| unreachable!()).unwrap().batching;
        let single = takes(1) * MS;
        let mut fake = Fake { takes, ran: Vec::new(), took: Duration::ZERO, given_up: Vec::new() };
        let grown = grow("a@1", &batching, single, &mut fake);
        assert!(fake.took <= LIMIT, "{:?} for {:?}", fake.took, fake.ran);
        let kept: Vec<_> = grown.buckets.iter().map(|(size, _)| *size).collect();
        assert!(kept.iter().all(|size| !fake.given_up.contains(size)), "{kept:?}");
        fake.ran.sort_unstable();
        fake.ran.dedup();
        fake.ran.retain(|size| *size > 1);
        assert!(fake.ran.iter().all(|size| kept.contains(size) || fake.given_up.contains(size)), "left open");
        (kept, fake.ran, grown)
    }

    #[test]
    fn sizes_grow_as_long_as_each_gains() {
        let (kept, ran, grown) = sizes("max_batch = 16", |size| [4, 5, 7, 11, 21][size.ilog2() as usize]);
        assert_eq!((kept, ran), (vec![1, 2, 4, 8], vec![2, 4, 8, 16]));
        assert!(grown.complete && grown.reasons[0].starts_with("batches of 16: 21.0ms, hardly more"), "{grown:?}");
        let (kept, ran, grown) = sizes("", |size| 10 * size as u32);
        assert_eq!((kept, ran, grown.complete), (vec![1], vec![2], true));
    }

    #[test]
    fn a_slow_model_is_measured_in_what_its_preset_allows_and_its_manifest_lists() {
        // 40 ms for one, and each further frame a quarter of it.
        let takes = |size| 30 + 10 * size as u32;
        let (kept, ran, grown) = sizes("preset = 'throughput'", takes);
        assert_eq!((kept, ran, grown.complete), (vec![1, 2, 4, 8, 16], vec![2, 4, 8, 16, 32], true));
        assert!(grown.reasons[0].contains("350.0ms, longer than the 40.0ms of one frame by more than max_delay_ms"));
        assert_eq!(sizes("preset = 'latency'", takes).0, [1, 2, 4]);
        assert_eq!(sizes("preferred = [8]", takes).0, [1, 8]);
        // What takes as long as its frames one by one is known after a turn.
        assert_eq!(sizes("preferred = [8]", |size| 40 * size as u32).1, [8]);
    }

    #[test]
    fn each_listed_size_is_measured_whatever_a_smaller_one_gains() {
        let takes = |size| if size < 8 { 10 * size as u32 } else { 4 * size as u32 };
        let (kept, ran, grown) = sizes("preferred = [2, 4, 8]", takes);
        assert_eq!((kept, ran), (vec![1, 8], vec![2, 4, 8]));
        assert_eq!(grown.reasons.len(), 2, "{grown:?}");
        assert_eq!(sizes("max_batch = 8", takes).0, [1]);
    }

    #[test]
    fn what_would_take_too_long_is_not_measured_and_said_to_be_incomplete() {
        let (kept, ran, grown) = sizes("preferred = [1, 64]\nmax_batch = 64", |size| 100 * size as u32);
        assert_eq!((kept, ran, grown.complete), (vec![1], vec![], false));
        assert!(grown.reasons[0].starts_with("batches of 64: not measured"), "{grown:?}");
        // Sizes that all gain, and all take long.
        let (kept, _, grown) = sizes("max_batch = 64\nmax_delay_ms = 1000", |size| 60 + 40 * size as u32);
        assert!(kept.contains(&8) && !grown.complete, "{kept:?} {grown:?}");
    }
}
