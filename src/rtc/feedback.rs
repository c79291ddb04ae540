//! What the stack's interceptor chain lacks: it hands keyframe requests up to us, and lets us read its estimate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rtc::interceptor::{
    Attribute, BandwidthEstimator, EstimatorStats, Gcc, Interceptor, Packet, PacketReport, Slot, StreamInfo,
    TaggedPacket,
};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::sansio::Protocol;

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

/// Google congestion control (draft-ietf-rmcat-gcc) that publishes its target, and has the pacer send faster.
pub(super) struct PublishedEstimate {
    inner: Gcc,
    target: Arc<AtomicU32>,
}

impl PublishedEstimate {
    /// Starts at `start` and stays within `min` and `max`, all in bits a second. The target is written to the returned
    /// cell.
    pub(super) fn new(start: u32, min: u32, max: u32) -> (Self, Arc<AtomicU32>) {
        let target = Arc::new(AtomicU32::new(start));
        let inner = Gcc::new(f64::from(start), f64::from(min), f64::from(max));
        (Self { inner, target: Arc::clone(&target) }, target)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and a rate is positive"
    )]
    fn publish(&self) {
        self.target.store(self.inner.target_bitrate() as u32, Ordering::Relaxed);
    }
}

impl BandwidthEstimator for PublishedEstimate {
    fn on_reports(&mut self, now: Instant, reports: &[PacketReport]) {
        self.inner.on_reports(now, reports);
        self.publish();
    }

    /// What the pacer sends at.
    fn target_bitrate(&self) -> f64 {
        self.inner.target_bitrate() * PACING_FACTOR
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
        self.publish();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    fn stats(&self) -> EstimatorStats {
        self.inner.stats()
    }
}
