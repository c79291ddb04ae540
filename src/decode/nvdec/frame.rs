use std::sync::Arc;

use crate::device::{Event, PinnedPool, Stream, Surface};
use crate::media::{ColorInfo, FramePool, Rotation};

use super::super::{Decoded, picture};
use super::Error;

/// A decoded picture in a GPU's memory. Clones share it; its memory goes back when the last one is dropped.
///
/// Whoever reads it has its stream wait for [`DeviceFrame::ready`] first, and says [`read_by`] before it drops it.
///
/// [`read_by`]: crate::device::PitchedNv12::read_by
#[derive(Debug, Clone)]
pub struct DeviceFrame {
    /// Where it lies. Its size is that of what is shown.
    pub surface: Arc<Surface>,
    /// Meaning of its codes.
    pub color: ColorInfo,
    /// Rotation that is to be undone to stand upright.
    pub rotation: Rotation,
}

impl DeviceFrame {
    /// Stands for what wrote the picture.
    #[must_use]
    pub fn ready(&self) -> &Event {
        self.surface.ready()
    }

    /// Width and height in the GPU's memory, in pixels.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.surface.width(), self.surface.height())
    }

    /// Brings it to the host, upright, through `host` and in the order of `stream`, and waits for that.
    ///
    /// # Errors
    /// [`Error::Device`], as [`PitchedNv12::download`](crate::device::PitchedNv12::download).
    pub fn download(&self, pool: &FramePool, host: &Arc<PinnedPool>, stream: &Stream) -> Result<Decoded, Error> {
        let mut picture = pool.take(self.surface.width(), self.surface.height());
        match self.surface.download(Arc::make_mut(&mut picture), host, stream) {
            Ok(()) if self.rotation == Rotation::None => Ok(Decoded { picture, color: self.color }),
            Ok(()) => {
                let upright = picture::turned(&picture, self.rotation, pool);
                pool.give(picture);
                Ok(Decoded { picture: upright, color: self.color })
            }
            Err(error) => {
                pool.give(picture);
                Err(Error::Device(error))
            }
        }
    }
}
