#![expect(unsafe_code, reason = "launches kernels")]

use super::{Halve, Launch as _, Launcher, Picture, Planes};
use crate::device::{Buffer, Error};
use crate::media::I420;

/// Why kernels are of no use on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// They can't be run.
    #[error(transparent)]
    Device(#[from] Error),
    /// They run, and this goes wrong.
    #[error("{0} gives something else than on the CPU")]
    Wrong(&'static str),
}

/// A small computation whose result is known, which shows that a device runs these kernels: a picture of odd sides is
/// halved, and the half split into planes.
#[derive(Debug)]
pub struct SelfTest {
    picture: I420,
    source: Picture,
}

impl SelfTest {
    /// Always the same one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is no state but work")]
    pub fn new() -> Self {
        let picture = noise(75, 51);
        let source = Picture::interleave(&picture, 96, 0xaa);
        Self { picture, source }
    }

    /// What has to lie in the device's memory at the address that [`SelfTest::kernels`] gets first.
    #[must_use]
    pub fn source(&self) -> &[u8] {
        self.source.data()
    }

    /// Bytes that have to be free at the second and at the third address.
    #[must_use]
    pub fn space(&self) -> [usize; 2] {
        let [width, height] = I420::half_size(self.picture.width(), self.picture.height());
        [Picture::new(width, height, 64, 0).data().len(), I420::byte_len(width, height)]
    }

    /// What has to run, one after the other.
    #[must_use]
    pub fn kernels(&self, source: u64, half: u64, planes: u64) -> (Halve, Planes) {
        let [width, height] = I420::half_size(self.picture.width(), self.picture.height());
        let half = Picture::new(width, height, 64, 0).at(half);
        (Halve { from: self.source.at(source), to: half }, Planes { from: half, to: planes })
    }

    /// What is then at the third address.
    #[must_use]
    pub fn expected(&self) -> Vec<u8> {
        let mut half = I420::new(1, 1);
        self.picture.halve_into(&mut half);
        half.planes().concat()
    }

    /// Has a GPU do it.
    ///
    /// # Errors
    /// Any [`Unfit`].
    pub fn run(&self, on: &Launcher<'_>) -> Result<(), Unfit> {
        let (gpu, stream) = (on.stream().device(), on.stream());
        let [half_len, planes_len] = self.space();
        let mut source = Buffer::new(gpu, self.source().len())?;
        let (half, planes) = (Buffer::new(gpu, half_len)?, Buffer::new(gpu, planes_len)?);
        source.upload(self.source(), stream)?;
        let (halve, split) = self.kernels(source.address(), half.address(), planes.address());
        // SAFETY: all three have the lengths that the kernels need, and nobody else has them.
        unsafe { on.launch(&halve).and_then(|()| on.launch(&split)) }?;
        let mut found = vec![0; planes_len];
        planes.download(&mut found, stream)?;
        if found == self.expected() { Ok(()) } else { Err(Unfit::Wrong("halving a picture")) }
    }
}

/// A picture of noise, always the same one.
pub(super) fn noise(width: u32, height: u32) -> I420 {
    let mut picture = I420::new(width, height);
    for (plane, factor) in picture.planes_mut().into_iter().zip([73u8, 151, 29]) {
        let mut code = factor;
        plane.iter_mut().for_each(|sample| {
            code = code.wrapping_mul(factor).wrapping_add(factor);
            *sample = code;
        });
    }
    picture
}
