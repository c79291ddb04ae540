//! The encoders that work everywhere: x264, or openh264, and libvpx through FFmpeg on the CPU.
#![allow(unsafe_code, reason = "sets the fields of FFmpeg's codec context that have no safe setter")]

use bytes::BufMut as _;
use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::{Dictionary, Packet, codec, color, encoder, ffi, frame, picture};

use crate::media::{Chunks, Codec, ColorInfo, ColorMatrix, ColorRange, I420, MediaTime};

use super::pace::Pace;
use super::recolor::recolor;
use super::{Encoded, Encoder, Error, init};

/// Ticks of the encoder's clock a second: those of the RTP clock.
const CLOCK: i64 = MediaTime::CLOCK_RATE as i64;
/// Bits a second below which no encoder is opened.
pub(super) const MIN_BITRATE: u32 = 10_000;
/// x264's constant quality where the bitrate allows it. A quality bounded by a bitrate follows a new bitrate within a
/// few pictures, an average bitrate takes ten seconds for it; and simple pictures don't waste bits.
const BEST_QUALITY: &str = "20";
/// Keyframes come on demand; this many pictures later one comes anyway.
const GROUP: u32 = 3_000;
/// Relative change of the bitrate that an encoder is told about which follows it at once.
pub(super) const NOTICEABLE: f64 = 0.05;

/// What an encoder is opened for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Bits a second at the start.
    pub bitrate_bps: u32,
    /// Most pictures a second that will come. Too low a number makes the stream break its H.264 level.
    pub fps: f64,
}

/// Encodes H.264, VP8 or VP9 on the calling thread, without delay.
///
/// - H.264 is constrained baseline, at level 3.1 (as in `profile-level-id=42e01f`) or the lowest above that fits.
///   Its encoders need even sides, so the last column or row of an odd picture is repeated. Where FFmpeg was built without
///   x264, whose licence is the GPL, openh264 takes its place.
/// - VP8 is BT.601 with limited range by definition (RFC 6386, section 9.2); other colours are converted, so that they
///   look right to receivers that take no announcement, too.
/// - For x264 the bitrate is an upper bound, and a new one holds from the next picture on. FFmpeg has no way to tell the others: they are opened anew,
///   which costs a keyframe, and therefore only for a change by a quarter or more after 3 s, or for a loss of 40 % or
///   more after 1 s.
/// - The rate of pictures is measured, so that the bitrate holds at any.
pub struct Software {
    codec: Codec,
    library: Library,
    bitrate: f64,
    opened: Option<Opened>,
    packet: Packet,
    data: Chunks,
    recolored: Option<I420>,
    pace: Pace,
}

/// What encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    X264,
    OpenH264,
    Vpx,
}

impl Library {
    /// The one that this FFmpeg has for a codec, the better one first.
    fn find(codec: Codec) -> Option<Self> {
        let all: &[Self] = if codec == Codec::H264 { &[Self::X264, Self::OpenH264] } else { &[Self::Vpx] };
        all.iter().copied().find(|library| encoder::find_by_name(library.encoder(codec)).is_some())
    }

    /// FFmpeg's name of the encoder.
    const fn encoder(self, codec: Codec) -> &'static str {
        match self {
            Self::OpenH264 => "libopenh264",
            Self::X264 | Self::Vpx => name(codec),
        }
    }
}

/// An encoder for one size and colour.
struct Opened {
    encoder: encoder::video::Encoder,
    frame: frame::Video,
    width: u32,
    height: u32,
    color: ColorInfo,
    /// Bits a second that libvpx or openh264 was opened for, or x264 told last.
    bitrate: f64,
    since: i64,
}

impl Software {
    /// An encoder that opens with its first picture.
    ///
    /// # Errors
    /// [`Error::NoEncoder`] when this FFmpeg lacks the encoder.
    pub fn new(codec: Codec, config: Config) -> Result<Self, Error> {
        init();
        let library = Library::find(codec).ok_or(Error::NoEncoder(codec))?;
        Ok(Self {
            codec,
            library,
            bitrate: f64::from(config.bitrate_bps.max(MIN_BITRATE)),
            opened: None,
            packet: Packet::empty(),
            data: Chunks::default(),
            recolored: None,
            pace: Pace::new(config.fps),
        })
    }

