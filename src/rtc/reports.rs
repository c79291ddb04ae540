//! What both sides report by RTCP of how they receive video. The stack's own statistics read the peer's report blocks
//! in receiver reports only, not in sender reports, measure no round trip by them, and give a jitter that jumps by
//! hours when RTP timestamps wrap around.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rtc::interceptor::{Interceptor, Packet, Slot, StreamInfo, TaggedPacket};
use rtc::rtcp::Packet as RtcpPacket;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::sansio::Protocol;

use crate::media::MediaTime;

/// Sender reports that are remembered until the peer refers to them; one leaves a second.
const SENT_REPORTS: usize = 8;

/// One side's last report on what it receives.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Reception {
    /// Packets lost since the stream began.
    pub(super) lost: u64,
    /// Share of packets lost in the interval of this report, 0..1.
    pub(super) loss_ratio: f64,
    /// Variation of arrival times (RFC 3550 section 6.4.1).
    pub(super) jitter: Duration,
}

/// The newest reports.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reported {
    /// Ours, on the video from the peer.
    pub(super) ours: Option<Reception>,
    /// The peer's, on the video to it.
    pub(super) theirs: Option<Reception>,
    /// Round trip that the peer's last report allows to tell (RFC 3550 section 6.4.1, figure 2).
    pub(super) round_trip: Option<Duration>,
}

