//! Packets that were sent, for peers that ask for them again and know no RTX (RFC 4588): they get the same bytes once
//! more, as RFC 4585 has it.

use std::collections::VecDeque;

use str0m::rtp::rtcp::NackEntry;

/// Packets that are kept; half a second of 8 Mbit/s.
const KEPT: usize = 512;

/// The last packets of one stream.
#[derive(Debug, Default)]
pub(super) struct History {
    packets: VecDeque<(u16, Vec<u8>)>,
}

impl History {
    /// Keeps a datagram, if it is an RTP packet.
    pub(super) fn keep(&mut self, datagram: &[u8]) {
        let Some(sequence) = sequence(datagram) else { return };
        let mut room = if self.packets.len() == KEPT { self.packets.pop_front() } else { None }.unwrap_or_default().1;
        room.clear();
        room.extend_from_slice(datagram);
        self.packets.push_back((sequence, room));
    }

    /// Those of the missing packets that are still there.
    pub(super) fn find(&self, missing: NackEntry) -> impl Iterator<Item = &[u8]> {
        let later = (0..16).filter(move |bit| missing.blp >> bit & 1 == 1);
        let wanted = std::iter::once(missing.pid).chain(later.map(move |bit| missing.pid.wrapping_add(bit + 1)));
        wanted.filter_map(|wanted| {
            let found = self.packets.iter().rev().find(|(sequence, _)| *sequence == wanted);
            found.map(|(_, datagram)| &datagram[..])
        })
    }
}

/// Sequence number of an RTP packet; `None` for RTCP and what is neither (RFC 5761, section 4, and RFC 7983).
fn sequence(datagram: &[u8]) -> Option<u16> {
    let rtp = matches!(datagram, [128..=191, kind, ..] if !(64..=95).contains(&(kind & 0x7f)));
    (rtp && datagram.len() >= 12).then(|| u16::from_be_bytes([datagram[2], datagram[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16) -> Vec<u8> {
        let [high, low] = sequence.to_be_bytes();
        vec![0x80, 96, high, low, 0, 0, 0, 0, 0, 0, 0, 1, low]
    }

    #[test]
    fn the_missing_are_found_as_long_as_they_are_kept() {
        let mut history = History::default();
        // Across the wrap of sequence numbers.
        for step in 0..KEPT as u16 + 10 {
            history.keep(&packet(65_030_u16.wrapping_add(step)));
        }
        let found = |pid, blp| history.find(NackEntry { pid, blp }).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(found(65_534, 0b1000_0000_0000_0101), [65_534, 65_535, 1, 14].map(packet));
        assert_eq!(found(65_039, 1), [packet(65_040)]);
        assert_eq!(history.packets.len(), KEPT);
    }

    #[test]
    fn nothing_but_rtp_is_kept() {
        let mut history = History::default();
        let report = [0x80, 200, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1];
        let (stun, short) = ([0; 20], [0x80, 96, 0]);
        for other in [&report[..], &stun, &short, &[]] {
            history.keep(other);
        }
        assert!(history.packets.is_empty());
    }
}
