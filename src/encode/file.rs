//! Video files, for offline use.
#![allow(unsafe_code, reason = "sets the fields of FFmpeg's codec context that have no safe setter")]

use std::path::Path;

use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::{Packet, Rational, codec, encoder, ffi, format, frame};

use crate::media::{Codec, ColorInfo, I420};

use super::init;
use super::recolor::recolor;
use super::software::{dictionary, fill, name, set_up};

/// What a file is to hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Codec of its video; the container is chosen by the file name's extension.
    pub codec: Codec,
    /// Width in pixels. H.264 rounds it up to an even number.
    pub width: u32,
    /// Height in pixels. H.264 rounds it up to an even number.
    pub height: u32,
    /// Pictures a second.
    pub fps: f64,
    /// Constant quality: 18 is nearly lossless for H.264, 23 good, 30 small; for VP8 and VP9 the like at 10, 20, 35.
    pub quality: u8,
    /// How much time to spend on a smaller file.
    pub effort: Effort,
}

/// Speed against size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// Quick, as while annotating a video.
    #[default]
    Fast,
    /// Small, as for a file that is kept.
    Small,
}

/// Writes a video file, a picture at a time. Without [`Writer::finish`] the file stays incomplete.
pub struct Writer {
    output: format::context::Output,
    settings: Settings,
    track: Option<Track>,
}

/// The video stream, opened with the first picture because it carries that picture's colour.
struct Track {
    encoder: encoder::video::Encoder,
    frame: frame::Video,
    color: ColorInfo,
    recolored: I420,
    encoder_base: Rational,
    stream_base: Rational,
    pictures: i64,
}

