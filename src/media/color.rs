/// Matrix between RGB and YCbCr (ITU-T H.273, table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ColorMatrix {
    /// ITU-R BT.601 (SMPTE 170M, BT.470BG).
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020, non-constant luminance.
    Bt2020,
}

impl ColorMatrix {
    /// Weights of red and blue in luma, `(Kr, Kb)`; green has the rest.
    #[must_use]
    pub const fn luma_weights(self) -> (f32, f32) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Which 8-bit codes stand for black and white.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ColorRange {
    /// Luma 16..235, chroma 16..240.
    #[default]
    Limited,
    /// 0..255.
    Full,
}

/// How a frame's YCbCr codes are meant. It is carried from the decoder to the model and to the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ColorInfo {
    /// Matrix between RGB and YCbCr.
    pub matrix: ColorMatrix,
    /// Meaning of the codes' ends.
    pub range: ColorRange,
}

impl ColorInfo {
    /// The codes of an RGB colour, each component 0..255: `[y, cb, cr]`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..255 first")]
    pub fn from_rgb(self, [r, g, b]: [u8; 3]) -> [u8; 3] {
        let (kr, kb) = self.matrix.luma_weights();
        let (r, g, b) = (f32::from(r) / 255.0, f32::from(g) / 255.0, f32::from(b) / 255.0);
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (cb, cr) = ((b - y) / (2.0 - 2.0 * kb), (r - y) / (2.0 - 2.0 * kr));
        let (y, cb, cr) = match self.range {
            ColorRange::Limited => (16.0 + 219.0 * y, 128.0 + 224.0 * cb, 128.0 + 224.0 * cr),
            ColorRange::Full => (255.0 * y, 128.0 + 255.0 * cb, 128.0 + 255.0 * cr),
        };
        [y, cb, cr].map(|code| code.round().clamp(0.0, 255.0) as u8)
    }

    /// The RGB colour of three codes, each component 0..255.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..255 first")]
    pub fn to_rgb(self, [y, cb, cr]: [u8; 3]) -> [u8; 3] {
        let (kr, kb) = self.matrix.luma_weights();
        let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
        let (y, cb, cr) = match self.range {
            ColorRange::Limited => ((y - 16.0) / 219.0, cb / 224.0, cr / 224.0),
            ColorRange::Full => (y / 255.0, cb / 255.0, cr / 255.0),
        };
        let (r, b) = (y + (2.0 - 2.0 * kr) * cr, y + (2.0 - 2.0 * kb) * cb);
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        [r, g, b].map(|value| (value * 255.0).round().clamp(0.0, 255.0) as u8)
    }
}

/// What a sender says of its colours beside the bitstream, where it overrides the bitstream. What it leaves open, the
/// bitstream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AnnouncedColor {
    /// Matrix between RGB and YCbCr.
    pub matrix: Option<ColorMatrix>,
    /// Meaning of the codes' ends.
    pub range: Option<ColorRange>,
}

impl AnnouncedColor {
    /// The meaning of codes whose bitstream says `bitstream`.
    #[must_use]
    pub fn over(self, bitstream: ColorInfo) -> ColorInfo {
        ColorInfo { matrix: self.matrix.unwrap_or(bitstream.matrix), range: self.range.unwrap_or(bitstream.range) }
    }
}

impl From<ColorInfo> for AnnouncedColor {
    fn from(ColorInfo { matrix, range }: ColorInfo) -> Self {
        Self { matrix: Some(matrix), range: Some(range) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_wins_and_the_rest_stays() {
        let bitstream = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Limited };
        assert_eq!(AnnouncedColor::default().over(bitstream), bitstream);
        let range = AnnouncedColor { range: Some(ColorRange::Full), matrix: None };
        assert_eq!(range.over(bitstream), ColorInfo { range: ColorRange::Full, ..bitstream });
        let all = ColorInfo { matrix: ColorMatrix::Bt2020, range: ColorRange::Full };
        assert_eq!(AnnouncedColor::from(all).over(bitstream), all);
    }

    #[test]
    fn white_and_black_take_the_ends_of_the_range() {
        let limited = ColorInfo::default();
        assert_eq!(limited.from_rgb([255; 3]), [235, 128, 128]);
        assert_eq!(limited.from_rgb([0; 3]), [16, 128, 128]);
        let full = ColorInfo { range: ColorRange::Full, ..limited };
        assert_eq!(full.from_rgb([255; 3]), [255, 128, 128]);
    }

    #[test]
    fn every_matrix_and_range_comes_back_within_rounding() {
        for matrix in [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020] {
            for range in [ColorRange::Limited, ColorRange::Full] {
                let info = ColorInfo { matrix, range };
                for rgb in [[255, 0, 0], [0, 255, 0], [0, 0, 255], [250, 210, 30], [12, 200, 99]] {
                    let back = info.to_rgb(info.from_rgb(rgb));
                    assert!(rgb.iter().zip(back).all(|(a, b)| a.abs_diff(b) <= 3), "{info:?} {rgb:?} {back:?}");
                }
            }
        }
    }
}
