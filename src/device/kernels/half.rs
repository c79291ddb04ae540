//! Half precision, IEEE 754 binary16, as the kernels read and write it.

/// The nearest number of half precision, of two equally near ones the even one (IEEE 754, section 4.3.1).
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "16 bits are left")]
pub fn to_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, rest) = ((bits >> 16 & 0x8000) as u16, bits & 0x7fff_ffff);
    let digits = (rest & 0x007f_ffff) | 0x0080_0000;
    // What is kept with the exponent above it, and how many bits of `digits` go: 13, more below the smallest normal number.
    let (kept, lost, bits_lost) = match rest {
        0x7f80_0001.. => return 0x7fff,
        0x4780_0000.. => return sign | 0x7c00,
        0x3880_0000.. => ((rest - 0x3800_0000) >> 13, digits, 13),
        0x3300_0000.. => (digits >> (126 - (rest >> 23)), digits, 126 - (rest >> 23)),
        _ => return sign,
    };
    let (lost, middle) = (lost & ((1 << bits_lost) - 1), 1 << (bits_lost - 1));
    let up = lost > middle || (lost == middle && kept & 1 == 1);
    sign | (kept as u16 + u16::from(up))
}

/// The value of a number of half precision.
#[must_use]
pub fn from_half(half: u16) -> f32 {
    let half = u32::from(half);
    let (sign, exponent, digits) = ((half & 0x8000) << 16, half >> 10 & 31, half & 0x3ff);
    match exponent {
        // 2⁻²⁴ is the smallest step; the product is exact.
        #[expect(clippy::cast_precision_loss, reason = "10 bits")]
        0 => f32::from_bits((digits as f32 / 16_777_216.0).to_bits() | sign),
        31 => f32::from_bits(sign | 0x7f80_0000 | digits << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | digits << 13),
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: sign, five bits of exponent, ten digits.
    fn by_definition(half: u16) -> f64 {
        let (exponent, digits) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff) / 1024.0);
        let size = match exponent {
            0 => digits * 2f64.powi(-14),
            31 if digits == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1.0 + digits) * 2f64.powi(exponent - 15),
        };
        if half & 0x8000 == 0 { size } else { -size }
    }

    #[test]
    fn every_number_is_read_and_written_back() {
        for half in 0..=u16::MAX {
            let (value, expected) = (f64::from(from_half(half)), by_definition(half));
            if expected.is_nan() {
                assert!(value.is_nan() && to_half(from_half(half)) & 0x7fff > 0x7c00, "{half:#x}");
            } else {
                assert_eq!(value.to_bits(), expected.to_bits(), "{half:#x}");
                assert_eq!(to_half(from_half(half)), half);
            }
        }
    }

    #[test]
    fn halfway_goes_to_the_even_one() {
        for half in 0..0x7bffu16 {
            let middle = f64::midpoint(by_definition(half), by_definition(half + 1)) as f32;
            let even = half + (half & 1);
            assert_eq!([to_half(middle), to_half(-middle)], [even, even | 0x8000], "{half:#x}");
            let (below, above) = (f32::from_bits(middle.to_bits() - 1), f32::from_bits(middle.to_bits() + 1));
            assert_eq!([to_half(below), to_half(above)], [half, half + 1], "{half:#x}");
        }
        assert_eq!([65_504.0, 65_519.0, 65_520.0, f32::MAX].map(to_half), [0x7bff, 0x7bff, 0x7c00, 0x7c00]);
    }

    proptest! {
        #[test]
        fn none_is_nearer(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.abs() < 65_504.0);
            let half = to_half(value);
            let off = |half: u16| (by_definition(half) - f64::from(value)).abs();
            prop_assert!(off(half) <= off(half.wrapping_add(1)) || half & 0x7fff == 0x7bff);
            prop_assert!(half & 0x7fff == 0 || off(half) <= off(half - 1));
        }
    }
}
