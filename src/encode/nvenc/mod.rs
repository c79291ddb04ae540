//! Encoding by NVIDIA GPUs, H.264 alone.
//!
//! What enters: pictures in the GPU's memory, or in the host's. What leaves: one access unit a picture, without delay. One
//! [`Hardware`] is shared by all sessions and bounds what they take of the GPU; each has a [`Nvenc`] of its own, called on
//! one of the codec threads. [`Takeover`] is the [`Encoder`](super::Encoder) for sessions: it encodes in software where the
//! GPU can't, without losing a picture. No function of this module may be called on a Tokio worker: most wait for the GPU.

mod api;
mod capability;
mod config;
mod encoder;
mod hardware;
mod self_test;
mod session;
mod status;
mod takeover;

pub use api::{Api, Entries, Missing, VERSION};
pub use capability::Capability;
pub use encoder::Nvenc;
pub use hardware::{Bounds, Hardware};
pub use self_test::{Mistake, check};
pub use status::{Failure, Status};
pub use takeover::Takeover;

use crate::device;

/// What goes wrong while encoding on a GPU. After any of these, the next picture is a keyframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The GPU has no encoder, or none for H.264.
    #[error("the GPU has no encoder for H264")]
    NoEncoder,
    /// The GPU encodes no pictures of this size.
    #[error("the GPU encodes no H264 of {width}x{height}")]
    Size {
        /// Width as coded, in pixels.
        width: u32,
        /// Height as coded, in pixels.
        height: u32,
    },
    /// The GPU has as many encoders as it may, as its driver allows, or as fit into its memory.
    #[error("the GPU has no room for another encoder")]
    Full,
    /// There are no bytes for a picture.
    #[error("the GPU's encoder gave nothing for a picture")]
    Nothing,
    /// The encoder failed.
    #[error("{0}")]
    Failed(Failure),
    /// The GPU failed.
    #[error(transparent)]
    Device(#[from] device::Error),
}
