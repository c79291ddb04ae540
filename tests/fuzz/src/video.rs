//! Received video: packets that are lost, late, twice or nonsense, and the headers of pictures.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use saccade::clock;
use saccade::decode::announced_size;
use saccade::egress::packetize::Packetizer;
use saccade::ingest::{Config, Ingest, Output};
use saccade::media::{AnnouncedColor, Codec, ColorMatrix, ColorRange, MediaTime, Rotation, RtpPacket};

use crate::input::all;

/// Ticks of the RTP clock between two frames.
const FRAME_TICKS: u32 = 3000;
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Bounds that a target reaches with few bytes.
const CONFIG: Config = Config {
    max_wait: Duration::from_millis(120),
    max_packets: 64,
    max_buffered_bytes: 64 << 10,
    max_unit_bytes: 16 << 10,
    keyframe_interval: Duration::from_millis(500),
    max_bps: 50_000_000,
};

pub(crate) fn h264(data: &[u8]) {
    depacketize(Codec::H264, data);
}

pub(crate) fn vp8(data: &[u8]) {
    depacketize(Codec::Vp8, data);
}

pub(crate) fn vp9(data: &[u8]) {
    depacketize(Codec::Vp9, data);
}

/// The first byte says whether packets are a sender's, or made up.
fn depacketize(codec: Codec, data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    if first & 1 == 0 { sent(codec, first, rest) } else { made_up(codec, rest) }
}

/// A frame of a sender, and what becomes of its packets.
#[derive(Debug, Arbitrary)]
struct Sent {
    keyframe: bool,
    /// Bytes beyond the least, in eights.
    length: u8,
    /// Which packets are lost, by bit.
    lost: u16,
    /// Which come twice.
    twice: u16,
    /// Which come later, and after how many further ones.
    late: u16,
    delay: u8,
    /// Milliseconds to the next frame.
    wait: u8,
}

/// What a sender makes, through loss, disorder and repetition: what comes out is whole, in order, and begins with a keyframe
/// after each gap.
fn sent(codec: Codec, first: u8, data: &[u8]) {
    let mut input = Unstructured::new(data);
    let frames = all::<Sent>(&mut input, 200);
    let mut packetizer = Packetizer::new(codec, 100);
    let mut units = Vec::new();
    // By when they come, in packets, and by number.
    let mut on_the_way: BTreeMap<(usize, usize), (RtpPacket, u8)> = BTreeMap::new();
    let (mut sequence, start) = (u16::from(first) << 8, clock::now());
    let mut number = 0;
    for (index, frame) in frames.iter().enumerate() {
        // Whatever the bytes, a video begins with a keyframe.
        let keyframe = frame.keyframe || index == 0;
        let unit = unit(codec, index, keyframe, 8 * usize::from(frame.length));
        let time = ticks(index);
        for (part, payload) in packetizer.packetize(&unit, keyframe).enumerate() {
            let packet = RtpPacket {
                sequence,
                time,
                marker: payload.marker,
                rotation: None,
                color: None,
                payload: payload.data,
                arrival: start,
            };
            sequence = sequence.wrapping_add(1);
            number += 1;
            let is = |bits: u16| bits >> (part % 16) & 1 == 1;
            let delay = if is(frame.late) { usize::from(frame.delay % 64) } else { 0 };
            if is(frame.twice) {
                on_the_way.insert((number + delay + 3, 2 * number + 1), (packet.clone(), 0));
            }
            if !is(frame.lost) {
                let wait = if payload.marker { frame.wait } else { 0 };
                on_the_way.insert((number + delay, 2 * number), (packet, wait));
            }
        }
        units.push((unit, keyframe));
    }
    let (mut ingest, mut now) = (Ingest::new(codec, CONFIG), start);
    let mut last: Option<usize> = None;
    let mut check = |ingest: &mut Ingest| {
        while let Some(output) = ingest.poll_output() {
            let Output::AccessUnit(out) = output else { continue };
            let index = usize::try_from(out.time.0 / FRAME_TICKS).unwrap();
            let (data, keyframe) = units.get(index).expect("a frame that was sent");
            assert_eq!((&out.data[..], out.keyframe), (&data[..], *keyframe), "frame {index} is not as it was sent");
            let follows = last.map(|last| last + 1);
            assert!(last.is_none_or(|last| index > last), "frame {index} comes after {last:?}");
            assert!(*keyframe || follows == Some(index), "frame {index} refers to one that did not come out");
            assert!(out.arrival <= out.arrival + out.reorder_wait);
            last = Some(index);
        }
    };
    for (_, (mut packet, wait)) in on_the_way {
        packet.arrival = now;
        ingest.handle_packet(now, packet);
        check(&mut ingest);
        now += Duration::from_millis(wait.into());
        ingest.handle_timeout(now);
        check(&mut ingest);
    }
    end(&mut ingest, now, check);
}

fn ticks(index: usize) -> MediaTime {
    MediaTime(FRAME_TICKS * u32::try_from(index).unwrap())
}

