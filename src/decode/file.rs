//! Video files and still pictures, for offline use.
#![allow(unsafe_code, reason = "sets the fields of FFmpeg's codec context that have no safe setter")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ffmpeg_next::codec::threading;
use ffmpeg_next::error::{EAGAIN, EINVAL};
use ffmpeg_next::{Packet, Rational, codec, decoder, format, frame, media, packet};

use crate::media::{AnnouncedColor, ColorInfo, FramePool, I420, Rotation};

use super::picture::Copier;
use super::{Decoded, Limits, init};

/// Packets in a row without a picture among them after which a file counts as broken.
const MAX_BROKEN_PACKETS: u32 = 1_000;
/// The formats that are read. FFmpeg knows more, among them playlists and scripts that make it open other files or
/// addresses, and one that takes any text for video.
const FORMATS: &str = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,mjpeg,yuv4mpegpipe,ivf,ogg,flv,asf,mxf,nut,\
                       gif,apng,image2,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe,ppm_pipe,pgm_pipe,\
                       pam_pipe,qoi_pipe,j2k_pipe,jpegxl_pipe";

/// Reads the pictures of a file's best video stream, in the order in which they are shown.
///
/// Packets that can't be decoded are skipped, see [`Reader::broken_packets`].
pub struct Reader {
    input: format::context::Input,
    stream: usize,
    time_base: f64,
    decoder: decoder::Video,
    frame: frame::Video,
    copier: Copier,
    pool: Arc<FramePool>,
    limits: Limits,
    rotation: Rotation,
    info: Info,
    /// Timestamp of the first picture.
    start: Option<i64>,
    pictures: u64,
    broken_packets: u32,
    broken_in_a_row: u32,
    /// The picture of a still, which is decoded when it is opened.
    first: Option<Picture>,
    state: State,
}

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Width of the upright pictures in pixels.
    pub width: u32,
    /// Height of the upright pictures in pixels.
    pub height: u32,
    /// Name of the codec.
    pub codec: &'static str,
    /// Pictures a second; `None` for a still picture.
    pub fps: Option<f64>,
    /// The number of pictures.
    pub frames: Option<u64>,
    /// Whether the file itself states that number; else it is an estimate.
    pub counted: bool,
}

/// One picture of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Upright picture.
    pub picture: Arc<I420>,
    /// Meaning of its codes.
    pub color: ColorInfo,
    /// Time from the first picture.
    pub time: Duration,
}

