//! From a frame's planes to the model's tensor in one pass: bilinear sampling of luma and chroma, colour conversion,
//! mean and scale, layout; no RGB picture in between.
//!
//! The values are those of the usual road: chroma upsampled to full size (bilinear), converted to RGB, resized with
//! OpenCV's `INTER_LINEAR` (pixel centres at half coordinates, edges repeated, no smoothing when the picture shrinks);
//! only that nothing is rounded on the way. Both steps on chroma are linear, so they are done as one with three taps.
//! Chroma is taken to lie in the middle of its four luma samples, as in JPEG and MPEG-1 and as browsers' capture makes
//! it; for streams with left-sited chroma (MPEG-2 and later) that is a quarter of a chroma sample off.

#[cfg(feature = "cuda")]
pub mod device;

mod kernel;
mod simd;

use self::kernel::{Kernel, Scalar};
use super::letterbox::Letterbox;
use super::manifest::{Channels, Input, Layout};
use crate::media::{ColorInfo, ColorRange, I420};

/// Source sizes whose tables are kept: as many sessions of different size may share a model without a rebuild.
const MAX_PLANS: usize = 8;

/// Writes pictures into one model's input tensor.
#[derive(Debug)]
pub struct Preprocessor {
    input: Input,
    simd: Option<simd::Avx2>,
    /// Most recently used first.
    plans: Vec<Plan>,
}

/// Tables and row buffers for one source size.
#[derive(Debug)]
struct Plan {
    size: (u32, u32),
    letterbox: Letterbox,
    axes: Axes,
    rows: Rows,
}

/// Where the positions that the picture covers sample it: across, then down.
#[derive(Debug)]
struct Axes {
    luma: [LumaAxis; 2],
    chroma: [ChromaAxis; 2],
}

#[derive(Debug)]
struct Rows {
    /// A source row blended from two; one sample longer than the source, the last one repeated.
    luma: Vec<f32>,
    /// A chroma row blended from three; three samples longer than the source, the last one repeated.
    chroma: Vec<f32>,
    /// The same, sampled at the target's columns: Y, Cb, Cr.
    sampled: [Vec<f32>; 3],
    /// One channel of a target row, for interleaved layouts.
    channel: Vec<f32>,
}

/// Where each target position samples one axis of the luma plane: between `index` and its successor.
#[derive(Debug)]
struct LumaAxis {
    index: Vec<u32>,
    /// Share of the successor.
    weight: Vec<f32>,
    /// Samples of the source; every index is below it.
    source: usize,
}

/// Where each target position samples one axis of a chroma plane: at `index` and its two successors.
#[derive(Debug)]
struct ChromaAxis {
    index: Vec<u32>,
    weights: [Vec<f32>; 3],
    /// Samples of the source; every index is below it.
    source: usize,
}

/// One output channel as a function of the codes: `clamp(y·y_factor + cb·cb_factor + cr·cr_factor + base, 0, 255)`,
/// then `· scale + offset`.
#[derive(Debug, Clone, Copy)]
struct Mix {
    y: f32,
    cb: f32,
    cr: f32,
    base: f32,
    scale: f32,
    offset: f32,
}

impl Preprocessor {
    /// For a model's input; it uses AVX2 where the CPU has it.
    #[must_use]
    pub fn new(input: Input) -> Self {
        Self { input, simd: simd::Avx2::detect(), plans: Vec::new() }
    }

    /// For a model's input, without SIMD instructions beyond the build's own.
    #[must_use]
    pub fn scalar(input: Input) -> Self {
        Self { input, simd: None, plans: Vec::new() }
    }

    /// Name of the instruction set in use, for people.
    #[must_use]
    pub const fn instructions(&self) -> &'static str {
        if self.simd.is_some() { "avx2" } else { "scalar" }
    }

    /// Writes `picture` into `tensor`, one item of the model's input in the manifest's layout, and says where it lies
    /// in it.
    ///
    /// # Panics
    /// If `tensor` is not [`Input::item_len`] long.
    pub fn fill(&mut self, picture: &I420, color: ColorInfo, tensor: &mut [f32]) -> Letterbox {
        assert_eq!(tensor.len(), self.input.item_len(), "one item of the input tensor");
        let size = (picture.width(), picture.height());
        if let Some(found) = self.plans.iter().position(|plan| plan.size == size) {
            self.plans[..=found].rotate_right(1);
        } else {
            self.plans.truncate(MAX_PLANS - 1);
            self.plans.insert(0, Plan::new(&self.input, size));
        }
        let plan = &mut self.plans[0];
        fill_padding(&self.input, &plan.letterbox, tensor);
        let mixes = mixes(&self.input, color);
        let mixes = &mixes[..self.input.color.count()];
        match self.simd {
            Some(avx2) => fill_content(avx2, &self.input, plan, mixes, picture, tensor),
            None => fill_content(Scalar, &self.input, plan, mixes, picture, tensor),
        }
        plan.letterbox
    }
}

