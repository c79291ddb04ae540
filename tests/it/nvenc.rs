//! Encoding on GPUs, on one that is none: what comes out is what x264 makes of what it finds in the GPU's memory, and
//! whatever the GPU does not do, software does.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use saccade::decode::{self, Decoded, Decoder as _, Limits};
use saccade::device::driver::{self, Version};
use saccade::device::{self, PinnedPool, PitchedNv12, Status, Stream, SurfacePool};
use saccade::encode::nvenc::{self, Api, Bounds, Entries, Hardware, Missing, Mistake, Nvenc, Takeover};
use saccade::encode::software::{Config, Software};
use saccade::encode::{self, Encoded, Encoder as _};
use saccade::media::{Codec, ColorInfo, ColorMatrix, ColorRange, FramePool, I420, MediaTime, Rotation};

use crate::codecs::{psnr, scene, unit};
use crate::fake_cuda::{Chip, Fake, Progress};

const CONFIG: Config = Config { bitrate_bps: 1_500_000, fps: 30.0 };
/// Pictures after which a GPU that failed is tried again at first: those of ten seconds.
const RETRY: u32 = 300;
const COLOR: ColorInfo = ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Limited };

fn hardware(fake: &Fake) -> Arc<Hardware> {
    Hardware::new(&fake.gpu(), Api::of(&fake.entries()).unwrap(), Bounds::default())
}

fn takeover(hardware: &Arc<Hardware>) -> Takeover {
    Takeover::new(hardware, CONFIG).unwrap()
}

fn time(index: u32) -> MediaTime {
    MediaTime(u32::MAX - 10_000).after(Duration::from_secs(index.into()) / 30)
}

/// Decodes one stream's units in software.
struct Receiver(decode::software::Software);

impl Receiver {
    fn new() -> Self {
        Self(decode::software::Software::new(Codec::H264, Limits::default(), Arc::new(FramePool::new(2))).unwrap())
    }

    fn decode(&mut self, encoded: Encoded) -> Decoded {
        self.0.decode(&unit(Codec::H264, encoded, Rotation::None)).unwrap().expect("a picture for each unit")
    }

    /// Decodes a unit, and looks whether it is the picture that was sent.
    #[track_caller]
    fn check(&mut self, encoded: Encoded, sent: &I420) {
        let decoded = self.decode(encoded);
        let quality = psnr(&decoded.picture, sent);
        assert!(quality > 32.0, "{}x{}: {quality} dB", sent.width(), sent.height());
    }
}

/// Types of a unit's parts (H.264, table 7-1).
fn types(encoded: &Encoded) -> Vec<u8> {
    let starts = encoded.data.windows(4).filter(|window| window[..3] == [0, 0, 1]);
    starts.map(|window| window[3] & 0x1f).collect()
}

/// A picture in the GPU's memory.
fn surface(gpu: &Arc<device::Device>, picture: &I420, stream: &Stream) -> PitchedNv12 {
    let mut surface = PitchedNv12::new(gpu, picture.width(), picture.height()).unwrap();
    surface.upload(picture, &PinnedPool::new(gpu, 64 << 20), stream).unwrap();
    surface
}

/// What a session's encoder gives for a row of pictures, all of which come out and can be decoded.
struct Session {
    encoder: Takeover,
    receiver: Receiver,
    next: u32,
}

impl Session {
    fn new(hardware: &Arc<Hardware>) -> Self {
        Self { encoder: takeover(hardware), receiver: Receiver::new(), next: 0 }
    }

    /// Whether the next picture was a keyframe.
    #[track_caller]
    fn send(&mut self, (width, height): (u32, u32), keyframe: bool) -> bool {
        let picture = scene(width, height, self.next);
        let encoded = self.encoder.encode(&picture, COLOR, time(self.next), keyframe);
        let encoded = encoded.unwrap().expect("a unit for each picture");
        assert_eq!((encoded.time, encoded.color), (time(self.next), COLOR));
        self.next += 1;
        let is_keyframe = encoded.keyframe;
        assert_eq!(types(&encoded).contains(&5), is_keyframe);
        self.receiver.check(encoded, &picture);
        is_keyframe
    }

