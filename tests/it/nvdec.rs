//! Decoding on a GPU, on one that is none: its parsers and decoders find what software finds, or what a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use saccade::decode::nvdec::{self, Api, Bounds, DeviceFrame, Hardware, Nvdec, Takeover};
use saccade::decode::software::Software;
use saccade::decode::{self, Decoded, Decoder as _, Limits};
use saccade::device::driver::Missing;
use saccade::device::kernels::Program;
use saccade::device::{self, Status};
use saccade::frame;
use saccade::media::{
    AnnouncedColor, Codec, ColorInfo, ColorMatrix, ColorRange, EncodedFrame, FramePool, I420, Rotation,
};

use crate::codecs::{encode_scene, scene};
use crate::fake_cuda::{Caps, Fake, Found, Picture, Sequence, Source};

const CODECS: [Codec; 3] = [Codec::H264, Codec::Vp8, Codec::Vp9];
/// How long a GPU that failed is left alone at first.
const RETRY: Duration = Duration::from_secs(10);

fn hardware(fake: &Fake) -> Arc<Hardware> {
    Hardware::new(&fake.gpu(), fake.api(), Bounds::default())
}

fn takeover(hardware: &Arc<Hardware>, codec: Codec) -> Takeover {
    Takeover::new(hardware, codec, Limits::default(), Arc::new(FramePool::new(4))).unwrap()
}

fn software(codec: Codec) -> Software {
    Software::new(codec, Limits::default(), Arc::new(FramePool::new(4))).unwrap()
}

fn units(codec: Codec, width: u32, height: u32, count: u32) -> Vec<EncodedFrame> {
    encode_scene(codec, width, height, count, ColorInfo::default())
}

/// The pictures of units as software decodes them.
fn expected(codec: Codec, units: &[EncodedFrame]) -> Vec<Decoded> {
    let mut decoder = software(codec);
    units.iter().map(|unit| decoder.decode(unit).unwrap().expect("a picture for each unit")).collect()
}

/// Decodes with a plain decoder of the GPU.
fn decode(nvdec: &mut Nvdec, unit: &EncodedFrame) -> Result<Option<DeviceFrame>, nvdec::Error> {
    nvdec.decode(&unit.data, unit.keyframe, unit.color, unit.rotation)
}

fn download(hardware: &Hardware, nvdec: &mut Nvdec, frame: &DeviceFrame) -> Decoded {
    frame.download(&FramePool::new(1), hardware.host(), nvdec.stream()).unwrap()
}

/// A keyframe that comes later than the others.
fn later(unit: &EncodedFrame, by: Duration) -> EncodedFrame {
    EncodedFrame { arrival: unit.arrival + by, ..unit.clone() }
}

/// A source that finds the same in each unit.
fn always(found: impl Fn() -> Vec<Found> + Clone + Send + Sync + 'static) -> impl Fn(u32) -> Box<dyn Source> {
    move |_| {
        let found = found.clone();
        Box::new(move |_: &[u8]| found())
    }
}

/// A unit that only its source can read.
fn opaque(keyframe: bool) -> EncodedFrame {
    let unit = units(Codec::H264, 64, 48, 1).remove(0);
    EncodedFrame { data: Bytes::from_static(&[1, 2, 3]), keyframe, ..unit }
}

#[test]
fn what_is_missing_of_the_decoders_library_is_named() {
    let missing = Api::open_as("libsaccade-has-no-such.so.1").unwrap_err();
    assert!(matches!(missing, Missing::Library { library: "libsaccade-has-no-such.so.1", .. }));
    let missing = Api::open_as("libc.so.6").unwrap_err();
    assert_eq!(missing, Missing::Symbol { library: "libc.so.6", symbol: "cuvidGetDecoderCaps" });
    assert_eq!(Api::LIBRARY, "libnvcuvid.so.1");
}

#[test]
fn each_unit_gives_its_picture_at_once_and_as_software_has_it() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    for codec in CODECS {
        for (width, height) in [(320, 240), (162, 122), (161, 121)] {
            let units = units(codec, width, height, 12);
            let mut decoder = takeover(&hardware, codec);
            for (unit, expected) in units.iter().zip(expected(codec, &units)) {
                let decoded = decoder.decode(unit).unwrap().expect("a picture for each unit");
                assert!(decoded == expected, "{codec} {width}x{height}");
            }
            assert!(decoder.on_gpu(), "{codec} {width}x{height}");
        }
    }
    assert_eq!(fake.calls("cuvidMapVideoFrame"), 3 * 3 * 12);
}

