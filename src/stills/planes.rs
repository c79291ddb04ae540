//! From the samples that decoders give to upright planar 4:2:0.

use std::sync::Arc;

use super::orientation::Orientation;
use crate::media::I420;

/// Fractional bits of the factors below.
const SHIFT: u32 = 16;
const HALF: i32 = 1 << (SHIFT - 1);
/// BT.601: what red, green and blue count in luma and in both chroma codes, in units of 2⁻¹⁶.
const LUMA: [i32; 3] = [19_595, 38_470, 7_471];
const CB: [i32; 3] = [-11_058, -21_710, 32_768];
const CR: [i32; 3] = [32_768, -27_439, -5_329];

/// What the bytes of a pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pixels {
    Gray,
    GrayAlpha,
    Rgb,
    /// What is transparent is white.
    Rgba,
    /// Inks, inverted if so.
    Cmyk {
        inverted: bool,
    },
}

impl Pixels {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk { .. } => 4,
        }
    }

    fn rgb(self, pixel: &[u8]) -> [u8; 3] {
        let over_white = |code: u8, alpha: u8| {
            let sum = u32::from(code) * u32::from(alpha) + 255 * (255 - u32::from(alpha));
            ((sum + 127) / 255) as u8
        };
        match self {
            Self::Gray => [pixel[0]; 3],
            Self::GrayAlpha => [over_white(pixel[0], pixel[1]); 3],
            Self::Rgb => [pixel[0], pixel[1], pixel[2]],
            Self::Rgba => [pixel[0], pixel[1], pixel[2]].map(|code| over_white(code, pixel[3])),
            Self::Cmyk { inverted } => {
                let paper = |ink: u8| u32::from(if inverted { ink } else { 255 - ink });
                let black = paper(pixel[3]);
                [pixel[0], pixel[1], pixel[2]].map(|ink| ((paper(ink) * black + 127) / 255) as u8)
            }
        }
    }
}

/// A picture that is made row by row, from the top.
pub(super) struct Rows {
    picture: I420,
    pixels: Pixels,
    /// Of the row before, if that has an even number: sums of two pixels.
    sums: Vec<[u16; 3]>,
    row: usize,
}

impl Rows {
    pub(super) fn new(width: u32, height: u32, pixels: Pixels) -> Self {
        let sums = vec![[0; 3]; width.div_ceil(2) as usize];
        Self { picture: I420::new(width, height), pixels, sums, row: 0 }
    }

    /// Adds a row, which has a whole number of pixels and not fewer than the picture is wide.
    pub(super) fn push(&mut self, row: &[u8]) {
        let (width, height) = (self.picture.width() as usize, self.picture.height() as usize);
        if self.row >= height {
            return;
        }
        let (luma, _) = (self.row * width, ());
        let [plane, cb, cr] = self.picture.planes_mut();
        let luma = &mut plane[luma..luma + width];
        let is_even = self.row.is_multiple_of(2);
        let pixels = row.chunks_exact(self.pixels.bytes()).take(width);
        if self.pixels == Pixels::Gray {
            luma.copy_from_slice(&row[..width]);
        } else {
            if is_even {
                self.sums.fill([0; 3]);
            }
            for (x, (to, pixel)) in luma.iter_mut().zip(pixels).enumerate() {
                let rgb = self.pixels.rgb(pixel);
                *to = code(LUMA, rgb.map(i32::from), 0);
                let sum = &mut self.sums[x / 2];
                for (sum, value) in sum.iter_mut().zip(rgb) {
                    *sum += u16::from(value);
                }
                // The last pixel of an odd row counts twice.
                if x + 1 == width && width % 2 == 1 {
                    for (sum, value) in sum.iter_mut().zip(rgb) {
                        *sum += u16::from(value);
                    }
                }
            }
        }
        let is_last = self.row + 1 == height;
        if !is_even || is_last {
            let start = self.row / 2 * self.sums.len();
            let (cb, cr) = (&mut cb[start..], &mut cr[start..]);
            if self.pixels == Pixels::Gray {
                cb[..self.sums.len()].fill(128);
                cr[..self.sums.len()].fill(128);
            } else {
                // A last row without a second one counts twice.
                let times = if is_even { 2 } else { 1 };
                for ((sum, cb), cr) in self.sums.iter().zip(cb).zip(cr) {
                    let rgb = sum.map(|sum| i32::from(sum) * times);
                    *cb = chroma(CB, rgb);
                    *cr = chroma(CR, rgb);
                }
            }
        }
        self.row += 1;
    }

    /// The picture, upright.
    pub(super) fn finish(self, orientation: Orientation) -> Arc<I420> {
        Arc::new(if orientation == Orientation::Upright { self.picture } else { turned(&self.picture, orientation) })
    }
}