    fn open(&self, width: u32, height: u32, color: ColorInfo) -> Result<Opened, Error> {
        let failed = |source| Error::Open { width, height, source };
        let found = encoder::find_by_name(self.library.encoder(self.codec)).ok_or(Error::NoEncoder(self.codec))?;
        let mut context = codec::Context::new_with_codec(found).encoder().video().map_err(failed)?;
        let frame = set_up(&mut context, self.codec, (width, height, color), self.pace.fps()).map_err(failed)?;
        context.set_time_base((1, MediaTime::CLOCK_RATE.cast_signed()));
        context.set_gop(GROUP);
        context.set_max_b_frames(0);
        #[expect(clippy::cast_possible_truncation, reason = "a number of ticks between 375 and 90 000")]
        let ticks_per_frame = self.pace.step().round() as i32;
        // SAFETY: the context is ours alone and not open yet.
        unsafe {
            let context = &mut *context.as_mut_ptr();
            context.thread_count = 1;
            // FFmpeg passes it to libvpx as each picture's duration.
            context.ticks_per_frame = ticks_per_frame;
            set_rate(context, self.library, self.bitrate, self.pace.told(self.bitrate));
        }
        let options = if self.library == Library::OpenH264 {
            dictionary(&OPENH264)
        } else {
            live_options(self.codec, width, height, self.pace.fps())
        };
        let encoder = context.open_with(options).map_err(failed)?;
        Ok(Opened { encoder, frame, width, height, color, bitrate: self.asked(), since: self.pace.ticks() })
    }

    /// The bitrate that an encoder which is not told of others is opened for: openh264 takes it for its rate of pictures.
    fn asked(&self) -> f64 {
        if self.library == Library::OpenH264 { self.pace.told(self.bitrate) } else { self.bitrate }
    }

    /// Hands the bitrate to x264, or says that another encoder has to be opened anew for it.
    fn follow_bitrate(&mut self) -> bool {
        // It spends a fixed share of its bitrate on each picture.
        let (x264_rate, asked) = (self.pace.told(self.bitrate), self.asked());
        let Some(opened) = &mut self.opened else { return false };
        if self.library == Library::X264 {
            // SAFETY: the context is ours alone; libx264's wrapper compares these fields before each picture.
            let context = unsafe { &mut *opened.encoder.as_mut_ptr() };
            #[expect(clippy::cast_precision_loss, reason = "bitrates are below 2^53")]
            let told = context.rc_max_rate as f64;
            if (x264_rate - told).abs() > told * NOTICEABLE || opened.bitrate.to_bits() != self.bitrate.to_bits() {
                set_rate(context, self.library, self.bitrate, x264_rate);
                opened.bitrate = self.bitrate;
            }
            return false;
        }
        let (age, ratio) = (self.pace.ticks() - opened.since, asked / opened.bitrate);
        (age >= 3 * CLOCK && !(0.75..1.25).contains(&ratio)) || (age >= CLOCK && ratio <= 0.6)
    }

    fn encode_as(
        &mut self,
        picture: &I420,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
    ) -> Result<Option<Encoded>, Error> {
        let format = (picture.width(), picture.height(), color);
        let stale = self.opened.as_ref().is_none_or(|open| (open.width, open.height, open.color) != format);
        if stale || self.follow_bitrate() {
            self.opened = None;
            self.opened = Some(self.open(picture.width(), picture.height(), color)?);
        }
        let Some(opened) = &mut self.opened else { return Ok(None) };
        fill(&mut opened.frame, picture).map_err(Error::Failed)?;
        opened.frame.set_pts(Some(self.pace.ticks()));
        opened.frame.set_kind(if keyframe { picture::Type::I } else { picture::Type::None });
        opened.encoder.send_frame(&opened.frame).map_err(Error::Failed)?;
        match opened.encoder.receive_packet(&mut self.packet) {
            Ok(()) => {}
            Err(ffmpeg_next::Error::Other { errno: EAGAIN }) => return Ok(None),
            Err(error) => return Err(Error::Failed(error)),
        }
        let data = self.packet.data().unwrap_or_default();
        self.data.begin(data.len()).put_slice(data);
        let data = self.data.finish();
        Ok((!data.is_empty()).then_some(Encoded { data, keyframe: self.packet.is_key(), time, color }))
    }
}

