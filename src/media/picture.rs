use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Clockwise rotation that makes a received picture stand upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rotation {
    /// Upright already.
    #[default]
    None,
    /// A quarter turn clockwise.
    Clockwise90,
    /// Upside down.
    Half,
    /// A quarter turn counter-clockwise.
    Clockwise270,
}

impl Rotation {
    /// From the low two bits of the video orientation header extension (3GPP TS 26.114, section 7.4.5), which count
    /// the quarter turns clockwise that the receiver has to apply.
    #[must_use]
    pub const fn from_cvo(byte: u8) -> Self {
        match byte & 3 {
            0 => Self::None,
            1 => Self::Clockwise90,
            2 => Self::Half,
            _ => Self::Clockwise270,
        }
    }

    /// Width and height after the turn.
    #[must_use]
    pub const fn apply(self, width: u32, height: u32) -> (u32, u32) {
        match self {
            Self::None | Self::Half => (width, height),
            Self::Clockwise90 | Self::Clockwise270 => (height, width),
        }
    }
}

/// A planar YCbCr 4:2:0 picture with 8 bits a sample, in one buffer: Y, then Cb, then Cr, without row padding.
///
/// Chroma planes have `width.div_ceil(2) × height.div_ceil(2)` samples.
#[derive(Clone, PartialEq, Eq)]
pub struct I420 {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl fmt::Debug for I420 {
    /// The size only: samples would flood a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I420({}x{})", self.width, self.height)
    }
}

impl I420 {
    /// A picture of the given size, all samples zero. Both sides must be at least 1.
    #[must_use]
    pub fn new(width: u32, height: u32) -> Self {
        let mut picture = Self { width: 0, height: 0, data: Vec::new() };
        picture.resize(width, height);
        picture
    }

    /// Bytes that a picture of this size takes.
    #[must_use]
    pub const fn byte_len(width: u32, height: u32) -> usize {
        let (w, h) = (width as usize, height as usize);
        w * h + 2 * w.div_ceil(2) * h.div_ceil(2)
    }

    /// Width in luma samples.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Height in luma samples.
    #[must_use]
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// Width and height of the chroma planes.
    #[must_use]
    pub const fn chroma_size(&self) -> (usize, usize) {
        ((self.width as usize).div_ceil(2), (self.height as usize).div_ceil(2))
    }

    /// The planes Y, Cb, Cr; rows follow each other without padding.
    #[must_use]
    pub fn planes(&self) -> [&[u8]; 3] {
        let (chroma_width, chroma_height) = self.chroma_size();
        let (luma, chroma) = self.data.split_at(self.width as usize * self.height as usize);
        let (cb, cr) = chroma.split_at(chroma_width * chroma_height);
        [luma, cb, cr]
    }

    /// The planes Y, Cb, Cr, to write to.
    pub fn planes_mut(&mut self) -> [&mut [u8]; 3] {
        let (chroma_width, chroma_height) = self.chroma_size();
        let (luma, chroma) = self.data.split_at_mut(self.width as usize * self.height as usize);
        let (cb, cr) = chroma.split_at_mut(chroma_width * chroma_height);
        [luma, cb, cr]
    }

    /// Bytes a row in each plane.
    #[must_use]
    pub const fn strides(&self) -> [usize; 3] {
        let (chroma_width, _) = self.chroma_size();
        [self.width as usize, chroma_width, chroma_width]
    }

    /// Width and height of a picture at half the size: sides are rounded down to even lengths, which chroma planes halve
    /// without a rest, and are at least 2.
    #[must_use]
    pub fn half_size(width: u32, height: u32) -> [u32; 2] {
        [width, height].map(|length| ((length / 2) & !1).max(2))
    }

    /// Writes this picture at [`half`](Self::half_size) its width and height into `half`, each sample the mean of four.
    pub fn halve_into(&self, half: &mut Self) {
        let [width, height] = Self::half_size(self.width, self.height);
        half.resize(width, height);
        let (from_strides, to_strides) = (self.strides(), half.strides());
        let planes = self.planes().into_iter().zip(from_strides).zip(half.planes_mut().into_iter().zip(to_strides));
        for ((from, from_stride), (to, to_stride)) in planes {
            halve_plane(from, from_stride, to, to_stride);
        }
    }

    /// Takes over the size and all samples of another picture.
    pub fn copy_from(&mut self, other: &Self) {
        self.resize(other.width, other.height);
        self.data.copy_from_slice(&other.data);
    }

