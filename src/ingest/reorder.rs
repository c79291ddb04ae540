use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::media::RtpPacket;

use super::Stats;

/// How far behind the next expected number still counts as late or duplicate; further back is a jump.
const MISORDER: i64 = -128;
/// How far ahead of the next expected number still counts as loss; further ahead is a jump (RFC 3550, appendix A.1).
const DROPOUT: i64 = 3_000;
/// How close together two packets after a jump have to be to confirm it.
const CONFIRM: u16 = 16;

/// What leaves the buffer, in sequence order.
#[derive(Debug)]
pub(super) enum Event {
    /// The next packet.
    Packet(RtpPacket),
    /// Packets are missing here, and the wait for them is over.
    Gap,
}

/// Puts packets into sequence order and waits only while one is missing.
///
/// Sequence numbers are extended to 64 bits against the next expected one.
#[derive(Debug)]
pub(super) struct Reorder {
    max_wait: Duration,
    max_packets: usize,
    max_bytes: usize,
    next: Option<i64>,
    /// Bit `n` stands for `next - 1 - n`: whether that packet came in.
    received: u128,
    waiting: BTreeMap<i64, RtpPacket>,
    waiting_bytes: usize,
    /// When the oldest gap was noticed.
    gap_since: Option<Instant>,
    /// A packet far from the expected number, until the next one says whether the numbering jumped.
    jump: Option<RtpPacket>,
    ready: VecDeque<Event>,
}

impl Reorder {
    pub(super) const fn new(max_wait: Duration, max_packets: usize, max_bytes: usize) -> Self {
        Self {
            max_wait,
            max_packets,
            max_bytes,
            next: None,
            received: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            gap_since: None,
            jump: None,
            ready: VecDeque::new(),
        }
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// When [`Reorder::handle_timeout`] gives up the oldest gap.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.gap_since.map(|since| since + self.max_wait)
    }

    /// Bytes of payload that wait here.
    #[cfg(test)]
    pub(super) const fn bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn handle_packet(&mut self, packet: RtpPacket, stats: &mut Stats) {
        let Some(next) = self.next else {
            self.next = Some(i64::from(packet.sequence));
            self.release(packet);
            return;
        };
        let sequence = extend(packet.sequence, next);
        match sequence - next {
            0 => {
                self.jump = None;
                self.release(packet);
                self.release_waiting();
            }
            ahead @ 1..=DROPOUT => {
                self.jump = None;
                if self.waiting.contains_key(&sequence) {
                    stats.duplicates += 1;
                    return;
                }
                tracing::trace!(ahead, "a packet waits for missing ones");
                self.gap_since.get_or_insert(packet.arrival);
                self.waiting_bytes += packet.payload.len();
                self.waiting.insert(sequence, packet);
                while self.waiting.len() > self.max_packets || self.waiting_bytes > self.max_bytes {
                    self.skip_gap(stats);
                }
            }
            behind @ MISORDER..=-1 => {
                if self.received >> (-1 - behind) & 1 == 1 {
                    stats.duplicates += 1;
                } else {
                    stats.late += 1;
                }
            }
            _ => self.handle_jump(packet, stats),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, stats: &mut Stats) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.skip_gap(stats);
        }
    }

    /// A single stray packet is dropped; two in a row mean that the sender numbers anew.
    fn handle_jump(&mut self, packet: RtpPacket, stats: &mut Stats) {
        let Some(first) = self.jump.take() else {
            self.jump = Some(packet);
            return;
        };
        let distance = packet.sequence.wrapping_sub(first.sequence);
        if distance == 0 {
            stats.duplicates += 1;
            self.jump = Some(first);
        } else if distance <= CONFIRM || distance.wrapping_neg() <= CONFIRM {
            stats.restarts += 1;
            let start = if distance <= CONFIRM { first.sequence } else { packet.sequence };
            self.waiting.clear();
            self.waiting_bytes = 0;
            self.gap_since = None;
            self.received = 0;
            self.next = Some(i64::from(start));
            self.ready.push_back(Event::Gap);
            self.handle_packet(first, stats);
            self.handle_packet(packet, stats);
        } else {
            stats.stray += 1;
            self.jump = Some(packet);
        }
    }

    fn skip_gap(&mut self, stats: &mut Stats) {
        let (Some(next), Some((&first, _))) = (self.next, self.waiting.first_key_value()) else {
            self.gap_since = None;
            return;
        };
        let missing = first - next;
        stats.lost += missing.unsigned_abs();
        self.received = if missing < 128 { self.received << missing } else { 0 };
        self.next = Some(first);
        self.ready.push_back(Event::Gap);
        self.release_waiting();
    }

    /// Releases what waits without a gap, and looks when the next gap was noticed.
    fn release_waiting(&mut self) {
        let before = self.waiting.len();
        while let Some(packet) = self.next.and_then(|next| self.waiting.remove(&next)) {
            self.waiting_bytes -= packet.payload.len();
            self.release(packet);
        }
        if self.waiting.len() != before {
            self.gap_since = self.waiting.values().map(|packet| packet.arrival).min();
        }
    }

    fn release(&mut self, packet: RtpPacket) {
        self.next = self.next.map(|next| next + 1);
        self.received = self.received << 1 | 1;
        self.ready.push_back(Event::Packet(packet));
    }
}

