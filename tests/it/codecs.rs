//! The way of a picture through encoder, packets, network, ingest and decoder, and through files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use saccade::clock;
use saccade::decode::{self, Decoded, Decoder, Limits};
use saccade::egress::packetize::Packetizer;
use saccade::encode::{self, Encoder};
use saccade::ingest::{self, Ingest, Output};
use saccade::media::{
    AnnouncedColor, Codec, ColorInfo, ColorMatrix, ColorRange, EncodedFrame, FramePool, I420, MediaTime, Rotation,
    RtpPacket,
};

const CODECS: [Codec; 3] = [Codec::H264, Codec::Vp8, Codec::Vp9];
const FRAME: u32 = 3_000;

/// A picture of soft waves with a bright block that moves: picture `index` looks like no other.
pub(crate) fn scene(width: u32, height: u32, index: u32) -> I420 {
    let mut picture = I420::new(width, height);
    let strides = picture.strides();
    let (left, top) = (index * 5 % (width - width / 5), index * 3 % (height - height / 5));
    for (plane, (codes, stride)) in picture.planes_mut().into_iter().zip(strides).enumerate() {
        let scale = if plane == 0 { 1 } else { 2 };
        let across: Vec<_> = (0..width).map(|x| (f64::from(x + index * 2) / 23.0).sin()).collect();
        let down: Vec<_> = (0..height).map(|y| (f64::from(y) / 17.0).cos()).collect();
        for (i, code) in codes.iter_mut().enumerate() {
            let (x, y) = ((i % stride) as u32 * scale, (i / stride) as u32 * scale);
            let wave = across[x as usize] + down[y as usize];
            let inside = (left..left + width / 5).contains(&x) && (top..top + height / 5).contains(&y);
            *code = match (plane, inside) {
                (0, true) => 220,
                (1, true) => 90,
                (2, true) => 180,
                _ => (120.0 + wave * 25.0 + plane as f64 * 6.0) as u8,
            };
        }
    }
    picture
}

/// Peak signal-to-noise ratio of the luma in decibels, over the area that both pictures have.
pub(crate) fn psnr(a: &I420, b: &I420) -> f64 {
    let (width, height) = (a.width().min(b.width()) as usize, a.height().min(b.height()) as usize);
    let rows =
        |picture: &I420| picture.planes()[0].chunks(picture.strides()[0]).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let square = |(a, b): (&u8, &u8)| u64::from(a.abs_diff(*b)).pow(2);
    let rows = rows(a).into_iter().zip(rows(b)).take(height);
    let squares: u64 = rows.map(|(a, b)| a[..width].iter().zip(&b[..width]).map(square).sum::<u64>()).sum();
    10.0 * (255.0_f64.powi(2) * (width * height) as f64 / squares.max(1) as f64).log10()
}

/// Numbers that look random and are the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

pub(crate) fn encoder(codec: Codec) -> encode::software::Software {
    encode::software::Software::new(codec, encode::software::Config { bitrate_bps: 1_500_000, fps: 30.0 }).unwrap()
}

fn decoder(codec: Codec, limits: Limits) -> decode::software::Software {
    decode::software::Software::new(codec, limits, Arc::new(FramePool::new(4))).unwrap()
}

/// An access unit as the decoder gets it.
pub(crate) fn unit(codec: Codec, encoded: encode::Encoded, rotation: Rotation) -> EncodedFrame {
    let encode::Encoded { data, keyframe, time, .. } = encoded;
    let color = AnnouncedColor::default();
    EncodedFrame { codec, data, time, keyframe, rotation, color, arrival: clock::now(), reorder_wait: Duration::ZERO }
}

/// Encodes a row of pictures, the first as a keyframe.
pub(crate) fn encode_scene(codec: Codec, width: u32, height: u32, count: u32, color: ColorInfo) -> Vec<EncodedFrame> {
    let mut encoder = encoder(codec);
    let encode = |index| {
        let encoded = encoder.encode(&scene(width, height, index), color, MediaTime(index * FRAME), false);
        unit(codec, encoded.unwrap().expect("a unit for each picture"), Rotation::None)
    };
    (0..count).map(encode).collect()
}

