//! Makes clips: of video files and of the drawn scene, as the encoders that FFmpeg has.

use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::software::scaling;
use ffmpeg_next::{Dictionary, Packet, codec, encoder, format, frame, media, picture};
use saccade::decode::Limits;
use saccade::decode::file::Reader;
use saccade::decode::nvdec::Codec;
use saccade::media::I420;
use saccade::scene::Scene;

use super::clips::{Clip, Unit, is_keyframe};
use super::{Report, Stop};

/// The codecs that clips are made of.
pub const CODECS: [Codec; 4] = [Codec::H264, Codec::Hevc, Codec::Vp8, Codec::Vp9];
/// Pictures from one keyframe to the next.
const GROUP: u32 = 30;
const FPS: u32 = 30;
/// Name of the clip that sessions send.
pub const SESSIONS: &str = "scene-1280x720-h264";
/// Pictures of that one: its loop.
const SCENE_FRAMES: usize = 360;

/// Writes all clips to a folder. Each video of `from` gives one of every codec in its own size with at most `frames`
/// pictures, and where it is H.264, itself; the scene is drawn in 1280×720, 320×240 and odd sides.
///
/// # Errors
/// [`Stop::Failed`].
pub fn run(report: &Report, from: &[&Path], to: &Path, frames: usize) -> Result<(), Stop> {
    std::fs::create_dir_all(to).map_err(|error| Stop::Failed(format!("{}: {error}", to.display())))?;
    let keep = |clip: Clip| {
        let bytes: usize = clip.units.iter().map(|unit| unit.data.len()).sum();
        report.say(format_args!("{}: {} units, {} KiB", clip.name, clip.units.len(), bytes >> 10));
        clip.write(to)
    };
    for size in [[1280, 720], [320, 240], [321, 241]] {
        for codec in CODECS {
            // x264 and x265 want even sides.
            if size[0] % 2 == 1 && matches!(codec, Codec::H264 | Codec::Hevc) {
                continue;
            }
            let name = name("scene", size, codec);
            let frames = if name == SESSIONS { SCENE_FRAMES } else { frames };
            keep(encode(name, codec, size, scene(size).take(frames), Style::Live)?)?;
        }
    }
    keep(encode("scene-main-b".to_owned(), Codec::H264, [640, 360], scene([640, 360]).take(frames), Style::Stored)?)?;
    for file in from {
        let stem = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(clip) = copied(file, &stem, frames)? {
            keep(clip)?;
        }
        for codec in CODECS {
            let reader = Reader::open(file, Limits::default()).map_err(|error| of(file, error))?;
            let size = [reader.info().width, reader.info().height];
            let pictures = reader.map_while(Result::ok).take(frames).map(|read| read.picture);
            keep(encode(name(&stem, size, codec), codec, size, pictures, Style::Live)?)?;
        }
    }
    report.row("clips", to.display().to_string());
    Ok(())
}

fn name(of: &str, [width, height]: [u32; 2], codec: Codec) -> String {
    format!("{of}-{width}x{height}-{}", codec.name().to_lowercase())
}

fn of(file: &Path, error: impl std::fmt::Display) -> Stop {
    Stop::Failed(format!("{}: {error}", file.display()))
}

/// Pictures of the drawn scene.
pub fn scene([width, height]: [u32; 2]) -> impl Iterator<Item = Arc<I420>> {
    let scene = Scene::new(width, height, FPS, 1);
    (0..).map(move |number| Arc::new(scene.frame(number)))
}

/// How pictures are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As sessions send them: no pictures out of order.
    Live,
    /// As files have them, with pictures that refer to later ones.
    Stored,
}

