use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{AnnouncedColor, MediaTime, Rotation};

/// A video codec that sessions may negotiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264 (RFC 6184), packetization modes 0 and 1.
    H264,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628), profile 0.
    Vp9,
}

impl Codec {
    /// The name in SDP, logs, metrics and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "H264",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::H264, Self::Vp8, Self::Vp9].into_iter().find(|c| c.name().eq_ignore_ascii_case(name)).ok_or(UnknownCodec)
    }
}

/// The name is that of no [`Codec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown codec")]
pub struct UnknownCodec;

/// One received RTP packet of a video track, decrypted, its padding removed.
#[derive(Debug, Clone)]
pub struct RtpPacket {
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub time: MediaTime,
    /// Marker bit: the last packet of an access unit.
    pub marker: bool,
    /// Rotation that the sender announced in this packet (3GPP TS 26.114, coordination of video orientation).
    pub rotation: Option<Rotation>,
    /// Colours that the sender announced in this packet.
    pub color: Option<AnnouncedColor>,
    /// Payload; empty in packets that only pad.
    pub payload: Bytes,
    /// When it came in.
    pub arrival: Instant,
}

/// One compressed picture.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// Codec of `data`.
    pub codec: Codec,
    /// The bitstream: H.264 with Annex B start codes; VP8 and VP9 as one frame or superframe.
    pub data: Bytes,
    /// RTP timestamp.
    pub time: MediaTime,
    /// Whether it can be decoded on its own.
    pub keyframe: bool,
    /// Rotation that is to be undone to stand upright.
    pub rotation: Rotation,
    /// What is said of the picture's colours beside `data`.
    pub color: AnnouncedColor,
    /// When its last packet came in (received frames), or when its source frame's last packet did (sent ones).
    pub arrival: Instant,
    /// How long it waited for missing packets, from `arrival`.
    pub reorder_wait: Duration,
}
