//! The overlay: boxes, labels, zones, lines and a timing strip, drawn on a raw frame before it is encoded.
//!
//! A decoded picture with its colour description and what to draw come in; the same picture, drawn on in YCbCr, leaves. A
//! picture that is elsewhere is drawn on there: a recording of what to paint leaves in its stead, and gives the same bits.
//! It runs on the session's encode worker. It must not convert the picture to RGB, block, or touch a sample that no
//! shape covers: with nothing to draw the picture stays as it was, bit for bit.

mod lettering;
mod palette;
mod shapes;
mod whole;

use std::fmt::Write as _;

use crate::draw::{self, Atlas, Brush, Canvas, Ink, Point};
use crate::media::{ColorInfo, Detection, Overall};

use lettering::Lettering;

/// What to draw on one picture. All coordinates of detections are pixels of that picture.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// What was found, most certain first: those in front get the better places for their labels.
    pub detections: &'a [Detection],
    /// What is said of the whole picture: segments are tinted, classes listed in the upper left corner.
    pub overall: Option<&'a Overall>,
    /// Whether to outline the detections, with their keypoints, and to tint segments.
    pub boxes: bool,
    /// Whether to name them: class, score and, where it is known, object id; of segments the class and its share.
    pub labels: bool,
    /// Lines of the strip in the lower left corner; none hides it.
    pub timing: &'a [&'a str],
    /// Watched areas.
    pub zones: &'a [ZoneShape<'a>],
    /// Counting lines.
    pub lines: &'a [LineShape<'a>],
}

impl Default for Overlay<'_> {
    fn default() -> Self {
        Self { detections: &[], overall: None, boxes: true, labels: true, timing: &[], zones: &[], lines: &[] }
    }
}

/// A polygon to shade.
#[derive(Debug, Clone, Copy)]
pub struct ZoneShape<'a> {
    /// Name to write at its topmost corner, or empty.
    pub name: &'a str,
    /// Corners in 0..1 of the picture's width and height.
    pub polygon: &'a [Point],
}

/// A line to draw, directed.
#[derive(Debug, Clone, Copy)]
pub struct LineShape<'a> {
    /// Name to write at its start, or empty.
    pub name: &'a str,
    /// Start in 0..1 of the picture's width and height.
    pub from: Point,
    /// End, likewise; it carries the arrow head.
    pub to: Point,
}

/// Draws overlays. It keeps rasterised letters and scratch memory, so keep one for each worker.
#[derive(Debug)]
pub struct Annotator {
    lettering: Lettering,
    brush: Brush,
    text: String,
    numbers: String,
    tags: Vec<Tag>,
}

impl Default for Annotator {
    fn default() -> Self {
        Self::new()
    }
}