    fn resize(&mut self, width: u32, height: u32) {
        debug_assert!(width > 0 && height > 0, "a picture has at least one sample");
        (self.width, self.height) = (width, height);
        self.data.resize(Self::byte_len(width, height), 0);
    }
}

/// Each sample of `to` becomes the mean of four of `from`; those of a plane with one row or column count twice.
fn halve_plane(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    let rows = from.len() / from_stride;
    for (row, to) in to.chunks_exact_mut(to_stride).enumerate() {
        let line = |row: usize| {
            let start = row.min(rows - 1) * from_stride;
            &from[start..start + from_stride]
        };
        let (upper, lower) = (line(2 * row), line(2 * row + 1));
        if from_stride >= 2 * to_stride {
            for ((to, upper), lower) in to.iter_mut().zip(upper.chunks_exact(2)).zip(lower.chunks_exact(2)) {
                let sum = u16::from(upper[0]) + u16::from(upper[1]) + u16::from(lower[0]) + u16::from(lower[1]);
                *to = ((sum + 2) / 4) as u8;
            }
        } else {
            to.fill(u8::midpoint(upper[0], lower[0]));
        }
    }
}

/// Keeps pictures for reuse, so that a steady stream allocates nothing.
///
/// It holds `capacity` spare pictures at most and hands out any number: it bounds memory kept, not memory used, which
/// the bounded queues between the stages do.
#[derive(Debug)]
pub struct FramePool {
    spare: Mutex<Vec<Arc<I420>>>,
    capacity: usize,
}

impl FramePool {
    /// A pool that keeps `capacity` spare pictures.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { spare: Mutex::new(Vec::with_capacity(capacity)), capacity }
    }

    /// A picture of this size with unspecified samples, which nobody else holds.
    #[must_use]
    pub fn take(&self, width: u32, height: u32) -> Arc<I420> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut picture = spare.unwrap_or_else(|| Arc::new(I420 { width, height, data: Vec::new() }));
        Arc::make_mut(&mut picture).resize(width, height);
        picture
    }

    /// Makes sure that nobody else holds this picture, by a copy into a spare one if need be.
    pub fn make_own(&self, picture: &mut Arc<I420>) {
        if Arc::get_mut(picture).is_none() {
            let mut copy = self.take(picture.width, picture.height);
            Arc::make_mut(&mut copy).copy_from(picture);
            *picture = copy;
        }
    }

    /// Gives a picture back, if nobody else holds it.
    pub fn give(&self, mut picture: Arc<I420>) {
        if Arc::get_mut(&mut picture).is_some() {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < self.capacity {
                spare.push(picture);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sizes_round_chroma_up() {
        let mut picture = I420::new(5, 3);
        assert_eq!(picture.chroma_size(), (3, 2));
        assert_eq!(picture.planes().map(<[u8]>::len), [15, 6, 6]);
        picture.planes_mut()[2].fill(7);
        assert_eq!(picture.planes()[2], [7; 6]);
        assert_eq!(picture.planes()[1], [0; 6]);
    }

    #[test]
    fn half_a_picture_has_the_mean_of_four_samples() {
        let mut picture = I420::new(6, 4);
        for (at, sample) in picture.planes_mut()[0].iter_mut().enumerate() {
            *sample = u8::try_from(10 * (at % 6) + at / 6).unwrap_or(0);
        }
        picture.planes_mut()[1].copy_from_slice(&[10, 20, 30, 50, 60, 70]);
        let mut half = I420::new(1, 1);
        picture.halve_into(&mut half);
        assert_eq!((half.width(), half.height()), (2, 2));
        assert_eq!(half.planes()[0], [6, 26, 8, 28]);
        assert_eq!(half.planes()[1], [35]);
        for (width, height) in [(1, 1), (2, 1), (3, 7), (640, 481)] {
            I420::new(width, height).halve_into(&mut half);
            assert!(half.width().is_multiple_of(2) && half.height().is_multiple_of(2));
        }
    }

    #[test]
    fn a_pool_reuses_what_nobody_holds() {
        let pool = FramePool::new(1);
        let first = pool.take(64, 48);
        let address = first.planes()[0].as_ptr();
        let held = Arc::clone(&first);
        pool.give(first);
        assert_ne!(pool.take(64, 48).planes()[0].as_ptr(), address);
        pool.give(held);
        assert_eq!(pool.take(32, 32).planes()[0].as_ptr(), address);
    }
}
