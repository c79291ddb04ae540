//! Painting on planar YCbCr pictures: rectangles, anti-aliased polygons and coverage masks.
//!
//! A leaf: shapes in pixels and colours as codes come in, samples change in place; it imports only `media`, runs on the
//! caller's thread, and knows nothing of detections or scenes. Luma and chroma are covered separately, each to the exact
//! area of its own sample, so that coloured edges stay clean in 4:2:0. Whatever lies outside the picture is clipped.

pub mod path;
mod raster;

use crate::media::{ColorInfo, I420};

pub use raster::Raster;

/// A point, in luma samples from the top left corner of the picture: pixel `(i, j)` covers `i..i+1`, `j..j+1`.
pub type Point = [f32; 2];

/// What to paint with: three codes and how much they hide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink {
    codes: [u8; 3],
    /// 0 (nothing) to 256 (all).
    opacity: u32,
}

impl Ink {
    /// An RGB colour that hides everything, in the codes of `color`.
    #[must_use]
    pub fn new(color: ColorInfo, rgb: [u8; 3]) -> Self {
        Self { codes: color.from_rgb(rgb), opacity: 256 }
    }

    /// The same colour with an opacity of 0 (unseen) to 1 (hides everything).
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..1 first")]
    pub fn with_opacity(self, opacity: f32) -> Self {
        Self { opacity: (opacity.clamp(0.0, 1.0) * 256.0).round() as u32, ..self }
    }
}

/// How much of each pixel of a small picture is covered, 0..255, row by row.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// Columns.
    pub width: usize,
    /// Coverage of `width` columns and any number of rows.
    pub coverage: &'a [u8],
}

/// Paints the pixels `x0..x1 × y0..y1` of `[x0, y0, x1, y1]`.
pub fn rect(picture: &mut I420, [x0, y0, x1, y1]: [i32; 4], ink: Ink) {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let ((x0, x1), (y0, y1)) = (clip(x0, x1, width), clip(y0, y1, height));
    if x0 >= x1 || y0 >= y1 {
        return;
    }
    let [luma_stride, chroma_stride, _] = picture.strides();
    let (chroma_width, chroma_height) = picture.chroma_size();
    let [luma, chroma @ ..] = picture.planes_mut();
    for row in luma.chunks_exact_mut(luma_stride).take(y1).skip(y0) {
        blend(&mut row[x0..x1], ink.codes[0], ink.opacity);
    }
    let [left, right] = [x0 / 2, (x1 - 1) / 2];
    // Luma columns or rows of a chroma sample, and how many of them the rectangle covers.
    let share = |cell: usize, from: usize, to: usize, size: usize| {
        let end = (2 * cell + 2).min(size);
        (end - 2 * cell, end.min(to).saturating_sub(from.max(2 * cell)))
    };
    debug_assert!(right < chroma_width && (y1 - 1) / 2 < chroma_height, "clipped to the picture");
    for (plane, code) in chroma.into_iter().zip([ink.codes[1], ink.codes[2]]) {
        for cell_y in y0 / 2..=(y1 - 1) / 2 {
            let row = &mut plane[cell_y * chroma_stride..][..chroma_width];
            let (tall, covered_tall) = share(cell_y, y0, y1, height);
            let mut part = |cells: std::ops::Range<usize>, wide: usize, covered: usize| {
                let opacity = ink.opacity as usize * covered * covered_tall / (wide * tall);
                blend(&mut row[cells], code, u32::try_from(opacity).unwrap_or(256));
            };
            let (wide, covered) = share(left, x0, x1, width);
            part(left..left + 1, wide, covered);
            if right > left {
                part(left + 1..right, 1, 1);
                let (wide, covered) = share(right, x0, x1, width);
                part(right..right + 1, wide, covered);
            }
        }
    }
}

/// Paints a rectangle `[x0, y0, x1, y1]` whose corners are rounded with `radius`.
pub fn rounded_rect(picture: &mut I420, raster: &mut Raster, [x0, y0, x1, y1]: [i32; 4], radius: i32, ink: Ink) {
    let round = radius.min((x1 - x0) / 2).min((y1 - y0) / 2).max(0);
    rect(picture, [x0 + round, y0, x1 - round, y0 + round], ink);
    rect(picture, [x0, y0 + round, x1, y1 - round], ink);
    rect(picture, [x0 + round, y1 - round, x1 - round, y1], ink);
    corners(picture, raster, [x0, y0, x1, y1], (round, round), ink);
}

