use super::Nv12;
use crate::media::I420;

/// A picture in NV12 in the memory of the host, laid out as one on the device: rows of luma, then rows of chroma, each
/// `pitch` bytes after the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    pitch: u32,
    data: Vec<u8>,
}

impl Picture {
    /// Puts Cb and Cr of `picture` side by side. What pads the rows is `filler`.
    ///
    /// # Panics
    /// If `pitch` is less than the width, rounded up to an even number.
    #[must_use]
    pub fn interleave(picture: &I420, pitch: u32, filler: u8) -> Self {
        let mut made = Self::new(picture.width(), picture.height(), pitch, filler);
        let ([width, chroma_width, _], [luma, cb, cr]) = (picture.strides(), picture.planes());
        let (luma_rows, chroma_rows) = made.data.split_at_mut(pitch as usize * picture.height() as usize);
        for (to, from) in luma_rows.chunks_exact_mut(pitch as usize).zip(luma.chunks_exact(width)) {
            to[..width].copy_from_slice(from);
        }
        let rows = cb.chunks_exact(chroma_width).zip(cr.chunks_exact(chroma_width));
        for (to, (cb, cr)) in chroma_rows.chunks_exact_mut(pitch as usize).zip(rows) {
            for (to, (cb, cr)) in to.chunks_exact_mut(2).zip(cb.iter().zip(cr)) {
                to.copy_from_slice(&[*cb, *cr]);
            }
        }
        made
    }

    /// A picture whose bytes are all `filler`.
    ///
    /// # Panics
    /// As [`Picture::interleave`].
    #[must_use]
    pub fn new(width: u32, height: u32, pitch: u32, filler: u8) -> Self {
        assert!(pitch >= width.next_multiple_of(2), "a row of chroma is as wide as luma, rounded up");
        let rows = height as usize + height.div_ceil(2) as usize;
        Self { width, height, pitch, data: vec![filler; rows * pitch as usize] }
    }

    /// Its planes Y, Cb, Cr: what the kernel [`Planes`](super::Planes) gives.
    #[must_use]
    pub fn split(&self) -> I420 {
        let mut split = I420::new(self.width, self.height);
        let [width, chroma_width, _] = split.strides();
        let pitch = self.pitch as usize;
        let (luma_rows, chroma_rows) = self.data.split_at(pitch * self.height as usize);
        let [luma, cb, cr] = split.planes_mut();
        for (to, from) in luma.chunks_exact_mut(width).zip(luma_rows.chunks_exact(pitch)) {
            to.copy_from_slice(&from[..width]);
        }
        let rows = cb.chunks_exact_mut(chroma_width).zip(cr.chunks_exact_mut(chroma_width));
        for ((cb, cr), from) in rows.zip(chroma_rows.chunks_exact(pitch)) {
            for ((cb, cr), from) in cb.iter_mut().zip(cr).zip(from.chunks_exact(2)) {
                (*cb, *cr) = (from[0], from[1]);
            }
        }
        split
    }

    /// All of its bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// All of its bytes, to write to.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// How a kernel finds it where its bytes begin at `address`.
    #[must_use]
    pub const fn at(&self, address: u64) -> Nv12 {
        Nv12 {
            luma: address,
            chroma: address + self.pitch as u64 * self.height as u64,
            luma_pitch: self.pitch,
            chroma_pitch: self.pitch,
            width: self.width,
            height: self.height,
        }
    }
}
