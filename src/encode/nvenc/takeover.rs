use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;

use crate::device::{self, PitchedNv12, Stream};
use crate::media::{Codec, ColorInfo, FramePool, I420, MediaTime};

use super::super::software::{self, Software};
use super::super::{Encoded, Encoder, Error};
use super::{Error as Cause, Hardware, Nvenc};

/// First wait before a GPU that had no room, or failed, is tried again. It doubles each time.
const RETRY: Duration = Duration::from_secs(10);
const MAX_RETRY: Duration = Duration::from_mins(5);
/// Longest time between two pictures that counts, so that a clock that jumps is no reason to try.
const MAX_STEP: Duration = Duration::from_secs(1);

/// Encodes a session's pictures on a GPU as H.264, and in software where the GPU can't.
///
/// - When the GPU fails, has no room, or does not encode such pictures, software encodes the picture that it failed on, as
///   a keyframe. So no picture is lost.
/// - Where it helps, the GPU is tried again: after a while if it had no room or failed, at once when pictures of another
///   size come, and never when it is lost. The time is that of the pictures. A stream that goes back to the GPU does so
///   with a keyframe; a try that fails costs none.
/// - Pictures in the GPU's memory are brought to the host where software encodes them.
pub struct Takeover {
    hardware: Arc<Hardware>,
    config: software::Config,
    gpu: Option<Nvenc>,
    software: Software,
    /// Whether what software encodes next has to be a keyframe.
    keyframe_due: bool,
    until: Until,
    /// Before the next try, if it is for time.
    wait: Duration,
    last: Option<MediaTime>,
    /// Time that the pictures took so far.
    elapsed: Duration,
    /// For pictures on their way from the GPU to software.
    pool: FramePool,
    stream: Option<Stream>,
}

/// When the GPU is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Never,
    /// Pictures of another size than this come.
    OtherSize((u32, u32)),
    /// The pictures took so long.
    Time(Duration),
}

/// Why software takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Lost,
    Full,
    Failed,
    Unsupported,
}

impl Reason {
    const fn of(error: Cause) -> Self {
        match error {
            Cause::Device(error) if error.is_lost() => Self::Lost,
            Cause::Full | Cause::Device(device::Error::OutOfMemory | device::Error::Exhausted(_)) => Self::Full,
            Cause::Device(_) | Cause::Failed(_) | Cause::Nothing => Self::Failed,
            Cause::NoEncoder | Cause::Size { .. } => Self::Unsupported,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A picture, wherever it is.
#[derive(Clone, Copy)]
enum Input<'a> {
    Host(&'a I420),
    Gpu(&'a PitchedNv12),
}

impl Input<'_> {
    const fn size(self) -> (u32, u32) {
        match self {
            Self::Host(picture) => (picture.width(), picture.height()),
            Self::Gpu(surface) => (surface.width(), surface.height()),
        }
    }
}

impl Takeover {
    /// An encoder that begins in software when the GPU has no encoder, no room, or is lost.
    ///
    /// # Errors
    /// [`Error::NoEncoder`] when this FFmpeg lacks the encoder that would take over.
    pub fn new(hardware: &Arc<Hardware>, config: software::Config) -> Result<Self, Error> {
        let software = Software::new(Codec::H264, config)?;
        let mut takeover = Self {
            hardware: Arc::clone(hardware),
            config,
            gpu: None,
            software,
            keyframe_due: false,
            until: Until::Never,
            wait: RETRY,
            last: None,
            elapsed: Duration::ZERO,
            pool: FramePool::new(1),
            stream: None,
        };
        match Nvenc::new(hardware, config) {
            Ok(nvenc) => takeover.gpu = Some(nvenc),
            Err(cause) => takeover.give_up(cause, None),
        }
        Ok(takeover)
    }

    /// Whether the GPU encodes the stream now.
    #[must_use]
    pub const fn on_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// [`Encoder::encode`] of a picture in the GPU's memory, which others may read meanwhile.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Device`] when the picture can be brought to no encoder, since the GPU is lost, or no host
    /// memory is left to bring it to software through.
    pub fn encode_surface(
        &mut self,
        surface: &PitchedNv12,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
    ) -> Result<Option<Encoded>, Error> {
        self.encode_input(Input::Gpu(surface), color, time, keyframe)
    }

    fn encode_input(
        &mut self,
        input: Input<'_>,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
    ) -> Result<Option<Encoded>, Error> {
        self.advance(time);
        if self.gpu.is_none()
            && self.is_due(input.size())
            && let Some(encoded) = self.try_again(input, color, time)
        {
            return Ok(Some(encoded));
        }
        if let Some(nvenc) = &mut self.gpu {
            match encode(nvenc, input, color, time, keyframe) {
                Ok(encoded) => return Ok(Some(encoded)),
                Err(cause) => self.give_up(cause, Some(input.size())),
            }
        }
        // It stays due until there is one: what was encoded last is what software knows nothing of.
        self.keyframe_due |= keyframe;
        let encoded = match input {
            Input::Host(picture) => self.software.encode(picture, color, time, self.keyframe_due),
            Input::Gpu(surface) => self.encode_downloaded(surface, color, time),
        }?;
        if encoded.is_some() {
            self.keyframe_due = false;
        }
        Ok(encoded)
    }

    fn encode_downloaded(
        &mut self,
        surface: &PitchedNv12,
        color: ColorInfo,
        time: MediaTime,
    ) -> Result<Option<Encoded>, Error> {
        let mut picture = self.pool.take(surface.width(), surface.height());
        let encoded = match self.download(surface, Arc::make_mut(&mut picture)) {
            Ok(()) => self.software.encode(&picture, color, time, self.keyframe_due),
            Err(error) => {
                tracing::debug!(%error, "a picture of a GPU could not be brought to software");
                Err(Error::Device)
            }
        };
        self.pool.give(picture);
        encoded
    }

    fn download(&mut self, surface: &PitchedNv12, to: &mut I420) -> Result<(), device::Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Stream::new(self.hardware.device())?),
        };
        surface.download(to, self.hardware.host(), stream)
    }

