use super::{Filter, Map, Side};
use crate::infer::manifest::Layout;
use crate::media::Mask;

/// Segmentation: for each pixel the class with the largest logit, or its number.
#[derive(Debug, Clone)]
pub(super) struct Argmax {
    classes: usize,
    background: bool,
    order: Order,
    /// Width and height of the input.
    size: [u32; 2],
}

/// What the axes after the batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Classes, rows, columns.
    Planes,
    /// Rows, columns, classes.
    Pixels,
    /// Rows and columns of numbers.
    Numbers,
    /// One, rows and columns of numbers.
    OneAndNumbers,
    /// Rows and columns of numbers, one.
    NumbersAndOne,
}

impl Argmax {
    /// For an output that declares `shape`.
    pub(super) fn new(classes: usize, background: bool, layout: Layout, size: [u32; 2], shape: &[i64]) -> Self {
        let channels = classes + usize::from(background);
        let order = match (shape, layout) {
            ([_, _, _], _) => Order::Numbers,
            ([_, 1, ..], Layout::Nchw) if channels > 1 => Order::OneAndNumbers,
            ([_, _, _, 1], Layout::Nhwc) if channels > 1 => Order::NumbersAndOne,
            (_, Layout::Nchw) => Order::Planes,
            (_, Layout::Nhwc) => Order::Pixels,
        };
        Self { classes, background, order, size }
    }

    fn channels(&self) -> usize {
        self.classes + usize::from(self.background)
    }

    /// The sides after the batch axis.
    pub(super) fn sides(&self) -> Vec<Side> {
        let channels = Side::Exactly(self.channels());
        match self.order {
            Order::Planes => vec![channels, Side::Any, Side::Any],
            Order::Pixels => vec![Side::Any, Side::Any, channels],
            Order::Numbers => vec![Side::Any, Side::Any],
            Order::OneAndNumbers => vec![Side::Exactly(1), Side::Any, Side::Any],
            Order::NumbersAndOne => vec![Side::Any, Side::Any, Side::Exactly(1)],
        }
    }

    /// The classes of the pixels that touch `content` (left, top, width, height in input pixels); `shape` is that of the
    /// whole output. None if it has no pixels.
    #[expect(clippy::cast_possible_truncation, reason = "sides of outputs are 32 bits")]
    pub(super) fn decode(
        &self,
        values: &[f32],
        shape: [usize; 4],
        filter: &Filter<'_>,
        content: [u32; 4],
    ) -> Option<Map> {
        let (rows, columns) = match self.order {
            Order::Planes | Order::OneAndNumbers => (shape[2], shape[3]),
            Order::Pixels | Order::Numbers | Order::NumbersAndOne => (shape[1], shape[2]),
        };
        if rows == 0 || columns == 0 || u32::try_from(rows * columns).is_err() {
            return None;
        }
        let [left, top, width, height] = content;
        let (from_x, to_x) = touched(left, width, self.size[0], columns);
        let (from_y, to_y) = touched(top, height, self.size[1], rows);
        // By the output's number of a class what the map has for it.
        let mut names = [Mask::NONE; 256];
        for class in (0..self.classes.min(usize::from(Mask::NONE))).filter(|class| filter.wants(*class as u32)) {
            names[class + usize::from(self.background)] = class as u8;
        }
        let mut classes = Vec::with_capacity((to_x - from_x) * (to_y - from_y));
        let mut best = vec![(f32::MIN, 0u8); if self.order == Order::Planes { to_x - from_x } else { 0 }];
        for y in from_y..to_y {
            match self.order {
                Order::Pixels => {
                    let channels = self.channels();
                    let row = values.get((y * columns + from_x) * channels..)?.get(..(to_x - from_x) * channels)?;
                    classes.extend(row.chunks_exact(channels).map(|pixel| names[usize::from(largest(pixel))]));
                }
                Order::Planes => {
                    best.fill((f32::MIN, 0));
                    for channel in 0..self.channels() {
                        let start = (channel * rows + y) * columns + from_x;
                        let row = values.get(start..)?.get(..to_x - from_x)?;
                        for (best, value) in best.iter_mut().zip(row) {
                            if *value > best.0 {
                                *best = (*value, channel as u8);
                            }
                        }
                    }
                    classes.extend(best.iter().map(|(_, channel)| names[usize::from(*channel)]));
                }
                Order::Numbers | Order::OneAndNumbers | Order::NumbersAndOne => {
                    let row = values.get(y * columns + from_x..)?.get(..to_x - from_x)?;
                    classes.extend(row.iter().map(|number| names[usize::from(whole(*number))]));
                }
            }
        }
        let at = |place: usize, side: u32, count: usize| place as f32 * side as f32 / count as f32;
        let covers = [
            at(from_x, self.size[0], columns),
            at(from_y, self.size[1], rows),
            at(to_x, self.size[0], columns),
            at(to_y, self.size[1], rows),
        ];
        Some(Map { size: [(to_x - from_x) as u32, (to_y - from_y) as u32], classes, covers })
    }
}