impl Annotator {
    /// An annotator with the embedded font.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lettering: Lettering::new(),
            brush: Brush::default(),
            text: String::new(),
            numbers: String::new(),
            tags: Vec::new(),
        }
    }

    /// The masks that recordings of it refer to.
    #[must_use]
    pub const fn atlas(&self) -> &Atlas {
        &self.brush.atlas
    }

    /// Draws `overlay` on a picture whose codes mean what `color` says.
    ///
    /// A [`Recording`](draw::Recording) has to have begun with the picture's size. It is good with
    /// [`Annotator::atlas`] until this draws again.
    ///
    /// Boxes are clipped to the picture; one that is empty, wholly outside or not finite is left out with its label.
    /// Labels are moved, and names shortened, until they lie inside the picture.
    pub fn draw(&mut self, canvas: &mut impl Canvas, color: ColorInfo, overlay: &Overlay<'_>) {
        self.begin();
        self.draw_fixed(canvas, color, overlay);
        self.draw_moving(canvas, color, overlay);
    }

    /// Begins an overlay that is drawn in two parts: first [`Annotator::draw_fixed`], then [`Annotator::draw_moving`].
    pub fn begin(&mut self) {
        self.brush.atlas.begin();
    }

    /// Draws the zones and lines of an overlay, which lie below everything else. A recording of them is good for each picture
    /// of the same size and colours, as long as [`Atlas::generation`] stays the same.
    pub fn draw_fixed(&mut self, canvas: &mut impl Canvas, color: ColorInfo, overlay: &Overlay<'_>) {
        let look = Look::of(canvas.size());
        for (index, zone) in overlay.zones.iter().enumerate() {
            self.zone(canvas, color, look, index, zone);
        }
        for (index, line) in overlay.lines.iter().enumerate() {
            self.line(canvas, color, look, overlay.zones.len() + index, line);
        }
    }

    /// Draws all the rest of an overlay.
    pub fn draw_moving(&mut self, canvas: &mut impl Canvas, color: ColorInfo, overlay: &Overlay<'_>) {
        let (size, look) = (canvas.size(), Look::of(canvas.size()));
        self.tags.clear();
        if let Some(Overall::Mask(mask)) = overlay.overall.filter(|_| overlay.boxes) {
            whole::tint(canvas, color, mask);
        }
        // The most certain lie on top.
        if overlay.boxes {
            for detection in overlay.detections.iter().rev() {
                let Some(bounds) = visible(detection.bbox, size, look) else { continue };
                let rgb = palette::rgb(detection.class.id);
                shapes::frame(canvas, &mut self.brush, bounds, look, color, rgb);
                for keypoint in &detection.keypoints {
                    shapes::dot(canvas, &mut self.brush.raster, keypoint.at, look, color, rgb);
                }
            }
        }
        if overlay.labels {
            for (index, detection) in overlay.detections.iter().enumerate() {
                let Some(bounds) = visible(detection.bbox, size, look) else { continue };
                self.place(size, look, index, detection, bounds);
            }
            for tag in (0..self.tags.len()).rev() {
                let (index, [x, y, width, height]) = (self.tags[tag].detection, self.tags[tag].bounds);
                let detection = &overlay.detections[index];
                self.label(detection, pixels(size).0, look);
                self.tag(canvas, color, look, [x, y, width, height], palette::rgb(detection.class.id));
            }
        }
        if let Some(overall) = overlay.overall.filter(|_| overlay.labels) {
            self.list(canvas, color, look, overall);
        }
        self.strip(canvas, color, look, overlay.timing);
    }

    /// Finds the label's place: above the box, else inside it, else below, where no more certain label lies.
    fn place(&mut self, size: [u32; 2], look: Look, index: usize, detection: &Detection, bounds: [i32; 4]) {
        let (frame_width, frame_height) = pixels(size);
        if look.tag_height > frame_height {
            return;
        }
        let width = self.label(detection, frame_width, look);
        if width == 0 {
            return;
        }
        let [x0, y0, _, y1] = look.outer(bounds);
        let x = x0.min(frame_width - width).max(0);
        let height = look.tag_height;
        let inside = y0 + look.thickness;
        let candidates = [y0 - height, inside, y1, y1 - look.thickness - height, inside + height, y1 + height];
        let fits = |&y: &i32| y >= 0 && y + height <= frame_height;
        let crowd = &self.tags[..self.tags.len().min(MAX_AVOIDED)];
        let free = |&y: &i32| !crowd.iter().any(|tag| overlaps(tag.bounds, [x, y, width, height]));
        let y = candidates.into_iter().filter(fits).find(free).or_else(|| candidates.into_iter().find(fits));
        let y = y.unwrap_or_else(|| y0.clamp(0, frame_height - height));
        self.tags.push(Tag { detection: index, bounds: [x, y, width, height] });
    }

    /// Writes a detection's label into `self.text`, its name shortened to fit; the width of its tag, or 0 if none fits.
    fn label(&mut self, detection: &Detection, limit: i32, look: Look) -> i32 {
        let Self { text, numbers, lettering, brush, .. } = self;
        let mut letters = lettering.size(look.font, &mut brush.atlas);
        numbers.clear();
        // Writing to a string cannot fail.
        let _ = write!(numbers, " {:.2}", detection.score);
        if let Some(id) = detection.object_id {
            let _ = write!(numbers, " #{id}");
        }
        text.clear();
        text.push_str(&detection.class.name);
        let room = limit as f32 - 2.0 * look.padding() - letters.width(numbers);
        letters.shorten(text, 0, room);
        text.push_str(if text.is_empty() { numbers.trim_start() } else { numbers });
        let width = (letters.width(text) + 2.0 * look.padding()).ceil();
        if width <= limit as f32 { to_pixel(width) } else { 0 }
    }

    /// A filled tag with `self.text` in it.
    fn tag(
        &mut self,
        canvas: &mut impl Canvas,
        color: ColorInfo,
        look: Look,
        [x, y, width, height]: [i32; 4],
        rgb: [u8; 3],
    ) {
        let background = Ink::new(color, rgb).with_opacity(0.94);
        draw::rounded_rect(canvas, &mut self.brush, [x, y, x + width, y + height], look.rounding(), background);
        let ink = Ink::new(color, palette::text_on(rgb));
        let baseline = y + to_pixel((height as f32 + look.font * CAP_HEIGHT) / 2.0);
        self.lettering.size(look.font, &mut self.brush.atlas).draw(
            canvas,
            (x as f32 + look.padding(), baseline),
            &self.text,
            ink,
        );
    }

    /// A tag with a name of its own, its lower left corner near `at`, inside the picture.
    fn name(&mut self, canvas: &mut impl Canvas, color: ColorInfo, look: Look, at: Point, name: &str, rgb: [u8; 3]) {
        let (frame_width, frame_height) = pixels(canvas.size());
        if name.is_empty() || look.tag_height > frame_height {
            return;
        }
        self.text.clear();
        self.text.push_str(name);
        let mut letters = self.lettering.size(look.font, &mut self.brush.atlas);
        letters.shorten(&mut self.text, 0, frame_width as f32 - 2.0 * look.padding());
        let width = to_pixel((letters.width(&self.text) + 2.0 * look.padding()).ceil());
        if self.text.is_empty() || width > frame_width {
            return;
        }
        let x = to_pixel(at[0]).clamp(0, frame_width - width);
        let y = (to_pixel(at[1]) - look.tag_height).clamp(0, frame_height - look.tag_height);
        self.tag(canvas, color, look, [x, y, width, look.tag_height], rgb);
    }

    fn zone(&mut self, canvas: &mut impl Canvas, color: ColorInfo, look: Look, index: usize, zone: &ZoneShape<'_>) {
        let Some(corners) = scaled(zone.polygon, canvas.size()) else { return };
        let rgb = palette::zone(index);
        let ink = Ink::new(color, rgb);
        canvas.fill(&corners, &mut self.brush.raster, ink.with_opacity(0.22));
        let mut last = corners[corners.len() - 1];
        for &corner in &corners {
            shapes::stroke(canvas, &mut self.brush.raster, last, corner, look.thickness as f32, ink);
            last = corner;
        }
        let top = corners.iter().copied().min_by(|a, b| a[1].total_cmp(&b[1]));
        self.name(canvas, color, look, top.unwrap_or_default(), zone.name, rgb);
    }

    fn line(&mut self, canvas: &mut impl Canvas, color: ColorInfo, look: Look, index: usize, line: &LineShape<'_>) {
        let Some(ends) = scaled(&[line.from, line.to], canvas.size()) else { return };
        let rgb = palette::zone(index);
        shapes::arrow(canvas, &mut self.brush.raster, [ends[0], ends[1]], look, color, rgb);
        self.name(canvas, color, look, ends[0], line.name, rgb);
    }

    /// The timing strip: lines of text on a dark panel, as many as fit.
    fn strip(&mut self, canvas: &mut impl Canvas, color: ColorInfo, look: Look, lines: &[&str]) {
        let (frame_width, frame_height) = pixels(canvas.size());
        let (margin, padding) = (to_pixel(look.font / 2.0), look.padding());
        let step = to_pixel((look.font * 1.35).round());
        let room = (frame_height - 2 * margin - to_pixel(padding)) / step;
        let lines = &lines[..lines.len().min(usize::try_from(room).unwrap_or(0))];
        let limit = (frame_width - 2 * margin) as f32 - 2.0 * padding;
        if lines.is_empty() || limit <= 0.0 {
            return;
        }
        let mut letters = self.lettering.size(look.font, &mut self.brush.atlas);
        let mut width = 0.0_f32;
        for line in lines {
            self.text.clear();
            self.text.push_str(line);
            letters.shorten(&mut self.text, 0, limit);
            width = width.max(letters.width(&self.text));
        }
        let height = i32::try_from(lines.len()).unwrap_or(room) * step + to_pixel(padding);
        let top = frame_height - margin - height;
        let panel = [margin, top, margin + to_pixel((width + 2.0 * padding).ceil()), top + height];
        let background = Ink::new(color, palette::PANEL).with_opacity(0.66);
        draw::rounded_rect(canvas, &mut self.brush, panel, look.rounding(), background);
        let ink = Ink::new(color, palette::WHITE);
        let mut letters = self.lettering.size(look.font, &mut self.brush.atlas);
        for (row, line) in (1..).zip(lines) {
            self.text.clear();
            self.text.push_str(line);
            letters.shorten(&mut self.text, 0, limit);
            let baseline = top + row * step - to_pixel(look.font * 0.22 - padding / 2.0);
            letters.draw(canvas, (margin as f32 + padding, baseline), &self.text, ink);
        }
    }
}

