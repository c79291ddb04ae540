//! From access units to RTP payloads.

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::Codec;

// NAL unit types (H.264, table 7-1; RFC 6184, table 1).
const SUPPLEMENTAL: u8 = 6;
const PARAMETER_SETS: std::ops::RangeInclusive<u8> = 7..=8;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// One RTP packet's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// What follows the RTP header.
    pub data: Bytes,
    /// Marker bit: the picture's last packet.
    pub marker: bool,
}

/// Splits access units into RTP payloads.
///
/// H.264 follows RFC 6184 in packetization mode 1: NAL units that fit go out without a copy, small ones that are no
/// slices are aggregated, large ones fragmented. VP8 follows RFC 7741 and VP9 RFC 9628 in flexible mode, both with
/// picture identifiers of 15 bits.
#[derive(Debug, Clone)]
pub struct Packetizer {
    codec: Codec,
    max_payload: usize,
    picture_id: u16,
}

impl Packetizer {
    /// Payload bytes that leave room for IP, UDP, SRTP and header extensions in a packet of 1 280 bytes.
    pub const MAX_PAYLOAD: usize = 1_188;

    /// For payloads of `max_payload` bytes at most, and no fewer than 16.
    #[must_use]
    pub fn new(codec: Codec, max_payload: usize) -> Self {
        Self { codec, max_payload: max_payload.max(16), picture_id: 0 }
    }

    /// The payloads of one access unit, in order: an Annex B byte stream for H.264, one frame for VP8 and VP9.
    /// Nothing comes out when the unit holds no picture.
    pub fn packetize(&mut self, unit: &Bytes, keyframe: bool) -> Vec<Payload> {
        let mut payloads = match self.codec {
            Codec::H264 => h264(unit, self.max_payload),
            Codec::Vp8 => self.vp8(unit),
            Codec::Vp9 => self.vp9(unit, keyframe),
        };
        if let Some(last) = payloads.last_mut() {
            last.marker = true;
        }
        payloads
    }

    fn vp8(&mut self, unit: &[u8]) -> Vec<Payload> {
        const EXTENDED: u8 = 0x80;
        const STARTS: u8 = 0x10;
        const PICTURE_ID: u8 = 0x80;
        let [high, low] = self.next_picture_id();
        fragment(unit, self.max_payload, |part, is_first, _| {
            part.put_slice(&[if is_first { EXTENDED | STARTS } else { EXTENDED }, PICTURE_ID, high, low]);
        })
    }

    fn vp9(&mut self, unit: &[u8], keyframe: bool) -> Vec<Payload> {
        const PICTURE_ID: u8 = 0x80;
        const PREDICTED: u8 = 0x40;
        const FLEXIBLE: u8 = 0x10;
        const STARTS: u8 = 0x08;
        const ENDS: u8 = 0x04;
        const PREVIOUS_PICTURE: u8 = 1 << 1;
        let [high, low] = self.next_picture_id();
        fragment(unit, self.max_payload, |part, is_first, is_last| {
            let predicted = if keyframe { 0 } else { PREDICTED };
            let ends = if is_first { STARTS } else { 0 } | if is_last { ENDS } else { 0 };
            part.put_slice(&[PICTURE_ID | FLEXIBLE | predicted | ends, high, low]);
            if !keyframe {
                part.put_u8(PREVIOUS_PICTURE);
            }
        })
    }

    fn next_picture_id(&mut self) -> [u8; 2] {
        let id = self.picture_id;
        self.picture_id = (id + 1) & 0x7fff;
        (0x8000 | id).to_be_bytes()
    }
}

/// Most bytes that [`fragment`]'s callers put before a part.
const MAX_DESCRIPTOR: usize = 4;

/// Splits data into parts of about the same size, each behind what `describe` writes; the flags tell first and last.
/// One allocation holds all parts.
fn fragment(data: &[u8], max_payload: usize, describe: impl Fn(&mut BytesMut, bool, bool)) -> Vec<Payload> {
    let count = data.len().div_ceil(max_payload - MAX_DESCRIPTOR);
    let mut buffer = BytesMut::with_capacity(data.len() + count * MAX_DESCRIPTOR);
    let mut rest = data;
    let part = |index| {
        let (part, after) = rest.split_at(rest.len().div_ceil(count - index));
        rest = after;
        describe(&mut buffer, index == 0, index + 1 == count);
        buffer.put_slice(part);
        Payload { data: buffer.split().freeze(), marker: false }
    };
    (0..count).map(part).collect()
}

fn h264(unit: &Bytes, max_payload: usize) -> Vec<Payload> {
    let mut payloads = Vec::with_capacity(unit.len() / max_payload + 2);
    let mut small: Vec<Bytes> = Vec::new();
    for nal in nal_units(unit) {
        let kind = nal[0] & 0x1f;
        if kind == DELIMITER || kind == FILLER {
            continue;
        }
        let is_small = kind == SUPPLEMENTAL || PARAMETER_SETS.contains(&kind);
        let aggregated: usize = 1 + small.iter().map(|nal| 2 + nal.len()).sum::<usize>();
        if !is_small || aggregated + 2 + nal.len() > max_payload {
            flush_aggregate(&mut small, &mut payloads);
        }
        if is_small && 3 + nal.len() <= max_payload {
            small.push(nal);
        } else if nal.len() <= max_payload {
            payloads.push(Payload { data: nal, marker: false });
        } else {
            let header = nal[0];
            payloads.extend(fragment(&nal[1..], max_payload, |part, is_first, is_last| {
                let ends = u8::from(is_first) << 7 | u8::from(is_last) << 6;
                part.put_slice(&[header & 0xe0 | FU_A, ends | kind]);
            }));
        }
    }
    flush_aggregate(&mut small, &mut payloads);
    payloads
}

