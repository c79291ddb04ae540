//! From pictures to access units.
//!
//! What enters: upright pictures, the meaning of their codes, and the bitrate to keep to. What leaves: one access unit
//! a picture, without delay. An [`Encoder`] belongs to one session and is called on one of the codec threads; it does
//! no I/O and knows neither network nor packets: its owner drives [`RateControl`] with the transport's estimate and
//! asks for keyframes. [`mod@file`] writes video files and [`picture`] still pictures, for offline use.

use std::sync::Once;

use bytes::Bytes;

use crate::media::{Codec, ColorInfo, I420, MediaTime};

pub mod file;
#[cfg(feature = "cuda")]
pub mod nvenc;
pub mod picture;
pub mod rate;
pub mod software;

mod pace;
mod recolor;

pub use rate::RateControl;

/// Makes access units from pictures.
pub trait Encoder: Send {
    /// Encodes one picture, as a keyframe if `keyframe` says so. A change of size or colour is allowed at any time and
    /// makes a keyframe by itself. `time` has to advance with each picture. `None` when the encoder drops the picture.
    ///
    /// # Errors
    /// Any [`Error`]. The encoder stays usable and continues with a keyframe.
    fn encode(
        &mut self,
        picture: &I420,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
    ) -> Result<Option<Encoded>, Error>;

    /// Sets the bitrate to keep to from the next picture on, in bits a second.
    fn set_bitrate(&mut self, bps: u32);
}

/// A picture's access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The bitstream: H.264 with Annex B start codes, parameter sets in each keyframe; VP8 and VP9 as one frame.
    pub data: Bytes,
    /// Whether it can be decoded on its own.
    pub keyframe: bool,
    /// RTP timestamp of the picture.
    pub time: MediaTime,
    /// What its codes mean. The encoder may have converted them, and not every bitstream can say it.
    pub color: ColorInfo,
}

/// What goes wrong while encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This FFmpeg was built without the encoder.
    #[error("no encoder for {0}")]
    NoEncoder(Codec),
    /// The encoder does not open for this size and bitrate.
    #[error("can't open the encoder for {width}x{height}")]
    Open {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// What FFmpeg says.
        source: ffmpeg_next::Error,
    },
    /// The encoder failed on a picture.
    #[error("the picture can't be encoded")]
    Failed(#[source] ffmpeg_next::Error),
    /// The picture lies on a device that failed.
    #[error("the device failed")]
    Device,
}

/// Keeps FFmpeg from writing to standard error; what matters comes back as an [`Error`], whose text FFmpeg gives.
pub fn init() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Quiet);
        ffmpeg_next::util::error::register_all();
    });
}
