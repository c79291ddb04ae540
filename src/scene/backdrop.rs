//! The site around the people: sky, buildings, ground, and what stands between the walkers' lanes.

use std::f32::consts::TAU;

use super::sketch::{HEIGHT, Part, Sketch};
use crate::draw::{Raster, path};
use crate::media::{ColorInfo, I420};

/// Where the worker stands on the unfinished building: part of the breadth, and the floor's height.
pub(crate) const WORKER_AT: f32 = 0.545;
pub(crate) const WORKER_FLOOR: f32 = 128.0;

/// Where the ground begins.
const HORIZON: f32 = 214.0;

const STEEL: [u8; 3] = [74, 112, 150];
const CONCRETE: [u8; 3] = [186, 192, 198];
const CONCRETE_SHADE: [u8; 3] = [150, 158, 168];
const OPENING: [u8; 3] = [112, 126, 144];

/// All that neither moves nor hides anyone.
pub(crate) fn still(width: u32, height: u32) -> I420 {
    let mut picture = I420::new(width, height);
    let breadth = HEIGHT * width as f32 / height as f32;
    let mut sketch = Sketch::new(height);
    sky(&mut sketch, breadth);
    skyline(&mut sketch, breadth);
    crane(&mut sketch, breadth);
    building(&mut sketch, breadth);
    ground(&mut sketch, breadth);
    fence(&mut sketch, breadth);
    sketch.paint(&mut picture, &mut Raster::default(), ColorInfo::default());
    picture
}

/// The load on the crane's hook, which travels along the jib and back.
pub(crate) fn crane_load(sketch: &mut Sketch, breadth: f32, time: f32) {
    let x = breadth * (0.30 + 0.07 * (TAU * time).sin());
    let drop = 92.0 + 14.0 * (TAU * time).cos();
    let sway = 3.0 * (3.0 * TAU * time).sin();
    sketch.part = Part::Other;
    sketch.rounded([x - 7.0, 36.0, x + 7.0, 42.0], 2.0, [52, 78, 108]);
    sketch.line([x, 40.0], [x + sway, drop], 1.2, [70, 84, 100]);
    sketch.line([x + sway, drop], [x + sway - 16.0, drop + 12.0], 1.0, [70, 84, 100]);
    sketch.line([x + sway, drop], [x + sway + 16.0, drop + 12.0], 1.0, [70, 84, 100]);
    for row in 0..3_u8 {
        let top = drop + 12.0 + 4.5 * f32::from(row);
        let tone = 128 + 14 * (row % 2);
        sketch.rounded([x + sway - 22.0, top, x + sway + 22.0, top + 4.0], 1.5, [tone, tone + 12, tone + 22]);
    }
}

/// The site cabin that hides the far lane.
pub(crate) fn cabin(sketch: &mut Sketch, breadth: f32) {
    let (left, right, top, floor) = (breadth * 0.70, breadth * 0.70 + 128.0, 146.0, 298.0);
    sketch.shade(path::ellipse([right - 30.0, floor], [100.0, 9.0]), [40, 52, 72], 0.2);
    sketch.rect([left, top, right, floor], [58, 134, 142]);
    for rib in 0..10_u8 {
        let x = left + 8.0 + 12.4 * f32::from(rib);
        sketch.rect([x, top + 9.0, x + 3.0, floor - 8.0], [52, 122, 131]);
    }
    sketch.rect([left - 3.0, top - 6.0, right + 3.0, top + 7.0], [226, 234, 236]);
    sketch.rect([left, floor - 8.0, right, floor], [44, 102, 112]);
    sketch.rounded([left + 14.0, top + 34.0, left + 62.0, top + 78.0], 2.0, [226, 234, 236]);
    sketch.rect([left + 18.0, top + 38.0, left + 58.0, top + 74.0], [150, 192, 214]);
    sketch.polygon(
        vec![
            [left + 18.0, top + 74.0],
            [left + 42.0, top + 38.0],
            [left + 54.0, top + 38.0],
            [left + 30.0, top + 74.0],
        ],
        [184, 214, 228],
    );
    sketch.rounded([left + 78.0, top + 36.0, left + 114.0, floor - 8.0], 2.0, [226, 234, 236]);
    sketch.rect([left + 81.0, top + 39.0, left + 111.0, floor - 8.0], [70, 96, 124]);
    sketch.ellipse([left + 106.0, top + 96.0], [2.0, 2.0], [226, 234, 236]);
}