/// What goes wrong while writing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file can't be made, or its extension names no container.
    #[error("can't create the file")]
    Create(#[source] ffmpeg_next::Error),
    /// This FFmpeg was built without the encoder.
    #[error("no encoder for {0}")]
    NoEncoder(Codec),
    /// The encoder or the container refuses the settings.
    #[error("the encoder refuses the settings")]
    Settings(#[source] ffmpeg_next::Error),
    /// The picture has another size than the file.
    #[error("a picture of {width}x{height} does not fit the file")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The encoder failed.
    #[error("can't encode a picture")]
    Encode(#[source] ffmpeg_next::Error),
    /// The file can't be written to.
    #[error("can't write to the file")]
    Write(#[source] ffmpeg_next::Error),
    /// There was no picture to write.
    #[error("the video has no pictures")]
    Empty,
}

impl Writer {
    /// Creates or replaces the file.
    ///
    /// # Errors
    /// [`Error::Create`], [`Error::NoEncoder`].
    pub fn create(path: &Path, settings: Settings) -> Result<Self, Error> {
        init();
        encoder::find_by_name(name(settings.codec)).ok_or(Error::NoEncoder(settings.codec))?;
        let output = format::output(path).map_err(Error::Create)?;
        Ok(Self { output, settings, track: None })
    }

    /// Adds a picture. All are stored with the colour of the first; others are converted.
    ///
    /// # Errors
    /// [`Error::Size`] leaves the file as it was; after any other error it can't be continued.
    pub fn write(&mut self, picture: &I420, color: ColorInfo) -> Result<(), Error> {
        let (width, height) = (picture.width(), picture.height());
        if (width, height) != (self.settings.width, self.settings.height) {
            return Err(Error::Size { width, height });
        }
        let mut track = match self.track.take() {
            Some(track) => track,
            None => self.open(color)?,
        };
        if color == track.color {
            fill(&mut track.frame, picture).map_err(Error::Encode)?;
        } else {
            recolor(picture, color, track.color, &mut track.recolored);
            fill(&mut track.frame, &track.recolored).map_err(Error::Encode)?;
        }
        track.frame.set_pts(Some(track.pictures));
        track.pictures += 1;
        track.encoder.send_frame(&track.frame).map_err(Error::Encode)?;
        track.drain(&mut self.output)?;
        self.track = Some(track);
        Ok(())
    }

    /// Writes what is still on its way and closes the file.
    ///
    /// # Errors
    /// [`Error::Empty`] when nothing was written, [`Error::Encode`] and [`Error::Write`].
    pub fn finish(mut self) -> Result<(), Error> {
        let mut track = self.track.take().ok_or(Error::Empty)?;
        track.encoder.send_eof().map_err(Error::Encode)?;
        track.drain(&mut self.output)?;
        self.output.write_trailer().map_err(Error::Write)
    }

    fn open(&mut self, color: ColorInfo) -> Result<Track, Error> {
        let Settings { codec, width, height, fps, .. } = self.settings;
        // VP8 knows no other colour (RFC 6386, section 9.2).
        let color = if codec == Codec::Vp8 { ColorInfo::default() } else { color };
        let found = encoder::find_by_name(name(codec)).ok_or(Error::NoEncoder(codec))?;
        let context = codec::Context::new_with_codec(found);
        let mut context = context.encoder().video().map_err(Error::Settings)?;
        let fps = if fps.is_finite() { fps.clamp(0.1, 240.0) } else { 30.0 };
        let frame = set_up(&mut context, codec, (width, height, color), fps).map_err(Error::Settings)?;
        #[expect(clippy::cast_possible_truncation, reason = "the rate is 240 at most")]
        let encoder_base = Rational(1_000, (fps * 1_000.0).round() as i32);
        context.set_time_base(encoder_base);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the rate is 240 at most")]
        context.set_gop((fps * 5.0).ceil() as u32);
        if self.output.format().flags().contains(format::Flags::GLOBAL_HEADER) {
            // SAFETY: the context is ours alone and not open yet.
            unsafe { (*context.as_mut_ptr()).flags |= ffi::AV_CODEC_FLAG_GLOBAL_HEADER.cast_signed() };
        }
        if codec != Codec::H264 {
            // Constant quality for VP9, and at most this bitrate for VP8.
            context.set_bit_rate(if codec == Codec::Vp9 { 0 } else { 8_000_000 });
        }
        let quality = self.settings.quality.to_string();
        let small = self.settings.effort == Effort::Small;
        let options = match codec {
            Codec::H264 => dictionary(&[("preset", if small { "slow" } else { "veryfast" }), ("crf", &quality)]),
            Codec::Vp8 | Codec::Vp9 => dictionary(&[
                ("deadline", "good"),
                ("cpu-used", if small { "1" } else { "5" }),
                ("crf", &quality),
                ("auto-alt-ref", "0"),
            ]),
        };
        let encoder = context.open_with(options).map_err(Error::Settings)?;
        let mut stream = self.output.add_stream_with(&encoder).map_err(Error::Settings)?;
        stream.set_time_base(encoder_base);
        stream.set_avg_frame_rate(encoder_base.invert());
        // Only MP4's muxer knows the flag, which puts the index at the file's beginning.
        drop(self.output.write_header_with(dictionary(&[("movflags", "+faststart")])).map_err(Error::Settings)?);
        let stream_base = self.output.stream(0).map_or(encoder_base, |stream| stream.time_base());
        let recolored = I420::new(width, height);
        Ok(Track { encoder, frame, color, recolored, encoder_base, stream_base, pictures: 0 })
    }
}

impl Track {
    fn drain(&mut self, output: &mut format::context::Output) -> Result<(), Error> {
        let mut packet = Packet::empty();
        loop {
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(ffmpeg_next::Error::Other { errno: EAGAIN } | ffmpeg_next::Error::Eof) => return Ok(()),
                Err(error) => return Err(Error::Encode(error)),
            }
            packet.set_stream(0);
            packet.set_duration(1);
            packet.rescale_ts(self.encoder_base, self.stream_base);
            packet.write_interleaved(output).map_err(Error::Write)?;
        }
    }
}
