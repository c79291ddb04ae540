#![expect(unsafe_code, reason = "launches kernels")]

use super::{Halve, Kernel, Launch as _, Launcher, Nv12, Turn};
use crate::device::{Error, PitchedNv12};
use crate::media::{I420, Rotation};

/// From surface to surface, in the order of the stream, which waits for who writes the one and who uses the other.
impl Launcher<'_> {
    /// Writes a picture at half its size into one of [`I420::half_size`].
    ///
    /// # Errors
    /// [`Error::Bounds`] for another size; any of the driver.
    pub fn halve(&self, from: &PitchedNv12, to: &mut PitchedNv12) -> Result<(), Error> {
        let size = I420::half_size(from.width(), from.height());
        self.write(from, to, size, |from, to| Some(Halve { from, to }))
    }

    /// Writes a picture, turned, into one of the size that [`Rotation::apply`] gives.
    ///
    /// # Errors
    /// [`Error::Bounds`] for another size, or if there is nothing to turn; any of the driver.
    pub fn turn(&self, from: &PitchedNv12, to: &mut PitchedNv12, rotation: Rotation) -> Result<(), Error> {
        let (width, height) = rotation.apply(from.width(), from.height());
        self.write(from, to, [width, height], |from, to| Turn::new(from, to, rotation))
    }

    fn write<K: Kernel>(
        &self,
        from: &PitchedNv12,
        to: &mut PitchedNv12,
        size: [u32; 2],
        kernel: impl FnOnce(Nv12, Nv12) -> Option<K>,
    ) -> Result<(), Error> {
        let kernel =
            kernel(from.nv12(), to.nv12()).filter(|_| [to.width(), to.height()] == size).ok_or(Error::Bounds)?;
        let stream = self.stream();
        stream.wait_for(from.ready())?;
        to.begin_writing(stream)?;
        // SAFETY: both are surfaces of the sizes that the kernel takes; the stream waits for who writes the one and uses the
        // other, and others wait for it.
        let launched = unsafe { self.launch(&kernel) };
        let written = to.end_writing(stream);
        launched.and(written).and(from.read_by(stream))
    }
}
