use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What may be under way, beside a round trip's worth: a keyframe fits, and a path that suddenly narrows to a fifth holds
/// it for little more than a second.
const AHEAD: Duration = Duration::from_millis(200);
/// Where no report comes any more, a frame goes out so often, to find out when the path is there again.
const KNOCK: Duration = Duration::from_millis(500);
/// Packets that are remembered at most.
const KEPT: usize = 4_096;

/// What was sent and not reported on yet.
#[derive(Debug, Default)]
pub(in crate::rtc) struct Flight {
    /// Sequence number of each packet, and bytes sent up to and with it.
    packets: VecDeque<(u16, u64)>,
    sent: u64,
    reported: u64,
    /// Bytes that may be under way; nothing as long as the receiver reports nothing.
    limit: Option<u64>,
    last_sent: Option<Instant>,
}

impl Flight {
    /// A packet has been handed to the stack.
    pub(in crate::rtc) fn handle_sent(&mut self, now: Instant, sequence: u16, bytes: usize) {
        self.sent += bytes as u64;
        self.last_sent = Some(now);
        if self.packets.len() == KEPT
            && let Some((_, sent)) = self.packets.pop_front()
        {
            self.reported = self.reported.max(sent);
        }
        self.packets.push_back((sequence, self.sent));
    }

    /// The receiver has reported on these packets, the newest first, some perhaps sent again. The path carries so many
    /// bits a second, with this shortest time for a round trip.
    pub(in crate::rtc) fn handle_reports(
        &mut self,
        sequences: impl Iterator<Item = u16>,
        rate: f64,
        round_trip: Duration,
    ) {
        for reported in sequences {
            if let Some(index) = self.packets.iter().rposition(|(sequence, _)| *sequence == reported) {
                for (_, sent) in self.packets.drain(..=index) {
                    self.reported = self.reported.max(sent);
                }
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
        let limit = (rate / 8.0 * (AHEAD + round_trip).as_secs_f64()) as u64;
        self.limit = Some(limit);
    }

    /// Whether another frame may be sent without making those under way late.
    pub(in crate::rtc) fn has_room(&self, now: Instant) -> bool {
        let Some(limit) = self.limit else { return true };
        self.sent - self.reported <= limit || self.last_sent.is_none_or(|at| now >= at + KNOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(100);

    #[test]
    fn without_reports_everything_is_sent() {
        let (now, mut flight) = (crate::clock::now(), Flight::default());
        for index in 0..10_000u32 {
            flight.handle_sent(now, index as u16, 1_200);
        }
        assert!(flight.has_room(now));
        assert_eq!(flight.packets.len(), KEPT);
    }

    #[test]
    fn what_is_under_way_is_bounded_by_the_rate() {
        let (now, mut flight) = (crate::clock::now(), Flight::default());
        flight.handle_sent(now, 65_535, 1_000);
        flight.handle_reports([65_535].into_iter(), 800_000.0, TRIP);
        // 800 kbit/s for 300 ms are 30 000 bytes.
        for sequence in 0..30 {
            flight.handle_sent(now, sequence, 1_000);
            assert!(flight.has_room(now), "{sequence}");
        }
        flight.handle_sent(now, 30, 1_000);
        assert!(!flight.has_room(now));
        flight.handle_reports([0].into_iter(), 800_000.0, TRIP);
        assert!(flight.has_room(now));
        flight.handle_reports([1].into_iter(), 80_000.0, TRIP);
        assert!(!flight.has_room(now));
    }

    #[test]
    fn a_silent_path_is_knocked_at() {
        let (now, mut flight) = (crate::clock::now(), Flight::default());
        flight.handle_sent(now, 1, 1_000);
        flight.handle_reports([1].into_iter(), 1_000.0, TRIP);
        flight.handle_sent(now, 2, 1_000);
        assert!(!flight.has_room(now + Duration::from_millis(499)));
        assert!(flight.has_room(now + KNOCK));
        flight.handle_sent(now + KNOCK, 3, 1_000);
        assert!(!flight.has_room(now + KNOCK));
    }
}