/// Labels that a further label keeps clear of; among more, finding a free place would cost more than it helps.
const MAX_AVOIDED: usize = 64;

/// Height of capital letters in the embedded font, in ems.
const CAP_HEIGHT: f32 = 0.727;

/// Sizes in pixels that follow from the picture's.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Letters: one em.
    font: f32,
    /// A box's coloured line.
    thickness: i32,
    /// The dark line along both sides of it.
    outline: i32,
    /// A label.
    tag_height: i32,
}

impl Look {
    fn of([width, height]: [u32; 2]) -> Self {
        let side = width.min(height) as f32;
        // Whole sizes, so that a few sets of letters do for all streams.
        let font = (7.5 + side * 0.018).clamp(11.0, 48.0).round();
        let thickness = to_pixel((side / 270.0).round()).clamp(2, 12);
        Self { font, thickness, outline: (thickness + 1) / 3, tag_height: to_pixel((font * 1.42).round()) }
    }

    fn rounding(self) -> i32 {
        to_pixel(self.font / 4.0)
    }

    fn padding(self) -> f32 {
        (self.font * 0.38).round()
    }

    /// A box's bounds with half of its line, which lies on its edge.
    fn outer(self, [x0, y0, x1, y1]: [i32; 4]) -> [i32; 4] {
        let out = self.thickness / 2;
        [x0 - out, y0 - out, x1 + out, y1 + out]
    }
}

