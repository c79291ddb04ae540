//! Shapes of the overlay: box frames, strokes, arrows.

use super::{Look, palette};
use crate::draw::{self, Brush, Canvas, Ink, Point, Raster, path};
use crate::media::ColorInfo;

/// A box's frame: a coloured line on its edge between two thin dark ones.
pub(crate) fn frame(
    canvas: &mut impl Canvas,
    brush: &mut Brush,
    bounds: [i32; 4],
    look: Look,
    color: ColorInfo,
    rgb: [u8; 3],
) {
    let outer = look.outer(bounds);
    let short = (outer[2] - outer[0]).min(outer[3] - outer[1]);
    // Small boxes have sharp corners: round ones would hide what is in them.
    let radius = if short < 12 * look.thickness { 0 } else { 2 * look.thickness };
    let line = look.outline;
    let dark = [outer[0] - line, outer[1] - line, outer[2] + line, outer[3] + line];
    let shade = Ink::new(color, palette::BLACK).with_opacity(0.45);
    let inner =
        [0, 1, 2, 3].map(|side| if side < 2 { outer[side] + look.thickness } else { outer[side] - look.thickness });
    draw::ring(canvas, brush, dark, line, if radius > 0 { radius + line } else { 0 }, shade);
    draw::ring(canvas, brush, inner, line, (radius - look.thickness).max(0), shade);
    draw::ring(canvas, brush, outer, look.thickness, radius, Ink::new(color, rgb));
}

/// A straight line with round ends.
pub(crate) fn stroke(canvas: &mut impl Canvas, raster: &mut Raster, from: Point, to: Point, thickness: f32, ink: Ink) {
    canvas.fill(&path::limb(from, to, [thickness / 2.0; 2]), raster, ink);
}

/// A dot with a dark line around it; one at no place is left out.
pub(crate) fn dot(
    canvas: &mut impl Canvas,
    raster: &mut Raster,
    at: Point,
    look: Look,
    color: ColorInfo,
    rgb: [u8; 3],
) {
    let radius = look.thickness as f32;
    let around = radius + look.outline as f32;
    let shade = Ink::new(color, palette::BLACK).with_opacity(0.6);
    // Polygons of places that are not finite are not painted.
    canvas.fill(&path::ellipse(at, [around; 2]), raster, shade);
    canvas.fill(&path::ellipse(at, [radius; 2]), raster, Ink::new(color, rgb));
}

/// A directed line with a dark line around it.
pub(crate) fn arrow(
    canvas: &mut impl Canvas,
    raster: &mut Raster,
    [from, to]: [Point; 2],
    look: Look,
    color: ColorInfo,
    rgb: [u8; 3],
) {
    let thickness = look.thickness as f32;
    let length = (to[0] - from[0]).hypot(to[1] - from[1]);
    let head = (5.0 * thickness).min(length / 2.0);
    let along = if length > 0.0 { [(to[0] - from[0]) / length, (to[1] - from[1]) / length] } else { [1.0, 0.0] };
    let wing = |side: f32| {
        [to[0] - head * (along[0] - side * 0.7 * along[1]), to[1] - head * (along[1] + side * 0.7 * along[0])]
    };
    let shade = Ink::new(color, palette::BLACK).with_opacity(0.45);
    let around = 2.0 * look.outline as f32;
    for (ink, width) in [(shade, thickness + around), (Ink::new(color, rgb), thickness)] {
        for (start, end) in [(from, to), (wing(1.0), to), (wing(-1.0), to)] {
            stroke(canvas, raster, start, end, width, ink);
        }
    }
}