impl Encoder for Software {
    fn encode(
        &mut self,
        picture: &I420,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
    ) -> Result<Option<Encoded>, Error> {
        self.pace.advance(time);
        let result = if self.codec == Codec::Vp8 && color != ColorInfo::default() {
            let (width, height) = (picture.width(), picture.height());
            let kept = self.recolored.take().filter(|kept| (kept.width(), kept.height()) == (width, height));
            let mut target = kept.unwrap_or_else(|| I420::new(width, height));
            recolor(picture, color, ColorInfo::default(), &mut target);
            let result = self.encode_as(&target, ColorInfo::default(), time, keyframe);
            self.recolored = Some(target);
            result
        } else {
            self.encode_as(picture, color, time, keyframe)
        };
        if result.is_err() {
            self.opened = None;
        }
        result
    }

    fn set_bitrate(&mut self, bps: u32) {
        self.bitrate = f64::from(bps.max(MIN_BITRATE));
    }
}

/// FFmpeg's name of the encoder.
pub(super) const fn name(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "libx264",
        Codec::Vp8 => "libvpx",
        Codec::Vp9 => "libvpx-vp9",
    }
}

/// The picture's sides as the encoder takes them.
const fn coded_size(codec: Codec, width: u32, height: u32) -> (u32, u32) {
    match codec {
        Codec::H264 => (width.next_multiple_of(2), height.next_multiple_of(2)),
        Codec::Vp8 | Codec::Vp9 => (width, height),
    }
}

/// Sets what every encoder needs, and makes the frame that its pictures are copied to.
pub(super) fn set_up(
    context: &mut encoder::video::Video,
    codec: Codec,
    picture: (u32, u32, ColorInfo),
    fps: f64,
) -> Result<frame::Video, ffmpeg_next::Error> {
    let (width, height, color) = picture;
    let (width, height) = coded_size(codec, width, height);
    let space = match color.matrix {
        ColorMatrix::Bt601 => color::Space::SMPTE170M,
        ColorMatrix::Bt709 => color::Space::BT709,
        ColorMatrix::Bt2020 => color::Space::BT2020NCL,
    };
    let range = match color.range {
        ColorRange::Limited => color::Range::MPEG,
        ColorRange::Full => color::Range::JPEG,
    };
    context.set_width(width);
    context.set_height(height);
    context.set_format(Pixel::YUV420P);
    context.set_colorspace(space);
    context.set_color_range(range);
    #[expect(clippy::cast_possible_truncation, reason = "the rate is 240 at most")]
    context.set_frame_rate(Some(((fps * 1_000.0).round() as i32, 1_000)));
    let mut frame = frame::Video::new(Pixel::YUV420P, width, height);
    if frame.planes() < 3 {
        return Err(ffmpeg_next::Error::BufferTooSmall);
    }
    frame.set_color_space(space);
    frame.set_color_range(range);
    Ok(frame)
}

/// Copies a picture into a frame of its size or of one more column or row, which repeats the last.
pub(super) fn fill(frame: &mut frame::Video, picture: &I420) -> Result<(), ffmpeg_next::Error> {
    // SAFETY: the frame is ours alone; FFmpeg gives it a buffer of its own if the encoder still holds the last one.
    match unsafe { ffi::av_frame_make_writable(frame.as_mut_ptr()) } {
        0.. => {}
        error => return Err(error.into()),
    }
    for (index, (from, width)) in picture.planes().into_iter().zip(picture.strides()).enumerate() {
        let stride = frame.stride(index);
        let (coded_width, coded_height) = (frame.plane_width(index) as usize, frame.plane_height(index) as usize);
        let last = from.len() / width - 1;
        let rows = frame.data_mut(index).chunks_mut(stride).take(coded_height);
        for (y, to) in rows.enumerate() {
            let from = &from[y.min(last) * width..][..width];
            to[..width].copy_from_slice(from);
            to[width..coded_width].fill(from[width - 1]);
        }
    }
    Ok(())
}

/// For x264 a bound with a buffer of half a second, for libvpx a constant bitrate with a buffer of one second, for openh264 a
/// bitrate that it keeps to by itself. `told` is for encoders that are told nothing of the rate of pictures.
#[expect(clippy::cast_possible_truncation, reason = "a float saturates")]
fn set_rate(context: &mut ffi::AVCodecContext, library: Library, bitrate: f64, told: f64) {
    match library {
        Library::X264 => {
            context.rc_max_rate = told as i64;
            context.rc_buffer_size = (bitrate * 0.5) as i32;
        }
        Library::OpenH264 => context.bit_rate = told as i64,
        Library::Vpx => {
            context.bit_rate = bitrate as i64;
            (context.rc_min_rate, context.rc_max_rate) = (context.bit_rate, context.bit_rate);
            context.rc_buffer_size = bitrate as i32;
            context.rc_initial_buffer_occupancy = context.rc_buffer_size / 2;
        }
    }
}