/// A sender, a network and a receiver, with the way back for keyframe requests.
struct Loop {
    encoder: encode::software::Software,
    packetizer: Packetizer,
    ingest: Ingest,
    decoder: decode::software::Software,
    sequence: u16,
    codec: Codec,
    start: Instant,
    keyframe_wanted: bool,
    requests: u32,
    decoded: BTreeMap<u32, Decoded>,
}

impl Loop {
    fn new(codec: Codec) -> Self {
        Self {
            encoder: encoder(codec),
            packetizer: Packetizer::new(codec, Packetizer::MAX_PAYLOAD),
            ingest: Ingest::new(codec, ingest::Config::default()),
            decoder: decoder(codec, Limits::default()),
            sequence: 65_500,
            codec,
            start: clock::now(),
            keyframe_wanted: false,
            requests: 0,
            decoded: BTreeMap::new(),
        }
    }

    fn now(&self, index: u32) -> Instant {
        self.start + Duration::from_millis(33) * index
    }

    /// The packets of the next picture.
    fn send(&mut self, picture: &I420, index: u32) -> Vec<RtpPacket> {
        let time = MediaTime(index * FRAME);
        let keyframe = std::mem::take(&mut self.keyframe_wanted);
        let encoded = self.encoder.encode(picture, ColorInfo::default(), time, keyframe).unwrap().unwrap();
        let arrival = self.now(index);
        let payloads = self.packetizer.packetize(&encoded.data, encoded.keyframe);
        let packets = payloads.map(|payload| {
            let sequence = self.sequence;
            self.sequence = sequence.wrapping_add(1);
            let (payload, marker) = (payload.data, payload.marker);
            RtpPacket { sequence, time, marker, rotation: None, color: None, payload, arrival }
        });
        packets.collect()
    }

    fn receive(&mut self, packet: RtpPacket, index: u32) {
        self.ingest.handle_packet(self.now(index), packet);
        self.poll(index);
    }

    fn poll(&mut self, index: u32) {
        let now = self.now(index);
        self.ingest.handle_timeout(now);
        while let Some(output) = self.ingest.poll_output() {
            match output {
                Output::RequestKeyframe => (self.keyframe_wanted, self.requests) = (true, self.requests + 1),
                Output::AccessUnit(unit) => match self.decoder.decode(&unit) {
                    Ok(Some(decoded)) => drop(self.decoded.insert(unit.time.0 / FRAME, decoded)),
                    Ok(None) => {}
                    Err(error) => panic!("{} unit at {}: {error:?}", self.codec, unit.time.0 / FRAME),
                },
            }
        }
    }
}

#[test]
fn pictures_survive_reordering_and_duplicates() {
    for codec in CODECS {
        let mut track = Loop::new(codec);
        let mut random = Random(7);
        let mut in_flight: Vec<(u64, RtpPacket)> = Vec::new();
        let mut clock = 0;
        for index in 0..60 {
            for packet in track.send(&scene(320, 240, index), index) {
                clock += 1;
                let first = clock == 1;
                in_flight.push((clock + if first { 0 } else { random.below(5) }, packet.clone()));
                if random.below(10) == 0 {
                    in_flight.push((clock + 3 + random.below(20), packet));
                }
            }
            in_flight.sort_by_key(|(place, _)| *place);
            let held = in_flight.split_off(in_flight.partition_point(|(place, _)| *place <= clock));
            for (_, packet) in std::mem::replace(&mut in_flight, held) {
                track.receive(packet, index);
            }
        }
        for (_, packet) in in_flight {
            track.receive(packet, 60);
        }
        assert_eq!((track.decoded.len(), track.requests), (60, 0), "{codec}");
        for (index, decoded) in &track.decoded {
            let quality = psnr(&decoded.picture, &scene(320, 240, *index));
            assert!(quality > 30.0, "{codec} picture {index}: {quality} dB");
        }
    }
}