    /// The time passes that so many pictures take.
    fn skip(&mut self, pictures: u32) {
        // A step counts for a second at most.
        for _ in 0..pictures.div_ceil(30) {
            self.next += 30;
            assert!(!self.send((320, 240), false), "software goes on without a keyframe");
        }
    }
}

#[test]
fn what_is_missing_of_the_encoders_library_is_named() {
    let missing = Entries::open_as("libsaccade-has-no-such.so.1").unwrap_err();
    assert!(matches!(missing, driver::Missing::Library { library: "libsaccade-has-no-such.so.1", .. }));
    let missing = Entries::open_as("libc.so.6").unwrap_err();
    let symbol = "NvEncodeAPIGetMaxSupportedVersion";
    assert_eq!(missing, driver::Missing::Symbol { library: "libc.so.6", symbol });

    let fake = Fake::new();
    let open = || Api::of(&fake.entries()).map(drop);
    fake.change_chip(|chip| chip.version = 12 << 4);
    let (found, needed) = (Version { major: 12, minor: 0 }, Version { major: 12, minor: 1 });
    let too_old = open().unwrap_err();
    assert_eq!((&too_old, nvenc::VERSION), (&Missing::TooOld { found, needed }, needed));
    assert_eq!(
        too_old.to_string(),
        "NVIDIA's driver is made for version 12.0 of the encoder's interface, and 12.1 is needed: update it"
    );
    assert_eq!(fake.calls("NvEncodeAPICreateInstance"), 0);
    fake.change_chip(|chip| chip.version = 12 << 4 | 1);
    assert_eq!(open(), Ok(()));
    fake.change_chip(|chip| chip.lacks = Some("nvEncRegisterResource"));
    let missing = open().unwrap_err();
    assert_eq!(missing, Missing::Function("nvEncRegisterResource"));
    assert_eq!(missing.to_string(), "libnvidia-encode.so.1 lacks nvEncRegisterResource: update NVIDIA's driver");
    fake.fail_encoder("NvEncodeAPICreateInstance", nvenc::Status::INVALID_VERSION);
    let missing = open().unwrap_err().to_string();
    assert_eq!(missing, "NVIDIA's encoder does not start: NvEncodeAPICreateInstance returned INVALID_VERSION (15)");
}

#[test]
fn each_picture_comes_out_at_once_and_is_what_went_in() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    for size in [(320, 240), (162, 122), (161, 121), (201, 150), (240, 135)] {
        let mut session = Session::new(&hardware);
        let keyframes: Vec<_> = (0..8).map(|_| session.send(size, false)).collect();
        assert_eq!(keyframes, [true, false, false, false, false, false, false, false], "{size:?}");
        assert!(session.encoder.on_gpu());
    }
    assert_eq!((fake.calls("NvEncLockBitstream"), hardware.open()), (5 * 8, 0));
    // Each is told of its memory once.
    assert_eq!(fake.calls("NvEncRegisterResource"), 5);
}

#[test]
fn the_last_column_and_row_are_repeated_where_a_side_is_odd() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let stream = Stream::new(&gpu).unwrap();
    for (width, height) in [(7, 5), (8, 5), (7, 6), (8, 6), (1, 1)] {
        let mut picture = I420::new(width, height);
        for (plane, codes) in picture.planes_mut().into_iter().enumerate() {
            codes.iter_mut().enumerate().for_each(|(at, code)| *code = (1 + at * 3 + plane * 60) as u8);
        }
        let mut found = surface(&gpu, &picture, &stream);
        found.fill_to_even(&stream).unwrap();
        stream.wait().unwrap();
        let (even_width, even_height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        for y in 0..even_height {
            let mut row = vec![0; even_width as usize];
            fake.read(found.luma() + u64::from(y) * found.pitch() as u64, &mut row);
            let start = (y.min(height - 1) * width) as usize;
            let from = &picture.planes()[0][start..start + width as usize];
            let expected: Vec<u8> = from.iter().copied().chain([from[from.len() - 1]]).take(row.len()).collect();
            assert_eq!(row, expected, "{width}x{height} row {y}");
        }
    }
}