/// Sends what was collected: one NAL unit as it is, several in an aggregation packet (RFC 6184, section 5.7.1).
fn flush_aggregate(small: &mut Vec<Bytes>, payloads: &mut Vec<Payload>) {
    let data = match &small[..] {
        [] => return,
        [nal] => nal.clone(),
        nals => {
            let mut data = BytesMut::with_capacity(1 + nals.iter().map(|nal| 2 + nal.len()).sum::<usize>());
            let importance = nals.iter().map(|nal| nal[0] & 0x60).max().unwrap_or_default();
            data.put_u8(importance | STAP_A);
            for nal in nals {
                #[expect(clippy::cast_possible_truncation, reason = "it fits a packet")]
                data.put_u16(nal.len() as u16);
                data.put_slice(nal);
            }
            data.freeze()
        }
    };
    payloads.push(Payload { data, marker: false });
    small.clear();
}

/// The NAL units of a byte stream (H.264, annex B), none of them empty, without copying.
fn nal_units(unit: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut position = start_code(unit, 0).map(|(_, after)| after);
    std::iter::from_fn(move || {
        let start = position?;
        let next = start_code(unit, start);
        position = next.map(|(_, after)| after);
        let mut end = next.map_or(unit.len(), |(at, _)| at);
        // Zeros before a start code belong to it.
        while end > start && unit[end - 1] == 0 {
            end -= 1;
        }
        Some(unit.slice(start..end))
    })
    .filter(|nal| !nal.is_empty())
}

/// Where the next `00 00 01` is, and where it ends.
fn start_code(data: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    while let Some(&third) = data.get(at + 2) {
        match third {
            0 => at += 1,
            1 if data[at] == 0 && data[at + 1] == 0 => return Some((at, at + 3)),
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameter_sets_share_a_packet_and_slices_are_not_copied() {
        let unit = Bytes::from_static(&[0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 0, 1, 0x65, 4, 5, 6]);
        let payloads = Packetizer::new(Codec::H264, 100).packetize(&unit, true);
        assert_eq!(payloads.len(), 2);
        assert_eq!(payloads[0].data[..], [0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 3]);
        assert_eq!((&payloads[1].data[..], payloads[1].marker), (&[0x65, 4, 5, 6][..], true));
        assert_eq!(payloads[1].data.as_ptr(), unit[16..].as_ptr());
        assert!(!payloads[0].marker);
    }

    #[test]
    fn delimiters_and_filler_stay_behind() {
        let unit = Bytes::from_static(&[0, 0, 1, 9, 0x10, 0, 0, 1, 0x41, 7, 8, 0, 0, 1, 12, 0xff, 0x80]);
        let payloads = Packetizer::new(Codec::H264, 100).packetize(&unit, false);
        assert_eq!(payloads, [Payload { data: Bytes::from_static(&[0x41, 7, 8]), marker: true }]);
    }

    #[test]
    fn fragments_carry_the_header_split_over_two_bytes() {
        let nal: Vec<u8> = std::iter::once(0x65).chain(1..=40).collect();
        let unit = Bytes::from([&[0, 0, 0, 1][..], &nal].concat());
        let payloads = Packetizer::new(Codec::H264, 20).packetize(&unit, true);
        let headers: Vec<_> = payloads.iter().map(|payload| [payload.data[0], payload.data[1]]).collect();
        assert_eq!(headers, [[0x7c, 0x85], [0x7c, 0x05], [0x7c, 0x45]]);
        let rebuilt: Vec<u8> = payloads.iter().flat_map(|payload| payload.data[2..].to_vec()).collect();
        assert_eq!(rebuilt, nal[1..]);
    }

    #[test]
    fn picture_ids_count_and_wrap() {
        let mut packetizer = Packetizer::new(Codec::Vp8, 100);
        packetizer.picture_id = 0x7fff;
        let unit = Bytes::from_static(&[1, 2, 3]);
        assert_eq!(packetizer.packetize(&unit, false)[0].data[..], [0x90, 0x80, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(packetizer.packetize(&unit, false)[0].data[..], [0x90, 0x80, 0x80, 0x00, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn payloads_fit_and_only_the_last_is_marked(
            codec in prop::sample::select(&[Codec::H264, Codec::Vp8, Codec::Vp9]),
            unit in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => Just(1), 3 => any::<u8>()], 0..3_000),
            max_payload in 16..200_usize,
            keyframe in any::<bool>(),
        ) {
            let payloads = Packetizer::new(codec, max_payload).packetize(&Bytes::from(unit), keyframe);
            for (index, payload) in payloads.iter().enumerate() {
                prop_assert!((1..=max_payload).contains(&payload.data.len()));
                prop_assert_eq!(payload.marker, index + 1 == payloads.len());
            }
        }
    }
}