#[test]
fn colours_come_from_the_stream_unless_they_are_announced() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let full = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
    for codec in CODECS {
        for said in [ColorInfo::default(), full] {
            let unit = encode_scene(codec, 160, 120, 1, said).remove(0);
            let found = takeover(&hardware, codec).decode(&unit).unwrap().unwrap();
            assert_eq!(found.color, expected(codec, std::slice::from_ref(&unit))[0].color, "{codec}");
            let announced = ColorInfo { matrix: ColorMatrix::Bt2020, range: ColorRange::Limited };
            let unit = EncodedFrame { color: announced.into(), ..unit };
            assert_eq!(takeover(&hardware, codec).decode(&unit).unwrap().unwrap().color, announced, "{codec}");
        }
    }
    // A stream that names no matrix has the usual one for its size.
    for ((width, height), matrix) in [((640, 480), ColorMatrix::Bt601), ((1_280, 720), ColorMatrix::Bt709)] {
        fake.set_source(always(move || {
            let picture = Found::Picture(Picture::new(I420::new(width, height)));
            vec![Found::Sequence(Sequence::new(width, height, 16)), picture]
        }));
        let frame = decode(&mut Nvdec::new(&hardware, nvdec::Codec::Hevc, Limits::default()).unwrap(), &opaque(true));
        assert_eq!(frame.unwrap().unwrap().color, ColorInfo { matrix, range: ColorRange::Limited });
    }
}

#[test]
fn pictures_are_turned_upright_as_in_software() {
    let fake = Fake::new();
    let program = Arc::new(Program::load(&fake.gpu()).unwrap());
    // On the host, and where they are.
    for (in_place, hardware) in
        [(false, hardware(&fake)), (true, Hardware::with_kernels(&program, fake.api(), Bounds::default()))]
    {
        for (codec, rotation) in CODECS.into_iter().flat_map(|codec| {
            [Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270].map(|rotation| (codec, rotation))
        }) {
            let unit = EncodedFrame { rotation, ..units(codec, 162, 122, 1).remove(0) };
            let mut decoder = takeover(&hardware, codec);
            let shown = decoder.decode_in_place(&unit).unwrap().unwrap();
            assert_eq!(matches!(shown.picture, frame::Picture::Device(_)), in_place, "{codec} {rotation:?}");
            let picture = shown.picture.host(&FramePool::new(1)).unwrap();
            assert!(Decoded { picture, color: shown.color } == expected(codec, &[unit])[0], "{codec} {rotation:?}");
        }
        assert_eq!(!fake.take_launches().is_empty(), in_place);
    }
}

#[test]
fn the_way_to_the_host_is_kept_for_the_next_session() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let unit = units(Codec::H264, 64, 64, 1).remove(0);
    let destroyed = || fake.calls("cuStreamDestroy");
    let mut first = takeover(&hardware, Codec::H264);
    let shown = first.decode_in_place(&unit).unwrap().unwrap();
    drop(first);
    // The decoder's own is gone with it; the picture's is not.
    let before = (destroyed(), fake.calls("cuStreamCreate"));
    drop(shown);
    let mut second = takeover(&hardware, Codec::H264);
    drop(second.decode_in_place(&unit).unwrap().unwrap());
    assert_eq!((destroyed(), fake.calls("cuStreamCreate")), (before.0, before.1 + 1), "one for the decoder alone");
}

#[test]
fn a_size_for_which_there_is_room_needs_no_other_decoder() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    for codec in CODECS {
        let (made, _) = hardware.made_and_reused();
        let changed = fake.calls("cuvidReconfigureDecoder");
        let units = [units(codec, 640, 480, 4), units(codec, 480, 640, 4), units(codec, 320, 240, 4)].concat();
        let mut decoder = takeover(&hardware, codec);
        for (unit, expected) in units.iter().zip(expected(codec, &units)) {
            assert!(decoder.decode(unit).unwrap().unwrap() == expected, "{codec}");
        }
        assert!(decoder.on_gpu());
        assert_eq!(hardware.made_and_reused().0, made + 1, "{codec}");
        assert_eq!(fake.calls("cuvidReconfigureDecoder"), changed + 2, "{codec}");
    }
}

#[test]
fn a_size_beyond_the_room_takes_another_decoder_and_leaves_the_old_one_for_others() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let units = [units(Codec::H264, 320, 240, 3), units(Codec::H264, 800, 600, 3), units(Codec::H264, 320, 240, 3)];
    let units = units.concat();
    let mut decoder = takeover(&hardware, Codec::H264);
    for (unit, expected) in units.iter().zip(expected(Codec::H264, &units)) {
        assert!(decoder.decode(unit).unwrap().unwrap() == expected);
    }
    assert_eq!((hardware.made_and_reused(), hardware.open()), ((2, 0), 2));
    let mut second = takeover(&hardware, Codec::H264);
    assert!(second.decode(&units[0]).unwrap().unwrap() == expected(Codec::H264, &units[..1])[0]);
    assert_eq!((hardware.made_and_reused(), hardware.open()), ((2, 1), 2));
}