#[test]
fn a_keyframe_on_demand_has_parameter_sets() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let mut encoder = Nvenc::new(&hardware, CONFIG).unwrap();
    for index in 0..10 {
        let wanted = matches!(index, 4 | 7);
        let encoded = encoder.encode_picture(&scene(320, 240, index), COLOR, time(index), wanted).unwrap();
        let types = types(&encoded);
        let keyframe = wanted || index == 0;
        assert_eq!(encoded.keyframe, keyframe);
        assert_eq!([7, 8, 5, 1].map(|kind| types.contains(&kind)), [keyframe, keyframe, keyframe, !keyframe]);
    }
    assert_eq!(fake.told().waves, Some((300, 30)));
    assert_eq!(fake.told().level, 31);
}

/// A picture that takes all bits that there are.
fn noise(index: u32) -> I420 {
    let mut picture = scene(320, 240, index);
    for (at, code) in (0_u32..).zip(picture.planes_mut()[0].iter_mut()) {
        let random = (at ^ index << 20).wrapping_mul(0x9e37_79b9);
        *code = 60 + ((random ^ random >> 15).wrapping_mul(0x85eb_ca6b) >> 26) as u8;
    }
    picture
}

/// Bits a second of a session's next four seconds, the first of which is left out.
fn measured(encoder: &mut Nvenc, from: u32, step: u32) -> f64 {
    let mut bytes = 0;
    let pictures = 4 * 90_000 / step;
    for index in 0..pictures {
        let encoded = encoder.encode_picture(&noise(index), COLOR, MediaTime(from + index * step), false).unwrap();
        assert_eq!(encoded.keyframe, from == 0 && index == 0);
        if index >= pictures / 4 {
            bytes += encoded.data.len();
        }
    }
    (bytes * 8) as f64 / 3.0
}

#[test]
fn a_new_bitrate_holds_without_a_keyframe_and_at_any_rate_of_pictures() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let mut encoder = Nvenc::new(&hardware, Config { bitrate_bps: 900_000, fps: 30.0 }).unwrap();
    for (round, (bitrate, step)) in
        [(900_000, 3_000), (500_000, 3_000), (900_000, 9_000), (600_000, 3_000)].into_iter().enumerate()
    {
        encoder.set_bitrate(bitrate);
        let bps = measured(&mut encoder, round as u32 * 1_000_000, step);
        assert!((0.5..1.4).contains(&(bps / f64::from(bitrate))), "{bitrate} at step {step}: {bps}");
        // It shares its bits out among thirty pictures a second.
        let told = f64::from(fake.told().bitrate) / f64::from(bitrate) * 3_000.0 / f64::from(step);
        assert!((0.95..1.05).contains(&told), "{bitrate} at step {step}: {:?}", fake.told());
        assert!(fake.told().vbv.abs_diff(fake.told().bitrate / 30) <= 1, "{:?}", fake.told());
    }
    assert_eq!(fake.calls("NvEncInitializeEncoder"), 1);
    assert!(fake.calls("NvEncReconfigureEncoder") < 60, "small changes are not told");
}

#[test]
fn an_encoder_whose_bitrate_does_not_change_is_opened_anew_for_great_changes() {
    let fake = Fake::new();
    let hardware_of = || hardware(&fake);
    let keyframes = |hardware: &Arc<Hardware>| {
        let mut encoder = Nvenc::new(hardware, CONFIG).unwrap();
        let mut encode = |index, bitrate| {
            encoder.set_bitrate(bitrate);
            encoder.encode_picture(&scene(320, 240, index), COLOR, time(index), false).unwrap().keyframe
        };
        let bitrates = [1_500_000, 1_500_000, 1_300_000, 700_000, 700_000].into_iter().enumerate();
        bitrates.map(|(index, bitrate)| encode(index as u32, bitrate)).collect::<Vec<_>>()
    };
    // It does change, but not this time.
    fake.fail_encoder_after(1, "NvEncReconfigureEncoder", nvenc::Status::INVALID_PARAM);
    assert_eq!(keyframes(&hardware_of()), [true, false, false, true, false]);
    fake.change_chip(|chip| chip.dynamic_bitrate = false);
    assert_eq!(keyframes(&hardware_of()), [true, false, false, true, false]);
    assert_eq!(fake.calls("NvEncReconfigureEncoder"), 2);
}

