//! Footage → access units, once, before anything is measured.

use bytes::Bytes;
use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::software::scaling;
use ffmpeg_next::{Dictionary, Packet, codec, encoder, frame, picture};

use super::{ClipError, Codec, Encoding, Frame, MAX_FRAMES, MAX_SIDE, Picture, mark};

/// Numbers the pictures and encodes them, scaled to the size.
pub(super) fn encode(
    pictures: impl Iterator<Item = Result<Picture, String>>,
    encoding: Encoding,
) -> Result<Vec<Frame>, ClipError> {
    let (width, height) = encoding.size;
    if [width, height].iter().any(|side| !(64..=MAX_SIDE).contains(side) || side % 2 == 1) {
        return Err(ClipError::Size { width, height });
    }
    let failed = |error: ffmpeg_next::Error| ClipError::Encode { codec: encoding.codec, reason: error.to_string() };
    let mut encoder = open(encoding).map_err(failed)?;
    let (mut frames, mut scaler) = (Vec::new(), Scaler::default());
    let mut packet = Packet::empty();
    for (number, picture) in (0_u32..).zip(pictures).take(MAX_FRAMES) {
        let mut picture = scaler.scale(picture.map_err(ClipError::Unreadable)?, encoding.size).map_err(failed)?;
        mark::write(&mut picture, number);
        let mut input = to_frame(&picture);
        input.set_pts(Some(number.into()));
        input.set_kind(if number % encoding.fps == 0 { picture::Type::I } else { picture::Type::None });
        encoder.send_frame(&input).map_err(failed)?;
        receive(&mut encoder, &mut packet, &mut frames).map_err(failed)?;
    }
    encoder.send_eof().map_err(failed)?;
    receive(&mut encoder, &mut packet, &mut frames).map_err(failed)?;
    if frames.is_empty() { Err(ClipError::Empty) } else { Ok(frames) }
}

fn receive(
    encoder: &mut encoder::video::Encoder,
    packet: &mut Packet,
    frames: &mut Vec<Frame>,
) -> Result<(), ffmpeg_next::Error> {
    loop {
        match encoder.receive_packet(packet) {
            Ok(()) => {
                let data = Bytes::copy_from_slice(packet.data().unwrap_or_default());
                frames.push(Frame { data, keyframe: packet.is_key() });
            }
            Err(ffmpeg_next::Error::Other { errno: EAGAIN } | ffmpeg_next::Error::Eof) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn open(encoding: Encoding) -> Result<encoder::video::Encoder, ffmpeg_next::Error> {
    ffmpeg_next::init()?;
    ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Error);
    let (name, options): (_, &[(&str, &str)]) = match encoding.codec {
        // As a browser's: no delay, no frames out of order, headers before each keyframe.
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
        Codec::Vp8 => (
            "libvpx",
            &[
                ("deadline", "realtime"),
                ("cpu-used", "4"),
                ("lag-in-frames", "0"),
                ("auto-alt-ref", "0"),
                ("qmin", "2"),
            ],
        ),
    };
    let found = encoder::find_by_name(name).ok_or(ffmpeg_next::Error::EncoderNotFound)?;
    let mut context = codec::Context::new_with_codec(found).encoder().video()?;
    let fps = i32::try_from(encoding.fps).unwrap_or(i32::MAX);
    let bitrate = encoding.bitrate_bps as usize;
    context.set_width(encoding.size.0);
    context.set_height(encoding.size.1);
    context.set_format(Pixel::YUV420P);
    context.set_time_base((1, fps));
    context.set_frame_rate(Some((fps, 1)));
    context.set_gop(encoding.fps);
    context.set_max_b_frames(0);
    context.set_bit_rate(bitrate);
    context.set_max_bit_rate(bitrate);
    let mut dictionary = Dictionary::new();
    let buffer = bitrate.to_string();
    for (key, value) in options.iter().chain(&[("bufsize", buffer.as_str())]) {
        dictionary.set(key, value);
    }
    context.open_with(dictionary)
}

fn to_frame(picture: &Picture) -> frame::Video {
    let mut frame = frame::Video::new(Pixel::YUV420P, picture.width, picture.height);
    let planes =
        [(&picture.y, picture.width), (&picture.u, picture.width.div_ceil(2)), (&picture.v, picture.width.div_ceil(2))];
    for (index, (plane, width)) in planes.into_iter().enumerate() {
        let stride = frame.stride(index);
        for (to, from) in frame.data_mut(index).chunks_mut(stride).zip(plane.chunks_exact(width as usize)) {
            to[..from.len()].copy_from_slice(from);
        }
    }
    frame
}

/// Scales pictures of one size to another.
#[derive(Default)]
struct Scaler(Option<scaling::Context>);

impl Scaler {
    fn scale(&mut self, picture: Picture, (width, height): (u32, u32)) -> Result<Picture, ffmpeg_next::Error> {
        if (picture.width, picture.height) == (width, height) {
            return Ok(picture);
        }
        let (from, mut to) = (to_frame(&picture), frame::Video::empty());
        let yuv = Pixel::YUV420P;
        let scaler = match &mut self.0 {
            Some(scaler) => {
                scaler.cached(yuv, picture.width, picture.height, yuv, width, height, scaling::Flags::AREA);
                scaler
            }
            none => none.insert(scaling::Context::get(
                yuv,
                picture.width,
                picture.height,
                yuv,
                width,
                height,
                scaling::Flags::AREA,
            )?),
        };
        scaler.run(&from, &mut to)?;
        let plane = |index: usize, width: u32, height: u32| {
            let (stride, width) = (to.stride(index), width as usize);
            to.data(index).chunks(stride).take(height as usize).flat_map(|row| &row[..width]).copied().collect()
        };
        let (across, down) = (width.div_ceil(2), height.div_ceil(2));
        Ok(Picture { width, height, y: plane(0, width, height), u: plane(1, across, down), v: plane(2, across, down) })
    }
}
