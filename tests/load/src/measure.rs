//! What is counted and timed, for one session and for all.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time that is told apart from longer ones.
pub(crate) const LONGEST: Duration = Duration::from_secs(120);

/// Times, to a thousandth of themselves.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u32>);

/// Percentiles of a number of times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_max(micros(LONGEST), 3).unwrap_or_else(|_| unreachable!("the bounds are legal")))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Latencies {
    /// Takes a time; one over two minutes counts as two minutes.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(micros(time));
    }

    /// Takes all of another's.
    pub fn merge(&mut self, other: &Self) {
        // Bounds are the same.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds; `None` where nothing was recorded.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.0.mean() / 1e3)
    }

    /// `None` where nothing was recorded.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile: f64| round(self.0.value_at_quantile(quantile));
        (self.count() > 0).then(|| Percentiles {
            p50: at(0.50),
            p90: at(0.90),
            p95: at(0.95),
            p99: at(0.99),
            max: round(self.0.max()),
        })
    }

    /// How many are not longer than this.
    #[must_use]
    pub fn count_within(&self, time: Duration) -> u64 {
        self.0.count_between(0, micros(time))
    }

    /// Share of times up to each of these milliseconds, 0..1.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "plots end at a few seconds")]
    pub fn share_below(&self, milliseconds: f64) -> f64 {
        self.0.percentile_below((milliseconds * 1e3) as u64) / 100.0
    }
}

/// Microseconds as milliseconds with two decimals.
#[expect(clippy::cast_precision_loss, reason = "two minutes at most")]
fn round(micros: u64) -> f64 {
    (micros as f64 / 10.0).round() / 100.0
}

/// How a session went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It connected, and was ended by us.
    Completed,
    /// The server did not want it.
    Refused {
        /// The server's code, or its status.
        code: String,
    },
    /// It never connected.
    Failed {
        /// Why.
        reason: String,
    },
    /// It connected, and ended before its time.
    Lost {
        /// Why.
        reason: String,
    },
}

/// What one session saw.
#[derive(Debug, Clone)]
pub struct Session {
    /// How it went.
    pub outcome: Outcome,
    /// From the offer to the first result; to the first returned frame where there are no results.
    pub connect: Option<Duration>,
    /// Frames sent.
    pub sent: u64,
    /// Results of frames that the model saw.
    pub results: u64,
    /// Results of frames that it did not see: their objects are where a tracker expected them.
    pub carried: u64,
    /// Results, of either kind, that say that something is given up.
    pub degraded: u64,
    /// Frames that came back.
    pub returned: u64,
    /// Results whose returned frame came, too.
    pub joined: u64,
    /// Frames that the server says it dropped for a newer one.
    pub superseded: u64,
    /// Frames that the server says it dropped because they came too late for their budget.
    pub late: u64,
    /// Frames that the server says its model was not asked about, to have time for others.
    pub skipped: u64,
    /// Results that the server says missed the budget.
    pub budget_missed: u64,
    /// Pauses between two results, or two returned frames where there are no results, of more than [`STALL`] and of
    /// more than three frames.
    pub stalls: u64,
    /// Messages on the results channel that are no results, or name no frame that was sent.
    pub strange: u64,
    /// Requests for keyframes.
    pub keyframe_requests: u64,
    /// Packets that were asked for again.
    pub nacked: u64,
    /// Returned frames of a probed session whose number could not be read.
    pub unreadable: u64,
    /// Datagrams that this machine could not send.
    pub unsent: u64,
    /// Last packet of a frame out → its result in.
    pub result_latency: Latencies,
    /// Last packet of a frame out → last packet of the returned frame with its number in. Probed sessions only.
    pub video_latency: Latencies,
    /// The server's own measure: last packet of a frame in → first packet of the returned one out.
    pub server_latency: Latencies,
    /// How late frames left, after their time: what the generator itself adds where it is short of time.
    pub pacing: Latencies,
    /// Detections against the truth of the clip, where it is known.
    pub found: Found,
    /// The same of frames that the model did not see.
    pub carried_found: Found,
}

/// Shortest pause between two results that is a stall.
pub const STALL: Duration = Duration::from_millis(500);