#[test]
fn a_decoder_that_can_not_be_changed_is_replaced() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let units = [units(Codec::H264, 640, 480, 2), units(Codec::H264, 480, 640, 2)].concat();
    let mut decoder = takeover(&hardware, Codec::H264);
    fake.fail("cuvidReconfigureDecoder", Status::INVALID_VALUE);
    for (unit, expected) in units.iter().zip(expected(Codec::H264, &units)) {
        assert!(decoder.decode(unit).unwrap().unwrap() == expected);
    }
    assert_eq!((decoder.on_gpu(), hardware.made_and_reused(), fake.decoders()), (true, (2, 0), 1));
}

#[test]
fn between_keyframes_a_size_beyond_the_room_needs_a_keyframe() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let width = Arc::new(AtomicU32::new(640));
    let shown = Arc::clone(&width);
    fake.set_source(always(move || {
        let width = shown.load(Ordering::Relaxed);
        vec![Found::Sequence(Sequence::new(width, 480, 8)), Found::Picture(Picture::new(I420::new(width, 480)))]
    }));
    let mut nvdec = Nvdec::new(&hardware, nvdec::Codec::Vp9, Limits::default()).unwrap();
    assert!(decode(&mut nvdec, &opaque(true)).unwrap().is_some());
    width.store(480, Ordering::Relaxed);
    assert_eq!(decode(&mut nvdec, &opaque(false)).unwrap().unwrap().size(), (480, 480));
    width.store(1_280, Ordering::Relaxed);
    assert_eq!(decode(&mut nvdec, &opaque(false)).unwrap_err(), nvdec::Error::NewSize);
    assert!(decode(&mut nvdec, &opaque(false)).unwrap().is_none());
    assert_eq!(decode(&mut nvdec, &opaque(true)).unwrap().unwrap().size(), (1_280, 480));
}

#[test]
fn only_what_is_shown_comes_out() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    for (origin, size) in [([0, 0], (60, 44)), ([4, 2], (61, 45)), ([2, 6], (1, 1)), ([16, 16], (48, 32))] {
        let shown = scene(size.0.max(8), size.1.max(8), 3);
        let (width, height) = (shown.width(), shown.height());
        let sent = shown.clone();
        fake.set_source(always(move || {
            let [left, top] = origin;
            let area = [left, top, left + width as i32, top + height as i32];
            let sequence = Sequence { coded: [80, 64], area, ..Sequence::new(width, height, 16) };
            vec![Found::Sequence(sequence), Found::Picture(Picture::new(sent.clone()))]
        }));
        let mut nvdec = Nvdec::new(&hardware, nvdec::Codec::H264, Limits::default()).unwrap();
        let frame = decode(&mut nvdec, &opaque(true)).unwrap().unwrap();
        assert_eq!(frame.size(), (width, height));
        assert!(*download(&hardware, &mut nvdec, &frame).picture == shown, "{origin:?} {size:?}");
    }
}

#[test]
fn of_a_unit_with_several_pictures_the_last_that_is_shown_comes_out() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let run = |codec, found: fn() -> Vec<Found>| {
        fake.set_source(always(move || {
            let sequence = Found::Sequence(Sequence::new(64, 48, 8));
            std::iter::once(sequence).chain(found()).collect()
        }));
        let mut nvdec = Nvdec::new(&hardware, codec, Limits::default()).unwrap();
        let frame = decode(&mut nvdec, &opaque(true)).unwrap();
        frame.map(|frame| download(&hardware, &mut nvdec, &frame).picture)
    };
    for codec in [nvdec::Codec::Vp8, nvdec::Codec::Vp9, nvdec::Codec::Av1] {
        let layers = || vec![shown(1), shown(2)];
        assert_eq!(run(codec, layers).as_deref(), Some(&scene(64, 48, 2)), "{codec}");
        let with_hidden = || vec![hide(1), shown(2)];
        assert_eq!(run(codec, with_hidden).as_deref(), Some(&scene(64, 48, 2)), "{codec}");
        assert_eq!(run(codec, || vec![hide(1)]), None, "{codec}");
        let shown_later = || vec![hide(1), shown(2), Found::ShowHidden];
        assert_eq!(run(codec, shown_later).as_deref(), Some(&scene(64, 48, 1)), "{codec}");
    }
    for codec in [nvdec::Codec::H264, nvdec::Codec::Hevc] {
        let fields = || vec![Found::Picture(Picture { fields: true, ..Picture::new(scene(64, 48, 4)) })];
        assert_eq!(run(codec, fields).as_deref(), Some(&scene(64, 48, 4)), "{codec}");
    }
}

