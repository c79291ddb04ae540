use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use metrics::counter;

use crate::device;
use crate::device::again::{Again, Reason};
use crate::media::{self, EncodedFrame, FramePool, Rotation};

use super::super::software::Software;
use super::super::{Decoded, Decoder, Error, Limits, Shown, header};
use super::{DeviceFrame, Error as Cause, Hardware, Nvdec};
use crate::frame::{DevicePicture, Picture, WayDown};

/// Units that a stream may break in a row, with no picture in between, before software is to try them.
const MAX_BROKEN: u32 = 3;

/// Decodes a session's stream on a GPU, where its pictures stay, and has software take over where the GPU can't.
///
/// - What a stream breaks costs a keyframe, as in software. If the GPU can't decode a keyframe, or if no picture comes in
///   between, software takes the stream over.
/// - When the GPU fails, has no room, or does not decode such pictures, software takes over with the next keyframe; if it
///   is a keyframe that failed, with that one.
/// - Where it helps, the GPU is tried again with later keyframes: after a while if it had no room or failed, at once when
///   pictures of another size come, and never when it is lost.
pub struct Takeover {
    hardware: Arc<Hardware>,
    codec: media::Codec,
    limits: Limits,
    pool: Arc<FramePool>,
    /// There once the GPU decodes.
    way: Option<Arc<WayDown>>,
    place: Place,
    broken: u32,
}

/// Where the stream is decoded.
enum Place {
    Gpu(Box<Nvdec>),
    /// `again` says at which keyframe the GPU is tried again.
    Software {
        decoder: Box<Software>,
        again: Again<Instant>,
    },
}

impl Takeover {
    /// A decoder that takes its pictures from `pool`. It begins in software when the GPU does not decode the codec, or is
    /// lost.
    ///
    /// # Errors
    /// As [`Software::new`], when software has to begin.
    pub fn new(
        hardware: &Arc<Hardware>,
        codec: media::Codec,
        limits: Limits,
        pool: Arc<FramePool>,
    ) -> Result<Self, Error> {
        let place = match Nvdec::new(hardware, codec.into(), limits) {
            Ok(nvdec) => Place::Gpu(Box::new(nvdec)),
            Err(error) => {
                let again = Again::with_the_first(tell(codec, error));
                Place::Software { decoder: Box::new(Software::new(codec, limits, Arc::clone(&pool))?), again }
            }
        };
        Ok(Self { hardware: Arc::clone(hardware), codec, limits, pool, way: None, place, broken: 0 })
    }

    /// Whether the GPU decodes the stream now.
    #[must_use]
    pub const fn on_gpu(&self) -> bool {
        matches!(self.place, Place::Gpu(_))
    }

    /// [`Decoder::decode`], but pictures that the GPU decodes stay there.
    ///
    /// # Errors
    /// As there.
    pub fn decode_in_place(&mut self, unit: &EncodedFrame) -> Result<Option<Shown>, Error> {
        if unit.keyframe
            && let Some(shown) = self.try_again(unit)
        {
            return Ok(shown);
        }
        let cause = match &mut self.place {
            Place::Software { decoder, .. } => return Ok(decoder.decode(unit)?.map(Shown::from)),
            Place::Gpu(nvdec) => match decode(nvdec, &self.hardware, &mut self.way, unit, &self.pool) {
                Ok(shown) => {
                    if shown.is_some() {
                        self.broken = 0;
                    }
                    return Ok(shown);
                }
                Err(cause) => cause,
            },
        };
        self.give_up(cause, unit)
    }

    /// Has software take over with the next keyframe, because what the GPU decodes does not come to the host.
    pub fn leave(&mut self, error: device::Error) {
        let cause = Cause::Device(error);
        if !self.on_gpu() {
            return;
        }
        match Software::new(self.codec, self.limits, Arc::clone(&self.pool)) {
            Ok(decoder) => {
                let again = Again::after(tell(self.codec, cause), crate::clock::now(), None);
                self.place = Place::Software { decoder: Box::new(decoder), again };
            }
            Err(error) => tracing::warn!(codec = %self.codec, %error, "software can't take a stream over"),
        }
    }

    /// Has software take over, if that may help, after the GPU failed on a unit.
    fn give_up(&mut self, cause: Cause, unit: &EncodedFrame) -> Result<Option<Shown>, Error> {
        let error = match cause {
            // Software would refuse them, too.
            Cause::TooLarge { width, height } => return Err(Error::TooLarge { width, height }),
            Cause::Damaged => Error::Damaged,
            Cause::Invalid | Cause::NewSize => Error::Invalid(ffmpeg_next::Error::InvalidData),
            Cause::PixelFormat { .. } => Error::PixelFormat,
            _ => Error::Device,
        };
        self.broken += 1;
        let reason = reason(cause);
        if reason == Reason::Broken && !unit.keyframe && self.broken < MAX_BROKEN {
            return Err(error);
        }
        tell(self.codec, cause);
        let mut decoder = Box::new(Software::new(self.codec, self.limits, Arc::clone(&self.pool))?);
        let result = if unit.keyframe { decoder.decode(unit) } else { Err(error) };
        let again = Again::after(reason, unit.arrival, header::size(self.codec, &unit.data));
        self.place = Place::Software { decoder, again };
        Ok(result?.map(Shown::from))
    }

