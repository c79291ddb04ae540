//! Shapes in the order they are painted, in design units, for pictures and truth alike.

use crate::draw::{Canvas as _, Ink, Point, Raster, path};
use crate::media::{ColorInfo, I420};

/// Design units from top to bottom of a picture.
pub(crate) const HEIGHT: f32 = 480.0;

/// What a shape is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The head of a person.
    Head(usize),
    /// Anything else, which hides heads behind it.
    Other,
    /// Shade, which hides nothing.
    Shade,
}

/// A list of shapes.
#[derive(Debug)]
pub(crate) struct Sketch {
    scale: f32,
    shapes: Vec<Shape>,
    /// What the next shapes are part of.
    pub(crate) part: Part,
}

#[derive(Debug)]
struct Shape {
    /// In pixels.
    outline: Vec<Point>,
    rgb: [u8; 3],
    opacity: f32,
    part: Part,
}

/// A head that shows, at least in part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VisibleHead {
    pub(crate) person: usize,
    pub(crate) bbox: [f32; 4],
    /// Area of `bbox` over that of the whole head's box, 0..1.
    pub(crate) share: f32,
}

impl Sketch {
    /// Nothing yet, for pictures of this height.
    pub(crate) fn new(height: u32) -> Self {
        Self { scale: height as f32 / HEIGHT, shapes: Vec::new(), part: Part::Other }
    }

    /// A polygon in design units.
    pub(crate) fn polygon(&mut self, mut outline: Vec<Point>, rgb: [u8; 3]) {
        outline.iter_mut().flatten().for_each(|value| *value *= self.scale);
        self.shapes.push(Shape { outline, rgb, opacity: 1.0, part: self.part });
    }

    /// A translucent polygon, which hides nothing.
    pub(crate) fn shade(&mut self, outline: Vec<Point>, rgb: [u8; 3], opacity: f32) {
        self.polygon(outline, rgb);
        if let Some(shape) = self.shapes.last_mut() {
            (shape.opacity, shape.part) = (opacity, Part::Shade);
        }
    }

    /// An upright rectangle.
    pub(crate) fn rect(&mut self, [x0, y0, x1, y1]: [f32; 4], rgb: [u8; 3]) {
        self.polygon(vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]], rgb);
    }

    /// A rectangle with round corners.
    pub(crate) fn rounded(&mut self, bounds: [f32; 4], radius: f32, rgb: [u8; 3]) {
        self.polygon(path::rounded(bounds, radius), rgb);
    }

    /// An ellipse.
    pub(crate) fn ellipse(&mut self, center: Point, radii: [f32; 2], rgb: [u8; 3]) {
        self.polygon(path::ellipse(center, radii), rgb);
    }

    /// A line with round ends.
    pub(crate) fn line(&mut self, from: Point, to: Point, thickness: f32, rgb: [u8; 3]) {
        self.polygon(path::limb(from, to, [thickness / 2.0; 2]), rgb);
    }

    /// Paints all shapes.
    pub(crate) fn paint(&self, picture: &mut I420, raster: &mut Raster, color: ColorInfo) {
        for shape in &self.shapes {
            picture.fill(&shape.outline, raster, Ink::new(color, shape.rgb).with_opacity(shape.opacity));
        }
    }

    /// What shows of each head in a picture of `(width, height)` pixels, in the order of painting.
    ///
    /// Ownership of pixels is painted as the picture is, with a margin left and right, so that heads half outside are
    /// known in full. A side of a box is exact where it shows, and whole pixels where something hides it.
    pub(crate) fn visible_heads(&self, (width, height): (usize, usize), raster: &mut Raster) -> Vec<VisibleHead> {
        let margin = height / 2;
        let plane = (width + 2 * margin, height);
        let mut owners = vec![0_usize; plane.0 * plane.1];
        let mut heads: Vec<(usize, [f32; 4], Extent)> = Vec::new();
        let mut last = Part::Other;
        for shape in &self.shapes {
            if shape.part == Part::Shade {
                continue;
            }
            if let (Part::Head(_), true) = (last, last != shape.part) {
                measure(&mut heads, &owners, plane);
            }
            last = shape.part;
            let owner = if let Part::Head(person) = shape.part { person + 1 } else { 0 };
            let outline: Vec<_> = shape.outline.iter().map(|[x, y]| [x + margin as f32, *y]).collect();
            raster.cover(&outline, 1.0, plane, |x, y, coverage| {
                for (pixel, &share) in owners[y * plane.0 + x..].iter_mut().zip(coverage) {
                    if share >= 0.5 {
                        *pixel = owner;
                    }
                }
            });
            if let Part::Head(person) = shape.part {
                let bounds = bounds(&shape.outline);
                match heads.iter_mut().find(|(known, ..)| *known == person) {
                    Some((_, known, _)) => *known = union(*known, bounds),
                    None => heads.push((person, bounds, Extent::default())),
                }
            }
        }
        measure(&mut heads, &owners, plane);
        let left = margin as f32;
        let shown = heads.into_iter().filter_map(|(person, exact, full)| {
            let around = [exact[0] + left, exact[1], exact[2] + left, exact[3]];
            let shows = Extent::of(&owners, plane, person, around, margin..margin + width);
            let share = shows.area() / full.area().max(1.0);
            let side = |side: usize| {
                if shows.bounds[side] == full.bounds[side] {
                    return exact[side];
                }
                shows.bounds[side] as f32 - if side.is_multiple_of(2) { left } else { 0.0 }
            };
            let bbox = [side(0).max(0.0), side(1).max(0.0), side(2).min(width as f32), side(3).min(height as f32)];
            (shows.pixels > 0).then_some(VisibleHead { person, bbox, share })
        });
        shown.collect()
    }
}