fn shown(index: u32) -> Found {
    Found::Picture(Picture::new(scene(64, 48, index)))
}

fn hide(index: u32) -> Found {
    Found::Picture(Picture { hidden: true, ..Picture::new(scene(64, 48, index)) })
}

#[test]
fn without_a_surface_left_a_picture_is_dropped_and_the_stream_goes_on() {
    let fake = Fake::new();
    let bounds = Bounds { session_surfaces: 2, ..Bounds::default() };
    let hardware = Hardware::new(&fake.gpu(), fake.api(), bounds);
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let units = units(Codec::H264, 320, 240, 6);
        let expected = expected(Codec::H264, &units);
        let mut nvdec = Nvdec::new(&hardware, nvdec::Codec::H264, Limits::default()).unwrap();
        let mut held: Vec<_> = (0..2).map(|at| decode(&mut nvdec, &units[at]).unwrap().unwrap()).collect();
        assert!(decode(&mut nvdec, &units[2]).unwrap().is_none());
        assert!(decode(&mut nvdec, &units[3]).unwrap().is_none());
        assert_eq!((nvdec.refused(), hardware.surfaces().refused()), (2, 2));
        for (at, frame) in held.iter().enumerate() {
            assert!(download(&hardware, &mut nvdec, frame) == expected[at], "what is held stays");
        }
        held.remove(0);
        // What was dropped was decoded, so that what refers to it comes out right.
        let frame = decode(&mut nvdec, &units[4]).unwrap().unwrap();
        assert!(download(&hardware, &mut nvdec, &frame) == expected[4]);
    });
    let dropped = "saccade_frames_dropped_total{stage=\"decode\",reason=\"no_surface\"} 2";
    assert!(handle.render().lines().any(|line| line == dropped), "{}", handle.render());
}

#[test]
fn a_damaged_picture_costs_a_keyframe() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    for status in [8, 9] {
        let units = units(Codec::H264, 320, 240, 6);
        let expected = expected(Codec::H264, &units);
        let mut decoder = takeover(&hardware, Codec::H264);
        assert!(decoder.decode(&units[0]).unwrap().is_some());
        fake.set_next_status(status);
        let error = decoder.decode(&units[1]).unwrap_err();
        assert_eq!((error, error.needs_keyframe()), (decode::Error::Damaged, true));
        assert_eq!(decoder.decode(&units[2]), Ok(None));
        assert!(decoder.decode(&units[0]).unwrap().unwrap() == expected[0]);
        assert!(decoder.decode(&units[1]).unwrap().unwrap() == expected[1]);
        assert!(decoder.on_gpu());
    }
    assert_eq!(hardware.made_and_reused(), (1, 1), "the decoder stays the same");
}

#[test]
fn a_status_that_is_not_known_is_no_error() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    for (codec, status) in [(Codec::H264, 0), (Codec::H264, 1), (Codec::H264, 5), (Codec::Vp8, 8)] {
        let unit = units(codec, 320, 240, 1).remove(0);
        fake.set_next_status(status);
        assert!(takeover(&hardware, codec).decode(&unit).unwrap().is_some(), "{codec} {status}");
    }
}

#[test]
fn a_keyframe_that_the_gpu_can_not_decode_is_softwares_at_once() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let units = units(Codec::H264, 320, 240, 4);
        let expected = expected(Codec::H264, &units);
        let mut decoder = takeover(&hardware, Codec::H264);
        fake.set_next_status(8);
        for (unit, expected) in units.iter().zip(&expected) {
            assert!(decoder.decode(unit).unwrap().as_ref() == Some(expected));
            assert!(!decoder.on_gpu());
        }
        // Too soon, and no keyframe.
        assert!(decoder.decode(&later(&units[0], RETRY / 2)).unwrap().as_ref() == Some(&expected[0]));
        assert!(decoder.decode(&later(&units[1], RETRY * 2)).unwrap().as_ref() == Some(&expected[1]));
        assert!(!decoder.on_gpu());
        assert!(decoder.decode(&later(&units[0], RETRY * 2)).unwrap().as_ref() == Some(&expected[0]));
        assert!(decoder.on_gpu());
        assert!(decoder.decode(&later(&units[1], RETRY * 2)).unwrap().as_ref() == Some(&expected[1]));
    });
    let taken_over = "saccade_decode_takeovers_total{reason=\"broken\"} 1";
    assert!(handle.render().lines().any(|line| line == taken_over), "{}", handle.render());
}

