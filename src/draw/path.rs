//! Outlines of common shapes, as closed polygons.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use super::Point;

/// An ellipse around `center` with the half axes `radii`.
#[must_use]
pub fn ellipse(center: Point, radii: [f32; 2]) -> Vec<Point> {
    arc(center, radii, 0.0, TAU)
}

/// Points on an ellipse between two angles in radians, clockwise from the right.
#[must_use]
pub fn arc([x, y]: Point, [rx, ry]: [f32; 2], from: f32, to: f32) -> Vec<Point> {
    let steps = steps(rx.abs().max(ry.abs()), (to - from).abs());
    let angle = |step: u16| from + (to - from) * f32::from(step) / f32::from(steps);
    (0..=steps).map(|step| [x + rx * angle(step).cos(), y + ry * angle(step).sin()]).collect()
}

/// A rectangle `[x0, y0, x1, y1]` with round corners.
#[must_use]
pub fn rounded([x0, y0, x1, y1]: [f32; 4], radius: f32) -> Vec<Point> {
    let r = radius.min((x1 - x0) / 2.0).min((y1 - y0) / 2.0).max(0.0);
    let corners = [[x1 - r, y1 - r], [x0 + r, y1 - r], [x0 + r, y0 + r], [x1 - r, y0 + r]];
    let turns = [0.0, FRAC_PI_2, PI, PI + FRAC_PI_2];
    corners.into_iter().zip(turns).flat_map(|(corner, turn)| arc(corner, [r, r], turn, turn + FRAC_PI_2)).collect()
}

/// A limb: a line from `from` to `to` with round ends, as thick as the two radii.
#[must_use]
pub fn limb(from: Point, to: Point, radii: [f32; 2]) -> Vec<Point> {
    let turn = (to[1] - from[1]).atan2(to[0] - from[0]);
    let mut outline = arc(to, [radii[1]; 2], turn - FRAC_PI_2, turn + FRAC_PI_2);
    outline.extend(arc(from, [radii[0]; 2], turn + FRAC_PI_2, turn + PI + FRAC_PI_2));
    outline
}

/// Points on an arc so that it strays less than a tenth of a pixel from the circle.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped first")]
fn steps(radius: f32, angle: f32) -> u16 {
    (angle * (radius / 0.8).max(1.0).sqrt()).ceil().clamp(2.0, 400.0) as u16
}
