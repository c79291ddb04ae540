use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use saccade_signaling::{Dropped, SessionCounters, StageTiming, Timing};

/// Frames over which stage times are summed up.
const WINDOW: usize = 256;
/// Stages in the order of [`Timing`].
const STAGES: [&str; 9] =
    ["reorder", "decode", "queue", "preprocess", "inference", "postprocess", "annotate", "encode", "total"];

/// What is counted and timed in one session, written by its stages and read by the API.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// RTP packets received.
    pub(super) packets_in: AtomicU64,
    /// Access units assembled.
    pub(super) access_units: AtomicU64,
    /// Frames decoded.
    pub(super) decoded: AtomicU64,
    /// Frames that went through the model.
    pub(super) inferred: AtomicU64,
    /// Frames encoded and sent.
    pub(super) returned: AtomicU64,
    /// Results made.
    pub(super) results: AtomicU64,
    /// Keyframes asked of the sender.
    pub(super) keyframe_requests_out: AtomicU64,
    /// Keyframes that the receiver asked for.
    pub(super) keyframe_requests_in: AtomicU64,
    /// Frames replaced by newer ones before the model was free.
    pub(super) superseded: AtomicU64,
    /// Frames that could no longer keep their deadline.
    pub(super) late: AtomicU64,
    /// Frames that the model was not asked about, by choice.
    pub(super) skipped: AtomicU64,
    /// Who watches beside the publisher.
    pub(super) viewers: AtomicUsize,
    resolution: AtomicU64,
    times: Mutex<Times<{ STAGES.len() }>>,
    /// Last packet in to first packet of the returned frame out, and how much of that it was not worked on.
    video: Mutex<Times<2>>,
}

impl Stats {
    /// Adds one to a counter.
    pub(super) fn count(counter: &AtomicU64) -> u64 {
        counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Remembers the size of the upright frame.
    pub(super) fn set_resolution(&self, width: u32, height: u32) {
        self.resolution.store(u64::from(width) << 32 | u64::from(height), Ordering::Relaxed);
    }

    /// Width and height of the upright frame, once one was decoded.
    pub(super) fn resolution(&self) -> Option<[u32; 2]> {
        let packed = self.resolution.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves were packed from u32")]
        (packed != 0).then_some([(packed >> 32) as u32, packed as u32])
    }

    /// Frames dropped so far.
    pub(super) fn dropped(&self) -> Dropped {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Dropped { superseded: read(&self.superseded), late: read(&self.late), skipped: read(&self.skipped) }
    }

    /// All counters.
    pub(super) fn counters(&self) -> SessionCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SessionCounters {
            packets_in: read(&self.packets_in),
            access_units: read(&self.access_units),
            decoded: read(&self.decoded),
            inferred: read(&self.inferred),
            returned: read(&self.returned),
            results: read(&self.results),
            keyframe_requests_out: read(&self.keyframe_requests_out),
            keyframe_requests_in: read(&self.keyframe_requests_in),
            dropped: self.dropped(),
        }
    }

    /// Takes the times of one frame into the window.
    pub(super) fn record(&self, t: &Timing) {
        let frame =
            [t.reorder, t.decode, t.queue, t.preprocess, t.inference, t.postprocess, t.annotate, t.encode, t.total];
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
    }

    /// Takes a returned frame into the window: from its last packet in to its first one out, and how long of that it was
    /// decoded, drawn on and encoded.
    pub(super) fn record_video(&self, latency: Duration, worked: Duration) {
        let waited = latency.saturating_sub(worked);
        let times = [latency, waited].map(|time| time.as_secs_f64() * 1e3);
        self.video.lock().unwrap_or_else(PoisonError::into_inner).push(times);
    }

    /// Median and 95th percentile of each stage over the window, of returned video from packet to packet, and of what it
    /// waited on the way: in queues, for a processor, in `exact` for its result.
    pub(super) fn stages(&self) -> Vec<StageTiming> {
        let mut stages = self.times.lock().unwrap_or_else(PoisonError::into_inner).percentiles(STAGES);
        stages.extend(self.video.lock().unwrap_or_else(PoisonError::into_inner).percentiles(["video", "video_waited"]));
        stages
    }
}

/// The last times of `N` kinds.
#[derive(Debug)]
struct Times<const N: usize> {
    frames: Vec<[f64; N]>,
    next: usize,
}

impl<const N: usize> Default for Times<N> {
    fn default() -> Self {
        Self { frames: Vec::new(), next: 0 }
    }
}

impl<const N: usize> Times<N> {
    fn percentiles(&self, names: [&str; N]) -> Vec<StageTiming> {
        if self.frames.is_empty() {
            return Vec::new();
        }
        let timing = |(kind, name): (usize, &str)| {
            let mut values: Vec<f64> = self.frames.iter().map(|frame| frame[kind]).collect();
            values.sort_by(f64::total_cmp);
            let at = |percent: usize| values[(values.len() - 1) * percent / 100];
            StageTiming { stage: name.to_owned(), p50_ms: at(50), p95_ms: at(95) }
        };
        names.into_iter().enumerate().map(timing).collect()
    }

    fn push(&mut self, frame: [f64; N]) {
        if self.frames.len() < WINDOW {
            self.frames.push(frame);
        } else {
            self.frames[self.next] = frame;
            self.next = (self.next + 1) % WINDOW;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_last_frames() {
        let stats = Stats::default();
        assert!(stats.stages().is_empty());
        for total in 0..1000 {
            stats.record(&Timing { total: f64::from(total), ..Timing::default() });
        }
        let total = stats.stages().pop().unwrap_or_else(|| unreachable!("nine stages"));
        assert_eq!((total.stage.as_str(), total.p50_ms, total.p95_ms), ("total", 871.0, 986.0));
        stats.record_video(Duration::from_millis(7), Duration::from_millis(3));
        let stages = stats.stages();
        let video = stages[stages.len() - 2..].iter().map(|stage| (stage.stage.as_str(), stage.p95_ms));
        assert_eq!(video.collect::<Vec<_>>(), [("video", 7.0), ("video_waited", 4.0)]);
    }

    #[test]
    fn the_last_resolution_is_shown() {
        let stats = Stats::default();
        assert_eq!(stats.resolution(), None);
        stats.set_resolution(640, 480);
        stats.set_resolution(480, 640);
        assert_eq!(stats.resolution(), Some([480, 640]));
    }
}