#[test]
fn a_stream_that_breaks_again_and_again_goes_to_software() {
    let fake = Fake::new();
    let hardware = Hardware::new(&fake.gpu(), fake.api(), Bounds { session_surfaces: 0, ..Bounds::default() });
    let units = units(Codec::H264, 320, 240, 3);
    let mut decoder = takeover(&hardware, Codec::H264);
    for round in 0..3 {
        assert!(decoder.on_gpu(), "round {round}");
        // A keyframe whose picture does not come out, for want of a surface, does not count as one.
        assert_eq!(decoder.decode(&units[0]), Ok(None));
        fake.set_next_status(8);
        assert_eq!(decoder.decode(&units[1]), Err(decode::Error::Damaged));
    }
    assert!(!decoder.on_gpu());
    assert_eq!(decoder.decode(&units[2]), Ok(None));
    assert!(decoder.decode(&units[0]).unwrap().unwrap() == expected(Codec::H264, &units)[0]);
}

#[test]
fn a_full_gpu_leaves_streams_to_software_until_it_has_room() {
    let fake = Fake::new();
    // Once it is the GPU's memory that is full, once the number of decoders.
    for (bounds, max_decoders) in [(Bounds::default(), 1), (Bounds { decoders: 1, ..Bounds::default() }, 64)] {
        fake.set_max_decoders(max_decoders);
        let hardware = Hardware::new(&fake.gpu(), fake.api(), bounds);
        let units = units(Codec::H264, 320, 240, 3);
        let expected = expected(Codec::H264, &units);
        let mut first = takeover(&hardware, Codec::H264);
        assert!(first.decode(&units[0]).unwrap().is_some() && first.on_gpu());
        let mut nvdec = Nvdec::new(&hardware, nvdec::Codec::H264, Limits::default()).unwrap();
        assert_eq!(decode(&mut nvdec, &units[0]).unwrap_err(), nvdec::Error::Full);
        let mut second = takeover(&hardware, Codec::H264);
        for (unit, expected) in units.iter().zip(&expected) {
            assert!(second.decode(unit).unwrap().as_ref() == Some(expected));
        }
        assert!(!second.on_gpu() && first.on_gpu());
        // It is full still, and is then left alone for twice the time.
        assert!(second.decode(&later(&units[0], RETRY)).unwrap().as_ref() == Some(&expected[0]));
        drop(first);
        assert!(second.decode(&later(&units[0], RETRY * 2)).unwrap().is_some() && !second.on_gpu());
        assert!(second.decode(&later(&units[0], RETRY * 3)).unwrap().as_ref() == Some(&expected[0]));
        assert!(second.on_gpu());
    }
}

#[test]
fn a_gpu_that_has_no_room_at_the_start_is_tried_with_the_first_keyframe() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let unit = units(Codec::H264, 320, 240, 1).remove(0);
    fake.fail("cuStreamCreate", Status::OUT_OF_MEMORY);
    let mut decoder = takeover(&hardware, Codec::H264);
    assert!(!decoder.on_gpu());
    assert!(decoder.decode(&unit).unwrap().unwrap() == expected(Codec::H264, &[unit])[0]);
    assert!(decoder.on_gpu());
}

#[test]
fn what_is_kept_for_later_makes_room_for_what_comes_now() {
    let fake = Fake::new();
    fake.set_max_decoders(1);
    let hardware = hardware(&fake);
    for codec in [Codec::H264, Codec::Vp8, Codec::Vp9] {
        let unit = units(codec, 320, 240, 1).remove(0);
        let mut decoder = takeover(&hardware, codec);
        assert!(decoder.decode(&unit).unwrap().is_some() && decoder.on_gpu(), "{codec}");
    }
    assert_eq!((hardware.made_and_reused(), fake.decoders()), ((3, 0), 1));
}