#[test]
fn after_losses_pictures_come_back_whole() {
    for codec in CODECS {
        for seed in 0..2 {
            let mut track = Loop::new(codec);
            let mut random = Random(seed);
            for index in 0..120 {
                for packet in track.send(&scene(320, 240, index), index) {
                    if random.below(100) >= 2 {
                        track.receive(packet, index);
                    }
                }
                track.poll(index);
            }
            let stats = track.ingest.stats();
            assert!(stats.lost > 0 && track.requests > 0, "{codec} seed {seed}: {stats:?}");
            assert!(track.decoded.len() > 30, "{codec} seed {seed}: {} pictures, {stats:?}", track.decoded.len());
            let last = *track.decoded.keys().next_back().unwrap();
            assert!(last > 85, "{codec} seed {seed} stopped at {last}");
            for (index, decoded) in &track.decoded {
                let quality = psnr(&decoded.picture, &scene(320, 240, *index));
                assert!(quality > 28.0, "{codec} seed {seed} picture {index}: {quality} dB");
            }
        }
    }
}

#[test]
fn flipped_bits_never_outlast_the_next_keyframe() {
    for codec in CODECS {
        let units = encode_scene(codec, 160, 120, 12, ColorInfo::default());
        let mut errors = 0;
        for seed in 0..40 {
            let mut random = Random(seed);
            let mut decoder = decoder(codec, Limits::default());
            for unit in &units {
                let mut data = unit.data.to_vec();
                for _ in 0..1 + random.below(20) {
                    let at = random.below(data.len() as u64) as usize;
                    data[at] ^= 1 << random.below(8);
                }
                data.truncate(data.len() - random.below(data.len() as u64 / 4) as usize);
                errors += u32::from(decoder.decode(&EncodedFrame { data: Bytes::from(data), ..unit.clone() }).is_err());
            }
            let decoded = decoder.decode(&units[0]).unwrap().expect("the keyframe's picture");
            assert!(psnr(&decoded.picture, &scene(160, 120, 0)) > 30.0, "{codec} seed {seed}");
        }
        assert!(errors > 0, "{codec}: no error was ever noticed");
    }
}

#[test]
fn after_an_error_the_decoder_skips_to_a_keyframe() {
    for codec in CODECS {
        let units = encode_scene(codec, 160, 120, 3, ColorInfo::default());
        let mut decoder = decoder(codec, Limits::default());
        assert!(decoder.decode(&units[0]).unwrap().is_some());
        let error = decoder.decode(&EncodedFrame { data: Bytes::new(), ..units[1].clone() }).unwrap_err();
        assert!(error.needs_keyframe());
        assert_eq!(decoder.decode(&units[2]), Ok(None), "{codec}");
        assert!(decoder.decode(&units[0]).unwrap().is_some());
        assert!(decoder.decode(&units[1]).unwrap().is_some());
    }
}

#[test]
fn rotation_is_undone_exactly() {
    for codec in CODECS {
        let keyframe = encode_scene(codec, 64, 36, 1, ColorInfo::default()).remove(0);
        let turned = |rotation| {
            let unit = EncodedFrame { rotation, ..keyframe.clone() };
            decoder(codec, Limits::default()).decode(&unit).unwrap().unwrap().picture
        };
        let upright = turned(Rotation::None);
        for (rotation, quarters) in [(Rotation::Clockwise90, 1), (Rotation::Half, 2), (Rotation::Clockwise270, 3)] {
            let mut expected = Arc::clone(&upright);
            for _ in 0..quarters {
                expected = Arc::new(quarter_clockwise(&expected));
            }
            assert_eq!(turned(rotation), expected, "{codec} {rotation:?}");
        }
    }
}