/// The portable toilet that hides the middle lane.
pub(crate) fn booth(sketch: &mut Sketch, breadth: f32) {
    let (left, right, top, floor) = (breadth * 0.16, breadth * 0.16 + 78.0, 201.0, 388.0);
    sketch.shade(path::ellipse([right - 16.0, floor], [66.0, 8.0]), [40, 52, 72], 0.2);
    sketch.rounded([left, top + 6.0, right, floor], 3.0, [64, 104, 172]);
    sketch.rect([left + 9.0, top + 24.0, right - 9.0, floor - 8.0], [84, 126, 192]);
    sketch.polygon(
        vec![[left - 3.0, top + 12.0], [left + 8.0, top], [right - 8.0, top], [right + 3.0, top + 12.0]],
        [222, 230, 238],
    );
    for slot in 0..3_u8 {
        let y = top + 32.0 + 6.0 * f32::from(slot);
        sketch.rounded([left + 20.0, y, right - 20.0, y + 2.6], 1.0, [48, 80, 138]);
    }
    sketch.rounded([right - 20.0, top + 92.0, right - 14.0, top + 108.0], 2.0, [222, 230, 238]);
    sketch.rect([left + 2.0, floor - 8.0, right - 2.0, floor], [46, 76, 130]);
}

/// Low barriers in the front corner, which hide no head.
pub(crate) fn foreground(sketch: &mut Sketch, breadth: f32) {
    let left = breadth * 0.79;
    for panel in 0..2_u8 {
        let x = left + 84.0 * f32::from(panel);
        sketch.shade(path::ellipse([x + 44.0, 474.0], [50.0, 5.0]), [40, 52, 72], 0.2);
        for foot in [x + 12.0, x + 66.0] {
            sketch.rounded([foot - 3.0, 424.0, foot + 3.0, 474.0], 2.0, [92, 102, 116]);
        }
        for board in [422.0, 445.0] {
            sketch.rounded([x, board, x + 78.0, board + 15.0], 2.5, [238, 242, 244]);
            for stripe in 0..4_u8 {
                let at = x + 6.0 + 19.0 * f32::from(stripe);
                let slant =
                    vec![[at + 5.0, board], [at + 14.0, board], [at + 8.0, board + 15.0], [at - 1.0, board + 15.0]];
                sketch.polygon(slant, [60, 108, 186]);
            }
        }
    }
}

fn sky(sketch: &mut Sketch, breadth: f32) {
    const ROWS: u8 = 74;
    let (top, low) = ([118.0, 176.0, 226.0], [228.0, 240.0, 246.0]);
    for row in 0..ROWS {
        let part = f32::from(row) / f32::from(ROWS - 1);
        let y = 3.0 * f32::from(row);
        // Down to the horizon, so that no seam shows between rows.
        sketch.rect([0.0, y, breadth, HORIZON + 8.0], between(top, low, part));
    }
    for (x, y, size) in [(0.10, 88.0, 0.9), (0.47, 62.0, 0.7), (0.80, 48.0, 1.15)] {
        let x = x * breadth;
        for (dx, dy, rx, ry) in
            [(-34.0, 6.0, 26.0, 10.0), (0.0, 0.0, 34.0, 17.0), (32.0, 5.0, 28.0, 12.0), (4.0, 9.0, 58.0, 9.0)]
        {
            sketch.shade(path::ellipse([x + size * dx, y + size * dy], [size * rx, size * ry]), [250, 252, 254], 0.72);
        }
    }
}