#[test]
fn when_the_gpu_is_lost_software_goes_on_with_the_next_keyframe() {
    for call in ["cuvidDecodePicture", "cuvidMapVideoFrame", "cuMemcpy2DAsync", "cuEventQuery", "cuvidParseVideoData"] {
        let fake = Fake::new();
        let hardware = hardware(&fake);
        let units = units(Codec::H264, 320, 240, 4);
        let expected = expected(Codec::H264, &units);
        let mut decoder = takeover(&hardware, Codec::H264);
        assert!(decoder.decode(&units[0]).unwrap().unwrap() == expected[0]);
        fake.fail(call, Status::LAUNCH_FAILED);
        let error = decoder.decode(&units[1]).unwrap_err();
        assert_eq!((error, error.needs_keyframe()), (decode::Error::Device, true), "{call}");
        assert!(hardware.device().loss().is_some(), "{call}");
        let calls = || fake.calls("cuCtxPushCurrent") + fake.calls("cuvidDecodePicture") + fake.calls("cuMemFree");
        let before = calls();
        assert_eq!(decoder.decode(&units[2]), Ok(None), "{call}");
        for (unit, expected) in units.iter().zip(&expected) {
            let unit = later(unit, Duration::from_secs(3_600));
            assert!(decoder.decode(&unit).unwrap().as_ref() == Some(expected), "{call}");
        }
        let mut other = takeover(&hardware, Codec::H264);
        assert!(other.decode(&units[0]).unwrap().unwrap() == expected[0], "{call}");
        assert!(!decoder.on_gpu() && !other.on_gpu());
        drop((decoder, other));
        assert_eq!(calls(), before, "{call}: a lost GPU is left alone");
    }
}

#[test]
fn a_failure_that_passes_costs_a_keyframe_too() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let units = units(Codec::H264, 320, 240, 3);
    let expected = expected(Codec::H264, &units);
    for call in ["cuvidDecodePicture", "cuvidMapVideoFrame", "cuvidUnmapVideoFrame", "cuMemcpy2DAsync"] {
        let mut decoder = takeover(&hardware, Codec::H264);
        assert!(decoder.decode(&units[0]).unwrap().is_some());
        fake.fail(call, Status::UNKNOWN);
        assert_eq!(decoder.decode(&units[1]), Err(decode::Error::Device), "{call}");
        assert_eq!(fake.decoders(), 0, "{call}: what failed is not used again");
        if call == "cuvidUnmapVideoFrame" {
            assert_eq!(fake.take_violations(), ["a decoder is destroyed with a picture mapped"]);
        }
        assert!(decoder.decode(&units[0]).unwrap().as_ref() == Some(&expected[0]), "{call}");
        assert!(!decoder.on_gpu() && hardware.device().loss().is_none(), "{call}");
        assert!(decoder.decode(&later(&units[0], RETRY * 2)).unwrap().as_ref() == Some(&expected[0]), "{call}");
        assert!(decoder.on_gpu(), "{call}");
    }
}

#[test]
fn a_codec_that_the_gpu_does_not_decode_is_softwares_from_the_start() {
    let fake = Fake::new();
    fake.set_caps(10, Caps { supported: false, ..Caps::default() });
    let hardware = hardware(&fake);
    assert_eq!(hardware.capability(nvdec::Codec::Vp9), Err(nvdec::Error::NoDecoder(nvdec::Codec::Vp9)));
    let units = units(Codec::Vp9, 320, 240, 2);
    let mut decoder = takeover(&hardware, Codec::Vp9);
    for (unit, expected) in units.iter().zip(expected(Codec::Vp9, &units)) {
        assert!(decoder.decode(&later(unit, Duration::from_secs(3_600))).unwrap().unwrap() == expected);
        assert!(!decoder.on_gpu());
    }
    assert_eq!(fake.calls("cuvidGetDecoderCaps"), 1, "it is asked once");
    let h264 = hardware.capability(nvdec::Codec::H264).unwrap();
    assert_eq!((h264.min, h264.max, h264.max_macroblocks, h264.engines), ([48, 16], [4_096; 2], 65_536, 7));
}

#[test]
fn a_size_that_the_gpu_does_not_decode_is_softwares_until_another_comes() {
    let fake = Fake::new();
    fake.set_caps(4, Caps { max: [480, 480], ..Caps::default() });
    let hardware = hardware(&fake);
    let large = units(Codec::H264, 640, 360, 2);
    let small = units(Codec::H264, 320, 240, 2);
    let mut nvdec = Nvdec::new(&hardware, nvdec::Codec::H264, Limits::default()).unwrap();
    let size = nvdec::Error::Size { codec: nvdec::Codec::H264, width: 640, height: 368 };
    assert_eq!(decode(&mut nvdec, &large[0]).unwrap_err(), size);
    assert_eq!(size.to_string(), "the GPU decodes no H264 of 640x368");

    let all = [large, small].concat();
    let mut decoder = takeover(&hardware, Codec::H264);
    for (at, (unit, expected)) in all.iter().zip(expected(Codec::H264, &all)).enumerate() {
        assert!(decoder.decode(unit).unwrap().unwrap() == expected);
        assert_eq!(decoder.on_gpu(), at >= 2, "picture {at}");
    }
    assert_eq!(fake.calls("cuvidCreateDecoder"), 1);
}

