use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::{MediaTime, RtpPacket};

/// How far a camera's clock may go on from one packet to the next; farther is a jump.
const FORWARD: u32 = 10 * MediaTime::CLOCK_RATE;
/// How far it may go back, since pictures may be sent in another order than they are shown.
const BACKWARD: u32 = MediaTime::CLOCK_RATE;
/// How long a camera may be away for its time to go on by as much: times that lie farther apart than six hours cannot be told
/// from those that lie back.
const LONGEST_AWAY: Duration = Duration::from_secs(3600);
/// NAL unit type of an aggregation packet (RFC 6184 section 5.7.1), with the importance of parameter sets.
const STAP_A: u8 = 0x78;

/// A packet as a camera sends it.
#[derive(Debug)]
pub(super) struct Packet {
    /// Sequence number.
    pub(super) sequence: u16,
    /// RTP timestamp.
    pub(super) time: u32,
    /// Marker bit.
    pub(super) marker: bool,
    /// Payload.
    pub(super) payload: Bytes,
}

/// Makes one stream of those of several connections: numbers go on with a gap where a connection was lost, and times with
/// the time that passed, so that neither a new connection nor a camera that sets its clock is seen behind it.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// The number and the time that were given last, and when.
    last: Option<(u16, MediaTime, Instant)>,
    link: Option<Link>,
    /// A payload to send ahead of the first of the connection.
    ahead: Option<Bytes>,
}

/// How one connection's packets are renumbered.
#[derive(Debug)]
struct Link {
    sequence_offset: u16,
    time_offset: u32,
    /// The camera's time of the last packet.
    time: u32,
}

impl Relay {
    /// What comes from now on is of another connection. `sets` are its parameter sets, where the camera describes them
    /// instead of sending them with its pictures.
    pub(super) fn begin(&mut self, sets: &[Bytes]) {
        self.link = None;
        self.ahead = aggregate(sets);
    }

    /// The packets that stand for this one.
    pub(super) fn take(&mut self, packet: Packet, now: Instant) -> impl Iterator<Item = RtpPacket> + use<> {
        let Packet { sequence, time, marker, payload } = packet;
        let mut ahead = None;
        let link = match &mut self.link {
            Some(link) => {
                let on = time.wrapping_sub(link.time);
                if on >= FORWARD && on.wrapping_neg() > BACKWARD {
                    link.time_offset = resumed(self.last, now).0.wrapping_sub(time);
                }
                link.time = time;
                link
            }
            None => {
                let start = resumed(self.last, now);
                // A number is left out: what is in progress is given up, and no reference crosses the gap.
                let mut next = self.last.map_or(1, |(number, ..)| number.wrapping_add(2));
                if let Some(payload) = self.ahead.take() {
                    ahead = Some(packet_of(next, start, true, payload, now));
                    next = next.wrapping_add(2);
                }
                self.link.insert(Link {
                    sequence_offset: next.wrapping_sub(sequence),
                    time_offset: start.0.wrapping_sub(time),
                    time,
                })
            }
        };
        let number = sequence.wrapping_add(link.sequence_offset);
        let time = MediaTime(time.wrapping_add(link.time_offset));
        self.last = Some((number, time, now));
        ahead.into_iter().chain([packet_of(number, time, marker, payload, now)])
    }
}

fn packet_of(sequence: u16, time: MediaTime, marker: bool, payload: Bytes, arrival: Instant) -> RtpPacket {
    RtpPacket { sequence, time, marker, rotation: None, color: None, payload, arrival }
}

/// The time that goes on from the last packet.
fn resumed(last: Option<(u16, MediaTime, Instant)>, now: Instant) -> MediaTime {
    last.map_or(MediaTime(0), |(_, time, at)| {
        time.after(now.saturating_duration_since(at).clamp(Duration::from_millis(1), LONGEST_AWAY))
    })
}

/// Parameter sets in one payload; none where there are none, or they are larger than any that are real.
fn aggregate(sets: &[Bytes]) -> Option<Bytes> {
    let mut payload = BytesMut::from(&[STAP_A][..]);
    for set in sets.iter().filter(|set| !set.is_empty()) {
        payload.put_u16(u16::try_from(set.len()).ok()?);
        payload.extend_from_slice(set);
    }
    (payload.len() > 1).then(|| payload.freeze())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::clock;

    struct Bench {
        relay: Relay,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { relay: Relay::default(), start: clock::now() }
        }

        /// Number and time of what stands for a packet that comes so many milliseconds after the start.
        fn take(&mut self, sequence: u16, time: u32, ms: u64) -> Vec<(u16, u32)> {
            let packet = Packet { sequence, time, marker: true, payload: Bytes::from_static(&[0x41, 1]) };
            let now = self.start + Duration::from_millis(ms);
            self.relay.take(packet, now).map(|packet| (packet.sequence, packet.time.0)).collect()
        }
    }

    #[test]
    fn within_a_connection_distances_stay_across_every_wrap() {
        let mut bench = Bench::new();
        bench.relay.begin(&[]);
        assert_eq!(bench.take(65_534, u32::MAX - 3_000, 0), [(1, 0)]);
        assert_eq!(bench.take(65_535, u32::MAX - 3_000, 1), [(2, 0)]);
        assert_eq!(bench.take(1, 2_999, 66), [(4, 6_000)]);
        // A picture that is shown before the one that was sent before it, and a duplicate of a packet.
        assert_eq!(bench.take(2, u32::MAX, 70), [(5, 3_000)]);
        assert_eq!(bench.take(1, 2_999, 71), [(4, 6_000)]);
    }

    #[test]
    fn another_connection_goes_on_with_a_gap_and_the_time_that_passed() {
        let mut bench = Bench::new();
        bench.relay.begin(&[]);
        bench.take(100, 1_000, 0);
        bench.take(101, 4_000, 33);
        bench.relay.begin(&[]);
        assert_eq!(bench.take(7, 4_000_000_000, 2_033), [(4, 3_000 + 180_000)]);
        assert_eq!(bench.take(8, 4_000_003_000, 2_066), [(5, 6_000 + 180_000)]);
        bench.relay.begin(&[]);
        let day = 24 * 3_600_000;
        assert_eq!(bench.take(7, 0, 2_066 + day), [(7, 6_000 + 180_000 + 3_600 * 90_000)]);
    }

    #[test]
    fn a_clock_that_is_set_is_not_seen() {
        let mut bench = Bench::new();
        bench.relay.begin(&[]);
        bench.take(1, 1_000_000, 0);
        assert_eq!(bench.take(2, 5, 40), [(2, 3_600)]);
        assert_eq!(bench.take(3, 3_605, 80), [(3, 7_200)]);
        assert_eq!(bench.take(4, 2_000_000_000, 120), [(4, 10_800)]);
    }

    #[test]
    fn described_parameter_sets_come_first_and_stand_alone() {
        let mut bench = Bench::new();
        let sets = [Bytes::from_static(&[0x67, 1, 2]), Bytes::from_static(&[0x68, 3])];
        bench.relay.begin(&sets);
        let packet = Packet { sequence: 9, time: 50, marker: false, payload: Bytes::from_static(&[0x65, 0]) };
        let sent: Vec<_> = bench.relay.take(packet, bench.start).collect();
        assert_eq!(sent[0].payload, [0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 3][..]);
        assert!(sent[0].marker && !sent[1].marker);
        // The gap behind them says that nothing is known of what the camera sent before.
        assert_eq!((sent[0].sequence, sent[1].sequence, sent[1].time), (1, 3, MediaTime(0)));
        assert_eq!(bench.take(10, 3_050, 33), [(4, 3_000)]);
    }
}