#[test]
fn another_size_is_another_encoder_of_which_there_is_one_at_a_time() {
    let fake = Fake::new();
    fake.change_chip(|chip| chip.sessions = 1);
    let hardware = hardware(&fake);
    let mut session = Session::new(&hardware);
    for (size, keyframe) in [((320, 240), true), ((320, 240), false), ((240, 320), true), ((240, 320), false)] {
        assert_eq!(session.send(size, false), keyframe);
        assert!(session.encoder.on_gpu());
        assert_eq!((fake.encoders(), hardware.open()), (1, 1));
    }
    drop(session);
    assert_eq!((fake.encoders(), hardware.open(), fake.memory_in_use()), (0, 0, 0));
}

#[test]
fn colours_are_said_as_software_says_them() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let mut encoder = takeover(&hardware);
    let mut software = Software::new(Codec::H264, CONFIG).unwrap();
    let (mut receiver, mut other) = (Receiver::new(), Receiver::new());
    let matrices = [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020];
    let colors =
        matrices.map(|matrix| [ColorRange::Limited, ColorRange::Full].map(|range| ColorInfo { matrix, range }));
    for (index, color) in (0..).zip(colors.into_iter().flatten().flat_map(|color| [color, color])) {
        let picture = scene(320, 240, index);
        let encoded = encoder.encode(&picture, color, time(index), false).unwrap().unwrap();
        assert_eq!((encoded.keyframe, encoded.color), (index % 2 == 0, color), "a keyframe for each new meaning");
        let by_software = software.encode(&picture, color, time(index), false).unwrap().unwrap();
        let (found, expected) = (receiver.decode(encoded), other.decode(by_software));
        assert_eq!((found.color, expected.color), (color, color));
        for (found, sent) in found.picture.planes().into_iter().zip(picture.planes()) {
            let apart: u64 = found.iter().zip(sent).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            assert!(apart < 4 * sent.len() as u64, "codes are not converted");
        }
    }
    assert!(encoder.on_gpu());
}

#[test]
fn pictures_in_the_gpus_memory_are_encoded_once_they_are_written() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let gpu = hardware.device();
    let mut encoder = takeover(&hardware);
    // Its stream was made after the encoder's, which the fake works on first.
    let (stream, pool) = (Stream::new(gpu).unwrap(), SurfacePool::new(gpu, 64 << 20));
    let (share, mut receiver) = (pool.share(2), Receiver::new());
    for index in 0..6 {
        let (picture, other) = (scene(241, 180, index), scene(241, 180, index + 50));
        let from = surface(gpu, &picture, &stream);
        let later = surface(gpu, &other, &stream);
        let mut taken = share.take(241, 180).unwrap();
        taken.copy_from(&from, &stream).unwrap();
        let encoded = encoder.encode_surface(&taken, COLOR, time(index), false).unwrap().unwrap();
        // Whoever writes to it next does not change what is encoded.
        taken.copy_from(&later, &stream).unwrap();
        receiver.check(encoded, &picture);
    }
    assert!(encoder.on_gpu());
    assert_eq!(fake.calls("NvEncRegisterResource"), 1, "surfaces come and go");
}

#[test]
fn a_surface_is_not_written_to_before_its_copy_is_done() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let (reader, writer) = (Stream::new(&gpu).unwrap(), Stream::new(&gpu).unwrap());
    let (first, second) = (scene(64, 48, 1), scene(64, 48, 2));
    let mut from = surface(&gpu, &first, &writer);
    let next = surface(&gpu, &second, &writer);
    let mut to = PitchedNv12::new(&gpu, 64, 48).unwrap();
    let small = PitchedNv12::new(&gpu, 62, 48).unwrap();
    fake.set_progress(Progress::Held);
    let event = device::Event::new(&gpu).unwrap();
    // The reader is held up by work of a third.
    let third = Stream::new(&gpu).unwrap();
    event.record(&third).unwrap();
    reader.wait_for(&event).unwrap();
    to.copy_from(&from, &reader).unwrap();
    from.copy_from(&next, &writer).unwrap();
    fake.finish();
    fake.set_progress(Progress::WhenAsked);
    let host = PinnedPool::new(&gpu, 1 << 20);
    for (surface, expected) in [(&to, &first), (&from, &second)] {
        let mut found = I420::new(64, 48);
        surface.download(&mut found, &host, &reader).unwrap();
        assert!(found == *expected);
    }
    assert_eq!(to.copy_from(&small, &reader), Err(device::Error::Bounds));
    let elsewhere = Fake::new();
    let other = PitchedNv12::new(&elsewhere.gpu(), 64, 48).unwrap();
    assert_eq!(to.copy_from(&other, &reader), Err(device::Error::Bounds));
}