fn code(factors: [i32; 3], rgb: [i32; 3], zero: i32) -> u8 {
    let sum = factors[0] * rgb[0] + factors[1] * rgb[1] + factors[2] * rgb[2];
    (((sum + HALF) >> SHIFT) + zero).clamp(0, 255) as u8
}

/// Of the sums of four pixels.
fn chroma(factors: [i32; 3], rgb: [i32; 3]) -> u8 {
    let sum = factors[0] * rgb[0] + factors[1] * rgb[1] + factors[2] * rgb[2];
    (((sum + 2 * (1 << SHIFT)) >> (SHIFT + 2)) + 128).clamp(0, 255) as u8
}

fn turned(picture: &I420, orientation: Orientation) -> I420 {
    let [width, height] = orientation.apply(picture.width(), picture.height());
    let mut upright = I420::new(width, height);
    let (strides, heights) = (picture.strides(), [picture.height() as usize, picture.chroma_size().1]);
    for (index, (from, to)) in picture.planes().into_iter().zip(upright.planes_mut()).enumerate() {
        let size = [strides[index], heights[index.min(1)]];
        orientation.copy(from, strides[index], size, to);
    }
    upright
}

/// Planes as a JPEG has them, rows one after the other.
pub(super) struct Planar<'a> {
    pub(super) planes: [&'a [u8]; 3],
    /// Samples a row, and so from row to row.
    pub(super) strides: [usize; 3],
    pub(super) size: [u32; 2],
    /// Luma samples a chroma sample, along each side; none: there is no chroma.
    pub(super) sampling: Option<[usize; 2]>,
}

impl Planar<'_> {
    /// The picture, upright.
    pub(super) fn upright(&self, orientation: Orientation) -> Arc<I420> {
        let [width, height] = self.size;
        let [upright_width, upright_height] = orientation.apply(width, height);
        let mut picture = I420::new(upright_width, upright_height);
        let (width, height) = (width as usize, height as usize);
        let chroma = [width.div_ceil(2), height.div_ceil(2)];
        let [luma, cb, cr] = picture.planes_mut();
        orientation.copy(self.planes[0], self.strides[0], [width, height], luma);
        let mut halved = Vec::new();
        for (at, to) in [(1, cb), (2, cr)] {
            match self.sampling {
                None => to.fill(128),
                Some([2, 2]) => orientation.copy(self.planes[at], self.strides[at], chroma, to),
                Some(sampling) => {
                    halved.resize(chroma[0] * chroma[1], 0);
                    resample(self.planes[at], self.strides[at], [width, height], sampling, &mut halved);
                    orientation.copy(&halved, chroma[0], chroma, to);
                }
            }
        }
        Arc::new(picture)
    }
}

/// Makes chroma of another sampling one sample for each square of four luma samples: the mean of what lies there.
fn resample(from: &[u8], stride: usize, [width, height]: [usize; 2], [across, down]: [usize; 2], to: &mut [u8]) {
    let (columns, rows) = (width.div_ceil(across), height.div_ceil(down));
    let half = width.div_ceil(2);
    for (y, to) in to.chunks_exact_mut(half).enumerate() {
        let line = |luma: usize| {
            let row = (luma / down).min(rows - 1);
            &from[row * stride..][..columns]
        };
        let (upper, lower) = (line(2 * y), line(2 * y + 1));
        // Nearly all pictures have chroma at each pixel or at each second one: loops that compilers know how to widen.
        let done = match across {
            1 => {
                let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
                for (to, (upper, lower)) in to.iter_mut().zip(pairs) {
                    *to = mean([upper[0], upper[1], lower[0], lower[1]]);
                }
                columns / 2
            }
            2 => {
                for (to, (upper, lower)) in to.iter_mut().zip(upper.iter().zip(lower)) {
                    *to = mean([*upper, *upper, *lower, *lower]);
                }
                columns
            }
            _ => 0,
        };
        for (x, to) in to.iter_mut().enumerate().skip(done) {
            let (left, right) = ((2 * x / across).min(columns - 1), ((2 * x + 1) / across).min(columns - 1));
            *to = mean([upper[left], upper[right], lower[left], lower[right]]);
        }
    }
}

