//! The one thing that matters of EXIF here: which way up a picture is. Pure.

use super::orientation::Orientation;

/// Tag of the orientation (EXIF 2.32 section 4.6.4).
const ORIENTATION: u16 = 0x0112;
/// Types that its value may have.
const SHORT: u16 = 3;
const LONG: u16 = 4;

/// The orientation that a TIFF structure tells; upright where it tells none, or nothing that is known.
pub(super) fn orientation(tiff: &[u8]) -> Orientation {
    find(tiff).and_then(Orientation::from_exif).unwrap_or_default()
}

fn find(tiff: &[u8]) -> Option<u32> {
    let big = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let first = usize::try_from(long(4)?).ok()?;
    let entries = usize::from(short(first)?);
    for entry in 0..entries {
        let at = first.checked_add(2 + entry * 12)?;
        if short(at)? == ORIENTATION {
            return match short(at + 2)? {
                SHORT => short(at + 8).map(u32::from),
                LONG => long(at + 8),
                _ => None,
            };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_byte_orders_are_read_and_nonsense_is_upright() {
        let big = b"MM\0*\0\0\0\x08\0\x02\x01\0\0\x03\0\0\0\x01\0\x01\0\0\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x03\0\0\0";
        assert_eq!(orientation(big), Orientation::Clockwise90);
        assert_eq!(orientation(little), Orientation::Half);
        for len in 0..big.len() - 3 {
            assert_eq!(orientation(&big[..len]), Orientation::Upright, "{len} bytes");
        }
        let mut wrong = *little;
        wrong[18] = 9;
        assert_eq!(orientation(&wrong), Orientation::Upright);
        wrong[4..8].fill(0xff);
        assert_eq!(orientation(&wrong), Orientation::Upright);
    }
}