#[test]
fn an_encoder_that_waits_for_no_stream_is_given_pictures_that_are_written() {
    let fake = Fake::new();
    for change in
        [(|chip: &mut Chip| chip.lacks = Some("nvEncSetIOCudaStreams")) as fn(&mut Chip), |chip: &mut Chip| {
            (chip.lacks, chip.streams) = (None, false)
        }]
    {
        fake.change_chip(change);
        let hardware = hardware(&fake);
        let stream = Stream::new(hardware.device()).unwrap();
        let (mut encoder, mut receiver) = (takeover(&hardware), Receiver::new());
        for index in 0..4 {
            let picture = scene(320, 240, index);
            let from = surface(hardware.device(), &picture, &stream);
            let mut taken = PitchedNv12::new(hardware.device(), 320, 240).unwrap();
            taken.copy_from(&from, &stream).unwrap();
            let encoded = encoder.encode_surface(&taken, COLOR, time(index), false).unwrap().unwrap();
            receiver.check(encoded, &picture);
            assert!(encoder.on_gpu());
        }
    }
}

#[test]
fn a_gpu_without_an_encoder_leaves_all_to_software() {
    let fake = Fake::new();
    for change in [
        (|chip: &mut Chip| chip.none = Some(nvenc::Status::NO_ENCODE_DEVICE)) as fn(&mut Chip),
        |chip: &mut Chip| chip.none = Some(nvenc::Status::UNSUPPORTED_DEVICE),
        |chip: &mut Chip| (chip.none, chip.h264) = (None, false),
    ] {
        fake.change_chip(change);
        let hardware = hardware(&fake);
        assert_eq!(hardware.capability(), Err(nvenc::Error::NoEncoder));
        assert_eq!(Nvenc::new(&hardware, CONFIG).unwrap_err(), nvenc::Error::NoEncoder);
        let asked = fake.calls("NvEncOpenEncodeSessionEx");
        let mut session = Session::new(&hardware);
        assert!(session.send((320, 240), false));
        session.skip(2 * RETRY);
        assert!(!session.encoder.on_gpu());
        // Pictures on the GPU come down once each.
        let stream = Stream::new(hardware.device()).unwrap();
        let picture = scene(320, 240, 7);
        let on_gpu = surface(hardware.device(), &picture, &stream);
        let downloads = fake.calls("cuMemcpy2DAsync");
        let encoded = session.encoder.encode_surface(&on_gpu, COLOR, time(session.next), false).unwrap().unwrap();
        assert_eq!((encoded.keyframe, fake.calls("cuMemcpy2DAsync") - downloads), (false, 2));
        session.receiver.check(encoded, &picture);
        assert_eq!(fake.calls("NvEncOpenEncodeSessionEx"), asked, "it is asked once");
    }
}

#[test]
fn a_full_gpu_leaves_streams_to_software_until_it_has_room() {
    let fake = Fake::new();
    let one = |sessions| Bounds { sessions, ..Bounds::default() };
    // Once as old drivers say it, once as new ones do, and once before the driver is asked.
    for (full, bounds) in [
        (nvenc::Status::OUT_OF_MEMORY, one(64)),
        (nvenc::Status::INCOMPATIBLE_CLIENT_KEY, one(64)),
        (nvenc::Status::GENERIC, one(1)),
    ] {
        fake.change_chip(|chip| (chip.full, chip.sessions) = (full, if bounds.sessions == 1 { 8 } else { 1 }));
        let hardware = Hardware::new(&fake.gpu(), Api::of(&fake.entries()).unwrap(), bounds);
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let mut first = Session::new(&hardware);
            first.send((320, 240), false);
            let mut nvenc = Nvenc::new(&hardware, CONFIG).unwrap();
            let error = nvenc.encode_picture(&scene(320, 240, 0), COLOR, time(0), false).unwrap_err();
            assert_eq!(error, nvenc::Error::Full);
            let mut second = Session::new(&hardware);
            assert!(second.send((320, 240), false) && !second.encoder.on_gpu() && first.encoder.on_gpu());
            // It is full still, and is then left alone for twice the time.
            let refused = hardware.made_and_refused().1;
            second.skip(RETRY);
            assert_eq!(hardware.made_and_refused().1, refused + 1);
            drop(first);
            second.skip(2 * RETRY - 60);
            assert!(!second.encoder.on_gpu());
            let keyframes: Vec<_> = (0..70).map(|_| second.send((320, 240), false)).collect();
            assert!(second.encoder.on_gpu());
            assert_eq!(keyframes.iter().filter(|keyframe| **keyframe).count(), 1, "it comes back with a keyframe");
        });
        let taken_over = "saccade_encode_takeovers_total{reason=\"full\"} 1";
        assert!(handle.render().lines().any(|line| line == taken_over), "{}", handle.render());
    }
}

