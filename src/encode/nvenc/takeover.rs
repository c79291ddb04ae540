use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;

use crate::device::again::{Again, Reason};
use crate::device::{self, PitchedNv12, Stream};
use crate::media::{Codec, ColorInfo, FramePool, I420, MediaTime};

use super::super::software::{self, Software};
use super::super::{Encoded, Encoder, Error};
use super::{Error as Cause, Hardware, Nvenc};

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
    /// When the GPU is tried again, by the time that the pictures took.
    again: Again<Duration>,
    last: Option<MediaTime>,
    /// Time that the pictures took so far.
    elapsed: Duration,
    /// For pictures on their way from the GPU to software.
    pool: FramePool,
    stream: Option<Stream>,
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
        let (gpu, again) = match Nvenc::new(hardware, config) {
            // Until it gives up.
            Ok(nvenc) => (Some(nvenc), Again::with_the_first(Reason::Lost)),
            Err(cause) => (None, Again::with_the_first(tell(cause))),
        };
        Ok(Self {
            hardware: Arc::clone(hardware),
            config,
            keyframe_due: gpu.is_none(),
            gpu,
            software,
            again,
            last: None,
            elapsed: Duration::ZERO,
            pool: FramePool::new(1),
            stream: None,
        })
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
            && self.again.is_due(self.elapsed, || Some(input.size()))
            && let Some(encoded) = self.try_again(input, color, time)
        {
            return Ok(Some(encoded));
        }
        if let Some(nvenc) = &mut self.gpu {
            match encode(nvenc, input, color, time, keyframe) {
                Ok(encoded) => return Ok(Some(encoded)),
                Err(cause) => self.give_up(cause, input.size()),
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

    /// Encodes on the GPU again, if that works now.
    fn try_again(&mut self, input: Input<'_>, color: ColorInfo, time: MediaTime) -> Option<Encoded> {
        let mut nvenc = None;
        let tried = Nvenc::new(&self.hardware, self.config)
            .and_then(|made| encode(nvenc.insert(made), input, color, time, true));
        match (tried, nvenc) {
            (Ok(encoded), Some(nvenc)) => {
                tracing::info!("the GPU encodes a stream that software encoded");
                (self.gpu, self.keyframe_due) = (Some(nvenc), false);
                // Software that did not encode lately gives up what it has, for the next time to begin anew.
                if let Ok(software) = Software::new(Codec::H264, self.config) {
                    self.software = software;
                }
                Some(encoded)
            }
            (tried, _) => {
                if let Err(cause) = tried {
                    self.again.put_off(reason(cause), self.elapsed, Some(input.size()));
                }
                None
            }
        }
    }

    /// Has software go on, with a keyframe.
    fn give_up(&mut self, cause: Cause, size: (u32, u32)) {
        (self.gpu, self.keyframe_due) = (None, true);
        self.again = Again::after(tell(cause), self.elapsed, Some(size));
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

/// Why software takes over.
const fn reason(cause: Cause) -> Reason {
    match cause {
        Cause::Device(error) => Reason::of(&error),
        Cause::Full => Reason::Full,
        Cause::Failed(_) | Cause::Nothing => Reason::Failed,
        Cause::NoEncoder | Cause::Size { .. } => Reason::Unsupported,
    }
}

/// Says that software takes over, and why.
fn tell(cause: Cause) -> Reason {
    let reason = reason(cause);
    counter!("saccade_encode_takeovers_total", "reason" => reason.name()).increment(1);
    tracing::info!(reason = reason.name(), %cause, "software encodes a stream instead of the GPU");
    reason
}
