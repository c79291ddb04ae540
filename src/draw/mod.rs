//! Painting in YCbCr 4:2:0: rectangles, anti-aliased polygons and coverage masks.
//!
//! A leaf: shapes in pixels and colours as codes come in. They go to a [`Canvas`]: a picture, whose samples change in
//! place, or a [`Recording`] of what is to be painted elsewhere. It imports only `media`, runs on the caller's thread, and
//! knows nothing of detections or scenes. Luma and chroma are covered separately, each to the exact area of its own
//! sample, so that coloured edges stay clean in 4:2:0. Whatever lies outside the picture is clipped.

mod atlas;
mod paint;
pub mod path;
mod raster;
mod record;

use crate::media::ColorInfo;

pub use atlas::{Atlas, Mask, Revision};
pub use raster::Raster;
pub use record::{Operation, Recording, Run, Shape};

/// A point, in luma samples from the top left corner of the picture: pixel `(i, j)` covers `i..i+1`, `j..j+1`.
pub type Point = [f32; 2];

/// What to paint with: three codes and how much they hide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink {
    codes: [u8; 3],
    /// 0 (nothing) to 256 (all).
    opacity: u16,
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
        Self { opacity: (opacity.clamp(0.0, 1.0) * 256.0).round() as u16, ..self }
    }

    /// Codes of Y, Cb and Cr.
    #[must_use]
    pub const fn codes(self) -> [u8; 3] {
        self.codes
    }

    /// 0 (unseen) to 256 (hides everything).
    #[must_use]
    pub const fn opacity(self) -> u16 {
        self.opacity
    }

    /// The opacity of a sample of which 0..1 is covered.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 0..1 of 0..256")]
    fn covering(self, share: f32) -> u16 {
        (share * f32::from(self.opacity) + 0.5) as u16
    }
}

/// What is painted on. All shapes are made of three, and whoever takes shapes paints the same samples as any other.
pub trait Canvas {
    /// Width and height in luma samples.
    fn size(&self) -> [u32; 2];

    /// Paints the pixels `x0..x1 × y0..y1` of `[x0, y0, x1, y1]`.
    fn rect(&mut self, bounds: [i32; 4], ink: Ink);

    /// Paints through a mask that `atlas` keeps; its top left corner lies at pixel `(x, y)`.
    fn stamp(&mut self, at: (i32, i32), mask: Mask, atlas: &Atlas, ink: Ink);

    /// Paints the inside of a closed polygon, its edges anti-aliased. Parts that it winds around in opposite directions
    /// stay free. A polygon with a coordinate that is not finite is not painted.
    fn fill(&mut self, polygon: &[Point], raster: &mut Raster, ink: Ink);
}

/// What a painter keeps from shape to shape and from picture to picture.
#[derive(Debug, Default)]
pub struct Brush {
    /// Scratch memory for polygons.
    pub raster: Raster,
    /// Masks that come again and again.
    pub atlas: Atlas,
}

/// Paints a rectangle `[x0, y0, x1, y1]` whose corners are rounded with `radius`.
pub fn rounded_rect(canvas: &mut impl Canvas, brush: &mut Brush, [x0, y0, x1, y1]: [i32; 4], radius: i32, ink: Ink) {
    let round = radius.min((x1 - x0) / 2).min((y1 - y0) / 2).max(0);
    canvas.rect([x0 + round, y0, x1 - round, y0 + round], ink);
    canvas.rect([x0, y0 + round, x1, y1 - round], ink);
    canvas.rect([x0 + round, y1 - round, x1 - round, y1], ink);
    corners(canvas, brush, [x0, y0, x1, y1], (round, round), ink);
}

/// Paints a frame of the given thickness just inside `[x0, y0, x1, y1]`, its corners rounded with `radius` where it is
/// thicker than the line and there is room.
pub fn ring(
    canvas: &mut impl Canvas,
    brush: &mut Brush,
    [x0, y0, x1, y1]: [i32; 4],
    thickness: i32,
    radius: i32,
    ink: Ink,
) {
    let short = (x1 - x0).min(y1 - y0);
    if short <= 2 * thickness {
        return canvas.rect([x0, y0, x1, y1], ink);
    }
    let round = radius.min(short / 2);
    let round = if round > thickness { round } else { 0 };
    let sides = round.max(thickness);
    canvas.rect([x0 + round, y0, x1 - round, y0 + thickness], ink);
    canvas.rect([x0 + round, y1 - thickness, x1 - round, y1], ink);
    canvas.rect([x0, y0 + sides, x0 + thickness, y1 - sides], ink);
    canvas.rect([x1 - thickness, y0 + sides, x1, y1 - sides], ink);
    corners(canvas, brush, [x0, y0, x1, y1], (round, thickness), ink);
}

/// The four round corners of a frame.
fn corners(
    canvas: &mut impl Canvas,
    Brush { raster, atlas }: &mut Brush,
    [x0, y0, x1, y1]: [i32; 4],
    (radius, thickness): (i32, i32),
    ink: Ink,
) {
    let masks = atlas.corners(raster, radius, thickness);
    let places = [(x1 - radius, y1 - radius), (x0, y1 - radius), (x0, y0), (x1 - radius, y0)];
    for (place, mask) in places.into_iter().zip(masks.into_iter().flatten()) {
        canvas.stamp(place, mask, atlas, ink);
    }
}

fn clip(from: i32, to: i32, size: usize) -> (usize, usize) {
    let bound = |at: i32| usize::try_from(at).unwrap_or(0).min(size);
    (bound(from), bound(to))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::media::I420;

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
        picture.rect([1, 2, 5, 4], ink());
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
                by_rect.rect(corners, ink());
                let mut atlas = Atlas::default();
                let mask = atlas.add([(x1 - x0) as u16, (y1 - y0) as u16], |mask| mask.fill(255));
                by_mask.stamp((x0, y0), mask, &atlas, ink());
                assert_eq!(by_rect, by_mask, "{width}x{height} {corners:?}");
                let [x0, y0, x1, y1] = corners.map(|at| at as f32);
                by_path.fill(&[[x0, y0], [x1, y0], [x1, y1], [x0, y1]], &mut Raster::default(), ink());
                assert_eq!(by_rect.planes()[0], by_path.planes()[0], "{width}x{height} {corners:?}");
            }
        }
    }

    #[test]
    fn half_covered_pixels_are_half_mixed() {
        let mut picture = grey(4, 4);
        picture.fill(&[[0.5, 0.0], [2.0, 0.0], [2.0, 4.0], [0.5, 4.0]], &mut Raster::default(), ink());
        assert_eq!(picture.planes()[0][..4], [150, 200, 100, 100]);
        assert_eq!(picture.planes()[1], [55, 100, 55, 100]);
    }

    #[test]
    fn opacity_is_a_share() {
        let mut picture = grey(2, 2);
        picture.rect([0, 0, 2, 2], ink().with_opacity(0.25));
        assert_eq!(picture.planes().map(|plane| plane[0]), [125, 85, 130]);
    }
}
