//! Still pictures: the bytes of a JPEG, PNG or WebP in, an upright picture out; and back to bytes.
//!
//! **Enters**: bytes of strangers, whose [`Header`] says format and size before memory for pixels is taken.
//! **Leaves**: an [`I420`] that stands upright, perhaps smaller than stored ([`decode`]). **Runs on**: the niced OS
//! threads of [`Decoders`], each wait for which has a deadline and each of whose queues a bound. **Must not**: know models,
//! HTTP or sessions.

#[allow(unsafe_code, reason = "calls libjpeg-turbo")]
mod jpeg;

mod decoders;
mod exif;
mod header;
mod orientation;
mod planes;
mod png;
mod webp;

use std::fmt;
use std::sync::Arc;

pub use decoders::{Config, Decoders, Refused, Room};
pub use header::Header;
pub use jpeg::encode as encode_jpeg;
pub use orientation::Orientation;

use crate::media::{ColorInfo, ColorMatrix, ColorRange, I420};

/// What the codes of all pictures mean: full-range BT.601, which is what JPEG's mean (JFIF 1.02) and what RGB is made.
pub const COLOR: ColorInfo = ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Full };

/// A format of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// ITU-T T.81.
    Jpeg,
    /// W3C's Portable Network Graphics.
    Png,
    /// RFC 9649.
    Webp,
}

impl Kind {
    /// Its name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Webp => "WebP",
        })
    }
}

/// Why a picture cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is of no format that is read.
    #[error("it is neither a JPEG, a PNG nor a WebP")]
    Unknown,
    /// It ends before it is whole.
    #[error("the {kind} is cut off")]
    Truncated {
        /// Its format.
        kind: Kind,
    },
    /// It is no valid picture of its format.
    #[error("the {kind} is damaged: {what}")]
    Broken {
        /// Its format.
        kind: Kind,
        /// What is wrong.
        what: &'static str,
    },
    /// It uses what is not read here.
    #[error("the {kind} cannot be read here: {what}; save it as a baseline JPEG, for example")]
    Unsupported {
        /// Its format.
        kind: Kind,
        /// What it uses.
        what: &'static str,
    },
    /// It would take more memory to decode than its size justifies, or there is none.
    #[error("the {kind} takes too much memory to decode")]
    Memory {
        /// Its format.
        kind: Kind,
    },
}

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Upright, its codes full-range BT.601 ([`COLOR`]).
    pub picture: Arc<I420>,
    /// One over what it was made smaller by: 1, 2, 4 or 8 stored pixels make one of it.
    pub shrunk: u32,
}

/// Decodes a picture whose header was read from the same bytes. Where `least` is given, it may come out smaller, in the
/// smallest scale in which neither of its upright sides is shorter than `least` and that costs less than the whole.
///
/// # Errors
/// [`Error`]; nothing of the picture is used then.
pub fn decode(bytes: &[u8], header: &Header, least: Option<[u32; 2]>) -> Result<Decoded, Error> {
    match header.kind {
        Kind::Jpeg => jpeg::decode(bytes, header, least),
        Kind::Png => png::decode(bytes, header),
        Kind::Webp => webp::decode(bytes, header),
    }
}
