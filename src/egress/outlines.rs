//! Outlines of the segments of a mask, for messages of a bounded size.
//!
//! A boundary is followed along the edges between pixels, with the segment to its right; of pixels that touch at a corner
//! only, each has an outline of its own. The outline leads through the middles of those edges, so that a straight boundary
//! is straight at any slope but for half a pixel's steps, and those are taken out (Douglas and Peucker, 1973). Outer outlines
//! and those of holes are rings alike: the even-odd rule tells them apart.

use crate::media::Mask;

/// Points of all outlines of a frame at most.
pub(super) const MAX_POINTS: usize = 1500;

/// How far an outline may stray from the boundary to begin with, in pixels of the mask; less than what would take a single
/// pixel away.
const TOLERANCE: f32 = 0.49;
/// Times that it is doubled while there are too many points.
const DOUBLINGS: u32 = 4;
/// Points of one boundary that are looked at; of a longer one every second, third or so on.
const MAX_FOLLOWED: usize = 8192;

/// The outlines of one segment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outlines {
    /// Closed rings in pixels of the source frame, those around the largest areas first.
    pub(super) rings: Vec<Vec<[f32; 2]>>,
    /// Those around the smallest areas, left out for want of room.
    pub(super) left_out: u32,
}

/// The outlines of each segment of a mask, of `frame` (width, height) in size, as points in that frame.
pub(super) fn outlines(mask: &Mask, frame: [f32; 2]) -> Vec<Outlines> {
    let mut rings = follow(mask);
    // The order of equal ones is that in which they lie.
    rings.sort_by(|a, b| b.area.total_cmp(&a.area));
    let mut found = vec![Outlines { rings: Vec::new(), left_out: 0 }; mask.segments().len()];
    // A ring has three points at least.
    for ring in rings.drain(rings.len().min(MAX_POINTS / 3)..) {
        found[ring.segment].left_out += 1;
    }
    let mut tolerance = TOLERANCE;
    let mut simple: Vec<Vec<[f32; 2]>> = rings.iter().map(|ring| simplified(&ring.points, tolerance)).collect();
    let points = |simple: &[Vec<[f32; 2]>]| simple.iter().map(Vec::len).sum::<usize>();
    for _ in 0..DOUBLINGS {
        if points(&simple) <= MAX_POINTS {
            break;
        }
        tolerance *= 2.0;
        for (ring, simple) in rings.iter().zip(&mut simple) {
            // One that would be no ring any more stays as it is.
            let simpler = simplified(&ring.points, tolerance);
            if simpler.len() >= 3 {
                *simple = simpler;
            }
        }
    }
    let mut room = MAX_POINTS;
    for (ring, simple) in rings.iter().zip(simple) {
        let found = &mut found[ring.segment];
        if simple.len() < 3 || simple.len() > room {
            found.left_out += 1;
            continue;
        }
        room -= simple.len();
        found.rings.push(simple.into_iter().map(|point| to_source(mask, point, frame)).collect());
    }
    found
}

/// A boundary as it is.
struct Ring {
    /// Which of the mask's segments it is of.
    segment: usize,
    /// Middles of the edges, in pixels of the mask.
    points: Vec<[f32; 2]>,
    /// Inside it.
    area: f32,
}

