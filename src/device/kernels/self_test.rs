#![expect(unsafe_code, reason = "launches kernels")]

use super::{Halve, Launch as _, Launcher, Picture, Planes, Turn};
use crate::device::{Buffer, Error};
use crate::media::{I420, Rotation};

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
/// turned and halved, and the half split into planes.
#[derive(Debug)]
pub struct SelfTest {
    source: Picture,
    turned: I420,
}

impl SelfTest {
    /// Always the same one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is no state but work")]
    pub fn new() -> Self {
        let picture = noise(75, 51);
        let source = Picture::interleave(&picture, 96, 0xaa);
        Self { source, turned: quarter_turn(&picture) }
    }

    /// What has to lie in the device's memory at the address that [`SelfTest::kernels`] gets first.
    #[must_use]
    pub fn source(&self) -> &[u8] {
        self.source.data()
    }

    /// Bytes that have to be free at the addresses after that.
    #[must_use]
    pub fn space(&self) -> [usize; 3] {
        let [turned, half] = self.pictures();
        let planes = I420::byte_len(half.at(0).width, half.at(0).height);
        [turned.data().len(), half.data().len(), planes]
    }

    /// What has to run, one after the other.
    ///
    /// # Panics
    /// Never: it is a quarter turn.
    #[must_use]
    #[expect(clippy::expect_used, reason = "always the same turn")]
    pub fn kernels(&self, source: u64, [turned, half, planes]: [u64; 3]) -> (Turn, Halve, Planes) {
        let pictures = self.pictures();
        let (turned, half) = (pictures[0].at(turned), pictures[1].at(half));
        let turn = Turn::new(self.source.at(source), turned, Rotation::Clockwise90).expect("a turn");
        (turn, Halve { from: turned, to: half }, Planes { from: half, to: planes })
    }

    /// The turned picture and its half, without samples.
    fn pictures(&self) -> [Picture; 2] {
        let (width, height) = (self.turned.width(), self.turned.height());
        let [half_width, half_height] = I420::half_size(width, height);
        [Picture::new(width, height, 80, 0), Picture::new(half_width, half_height, 64, 0)]
    }

    /// What is then at the last address.
    #[must_use]
    pub fn expected(&self) -> Vec<u8> {
        let mut half = I420::new(1, 1);
        self.turned.halve_into(&mut half);
        half.planes().concat()
    }

    /// Has a GPU do it.
    ///
    /// # Errors
    /// Any [`Unfit`].
    pub fn run(&self, on: &Launcher<'_>) -> Result<(), Unfit> {
        let (gpu, stream) = (on.stream().device(), on.stream());
        let [turned_len, half_len, planes_len] = self.space();
        let mut source = Buffer::new(gpu, self.source().len())?;
        let (turned, half) = (Buffer::new(gpu, turned_len)?, Buffer::new(gpu, half_len)?);
        let planes = Buffer::new(gpu, planes_len)?;
        source.upload(self.source(), stream)?;
        let (turn, halve, split) = self.kernels(source.address(), [turned.address(), half.address(), planes.address()]);
        // SAFETY: all four have the lengths that the kernels need, and nobody else has them.
        unsafe {
            on.launch(&turn)?;
            on.launch(&halve)?;
            on.launch(&split)?;
        }
        let mut found = vec![0; planes_len];
        planes.download(&mut found, stream)?;
        if found == self.expected() { Ok(()) } else { Err(Unfit::Wrong("turning and halving a picture")) }
    }
}

/// A picture turned clockwise by a quarter.
pub(super) fn quarter_turn(picture: &I420) -> I420 {
    let mut turned = I420::new(picture.height(), picture.width());
    let (strides, turned_strides) = (picture.strides(), turned.strides());
    for (n, to) in turned.planes_mut().into_iter().enumerate() {
        let from = picture.planes()[n];
        for (at, sample) in to.iter_mut().enumerate() {
            let (column, row) = (at % turned_strides[n], at / turned_strides[n]);
            *sample = from[(turned_strides[n] - 1 - column) * strides[n] + row];
        }
    }
    turned
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