/// Constrained baseline, one slice, no picture left out: results belong to each.
const OPENH264: [(&str, &str); 4] =
    [("profile", "constrained_baseline"), ("coder", "cavlc"), ("rc_mode", "bitrate"), ("allow_skip_frames", "0")];

fn live_options(codec: Codec, width: u32, height: u32, fps: f64) -> Dictionary<'static> {
    let level = h264_level(width, height, fps);
    let x264 = format!("sliced-threads=0:repeat-headers=1:level={}.{}", level / 10, level % 10);
    let options: &[(&str, &str)] = match codec {
        Codec::H264 => &[
            ("preset", "ultrafast"),
            ("tune", "zerolatency"),
            ("profile", "baseline"),
            ("forced-idr", "1"),
            ("crf", BEST_QUALITY),
            ("x264-params", &x264),
        ],
        Codec::Vp8 => &[
            ("deadline", "realtime"),
            ("cpu-used", "8"),
            ("lag-in-frames", "0"),
            ("auto-alt-ref", "0"),
            ("static-thresh", "1"),
            ("max-intra-rate", "300"),
            ("qmin", "2"),
            ("qmax", "56"),
        ],
        Codec::Vp9 => &[
            ("deadline", "realtime"),
            ("cpu-used", "8"),
            ("lag-in-frames", "0"),
            ("auto-alt-ref", "0"),
            ("aq-mode", "3"),
            ("max-intra-rate", "300"),
            ("qmin", "2"),
            ("qmax", "56"),
        ],
    };
    dictionary(options)
}

pub(super) fn dictionary(options: &[(&str, &str)]) -> Dictionary<'static> {
    let mut dictionary = Dictionary::new();
    for (key, value) in options {
        dictionary.set(key, value);
    }
    dictionary
}