fn mean(samples: [u8; 4]) -> u8 {
    let sum: u16 = samples.into_iter().map(u16::from).sum();
    ((sum + 2) / 4) as u8
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::COLOR;
    use super::*;

    fn pixel(picture: &I420, x: usize, y: usize) -> [u8; 3] {
        let ([luma, cb, cr], [stride, half, _]) = (picture.planes(), picture.strides());
        let at = y / 2 * half + x / 2;
        COLOR.to_rgb([luma[y * stride + x], cb[at], cr[at]])
    }

    fn is_near(one: [u8; 3], other: [u8; 3], off: u8) -> bool {
        one.iter().zip(other).all(|(a, b)| a.abs_diff(b) <= off)
    }

    #[test]
    fn plain_colours_come_back_whatever_the_pixels_are() {
        for (pixels, bytes, expected) in [
            (Pixels::Rgb, &[250, 20, 30][..], [250, 20, 30]),
            (Pixels::Rgba, &[250, 20, 30, 255], [250, 20, 30]),
            (Pixels::Rgba, &[250, 20, 30, 0], [255, 255, 255]),
            (Pixels::GrayAlpha, &[10, 128], [132, 132, 132]),
            (Pixels::Gray, &[77], [77, 77, 77]),
            (Pixels::Cmyk { inverted: true }, &[255, 20, 128, 128], [128, 10, 64]),
            (Pixels::Cmyk { inverted: false }, &[0, 255, 0, 0], [255, 0, 255]),
        ] {
            for (width, height) in [(1, 1), (5, 3), (4, 4)] {
                let mut rows = Rows::new(width, height, pixels);
                for _ in 0..height {
                    rows.push(&bytes.repeat(width as usize));
                }
                let picture = rows.finish(Orientation::Upright);
                for (x, y) in [(0, 0), (width as usize - 1, height as usize - 1)] {
                    let back = pixel(&picture, x, y);
                    assert!(is_near(back, expected, 3), "{pixels:?} {width}x{height} at {x}, {y}: {back:?}");
                }
            }
        }
    }

    #[test]
    fn conversions_agree_with_the_definition_of_the_codes() {
        for rgb in [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [12, 200, 99]] {
            let mut rows = Rows::new(2, 2, Pixels::Rgb);
            rows.push(&rgb.repeat(2));
            rows.push(&rgb.repeat(2));
            let picture = rows.finish(Orientation::Upright);
            let [luma, cb, cr] = picture.planes();
            let expected = COLOR.from_rgb(rgb);
            assert!(is_near([luma[0], cb[0], cr[0]], expected, 1), "{rgb:?}: {:?}", [luma[0], cb[0], cr[0]]);
        }
    }

    #[test]
    fn chroma_of_every_sampling_becomes_one_of_four_luma_samples() {
        let luma = vec![90; 9 * 7];
        for sampling in [[1, 1], [2, 1], [1, 2], [4, 1], [1, 4]] {
            let (columns, rows) = (9_usize.div_ceil(sampling[0]), 7_usize.div_ceil(sampling[1]));
            // A ramp, so that a wrong place shows.
            let ramp: Vec<u8> =
                (0..columns * rows).map(|at| u8::try_from(at % columns * 9 * sampling[0]).unwrap()).collect();
            let planar = Planar {
                planes: [&luma, &ramp, &ramp],
                strides: [9, columns, columns],
                size: [9, 7],
                sampling: Some(sampling),
            };
            let picture = planar.upright(Orientation::Upright);
            let [_, cb, cr] = picture.planes();
            assert_eq!(cb, cr);
            for (x, code) in cb[..5].iter().enumerate() {
                assert!(code.abs_diff(u8::try_from(18 * x).unwrap()) <= 19, "{sampling:?}: {cb:?}");
            }
            assert!(cb[..5].is_sorted() && cb[15..20] == cb[..5]);
        }
        // Each is the mean of what four luma samples have.
        let noise: Vec<u8> = (0..63_usize).map(|at| u8::try_from(at * 167 % 251).unwrap()).collect();
        for [across, down] in [[1, 1], [2, 1], [1, 2], [4, 1], [1, 4]] {
            let (columns, rows) = (9_usize.div_ceil(across), 7_usize.div_ceil(down));
            let at =
                |x: usize, y: usize| u32::from(noise[(y / down).min(rows - 1) * 9 + (x / across).min(columns - 1)]);
            let planar = Planar {
                planes: [&luma, &noise, &noise],
                strides: [9; 3],
                size: [9, 7],
                sampling: Some([across, down]),
            };
            let picture = planar.upright(Orientation::Upright);
            for (place, code) in picture.planes()[1].iter().enumerate() {
                let (x, y) = (place % 5 * 2, place / 5 * 2);
                let sum = at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1);
                assert_eq!(u32::from(*code), (sum + 2) / 4, "{across} and {down} at {x}, {y}");
            }
        }
        let gray = Planar { planes: [&luma, &[], &[]], strides: [9, 0, 0], size: [9, 7], sampling: None };
        assert!(gray.upright(Orientation::Clockwise90).planes()[2].iter().all(|code| *code == 128));
    }
}