    fn advance(&mut self, time: MediaTime) {
        let last = self.last.replace(time).filter(|last| time.is_newer_than(*last));
        self.elapsed += last.map_or(Duration::ZERO, |last| time.since(last).min(MAX_STEP));
    }

    fn is_due(&self, size: (u32, u32)) -> bool {
        match self.until {
            Until::Never => false,
            Until::OtherSize(other) => size != other,
            Until::Time(time) => self.elapsed >= time,
        }
    }

    /// Encodes on the GPU again, if that works now.
    fn try_again(&mut self, input: Input<'_>, color: ColorInfo, time: MediaTime) -> Option<Encoded> {
        let mut nvenc = None;
        let tried = Nvenc::new(&self.hardware, self.config)
            .and_then(|made| encode(nvenc.insert(made), input, color, time, true));
        match (tried, nvenc) {
            (Ok(encoded), Some(nvenc)) => {
                tracing::info!("the GPU encodes a stream that software encoded");
                (self.gpu, self.wait, self.keyframe_due) = (Some(nvenc), RETRY, false);
                // Software that did not encode lately gives up what it has, for the next time to begin anew.
                if let Ok(software) = Software::new(Codec::H264, self.config) {
                    self.software = software;
                }
                Some(encoded)
            }
            (tried, _) => {
                if let Err(cause) = tried {
                    self.wait = (self.wait * 2).min(MAX_RETRY);
                    self.put_off(Reason::of(cause), Some(input.size()));
                }
                None
            }
        }
    }

    /// Has software go on, with a keyframe.
    fn give_up(&mut self, cause: Cause, size: Option<(u32, u32)>) {
        let reason = Reason::of(cause);
        counter!("saccade_encode_takeovers_total", "reason" => reason.name()).increment(1);
        tracing::info!(reason = reason.name(), %cause, "software encodes a stream instead of the GPU");
        (self.gpu, self.keyframe_due, self.wait) = (None, true, RETRY);
        self.put_off(reason, size);
    }

    fn put_off(&mut self, reason: Reason, size: Option<(u32, u32)>) {
        self.until = match (reason, size) {
            (Reason::Unsupported, Some(size)) => Until::OtherSize(size),
            (Reason::Lost | Reason::Unsupported, _) => Until::Never,
            // Before the first picture: with that one.
            (_, None) => Until::Time(Duration::ZERO),
            (_, Some(_)) => Until::Time(self.elapsed + self.wait),
        };
    }
}

impl Encoder for Takeover {
    fn encode(
        &mut self,
        picture: &I420,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
    ) -> Result<Option<Encoded>, Error> {
        self.encode_input(Input::Host(picture), color, time, keyframe)
    }

    fn set_bitrate(&mut self, bps: u32) {
        self.config.bitrate_bps = bps;
        self.software.set_bitrate(bps);
        if let Some(nvenc) = &mut self.gpu {
            nvenc.set_bitrate(bps);
        }
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Takeover({})", if self.on_gpu() { "GPU" } else { "software" })
    }
}

fn encode(
    nvenc: &mut Nvenc,
    input: Input<'_>,
    color: ColorInfo,
    time: MediaTime,
    keyframe: bool,
) -> Result<Encoded, Cause> {
    match input {
        Input::Host(picture) => nvenc.encode_picture(picture, color, time, keyframe),
        Input::Gpu(surface) => nvenc.encode(surface, color, time, keyframe),
    }
}
