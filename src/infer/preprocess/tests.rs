#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::infer::manifest::Resize;
use crate::media::ColorMatrix;

pub(super) fn input(size: [u32; 2], layout: Layout, color: Channels, resize: Resize) -> Input {
    let (mean, scale) = ([127.0, 116.5, 3.0], [1.0 / 128.0, 0.5, 1.0]);
    Input { tensor: None, layout, color, size, resize, pad: 114.0, mean, scale }
}

/// A picture with gradients, edges and noise.
fn picture(width: u32, height: u32, seed: u32) -> I420 {
    let mut picture = I420::new(width, height);
    let mut state = seed;
    for plane in picture.planes_mut() {
        for (n, code) in plane.iter_mut().enumerate() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *code = if n % 7 < 3 { (state >> 24) as u8 } else { (n % 256) as u8 };
        }
    }
    picture
}

/// A plane as a function of real coordinates, its samples being at whole ones.
fn bilinear(sample: impl Fn(usize, usize) -> f64, width: usize, height: usize, x: f64, y: f64) -> f64 {
    let (x, y) = (x.clamp(0.0, (width - 1) as f64), y.clamp(0.0, (height - 1) as f64));
    let (left, top) = (x.floor() as usize, y.floor() as usize);
    let (right, bottom) = ((left + 1).min(width - 1), (top + 1).min(height - 1));
    let (u, v) = (x - x.floor(), y - y.floor());
    (sample(left, top) * (1.0 - u) + sample(right, top) * u) * (1.0 - v)
        + (sample(left, bottom) * (1.0 - u) + sample(right, bottom) * u) * v
}

/// The usual road in double precision: chroma upsampled to every luma sample, RGB there, then resized; the pixels are
/// cut to 0..255 at the end.
fn reference(input: &Input, picture: &I420, color: ColorInfo) -> Vec<f32> {
    let letterbox = Letterbox::new(input, picture.width(), picture.height());
    let [left, top, columns, rows] = letterbox.content();
    let [width, height] = input.size;
    let channels = input.color.count();
    let (luma_width, luma_height) = (picture.width() as usize, picture.height() as usize);
    let (chroma_width, chroma_height) = picture.chroma_size();
    let planes = picture.planes();
    let (kr, kb) = color.matrix.luma_weights();
    let (kr, kb) = (f64::from(kr), f64::from(kb));
    let rgb = |x: usize, y: usize| {
        let luma = f64::from(planes[0][y * luma_width + x]);
        let chroma = |plane: usize| {
            let sample = |x: usize, y: usize| f64::from(planes[plane][y * chroma_width + x]);
            bilinear(sample, chroma_width, chroma_height, x as f64 / 2.0 - 0.25, y as f64 / 2.0 - 0.25) - 128.0
        };
        let (luma, cb, cr) = match color.range {
            ColorRange::Limited => ((luma - 16.0) / 219.0, chroma(1) / 224.0, chroma(2) / 224.0),
            ColorRange::Full => (luma / 255.0, chroma(1) / 255.0, chroma(2) / 255.0),
        };
        let (red, blue) = (luma + 2.0 * (1.0 - kr) * cr, luma + 2.0 * (1.0 - kb) * cb);
        let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
        match input.color {
            Channels::Rgb => [red, green, blue],
            Channels::Bgr => [blue, green, red],
            Channels::Gray => [luma; 3],
        }
    };
    let full = (0..luma_height).flat_map(|y| (0..luma_width).map(move |x| (x, y))).map(|(x, y)| rgb(x, y));
    let full = full.collect::<Vec<_>>();
    let mut tensor = vec![0.0; input.item_len()];
    for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
        let inside = (left..left + columns).contains(&column) && (top..top + rows).contains(&row);
        for channel in (0..3).take(channels) {
            let pixel = if inside {
                let x = (f64::from(column - left) + 0.5) * f64::from(picture.width()) / f64::from(columns) - 0.5;
                let y = (f64::from(row - top) + 0.5) * f64::from(picture.height()) / f64::from(rows) - 0.5;
                let sample = |x: usize, y: usize| full[y * luma_width + x][channel];
                (bilinear(sample, luma_width, luma_height, x, y) * 255.0).clamp(0.0, 255.0)
            } else {
                f64::from(input.pad)
            };
            let place = match input.layout {
                Layout::Nchw => (channel * height as usize + row as usize) * width as usize + column as usize,
                Layout::Nhwc => (row as usize * width as usize + column as usize) * channels + channel,
            };
            tensor[place] = ((pixel - f64::from(input.mean[channel])) * f64::from(input.scale[channel])) as f32;
        }
    }
    tensor
}

pub(super) fn inputs() -> impl Strategy<Value = Input> {
    let layouts = prop::sample::select(vec![Layout::Nchw, Layout::Nhwc]);
    let colors = prop::sample::select(vec![Channels::Rgb, Channels::Bgr, Channels::Gray]);
    let resizes = prop::sample::select(vec![Resize::LetterboxCenter, Resize::LetterboxTopLeft, Resize::Stretch]);
    (8u32..70, 8u32..70, layouts, colors, resizes)
        .prop_map(|(w, h, layout, color, resize)| input([w, h], layout, color, resize))
}

pub(super) fn colors() -> impl Strategy<Value = ColorInfo> {
    let matrices = prop::sample::select(vec![ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020]);
    let ranges = prop::sample::select(vec![ColorRange::Limited, ColorRange::Full]);
    (matrices, ranges).prop_map(|(matrix, range)| ColorInfo { matrix, range })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_path_follows_the_definition(
        input in inputs(), color in colors(), width in 1u32..90, height in 1u32..90, seed in any::<u32>(),
    ) {
        let picture = picture(width, height, seed);
        let expected = reference(&input, &picture, color);
        let mut plain = vec![f32::NAN; input.item_len()];
        let mut fast = plain.clone();
        let place = Preprocessor::scalar(input.clone()).fill(&picture, color, &mut plain);
        prop_assert_eq!(place, Letterbox::new(&input, width, height));
        Preprocessor::new(input.clone()).fill(&picture, color, &mut fast);
        prop_assert_eq!(&plain, &fast, "both paths give the same bits");
        for (n, (value, expected)) in plain.iter().zip(&expected).enumerate() {
            prop_assert!((value - expected).abs() < 2e-2, "{} {} at {} of {:?}", value, expected, n, input);
        }
    }
}

#[test]
fn a_second_picture_leaves_nothing_of_the_first() {
    let input = input([32, 32], Layout::Nchw, Channels::Rgb, Resize::LetterboxCenter);
    let color = ColorInfo::default();
    let (wide, tall) = (picture(64, 20, 1), picture(20, 64, 2));
    let mut preprocessor = Preprocessor::new(input.clone());
    let mut tensor = vec![0.0; input.item_len()];
    preprocessor.fill(&wide, color, &mut tensor);
    preprocessor.fill(&tall, color, &mut tensor);
    let mut fresh = vec![0.0; input.item_len()];
    Preprocessor::new(input).fill(&tall, color, &mut fresh);
    assert_eq!(tensor, fresh);
}

#[test]
fn more_sizes_than_plans_still_work() {
    let input = input([16, 16], Layout::Nhwc, Channels::Bgr, Resize::Stretch);
    let mut preprocessor = Preprocessor::new(input.clone());
    let mut tensor = vec![0.0; input.item_len()];
    for round in 0..2 {
        for side in 1..=12 {
            preprocessor.fill(&picture(side, 13 - side, round), ColorInfo::default(), &mut tensor);
        }
    }
    assert_eq!(preprocessor.plans.len(), MAX_PLANS);
}
