//! What is said of a whole picture: tinted segments, and a list in the corner.

use std::fmt::Write as _;

use super::{Annotator, Look, palette, pixels, to_pixel};
use crate::draw::{Canvas, Ink};
use crate::media::{ColorInfo, Mask, Overall};

/// How much of a segment's colour there is over the picture.
const TINT: f32 = 0.42;
/// Lines of the list at most.
const LINES: usize = 8;

/// Lays each segment's colour over it.
///
/// It is made of rectangles, so that a device can do it, too: one for each run of pixels of a class in each row of the mask.
/// Their corners lie between samples of chroma, so that none is tinted twice.
pub(super) fn tint(canvas: &mut impl Canvas, color: ColorInfo, mask: &Mask) {
    let mut inks = [None; Mask::NONE as usize + 1];
    for segment in mask.segments() {
        inks[usize::from(segment.index)] = Some(Ink::new(color, palette::rgb(segment.class.id)).with_opacity(TINT));
    }
    let [width, height] = canvas.size().map(|side| side.div_ceil(2));
    let columns: Vec<_> = mask.places(0, width).collect();
    let rows: Vec<_> = mask.places(1, height).collect();
    let mut top = 0;
    for same in rows.chunk_by(|a, b| a == b) {
        let (row, bottom) = (mask.row(same[0] as usize), top + corner(same.len()));
        let class = |column: &u32| row.get(*column as usize).copied().unwrap_or(Mask::NONE);
        let mut left = 0;
        for run in columns.chunk_by(|a, b| class(a) == class(b)) {
            let right = left + corner(run.len());
            if let Some(ink) = inks[usize::from(class(&run[0]))] {
                canvas.rect([left, top, right, bottom], ink);
            }
            left = right;
        }
        top = bottom;
    }
}

/// Pixels of so many samples of chroma.
fn corner(samples: usize) -> i32 {
    i32::try_from(2 * samples).unwrap_or(i32::MAX)
}

impl Annotator {
    /// Classes with their scores, or segments with their shares, in the upper left corner: as many as fit.
    pub(super) fn list(&mut self, canvas: &mut impl Canvas, color: ColorInfo, look: Look, overall: &Overall) {
        let mut top = to_pixel(look.font / 2.0);
        match overall {
            Overall::Labels(labels) => {
                for label in labels.iter().take(LINES) {
                    self.numbers.clear();
                    // Writing to a string cannot fail.
                    let _ = write!(self.numbers, " {:.2}", label.score);
                    top = self.line_of_list(canvas, color, look, top, (&label.class.name, label.class.id));
                }
            }
            Overall::Mask(mask) => {
                for segment in mask.segments().iter().take(LINES) {
                    self.numbers.clear();
                    let _ = write!(self.numbers, " {:.0} %", segment.area_ratio * 100.0);
                    top = self.line_of_list(canvas, color, look, top, (&segment.class.name, segment.class.id));
                }
            }
            Overall::Tensors(_) => {}
        }
    }