fn skyline(sketch: &mut Sketch, breadth: f32) {
    let heights: [f32; 14] = [62.0, 88.0, 54.0, 104.0, 76.0, 48.0, 92.0, 70.0, 112.0, 58.0, 84.0, 66.0, 96.0, 52.0];
    for (layer, rgb, tall) in [(0.0, [196, 212, 226], 1.0_f32), (0.5, [178, 197, 214], 0.66)] {
        let wide = breadth / 13.0;
        for (index, height) in (0_u8..).zip(heights) {
            let x = (f32::from(index) - layer) * wide;
            let height = if layer > 0.0 { heights[13 - usize::from(index)] } else { height };
            sketch.rect([x, HORIZON - height * tall, x + wide - 5.0 + 8.0 * layer, HORIZON], rgb);
        }
    }
}

fn crane(sketch: &mut Sketch, breadth: f32) {
    let (mast, top) = (breadth * 0.135, 34.0);
    let jib = breadth * 0.44;
    for side in [-7.0, 7.0] {
        sketch.line([mast + side, top + 4.0], [mast + side, HORIZON], 2.4, STEEL);
    }
    let mut y = top + 6.0;
    let mut side = 7.0;
    while y < HORIZON {
        sketch.line([mast - side, y], [mast + side, y + 13.0], 1.6, STEEL);
        y += 13.0;
        side = -side;
    }
    sketch.line([mast - 72.0, top], [jib, top], 2.4, STEEL);
    sketch.line([mast, top - 11.0], [jib - 12.0, top - 9.0], 1.8, STEEL);
    sketch.line([jib - 12.0, top - 9.0], [jib, top], 1.8, STEEL);
    let mut x = mast + 6.0;
    while x < jib - 14.0 {
        sketch.line([x, top], [x + 7.0, top - 10.0], 1.3, STEEL);
        sketch.line([x + 7.0, top - 10.0], [x + 14.0, top], 1.3, STEEL);
        x += 14.0;
    }
    sketch.line([mast, top - 26.0], [mast + 6.0, top], 2.4, STEEL);
    sketch.line([mast, top - 26.0], [mast - 6.0, top], 2.4, STEEL);
    sketch.line([mast, top - 26.0], [jib * 0.8, top - 9.0], 1.0, STEEL);
    sketch.line([mast, top - 26.0], [mast - 66.0, top], 1.0, STEEL);
    sketch.rounded([mast - 74.0, top - 3.0, mast - 46.0, top + 17.0], 2.0, CONCRETE_SHADE);
    sketch.rounded([mast + 6.0, top + 3.0, mast + 25.0, top + 22.0], 3.0, [236, 242, 246]);
    sketch.rounded([mast + 13.0, top + 6.0, mast + 22.0, top + 15.0], 1.5, [128, 172, 206]);
}

fn building(sketch: &mut Sketch, breadth: f32) {
    let (left, right) = (breadth * 0.49, breadth * 0.93);
    sketch.rect([left + 6.0, WORKER_FLOOR, right, HORIZON], OPENING);
    // The finished part, with windows.
    sketch.rect([left + 92.0, 34.0, right, HORIZON], [206, 212, 218]);
    sketch.rect([left + 88.0, 28.0, right + 4.0, 38.0], CONCRETE_SHADE);
    for floor in 0..4_u8 {
        let y = 46.0 + 44.0 * f32::from(floor);
        let mut x = left + 104.0;
        while x + 24.0 < right {
            sketch.rect([x, y, x + 24.0, y + 28.0], [236, 241, 244]);
            sketch.rect([x + 2.0, y + 2.0, x + 22.0, y + 26.0], [126, 164, 192]);
            sketch.polygon(
                vec![[x + 2.0, y + 26.0], [x + 12.0, y + 2.0], [x + 18.0, y + 2.0], [x + 8.0, y + 26.0]],
                [160, 192, 212],
            );
            x += 36.0;
        }
    }
    // The unfinished part: slabs on columns, and steel waiting for the next floor.
    for slab in [WORKER_FLOOR, 172.0] {
        sketch.rect([left, slab, left + 94.0, slab + 8.0], CONCRETE);
        sketch.rect([left, slab + 6.0, left + 94.0, slab + 8.0], CONCRETE_SHADE);
    }
    for column in [4.0, 42.0, 80.0] {
        sketch.rect([left + column, WORKER_FLOOR + 8.0, left + column + 8.0, HORIZON], CONCRETE);
        sketch.rect([left + column + 6.0, WORKER_FLOOR + 8.0, left + column + 8.0, HORIZON], CONCRETE_SHADE);
    }
    for bar in 0..4_u8 {
        let x = left + 74.0 + 4.0 * f32::from(bar);
        sketch.line([x, WORKER_FLOOR], [x, WORKER_FLOOR - 24.0], 1.2, [96, 110, 126]);
    }
    sketch.line([left + 3.0, WORKER_FLOOR], [left + 3.0, WORKER_FLOOR - 26.0], 1.8, STEEL);
}