#[test]
fn announced_colours_override_the_bitstreams() {
    let limited = ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Limited };
    let full = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
    for codec in CODECS {
        for (said, announced) in [(limited, full), (full, limited)] {
            let keyframe = encode_scene(codec, 64, 36, 1, said).remove(0);
            let decode = |color| {
                let unit = EncodedFrame { color, ..keyframe.clone() };
                decoder(codec, Limits::default()).decode(&unit).unwrap().unwrap()
            };
            let plain = decode(AnnouncedColor::default());
            assert_eq!(plain.color, if codec == Codec::Vp8 { limited } else { said }, "{codec}");
            assert_eq!(decode(announced.into()), Decoded { color: announced, ..plain.clone() }, "{codec}");
            let range = AnnouncedColor { matrix: None, range: Some(announced.range) };
            let color = ColorInfo { range: announced.range, ..plain.color };
            assert_eq!(decode(range), Decoded { color, ..plain.clone() }, "{codec}");
        }
    }
}

#[test]
fn the_encoder_tells_what_its_codes_mean() {
    let full = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
    for (codec, color) in [(Codec::H264, full), (Codec::Vp9, full), (Codec::Vp8, ColorInfo::default())] {
        let encoded = encoder(codec).encode(&scene(64, 36, 0), full, MediaTime(0), false).unwrap().unwrap();
        assert_eq!(encoded.color, color, "{codec}");
    }
}

fn quarter_clockwise(picture: &I420) -> I420 {
    let mut turned = I420::new(picture.height(), picture.width());
    let (strides, turned_strides) = (picture.strides(), turned.strides());
    for (plane, codes) in turned.planes_mut().into_iter().enumerate() {
        let from = picture.planes()[plane];
        let height = from.len() / strides[plane];
        for (i, code) in codes.iter_mut().enumerate() {
            let (x, y) = (i % turned_strides[plane], i / turned_strides[plane]);
            *code = from[(height - 1 - x) * strides[plane] + y];
        }
    }
    turned
}

#[test]
fn the_size_may_change_mid_stream() {
    for codec in CODECS {
        let mut track = Loop::new(codec);
        let size = |index| if (10..20).contains(&index) { (240, 320) } else { (320, 240) };
        for index in 0..30 {
            let (width, height) = size(index);
            for packet in track.send(&scene(width, height, index), index) {
                track.receive(packet, index);
            }
        }
        assert_eq!(track.decoded.len(), 30, "{codec}");
        for (index, Decoded { picture, .. }) in &track.decoded {
            assert_eq!((picture.width(), picture.height()), size(*index));
            assert!(psnr(picture, &scene(picture.width(), picture.height(), *index)) > 30.0, "{codec} {index}");
        }
    }
}

#[test]
fn a_stream_over_the_limits_is_refused_and_a_smaller_one_still_decodes() {
    let limits = Limits { max_width: 320, max_height: 320 };
    for codec in CODECS {
        let mut decoder = decoder(codec, limits);
        let large = encode_scene(codec, 640, 200, 2, ColorInfo::default());
        let too_large = decode::Error::TooLarge { width: 640, height: 200 };
        assert_eq!(decoder.decode(&large[0]), Err(too_large), "{codec}");
        assert_eq!(decoder.decode(&large[1]), Ok(None));
        let small = encode_scene(codec, 320, 320, 1, ColorInfo::default());
        assert!(decoder.decode(&small[0]).unwrap().is_some());
        assert_eq!(decoder.decode(&large[0]), Err(too_large));
    }
}

