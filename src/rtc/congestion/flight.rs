use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What may be under way, beside a round trip's worth: a keyframe fits, and a path that suddenly narrows to a fifth holds
/// it for little more than a second.
const AHEAD: Duration = Duration::from_millis(300);
/// Where no report comes any more, a frame goes out so often, to find out when the path is there again.
const KNOCK: Duration = Duration::from_millis(500);
/// A packet that would arrive so long after it was first sent, beside two round trips, is not sent again: what it would bring
/// up to date is old, and new frames would wait for it.
const WORTH_IT: Duration = Duration::from_millis(400);
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
    /// The last packets, reported on or not.
    history: VecDeque<(u16, Sent)>,
    /// First packet of the last frame and of the last keyframe.
    frame: Option<u16>,
    keyframe: Option<u16>,
    /// Without a queue.
    round_trip: Duration,
    queue: Duration,
}

/// When a packet was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    first: Instant,
    /// For the last time, after the receiver missed it.
    again: Option<Instant>,
}

/// What becomes of a packet that the receiver misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rtc) enum Missing {
    /// It is sent again.
    Again,
    /// It was sent again too short a time ago for the receiver to have it.
    UnderWay,
    /// A keyframe has made up for it.
    MadeUpFor,
    /// Nothing makes up for it but a keyframe that is yet to come.
    Lost,
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
        if self.history.len() == KEPT {
            self.history.pop_front();
        }
        self.history.push_back((sequence, Sent { first: now, again: None }));
        self.frame.get_or_insert(sequence);
    }

    /// The last packet that was sent ended a frame, a keyframe or not.
    pub(in crate::rtc) fn handle_end_of_frame(&mut self, is_keyframe: bool) {
        let first = self.frame.take();
        if is_keyframe {
            self.keyframe = first;
        }
    }

    /// The receiver misses this packet. Whoever asks sends it again if that is the answer.
    pub(in crate::rtc) fn handle_missing(&mut self, now: Instant, missing: u16) -> Missing {
        if let Some(index) = position(&self.history, missing) {
            let sent = &mut self.history[index].1;
            if sent.again.is_some_and(|at| now <= at + self.round_trip + self.queue) {
                return Missing::UnderWay;
            }
            if self.limit.is_none() || now + self.queue < sent.first + WORTH_IT + 2 * self.round_trip {
                sent.again = Some(now);
                return Missing::Again;
            }
        } else if self.limit.is_none() {
            return Missing::Again;
        }
        // Sequence numbers wrap around (RFC 3550 section 5.1).
        match self.keyframe {
            Some(first) if first.wrapping_sub(missing).wrapping_sub(1) < u16::MAX / 2 => Missing::MadeUpFor,
            _ => Missing::Lost,
        }
    }

    /// The receiver has reported on these packets, the newest first, some perhaps sent again. The path carries so many
    /// bits a second, with this shortest time for a round trip, to which its queue adds this much.
    pub(in crate::rtc) fn handle_reports(
        &mut self,
        sequences: impl Iterator<Item = u16>,
        rate: f64,
        round_trip: Duration,
        queue: Duration,
    ) {
        for reported in sequences {
            if let Some(index) = position(&self.packets, reported) {
                for (_, sent) in self.packets.drain(..=index) {
                    self.reported = self.reported.max(sent);
                }
            }
        }
        (self.round_trip, self.queue) = (round_trip, queue);
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

/// Where a packet is among others whose numbers follow each other.
fn position<T>(packets: &VecDeque<(u16, T)>, sequence: u16) -> Option<usize> {
    let index = usize::from(sequence.wrapping_sub(packets.front()?.0));
    packets.get(index).is_some_and(|(found, _)| *found == sequence).then_some(index)
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
        flight.handle_reports([65_535].into_iter(), 800_000.0, TRIP, Duration::ZERO);
        // 800 kbit/s for 400 ms are 40 000 bytes.
        for sequence in 0..40 {
            flight.handle_sent(now, sequence, 1_000);
            assert!(flight.has_room(now), "{sequence}");
        }
        flight.handle_sent(now, 40, 1_000);
        assert!(!flight.has_room(now));
        flight.handle_reports([0].into_iter(), 800_000.0, TRIP, Duration::ZERO);
        assert!(flight.has_room(now));
        flight.handle_reports([1].into_iter(), 80_000.0, TRIP, Duration::ZERO);
        assert!(!flight.has_room(now));
    }

    /// Four packets of two frames, sent at once, and when.
    fn two_frames() -> (Instant, Flight) {
        let (now, mut flight) = (crate::clock::now(), Flight::default());
        for sequence in [65_534, 65_535, 0, 1] {
            flight.handle_sent(now, sequence, 1_000);
            if sequence == 65_535 {
                flight.handle_end_of_frame(false);
            }
        }
        (now, flight)
    }

    #[test]
    fn what_is_old_is_not_sent_again() {
        let (now, mut flight) = two_frames();
        flight.handle_reports([1].into_iter(), 800_000.0, TRIP, Duration::ZERO);
        let (recent, late) = (now + Duration::from_millis(599), now + Duration::from_millis(600));
        assert_eq!(flight.handle_missing(recent, 1), Missing::Again);
        assert_eq!(flight.handle_missing(late, 65_534), Missing::Lost);
        flight.handle_end_of_frame(true);
        assert_eq!(flight.handle_missing(late, 65_534), Missing::MadeUpFor);
        assert_eq!(flight.handle_missing(late, 65_535), Missing::MadeUpFor);
        assert_eq!(flight.handle_missing(late, 0), Missing::Lost);
    }

    #[test]
    fn what_would_wait_in_the_queue_until_it_is_old_is_not_sent_again() {
        let (now, mut flight) = two_frames();
        flight.handle_reports([1].into_iter(), 800_000.0, TRIP, Duration::from_millis(400));
        assert_eq!(flight.handle_missing(now + Duration::from_millis(199), 0), Missing::Again);
        assert_eq!(flight.handle_missing(now + Duration::from_millis(200), 1), Missing::Lost);
    }

    #[test]
    fn nothing_is_old_where_nobody_measures() {
        let (now, mut flight) = two_frames();
        for missing in [65_534, 1, 2_000] {
            assert_eq!(flight.handle_missing(now + TRIP * 100, missing), Missing::Again);
        }
    }

    #[test]
    fn what_was_sent_again_has_time_to_arrive() {
        let (now, mut flight) = two_frames();
        assert_eq!(flight.handle_missing(now, 0), Missing::Again);
        assert_eq!(flight.handle_missing(now, 0), Missing::UnderWay, "asked for twice in a message");
        let queue = Duration::from_millis(50);
        flight.handle_reports([1].into_iter(), 800_000.0, TRIP, queue);
        assert_eq!(flight.handle_missing(now + TRIP + queue, 0), Missing::UnderWay);
        assert_eq!(flight.handle_missing(now + TRIP + queue * 2, 0), Missing::Again);
        assert_eq!(flight.handle_missing(now + TRIP + queue * 3, 0), Missing::UnderWay);
    }

    #[test]
    fn a_silent_path_is_knocked_at() {
        let (now, mut flight) = (crate::clock::now(), Flight::default());
        flight.handle_sent(now, 1, 1_000);
        flight.handle_reports([1].into_iter(), 1_000.0, TRIP, Duration::ZERO);
        flight.handle_sent(now, 2, 1_000);
        assert!(!flight.has_room(now + Duration::from_millis(499)));
        assert!(flight.has_room(now + KNOCK));
        flight.handle_sent(now + KNOCK, 3, 1_000);
        assert!(!flight.has_room(now + KNOCK));
    }
}
