use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::media::{AnnouncedColor, ColorMatrix, ColorRange, MediaTime, Rotation};

const START_CODE: [u8; 4] = [0, 0, 0, 1];
const PARAMETER_SETS: [&[u8]; 2] = [&[0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d], &[0x68, 0xce, 0x3c, 0x80]];
const CODECS: [Codec; 3] = [Codec::H264, Codec::Vp8, Codec::Vp9];

/// A made-up unit: what a decoder gets, and the payloads that carry it.
fn sent(codec: Codec, index: usize, keyframe: bool, len: usize, max_payload: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let body: Vec<u8> = (0..len).map(|i| u8::try_from((i * 31 + index * 17) % 251).unwrap()).collect();
    match codec {
        Codec::H264 => {
            let nal = [&[if keyframe { 0x65 } else { 0x41 }, 0x80][..], &body[..]].concat();
            let mut data = Vec::new();
            let mut payloads = Vec::new();
            if keyframe {
                let mut aggregate = vec![0x78];
                for set in PARAMETER_SETS {
                    data.extend([&START_CODE[..], set].concat());
                    aggregate.extend([&[0, u8::try_from(set.len()).unwrap()][..], set].concat());
                }
                payloads.push(aggregate);
            }
            data.extend([&START_CODE[..], &nal].concat());
            if nal.len() <= max_payload {
                payloads.push(nal);
            } else {
                let count = (nal.len() - 1).div_ceil(max_payload);
                payloads.extend(nal[1..].chunks(max_payload).enumerate().map(|(i, part)| {
                    let ends = u8::from(i == 0) << 7 | u8::from(i + 1 == count) << 6;
                    [&[nal[0] & 0xe0 | 28, ends | nal[0] & 0x1f][..], part].concat()
                }));
            }
            (data, payloads)
        }
        Codec::Vp8 => {
            let tag: &[u8] = if keyframe { &[0x10, 0, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0] } else { &[0x11] };
            let data = [tag, &body].concat();
            let part = |(i, part)| [&[if i == 0 { 0x90 } else { 0x80 }, 0x80, 0x05][..], part].concat();
            let payloads = data.chunks(max_payload).enumerate().map(part).collect();
            (data, payloads)
        }
        Codec::Vp9 => {
            let data = [&[if keyframe { 0x82 } else { 0x86 }][..], &body[..]].concat();
            let count = data.len().div_ceil(max_payload);
            let payloads = data.chunks(max_payload).enumerate().map(|(i, part)| {
                let flags = 0x80 | u8::from(!keyframe) << 6 | u8::from(i == 0) << 3 | u8::from(i + 1 == count) << 2;
                [&[flags, 0x05][..], part].concat()
            });
            (data.clone(), payloads.collect())
        }
    }
}

struct Track {
    ingest: Ingest,
    start: Instant,
    sequence: u16,
    units: Vec<EncodedFrame>,
    requests: u32,
}