#[test]
fn a_gpu_that_has_no_room_at_the_start_is_tried_with_the_first_picture() {
    let fake = Fake::new();
    fake.change_chip(|chip| chip.sessions = 0);
    let hardware = hardware(&fake);
    let mut session = Session::new(&hardware);
    assert!(!session.encoder.on_gpu());
    fake.change_chip(|chip| chip.sessions = 1);
    assert!(session.send((320, 240), false) && session.encoder.on_gpu());
    assert!(!session.send((320, 240), false));
}

#[test]
fn without_memory_of_the_gpu_or_the_host_software_takes_over() {
    let fake = Fake::new();
    fake.set_memory(100_000);
    let mut session = Session::new(&hardware(&fake));
    assert!(session.send((320, 240), false) && !session.encoder.on_gpu());
    fake.set_memory(1 << 30);
    let bounds = Bounds { host_bytes: 1 << 17, ..Bounds::default() };
    let hardware = Hardware::new(&fake.gpu(), Api::of(&fake.entries()).unwrap(), bounds);
    let mut session = Session::new(&hardware);
    assert!(session.send((320, 240), false) && session.encoder.on_gpu());
    let held = hardware.host().take(1 << 17).unwrap();
    assert!(session.send((320, 240), false) && !session.encoder.on_gpu(), "a keyframe of the same picture");
    // What lies on the GPU can't come down either.
    let stream = Stream::new(hardware.device()).unwrap();
    let picture = scene(320, 240, 3);
    let on_gpu = surface(hardware.device(), &picture, &stream);
    let encode = |session: &mut Session, index| session.encoder.encode_surface(&on_gpu, COLOR, time(index), false);
    assert_eq!(encode(&mut session, 3), Err(encode::Error::Device));
    drop(held);
    let encoded = encode(&mut session, 4).unwrap().unwrap();
    session.receiver.check(encoded, &picture);
}

#[test]
fn a_size_that_the_gpu_does_not_encode_is_softwares_until_another_comes() {
    let fake = Fake::new();
    fake.change_chip(|chip| chip.max = [480, 480]);
    let hardware = hardware(&fake);
    let mut nvenc = Nvenc::new(&hardware, CONFIG).unwrap();
    for (width, height) in [(641, 360), (96, 96)] {
        let error = nvenc.encode_picture(&scene(width, height, 0), COLOR, time(0), false).unwrap_err();
        let (width, height) = (width.next_multiple_of(2), height);
        assert_eq!(error, nvenc::Error::Size { width, height });
    }
    let mut session = Session::new(&hardware);
    let sizes = [(640, 360), (640, 360), (320, 240), (320, 240), (640, 360), (96, 96), (320, 240)];
    let found = sizes.map(|size| (session.send(size, false), session.encoder.on_gpu()));
    let (key, delta) = (true, false);
    let expected = [(key, false), (delta, false), (key, true), (delta, true), (key, false), (key, false), (key, true)];
    assert_eq!(found, expected);
    assert_eq!(fake.calls("NvEncInitializeEncoder"), 2);
}

/// Calls that come with each picture, or with the first.
const CALLS: [&str; 10] = [
    "NvEncOpenEncodeSessionEx",
    "NvEncGetEncodePresetConfigEx",
    "NvEncInitializeEncoder",
    "NvEncCreateBitstreamBuffer",
    "NvEncRegisterResource",
    "NvEncMapInputResource",
    "NvEncEncodePicture",
    "NvEncLockBitstream",
    "NvEncUnlockBitstream",
    "NvEncUnmapInputResource",
];

