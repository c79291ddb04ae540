use super::{ChromaAxis, LumaAxis, Mix};

/// The inner loops. All implementations give the same bits: none fuses a multiplication and an addition.
pub(super) trait Kernel: Copy {
    /// `first + (second − first) · weight` for each sample; the last value is repeated up to the end of `out`.
    fn blend_luma(self, rows: [&[u8]; 2], weight: f32, out: &mut [f32]);
    /// The weighted sum of three rows; the last value is repeated up to the end of `out`.
    fn blend_chroma(self, rows: [&[u8]; 3], weights: [f32; 3], out: &mut [f32]);
    /// Samples `row`, which is one longer than the axis's source, at the axis's positions.
    fn sample_luma(self, row: &[f32], axis: &LumaAxis, out: &mut [f32]);
    /// Samples `row`, which is three longer than the axis's source, at the axis's positions.
    fn sample_chroma(self, row: &[f32], axis: &ChromaAxis, out: &mut [f32]);
    /// One channel of a row.
    fn mix(self, mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]);
}

/// Plain loops in the instructions that the build allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    fn blend_luma(self, rows: [&[u8]; 2], weight: f32, out: &mut [f32]) {
        blend_luma(rows, weight, out);
    }

    fn blend_chroma(self, rows: [&[u8]; 3], weights: [f32; 3], out: &mut [f32]) {
        blend_chroma(rows, weights, out);
    }

    fn sample_luma(self, row: &[f32], axis: &LumaAxis, out: &mut [f32]) {
        sample_luma_from(0, row, axis, out);
    }

    fn sample_chroma(self, row: &[f32], axis: &ChromaAxis, out: &mut [f32]) {
        sample_chroma_from(0, row, axis, out);
    }

    fn mix(self, mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
        mix_rows(mix, y, cb, cr, out);
    }
}

#[inline(always)]
pub(super) fn blend_luma([first, second]: [&[u8]; 2], weight: f32, out: &mut [f32]) {
    let (values, rest) = out.split_at_mut(first.len());
    for ((first, second), out) in first.iter().zip(second).zip(&mut *values) {
        let (first, second) = (f32::from(*first), f32::from(*second));
        *out = first + (second - first) * weight;
    }
    rest.fill(values.last().copied().unwrap_or_default());
}

#[inline(always)]
pub(super) fn blend_chroma([first, second, third]: [&[u8]; 3], weights: [f32; 3], out: &mut [f32]) {
    let (values, rest) = out.split_at_mut(first.len());
    for (((first, second), third), out) in first.iter().zip(second).zip(third).zip(&mut *values) {
        *out = three_taps([f32::from(*first), f32::from(*second), f32::from(*third)], weights);
    }
    rest.fill(values.last().copied().unwrap_or_default());
}

#[inline(always)]
fn three_taps(values: [f32; 3], weights: [f32; 3]) -> f32 {
    values[0] * weights[0] + values[1] * weights[1] + values[2] * weights[2]
}

/// Positions from `start` on.
#[inline(always)]
pub(super) fn sample_luma_from(start: usize, row: &[f32], axis: &LumaAxis, out: &mut [f32]) {
    for ((index, weight), out) in axis.index.iter().zip(&axis.weight).zip(out).skip(start) {
        let (first, second) = (row[*index as usize], row[*index as usize + 1]);
        *out = first + (second - first) * weight;
    }
}

/// Positions from `start` on.
#[inline(always)]
pub(super) fn sample_chroma_from(start: usize, row: &[f32], axis: &ChromaAxis, out: &mut [f32]) {
    let [first, second, third] = &axis.weights;
    let weights = first.iter().zip(second).zip(third);
    for ((index, ((first, second), third)), out) in axis.index.iter().zip(weights).zip(out).skip(start) {
        let taps = &row[*index as usize..*index as usize + 3];
        *out = three_taps([taps[0], taps[1], taps[2]], [*first, *second, *third]);
    }
}

#[inline(always)]
pub(super) fn mix_rows(mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
    for (((y, cb), cr), out) in y.iter().zip(cb).zip(cr).zip(out) {
        let pixel = (y * mix.y + cb * mix.cb + cr * mix.cr + mix.base).clamp(0.0, 255.0);
        *out = pixel * mix.scale + mix.offset;
    }
}