#[test]
fn odd_sides_and_colours_arrive() {
    let full = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
    for (codec, size, color) in [
        (Codec::H264, (62, 38), full),
        // VP8 has one colour only, to which the encoder converts.
        (Codec::Vp8, (61, 37), ColorInfo::default()),
        (Codec::Vp9, (61, 37), full),
    ] {
        let unit = encode_scene(codec, 61, 37, 1, full).remove(0);
        let decoded = decoder(codec, Limits::default()).decode(&unit).unwrap().unwrap();
        assert_eq!((decoded.picture.width(), decoded.picture.height()), size, "{codec}");
        assert_eq!(decoded.color, color, "{codec}");
        let rgb = |picture: &I420, color: ColorInfo| color.to_rgb(picture.planes().map(|plane| plane[0]));
        let (sent, got) = (rgb(&scene(61, 37, 0), full), rgb(&decoded.picture, decoded.color));
        assert!(sent.iter().zip(got).all(|(a, b)| a.abs_diff(b) < 16), "{codec} {sent:?} {got:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is split into packets comes together again.
    #[test]
    fn a_packetised_unit_is_put_together_again(
        codec in prop::sample::select(&CODECS),
        slices in prop::collection::vec(prop::collection::vec(1..=255_u8, 1..4_000), 1..4),
        supplemental in any::<bool>(),
        max_payload in 40..1_300_usize,
    ) {
        let data = match codec {
            Codec::H264 => {
                let mut nals = vec![vec![0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d], vec![0x68, 0xce, 0x3c, 0x80]];
                nals.extend(supplemental.then(|| vec![0x06, 5, 4, 3]));
                nals.extend(slices.iter().map(|slice| [&[0x65, 0x88][..], slice].concat()));
                nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect()
            }
            Codec::Vp8 => [&[0x10, 0, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0][..], &slices[0]].concat(),
            Codec::Vp9 => [&[0x82][..], &slices[0]].concat(),
        };
        let mut ingest = Ingest::new(codec, ingest::Config::default());
        let arrival = clock::now();
        let mut packetizer = Packetizer::new(codec, max_payload);
        for (sequence, payload) in packetizer.packetize(&data, true).enumerate() {
            prop_assert!(payload.data.len() <= max_payload);
            let (sequence, time) = (sequence as u16, MediaTime(0));
            let (payload, marker) = (payload.data, payload.marker);
            ingest.handle_packet(arrival, RtpPacket { sequence, time, marker, rotation: None, color: None, payload, arrival });
        }
        let Some(Output::AccessUnit(unit)) = ingest.poll_output() else { panic!("no unit") };
        prop_assert_eq!(&unit.data[..], &data[..]);
        prop_assert!(unit.keyframe);
    }
}

#[test]
fn a_written_file_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let color = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Limited };
    for (name, codec, kept) in
        [("a.mp4", Codec::H264, color), ("a.webm", Codec::Vp8, ColorInfo::default()), ("b.webm", Codec::Vp9, color)]
    {
        let path = folder.path().join(name);
        let effort = encode::file::Effort::Fast;
        let settings = encode::file::Settings { codec, width: 160, height: 120, fps: 25.0, quality: 18, effort };
        let mut writer = encode::file::Writer::create(&path, settings).unwrap();
        for index in 0..50 {
            writer.write(&scene(160, 120, index), color).unwrap();
        }
        let wrong_size = encode::file::Error::Size { width: 161, height: 120 };
        assert_eq!(writer.write(&I420::new(161, 120), color), Err(wrong_size));
        writer.finish().unwrap();

        let reader = decode::file::Reader::open(&path, Limits::default()).unwrap();
        let info = reader.info().clone();
        assert_eq!((info.width, info.height, info.frames), (160, 120, Some(50)), "{name}");
        assert!((info.fps.unwrap() - 25.0).abs() < 0.01, "{name}: {info:?}");
        let pictures: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(pictures.len(), 50, "{name}");
        for (index, picture) in pictures.iter().enumerate() {
            assert_eq!(picture.color, kept, "{name}");
            let time = Duration::from_millis(40) * index as u32;
            assert!(picture.time.abs_diff(time) < Duration::from_millis(2), "{name} {:?}", picture.time);
            if kept == color {
                let quality = psnr(&picture.picture, &scene(160, 120, index as u32));
                assert!(quality > 30.0, "{name} {index}: {quality} dB");
            }
        }
    }
    let index_first = std::fs::read(folder.path().join("a.mp4")).unwrap();
    let place = |name: &[u8]| index_first.windows(4).position(|window| window == name).unwrap();
    assert!(place(b"moov") < place(b"mdat"), "the index comes before the pictures");
}

