use super::{Anchor, Point};

/// Part of a box's mean side by which its anchor has to be beyond a border.
const MARGIN: f32 = 0.05;
/// Bounds of the margin, in heights of the frame: 2 and 10 pixels of 480.
const LEAST_MARGIN: f32 = 0.004;
const MOST_MARGIN: f32 = 0.02;
/// Corners this near to the frame's edge lie on it, as a part of the frame.
const EDGE: f32 = 0.01;
/// Anchors are kept this far inside the frame, so that none lies on its edge.
const INSET: f32 = 0.0001;

/// Where an object is in a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Fractions of the frame's sides.
    center: Point,
    bottom: Point,
    /// In heights of the frame.
    margin: f32,
}

impl Place {
    /// `None` if the box is not finite or the frame has no size.
    pub(super) fn of([x0, y0, x1, y1]: [f32; 4], [width, height]: [u32; 2]) -> Option<Self> {
        let (width, height) = (width as f32, height as f32);
        let (x0, x1) = (x0 / width, x1 / width);
        let (y0, y1) = (y0 / height, y1 / height);
        if ![x0, y0, x1, y1].iter().all(|side| side.is_finite()) {
            return None;
        }
        let inside = |value: f32| value.clamp(INSET, 1.0 - INSET);
        let x = inside(x0 / 2.0 + x1 / 2.0);
        let mean_side = ((x1 - x0).abs() * width / height + (y1 - y0).abs()) / 2.0;
        Some(Self {
            center: [x, inside(y0 / 2.0 + y1 / 2.0)],
            bottom: [x, inside(y0.max(y1))],
            // A side so long that it is infinite has the largest margin.
            margin: (MARGIN * mean_side).clamp(LEAST_MARGIN, MOST_MARGIN),
        })
    }

    /// The point that stands for the object, in heights of the frame.
    pub(super) fn anchor(&self, anchor: Anchor, aspect: f32) -> Point {
        let [x, y] = match anchor {
            Anchor::Center => self.center,
            Anchor::Bottom => self.bottom,
        };
        [x * aspect, y]
    }

    /// How far beyond a border the anchor has to be before it is clearly there, in heights of the frame.
    pub(super) fn margin(&self) -> f32 {
        self.margin
    }
}

/// A polygon in heights of the frame.
#[derive(Debug, Default)]
pub(super) struct Polygon {
    sides: Vec<Side>,
    low: Point,
    high: Point,
}

#[derive(Debug)]
struct Side {
    from: Point,
    to: Point,
    /// Nothing comes over the frame's own edge.
    at_edge: bool,
}

impl Polygon {
    /// From corners in fractions of a frame whose width is `aspect` heights. A polygon that makes no sense contains
    /// nothing.
    pub(super) fn new(corners: &[Point], aspect: f32) -> Self {
        if corners.len() < 3 || !corners.iter().flatten().all(|value| value.is_finite()) {
            return Self::default();
        }
        let mut snapped: Vec<Point> = corners.iter().map(|corner| corner.map(snap)).collect();
        // One so thin that it would collapse stays as it is.
        if area(&snapped) < area(corners) / 2.0 {
            snapped.clear();
            snapped.extend_from_slice(corners);
        }
        let scaled = |[x, y]: Point| [x * aspect, y];
        let mut polygon = Self { sides: Vec::new(), low: [f32::INFINITY; 2], high: [f32::NEG_INFINITY; 2] };
        let mut from = snapped[snapped.len() - 1];
        for &to in &snapped {
            let along = |axis: usize| from[axis] == to[axis] && (to[axis] == 0.0 || to[axis] == 1.0);
            polygon.sides.push(Side { from: scaled(from), to: scaled(to), at_edge: along(0) || along(1) });
            for (axis, value) in scaled(to).into_iter().enumerate() {
                polygon.low[axis] = polygon.low[axis].min(value);
                polygon.high[axis] = polygon.high[axis].max(value);
            }
            from = to;
        }
        polygon
    }

