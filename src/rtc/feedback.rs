//! What the stack's interceptor chain lacks: it hands keyframe requests up to us, and lets us estimate the path.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rtc::interceptor::{
    Attribute, BandwidthEstimator, Interceptor, Packet, PacketReport, Slot, StreamInfo, TaggedPacket,
};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::sansio::Protocol;

use super::congestion::{self, Controller, Flight, Report};

/// Whether a compound packet asks for a keyframe (PLI: RFC 4585 section 6.3.1, FIR: RFC 5104 section 4.3.1).
pub(super) fn asks_for_keyframe(packets: &[Box<dyn rtc::rtcp::Packet>]) -> bool {
    packets
        .iter()
        .any(|packet| packet.as_any().is::<PictureLossIndication>() || packet.as_any().is::<FullIntraRequest>())
}

/// Marks keyframe requests for delivery; without it they end in the chain.
#[derive(Default)]
pub(super) struct DeliverKeyframeRequests {
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl DeliverKeyframeRequests {
    /// A place behind every interceptor of the stack.
    pub(super) fn slot() -> Slot {
        Slot::from(14_000)
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for DeliverKeyframeRequests {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = rtc::shared::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, mut message: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &message.message.packet
            && asks_for_keyframe(packets)
        {
            message.message.add(Attribute::DeliverToApplication);
        }
        self.read.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Self::Error> {
        self.write.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }
}

impl Interceptor for DeliverKeyframeRequests {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

/// What is sent leaves at so many times the estimate, so that a keyframe does not hold up the frames behind it; the
/// encoder keeps to the estimate itself. As in libwebrtc (`PacingController::kDefaultPaceMultiplier`).
const PACING_FACTOR: f64 = 2.5;

/// Results that are under way are at most so much of a second's worth of video, but this many bytes always: two results
/// of some objects each.
const RESULTS_AHEAD: usize = 5;
const LEAST_RESULTS: usize = 2_500;

/// Feeds what the receiver reports to the [`Controller`], publishes its rate, and has the pacer send faster.
pub(super) struct PublishedEstimate {
    controller: Controller,
    path: Arc<Path>,
}

/// What is known of the way out.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// Bits a second; 0 before the receiver reports.
    rate: AtomicU32,
    flight: Mutex<Flight>,
}

impl Path {
    /// Bits a second that it is thought to carry; nothing before the receiver reports.
    pub(super) fn bandwidth(&self) -> Option<u32> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// Bytes of results that may be under way; nothing where nobody measures the path.
    pub(super) fn results_under_way(&self) -> Option<usize> {
        let bytes_a_second = self.bandwidth()? as usize / 8;
        Some((bytes_a_second / RESULTS_AHEAD).max(LEAST_RESULTS))
    }

    /// What is under way.
    pub(super) fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PublishedEstimate {
    /// Starts at `start` and stays within `min` and `max`, all in bits a second. What is found is told by the returned
    /// path.
    pub(super) fn new(start: u32, min: u32, max: u32) -> (Self, Arc<Path>) {
        let path = Arc::new(Path::default());
        let config = congestion::Config { start: start.into(), min: min.into(), max: max.into() };
        (Self { controller: Controller::new(config), path: Arc::clone(&path) }, path)
    }
}

impl BandwidthEstimator for PublishedEstimate {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and a rate is positive"
    )]
    fn on_reports(&mut self, now: Instant, reports: &[PacketReport]) {
        let told: Vec<Report> = reports
            .iter()
            .map(|report| Report {
                sent: report.departure,
                arrival: report.arrival.filter(|_| report.arrived),
                bytes: report.size,
                is_lost: !report.arrived,
            })
            .collect();
        self.controller.handle_reports(now, &told);
        let rate = self.controller.rate();
        self.path.rate.store(rate as u32, Ordering::Relaxed);
        if let Some(round_trip) = self.controller.round_trip() {
            let newest = reports.iter().rev().map(|report| report.rtp_sequence_number);
            self.path.flight().handle_reports(newest, rate, round_trip);
        }
    }

    /// What the pacer sends at.
    fn target_bitrate(&self) -> f64 {
        self.controller.rate() * PACING_FACTOR
    }
}