#[test]
fn an_empty_video_and_a_bad_name_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let effort = encode::file::Effort::Fast;
    let settings = encode::file::Settings { codec: Codec::H264, width: 16, height: 16, fps: 25.0, quality: 23, effort };
    let writer = encode::file::Writer::create(&folder.path().join("a.mp4"), settings).unwrap();
    assert_eq!(writer.finish(), Err(encode::file::Error::Empty));
    for name in ["a.no-container", "no/such/folder.mp4"] {
        let result = encode::file::Writer::create(&folder.path().join(name), settings);
        assert!(matches!(result, Err(encode::file::Error::Create(_))), "{name}");
    }
}

#[test]
fn what_is_no_video_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    assert!(matches!(decode::file::Reader::open(&path, Limits::default()), Err(decode::file::Error::Open(_))));
    std::fs::write(&path, [7; 5_000]).unwrap();
    assert!(decode::file::Reader::open(&path, Limits::default()).is_err());
}

/// Writes a picture file with FFmpeg's own encoder: reddish on the left, bluish on the right.
fn write_picture(path: &Path, encoder: &str, format: ffmpeg_next::format::Pixel, patch: impl Fn(Vec<u8>) -> Vec<u8>) {
    use ffmpeg_next::format::Pixel;
    let (width, height) = (64_usize, 48_usize);
    let found = ffmpeg_next::encoder::find_by_name(encoder).expect("FFmpeg has the encoder");
    let mut context = ffmpeg_next::codec::Context::new_with_codec(found).encoder().video().unwrap();
    context.set_width(width as u32);
    context.set_height(height as u32);
    context.set_format(format);
    context.set_time_base((1, 25));
    context.set_color_range(ffmpeg_next::color::Range::JPEG);
    let mut encoder = context.open().unwrap();
    let mut frame = ffmpeg_next::frame::Video::new(format, width as u32, height as u32);
    let color = ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Full };
    for plane in 0..frame.planes() {
        let stride = frame.stride(plane);
        let row_width = if plane == 0 { width } else { width / 2 };
        for row in frame.data_mut(plane).chunks_exact_mut(stride) {
            for x in 0..row_width {
                let rgb = if x < row_width / 2 { [200, 40, 60] } else { [30, 60, 210] };
                match format {
                    Pixel::RGB24 => row[3 * x..3 * x + 3].copy_from_slice(&rgb),
                    Pixel::BGRA => row[4 * x..4 * x + 4].copy_from_slice(&[rgb[2], rgb[1], rgb[0], 255]),
                    _ => row[x] = color.from_rgb(rgb)[plane],
                }
            }
        }
    }
    frame.set_pts(Some(0));
    encoder.send_frame(&frame).unwrap();
    encoder.send_eof().unwrap();
    let mut packet = ffmpeg_next::Packet::empty();
    encoder.receive_packet(&mut packet).unwrap();
    std::fs::write(path, patch(packet.data().unwrap().to_vec())).unwrap();
}