/// What goes wrong while reading a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file can't be opened.
    #[error("can't open the file")]
    Open(#[source] ffmpeg_next::Error),
    /// The file is of no format that is read, or damaged at its beginning.
    #[error("the file is no picture or video of a known format")]
    Format,
    /// The file has no video stream or picture.
    #[error("the file has no video")]
    NoVideo,
    /// The file's codec can't be decoded here.
    #[error("can't decode the file's codec")]
    Codec(#[source] ffmpeg_next::Error),
    /// The file can't be read to its end.
    #[error("can't read the file")]
    Read(#[source] ffmpeg_next::Error),
    /// Nothing in the file, or in a long part of it, can be decoded.
    #[error("the file's pictures can't be decoded")]
    Broken,
    /// A picture can't be used.
    #[error(transparent)]
    Picture(#[from] super::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Draining,
    Ended,
}

impl Reader {
    /// Opens a file and reads its headers; a still picture is decoded at once.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Format`], [`Error::NoVideo`] and [`Error::Codec`] when it is not a file that can be decoded,
    /// [`Error::Picture`] when it announces pictures over the limits.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, Error> {
        init();
        let options = [("format_whitelist", FORMATS), ("protocol_whitelist", "file")];
        let input =
            format::input_with_dictionary(path, options.into_iter().collect()).map_err(|error| match error {
                ffmpeg_next::Error::InvalidData | ffmpeg_next::Error::Eof => Error::Format,
                // What FFmpeg says when the format is not among those allowed.
                ffmpeg_next::Error::Other { errno: EINVAL } => Error::Format,
                error => Error::Open(error),
            })?;
        let stream = input.streams().best(media::Type::Video).ok_or(Error::NoVideo)?;
        let mut context = codec::Context::from_parameters(stream.parameters()).map_err(Error::Codec)?;
        context.set_threading(threading::Config::kind(threading::Type::Frame));
        // SAFETY: the context is ours alone and not open yet.
        let (width, height) = unsafe {
            let context = &mut *context.as_mut_ptr();
            context.max_pixels = limits.max_pixels();
            (context.width.unsigned_abs(), context.height.unsigned_abs())
        };
        limits.check(width, height)?;
        let decoder = context.decoder().video().map_err(Error::Codec)?;

        let matrix = stream.side_data().find(|data| data.kind() == packet::side_data::Type::DisplayMatrix);
        let rotation = matrix.map_or(Rotation::None, |matrix| from_display_matrix(matrix.data()));
        let (width, height) = rotation.apply(width, height);
        let still = input.format().name().ends_with("_pipe") || input.format().name() == "image2";
        let fps = (!still).then(|| positive(stream.avg_frame_rate())).flatten();
        let (frames, counted) = match (u64::try_from(stream.frames()), fps) {
            _ if still => (Some(1), true),
            (Ok(frames @ 1..), _) => (Some(frames), true),
            (_, Some(fps)) => (estimate(&input, fps), false),
            _ => (None, false),
        };
        let codec = decoder.id().name();
        let info = Info { width, height, codec, fps, frames, counted };
        let time_base = positive(stream.time_base()).unwrap_or(0.0);
        let mut reader = Self {
            stream: stream.index(),
            input,
            time_base,
            decoder,
            frame: frame::Video::empty(),
            copier: Copier::default(),
            pool: Arc::new(FramePool::new(2)),
            limits,
            rotation,
            info,
            start: None,
            pictures: 0,
            broken_packets: 0,
            broken_in_a_row: 0,
            first: None,
            state: State::Reading,
        };
        if still {
            // Its own data says which way it is up.
            let first = reader.advance()?.ok_or(Error::Broken)?;
            (reader.info.width, reader.info.height) = (first.picture.width(), first.picture.height());
            reader.first = Some(first);
        }
        Ok(reader)
    }

    /// What the file says of itself.
    #[must_use]
    pub const fn info(&self) -> &Info {
        &self.info
    }

    /// Where pictures come from; whoever gives them back saves allocations.
    #[must_use]
    pub const fn pool(&self) -> &Arc<FramePool> {
        &self.pool
    }

    /// Packets skipped so far because they could not be decoded.
    #[must_use]
    pub const fn broken_packets(&self) -> u32 {
        self.broken_packets
    }

    /// Feeds the decoder one packet, or the news that there are no more.
    fn feed(&mut self) -> Result<(), Error> {
        let mut packet = Packet::empty();
        match packet.read(&mut self.input) {
            Ok(()) if packet.stream() != self.stream => Ok(()),
            Ok(()) => {
                if self.decoder.send_packet(&packet).is_err() {
                    self.count_broken()?;
                }
                Ok(())
            }
            Err(ffmpeg_next::Error::Eof) => {
                self.state = State::Draining;
                self.decoder.send_eof().map_err(Error::Read)
            }
            Err(error) => Err(Error::Read(error)),
        }
    }

    fn count_broken(&mut self) -> Result<(), Error> {
        self.broken_packets += 1;
        self.broken_in_a_row += 1;
        if self.broken_in_a_row > MAX_BROKEN_PACKETS { Err(Error::Broken) } else { Ok(()) }
    }

    fn advance(&mut self) -> Result<Option<Picture>, Error> {
        loop {
            match self.decoder.receive_frame(&mut self.frame) {
                Ok(()) => return self.take_picture().map(Some),
                Err(ffmpeg_next::Error::Other { errno: EAGAIN }) => self.feed()?,
                Err(ffmpeg_next::Error::Eof) if self.pictures == 0 => return Err(Error::Broken),
                Err(ffmpeg_next::Error::Eof) => return Ok(None),
                Err(_) => self.count_broken()?,
            }
        }
    }

    fn take_picture(&mut self) -> Result<Picture, Error> {
        self.limits.check(self.frame.width(), self.frame.height())?;
        let turn = self.frame.metadata().get("Orientation").map_or(self.rotation, from_exif);
        let Decoded { picture, color } = self.copier.copy(&self.frame, turn, AnnouncedColor::default(), &self.pool)?;
        #[expect(clippy::cast_precision_loss, reason = "below 2^52 in any real file")]
        let seconds = match (self.frame.timestamp(), self.info.fps) {
            (Some(timestamp), _) => (timestamp - *self.start.get_or_insert(timestamp)) as f64 * self.time_base,
            (None, Some(fps)) => self.pictures as f64 / fps,
            (None, None) => 0.0,
        };
        self.pictures += 1;
        self.broken_in_a_row = 0;
        let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok(Picture { picture, color, time })
    }
}

impl Iterator for Reader {
    type Item = Result<Picture, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let picture = self.advance().transpose();
        if !matches!(picture, Some(Ok(_))) {
            self.state = State::Ended;
        }
        picture
    }
}

fn positive(rational: Rational) -> Option<f64> {
    Some(f64::from(rational)).filter(|value| value.is_finite() && *value > 0.0)
}

fn estimate(input: &format::context::Input, fps: f64) -> Option<u64> {
    const TICKS: f64 = 1_000_000.0; // AV_TIME_BASE
    let duration = input.duration();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive estimate"
    )]
    (duration > 0).then(|| (duration as f64 / TICKS * fps).round() as u64)
}

/// The quarter turn that a container asks for: nine 32-bit numbers, of which the first two are cosine and sine of the
/// clockwise angle (ISO/IEC 14496-12, section 8.3.2; FFmpeg's `AV_PKT_DATA_DISPLAYMATRIX`).
fn from_display_matrix(data: &[u8]) -> Rotation {
    let number = |at: usize| data.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
    let (Some(cosine), Some(sine)) = (number(0), number(4)) else { return Rotation::None };
    match (cosine.unsigned_abs() >= sine.unsigned_abs(), cosine < 0, sine < 0) {
        (true, false, _) => Rotation::None,
        (true, true, _) => Rotation::Half,
        (false, _, false) => Rotation::Clockwise90,
        (false, _, true) => Rotation::Clockwise270,
    }
}

/// The quarter turn of an EXIF orientation; mirrored ones are taken as if they were not mirrored.
fn from_exif(orientation: &str) -> Rotation {
    match orientation.trim() {
        "3" | "4" => Rotation::Half,
        "5" | "6" => Rotation::Clockwise90,
        "7" | "8" => Rotation::Clockwise270,
        _ => Rotation::None,
    }
}
