use metrics::{Counter, counter};

use crate::ingest;

/// Turns what one session's ingest and transport have counted into the process's counters.
pub(super) struct Losses {
    counters: [Counter; COUNTED],
    reported: [u64; COUNTED],
}

/// Reasons that are told apart.
const COUNTED: usize = 9;

impl Losses {
    /// Registers the counters.
    pub(super) fn new() -> Self {
        let dropped = |stage: &'static str, reason: &'static str| counter!("saccade_frames_dropped_total", "stage" => stage, "reason" => reason);
        Self {
            counters: [
                dropped("rtc", "queue_full"),
                dropped("rtc", "duplicate"),
                dropped("rtc", "late"),
                dropped("rtc", "stray"),
                dropped("rtc", "over_bitrate"),
                dropped("ingest", "incomplete"),
                dropped("ingest", "malformed"),
                dropped("ingest", "too_large"),
                dropped("ingest", "awaiting_keyframe"),
            ],
            reported: [0; COUNTED],
        }
    }

    /// Adds what has been counted since the last report. `queue_full` is the transport's count of packets that the
    /// session did not take in time.
    pub(super) fn report(&mut self, stats: &ingest::Stats, queue_full: u64) {
        let counted = [
            queue_full,
            stats.duplicates,
            stats.late,
            stats.stray,
            stats.over_bitrate,
            stats.dropped_incomplete,
            stats.dropped_malformed,
            stats.dropped_too_large,
            stats.dropped_awaiting_keyframe,
        ];
        for ((counter, reported), counted) in self.counters.iter().zip(&mut self.reported).zip(counted) {
            counter.increment(counted.saturating_sub(*reported));
            *reported = counted;
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn each_loss_is_added_once() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let mut losses = Losses::new();
            losses.report(&ingest::Stats { late: 2, ..ingest::Stats::default() }, 1);
            losses.report(&ingest::Stats { late: 5, ..ingest::Stats::default() }, 1);
        });
        let text = handle.render();
        assert!(text.contains(r#"saccade_frames_dropped_total{stage="rtc",reason="late"} 5"#), "{text}");
        assert!(text.contains(r#"saccade_frames_dropped_total{stage="rtc",reason="queue_full"} 1"#), "{text}");
    }
}
