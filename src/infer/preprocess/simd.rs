//! The loops of [`kernel`](super::kernel) in AVX2.
#![allow(unsafe_code, reason = "a SIMD backend: calls into functions with target features, and unaligned loads")]

#[cfg(not(target_arch = "x86_64"))]
use super::kernel as loops;
use super::kernel::Kernel;
use super::{ChromaAxis, LumaAxis, Mix};
#[cfg(target_arch = "x86_64")]
use x86 as loops;

/// Proof that the CPU has AVX2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    #[cfg(target_arch = "x86_64")]
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) const fn detect() -> Option<Self> {
        None
    }
}

#[cfg_attr(not(target_arch = "x86_64"), allow(unused_unsafe, reason = "the portable loops are safe"))]
impl Kernel for Avx2 {
    fn blend_luma(self, rows: [&[u8]; 2], weight: f32, out: &mut [f32]) {
        // SAFETY: a value of this type exists only where AVX2 was detected.
        unsafe { loops::blend_luma(rows, weight, out) }
    }

    fn blend_chroma(self, rows: [&[u8]; 3], weights: [f32; 3], out: &mut [f32]) {
        // SAFETY: a value of this type exists only where AVX2 was detected.
        unsafe { loops::blend_chroma(rows, weights, out) }
    }

    fn sample_luma(self, row: &[f32], axis: &LumaAxis, out: &mut [f32]) {
        // SAFETY: a value of this type exists only where AVX2 was detected.
        unsafe { loops::sample_luma_from(0, row, axis, out) }
    }

    fn sample_chroma(self, row: &[f32], axis: &ChromaAxis, out: &mut [f32]) {
        // SAFETY: a value of this type exists only where AVX2 was detected.
        unsafe { loops::sample_chroma_from(0, row, axis, out) }
    }

    fn mix(self, mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
        // SAFETY: a value of this type exists only where AVX2 was detected.
        unsafe { loops::mix_rows(mix, y, cb, cr, out) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256, _mm_castsi128_ps, _mm_loadl_epi64, _mm_loadu_ps, _mm_unpacklo_epi64, _mm256_add_ps,
        _mm256_loadu_ps, _mm256_mul_ps, _mm256_set_m128, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_sub_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };

    use super::super::{ChromaAxis, LumaAxis, Mix, kernel};

    const LANES: usize = 8;

    // The compiler vectorises these three well once it may use the wider registers.
    #[target_feature(enable = "avx2")]
    pub(super) fn blend_luma(rows: [&[u8]; 2], weight: f32, out: &mut [f32]) {
        kernel::blend_luma(rows, weight, out);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn blend_chroma(rows: [&[u8]; 3], weights: [f32; 3], out: &mut [f32]) {
        kernel::blend_chroma(rows, weights, out);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn mix_rows(mix: &Mix, y: &[f32], cb: &[f32], cr: &[f32], out: &mut [f32]) {
        kernel::mix_rows(mix, y, cb, cr, out);
    }

    /// Eight positions a turn. The two samples of a position lie side by side, so one 8-byte load fetches both;
    /// shuffles then gather all first and all second samples.
    #[target_feature(enable = "avx2")]
    pub(super) fn sample_luma_from(start: usize, row: &[f32], axis: &LumaAxis, out: &mut [f32]) {
        assert!(row.len() > axis.source, "a row is one sample longer than its axis");
        let mut done = start;
        let turns = axis.index[start..].chunks_exact(LANES).zip(axis.weight[start..].chunks_exact(LANES));
        for ((index, weight), out) in turns.zip(out[start..].chunks_exact_mut(LANES)) {
            // SAFETY: every index is below `axis.source` (its constructor clamps them), so that the sample after it
            // lies inside `row` by the assertion above; `weight` and `out` are eight values long.
            unsafe {
                let pair = |n: usize| _mm_loadl_epi64(row.as_ptr().add(index[n] as usize).cast::<__m128i>());
                let two = |n: usize| _mm_castsi128_ps(_mm_unpacklo_epi64(pair(n), pair(n + 1)));
                let low = _mm256_set_m128(two(4), two(0));
                let high = _mm256_set_m128(two(6), two(2));
                let first = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
                let second = _mm256_shuffle_ps::<0b11_01_11_01>(low, high);
                let weight = _mm256_loadu_ps(weight.as_ptr());
                let value = _mm256_add_ps(first, _mm256_mul_ps(_mm256_sub_ps(second, first), weight));
                _mm256_storeu_ps(out.as_mut_ptr(), value);
            }
            done += LANES;
        }
        kernel::sample_luma_from(done, row, axis, out);
    }

    /// Eight positions a turn: four samples from each position on are loaded, and a transposition puts the first, the
    /// second and the third ones together.
    #[target_feature(enable = "avx2")]
    pub(super) fn sample_chroma_from(start: usize, row: &[f32], axis: &ChromaAxis, out: &mut [f32]) {
        assert!(row.len() >= axis.source + 3, "a row is three samples longer than its axis");
        let [first, second, third] = axis.weights.each_ref().map(|weights| weights[start..].chunks_exact(LANES));
        let turns = axis.index[start..].chunks_exact(LANES).zip(first.zip(second.zip(third)));
        let mut done = start;
        for ((index, (first, (second, third))), out) in turns.zip(out[start..].chunks_exact_mut(LANES)) {
            // SAFETY: every index is below `axis.source` (its constructor clamps them), so that the three samples
            // after it lie inside `row` by the assertion above; weights and `out` are eight values long.
            unsafe {
                let four = |n: usize| _mm_loadu_ps(row.as_ptr().add(index[n] as usize));
                let [a, b, c, d] = [0, 1, 2, 3].map(|n: usize| _mm256_set_m128(four(n + 4), four(n)));
                // In both halves: a0 b0 a1 b1 and c0 d0 c1 d1, then a2 b2 a3 b3 and c2 d2 c3 d3.
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                let tap = |values: __m256, weights: &[f32]| _mm256_mul_ps(values, _mm256_loadu_ps(weights.as_ptr()));
                let sum = _mm256_add_ps(
                    tap(_mm256_shuffle_ps::<0b01_00_01_00>(ab, cd), first),
                    tap(_mm256_shuffle_ps::<0b11_10_11_10>(ab, cd), second),
                );
                let third = tap(_mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high), third);
                _mm256_storeu_ps(out.as_mut_ptr(), _mm256_add_ps(sum, third));
            }
            done += LANES;
        }
        kernel::sample_chroma_from(done, row, axis, out);
    }
}