/// Paints a frame of the given thickness just inside `[x0, y0, x1, y1]`, its corners rounded with `radius` where it is
/// thicker than the line and there is room.
pub fn ring(
    picture: &mut I420,
    raster: &mut Raster,
    [x0, y0, x1, y1]: [i32; 4],
    thickness: i32,
    radius: i32,
    ink: Ink,
) {
    let short = (x1 - x0).min(y1 - y0);
    if short <= 2 * thickness {
        return rect(picture, [x0, y0, x1, y1], ink);
    }
    let round = radius.min(short / 2);
    let round = if round > thickness { round } else { 0 };
    let sides = round.max(thickness);
    rect(picture, [x0 + round, y0, x1 - round, y0 + thickness], ink);
    rect(picture, [x0 + round, y1 - thickness, x1 - round, y1], ink);
    rect(picture, [x0, y0 + sides, x0 + thickness, y1 - sides], ink);
    rect(picture, [x1 - thickness, y0 + sides, x1, y1 - sides], ink);
    corners(picture, raster, [x0, y0, x1, y1], (round, thickness), ink);
}

/// The four round corners of a frame.
fn corners(
    picture: &mut I420,
    raster: &mut Raster,
    [x0, y0, x1, y1]: [i32; 4],
    (radius, thickness): (i32, i32),
    ink: Ink,
) {
    let Some(width) = usize::try_from(radius).ok().filter(|&width| width > 0) else { return };
    let masks = raster.corners(radius, thickness);
    let places = [(x1 - radius, y1 - radius), (x0, y1 - radius), (x0, y0), (x1 - radius, y0)];
    for (place, coverage) in places.into_iter().zip(masks.chunks_exact(width * width)) {
        stamp(picture, place, Mask { width, coverage }, ink);
    }
}

/// Paints through a mask whose top left corner lies at pixel `(x, y)`.
pub fn stamp(picture: &mut I420, (x, y): (i32, i32), mask: Mask<'_>, ink: Ink) {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let Some(rows) = mask.coverage.len().checked_div(mask.width) else { return };
    let ends = (x.saturating_add_unsigned(saturate(mask.width)), y.saturating_add_unsigned(saturate(rows)));
    let ((x0, x1), (y0, y1)) = (clip(x, ends.0, width), clip(y, ends.1, height));
    if x0 >= x1 || y0 >= y1 {
        return;
    }
    // The mask's row that lies on the picture's, from column `x0` on.
    let (left, top) = (x.min(0).unsigned_abs() as usize, y.min(0).unsigned_abs() as usize);
    let line = |row: usize| &mask.coverage[(row - y0 + top) * mask.width + left..][..x1 - x0];
    let [luma_stride, chroma_stride, _] = picture.strides();
    let [luma, cb, cr] = picture.planes_mut();
    for row in y0..y1 {
        for (sample, &covered) in luma[row * luma_stride + x0..].iter_mut().zip(line(row)) {
            mix(sample, ink.codes[0], u32::from(covered) * ink.opacity / 255);
        }
    }
    for cell_y in y0 / 2..=(y1 - 1) / 2 {
        let lines = [2 * cell_y, 2 * cell_y + 1].map(|row| if (y0..y1).contains(&row) { line(row) } else { &[] });
        let tall = (2 * cell_y + 2).min(height) - 2 * cell_y;
        for cell_x in x0 / 2..=(x1 - 1) / 2 {
            let columns = (2 * cell_x).max(x0) - x0..(2 * cell_x + 2).min(x1) - x0;
            let covered = lines.into_iter().filter_map(|line| line.get(columns.clone())).flatten();
            let sum: u32 = covered.map(|&share| u32::from(share)).sum();
            if sum > 0 {
                let wide = (2 * cell_x + 2).min(width) - 2 * cell_x;
                let opacity = sum * ink.opacity / (255 * saturate(wide * tall));
                let at = cell_y * chroma_stride + cell_x;
                mix(&mut cb[at], ink.codes[1], opacity);
                mix(&mut cr[at], ink.codes[2], opacity);
            }
        }
    }
}