/// Listens at the wire and publishes the newest reports; packets pass unchanged.
pub(super) struct Reports {
    published: Arc<Mutex<Reported>>,
    local_ssrc: u32,
    sent: VecDeque<(u32, Instant)>,
    arrivals: Arrivals,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl Reports {
    /// Listens for reports on the stream of this SSRC, which the server sends.
    pub(super) fn new(local_ssrc: u32) -> (Self, Arc<Mutex<Reported>>) {
        let published = Arc::default();
        let reports = Self {
            published: Arc::clone(&published),
            local_ssrc,
            sent: VecDeque::with_capacity(SENT_REPORTS),
            arrivals: Arrivals::default(),
            read: VecDeque::new(),
            write: VecDeque::new(),
        };
        (reports, published)
    }

    /// The place next to the wire, where every generated report passes.
    pub(super) fn slot() -> Slot {
        Slot::from(500)
    }

    fn handle_received(&mut self, now: Instant, packets: &[Box<dyn RtcpPacket>]) {
        let blocks = packets.iter().flat_map(|packet| {
            let packet = packet.as_any();
            let sender = packet.downcast_ref::<SenderReport>().map(|report| &report.reports);
            sender.or_else(|| packet.downcast_ref::<ReceiverReport>().map(|report| &report.reports))
        });
        for block in blocks.flatten().filter(|block| block.ssrc == self.local_ssrc) {
            let sent = self.sent.iter().find(|(id, _)| *id == block.last_sender_report);
            let round_trip = sent.map(|(_, at)| now.saturating_duration_since(*at).saturating_sub(delay(block.delay)));
            let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
            published.theirs = Some(Reception::new(block, block.jitter));
            published.round_trip = round_trip.or(published.round_trip);
        }
    }

    fn handle_sent(&mut self, now: Instant, packets: &[Box<dyn RtcpPacket>]) {
        for packet in packets {
            if let Some(report) = packet.as_any().downcast_ref::<SenderReport>()
                && report.ssrc == self.local_ssrc
            {
                if self.sent.len() == SENT_REPORTS {
                    self.sent.pop_front();
                }
                self.sent.push_back((middle(report.ntp_time), now));
            }
            let blocks = packet.as_any().downcast_ref::<ReceiverReport>().map(|report| &report.reports);
            for block in blocks.into_iter().flatten().filter(|block| self.arrivals.ssrc == Some(block.ssrc)) {
                let ours = Reception::new(block, self.arrivals.jitter());
                self.published.lock().unwrap_or_else(PoisonError::into_inner).ours = Some(ours);
            }
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Reports {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = rtc::shared::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Self::Error> {
        match &message.message.packet {
            Packet::Rtp(packet) => {
                let header = &packet.header;
                self.arrivals.push(message.now, header.ssrc, header.sequence_number, MediaTime(header.timestamp));
            }
            Packet::Rtcp(packets) => self.handle_received(message.now, packets),
            _ => {}
        }
        self.read.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &message.message.packet {
            self.handle_sent(message.now, packets);
        }
        self.write.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }
}

impl Interceptor for Reports {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

impl Reception {
    /// Reads a report block, but for its jitter, which is given in units of the RTP clock.
    fn new(block: &ReceptionReport, jitter: u32) -> Self {
        // A signed number of 24 bits; duplicates make it negative.
        let lost = if block.total_lost & 0x80_0000 == 0 { block.total_lost & 0x7F_FFFF } else { 0 };
        Self {
            lost: lost.into(),
            loss_ratio: f64::from(block.fraction_lost) / 256.0,
            jitter: Duration::from_secs(1).mul_f64(f64::from(jitter) / f64::from(MediaTime::CLOCK_RATE)),
        }
    }
}

/// Interarrival jitter of the first stream that comes (RFC 3550 appendix A.8).
#[derive(Debug, Default)]
struct Arrivals {
    ssrc: Option<u32>,
    last: Option<(Instant, u16, MediaTime)>,
    jitter: f64,
}

impl Arrivals {
    /// Takes one packet; those that come late, such as repeated ones, tell of the repetition and not of the path.
    fn push(&mut self, now: Instant, ssrc: u32, sequence: u16, time: MediaTime) {
        if *self.ssrc.get_or_insert(ssrc) != ssrc {
            return;
        }
        if let Some((last_arrival, last_sequence, last_time)) = self.last {
            if !(1..0x8000).contains(&sequence.wrapping_sub(last_sequence)) {
                return;
            }
            let elapsed = now.saturating_duration_since(last_arrival).as_secs_f64() * f64::from(MediaTime::CLOCK_RATE);
            let media = f64::from(time.0.wrapping_sub(last_time.0).cast_signed());
            self.jitter += ((elapsed - media).abs() - self.jitter) / 16.0;
        }
        self.last = Some((now, sequence, time));
    }

    /// In units of the RTP clock.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and a mean of absolute values is positive"
    )]
    fn jitter(&self) -> u32 {
        self.jitter as u32
    }
}

/// The middle 32 bits of an NTP timestamp, by which a peer refers to a sender report (RFC 3550 section 6.4.1).
#[expect(clippy::cast_possible_truncation, reason = "the upper half is what has to go")]
const fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A delay in units of 1/65536 second (RFC 3550 section 6.4.1).
fn delay(units: u32) -> Duration {
    Duration::from_nanos(u64::from(units) * 1_000_000_000 / 65_536)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rtc::interceptor::AttributedPacket;

    use super::*;
    use crate::clock;

    const LOCAL: u32 = 7;

    fn message(now: Instant, packet: Packet) -> TaggedPacket {
        TaggedPacket { now, transport: Default::default(), message: AttributedPacket::new(packet) }
    }

    fn block(ssrc: u32, last_sender_report: u32, delay: u32) -> ReceptionReport {
        ReceptionReport {
            ssrc,
            fraction_lost: 64,
            total_lost: 12,
            jitter: 900,
            last_sender_report,
            delay,
            ..Default::default()
        }
    }

    fn rtp(now: Instant, sequence_number: u16, timestamp: u32) -> TaggedPacket {
        let header = rtc::rtp::Header { ssrc: 9, sequence_number, timestamp, ..Default::default() };
        message(now, Packet::Rtp(rtc::rtp::Packet { header, ..Default::default() }))
    }

    #[test]
    fn a_report_of_either_kind_tells_loss_and_round_trip() {
        let start = clock::now();
        let sender = |reports| -> Box<dyn RtcpPacket> { Box::new(SenderReport { reports, ..Default::default() }) };
        let receiver = |reports| -> Box<dyn RtcpPacket> { Box::new(ReceiverReport { reports, ..Default::default() }) };
        for report in
            [sender(vec![block(LOCAL, 0x1122_3344, 32_768)]), receiver(vec![block(LOCAL, 0x1122_3344, 32_768)])]
        {
            let (mut reports, published) = Reports::new(LOCAL);
            let own = SenderReport { ssrc: LOCAL, ntp_time: 0x0000_1122_3344_0000, ..Default::default() };
            reports.handle_write(message(start, Packet::Rtcp(vec![Box::new(own)]))).unwrap();
            assert!(reports.poll_write().is_some());
            let now = start + Duration::from_millis(530);
            reports.handle_read(message(now, Packet::Rtcp(vec![report]))).unwrap();
            assert!(reports.poll_read().is_some());
            let reported = *published.lock().unwrap();
            let expected = Reception { lost: 12, loss_ratio: 0.25, jitter: Duration::from_millis(10) };
            assert_eq!(reported.theirs, Some(expected));
            assert_eq!(reported.round_trip, Some(Duration::from_millis(30)));
            assert_eq!(reported.ours, None);
        }
    }

    #[test]
    fn a_peer_cannot_make_a_round_trip_up() {
        let start = clock::now();
        let (mut reports, published) = Reports::new(LOCAL);
        let foreign = ReceiverReport { reports: vec![block(8, 0, 0), block(LOCAL, 5, 0)], ..Default::default() };
        reports.handle_read(message(start, Packet::Rtcp(vec![Box::new(foreign)]))).unwrap();
        assert_eq!(published.lock().unwrap().round_trip, None);
        let own = SenderReport { ssrc: LOCAL, ntp_time: 5 << 16, ..Default::default() };
        reports.handle_write(message(start, Packet::Rtcp(vec![Box::new(own)]))).unwrap();
        let late = ReceiverReport { reports: vec![block(LOCAL, 5, u32::MAX)], ..Default::default() };
        reports.handle_read(message(start, Packet::Rtcp(vec![Box::new(late)]))).unwrap();
        assert_eq!(published.lock().unwrap().round_trip, Some(Duration::ZERO));
    }

    #[test]
    fn a_negative_count_of_losses_is_none() {
        let mut negative = block(LOCAL, 0, 0);
        negative.total_lost = 0xFF_FFFE;
        assert_eq!(Reception::new(&negative, 0).lost, 0);
    }

    #[test]
    fn jitter_outlives_a_wrap_of_the_timestamps_and_passes_over_repeated_packets() {
        let start = clock::now();
        let (mut reports, published) = Reports::new(LOCAL);
        for number in 0..200_u16 {
            // Every other picture comes 2 ms late; the 100th timestamp has wrapped around.
            let now = start + Duration::from_millis(u64::from(number) * 40 + u64::from(number % 2) * 2);
            let timestamp = (u32::MAX - 360_000).wrapping_add(u32::from(number) * 3600);
            reports.handle_read(rtp(now, number.wrapping_add(65_500), timestamp)).unwrap();
            let repeated = number.wrapping_add(65_490);
            reports.handle_read(rtp(now, repeated, timestamp.wrapping_sub(36_000))).unwrap();
        }
        let own = ReceiverReport { reports: vec![block(9, 0, 0)], ..Default::default() };
        reports.handle_write(message(start, Packet::Rtcp(vec![Box::new(own)]))).unwrap();
        let ours = published.lock().unwrap().ours.unwrap();
        assert_eq!((ours.lost, ours.loss_ratio), (12, 0.25));
        let jitter = ours.jitter.as_secs_f64() * 1000.0;
        assert!((1.9..2.1).contains(&jitter), "{jitter} ms");
    }
}