impl Session {
    /// One of which nothing is known but how it went.
    #[must_use]
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            connect: None,
            sent: 0,
            results: 0,
            carried: 0,
            degraded: 0,
            returned: 0,
            joined: 0,
            superseded: 0,
            late: 0,
            skipped: 0,
            budget_missed: 0,
            stalls: 0,
            strange: 0,
            keyframe_requests: 0,
            nacked: 0,
            unreadable: 0,
            unsent: 0,
            result_latency: Latencies::default(),
            video_latency: Latencies::default(),
            server_latency: Latencies::default(),
            pacing: Latencies::default(),
            found: Found::default(),
            carried_found: Found::default(),
        }
    }

    /// Whether media ever flowed.
    #[must_use]
    pub const fn connected(&self) -> bool {
        matches!(self.outcome, Outcome::Completed | Outcome::Lost { .. })
    }
}

/// Objects that were found, and what was not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Objects found.
    pub hits: u64,
    /// Objects not found.
    pub missed: u64,
    /// Detections of nothing.
    pub false_alarms: u64,
}

impl Found {
    /// Takes all of another's.
    pub const fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.missed += other.missed;
        self.false_alarms += other.false_alarms;
    }

    /// Share of the objects that were found, 0..1; `None` without objects.
    #[must_use]
    pub fn recall(self) -> Option<f64> {
        share(self.hits, self.hits + self.missed)
    }

    /// Share of the detections that are objects, 0..1; `None` without detections.
    #[must_use]
    pub fn precision(self) -> Option<f64> {
        share(self.hits, self.hits + self.false_alarms)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 1e4).round() / 1e4)
}

/// All sessions second by second, while they run.
#[derive(Debug)]
pub(crate) struct Timeline {
    start: Instant,
    /// When all sessions are to be there.
    steady: Range<Duration>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    seconds: Vec<Second>,
    results: u64,
    /// Latencies of this second's results, in microseconds.
    latencies: Vec<u32>,
    steady: Steady,
}

/// What happened in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Second {
    /// Frames sent.
    pub sent: u32,
    /// Results of frames that the model saw.
    pub results: u32,
    /// Results of frames that it did not see.
    pub carried: u32,
    /// Results, of either kind, that say that something is given up.
    pub degraded: u32,
    /// Frames that came back.
    pub returned: u32,
    /// Their bytes.
    pub returned_bytes: u64,
    /// 95 % of the results came within this time, in milliseconds.
    pub latency_p95: Option<f64>,
    /// The longest time to a returned frame of a probed session, in milliseconds.
    pub video_latency_max: Option<f64>,
}

/// What happened while all sessions were there.
#[derive(Debug, Clone, Default)]
pub struct Steady {
    /// How long that was.
    pub time: Duration,
    /// Frames sent.
    pub sent: u64,
    /// Results.
    pub results: u64,
    /// Their latencies.
    pub latencies: Latencies,
}

impl Inner {
    /// Ends the second in progress.
    fn close(&mut self) {
        let at = (self.latencies.len() * 95).div_ceil(100).checked_sub(1);
        if let (Some(at), Some(second)) = (at, self.seconds.last_mut()) {
            let (_, value, _) = self.latencies.select_nth_unstable(at);
            second.latency_p95 = Some(round(u64::from(*value)));
        }
        self.latencies.clear();
    }
}

impl Timeline {
    /// Begins at `start`; all sessions are to be there in `steady`.
    #[must_use]
    pub(crate) fn new(start: Instant, steady: Range<Duration>) -> Self {
        Self { start, steady, inner: Mutex::default() }
    }