#[derive(Debug)]
struct Tag {
    /// Index of the detection.
    detection: usize,
    /// Left, top, width, height.
    bounds: [i32; 4],
}

/// A box in whole pixels, moved so far into the picture that its line shows; `None` if nothing of it is inside.
fn visible([x0, y0, x1, y1]: [f32; 4], size: [u32; 2], look: Look) -> Option<[i32; 4]> {
    let [width, height] = size.map(|side| side as f32);
    if !(x0 < x1 && y0 < y1 && x1 > 0.0 && y1 > 0.0 && x0 < width && y0 < height) {
        return None;
    }
    let half = (look.thickness / 2) as f32;
    let inside = |value: f32, size: f32| value.round().min(size - half).max(half);
    Some([inside(x0, width), inside(y0, height), inside(x1, width), inside(y1, height)].map(to_pixel))
}

/// Points in 0..1 as pixels; `None` if one is not finite or there are none.
fn scaled(points: &[Point], size: [u32; 2]) -> Option<Vec<Point>> {
    let [width, height] = size.map(|side| side as f32);
    let finite = !points.is_empty() && points.iter().flatten().all(|value| value.is_finite());
    let far = |value: f32| value.clamp(-65_536.0, 65_536.0);
    finite.then(|| points.iter().map(|[x, y]| [far(x * width), far(y * height)]).collect())
}

fn overlaps([ax, ay, aw, ah]: [i32; 4], [bx, by, bw, bh]: [i32; 4]) -> bool {
    ax < bx + bw && bx < ax + aw && ay < by + bh && by < ay + ah
}