#[test]
fn pictures_over_the_limits_take_no_memory() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let limits = Limits { max_width: 320, max_height: 320 };
    for codec in CODECS {
        let unit = units(codec, 640, 480, 1).remove(0);
        let mut nvdec = Nvdec::new(&hardware, codec.into(), limits).unwrap();
        let too_large = nvdec::Error::TooLarge { width: 640, height: 480 };
        assert_eq!(decode(&mut nvdec, &unit).unwrap_err(), too_large, "{codec}");
        let mut decoder = Takeover::new(&hardware, codec, limits, Arc::new(FramePool::new(1))).unwrap();
        let too_large = decode::Error::TooLarge { width: 640, height: 480 };
        assert_eq!(decoder.decode(&unit), Err(too_large), "{codec}");
        let fits = units(codec, 320, 240, 1).remove(0);
        assert!(decoder.decode(&fits).unwrap().is_some() && decoder.on_gpu(), "{codec}");
    }
    let before = fake.calls("cuvidCreateDecoder");
    fake.set_source(always(|| {
        // A small picture of one that is coded large.
        let sequence = Sequence { coded: [4_096, 4_096], ..Sequence::new(64, 48, 16) };
        vec![Found::Sequence(sequence), shown(1)]
    }));
    let mut nvdec = Nvdec::new(&hardware, nvdec::Codec::H264, limits).unwrap();
    let too_large = nvdec::Error::TooLarge { width: 4_096, height: 4_096 };
    assert_eq!(decode(&mut nvdec, &opaque(true)).unwrap_err(), too_large);
    assert_eq!(fake.calls("cuvidCreateDecoder"), before);
}

#[test]
fn other_kinds_of_pictures_are_refused() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let usual = Sequence::new(64, 48, 16);
    for (sequence, error) in [
        (Sequence { bits: 10, ..usual }, nvdec::Error::PixelFormat { bits: 10, chroma: 1 }),
        (Sequence { chroma: 3, ..usual }, nvdec::Error::PixelFormat { bits: 8, chroma: 3 }),
        (Sequence { chroma: 77, ..usual }, nvdec::Error::PixelFormat { bits: 8, chroma: 77 }),
        (Sequence { pictures: 21, ..usual }, nvdec::Error::References(21)),
        (Sequence { area: [0, 0, 65, 48], ..usual }, nvdec::Error::Invalid),
        (Sequence { area: [10, 0, 10, 48], ..usual }, nvdec::Error::Invalid),
        (Sequence { area: [-1, 0, 10, 48], ..usual }, nvdec::Error::Invalid),
        (
            Sequence { coded: [32, 16], area: [0, 0, 32, 16], ..usual },
            nvdec::Error::Size { codec: nvdec::Codec::Hevc, width: 32, height: 16 },
        ),
    ] {
        fake.set_source(always(move || vec![Found::Sequence(sequence), shown(1)]));
        let mut nvdec = Nvdec::new(&hardware, nvdec::Codec::Hevc, Limits::default()).unwrap();
        assert_eq!(decode(&mut nvdec, &opaque(true)).unwrap_err(), error);
        assert!(decode(&mut nvdec, &opaque(false)).unwrap().is_none(), "it waits for a keyframe");
    }
    assert_eq!(fake.calls("cuvidCreateDecoder"), 0);
}

#[test]
fn bytes_that_are_no_video_break_nothing() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    for codec in CODECS {
        let units = units(codec, 320, 240, 2);
        let expected = expected(codec, &units);
        let mut nvdec = Nvdec::new(&hardware, codec.into(), Limits::default()).unwrap();
        let garbage = (0..2_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>();
        for data in [Bytes::new(), Bytes::from_static(&[0]), Bytes::from(garbage)] {
            let unit = EncodedFrame { data, ..units[0].clone() };
            assert_eq!(decode(&mut nvdec, &unit).unwrap_err(), nvdec::Error::Invalid, "{codec}");
            let frame = decode(&mut nvdec, &units[0]).unwrap().unwrap();
            assert!(download(&hardware, &mut nvdec, &frame) == expected[0], "{codec}");
            let unit = EncodedFrame { keyframe: false, ..unit };
            let mut decoder = takeover(&hardware, codec);
            assert!(decoder.decode(&units[0]).unwrap().is_some());
            assert!(decoder.decode(&unit).unwrap_err().needs_keyframe(), "{codec}");
            assert_eq!(decoder.decode(&units[1]), Ok(None), "{codec}");
            assert!(decoder.decode(&units[0]).unwrap().unwrap() == expected[0], "{codec}");
            assert!(decoder.on_gpu(), "{codec}");
        }
    }
}