/// Paints the inside of a closed polygon, its edges anti-aliased. Parts that it winds around in opposite directions stay
/// free. A polygon with a coordinate that is not finite is not painted.
pub fn fill(picture: &mut I420, raster: &mut Raster, polygon: &[Point], ink: Ink) {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let (chroma_width, chroma_height) = picture.chroma_size();
    let [luma_stride, chroma_stride, _] = picture.strides();
    let [luma, cb, cr] = picture.planes_mut();
    raster.cover(polygon, 1.0, (width, height), |x, y, coverage| {
        let row = &mut luma[y * luma_stride + x..][..coverage.len()];
        for (sample, &share) in row.iter_mut().zip(coverage) {
            mix(sample, ink.codes[0], opacity(share, ink));
        }
    });
    raster.cover(polygon, 0.5, (chroma_width, chroma_height), |x, y, coverage| {
        let at = y * chroma_stride + x;
        for (plane, code) in [(&mut *cb, ink.codes[1]), (&mut *cr, ink.codes[2])] {
            for (sample, &share) in plane[at..][..coverage.len()].iter_mut().zip(coverage) {
                mix(sample, code, opacity(share, ink));
            }
        }
    });
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 0..1 of 0..256")]
fn opacity(share: f32, ink: Ink) -> u32 {
    (share * ink.opacity as f32 + 0.5) as u32
}

fn clip(from: i32, to: i32, size: usize) -> (usize, usize) {
    let bound = |at: i32| usize::try_from(at).unwrap_or(0).min(size);
    (bound(from), bound(to))
}

fn saturate(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn blend(row: &mut [u8], code: u8, opacity: u32) {
    let opacity = opacity.min(256) as u16;
    let (keep, add) = (256 - opacity, u16::from(code) * opacity + 128);
    for sample in row {
        *sample = ((u16::from(*sample) * keep + add) >> 8) as u8;
    }
}

fn mix(sample: &mut u8, code: u8, opacity: u32) {
    blend(std::slice::from_mut(sample), code, opacity);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32) -> I420 {
        let mut picture = I420::new(width, height);
        picture.planes_mut().into_iter().for_each(|plane| plane.fill(100));
        picture
    }

    fn ink() -> Ink {
        Ink { codes: [200, 40, 220], opacity: 256 }
    }

    #[test]
    fn a_rectangle_covers_its_pixels_and_its_share_of_chroma() {
        let mut picture = grey(8, 6);
        rect(&mut picture, [1, 2, 5, 4], ink());
        let [luma, cb, _] = picture.planes();
        for (at, &sample) in luma.iter().enumerate() {
            let inside = (1..5).contains(&(at % 8)) && (2..4).contains(&(at / 8));
            assert_eq!(sample, if inside { 200 } else { 100 }, "{at}");
        }
        assert_eq!(cb, [100, 100, 100, 100, 70, 40, 70, 100, 100, 100, 100, 100]);
    }

    #[test]
    fn rectangles_and_masks_and_polygons_agree() {
        for (width, height) in [(9, 7), (8, 6), (1, 1), (2, 5)] {
            for corners in [[0, 0, 9, 7], [2, 1, 5, 6], [-3, -2, 4, 9], [8, 6, 12, 12], [3, 3, 3, 5], [20, 0, 22, 3]] {
                let [x0, y0, x1, y1] = corners;
                let (mut by_rect, mut by_mask, mut by_path) =
                    (grey(width, height), grey(width, height), grey(width, height));
                rect(&mut by_rect, corners, ink());
                let mask = vec![255; ((x1 - x0) * (y1 - y0)) as usize];
                stamp(&mut by_mask, (x0, y0), Mask { width: (x1 - x0) as usize, coverage: &mask }, ink());
                assert_eq!(by_rect, by_mask, "{width}x{height} {corners:?}");
                let [x0, y0, x1, y1] = corners.map(|at| at as f32);
                fill(&mut by_path, &mut Raster::default(), &[[x0, y0], [x1, y0], [x1, y1], [x0, y1]], ink());
                assert_eq!(by_rect.planes()[0], by_path.planes()[0], "{width}x{height} {corners:?}");
            }
        }
    }

    #[test]
    fn half_covered_pixels_are_half_mixed() {
        let mut picture = grey(4, 4);
        fill(&mut picture, &mut Raster::default(), &[[0.5, 0.0], [2.0, 0.0], [2.0, 4.0], [0.5, 4.0]], ink());
        assert_eq!(picture.planes()[0][..4], [150, 200, 100, 100]);
        assert_eq!(picture.planes()[1], [55, 100, 55, 100]);
    }

    #[test]
    fn opacity_is_a_share() {
        let mut picture = grey(2, 2);
        rect(&mut picture, [0, 0, 2, 2], ink().with_opacity(0.25));
        assert_eq!(picture.planes().map(|plane| plane[0]), [125, 85, 130]);
    }
}
