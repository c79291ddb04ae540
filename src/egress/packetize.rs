//! From access units to RTP payloads.

use std::vec::Drain;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::media::{Chunks, Codec};

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
/// H.264 follows RFC 6184 in packetization mode 1: NAL units that fit go out as they are, small ones that are no slices
/// are aggregated, large ones fragmented. VP8 follows RFC 7741 and VP9 RFC 9628 in flexible mode, both with picture
/// identifiers of 15 bits. Payloads lie in memory of their own, which is used again once they are gone.
#[derive(Debug)]
pub struct Packetizer {
    codec: Codec,
    picture_id: u16,
    parts: Parts,
}

/// The payloads of the unit in hand.
#[derive(Debug)]
struct Parts {
    max_payload: usize,
    data: Chunks,
    payloads: Vec<Payload>,
}

impl Packetizer {
    /// Payload bytes that leave room for IP, UDP, SRTP and header extensions in a packet of 1 280 bytes.
    pub const MAX_PAYLOAD: usize = 1_188;

    /// For payloads of `max_payload` bytes at most, and no fewer than 16.
    #[must_use]
    pub fn new(codec: Codec, max_payload: usize) -> Self {
        let parts = Parts { max_payload: max_payload.max(16), data: Chunks::default(), payloads: Vec::new() };
        Self { codec, picture_id: 0, parts }
    }

    /// The payloads of one access unit, in order: an Annex B byte stream for H.264, one frame for VP8 and VP9.
    /// Nothing comes out when the unit holds no picture.
    pub fn packetize(&mut self, unit: &[u8], keyframe: bool) -> Drain<'_, Payload> {
        match self.codec {
            Codec::H264 => h264(unit, &mut self.parts),
            Codec::Vp8 => self.vp8(unit),
            Codec::Vp9 => self.vp9(unit, keyframe),
        }
        if let Some(last) = self.parts.payloads.last_mut() {
            last.marker = true;
        }
        self.parts.payloads.drain(..)
    }

    fn vp8(&mut self, unit: &[u8]) {
        const EXTENDED: u8 = 0x80;
        const STARTS: u8 = 0x10;
        const PICTURE_ID: u8 = 0x80;
        let [high, low] = self.next_picture_id();
        self.parts.fragment(unit, |part, is_first, _| {
            part.put_slice(&[if is_first { EXTENDED | STARTS } else { EXTENDED }, PICTURE_ID, high, low]);
        });
    }

    fn vp9(&mut self, unit: &[u8], keyframe: bool) {
        const PICTURE_ID: u8 = 0x80;
        const PREDICTED: u8 = 0x40;
        const FLEXIBLE: u8 = 0x10;
        const STARTS: u8 = 0x08;
        const ENDS: u8 = 0x04;
        const PREVIOUS_PICTURE: u8 = 1 << 1;
        let [high, low] = self.next_picture_id();
        self.parts.fragment(unit, |part, is_first, is_last| {
            let predicted = if keyframe { 0 } else { PREDICTED };
            let ends = if is_first { STARTS } else { 0 } | if is_last { ENDS } else { 0 };
            part.put_slice(&[PICTURE_ID | FLEXIBLE | predicted | ends, high, low]);
            if !keyframe {
                part.put_u8(PREVIOUS_PICTURE);
            }
        });
    }

    fn next_picture_id(&mut self) -> [u8; 2] {
        let id = self.picture_id;
        self.picture_id = (id + 1) & 0x7fff;
        (0x8000 | id).to_be_bytes()
    }
}

/// Most bytes that the callers of [`Parts::fragment`] put before a part.
const MAX_DESCRIPTOR: usize = 4;

impl Parts {
    /// A payload of these bytes.
    fn whole(&mut self, data: &[u8]) {
        self.data.begin(data.len()).put_slice(data);
        self.finish();
    }

    /// Splits data into parts of about the same size, each behind what `describe` writes; the flags tell first and last.
    fn fragment(&mut self, data: &[u8], describe: impl Fn(&mut BytesMut, bool, bool)) {
        let count = data.len().div_ceil(self.max_payload - MAX_DESCRIPTOR);
        let mut rest = data;
        for index in 0..count {
            let (part, after) = rest.split_at(rest.len().div_ceil(count - index));
            rest = after;
            let payload = self.data.begin(MAX_DESCRIPTOR + part.len());
            describe(payload, index == 0, index + 1 == count);
            payload.put_slice(part);
            self.finish();
        }
    }

    fn finish(&mut self) {
        let data = self.data.finish();
        self.payloads.push(Payload { data, marker: false });
    }
}

fn h264(unit: &[u8], parts: &mut Parts) {
    let max_payload = parts.max_payload;
    let mut aggregate = Aggregate::default();
    for nal in nal_units(unit) {
        let kind = nal[0] & 0x1f;
        if kind == DELIMITER || kind == FILLER {
            continue;
        }
        let is_small = kind == SUPPLEMENTAL || PARAMETER_SETS.contains(&kind);
        if !is_small || aggregate.len_with(nal) > max_payload {
            std::mem::take(&mut aggregate).finish(parts);
        }
        if is_small && aggregate.len_with(nal) <= max_payload {
            aggregate.add(nal, parts);
        } else if nal.len() <= max_payload {
            parts.whole(nal);
        } else {
            let header = nal[0];
            parts.fragment(&nal[1..], |part, is_first, is_last| {
                let ends = u8::from(is_first) << 7 | u8::from(is_last) << 6;
                part.put_slice(&[header & 0xe0 | FU_A, ends | kind]);
            });
        }
    }
    aggregate.finish(parts);
}