    /// Since the beginning.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, elapsed: Duration, change: impl FnOnce(&mut Second, &mut Vec<u32>, Option<&mut Steady>)) {
        let index = usize::try_from(elapsed.as_secs()).unwrap_or(usize::MAX);
        let mut inner = self.lock();
        if inner.seconds.len() <= index {
            inner.close();
            inner.seconds.resize(index + 1, Second::default());
        }
        let Inner { seconds, latencies, steady, .. } = &mut *inner;
        change(&mut seconds[index], latencies, self.steady.contains(&elapsed).then_some(steady));
    }

    pub(crate) fn sent(&self) {
        self.at(self.elapsed(), |second, _, steady| {
            second.sent += 1;
            if let Some(steady) = steady {
                steady.sent += 1;
            }
        });
    }

    /// A frame of so many bytes came back.
    pub(crate) fn returned(&self, bytes: usize) {
        self.at(self.elapsed(), |second, _, _| {
            second.returned += 1;
            second.returned_bytes += bytes as u64;
        });
    }

    /// A returned frame was seen so long after it was sent.
    pub(crate) fn shown(&self, latency: Duration) {
        let latency = round(micros(latency));
        self.at(self.elapsed(), |second, _, _| {
            second.video_latency_max = Some(second.video_latency_max.map_or(latency, |longest| longest.max(latency)));
        });
    }

    pub(crate) fn carried(&self) {
        self.at(self.elapsed(), |second, _, _| second.carried += 1);
    }

    pub(crate) fn degraded(&self) {
        self.at(self.elapsed(), |second, _, _| second.degraded += 1);
    }

    pub(crate) fn result(&self, latency: Option<Duration>) {
        self.result_at(self.elapsed(), latency);
    }

    fn result_at(&self, elapsed: Duration, latency: Option<Duration>) {
        self.at(elapsed, |second, latencies, steady| {
            second.results += 1;
            latencies.extend(latency.map(|latency| u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)));
            if let Some(steady) = steady {
                steady.results += 1;
                latency.into_iter().for_each(|latency| steady.latencies.record(latency));
            }
        });
        self.lock().results += 1;
    }

    /// The last second that is whole.
    #[must_use]
    pub(crate) fn last_whole(&self) -> Option<Second> {
        let inner = self.lock();
        inner.seconds.len().checked_sub(2).map(|at| inner.seconds[at])
    }

    /// Results so far.
    #[must_use]
    pub(crate) fn results(&self) -> u64 {
        self.lock().results
    }

    /// All seconds, the last of them perhaps not whole, and those in which all sessions were there.
    #[must_use]
    pub(crate) fn finish(&self) -> (Vec<Second>, Steady) {
        let mut inner = self.lock();
        inner.close();
        let time = self.steady.end.min(self.elapsed()).saturating_sub(self.steady.start);
        (inner.seconds.clone(), Steady { time, ..inner.steady.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles(), None);
        for milliseconds in 1..=100 {
            latencies.record(Duration::from_millis(milliseconds));
        }
        let Percentiles { p50, p90, p95, p99, max } = latencies.percentiles().unwrap();
        for (found, wanted) in [(p50, 50.0), (p90, 90.0), (p95, 95.0), (p99, 99.0), (max, 100.0)] {
            assert!((found - wanted).abs() <= wanted * 0.001, "{found} instead of {wanted}");
        }
        assert!((latencies.share_below(50.5) - 0.5).abs() < 0.011);
        latencies.record(Duration::from_secs(9_999));
        assert!(latencies.percentiles().unwrap().max >= 120_000.0);
    }

    #[test]
    fn shares_of_nothing_are_none() {
        let mut found = Found::default();
        assert_eq!((found.recall(), found.precision()), (None, None));
        found.add(Found { hits: 3, missed: 1, false_alarms: 0 });
        assert_eq!((found.recall(), found.precision()), (Some(0.75), Some(1.0)));
    }

    #[test]
    fn seconds_and_the_time_with_all_sessions_are_told_apart() {
        let timeline = Timeline::new(Instant::now(), Duration::from_secs(1)..Duration::from_secs(3));
        for (at, latency) in [(200, 10), (900, 30), (1_100, 50), (2_900, 70), (3_100, 90)] {
            timeline.result_at(Duration::from_millis(at), Some(Duration::from_millis(latency)));
        }
        assert_eq!(timeline.last_whole().unwrap().results, 1);
        let (seconds, steady) = timeline.finish();
        let results: Vec<_> = seconds.iter().map(|second| (second.results, second.latency_p95)).collect();
        assert_eq!(results, [(2, Some(30.0)), (1, Some(50.0)), (1, Some(70.0)), (1, Some(90.0))]);
        assert_eq!((steady.results, steady.latencies.count(), timeline.results()), (2, 2, 5));
    }
}