/// Encodes pictures, scaled to `size`, with a keyframe each second.
///
/// # Errors
/// [`Stop::Failed`] with what FFmpeg says.
pub fn encode(
    name: String,
    codec: Codec,
    size: [u32; 2],
    pictures: impl Iterator<Item = Arc<I420>>,
    style: Style,
) -> Result<Clip, Stop> {
    let failed = |error: ffmpeg_next::Error| Stop::Failed(format!("encoding {name}: {error}"));
    let mut encoder = open(codec, size, style).map_err(failed)?;
    let (mut units, mut packet, mut scaler) = (Vec::new(), Packet::empty(), None);
    for (number, picture) in (0u32..).zip(pictures) {
        let mut input = scaled(&picture, size, &mut scaler).map_err(failed)?;
        input.set_pts(Some(number.into()));
        input.set_kind(if number % GROUP == 0 { picture::Type::I } else { picture::Type::None });
        encoder.send_frame(&input).map_err(failed)?;
        receive(&mut encoder, codec, &mut packet, &mut units).map_err(failed)?;
    }
    encoder.send_eof().map_err(failed)?;
    receive(&mut encoder, codec, &mut packet, &mut units).map_err(failed)?;
    if units.first().is_none_or(|unit| !unit.keyframe) {
        return Err(Stop::Failed(format!("encoding {name}: it does not begin with a keyframe")));
    }
    Ok(Clip { name, codec, units, size })
}

fn open(codec: Codec, [width, height]: [u32; 2], style: Style) -> Result<encoder::video::Encoder, ffmpeg_next::Error> {
    saccade::encode::init();
    let (name, options): (_, &[(&str, &str)]) = match codec {
        Codec::H264 if style == Style::Stored => ("libx264", &[("preset", "medium"), ("profile", "main")]),
        Codec::H264 => (
            "libx264",
            &[
                ("preset", "veryfast"),
                ("tune", "zerolatency"),
                ("profile", "baseline"),
                ("forced-idr", "1"),
                ("x264-params", "sliced-threads=0:repeat-headers=1"),
            ],
        ),
        Codec::Hevc => (
            "libx265",
            &[
                ("preset", "veryfast"),
                ("tune", "zerolatency"),
                ("forced-idr", "1"),
                ("x265-params", "repeat-headers=1:log-level=none"),
            ],
        ),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => (
            if codec == Codec::Vp8 { "libvpx" } else { "libvpx-vp9" },
            &[("deadline", "realtime"), ("cpu-used", "6"), ("lag-in-frames", "0"), ("auto-alt-ref", "0")],
        ),
    };
    let found = encoder::find_by_name(name).ok_or(ffmpeg_next::Error::EncoderNotFound)?;
    let mut context = codec::Context::new_with_codec(found).encoder().video()?;
    context.set_width(width);
    context.set_height(height);
    context.set_format(Pixel::YUV420P);
    context.set_time_base((1, FPS.cast_signed()));
    context.set_frame_rate(Some((FPS.cast_signed(), 1)));
    context.set_gop(GROUP);
    context.set_max_b_frames(if style == Style::Stored { 3 } else { 0 });
    // Two megabits a second for 1280×720.
    context.set_bit_rate((width as usize * height as usize * 2_000_000 / (1280 * 720)).max(150_000));
    let mut dictionary = Dictionary::new();
    options.iter().for_each(|(key, value)| dictionary.set(key, value));
    context.open_with(dictionary)
}