impl Plan {
    fn new(input: &Input, size: (u32, u32)) -> Self {
        let letterbox = Letterbox::new(input, size.0, size.1);
        let axes = Axes::new(&letterbox, size);
        let columns = axes.luma[0].index.len();
        let rows = Rows {
            luma: vec![0.0; axes.luma[0].source + 1],
            chroma: vec![0.0; axes.chroma[0].source + 3],
            sampled: std::array::from_fn(|_| vec![0.0; columns]),
            channel: vec![0.0; columns],
        };
        Self { size, letterbox, axes, rows }
    }
}

impl Axes {
    /// For a picture of `size` that lies in the input as `letterbox` says.
    fn new(letterbox: &Letterbox, size: (u32, u32)) -> Self {
        let [_, _, columns, rows] = letterbox.content().map(|side| side as usize);
        let (width, height) = (size.0 as usize, size.1 as usize);
        let chroma = |luma: usize, target: usize| ChromaAxis::new(luma.div_ceil(2), luma, target);
        Self {
            luma: [LumaAxis::new(width, columns), LumaAxis::new(height, rows)],
            chroma: [chroma(width, columns), chroma(height, rows)],
        }
    }
}

/// The source sample at or before target position `at`, and the share of the next one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "sides of pictures"
)]
fn position(at: usize, step: f64, source: usize) -> (usize, f64) {
    let position = ((at as f64 + 0.5) * step - 0.5).clamp(0.0, (source - 1) as f64);
    (position as usize, position.fract())
}

#[expect(clippy::cast_precision_loss, reason = "sides of pictures")]
fn step(source: usize, target: usize) -> f64 {
    source as f64 / target as f64
}

impl LumaAxis {
    /// `target` positions over `source` samples.
    #[expect(clippy::cast_possible_truncation, reason = "sides of pictures and shares")]
    fn new(source: usize, target: usize) -> Self {
        let step = step(source, target);
        let positions = (0..target).map(|at| position(at, step, source));
        let (index, weight) = positions.map(|(index, share)| (index as u32, share as f32)).unzip();
        Self { index, weight, source }
    }

    /// The two source rows of a target row and the share of the second.
    fn rows<'a>(&self, at: usize, plane: &'a [u8], stride: usize) -> ([&'a [u8]; 2], f32) {
        let first = self.index[at] as usize;
        ([0, 1].map(|next| row(plane, stride, (first + next).min(self.source - 1))), self.weight[at])
    }
}

impl ChromaAxis {
    /// `target` positions over `luma` luma samples, of which each pair shares one of `source` chroma samples.
    #[expect(clippy::cast_possible_truncation, reason = "sides of pictures and shares")]
    fn new(source: usize, luma: usize, target: usize) -> Self {
        let step = step(luma, target);
        let mut axis = Self { index: Vec::with_capacity(target), weights: Default::default(), source };
        for at in 0..target {
            let (left, share) = position(at, step, luma);
            let (start, _) = position(left, 0.5, source);
            let mut weights = [0.0; 3];
            for (luma_at, luma_share) in [(left, 1.0 - share), ((left + 1).min(luma - 1), share)] {
                let (index, chroma_share) = position(luma_at, 0.5, source);
                weights[index - start] += luma_share * (1.0 - chroma_share);
                weights[(index + 1).min(source - 1) - start] += luma_share * chroma_share;
            }
            axis.index.push(start as u32);
            axis.weights.iter_mut().zip(weights).for_each(|(all, weight)| all.push(weight as f32));
        }
        axis
    }

    /// The three source rows of a target row and their shares.
    fn rows<'a>(&self, at: usize, plane: &'a [u8], stride: usize) -> ([&'a [u8]; 3], [f32; 3]) {
        let first = self.index[at] as usize;
        let rows = [0, 1, 2].map(|next| row(plane, stride, (first + next).min(self.source - 1)));
        (rows, self.weights.each_ref().map(|weights| weights[at]))
    }
}