/// All boundaries of a mask's segments.
fn follow(mask: &Mask) -> Vec<Ring> {
    let [width, height] = mask.size().map(|side| side as usize);
    let mut segment_of = [None; Mask::NONE as usize + 1];
    for (place, segment) in mask.segments().iter().enumerate() {
        segment_of[usize::from(segment.index)] = Some(place);
    }
    // Edges above pixels that a boundary was followed along.
    let mut seen = vec![false; width * height];
    let is = |x: i64, y: i64, index: u8| {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return false };
        mask.row(y).get(x) == Some(&index)
    };
    let mut rings = Vec::new();
    for y in 0..height {
        let (row, above) = (mask.row(y), y.checked_sub(1).map_or(&[][..], |above| mask.row(above)));
        for x in 0..width {
            let index = row[x];
            let Some(segment) = segment_of[usize::from(index)] else { continue };
            if above.get(x) == Some(&index) || seen[y * width + x] {
                continue;
            }
            #[expect(clippy::cast_possible_wrap, reason = "sides of a mask are 32 bits")]
            let start = ([x as i64, y as i64], 0);
            let (mut points, mut at, mut direction) = (Vec::new(), start.0, start.1);
            let mut area = 0.0f64;
            loop {
                let [dx, dy] = STEPS[direction];
                if direction == 0 {
                    // The pixel below is inside, so that it is in the mask.
                    let (Ok(x), Ok(y)) = (usize::try_from(at[0]), usize::try_from(at[1])) else { break };
                    seen[y * width + x] = true;
                }
                points.push([at[0] as f32 + dx as f32 / 2.0, at[1] as f32 + dy as f32 / 2.0]);
                area -= (at[1] * dx) as f64;
                at = [at[0] + dx, at[1] + dy];
                // The pixels ahead, on the left and on the right.
                let (left, right) = AHEAD[direction];
                let (left, right) =
                    (is(at[0] + left[0], at[1] + left[1], index), is(at[0] + right[0], at[1] + right[1], index));
                direction = match (left, right) {
                    (_, false) => (direction + 1) % 4,
                    (false, true) => direction,
                    (true, true) => (direction + 3) % 4,
                };
                if (at, direction) == start {
                    break;
                }
            }
            let step = points.len().div_ceil(MAX_FOLLOWED);
            let points = points.into_iter().step_by(step.max(1)).collect();
            rings.push(Ring { segment, points, area: area.abs() as f32 });
        }
    }
    rings
}

/// Right, down, left, up.
const STEPS: [[i64; 2]; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];

/// For each direction the pixels ahead of a corner, on its left and on its right, from the corner.
const AHEAD: [([i64; 2], [i64; 2]); 4] =
    [([0, -1], [0, 0]), ([0, 0], [-1, 0]), ([-1, 0], [-1, -1]), ([-1, -1], [0, -1])];

/// A closed ring without the points that lie within `tolerance` of the line between those around them.
fn simplified(points: &[[f32; 2]], tolerance: f32) -> Vec<[f32; 2]> {
    let distance = |a: [f32; 2], b: [f32; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let Some(&first) = points.first() else { return Vec::new() };
    // The ring is two chains, from its first point to the farthest from it and back.
    let farthest = (0..points.len()).max_by(|a, b| distance(points[*a], first).total_cmp(&distance(points[*b], first)));
    let farthest = farthest.unwrap_or(0);
    let mut kept = vec![false; points.len() + 1];
    (kept[0], kept[farthest]) = (true, true);
    let at = |index: usize| points[index % points.len()];
    let mut chains = vec![(0, farthest), (farthest, points.len())];
    while let Some((from, to)) = chains.pop() {
        let (start, end) = (at(from), at(to));
        let length = distance(start, end);
        let off = |index: usize| {
            let point = at(index);
            if length == 0.0 {
                return distance(point, start);
            }
            ((end[0] - start[0]) * (start[1] - point[1]) - (start[0] - point[0]) * (end[1] - start[1])).abs() / length
        };
        let worst = (from + 1..to).map(|index| (index, off(index))).max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((index, off)) = worst.filter(|(_, off)| *off > tolerance) {
            debug_assert!(off.is_finite(), "places in a mask");
            kept[index] = true;
            chains.extend([(from, index), (index, to)]);
        }
    }
    points.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(point, _)| *point).collect()
}