#[test]
fn a_failure_costs_a_keyframe_and_no_picture() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    assert!(hardware.capability().is_ok());
    for call in CALLS {
        for at in [0, 3] {
            let mut session = Session::new(&hardware);
            for _ in 0..at {
                session.send((320, 240), false);
            }
            let once = ["NvEncOpen", "NvEncGet", "NvEncInit", "NvEncCreate", "NvEncRegister"];
            // Another size needs another encoder, too.
            let size = if once.iter().any(|name| call.starts_with(name)) { (240, 320) } else { (320, 240) };
            fake.fail_encoder(call, nvenc::Status::INVALID_CALL);
            assert!(session.send(size, false), "{call}");
            assert!(!session.encoder.on_gpu(), "{call}");
            assert!(!session.send(size, false), "{call}");
            // What failed to be undone can't be undone.
            let left: &[&str] = match call {
                "NvEncUnlockBitstream" => &["a bitstream is destroyed that is locked"],
                "NvEncUnmapInputResource" => {
                    &["an input is unregistered that is mapped", "an encoder is destroyed with an input mapped"]
                }
                _ => &[],
            };
            assert_eq!(fake.take_violations(), left, "{call}");
            assert_eq!((fake.encoders(), hardware.open()), (0, 0), "{call}: what failed is not used again");
            assert!(hardware.device().loss().is_none(), "{call}");
            session.next += 1;
            assert!(session.send((320, 240), false) || size == (320, 240));
            session.skip(RETRY - 40);
            assert!(!session.encoder.on_gpu());
            session.next += 30;
            let keyframes: Vec<_> = (0..40).map(|_| session.send((320, 240), false)).collect();
            assert!(session.encoder.on_gpu(), "{call}");
            assert_eq!(keyframes.iter().filter(|keyframe| **keyframe).count(), 1, "{call}");
        }
    }
}

#[test]
fn an_encoder_that_is_busy_is_asked_again_and_one_that_gives_nothing_is_not() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let mut session = Session::new(&hardware);
    session.send((320, 240), false);
    fake.fail_encoder("NvEncEncodePicture", nvenc::Status::ENCODER_BUSY);
    fake.fail_encoder("NvEncEncodePicture", nvenc::Status::ENCODER_BUSY);
    assert!(!session.send((320, 240), false) && session.encoder.on_gpu());
    assert_eq!(fake.calls("NvEncEncodePicture"), 4);
    // For ever, it is not.
    fake.change_chip(|chip| chip.busy = true);
    assert!(session.send((320, 240), false) && !session.encoder.on_gpu());
    assert!(fake.calls("NvEncEncodePicture") > 10);

    let fake = Fake::new();
    let mut session = Session::new(&self::hardware(&fake));
    session.send((320, 240), false);
    fake.encode_nothing();
    assert!(session.send((320, 240), false) && !session.encoder.on_gpu());
}

#[test]
fn a_lost_gpu_is_left_alone_and_software_goes_on() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        for call in CALLS.into_iter().skip(5) {
            let fake = Fake::new();
            let hardware = hardware(&fake);
            let mut session = Session::new(&hardware);
            session.send((320, 240), false);
            fake.lose_at(call, Status::LAUNCH_FAILED);
            assert!(session.send((320, 240), false), "{call}: a keyframe of the picture that it failed on");
            assert!(!session.encoder.on_gpu() && hardware.device().loss().is_some(), "{call}");
            let calls = |fake: &Fake| {
                let calls = ["NvEncDestroyEncoder", "NvEncOpenEncodeSessionEx", "cuMemFree", "cuMemcpy2DAsync"];
                calls.map(|call| fake.calls(call))
            };
            let before = calls(&fake);
            session.skip(2 * RETRY);
            let mut other = Session::new(&hardware);
            assert!(other.send((320, 240), false) && !other.encoder.on_gpu());
            drop((session, other));
            assert_eq!(calls(&fake), before, "{call}: a lost GPU is left alone");
        }
    });
    let taken_over = "saccade_encode_takeovers_total{reason=\"lost\"} 10";
    assert!(handle.render().lines().any(|line| line == taken_over), "{}", handle.render());
}