#[test]
fn decoders_of_sessions_that_ended_are_used_again() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let sizes = [(320, 240), (640, 480), (480, 640), (162, 122)];
    for round in 0..12 {
        let (width, height) = sizes[round % sizes.len()];
        let units = units(Codec::H264, width, height, 3);
        let mut decoder = takeover(&hardware, Codec::H264);
        for (unit, expected) in units.iter().zip(expected(Codec::H264, &units)) {
            assert!(decoder.decode(unit).unwrap().unwrap() == expected, "round {round}");
        }
    }
    assert_eq!((hardware.made_and_reused(), fake.decoders()), ((1, 11), 1));
}

#[test]
fn only_so_many_decoders_wait_for_a_session() {
    let fake = Fake::new();
    let bounds = Bounds { idle_decoders: 2, ..Bounds::default() };
    let hardware = Hardware::new(&fake.gpu(), fake.api(), bounds);
    let unit = units(Codec::H264, 320, 240, 1).remove(0);
    let mut decoders: Vec<_> = (0..5).map(|_| takeover(&hardware, Codec::H264)).collect();
    for decoder in &mut decoders {
        assert!(decoder.decode(&unit).unwrap().is_some());
    }
    assert_eq!((hardware.open(), fake.decoders()), (5, 5));
    drop(decoders);
    assert_eq!((hardware.open(), fake.decoders()), (2, 2));
}

#[test]
fn everything_is_given_back_in_whichever_order_it_goes() {
    let fake = Fake::new();
    let units = units(Codec::H264, 320, 240, 3);
    let expected = expected(Codec::H264, &units);
    let hardware = hardware(&fake);
    let mut nvdec = Nvdec::new(&hardware, nvdec::Codec::H264, Limits::default()).unwrap();
    let frames: Vec<_> = units.iter().map(|unit| decode(&mut nvdec, unit).unwrap().unwrap()).collect();
    let (host, stream) = (Arc::clone(hardware.host()), device::Stream::new(hardware.device()).unwrap());
    drop(nvdec);
    drop(hardware);
    for (frame, expected) in frames.iter().zip(&expected) {
        assert!(frame.download(&FramePool::new(1), &host, &stream).unwrap() == *expected);
    }
    drop(stream);
    drop(frames);
}

#[test]
fn a_decoder_goes_back_only_when_its_copies_are_done() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let unit = units(Codec::H264, 320, 240, 1).remove(0);
    let expected = expected(Codec::H264, std::slice::from_ref(&unit));
    let mut first = Nvdec::new(&hardware, nvdec::Codec::H264, Limits::default()).unwrap();
    let frame = decode(&mut first, &unit).unwrap().unwrap();
    let second_unit = units(Codec::H264, 640, 480, 1).remove(0);
    let last = decode(&mut first, &unit).unwrap().unwrap();
    // Nothing was copied so far: the GPU does what it was given when somebody waits.
    drop(first);
    let mut second = takeover(&hardware, Codec::H264);
    assert!(second.decode(&second_unit).unwrap().is_some());
    assert_eq!(hardware.made_and_reused(), (1, 1));
    let stream = device::Stream::new(hardware.device()).unwrap();
    for frame in [frame, last] {
        assert!(frame.download(&FramePool::new(1), hardware.host(), &stream).unwrap() == expected[0]);
    }
}

#[test]
fn sessions_on_several_threads_share_a_gpu() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let streams: Vec<_> = CODECS.into_iter().map(|codec| (codec, units(codec, 160, 120, 8))).collect();
    std::thread::scope(|scope| {
        for (codec, units) in streams.iter().chain(&streams) {
            let hardware = &hardware;
            scope.spawn(move || {
                let expected = expected(*codec, units);
                for _ in 0..3 {
                    let mut decoder = takeover(hardware, *codec);
                    for (unit, expected) in units.iter().zip(&expected) {
                        assert!(decoder.decode(unit).unwrap().as_ref() == Some(expected), "{codec}");
                    }
                }
            });
        }
    });
    let (made, reused) = hardware.made_and_reused();
    assert!(made <= 6 && made + reused == 18, "{made} made, {reused} used again");
}

#[test]
fn colours_that_are_announced_in_part_leave_the_rest_to_the_stream() {
    let fake = Fake::new();
    let hardware = hardware(&fake);
    let full = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
    let unit = encode_scene(Codec::H264, 160, 120, 1, full).remove(0);
    let color = AnnouncedColor { matrix: None, range: Some(ColorRange::Limited) };
    let found = takeover(&hardware, Codec::H264).decode(&EncodedFrame { color, ..unit }).unwrap().unwrap();
    assert_eq!(found.color, ColorInfo { range: ColorRange::Limited, ..full });
}