/// Ten times the lowest level from 3.1 on that holds pictures of this size at this rate (H.264, table A-1).
pub(super) fn h264_level(width: u32, height: u32, fps: f64) -> u32 {
    const LEVELS: [(u32, f64, f64); 6] = [
        (31, 108_000.0, 3_600.0),
        (32, 216_000.0, 5_120.0),
        (40, 245_760.0, 8_192.0),
        (42, 522_240.0, 8_704.0),
        (50, 589_824.0, 22_080.0),
        (51, 983_040.0, 36_864.0),
    ];
    let macroblocks = f64::from(width.div_ceil(16)) * f64::from(height.div_ceil(16));
    let fits = |(_, rate, size): &&(_, f64, f64)| macroblocks <= *size && macroblocks * fps <= *rate;
    LEVELS.iter().find(fits).map_or(52, |(level, ..)| *level)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const STEP: u32 = 3_000;

    fn moving(width: u32, height: u32, index: u32) -> I420 {
        let mut picture = I420::new(width, height);
        let strides = picture.strides();
        for (plane, stride) in picture.planes_mut().into_iter().zip(strides) {
            for (i, code) in plane.iter_mut().enumerate() {
                let (x, y) = (i % stride + index as usize * 3, i / stride);
                *code = u8::try_from(40 + (x * 2 + y * 3) % 160 + (x * y) % 17).unwrap();
            }
        }
        picture
    }

    fn encoder(codec: Codec, bitrate_bps: u32) -> Software {
        Software::new(codec, Config { bitrate_bps, fps: 30.0 }).unwrap()
    }

    #[test]
    fn each_picture_comes_out_at_once_and_keyframes_on_demand() {
        for codec in [Codec::H264, Codec::Vp8, Codec::Vp9] {
            let mut encoder = encoder(codec, 500_000);
            let keyframes: Vec<_> = (0..20)
                .map(|index| {
                    let picture = moving(160, 120, index);
                    let time = MediaTime(u32::MAX - 10_000).after(std::time::Duration::from_millis(33) * index);
                    let encoded = encoder.encode(&picture, ColorInfo::default(), time, index == 7).unwrap().unwrap();
                    assert_eq!(encoded.time, time);
                    encoded.keyframe
                })
                .collect();
            let expected: Vec<_> = (0..20).map(|index| index == 0 || index == 7).collect();
            assert_eq!(keyframes, expected, "{codec}");
        }
    }

    #[test]
    fn size_and_colour_changes_make_a_keyframe() {
        let full = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
        for codec in [Codec::H264, Codec::Vp9] {
            let mut encoder = encoder(codec, 500_000);
            let mut keyframe = |index: u32, size: (u32, u32), color| {
                let picture = moving(size.0, size.1, index);
                encoder.encode(&picture, color, MediaTime(index * STEP), false).unwrap().unwrap().keyframe
            };
            assert!(keyframe(0, (160, 120), full) && !keyframe(1, (160, 120), full));
            assert!(keyframe(2, (120, 160), full) && !keyframe(3, (120, 160), full));
            assert!(keyframe(4, (120, 160), ColorInfo::default()));
        }
    }

    /// Bits a second that come out at this rate of pictures, the first second left out.
    fn measured(encoder: &mut Software, from: u32, step: u32) -> f64 {
        let mut bytes = 0;
        let pictures = 4 * 90_000 / step;
        for index in 0..pictures {
            let picture = moving(320, 240, index * step / 1_000);
            let time = MediaTime(from + index * step);
            let encoded = encoder.encode(&picture, ColorInfo::default(), time, false).unwrap();
            if index >= pictures / 4 {
                bytes += encoded.map_or(0, |encoded| encoded.data.len());
            }
        }
        f64::from(u32::try_from(bytes * 8).unwrap()) / 3.0
    }

    #[test]
    fn the_bitrate_holds_at_any_rate_of_pictures_and_can_change() {
        for codec in [Codec::H264, Codec::Vp8] {
            let mut encoder = encoder(codec, 600_000);
            for (round, (bitrate, step)) in
                [(600_000, 3_000), (600_000, 9_000), (400_000, 3_000), (1_200_000, 3_000)].into_iter().enumerate()
            {
                encoder.set_bitrate(bitrate);
                let bps = measured(&mut encoder, u32::try_from(round).unwrap() * 1_000_000, step);
                let ratio = bps / f64::from(bitrate);
                assert!((0.6..1.4).contains(&ratio), "{codec} {bitrate} at step {step}: {bps}");
            }
        }
    }

    #[test]
    fn x264_comes_before_openh264_and_each_has_its_name() {
        assert_eq!(Library::find(Codec::H264), Some(Library::X264));
        assert_eq!((Library::find(Codec::Vp8), Library::find(Codec::Vp9)), (Some(Library::Vpx), Some(Library::Vpx)));
        assert_eq!(Library::OpenH264.encoder(Codec::H264), "libopenh264");
    }

    #[test]
    fn x264_follows_the_bitrate_without_a_keyframe() {
        let mut encoder = encoder(Codec::H264, 600_000);
        for index in 0..200 {
            encoder.set_bitrate(if index % 20 < 10 { 600_000 } else { 200_000 });
            let picture = moving(320, 240, index);
            let encoded = encoder.encode(&picture, ColorInfo::default(), MediaTime(index * STEP), false);
            assert_eq!(encoded.unwrap().unwrap().keyframe, index == 0);
        }
    }

    #[test]
    fn libvpx_is_opened_anew_for_great_changes_only() {
        let mut encoder = encoder(Codec::Vp8, 600_000);
        let mut keyframes = Vec::new();
        for index in 0..300 {
            encoder.set_bitrate(match index {
                0..100 => 600_000,
                100..200 => 500_000,
                _ => 200_000,
            });
            let picture = moving(160, 120, index);
            let encoded = encoder.encode(&picture, ColorInfo::default(), MediaTime(index * STEP), false);
            if encoded.unwrap().unwrap().keyframe {
                keyframes.push(index);
            }
        }
        assert_eq!(keyframes, [0, 200]);
    }

    #[test]
    fn the_level_is_that_of_the_answer_unless_the_pictures_need_more() {
        assert_eq!(h264_level(640, 480, 30.0), 31);
        assert_eq!(h264_level(1_280, 720, 30.0), 31);
        assert_eq!(h264_level(1_280, 720, 60.0), 32);
        assert_eq!(h264_level(1_920, 1_080, 30.0), 40);
        assert_eq!(h264_level(1_920, 1_080, 60.0), 42);
        let mut encoder = encoder(Codec::H264, 600_000);
        let picture = moving(320, 240, 0);
        let encoded = encoder.encode(&picture, ColorInfo::default(), MediaTime(0), false).unwrap().unwrap();
        let at = encoded.data.windows(4).position(|window| window == [0, 0, 1, 0x67]).unwrap();
        // Profile 66 with constraint_set0 and constraint_set1, level 3.1.
        assert_eq!((encoded.data[at + 4], encoded.data[at + 5] & 0xc0, encoded.data[at + 6]), (66, 0xc0, 31));
    }
}
