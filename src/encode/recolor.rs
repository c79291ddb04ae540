use crate::media::{ColorInfo, ColorRange, I420};

/// Fractional bits of the factors.
const SHIFT: u32 = 14;

/// Writes the codes that mean in `to` what the picture's codes mean in `from`; both pictures have the same size.
///
/// Both meanings are affine in the same RGB values, so one is affine in the other: luma depends on all three codes,
/// chroma on chroma alone.
pub(super) fn recolor(picture: &I420, from: ColorInfo, to: ColorInfo, target: &mut I420) {
    let factors = Factors::new(from, to);
    let ([luma_stride, chroma_stride, _], [luma, cb, cr]) = (picture.strides(), picture.planes());
    let [to_luma, to_cb, to_cr] = target.planes_mut();
    for (y, (luma, to_luma)) in luma.chunks_exact(luma_stride).zip(to_luma.chunks_exact_mut(luma_stride)).enumerate() {
        let start = y / 2 * chroma_stride;
        let (cb, cr) = (&cb[start..start + chroma_stride], &cr[start..start + chroma_stride]);
        for (x, (luma, to_luma)) in luma.iter().zip(to_luma).enumerate() {
            *to_luma = factors.luma(*luma, cb[x / 2], cr[x / 2]);
        }
    }
    for (((cb, cr), to_cb), to_cr) in cb.iter().zip(cr).zip(to_cb).zip(to_cr) {
        (*to_cb, *to_cr) = factors.chroma(*cb, *cr);
    }
}

/// Factors in units of 2⁻¹⁴.
struct Factors {
    /// Of luma and both chroma codes, and the constant.
    luma: [i32; 4],
    /// Of both chroma codes.
    cb: [i32; 2],
    cr: [i32; 2],
}

impl Factors {
    fn new(from: ColorInfo, to: ColorInfo) -> Self {
        let (kr, kb) = from.matrix.luma_weights();
        let (to_kr, to_kb) = to.matrix.luma_weights();
        // Luma and chroma in the target that come from chroma alone, all in 0..1 and -0.5..0.5.
        let chroma = |cb: f32, cr: f32| {
            let (r, b) = ((2.0 - 2.0 * kr) * cr, (2.0 - 2.0 * kb) * cb);
            let g = -(kr * r + kb * b) / (1.0 - kr - kb);
            let y = to_kr * r + (1.0 - to_kr - to_kb) * g + to_kb * b;
            [y, (b - y) / (2.0 - 2.0 * to_kb), (r - y) / (2.0 - 2.0 * to_kr)]
        };
        let ([y_cb, cb_cb, cr_cb], [y_cr, cb_cr, cr_cr]) = (chroma(1.0, 0.0), chroma(0.0, 1.0));
        let ((black, luma_scale, chroma_scale), (to_black, to_luma_scale, to_chroma_scale)) = (ends(from), ends(to));
        let (luma, mixed) = (to_luma_scale / luma_scale, to_luma_scale / chroma_scale);
        let chroma = to_chroma_scale / chroma_scale;
        Self {
            luma: [fixed(luma), fixed(mixed * y_cb), fixed(mixed * y_cr), fixed(to_black - luma * black + 0.5)],
            cb: [fixed(chroma * cb_cb), fixed(chroma * cb_cr)],
            cr: [fixed(chroma * cr_cb), fixed(chroma * cr_cr)],
        }
    }

    fn luma(&self, y: u8, cb: u8, cr: u8) -> u8 {
        let [of_y, of_cb, of_cr, constant] = self.luma;
        code(of_y * i32::from(y) + of_cb * (i32::from(cb) - 128) + of_cr * (i32::from(cr) - 128) + constant)
    }

    fn chroma(&self, cb: u8, cr: u8) -> (u8, u8) {
        const GREY: i32 = (128 << SHIFT) + (1 << (SHIFT - 1));
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        (code(self.cb[0] * cb + self.cb[1] * cr + GREY), code(self.cr[0] * cb + self.cr[1] * cr + GREY))
    }
}

/// Black's luma code, and the distances that stand for 1 in luma and in chroma.
const fn ends(color: ColorInfo) -> (f32, f32, f32) {
    match color.range {
        ColorRange::Limited => (16.0, 219.0, 224.0),
        ColorRange::Full => (0.0, 255.0, 255.0),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "factors are below 300")]
fn fixed(value: f32) -> i32 {
    (value * (1 << SHIFT) as f32).round() as i32
}

#[expect(clippy::cast_sign_loss, reason = "clamped to 0..255")]
fn code(value: i32) -> u8 {
    (value >> SHIFT).clamp(0, 255) as u8
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::media::ColorMatrix;

    #[test]
    fn a_colour_keeps_its_look_in_every_meaning() {
        let matrices = [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020];
        let ranges = [ColorRange::Limited, ColorRange::Full];
        let infos = matrices.into_iter().flat_map(|matrix| ranges.map(|range| ColorInfo { matrix, range }));
        for from in infos.clone() {
            for to in infos.clone() {
                for rgb in [[0, 0, 0], [255, 255, 255], [200, 30, 60], [20, 180, 90], [40, 60, 220]] {
                    let mut picture = I420::new(3, 3);
                    for (plane, code) in picture.planes_mut().into_iter().zip(from.from_rgb(rgb)) {
                        plane.fill(code);
                    }
                    let mut target = I420::new(3, 3);
                    recolor(&picture, from, to, &mut target);
                    let codes = target.planes().map(|plane| plane[plane.len() - 1]);
                    let expected = to.from_rgb(rgb);
                    let near = codes.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2);
                    assert!(near, "{rgb:?} {from:?} {to:?}: {codes:?} {expected:?}");
                }
            }
        }
    }
}