/// First and last, exclusive, of `count` equal parts of `side` that `from..from + length` touches; one at least.
fn touched(from: u32, length: u32, side: u32, count: usize) -> (usize, usize) {
    let (from, to, side) = (u64::from(from), u64::from(from) + u64::from(length), u64::from(side).max(1));
    let whole = count as u64;
    let first = (from * whole / side).min(whole - 1);
    let last = (to * whole).div_ceil(side).clamp(first + 1, whole);
    (usize::try_from(first).unwrap_or(0), usize::try_from(last).unwrap_or(count))
}

/// Index of the largest number, of 256 at most; NaN never wins, and of equal ones the first does.
#[expect(clippy::cast_possible_truncation, reason = "a manifest has no more classes")]
fn largest(pixel: &[f32]) -> u8 {
    let (mut best, mut most) = (0, f32::MIN);
    for (channel, value) in pixel.iter().enumerate() {
        if *value > most {
            (best, most) = (channel as u8, *value);
        }
    }
    best
}

/// The number of a class, or 255, which is no class's, for what is none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of 0..255")]
fn whole(number: f32) -> u8 {
    if (0.0..255.0).contains(&number) { number.round() as u8 } else { u8::MAX }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const ALL: Filter<'static> = Filter { score_threshold: 0.0, classes: None };
    const NONE: u8 = Mask::NONE;

    fn map(argmax: &Argmax, values: &[f32], shape: [usize; 4], content: [u32; 4]) -> Map {
        argmax.decode(values, shape, &ALL, content).unwrap()
    }

    #[test]
    fn planes_pixels_and_numbers_say_the_same() {
        // Two rows of three pixels: background, class 0, class 1 in the first, class 1, NaN everywhere, class 0 below.
        let winners = [0usize, 1, 2, 2, 9, 1];
        let logit = |pixel: usize, class: usize| match winners[pixel] {
            9 => f32::NAN,
            winner if winner == class => 3.0,
            _ => -1.0,
        };
        let planes: Vec<f32> = (0..3).flat_map(|class| (0..6).map(move |pixel| logit(pixel, class))).collect();
        let pixels: Vec<f32> = (0..6).flat_map(|pixel| (0..3).map(move |class| logit(pixel, class))).collect();
        let numbers = [0.0, 1.0, 2.0, 2.0, f32::NAN, 1.0];
        let new = |layout, shape: &[i64]| Argmax::new(2, true, layout, [30, 20], shape);
        let whole = [0, 0, 30, 20];
        let expected = Map { size: [3, 2], classes: vec![NONE, 0, 1, 1, NONE, 0], covers: [0.0, 0.0, 30.0, 20.0] };
        assert_eq!(map(&new(Layout::Nchw, &[1, 3, 2, 3]), &planes, [1, 3, 2, 3], whole), expected);
        assert_eq!(map(&new(Layout::Nhwc, &[1, 2, 3, 3]), &pixels, [1, 2, 3, 3], whole), expected);
        assert_eq!(map(&new(Layout::Nchw, &[1, 2, 3]), &numbers, [1, 2, 3, 0], whole), expected);
        assert_eq!(map(&new(Layout::Nchw, &[1, 1, 2, 3]), &numbers, [1, 1, 2, 3], whole), expected);
        assert_eq!(map(&new(Layout::Nhwc, &[1, 2, 3, 1]), &numbers, [1, 2, 3, 1], whole), expected);
    }

    #[test]
    fn without_background_the_first_class_is_one() {
        let argmax = Argmax::new(3, false, Layout::Nchw, [3, 1], &[1, 1, 3]);
        assert_eq!(map(&argmax, &[0.0, 2.0, 3.0], [1, 1, 3, 0], [0, 0, 3, 1]).classes, [0, 2, NONE]);
        let only = Filter { score_threshold: 0.9, classes: Some(&[2]) };
        let found = argmax.decode(&[0.0, 2.0, 254.6], [1, 1, 3, 0], &only, [0, 0, 3, 1]).unwrap();
        assert_eq!(found.classes, [NONE, 2, NONE], "what is not wanted is none");
    }

    #[test]
    fn what_lies_around_the_picture_is_left_out() {
        // A picture on the middle half of the input's height; the output has a pixel for each four.
        let argmax = Argmax::new(9, true, Layout::Nchw, [16, 16], &[1, 4, 4]);
        let numbers: Vec<f32> = (0..16u8).map(|number| f32::from(number % 10)).collect();
        let found = map(&argmax, &numbers, [1, 4, 4, 0], [0, 4, 16, 8]);
        assert_eq!((found.size, found.covers), ([4, 2], [0.0, 4.0, 16.0, 12.0]));
        assert_eq!(found.classes, [3, 4, 5, 6, 7, 8, NONE, 0]);
        // One that ends within a pixel of the output has all of that.
        let found = map(&argmax, &numbers, [1, 4, 4, 0], [0, 0, 9, 3]);
        assert_eq!((found.size, found.covers), ([3, 1], [0.0, 0.0, 12.0, 4.0]));
    }

    #[test]
    fn too_few_values_are_no_map() {
        let argmax = Argmax::new(2, true, Layout::Nchw, [4, 4], &[1, 3, 4, 4]);
        assert_eq!(argmax.decode(&[0.0; 47], [1, 3, 4, 4], &ALL, [0, 0, 4, 4]), None);
        assert_eq!(argmax.decode(&[], [1, 3, 0, 4], &ALL, [0, 0, 4, 4]), None);
    }
}
