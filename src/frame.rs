//! One raw picture on its way through a session's stages, in the host's memory or in a GPU's.
//!
//! A leaf: what it knows of is pictures and where they lie, not who makes or takes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "cuda")]
pub use self::device::{DevicePicture, WayDown};
use crate::media::{ColorInfo, FramePool, I420, MediaTime};

#[cfg(feature = "cuda")]
mod device;

/// One raw picture on its way through a session's stages.
///
/// Clones share the picture.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Number of the frame among those of its session that were decoded and let through, from 0.
    pub id: u64,
    /// Upright picture.
    pub picture: Picture,
    /// Meaning of the picture's codes.
    pub color: ColorInfo,
    /// RTP timestamp.
    pub time: MediaTime,
    /// When its last packet came in.
    pub arrival: Instant,
    /// When its result is due: `arrival` and the session's latency budget, less what drawing and encoding take where the
    /// returned picture waits for the result.
    pub deadline: Instant,
    /// How long it waited for missing packets.
    pub reorder_wait: Duration,
    /// Time from the end of the reorder wait until it was decoded, queue included.
    pub decode_time: Duration,
    /// How long it has been worked on since then, without waiting: what decoding took itself.
    pub worked: Duration,
    /// When it was decoded, and so when the wait for the model began.
    pub decoded_at: Instant,
}

/// Where a picture lies. Clones share it, so that a stage which draws does so on a copy: of a picture in the host's memory
/// only while another stage still holds it.
#[derive(Debug, Clone)]
pub enum Picture {
    /// In the host's memory.
    Host(Arc<I420>),
    /// In a GPU's.
    #[cfg(feature = "cuda")]
    Device(Arc<DevicePicture>),
}

/// A GPU's picture could not be brought to the host: the GPU failed, or there was no memory to bring it through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a picture can't be brought to the host: {reason}")]
pub struct NotBrought {
    #[cfg(feature = "cuda")]
    reason: crate::device::Error,
    #[cfg(not(feature = "cuda"))]
    reason: std::convert::Infallible,
}

impl NotBrought {
    /// Whether it was for memory that others use at the moment.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        #[cfg(feature = "cuda")]
        return matches!(self.reason, crate::device::Error::Exhausted(_));
        #[cfg(not(feature = "cuda"))]
        match self.reason {}
    }

    /// What the GPU said.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub const fn reason(&self) -> crate::device::Error {
        self.reason
    }
}

impl Picture {
    /// Width in luma samples.
    #[must_use]
    pub fn width(&self) -> u32 {
        match self {
            Self::Host(picture) => picture.width(),
            #[cfg(feature = "cuda")]
            Self::Device(picture) => picture.surface().width(),
        }
    }

    /// Height in luma samples.
    #[must_use]
    pub fn height(&self) -> u32 {
        match self {
            Self::Host(picture) => picture.height(),
            #[cfg(feature = "cuda")]
            Self::Device(picture) => picture.surface().height(),
        }
    }

    /// The picture in the host's memory. From a GPU's it is brought there once, by a call that waits for that: not to be
    /// made on a Tokio worker.
    ///
    /// # Errors
    /// [`NotBrought`].
    pub fn host(&self, pool: &FramePool) -> Result<Arc<I420>, NotBrought> {
        #[cfg(not(feature = "cuda"))]
        let _ = pool;
        match self {
            Self::Host(picture) => Ok(Arc::clone(picture)),
            #[cfg(feature = "cuda")]
            Self::Device(picture) => picture.host(pool),
        }
    }

    /// Moves the picture into the host's memory, as [`Picture::host`] does.
    ///
    /// # Errors
    /// [`NotBrought`]; it then stays where it is.
    pub fn bring(&mut self, pool: &FramePool) -> Result<&mut Arc<I420>, NotBrought> {
        #[cfg(not(feature = "cuda"))]
        let _ = pool;
        #[cfg(feature = "cuda")]
        if let Self::Device(picture) = self {
            *self = Self::Host(picture.host(pool)?);
        }
        match self {
            Self::Host(picture) => Ok(picture),
            #[cfg(feature = "cuda")]
            Self::Device(_) => unreachable!("it was moved"),
        }
    }

    /// Gives the picture's memory back, unless somebody else holds it.
    pub fn recycle(self, pool: &FramePool) {
        match self {
            Self::Host(picture) => pool.give(picture),
            #[cfg(feature = "cuda")]
            Self::Device(picture) => {
                if let Some(copy) = Arc::into_inner(picture).and_then(DevicePicture::into_copy) {
                    pool.give(copy);
                }
            }
        }
    }
}

impl From<Arc<I420>> for Picture {
    fn from(picture: Arc<I420>) -> Self {
        Self::Host(picture)
    }
}