    /// Whether the point is inside, and whether it is so by at least `margin`.
    pub(super) fn position(&self, point: Point, margin: f32) -> (bool, bool) {
        let far = |axis: usize| point[axis] < self.low[axis] - margin || point[axis] > self.high[axis] + margin;
        if self.sides.is_empty() || far(0) || far(1) {
            return (false, true);
        }
        let inside = self.sides.iter().filter(|side| side.is_right_of(point)).count() % 2 == 1;
        let is_near = |side: &Side| !side.at_edge && side.distance_squared(point) < margin * margin;
        (inside, !self.sides.iter().any(is_near))
    }
}

impl Side {
    /// Whether a ray from the point along x meets this side; its upper end does not belong to it.
    fn is_right_of(&self, [x, y]: Point) -> bool {
        let ([x0, y0], [x1, y1]) = (self.from, self.to);
        (y0 > y) != (y1 > y) && x < x0 + (y - y0) / (y1 - y0) * (x1 - x0)
    }

    fn distance_squared(&self, point: Point) -> f32 {
        let (along, to_point) = (minus(self.to, self.from), minus(point, self.from));
        let length = dot(along, along);
        let part = if length > 0.0 { (dot(to_point, along) / length).clamp(0.0, 1.0) } else { 0.0 };
        let apart = minus(to_point, along.map(|value| value * part));
        dot(apart, apart)
    }
}

/// A directed line with two ends, in heights of the frame.
#[derive(Debug)]
pub(super) struct Segment {
    from: Point,
    along: Point,
    length: f32,
}

impl Segment {
    /// From ends in fractions of a frame whose width is `aspect` heights.
    pub(super) fn new([from, to]: [Point; 2], aspect: f32) -> Self {
        let [from, to] = [from, to].map(|[x, y]| [x * aspect, y]);
        let along = minus(to, from);
        Self { from, along, length: along[0].hypot(along[1]) }
    }

    /// Distance of the point from the endless line, positive on the right hand of who looks along it; y is down.
    pub(super) fn offset(&self, point: Point) -> f32 {
        let [x, y] = minus(point, self.from);
        (self.along[0] * y - self.along[1] * x) / self.length
    }

    /// Whether a way between two points on different sides of the endless line goes through this part of it.
    pub(super) fn is_between(&self, start: Point, end: Point) -> bool {
        let (before, after) = (self.offset(start), self.offset(end));
        let way = minus(end, start).map(|value| value * before / (before - after));
        let met = minus([start[0] + way[0], start[1] + way[1]], self.from);
        (0.0..=self.length * self.length).contains(&dot(met, self.along))
    }
}

fn snap(value: f32) -> f32 {
    match value {
        low if low <= EDGE => 0.0,
        high if high >= 1.0 - EDGE => 1.0,
        inner => inner,
    }
}

/// Area of a polygon whose sides do not cross (shoelace formula).
fn area(corners: &[Point]) -> f32 {
    let next = corners.iter().cycle().skip(1);
    corners.iter().zip(next).map(|(a, b)| a[0] * b[1] - a[1] * b[0]).sum::<f32>().abs() / 2.0
}

