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
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};
use rtc::sansio::Protocol;

use super::congestion::{self, Controller, Flight, Missing, Report};

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

/// Keeps requests from what would answer them with packets that are under way again, or too old for that, and asks for a
/// keyframe in place of the latter unless there was one since: a path that has become narrow would be busy for seconds
/// with frames that nobody wants any more.
pub(super) struct LimitRetransmission {
    path: Arc<Path>,
    ssrc: u32,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl LimitRetransmission {
    /// For the stream that is sent with this SSRC.
    pub(super) const fn new(path: Arc<Path>, ssrc: u32) -> Self {
        Self { path, ssrc, read: VecDeque::new(), write: VecDeque::new() }
    }

    /// A place between the wire and what sends packets again.
    pub(super) fn slot() -> Slot {
        Slot::from(3_500)
    }

    /// What is left of a compound packet.
    fn filter(&self, now: Instant, packets: &[Box<dyn rtc::rtcp::Packet>]) -> Vec<Box<dyn rtc::rtcp::Packet>> {
        let mut left = Vec::with_capacity(packets.len());
        for packet in packets {
            let nack = packet.as_any().downcast_ref::<TransportLayerNack>();
            let Some(nack) = nack.filter(|nack| nack.media_ssrc == self.ssrc) else {
                left.push(packet.clone());
                continue;
            };
            let (mut again, mut is_lost) = (Vec::new(), false);
            {
                let mut flight = self.path.flight();
                for missing in nack.nacks.iter().flat_map(|pair| pair.into_iter()) {
                    match flight.handle_missing(now, missing) {
                        Missing::Again => again.push(NackPair::new(missing)),
                        Missing::UnderWay | Missing::MadeUpFor => {}
                        Missing::Lost => is_lost = true,
                    }
                }
            }
            let (sender_ssrc, media_ssrc) = (nack.sender_ssrc, nack.media_ssrc);
            if !again.is_empty() {
                left.push(Box::new(TransportLayerNack { sender_ssrc, media_ssrc, nacks: again }));
            }
            if is_lost {
                left.push(Box::new(PictureLossIndication { sender_ssrc, media_ssrc }));
            }
        }
        left
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for LimitRetransmission {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = rtc::shared::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, mut message: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &message.message.packet
            && packets.iter().any(|packet| packet.as_any().is::<TransportLayerNack>())
        {
            let left = self.filter(message.now, packets);
            message.message.packet = Packet::Rtcp(left);
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

impl Interceptor for LimitRetransmission {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

/// What is sent leaves at so many times the estimate, so that a keyframe does not hold up the frames behind it; the
/// encoder keeps to the estimate itself. As in libwebrtc (`PacingController::kDefaultPaceMultiplier`).
pub(super) const PACING_FACTOR: f64 = 2.5;

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
            self.path.flight().handle_reports(newest, rate, round_trip, self.controller.queue());
        }
    }

    /// What the pacer sends at.
    fn target_bitrate(&self) -> f64 {
        self.controller.rate() * PACING_FACTOR
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OURS: u32 = 7;

    fn missing(media_ssrc: u32, sequences: &[u16]) -> Vec<Box<dyn rtc::rtcp::Packet>> {
        let nacks = sequences.iter().map(|sequence| NackPair::new(*sequence)).collect();
        vec![Box::new(TransportLayerNack { sender_ssrc: 1, media_ssrc, nacks })]
    }

    /// The sequence numbers that are still asked for, and whether a keyframe is.
    fn asked(left: &[Box<dyn rtc::rtcp::Packet>]) -> (Vec<u16>, bool) {
        let nacks = left.iter().filter_map(|packet| packet.as_any().downcast_ref::<TransportLayerNack>());
        (nacks.flat_map(|nack| &nack.nacks).flat_map(|pair| pair.packet_list()).collect(), asks_for_keyframe(left))
    }

    #[test]
    fn what_is_too_old_to_be_sent_again_asks_for_a_keyframe_once() {
        let (start, path) = (crate::clock::now(), Arc::new(Path::default()));
        let limit = LimitRetransmission::new(Arc::clone(&path), OURS);
        path.flight().handle_sent(start, 10, 1_000);
        path.flight().handle_end_of_frame(false);
        path.flight().handle_reports([10].into_iter(), 1e6, Duration::from_millis(50), Duration::ZERO);
        let late = start + Duration::from_secs(1);
        path.flight().handle_sent(late, 11, 1_000);
        assert_eq!(asked(&limit.filter(late, &missing(OURS, &[10, 11]))), (vec![11], true));
        assert_eq!(asked(&limit.filter(start, &missing(OURS, &[10]))), (vec![10], false));
        assert_eq!(asked(&limit.filter(late, &missing(OURS + 1, &[10]))), (vec![10], false), "none of ours");
        path.flight().handle_end_of_frame(true);
        assert!(limit.filter(late, &missing(OURS, &[10])).is_empty(), "the keyframe made up for it");
    }
}