    /// A tag with a name and `self.numbers`, if there is room for it; where the next one begins.
    fn line_of_list(
        &mut self,
        canvas: &mut impl Canvas,
        color: ColorInfo,
        look: Look,
        top: i32,
        (name, class): (&str, u32),
    ) -> i32 {
        let ((frame_width, frame_height), left) = (pixels(canvas.size()), to_pixel(look.font / 2.0));
        if top + look.tag_height > frame_height {
            return top;
        }
        let mut letters = self.lettering.size(look.font, &mut self.brush.atlas);
        self.text.clear();
        self.text.push_str(name);
        let room = (frame_width - 2 * left) as f32 - 2.0 * look.padding() - letters.width(&self.numbers);
        letters.shorten(&mut self.text, 0, room);
        self.text.push_str(&self.numbers);
        let width = to_pixel((letters.width(&self.text) + 2.0 * look.padding()).ceil());
        if left + width > frame_width {
            return top;
        }
        self.tag(canvas, color, look, [left, top, width, look.tag_height], palette::rgb(class));
        top + look.tag_height + to_pixel(look.font / 4.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::annotate::Overlay;
    use crate::draw::{Recording, Shape};
    use crate::media::{Class, Detection, I420, Keypoint, Label};

    fn class(id: u32) -> Class {
        Class { id, name: "thing".into() }
    }

    fn grey(width: u32, height: u32) -> I420 {
        let mut picture = I420::new(width, height);
        picture.planes_mut().into_iter().for_each(|plane| plane.fill(120));
        picture
    }

    fn drawn(width: u32, height: u32, overlay: &Overlay<'_>) -> I420 {
        let mut picture = grey(width, height);
        Annotator::new().draw(&mut picture, ColorInfo::default(), overlay);
        picture
    }

    /// Left half of class 0, right half free but for its lower part, of class 1.
    fn halves(width: u32, height: u32) -> Overall {
        let frame = [width as f32, height as f32];
        let map = vec![0, 0, 255, 255, 0, 0, 1, 1];
        Overall::Mask(Mask::new([4, 2], map, [0.0, 0.0, frame[0], frame[1]], frame, |index| Some(class(index.into()))))
    }

    #[test]
    fn segments_are_tinted_to_their_edges_and_nothing_else() {
        let (width, height) = (64, 48);
        let overall = halves(width, height);
        let picture = drawn(width, height, &Overlay { overall: Some(&overall), labels: false, ..Overlay::default() });
        let color = ColorInfo::default();
        let expected = |class: u32| {
            let codes = color.from_rgb(palette::rgb(class));
            codes.map(|code| (f32::from(code) * TINT + 120.0 * (1.0 - TINT)).round())
        };
        let [luma, cb, cr] = picture.planes();
        for y in 0..48 {
            for x in 0..64 {
                let codes = [luma[y * 64 + x], cb[y / 2 * 32 + x / 2], cr[y / 2 * 32 + x / 2]].map(f32::from);
                let expected = match (x < 32, y < 24) {
                    (true, _) => expected(0),
                    (false, false) => expected(1),
                    (false, true) => [120.0; 3],
                };
                assert!(
                    codes.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1.5),
                    "{x}, {y}: {codes:?} {expected:?}"
                );
            }
        }
    }

    #[test]
    fn a_device_gets_the_tint_as_few_rectangles() {
        let (mut recording, overall) = (Recording::default(), halves(640, 480));
        recording.begin(640, 480);
        let overlay = Overlay { overall: Some(&overall), labels: false, ..Overlay::default() };
        Annotator::new().draw(&mut recording, ColorInfo::default(), &overlay);
        let bounds: Vec<_> = recording.operations().iter().map(|one| (one.bounds, one.shape)).collect();
        let rect = |bounds| (bounds, Shape::Rect);
        let expected = [[0, 0, 320, 240], [0, 240, 320, 480], [320, 240, 640, 480]];
        assert_eq!(bounds, expected.map(rect));
    }

    #[test]
    fn a_picture_of_half_the_size_is_tinted_alike() {
        let (overall, mut half) = (halves(64, 48), grey(32, 24));
        let overlay = Overlay { overall: Some(&overall), labels: false, ..Overlay::default() };
        Annotator::new().draw(&mut half, ColorInfo::default(), &overlay);
        let luma = half.planes()[0];
        assert_eq!((luma[31], luma[31 + 23 * 32]), (120, drawn(64, 48, &overlay).planes()[0][63 + 47 * 64]));
        assert_ne!(luma[0], 120);
    }

    #[test]
    fn the_overlays_switches_hold_for_what_is_said_of_the_whole() {
        let (overall, labels) = (halves(320, 240), Overall::Labels(vec![Label { class: class(3), score: 0.5 }]));
        let off = Overlay { boxes: false, labels: false, ..Overlay::default() };
        for overall in [&overall, &labels] {
            assert_eq!(drawn(320, 240, &Overlay { overall: Some(overall), ..off }), grey(320, 240));
        }
        let boxes = Overlay { overall: Some(&labels), boxes: true, labels: false, ..off };
        assert_eq!(drawn(320, 240, &boxes), grey(320, 240), "classes are labels");
        for overall in [&overall, &labels] {
            let named = drawn(320, 240, &Overlay { overall: Some(overall), labels: true, ..off });
            let corner = (0..40).flat_map(|y| (0..80).map(move |x| y * 320 + x));
            assert!(corner.clone().any(|at| named.planes()[0][at] != 120));
            assert_eq!(named.planes()[0][320 * 200 + 250], 120, "the rest stays");
        }
        for size in [(1, 1), (2, 3), (17, 9)] {
            drawn(size.0, size.1, &Overlay { overall: Some(&labels), ..Overlay::default() });
            drawn(size.0, size.1, &Overlay { overall: Some(&overall), ..Overlay::default() });
        }
    }

    #[test]
    fn keypoints_are_dots_with_the_boxes() {
        let points = [[60.0, 50.0], [100.0, 90.0], [f32::NAN, 3.0], [-50.0, 1e9]];
        let keypoints = points.map(|at| Keypoint { at, score: 0.9 }).to_vec();
        let detection =
            Detection { bbox: [20.0, 20.0, 200.0, 200.0], class: class(0), score: 0.9, object_id: None, keypoints };
        let detections = [detection];
        let overlay = Overlay { detections: &detections, labels: false, ..Overlay::default() };
        let picture = drawn(320, 240, &overlay);
        let luma = |x: usize, y: usize| picture.planes()[0][y * 320 + x];
        assert!(luma(60, 50) != 120 && luma(100, 90) != 120 && luma(150, 150) == 120);
        let without = drawn(320, 240, &Overlay { boxes: false, ..overlay });
        assert_eq!(without, grey(320, 240));
    }
}