/// Pixels of one head, and the corners around them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Extent {
    pixels: usize,
    bounds: [usize; 4],
}

impl Extent {
    /// Of the box, not of the pixels in it.
    fn area(self) -> f32 {
        let [x0, y0, x1, y1] = self.bounds;
        x1.saturating_sub(x0) as f32 * y1.saturating_sub(y0) as f32
    }

    /// Of the pixels that a person's head owns within `around` and the given columns.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clipped to the plane first")]
    fn of(
        owners: &[usize],
        (width, height): (usize, usize),
        person: usize,
        around: [f32; 4],
        columns: std::ops::Range<usize>,
    ) -> Self {
        let clip = |value: f32, low: usize, high: usize| (value.max(0.0) as usize).clamp(low, high);
        let columns =
            clip(around[0].floor(), columns.start, columns.end)..clip(around[2].ceil(), columns.start, columns.end);
        let rows = clip(around[1].floor(), 0, height)..clip(around[3].ceil(), 0, height);
        let mut extent = Self { pixels: 0, bounds: [usize::MAX, usize::MAX, 0, 0] };
        for y in rows {
            for x in columns.clone() {
                if owners[y * width + x] == person + 1 {
                    let [x0, y0, x1, y1] = extent.bounds;
                    extent.bounds = [x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1)];
                    extent.pixels += 1;
                }
            }
        }
        extent
    }
}

/// Notes the full extent of the head that was painted last, before anything hides it.
fn measure(heads: &mut [(usize, [f32; 4], Extent)], owners: &[usize], plane: (usize, usize)) {
    let margin = (plane.1 / 2) as f32;
    if let Some((person, exact, full)) = heads.last_mut()
        && full.pixels == 0
    {
        let around = [exact[0] + margin, exact[1], exact[2] + margin, exact[3]];
        *full = Extent::of(owners, plane, *person, around, 0..plane.0);
    }
}

fn bounds(outline: &[Point]) -> [f32; 4] {
    let start = [f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY];
    outline.iter().fold(start, |known, &[x, y]| union(known, [x, y, x, y]))
}

fn union(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
    [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]
}