fn to_source(mask: &Mask, [x, y]: [f32; 2], frame: [f32; 2]) -> [f32; 2] {
    let ([x1, y1, x2, y2], [width, height]) = (mask.corners(), mask.size().map(|side| side.max(1) as f32));
    [(x1 + (x2 - x1) * x / width).clamp(0.0, frame[0]), (y1 + (y2 - y1) * y / height).clamp(0.0, frame[1])]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::Class;

    /// A mask that covers its frame pixel by pixel.
    fn mask(width: usize, map: &[u8]) -> (Mask, [f32; 2]) {
        let frame = [width as f32, (map.len() / width) as f32];
        let class = |index: u8| (index < 200).then(|| Class { id: index.into(), name: index.to_string().into() });
        let size = [width as u32, (map.len() / width) as u32];
        (Mask::new(size, map.to_vec(), [0.0, 0.0, frame[0], frame[1]], frame, class), frame)
    }

    /// Whether a point lies inside by the even-odd rule.
    fn inside(rings: &[Vec<[f32; 2]>], [x, y]: [f32; 2]) -> bool {
        let crossings = rings.iter().flat_map(|ring| {
            let next = ring.iter().cycle().skip(1);
            ring.iter()
                .zip(next)
                .filter(move |(a, b)| (a[1] > y) != (b[1] > y) && x < (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]) + a[0])
        });
        crossings.count() % 2 == 1
    }

    const N: u8 = Mask::NONE;

    #[test]
    fn a_pixel_is_a_diamond_and_a_hole_is_a_ring_of_its_own() {
        let (single, frame) = mask(3, &[N, N, N, N, 4, N, N, N, N]);
        let found = outlines(&single, frame);
        assert_eq!(found[0].rings, [[[1.5, 1.0], [2.0, 1.5], [1.5, 2.0], [1.0, 1.5]]]);
        let (hole, frame) = mask(3, &[0, 0, 0, 0, N, 0, 0, 0, 0]);
        let found = outlines(&hole, frame);
        assert_eq!((found.len(), found[0].rings.len(), found[0].left_out), (1, 2, 0));
        assert!(!inside(&found[0].rings, [1.5, 1.5]) && inside(&found[0].rings, [0.5, 1.5]));
    }

    #[test]
    fn pixels_that_touch_at_a_corner_have_an_outline_each() {
        let (diagonal, frame) = mask(2, &[0, 1, 1, 0]);
        let found = outlines(&diagonal, frame);
        assert_eq!(found.iter().map(|one| one.rings.len()).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_slope_has_as_many_points_as_steps_of_a_pixel() {
        // Below the diagonal, and below a line that falls by one in five, whose steps are a pixel high: of each two points stay.
        for (slope, most) in [(1usize, 9), (5, 28)] {
            let map: Vec<u8> = (0..50 * 50).map(|at| if at / 50 * slope >= at % 50 { 3 } else { N }).collect();
            let (mask, frame) = mask(50, &map);
            let found = outlines(&mask, frame);
            assert!(found[0].rings[0].len() <= most, "{:?}", found[0].rings[0]);
        }
    }

    #[test]
    fn there_are_never_too_many_points() {
        // A chess board has a ring for each field; stripes have few, but long ones.
        let chess: Vec<u8> = (0..100 * 100).map(|at| if (at / 100 + at % 100) % 2 == 0 { 0 } else { N }).collect();
        let (board, frame) = mask(100, &chess);
        let found = outlines(&board, frame);
        assert_eq!((found[0].rings.len(), found[0].left_out), (MAX_POINTS / 4, 5000 - MAX_POINTS as u32 / 4));
        // A comb of 300 teeth, each a pixel wide.
        let comb: Vec<u8> = (0..600 * 40).map(|at| if at % 2 == 0 || at >= 600 * 39 { 0 } else { N }).collect();
        let (comb, frame) = mask(600, &comb);
        let found = outlines(&comb, frame);
        let points: usize = found[0].rings.iter().map(Vec::len).sum();
        assert!(points <= MAX_POINTS && found[0].rings.len() + found[0].left_out as usize == 1, "{points}");
    }

    #[test]
    fn points_lie_in_the_frame_that_the_mask_is_larger_than() {
        let class = |index: u8| Some(Class { id: index.into(), name: "x".into() });
        let mask = Mask::new([2, 2], vec![0; 4], [-5.0, 0.0, 105.0, 60.0], [100.0, 50.0], class);
        let found = outlines(&mask, [100.0, 50.0]);
        let inside = |point: &[f32; 2]| (0.0..=100.0).contains(&point[0]) && (0.0..=50.0).contains(&point[1]);
        assert!(found[0].rings[0].iter().all(inside), "{found:?}");
    }

    proptest! {
        #[test]
        fn the_middle_of_each_pixel_is_on_its_side(
            width in 1usize..14, map in prop::collection::vec(prop::sample::select(vec![0u8, 0, 1, N]), 14 * 14),
        ) {
            let map = &map[..width * 14];
            let (mask, _) = mask(width, map);
            let mut rings = vec![Vec::new(); mask.segments().len()];
            for ring in follow(&mask) {
                rings[ring.segment].push(ring.points);
            }
            for (segment, rings) in mask.segments().iter().zip(&rings) {
                for (at, index) in map.iter().enumerate() {
                    let centre = [(at % width) as f32 + 0.5, (at / width) as f32 + 0.5];
                    prop_assert_eq!(inside(rings, centre), *index == segment.index, "{:?}", centre);
                }
            }
        }
    }
}
