use std::sync::{Arc, Mutex, PoisonError};

use super::NotBrought;
use crate::device::{PinnedPool, Stream, Surface};
use crate::media::{FramePool, I420};

/// A picture in a GPU's memory, and its copy in the host's once somebody asked for that.
#[derive(Debug)]
pub struct DevicePicture {
    surface: Arc<Surface>,
    way: Arc<WayDown>,
    copy: Mutex<Option<Arc<I420>>>,
}

/// How pictures of one session come to the host.
#[derive(Debug)]
pub struct WayDown {
    /// Through this memory.
    pub buffers: Arc<PinnedPool>,
    /// On this stream.
    pub stream: Stream,
}

impl DevicePicture {
    /// An upright picture.
    #[must_use]
    pub fn new(surface: Arc<Surface>, way: &Arc<WayDown>) -> Self {
        Self { surface, way: Arc::clone(way), copy: Mutex::default() }
    }

    /// Where it lies.
    #[must_use]
    pub const fn surface(&self) -> &Arc<Surface> {
        &self.surface
    }

    /// Another picture of the same session.
    #[must_use]
    pub fn with(&self, surface: Surface) -> Self {
        Self::new(Arc::new(surface), &self.way)
    }

    /// Whether it was brought to the host.
    #[must_use]
    pub fn is_brought(&self) -> bool {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn host(&self, pool: &FramePool) -> Result<Arc<I420>, NotBrought> {
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = &*copy {
            return Ok(Arc::clone(copy));
        }
        let mut picture = pool.take(self.surface.width(), self.surface.height());
        let WayDown { buffers, stream } = &*self.way;
        match self.surface.download(Arc::make_mut(&mut picture), buffers, stream) {
            Ok(()) => Ok(Arc::clone(copy.insert(picture))),
            Err(reason) => {
                pool.give(picture);
                Err(NotBrought { reason })
            }
        }
    }

    pub(super) fn into_copy(self) -> Option<Arc<I420>> {
        self.copy.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
