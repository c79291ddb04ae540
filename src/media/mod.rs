//! Value types that stages share: packets, access units, pictures, what models find and the times they carry; and the memory
//! that packets and pictures are made in.
//!
//! A leaf: it imports no other module of this crate, runs on no thread of its own and does no I/O.

mod chunks;
mod color;
mod detection;
mod mask;
mod overall;
mod packet;
mod picture;
mod task;
mod time;

pub use chunks::Chunks;
pub use color::{AnnouncedColor, ColorInfo, ColorMatrix, ColorRange};
pub use detection::{Class, Detection, Keypoint, area, common_area, overlap};
pub use mask::{Mask, Segment};
pub use overall::{Label, Overall, Tensor};
pub use packet::{Codec, EncodedFrame, RtpPacket};
pub use picture::{FramePool, I420, Rotation};
pub use task::Task;
pub use time::MediaTime;
