//! From access units to pictures.
//!
//! What enters: access units in decoding order, the first a keyframe. What leaves: upright pictures with the meaning of
//! their codes. A [`Decoder`] belongs to one session and is called on one of the codec threads; it does no I/O, keeps
//! no picture back, and never lets a stream make it allocate more than its [`Limits`] allow. [`mod@file`] reads video
//! files and still pictures for offline use.

use std::sync::{Arc, Once};

use crate::frame::Picture;
use crate::media::{Codec, ColorInfo, EncodedFrame, I420};

pub mod file;
#[cfg(feature = "cuda")]
pub mod nvdec;
pub mod software;

mod header;
mod picture;

#[doc(hidden)]
pub use header::size as announced_size;

/// Makes pictures from access units.
pub trait Decoder: Send {
    /// Decodes one unit. `None` when it shows no picture, or when it was skipped because an error made a keyframe
    /// necessary that has not come yet.
    ///
    /// # Errors
    /// Any [`Error`]; the decoder stays usable, and [`Error::needs_keyframe`] says what helps.
    fn decode(&mut self, unit: &EncodedFrame) -> Result<Option<Decoded>, Error>;
}

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Upright picture, which nobody else holds.
    pub picture: Arc<I420>,
    /// Meaning of its codes.
    pub color: ColorInfo,
}

/// A decoded picture, wherever it lies.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Upright picture, which nobody else holds.
    pub picture: Picture,
    /// Meaning of its codes.
    pub color: ColorInfo,
}

impl From<Decoded> for Shown {
    fn from(Decoded { picture, color }: Decoded) -> Self {
        Self { picture: picture.into(), color }
    }
}

/// The largest picture that is decoded, before rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels (1920).
    pub max_width: u32,
    /// Pixels (1920).
    pub max_height: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_width: 1_920, max_height: 1_920 }
    }
}

impl Limits {
    /// # Errors
    /// [`Error::TooLarge`] when either side is too long.
    fn check(self, width: u32, height: u32) -> Result<(), Error> {
        if width > self.max_width || height > self.max_height {
            return Err(Error::TooLarge { width, height });
        }
        Ok(())
    }

    /// What bounds FFmpeg's own allocations: it counts pixels after it rounded the sides up to whole blocks.
    fn max_pixels(self) -> i64 {
        let side = |pixels: u32| i64::from(pixels.div_ceil(64)) * 64;
        side(self.max_width) * side(self.max_height)
    }
}

/// What goes wrong while decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This FFmpeg was built without the codec.
    #[error("no decoder for {0}")]
    NoDecoder(Codec),
    /// The stream's pictures exceed the limits.
    #[error("a picture of {width}x{height} exceeds the limits")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The unit is no valid bitstream.
    #[error("the unit can't be decoded")]
    Invalid(#[source] ffmpeg_next::Error),
    /// The picture came out with errors in it.
    #[error("the picture is damaged")]
    Damaged,
    /// The picture's pixel format can't be converted.
    #[error("unsupported pixel format")]
    PixelFormat,
    /// The device that decoded the stream failed. It goes on in software with the next keyframe.
    #[error("the device failed")]
    Device,
}

impl Error {
    /// Whether nothing can be decoded until a keyframe comes.
    #[must_use]
    pub const fn needs_keyframe(&self) -> bool {
        !matches!(self, Self::NoDecoder(_))
    }
}

/// Keeps FFmpeg from writing to standard error; what matters comes back as an [`Error`], whose text FFmpeg gives.
pub fn init() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Quiet);
        ffmpeg_next::util::error::register_all();
    });
}
