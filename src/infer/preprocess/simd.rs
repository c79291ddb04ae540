//! The loops of [`kernel`](super::kernel) in AVX2.
#![allow(unsafe_code, reason = "a SIMD backend: calls into functions with target features, and pair loads")]

use super::kernel::{self, Kernel};
use super::{Axis, Mix};

/// Proof that the CPU has AVX2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

#[cfg(not(target_arch = "x86_64"))]
impl Avx2 {
    pub(super) const fn detect() -> Option<Self> {
        None
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Kernel for Avx2 {
    fn blend(self, first: &[u8], second: &[u8], weight: f32, out: &mut [f32]) {
        kernel::Scalar.blend(first, second, weight, out);
    }

    fn sample(self, row: &[f32], axis: &Axis, out: &mut [f32]) {
        kernel::Scalar.sample(row, axis, out);
    }

    fn mix(self, mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
        kernel::Scalar.mix(mix, y, cb, cr, out);
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx2 {
    fn blend(self, first: &[u8], second: &[u8], weight: f32, out: &mut [f32]) {
        // SAFETY: a value of this type exists only where AVX2 was detected.
        unsafe { x86::blend(first, second, weight, out) }
    }

    fn sample(self, row: &[f32], axis: &Axis, out: &mut [f32]) {
        // SAFETY: a value of this type exists only where AVX2 was detected.
        unsafe { x86::sample(row, axis, out) }
    }

    fn mix(self, mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
        // SAFETY: a value of this type exists only where AVX2 was detected.
        unsafe { x86::mix(mix, y, cb, cr, out) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128, __m128i, _mm_castsi128_ps, _mm_loadl_epi64, _mm_unpacklo_epi64, _mm256_add_ps, _mm256_loadu_ps,
        _mm256_mul_ps, _mm256_set_m128, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_sub_ps,
    };

    use super::super::{Axis, Mix};
    use super::kernel;

    // The compiler vectorises these two well once it may use the wider registers.
    #[target_feature(enable = "avx2")]
    pub(super) fn blend(first: &[u8], second: &[u8], weight: f32, out: &mut [f32]) {
        kernel::blend(first, second, weight, out);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn mix(mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
        kernel::mix_rows(mix, y, cb, cr, out);
    }

    /// Eight positions a turn. The two samples of a position lie side by side, so one 8-byte load fetches both;
    /// shuffles then gather all first and all second samples.
    #[target_feature(enable = "avx2")]
    pub(super) fn sample(row: &[f32], axis: &Axis, out: &mut [f32]) {
        assert!(row.len() > axis.source, "a row is one sample longer than its axis");
        let whole = out.len().min(axis.index.len()) / 8 * 8;
        let weights = axis.weight.chunks_exact(8);
        for ((index, weight), out) in axis.index.chunks_exact(8).zip(weights).zip(out.chunks_exact_mut(8)) {
            // SAFETY: every index is below `axis.source` (its constructor clamps them), so that the sample after it
            // lies inside `row` by the assertion above; `weight` and `out` are eight values long.
            unsafe {
                let pair = |n: usize| _mm_loadl_epi64(row.as_ptr().add(index[n] as usize).cast::<__m128i>());
                let two = |n: usize| -> __m128 { _mm_castsi128_ps(_mm_unpacklo_epi64(pair(n), pair(n + 1))) };
                let low = _mm256_set_m128(two(4), two(0));
                let high = _mm256_set_m128(two(6), two(2));
                let first = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
                let second = _mm256_shuffle_ps::<0b11_01_11_01>(low, high);
                let weight = _mm256_loadu_ps(weight.as_ptr());
                let value = _mm256_add_ps(first, _mm256_mul_ps(_mm256_sub_ps(second, first), weight));
                _mm256_storeu_ps(out.as_mut_ptr(), value);
            }
        }
        kernel::sample_from(whole, row, axis, out);
    }
}