/// An aggregation packet in the making (RFC 6184, section 5.7.1): a header, then each NAL unit behind its size.
#[derive(Default)]
struct Aggregate {
    units: usize,
    /// Bytes so far.
    len: usize,
    /// Highest importance of a NAL unit in it.
    importance: u8,
}

impl Aggregate {
    const HEADER: usize = 1;
    const SIZE: usize = 2;

    const fn len_with(&self, nal: &[u8]) -> usize {
        let len = if self.units == 0 { Self::HEADER } else { self.len };
        len + Self::SIZE + nal.len()
    }

    /// It must fit: see [`Aggregate::len_with`].
    fn add(&mut self, nal: &[u8], parts: &mut Parts) {
        self.len = self.len_with(nal);
        if self.units == 0 {
            parts.data.begin(parts.max_payload).put_u8(0);
        }
        let payload = parts.data.current();
        #[expect(clippy::cast_possible_truncation, reason = "it fits a packet")]
        payload.put_u16(nal.len() as u16);
        payload.put_slice(nal);
        self.units += 1;
        self.importance = self.importance.max(nal[0] & 0x60);
    }

    /// One NAL unit goes out as it is.
    fn finish(self, parts: &mut Parts) {
        match self.units {
            0 => return,
            1 => parts.data.current().advance(Self::HEADER + Self::SIZE),
            _ => parts.data.current()[0] = self.importance | STAP_A,
        }
        parts.finish();
    }
}

/// The NAL units of a byte stream (H.264, annex B), none of them empty.
fn nal_units(unit: &[u8]) -> impl Iterator<Item = &[u8]> {
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
        Some(&unit[start..end])
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

    fn packetize(max_payload: usize, unit: &[u8]) -> Vec<Payload> {
        Packetizer::new(Codec::H264, max_payload).packetize(unit, true).collect()
    }

    fn payload(data: &[u8], marker: bool) -> Payload {
        Payload { data: Bytes::copy_from_slice(data), marker }
    }

    #[test]
    fn parameter_sets_share_a_packet_and_one_alone_goes_out_as_it_is() {
        let (sps, pps, slice) = ([0, 0, 0, 1, 0x67, 1, 2], [0, 0, 1, 0x68, 3], [0, 0, 0, 1, 0x65, 4, 5, 6]);
        let payloads = packetize(100, &[&sps[..], &pps, &slice].concat());
        assert_eq!(payloads, [payload(&[0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 3], false), payload(&slice[4..], true)]);
        let payloads = packetize(100, &[&sps[..], &slice].concat());
        assert_eq!(payloads, [payload(&sps[4..], false), payload(&slice[4..], true)]);
    }

    #[test]
    fn payloads_outlive_the_units_that_follow() {
        let mut packetizer = Packetizer::new(Codec::Vp8, 1_000);
        let unit = |number: u8| vec![number; 9_000];
        let held: Vec<Vec<Payload>> =
            (0..50).map(|number| packetizer.packetize(&unit(number), false).collect()).collect();
        for (number, payloads) in (0..).zip(held) {
            let rebuilt: Vec<u8> = payloads.iter().flat_map(|payload| payload.data[4..].to_vec()).collect();
            assert_eq!(rebuilt, unit(number));
        }
    }

    #[test]
    fn delimiters_and_filler_stay_behind() {
        let payloads = packetize(100, &[0, 0, 1, 9, 0x10, 0, 0, 1, 0x41, 7, 8, 0, 0, 1, 12, 0xff, 0x80]);
        assert_eq!(payloads, [payload(&[0x41, 7, 8], true)]);
    }

    #[test]
    fn fragments_carry_the_header_split_over_two_bytes() {
        let nal: Vec<u8> = std::iter::once(0x65).chain(1..=40).collect();
        let payloads = packetize(20, &[&[0, 0, 0, 1][..], &nal].concat());
        let headers: Vec<_> = payloads.iter().map(|payload| [payload.data[0], payload.data[1]]).collect();
        assert_eq!(headers, [[0x7c, 0x85], [0x7c, 0x05], [0x7c, 0x45]]);
        let rebuilt: Vec<u8> = payloads.iter().flat_map(|payload| payload.data[2..].to_vec()).collect();
        assert_eq!(rebuilt, nal[1..]);
    }

    #[test]
    fn picture_ids_count_and_wrap() {
        let mut packetizer = Packetizer::new(Codec::Vp8, 100);
        packetizer.picture_id = 0x7fff;
        let mut first = || packetizer.packetize(&[1, 2, 3], false).next().unwrap().data;
        assert_eq!(first()[..], [0x90, 0x80, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(first()[..], [0x90, 0x80, 0x80, 0x00, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn payloads_fit_and_only_the_last_is_marked(
            codec in prop::sample::select(&[Codec::H264, Codec::Vp8, Codec::Vp9]),
            unit in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => Just(1), 3 => any::<u8>()], 0..3_000),
            max_payload in 16..200_usize,
            keyframe in any::<bool>(),
        ) {
            let mut packetizer = Packetizer::new(codec, max_payload);
            let mut payloads = packetizer.packetize(&unit, keyframe);
            while let Some(payload) = payloads.next() {
                prop_assert!((1..=max_payload).contains(&payload.data.len()));
                prop_assert_eq!(payload.marker, payloads.len() == 0);
            }
        }
    }
}