fn row(plane: &[u8], stride: usize, at: usize) -> &[u8] {
    &plane[at * stride..(at + 1) * stride]
}

fn fill_content<K: Kernel>(
    kernel: K,
    input: &Input,
    plan: &mut Plan,
    mixes: &[Mix],
    picture: &I420,
    tensor: &mut [f32],
) {
    let [left, top, columns, rows] = plan.letterbox.content().map(|side| side as usize);
    let [width, height] = input.size.map(|side| side as usize);
    let (planes, strides) = (picture.planes(), picture.strides());
    let Plan { axes, rows: Rows { luma, chroma, sampled, channel }, .. } = plan;
    let gray = input.color == Channels::Gray;
    for row in 0..rows {
        let [y, cb, cr] = &mut *sampled;
        let (pair, weight) = axes.luma[1].rows(row, planes[0], strides[0]);
        kernel.blend_luma(pair, weight, luma);
        kernel.sample_luma(luma, &axes.luma[0], y);
        if !gray {
            for (plane, target) in [(1, cb), (2, cr)] {
                let (three, weights) = axes.chroma[1].rows(row, planes[plane], strides[plane]);
                kernel.blend_chroma(three, weights, chroma);
                kernel.sample_chroma(chroma, &axes.chroma[0], target);
            }
        }
        let [y, cb, cr] = &*sampled;
        for (n, mix) in mixes.iter().enumerate() {
            match input.layout {
                Layout::Nchw => {
                    let start = (n * height + top + row) * width + left;
                    kernel.mix(mix, y, cb, cr, &mut tensor[start..start + columns]);
                }
                Layout::Nhwc => {
                    kernel.mix(mix, y, cb, cr, channel);
                    let start = ((top + row) * width + left) * mixes.len();
                    let pixels = tensor[start..start + columns * mixes.len()].chunks_exact_mut(mixes.len());
                    pixels.zip(&*channel).for_each(|(pixel, value)| pixel[n] = *value);
                }
            }
        }
    }
}

fn fill_padding(input: &Input, letterbox: &Letterbox, tensor: &mut [f32]) {
    let [left, top, columns, rows] = letterbox.content().map(|side| side as usize);
    let [width, height] = input.size.map(|side| side as usize);
    if (columns, rows) == (width, height) {
        return;
    }
    let channels = input.color.count();
    let pad = padding(input);
    let mut fill = |row: usize, from: usize, to: usize| match input.layout {
        Layout::Nchw => {
            for (channel, value) in pad.iter().enumerate().take(channels) {
                let start = (channel * height + row) * width;
                tensor[start + from..start + to].fill(*value);
            }
        }
        Layout::Nhwc => {
            let start = row * width;
            let pixels = tensor[(start + from) * channels..(start + to) * channels].chunks_exact_mut(channels);
            pixels.for_each(|pixel| pixel.copy_from_slice(&pad[..channels]));
        }
    };
    for row in (0..top).chain(top + rows..height) {
        fill(row, 0, width);
    }
    for row in top..top + rows {
        fill(row, 0, left);
        fill(row, left + columns, width);
    }
}

/// Each channel's value around the picture.
fn padding(input: &Input) -> [f32; 3] {
    std::array::from_fn(|channel| (input.pad - input.mean[channel]) * input.scale[channel])
}

/// The input's channels from the codes (ITU-T H.273, section 8.3); of gray, the first is the only one.
fn mixes(input: &Input, color: ColorInfo) -> [Mix; 3] {
    let (kr, kb) = color.matrix.luma_weights();
    let kg = 1.0 - kr - kb;
    let (black, luma, chroma) = match color.range {
        ColorRange::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
        ColorRange::Full => (0.0, 1.0, 1.0),
    };
    let (red, blue) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
    let [red, green, blue] = [(0.0, red), (-blue * kb / kg, -red * kr / kg), (blue, 0.0)];
    let colors = match input.color {
        Channels::Rgb => [red, green, blue],
        Channels::Bgr => [blue, green, red],
        Channels::Gray => [(0.0, 0.0); 3],
    };
    let mix = |channel: usize| {
        let (cb, cr) = colors[channel];
        Mix {
            y: luma,
            cb: cb * chroma,
            cr: cr * chroma,
            base: -black * luma - 128.0 * chroma * (cb + cr),
            scale: input.scale[channel],
            offset: -input.mean[channel] * input.scale[channel],
        }
    };
    [0, 1, 2].map(mix)
}

#[cfg(test)]
mod tests;
