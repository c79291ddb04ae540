use super::manifest::{Input, Resize};

/// Where a source picture lies in a model's input, and the way back.
///
/// Each axis is scaled by the pixels it really got (`content / source`), so that a point mapped there and back is the
/// same point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Letterbox {
    source: [f32; 2],
    scale: [f32; 2],
    offset: [f32; 2],
    /// Left, top, width and height of the picture inside the input.
    content: [u32; 4],
}

impl Letterbox {
    /// The mapping for a source picture of `width` × `height`.
    #[must_use]
    pub fn new(input: &Input, width: u32, height: u32) -> Self {
        let [input_width, input_height] = input.size;
        let (source_width, source_height) = (f64::from(width.max(1)), f64::from(height.max(1)));
        let (content_width, content_height) = match input.resize {
            Resize::Stretch => (input_width, input_height),
            Resize::LetterboxCenter | Resize::LetterboxTopLeft => {
                let ratio = (f64::from(input_width) / source_width).min(f64::from(input_height) / source_height);
                (fit(source_width * ratio, input_width), fit(source_height * ratio, input_height))
            }
        };
        let (left, top) = match input.resize {
            Resize::LetterboxCenter => ((input_width - content_width) / 2, (input_height - content_height) / 2),
            Resize::LetterboxTopLeft | Resize::Stretch => (0, 0),
        };
        Self {
            source: [single(source_width), single(source_height)],
            scale: [single(f64::from(content_width) / source_width), single(f64::from(content_height) / source_height)],
            offset: [single(f64::from(left)), single(f64::from(top))],
            content: [left, top, content_width, content_height],
        }
    }

    /// Width and height of the source picture.
    #[must_use]
    pub const fn source(&self) -> [f32; 2] {
        self.source
    }

    /// Left, top, width and height in input pixels of what the picture covers.
    #[must_use]
    pub const fn content(&self) -> [u32; 4] {
        self.content
    }

    /// A point of the source picture, in input pixels.
    #[must_use]
    pub fn to_input(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [x * self.scale[0] + self.offset[0], y * self.scale[1] + self.offset[1]]
    }

    /// A point of the input, in source pixels.
    #[must_use]
    pub fn to_source(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [(x - self.offset[0]) / self.scale[0], (y - self.offset[1]) / self.scale[1]]
    }

    /// A box of the input, in source pixels, cut at the picture's edges; none if nothing is left of it.
    #[must_use]
    pub fn box_to_source(&self, [x1, y1, x2, y2]: [f32; 4]) -> Option<[f32; 4]> {
        let ([x1, y1], [x2, y2]) = (self.to_source([x1, y1]), self.to_source([x2, y2]));
        let [width, height] = self.source;
        let cut = [x1.clamp(0.0, width), y1.clamp(0.0, height), x2.clamp(0.0, width), y2.clamp(0.0, height)];
        (cut[2] > cut[0] && cut[3] > cut[1]).then_some(cut)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the input's side")]
fn fit(side: f64, limit: u32) -> u32 {
    (side.round() as u32).clamp(1, limit)
}

#[expect(clippy::cast_possible_truncation, reason = "picture sides and their ratios fit into single precision")]
fn single(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::infer::manifest::{Channels, Layout};

    fn input(size: [u32; 2], resize: Resize) -> Input {
        Input {
            tensor: None,
            layout: Layout::Nchw,
            color: Channels::Rgb,
            size,
            resize,
            pad: 114.0,
            mean: [0.0; 3],
            scale: [1.0; 3],
        }
    }

    #[test]
    fn the_picture_lies_where_the_manifest_says() {
        let place = |resize| Letterbox::new(&input([320, 320], resize), 640, 480).content();
        assert_eq!(place(Resize::LetterboxCenter), [0, 40, 320, 240]);
        assert_eq!(place(Resize::LetterboxTopLeft), [0, 0, 320, 240]);
        assert_eq!(place(Resize::Stretch), [0, 0, 320, 320]);
        let tall = Letterbox::new(&input([416, 416], Resize::LetterboxCenter), 427, 640);
        assert_eq!(tall.content(), [69, 0, 278, 416]);
        assert_eq!(tall.to_input([0.0, 0.0]), [69.0, 0.0]);
    }

    #[test]
    fn boxes_are_cut_at_the_edge_and_vanish_beyond_it() {
        let letterbox = Letterbox::new(&input([320, 320], Resize::LetterboxCenter), 640, 480);
        assert_eq!(letterbox.box_to_source([-10.0, 30.0, 160.0, 400.0]), Some([0.0, 0.0, 320.0, 480.0]));
        assert_eq!(letterbox.box_to_source([0.0, 0.0, 320.0, 39.0]), None);
        assert_eq!(letterbox.box_to_source([f32::NAN, 50.0, 100.0, 100.0]), None);
        assert_eq!(letterbox.box_to_source([50.0, 60.0, 50.0, 100.0]), None);
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same_point(
            width in 1u32..4096, height in 1u32..4096, input_width in 8u32..1024, input_height in 8u32..1024,
            resize in prop::sample::select(vec![Resize::LetterboxCenter, Resize::LetterboxTopLeft, Resize::Stretch]),
            x in 0f32..=1.0, y in 0f32..=1.0,
        ) {
            let letterbox = Letterbox::new(&input([input_width, input_height], resize), width, height);
            let point = [x * width as f32, y * height as f32];
            let inside = letterbox.to_input(point);
            let [left, top, content_width, content_height] = letterbox.content();
            prop_assert!(left + content_width <= input_width && top + content_height <= input_height);
            prop_assert!(inside[0] >= left as f32 - 1e-3 && inside[0] <= (left + content_width) as f32 + 1e-3);
            let back = letterbox.to_source(inside);
            // Single precision at the larger of both scales.
            for axis in 0..2 {
                let side = [width, height][axis] as f32;
                let allowed = 2e-6 * side.max(1.0) * (1.0 + 1024.0 / (side * letterbox.scale[axis]).max(1.0));
                prop_assert!((back[axis] - point[axis]).abs() <= allowed, "{point:?} {inside:?} {back:?}");
            }
            let corners = letterbox.to_input([0.0, 0.0]);
            let far = letterbox.to_input([width as f32, height as f32]);
            let whole = letterbox.box_to_source([corners[0], corners[1], far[0], far[1]]).unwrap();
            prop_assert!((whole[2] - width as f32).abs() < 0.01 && (whole[3] - height as f32).abs() < 0.01);
        }
    }
}
