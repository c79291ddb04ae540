use super::{Axis, Mix};

/// The three inner loops. All implementations give the same bits: none fuses a multiplication and an addition.
pub(super) trait Kernel: Copy {
    /// `first + (second − first) · weight` for each sample; the last value is written twice.
    fn blend(self, first: &[u8], second: &[u8], weight: f32, out: &mut [f32]);
    /// Linear interpolation of `row` at the axis's positions; `row` is one longer than the axis's source.
    fn sample(self, row: &[f32], axis: &Axis, out: &mut [f32]);
    /// One channel of a row.
    fn mix(self, mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]);
}

/// Plain loops in the instructions that the build allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    fn blend(self, first: &[u8], second: &[u8], weight: f32, out: &mut [f32]) {
        blend(first, second, weight, out);
    }

    fn sample(self, row: &[f32], axis: &Axis, out: &mut [f32]) {
        sample_from(0, row, axis, out);
    }

    fn mix(self, mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
        mix_rows(mix, y, cb, cr, out);
    }
}

#[inline(always)]
pub(super) fn blend(first: &[u8], second: &[u8], weight: f32, out: &mut [f32]) {
    for ((first, second), out) in first.iter().zip(second).zip(&mut *out) {
        let (first, second) = (f32::from(*first), f32::from(*second));
        *out = first + (second - first) * weight;
    }
    if let [.., last, repeated] = out {
        *repeated = *last;
    }
}

/// Positions from `start` on.
#[inline(always)]
pub(super) fn sample_from(start: usize, row: &[f32], axis: &Axis, out: &mut [f32]) {
    for ((index, weight), out) in axis.index.iter().zip(&axis.weight).zip(out).skip(start) {
        let (first, second) = (row[*index as usize], row[*index as usize + 1]);
        *out = first + (second - first) * weight;
    }
}

#[inline(always)]
pub(super) fn mix_rows(mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
    for (((y, cb), cr), out) in y.iter().zip(cb).zip(cr).zip(out) {
        let pixel = (y * mix.y + cb * mix.cb + cr * mix.cr + mix.base).clamp(0.0, 255.0);
        *out = pixel * mix.scale + mix.offset;
    }
}