#[test]
fn picture_files_are_read_with_their_colours_and_their_orientation() {
    use ffmpeg_next::format::Pixel;
    // TIFF header, one directory entry: orientation (0x0112), a short, 6: the top is on the right.
    const EXIF: &[u8] = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let folder = tempfile::tempdir().unwrap();
    let as_is = |data: Vec<u8>| data;
    let with_exif = |data: Vec<u8>| [&data[..2], EXIF, &data[2..]].concat();
    let path = |name: &str| folder.path().join(name);
    write_picture(&path("a.png"), "png", Pixel::RGB24, as_is);
    write_picture(&path("a.webp"), "libwebp", Pixel::BGRA, as_is);
    write_picture(&path("a.jpg"), "mjpeg", Pixel::YUVJ420P, as_is);
    write_picture(&path("turned.jpg"), "mjpeg", Pixel::YUVJ420P, with_exif);
    for (name, (width, height)) in
        [("a.png", (64, 48)), ("a.webp", (64, 48)), ("a.jpg", (64, 48)), ("turned.jpg", (48, 64))]
    {
        let reader = decode::file::Reader::open(&path(name), Limits::default()).unwrap();
        assert_eq!(
            (reader.info().width, reader.info().height, reader.info().frames),
            (width, height, Some(1)),
            "{name}"
        );
        let pictures: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(pictures.len(), 1, "{name}");
        let decode::file::Picture { picture, color, .. } = &pictures[0];
        let rgb = |x: u32, y: u32| {
            let [luma, cb, cr] = picture.planes();
            let chroma = (y / 2 * width.div_ceil(2) + x / 2) as usize;
            color.to_rgb([luma[(y * width + x) as usize], cb[chroma], cr[chroma]])
        };
        // Turned clockwise, what was on the left is at the top.
        for (at, expected) in [((8, 8), [200, 40, 60]), ((width - 8, height - 8), [30, 60, 210])] {
            let got = rgb(at.0, at.1);
            assert!(got.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 14), "{name} {at:?} {got:?} {color:?}");
        }
    }
}

/// A file of the shared test assets; without them, `None`, which only continuous integration takes as a failure.
fn asset(name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared");
    let path = Path::new(&std::env::var("SACCADE_TEST_ASSETS").unwrap_or_else(|_| beside.to_owned())).join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", path.display());
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    eprintln!("skipped {test}: {} is missing", path.display());
    None
}

#[test]
fn real_clips_are_read_to_their_end() {
    for (name, (width, height), frames, fps) in [
        ("bottles_640x360.mp4", (640, 360), 1_189, 179.0 / 6.0),
        ("cars_topdown_768x432.mp4", (768, 432), 377, 12.5),
        ("two_faces_480x270.mp4", (480, 270), 56, 12.0),
        ("webcam_signer_640x480.mp4", (640, 480), 586, 30.0),
    ] {
        let Some(path) = asset(&format!("clips/{name}")) else { return };
        let mut reader = decode::file::Reader::open(&path, Limits::default()).unwrap();
        let info = reader.info().clone();
        assert_eq!((info.width, info.height, info.frames, info.codec), (width, height, Some(frames), "h264"), "{name}");
        assert!((info.fps.unwrap() - fps).abs() < 0.01, "{name}: {info:?}");
        let (mut count, mut last) = (0, None);
        while let Some(picture) = reader.next() {
            let picture = picture.unwrap();
            assert_eq!((picture.picture.width(), picture.picture.height()), (width, height));
            assert!(last.is_none_or(|last| picture.time > last), "{name} picture {count}");
            last = Some(picture.time);
            count += 1;
            reader.pool().give(picture.picture);
        }
        assert_eq!((count, reader.broken_packets()), (frames, 0), "{name}");
    }
}

#[test]
fn a_photo_is_one_full_range_picture() {
    let Some(path) = asset("datasets/coco_permissive/images/000000000030.jpg") else { return };
    let reader = decode::file::Reader::open(&path, Limits::default()).unwrap();
    let info = reader.info().clone();
    assert_eq!((info.frames, info.fps), (Some(1), None));
    let pictures: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(pictures.len(), 1);
    let decode::file::Picture { picture, color, time } = &pictures[0];
    assert_eq!((picture.width(), picture.height()), (info.width, info.height));
    assert_eq!(*color, ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Full });
    assert_eq!(*time, Duration::ZERO);
    let small = Limits { max_width: 100, max_height: 100 };
    assert!(matches!(
        decode::file::Reader::open(&path, small),
        Err(decode::file::Error::Picture(decode::Error::TooLarge { .. }))
    ));
}
