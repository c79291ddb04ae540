//! What is sent: a clip, encoded once, with its frames numbered.

mod cache;
mod encode;
mod mark;
mod read_back;

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) use read_back::Reader;

/// Frames of a clip at most; a longer video is cut.
pub const MAX_FRAMES: usize = 900;
/// Largest width and height of a clip in pixels.
pub const MAX_SIDE: u32 = 4096;

/// What a clip can be encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// H.264, constrained baseline.
    H264,
    /// VP8.
    Vp8,
}

impl Codec {
    /// Whether decoding can begin with this access unit: H.264 in Annex B form with a parameter set or an IDR slice
    /// (ITU-T H.264, table 7-1), or a VP8 key frame (RFC 6386, section 9.1).
    pub(crate) fn is_keyframe(self, unit: &[u8]) -> bool {
        match self {
            Self::H264 => unit.windows(4).any(|bytes| bytes[..3] == [0, 0, 1] && matches!(bytes[3] & 0x1f, 5 | 7)),
            Self::Vp8 => unit.first().is_some_and(|byte| byte & 1 == 0),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H264 => "h264",
            Self::Vp8 => "vp8",
        })
    }
}

impl std::str::FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "h264" => Ok(Self::H264),
            "vp8" => Ok(Self::Vp8),
            _ => Err("known are h264 and vp8".to_owned()),
        }
    }
}

/// A picture of 8-bit YUV with chroma of half the width and height, rows without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Luma: `width` × `height` codes.
    pub y: Vec<u8>,
    /// First chroma plane, sides halved and rounded up.
    pub u: Vec<u8>,
    /// Second chroma plane.
    pub v: Vec<u8>,
}

impl Picture {
    /// All of one grey.
    #[must_use]
    pub fn grey(width: u32, height: u32) -> Self {
        let (luma, chroma) = ((width * height) as usize, (width.div_ceil(2) * height.div_ceil(2)) as usize);
        Self { width, height, y: vec![128; luma], u: vec![128; chroma], v: vec![128; chroma] }
    }
}

/// The true place of one object in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Corners `[x1, y1, x2, y2]` in pixels.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// Index of the class in the model.
    pub class_id: u32,
    /// An object that may be found or not, such as one that is mostly hidden: neither counts.
    pub optional: bool,
}

/// Pictures to make a clip of.
pub struct Footage {
    /// Says what it is, for the cache: footage of the same identity has the same pictures.
    pub identity: String,
    /// Width and height of every picture in pixels.
    pub size: (u32, u32),
    /// The pictures, in order, or what keeps them from being read; [`MAX_FRAMES`] of them at most are taken.
    pub pictures: Box<dyn Iterator<Item = Result<Picture, String>>>,
    /// What is to be seen in each picture, where that is known: as long as `pictures`, or empty.
    pub truth: Vec<Vec<Object>>,
}

impl fmt::Debug for Footage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Footage").field("identity", &self.identity).field("size", &self.size).finish_non_exhaustive()
    }
}

/// How footage is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// As what.
    pub codec: Codec,
    /// Pictures a second.
    pub fps: u32,
    /// Bits a second.
    pub bitrate_bps: u32,
    /// Width and height in pixels; the footage is scaled to it.
    pub size: (u32, u32),
}

/// One encoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// An access unit: H.264 in Annex B form, or a VP8 frame.
    pub data: Bytes,
    /// Whether decoding can begin here.
    pub keyframe: bool,
}

/// An encoded clip; frame n carries the number n as a block code ([`mark`]). It begins with a keyframe, and one comes
/// each second.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// How it is encoded.
    pub encoding: Encoding,
    /// One after the other.
    pub frames: Vec<Frame>,
    /// What is to be seen in each frame; empty where that is not known.
    pub truth: Vec<Vec<Object>>,
}

impl Clip {
    /// Encodes footage, or takes what an earlier run has left in `cache`.
    ///
    /// # Errors
    /// [`ClipError`]; an unwritable cache is none.
    pub fn make(footage: Footage, encoding: Encoding, cache: Option<&Path>) -> Result<Self, ClipError> {
        let place = cache.map(|folder| folder.join(cache::name(&footage, encoding)));
        let frames = if let Some(frames) = place.as_deref().and_then(cache::load) {
            frames
        } else {
            let frames = encode::encode(footage.pictures, encoding)?;
            if let Some(place) = place {
                // The next run encodes it again, which is all that is lost.
                let _ = cache::store(&place, &frames, encoding);
            }
            frames
        };
        let truth = scaled(footage.truth, footage.size, encoding.size);
        Ok(Self { encoding, frames, truth })
    }

    /// The first keyframe at or behind frame `from`, going on from the beginning.
    #[must_use]
    pub fn keyframe_from(&self, from: usize) -> usize {
        (from..self.frames.len()).find(|&n| self.frames[n].keyframe).unwrap_or(0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "sides of pictures")]
fn scaled(mut truth: Vec<Vec<Object>>, from: (u32, u32), to: (u32, u32)) -> Vec<Vec<Object>> {
    let (across, down) = (to.0 as f32 / from.0 as f32, to.1 as f32 / from.1 as f32);
    for object in truth.iter_mut().flatten() {
        let [x1, y1, x2, y2] = object.bbox;
        object.bbox = [x1 * across, y1 * down, x2 * across, y2 * down];
    }
    truth
}

/// Why there is no clip.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// The footage can't be read to its end.
    #[error("the clip can't be read: {0}")]
    Unreadable(String),
    /// No picture came.
    #[error("the clip has no picture")]
    Empty,
    /// A size that can't be encoded.
    #[error("a clip of {width}x{height} can't be encoded: sides are even and from 64 to {MAX_SIDE} pixels")]
    Size {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// The encoder failed.
    #[error("encoding the clip as {codec} failed: {reason}")]
    Encode {
        /// As what.
        codec: Codec,
        /// What FFmpeg says.
        reason: String,
    },
}
