//! Decoding by NVIDIA GPUs.
//!
//! What enters: access units, as everywhere. What leaves: [`DeviceFrame`]s, pictures that stay in the GPU's memory, in the
//! order of the units and without delay: what a unit shows comes out of the call that took the unit. One [`Hardware`] is
//! shared by all sessions and bounds what they take of the GPU; each has a [`Nvdec`] of its own, called on one of the codec
//! threads. [`Takeover`] is what sessions decode with: it leaves pictures on the GPU, as [`DevicePicture`]s, and decodes in
//! software where the GPU can't. No function of this module may be called on a Tokio worker: most wait for the GPU.
//!
//! [`DevicePicture`]: crate::frame::DevicePicture

use std::fmt;

use moq_nvenc::sys::cuviddec::cudaVideoCodec;

use crate::{device, media};

mod api;
mod capability;
mod decoder;
mod format;
mod frame;
mod hardware;
mod parser;
mod takeover;

pub use api::Api;
pub use capability::Capability;
pub use decoder::Nvdec;
pub use frame::DeviceFrame;
pub use hardware::{Bounds, Hardware};
pub use takeover::Takeover;

/// A codec that GPUs may decode. Not every GPU decodes each, see [`Hardware::capability`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264, with Annex B start codes.
    H264,
    /// HEVC, with Annex B start codes.
    Hevc,
    /// VP8.
    Vp8,
    /// VP9, profile 0.
    Vp9,
    /// AV1, main profile, as low-overhead bitstream.
    Av1,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::H264, Self::Hevc, Self::Vp8, Self::Vp9, Self::Av1];

    /// The name in logs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "H264",
            Self::Hevc => "HEVC",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
        }
    }

    const fn cuvid(self) -> cudaVideoCodec {
        match self {
            Self::H264 => cudaVideoCodec::cudaVideoCodec_H264,
            Self::Hevc => cudaVideoCodec::cudaVideoCodec_HEVC,
            Self::Vp8 => cudaVideoCodec::cudaVideoCodec_VP8,
            Self::Vp9 => cudaVideoCodec::cudaVideoCodec_VP9,
            Self::Av1 => cudaVideoCodec::cudaVideoCodec_AV1,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<media::Codec> for Codec {
    fn from(codec: media::Codec) -> Self {
        match codec {
            media::Codec::H264 => Self::H264,
            media::Codec::Vp8 => Self::Vp8,
            media::Codec::Vp9 => Self::Vp9,
        }
    }
}

/// What goes wrong while decoding on a GPU. After any of these, nothing can be decoded until a keyframe comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The GPU does not decode the codec.
    #[error("the GPU decodes no {0}")]
    NoDecoder(Codec),
    /// The GPU decodes the codec, but no pictures of this size.
    #[error("the GPU decodes no {codec} of {width}x{height}")]
    Size {
        /// Codec.
        codec: Codec,
        /// Width as coded, in pixels.
        width: u32,
        /// Height as coded, in pixels.
        height: u32,
    },
    /// The stream's pictures exceed the limits.
    #[error("a picture of {width}x{height} exceeds the limits")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The stream has other pictures than those that GPUs decode here.
    #[error(
        "pictures have {bits} bits a sample and chroma format {chroma}, and only 8 bits and format 1 (4:2:0) are decoded"
    )]
    PixelFormat {
        /// Bits a sample.
        bits: u32,
        /// Number of the chroma format (ITU-T H.264, table 6-1).
        chroma: u32,
    },
    /// The stream refers to more pictures than any level of its codec allows.
    #[error("{0} pictures would have to be kept")]
    References(u32),
    /// The unit is no valid bitstream.
    #[error("the unit can't be decoded")]
    Invalid,
    /// The picture came out with errors in it.
    #[error("the picture is damaged")]
    Damaged,
    /// The pictures' size changes to one for which another decoder is needed, between keyframes.
    #[error("a keyframe is needed for the new size")]
    NewSize,
    /// The GPU has as many decoders as it may, or as fit into its memory.
    #[error("the GPU has no room for another decoder")]
    Full,
    /// The GPU failed.
    #[error(transparent)]
    Device(#[from] device::Error),
}