/// The 64-bit number nearest to `near` whose low 16 bits are `sequence`.
fn extend(sequence: u16, near: i64) -> i64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only the low 16 bits count")]
    let distance = sequence.wrapping_sub(near as u16);
    near + i64::from(distance.cast_signed())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock;
    use crate::media::MediaTime;

    struct Bench {
        reorder: Reorder,
        stats: Stats,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let reorder = Reorder::new(Duration::from_millis(120), 64, 10_000);
            Self { reorder, stats: Stats::default(), start: clock::now() }
        }

        /// Feeds a packet that arrives `ms` after the start and says what comes out: numbers, or -1 for a gap.
        fn feed(&mut self, sequence: u16, ms: u64) -> Vec<i32> {
            let arrival = self.start + Duration::from_millis(ms);
            let payload = Bytes::from_static(&[0; 100]);
            let time = MediaTime(0);
            let packet = RtpPacket { sequence, time, marker: false, rotation: None, color: None, payload, arrival };
            self.reorder.handle_packet(packet, &mut self.stats);
            self.drain()
        }

        fn timeout(&mut self, ms: u64) -> Vec<i32> {
            self.reorder.handle_timeout(self.start + Duration::from_millis(ms), &mut self.stats);
            self.drain()
        }

        fn drain(&mut self) -> Vec<i32> {
            let event = |event| match event {
                Event::Packet(packet) => i32::from(packet.sequence),
                Event::Gap => -1,
            };
            std::iter::from_fn(|| self.reorder.poll()).map(event).collect()
        }
    }

    #[test]
    fn packets_in_order_never_wait_across_the_wrap() {
        let mut bench = Bench::new();
        for sequence in [65_534, 65_535, 0, 1] {
            assert_eq!(bench.feed(sequence, 0), [i32::from(sequence)]);
            assert_eq!(bench.reorder.deadline(), None);
        }
    }

    #[test]
    fn a_gap_waits_for_its_packet_and_closes() {
        let mut bench = Bench::new();
        bench.feed(65_535, 0);
        assert!(bench.feed(1, 10).is_empty());
        assert!(bench.feed(2, 20).is_empty());
        assert_eq!(bench.reorder.deadline(), Some(bench.start + Duration::from_millis(130)));
        assert_eq!(bench.feed(0, 100), [0, 1, 2]);
        assert_eq!((bench.reorder.deadline(), bench.stats.lost), (None, 0));
    }

    #[test]
    fn a_gap_is_given_up_at_its_own_deadline() {
        let mut bench = Bench::new();
        bench.feed(10, 0);
        bench.feed(12, 10);
        bench.feed(15, 50);
        assert!(bench.timeout(129).is_empty());
        assert_eq!(bench.timeout(130), [-1, 12]);
        assert_eq!(bench.reorder.deadline(), Some(bench.start + Duration::from_millis(170)));
        assert_eq!(bench.timeout(170), [-1, 15]);
        assert_eq!(bench.stats.lost, 3);
    }

    #[test]
    fn late_packets_and_duplicates_are_told_apart_and_dropped() {
        let mut bench = Bench::new();
        bench.feed(10, 0);
        bench.feed(12, 0);
        assert!(bench.feed(12, 1).is_empty());
        bench.timeout(200);
        assert!(bench.feed(12, 201).is_empty());
        assert!(bench.feed(11, 201).is_empty());
        assert!(bench.feed(10, 201).is_empty());
        assert_eq!((bench.stats.duplicates, bench.stats.late), (3, 1));
        assert_eq!(bench.feed(13, 202), [13]);
    }

    #[test]
    fn a_full_buffer_gives_up_the_oldest_gap() {
        let mut bench = Bench::new();
        bench.feed(0, 0);
        for sequence in 2..66 {
            assert!(bench.feed(sequence, 1).is_empty());
        }
        assert_eq!(bench.feed(66, 1).len(), 66);
        bench.reorder.max_bytes = 250;
        assert!(bench.feed(70, 1).is_empty() && bench.feed(72, 1).is_empty());
        assert_eq!(bench.feed(74, 1), [-1, 70]);
        assert_eq!(bench.reorder.bytes(), 200);
    }

    #[test]
    fn one_stray_packet_changes_nothing_and_two_restart() {
        let mut bench = Bench::new();
        bench.feed(100, 0);
        assert!(bench.feed(40_000, 1).is_empty());
        assert_eq!(bench.feed(101, 2), [101]);
        assert!(bench.feed(40_001, 3).is_empty());
        assert_eq!(bench.feed(40_000, 4), [-1, 40_000, 40_001]);
        assert_eq!(bench.feed(40_002, 5), [40_002]);
        assert_eq!(bench.stats.restarts, 1);
    }
}
