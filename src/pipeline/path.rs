use std::sync::Mutex;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use saccade_signaling::{InboundVideo, OutboundVideo, TransportView};

use crate::rtc;

/// How long the transport may take to tell of the path; the last known is shown until the next look.
pub(super) const LOOK_LIMIT: Duration = Duration::from_millis(50);

/// The path to the peer as its owner last saw it, read by the API.
pub(super) type Seen = Mutex<Option<rtc::Stats>>;

/// Turns what the transport has counted in one session into the process's metrics.
pub(super) struct PathMetrics {
    round_trip: Histogram,
    inbound: Direction,
    outbound: Direction,
}

impl PathMetrics {
    /// Registers the handles.
    pub(super) fn new() -> Self {
        Self {
            round_trip: histogram!("saccade_rtc_round_trip_seconds"),
            inbound: Direction::new("in"),
            outbound: Direction::new("out"),
        }
    }

    /// Adds what has been counted since the last report.
    pub(super) fn report(&mut self, stats: &rtc::Stats) {
        if let Some(round_trip) = stats.round_trip {
            self.round_trip.record(round_trip);
        }
        self.inbound.report(stats.inbound);
        self.outbound.report(stats.outbound.unwrap_or_default());
    }
}

struct Direction {
    packets: Counter,
    lost: Counter,
    reported: [u64; 2],
}

impl Direction {
    fn new(direction: &'static str) -> Self {
        Self {
            packets: counter!("saccade_rtc_packets_total", "direction" => direction),
            lost: counter!("saccade_rtc_packets_lost_total", "direction" => direction),
            reported: [0; 2],
        }
    }

    fn report(&mut self, stream: rtc::Stream) {
        let counted = [stream.packets, stream.lost.unwrap_or_default()];
        for ((counter, reported), counted) in
            [&self.packets, &self.lost].into_iter().zip(&mut self.reported).zip(counted)
        {
            counter.increment(counted.saturating_sub(*reported));
            // A receiver takes losses back when packets come twice.
            *reported = counted.max(*reported);
        }
    }
}

/// The path as the API shows it.
pub(super) fn view(stats: &rtc::Stats) -> TransportView {
    let inbound = InboundVideo {
        packets: stats.inbound.packets,
        packets_lost: stats.inbound.lost.unwrap_or_default(),
        loss_ratio: stats.inbound.loss_ratio,
        jitter_ms: stats.inbound.jitter.map(milliseconds),
        nacks_sent: stats.inbound.nacks,
    };
    let outbound = stats.outbound.map(|stream| OutboundVideo {
        packets: stream.packets,
        packets_lost: stream.lost,
        loss_ratio: stream.loss_ratio,
        jitter_ms: stream.jitter.map(milliseconds),
        nacks_received: stream.nacks,
    });
    TransportView {
        round_trip_ms: stats.round_trip.map(milliseconds),
        local_candidate: stats.local_candidate.name().to_owned(),
        remote_candidate: stats.remote_candidate.name().to_owned(),
        protocol: stats.protocol.to_owned(),
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        available_out_bps: stats.bandwidth,
        inbound,
        outbound,
    }
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn stats(packets: u64, lost: u64) -> rtc::Stats {
        rtc::Stats {
            round_trip: Some(Duration::from_micros(1500)),
            local_candidate: rtc::CandidateKind::Host,
            remote_candidate: rtc::CandidateKind::PeerReflexive,
            protocol: "udp",
            bytes_in: 1,
            bytes_out: 2,
            bandwidth: 3,
            inbound: rtc::Stream { packets, lost: Some(lost), ..rtc::Stream::default() },
            outbound: None,
        }
    }

    #[test]
    fn packets_and_losses_are_added_once() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let mut metrics = PathMetrics::new();
            for (packets, lost) in [(10, 2), (30, 1), (35, 5)] {
                metrics.report(&stats(packets, lost));
            }
        });
        let text = handle.render();
        assert!(text.contains(r#"saccade_rtc_packets_total{direction="in"} 35"#), "{text}");
        assert!(text.contains(r#"saccade_rtc_packets_lost_total{direction="in"} 5"#), "{text}");
        assert!(text.contains("saccade_rtc_round_trip_seconds_count 3"), "{text}");
    }

    #[test]
    fn the_view_has_milliseconds_and_no_outbound_video_where_none_is_taken() {
        let view = view(&stats(10, 2));
        assert_eq!((view.round_trip_ms, view.remote_candidate.as_str()), (Some(1.5), "prflx"));
        assert_eq!((view.inbound.packets, view.inbound.packets_lost), (10, 2));
        assert_eq!(view.outbound, None);
    }
}