fn minus(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const L_SHAPE: [Point; 6] = [[0.2, 0.2], [0.8, 0.2], [0.8, 0.5], [0.5, 0.5], [0.5, 0.8], [0.2, 0.8]];

    #[test]
    fn a_point_is_inside_outside_or_too_near_to_tell() {
        let shape = Polygon::new(&L_SHAPE, 1.0);
        for (point, expected) in [
            ([0.3, 0.7], (true, true)),
            ([0.7, 0.7], (false, true)),
            ([0.9, 0.9], (false, true)),
            ([0.49, 0.7], (true, false)),
            ([0.51, 0.7], (false, false)),
            // Near the corner that points inwards.
            ([0.505, 0.505], (false, false)),
            ([0.48, 0.48], (true, true)),
        ] {
            assert_eq!(shape.position(point, 0.02), expected, "{point:?}");
        }
    }

    #[test]
    fn distances_are_the_same_along_both_axes_of_a_wide_frame() {
        let shape = Polygon::new(&L_SHAPE, 2.0);
        assert_eq!(shape.position([2.0 * 0.215, 0.35], 0.02), (true, true));
        assert_eq!(shape.position([2.0 * 0.3, 0.215], 0.02), (true, false));
    }

    #[test]
    fn the_edge_of_the_frame_is_no_border() {
        let floor = Polygon::new(&[[0.004, 0.5], [0.997, 0.5], [1.0, 0.993], [0.0, 1.0]], 1.5);
        let foot = |bbox| Place::of(bbox, [1_500, 1_000]).unwrap().anchor(Anchor::Bottom, 1.5);
        assert_eq!(floor.position(foot([700.0, 100.0, 800.0, 1_000.0]), 0.02), (true, true));
        assert_eq!(floor.position(foot([0.0, 800.0, 0.0, 1_000.0]), 0.02), (true, true));
        assert_eq!(floor.position(foot([700.0, 100.0, 800.0, 510.0]), 0.02), (true, false));
        let frame = Polygon::new(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], 1.5);
        assert_eq!(frame.position(foot([0.0; 4]), 0.02), (true, true));
        let sliver = Polygon::new(&[[0.0, 0.0], [0.005, 0.0], [0.005, 1.0], [0.0, 1.0]], 1.5);
        assert!(sliver.position([0.003, 0.5], 0.02).0);
    }

    #[test]
    fn the_right_hand_is_below_a_line_that_goes_right() {
        let right = Segment::new([[0.2, 0.5], [0.8, 0.5]], 2.0);
        assert!((right.offset([1.0, 0.75]) - 0.25).abs() < 1e-6 && (right.offset([1.0, 0.25]) + 0.25).abs() < 1e-6);
        let up = Segment::new([[0.5, 0.9], [0.5, 0.1]], 2.0);
        assert!(up.offset([1.2, 0.5]) > 0.0 && up.offset([0.8, 0.5]) < 0.0);
    }

    #[test]
    fn a_way_around_the_end_is_not_between() {
        let line = Segment::new([[0.2, 0.5], [0.8, 0.5]], 1.0);
        assert!(line.is_between([0.3, 0.4], [0.3, 0.6]) && line.is_between([0.1, 0.0], [0.4, 0.9]));
        assert!(!line.is_between([0.1, 0.4], [0.1, 0.6]) && !line.is_between([0.9, 0.6], [0.85, 0.4]));
    }

    #[test]
    fn margins_follow_the_box_within_bounds() {
        let margin = |side: f32| Place::of([0.0, 0.0, side, side], [2_000, 1_000]).unwrap().margin();
        assert_eq!((margin(10.0), margin(900.0), margin(f32::MAX)), (LEAST_MARGIN, MOST_MARGIN, MOST_MARGIN));
        assert!((margin(200.0) - 0.01).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn a_bounding_box_changes_nothing(corners in prop::collection::vec([0.0..1.0f32, 0.0..1.0f32], 3..12), point in [-0.2..1.2f32, -0.2..1.2f32]) {
            let polygon = Polygon::new(&corners, 1.0);
            let wide = Polygon { low: [-9.0; 2], high: [9.0; 2], ..Polygon::new(&corners, 1.0) };
            prop_assert_eq!(polygon.position(point, 0.02).0, wide.position(point, 0.02).0);
            // What the box decides is clear; sides at the frame's edge make more of it so.
            prop_assert!(polygon.position(point, 0.02).1 >= wide.position(point, 0.02).1);
        }

        #[test]
        fn any_floats_are_taken(corners in prop::collection::vec([any::<f32>(), any::<f32>()], 0..8), bbox in prop::array::uniform4(any::<f32>()), size in any::<[u32; 2]>()) {
            let polygon = Polygon::new(&corners, size[0] as f32 / size[1] as f32);
            if let Some(place) = Place::of(bbox, size) {
                let [x, y] = place.anchor(Anchor::Bottom, 1.0);
                prop_assert!(x > 0.0 && x < 1.0 && y > 0.0 && y < 1.0);
                polygon.position([x, y], place.margin());
            }
        }
    }
}
