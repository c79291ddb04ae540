/// e to the power of `x`, correctly rounded but for less than one number in a million.
///
/// It consists of additions and multiplications in double precision alone, each rounded on its own, so that a device gives
/// the same bits, which the library functions of host and device don't. `x` is a power of two and a rest of at most half
/// a ln 2 (Muller, Elementary Functions, chapter 11); the rest goes through eleven terms of Taylor's series, which leave out
/// less than 1e-14 of the value.
pub(super) fn exp(x: f32) -> f32 {
    const COEFFICIENTS: [f64; 12] = [
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
        1.0,
        1.0,
    ];
    /// 1.5 · 2⁵²: what is added to it is rounded to a whole number.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    if x.is_nan() {
        return x;
    }
    if x > 89.0 {
        return f32::INFINITY;
    }
    if x < -104.0 {
        return 0.0;
    }
    let exponent = f64::from(x);
    let power = exponent * std::f64::consts::LOG2_E + MAGIC - MAGIC;
    let rest = exponent - power * std::f64::consts::LN_2;
    let sum = COEFFICIENTS.iter().fold(0.0, |sum, coefficient| sum * rest + coefficient);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1023 − 151 to 1023 + 129")]
    let factor = f64::from_bits(((power as i64 + 1023) as u64) << 52);
    #[expect(clippy::cast_possible_truncation, reason = "the rounding that is meant")]
    let value = (sum * factor) as f32;
    value
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::exp;

    /// The library's, in double precision and rounded.
    fn rounded(x: f32) -> f32 {
        f64::from(x).exp() as f32
    }

    #[test]
    fn it_is_the_rounded_value() {
        let mut x = -105f32;
        let mut looked_at = 0;
        while x < 90.0 {
            assert_eq!(exp(x).to_bits(), rounded(x).to_bits(), "{x}");
            x += x.abs().max(1e-3) * 1.3e-4;
            looked_at += 1;
        }
        assert!(looked_at > 100_000, "{looked_at}");
    }

    #[test]
    fn the_ends_are_those_of_single_precision() {
        for x in [0.0, -0.0, f32::MIN_POSITIVE, 1.0, -1.0, 88.722_84, 88.722_85, 89.0, -87.4, -103.3, -103.98, -104.0] {
            assert_eq!(exp(x).to_bits(), rounded(x).to_bits(), "{x}");
        }
        assert_eq!([f32::INFINITY, f32::MAX, 90.0].map(exp), [f32::INFINITY; 3]);
        assert_eq!([f32::NEG_INFINITY, f32::MIN, -105.0].map(exp), [0.0; 3]);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(2f32.ln()), 2.0);
    }
}
