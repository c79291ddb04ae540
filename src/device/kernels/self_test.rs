use super::{Halve, Picture, Planes};
use crate::media::I420;

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
        let mut picture = I420::new(75, 51);
        for (plane, factor) in picture.planes_mut().into_iter().zip([73u8, 151, 29]) {
            let mut code = factor;
            plane.iter_mut().for_each(|sample| {
                code = code.wrapping_mul(factor).wrapping_add(factor);
                *sample = code;
            });
        }
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
}