    /// Decodes a keyframe on the GPU, if it is time to try that again. `None` when the stream stays in software.
    fn try_again(&mut self, unit: &EncodedFrame) -> Option<Option<Shown>> {
        let Place::Software { again, .. } = &mut self.place else { return None };
        let size = || header::size(self.codec, &unit.data);
        if !again.is_due(unit.arrival, size) {
            return None;
        }
        let mut nvdec = None;
        let tried = Nvdec::new(&self.hardware, self.codec.into(), self.limits)
            .and_then(|made| decode(nvdec.insert(made), &self.hardware, &mut self.way, unit, &self.pool));
        match (tried, nvdec) {
            (Ok(shown), Some(nvdec)) => {
                tracing::info!(codec = %self.codec, "the GPU decodes a stream that software decoded");
                (self.place, self.broken) = (Place::Gpu(Box::new(nvdec)), 0);
                Some(shown)
            }
            (Err(error), _) => {
                again.put_off(reason(error), unit.arrival, size());
                None
            }
            (Ok(_), None) => None,
        }
    }
}

impl Decoder for Takeover {
    fn decode(&mut self, unit: &EncodedFrame) -> Result<Option<Decoded>, Error> {
        let Some(Shown { picture, color }) = self.decode_in_place(unit)? else { return Ok(None) };
        let brought = picture.host(&self.pool);
        picture.recycle(&self.pool);
        let error = match brought {
            Ok(picture) => return Ok(Some(Decoded { picture, color })),
            Err(error) if error.is_full() => {
                counter!("saccade_frames_dropped_total", "stage" => "decode", "reason" => "no_host_buffer")
                    .increment(1);
                return Ok(None);
            }
            Err(error) => error,
        };
        let Some(Shown { picture, color }) = self.give_up(Cause::Device(error.reason()), unit)? else {
            return Ok(None);
        };
        // Software decoded it.
        Ok(picture.host(&self.pool).ok().map(|picture| Decoded { picture, color }))
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Takeover({}, {})", self.codec, if self.on_gpu() { "GPU" } else { "software" })
    }
}

/// Why software takes over.
fn reason(cause: Cause) -> Reason {
    match cause {
        Cause::Device(error) => Reason::of(&error),
        Cause::Full => Reason::Full,
        Cause::NoDecoder(_) | Cause::Size { .. } | Cause::PixelFormat { .. } | Cause::References(_) => {
            Reason::Unsupported
        }
        Cause::TooLarge { .. } | Cause::Invalid | Cause::Damaged | Cause::NewSize => Reason::Broken,
    }
}

/// Says that software takes over, and why.
fn tell(codec: media::Codec, cause: Cause) -> Reason {
    let reason = reason(cause);
    counter!("saccade_decode_takeovers_total", "reason" => reason.name()).increment(1);
    tracing::info!(%codec, reason = reason.name(), %cause, "software decodes a stream instead of the GPU");
    reason
}

/// Decodes on the GPU. A picture that does not stand upright and can't be turned there is brought to the host and turned
/// there; `None`, too, when there was no memory left to bring it through.
fn decode(
    nvdec: &mut Nvdec,
    hardware: &Hardware,
    way: &mut Option<Arc<WayDown>>,
    unit: &EncodedFrame,
    pool: &FramePool,
) -> Result<Option<Shown>, Cause> {
    let frame = nvdec.decode(&unit.data, unit.keyframe, unit.color, unit.rotation)?;
    let Some(frame) = frame else { return Ok(None) };
    let frame = match nvdec.upright(frame.clone()) {
        Err(Cause::Device(device::Error::Exhausted(_) | device::Error::OutOfMemory)) => frame,
        upright => upright?,
    };
    if frame.rotation == Rotation::None {
        let way = match way {
            Some(way) => way,
            None => way.insert(hardware.way()?),
        };
        let DeviceFrame { surface, color, .. } = frame;
        return Ok(Some(Shown { picture: Picture::Device(Arc::new(DevicePicture::new(surface, way))), color }));
    }
    match frame.download(pool, hardware.host(), nvdec.stream()) {
        Ok(decoded) => Ok(Some(decoded.into())),
        Err(Cause::Device(device::Error::Exhausted(_))) => {
            counter!("saccade_frames_dropped_total", "stage" => "decode", "reason" => "no_host_buffer").increment(1);
            Ok(None)
        }
        Err(cause) => Err(cause),
    }
}