#[test]
fn a_picture_on_a_lost_gpu_is_lost_and_the_next_is_a_keyframe() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let stream = Stream::new(hardware.device()).unwrap();
    let mut session = Session::new(&hardware);
    session.send((320, 240), false);
    let on_gpu = surface(hardware.device(), &scene(320, 240, 1), &stream);
    fake.fail("cuMemcpy2DAsync", Status::ILLEGAL_ADDRESS);
    let lost = session.encoder.encode_surface(&on_gpu, COLOR, time(1), false);
    assert_eq!(lost, Err(encode::Error::Device));
    session.next += 1;
    assert!(session.send((320, 240), false), "what was due stays due");
    assert!(!session.send((320, 240), false));
}

#[test]
fn work_that_is_never_done_loses_the_gpu_and_holds_up_nobody() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let stream = Stream::new(hardware.device()).unwrap();
    let mut session = Session::new(&hardware);
    session.send((320, 240), false);
    let on_gpu = surface(hardware.device(), &scene(320, 240, 1), &stream);
    fake.set_progress(Progress::Held);
    let lost = session.encoder.encode_surface(&on_gpu, COLOR, time(1), false);
    assert_eq!(lost, Err(encode::Error::Device));
    assert!(matches!(hardware.device().loss(), Some(device::Loss::Hung(_))));
    assert_eq!(fake.calls("NvEncLockBitstream"), 1, "nobody waits for the encoder");
    session.next += 1;
    assert!(session.send((320, 240), false) && !session.encoder.on_gpu());
    drop((session, on_gpu, stream, hardware));
    // Nothing is given back of a GPU that does not answer.
    fake.finish();
    fake.fail("cuInit", Status::LAUNCH_FAILED);
    let _ = device::Device::open(fake.driver(), 0);
}

#[test]
fn what_the_gpu_can_is_asked_once_and_told() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let found = hardware.capability().unwrap();
    assert_eq!((found.min, found.max, found.max_macroblocks), ([146, 50], [4_096; 2], 65_536));
    assert_eq!((found.intra_refresh, found.single_slice_refresh, found.engines), (true, false, Some(2)));
    assert_eq!((found.dynamic_bitrate, found.custom_vbv), (true, true));
    assert_eq!((hardware.capability(), hardware.open()), (Ok(found), 0));
    assert_eq!((fake.calls("NvEncOpenEncodeSessionEx"), hardware.made_and_refused()), (1, (1, 0)));
    let plain = |chip: &mut Chip| (chip.intra_refresh, chip.custom_vbv, chip.dynamic_bitrate) = (false, false, false);
    fake.change_chip(plain);
    let hardware = self::hardware(&fake);
    let mut session = Session::new(&hardware);
    assert!(session.send((320, 240), false) && !session.send((320, 240), false) && session.encoder.on_gpu());
    assert_eq!((fake.told().vbv, fake.told().waves), (0, None));
}

#[test]
fn the_self_test_sees_whether_pictures_come_out_as_they_should() {
    let fake = Fake::new();
    let good = nvenc::check(&hardware(&fake)).unwrap();
    assert!(good.starts_with("from 146x50 up to 4096x4096 on 2 engines, intra refresh"), "{good}");
    assert_eq!(fake.encoders(), 0);
    fake.encode_nothing();
    assert_eq!(nvenc::check(&hardware(&fake)), Err(Mistake::Encode(nvenc::Error::Nothing)));
    fake.fail_encoder_after(1, "NvEncEncodePicture", nvenc::Status::GENERIC);
    let mistake = nvenc::check(&hardware(&fake)).unwrap_err().to_string();
    assert_eq!(mistake, "NvEncEncodePicture returned GENERIC (20)");
    fake.change_chip(|chip| chip.none = Some(nvenc::Status::UNSUPPORTED_DEVICE));
    let mistake = nvenc::check(&hardware(&fake)).unwrap_err();
    assert_eq!(mistake.to_string(), "the GPU has no encoder for H264");
}

#[test]
fn sessions_on_several_threads_share_a_gpu() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let hardware = &hardware;
            scope.spawn(move || {
                for round in 0..3 {
                    let mut session = Session::new(hardware);
                    let keyframes: Vec<_> = (0..5).map(|at| session.send((160 + thread * 2, 120), at == 3)).collect();
                    assert_eq!(keyframes, [true, false, false, true, false], "thread {thread} round {round}");
                    assert!(session.encoder.on_gpu());
                }
            });
        }
    });
    assert_eq!((fake.encoders(), hardware.open()), (0, 0));
}