fn receive(
    encoder: &mut encoder::video::Encoder,
    codec: Codec,
    packet: &mut Packet,
    units: &mut Vec<Unit>,
) -> Result<(), ffmpeg_next::Error> {
    loop {
        match encoder.receive_packet(packet) {
            Ok(()) => {
                let data = Bytes::copy_from_slice(packet.data().unwrap_or_default());
                let time = packet.pts().and_then(|time| u64::try_from(time).ok()).unwrap_or(0);
                units.push(Unit { keyframe: is_keyframe(codec, &data), data, time });
            }
            Err(ffmpeg_next::Error::Other { errno: EAGAIN } | ffmpeg_next::Error::Eof) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn scaled(
    picture: &I420,
    [width, height]: [u32; 2],
    scaler: &mut Option<scaling::Context>,
) -> Result<frame::Video, ffmpeg_next::Error> {
    let mut from = frame::Video::new(Pixel::YUV420P, picture.width(), picture.height());
    for (plane, samples) in picture.planes().into_iter().enumerate() {
        let (stride, row) = (from.stride(plane), picture.strides()[plane]);
        for (to, samples) in from.data_mut(plane).chunks_mut(stride).zip(samples.chunks_exact(row)) {
            to[..row].copy_from_slice(samples);
        }
    }
    if [from.width(), from.height()] == [width, height] {
        return Ok(from);
    }
    let yuv = Pixel::YUV420P;
    let scaler = match scaler {
        Some(scaler) => scaler,
        none => none.insert(scaling::Context::get(
            yuv,
            from.width(),
            from.height(),
            yuv,
            width,
            height,
            scaling::Flags::AREA,
        )?),
    };
    let mut to = frame::Video::empty();
    scaler.run(&from, &mut to)?;
    Ok(to)
}

/// The H.264 of an MP4 file as it is, with start codes and its parameter sets before each keyframe.
fn copied(file: &Path, name: &str, frames: usize) -> Result<Option<Clip>, Stop> {
    saccade::decode::init();
    let mut input = format::input(file).map_err(|error| of(file, error))?;
    let Some(stream) = input.streams().best(media::Type::Video) else { return Ok(None) };
    let parameters = stream.parameters();
    if parameters.id() != codec::Id::H264 {
        return Ok(None);
    }
    let index = stream.index();
    let opened = codec::Context::from_parameters(parameters).map_err(|error| of(file, error))?;
    let Some(sets) = avcc(extradata(&opened)) else { return Ok(None) };
    let size =
        opened.decoder().video().map(|video| [video.width(), video.height()]).map_err(|error| of(file, error))?;
    let mut units = Vec::new();
    for (_, packet) in input.packets().filter(|(stream, _)| stream.index() == index).take(frames) {
        let Some(body) = packet.data().and_then(annexb) else { continue };
        let keyframe = is_keyframe(Codec::H264, &body);
        let data = if keyframe { Bytes::from([&sets[..], &body].concat()) } else { body };
        units.push((packet.pts().unwrap_or(0), Unit { data, keyframe, time: 0 }));
    }
    // Numbers in the order of showing.
    let mut times: Vec<_> = units.iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    let place = |time: i64| times.partition_point(|other| *other < time) as u64;
    let units: Vec<_> = units.into_iter().map(|(time, unit)| Unit { time: place(time), ..unit }).collect();
    Ok(Some(Clip { name: name.to_owned(), codec: Codec::H264, units, size }))
}

#[allow(unsafe_code, reason = "FFmpeg's context has no safe getter of it")]
fn extradata(context: &codec::Context) -> &[u8] {
    // SAFETY: FFmpeg's memory of this length, as long as the context is there.
    unsafe {
        let context = &*context.as_ptr();
        match (context.extradata.is_null(), usize::try_from(context.extradata_size)) {
            (false, Ok(len)) => std::slice::from_raw_parts(context.extradata, len),
            _ => &[],
        }
    }
}

/// The parameter sets of a decoder configuration record (ISO/IEC 14496-15, section 5.3.3.1) with start codes; none where
/// it is none with lengths of four bytes.
fn avcc(record: &[u8]) -> Option<Bytes> {
    let mut sets = BytesMut::new();
    if record.first() != Some(&1) || record.get(4)? & 3 != 3 {
        return None;
    }
    let (mut at, mut left) = (6, u32::from(record.get(5)? & 0x1f));
    for last in [false, true] {
        for _ in 0..left {
            let len = usize::from(u16::from_be_bytes([*record.get(at)?, *record.get(at + 1)?]));
            sets.put_slice(&[0, 0, 0, 1]);
            sets.put_slice(record.get(at + 2..at + 2 + len)?);
            at += 2 + len;
        }
        if !last {
            left = u32::from(*record.get(at)?);
            at += 1;
        }
    }
    Some(sets.freeze())
}

/// Start codes in the place of lengths.
fn annexb(mut unit: &[u8]) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(unit.len());
    while !unit.is_empty() {
        let (len, rest) = unit.split_first_chunk::<4>()?;
        let (nal, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        out.put_slice(&[0, 0, 0, 1]);
        out.put_slice(nal);
        unit = rest;
    }
    Some(out.freeze())
}