fn pixels(size: [u32; 2]) -> (i32, i32) {
    let [width, height] = size.map(|side| i32::try_from(side).unwrap_or(i32::MAX));
    (width, height)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "sizes and places of at most a few thousand pixels; others saturate"
)]
fn to_pixel(value: f32) -> i32 {
    value as i32
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::{Class, ColorMatrix, ColorRange, I420};

    fn grey(width: u32, height: u32) -> I420 {
        let mut picture = I420::new(width, height);
        picture.planes_mut().into_iter().for_each(|plane| plane.fill(120));
        picture
    }

    fn found(bbox: [f32; 4], id: u32, name: &str) -> Detection {
        Detection {
            bbox,
            class: Class { id, name: name.into() },
            score: 0.91,
            object_id: Some(7),
            keypoints: Vec::new(),
        }
    }

    fn drawn(width: u32, height: u32, overlay: &Overlay<'_>) -> I420 {
        let mut picture = grey(width, height);
        Annotator::new().draw(&mut picture, ColorInfo::default(), overlay);
        picture
    }

    fn luma(picture: &I420, x: u32, y: u32) -> u8 {
        picture.planes()[0][(y * picture.width() + x) as usize]
    }

    #[test]
    fn nothing_to_draw_leaves_every_sample() {
        assert_eq!(drawn(33, 17, &Overlay::default()), grey(33, 17));
        let detections = [found([2.0, 2.0, 20.0, 12.0], 0, "head")];
        let off = Overlay { detections: &detections, boxes: false, labels: false, ..Overlay::default() };
        assert_eq!(drawn(33, 17, &off), grey(33, 17));
    }

    #[test]
    fn a_box_changes_its_edges_and_nothing_else() {
        let detections = [found([100.0, 80.0, 300.0, 240.0], 1, "helmet")];
        let picture = drawn(640, 480, &Overlay { detections: &detections, labels: false, ..Overlay::default() });
        let look = Look::of(picture.size());
        let reach = (look.thickness / 2 + look.outline) as u32;
        for y in 0..480 {
            for x in 0..640 {
                let near = |at: u32, edge: u32| at + reach >= edge && at < edge + reach;
                let on_edge = ((near(x, 100) || near(x, 300)) && (80..240).contains(&y))
                    || ((near(y, 80) || near(y, 240)) && (100..300).contains(&x));
                // Corners are round: neither surely painted nor surely not.
                let corner = !(110..290).contains(&x) && !(90..230).contains(&y);
                if on_edge && !corner {
                    assert_ne!(luma(&picture, x, y), 120, "edge at {x}, {y}");
                } else if !on_edge && !corner {
                    assert_eq!(luma(&picture, x, y), 120, "{x}, {y}");
                }
            }
        }
    }

    #[test]
    fn a_box_has_the_colour_of_its_class_in_every_matrix_and_range() {
        for matrix in [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020] {
            for range in [ColorRange::Limited, ColorRange::Full] {
                let color = ColorInfo { matrix, range };
                // A line two pixels wide at an even place fills whole chroma samples.
                let detections = [found([101.0, 81.0, 301.0, 241.0], 0, "head")];
                let mut picture = grey(640, 480);
                let overlay = Overlay { detections: &detections, labels: false, ..Overlay::default() };
                Annotator::new().draw(&mut picture, color, &overlay);
                let [luma, cb, cr] = picture.planes();
                let codes = [luma[150 * 640 + 100], cb[75 * 320 + 50], cr[75 * 320 + 50]];
                assert_eq!(codes, color.from_rgb(palette::rgb(0)), "{color:?}");
            }
        }
    }

    #[test]
    fn boxes_that_reach_out_show_all_their_sides() {
        let detections = [found([-40.0, -9.0, 700.0, 500.0], 0, "head")];
        let picture = drawn(640, 480, &Overlay { detections: &detections, labels: false, ..Overlay::default() });
        for (x, y) in [(0, 240), (639, 240), (320, 0), (320, 479)] {
            assert_ne!(luma(&picture, x, y), 120, "{x}, {y}");
        }
    }

    #[test]
    fn boxes_that_show_nothing_are_left_out() {
        let cases = [
            [f32::NAN, 1.0, 9.0, 9.0],
            [1.0, 1.0, f32::NAN, 9.0],
            [5.0, 5.0, 5.0, 9.0],
            [9.0, 9.0, 1.0, 1.0],
            [-20.0, 1.0, -10.0, 9.0],
            [70.0, 1.0, 90.0, 9.0],
            [1.0, f32::NEG_INFINITY, 9.0, 0.0],
        ];
        let detections = cases.map(|bbox| found(bbox, 0, "head"));
        assert_eq!(drawn(64, 48, &Overlay { detections: &detections, ..Overlay::default() }), grey(64, 48));
    }

    #[test]
    fn labels_name_class_score_and_object() {
        let mut annotator = Annotator::new();
        let look = Look::of([640, 480]);
        assert!(annotator.label(&found([0.0; 4], 1, "helmet"), 640, look) > 0);
        assert_eq!(annotator.text, "helmet 0.91 #7");
        let width = annotator.label(&found([0.0; 4], 1, "a name that goes on and on"), 120, look);
        assert!((1..=120).contains(&width), "{width}");
        assert!(annotator.text.starts_with("a n") && annotator.text.ends_with("… 0.91 #7"), "{}", annotator.text);
        assert_eq!(annotator.label(&found([0.0; 4], 1, "helmet"), 10, look), 0);
    }

    #[test]
    fn labels_of_close_boxes_do_not_cover_each_other() {
        let detections = [
            found([100.0, 100.0, 200.0, 200.0], 0, "head"),
            found([104.0, 101.0, 210.0, 220.0], 1, "helmet"),
            found([96.0, 99.0, 190.0, 230.0], 2, "vest"),
        ];
        let mut annotator = Annotator::new();
        annotator.draw(
            &mut grey(640, 480),
            ColorInfo::default(),
            &Overlay { detections: &detections, ..Overlay::default() },
        );
        let tags: Vec<_> = annotator.tags.iter().map(|tag| tag.bounds).collect();
        assert_eq!(tags.len(), 3);
        assert!(!overlaps(tags[0], tags[1]) && !overlaps(tags[0], tags[2]) && !overlaps(tags[1], tags[2]), "{tags:?}");
    }

    #[test]
    fn zones_are_shaded_inside_and_named() {
        let zones = [ZoneShape { name: "gate", polygon: &[[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]] }];
        let picture = drawn(320, 240, &Overlay { zones: &zones, ..Overlay::default() });
        let cb = |x: usize, y: usize| picture.planes()[1][y / 2 * 160 + x / 2];
        assert!(cb(160, 150) > 125, "{}", cb(160, 150));
        assert_eq!([cb(20, 120), cb(300, 120), cb(160, 20), cb(160, 220)], [120; 4]);
        assert_eq!(luma(&picture, 20, 120), 120);
        let unnamed = [ZoneShape { name: "", ..zones[0] }];
        assert_ne!(picture, drawn(320, 240, &Overlay { zones: &unnamed, ..Overlay::default() }));
    }

    #[test]
    fn strips_and_lines_stay_in_the_smallest_pictures() {
        let lines = [
            LineShape { name: "door", from: [0.1, 0.5], to: [0.9, 0.5] },
            LineShape { name: "", from: [2.0, 2.0], to: [2.0, 2.0] },
        ];
        let broken = [LineShape { name: "", from: [f32::NAN, 0.5], to: [0.9, 0.5] }];
        for (width, height) in [(1, 1), (2, 2), (17, 9), (320, 240)] {
            drawn(
                width,
                height,
                &Overlay { timing: &["decode 1.2 ms", "漢字\t"], lines: &lines, ..Overlay::default() },
            );
            assert_eq!(drawn(width, height, &Overlay { lines: &broken, ..Overlay::default() }), grey(width, height));
        }
    }

    proptest! {
        #[test]
        fn labels_lie_in_the_picture(
            (width, height) in (1..400u32, 1..300u32),
            boxes in proptest::collection::vec((proptest::array::uniform4(-500.0..900.0f32), 0..30u32, ".{0,40}"), 0..30),
            timing in ".{0,60}",
        ) {
            let detections: Vec<_> = boxes.iter().map(|(bbox, id, name)| found(*bbox, *id, name)).collect();
            let mut annotator = Annotator::new();
            let overlay = Overlay { detections: &detections, timing: &[&timing], ..Overlay::default() };
            annotator.draw(&mut grey(width, height), ColorInfo::default(), &overlay);
            for tag in &annotator.tags {
                let [x, y, w, h] = tag.bounds;
                prop_assert!(x >= 0 && y >= 0 && w > 0 && x + w <= width as i32 && y + h <= height as i32, "{:?}", tag.bounds);
            }
        }

        #[test]
        fn any_floats_are_taken(bbox in proptest::array::uniform4(any::<f32>()), points in proptest::collection::vec(proptest::array::uniform2(any::<f32>()), 0..6)) {
            let detections = [found(bbox, u32::MAX, "head")];
            let zones = [ZoneShape { name: "z", polygon: &points }];
            drawn(65, 47, &Overlay { detections: &detections, zones: &zones, ..Overlay::default() });
        }
    }
}