impl Track {
    fn new(codec: Codec, config: Config) -> Self {
        let ingest = Ingest::new(codec, config);
        Self { ingest, start: clock::now(), sequence: 65_530, units: Vec::new(), requests: 0 }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn packet(&mut self, ms: u64, time: u32, marker: bool, payload: &[u8]) -> RtpPacket {
        let (sequence, arrival) = (self.sequence, self.at(ms));
        self.sequence = self.sequence.wrapping_add(1);
        let payload = Bytes::copy_from_slice(payload);
        RtpPacket { sequence, time: MediaTime(time), marker, rotation: None, color: None, payload, arrival }
    }

    fn feed(&mut self, ms: u64, packet: RtpPacket) {
        self.ingest.handle_packet(self.at(ms), packet);
        self.drain();
    }

    /// Sends one unit, without the packets at the places named.
    fn send(&mut self, ms: u64, time: u32, payloads: &[Vec<u8>], without: &[usize]) {
        for (i, payload) in payloads.iter().enumerate() {
            let packet = self.packet(ms, time, i + 1 == payloads.len(), payload);
            if !without.contains(&i) {
                self.feed(ms, packet);
            }
        }
    }

    fn timeout(&mut self, ms: u64) {
        self.ingest.handle_timeout(self.at(ms));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.ingest.poll_output() {
            match output {
                Output::AccessUnit(unit) => self.units.push(unit),
                Output::RequestKeyframe => self.requests += 1,
            }
        }
    }

    fn times(&self) -> Vec<u32> {
        self.units.iter().map(|unit| unit.time.0).collect()
    }
}

#[test]
fn a_clean_stream_passes_at_once_and_unchanged() {
    for codec in CODECS {
        let mut track = Track::new(codec, Config::default());
        for index in 0..20_u32 {
            let (data, payloads) = sent(codec, index as usize, index == 0, 2_500, 1_000);
            track.send(u64::from(index) * 33, index * 3_000, &payloads, &[]);
            let unit = track.units.last().unwrap();
            assert_eq!((unit.time.0, unit.keyframe, unit.reorder_wait), (index * 3_000, index == 0, Duration::ZERO));
            assert_eq!(unit.data, data, "{codec} {index}");
        }
        assert_eq!((track.units.len(), track.requests), (20, 0));
    }
}

#[test]
fn what_exceeds_the_bitrate_is_dropped_and_the_stream_goes_on_within_it() {
    let mut track = Track::new(Codec::Vp8, Config { max_bps: 1_000_000, ..Config::default() });
    // 12 Mbit/s for three seconds, a keyframe in each.
    for index in 0..90_u32 {
        let payloads = sent(Codec::Vp8, index as usize, index % 30 == 0, 50_000, 1_000).1;
        track.send(u64::from(index) * 33, index * 3_000, &payloads, &[]);
    }
    let (units, dropped) = (track.units.len(), track.ingest.stats().over_bitrate);
    // A mebibyte at once, and 125 kB a second.
    assert!((20..30).contains(&units), "{units} units");
    assert!((2_700..3_300).contains(&dropped), "{dropped} packets");
    for index in 0..30_u32 {
        let payloads = sent(Codec::Vp8, index as usize, index == 0, 2_500, 1_000).1;
        track.send(20_000 + u64::from(index) * 33, 1_800_000 + index * 3_000, &payloads, &[]);
    }
    assert_eq!((track.units.len(), track.ingest.stats().over_bitrate), (units + 30, dropped));
}

#[test]
fn after_a_loss_only_a_keyframe_opens_the_gate_again() {
    for codec in CODECS {
        let mut track = Track::new(codec, Config::default());
        let delta = sent(codec, 0, false, 2_500, 1_000).1;
        let key = sent(codec, 0, true, 2_500, 1_000).1;
        track.send(0, 0, &key, &[]);
        track.send(33, 3_000, &delta, &[1]);
        track.send(66, 6_000, &delta, &[]);
        assert_eq!((track.times(), track.requests), (vec![0], 0), "{codec}");
        track.timeout(153);
        assert_eq!((track.times(), track.requests), (vec![0], 1));
        track.send(200, 9_000, &delta, &[]);
        assert_eq!((track.times(), track.requests), (vec![0], 1));
        // The request is repeated while nothing helps.
        assert_eq!(track.ingest.poll_timeout(), Some(track.at(653)));
        track.timeout(653);
        assert_eq!(track.requests, 2);
        track.send(700, 12_000, &key, &[]);
        track.send(733, 15_000, &delta, &[]);
        assert_eq!(track.times(), [0, 12_000, 15_000]);
        assert_eq!(track.ingest.poll_timeout(), None);
        let stats = track.ingest.stats();
        assert_eq!((stats.lost, stats.dropped_incomplete, stats.dropped_awaiting_keyframe), (1, 1, 2));
    }
}

#[test]
fn a_retransmission_within_the_wait_loses_nothing_and_the_wait_is_told() {
    for codec in CODECS {
        let mut track = Track::new(codec, Config::default());
        track.send(0, 0, &sent(codec, 0, true, 100, 1_000).1, &[]);
        let (_, payloads) = sent(codec, 1, false, 100, 1_000);
        let missing = track.packet(90, 3_000, true, &payloads[0]);
        track.send(40, 6_000, &sent(codec, 2, false, 100, 1_000).1, &[]);
        track.feed(90, missing);
        assert_eq!(track.times(), [0, 3_000, 6_000]);
        let waits: Vec<_> = track.units.iter().map(|unit| unit.reorder_wait.as_millis()).collect();
        assert_eq!(waits, [0, 0, 50]);
        assert_eq!(track.requests, 0);
    }
}

#[test]
fn losing_whole_units_is_noticed() {
    for codec in CODECS {
        let mut track = Track::new(codec, Config::default());
        let delta = sent(codec, 0, false, 100, 1_000).1;
        track.send(0, 0, &sent(codec, 0, true, 100, 1_000).1, &[]);
        track.send(33, 3_000, &delta, &[0]);
        track.send(66, 6_000, &delta, &[]);
        track.timeout(500);
        assert_eq!((track.times(), track.requests), (vec![0], 1), "{codec}");
    }
}

#[test]
fn padding_takes_numbers_and_nothing_else() {
    let mut track = Track::new(Codec::Vp8, Config::default());
    let delta = sent(Codec::Vp8, 0, false, 2_500, 1_000).1;
    track.send(0, 0, &sent(Codec::Vp8, 0, true, 2_500, 1_000).1, &[]);
    for _ in 0..3 {
        let padding = track.packet(5, 0, false, &[]);
        track.feed(5, padding);
    }
    track.send(33, 3_000, &delta, &[]);
    assert_eq!((track.times(), track.ingest.stats().lost), (vec![0, 3_000], 0));
}

#[test]
fn a_new_timestamp_ends_a_unit_without_marker() {
    let mut track = Track::new(Codec::Vp8, Config::default());
    let key = sent(Codec::Vp8, 0, true, 100, 1_000).1;
    let packet = track.packet(0, 0, false, &key[0]);
    track.feed(0, packet);
    assert!(track.units.is_empty());
    track.send(33, 3_000, &sent(Codec::Vp8, 1, false, 100, 1_000).1, &[]);
    assert_eq!(track.times(), [0, 3_000]);
}

#[test]
fn a_stream_that_does_not_begin_with_a_keyframe_asks_for_one_at_once() {
    let mut track = Track::new(Codec::H264, Config::default());
    track.send(0, 0, &sent(Codec::H264, 0, false, 100, 1_000).1, &[]);
    assert_eq!((track.units.len(), track.requests), (0, 1));
}

#[test]
fn a_keyframe_on_its_way_holds_requests_back() {
    let mut track = Track::new(Codec::Vp8, Config::default());
    let key = sent(Codec::Vp8, 0, true, 10_000, 1_000).1;
    for (i, payload) in key.iter().enumerate() {
        let ms = i as u64 * 200;
        let packet = track.packet(ms, 0, i + 1 == key.len(), payload);
        track.feed(ms, packet);
    }
    assert_eq!((track.units.len(), track.requests), (1, 0));
}

#[test]
fn a_decode_error_skips_to_the_next_keyframe() {
    let mut track = Track::new(Codec::Vp9, Config::default());
    let delta = sent(Codec::Vp9, 0, false, 100, 1_000).1;
    let key = sent(Codec::Vp9, 0, true, 100, 1_000).1;
    track.send(0, 0, &key, &[]);
    track.ingest.handle_decode_error(track.at(10));
    track.drain();
    track.send(33, 3_000, &delta, &[]);
    track.send(66, 6_000, &key, &[]);
    assert_eq!((track.times(), track.requests), (vec![0, 6_000], 1));
}

#[test]
fn a_unit_over_the_bound_is_dropped() {
    for codec in CODECS {
        let mut track = Track::new(codec, Config { max_unit_bytes: 3_000, ..Config::default() });
        track.send(0, 0, &sent(codec, 0, true, 10_000, 1_000).1, &[]);
        track.send(33, 3_000, &sent(codec, 0, true, 2_000, 1_000).1, &[]);
        assert_eq!(track.times(), [3_000]);
        assert_eq!((track.ingest.stats().dropped_too_large, track.requests), (1, 1));
    }
}

#[test]
fn rotation_holds_until_it_changes() {
    let mut track = Track::new(Codec::Vp8, Config::default());
    for (index, rotation) in [None, Some(Rotation::Clockwise90), None, Some(Rotation::None)].into_iter().enumerate() {
        let (_, payloads) = sent(Codec::Vp8, index, true, 100, 1_000);
        let packet = track.packet(0, u32::try_from(index).unwrap() * 3_000, true, &payloads[0]);
        track.feed(0, RtpPacket { rotation, ..packet });
    }
    let rotations: Vec<_> = track.units.iter().map(|unit| unit.rotation).collect();
    assert_eq!(rotations, [Rotation::None, Rotation::Clockwise90, Rotation::Clockwise90, Rotation::None]);
}

#[test]
fn announced_colours_hold_until_a_keyframe_comes_without() {
    let full = AnnouncedColor { matrix: Some(ColorMatrix::Bt709), range: Some(ColorRange::Full) };
    let limited = AnnouncedColor { matrix: None, range: Some(ColorRange::Limited) };
    let units = [
        (false, Some(limited), None),
        (true, None, Some(AnnouncedColor::default())),
        (false, Some(full), Some(full)),
        (false, None, Some(full)),
        (true, Some(limited), Some(limited)),
        (false, None, Some(limited)),
        (true, None, Some(AnnouncedColor::default())),
        (false, None, Some(AnnouncedColor::default())),
    ];
    for codec in CODECS {
        let mut track = Track::new(codec, Config::default());
        for (index, (keyframe, color, _)) in units.into_iter().enumerate() {
            let (_, payloads) = sent(codec, index, keyframe, 2_500, 1_000);
            for (i, payload) in payloads.iter().enumerate() {
                let last = i + 1 == payloads.len();
                let packet = track.packet(0, u32::try_from(index).unwrap() * 3_000, last, payload);
                track.feed(0, RtpPacket { color: color.filter(|_| last), ..packet });
            }
        }
        let colors: Vec<_> = track.units.iter().map(|unit| unit.color).collect();
        let expected: Vec<_> = units.into_iter().filter_map(|(_, _, expected)| expected).collect();
        assert_eq!(colors, expected, "{codec}");
    }
}

#[test]
fn a_unit_that_is_dropped_announces_nothing() {
    let mut track = Track::new(Codec::Vp8, Config::default());
    let full = AnnouncedColor { matrix: None, range: Some(ColorRange::Full) };
    track.send(0, 0, &sent(Codec::Vp8, 0, true, 100, 1_000).1, &[]);
    let (_, payloads) = sent(Codec::Vp8, 1, false, 1_500, 1_000);
    let packet = track.packet(33, 3_000, false, &payloads[0]);
    track.feed(33, packet);
    track.sequence = track.sequence.wrapping_add(1);
    let packet = track.packet(33, 3_000, true, &payloads[1]);
    track.feed(33, RtpPacket { color: Some(full), ..packet });
    track.timeout(500);
    assert_eq!(track.ingest.stats().dropped_incomplete, 1);
    track.send(600, 6_000, &sent(Codec::Vp8, 2, true, 100, 1_000).1, &[]);
    let colors: Vec<_> = track.units.iter().map(|unit| unit.color).collect();
    assert_eq!(colors, [AnnouncedColor::default(); 2]);
}

#[test]
fn a_sender_that_starts_over_is_followed_from_its_keyframe() {
    let mut track = Track::new(Codec::H264, Config::default());
    let key = sent(Codec::H264, 0, true, 2_500, 1_000).1;
    track.send(0, 0, &key, &[]);
    track.sequence = 20_000;
    track.send(33, 1_000_000, &key, &[]);
    assert_eq!(track.times(), [0, 1_000_000]);
    assert_eq!(track.ingest.stats().restarts, 1);
}

/// What the network does to one packet.
#[derive(Debug, Clone, Copy)]
struct Fate {
    lost: bool,
    twice: bool,
    delay: usize,
    padding_before: bool,
}

fn fate() -> impl Strategy<Value = Fate> {
    let delay = prop_oneof![6 => Just(0_usize), 2 => 1..6_usize, 1 => 6..60_usize];
    (prop::bool::weighted(0.04), prop::bool::weighted(0.05), delay, prop::bool::weighted(0.05))
        .prop_map(|(lost, twice, delay, padding_before)| Fate { lost, twice, delay, padding_before })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Units come out bit-exact or not at all, in order, and never after a gap unless they are keyframes.
    #[test]
    fn no_network_makes_a_wrong_unit(
        codec in prop::sample::select(&CODECS),
        units in prop::collection::vec((prop::bool::weighted(0.2), 1..5_000_usize, prop::bool::weighted(0.95)), 1..40),
        fates in prop::collection::vec(fate(), 400),
        gentle in any::<bool>(),
    ) {
        let config = Config { max_packets: 32, max_buffered_bytes: 20_000, ..Config::default() };
        let mut track = Track::new(codec, config);
        let mut originals = Vec::new();
        let mut arrivals = Vec::new();
        let mut fates = fates.into_iter().cycle();
        for (index, (keyframe, len, marked)) in units.iter().copied().enumerate() {
            let keyframe = keyframe || index == 0;
            let (data, payloads) = sent(codec, index, keyframe, len, 1_000);
            originals.push((keyframe, data));
            for (i, payload) in payloads.iter().enumerate() {
                let fate = fates.next().unwrap();
                let time = u32::try_from(index).unwrap() * 3_000;
                if fate.padding_before && i == 0 {
                    let padding = track.packet(0, time.wrapping_sub(3_000), false, &[]);
                    arrivals.push((arrivals.len(), padding));
                }
                let packet = track.packet(0, time, i + 1 == payloads.len() && (marked || gentle), payload);
                if gentle || !fate.lost {
                    let delay = if gentle { fate.delay.min(5) } else { fate.delay };
                    if fate.twice {
                        arrivals.push((arrivals.len() + delay + 7, packet.clone()));
                    }
                    arrivals.push((arrivals.len() + delay, packet));
                }
            }
        }
        arrivals.sort_by_key(|(place, _)| *place);
        // The first packet fixes where the stream begins.
        let first = arrivals.iter().position(|(_, packet)| packet.sequence == 65_530);
        if gentle && let Some(first) = first {
            let packet = arrivals.remove(first);
            arrivals.insert(0, packet);
        }
        for (step, (_, packet)) in arrivals.into_iter().enumerate() {
            let ms = step as u64 * 5;
            let arrival = track.at(ms);
            track.feed(ms, RtpPacket { arrival, ..packet });
            prop_assert!(track.ingest.reorder.bytes() <= 20_000);
        }
        track.timeout(1_000_000);

        let mut last: Option<usize> = None;
        for unit in &track.units {
            let index = usize::try_from(unit.time.0 / 3_000).unwrap();
            let (keyframe, data) = &originals[index];
            prop_assert_eq!(&unit.data, data);
            prop_assert_eq!(unit.keyframe, *keyframe);
            prop_assert!(last.is_none_or(|last| index > last));
            prop_assert!(unit.keyframe || last == Some(index - 1), "unit {} after {:?}", index, last);
            last = Some(index);
        }
        if gentle {
            prop_assert_eq!(track.units.len(), originals.len());
        }
    }

    /// Arbitrary bytes with arbitrary numbers never panic and never hold more than the bounds.
    #[test]
    fn no_bytes_break_it(
        codec in prop::sample::select(&CODECS),
        packets in prop::collection::vec(
            (any::<u16>(), 0..4_u16, 0..3_u32, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40), 0..50_u64),
            0..300,
        ),
        tame in any::<bool>(),
    ) {
        let config = Config { max_packets: 16, max_buffered_bytes: 300, max_unit_bytes: 200, ..Config::default() };
        let mut track = Track::new(codec, config);
        let (mut ms, mut sequence, mut time) = (0, 0_u16, 0_u32);
        for (wild, step, tick, marker, payload, wait) in packets {
            ms += wait;
            sequence = if tame { sequence.wrapping_add(step) } else { wild };
            time = time.wrapping_add(tick * 3_000);
            let packet = track.packet(ms, time, marker, &payload);
            track.feed(ms, RtpPacket { sequence, ..packet });
            prop_assert!(track.ingest.reorder.bytes() <= 300);
        }
        let largest = track.units.iter().map(|unit| unit.data.len()).max();
        prop_assert!(largest.is_none_or(|len| len <= 200 + 4 * 40 + 16 * 1_030 * 2));
    }
}
