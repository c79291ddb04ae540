//! A frame's number, written into its picture as light and dark blocks, so that a returned picture says which frame it
//! was.
//!
//! The blocks lie in the lower left corner in one row: twelve bits of the number, the highest first, and four of a
//! checksum. Their side is an eightieth of the width, so that the number survives encoding, drawing elsewhere in the
//! picture, and a smaller size.

use super::Picture;

/// Numbers from 0 to this, exclusive.
pub(crate) const NUMBERS: u32 = 1 << NUMBER_BITS;

const NUMBER_BITS: u32 = 12;
const CHECK_BITS: u32 = 4;
const BITS: u32 = NUMBER_BITS + CHECK_BITS;
const DARK: u8 = 40;
const LIGHT: u8 = 215;
/// A block is read if its luma is this far from the middle at least.
const MARGIN: i32 = 30;

/// Side of a block in pixels, for a picture of this width.
fn side(width: u32) -> f32 {
    f32::from(u16::try_from(width).unwrap_or(u16::MAX)) / 80.0
}

/// What follows the number: never that of a picture all dark or all light.
fn check(number: u32) -> u32 {
    let folded = number ^ (number >> 4) ^ (number >> 8);
    (folded.wrapping_mul(5) ^ 0b1001) & ((1 << CHECK_BITS) - 1)
}

/// Columns and rows of a block, from 0: everything within.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and below the picture's size")]
fn block(index: u32, width: u32, height: u32, inset: f32) -> [usize; 4] {
    let side = side(width);
    let left = side * index as f32;
    let bottom = height as f32;
    [
        (left + side * inset).round() as usize,
        (bottom - side * (1.0 - inset)).max(0.0).round() as usize,
        (left + side * (1.0 - inset)).round() as usize,
        (bottom - side * inset).round() as usize,
    ]
}

/// Writes a number below [`NUMBERS`] into a picture; of a larger one its lower bits.
pub(crate) fn write(picture: &mut Picture, number: u32) {
    let code = (number % NUMBERS) << CHECK_BITS | check(number % NUMBERS);
    let stride = picture.width as usize;
    for index in 0..BITS {
        let light = code >> (BITS - 1 - index) & 1 == 1;
        let [x1, y1, x2, y2] = block(index, picture.width, picture.height, 0.0);
        for row in picture.y.chunks_exact_mut(stride).take(y2).skip(y1) {
            row[x1.min(stride)..x2.min(stride)].fill(if light { LIGHT } else { DARK });
        }
        let chroma = stride.div_ceil(2);
        for plane in [&mut picture.u, &mut picture.v] {
            for row in plane.chunks_exact_mut(chroma).take(y2.div_ceil(2)).skip(y1 / 2) {
                row[(x1 / 2).min(chroma)..x2.div_ceil(2).min(chroma)].fill(128);
            }
        }
    }
}

/// Reads the number of a picture of `width` columns from its luma, whose rows are `stride` bytes apart. `None` where
/// there is none, or it can't be told.
#[must_use]
pub(crate) fn read(luma: &[u8], stride: usize, width: u32, height: u32) -> Option<u32> {
    let mut code = 0;
    for index in 0..BITS {
        let [x1, y1, x2, y2] = block(index, width, height, 0.25);
        let (mut sum, mut count) = (0_i64, 0_i64);
        for y in y1..y2.max(y1 + 1) {
            let row = luma.get(y * stride + x1..y * stride + x2.max(x1 + 1))?;
            sum += row.iter().map(|&value| i64::from(value)).sum::<i64>();
            count += i64::try_from(row.len()).ok()?;
        }
        let from_middle = i32::try_from(sum / count.max(1)).ok()? - i32::from(DARK / 2 + LIGHT / 2);
        if from_middle.abs() < MARGIN {
            return None;
        }
        code = code << 1 | u32::from(from_middle > 0);
    }
    let number = code >> CHECK_BITS;
    (code & ((1 << CHECK_BITS) - 1) == check(number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_back_at_any_size_and_after_shrinking() {
        for (width, height) in [(640, 480), (1280, 720), (322, 240), (161, 121)] {
            for number in [0, 1, 77, 0b1010_1010_1010, NUMBERS - 1] {
                let mut picture = Picture::grey(width, height);
                write(&mut picture, number);
                assert_eq!(read(&picture.y, width as usize, width, height), Some(number), "{width}x{height}");
            }
        }
        let mut picture = Picture::grey(640, 480);
        write(&mut picture, 1234);
        let half: Vec<u8> =
            (0..240).flat_map(|y| (0..320).map(move |x| (x, y))).map(|(x, y)| picture.y[y * 2 * 640 + x * 2]).collect();
        assert_eq!(read(&half, 320, 320, 240), Some(1234));
    }

    #[test]
    fn pictures_without_a_number_have_none() {
        for luma in [0, 16, 40, 128, 215, 255] {
            assert_eq!(read(&vec![luma; 640 * 480], 640, 640, 480), None, "{luma}");
        }
        let mut picture = Picture::grey(640, 480);
        write(&mut picture, 5);
        // One block turned over.
        let [x1, y1, x2, y2] = block(3, 640, 480, 0.0);
        for y in y1..y2 {
            for x in x1..x2 {
                picture.y[y * 640 + x] = 255 - picture.y[y * 640 + x];
            }
        }
        assert_eq!(read(&picture.y, 640, 640, 480), None);
        assert_eq!(read(&[], 640, 640, 480), None);
    }
}