fn ground(sketch: &mut Sketch, breadth: f32) {
    const ROWS: u8 = 67;
    let (far, near) = ([206.0, 210.0, 202.0], [168.0, 176.0, 166.0]);
    for row in 0..ROWS {
        let part = f32::from(row) / f32::from(ROWS - 1);
        let y = HORIZON + 4.0 * f32::from(row);
        sketch.rect([0.0, y, breadth, HEIGHT], between(far, near, part));
    }
    // Walked and driven tracks.
    for (y, tall, rgb) in
        [(262.0, 13.0, [192, 196, 188]), (350.0, 17.0, [178, 184, 176]), (464.0, 20.0, [158, 166, 158])]
    {
        sketch.shade(path::rounded([-40.0, y, breadth + 40.0, y + tall], 8.0), rgb, 0.8);
    }
    let mut spot = 0.0_f32;
    while spot < 46.0 {
        // Pebbles, spread by the golden ratio; nearer ones are larger.
        let (u, v) = ((spot * 0.618_034).fract(), (spot * 0.754_878).fract());
        let y = HORIZON + 12.0 + v * (HEIGHT - HORIZON - 14.0);
        let size = 1.0 + 2.2 * v;
        sketch.shade(path::ellipse([u * breadth, y], [size * 1.9, size * 0.6]), [134, 144, 138], 0.55);
        spot += 1.0;
    }
    // A stack of pipes and concrete blocks at the fence.
    let stack = breadth * 0.36;
    for (x, y) in [(0.0, 0.0), (15.0, 0.0), (30.0, 0.0), (7.5, -13.0), (22.5, -13.0), (15.0, -26.0)] {
        sketch.ellipse([stack + x, 232.0 + y], [7.4, 7.4], [132, 146, 160]);
        sketch.ellipse([stack + x, 232.0 + y], [4.8, 4.8], [82, 94, 110]);
    }
}

fn fence(sketch: &mut Sketch, breadth: f32) {
    let (top, low) = (190.0, 226.0);
    let mut x = -10.0;
    while x < breadth {
        let clear = (breadth * 0.34..breadth * 0.42).contains(&x);
        if !clear {
            sketch.shade(vec![[x, top], [x + 34.0, top], [x + 34.0, low - 3.0], [x, low - 3.0]], [150, 168, 184], 0.45);
            sketch.line([x, top], [x + 34.0, top], 1.6, [128, 144, 160]);
            sketch.line([x, low - 3.0], [x + 34.0, low - 3.0], 1.6, [128, 144, 160]);
            sketch.line([x, top - 2.0], [x, low], 2.0, [112, 128, 146]);
            sketch.line([x + 34.0, top - 2.0], [x + 34.0, low], 2.0, [112, 128, 146]);
        }
        x += 38.0;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of two codes")]
fn between(from: [f32; 3], to: [f32; 3], part: f32) -> [u8; 3] {
    [0, 1, 2].map(|at| (from[at] + (to[at] - from[at]) * part).round() as u8)
}