/// A unit whose bytes tell it from every other.
fn unit(codec: Codec, index: usize, keyframe: bool, length: usize) -> Vec<u8> {
    let body = (0..length).map(|at| u8::try_from((at * 31 + index * 17) % 251).unwrap() | 1);
    let head: Vec<u8> = match (codec, keyframe) {
        (Codec::H264, true) => {
            let sets: [&[u8]; 2] = [&[0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d], &[0x68, 0xce, 0x3c, 0x80]];
            let mut head: Vec<u8> = sets.iter().flat_map(|set| [&START_CODE[..], set].concat()).collect();
            head.extend(START_CODE);
            head.extend([0x65, 0x80]);
            head
        }
        (Codec::H264, false) => [&START_CODE[..], &[0x41, 0x80]].concat(),
        (Codec::Vp8, true) => vec![0x10, 0, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0],
        (Codec::Vp8, false) => vec![0x11],
        (Codec::Vp9, true) => vec![0x82],
        (Codec::Vp9, false) => vec![0x86],
    };
    let tag = u16::try_from(index).unwrap().to_be_bytes().map(|byte| byte | 0x10);
    head.into_iter().chain(tag).chain(body).collect()
}

/// A packet that nobody sent.
#[derive(Debug, Arbitrary)]
struct Packet<'a> {
    /// From the number before: small ones are usual, others jump.
    step: i8,
    jump: Option<u16>,
    /// Ticks from the time before.
    ticks: u8,
    marker: bool,
    extras: u8,
    /// Milliseconds until it comes.
    wait: u8,
    payload: &'a [u8],
}

/// Packets that nobody sent: what comes out is bounded, begins with what says of itself that it is a keyframe, and the
/// counts add up.
fn made_up(codec: Codec, data: &[u8]) {
    let mut input = Unstructured::new(data);
    let (mut ingest, mut now) = (Ingest::new(codec, CONFIG), clock::now());
    let (mut sequence, mut time, mut units, mut packets) = (0_u16, 0_u32, 0_u64, 0_u64);
    let mut is_closed = true;
    while !input.is_empty() && packets < 300 {
        let Ok(made) = Packet::arbitrary(&mut input) else { break };
        sequence = made.jump.unwrap_or_else(|| sequence.wrapping_add_signed(made.step.into()));
        time = time.wrapping_add(made.ticks.into());
        now += Duration::from_millis(made.wait.into());
        packets += 1;
        let packet = RtpPacket {
            sequence,
            time: MediaTime(time),
            marker: made.marker,
            rotation: (made.extras & 1 == 1).then_some(Rotation::Clockwise90),
            color: (made.extras & 2 == 2)
                .then_some(AnnouncedColor { matrix: Some(ColorMatrix::Bt709), range: Some(ColorRange::Full) }),
            payload: Bytes::copy_from_slice(made.payload),
            arrival: now,
        };
        ingest.handle_packet(now, packet);
        if made.extras & 0xfc == 0xfc {
            ingest.handle_decode_error(now);
            is_closed = true;
        }
        drain(&mut ingest, &mut units, &mut is_closed);
        if made.extras & 0xfc == 0x80 {
            ingest.handle_timeout(now);
            drain(&mut ingest, &mut units, &mut is_closed);
            assert!(ingest.poll_timeout().is_none_or(|next| next > now), "a deadline that has passed is over");
        }
    }
    end(&mut ingest, now, |ingest| drain(ingest, &mut units, &mut is_closed));
    let stats = ingest.stats();
    assert_eq!((stats.packets, stats.access_units), (packets, units));
    assert!(stats.duplicates + stats.late + stats.stray <= packets);
    let dropped = stats.dropped_incomplete + stats.dropped_malformed + stats.dropped_too_large;
    // A packet ends two units at most: its own, and the one before.
    assert!(units + dropped + stats.dropped_awaiting_keyframe <= 2 * packets);
}

fn drain(ingest: &mut Ingest, units: &mut u64, is_closed: &mut bool) {
    while let Some(output) = ingest.poll_output() {
        let Output::AccessUnit(unit) = output else { continue };
        *units += 1;
        assert!(!unit.data.is_empty());
        // The parameter sets that an H.264 keyframe may need again come on top.
        assert!(unit.data.len() <= 2 * CONFIG.max_unit_bytes, "{} bytes", unit.data.len());
        assert!(unit.keyframe || !*is_closed, "the first is no keyframe");
        *is_closed = false;
        if unit.keyframe && unit.codec != Codec::H264 {
            let is_key = if unit.codec == Codec::Vp8 { unit.data[0] & 1 == 0 } else { true };
            assert!(is_key);
        }
    }
}

/// Lets everything that waits for time come to its end: nothing waits for ever, and requests keep their distance.
fn end(ingest: &mut Ingest, from: Instant, mut check: impl FnMut(&mut Ingest)) {
    let mut now = from;
    for _ in 0..100 {
        let Some(due) = ingest.poll_timeout() else { break };
        now = now.max(due);
        ingest.handle_timeout(now);
        check(ingest);
        assert!(ingest.poll_timeout().is_none_or(|next| next > now));
    }
    let before = ingest.stats().keyframe_requests;
    ingest.handle_timeout(now);
    assert!(ingest.stats().keyframe_requests - before <= 1);
    check(ingest);
}

/// What a bitstream says of its size, the first byte naming the codec: it is the same whatever follows.
pub(crate) fn header(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let codec = [Codec::H264, Codec::Vp8, Codec::Vp9][usize::from(first) % 3];
    let Some(size) = announced_size(codec, rest) else { return };
    let followed = [rest, &[0xff; 40]].concat();
    assert_eq!(announced_size(codec, &followed), Some(size));
    match codec {
        Codec::H264 => {}
        Codec::Vp8 => assert!(size.0 < 1 << 14 && size.1 < 1 << 14),
        Codec::Vp9 => assert!((1..=1 << 16).contains(&size.0) && (1..=1 << 16).contains(&size.1)),
    }
}
